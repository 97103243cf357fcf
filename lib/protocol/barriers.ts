import { PagemeshError } from '../errors.js'
import { type BarrierWords, countsOf, isBehind, NO_BARRIER_SLOT } from './barrier-words.js'

/** What the engine hears of a barrier that it waits at. */
export type BarrierOutcome =
  | { kind: 'open'; request: number }
  /** Member `rank` is gone and will not come, so the barrier can never open. */
  | { kind: 'broken'; request: number; rank: number }

interface Waiting {
  readonly ticket: number
  readonly request: number
}

interface Barrier {
  readonly key: number
  /** From `at` on, how often each member has come: its own words, or those of the slot. */
  readonly words: Int32Array
  readonly at: number
  /** In the order of their tickets. */
  readonly waiting: Waiting[]
  /** Somebody whom the first of them waits for: until that member comes there is nothing to see. */
  witness: number
}

/** Keys have 52 bits. */
const MOST_KEYS = 2 ** 52

/**
 * One member's side of all barriers over all members of the mesh. Who comes to a barrier tells
 * everybody, and everybody counts for himself: an n-way dissemination barrier whose n is all
 * others, so that there is one round (T. Hoefler, T. Mehlan, F. Mietke, W. Rehm, "Fast Barrier
 * Synchronization for InfiniBand", 2006; after Hensgen, Finkel and Manber, 1988). There is no
 * manager whom one would have to ask, and no round that a sleeping engine would have to pass on.
 *
 * The n-th arrival of each member makes up the n-th generation. All see each member's arrivals and
 * then its leaving in the same order, so all agree on which generations open and which are broken.
 *
 * Pure: it only calls `emit`, always after its own state is complete.
 * A barrier without a slot exists while members have come to it a different number of times, or
 * somebody waits here, and costs nothing otherwise.
 */
export class Barriers {
  private readonly barriers = new Map<number, Barrier>()
  /** Those with a slot, by slot. */
  private readonly bound: Barrier[] = []
  /** In the order in which they went. */
  private readonly gone: number[] = []

  constructor(
    private readonly size: number,
    private readonly rank: number,
    private readonly shared: BarrierWords,
    private readonly emit: (outcome: BarrierOutcome) => void,
  ) {}

  /** How many barriers there is something to know of. */
  get barrierCount(): number {
    return this.barriers.size
  }

  /**
   * This member comes, and waits as `request`. With a slot, the barrier gets it.
   *
   * @returns whether the others must be told; not if the barrier is broken for all
   */
  arrive(key: number, request: number, slot: number = NO_BARRIER_SLOT): boolean {
    const barrier = this.barriers.get(key) ?? this.make(key)
    if (barrier === undefined) {
      this.emit({ kind: 'broken', request, rank: this.gone[0] })
      return false
    }
    const found = slot === NO_BARRIER_SLOT ? barrier : this.bind(barrier, slot)
    const { words, at } = found
    const lost = this.whoIsGone(found, (words[at + this.rank] + 1) | 0)
    if (lost !== undefined) {
      this.emit({ kind: 'broken', request, rank: lost })
      return false
    }
    this.wait(found, (Atomics.add(words, at + this.rank, 1) + 1) | 0, request)
    return true
  }

  /** This member's program has come by itself, and told the others: it waits for its ticket. */
  await(slot: number, ticket: number, request: number): void {
    const barrier = this.bound.at(slot)
    if (barrier === undefined) throw new Error(`slot ${slot} has no barrier`)
    this.wait(barrier, ticket, request)
  }

  /** Another member has come; it says so once for each time. */
  arrived(key: number, from: number): void {
    if (!(key >= 0 && key < MOST_KEYS)) throw impossible(key, from, 'no barrier has this key')
    if (!(Number.isInteger(from) && from >= 0 && from < this.size) || from === this.rank) {
      throw impossible(key, from, `no such other member in a mesh of ${this.size}`)
    }
    if (this.gone.includes(from)) throw impossible(key, from, 'arrival, but it has left')
    const barrier = this.barriers.get(key) ?? this.make(key)
    if (barrier === undefined) return // broken, for whoever comes
    const { words, at, waiting, witness } = barrier
    const count = (Atomics.add(words, at + from, 1) + 1) | 0
    if (waiting.length > 0 ? from === witness : count === words[at + this.rank]) {
      this.settle(barrier)
    }
  }

