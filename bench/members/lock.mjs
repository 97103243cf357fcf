// Member of the benchmarks of locks.
import { createRequire } from 'node:module'
import { serve } from '../lib/member.mjs'
import { monotonicUs, pageBytes } from '../lib/pages.mjs'

/** So many calls are timed together: one is as quick as reading the clock. */
const callsPerSample = 20
const { doNothing } = createRequire(import.meta.url)('../../build/bench/empty_call.node')

serve(async (mesh) => {
  const shape = { byteLength: pageBytes, placement: { rank: 0 }, prefetch: 'off' }
  const region = await mesh.region('under a lock', shape)
  const cells = new Uint32Array(region.buffer)
  const lock = mesh.lock('bench')
  return {
    callNothing: ({ count }) => timeCalls(count, doNothing),
    uncontended: ({ count }) => timeCalls(count, () => lock.acquireSync().release()),

    /** @param {{ count: number, holdUs: number }} args */
    async contend({ count, holdUs }) {
      const times = [0, 1, 2].map(() => new Float64Array(count))
      const [requestedUs, acquiredUs, releasedUs] = times
      await mesh.barrier('contend')
      for (let i = 0; i < count; i++) {
        requestedUs[i] = monotonicUs()
        const held = lock.acquireSync()
        acquiredUs[i] = monotonicUs()
        let now = acquiredUs[i]
        while (now < acquiredUs[i] + holdUs) now = monotonicUs()
        releasedUs[i] = now
        held.release()
      }
      return { requestedUs, acquiredUs, releasedUs }
    },

    /**
     * Writes the page when it is this member's turn. Whoever gets the lock although it has written
     * last gives it back and asks again.
     * @param {{ turns: number }} args of each member
     */
    async takeTurns({ turns }) {
      const me = mesh.rank + 1
      const samplesUs = []
      const firstTurn = await startTurns()
      let previous = 0
      let outOfTurn = 0
      for (let turn = 0; turn < turns;) {
        const held = lock.acquireSync()
        // Written without being read first: one write fault brings the page.
        if (Atomics.exchange(cells, 0, me) === me) outOfTurn++
        else {
          cells[1]++
          turn++
          const now = performance.now()
          if (turn > 1) samplesUs.push(((now - previous) * 1e3) / 2)
          previous = now
        }
        held.release()
      }
      await mesh.barrier('turns')
      const taken = cells[1] - firstTurn
      if (taken !== 2 * turns) throw new Error(`${taken} turns were taken, not ${2 * turns}`)
      await mesh.barrier('turns')
      return { samplesUs, outOfTurn }
    },
  }

  async function startTurns() {
    const turns = cells[1]
    if (mesh.rank === 0) cells[0] = 0
    await mesh.barrier('turns')
    return turns
  }
})

/**
 * @param {number} count
 * @param {() => void} call
 */
function timeCalls(count, call) {
  const samplesUs = new Float64Array(count)
  for (let i = 0; i < count; i++) {
    const startMs = performance.now()
    for (let j = 0; j < callsPerSample; j++) call()
    samplesUs[i] = ((performance.now() - startMs) * 1e3) / callsPerSample
  }
  return samplesUs
}
