/** @typedef {import('./count.mjs').Result} Result */
/** @typedef {import('./count.mjs').Outcome} Outcome */

const legend = `Columns are outcomes: the values of what stands above them, in that order.
  ·    forbidden to this line, and not seen       !    forbidden, and seen
  0    allowed, and not seen                      ~    allowed by what a compiler may make of plain
                                                       accesses; not sequentially consistent
  torn   outcomes with a value of two halves from different writes (an access across a page border)
  other  outcomes that are forbidden to all lines`

/**
 * The results of one program as a table, variants × outcomes.
 * @param {Result[]} results
 */
export function formatProgram(results) {
  const [{ name, text, observed }] = results
  const columns = columnsOf(results)
  const rows = [
    ['', 'iterations', ...columns, 'torn', 'other', 'forbidden'],
    ...results.map((result) => rowOf(result, columns)),
  ]
  const widths = rows[0].map((_, index) => Math.max(...rows.map((row) => row[index].length)))
  const lines = rows.map((row) =>
    row
      .map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i])))
      .join('  ')
      .trimEnd(),
  )
  return [`${name}: ${text}   (outcomes: ${observed.join(' ')})`, ...lines].join('\n')
}

export const formatLegend = () => legend

/** The whole outcomes that are allowed to any line. @param {Result[]} results */
function columnsOf(results) {
  const allowed = results.flatMap(({ outcomes }) =>
    outcomes.filter(({ kind }) => kind === 'sequential' || kind === 'weak'),
  )
  return [...new Set(allowed.map(({ values }) => titleOf(values)))].sort()
}

/** @param {string} values */
const titleOf = (values) => values.replaceAll(',', '')

/** @param {Result} result @param {string[]} columns */
function rowOf({ variant, iterations, forbidden, outcomes }, columns) {
  const byTitle = new Map(outcomes.map((outcome) => [titleOf(outcome.values), outcome]))
  const cells = columns.map((column) => cellOf(byTitle.get(column)))
  const torn = sum(outcomes.filter(({ kind }) => kind === 'torn'))
  const other = sum(
    outcomes.filter(
      ({ kind, values }) => kind === 'forbidden' && !columns.includes(titleOf(values)),
    ),
  )
  const straddles = variant.startsWith('straddling')
  return [
    variant,
    formatCount(iterations),
    ...cells,
    straddles ? formatCount(torn) : '·',
    other === 0 ? '·' : `${formatCount(other)}!`,
    formatCount(forbidden),
  ]
}

/** @param {Outcome | undefined} outcome */
function cellOf(outcome) {
  if (outcome === undefined) return '·'
  const marks = { sequential: '', weak: '~', torn: '', forbidden: '!' }
  return `${formatCount(outcome.count)}${marks[outcome.kind]}`
}

/** @param {number} count */
const formatCount = (count) => count.toLocaleString('en-US')

/** @param {Outcome[]} outcomes */
const sum = (outcomes) => outcomes.reduce((total, { count }) => total + count, 0)

/**
 * What all results come to, in words.
 * @param {Result[]} results
 * @param {{ transport: string, seed: number, seconds: number }} how
 */
export function formatSummary(results, { transport, seed, seconds }) {
  const iterations = results.reduce((total, result) => total + result.iterations, 0)
  const programs = new Set(results.map(({ name }) => name)).size
  const forbidden = results.reduce((total, result) => total + result.forbidden, 0)
  const lines = [
    ...list('Allowed, sequentially consistent, never seen', results, 'sequential', false),
    ...list('Not sequentially consistent, allowed to plain accesses, seen', results, 'weak', true),
    ...list('The same, never seen', results, 'weak', false),
    ...list('Torn across a page border, allowed, seen', results, 'torn', true),
    ...list('FORBIDDEN', results, 'forbidden', true),
  ]
  return [
    ...lines,
    `${programs} tests in ${results.length} variants over ${transport}, seed ${seed}, ` +
      `${formatCount(iterations)} iterations in ${seconds.toFixed(0)} s: ` +
      `${formatCount(forbidden)} forbidden outcomes`,
  ].join('\n')
}

/**
 * @param {string} title
 * @param {Result[]} results
 * @param {import('./count.mjs').Kind} kind
 * @param {boolean} seen
 */
function list(title, results, kind, seen) {
  const lines = results.flatMap(({ name, variant, observed, outcomes }) => {
    const chosen = outcomes.filter((outcome) => outcome.kind === kind && outcome.count > 0 === seen)
    if (chosen.length === 0) return []
    const words = chosen.map(({ values, count }) => {
      const pairs = values.split(',').map((value, index) => `${observed[index]}=${value}`)
      return seen ? `${pairs.join(' ')} (${formatCount(count)})` : pairs.join(' ')
    })
    const shown = words.slice(0, mostShown).join('; ')
    const rest = words.length > mostShown ? `; ${words.length - mostShown} more` : ''
    return [`  ${name}, ${variant}: ${shown}${rest}`]
  })
  return lines.length === 0 ? [] : [`${title}:`, ...lines, '']
}

const mostShown = 8
