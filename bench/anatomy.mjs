import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { alternate } from './lib/alternate.mjs'
import {
  alonePath,
  askedPath,
  joinMoments,
  readMoments,
  summarize,
  threeMemberPath,
} from './lib/anatomy.mjs'
import { formatAnatomy } from './lib/anatomy-table.mjs'
import { reasonAgainst } from './lib/capabilities.mjs'
import { Members } from './lib/members.mjs'
import { cpusFor, placements } from './lib/placement.mjs'
import { formatTable, makeLine } from './lib/report.mjs'
import { median } from './lib/statistics.mjs'

const memberCount = 3
const leastPages = 1024
const defaultFaults = 300
/** Of these stamps have room, and the pauses of those that sleep do not take minutes. */
const mostFaults = 5000
const pausesShare = 5
const stampsForEach = 100
const leastRoom = 10_000
/** Longer than anything looks for what comes before it sleeps. */
const pauseMs = 5
/** The member that faults, the home of the pages, and one that has written them. */
const ranks = { thread: 1, home: 0, owner: 2 }
const stampedFolder = fileURLToPath(new URL('../build-stamps/Release', import.meta.url))

/**
 * @typedef {{ count: number, seed: number, stamp: number, pauseMs?: number }} Pages
 * @typedef {object} Case
 * @property {string} name
 * @property {'read' | 'write'} kind
 * @property {number} [pauseMs]
 * @property {import('./lib/anatomy.mjs').Phase[]} [path] if no other can be
 * @property {(members: Members, pages: Pages) => Promise<void>} prepare brings the pages about
 */

/** @type {Case} */
const clean = {
  name: 'read, clean at home',
  kind: 'read',
  async prepare(members, pages) {
    // The first read makes the home lower its own access; the discard leaves the page there alone.
    await members.ask(ranks.home, 'fill', pages)
    await members.ask(ranks.thread, 'read', pages)
    await members.ask(ranks.thread, 'discard')
  },
}

/** @type {Case} */
const dirty = {
  name: 'read, dirty at home',
  kind: 'read',
  prepare: (members, pages) => members.ask(ranks.home, 'fill', pages),
}

/** @type {Case[]} */
const cases = [
  clean,
  { ...clean, name: `${clean.name}, all asleep`, pauseMs },
  dirty,
  { ...dirty, name: `${dirty.name}, all asleep`, pauseMs },
  {
    name: 'write, held by nobody',
    kind: 'write',
    async prepare(members, pages) {
      await clean.prepare(members, pages)
      await members.ask(ranks.home, 'discard')
    },
  },
  {
    name: 'upgrade, home the only other sharer',
    kind: 'write',
    async prepare(members, pages) {
      await members.ask(ranks.home, 'fill', pages)
      await members.ask(ranks.thread, 'read', pages)
    },
  },
  {
    name: 'read, dirty at a third member',
    kind: 'read',
    path: threeMemberPath,
    prepare: (members, pages) => members.ask(ranks.owner, 'fill', pages),
  },
]

export const summary = "where a fault's time goes: each phase and its share"

/** @param {{ rounds: number }} options */
export function countSteps({ rounds }) {
  return cases.length * (rounds + 1)
}

/** The addon that keeps time stamps is built for this benchmark alone, when it is needed. */
function buildStampedAddon() {
  const script = fileURLToPath(new URL('../scripts/cmake.mjs', import.meta.url))
  const { status, stdout, stderr } = spawnSync(process.execPath, [script, '--stamps'], {
    cwd: fileURLToPath(new URL('..', import.meta.url)),
    encoding: 'utf8',
  })
  if (status === 0) return
  const output = `${stdout}${stderr}`.trim()
  const advice = "'npm run setup -- --lint' brings cmake, which it needs"
  throw new Error(`the addon that keeps time stamps was not built; ${advice}\n${output}`)
}

/**
 * @param {{ faults?: number, rounds: number, transport?: string }} options
 * @param {() => void} step called after each batch
 * @returns {Promise<import('./lib/report.mjs').Line[]>}
 */
export async function run({ faults = defaultFaults, rounds, transport }, step) {
  if (faults > mostFaults)
    throw new Error(`anatomy takes at most ${mostFaults} faults in each batch`)
  buildStampedAddon()
  const { free, apart: placement = free } = placements()
  const how = {
    size: memberCount,
    cpus: cpusFor(placement, memberCount),
    transport: transport ?? (reasonAgainst('shm') === undefined ? 'shm' : 'tcp'),
    options: { pageCount: Math.max(leastPages, faults) },
  }
  const plain = await Members.start('anatomy.mjs', how)
  try {
    const stamped = await Members.start('anatomy.mjs', { ...how, addonFolder: stampedFolder })
    try {
      const where = { transport: how.transport, placement: placement.words }
      const lines = await measure({ plain, stamped }, { faults, rounds, ...where }, step)
      await stamped.stop()
      await plain.stop()
      return lines
    } finally {
      await stamped.kill()
    }
  } finally {
    await plain.kill()
  }
}

