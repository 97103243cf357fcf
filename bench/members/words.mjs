// Member of the benchmark of words: rank 0 is their home, and both add to one of them in turn.
import { serve } from '../lib/member.mjs'
import { timeNothing } from '../lib/pages.mjs'

serve(async (mesh) => {
  const options = { byteLength: 4096, placement: { rank: 0 }, words: 'atomic' }
  const region = await mesh.region('words', options)
  return {
    wordsBy: () => region.wordsBy,
    /** @param {{ count: number, sum: number }} args `sum` is what the word holds before */
    async add({ count, sum }) {
      const samplesUs = new Float64Array(count)
      for (let i = 0; i < count; i++) {
        const start = performance.now()
        const before = await region.fetchAdd(8, 1n)
        samplesUs[i] = (performance.now() - start) * 1e3
        if (before !== BigInt(sum + i)) throw new Error(`${before}, not ${sum + i}`)
      }
      return samplesUs
    },
    timeNothing,
  }
})
