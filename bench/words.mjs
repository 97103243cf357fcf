import { describeSmallSocketFloor, smallSocketRoundTripsUs } from './lib/floor.mjs'
import { Members } from './lib/members.mjs'
import { atomicLatenciesUs, atomicLatencyFloor } from './lib/perftest.mjs'
import { placements } from './lib/placement.mjs'
import { makeLine } from './lib/report.mjs'
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
 * @param {{ faults?: number, rounds: number, transport: string }} options `faults` is how many
 *   words are changed in each batch
 * @param {() => void} step called after each batch
 * @returns {Promise<import('./lib/report.mjs').Line[]>}
 */
export async function run({ faults: count = defaultCount, rounds, transport }, step) {
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
 * Alternates the floor program and a batch, so that both meet the same noise.
 * @param {Members} members
 * @param {{ placement: import('./lib/placement.mjs').Placement, count: number, rounds: number,
 *   transport: string }} what
 * @param {() => void} step
 */
async function measure(members, { placement, count, rounds, transport }, step) {
  const overVerbs = transport === 'verbs'
  const host = process.env.PAGEMESH_HOST ?? '127.0.0.1'
  const [wordsBy] = await members.askAll('wordsBy')
  if ((wordsBy === 'rdma') !== overVerbs) throw new Error(`words are changed by: ${wordsBy}`)
  const timerUs = median(await members.ask(1, 'timeNothing'))
  const results = lines.map((line) => ({
    line,
    /** @type {ArrayLike<number>[]} */ rounds: [],
    /** @type {ArrayLike<number>[]} */ floorRounds: [],
  }))
  let sum = 0
  // Round 0 warms everything up and is not counted.
  for (let round = 0; round <= rounds; round++) {
    for (const result of results) {
      const floorUs = overVerbs
        ? await atomicLatenciesUs(count, host)
        : await smallSocketRoundTripsUs(count, placement)
      const samplesUs = await members.ask(result.line.rank, 'add', { count, sum })
      sum += count
      if (round > 0) {
        result.floorRounds.push(floorUs)
        result.rounds.push(samplesUs)
      }
      step()
    }
  }
  return results.map(({ line, rounds, floorRounds }) =>
    makeLine({
      name: line.name,
      rounds,
      floor: overVerbs ? atomicLatencyFloor : describeSmallSocketFloor(placement),
      floorRounds,
      extra: { wordsBy, timerUs },
    }),
  )
}
