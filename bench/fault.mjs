import {
  describeSocketFloor,
  socketRoundTripsUs,
  verbsFaultFloor,
  verbsFaultsUs,
} from './lib/floor.mjs'
import {
  readBandwidthFloor,
  readBandwidthUs,
  readLatenciesUs,
  readLatencyFloor,
  writeLatenciesUs,
  writeLatencyFloor,
} from './lib/perftest.mjs'
import { Members } from './lib/members.mjs'
import { placements } from './lib/placement.mjs'
import { makeLine } from './lib/report.mjs'
import { median } from './lib/statistics.mjs'

/** More pages than a batch touches, so that a batch is spread over the region. */
const leastPages = 4096
const defaultFaults = 1000
const leastTurns = 4
/** One turn for so many faults of the other lines: turns are slow. */
const turnsShare = 10

/**
 * One batch of faults at rank 1, on pages whose state is brought about first, untimed. What was
 * read and written is checked, there and here.
 * @typedef {object} State
 * @property {string} name
 * @property {number | null} target
 * @property {(members: Members, args: { count: number, seed: number, stamp: number }) =>
 *   Promise<ArrayLike<number>>} batch
 * @property {string} [note]
 * @property {PerftestFloor} [verbsFloor] what it is held against over verbs, if not a read
 */

/**
 * @typedef {object} PerftestFloor
 * @property {string} words
 * @property {(iterations: number, host: string) => Promise<number[]>} samplesUs
 */
/** @type {PerftestFloor} */
const readFloor = { words: readLatencyFloor, samplesUs: readLatenciesUs }
/** @type {PerftestFloor} */
const writeFloor = { words: writeLatencyFloor, samplesUs: writeLatenciesUs }
/** @type {PerftestFloor} */
const byHandFloor = { words: verbsFaultFloor, samplesUs: verbsFaultsUs }
/** @type {PerftestFloor} */
const bandwidthFloor = { words: readBandwidthFloor, samplesUs: readBandwidthUs }

/** @type {State} */
const readCleanAtHome = {
  name: 'read fault, clean at home',
  target: 2,
  async batch(members, pages) {
    // The first read makes the home lower its own access; the discard leaves the page there alone.
    await members.ask(0, 'fill', pages)
    await members.ask(1, 'read', pages)
    await members.ask(1, 'discard')
    return members.ask(1, 'read', pages)
  },
}

/** @type {State[]} */
const states = [
  readCleanAtHome,
  {
    name: 'read fault, dirty at home',
    target: null,
    async batch(members, pages) {
      await members.ask(0, 'fill', pages)
      return members.ask(1, 'read', pages)
    },
  },
  {
    name: 'write fault, owned at home',
    target: null,
    verbsFloor: writeFloor,
    async batch(members, pages) {
      await members.ask(0, 'fill', pages)
      return writeAndCheck(members, pages)
    },
  },
  {
    name: 'upgrade, home the only other sharer',
    target: null,
    async batch(members, pages) {
      await members.ask(0, 'fill', pages)
      await members.ask(1, 'read', pages)
      return writeAndCheck(members, pages)
    },
  },
]

/** @type {State} */
const againstByHand = {
  ...readCleanAtHome,
  name: 'the same, against by hand',
  target: null,
  verbsFloor: byHandFloor,
}

/** @type {State} */
const prefetched = {
  name: 'prefetched page, clean at home',
  target: null,
  verbsFloor: bandwidthFloor,
  note: 'time per page of one prefetch',
  async batch(members, pages) {
    await members.ask(0, 'fillFirst', pages)
    await members.ask(1, 'readFirst', pages)
    await members.ask(1, 'discard')
    return members.ask(1, 'prefetchFirst', pages)
  },
}

/** @type {State} */
const pagePingPong = {
  name: 'page ping-pong',
  target: null,
  note: 'per turn, which is a read fault and an upgrade; both members spin on the page meanwhile',
  async batch(members, { count }) {
    const turns = Math.max(leastTurns, Math.ceil(count / turnsShare))
    const [first, second] = await members.askAll('takeTurns', { turns })
    return [...first, ...second]
  },
}

/**
 * @param {Members} members
 * @param {{ count: number, seed: number, stamp: number }} pages filled at home with `stamp`
 */
