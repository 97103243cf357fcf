import { median } from './statistics.mjs'

/** From so many pairs on, the normal approximation does. */
const mostExactPairs = 2500

/**
 * How many times larger the samples of `after` are than those of `before`, without assuming how
 * they are distributed: the median of all quotients of one of each (J. Hodges and E. Lehmann,
 * "Estimates of Location Based on Rank Tests", 1963, on logarithms), and an interval that belongs to
 * the test of H. Mann and D. Whitney ("On a Test of Whether one of Two Random Variables is
 * Stochastically Larger than the Other", 1947): its ends are quotients too (D. Bauer, "Constructing
 * Confidence Sets Using Rank Statistics", 1972).
 * @param {ArrayLike<number>} before above 0
 * @param {ArrayLike<number>} after above 0
 * @param {number} confidence as 0.99
 * @returns {{ change: number, low: number, high: number }} from 0 to Infinity if there are too few
 *   samples for so much confidence
 */
export function quotientOf(before, after, confidence) {
  const quotients = Float64Array.from(
    Array.from(before).flatMap((low) => Array.from(after, (high) => high / low)),
  ).sort()
  const cut = pairsToCut(before.length, after.length, (1 - confidence) / 2)
  return {
    change: median(quotients),
    low: cut === 0 ? 0 : quotients[cut - 1],
    high: cut === 0 ? Infinity : quotients[quotients.length - cut],
  }
}

/**
 * The largest k for which U, the number of pairs in order, is below k with at most this probability
 * if both samples come from the same distribution.
 * @param {number} m
 * @param {number} n
 * @param {number} probability
 */
export function pairsToCut(m, n, probability) {
  if (m * n > mostExactPairs) return approximateCut(m, n, probability)
  const ways = waysToOrder(m, n)
  const all = ways.reduce((sum, each) => sum + each, 0)
  let below = 0
  let k = 0
  // A hair more, because sums are rounded.
  while (below + ways[k] <= all * probability * (1 + 1e-12)) below += ways[k++]
  return k
}

/**
 * In how many of the orders of m and n samples U is 0, 1, … m · n: the recurrence of Mann and
 * Whitney, by the sample that is last.
 * @param {number} m
 * @param {number} n
 */
function waysToOrder(m, n) {
  /** By j, for the current i. @type {Float64Array[]} */
  let rows = Array.from({ length: n + 1 }, () => Float64Array.of(1))
  for (let i = 1; i <= m; i++) {
    const next = [Float64Array.of(1)]
    for (let j = 1; j <= n; j++) {
      const ways = new Float64Array(i * j + 1)
      // The last is one of the i: it is above all j.
      rows[j].forEach((each, u) => (ways[u + j] += each))
      next[j - 1].forEach((each, u) => (ways[u] += each))
      next.push(ways)
    }
    rows = next
  }
  return rows[n]
}

/** @param {number} m @param {number} n @param {number} probability */
function approximateCut(m, n, probability) {
  const mean = (m * n) / 2
  const deviation = Math.sqrt((m * n * (m + n + 1)) / 12)
  return Math.max(0, Math.floor(mean - normalQuantile(1 - probability) * deviation))
}

/**
 * By bisection of the distribution function, which is by the approximation 7.1.26 of M. Abramowitz
 * and I. Stegun, "Handbook of Mathematical Functions", 1964: wrong by less than 2e-7.
 * @param {number} probability from 0.5 to below 1
 */
function normalQuantile(probability) {
  let [low, high] = [0, 10]
  while (high - low > 1e-9) {
    const middle = (low + high) / 2
    if (normalDistribution(middle) < probability) low = middle
    else high = middle
  }
  return low
}

/** @param {number} z not below 0 */
function normalDistribution(z) {
  const x = z / Math.SQRT2
  const t = 1 / (1 + 0.3275911 * x)
  const factors = [0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429]
  const sum = factors.reduceRight((rest, factor) => (rest + factor) * t, 0)
  return 1 - (sum * Math.exp(-x * x)) / 2
}
