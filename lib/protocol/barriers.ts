import { PagemeshError } from '../errors.js'

/** What the manager of a barrier tells a member that waits at it. */
export type BarrierOutcome =
  | { kind: 'open'; to: number; request: number }
  /** Member `rank` is gone, so the barrier can never open again. */
  | { kind: 'broken'; to: number; request: number; rank: number }

interface Barrier {
  /** By rank, the request that arrived in the present generation. */
  arrived: Map<number, number>
  /** By rank, requests for the generations that follow, in order. Only of ranks in `arrived`. */
  readonly early: Map<number, number[]>
}

/**
 * The manager's side of barriers over all members of the mesh. The last arrival opens a barrier
 * for all, and it may be used again at once.
 *
 * Pure: it only calls `emit`, always after its own state is complete.
 * A barrier exists while somebody waits at it, and costs nothing otherwise.
 */
export class BarrierManager {
  private readonly size: number
  private readonly emit: (outcome: BarrierOutcome) => void
  private readonly barriers = new Map<number, Barrier>()
  private readonly gone = new Set<number>()

  constructor(size: number, emit: (outcome: BarrierOutcome) => void) {
    this.size = size
    this.emit = emit
  }

  /** How many barriers have somebody waiting. */
  get barrierCount(): number {
    return this.barriers.size
  }

  /**
   * A member arrives. A member counts once per generation: if it arrives again before the barrier
   * opens, it waits for the next generation.
   *
   * @param request - unique among the member's requests that wait at this barrier
   */
  arrive(id: number, from: number, request: number): void {
    if (!Number.isInteger(from) || from < 0 || from >= this.size) {
      throw impossible(id, from, request, `no such member in a mesh of ${this.size}`)
    }
    if (this.gone.has(from)) return
    const goneRank = this.gone.values().next().value
    if (goneRank !== undefined) {
      this.emit({ kind: 'broken', to: from, request, rank: goneRank })
      return
    }
    let barrier = this.barriers.get(id)
    if (barrier === undefined) {
      this.barriers.set(id, (barrier = { arrived: new Map(), early: new Map() }))
    }
    const waiting = barrier.arrived.get(from)
    if (waiting === undefined) {
      barrier.arrived.set(from, request)
      if (barrier.arrived.size === this.size) this.open(id, barrier)
      return
    }
    const early = barrier.early.get(from) ?? []
    if (waiting === request || early.includes(request)) {
      throw impossible(id, from, request, 'arrival, but that request waits already')
    }
    early.push(request)
    barrier.early.set(from, early)
  }

  /**
   * A member has left or died: whoever waits, and whoever comes later, is told so. Arrivals that
   * it had sent before are dropped.
   */
  memberGone(rank: number): void {
    this.gone.add(rank)
    const barriers = [...this.barriers.values()]
    this.barriers.clear()
    for (const { arrived, early } of barriers) {
      for (const [to, request] of arrived) this.tellBroken(to, request, rank)
      for (const [to, requests] of early) {
        for (const request of requests) this.tellBroken(to, request, rank)
      }
    }
  }

  private tellBroken(to: number, request: number, rank: number): void {
    if (to !== rank) this.emit({ kind: 'broken', to, request, rank })
  }

  private open(id: number, barrier: Barrier): void {
    const opened = barrier.arrived
    // The last to arrive has nothing queued, so the next generation is never complete here,
    // except in a mesh of one, where nothing is ever queued.
    barrier.arrived = new Map()
    for (const [rank, requests] of barrier.early) {
      const next = requests.shift()
      if (next !== undefined) barrier.arrived.set(rank, next)
      if (requests.length === 0) barrier.early.delete(rank)
    }
    if (barrier.arrived.size === 0) this.barriers.delete(id)
    for (const [to, request] of opened) this.emit({ kind: 'open', to, request })
  }
}

function impossible(id: number, from: number, request: number, what: string): PagemeshError {
  return new PagemeshError(
    'ERR_PAGEMESH_PROTOCOL',
    `barrier ${id}: member ${from} sent what cannot be (request ${request}): ${what}`,
    { rank: from },
  )
}
