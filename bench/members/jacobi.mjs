// Member of the benchmark of Jacobi's method: each computes a band of rows. Rank 0 also does all of
// it alone, on plain arrays, with the same code, and compares. What the machine gives to two
// processes that share nothing is measured with each member's band on plain arrays of its own.
import { serve } from '../lib/member.mjs'
import { startRows, stepRows } from '../lib/stencil.mjs'

serve(async (mesh, { size, stepCount }) => {
  const byteLength = size * size * Float64Array.BYTES_PER_ELEMENT
  const open = async (/** @type {string} */ name) =>
    new Float64Array((await mesh.region(name, { byteLength })).buffer)
  const shared = [await open('even'), await open('odd')]
  const plain = mesh.rank === 0 ? [0, 1].map(() => new Float64Array(size * size)) : []
  const own = [0, 1].map(() => new Float64Array(size * size))
  const start = Math.round((size * mesh.rank) / mesh.size)
  const end = Math.round((size * (mesh.rank + 1)) / mesh.size)
  return {
    /** @returns {number} µs per step */
    alone() {
      for (const cells of plain) startRows(cells, size, 0, size)
      const startMs = performance.now()
      for (let step = 0; step < stepCount; step++) {
        stepRows(plain[step % 2], plain[(step + 1) % 2], size, 0, size)
      }
      return ((performance.now() - startMs) * 1e3) / stepCount
    },

    /** @returns {number} µs per step */
    apart() {
      const [first, last] = [Math.max(start - 1, 0), Math.min(end + 1, size)]
      for (const cells of own) startRows(cells, size, first, last)
      const startMs = performance.now()
      for (let step = 0; step < stepCount; step++) {
        stepRows(own[step % 2], own[(step + 1) % 2], size, start, end)
      }
      return ((performance.now() - startMs) * 1e3) / stepCount
    },

    /** @returns {Promise<number>} µs per step */
    async together() {
      for (const cells of shared) startRows(cells, size, start, end)
      await mesh.barrier()
      const startMs = performance.now()
      for (let step = 0; step < stepCount; step++) {
        stepRows(shared[step % 2], shared[(step + 1) % 2], size, start, end)
        await mesh.barrier()
      }
      return ((performance.now() - startMs) * 1e3) / stepCount
    },

    /** After both: the same result, bit for bit. */
    compare() {
      const [alone, together] = [plain, shared].map((cells) => cells[stepCount % 2])
      const wrong = alone.findIndex((cell, i) => cell !== together[i])
      if (wrong >= 0) throw new Error(`cell ${wrong} is ${together[wrong]}, not ${alone[wrong]}`)
    },
  }
})
