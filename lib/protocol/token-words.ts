import type { Next } from './semaphores.js'

/**
 * Where the token of a lock is, as the program's thread of a member and its engine both see it: one
 * word for each lock that the member has used lately.
 *
 * A token that the program has let go stays where it is until another member asks for it, so that
 * who uses a lock alone asks nobody. Each step is one atomic operation, and which of two steps that
 * meet came first decides who has the token: the program, or the engine that wants to give it away.
 *
 * | word | the token is |
 * |---|---|
 * | 0 | not here |
 * | HERE | here, and free |
 * | HERE + USED | here, and the program has it |
 * | HERE + USED + WANTED | the same, and it must be given away when the program lets it go |
 * | HERE + USED + EARLY | passed on by who had it before, and the program has it |
 * | HERE + EARLY | the same, and the program has let it go |
 * | HERE + EARLY + WANTED | the same, and it does not stay |
 *
 * EARLY goes when the manager's grant comes. Before that the token is given to nobody, and the
 * program does not take it again: the grant tells who is next.
 */
const HERE = 1
const USED = 2
const WANTED = 4
const EARLY = 8

/** Behind a lock's word: who is next (rank + 1, request, ticket), written before WANTED is set. */
const NEXT_WORDS = 3
/** How many words a lock takes. */
export const WORDS_PER_TOKEN = 1 + NEXT_WORDS

export class TokenWords {
  private readonly count: number

  constructor(readonly words: Int32Array) {
    this.count = Math.floor(words.length / WORDS_PER_TOKEN)
  }

  // The program's side.

  /** Takes the token if it is here, free, and nobody else wants it. */
  take(slot: number): boolean {
    return Atomics.compareExchange(this.words, slot, HERE, HERE | USED) === HERE
  }

  /** Lets the token go, to stay if it may. False: it does not, and must be given away. */
  letGo(slot: number, mayStay = true): boolean {
    for (;;) {
      const now = Atomics.load(this.words, slot)
      const early = (now & EARLY) !== 0
      const stays = early || (mayStay && now === (HERE | USED))
      const left = early && !mayStay ? now | WANTED : now
      if (this.change(slot, now, stays ? left & ~USED : 0)) return stays
    }
  }

  /** To whom a token that was let go, and does not stay, may be passed on. */
  nextOf(slot: number): Next | undefined {
    const at = this.count + NEXT_WORDS * slot
    const rank = Atomics.load(this.words, at) - 1
    if (rank < 0) return undefined
    const request = Atomics.load(this.words, at + 1) >>> 0
    return { rank, request, ticket: Atomics.load(this.words, at + 2) >>> 0 }
  }

  /** Takes a free token out of its word, for it to be given away. */
  clear(slot: number): boolean {
    return this.change(slot, HERE, 0)
  }

  /** The program wants nothing of its slot any more, or has no token there. */
  isAway(slot: number): boolean {
    return Atomics.load(this.words, slot) === 0
  }

  // Either side: the program's thread where it waits for just this, else the engine.

  /** The token was passed on by who had it. False: its grant has come already. */
  cameEarly(slot: number): boolean {
    return this.change(slot, 0, HERE | USED | EARLY)
  }

  // The engine's side.

  /**
   * The manager has granted the token. 'came': the program has it from now on. 'confirmed': it had
   * come before. 'free': that too, and the program has let it go again, and it does not stay.
   */
  granted(slot: number, stays: boolean, next?: Next): 'came' | 'confirmed' | 'free' {
    this.setNext(slot, next)
    const wanted = stays ? 0 : WANTED
    for (;;) {
      const now = Atomics.load(this.words, slot)
      const after = now === 0 ? HERE | USED | wanted : (now & ~EARLY) | wanted
      const isFree = after === (HERE | WANTED)
      if (!this.change(slot, now, isFree ? 0 : after)) continue
      return now === 0 ? 'came' : isFree ? 'free' : 'confirmed'
    }
  }

  /**
   * Somebody else wants the token. 'free': it was, and is not here any more, so give it away.
   * 'used': the program will say when it lets it go. 'away': it has just said so.
   */
  want(slot: number, next?: Next): 'free' | 'used' | 'away' {
    if (next !== undefined && (Atomics.load(this.words, slot) & WANTED) === 0) {
      this.setNext(slot, next)
    }
    const before = Atomics.or(this.words, slot, WANTED)
    if ((before & USED) !== 0) return 'used'
    Atomics.store(this.words, slot, 0) // nobody else changes a word that is wanted and not in use
    return (before & HERE) !== 0 ? 'free' : 'away'
  }

  /** This member has left: whatever is here is somebody else's. */
  close(slot: number): void {
    Atomics.store(this.words, slot, 0)
  }

  private setNext(slot: number, next: Next | undefined): void {
    const at = this.count + NEXT_WORDS * slot
    Atomics.store(this.words, at, next === undefined ? 0 : next.rank + 1)
    Atomics.store(this.words, at + 1, next?.request ?? 0)
    Atomics.store(this.words, at + 2, next?.ticket ?? 0)
  }

  private change(slot: number, from: number, to: number): boolean {
    return Atomics.compareExchange(this.words, slot, from, to) === from
  }
}

/** How many locks of a member can keep their tokens at a time. */
export const TOKEN_SLOTS = 1024
/** The slot of what keeps no token: a semaphore. */
export const NO_SLOT = -1
