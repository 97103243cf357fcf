/** Numbers that are the same for the same seed (mulberry32). */
export class Random {
  #state

  /** @param {...number} seeds whole numbers */
  constructor(...seeds) {
    this.#state = 0
    for (const seed of seeds) {
      this.#state = (Math.imul(this.#state, 0x9e3779b1) + seed) >>> 0
      this.#state = Math.floor(this.fraction() * 2 ** 32) // neighbouring seeds begin alike
    }
  }

  /** In [0, 1). */
  fraction() {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), this.#state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }

  /** A whole number in [0, limit). @param {number} limit */
  below(limit) {
    return Math.floor(this.fraction() * limit)
  }

  /** @template T @param {readonly T[]} from @returns {T} */
  pick(from) {
    return from[this.below(from.length)]
  }

  /** In place. @template {{ length: number, [index: number]: any }} T @param {T} items @returns {T} */
  shuffle(items) {
    for (let left = items.length; left > 1; left--) {
      const other = this.below(left)
      const item = items[left - 1]
      items[left - 1] = items[other]
      items[other] = item
    }
    return items
  }
}
