// Member of the benchmark of scans: rank 0 is the home of all pages, rank 1 reads them.
import { serve } from '../lib/member.mjs'
import { pageBytes, shuffledPages } from '../lib/pages.mjs'

const lineBytes = 64
const cellsPerLine = lineBytes / Float64Array.BYTES_PER_ELEMENT
const cellsPerPage = pageBytes / Float64Array.BYTES_PER_ELEMENT

serve(async (mesh, { mib }) => {
  const byteLength = mib * 2 ** 20
  /** @type {Record<string, { region: import('../lib/member.mjs').Region, cells: Float64Array }>} */
  const spans = {}
  for (const prefetch of ['auto', 'off']) {
    const shape = { byteLength, placement: { rank: 0 }, prefetch }
    const region = await mesh.region(`scan, prefetch ${prefetch}`, shape)
    spans[prefetch] = { region, cells: new Float64Array(region.buffer) }
  }
  return {
    knowsPrefetch: () => knowsPrefetch(mesh),
    fill: ({ prefetch, stamp }) => fill(spans[prefetch].cells, stamp),
    discard: ({ prefetch }) => spans[prefetch].region.discard(0, byteLength),
    read: ({ prefetch, stamp }) => read(spans[prefetch].cells, stamp),
    /** @param {{ prefetch: string, stamp: number, every: number }} args */
    readSome: ({ prefetch, stamp, every }) => readSome(spans[prefetch].cells, stamp, every),
    readAtRandom: ({ prefetch, stamp, seed }) => readAtRandom(spans[prefetch].cells, stamp, seed),
  }
})

/**
 * A mesh without automatic prefetch takes any value for it, since it does not look at it.
 * @param {import('../lib/member.mjs').Mesh} mesh
 */
async function knowsPrefetch(mesh) {
  try {
    await mesh.region('probe', { byteLength: pageBytes, prefetch: 'perhaps' })
    return false
  } catch {
    return true
  }
}

/**
 * The first number of each cache line tells where it is.
 * @param {Float64Array} cells
 * @param {number} stamp
 */
function fill(cells, stamp) {
  for (let i = 0; i < cells.length; i += cellsPerLine) cells[i] = i + stamp
}

/**
 * One number of each cache line: all memory comes, and little is done with it.
 * @param {Float64Array} cells
 */
function sumLines(cells) {
  let sum = 0
  for (let i = 0; i < cells.length; i += cellsPerLine) sum += cells[i]
  return sum
}

/**
 * @param {Float64Array} cells
 * @param {number} stamp of what was filled last
 * @returns {number} µs per page
 */
function read(cells, stamp) {
  const startMs = performance.now()
  const sum = sumLines(cells)
  const elapsedMs = performance.now() - startMs
  const lines = cells.length / cellsPerLine
  expectSum(sum, lines * stamp + (cellsPerLine * lines * (lines - 1)) / 2)
  return (elapsedMs * 1e3) / (cells.length / cellsPerPage)
}

/**
 * The first number of every so manieth page.
 * @param {Float64Array} cells
 * @param {number} stamp
 * @param {number} every
 * @returns {number} µs per page that is read
 */
function readSome(cells, stamp, every) {
  const stride = every * cellsPerPage
  const startMs = performance.now()
  let sum = 0
  for (let i = 0; i < cells.length; i += stride) sum += cells[i]
  const elapsedMs = performance.now() - startMs
  const pages = Math.ceil(cells.length / stride)
  expectSum(sum, pages * stamp + (stride * pages * (pages - 1)) / 2)
  return (elapsedMs * 1e3) / pages
}

/**
 * The first number of each page, in random order.
 * @param {Float64Array} cells
 * @param {number} stamp
 * @param {number} seed
 * @returns {number} µs per page
 */
function readAtRandom(cells, stamp, seed) {
  const pageCount = cells.length / cellsPerPage
  const pages = shuffledPages(pageCount, pageCount, seed)
  const startMs = performance.now()
  let sum = 0
  for (let i = 0; i < pages.length; i++) sum += cells[pages[i] * cellsPerPage]
  const elapsedMs = performance.now() - startMs
  expectSum(sum, pageCount * stamp + (cellsPerPage * pageCount * (pageCount - 1)) / 2)
  return (elapsedMs * 1e3) / pageCount
}

/** @param {number} found @param {number} expected */
function expectSum(found, expected) {
  if (found !== expected) throw new Error(`wrong data: the sum is ${found}, not ${expected}`)
}
