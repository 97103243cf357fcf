import { parseArgs } from 'node:util'
import { parsed, parseInteger, UsageError } from './lib/command-line.mjs'
import { compareFigures } from './lib/comparison.mjs'
import { machineDifferences } from './lib/machine.mjs'
import { readResults } from './lib/results.mjs'
import { alignTable } from './lib/report.mjs'

/** @typedef {import('./lib/comparison.mjs').Change} Change */

const defaultMarginPercent = 5

export const usage = `       npm run bench -- compare BEFORE.json AFTER.json [--margin P] [--fail-on-regression] [--json]
  --margin P   a change of at most P per cent is none (default ${defaultMarginPercent})
  --fail-on-regression  exit code 1 if a figure got slower
  --json       one JSON object per figure and line`

/** @param {string[]} args */
export async function main(args) {
  const { values, positionals } = parsed(() =>
    parseArgs({
      args,
      allowPositionals: true,
      options: {
        margin: { type: 'string', default: String(defaultMarginPercent) },
        'fail-on-regression': { type: 'boolean', default: false },
        json: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    }),
  )
  if (values.help) return console.log(usage)
  if (positionals.length !== 2) throw new UsageError('compare takes two files of results')
  const margin = parseInteger('margin', /** @type {string} */ (values.margin), 0, 1000) / 100
  const [before, after] = await Promise.all(positionals.map(readResults))
  const differences = machineDifferences(before.machine, after.machine)
  if (differences.length > 0) {
    console.error(`warning: the runs are of different machines (${differences.join('; ')})`)
  }
  const changes = compareFigures(before.lines, after.lines, margin)
  if (values.json) for (const change of changes) console.log(JSON.stringify(change))
  else console.log(formatChanges(changes))
  if (values['fail-on-regression'] && changes.some(({ verdict }) => verdict === 'slower')) {
    process.exitCode = 1
  }
}

/** @param {number | null} ratio */
const formatRatio = (ratio) => (ratio === null ? '–' : ratio.toFixed(2))

/** @param {number} change 1.2 is +20 % */
function formatPercent(change) {
  if (change === Infinity) return '∞'
  const percent = Math.round((change - 1) * 100)
  return `${percent > 0 ? '+' : percent < 0 ? '−' : '±'}${Math.abs(percent)} %`
}

/** @param {Change} change */
function formatRange({ range }) {
  return range === null || range[1] === Infinity ? '–' : range.map(formatPercent).join(' … ')
}

/** @param {Change} change */
function formatVerdict({ verdict, reason }) {
  return reason === undefined ? verdict : `${verdict}: ${reason}`
}

/** @param {Change[]} changes */
function formatChanges(changes) {
  const rows = changes.map((change) => [
    `${change.bench}: ${change.name}`,
    formatRatio(change.before),
    formatRatio(change.after),
    change.change === null ? '–' : formatPercent(change.change),
    formatRange(change),
    formatVerdict(change),
  ])
  const titles = ['figure', 'before', 'after', 'change', 'at 99 %', 'verdict']
  const counts = ['slower', 'faster', 'same', 'cannot tell'].map((verdict) => {
    return `${changes.filter((change) => change.verdict === verdict).length} ${verdict}`
  })
  const text = [
    ...alignTable([titles, ...rows], ['left', 'right', 'right', 'right', 'right', 'left']),
    '',
    'before, after: times the floor of the same round, the median of the rounds',
    counts.join(', '),
  ]
  return text.join('\n')
}
