/** What each member's share of the work cost, told by rank 0. */
import { SharedArray, pageBytes } from './shared-array.mjs'

/**
 * The columns of the table: title, field of `mesh.stats()`, and what one unit of the column is.
 * @type {[string, string, number][]}
 */
const columns = [
  ['read faults', 'readFaults', 1],
  ['write faults', 'writeFaults', 1],
  ['pages in', 'pagesReceived', 1],
  ['pages out', 'pagesSent', 1],
  ['MB in', 'bytesReceived', 1e6],
  ['MB out', 'bytesSent', 1e6],
  ['invalidations', 'invalidations', 1],
  ['waited ms', 'waitMs', 1],
]

/** Each member has a page of its own to report in, so that none waits for another's to come. */
const slotLength = pageBytes / Float64Array.BYTES_PER_ELEMENT

/**
 * Every member calls this. Rank 0 gets a printable table of what each has spent so far, the others
 * an empty string.
 * @param {import('pagemesh').Mesh} mesh
 */
export async function gatherStats(mesh) {
  // Taken first: the report itself moves pages too.
  const stats = mesh.stats()
  const report = await SharedArray.open(mesh, 'report', Float64Array, mesh.size * slotLength)
  for (const [i, [, field]] of columns.entries()) {
    report.values[mesh.rank * slotLength + i] = stats[field]
  }
  await mesh.barrier()
  if (mesh.rank !== 0) return ''

  await report.prefetch('read')
  const rows = Array.from({ length: mesh.size }, (_, rank) => {
    const slot = report.values.subarray(rank * slotLength, (rank + 1) * slotLength)
    return [String(rank), ...columns.map(([, , unit], i) => formatCount(slot[i], unit))]
  })
  return formatTable(['member', ...columns.map(([title]) => title)], rows)
}

/** @param {number} value @param {number} unit */
function formatCount(value, unit) {
  const digits = unit === 1 ? 0 : 1
  return (value / unit).toLocaleString('en-US', {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  })
}

/** Columns aligned right. @param {string[]} titles @param {string[][]} rows */
export function formatTable(titles, rows) {
  const lines = [titles, ...rows]
  const widths = titles.map((_, column) => Math.max(...lines.map((line) => line[column].length)))
  return lines
    .map((line) => line.map((cell, column) => cell.padStart(widths[column])).join('  '))
    .join('\n')
}

/** Breaks text between words. @param {string} text @param {number} width @param {string} indent */
export function wrap(text, width, indent) {
  const lines = ['']
  for (const word of text.split(/\s+/)) {
    const line = lines[lines.length - 1]
    if (line === '') lines[lines.length - 1] = word
    else if (indent.length + line.length + 1 + word.length > width) lines.push(word)
    else lines[lines.length - 1] = `${line} ${word}`
  }
  return lines.map((line) => indent + line).join('\n')
}
