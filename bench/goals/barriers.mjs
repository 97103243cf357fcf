import { measureBarrier } from '../lib/barrier-figure.mjs'

/**
 * Both sizes are one goal: its line is that of the worse, and tells of the other.
 * @param {import('../goals.mjs').Goal[]} goals
 * @param {import('../goals.mjs').Setting} setting
 */
export async function measure([goal], { transport, rounds, sizes, placements, step }) {
  const lines = []
  for (const size of [2, 4]) {
    const what = { ...goal, size, count: sizes.faults, rounds, transport }
    lines.push(await measureBarrier({ ...what, placement: placements.apart }, step))
  }
  const worse = lines.reduce((worst, line) => (line.ratio > worst.ratio ? line : worst))
  const parts = lines.map(
    ({ members, medianUs, floorMedianUs, ratio }) =>
      `${members} members ${medianUs.toFixed(1)} µs, ${ratio.toFixed(2)} × ${floorMedianUs.toFixed(1)} µs`,
  )
  const bySize = lines.map(({ members, medianUs, floorMedianUs, ratio, met }) => {
    return { members, medianUs, floorMedianUs, ratio, met }
  })
  return [{ ...worse, bySize, note: `${parts.join('; ')}; this is the worse of the two` }]
}
