/**
 * Heat on a square plate. One step replaces every cell by the mean of its four neighbours (Jacobi).
 * Temperatures go from 0 to 1. Only additions, multiplications and comparisons are used, always in
 * the same order for a cell, so the result has the same bits however the rows are shared out.
 */

export const cellKinds = /** @type {const} */ ({
  free: 0,
  /** keeps its temperature: the border, the ring, the cold spots */
  held: 1,
  /** lets no heat through */
  insulated: 2,
  /** a free cell with an insulated neighbour */
  besideInsulated: 3,
})

const { free, held, insulated, besideInsulated } = cellKinds

/**
 * @typedef {object} Plate
 * @property {number} size cells per side
 * @property {Uint8Array} kinds
 */

/** @param {number} size @returns {Plate} */
export function makePlate(size) {
  const kinds = new Uint8Array(size * size)
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < size; column++) {
      kinds[row * size + column] = placeAt(size, row, column).kind
    }
  }
  for (let i = size; i < kinds.length - size; i++) {
    const touches = [i - size, i - 1, i + 1, i + size].some((n) => kinds[n] === insulated)
    if (kinds[i] === free && touches) kinds[i] = besideInsulated
  }
  return { size, kinds }
}

/**
 * What the plate looks like: a hot ring in the middle, round it two insulated walls with gaps that
 * do not face each other, a warm lower edge, three cold ones, and a cold spot in each corner.
 * @param {number} size @param {number} row @param {number} column
 * @returns {{ kind: number, temperature: number }}
 */
function placeAt(size, row, column) {
  if (row === size - 1) return { kind: held, temperature: 0.8 }
  if (row === 0 || column === 0 || column === size - 1) return { kind: held, temperature: 0 }

  // From -0.5 to 0.5, the middle of the plate being 0.
  const x = column / (size - 1) - 0.5
  const y = row / (size - 1) - 0.5
  if (isBetween(x * x + y * y, 0.07, 0.1)) return { kind: held, temperature: 1 }
  const onAxis = Math.min(Math.abs(x), Math.abs(y)) < 0.035
  if (isBetween(x * x + y * y, 0.17, 0.19) && !onAxis) return { kind: insulated, temperature: 0 }
  const onDiagonal = Math.abs(Math.abs(x) - Math.abs(y)) < 0.06
  if (isBetween(x * x + y * y, 0.29, 0.31) && !onDiagonal) {
    return { kind: insulated, temperature: 0 }
  }
  const fromCorner = (Math.abs(x) - 0.37) ** 2 + (Math.abs(y) - 0.37) ** 2
  if (isBetween(fromCorner, 0, 0.025)) return { kind: held, temperature: 0 }
  return { kind: free, temperature: 0.3 }
}

/** @param {number} squared @param {number} inner @param {number} outer */
function isBetween(squared, inner, outer) {
  return squared >= inner * inner && squared <= outer * outer
}

/**
 * Sets rows start … end - 1 to the temperatures they begin with.
 * @param {Plate} plate @param {Float64Array} cells @param {number} start @param {number} end
 */
export function startRows({ size }, cells, start, end) {
  for (let row = start; row < end; row++) {
    for (let column = 0; column < size; column++) {
      cells[row * size + column] = placeAt(size, row, column).temperature
    }
  }
}

/**
 * One step for rows start … end - 1. Reads one row more on either side.
 * @param {Plate} plate
 * @param {Float64Array} current @param {Float64Array} next
 * @param {number} start @param {number} end
 */
export function stepRows({ size, kinds }, current, next, start, end) {
  for (let i = start * size; i < end * size; i++) {
    const kind = kinds[i]
    if (kind === free) {
      next[i] = 0.25 * (current[i - size] + current[i + size] + (current[i - 1] + current[i + 1]))
    } else if (kind === besideInsulated) {
      // No heat flows to an insulated neighbour: it counts as being as warm as this cell.
      const here = current[i]
      const above = kinds[i - size] === insulated ? here : current[i - size]
      const below = kinds[i + size] === insulated ? here : current[i + size]
      const left = kinds[i - 1] === insulated ? here : current[i - 1]
      const right = kinds[i + 1] === insulated ? here : current[i + 1]
      next[i] = 0.25 * (above + below + (left + right))
    }
  }
}

/**
 * The whole computation in this process, on plain arrays: what the mesh is compared with.
 * @param {Plate} plate @param {number} stepCount
 */
export function computeAlone(plate, stepCount) {
  let current = new Float64Array(plate.size ** 2)
  let next = new Float64Array(plate.size ** 2)
  // Both, because a step does not write the cells that never change.
  startRows(plate, current, 0, plate.size)
  startRows(plate, next, 0, plate.size)
  for (let step = 0; step < stepCount; step++) {
    stepRows(plate, current, next, 0, plate.size)
    ;[current, next] = [next, current]
  }
  return current
}

/**
 * Cuts the rows into consecutive shares. Where the plate is large enough a share begins at a page
 * boundary, so that no page is written by two members.
 * @param {number} size @param {number} shareCount @param {number} cellsPerPage
 */
export function rowBounds(size, shareCount, cellsPerPage) {
  const rowsToBoundary = cellsPerPage / greatestCommonDivisor(size, cellsPerPage)
  const granule = rowsToBoundary * shareCount <= size ? rowsToBoundary : 1
  const bounds = Array.from({ length: shareCount }, (_, share) => {
    return Math.round((size * share) / shareCount / granule) * granule
  })
  return [...bounds, size]
}

/** @param {number} a @param {number} b @returns {number} */
function greatestCommonDivisor(a, b) {
  return b === 0 ? a : greatestCommonDivisor(b, a % b)
}
