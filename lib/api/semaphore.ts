import { createHash } from 'node:crypto'
import type { AcquireResult } from '../engine/commands.js'
import { PagemeshError } from '../errors.js'
import type { EngineClient } from './engine-client.js'
import { checkOptions, invalid, show } from './validate.js'

/** Options of {@link Semaphore.acquire}. */
export interface AcquireOptions {
  /** Gives up waiting when it aborts; `acquire` then rejects with its reason. */
  signal?: AbortSignal
}

/** A permit that this member has. Give it back once, by `release` or `using`. */
export class Held implements AsyncDisposable, Disposable {
  private released = false

  /** @internal */
  constructor(
    private readonly name: string,
    private readonly giveBack: () => void,
  ) {}

  /**
   * Gives the permit back. Whoever is first in the queue gets it; what this member wrote before
   * is what the next holder reads.
   * @throws ERR_PAGEMESH_NOT_HELD the second time
   */
  release(): void {
    if (this.released) {
      throw new PagemeshError('ERR_PAGEMESH_NOT_HELD', `'${this.name}' has been released already`)
    }
    this.released = true
    this.giveBack()
  }

  /** Like {@link release}, but does nothing the second time. */
  [Symbol.dispose](): void {
    if (!this.released) this.release()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this[Symbol.dispose]()
  }
}

/**
 * A counting semaphore of the mesh, known by its name; a {@link Mesh.lock} is one with a single
 * permit. Permits are handed out in the order in which requests reached the semaphore's manager.
 * Not reentrant. Nobody spins: waiting costs no messages.
 */
export class Semaphore {
  private readonly key: number

  /** @internal */
  constructor(
    private readonly client: EngineClient,
    kind: 'lock' | 'semaphore',
    readonly name: string,
    /** How many may hold it at the same time; the same in all members. */
    readonly permits: number,
  ) {
    this.key = keyOf(kind, name)
  }

  /**
   * Waits for a permit.
   * @throws ERR_PAGEMESH_MEMBER_DOWN, ERR_PAGEMESH_SEMAPHORE_MISMATCH, ERR_PAGEMESH_LEFT, or the
   * signal's reason
   */
  async acquire(options?: AcquireOptions): Promise<Held> {
    const { signal } = checkOptions('acquire', options)
    if (signal !== undefined && !(signal instanceof AbortSignal)) {
      throw invalid(`signal must be an AbortSignal, not ${show(signal)}`)
    }
    signal?.throwIfAborted()
    const { id, answer } = this.client.numbered(this.question('wait'))
    if (signal === undefined) return this.held(await answer)
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        // If the permit is on its way, the engine gives it back.
        this.client.post({ op: 'cancel', id })
        reject(signal.reason as Error)
      }
      signal.addEventListener('abort', onAbort, { once: true })
      answer.then(
        (result) => {
          signal.removeEventListener('abort', onAbort)
          if (!signal.aborted) resolve(this.held(result))
          // Aborted while the grant was between two threads: nobody else would release it.
          else if ((result as AcquireResult).granted) this.held(result).release()
        },
        (error: unknown) => {
          signal.removeEventListener('abort', onAbort)
          reject(error instanceof Error ? error : new Error(String(error)))
        },
      )
    })
  }

  /**
   * The same, and stops this thread until it has the permit: its event loop stands still.
   * @throws as {@link acquire}
   */
  acquireSync(): Held {
    return this.held(this.client.askSync(this.question('wait')))
  }

  /** Takes a permit if one is free and nobody waits for it; resolves to undefined if not. */
  async tryAcquire(): Promise<Held | undefined> {
    const result = (await this.client.ask(this.question('try'))) as AcquireResult
    return result.granted ? this.held(result) : undefined
  }

  private question(mode: 'wait' | 'try'): {
    op: 'acquire'
    key: number
    name: string
    permits: number
    mode: 'wait' | 'try'
  } {
    return { op: 'acquire', key: this.key, name: this.name, permits: this.permits, mode }
  }

  private held(result: unknown): Held {
    const { request } = result as Extract<AcquireResult, { granted: true }>
    return new Held(this.name, () => this.client.post({ op: 'release', key: this.key, request }))
  }
}

/**
 * The number by which members know a name: 52 bits of a SHA-256, so that it stays a whole number.
 * Ten thousand names collide with a chance of one in 10^8.
 */
export function keyOf(kind: 'lock' | 'semaphore' | 'barrier', name: string): number {
  const digest = createHash('sha256').update(`${kind}\0${name}`).digest()
  return digest.readUInt32LE(0) + (digest.readUInt32LE(4) & 0xfffff) * 2 ** 32
}
