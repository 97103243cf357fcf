// Member of the STREAM benchmark: rank 0 runs the loops, over regions and over plain memory.
import { openArray, prefetch } from '../apps/application.mjs'
import { serve } from '../lib/member.mjs'
import { checkArrays, fillArrays, kernels } from '../lib/stream-kernels.mjs'

serve(async (mesh, { length }) => {
  /** @param {string} name */
  const open = async (name) => {
    const array = await openArray(mesh, name, Float64Array, length)
    // The other member homes half of the pages; rank 0 holds them all when it begins.
    if (mesh.rank === 0) await prefetch(array, 'write', 0, length)
    return array.values
  }
  const plain = () => new Float64Array(new SharedArrayBuffer(length * 8))
  const sides = {
    region: { arrays: { a: await open('a'), b: await open('b'), c: await open('c') }, passes: 0 },
    plain: { arrays: { a: plain(), b: plain(), c: plain() }, passes: 0 },
  }
  if (mesh.rank === 0) for (const { arrays } of Object.values(sides)) fillArrays(arrays)
  await mesh.barrier()
  return {
    /**
     * @param {{ side: 'region' | 'plain', passes: number }} args
     * @returns {number[][]} µs of each pass, by loop
     */
    run({ side, passes }) {
      const chosen = sides[side]
      /** @type {number[][]} */
      const samplesUs = kernels.map(() => [])
      for (let pass = 0; pass < passes; pass++) {
        for (const [index, { run }] of kernels.entries()) {
          const startMs = performance.now()
          run(chosen.arrays)
          samplesUs[index].push((performance.now() - startMs) * 1e3)
        }
      }
      chosen.passes += passes
      checkArrays(chosen.arrays, chosen.passes)
      return samplesUs
    },
  }
})
