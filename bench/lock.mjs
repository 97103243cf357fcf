import { measureLines } from './lib/alternate.mjs'
import { futexHandOver, socketMessage } from './lib/floors.mjs'
import { handOversUs, holdIntervalsUs } from './lib/hand-overs.mjs'
import { Members } from './lib/members.mjs'
import { cpusFor, placements } from './lib/placement.mjs'

const defaultMembers = 8
const defaultCount = 500
const holdUs = 200
const waitingUs = 100

export const summary = 'a lock: uncontended, handed over, and contended by 8 members or --members'
export const takesMembers = true

/** @param {{ rounds: number }} options */
export function countSteps({ rounds }) {
  return 3 * (rounds + 1)
}

/**
 * @param {{ faults?: number, rounds: number, transport?: string, members?: number }} options
 *   `faults` is how often each member takes the lock in a batch
 * @param {() => void} step
 */
export async function run(options, step) {
  const { faults: count = defaultCount, rounds, transport = 'tcp' } = options
  const { members: size = defaultMembers } = options
  const { free, apart: placement = free } = placements()
  const makeFloor = transport === 'shm' ? futexHandOver : socketMessage
  const extra = { transport }
  const few = await withMembers({ size: 2, placement, transport }, (members) =>
    measureLines(
      [
        {
          name: 'lock, uncontended',
          floor: {
            words: 'an empty Node-API call',
            samplesUs: () => members.ask(1, 'callNothing', { count }),
          },
          samplesUs: () => members.ask(1, 'uncontended', { count }),
          extra: { ...extra, note: 'acquireSync and release at the member that had it last' },
        },
        {
          name: 'lock, handed over',
          floor: makeFloor({ placement, count, holdUs }),
          samplesUs: async () =>
            handOversUs(await members.askAll('contend', { count, holdUs }), waitingUs),
          extra: { ...extra, note: `the holder works for ${holdUs} µs, the other waits` },
        },
      ],
      rounds,
      step,
    ),
  )
  const many = await withMembers({ size, placement, transport }, (members) =>
    measureLines(
      [
        {
          name: `lock, contended by ${size}`,
          floor: makeFloor({ placement, count, holdUs: 0 }),
          samplesUs: async () =>
            holdIntervalsUs(await members.askAll('contend', { count, holdUs: 0 })),
          extra: { ...extra, members: size, note: 'from one holder to the next, whoever it is' },
        },
      ],
      rounds,
      step,
    ),
  )
  return [...few, ...many]
}

/**
 * @template T
 * @param {{ size: number, placement: import('./lib/placement.mjs').Placement,
 *   transport: string }} how
 * @param {(members: Members) => Promise<T>} use
 * @returns {Promise<T>}
 */
async function withMembers({ size, placement, transport }, use) {
  const cpus = cpusFor(placement, size)
  const members = await Members.start('lock.mjs', { size, cpus, transport })
  try {
    const result = await use(members)
    await members.stop()
    return result
  } finally {
    await members.kill()
  }
}
