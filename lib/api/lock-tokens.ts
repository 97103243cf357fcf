import { randomFillSync } from 'node:crypto'
import type { Next } from '../protocol/semaphores.js'
import { NO_SLOT, TOKEN_SLOTS, TokenWords } from '../protocol/token-words.js'

/** How many tickets are drawn at a time. */
const TICKETS = 256

/** What the program's thread knows of a lock whose token may be here. */
export interface TokenPlace {
  readonly key: number
  /** Its word among the token words; NO_SLOT once another lock has it. */
  slot: number
  /** What the token that is here was granted by. */
  request: number
  /** How many of this member's own requests are on their way: they come before new ones. */
  waiting: number
}

/**
 * The tokens of locks that this member has used lately, on the side of the program's thread. There
 * are {@link TOKEN_SLOTS} words; a lock that finds none keeps no token, and works all the same.
 */
export class LockTokens {
  /** How many locks were taken here, without asking anybody. */
  takenHere = 0
  private readonly words: TokenWords
  /** By key, in the order in which they got their words. */
  private readonly places = new Map<number, TokenPlace>()
  private closed = false
  private readonly tickets = new Uint32Array(TICKETS)
  private ticketsUsed = TICKETS

  constructor(
    words: Int32Array,
    /** Passes a token on to the member that is granted it next, if that can be done at once. */
    private readonly passOn: (key: number, next: Next) => boolean,
    /** Tells the engine to give a token away, or that it has been passed on. */
    private readonly giveAway: (key: number, request: number, passed: boolean) => void,
  ) {
    this.words = new TokenWords(words)
  }

  /** The place of a lock's token; undefined if all are in use. */
  placeOf(key: number): TokenPlace | undefined {
    const known = this.places.get(key)
    if (known !== undefined) return known
    const slot = this.places.size < TOKEN_SLOTS ? this.places.size : this.takeSlotFromAnother()
    if (slot === NO_SLOT) return undefined
    const place = { key, slot, request: 0, waiting: 0 }
    this.places.set(key, place)
    return place
  }

  /** True: this thread has the lock. */
  take(place: TokenPlace): boolean {
    // What this member asked for before comes first, though only its engine knows how far it is.
    if (place.waiting > 0 || this.closed || !this.words.take(place.slot)) return false
    this.takenHere++
    return true
  }

  release(place: TokenPlace): void {
    const { key, slot, request } = place
    if (this.words.letGo(slot, place.waiting === 0 && !this.closed)) return
    const next = this.closed ? undefined : this.words.nextOf(slot)
    this.giveAway(key, request, next !== undefined && this.passOn(key, next))
  }

  /** The token was passed on to a request of this thread's. False: its grant has come already. */
  cameEarly(place: TokenPlace): boolean {
    return this.words.cameEarly(place.slot)
  }

  /** A number that nobody can guess. Not 0. */
  newTicket(): number {
    if (this.ticketsUsed === TICKETS) {
      randomFillSync(this.tickets)
      this.ticketsUsed = 0
    }
    return this.tickets[this.ticketsUsed++] || 1
  }

  /** The mesh is being left: nothing is taken here any more, and nothing stays. */
  close(): void {
    this.closed = true
  }

  /** The word of the lock that has had one for longest, and has no use for it now. */
  private takeSlotFromAnother(): number {
    for (const [key, place] of this.places) {
      if (place.waiting > 0) continue
      const isFree = this.words.isAway(place.slot)
      if (!isFree) {
        if (!this.words.clear(place.slot)) continue
        this.giveAway(key, place.request, false)
      }
      const { slot } = place
      place.slot = NO_SLOT
      this.places.delete(key)
      return slot
    }
    return NO_SLOT
  }
}
