import { randomFrom } from '../../test/support/xorshift.mjs'
import { openArray, prefetch, shareOf } from './application.mjs'

/** So that a block of either matrix stays in the first cache: 32 KiB. */
const blockSize = 64

/**
 * Multiplication of square matrices, block by block. A step multiplies one matrix, which stays, by
 * the last step's product, of which each process has made some rows and needs all.
 * @type {import('./application.mjs').Application}
 */
export const multiply = {
  name: 'matrix multiply',
  sizes: { normal: 512, tiny: 64 },
  stepsPerBatch: 2,
  describe: (size) => `a product of ${size}², blocks of ${blockSize}²`,
  tolerance: 0,
  alone,
  shared,
  passing,
}

/**
 * Rows start … end - 1 of a matrix whose rows each sum up to 1, so that products stay as they are
 * in size.
 * @param {number} size
 * @param {Float64Array} matrix
 * @param {number} start
 * @param {number} end
 */
function fillFactor(size, matrix, start, end) {
  for (let row = start; row < end; row++) {
    const random = randomFrom(row + 1)
    const values = matrix.subarray(row * size, (row + 1) * size)
    let sum = 0
    for (let column = 0; column < size; column++) sum += values[column] = 1 + random(1000)
    for (let column = 0; column < size; column++) values[column] /= sum
  }
}

/**
 * @param {number} size
 * @param {Float64Array} matrix
 * @param {number} start
 * @param {number} end
 */
function fillFirst(size, matrix, start, end) {
  for (let i = start * size; i < end * size; i++) matrix[i] = ((i * 31) % 1009) / 1009
}

/**
 * Rows start … end - 1 of `product` = `left` × `right`. Each element is summed up in the same order
 * however the rows are shared out.
 * @param {number} size
 * @param {{ left: Float64Array, right: Float64Array, product: Float64Array }} matrices
 * @param {number} start
 * @param {number} end
 */
export function multiplyRows(size, { left, right, product }, start, end) {
  product.fill(0, start * size, end * size)
  for (let rowBlock = start; rowBlock < end; rowBlock += blockSize) {
    const rowEnd = Math.min(rowBlock + blockSize, end)
    for (let middle = 0; middle < size; middle += blockSize) {
      const middleEnd = Math.min(middle + blockSize, size)
      for (let column = 0; column < size; column += blockSize) {
        const width = Math.min(blockSize, size - column)
        for (let row = rowBlock; row < rowEnd; row++) {
          const target = row * size + column
          for (let k = middle; k < middleEnd; k++) {
            const factor = left[row * size + k]
            const source = k * size + column
            for (let j = 0; j < width; j++) product[target + j] += factor * right[source + j]
          }
        }
      }
    }
  }
}

/** @param {number} size @returns {import('./application.mjs').Run} */
export function alone(size) {
  const left = new Float64Array(size * size)
  let right = new Float64Array(size * size)
  let product = new Float64Array(size * size)
  fillFactor(size, left, 0, size)
  fillFirst(size, right, 0, size)
  return {
    step() {
      multiplyRows(size, { left, right, product }, 0, size)
      ;[right, product] = [product, right]
    },
    result: () => right,
  }
}

/**
 * @param {import('../lib/member.mjs').Mesh} mesh
 * @param {number} size
 * @returns {Promise<import('./application.mjs').Run>}
 */
export async function shared(mesh, size) {
  const { start, end } = shareOf(size, mesh)
  const length = size * size
  const { values: left } = await openArray(mesh, 'left', Float64Array, length)
  let right = await openArray(mesh, 'right even', Float64Array, length)
  let product = await openArray(mesh, 'right odd', Float64Array, length)
  fillFactor(size, left, start, end)
  fillFirst(size, right.values, start, end)
  await mesh.barrier()
  return {
    async step() {
      await Promise.all([
        prefetch(right, 'read', 0, length),
        prefetch(product, 'write', start * size, end * size),
      ])
      multiplyRows(size, { left, right: right.values, product: product.values }, start, end)
      await mesh.barrier()
      ;[right, product] = [product, right]
    },
    result: () => (mesh.rank === 0 ? right.values : right.values.subarray(0, 0)),
  }
}

/**
 * @param {import('./peer.mjs').Peer} peer
 * @param {number} size
 * @returns {Promise<import('./application.mjs').Run>}
 */
export async function passing(peer, size) {
  const { start, end } = shareOf(size, peer)
  const theirs = shareOf(size, { rank: 1 - peer.rank, size: peer.size })
  const left = new Float64Array(size * size)
  let right = new Float64Array(size * size)
  let product = new Float64Array(size * size)
  fillFactor(size, left, start, end)
  fillFirst(size, right, 0, size)
  return {
    async step() {
      multiplyRows(size, { left, right, product }, start, end)
      await peer.exchange(
        product.subarray(start * size, end * size),
        product.subarray(theirs.start * size, theirs.end * size),
      )
      ;[right, product] = [product, right]
    },
    result: () => right.subarray(start * size, end * size),
  }
}
