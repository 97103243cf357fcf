// Member of the progress benchmark: both members fault on each other's pages at the same time.
import { serve } from '../lib/member.mjs'
import {
  expectWord,
  fillPages,
  monotonicOffsetMs,
  pageBytes,
  shuffledPages,
  timeReads,
  wordOf,
  wordsPerPage,
} from '../lib/pages.mjs'

serve(async (mesh, { pageCount }) => {
  const other = 1 - mesh.rank
  const byteLength = pageCount * pageBytes

  /**
   * One region homed at each member, so that the two can be touched at the same time.
   * @param {string} name
   */
  async function openBoth(name) {
    const regions = []
    for (const rank of [0, 1]) {
      regions.push(await mesh.region(`${name} ${rank}`, { byteLength, placement: { rank } }))
    }
    const cells = regions.map((region) => new Uint32Array(region.buffer))
    return { theirs: regions[other], theirCells: cells[other], ownCells: cells[mesh.rank] }
  }
  const forReads = await openBoth('read')
  const forWrites = await openBoth('write')
  const everyPage = shuffledPages(pageCount, pageCount, 0)
  fillPages(forReads.ownCells, everyPage, 0)
  fillPages(forWrites.ownCells, everyPage, 0)
  let phase = 0
  await mesh.barrier()
  return { crossReads, crossWrites }

  /** Reads all pages of the other member, gives them back, and so on. @param {any} args */
  async function crossReads({ passes, seed }) {
    return measure(passes, async (pass) => {
      await forReads.theirs.discard(0, byteLength)
      const pages = shuffledPages(pageCount, pageCount, seed + pass)
      return timeReads(forReads.theirCells, pages, 0)
    })
  }

  /**
   * Writes all pages of the other member's region, and in the next pass all of its own: each page
   * was written last by the other member, so that every write is a fault.
   * @param {any} args
   */
  async function crossWrites({ passes, seed }) {
    return measure(passes, async (pass) => {
      const cells = phase % 2 === 0 ? forWrites.theirCells : forWrites.ownCells
      const pages = shuffledPages(pageCount, pageCount, seed + pass)
      await mesh.barrier()
      const samplesUs = timeExchanges(cells, pages, phase)
      phase++
      return samplesUs
    })
  }
})

/**
 * @param {number} passes
 * @param {(pass: number) => Promise<Float64Array>} carryOut
 */
async function measure(passes, carryOut) {
  const offsetMs = monotonicOffsetMs()
  const startMs = performance.now() + offsetMs
  const rounds = []
  for (let pass = 0; pass < passes; pass++) rounds.push(await carryOut(pass))
  return { rounds, startMs, endMs: performance.now() + offsetMs }
}

/**
 * Writes a word of each page and checks what the other member left there, in one write fault.
 * @param {Uint32Array} cells
 * @param {Uint32Array} pages
 * @param {number} stamp of what the pages hold; this writes the next one
 */
function timeExchanges(cells, pages, stamp) {
  const samplesUs = new Float64Array(pages.length)
  for (let i = 0; i < pages.length; i++) {
    const page = pages[i]
    const before = performance.now()
    const word = Atomics.exchange(cells, page * wordsPerPage, wordOf(page, stamp + 1))
    const after = performance.now()
    samplesUs[i] = (after - before) * 1e3
    expectWord(page, word, wordOf(page, stamp))
  }
  return samplesUs
}
