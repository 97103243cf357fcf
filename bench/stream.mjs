import { Members } from './lib/members.mjs'
import { makeLine } from './lib/report.mjs'
import { median, pool } from './lib/statistics.mjs'
import { kernels } from './lib/stream-kernels.mjs'

/** Elements of each array: larger than any cache, and not. */
const lengths = { normal: 2 ** 22, tiny: 2 ** 12 }
const passesPerBatch = 3
const sides = /** @type {const} */ (['plain', 'region'])
const floor = 'the same loop over plain SharedArrayBuffers in the same process'

export const takesTiny = true
export const summary = 'STREAM over regions that a member holds, against plain memory'

/** @param {{ rounds: number }} options */
export function countSteps({ rounds }) {
  return rounds + 1
}

/**
 * @param {{ rounds: number, transport?: string, tiny?: boolean }} options
 * @param {() => void} step called after each round
 * @returns {Promise<import('./lib/report.mjs').Line[]>}
 */
export async function run({ rounds, transport = 'tcp', tiny = false }, step) {
  const length = tiny ? lengths.tiny : lengths.normal
  const results = kernels.map((kernel) => ({
    kernel,
    /** @type {number[][]} */ region: [],
    /** @type {number[][]} */ plain: [],
  }))
  const members = await Members.start('stream.mjs', { transport, options: { length } })
  try {
    // Round 0 warms everything up and is not counted.
    for (let round = 0; round <= rounds; round++) {
      // Who comes first may matter: each does in turn.
      const order = round % 2 === 0 ? sides : [...sides].reverse()
      for (const side of order) {
        const samplesUs = await members.ask(0, 'run', { side, passes: passesPerBatch })
        if (round === 0) continue
        for (const [index, result] of results.entries()) result[side].push(samplesUs[index])
      }
      step()
    }
    await members.stop()
  } finally {
    await members.kill()
  }
  return results.map(({ kernel, region: rounds, plain: floorRounds }) => {
    const [ours, plain] = [rounds, floorRounds].map((samples) =>
      Math.round((kernel.bytes * length) / median(pool(samples))),
    )
    const note = `${ours} MB/s, and ${plain} MB/s; arrays of ${(length * 8) / 2 ** 20} MiB`
    return makeLine({ name: `STREAM ${kernel.name}`, rounds, floor, floorRounds, extra: { note } })
  })
}
