import { createHash } from 'node:crypto'
import type { AcquireResult } from '../engine/commands.js'
import { PagemeshError } from '../errors.js'
import { NO_SLOT } from '../protocol/token-words.js'
import type { EngineClient } from './engine-client.js'
import type { TokenPlace } from './lock-tokens.js'
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
    private readonly owner: Semaphore,
    private readonly request: number,
    private readonly place: TokenPlace | undefined,
  ) {}

  /**
   * Gives the permit back. Whoever is first in the queue gets it, and a lock that nobody waits for
   * stays with this member; what this member wrote before is what the next holder reads.
   * @throws ERR_PAGEMESH_NOT_HELD the second time
   */
  release(): void {
    if (this.released) {
      throw new PagemeshError(
        'ERR_PAGEMESH_NOT_HELD',
        `'${this.owner.name}' has been released already`,
      )
    }
    this.released = true
    this.owner.giveBack(this.request, this.place)
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
 *
 * A lock stays with the member that had it last until another one asks for it. As long as nobody
 * does, that member takes it again without a message.
 */
export class Semaphore {
  private readonly key: number
  /** Of a lock: where its token may be. */
  private place: TokenPlace | undefined

  /** @internal */
  constructor(
    private readonly client: EngineClient,
    private readonly kind: 'lock' | 'semaphore',
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
    const here = this.takeHere()
    if (here !== undefined) return here
    const place = this.expects()
    const { id, answer } = this.client.numbered(this.question('wait', place))
    if (signal === undefined) {
      try {
        return this.held(await answer, place)
      } finally {
        this.expectsNoMore(place)
      }
    }
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        // If the permit is on its way, the engine gives it back.
        this.client.post({ op: 'cancel', id })
        reject(signal.reason as Error)
      }
      signal.addEventListener('abort', onAbort, { once: true })
      answer.then(
        (result) => {
          this.expectsNoMore(place)
          signal.removeEventListener('abort', onAbort)
          if (!signal.aborted) resolve(this.held(result, place))
          // Aborted while the grant was between two threads: nobody else would release it.
          else if ((result as AcquireResult).granted) this.held(result, place).release()
        },
        (error: unknown) => {
          this.expectsNoMore(place)
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
    const here = this.takeHere()
    if (here !== undefined) return here
    const place = this.expects()
    try {
      return this.held(this.client.askSync(this.question('wait', place), place), place)
    } finally {
      this.expectsNoMore(place)
    }
  }

  /** Takes a permit if one is free and nobody waits for it; resolves to undefined if not. */
  async tryAcquire(): Promise<Held | undefined> {
    const here = this.takeHere()
    if (here !== undefined) return here
    const place = this.expects()
    try {
      const result = (await this.client.ask(this.question('try', place))) as AcquireResult
      return result.granted ? this.held(result, place) : undefined
    } finally {
      this.expectsNoMore(place)
    }
  }

  /** @internal */
  giveBack(request: number, place: TokenPlace | undefined): void {
    const { key } = this
    if (place === undefined) this.client.post({ op: 'release', key, request, passed: false })
    else this.client.tokens.release(place)
  }

  /** If the lock's token is here and free, nobody needs to be asked. */
  private takeHere(): Held | undefined {
    const place = this.currentPlace()
    if (place === undefined || !this.client.tokens.take(place)) return undefined
    return new Held(this, place.request, place)
  }

  /** Something is about to be asked: from now on nothing of this member's may overtake it. */
  private expects(): TokenPlace | undefined {
    const place = this.currentPlace()
    if (place !== undefined) place.waiting++
    return place
  }

  private currentPlace(): TokenPlace | undefined {
    if (this.kind === 'semaphore') return undefined
    if (this.place === undefined || this.place.slot === NO_SLOT) {
      this.place = this.client.tokens.placeOf(this.key)
    }
    return this.place
  }

  private expectsNoMore(place: TokenPlace | undefined): void {
    if (place !== undefined) place.waiting--
  }

  private question(
    mode: 'wait' | 'try',
    place: TokenPlace | undefined,
  ): {
    op: 'acquire'
    key: number
    name: string
    permits: number
    mode: 'wait' | 'try'
    slot: number
    ticket: number
  } {
    const { key, name, permits } = this
    // Whoever only tries is told by the manager.
    const ticket = place === undefined || mode === 'try' ? 0 : this.client.tokens.newTicket()
    return { op: 'acquire', key, name, permits, mode, slot: place?.slot ?? NO_SLOT, ticket }
  }

  private held(result: unknown, place: TokenPlace | undefined): Held {
    const { request } = result as Extract<AcquireResult, { granted: true }>
    if (place !== undefined) place.request = request
    return new Held(this, request, place)
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
