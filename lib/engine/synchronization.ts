import { PagemeshError } from '../errors.js'
import { BarrierManager, type BarrierOutcome } from '../protocol/barriers.js'
import { Kind, SemaphoreAnswer } from '../protocol/messages.js'
import { SemaphoreManager, type SemaphoreOutcome } from '../protocol/semaphores.js'
import type { AcquireResult } from './commands.js'
import type { EngineContext } from './context.js'

const HIGH = 2 ** 32

interface PendingAcquire {
  readonly id: number
  readonly key: number
  readonly name: string
  readonly permits: number
  cancelled: boolean
}

/**
 * Semaphores (a lock is one of a single permit) and barriers: this member as the manager of some
 * names, and as a client of all. A name is managed by the member that its key points to.
 */
export class Synchronization {
  private readonly semaphores: SemaphoreManager
  private readonly barriers: BarrierManager
  private readonly acquires = new Map<number, PendingAcquire>()
  private readonly arrivals = new Map<number, { id: number; name: string }>()
  private nextRequest = 1

  constructor(
    private readonly context: EngineContext,
    /** Why a member that is gone is gone. */
    private readonly goneError: (rank: number, what: string, down?: boolean) => PagemeshError,
  ) {
    this.semaphores = new SemaphoreManager((outcome) => this.semaphoreOutcome(outcome))
    this.barriers = new BarrierManager(context.size, (outcome) => this.barrierOutcome(outcome))
  }

  acquire(id: number, key: number, name: string, permits: number, mode: 'wait' | 'try'): void {
    const request = this.newRequest()
    this.acquires.set(request, { id, key, name, permits, cancelled: false })
    const manager = this.managerOf(key)
    if (manager === this.context.rank) {
      this.semaphores.acquire(key, manager, request, permits, mode)
    } else {
      this.send(manager, Kind.Acquire, key, request, permits, mode === 'try' ? 1 : 0)
    }
  }

  release(key: number, request: number): void {
    const manager = this.managerOf(key)
    if (manager === this.context.rank) this.semaphores.release(key, manager, request)
    else this.send(manager, Kind.Release, key, request)
  }

  /** Gives up waiting. If the grant is on its way already, it is given back when it comes. */
  cancel(id: number): void {
    for (const [request, pending] of this.acquires) {
      if (pending.id !== id) continue
      pending.cancelled = true
      const manager = this.managerOf(pending.key)
      if (manager === this.context.rank) this.semaphores.cancel(pending.key, manager, request)
      else this.send(manager, Kind.Cancel, pending.key, request)
      return
    }
  }

  arrive(id: number, key: number, name: string): void {
    const request = this.newRequest()
    this.arrivals.set(request, { id, name })
    const manager = this.managerOf(key)
    if (manager === this.context.rank) this.barriers.arrive(key, manager, request)
    else this.send(manager, Kind.BarrierArrive, key, request)
  }

  /** A record of one of the kinds above; `words` reads its words a, b, c … . */
  onMessage(kind: number, from: number, word: (index: number) => number): void {
    const key = word(0) + word(1) * HIGH
    const request = word(2)
    switch (kind) {
      case Kind.Acquire:
        return this.semaphores.acquire(key, from, request, word(3), word(4) === 1 ? 'try' : 'wait')
      case Kind.Release:
        return this.semaphores.release(key, from, request)
      case Kind.Cancel:
        return this.semaphores.cancel(key, from, request)
      case Kind.BarrierArrive:
        return this.barriers.arrive(key, from, request)
      case Kind.SemaphoreReply:
        return this.answered(word(0), word(1), word(2))
      default:
        return this.opened(word(0), word(1) === 0, word(2), word(3) === 1)
    }
  }

  /**
   * This member leaves. What it waits for, it will not have: a grant that is on its way already is
   * nobody's, since the manager passes the permit on as soon as it hears of this.
   */
  leave(error: PagemeshError): void {
    for (const { id } of this.acquires.values()) this.context.fail(id, error)
    this.acquires.clear()
    this.memberLeft(this.context.rank)
  }

  /** What the member held is free, and barriers that wait for it are broken. */
  memberLeft(rank: number): void {
    this.semaphores.memberGone(rank)
    this.barriers.memberGone(rank)
  }

  /**
   * Barriers are broken; but what the member held is handed to nobody: what a lock guards may be
   * half written, and everybody is about to hear that the member is down.
   */
  memberDown(rank: number): void {
    this.barriers.memberGone(rank)
  }

  /** Ends everything that waits here. */
  failAll(error: PagemeshError): void {
    for (const { id } of this.acquires.values()) this.context.fail(id, error)
    for (const { id } of this.arrivals.values()) this.context.fail(id, error)
    this.acquires.clear()
    this.arrivals.clear()
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
    const answer = SemaphoreAnswer[outcome.kind]
    const permits = outcome.kind === 'mismatch' ? outcome.permits : 0
    if (outcome.to === this.context.rank) this.answered(outcome.request, answer, permits)
    else
      this.context.ring.send(
        outcome.to,
        Kind.SemaphoreReply,
        0,
        0,
        outcome.request,
        answer,
        permits,
      )
  }

  private barrierOutcome(outcome: BarrierOutcome): void {
    const broken = outcome.kind === 'broken'
    const rank = outcome.kind === 'broken' ? outcome.rank : 0
    const { context } = this
    const down = broken && !context.isUp(rank)
    if (outcome.to === context.rank) return this.opened(outcome.request, !broken, rank, down)
    const { to, request } = outcome
    context.ring.send(to, Kind.BarrierReply, 0, 0, request, broken ? 1 : 0, rank, down ? 1 : 0)
  }

  private answered(request: number, answer: number, permits: number): void {
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
        return context.answer(pending.id, { granted: true, request } satisfies AcquireResult)
      case SemaphoreAnswer.refused:
      case SemaphoreAnswer.cancelled:
        return context.answer(pending.id, { granted: false } satisfies AcquireResult)
      case SemaphoreAnswer.mismatch:
        return context.fail(
          pending.id,
          new PagemeshError(
            'ERR_PAGEMESH_SEMAPHORE_MISMATCH',
            `'${pending.name}' is in use with ${permits} permit(s), and was asked for here with ` +
              `${pending.permits}: all members must name the same number`,
          ),
        )
    }
  }

  private opened(request: number, open: boolean, rank: number, down: boolean): void {
    const arrival = this.arrivals.get(request)
    if (arrival === undefined) return
    this.arrivals.delete(request)
    if (open) this.context.answer(arrival.id, undefined)
    else this.context.fail(arrival.id, this.goneError(rank, `barrier '${arrival.name}'`, down))
  }
}
