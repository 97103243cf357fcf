import { measureBarrier } from './lib/barrier-figure.mjs'
import { placements } from './lib/placement.mjs'

const defaultSizes = [2, 4, 8]
const defaultCount = 1000

export const summary = 'an awaited barrier of 2, 4 and 8 members, or of --members'
export const takesMembers = true

/** @param {number | undefined} members */
const sizesFor = (members) => (members === undefined ? defaultSizes : [members])

/** @param {{ rounds: number, members?: number }} options */
export function countSteps({ rounds, members }) {
  return sizesFor(members).length * (rounds + 1)
}

/**
 * @param {{ faults?: number, rounds: number, transport?: string, members?: number }} options
 *   `faults` is how many barriers there are in each batch
 * @param {() => void} step
 */
export async function run({ faults, rounds, transport = 'tcp', members }, step) {
  const { free, apart = free } = placements()
  const lines = []
  for (const size of sizesFor(members)) {
    const name = `barrier, ${size} members`
    const what = { name, size, count: faults ?? defaultCount, rounds, transport, placement: apart }
    lines.push(await measureBarrier(what, step))
  }
  return lines
}
