import { formatAmount } from './amounts.mjs'

/** @typedef {import('./anatomy.mjs').Row} Row */

/**
 * The phases of faults, with their shares as bars; nothing if no line has any. All that is written
 * here comes from bench/lib/anatomy.mjs, but for the names.
 * @param {any[]} lines
 * @param {(text: string) => string} escaped
 */
export function anatomyTables(lines, escaped) {
  return lines
    .filter(({ rows }) => Array.isArray(rows))
    .map(({ name, rows, parts, clockUs }) => {
      const most = Math.max(...rows.map((/** @type {Row} */ { share }) => share), 1e-9)
      const sums = Object.entries(/** @type {Record<string, number>} */ (parts)).map(
        ([part, share]) => `${escaped(part)} ${percent(share)}`,
      )
      const clock = `reading the clock costs ${formatAmount(clockUs, 'µs')} of it`
      return `<h3>${escaped(name)}</h3>
<p class="legend">${sums.join(', ')}; ${clock}.</p>
<table class="phases">
<thead><tr><th>phase</th><th>part</th><th>median</th><th>p99</th><th>share</th><th></th></tr></thead>
<tbody>
${rows.map((/** @type {Row} */ row) => tableRow(row, most, escaped)).join('\n')}
</tbody>
</table>`
    })
    .join('\n')
}

/** @param {number} share */
const percent = (share) => `${(100 * share).toFixed(1)} %`

/**
 * @param {Row} row
 * @param {number} most the largest share
 * @param {(text: string) => string} escaped
 */
function tableRow({ name, part, medianUs, p99Us, share }, most, escaped) {
  const width = ((100 * Math.max(0, share)) / most).toFixed(1)
  const bar = `<div class="bar" style="width: ${width}%"></div>`
  return `<tr><th scope="row">${escaped(name)}</th><td data-title="part">${escaped(part)}</td>
<td data-title="median">${formatAmount(medianUs, 'µs')}</td>
<td data-title="p99">${formatAmount(p99Us, 'µs')}</td>
<td data-title="share">${percent(share)}</td><td class="bars">${bar}</td></tr>`
}

export const anatomyStyle = `
h3 { font-size: 1rem; margin: 1.75rem 0 0; }
.phases .bars { width: 40%; }
.bar { height: 0.9em; margin-top: 0.25em; background: var(--ours); border-radius: 2px; }
@media (max-width: 860px) { .phases .bars { width: auto; grid-column: 1 / -1; } }
`
