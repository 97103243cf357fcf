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
 */
const HERE = 1
const USED = 2
const WANTED = 4

export class TokenWords {
  constructor(readonly words: Int32Array) {}

  // The program's side.

  /** Takes the token if it is here, free, and nobody else wants it. */
  take(slot: number): boolean {
    return Atomics.compareExchange(this.words, slot, HERE, HERE | USED) === HERE
  }

  /** Lets the token go. False: it does not stay, and the engine must be told to give it away. */
  letGo(slot: number): boolean {
    if (Atomics.compareExchange(this.words, slot, HERE | USED, HERE) === (HERE | USED)) return true
    Atomics.store(this.words, slot, 0)
    return false
  }

  /** Lets a token that the program has go for good: the engine must be told to give it away. */
  letGoForGood(slot: number): void {
    Atomics.store(this.words, slot, 0)
  }

  /** Takes a free token out of its word, for it to be given away. */
  clear(slot: number): boolean {
    return Atomics.compareExchange(this.words, slot, HERE, 0) === HERE
  }

  /** The program wants nothing of its slot any more, or has no token there. */
  isAway(slot: number): boolean {
    return Atomics.load(this.words, slot) === 0
  }

  // The engine's side.

  /** The token has come, for the program. */
  arrived(slot: number, stays: boolean): void {
    Atomics.store(this.words, slot, HERE | USED | (stays ? 0 : WANTED))
  }

  /**
   * Somebody else wants the token. 'free': it was, and is not here any more, so give it away.
   * 'used': the program will say when it lets it go. 'away': it has just said so.
   */
  want(slot: number): 'free' | 'used' | 'away' {
    const before = Atomics.or(this.words, slot, WANTED)
    if ((before & USED) !== 0) return 'used'
    Atomics.store(this.words, slot, 0) // nobody else changes a word that is wanted and not in use
    return (before & HERE) !== 0 ? 'free' : 'away'
  }
}

/** How many locks of a member can keep their tokens at a time. */
export const TOKEN_SLOTS = 1024
/** The slot of what keeps no token: a semaphore. */
export const NO_SLOT = -1
