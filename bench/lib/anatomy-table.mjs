import { alignTable } from './report.mjs'

const barWidth = 30
const eighths = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉']

/** @param {number} share 0 to 1 @param {number} most the largest share of the table */
function bar(share, most) {
  const parts = Math.round((Math.max(0, share) / most) * barWidth * 8)
  return '█'.repeat(Math.floor(parts / 8)) + eighths[parts % 8]
}

/** @param {number} share */
const percent = (share) => `${(100 * share).toFixed(1)} %`

/** @param {any} line of the benchmark, with its rows @returns {string} a table for people */
export function formatAnatomy({ name, medianUs, ratio, rows, parts, clockUs, takenAnotherWay }) {
  const most = Math.max(...rows.map((/** @type {{ share: number }} */ { share }) => share), 1e-9)
  const table = alignTable(
    [
      ['phase', 'part', 'median µs', 'p99 µs', 'share', ''],
      ...rows.map((/** @type {import('./anatomy.mjs').Row} */ row) => [
        row.name,
        row.part,
        row.medianUs.toFixed(2),
        row.p99Us.toFixed(2),
        percent(row.share),
        bar(row.share, most),
      ]),
    ],
    ['left', 'left', 'right', 'right', 'right', 'left'],
  )
  const sums = Object.entries(/** @type {Record<string, number>} */ (parts)).map(
    ([part, share]) => `${part} ${percent(share)}`,
  )
  const remarks = [
    `in short: ${sums.join(', ')}`,
    `reading the clock before and after costs ${clockUs.toFixed(2)} µs, of the trap and the resume`,
  ]
  if (takenAnotherWay > 0) remarks.push(`${takenAnotherWay} faults went another way: not counted`)
  const title = `${name}: ${medianUs.toFixed(2)} µs, ${ratio} times as long as without time stamps`
  return [title, ...table, ...remarks].join('\n')
}
