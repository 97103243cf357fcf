// Process of the benchmark of applications: alone, one of two that pass messages, or a member.
import { join } from '../../dist/index.js'
import { applications } from '../apps/all.mjs'
import { Peer } from '../apps/peer.mjs'
import { serveOrders } from '../lib/member.mjs'

/**
 * How a process begins, and what it then has: its part of the computation, how it waits for the
 * others, and how it ends.
 * @type {Record<string, (application: import('../apps/application.mjs').Application, size: number) =>
 *   Promise<{ run: import('../apps/application.mjs').Run, meet: () => Promise<void>,
 *   end: () => Promise<void> }>>}
 */
const ways = {
  async alone(application, size) {
    return { run: application.alone(size), async meet() {}, async end() {} }
  },

  async passing(application, size) {
    // Beside the rendezvous file, which nobody needs here.
    const path = `${process.env.PAGEMESH_RENDEZVOUS?.replace(/^file:/, '')}.socket`
    const isFirst = process.env.PAGEMESH_RANK === '0'
    const peer = await (isFirst ? Peer.listen(path) : Peer.connect(path))
    const run = await application.passing(peer, size)
    return { run, meet: () => peer.barrier(), end: () => peer.close() }
  },

  async shared(application, size) {
    const joined = /** @type {unknown} */ (await join())
    const mesh = /** @type {import('../lib/member.mjs').Mesh} */ (joined)
    const run = await application.shared(mesh, size)
    return { run, meet: () => mesh.barrier(), end: () => mesh.leave() }
  },
}

let end = async () => {}
serveOrders({
  async open({ way, name, size }) {
    const opened = await ways[way](applications[name], size)
    end = opened.end
    return ordersOf(opened)
  },
  leave: () => end(),
})

/** @param {Awaited<ReturnType<ways['alone']>>} opened */
function ordersOf({ run, meet }) {
  return {
    /** @param {{ count: number }} args @returns {Promise<Float64Array>} µs of each step */
    async steps({ count }) {
      await meet()
      const samplesUs = new Float64Array(count)
      for (let i = 0; i < count; i++) {
        const startMs = performance.now()
        await run.step()
        samplesUs[i] = (performance.now() - startMs) * 1e3
      }
      return samplesUs
    },
    async result() {
      await meet()
      // A copy, because views of shared memory do not go over a channel.
      return run.result().slice()
    },
  }
}
