// Member of the benchmark of faults: rank 0 is the home of every page, and does as it is told.
import { serve } from '../lib/member.mjs'
import {
  checkPages,
  fillPages,
  firstPages,
  pageBytes,
  shuffledPages,
  timeNothing,
  timeReads,
  timeWrites,
} from '../lib/pages.mjs'

const turnTimeoutMs = 10_000
const pauseWord = new Int32Array(new SharedArrayBuffer(4))

serve(async (mesh, { pageCount }) => {
  const byteLength = pageCount * pageBytes
  // A fault is what is measured: nothing may bring the page before.
  const own = { placement: { rank: 0 }, prefetch: 'off' }
  const region = await mesh.region('fault', { byteLength, ...own })
  const turnRegion = await mesh.region('turns', { byteLength: pageBytes, ...own })
  const cells = new Uint32Array(region.buffer)
  const turnCells = new Uint32Array(turnRegion.buffer)
  let turnsTaken = 0

  /** @param {{ seed: number, count: number, inSequence?: boolean }} args */
  const pick = ({ seed, count, inSequence = false }) =>
    inSequence ? firstPages(count) : shuffledPages(pageCount, count, seed)
  return {
    fill: (args) => fillPages(cells, pick(args), args.stamp),
    check: (args) => checkPages(cells, pick(args), args.stamps),
    discard: () => region.discard(0, byteLength),
    read: (args) => timeReads(cells, pick(args), args.stamp),
    readWithPauses: (args) => readWithPauses(cells, pick(args), args),
    async prefetch({ count, stamp }) {
      const startMs = performance.now()
      await region.prefetch(0, count * pageBytes, 'read')
      const perPageUs = ((performance.now() - startMs) * 1e3) / count
      timeReads(cells, firstPages(count), stamp) // they are here, and right
      return [perPageUs]
    },
    write: (args) => timeWrites(cells, pick(args), args.stamps),
    takeTurns({ turns }) {
      const firstTurn = turnsTaken
      turnsTaken += turns
      return takeTurns(turnCells, mesh.rank, { firstTurn, turns })
    },
    timeNothing,
  }
})

/**
 * Reads with so much time between two that everything that waits has gone to sleep.
 * @param {Uint32Array} cells
 * @param {Uint32Array} pages
 * @param {{ stamp: number, pauseMs: number }} args
 */
function readWithPauses(cells, pages, { stamp, pauseMs }) {
  return Float64Array.from(pages, (page) => {
    Atomics.wait(pauseWord, 0, 0, pauseMs)
    return timeReads(cells, Uint32Array.of(page), stamp)[0]
  })
}

/**
 * Writes a word whenever it is this member's turn: waiting for it is a read fault, taking it an
 * upgrade. A member spins only on its own copy of the page, until the other's write takes it away.
 * @param {Uint32Array} cells
 * @param {number} rank
 * @param {{ firstTurn: number, turns: number }} args
 * @returns {number[]} µs per turn: half the time between two writes of this member
 */
function takeTurns(cells, rank, { firstTurn, turns }) {
  /** @type {number[]} */
  const samplesUs = []
  const deadline = performance.now() + turnTimeoutMs
  let previous = 0
  for (let turn = rank; turn < turns; turn += 2) {
    let looks = 0
    while (Atomics.load(cells, 0) !== firstTurn + turn) {
      if ((++looks & 0xffff) === 0 && performance.now() > deadline) {
        throw new Error(`turn ${turn} did not come: the page holds ${Atomics.load(cells, 0)}`)
      }
    }
    Atomics.store(cells, 0, firstTurn + turn + 1)
    const now = performance.now()
    if (turn > rank) samplesUs.push(((now - previous) * 1e3) / 2)
    previous = now
  }
  return samplesUs
}
