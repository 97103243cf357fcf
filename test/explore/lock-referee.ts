import type { ByteReader, ByteWriter } from './bytes.js'
import type { SemaphoreState } from './locks-world.js'

export interface Outcome {
  readonly kind: 'granted' | 'recall' | 'refused' | 'cancelled' | 'mismatch'
  readonly to: number
  readonly request: number
  readonly stays?: boolean
  readonly next?: { readonly rank: number; readonly request: number } | undefined
}

interface Entry {
  readonly rank: number
  readonly request: number
  /** It waits for an answer of who may keep the permit, and does not queue. */
  readonly tries?: boolean
}

/**
 * Stands beside the manager of a semaphore, sees what it is asked for and what it answers, and
 * knows by itself who must be next: first come, first served, and no permit idle while one waits.
 */
export class LockReferee {
  private held: Entry[] = []
  private queue: Entry[] = []
  private asking: (Entry & { mode: string; answered: boolean }) | undefined

  constructor(
    private readonly manager: SemaphoreState,
    private readonly permits: number,
    /** Whether the permit lies at a member that does not use it, even if its grant is to come. */
    private readonly isFree: (early: boolean) => boolean,
    private readonly fail: (why: string, invariant: string) => never,
  ) {
    const { acquire, release, memberGone, emit } = manager
    manager.emit = (outcome) => {
      this.onOutcome(outcome)
      emit(outcome)
    }
    manager.acquire = (id, rank, request, permits, mode, keeps, ticket) => {
      const ask = (): void => acquire.call(manager, id, rank, request, permits, mode, keeps, ticket)
      if (manager.gone.has(rank)) return ask()
      const asking = { rank, request, mode, answered: false }
      this.asking = asking
      ask()
      this.asking = undefined
      if (asking.answered) return
      // Who has the only permit may not use it, and is asked: once somebody waits, nobody is.
      const tries = mode === 'try'
      const waiting = this.queue.filter((each) => each.tries !== true)
      // Unless the one that waits may have been passed the permit already.
      const isPassed = waiting.length === 1 && this.isPromised(waiting[0])
      if (tries && (this.permits > 1 || (waiting.length > 0 && !isPassed))) {
        this.fail(`a try of rank ${rank} is not answered`, 'answers are right')
      }
      this.queue.push({ rank, request, tries })
    }
    manager.release = (id, rank, request) => {
      if (!manager.gone.has(rank)) this.held = without(this.held, rank, request)
      release.call(manager, id, rank, request)
    }
    manager.memberGone = (rank) => {
      this.held = this.held.filter((each) => each.rank !== rank)
      this.queue = this.queue.filter((each) => each.rank !== rank)
      memberGone.call(manager, rank)
    }
  }

  private onOutcome({ kind, to, request }: Outcome): void {
    const isAsking = this.asking?.rank === to && this.asking.request === request
    if (isAsking) this.asking!.answered = true
    switch (kind) {
      case 'granted':
        return this.onGrant(to, request, isAsking)
      case 'refused':
        return this.onRefusal(to, request, isAsking)
      case 'cancelled': {
        const left = without(this.queue, to, request)
        if (left.length === this.queue.length) {
          this.fail(
            `rank ${to} is told that it waits no more, and it never did`,
            'answers are right',
          )
        }
        this.queue = left
        return
      }
      case 'recall':
        return
      case 'mismatch':
        this.fail('all ask for the same number of permits', 'answers are right')
    }
  }

  private onRefusal(rank: number, request: number, isAsking: boolean): void {
    const tries = isAsking
      ? this.asking!.mode === 'try'
      : this.queue.some((each) => each.tries === true && isOf(each, rank, request))
    // Who is promised the permit may have been passed it by then, and have let it go.
    const waits = this.queue.some(
      (each) => each.tries !== true && !(isAsking && this.isPromised(each)),
    )
    const isUsed = this.held.length === this.permits && (waits || !this.isFree(isAsking))
    this.queue = without(this.queue, rank, request)
    if (!tries || !isUsed) {
      this.fail(`rank ${rank} is refused a permit that is free`, 'no permit is lost')
    }
  }

  private onGrant(rank: number, request: number, isAsking: boolean): void {
    const first = this.queue.at(0)
    if (isAsking ? first !== undefined : first?.rank !== rank || first.request !== request) {
      const before = first === undefined ? 'nobody waits' : `rank ${first.rank} came first`
      this.fail(`rank ${rank} is granted a permit, and ${before}`, 'first come, first served')
    }
    if (!isAsking) this.queue = this.queue.slice(1)
    this.held = [...this.held, { rank, request }]
    if (this.held.length <= this.permits) return
    this.fail(`${this.held.length} of ${this.permits} permits are granted`, 'mutual exclusion')
  }

  /** Somebody was told to pass the permit on to this request. */
  private isPromised({ rank, request }: Entry): boolean {
    return this.manager.claims.get(rank)?.get(request)?.promised === true
  }

  check(): void {
    const first = this.queue.at(0)
    if (first === undefined || this.held.length === this.permits) return
    this.fail(`rank ${first.rank} waits, and a permit is free`, 'no permit is lost')
  }

  hasTries(): boolean {
    return this.queue.some(({ tries }) => tries === true)
  }

  entries(): readonly Entry[] {
    return [...this.held, ...this.queue]
  }

  picture(): string {
    const ranks = (entries: readonly Entry[]): string =>
      entries.map(({ rank }) => rank).join(', ') || 'nobody'
    return `granted: ${ranks(this.held)}; waiting: ${ranks(this.queue)}`
  }

  write(out: ByteWriter, claim: (rank: number, request: number) => void): void {
    out.put(this.held.length)
    for (const { rank, request } of this.held) claim(rank, request)
    out.put(this.queue.length)
    for (const { rank, request, tries } of this.queue) {
      claim(rank, request)
      out.put(tries === true ? 1 : 0)
    }
  }

  clear(): void {
    this.held = []
    this.queue = []
  }

  read(from: ByteReader): void {
    for (let count = from.take(); count > 0; count--) {
      this.held.push({ rank: from.take(), request: from.take() })
    }
    for (let count = from.take(); count > 0; count--) {
      const entry = { rank: from.take(), request: from.take() }
      this.queue.push({ ...entry, tries: from.take() === 1 })
    }
  }
}

const isOf = (entry: Entry, rank: number, request: number): boolean =>
  entry.rank === rank && entry.request === request
const without = (entries: readonly Entry[], rank: number, request: number): Entry[] =>
  entries.filter((each) => !isOf(each, rank, request))
