import { pagePingPong, states } from './fault.mjs'
import { measureLines } from './lib/alternate.mjs'
import { Members } from './lib/members.mjs'
import { placements } from './lib/placement.mjs'

const defaultFaults = 1000
const leastPages = 4096
const measured = [...states, pagePingPong]

export const summary = 'the same page faults by userfaultfd and by SIGSEGV'

/** @param {{ rounds: number }} options */
export function countSteps({ rounds }) {
  return measured.length * (rounds + 1)
}

/**
 * Two meshes of two members, on the same cores, that take turns.
 * @param {{ faults?: number, rounds: number, transport?: string }} options
 * @param {() => void} step called after each batch
 * @returns {Promise<import('./lib/report.mjs').Line[]>}
 */
export async function run({ faults: count = defaultFaults, rounds, transport = 'shm' }, step) {
  const { free, apart } = placements()
  const { cpus } = transport === 'verbs' || apart === undefined ? free : apart
  const options = { pageCount: Math.max(leastPages, count) }
  /** @type {Members[]} */
  const started = []
  try {
    for (const faults of ['sigsegv', 'userfaultfd']) {
      started.push(await Members.start('fault.mjs', { cpus, options, transport, faults }))
    }
    const [bySignal, byDescriptor] = started
    let stamp = 0
    const batchOf = (
      /** @type {import('./fault.mjs').State} */ state,
      /** @type {Members} */ members,
    ) => {
      stamp += 2
      return state.batch(members, { count, seed: stamp, stamp })
    }
    const figures = measured.map((state) => ({
      name: `${state.name}, userfaultfd`,
      target: null,
      floor: { words: 'the same by SIGSEGV', samplesUs: () => batchOf(state, bySignal) },
      samplesUs: () => batchOf(state, byDescriptor),
      ...(state.note === undefined ? {} : { extra: { note: state.note } }),
    }))
    const lines = await measureLines(figures, rounds, step)
    for (const members of started) await members.stop()
    return lines
  } finally {
    for (const members of started) await members.kill()
  }
}
