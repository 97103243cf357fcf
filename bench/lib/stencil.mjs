/**
 * One step of Jacobi's method on a square of cells whose border stays as it is: every cell becomes
 * the mean of its four neighbours. Computes rows start … end - 1, and reads one more on each side.
 * @param {Float64Array} current
 * @param {Float64Array} next
 * @param {number} size cells per side
 * @param {number} start
 * @param {number} end
 */
export function stepRows(current, next, size, start, end) {
  const last = Math.min(end, size - 1)
  for (let row = Math.max(start, 1); row < last; row++) {
    const rowEnd = (row + 1) * size - 1
    for (let i = row * size + 1; i < rowEnd; i++) {
      next[i] = 0.25 * (current[i - size] + current[i + size] + (current[i - 1] + current[i + 1]))
    }
  }
}

/**
 * Something to begin with that is different everywhere: no cell could be taken for another.
 * @param {Float64Array} cells
 * @param {number} size
 * @param {number} start
 * @param {number} end
 */
export function startRows(cells, size, start, end) {
  for (let row = start; row < end; row++) {
    for (let column = 0; column < size; column++) {
      cells[row * size + column] = ((row * 7919 + column * 104729) % 10007) / 10007
    }
  }
}
