import { join } from '../../dist/index.js'

/**
 * What the benchmarks and the litmus tests use of a region. `discard` gives this member's read-only
 * copies in the range back, so that the next touch is a fault on a page that is clean at its home.
 * @typedef {object} Region
 * @property {SharedArrayBuffer} buffer
 * @property {(byteOffset: number, byteLength: number) => Promise<void>} discard
 * @property {(byteOffset: number, byteLength: number, access: 'read' | 'write') =>
 *   Promise<void>} prefetch
 * @property {(byteOffset: number, value: bigint) => Promise<bigint>} fetchAdd
 * @property {(byteOffset: number, word: 'int64') => Promise<bigint>} load
 * @property {() => { readFaults: number }} stats
 * @property {number} pageBytes
 * @property {'home' | 'rdma'} wordsBy
 */

/**
 * @typedef {object} Mesh
 * @property {number} rank
 * @property {number} size
 * @property {(name: string, options: object) => Promise<Region>} region
 * @property {(name?: string) => Promise<void>} barrier
 * @property {(name: string) => { acquireSync: () => { release: () => void } }} lock
 * @property {() => Promise<void>} leave
 */

/**
 * What a member does when it is told to. `notify` reaches the benchmark before it resolves.
 * @typedef {(args: any, notify: () => Promise<void>) => unknown} Order
 */

/**
 * The life of a benchmark's member: join the mesh, carry out one order after the other, leave.
 * @param {(mesh: Mesh, options: any) => Promise<Record<string, Order>>} open opens the regions and
 *   says what each order does
 */
export function serve(open) {
  /** @type {Mesh | undefined} */
  let mesh
  serveOrders({
    async open(options) {
      mesh = /** @type {Mesh} */ (/** @type {unknown} */ (await join()))
      return open(mesh, options)
    },
    async leave() {
      await mesh?.leave()
    },
  })
}

/**
 * The same without a mesh, for what members are compared with.
 * @param {{ open: (options: any) => Promise<Record<string, Order>>, leave: () => Promise<void> }} life
 */
export function serveOrders({ open, leave }) {
  /** @type {Record<string, Order>} */
  let orders = {
    async open(options) {
      orders = { ...orders, ...(await open(options)) }
    },
    async leave() {
      await leave()
      // The reply goes out first; without the channel nothing keeps this process alive.
      process.removeAllListeners('disconnect')
      setImmediate(() => process.disconnect())
    },
  }
  process.on('disconnect', () => process.exit(1))
  process.on('message', async (/** @type {any} */ { id, order, args }) => {
    try {
      const notify = () => send({ id, kind: 'notice' })
      await send({ id, kind: 'result', value: await orders[order](args, notify) })
    } catch (error) {
      await send({ id, kind: 'error', value: error instanceof Error ? error.stack : String(error) })
    }
  })
}

/**
 * @param {object} message
 * @returns {Promise<void>} once it has been written to the channel
 */
function send(message) {
  return new Promise((resolve, reject) => {
    process.send?.(message, (/** @type {Error | null} */ error) =>
      error === null ? resolve() : reject(error),
    )
  })
}
