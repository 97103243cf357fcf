// Memories that are wrong on purpose, to show that the litmus tests notice. They stand between a
// member's program and the region's words; the engine below them is the real one.

/**
 * Like a processor's store buffer that is never in a hurry: a member sees its own writes at once,
 * the others one iteration later. Allows SB, R and their like; keeps MP, LB and coherence.
 */
class StoreBuffer {
  #words
  /** @type {[at: number, value: number][]} */
  #late = []
  /** @type {[at: number, value: number][]} */
  #recent = []

  /** @param {Int32Array} words */
  constructor(words) {
    this.#words = words
  }

  /** @param {number} at */
  load(at) {
    const own = [...this.#late, ...this.#recent].findLast(([where]) => where === at)
    return own === undefined ? Atomics.load(this.#words, at) : own[1]
  }

  /** @param {number} at @param {number} value */
  store(at, value) {
    this.#recent.push([at, value])
  }

  /** @param {number} at */
  increment(at) {
    const before = this.load(at)
    this.store(at, before + 1)
    return before
  }

  /** Called after each iteration. */
  tick() {
    for (const [at, value] of this.#late) Atomics.store(this.#words, at, value)
    this.#late = this.#recent
    this.#recent = []
  }

  /** Called when all iterations of a batch are done. */
  settle() {
    this.tick()
    this.tick()
  }

  /** Called before the first iteration of a batch. */
  begin() {}
}

/**
 * Each member has a copy of its own, and looks at the region for every other word only, as if an
 * invalidation had been lost. Writes go to the region at once.
 */
class LateCopies {
  #words
  #copy
  #looks = 0

  /** @param {Int32Array} words */
  constructor(words) {
    this.#words = words
    this.#copy = new Int32Array(words.length)
  }

  /** @param {number} at */
  load(at) {
    if (this.#looks++ % 2 === 0) this.#copy[at] = Atomics.load(this.#words, at)
    return this.#copy[at]
  }

  /** @param {number} at @param {number} value */
  store(at, value) {
    this.#copy[at] = value
    Atomics.store(this.#words, at, value)
  }

  /** @param {number} at */
  increment(at) {
    const before = this.load(at)
    this.store(at, before + 1)
    return before
  }

  tick() {}
  settle() {}

  /** @param {Int32Array} at the words of a batch, with which the copies agree at first */
  begin(at) {
    for (const index of at) this.#copy[index] = Atomics.load(this.#words, index)
  }
}

/** @type {Record<string, new (words: Int32Array) => StoreBuffer | LateCopies>} */
export const BROKEN_MEMORIES = { 'store-buffer': StoreBuffer, 'late-copies': LateCopies }
