/** PageRank on typed arrays: the same functions serve one process and the members of a mesh. */

export const damping = 0.85
export const maxStepCount = 100
/** The steps end when the scores together change by less than this. */
export const settledChange = 1e-12

/**
 * Who points to row s: sources[offsets[s]] … sources[offsets[s + 1] - 1].
 * @typedef {object} Graph
 * @property {Uint32Array} offsets
 * @property {Uint32Array} sources
 * @property {Uint32Array} outDegrees
 */

/**
 * Gives rows start … end - 1 the same score.
 * @param {Graph} graph @param {Float64Array} scores @param {number} start @param {number} end
 * @returns {number} the score held by dangling rows, those that point nowhere
 */
export function startRows({ outDegrees }, scores, start, end) {
  let dangling = 0
  for (let row = start; row < end; row++) {
    scores[row] = 1 / scores.length
    if (outDegrees[row] === 0) dangling += scores[row]
  }
  return dangling
}

/**
 * One step for rows start … end - 1.
 * @param {Graph} graph
 * @param {Float64Array} current read, all rows
 * @param {Float64Array} next written, these rows only
 * @param {number} start @param {number} end
 * @param {number} dangling what all dangling rows hold in `current`: it goes to everyone equally
 * @returns {{ change: number, dangling: number }} of these rows, for `next`
 */
export function stepRows({ offsets, sources, outDegrees }, current, next, start, end, dangling) {
  const floor = (1 - damping + damping * dangling) / current.length
  let change = 0
  let nextDangling = 0
  for (let row = start; row < end; row++) {
    let sum = 0
    for (let e = offsets[row]; e < offsets[row + 1]; e++) {
      const source = sources[e]
      sum += current[source] / outDegrees[source]
    }
    const score = floor + damping * sum
    next[row] = score
    change += Math.abs(score - current[row])
    if (outDegrees[row] === 0) nextDangling += score
  }
  return { change, dangling: nextDangling }
}

/**
 * The whole computation in this process, on plain arrays: what the mesh is compared with.
 * @param {Graph} graph
 */
export function computeAlone(graph) {
  const rowCount = graph.outDegrees.length
  let current = new Float64Array(rowCount)
  let next = new Float64Array(rowCount)
  let dangling = startRows(graph, current, 0, rowCount)
  let stepCount = 0
  for (let change = Infinity; change >= settledChange && stepCount < maxStepCount; stepCount++) {
    ;({ change, dangling } = stepRows(graph, current, next, 0, rowCount, dangling))
    ;[current, next] = [next, current]
  }
  return { scores: current, stepCount }
}

/**
 * Cuts the rows into consecutive shares of about equal work, each beginning at a multiple of
 * `granule` rows. Share i is bounds[i] … bounds[i + 1] - 1.
 * @param {Uint32Array} offsets @param {number} shareCount @param {number} granule
 */
export function balancedBounds(offsets, shareCount, granule) {
  const rowCount = offsets.length - 1
  const workTotal = offsets[rowCount] + rowCount
  const bounds = [0]
  let row = 0
  for (let share = 1; share < shareCount; share++) {
    // A row costs its edges, and a little by itself.
    while (row < rowCount && offsets[row] + row < (workTotal * share) / shareCount) row++
    bounds.push(Math.min(rowCount, Math.round(row / granule) * granule))
  }
  bounds.push(rowCount)
  return bounds
}

/**
 * The largest relative difference; NaN if anything is not a number.
 * @param {Float64Array} scores @param {Float64Array} expected
 */
export function largestRelativeDifference(scores, expected) {
  if (scores.length !== expected.length) return NaN
  let largest = 0
  for (let row = 0; row < expected.length; row++) {
    largest = Math.max(largest, Math.abs(scores[row] - expected[row]) / Math.abs(expected[row]))
  }
  return largest
}

/** @param {Float64Array} scores @param {number} count @returns {number[]} rows, highest first */
export function highestRows(scores, count) {
  const rows = Uint32Array.from(scores, (_, row) => row)
  return [...rows.sort((a, b) => scores[b] - scores[a] || a - b).subarray(0, count)]
}
