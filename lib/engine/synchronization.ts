import { PagemeshError } from '../errors.js'
import { BarrierWords } from '../protocol/barrier-words.js'
import { type BarrierOutcome, Barriers } from '../protocol/barriers.js'
import { Kind, SemaphoreAnswer } from '../protocol/messages.js'
import { type Next, SemaphoreManager, type SemaphoreOutcome } from '../protocol/semaphores.js'
import { NO_SLOT, TokenWords } from '../protocol/token-words.js'
import type { AcquireResult } from './commands.js'
import type { EngineContext } from './context.js'

const HIGH = 2 ** 32
/** How an Acquire asks; messages.ts. */
const TRIES = 1
const KEEPS = 2

interface PendingAcquire {
  readonly id: number
  readonly key: number
  readonly name: string
  readonly permits: number
  readonly slot: number
  /** What whoever passes the token on must know; 0 if nobody may. */
  readonly ticket: number
  cancelled: boolean
  /** It has been answered, and its grant is still to come. */
  early: boolean
}

/** The permit of a lock, here: in use, or kept. */
interface Token {
  readonly request: number
  readonly slot: number
  /** To whom it may be passed on. */
  next: Next | undefined
}

/**
 * Semaphores (a lock is one of a single permit): this member as the manager of some names, and as a
 * client of all. A name is managed by the member that its key points to. And barriers, which have
 * no manager.
 */
export class Synchronization {
  private readonly semaphores: SemaphoreManager
  private readonly barriers: Barriers
  private readonly acquires = new Map<number, PendingAcquire>()
  /** The names of barriers that this member waits at, by the number of its question. */
  private readonly arrivals = new Map<number, string>()
  /** By key: what the keys' managers may recall. */
  private readonly tokens = new Map<number, Token>()
  private readonly tokenWords: TokenWords
  private nextRequest = 1

  constructor(
    private readonly context: EngineContext,
    /** Why a member that is gone is gone. */
    private readonly goneError: (rank: number, what: string) => PagemeshError,
    tokens: Int32Array = new Int32Array(0),
    barrierWords: Int32Array = new Int32Array(0),
    /** Lets the program's thread, where it waits at a barrier by itself, look again. */
    private readonly ringProgram: () => void = () => undefined,
  ) {
    this.tokenWords = new TokenWords(tokens)
    this.semaphores = new SemaphoreManager((outcome) => this.semaphoreOutcome(outcome))
    const { size, rank } = context
    const words = new BarrierWords(barrierWords, size)
    this.barriers = new Barriers(size, rank, words, (outcome) => this.barrierOutcome(outcome))
  }

  acquire(
    id: number,
    key: number,
    name: string,
    permits: number,
    mode: 'wait' | 'try',
    slot = NO_SLOT,
    ticket = 0,
  ): void {
    const request = this.newRequest()
    const pending = { id, key, name, permits, slot, ticket, cancelled: false, early: false }
    this.acquires.set(request, pending)
    const manager = this.managerOf(key)
    if (manager === this.context.rank) {
      this.semaphores.acquire(key, manager, request, permits, mode, slot !== NO_SLOT, ticket)
    } else {
      const how = (mode === 'try' ? TRIES : 0) + (slot === NO_SLOT ? 0 : KEEPS)
      this.send(manager, Kind.Acquire, key, request, permits, how, ticket)
    }
  }

  /** @param passed - whoever is next has it already, from the program's thread */
  release(key: number, request: number, passed = false): void {
    const token = this.tokens.get(key)
    if (token?.request === request) {
      this.tokens.delete(key)
      if (!passed && token.next !== undefined) this.passOn(key, token.next)
    }
    const manager = this.managerOf(key)
    if (manager === this.context.rank) this.semaphores.release(key, manager, request)
    else this.send(manager, Kind.Release, key, request)
  }

  /** Gives up waiting. If the grant is on its way already, it is given back when it comes. */
  cancel(id: number): void {
    for (const [request, pending] of this.acquires) {
      if (pending.id !== id) continue
      if (pending.early) return // it is the program's, which releases it
      pending.cancelled = true
      const manager = this.managerOf(pending.key)
      if (manager === this.context.rank) this.semaphores.cancel(pending.key, manager, request)
      else this.send(manager, Kind.Cancel, pending.key, request)
      return
    }
  }

  /** This member comes to a barrier, which gets the slot if it is given one. */
  arrive(id: number, key: number, name: string, slot?: number): void {
    this.arrivals.set(id, name)
    if (!this.barriers.arrive(key, id, slot)) return
    for (let to = 0; to < this.context.size; to++) this.tellArrival(key, to)
  }

  /** The program has come by itself, and could not tell these ranks: a bit for each. */
  tellArrivals(key: number, ranks: number): void {
    for (let to = 0; to < this.context.size; to++) {
      if ((ranks & (1 << to)) !== 0) this.tellArrival(key, to)
    }
  }

