/**
 * The form of an application that is measured: the same computation in three ways. One process with
 * plain typed arrays; members of a mesh that share regions; processes that send each other messages,
 * as one would write it by hand. What is timed is `step`; setting up and handing over are not.
 *
 * @typedef {object} Application
 * @property {string} name
 * @property {{ normal: number, tiny: number }} sizes what `size` is when it is measured, and with --tiny
 * @property {number} stepsPerBatch
 * @property {(size: number) => string} describe what one step is
 * @property {number} tolerance the largest relative difference between results; 0: the same bits
 * @property {(size: number) => Run} alone
 * @property {(mesh: import('../lib/member.mjs').Mesh, size: number) => Promise<Run>} shared
 * @property {(peer: import('./peer.mjs').Peer, size: number) => Promise<Run>} passing for two
 *
 * What one process has of a computation. `result` gives this process's share, and with regions rank
 * 0 gives everything and the others nothing: so what is compared has been read by one who did not
 * write it. The shares by rank, one after the other, are the whole.
 * @typedef {object} Run
 * @property {() => void | Promise<void>} step
 * @property {() => Float64Array | Uint32Array} result
 */

/** The page size of regions that do not ask for another. */
export const pageBytes = 4096

/**
 * A typed array over a region of its own, of whole pages.
 * @template {Float64Array | Uint32Array} View
 * @param {import('../lib/member.mjs').Mesh} mesh
 * @param {string} name
 * @param {{ new (buffer: SharedArrayBuffer, byteOffset: number, length: number): View,
 *   BYTES_PER_ELEMENT: number }} ViewClass
 * @param {number} length
 * @param {'block' | { rank: number }} [placement]
 */
export async function openArray(mesh, name, ViewClass, length, placement = 'block') {
  const byteLength = roundUpToPage(length * ViewClass.BYTES_PER_ELEMENT)
  const region = await mesh.region(name, { byteLength, placement })
  return { region, values: new ViewClass(region.buffer, 0, length) }
}

/**
 * Brings the pages of elements start … end - 1 in one round, without a fault for each.
 * @param {{ region: import('../lib/member.mjs').Region, values: Float64Array | Uint32Array }} array
 * @param {'read' | 'write'} access
 * @param {number} start
 * @param {number} end
 */
export async function prefetch({ region, values }, access, start, end) {
  if (start >= end) return
  const elementBytes = values.BYTES_PER_ELEMENT
  const fromByte = Math.floor((start * elementBytes) / pageBytes) * pageBytes
  await region.prefetch(fromByte, roundUpToPage(end * elementBytes) - fromByte, access)
}

/** @param {number} byteLength */
function roundUpToPage(byteLength) {
  return Math.max(1, Math.ceil(byteLength / pageBytes)) * pageBytes
}

/**
 * Where a member's share begins and ends if `length` elements are cut into equal shares.
 * @param {number} length
 * @param {{ rank: number, size: number }} member
 */
export function shareOf(length, { rank, size }) {
  const bound = (/** @type {number} */ share) => Math.floor((length * share) / size)
  return { start: bound(rank), end: bound(rank + 1) }
}

/**
 * Throws unless the members, and the processes that pass messages, have come to the result that one
 * process has.
 * @param {{ name: string, tolerance: number }} application
 * @param {Record<string, ArrayLike<number>>} results by way
 */
export function checkResults({ name, tolerance }, { alone, passing, shared }) {
  for (const [words, result] of Object.entries({ members: shared, 'passed messages': passing })) {
    const difference = largestDifference(result, alone)
    // Written so that NaN fails.
    if (!(difference <= tolerance)) {
      throw new Error(
        `${name}: ${words} came to a wrong result: it differs by ${difference} from that of ` +
          `one process, and may differ by ${tolerance}`,
      )
    }
  }
}

/**
 * @param {ArrayLike<number>} found
 * @param {ArrayLike<number>} expected
 * @returns {number} the largest relative difference; NaN if anything is not a number
 */
function largestDifference(found, expected) {
  if (found.length !== expected.length || expected.length === 0) return NaN
  let largest = 0
  for (let i = 0; i < expected.length; i++) {
    if (found[i] === expected[i]) continue
    largest = Math.max(largest, Math.abs(found[i] - expected[i]) / Math.abs(expected[i]))
  }
  return largest
}
