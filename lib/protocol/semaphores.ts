import { PagemeshError } from '../errors.js'

/** Whether an acquire queues for a permit, or takes one only if it is free at once. */
export type SemaphoreMode = 'wait' | 'try'

/**
 * Who is granted a permit next, unless it stops waiting. Whoever has the permit may pass it on to
 * that request by itself, before it gives it back; the grant, which follows, then says nothing new.
 */
export interface Next {
  readonly rank: number
  readonly request: number
  /** What the request was made with. Nobody else is told: it proves that the manager was asked. */
  readonly ticket: number
}

/** What the manager of a semaphore tells the member that asked. */
export type SemaphoreOutcome =
  /** `stays`: it may lie idle at its member, since nobody waits for it yet. */
  | { kind: 'granted'; to: number; request: number; stays: boolean; next: Next | undefined }
  /**
   * Others want a permit that may stay: to be given back at once if it lies idle, and else when it
   * is released. `answer`: to say so (`inUse`) if it is not given back at once.
   */
  | {
      kind: 'recall'
      to: number
      request: number
      id: number
      answer: boolean
      next: Next | undefined
    }
  /** A try that found no free permit. */
  | { kind: 'refused'; to: number; request: number }
  /** The waiter was still queued and is gone now. */
  | { kind: 'cancelled'; to: number; request: number }
  /** The semaphore is in use with another number of permits, namely `permits`. */
  | { kind: 'mismatch'; to: number; request: number; permits: number }

interface Semaphore {
  readonly id: number
  readonly permits: number
  /** How many claims hold a permit. Below `permits` only while `waiters` is empty. */
  heldCount: number
  /** In order of arrival: a Set iterates so, and lets a cancel take one out of the middle. */
  readonly waiters: Set<Claim>
  /** How many of them only try, until the keeper has answered. */
  tries: number
  /** The claim that holds the only permit, and may keep it. */
  keeper: Claim | undefined
}

interface Claim {
  readonly rank: number
  readonly request: number
  readonly semaphore: Semaphore
  readonly mode: SemaphoreMode
  readonly keeps: boolean
  readonly ticket: number
  held: boolean
  /** Who has the permit was told to pass it on to this one, which comes next. */
  promised: boolean
  /** What the keeper has been told: that others want the permit, and whether it is to answer. */
  asked: 'nothing' | 'recall' | 'recallAndAnswer'
}

/**
 * The manager's side of semaphores: strictly first come, first served. A lock is a semaphore of
 * one permit, and that one may stay with the member that used it last (to the manager the claim is
 * held, although nobody is using it) until the manager recalls it. How the member keeps it is its
 * own business (token-words.ts).
 *
 * Pure: it only calls `emit`, always after its own state is complete.
 * A semaphore exists while it has a holder or a waiter, and costs nothing otherwise.
 */
export class SemaphoreManager {
  private readonly emit: (outcome: SemaphoreOutcome) => void
  private readonly semaphores = new Map<number, Semaphore>()
  /** By rank, then by request number: every claim that is queued or held. */
  private readonly claims = new Map<number, Map<number, Claim>>()
  private readonly gone = new Set<number>()

  constructor(emit: (outcome: SemaphoreOutcome) => void) {
    this.emit = emit
  }

  /** How many semaphores have a holder or a waiter. */
  get semaphoreCount(): number {
    return this.semaphores.size
  }

  /**
   * A member asks for a permit.
   *
   * @param request - unique among the member's requests that are queued or held
   * @param keeps - whether the member can keep the only permit after it has used it
   * @param ticket - if not 0, whoever has the only permit before may pass it on with this number
   */
  acquire(
    id: number,
    from: number,
    request: number,
    permits: number,
    mode: SemaphoreMode,
    keeps = false,
    ticket = 0,
  ): void {
    if (this.gone.has(from)) return
    if (!Number.isSafeInteger(permits) || permits < 1) {
      throw impossible(id, from, request, `acquire with ${permits} permits`)
    }
    const earlier = this.claims.get(from)?.get(request)
    if (earlier !== undefined) {
      const state = earlier.held ? 'held' : 'queued'
      throw impossible(
        id,
        from,
        request,
        `acquire, but that request is ${state} for ${earlier.semaphore.id}`,
      )
    }
    const existing = this.semaphores.get(id)
    if (existing !== undefined && existing.permits !== permits) {
      this.emit({ kind: 'mismatch', to: from, request, permits: existing.permits })
      return
    }
    const semaphore = existing ?? newSemaphore(id, permits)
    const free = semaphore.heldCount < permits
    if (!free && mode === 'try' && !mayLieIdle(semaphore)) {
      this.emit({ kind: 'refused', to: from, request })
      return
    }
    const claim: Claim = {
      ...{ rank: from, request, semaphore, mode, keeps, ticket },
      ...{ held: false, promised: false, asked: 'nothing' },
    }
    this.semaphores.set(id, semaphore)
    this.remember(claim)
    if (free) return this.grant(claim)
    semaphore.waiters.add(claim)
    if (mode === 'try') semaphore.tries += 1
    if (semaphore.keeper !== undefined) this.recall(semaphore.keeper, mode)
  }

  private recall(keeper: Claim, mode: SemaphoreMode): void {
    const asked = mode === 'try' ? 'recallAndAnswer' : 'recall'
    if (keeper.asked === 'recallAndAnswer' || keeper.asked === asked) return
    keeper.asked = asked
    const next = mode === 'try' ? undefined : promiseAfter(keeper)
    const { rank: to, request, semaphore } = keeper
    this.emit({ kind: 'recall', to, request, id: semaphore.id, answer: mode === 'try', next })
  }

