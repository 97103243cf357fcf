// Member of the progress benchmark: rank 0 is the home and computes, rank 1 faults meanwhile.
import { serve } from '../lib/member.mjs'
import { fillPages, monotonicOffsetMs, pageBytes, shuffledPages, timeReads } from '../lib/pages.mjs'

serve(async (mesh, { pageCount }) => {
  const byteLength = pageCount * pageBytes
  const shape = { byteLength, placement: { rank: 0 }, prefetch: 'off' }
  const region = await mesh.region('busy', shape)
  const cells = new Uint32Array(region.buffer)
  const discard = () => region.discard(0, byteLength)
  return {
    fill: ({ stamp }) => fillPages(cells, shuffledPages(pageCount, pageCount, 0), stamp),
    discard,
    read: (args) => timeReads(cells, shuffledPages(pageCount, args.count, args.seed), args.stamp),
    compute,
    readFor,
  }

  /**
   * Faults on pages that are clean at their home until the time is over.
   * @param {{ durationMs: number, seed: number, stamp: number }} args
   * @returns {Promise<{ samplesUs: number[], startsMs: number[] }>} starts by the machine's clock
   */
  async function readFor({ durationMs, seed, stamp }) {
    const offsetMs = monotonicOffsetMs()
    const end = performance.now() + durationMs
    /** @type {number[]} */
    const samplesUs = []
    /** @type {number[]} */
    const startsMs = []
    for (let pass = 0; performance.now() < end; pass++) {
      await discard()
      for (const page of shuffledPages(pageCount, pageCount, seed + pass)) {
        const start = performance.now()
        if (start >= end) break
        const [sampleUs] = timeReads(cells, Uint32Array.of(page), stamp)
        startsMs.push(start + offsetMs)
        samplesUs.push(sampleUs)
      }
    }
    return { samplesUs, startsMs }
  }
})

/**
 * One loop of JavaScript without a pause: no event of this thread is handled until it ends.
 * @param {{ durationMs: number }} args
 * @param {() => Promise<void>} notify
 * @returns {Promise<{ startMs: number, endMs: number }>} by the machine's clock
 */
async function compute({ durationMs }, notify) {
  await notify()
  const offsetMs = monotonicOffsetMs()
  const start = performance.now()
  let now = start
  for (let value = 1; now < start + durationMs; now = performance.now()) {
    for (let i = 0; i < 1000; i++) value = Math.sqrt(value + i)
  }
  return { startMs: start + offsetMs, endMs: now + offsetMs }
}