  /** Words of slots have changed. */
  look(): void {
    for (const barrier of this.bound) if (barrier.waiting.length > 0) this.settle(barrier)
  }

  /**
   * A member has left or died. What it had come to before it has come to; whoever waits for it to
   * come again, and whoever will, is told that it is gone.
   */
  memberGone(rank: number): void {
    if (rank === this.rank || this.gone.includes(rank)) return
    this.gone.push(rank)
    this.shared.break()
    for (const barrier of [...this.barriers.values()]) this.settle(barrier)
  }

  /** Nobody waits any more, and the program is to ask about whatever comes. */
  forgetAll(): void {
    this.shared.break()
    for (const barrier of [...this.barriers.values()]) {
      this.expects(barrier, -barrier.waiting.splice(0).length)
      this.settle(barrier)
    }
  }

  /** A barrier of which nothing is known; undefined if it can never open. */
  private make(key: number): Barrier | undefined {
    if (this.gone.length > 0) return undefined // who is gone has not come, or it would be known
    const words = new Int32Array(this.size)
    const barrier: Barrier = { key, words, at: 0, waiting: [], witness: 0 }
    this.barriers.set(key, barrier)
    return barrier
  }

  private bind(barrier: Barrier, slot: number): Barrier {
    if (barrier.at !== 0) return barrier
    const { key, waiting, witness } = barrier
    this.shared.bind(slot, key, barrier.words)
    const bound = { key, words: this.shared.words, at: countsOf(slot), waiting, witness }
    this.bound[slot] = bound
    this.barriers.set(key, bound)
    this.expects(bound, waiting.length)
    return bound
  }

  private wait(barrier: Barrier, ticket: number, request: number): void {
    barrier.waiting.push({ ticket, request })
    this.expects(barrier, 1) // and then looks
    this.settle(barrier)
  }

  private expects({ at }: Barrier, more: number): void {
    if (at !== 0 && more !== 0) this.shared.engineAwaits(more)
  }

  /** Tells those whose generation is open or broken, and forgets what need not be known. */
  private settle(barrier: Barrier): void {
    const outcomes: BarrierOutcome[] = []
    const { waiting } = barrier
    while (waiting.length > 0) {
      const { ticket, request } = waiting[0]
      const lost = this.whoIsGone(barrier, ticket)
      if (lost !== undefined) outcomes.push({ kind: 'broken', request, rank: lost })
      else if (this.isOpen(barrier, ticket)) outcomes.push({ kind: 'open', request })
      else break
      waiting.shift()
      this.expects(barrier, -1)
    }
    if (waiting.length === 0 && barrier.at === 0 && this.isDone(barrier)) {
      this.barriers.delete(barrier.key)
    }
    for (const outcome of outcomes) this.emit(outcome)
  }

  private isOpen(barrier: Barrier, ticket: number): boolean {
    const { words, at } = barrier
    for (let seen = 0; seen < this.size; seen++) {
      if (isBehind(words, at + barrier.witness, ticket)) return false
      barrier.witness = (barrier.witness + 1) % this.size
    }
    return true
  }

  private whoIsGone({ words, at }: Barrier, ticket: number): number | undefined {
    return this.gone.find((rank) => isBehind(words, at + rank, ticket))
  }

  /** Nothing would differ if this barrier were not known: all are even, or no one can pass. */
  private isDone(barrier: Barrier): boolean {
    const { words, at } = barrier
    const own = words[at + this.rank]
    if (this.whoIsGone(barrier, (own + 1) | 0) !== undefined) return true
    for (let rank = 0; rank < this.size; rank++) if (words[at + rank] !== own) return false
    return true
  }
}

function impossible(key: number, from: number, what: string): PagemeshError {
  return new PagemeshError(
    'ERR_PAGEMESH_PROTOCOL',
    `barrier ${key}: member ${from} sent what cannot be: ${what}`,
    { rank: from },
  )
}
