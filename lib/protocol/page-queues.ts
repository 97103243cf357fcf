import { PageWords } from './page-words.js'

const SMALLEST = 64 // entries at first
const NOTHING = 0 // no entry: entries are numbered from 1

/**
 * A first-in-first-out queue of words for each page, nearly all of them empty. Allocates nothing
 * once there is room for as many words as wait at one time.
 */
export class PageQueues {
  /** The first and the last entry of each queue that is not empty. */
  private readonly heads = new PageWords()
  private readonly tails = new PageWords()
  private words = new Int32Array(SMALLEST)
  private next = new Int32Array(SMALLEST)
  private freed = NOTHING // entries that were used before, linked by `next`
  private used = 1 // entries below this were used at some time

  /** How many queues are not empty. */
  get size(): number {
    return this.heads.size
  }

  has(page: number): boolean {
    return this.heads.has(page)
  }

  push(page: number, word: number): void {
    const entry = this.newEntry()
    this.words[entry] = word
    const tail = this.tails.get(page)
    if (tail === NOTHING) this.heads.set(page, entry)
    else this.next[tail] = entry
    this.tails.set(page, entry)
  }

  /** The word that has waited longest; there must be one. */
  first(page: number): number {
    return this.words[this.heads.get(page)]
  }

  shift(page: number): void {
    const entry = this.heads.get(page)
    const after = this.next[entry]
    this.heads.set(page, after)
    if (after === NOTHING) this.tails.delete(page)
    this.next[entry] = this.freed
    this.freed = entry
  }

  /** A copy of one queue. */
  of(page: number): number[] {
    const words: number[] = []
    for (let entry = this.heads.get(page); entry !== NOTHING; entry = this.next[entry]) {
      words.push(this.words[entry])
    }
    return words
  }

  /** Puts other words in the place of a queue. */
  replace(page: number, words: readonly number[]): void {
    while (this.has(page)) this.shift(page)
    for (const word of words) this.push(page, word)
  }

  /** The pages whose queues are not empty. */
  pages(): number[] {
    return this.heads.keys()
  }

  clear(): void {
    for (const page of this.pages()) this.replace(page, [])
  }

  private newEntry(): number {
    const entry = this.freed
    if (entry !== NOTHING) {
      this.freed = this.next[entry]
      this.next[entry] = NOTHING
      return entry
    }
    if (this.used === this.words.length) {
      this.words = doubled(this.words)
      this.next = doubled(this.next)
    }
    return this.used++
  }
}

/** Pages in the order in which they were added, each once. Allocates as {@link PageQueues} does. */
export class PageFifo {
  private readonly queue = new PageQueues()
  private readonly members = new PageWords()

  get size(): number {
    return this.members.size
  }

  add(page: number): void {
    if (this.members.has(page)) return
    this.members.set(page, 1)
    this.queue.push(0, page)
  }

  /** The page that was added first; there must be one. */
  first(): number {
    return this.queue.first(0)
  }

  removeFirst(): void {
    this.members.delete(this.first())
    this.queue.shift(0)
  }

  clear(): void {
    this.queue.clear()
    this.members.clear()
  }

  toArray(): number[] {
    return this.queue.of(0)
  }
}

function doubled(words: Int32Array<ArrayBuffer>): Int32Array<ArrayBuffer> {
  const more = new Int32Array(2 * words.length)
  more.set(words)
  return more
}
