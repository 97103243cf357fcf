/**
 * Whole numbers from 0 to below a limit, the same for the same seed: xorshift32 (G. Marsaglia,
 * "Xorshift RNGs", 2003).
 * @param {number} seed
 */
export function randomFrom(seed) {
  let state = seed >>> 0 || 1
  return (/** @type {number} */ limit) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % limit
  }
}
