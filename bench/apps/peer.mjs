import { once } from 'node:events'
import net from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'

const retryMs = 5

/**
 * The other one of two processes that send each other messages over a Unix socket. Both know how
 * long each message is, so there is nothing on the wire but the bytes of typed arrays.
 */
export class Peer {
  rank
  size = 2
  #socket
  /** What has come and was not asked for yet. @type {Buffer[]} */
  #waiting = []
  /** @type {{ into: Uint8Array, filled: number, resolve: () => void, reject: Function } | undefined} */
  #receiving
  /** @type {Error | undefined} */
  #end

  /**
   * @param {number} rank
   * @param {net.Socket} socket
   */
  constructor(rank, socket) {
    this.rank = rank
    this.#socket = socket
    socket.on('data', (chunk) => this.#onData(chunk))
    socket.on('error', (error) => this.#onEnd(error))
    socket.on('close', () => this.#onEnd(new Error('the other process closed its socket')))
  }

  /**
   * Rank 0, which waits for rank 1.
   * @param {string} path
   */
  static async listen(path) {
    const server = net.createServer()
    server.listen(path)
    const [socket] = await once(server, 'connection')
    server.close()
    return new Peer(0, socket)
  }

  /**
   * Rank 1, which may be here before rank 0 listens.
   * @param {string} path
   */
  static async connect(path) {
    for (;;) {
      try {
        const socket = net.connect(path)
        await once(socket, 'connect')
        return new Peer(1, socket)
      } catch (error) {
        const { code = '' } = /** @type {NodeJS.ErrnoException} */ (error)
        if (!['ENOENT', 'ECONNREFUSED'].includes(code)) throw error
        await delay(retryMs)
      }
    }
  }

  /**
   * @param {ArrayBufferView} message not to be changed until the promise resolves
   * @returns {Promise<void>}
   */
  send(message) {
    return new Promise((resolve, reject) => {
      this.#socket.write(bytesOf(message), (error) => (error ? reject(error) : resolve()))
    })
  }

  /**
   * @param {ArrayBufferView} message where the next bytes go
   * @returns {Promise<void>} when it is full
   */
  receive(message) {
    if (message.byteLength === 0) return Promise.resolve()
    return new Promise((resolve, reject) => {
      if (this.#receiving !== undefined) throw new Error('one message at a time')
      this.#receiving = { into: bytesOf(message), filled: 0, resolve, reject }
      const waiting = this.#waiting
      this.#waiting = []
      for (const chunk of waiting) this.#onData(chunk)
      if (this.#end !== undefined) this.#onEnd(this.#end)
    })
  }

  /**
   * @param {ArrayBufferView} out
   * @param {ArrayBufferView} into
   */
  async exchange(out, into) {
    await Promise.all([this.send(out), this.receive(into)])
  }

  /** Waits until the other has come here too. */
  async barrier() {
    await this.exchange(Uint8Array.of(1), new Uint8Array(1))
  }

  async close() {
    this.#socket.destroy()
  }

  /** @param {Buffer} chunk */
  #onData(chunk) {
    const receiving = this.#receiving
    if (receiving === undefined) {
      this.#waiting.push(chunk)
      return
    }
    const taken = Math.min(chunk.length, receiving.into.length - receiving.filled)
    receiving.into.set(chunk.subarray(0, taken), receiving.filled)
    receiving.filled += taken
    if (receiving.filled === receiving.into.length) {
      this.#receiving = undefined
      receiving.resolve()
    }
    if (taken < chunk.length) this.#waiting.push(chunk.subarray(taken))
  }

  /** @param {Error} error */
  #onEnd(error) {
    this.#end ??= error
    this.#receiving?.reject(this.#end)
    this.#receiving = undefined
  }
}

/** @param {ArrayBufferView} view */
function bytesOf({ buffer, byteOffset, byteLength }) {
  return new Uint8Array(buffer, byteOffset, byteLength)
}