  /**
   * The keeper of a permit was asked, and uses it: whoever only tried has failed. The next who
   * tries has it asked again, so that a try never fails after a release that it knows of.
   */
  inUse(id: number, from: number, request: number): void {
    if (this.gone.has(from)) return
    const claim = this.claims.get(from)?.get(request)
    if (claim?.asked !== 'recallAndAnswer' || claim.semaphore.id !== id) {
      throw impossible(id, from, request, 'an answer to a recall that it was not sent')
    }
    claim.asked = 'recall'
    this.refuseTries(claim.semaphore)
  }

  /** A member gives back a permit that it holds by `request`. */
  release(id: number, from: number, request: number): void {
    if (this.gone.has(from)) return
    const claim = this.claims.get(from)?.get(request)
    if (claim === undefined || !claim.held || claim.semaphore.id !== id) {
      throw impossible(id, from, request, 'release of a permit that the member does not hold')
    }
    this.giveBack(claim)
  }

  /**
   * A member no longer wants to wait. Ignored if it waits no more: grant and cancel may cross. What
   * was promised to it, it takes no more, and it had not come before.
   */
  cancel(id: number, from: number, request: number): void {
    const claim = this.claims.get(from)?.get(request)
    if (claim === undefined || claim.held || claim.semaphore.id !== id) return
    this.takeOut(claim)
    this.forget(claim)
    this.emit({ kind: 'cancelled', to: from, request })
  }

  /**
   * A member has left or died: it waits for nothing any more, and what it held passes on.
   * What it had sent before, and arrives only now, is dropped.
   */
  memberGone(rank: number): void {
    this.gone.add(rank)
    const claims = [...(this.claims.get(rank)?.values() ?? [])]
    // Its waiters first, or a permit of its own might be passed on to it.
    for (const claim of claims) {
      if (!claim.held) {
        this.takeOut(claim)
        this.forget(claim)
      }
    }
    for (const claim of claims) if (claim.held) this.giveBack(claim)
  }

  private giveBack(claim: Claim): void {
    const { semaphore } = claim
    semaphore.heldCount -= 1
    semaphore.keeper = undefined
    this.forget(claim)
    const next = firstOf(semaphore.waiters)
    if (next === undefined) return
    this.takeOut(next)
    this.grant(next)
    if (!next.held || semaphore.tries === 0) return
    // They did not queue, and it is not free any more; unless it was passed on, and let go since.
    const stillHas = this.claims.get(next.rank)?.get(next.request) === next
    if (next.promised && stillHas && next.keeps) this.recall(next, 'try')
    else this.refuseTries(semaphore)
  }

  private takeOut(claim: Claim): void {
    const { semaphore, mode } = claim
    semaphore.waiters.delete(claim)
    if (mode === 'try') semaphore.tries -= 1
  }

  private refuseTries(semaphore: Semaphore): void {
    const tries = [...semaphore.waiters].filter(({ mode }) => mode === 'try')
    for (const each of tries) {
      if (!semaphore.waiters.has(each)) continue
      this.takeOut(each)
      this.forget(each)
      this.emit({ kind: 'refused', to: each.rank, request: each.request })
    }
  }

  private grant(claim: Claim): void {
    const { semaphore, rank: to, request } = claim
    const { permits, waiters, tries } = semaphore
    claim.held = true
    semaphore.heldCount += 1
    const keeps = claim.keeps && permits === 1
    const stays = keeps && waiters.size === tries
    if (keeps) semaphore.keeper = claim
    if (!stays) claim.asked = 'recall' // as good as asked
    const next = keeps ? promiseAfter(claim) : undefined
    this.emit({ kind: 'granted', to, request, stays, next })
  }

  private remember(claim: Claim): void {
    const ofMember = this.claims.get(claim.rank) ?? new Map<number, Claim>()
    ofMember.set(claim.request, claim)
    this.claims.set(claim.rank, ofMember)
  }

  private forget({ rank, request, semaphore }: Claim): void {
    const ofMember = this.claims.get(rank)
    ofMember?.delete(request)
    if (ofMember?.size === 0) this.claims.delete(rank)
    if (semaphore.heldCount === 0 && semaphore.waiters.size === 0) {
      this.semaphores.delete(semaphore.id)
    }
  }
}

function newSemaphore(id: number, permits: number): Semaphore {
  return { id, permits, heldCount: 0, waiters: new Set<Claim>(), tries: 0, keeper: undefined }
}

/**
 * Whether its only permit may be unused, as far as the manager knows, and nobody waits for it. Whom
 * it was promised to may have had it already, and let it go.
 */
function mayLieIdle({ keeper, waiters, tries }: Semaphore): boolean {
  const promised = firstOf(waiters)?.promised === true ? 1 : 0
  return keeper !== undefined && waiters.size - promised === tries
}

/** The first in the queue is next for sure, unless there are some before it that only try. */
function promiseAfter({ rank: holder, semaphore }: Claim): Next | undefined {
  const first = firstOf(semaphore.waiters)
  if (first === undefined || first.mode === 'try') return undefined
  const { rank, request, ticket } = first
  if (ticket === 0 || rank === holder) return undefined
  first.promised = true
  return { rank, request, ticket }
}

function firstOf(waiters: ReadonlySet<Claim>): Claim | undefined {
  return waiters.values().next().value
}

function impossible(id: number, from: number, request: number, what: string): PagemeshError {
  return new PagemeshError(
    'ERR_PAGEMESH_PROTOCOL',
    `semaphore ${id}: member ${from} sent what cannot be (request ${request}): ${what}`,
    { rank: from },
  )
}
