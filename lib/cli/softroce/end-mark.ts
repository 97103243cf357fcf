import { Transform, type TransformCallback } from 'node:stream'

/**
 * Passes bytes on until the mark comes, and ends there: a virtual machine's port has no end of its
 * own. Without a mark it ends when its source does.
 */
export class EndMarkStream extends Transform {
  readonly #mark: Buffer
  /** The last bytes, which may become the mark. */
  #held = Buffer.alloc(0)
  #isComplete = false

  constructor(mark: string) {
    super()
    this.#mark = Buffer.from(mark)
  }

  /** Whether all that was written has come. */
  get isComplete(): boolean {
    return this.#isComplete
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    if (this.#isComplete) return done()
    const bytes = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk])
    const at = bytes.indexOf(this.#mark)
    if (at !== -1) {
      this.#isComplete = true
      this.#held = Buffer.alloc(0)
      if (at > 0) this.push(bytes.subarray(0, at))
      this.push(null)
      return done()
    }
    const heldBytes = this.#possibleMarkBytes(bytes)
    this.#held = Buffer.from(bytes.subarray(bytes.length - heldBytes))
    if (heldBytes < bytes.length) this.push(bytes.subarray(0, bytes.length - heldBytes))
    done()
  }

  override _flush(done: TransformCallback): void {
    if (!this.#isComplete && this.#held.length > 0) this.push(this.#held)
    done()
  }

  /** How many bytes at the end are the beginning of the mark. */
  #possibleMarkBytes(bytes: Buffer): number {
    for (let count = Math.min(bytes.length, this.#mark.length - 1); count > 0; count -= 1) {
      const tail = bytes.subarray(bytes.length - count)
      if (tail.equals(this.#mark.subarray(0, count))) return count
    }
    return 0
  }
}