  /** The program has come by itself, and waits no longer by itself. */
  awaitBarrier(id: number, name: string, slot: number, ticket: number): void {
    this.arrivals.set(id, name)
    this.barriers.await(slot, ticket, id)
  }

  /** Native code has counted arrivals. */
  lookAtBarriers(): void {
    this.barriers.look()
  }

  private tellArrival(key: number, to: number): void {
    const { context } = this
    if (to === context.rank || !context.isUp(to)) return
    context.ring.send(to, Kind.BarrierArrive, 0, 0, key % HIGH, Math.floor(key / HIGH))
  }

  /** A record of one of the kinds above; `words` reads its words a, b, c … . */
  onMessage(kind: number, from: number, word: (index: number) => number): void {
    const key = word(0) + word(1) * HIGH
    const request = word(2)
    switch (kind) {
      case Kind.Acquire:
        return this.asked(from, key, request, word(3), word(4), word(5))
      case Kind.Release:
        return this.semaphores.release(key, from, request)
      case Kind.Cancel:
        return this.semaphores.cancel(key, from, request)
      case Kind.BarrierArrive:
        this.barriers.arrived(key, from)
        return this.ringProgram() // native code would have counted it, and done so too
      case Kind.TokenInUse:
        return this.semaphores.inUse(key, from, request)
      case Kind.TokenRecall:
        this.checkManages(from, key)
        return this.recalled(
          key,
          request,
          word(3) === 1,
          this.nextIn(from, word(4), word(5), word(6)),
        )
      case Kind.TokenPassed:
        return this.passed(from, key, request, word(3))
      default:
        return this.answered(
          word(0),
          word(1),
          word(2),
          this.nextIn(from, word(3), word(4), word(5)),
        )
    }
  }

  private asked(
    from: number,
    key: number,
    request: number,
    permits: number,
    how: number,
    ticket: number,
  ): void {
    const mode = (how & TRIES) === 0 ? 'wait' : 'try'
    this.semaphores.acquire(key, from, request, permits, mode, (how & KEEPS) !== 0, ticket)
  }

  /**
   * This member leaves. What it waits for, it will not have: a grant that is on its way already is
   * nobody's, since the manager passes the permit on as soon as it hears of this.
   */
  leave(error: PagemeshError): void {
    this.failAcquires(error)
    for (const { slot } of this.acquires.values()) {
      if (slot !== NO_SLOT) this.tokenWords.close(slot)
    }
    this.acquires.clear()
    for (const { slot } of this.tokens.values()) this.tokenWords.want(slot)
    this.tokens.clear() // the managers pass them on
    this.memberLeft(this.context.rank)
  }

  /** What the member held is free, and barriers that wait for it are broken. */
  memberLeft(rank: number): void {
    this.semaphores.memberGone(rank)
    this.barriers.memberGone(rank)
    this.ringProgram()
  }

  /**
   * Barriers are broken; but what the member held is handed to nobody: what a lock guards may be
   * half written, and everybody is about to hear that the member is down.
   */
  memberDown(rank: number): void {
    this.barriers.memberGone(rank)
    this.ringProgram()
  }

  /** Ends everything that waits here. */
  failAll(error: PagemeshError): void {
    this.failAcquires(error)
    for (const id of this.arrivals.keys()) this.context.fail(id, error)
    this.acquires.clear()
    this.arrivals.clear()
    this.barriers.forgetAll()
    this.ringProgram()
    // What lies idle here could be taken without asking, and so without hearing of the failure.
    for (const [key, { request }] of this.tokens) this.recalled(key, request, false)
  }

  private failAcquires(error: PagemeshError): void {
    for (const { id, early } of this.acquires.values()) if (!early) this.context.fail(id, error)
  }

  private newRequest(): number {
    const request = this.nextRequest
    this.nextRequest = request === 0xffffffff ? 1 : request + 1
    return request
  }

  private managerOf(key: number): number {
    return key % this.context.size
  }

  private send(to: number, kind: number, key: number, request: number, ...rest: number[]): void {
    this.context.ring.send(to, kind, 0, 0, key % HIGH, Math.floor(key / HIGH), request, ...rest)
  }

  private semaphoreOutcome(outcome: SemaphoreOutcome): void {
    const { to, request } = outcome
    if (outcome.kind === 'recall') {
      const { id, answer, next } = outcome
      if (to === this.context.rank) this.recalled(id, request, answer, next)
      else this.send(to, Kind.TokenRecall, id, request, answer ? 1 : 0, ...wordsOf(next))
      return
    }
    const answer = SemaphoreAnswer[outcome.kind]
    const detail = detailOf(outcome)
    const next = outcome.kind === 'granted' ? outcome.next : undefined
    if (to === this.context.rank) return this.answered(request, answer, detail, next)
    const { ring } = this.context
    ring.send(to, Kind.SemaphoreReply, 0, 0, request, answer, detail, ...wordsOf(next))
  }

