import { measureLines } from './lib/alternate.mjs'
import { verbsFaultFloor, verbsFaultsUs } from './lib/floor.mjs'
import { faultFloor, localTrap, rdmaRead } from './lib/floors.mjs'
import {
  readBandwidthFloor,
  readBandwidthUs,
  writeLatenciesUs,
  writeLatencyFloor,
} from './lib/perftest.mjs'
import { Members } from './lib/members.mjs'
import { placements } from './lib/placement.mjs'
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
 * @property {(count: number, host: string) => Floor} [verbsFloor] what it is held against over
 *   verbs, if not a read
 * @property {'read' | 'write' | 'upgrade'} [kind] of fault, if not a read
 * @property {boolean} [alone] nobody has to be woken for it on the same machine
 */

/**
 * @typedef {import('./lib/floors.mjs').Floor} Floor
 * @typedef {import('./lib/placement.mjs').Placement} Placement
 */

/** @type {State} */
const readCleanAtHome = {
  name: 'read fault, clean at home',
  target: 2,
  alone: true,
  async batch(members, pages) {
    // The first read makes the home lower its own access; the discard leaves the page there alone.
    await members.ask(0, 'fill', pages)
    await members.ask(1, 'read', pages)
    await members.ask(1, 'discard')
    return members.ask(1, 'read', pages)
  },
}

/** @type {State[]} */
export const states = [
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
    kind: 'write',
    verbsFloor: (count, host) => ({
      words: writeLatencyFloor,
      samplesUs: () => writeLatenciesUs(count, host),
    }),
    async batch(members, pages) {
      await members.ask(0, 'fill', pages)
      return writeAndCheck(members, pages)
    },
  },
  {
    name: 'upgrade, home the only other sharer',
    target: null,
    kind: 'upgrade',
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
  verbsFloor: (count) => ({ words: verbsFaultFloor, samplesUs: () => verbsFaultsUs(count) }),
}

/** @type {State} */
const prefetched = {
  name: 'prefetched page, clean at home',
  target: null,
  verbsFloor: (count, host) => ({
    words: readBandwidthFloor,
    samplesUs: () => readBandwidthUs(count, host),
  }),
  note: 'time per page of one prefetch',
  async batch(members, pages) {
    const inSequence = { ...pages, inSequence: true }
    await members.ask(0, 'fill', inSequence)
    await members.ask(1, 'read', inSequence)
    await members.ask(1, 'discard')
    return members.ask(1, 'prefetch', pages)
  },
}

/** @type {State} */
export const pagePingPong = {
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

/** @param {{ rounds: number, transport?: string }} options */
export function countSteps({ rounds, transport = 'tcp' }) {
  return plan(transport).reduce((steps, group) => steps + group.states.length, 0) * (rounds + 1)
}

/**
 * @param {{ faults?: number, rounds: number, transport?: string }} options
 * @param {() => void} step called after each batch
 * @returns {Promise<import('./lib/report.mjs').Line[]>}
 */
export async function run({ faults = defaultFaults, rounds, transport = 'tcp' }, step) {
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
 * @param {State} state
 * @param {{ placement: Placement, count: number, transport: string }} where
 * @returns {Floor}
 */
function floorOf({ kind = 'read', alone, verbsFloor = rdmaRead }, where) {
  const { placement, count, transport } = where
  if (transport === 'verbs') return verbsFloor(count, process.env.PAGEMESH_HOST ?? '127.0.0.1')
  if (transport === 'shm' && alone) return localTrap({ placement, count, kind, copy: true })
  return faultFloor(transport, { placement, count, kind })
}

/**
 * @param {Members} members
 * @param {object} what
 * @param {State[]} what.states
 * @param {Placement} what.placement
 * @param {number} what.faults in each batch
 * @param {number} what.rounds
 * @param {string} what.transport
 * @param {() => void} step
 */
async function measureStates(members, what, step) {
  const { states, placement, faults: count, rounds, transport } = what
  const timerUs = median(await members.ask(1, 'timeNothing'))
  let stamp = 0
  const figures = states.map((state) => ({
    name: state.name,
    target: state.target,
    floor: floorOf(state, { placement, count, transport }),
    samplesUs() {
      stamp += 2
      return state.batch(members, { count, seed: stamp, stamp })
    },
    extra: { timerUs, ...(state.note === undefined ? {} : { note: state.note }) },
  }))
  return measureLines(figures, rounds, step)
}
