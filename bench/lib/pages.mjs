/** What region pages are made of here: 4 KiB of 32-bit words. */
export const pageBytes = 4096
export const wordsPerPage = pageBytes / Uint32Array.BYTES_PER_ELEMENT

/**
 * The word that a page must hold after the write numbered `stamp`: tells pages and writes apart.
 * @param {number} page
 * @param {number} stamp
 */
export function wordOf(page, stamp) {
  return (Math.imul(page + 1, 0x9e3779b1) ^ Math.imul(stamp + 1, 0x85ebca6b)) >>> 0
}

/**
 * `count` different pages in random order; the same seed gives the same pages in every member.
 * @param {number} pageCount
 * @param {number} count
 * @param {number} seed
 */
export function shuffledPages(pageCount, count, seed) {
  const pages = Uint32Array.from({ length: pageCount }, (_, page) => page)
  let state = seed >>> 0
  for (let left = pageCount; left > 1; left--) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    const other = Math.floor((state / 2 ** 32) * left)
    const page = pages[left - 1]
    pages[left - 1] = pages[other]
    pages[other] = page
  }
  return pages.subarray(0, count)
}

/**
 * @param {number} count
 * @returns {Uint32Array} pages 0, 1, 2…
 */
export function firstPages(count) {
  return Uint32Array.from({ length: count }, (_, page) => page)
}

/**
 * @param {number} page
 * @param {number} found
 * @param {number} expected
 */
export function expectWord(page, found, expected) {
  if (found !== expected) {
    throw new Error(`wrong data in page ${page}: read ${found}, expected ${expected}`)
  }
}

/**
 * Writes the first and the last word of each page.
 * @param {Uint32Array} cells
 * @param {Uint32Array} pages
 * @param {number} stamp
 */
export function fillPages(cells, pages, stamp) {
  for (const page of pages) {
    const word = wordOf(page, stamp)
    cells[page * wordsPerPage] = word
    cells[(page + 1) * wordsPerPage - 1] = word
  }
}

/**
 * Checks the first and the last word of each page.
 * @param {Uint32Array} cells
 * @param {Uint32Array} pages
 * @param {{ first: number, last: number }} stamps
 */
export function checkPages(cells, pages, { first, last }) {
  for (const page of pages) {
    expectWord(page, cells[page * wordsPerPage], wordOf(page, first))
    expectWord(page, cells[(page + 1) * wordsPerPage - 1], wordOf(page, last))
  }
}

/**
 * Loads one word of each page and takes the time of each load; the checks are outside the time.
 * @param {Uint32Array} cells
 * @param {Uint32Array} pages
 * @param {number} stamp
 * @returns {Float64Array} µs
 */
export function timeReads(cells, pages, stamp) {
  const samplesUs = new Float64Array(pages.length)
  for (let i = 0; i < pages.length; i++) {
    const page = pages[i]
    const cell = page * wordsPerPage
    const before = performance.now()
    const word = cells[cell]
    const after = performance.now()
    samplesUs[i] = (after - before) * 1e3
    expectWord(page, word, wordOf(page, stamp))
    expectWord(page, cells[cell + wordsPerPage - 1], wordOf(page, stamp))
  }
  return samplesUs
}

/**
 * Stores one word in each page and takes the time of each store. The last word of the page, which
 * somebody else wrote, must have come along.
 * @param {Uint32Array} cells
 * @param {Uint32Array} pages
 * @param {{ before: number, after: number }} stamps
 * @returns {Float64Array} µs
 */
export function timeWrites(cells, pages, stamps) {
  const samplesUs = new Float64Array(pages.length)
  for (let i = 0; i < pages.length; i++) {
    const page = pages[i]
    const cell = page * wordsPerPage
    const word = wordOf(page, stamps.after)
    const before = performance.now()
    cells[cell] = word
    const after = performance.now()
    samplesUs[i] = (after - before) * 1e3
    expectWord(page, cells[cell + wordsPerPage - 1], wordOf(page, stamps.before))
  }
  return samplesUs
}

/**
 * The time of two readings of the clock with nothing between them, which every sample includes.
 * @returns {Float64Array} µs
 */
export function timeNothing() {
  const samplesUs = new Float64Array(10_000)
  for (let i = 0; i < samplesUs.length; i++) {
    const before = performance.now()
    const after = performance.now()
    samplesUs[i] = (after - before) * 1e3
  }
  return samplesUs
}

/**
 * What to add to performance.now() to get the machine's monotonic clock in ms, the same in every
 * process.
 */
export function monotonicOffsetMs() {
  return Number(process.hrtime.bigint()) / 1e6 - performance.now()
}

/** The machine's monotonic clock in µs, the same in every process. */
export function monotonicUs() {
  return Number(process.hrtime.bigint()) / 1e3
}
