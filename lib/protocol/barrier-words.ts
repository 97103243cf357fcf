/**
 * How often each member has come to the barriers that this member uses again and again: words that
 * its program's thread, its engine and native code (native/binding/barrier_words.h) all see.
 *
 * | words | what |
 * |---|---|
 * | ENGINE_AWAITS | for how many barriers the engine wants to hear of arrivals |
 * | BROKEN | 1 once a member is gone: only the engine knows what that means for a barrier |
 * | SLOTS_USED | up to which slot there are barriers |
 * | then by slot: KEY_LOW, KEY_HIGH + BOUND | which barrier; 0 while the slot has none |
 * | COUNTS + rank | how often that member has come; wraps around |
 *
 * A member's n-th arrival is its part of the n-th generation, so a generation is open when no count
 * is behind it. Counts only grow, each step is one atomic operation, and nobody resets anything:
 * so whoever looks, at whatever moment, sees no barrier open that is not.
 */
const ENGINE_AWAITS = 0
const BROKEN = 1
const SLOTS_USED = 2
const HEADER_WORDS = 16

const KEY_LOW = 0
const KEY_HIGH = 1
const COUNTS = 8
const SLOT_WORDS = 40
const BOUND = 0x8000_0000

/** How many barriers of a member can have a slot. */
export const BARRIER_SLOTS = 256
/** The slot of a barrier that has none. */
export const NO_BARRIER_SLOT = -1

/** Where the words are; a test compares with native code. */
export const BarrierLayout = {
  ENGINE_AWAITS,
  BROKEN,
  SLOTS_USED,
  HEADER_WORDS,
  KEY_LOW,
  KEY_HIGH,
  COUNTS,
  SLOT_WORDS,
  SLOTS: BARRIER_SLOTS,
} as const

/** How many words there are. */
export const BARRIER_WORDS = HEADER_WORDS + BARRIER_SLOTS * SLOT_WORDS

export class BarrierWords {
  constructor(
    readonly words: Int32Array,
    private readonly size: number,
  ) {}

  /** Whether barriers can have slots here at all. */
  get exist(): boolean {
    return this.words.length === BARRIER_WORDS && this.size <= SLOT_WORDS - COUNTS
  }

  /** A member comes to the barrier. Returns its ticket: which generation it waits for. */
  arrive(slot: number, rank: number): number {
    return (Atomics.add(this.words, countsOf(slot) + rank, 1) + 1) | 0
  }

  isOpen(slot: number, ticket: number): boolean {
    return isOpen(this.words, countsOf(slot), this.size, ticket)
  }

  /** A member is gone: the program asks its engine about barriers from now on. */
  get isBroken(): boolean {
    return Atomics.load(this.words, BROKEN) !== 0
  }

  // The engine's side.

  break(): void {
    if (this.exist) Atomics.store(this.words, BROKEN, 1)
  }

  /** So many barriers more, or less, of which the engine wants to hear. It must look after this. */
  engineAwaits(more: number): void {
    Atomics.add(this.words, ENGINE_AWAITS, more)
  }

  /** Gives the slot to a barrier to which members have come so often. */
  bind(slot: number, key: number, counts: Int32Array): void {
    const at = slotAt(slot)
    for (let rank = 0; rank < this.size; rank++) {
      Atomics.store(this.words, at + COUNTS + rank, counts[rank] ?? 0)
    }
    Atomics.store(this.words, at + KEY_LOW, key | 0)
    Atomics.store(this.words, at + KEY_HIGH, Math.floor(key / 2 ** 32) | BOUND)
    if (slot >= Atomics.load(this.words, SLOTS_USED)) {
      Atomics.store(this.words, SLOTS_USED, slot + 1)
    }
  }

  /** Native code takes arrivals at this barrier by itself. */
  isBound(slot: number): boolean {
    return Atomics.load(this.words, slotAt(slot) + KEY_HIGH) !== 0
  }
}

const slotAt = (slot: number): number => HEADER_WORDS + slot * SLOT_WORDS

/** Where a slot's counts begin. */
export const countsOf = (slot: number): number => slotAt(slot) + COUNTS

/** Whether all `size` counts from `at` on have reached the ticket. */
export function isOpen(words: Int32Array, at: number, size: number, ticket: number): boolean {
  for (let rank = 0; rank < size; rank++) if (isBehind(words, at + rank, ticket)) return false
  return true
}

/** Counts wrap around, so one is behind another if it is less than half a turn away. */
export function isBehind(words: Int32Array, at: number, ticket: number): boolean {
  return ((Atomics.load(words, at) - ticket) | 0) < 0
}