  /** Who is next, as a manager says it. */
  private nextIn(
    from: number,
    rankAndOne: number,
    request: number,
    ticket: number,
  ): Next | undefined {
    if (rankAndOne === 0) return undefined
    const rank = rankAndOne - 1
    if (rank < this.context.size && rank !== this.context.rank) return { rank, request, ticket }
    const what = `rank ${from} says that a lock goes from rank ${this.context.rank} to ${rank}`
    throw new PagemeshError('ERR_PAGEMESH_PROTOCOL', what, { rank: from })
  }

  /** A token that this member has, and is about to give back, goes to who is granted it next. */
  private passOn(key: number, { rank, request, ticket }: Next): void {
    this.send(rank, Kind.TokenPassed, key, request, ticket)
  }

  /**
   * Whoever had the token passes it on, and the manager's grant is to follow. What its grant has
   * overtaken, or nobody waits for any more, is no use and does no harm.
   */
  private passed(from: number, key: number, request: number, ticket: number): void {
    const pending = this.acquires.get(request)
    if (pending === undefined) return
    if (ticket === 0 || pending.ticket !== ticket || pending.key !== key) {
      const what = `rank ${from} passes on the token of semaphore ${key}, which it was not told to`
      throw new PagemeshError('ERR_PAGEMESH_PROTOCOL', what, { rank: from })
    }
    if (pending.cancelled || !this.tokenWords.cameEarly(pending.slot)) return
    pending.early = true
    this.context.answer(pending.id, { granted: true, request } satisfies AcquireResult)
  }

  private checkManages(from: number, key: number): void {
    if (from === this.managerOf(key)) return
    const what = `rank ${from} recalls the token of semaphore ${key}, which it does not manage`
    throw new PagemeshError('ERR_PAGEMESH_PROTOCOL', what, { rank: from })
  }

  /** Others want the permit that this member has by `request`. */
  private recalled(key: number, request: number, answer: boolean, next?: Next): void {
    const token = this.tokens.get(key)
    if (token?.request !== request) return // on its way back
    token.next ??= next
    const found = this.tokenWords.want(token.slot, next)
    if (found === 'free') return this.release(key, request)
    if (found === 'away' || !answer) return
    const manager = this.managerOf(key)
    if (manager === this.context.rank) this.semaphores.inUse(key, manager, request)
    else this.send(manager, Kind.TokenInUse, key, request)
  }

  private barrierOutcome(outcome: BarrierOutcome): void {
    const { request: id } = outcome
    const name = this.arrivals.get(id)
    if (name === undefined) return
    this.arrivals.delete(id)
    if (outcome.kind === 'open') this.context.answer(id, undefined)
    else this.context.fail(id, this.goneError(outcome.rank, `barrier '${name}'`))
  }

  /** `detail` is what the kind of answer says of permits; messages.ts. */
  private answered(request: number, answer: number, detail: number, next?: Next): void {
    const pending = this.acquires.get(request)
    if (pending === undefined) return // failed meanwhile
    this.acquires.delete(request)
    const { context } = this
    switch (answer) {
      case SemaphoreAnswer.granted:
        if (pending.cancelled) {
          this.release(pending.key, request)
          return context.answer(pending.id, { granted: false } satisfies AcquireResult)
        }
        if (pending.slot !== NO_SLOT && !this.keep(pending, request, detail === 1, next)) return
        return context.answer(pending.id, { granted: true, request } satisfies AcquireResult)
      case SemaphoreAnswer.refused:
      case SemaphoreAnswer.cancelled:
        return context.answer(pending.id, { granted: false } satisfies AcquireResult)
      case SemaphoreAnswer.mismatch:
        return context.fail(
          pending.id,
          new PagemeshError(
            'ERR_PAGEMESH_SEMAPHORE_MISMATCH',
            `'${pending.name}' is in use with ${detail} permit(s), and was asked for here with ` +
              `${pending.permits}: all members must name the same number`,
          ),
        )
    }
  }

  /** False: the token had come before its grant, and the program knows. */
  private keep(
    { key, slot }: PendingAcquire,
    request: number,
    stays: boolean,
    next: Next | undefined,
  ): boolean {
    this.tokens.set(key, { request, slot, next })
    const found = this.tokenWords.granted(slot, stays, next)
    if (found === 'free') this.release(key, request)
    return found === 'came'
  }
}

/** Of a record, from some word on; none stand for nobody. */
function wordsOf(next: Next | undefined): number[] {
  return next === undefined ? [] : [next.rank + 1, next.request, next.ticket]
}

function detailOf(outcome: Exclude<SemaphoreOutcome, { kind: 'recall' }>): number {
  if (outcome.kind === 'mismatch') return outcome.permits
  return outcome.kind === 'granted' && outcome.stays ? 1 : 0
}
