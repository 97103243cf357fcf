/** Units of time that are easier to read than many digits of µs. */
const times = [
  { from: 1e6, factor: 1e-6, unit: 's' },
  { from: 1e4, factor: 1e-3, unit: 'ms' },
  { from: 1, factor: 1, unit: 'µs' },
  { from: 0, factor: 1e3, unit: 'ns' },
]

/**
 * A figure for people: three digits and a unit.
 * @param {number | null | undefined} value
 * @param {string} [unit]
 */
export function formatAmount(value, unit = 'µs') {
  if (value === null || value === undefined) return '–'
  if (unit !== 'µs') return `${threeDigits(value)} ${unit}`
  const { factor, unit: better } = times.find(({ from }) => value >= from) ?? times[2]
  return `${threeDigits(value * factor)} ${better}`
}

/** @param {number} value */
export function threeDigits(value) {
  if (value >= 1000) return Math.round(value).toLocaleString('en-US')
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2)
}
