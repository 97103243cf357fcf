import { alien, unknown } from './batches.mjs'
import { describeVariant, outcomesOf, programOf } from './variants.mjs'

/** @typedef {import('./catalogue.mjs').Program} Program */
/** @typedef {import('./variants.mjs').Variant} Variant */
/** @typedef {{ registers: Uint8Array, finals: Uint8Array }} Observations */

/**
 * `sequential`: an interleaving of the threads as they are written; `weak`: what a compiler may
 * make of plain accesses besides; `torn`: allowed, and of an access of which one half came before
 * and one after somebody else's.
 * @typedef {'sequential' | 'weak' | 'torn' | 'forbidden'} Kind
 */

/**
 * @typedef {object} Outcome
 * @property {string} values registers, then finals, joined by commas; of straddling accesses as
 *   whole values, or, where halves differ, as `0/1`
 * @property {Kind} kind
 * @property {number} count
 */

/**
 * One line of the table: a program in one variant.
 * @typedef {object} Result
 * @property {string} name
 * @property {string} text
 * @property {string} variant
 * @property {string[]} observed what the values of outcomes are of
 * @property {number} iterations
 * @property {number} forbidden
 * @property {Outcome[]} outcomes all that are allowed and whole, and all that were seen
 */

/** Puts together what members know: each cell is known to one. @param {Observations[]} parts */
export function mergeObservations(parts) {
  /** @param {'registers' | 'finals'} what */
  const merge = (what) => {
    const merged = new Uint8Array(parts[0][what].length).fill(unknown)
    for (const part of parts) {
      for (const [index, value] of part[what].entries()) {
        if (value === unknown) continue
        if (merged[index] !== unknown) throw new Error('two members tell of one observation')
        merged[index] = value
      }
    }
    if (merged.includes(unknown)) throw new Error('an iteration that nobody has observed')
    return merged
  }
  return { registers: merge('registers'), finals: merge('finals') }
}

/**
 * Counts and judges the outcomes of a run.
 * @param {Program} program
 * @param {Variant} variant
 * @param {Observations} observations
 * @param {number} iterations
 * @returns {Result}
 */
export function countOutcomes(program, variant, observations, iterations) {
  const straddling = variant.layout === 'straddling'
  const { sequential, allowed } = outcomesOf(program, variant)
  const { registers, finals } = programOf(program, variant)
  const observed = [...registers, ...finals]
  /** @type {Map<string, number>} by halves, if straddling */
  const counts = new Map()
  const values = Array(observed.length)
  for (let iteration = 0; iteration < iterations; iteration++) {
    for (let i = 0; i < registers.length; i++) {
      values[i] = observations.registers[iteration * registers.length + i]
    }
    for (let i = 0; i < finals.length; i++) {
      values[registers.length + i] = observations.finals[iteration * finals.length + i]
    }
    const key = values.join()
    counts.set(key, (counts.get(key) ?? 0) + 1)
  }
  /** @type {Map<string, Outcome>} */
  const outcomes = new Map()
  for (const values of sequential) outcomes.set(values, { values, kind: 'sequential', count: 0 })
  for (const key of allowed) {
    const values = straddling ? wholeValues(key) : key
    if (!outcomes.has(values) && !values.includes('/')) {
      outcomes.set(values, { values, kind: 'weak', count: 0 })
    }
  }
  for (const [coded, count] of counts) {
    const numbers = coded.split(',').map(Number)
    const key = (straddling ? numbers.flatMap((code) => [code & 15, code >> 4]) : numbers).join()
    const values = show(straddling ? wholeValues(key) : key)
    const kind = allowed.has(key) ? 'torn' : 'forbidden'
    const outcome = outcomes.get(values)
    if (outcome === undefined) outcomes.set(values, { values, kind, count })
    else outcome.count += count
  }
  const all = [...outcomes.values()].sort((a, b) => (a.values < b.values ? -1 : 1))
  const forbidden = all.filter(({ kind }) => kind === 'forbidden')
  return {
    name: program.name,
    text: program.text,
    variant: describeVariant(variant),
    observed,
    iterations,
    forbidden: forbidden.reduce((sum, { count }) => sum + count, 0),
    outcomes: all,
  }
}

/** What nobody wrote in this batch is not 7, but something else. @param {string} values */
const show = (values) => values.replaceAll(String(alien), '?')

/** `0,0,1,0` → `0,1/0` @param {string} halves */
function wholeValues(halves) {
  const numbers = halves.split(',')
  const whole = []
  for (let i = 0; i < numbers.length; i += 2) {
    const [first, second] = [numbers[i], numbers[i + 1]]
    whole.push(first === second ? first : `${first}/${second}`)
  }
  return whole.join()
}
