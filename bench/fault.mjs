import { describeSocketFloor, socketRoundTripsUs } from './lib/floor.mjs'
import { Members } from './lib/members.mjs'
import { placements } from './lib/placement.mjs'
import { makeLine } from './lib/report.mjs'
import { median } from './lib/statistics.mjs'

/** More pages than a batch touches, so that a batch is spread over the region. */
const leastPages = 4096
const defaultFaults = 1000
const leastTurns = 4

/**
 * One batch of faults at rank 1, on pages whose state is brought about first, untimed. What was
 * read and written is checked, there and here.
 * @typedef {object} State
 * @property {string} name
 * @property {number | null} target
 * @property {(members: Members, args: { count: number, seed: number, stamp: number }) =>
 *   Promise<ArrayLike<number>>} batch
 * @property {string} [note]
 */

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
  {
    name: 'page ping-pong',
    target: null,
    note: 'per turn, which is a read fault and an upgrade',
    async batch(members, { count }) {
      const turns = Math.max(leastTurns, count)
      const [first, second] = await members.askAll('takeTurns', { turns })
      return [...first, ...second]
    },
  },
]

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
 * Everything that is measured, by where the processes run. The scheduler's choice makes the floor
 * jump by a factor of ten between rounds; the two pinned lines are what it jumps between, so that
 * all three together say what the ratio is worth.
 * @returns {{ placement: import('./lib/placement.mjs').Placement, states: State[] }[]}
 */
function plan() {
  const { free, apart, together } = placements()
  /** @param {string} where */
  const pinned = (where) => ({ ...readCleanAtHome, name: `${readCleanAtHome.name}, ${where}` })
  return [
    { placement: free, states },
    ...(apart === undefined ? [] : [{ placement: apart, states: [pinned('two cores')] }]),
    { placement: together, states: [pinned('one core')] },
  ]
}

export const summary = 'one page fault between two members, by the state of the page'

/** @param {{ rounds: number }} options */
export function countSteps({ rounds }) {
  return plan().reduce((steps, group) => steps + group.states.length, 0) * (rounds + 1)
}

/**
 * @param {{ faults?: number, rounds: number }} options
 * @param {() => void} step called after each batch
 * @returns {Promise<import('./lib/report.mjs').Line[]>}
 */
export async function run({ faults = defaultFaults, rounds }, step) {
  const lines = []
  for (const { placement, states } of plan()) {
    const pageCount = Math.max(leastPages, faults)
    const members = await Members.start('fault.mjs', {
      cpus: placement.cpus,
      options: { pageCount },
    })
    try {
      lines.push(...(await measureStates(members, { states, placement, faults, rounds }, step)))
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
 * @param {() => void} step
 */
async function measureStates(members, { states, placement, faults, rounds }, step) {
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
      const floorUs = await socketRoundTripsUs(faults, placement)
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
    const { name, target, note } = state
    const extra = { timerUs, ...(note === undefined ? {} : { note }) }
    return makeLine({
      name,
      rounds,
      floor: describeSocketFloor(placement),
      floorRounds,
      target,
      extra,
    })
  })
}
