import { openArray, shareOf } from './application.mjs'

/**
 * Jacobi's method for Laplace's equation on a square: a step replaces every inner cell by the mean
 * of its four neighbours. Rows are shared out, so two processes need each other's edge row.
 * @type {import('./application.mjs').Application}
 */
export const jacobi = {
  name: 'Jacobi',
  sizes: { normal: 2048, tiny: 64 },
  stepsPerBatch: 20,
  describe: (size) => `a step on ${size}² cells`,
  tolerance: 0,
  alone,
  shared,
  passing,
}

/**
 * Sets rows start … end - 1 of both grids; the border keeps its values for ever.
 * @param {number} size
 * @param {Float64Array[]} grids whose first row is number `origin`
 * @param {{ start: number, end: number, origin?: number }} rows
 */
export function startRows(size, grids, { start, end, origin = 0 }) {
  for (let row = start; row < end; row++) {
    for (let column = 0; column < size; column++) {
      const isBorder = row === 0 || column === 0 || row === size - 1 || column === size - 1
      const value = isBorder ? ((row * 7 + column * 13) % 32) / 32 : 0
      for (const grid of grids) grid[(row - origin) * size + column] = value
    }
  }
}

/**
 * One step for the inner rows among start … end - 1. Reads one row more on either side.
 * @param {number} size
 * @param {Float64Array} current whose first row is number `origin`
 * @param {Float64Array} next
 * @param {{ start: number, end: number, origin?: number }} rows
 */
export function stepRows(size, current, next, { start, end, origin = 0 }) {
  const last = Math.min(end, size - 1)
  for (let row = Math.max(start, 1); row < last; row++) {
    const first = (row - origin) * size
    for (let i = first + 1; i < first + size - 1; i++) {
      next[i] = 0.25 * (current[i - size] + current[i + size] + (current[i - 1] + current[i + 1]))
    }
  }
}

/** @param {number} size @returns {import('./application.mjs').Run} */
export function alone(size) {
  const rows = { start: 0, end: size }
  let current = new Float64Array(size * size)
  let next = new Float64Array(size * size)
  startRows(size, [current, next], rows)
  return {
    step() {
      stepRows(size, current, next, rows)
      ;[current, next] = [next, current]
    },
    result: () => current,
  }
}

/**
 * @param {import('../lib/member.mjs').Mesh} mesh
 * @param {number} size
 * @returns {Promise<import('./application.mjs').Run>}
 */
export async function shared(mesh, size) {
  const rows = shareOf(size, mesh)
  let { values: current } = await openArray(mesh, 'jacobi even', Float64Array, size * size)
  let { values: next } = await openArray(mesh, 'jacobi odd', Float64Array, size * size)
  startRows(size, [current, next], rows)
  await mesh.barrier()
  return {
    async step() {
      stepRows(size, current, next, rows)
      // One barrier a step is enough: what a fast member writes in the next step is what all have
      // finished reading in this one.
      await mesh.barrier()
      ;[current, next] = [next, current]
    },
    result: () => (mesh.rank === 0 ? current : current.subarray(0, 0)),
  }
}

/**
 * Each process has its own rows and a copy of the row beyond its edge.
 * @param {import('./peer.mjs').Peer} peer
 * @param {number} size
 * @returns {Promise<import('./application.mjs').Run>}
 */
export async function passing(peer, size) {
  const { start, end } = shareOf(size, peer)
  const origin = Math.max(0, start - 1)
  const rows = { start, end, origin }
  const length = (Math.min(size, end + 1) - origin) * size
  let current = new Float64Array(length)
  let next = new Float64Array(length)
  startRows(size, [current, next], { start: origin, end: Math.min(size, end + 1), origin })
  /** @param {number} row */
  const nextRow = (row) => next.subarray((row - origin) * size, (row - origin + 1) * size)
  const [edge, beyond] = peer.rank === 0 ? [end - 1, end] : [start, start - 1]
  return {
    async step() {
      stepRows(size, current, next, rows)
      await peer.exchange(nextRow(edge), nextRow(beyond))
      ;[current, next] = [next, current]
    },
    result: () => current.subarray((start - origin) * size, (end - origin) * size),
  }
}
