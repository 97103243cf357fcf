import { alternate } from '../lib/alternate.mjs'
import { faultFloor, futexHandOver, socketMessage } from '../lib/floors.mjs'
import { handOversUs } from '../lib/hand-overs.mjs'
import { Members } from '../lib/members.mjs'
import { makeLine } from '../lib/report.mjs'
import { median } from '../lib/statistics.mjs'

/** What the issue allows however quick an empty call is. */
const enoughUs = 2
const holdUs = 200
/** A member that came so long before the release waits for the lock, and does not just arrive. */
const waitingUs = 100

/**
 * @typedef {{ members: Members, placement: import('../lib/placement.mjs').Placement,
 *   transport: string, count: number }} Where
 */

/**
 * What is measured for each goal: `finish` makes of the line what the goal asks for.
 * @type {Record<string, (where: Where) => {
 *   floor: import('../lib/floors.mjs').Floor, samplesUs: () => Promise<ArrayLike<number>>,
 *   note: () => string, target?: (line: import('../lib/report.mjs').Line) => number }>}
 */
const figures = {
  uncontendedLock({ members, count }) {
    return {
      floor: {
        words: 'an empty Node-API call',
        samplesUs: () => members.ask(1, 'callNothing', { count }),
      },
      async samplesUs() {
        // Where the lock is managed is not to count: the slower of the two.
        const here = await members.ask(0, 'uncontended', { count })
        const there = await members.ask(1, 'uncontended', { count })
        return median(here) > median(there) ? here : there
      },
      target: ({ floorMedianUs, target }) => Math.max(target, enoughUs / floorMedianUs),
      note: () => `${enoughUs} µs are good enough; the slower of the two members`,
    }
  },

  lockHandOver({ members, placement, transport, count }) {
    const makeFloor = transport === 'shm' ? futexHandOver : socketMessage
    return {
      floor: makeFloor({ placement, count, holdUs }),
      async samplesUs() {
        const holds = await members.askAll('contend', { count, holdUs })
        return handOversUs(holds, waitingUs)
      },
      note: () => `the holder works for ${holdUs} µs, the other waits in acquireSync`,
    }
  },

  turnsUnderLock({ members, placement, transport, count }) {
    let turnsTaken = 0
    let outOfTurn = 0
    return {
      floor: faultFloor(transport, { placement, count, kind: 'write' }),
      async samplesUs() {
        const results = await members.askAll('takeTurns', { turns: count })
        turnsTaken += results.length * count
        outOfTurn += results.reduce((total, result) => total + result.outOfTurn, 0)
        return results.flatMap(({ samplesUs }) => samplesUs)
      },
      note: () =>
        'half the time between two turns of a member, acquireSync and release included; ' +
        `${outOfTurn} locks out of turn in ${turnsTaken} turns`,
    }
  },
}

/**
 * @param {import('../goals.mjs').Goal[]} goals
 * @param {import('../goals.mjs').Setting} setting
 */
export async function measure(goals, { transport, rounds, sizes, placements, step }) {
  const placement = placements.apart
  const { cpus } = placement
  const members = await Members.start('lock.mjs', { cpus, transport })
  try {
    const where = { members, placement, transport, count: sizes.faults }
    const results = await alternate(
      goals.map((goal) => ({ goal, ...figures[goal.id](where) })),
      rounds,
      step,
    )
    await members.stop()
    return results.map(({ figure, rounds, floorRounds }) => {
      const { goal, floor, note, target } = figure
      const line = (/** @type {number} */ target) =>
        makeLine({
          ...goal,
          target,
          rounds,
          floor: floor.words,
          floorRounds,
          extra: { transport, note: note() },
        })
      const first = line(goal.target)
      return target === undefined ? first : line(target(first))
    })
  } finally {
    await members.kill()
  }
}
