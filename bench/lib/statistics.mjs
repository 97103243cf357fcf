/**
 * @param {ArrayLike<number>} samples
 * @returns {Float64Array} a sorted copy
 */
function sorted(samples) {
  if (samples.length === 0) throw new RangeError('no samples')
  return Float64Array.from(samples).sort()
}

/**
 * The middle sample, or the mean of the two in the middle.
 * @param {ArrayLike<number>} samples
 */
export function median(samples) {
  const order = sorted(samples)
  const low = order[Math.floor((order.length - 1) / 2)]
  const high = order[Math.floor(order.length / 2)]
  return (low + high) / 2
}

/**
 * By nearest rank: the smallest sample that at least `percent` per cent do not exceed.
 * @param {ArrayLike<number>} samples
 * @param {number} percent above 0, at most 100
 */
export function percentile(samples, percent) {
  if (!(percent > 0 && percent <= 100)) throw new RangeError(`not a percentage: ${percent}`)
  const order = sorted(samples)
  return order[Math.ceil((order.length * percent) / 100) - 1]
}

/**
 * How far apart the rounds of one run lie: the lowest and the highest of their medians.
 * @param {ArrayLike<number>[]} rounds the samples of each round
 * @returns {[number, number]}
 */
export function spreadOfMedians(rounds) {
  const medians = rounds.map(median)
  return [Math.min(...medians), Math.max(...medians)]
}

/**
 * The samples of all rounds in one array.
 * @param {ArrayLike<number>[]} rounds
 */
export function pool(rounds) {
  const all = new Float64Array(rounds.reduce((length, round) => length + round.length, 0))
  let next = 0
  for (const round of rounds) {
    all.set(round, next)
    next += round.length
  }
  return all
}
