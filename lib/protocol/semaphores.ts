import { PagemeshError } from '../errors.js'

/** Whether an acquire queues for a permit, or takes one only if it is free at once. */
export type SemaphoreMode = 'wait' | 'try'

/** What the manager of a semaphore tells the member that asked. */
export type SemaphoreOutcome =
  | { kind: 'granted'; to: number; request: number }
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
}

interface Claim {
  readonly rank: number
  readonly request: number
  readonly semaphore: Semaphore
  held: boolean
}

/**
 * The manager's side of semaphores: strictly first come, first served. A lock is a semaphore of
 * one permit.
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
   */
  acquire(id: number, from: number, request: number, permits: number, mode: SemaphoreMode): void {
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
    const semaphore = existing ?? { id, permits, heldCount: 0, waiters: new Set<Claim>() }
    const free = semaphore.heldCount < permits
    if (!free && mode === 'try') {
      this.emit({ kind: 'refused', to: from, request })
      return
    }
    const claim: Claim = { rank: from, request, semaphore, held: false }
    this.semaphores.set(id, semaphore)
    this.remember(claim)
    if (free) this.grant(claim)
    else semaphore.waiters.add(claim)
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

  /** A member no longer wants to wait. Ignored if it waits no more: grant and cancel may cross. */
  cancel(id: number, from: number, request: number): void {
    const claim = this.claims.get(from)?.get(request)
    if (claim === undefined || claim.held || claim.semaphore.id !== id) return
    claim.semaphore.waiters.delete(claim)
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
        claim.semaphore.waiters.delete(claim)
        this.forget(claim)
      }
    }
    for (const claim of claims) if (claim.held) this.giveBack(claim)
  }

  private giveBack(claim: Claim): void {
    const { semaphore } = claim
    semaphore.heldCount -= 1
    this.forget(claim)
    const next = semaphore.waiters.values().next().value
    if (next === undefined) return
    semaphore.waiters.delete(next)
    this.grant(next)
  }

  private grant(claim: Claim): void {
    claim.held = true
    claim.semaphore.heldCount += 1
    this.emit({ kind: 'granted', to: claim.rank, request: claim.request })
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

function impossible(id: number, from: number, request: number, what: string): PagemeshError {
  return new PagemeshError(
    'ERR_PAGEMESH_PROTOCOL',
    `semaphore ${id}: member ${from} sent what cannot be (request ${request}): ${what}`,
    { rank: from },
  )
}
