import { measureLines } from './lib/alternate.mjs'
import { Members } from './lib/members.mjs'
import { placements } from './lib/placement.mjs'
import { makeEmptyLine } from './lib/report.mjs'
import { reasonAgainstRedis, RedisServer } from './lib/redis.mjs'

const pageCount = 1024
const defaultCount = 500

/**
 * Ours is at rank 1, which also is the client of Redis: `before` brings about what ours finds.
 * @typedef {object} Comparison
 * @property {string} name
 * @property {string} floor
 * @property {string} redis the order that asks Redis
 * @property {(members: Members, args: Args) => Promise<ArrayLike<number>>} ours
 */
/** @typedef {{ count: number, seed: number, stamp: number, value: number }} Args */

/** @type {Comparison} */
export const firstRead = {
  name: 'first read of 4 KiB',
  floor: 'GET of 4 KiB',
  redis: 'get',
  async ours(members, args) {
    await members.ask(0, 'fill', args)
    await members.ask(1, 'read', args)
    await members.ask(1, 'discard')
    return members.ask(1, 'read', args)
  },
}

/** @type {Comparison[]} */
const comparisons = [
  firstRead,
  {
    ...firstRead,
    name: 'first read of 4 KiB of a large span',
    floor: `GETRANGE of 4 KiB in ${(pageCount * 4096) / 2 ** 20} MiB`,
    redis: 'getRange',
  },
  {
    name: 'write of 4 KiB that another member had',
    floor: 'SET of 4 KiB',
    redis: 'set',
    async ours(members, args) {
      await members.ask(0, 'fill', args)
      const [before, after] = [args.stamp, args.stamp + 1]
      const samplesUs = await members.ask(1, 'write', { ...args, stamps: { before, after } })
      await members.ask(0, 'check', { ...args, stamps: { first: after, last: before } })
      return samplesUs
    },
  },
  {
    name: "fetchAdd of another member's counter",
    floor: 'INCR',
    redis: 'increment',
    ours: (members, args) => members.ask(1, 'add', args),
  },
  {
    name: "load of another member's counter",
    floor: 'GET of a counter',
    redis: 'getCounter',
    ours: (members, { count }) => members.ask(1, 'load', { count }),
  },
]

export const summary = 'pages and counters against Redis, over a Unix socket and by ioredis'

/** @param {{ rounds: number }} options */
export function countSteps({ rounds }) {
  return comparisons.length * (rounds + 1)
}

/**
 * @param {{ faults?: number, rounds: number, transport?: string }} options
 * @param {() => void} step
 */
export async function run({ faults, rounds, transport }, step) {
  const how = { count: faults ?? defaultCount, rounds, transport }
  return measureAgainstRedis(comparisons, how, step)
}

/**
 * @param {(Comparison & { target?: number })[]} wanted
 * @param {{ count: number, rounds: number, transport?: string, mayInstall?: boolean }} how
 * @param {() => void} step
 */
export async function measureAgainstRedis(wanted, how, step) {
  const { rounds, transport, mayInstall = true } = how
  const count = Math.min(how.count, pageCount)
  const reason = reasonAgainstRedis({ mayInstall })
  if (reason !== undefined) {
    return wanted.map((comparison) => makeEmptyLine(comparison, `not measured: ${reason}`))
  }
  const { free, apart = free } = placements()
  const server = await RedisServer.start(apart.cpus?.[0])
  const members = await Members.start('redis.mjs', {
    cpus: apart.cpus,
    options: { pageCount, path: server.path },
    transport,
  })
  try {
    await members.ask(1, 'fillRedis', { stamp: 0 })
    const figures = wanted.map((comparison) => figureOf(comparison, { members, count, apart }))
    const lines = await measureLines(figures, rounds, step)
    await members.askAll('disconnect')
    await members.stop()
    return lines
  } finally {
    await members.kill()
    await server.stop()
  }
}

/**
 * @param {Comparison & { target?: number }} comparison
 * @param {{ members: Members, count: number, apart: import('./lib/placement.mjs').Placement }} where
 */
function figureOf(comparison, { members, count, apart }) {
  let stamp = 0
  // Both counters begin at 0, and both sides count up in their own batches.
  const values = { redis: 0, ours: 0 }
  return {
    name: comparison.name,
    target: comparison.target,
    atLeast: true,
    floor: {
      words: `Redis ${comparison.floor} by ioredis over a Unix socket, ${apart.words}`,
      async samplesUs() {
        const args = { count, seed: stamp, stamp: 0, value: values.redis }
        values.redis += count
        return members.ask(1, comparison.redis, args)
      },
    },
    samplesUs() {
      stamp += 2
      const args = { count, seed: stamp, stamp, value: values.ours }
      values.ours += count
      return comparison.ours(members, args)
    },
    extra: { note: 'the ratio is how many times quicker than Redis' },
  }
}
