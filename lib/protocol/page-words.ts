const SMALLEST = 16 // places; a power of two

/**
 * A word of 32 bits for each page, 0 for nearly all of them. What a Map would do, but setting words
 * and clearing them again allocates nothing once there is room for as many as are set at one time.
 * Open addressing with linear probing; deletion moves back what has been pushed on (D. E. Knuth,
 * The Art of Computer Programming, volume 3, algorithm 6.4 R).
 */
export class PageWords {
  /** How many words are not 0. */
  size = 0
  private pages = new Int32Array(SMALLEST) // page + 1; 0 is a free place
  private words = new Int32Array(SMALLEST)

  get(page: number): number {
    return this.words[this.placeOf(page)]
  }

  has(page: number): boolean {
    return this.get(page) !== 0
  }

  set(page: number, word: number): void {
    const place = this.placeOf(page)
    if (word === 0) return this.free(place)
    this.words[place] = word
    if (this.pages[place] !== 0) return
    this.pages[place] = page + 1
    this.size++
    if (2 * this.size > this.pages.length) this.grow()
  }

  delete(page: number): void {
    this.free(this.placeOf(page))
  }

  clear(): void {
    this.pages.fill(0)
    this.words.fill(0)
    this.size = 0
  }

  /** The pages whose words are not 0, in no order that means anything. */
  keys(): number[] {
    return [...this.pages].filter((taken) => taken !== 0).map((taken) => taken - 1)
  }

  /** Where the page is, or the free place where it would be put. */
  private placeOf(page: number): number {
    const mask = this.pages.length - 1
    let place = homeOf(page) & mask
    while (this.pages[place] !== 0 && this.pages[place] !== page + 1) place = (place + 1) & mask
    return place
  }

  private free(freed: number): void {
    if (this.pages[freed] === 0) return
    const mask = this.pages.length - 1
    let hole = freed
    for (let place = (hole + 1) & mask; this.pages[place] !== 0; place = (place + 1) & mask) {
      const distance = (place - homeOf(this.pages[place] - 1)) & mask
      if (distance < ((place - hole) & mask)) continue // a search for it does not pass the hole
      this.pages[hole] = this.pages[place]
      this.words[hole] = this.words[place]
      hole = place
    }
    this.pages[hole] = 0
    this.words[hole] = 0
    this.size--
  }

  private grow(): void {
    const { pages, words } = this
    this.pages = new Int32Array(2 * pages.length)
    this.words = new Int32Array(2 * words.length)
    for (let place = 0; place < pages.length; place++) {
      if (pages[place] === 0) continue
      const moved = this.placeOf(pages[place] - 1)
      this.pages[moved] = pages[place]
      this.words[moved] = words[place]
    }
  }
}

/** Where the search for a page begins, before it is brought into range: neighbours are spread. */
function homeOf(page: number): number {
  const mixed = Math.imul(page, 0x9e3779b1)
  return mixed ^ (mixed >>> 15)
}
