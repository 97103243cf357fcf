import { readFile } from 'node:fs/promises'

/** What a file of results says of itself, so that no other JSON is taken for one. */
const format = 'pagemesh-bench-1'

/**
 * A figure with the name of its benchmark, and what else it may say. Numbers that are missing are
 * null.
 * @typedef {import('./report.mjs').Line & { bench: string, unit?: string, note?: string,
 *   reason?: string, atLeast?: boolean, failed?: boolean, roundMediansUs?: [number, number], floorP99Us?: number,
 *   floorRoundMediansUs?: [number, number], mediansByRoundUs?: number[],
 *   floorMediansByRoundUs?: number[] }} Figure
 *
 * One run, as `--out results.json` keeps it.
 * @typedef {object} Results
 * @property {string} format
 * @property {string} date ISO 8601
 * @property {string} command
 * @property {import('./machine.mjs').Machine} machine when the run began
 * @property {Figure[]} lines with the medians of each round
 */

/**
 * @param {Omit<Results, 'format'>} run
 * @returns {Results}
 */
export function makeResults(run) {
  return { format, ...run }
}

/**
 * @param {string} path
 * @returns {Promise<Results>}
 */
export async function readResults(path) {
  let text
  try {
    text = await readFile(path, 'utf8')
  } catch (cause) {
    const { code = '' } = /** @type {NodeJS.ErrnoException} */ (cause)
    const why = code === 'ENOENT' ? 'there is no such file' : String(cause)
    throw new Error(`cannot read ${path}: ${why}`, { cause })
  }
  return parseResults(text, path)
}

/**
 * @param {string} text
 * @param {string} path for messages
 * @returns {Results}
 */
export function parseResults(text, path) {
  /** @type {any} */
  let results
  try {
    results = JSON.parse(text)
  } catch (cause) {
    throw new Error(`${path} is not JSON: ${/** @type {Error} */ (cause).message}`, { cause })
  }
  if (results?.format !== format) {
    throw new Error(`${path} is no result of 'npm run bench -- --out ${path}': no '${format}'`)
  }
  const { machine, lines } = results
  if (typeof machine !== 'object' || machine === null) throw new Error(`${path} names no machine`)
  if (!Array.isArray(lines)) throw new Error(`${path} has no lines`)
  for (const [index, line] of lines.entries()) {
    const mistake = mistakeOf(line)
    if (mistake !== undefined) throw new Error(`${path}: line ${index}: ${mistake}`)
  }
  return results
}

/** @param {any} line @returns {string | undefined} */
function mistakeOf(line) {
  if (typeof line !== 'object' || line === null) return 'not an object'
  for (const key of ['bench', 'name', 'floor']) {
    if (typeof line[key] !== 'string') return `${key} is not a text`
  }
  for (const key of ['mediansByRoundUs', 'floorMediansByRoundUs']) {
    const medians = line[key]
    if (medians === undefined) continue // not measured
    if (!Array.isArray(medians) || medians.length === 0) return `${key} is not a list of medians`
    if (!medians.every((median) => Number.isFinite(median) && median >= 0)) {
      return `${key} holds what is no time`
    }
  }
  return undefined
}

/**
 * Whether more of what is measured is better, as of bytes per second.
 * @param {Figure} line
 */
export function isRate({ unit = 'µs' }) {
  return unit.endsWith('/s')
}
