// Member of the benchmark of barriers.
import { serve } from '../lib/member.mjs'
import { monotonicUs } from '../lib/pages.mjs'

/** Members get their orders one after the other: the first barriers wait for the last. */
const warmUpCount = 5

serve(async (mesh) => ({
  /**
   * @param {{ count: number }} args
   * @returns {Promise<{ cameUs: Float64Array, leftUs: Float64Array }>} by the machine's clock
   */
  async pass({ count }) {
    const cameUs = new Float64Array(count)
    const leftUs = new Float64Array(count)
    for (let i = -warmUpCount; i < count; i++) {
      const came = monotonicUs()
      await mesh.barrier('bench')
      const left = monotonicUs()
      if (i < 0) continue
      cameUs[i] = came
      leftUs[i] = left
    }
    return { cameUs, leftUs }
  },
}))