async function writeAndCheck(members, pages) {
  const written = pages.stamp + 1
  const stamps = { before: pages.stamp, after: written }
  const samplesUs = await members.ask(1, 'write', { ...pages, stamps })
  await members.ask(0, 'check', { ...pages, stamps: { first: written, last: pages.stamp } })
  return samplesUs
}

/**
 * Everything that is measured, by where the processes run. Left to the scheduler, the floor's two
 * programs share a core in one run and not in the next, and its median jumps by a factor of ten:
 * a ratio to that is a matter of luck. So each side has a core of its own, both here and in the
 * floor, and that is the line with the target. The other two placements are shown beside it.
 * @param {string} transport
 * @returns {{ placement: import('./lib/placement.mjs').Placement, states: State[] }[]}
 */
function plan(transport) {
  const { free, apart, together } = placements()
  /** @param {string} where */
  const placed = (where) => {
    return { ...readCleanAtHome, name: `${readCleanAtHome.name}, ${where}`, target: null }
  }
  const verbsStates = [states[0], againstByHand, ...states.slice(1)]
  // The devices of SoftRoCE do their work on any core: pinning members would hold against them.
  if (transport === 'verbs') return [{ placement: free, states: [...verbsStates, prefetched] }]
  if (apart === undefined) return [{ placement: free, states: [...states, pagePingPong] }]
  return [
    { placement: apart, states },
    { placement: free, states: [placed('as scheduled'), pagePingPong] },
    { placement: together, states: [placed('one core')] },
  ]
}

export const summary = 'one page fault between two members, by the state of the page'

/** @param {{ rounds: number, transport: string }} options */
export function countSteps({ rounds, transport }) {
  return plan(transport).reduce((steps, group) => steps + group.states.length, 0) * (rounds + 1)
}

/**
 * @param {{ faults?: number, rounds: number, transport: string }} options
 * @param {() => void} step called after each batch
 * @returns {Promise<import('./lib/report.mjs').Line[]>}
 */
export async function run({ faults = defaultFaults, rounds, transport }, step) {
  const lines = []
  for (const { placement, states } of plan(transport)) {
    const pageCount = Math.max(leastPages, faults)
    const members = await Members.start('fault.mjs', {
      cpus: placement.cpus,
      options: { pageCount },
      transport,
    })
    try {
      const what = { states, placement, faults, rounds, transport }
      lines.push(...(await measureStates(members, what, step)))
      await members.stop()
    } finally {
      await members.kill()
    }
  }
  return lines
}

/**
 * Alternates the floor program and a batch of faults, so that both meet the same noise.
 * @param {Members} members
 * @param {object} what
 * @param {State[]} what.states
 * @param {import('./lib/placement.mjs').Placement} what.placement
 * @param {number} what.faults in each batch
 * @param {number} what.rounds
 * @param {string} what.transport
 * @param {() => void} step
 */
async function measureStates(members, { states, placement, faults, rounds, transport }, step) {
  const overVerbs = transport === 'verbs'
  const host = process.env.PAGEMESH_HOST ?? '127.0.0.1'
  const timerUs = median(await members.ask(1, 'timeNothing'))
  const results = states.map((state) => ({
    state,
    /** @type {ArrayLike<number>[]} */ rounds: [],
    /** @type {ArrayLike<number>[]} */ floorRounds: [],
  }))
  let stamp = 0
  // Round 0 warms everything up and is not counted.
  for (let round = 0; round <= rounds; round++) {
    for (const result of results) {
      const { samplesUs: verbsFloorUs } = result.state.verbsFloor ?? readFloor
      const floorUs = overVerbs
        ? await verbsFloorUs(faults, host)
        : await socketRoundTripsUs(faults, placement)
      stamp += 2
      const batch = { count: faults, seed: stamp, stamp }
      const samplesUs = await result.state.batch(members, batch)
      if (round > 0) {
        result.floorRounds.push(floorUs)
        result.rounds.push(samplesUs)
      }
      step()
    }
  }
  return results.map(({ state, rounds, floorRounds }) => {
    const { name, target, note, verbsFloor } = state
    const extra = { timerUs, ...(note === undefined ? {} : { note }) }
    return makeLine({
      name,
      rounds,
      floor: overVerbs ? (verbsFloor ?? readFloor).words : describeSocketFloor(placement),
      floorRounds,
      target,
      extra,
    })
  })
}
