import { quotientOf } from './rank-test.mjs'
import { isRate } from './results.mjs'
import { median } from './statistics.mjs'

/** @typedef {import('./results.mjs').Figure} Figure */
/** @typedef {'slower' | 'faster' | 'same' | 'cannot tell'} Verdict */

/**
 * So sure we are of "slower" and "faster". With five rounds that takes every round of one run to lie
 * beyond every round of the other; with fewer it cannot be said at all.
 */
export const changeConfidence = 0.99
/** Two tests at 5 %, that it is not more and not less (D. Schuirmann, 1987). */
const sameConfidence = 0.9

/**
 * What became of one figure.
 * @typedef {object} Change
 * @property {string} bench
 * @property {string} name
 * @property {number | null} before median of the rounds' ratios to the floor
 * @property {number | null} after
 * @property {number | null} change 1.2: takes 1.2 times as long, against the floor
 * @property {[number, number] | null} range of the change, at 99 %
 * @property {Verdict} verdict
 * @property {string} [reason] why it cannot be told
 */

/**
 * Compares what each round took in terms of the floor of the same round: the noise of a machine
 * meets both.
 * @param {Figure[]} before
 * @param {Figure[]} after
 * @param {number} margin 0.05: what changes by 5 % or less is the same
 * @returns {Change[]} in the order of `after`, then what is only in `before`
 */
export function compareFigures(before, after, margin) {
  const older = new Map(before.map((figure) => [keyOf(figure), figure]))
  const newer = new Set(after.map(keyOf))
  return [
    ...after.map((figure) => compareFigure(older.get(keyOf(figure)), figure, margin)),
    ...before
      .filter((figure) => !newer.has(keyOf(figure)))
      .map((figure) => compareFigure(figure, undefined, margin)),
  ]
}

/** @param {Figure} figure */
const keyOf = ({ bench, name }) => JSON.stringify([bench, name])

/**
 * @param {Figure | undefined} before
 * @param {Figure | undefined} after
 * @param {number} margin
 * @returns {Change}
 */
function compareFigure(before, after, margin) {
  const { bench, name } = /** @type {Figure} */ (after ?? before)
  const [older, newer] = [before, after].map(roundRatios)
  const figure = { bench, name, before: middleOf(older), after: middleOf(newer) }
  /** @param {string} reason @returns {Change} */
  const untold = (reason) => {
    return { ...figure, change: null, range: null, verdict: 'cannot tell', reason }
  }
  if (before === undefined) return untold('only in the second run')
  if (after === undefined) return untold('only in the first run')
  if (older === undefined) return untold('the first run did not measure it')
  if (newer === undefined) return untold('the second run did not measure it')
  if (before.floor !== after.floor) return untold('the floors are not the same')
  if (isRate(before) !== isRate(after)) return untold('the units are not the same')
  return { ...figure, ...judged(older, newer, margin) }
}

/**
 * @param {number[]} before
 * @param {number[]} after
 * @param {number} margin
 */
function judged(before, after, margin) {
  const { change, low, high } = quotientOf(before, after, changeConfidence)
  const range = /** @type {[number, number]} */ ([low, high])
  const least = 1 / (1 + margin)
  const most = 1 + margin
  if (low > 1 && change > most) return { change, range, verdict: /** @type {const} */ ('slower') }
  if (high < 1 && change < least) return { change, range, verdict: /** @type {const} */ ('faster') }
  const narrow = quotientOf(before, after, sameConfidence)
  if (narrow.low >= least && narrow.high <= most) {
    return { change, range, verdict: /** @type {const} */ ('same') }
  }
  const reason = low === 0 ? 'too few rounds' : 'the rounds lie too far apart'
  return { change, range, verdict: /** @type {const} */ ('cannot tell'), reason }
}

/**
 * How many times the floor each round took.
 * @param {Figure | undefined} figure
 * @returns {number[] | undefined} without rounds that are no times
 */
function roundRatios(figure) {
  if (figure === undefined) return undefined
  const { mediansByRoundUs: ours, floorMediansByRoundUs: floors } = figure
  if (ours === undefined || ours.length !== floors?.length) return undefined
  const ratios = ours.map((us, round) => (isRate(figure) ? floors[round] / us : us / floors[round]))
  return ratios.every((ratio) => ratio > 0 && ratio < Infinity) ? ratios : undefined
}

/** @param {number[] | undefined} ratios */
function middleOf(ratios) {
  return ratios === undefined ? null : median(ratios)
}
