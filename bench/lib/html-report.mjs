import { formatAmount, threeDigits } from './amounts.mjs'
import { anatomyStyle, anatomyTables } from './anatomy-html.mjs'
import { ratioChart, timeChart } from './charts.mjs'

/** @typedef {import('./results.mjs').Figure} Figure */
/** @typedef {import('./results.mjs').Results} Results */

/** Charts are drawn once for each; the page's style shows one of them. */
const chartWidths = { wide: 920, narrow: 340 }

/**
 * A page that needs nothing but itself: no script, no font, no address.
 * @param {Results} results
 * @returns {Promise<string>}
 */
export async function htmlReport(results) {
  const benches = [...new Set(results.lines.map((line) => line.bench))]
  const sections = []
  for (const bench of benches) {
    sections.push(
      await benchSection(
        bench,
        results.lines.filter((line) => line.bench === bench),
      ),
    )
  }
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>pagemesh benchmarks, ${escaped(results.date.slice(0, 10))}</title>
<style>${style}${anatomyStyle}</style>
</head>
<body>
<header>
<h1>pagemesh benchmarks</h1>
${machineList(results)}
${summary(results.lines)}
</header>
<main>
${await overview(results.lines)}
${sections.join('\n')}
</main>
</body>
</html>
`
}

/** @param {string} text */
export function escaped(text) {
  /** @type {Record<string, string>} */
  const entities = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' }
  return text.replace(/[&<>"']/g, (character) => entities[character])
}

/** @param {Results} results */
function machineList({ machine, date, command }) {
  const { processor, cores, virtual, memoryBytes, kernel, node, load, commit } = machine
  const where = virtual ? ', in a virtual machine' : ''
  const facts = {
    Processor: `${cores} × ${processor}${where}`,
    Memory: `${(memoryBytes / 2 ** 30).toFixed(1)} GiB`,
    Kernel: kernel,
    'Node.js': node,
    'Load before': load.toFixed(2),
    Commit: commit ?? 'unknown',
    Date: date.replace('T', ' ').replace(/\.\d+Z$/, ' UTC'),
    Command: command,
  }
  const items = Object.entries(facts).map(
    ([fact, value]) => `<div><dt>${escaped(fact)}</dt><dd>${escaped(value)}</dd></div>`,
  )
  return `<dl class="machine">${items.join('')}</dl>`
}

/** @typedef {'met' | 'missed' | 'open' | 'absent' | 'failed'} Verdict */

/** @type {Record<Verdict, { mark: string, words: string }>} */
const verdicts = {
  met: { mark: '●', words: 'met' },
  missed: { mark: '◆', words: 'not met' },
  open: { mark: '■', words: 'no verdict' },
  absent: { mark: '○', words: 'not measured' },
  failed: { mark: '✕', words: 'went wrong' },
}

/** @param {Figure} line @returns {Verdict} */
function verdictOf({ met, medianUs, failed }) {
  if (failed) return 'failed'
  if (medianUs === null) return 'absent'
  return met === null ? 'open' : met ? 'met' : 'missed'
}

/** @param {Figure} line */
function badge(line) {
  const verdict = verdictOf(line)
  const { mark, words } = verdicts[verdict]
  const shown = verdict === 'open' && line.target === null ? 'no target' : words
  return `<span class="badge ${verdict}"><span aria-hidden="true">${mark}</span> ${shown}</span>`
}

/** @param {Figure[]} lines */
function summary(lines) {
  const targets = lines.filter((line) => line.target !== null)
  const count = (/** @type {Verdict} */ verdict, /** @type {Figure[]} */ among) =>
    among.filter((line) => verdictOf(line) === verdict).length
  const tiles = [
    { verdict: 'met', text: `${count('met', targets)} of ${targets.length} targets met` },
    { verdict: 'missed', text: `${count('missed', targets)} not met` },
    { verdict: 'open', text: `${count('open', lines)} without a verdict` },
    { verdict: 'absent', text: `${count('absent', lines)} not measured` },
  ]
  const wrong = count('failed', lines)
  if (wrong > 0) tiles.push({ verdict: 'failed', text: `${wrong} went wrong` })
  const items = tiles.map(({ verdict, text }) => {
    const { mark } = verdicts[/** @type {Verdict} */ (verdict)]
    return `<li class="badge ${verdict}"><span aria-hidden="true">${mark}</span> ${text}</li>`
  })
  return `<ul class="summary">${items.join('')}</ul>`
}

/** @param {Figure[]} lines */
async function overview(lines) {
  const withRatio = lines.filter((line) => line.ratio !== null && line.ratio > 0)
  const parts = []
  for (const { atLeast, title, legend } of [
    { atLeast: false, title: 'Times the floor', legend: 'Less is better; 1 is the floor itself' },
    {
      atLeast: true,
      title: 'Times quicker than the floor',
      legend: 'More is better; 1 is as quick as the floor',
    },
  ]) {
    const chosen = withRatio.filter((line) => Boolean(line.atLeast) === atLeast)
    if (chosen.length === 0) continue
    const text =
      `${legend}. Dot: the ratio of the medians (● met, ◆ not met, ■ no target). ` +
      'Band: the rounds. Upright bar: the target.'
    parts.push(`<section>
<h2>${title}</h2>
<p class="legend">${text}</p>
${await chart((width) => ratioChart(chosen, width), title)}
</section>`)
  }
  return parts.join('\n')
}

/**
 * @param {string} bench
 * @param {Figure[]} lines
 */
async function benchSection(bench, lines) {
  const charts = []
  const measured = lines.filter((line) => line.medianUs !== null && line.medianUs > 0)
  for (const unit of new Set(measured.map((line) => line.unit ?? 'µs'))) {
    const chosen = measured.filter((line) => (line.unit ?? 'µs') === unit)
    charts.push(await chart((width) => timeChart(chosen, width), `${bench}: ${unit}`))
  }
  const legend =
    charts.length === 0
      ? ''
      : `<p class="legend"><span class="ours">●</span> ours,
<span class="floor">■</span> the floor of the same run: median; band: the medians of the rounds;
line up to the upright bar: 99th percentile.</p>`
  return `<section>
<h2>${escaped(bench)}</h2>
${legend}
${charts.join('\n')}
<table>
<thead><tr><th>figure</th><th>verdict</th><th>ratio</th><th>target</th>
<th>median</th><th>rounds</th><th>p99</th><th>floor</th><th>its rounds</th></tr></thead>
<tbody>
${lines.map(tableRow).join('\n')}
</tbody>
</table>
${anatomyTables(lines, escaped)}
</section>`
}

/** @param {Figure} line */
function tableRow(line) {
  const { name, floor, note, reason, ratio, target, atLeast } = line
  const unit = line.unit ?? 'µs'
  const remarks = [`floor: ${floor}`, note, reason && `reason: ${reason}`]
    .filter((remark) => typeof remark === 'string')
    .map((remark) => `<small>${escaped(remark)}</small>`)
  /** @type {[string, string][]} */
  const cells = [
    ['verdict', badge(line)],
    ['ratio', ratio === null ? '–' : `<strong>${threeDigits(ratio)} ×</strong>`],
    ['target', target === null ? '–' : `${atLeast ? '≥' : '≤'} ${threeDigits(target)} ×`],
    ['median', formatAmount(line.medianUs, unit)],
    ['rounds', formatRange(line.roundMediansUs, unit)],
    ['p99', formatAmount(line.p99Us, unit)],
    ['floor', formatAmount(line.floorMedianUs, unit)],
    ['its rounds', formatRange(line.floorRoundMediansUs, unit)],
  ]
  const columns = cells.map(([title, cell]) => `<td data-title="${title}">${cell}</td>`)
  return `<tr><th scope="row">${escaped(name)}${remarks.join('')}</th>${columns.join('')}</tr>`
}

/**
 * @param {[number, number] | undefined} range
 * @param {string} unit
 */
function formatRange(range, unit) {
  if (range === undefined) return '–'
  const [low, high] = range.map((value) => formatAmount(value, unit))
  const lowUnit = low.split(' ')[1]
  // The unit once, if it is the same.
  return high.endsWith(` ${lowUnit}`) ? `${low.split(' ')[0]}–${high}` : `${low} – ${high}`
}

/**
 * @param {(width: number) => Promise<string>} drawn
 * @param {string} title
 */
async function chart(drawn, title) {
  const parts = []
  for (const [name, width] of Object.entries(chartWidths)) {
    const svg = await drawn(width)
    parts.push(`<div class="chart ${name}" role="img" aria-label="${escaped(title)}">${svg}</div>`)
  }
  return parts.join('\n')
}

const style = `
:root {
  color-scheme: light dark;
  --page: #ffffff; --panel: #f5f6f8; --ink: #1b1f24; --muted: #57606a; --grid: #dde1e6;
  --ours: #0b62c4; --floor: #6e7681; --met: #15702f; --missed: #b3261e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171c; --panel: #1d2128; --ink: #e8eaed; --muted: #a3abb6; --grid: #343a43;
    --ours: #6cb2ff; --floor: #9aa4b1; --met: #5fd07f; --missed: #ff8a7d;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 1.5rem 1.25rem 4rem; max-width: 1000px;
  background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif;
}
h1 { font-size: 1.6rem; margin: 0 0 1rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 0.25rem; }
.machine {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 0.5rem 1.5rem;
  margin: 0; padding: 0.9rem 1rem; background: var(--panel); border-radius: 8px;
}
.machine div:last-child { grid-column: 1 / -1; }
.machine div:last-child dd { font-family: ui-monospace, monospace; font-size: 0.85rem; }
dt { color: var(--muted); font-size: 0.78rem; }
dd { margin: 0; overflow-wrap: anywhere; }
.summary { display: flex; flex-wrap: wrap; gap: 0.4rem 1.4rem; list-style: none; padding: 0; }
.summary .badge { font-size: 1rem; }
.legend { margin: 0 0 0.75rem; color: var(--muted); font-size: 0.85rem; }
.badge { white-space: nowrap; font-weight: 600; }
.met { color: var(--met); }
.missed, .failed { color: var(--missed); }
.ours { color: var(--ours); }
.open, .absent, .floor { color: var(--muted); }
.chart svg { display: block; max-width: 100%; height: auto; }
.narrow { display: none; }
table { width: 100%; border-collapse: collapse; margin-top: 1rem; font-size: 0.85rem; }
th, td { text-align: right; vertical-align: top; padding: 0.45rem 0.5rem; }
td { white-space: nowrap; font-variant-numeric: tabular-nums; }
th:first-child, th + th:nth-child(2), td:nth-child(2) { text-align: left; }
th:first-child { padding-left: 0; }
thead th { color: var(--muted); font-weight: normal; border-bottom: 1px solid var(--grid); }
tbody tr { border-bottom: 1px solid var(--grid); }
tbody th { font-weight: 600; min-width: 14rem; overflow-wrap: anywhere; }
small { display: block; color: var(--muted); font-weight: normal; line-height: 1.35; }
@media (max-width: 860px) {
  .wide { display: none; }
  .narrow { display: block; }
  .narrow svg { width: 100%; max-width: 560px; }
  thead { display: none; }
  table, tbody, tr, th, td { display: block; text-align: left; }
  tbody tr {
    display: grid; grid-template-columns: repeat(auto-fill, minmax(7.5rem, 1fr));
    gap: 0.4rem 0.75rem; padding: 0.8rem 0;
  }
  tbody th { grid-column: 1 / -1; padding: 0; }
  td { padding: 0; }
  td::before { content: attr(data-title); display: block; color: var(--muted); font-size: 0.78rem; }
}
@media print { body { max-width: none; } section { break-inside: avoid; } }
`
