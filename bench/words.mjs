import { measureLines } from './lib/alternate.mjs'
import { futexRoundTrip, socketRoundTrip } from './lib/floors.mjs'
import { Members } from './lib/members.mjs'
import { atomicLatenciesUs, atomicLatencyFloor } from './lib/perftest.mjs'
import { placements } from './lib/placement.mjs'
import { median } from './lib/statistics.mjs'

const defaultCount = 1000
/** Rank 0 homes the words. */
const lines = [
  { rank: 1, name: "fetchAdd of another member's atomic word" },
  { rank: 0, name: "fetchAdd of the member's own atomic word" },
]

export const summary = 'one awaited fetchAdd of an atomic word, from the call to its result'

/** @param {{ rounds: number }} options */
export function countSteps({ rounds }) {
  return lines.length * (rounds + 1)
}

/**
 * @param {{ faults?: number, rounds: number, transport?: string }} options `faults` is how many
 *   words are changed in each batch
 * @param {() => void} step called after each batch
 * @returns {Promise<import('./lib/report.mjs').Line[]>}
 */
export async function run({ faults: count = defaultCount, rounds, transport = 'tcp' }, step) {
  const { free, apart } = placements()
  // As for faults: over SoftRoCE nothing is pinned, over TCP each side has a core if there are two.
  const placement = transport === 'verbs' ? free : (apart ?? free)
  const members = await Members.start('words.mjs', { cpus: placement.cpus, transport })
  try {
    const measured = await measure(members, { placement, count, rounds, transport }, step)
    await members.stop()
    return measured
  } finally {
    await members.kill()
  }
}

/**
 * @param {Members} members
 * @param {{ placement: import('./lib/placement.mjs').Placement, count: number, rounds: number,
 *   transport: string }} what
 * @param {() => void} step
 */
async function measure(members, { placement, count, rounds, transport }, step) {
  const [wordsBy] = await members.askAll('wordsBy')
  if ((wordsBy === 'rdma') !== (transport === 'verbs')) {
    throw new Error(`words are changed by: ${wordsBy}`)
  }
  const timerUs = median(await members.ask(1, 'timeNothing'))
  let sum = 0
  const figures = lines.map(({ name, rank }) => ({
    name,
    floor: floorOf(transport, { placement, count }),
    samplesUs() {
      const args = { count, sum }
      sum += count
      return members.ask(rank, 'add', args)
    },
    extra: { wordsBy, timerUs },
  }))
  return measureLines(figures, rounds, step)
}

/**
 * @param {string} transport
 * @param {{ placement: import('./lib/placement.mjs').Placement, count: number }} how
 * @returns {import('./lib/floors.mjs').Floor}
 */
function floorOf(transport, { placement, count }) {
  const host = process.env.PAGEMESH_HOST ?? '127.0.0.1'
  if (transport === 'shm') return futexRoundTrip({ placement, count })
  if (transport === 'tcp') return socketRoundTrip({ placement, count, replyBytes: 8 })
  return { words: atomicLatencyFloor, samplesUs: () => atomicLatenciesUs(count, host) }
}