/**
 * @param {{ plain: Members, stamped: Members }} meshes
 * @param {{ faults: number, rounds: number, transport: string, placement: string }} what
 * @param {() => void} step
 */
async function measure({ plain, stamped }, { faults, rounds, transport, placement }, step) {
  const constants = await stamped.ask(ranks.thread, 'points')
  const clockUs = median(await stamped.ask(ranks.thread, 'readClock'))
  let seed = 0
  const figures = cases.map((one) => {
    const count = one.pauseMs === undefined ? faults : Math.ceil(faults / pausesShare)
    /** @type {ReturnType<typeof joinMoments>} */
    const joined = []
    return {
      name: one.name,
      joined,
      floor: {
        words: `the same with the addon that keeps no time stamps, over ${transport}, ${placement}`,
        async samplesUs() {
          const pages = { count, seed: (seed += 2), stamp: seed }
          return wholesUs(await touchAll(plain, one, pages))
        },
      },
      /** @param {number} round */
      async samplesUs(round) {
        const pages = { count, seed: (seed += 2), stamp: seed }
        const found = await dissect(stamped, one, pages, constants)
        if (round > 0) joined.push(...found)
        return found.map(({ wholeUs }) => wholeUs)
      },
    }
  })
  const results = await alternate(figures, rounds, step)
  return results.map(({ figure: { name, floor, joined }, rounds, floorRounds }) => {
    const { usual, others } = byPath(joined)
    const extra = { transport, clockUs, ...summarize(usual), takenAnotherWay: others }
    return makeLine({ name, rounds, floor: floor.words, floorRounds, extra })
  })
}

/**
 * Prepares the pages, and touches them; what was written is checked at the home.
 * @param {Members} members
 * @param {Case} one
 * @param {Pages} pages
 * @param {() => Promise<unknown>} [begin] called between the two
 */
async function touchAll(members, { kind, pauseMs, prepare }, pages, begin) {
  await prepare(members, pages)
  await begin?.()
  return members.ask(ranks.thread, kind, { ...pages, pauseMs })
}

/** @param {{ beforeNs: Float64Array, afterNs: Float64Array }} touched */
function wholesUs({ beforeNs, afterNs }) {
  return beforeNs.map((ns, index) => (afterNs[index] - ns) / 1e3)
}

/**
 * @param {Members} members whose addon keeps time stamps
 * @param {Case} one
 * @param {Pages} pages
 * @param {Record<string, number>} constants
 */
async function dissect(members, one, pages, constants) {
  const room = Math.max(leastRoom, stampsForEach * pages.count)
  const begin = () => members.askAll('stamps', { room })
  const { pages: touched, beforeNs, afterNs } = await touchAll(members, one, pages, begin)
  const kept = await members.askAll('stamps', { room: 0 })
  const moments = kept.flatMap((stamps, rank) => {
    if (stamps.length === 4 * room) throw new Error(`rank ${rank} had no room for all time stamps`)
    return readMoments(stamps, rank, constants)
  })
  if (one.kind === 'write') {
    const stamps = { first: pages.stamp + 1, last: pages.stamp }
    await members.ask(ranks.home, 'check', { ...pages, stamps })
  }
  const touches = Array.from(touched, (page, index) => {
    return { page, beforeNs: beforeNs[index], afterNs: afterNs[index] }
  })
  return joinMoments(touches, moments, ranks, (own) => {
    if (own.some(({ point }) => point === 'Copied')) return alonePath
    return one.path ?? askedPath
  })
}

/**
 * Which way most faults took: a thread may find the entry of its page busy, and ask after all.
 * @param {ReturnType<typeof joinMoments>} joined
 */
function byPath(joined) {
  const paths = [...new Set(joined.map(({ path }) => path))]
  const groups = paths.map((path) => joined.filter((fault) => fault.path === path))
  const [usual] = groups.sort((a, b) => b.length - a.length)
  return { usual, others: joined.length - usual.length }
}

/** @param {import('./lib/report.mjs').Line[]} lines */
export function format(lines) {
  return [formatTable(lines), ...lines.map(formatAnatomy)].join('\n\n')
}
