// Process of the comparison of ways to pass messages: its child sends back whatever it gets, over a
// Unix socket and over Node's channel between parent and child.
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { Peer } from '../apps/peer.mjs'
import { serveOrders } from '../lib/member.mjs'

const [, , childPath] = process.argv

if (childPath === undefined) serveParent()
else await serveChild(childPath)

function serveParent() {
  // Beside the rendezvous file, which nobody needs here.
  const path = `${process.env.PAGEMESH_RENDEZVOUS?.replace(/^file:/, '')}.socket`
  /** @type {import('node:child_process').ChildProcess} */
  let child
  /** @type {Peer} */
  let peer
  serveOrders({
    async open({ bytes }) {
      child = fork(fileURLToPath(new URL(import.meta.url)), [path], { serialization: 'advanced' })
      peer = await Peer.listen(path)
      await peer.send(Float64Array.of(bytes))
      const message = new Float64Array(bytes / 8)
      const ways = {
        /** @param {Float64Array} answer */
        async socket(answer) {
          await peer.exchange(message, answer)
          return answer
        },
        async channel() {
          const [[answer]] = await Promise.all([
            once(child, 'message'),
            new Promise((resolve) => child.send(message, resolve)),
          ])
          return answer
        },
      }
      let stamp = 0
      return {
        /**
         * @param {{ way: 'socket' | 'channel', count: number }} args
         * @returns {Promise<Float64Array>} µs there and back
         */
        async pass({ way, count }) {
          const samplesUs = new Float64Array(count)
          const into = new Float64Array(message.length)
          for (let i = 0; i < count; i++) {
            message.fill(++stamp)
            const startMs = performance.now()
            const answer = await ways[way](into)
            samplesUs[i] = (performance.now() - startMs) * 1e3
            if (
              answer.length !== message.length ||
              answer[0] !== stamp ||
              answer.at(-1) !== stamp
            ) {
              throw new Error(`message ${stamp} came back changed`)
            }
          }
          return samplesUs
        },
      }
    },
    async leave() {
      await peer.close()
      child.disconnect()
      await once(child, 'exit')
    },
  })
}

/** @param {string} path */
async function serveChild(path) {
  const peer = await Peer.connect(path)
  const bytes = new Float64Array(1)
  await peer.receive(bytes)
  const message = new Float64Array(bytes[0] / 8)
  process.on('message', (received) => process.send?.(received))
  try {
    for (;;) {
      await peer.receive(message)
      await peer.send(message)
    }
  } catch (error) {
    // The parent closes its socket when it leaves.
    if (process.connected) await once(process, 'disconnect')
    else if (!(error instanceof Error)) throw error
  }
}
