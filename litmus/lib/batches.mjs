import { Random } from './random.mjs'

/** @typedef {import('./catalogue.mjs').Program} Program */
/** @typedef {import('./variants.mjs').Variant} Variant */

/** Pages of each region: few, so that every page is used again and again and copies are about. */
export const pageCount = 320

/** Iterations of a batch. Workers of one member fault less, and need more of them to meet. */
const slotsPerBatch = { members: 64, 'one member': 1024 }

/** Iterations whose variables lie on the same pages; one that is alone has the page to itself. */
const sharing = [1, 2, 4, 16]

/** Bytes between the variables of iterations on one page: a cache line. */
const strideBytes = 64

/** Whole words and halves of straddling ones tell epochs apart by these. */
export const valuesPerEpoch = { word: 4, half: 8 }
const halfEpochs = 32

/** Where a register or final is not known, and where it holds what nobody wrote in this batch. */
export const unknown = 255
export const alien = 7

/**
 * @typedef {object} Run
 * @property {Program} program as its threads carry it out
 * @property {Variant} variant
 * @property {number} iterations
 * @property {number} seed
 * @property {number} firstEpoch no batch of this mesh may have had this or a later one
 */

/** @param {{ variant: Variant, iterations: number }} run */
export function countBatches({ variant, iterations }) {
  return Math.ceil(iterations / slotsPerBatch[variant.place])
}

/**
 * Some iterations that run without members waiting for each other between them. All members make
 * the same plan.
 * @typedef {object} Batch
 * @property {number} firstIteration
 * @property {number} slotCount
 * @property {number} base what every variable holds at first
 * @property {Int32Array} at by slot and variable: the index of its word, or the byte offset of what
 *   straddles
 * @property {number} byteOffset of the pages in use
 * @property {number} byteLength
 * @property {number[]} ranks by thread: the member that runs it
 * @property {number} preparer the rank that looks at the end of the last batch and writes `base`
 * @property {('keep' | 'read' | 'discard')[]} warmth by rank: what it does about its copies first
 * @property {number} seed of what threads do at random
 */

/**
 * @param {Run} run
 * @param {number} index
 * @param {{ size: number, pageBytes: number }} mesh
 * @returns {Batch}
 */
export function planBatch({ program, variant, iterations, seed, firstEpoch }, index, mesh) {
  const { place, layout } = variant
  const random = new Random(seed, index)
  const firstIteration = index * slotsPerBatch[place]
  const slotCount = Math.min(slotsPerBatch[place], iterations - firstIteration)
  const threadCount = program.threads.length
  const ranks = random.shuffle(Array.from({ length: mesh.size }, (_, rank) => rank))
  const warmths = /** @type {const} */ (['keep', 'read', 'read', 'read', 'discard'])
  const epoch = firstEpoch + index
  const places = { slotCount, variableCount: program.variables.length, random, ...mesh }
  return {
    firstIteration,
    slotCount,
    base:
      layout === 'straddling'
        ? (epoch % halfEpochs) * valuesPerEpoch.half
        : epoch * valuesPerEpoch.word,
    ...(layout === 'straddling' ? placeOnBorders(places) : placeOnPages(variant, places)),
    ranks: place === 'members' ? ranks.slice(0, threadCount) : Array(threadCount).fill(0),
    preparer: random.below(mesh.size),
    warmth: ranks.map(() => random.pick(warmths)),
    seed: random.below(2 ** 32),
  }
}

/**
 * @typedef {{ slotCount: number, variableCount: number, random: Random, pageBytes: number }} Places
 */

/** @param {Variant} variant @param {Places} places */
function placeOnPages({ layout, place }, { slotCount, variableCount, random, pageBytes }) {
  const together = place === 'members' ? random.pick(sharing) : 16
  const pagesPerGroup = layout === 'multi-page' ? variableCount : 1
  const groups = Math.ceil(slotCount / together)
  const { pages, ...range } = pickPages(groups * pagesPerGroup, random, pageBytes)
  const wordsPerPage = pageBytes / 4
  const at = new Int32Array(slotCount * variableCount)
  for (let slot = 0; slot < slotCount; slot++) {
    const group = Math.floor(slot / together)
    for (let variable = 0; variable < variableCount; variable++) {
      const other = layout === 'multi-page'
      const page = pages[group * pagesPerGroup + (other ? variable : 0)]
      const inPage = (slot % together) * (other ? 1 : variableCount) + (other ? 0 : variable)
      at[slot * variableCount + variable] = page * wordsPerPage + inPage * (strideBytes / 4)
    }
  }
  return { at, ...range }
}

/** Two bytes each, one on either side. @param {Places} places */
function placeOnBorders({ slotCount, variableCount, random, pageBytes }) {
  const borderCount = slotCount * variableCount
  const first = random.below(pageCount - borderCount)
  const borders = random.shuffle(Int32Array.from({ length: borderCount }, (_, i) => first + i))
  return {
    at: borders.map((page) => (page + 1) * pageBytes - 1),
    byteOffset: first * pageBytes,
    byteLength: (borderCount + 1) * pageBytes,
  }
}

/**
 * A run of pages in random order.
 * @param {number} count
 * @param {Random} random
 * @param {number} pageBytes
 */
function pickPages(count, random, pageBytes) {
  const first = random.below(pageCount - count)
  const pages = random.shuffle(Int32Array.from({ length: count }, (_, i) => first + i))
  return { pages, byteOffset: first * pageBytes, byteLength: count * pageBytes }
}

/**
 * What a word read means in this batch: 0 for the initial value, 1… for what threads write.
 * @param {number} raw
 * @param {number} base
 */
export function decodeWord(raw, base) {
  const value = raw - base
  return value >= 0 && value < valuesPerEpoch.word ? value : alien
}

/**
 * The same of the two bytes that lie across a border: the first in the lower four bits.
 * @param {number} raw
 * @param {number} base
 */
export function decodeHalves(raw, base) {
  return decodeWord(raw & 255, base) | (decodeWord(raw >> 8, base) << 4)
}
