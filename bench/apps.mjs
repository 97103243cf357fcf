import { applications } from './apps/all.mjs'
import { checkResults } from './apps/application.mjs'
import { Members } from './lib/members.mjs'
import { placements } from './lib/placement.mjs'
import { makeLine } from './lib/report.mjs'
import { pool } from './lib/statistics.mjs'

/** A batch of one step would be all start. */
const tinySteps = 2
/** A row of Jacobi's cells. */
const messageBytes = 16_384
const messagesPerBatch = 200

/** The three ways of one computation, and how many processes each takes. */
const ways = { alone: 1, passing: 2, shared: 2 }
/** What members are held against. */
const floors = [
  {
    way: 'alone',
    words: 'one process',
    floor: 'the same step in one process with plain typed arrays',
  },
  {
    way: 'passing',
    words: 'messages by hand',
    floor: 'the same step in two processes that send each other messages over a Unix socket',
  },
]

export const takesTiny = true
export const summary = 'a step of whole applications, against one process and passing messages'

/** @param {{ rounds: number }} options */
export function countSteps({ rounds }) {
  return (Object.keys(applications).length + 1) * (rounds + 1)
}

/**
 * @param {{ rounds: number, transport?: string, tiny?: boolean }} options
 * @param {() => void} step called after each round
 * @returns {Promise<import('./lib/report.mjs').Line[]>}
 */
export async function run(options, step) {
  const lines = [await compareMessages(options, step)]
  for (const application of Object.values(applications)) {
    lines.push(...(await measure(application, options, step)))
  }
  return lines
}

/**
 * Which way to pass messages is the quicker one, and so the fair one to compare with.
 * @param {{ rounds: number, tiny?: boolean }} options
 * @param {() => void} step
 */
async function compareMessages({ rounds, tiny = false }, step) {
  const count = tiny ? tinySteps : messagesPerBatch
  /** @type {Record<string, ArrayLike<number>[]>} */
  const samples = { socket: [], channel: [] }
  const options = { bytes: messageBytes }
  const members = await Members.start('messages.mjs', { size: 1, options })
  try {
    for (let round = 0; round <= rounds; round++) {
      const ways = round % 2 === 0 ? ['socket', 'channel'] : ['channel', 'socket']
      for (const way of ways) {
        const samplesUs = await members.ask(0, 'pass', { way, count })
        if (round > 0) samples[way].push(samplesUs)
      }
      step()
    }
    await members.stop()
  } finally {
    await members.kill()
  }
  return makeLine({
    name: 'message there and back, Unix socket',
    rounds: samples.socket,
    floor: "the same by child_process's channel with advanced serialization",
    floorRounds: samples.channel,
    extra: { note: `${messageBytes / 1024} KiB each way, placed by the scheduler` },
  })
}

/**
 * Alternates batches of the three ways. There is no line unless all have computed the same.
 * @param {import('./apps/application.mjs').Application} application
 * @param {{ rounds: number, transport?: string, tiny?: boolean }} options
 * @param {() => void} step
 */
async function measure(application, { rounds, transport = 'tcp', tiny = false }, step) {
  const { name, sizes, stepsPerBatch } = application
  const size = tiny ? sizes.tiny : sizes.normal
  const count = tiny ? tinySteps : stepsPerBatch
  /** @type {Record<string, Members>} */
  const started = {}
  /** @type {Record<string, ArrayLike<number>[]>} */
  const samples = { alone: [], passing: [], shared: [] }
  /** @type {Record<string, Float64Array>} */
  const results = {}
  try {
    for (const [way, processes] of Object.entries(ways)) {
      started[way] = await Members.start('apps.mjs', {
        size: processes,
        cpus: processes === 1 ? undefined : placements().apart?.cpus,
        transport: way === 'shared' ? transport : 'tcp',
        options: { way, name, size },
      })
    }
    // Round 0 warms everything up and is not counted.
    for (let round = 0; round <= rounds; round++) {
      // Who comes first may matter: each does in turn.
      const order = Object.entries(started).map(
        (_, place, all) => all[(place + round) % all.length],
      )
      for (const [way, members] of order) {
        const [samplesUs] = await members.askAll('steps', { count })
        if (round > 0) samples[way].push(samplesUs)
      }
      step()
    }
    for (const [way, members] of Object.entries(started)) {
      results[way] = pool(await members.askAll('result'))
      await members.stop()
    }
  } finally {
    for (const members of Object.values(started)) await members.kill()
  }
  checkResults(application, results)
  return floors.map(({ way, words, floor }) =>
    makeLine({
      name: `${name}, against ${words}`,
      rounds: samples.shared,
      floor,
      floorRounds: samples[way],
      extra: { note: `${application.describe(size)}; 2 members` },
    }),
  )
}
