import { machineFacts } from './machine.mjs'
import { median, percentile, pool, spreadOfMedians } from './statistics.mjs'

/**
 * One figure of a benchmark, in the form that every benchmark keeps: these eight keys in this
 * order, then whatever else the benchmark wants to say. A figure that was not measured has null for
 * its numbers, and a `reason`.
 * @typedef {object} Line
 * @property {string} name
 * @property {number | null} medianUs
 * @property {number | null} p99Us
 * @property {string} floor what the figure is held against, measured in the same run
 * @property {number | null} floorMedianUs
 * @property {number | null} ratio medianUs / floorMedianUs; with `atLeast`, floorMedianUs / medianUs,
 *   which is how many times quicker than the floor we are
 * @property {number | null} target the highest ratio that is good enough, if one is set; with
 *   `atLeast` the lowest
 * @property {boolean | null} met null without a target, and when nothing can be said
 * @property {boolean} [atLeast]
 * @property {boolean} [failed] the benchmark itself went wrong, as `reason` says
 * @property {string} [reason] why a figure is missing, or why `met` is null in spite of a target
 */

/** @param {number} value */
const round3 = (value) => Math.round(value * 1e3) / 1e3

/** A small ratio keeps its digits, and is never 0. @param {number} value */
const roundRatio = (value) => (value < 1 ? Number(value.toPrecision(3)) : round3(value))

/**
 * @param {object} figure
 * @param {string} figure.name
 * @param {ArrayLike<number>[]} figure.rounds our samples, µs, round by round
 * @param {string} figure.floor
 * @param {ArrayLike<number>[]} figure.floorRounds the floor's samples, µs, round by round
 * @param {number | null} [figure.target]
 * @param {boolean} [figure.atLeast] the target is the least that is good enough, of a ratio that
 *   says how many times quicker than the floor we are
 * @param {Record<string, unknown>} [figure.extra]
 * @returns {Line & Record<string, unknown>}
 */
export function makeLine(figure) {
  const { name, rounds, floor, floorRounds, target = null, atLeast = false, extra = {} } = figure
  const samples = pool(rounds)
  const floorSamples = pool(floorRounds)
  const medianUs = median(samples)
  const floorMedianUs = median(floorSamples)
  const ratio = roundRatio(atLeast ? floorMedianUs / medianUs : medianUs / floorMedianUs)
  return {
    name,
    medianUs: round3(medianUs),
    p99Us: round3(percentile(samples, 99)),
    floor,
    floorMedianUs: round3(floorMedianUs),
    ratio,
    target: target === null ? null : round3(target),
    met: target === null ? null : atLeast ? ratio >= target : ratio <= target,
    ...(atLeast ? { atLeast } : {}),
    floorP99Us: round3(percentile(floorSamples, 99)),
    rounds: rounds.length,
    samples: samples.length,
    roundMediansUs: spreadOfMedians(rounds).map(round3),
    floorRoundMediansUs: spreadOfMedians(floorRounds).map(round3),
    mediansByRoundUs: rounds.map(median).map(round3),
    floorMediansByRoundUs: floorRounds.map(median).map(round3),
    ...extra,
  }
}

/**
 * The line of a figure that could not be measured here: never one that looks as if it was met.
 * @param {object} figure
 * @param {string} figure.name
 * @param {string} figure.floor
 * @param {number | null} [figure.target]
 * @param {boolean} [figure.atLeast]
 * @param {string} reason
 * @returns {Line}
 */
export function makeEmptyLine({ name, floor, target = null, atLeast = false }, reason) {
  return {
    name,
    medianUs: null,
    p99Us: null,
    floor,
    floorMedianUs: null,
    ratio: null,
    target,
    met: null,
    ...(atLeast ? { atLeast } : {}),
    reason,
  }
}

/**
 * @param {Line} line
 * @returns {string} one line of JSON, without the line break
 */
export function toJson(line) {
  return JSON.stringify(line)
}

/** @param {number | null} us */
function formatUs(us) {
  return us === null ? '–' : us.toFixed(us < 10 ? 2 : 1)
}

/** @param {unknown} spread two medians, lowest and highest */
function formatSpread(spread) {
  return Array.isArray(spread) ? spread.map(formatUs).join('–') : ''
}

/** @param {number | null} ratio */
function formatRatio(ratio) {
  if (ratio === null) return '–'
  return ratio < 0.01 ? ratio.toPrecision(1) : ratio.toFixed(2)
}

/** @param {boolean | null} met */
function formatMet(met) {
  return met === null ? '–' : met ? 'yes' : 'NO'
}

/** @param {Line} line */
function formatTarget({ target, atLeast }) {
  if (target === null) return '–'
  return `${atLeast === true ? '≥' : '≤'} ${target.toFixed(2)}`
}

/** @type {{ title: string, align: 'left' | 'right', cell: (line: any) => string }[]} */
const columns = [
  { title: 'name', align: 'left', cell: (line) => line.name },
  { title: 'median µs', align: 'right', cell: (line) => formatUs(line.medianUs) },
  { title: 'by round', align: 'right', cell: (line) => formatSpread(line.roundMediansUs) },
  { title: 'p99 µs', align: 'right', cell: (line) => formatUs(line.p99Us) },
  { title: 'floor µs', align: 'right', cell: (line) => formatUs(line.floorMedianUs) },
  { title: 'by round', align: 'right', cell: (line) => formatSpread(line.floorRoundMediansUs) },
  { title: 'ratio', align: 'right', cell: (line) => formatRatio(line.ratio) },
  { title: 'target', align: 'right', cell: formatTarget },
  { title: 'met', align: 'right', cell: (line) => formatMet(line.met) },
]

/**
 * @param {Line[]} lines
 * @returns {string} a table for people, with the floors named below it
 */
export function formatTable(lines) {
  const rows = [columns.map((column) => column.title)]
  for (const line of lines) rows.push(columns.map((column) => column.cell(line)))
  const text = alignTable(
    rows,
    columns.map((column) => column.align),
  )
  const remarks = lines.map((line) => `${line.name}: floor is ${line.floor}${formatNote(line)}`)
  return [...text, '', ...remarks].join('\n')
}

/**
 * @param {string[][]} rows the first one has the titles
 * @param {('left' | 'right')[]} aligns of the columns
 * @returns {string[]} lines of one width, with a rule below the titles
 */
export function alignTable(rows, aligns) {
  const widths = aligns.map((_, index) => Math.max(...rows.map((row) => row[index].length)))
  const text = rows.map((row) =>
    row
      .map((cell, index) =>
        aligns[index] === 'left' ? cell.padEnd(widths[index]) : cell.padStart(widths[index]),
      )
      .join('  ')
      .trimEnd(),
  )
  text.splice(1, 0, widths.map((width) => '─'.repeat(width)).join('  '))
  return text
}

/** @param {Line & { note?: unknown }} line */
function formatNote(line) {
  const remarks = [line.note, line.reason].filter((remark) => typeof remark === 'string')
  return remarks.map((remark) => `; ${remark}`).join('')
}

/** The facts of the machine that figures depend on, as one line. */
export function describeMachine() {
  const { cores, processor, kernel, node, load } = machineFacts()
  return `${cores} cores (${processor}), ${kernel}, Node ${node}, load ${load.toFixed(2)}`
}
