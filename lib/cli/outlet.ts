import type { Readable, Writable } from 'node:stream'
import { LineMerger } from './line-merger.js'

/** A source that says nothing for this long after its process is gone has nothing left to say. */
const quietMs = 500

/**
 * One of the launcher's own output streams, with the members' streams that flow into it. While the
 * reader of it is slow the members' streams stand still, so what is held in memory stays bounded.
 */
export class Outlet {
  readonly #stream: Writable
  readonly #merger: LineMerger
  readonly #sources = new Map<number, { readonly readable: Readable; receivedBytes: number }>()
  /** The reader is gone: everything is dropped. */
  #broken = false
  #waitsForDrain = false
  #onSettled: (() => void) | undefined

  constructor(
    stream: Writable,
    prefixes: readonly string[],
    onBroken: (error: NodeJS.ErrnoException) => void,
  ) {
    this.#stream = stream
    this.#merger = new LineMerger(prefixes)
    stream.on('drain', () => this.#drained())
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (this.#broken) return
      this.#broken = true
      this.#drained()
      onBroken(error)
    })
  }

  attach(rank: number, readable: Readable): void {
    const source = { readable, receivedBytes: 0 }
    this.#sources.set(rank, source)
    readable.on('data', (chunk: Buffer) => {
      source.receivedBytes += chunk.length
      this.#write(this.#merger.push(rank, chunk))
    })
    readable.on('error', () => readable.destroy())
    readable.once('close', () => {
      this.#sources.delete(rank)
      this.#write(this.#merger.end(rank))
      this.#settle()
    })
    if (this.#waitsForDrain) readable.pause()
  }

  announce(line: string): void {
    this.#write(this.#merger.announce(line))
  }

  /**
   * The member behind this source is gone. The stream normally ends by itself; a daemon that the
   * member left behind may hold it open for ever.
   */
  release(rank: number): void {
    const source = this.#sources.get(rank)
    if (source === undefined) return
    const seenBytes = source.receivedBytes
    setTimeout(() => {
      // One turn of the poll phase first: after a long stop timers run before waiting input.
      setImmediate(() => {
        if (this.#sources.get(rank) !== source) return
        if (source.receivedBytes === seenBytes && !this.#waitsForDrain) source.readable.destroy()
        else this.release(rank)
      })
    }, quietMs).unref()
  }

  /** Resolves when all sources have ended and all of it is written, or nobody reads any more. */
  settled(): Promise<void> {
    return new Promise((resolve) => {
      this.#onSettled = resolve
      this.#settle()
    })
  }

  /** Stops reading; what was not yet written is lost. */
  drop(): void {
    this.#broken = true
    for (const { readable } of this.#sources.values()) readable.destroy()
    this.#settle()
  }

  #write(data: Buffer): void {
    if (this.#broken || data.length === 0) return
    if (this.#stream.write(data) || this.#waitsForDrain) return
    this.#waitsForDrain = true
    for (const { readable } of this.#sources.values()) readable.pause()
  }

  #drained(): void {
    this.#waitsForDrain = false
    for (const { readable } of this.#sources.values()) readable.resume()
    this.#settle()
  }

  #settle(): void {
    if (this.#sources.size > 0) return
    if (this.#broken || this.#stream.writableLength === 0) this.#onSettled?.()
    else this.#stream.write('', () => this.#settle())
  }
}
