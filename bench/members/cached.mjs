// Member of the benchmark of cached pages: rank 1 has all pages, and an array of its own beside.
// One loop for both, and nothing else in this process calls it: what V8 has learned about one of
// the two arrays would otherwise count for or against the other.
import { serve } from '../lib/member.mjs'

serve(async (mesh, { mib }) => {
  const byteLength = mib * 2 ** 20
  const region = await mesh.region('cached', { byteLength, placement: { rank: 0 } })
  /** @type {Record<string, Float64Array>} */
  const arrays = { shared: new Float64Array(region.buffer) }
  if (mesh.rank === 1) arrays.plain = new Float64Array(new SharedArrayBuffer(byteLength))
  return {
    fill: ({ which }) => fill(arrays[which]),
    prefetch: () => region.prefetch(0, byteLength, 'read'),
    faults: () => region.stats().readFaults,
    pass({ which }) {
      const cells = arrays[which]
      const startMs = performance.now()
      const sum = sumOf(cells)
      const elapsedUs = (performance.now() - startMs) * 1e3
      const whole = Math.floor(cells.length / period)
      const rest = cells.length % period
      const expected = (whole * period * (period - 1)) / 2 + (rest * (rest - 1)) / 2
      if (sum !== expected) throw new Error(`the sum is ${sum}, not ${expected}`)
      return elapsedUs
    },
  }
})

const period = 1000

/** @param {Float64Array} cells */
function fill(cells) {
  for (let i = 0; i < cells.length; i++) cells[i] = i % period
}

/** @param {Float64Array} cells */
function sumOf(cells) {
  let sum = 0
  for (let i = 0; i < cells.length; i++) sum += cells[i]
  return sum
}
