// Member of the anatomy of a fault: rank 0 is the home of every page. With PAGEMESH_ADDON_DIR at the
// addon that keeps time stamps, it hands out what that has kept.
import { loadAddon } from '../../dist/native/addon.js'
import { serve } from '../lib/member.mjs'
import {
  checkPages,
  expectWord,
  fillPages,
  pageBytes,
  shuffledPages,
  wordOf,
  wordsPerPage,
} from '../lib/pages.mjs'

/** @typedef {import('../lib/anatomy.mjs').StampedAddon} StampedAddon */

const addon = /** @type {StampedAddon} */ (/** @type {unknown} */ (loadAddon()))
const pauseWord = new Int32Array(new SharedArrayBuffer(4))
const clockReadings = 10_000

serve(async (mesh, { pageCount }) => {
  // One more than is used: what is sent for no page speaks of page 0, and would be taken for it.
  const byteLength = (pageCount + 1) * pageBytes
  const own = { placement: { rank: 0 }, prefetch: 'off' }
  const region = await mesh.region('anatomy', { byteLength, ...own })
  const cells = new Uint32Array(region.buffer)

  /** @param {{ seed: number, count: number }} args */
  const pick = ({ seed, count }) => shuffledPages(pageCount, count, seed).map((page) => page + 1)
  return {
    fill: (args) => fillPages(cells, pick(args), args.stamp),
    check: (args) => checkPages(cells, pick(args), args.stamps),
    discard: () => region.discard(0, byteLength),
    read: (args) => touchPages(cells, pick(args), args, undefined),
    write: (args) => touchPages(cells, pick(args), args, args.stamp + 1),
    /** What has been kept so far; from now on room for so many more. */
    stamps: ({ room }) => addon.stamps(room),
    points: () => addon.constants,
    readClock,
  }
})

/**
 * Touches one page after the other, and says when.
 * @param {Uint32Array} cells
 * @param {Uint32Array} pages
 * @param {{ stamp: number, pauseMs?: number }} args what was written before; how long to sleep before
 *   each touch, so that all others have gone to sleep too
 * @param {number | undefined} written the number of this write; undefined: reads
 */
function touchPages(cells, pages, { stamp, pauseMs = 0 }, written) {
  const beforeNs = new Float64Array(pages.length)
  const afterNs = new Float64Array(pages.length)
  for (let i = 0; i < pages.length; i++) {
    const page = pages[i]
    const cell = page * wordsPerPage
    if (pauseMs > 0) Atomics.wait(pauseWord, 0, 0, pauseMs)
    let word = wordOf(page, written ?? stamp)
    const before = process.hrtime.bigint()
    if (written === undefined) word = cells[cell]
    else cells[cell] = word
    const after = process.hrtime.bigint()
    beforeNs[i] = Number(before)
    afterNs[i] = Number(after)
    expectWord(page, word, wordOf(page, written ?? stamp))
    expectWord(page, cells[cell + wordsPerPage - 1], wordOf(page, stamp))
  }
  return { pages, beforeNs, afterNs }
}

/** The time of two readings of the clock with nothing between them, in µs. */
function readClock() {
  return Float64Array.from({ length: clockReadings }, () => {
    const before = process.hrtime.bigint()
    return Number(process.hrtime.bigint() - before) / 1e3
  })
}
