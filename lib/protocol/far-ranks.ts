/**
 * A set of members is one 32-bit word while all ranks fit it. In a larger mesh that word stays what
 * it is, for the ranks below 32, and the others are in further words beside it. No real mesh is so
 * large yet (MAX_MEMBERS); the simulator's are.
 */
export const NEAR_RANKS = 32

/** The bit of a rank in the first word; 0 if it is not there. */
export const nearBit = (rank: number): number => (rank < NEAR_RANKS ? 1 << rank : 0)

/** How many words beside the first a set needs in a mesh of `size`. */
export const farWordCount = (size: number): number => Math.max(0, Math.ceil(size / NEAR_RANKS) - 1)

/** The ranks from 32 on. Word 0 here is the second word of the set. */
export class FarRanks {
  readonly words: Uint32Array

  constructor(wordCount: number) {
    this.words = new Uint32Array(wordCount)
  }

  has(rank: number): boolean {
    return ((this.words[(rank >>> 5) - 1] ?? 0) & (1 << (rank & 31))) !== 0
  }

  add(rank: number): void {
    this.words[(rank >>> 5) - 1] |= 1 << (rank & 31)
  }

  remove(rank: number): void {
    this.words[(rank >>> 5) - 1] &= ~(1 << (rank & 31))
  }

  isEmpty(): boolean {
    return this.words.every((word) => word === 0)
  }

  /** Takes out whoever is in the other set. */
  removeAll(others: FarRanks): void {
    for (let index = 0; index < this.words.length; index++) {
      this.words[index] &= ~others.words[index]
    }
  }

  copy(): FarRanks {
    const copy = new FarRanks(this.words.length)
    copy.words.set(this.words)
    return copy
  }

  /** In rising order. */
  *ranks(): Generator<number> {
    for (let index = 0; index < this.words.length; index++) {
      for (let left = this.words[index]; left !== 0; left &= left - 1) {
        yield (index + 1) * NEAR_RANKS + (31 - Math.clz32(left & -left))
      }
    }
  }
}
