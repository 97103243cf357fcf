import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t from 'tap'

type Figure = Record<string, unknown>
const bench = new URL('../../bench/', import.meta.url)
const { htmlReport } = (await import(`${bench.href}lib/html-report.mjs`)) as {
  htmlReport: (results: object) => Promise<string>
}
const { formatAmount } = (await import(`${bench.href}lib/amounts.mjs`)) as {
  formatAmount: (value: number | null, unit?: string) => string
}
const { makeLine } = (await import(`${bench.href}lib/report.mjs`)) as {
  makeLine: (figure: object) => Figure
}

const machine = {
  ...{ processor: 'Made <up> & fast', cores: 2, virtual: true, memoryBytes: 8 * 2 ** 30 },
  ...{ kernel: 'Linux 6.1', node: 'v20.1.0', load: 0.25, commit: 'abcdef0' },
}
const rounds = [
  [10, 20, 30],
  [20, 30, 40],
]
const sample = { rounds, floor: 'a round trip', floorRounds: [[10], [12]] }
const lines: Figure[] = [
  { bench: 'fault', ...makeLine({ ...sample, name: 'met figure', target: 9 }) },
  { bench: 'fault', ...makeLine({ ...sample, name: 'missed figure', target: 1.5 }) },
  { bench: 'fault', ...makeLine({ ...sample, name: 'figure without target' }) },
  {
    ...{ bench: 'goals', name: 'absent figure', medianUs: null, p99Us: null, floorMedianUs: null },
    ...{ floor: 'ib_read_lat', ratio: null, target: 1.5, met: null, reason: 'no device <here>' },
  },
  {
    ...{ bench: 'goals', ...makeLine({ ...sample, name: 'bandwidth', target: 0.5 }) },
    ...{ unit: 'MB/s', atLeast: true, met: true },
  },
  {
    ...{ bench: 'fault', ...makeLine({ ...sample, name: 'dissected fault' }) },
    ...{ clockUs: 0.05, parts: { trap: 0.75, resume: 0.25 } },
    rows: [
      { name: 'trap <in>', part: 'trap', medianUs: 3, p99Us: 9, share: 0.75 },
      { name: 'resume', part: 'resume', medianUs: 1, p99Us: 2, share: 0.25 },
    ],
  },
  { bench: '<b>bold</b>', ...makeLine({ ...sample, name: '<script>alert("1")</script> & more' }) },
]
const run = { date: '2026-01-02T03:04:05.678Z', command: 'npm run bench -- fault', machine }

const html = await htmlReport({ ...run, lines })

/** What a browser would fetch, or run. */
function activeParts(html: string): string[] {
  return (
    html.match(/<(script|link|img|iframe|object|embed|image|use)\b|https?:|url\(|@import/gi) ?? []
  )
}

t.test('a fault has its phases, with bars as long as their shares', async (t) => {
  t.match(html, '<h3>dissected fault</h3>')
  t.match(html, 'trap 75.0 %, resume 25.0 %; reading the clock costs 50.0 ns of it.')
  t.match(html, '<th scope="row">trap &lt;in&gt;</th><td data-title="part">trap</td>')
  t.match(
    html,
    '<td data-title="share">75.0 %</td><td class="bars"><div class="bar" style="width: 100.0%">',
  )
  t.match(html, 'style="width: 33.3%"')
  t.equal(html.match(/class="phases"/g)?.length, 1, 'and only it')
})

t.test('the page has every figure with its floor, and stands alone', async (t) => {
  for (const { name, floor } of lines.slice(0, -1) as { name: string; floor: string }[]) {
    t.ok(html.includes(`<th scope="row">${name}<small>floor: ${floor}</small>`), name)
  }
  t.strictSame(activeParts(html), [])
  t.match(html, /<meta http-equiv="Content-Security-Policy" content="default-src 'none'/)
  t.match(html, '@media (prefers-color-scheme: dark)')
  t.match(html, '2 × Made &lt;up&gt; &amp; fast, in a virtual machine')
  for (const fact of ['8.0 GiB', 'Linux 6.1', 'v20.1.0', 'abcdef0', '2026-01-02 03:04:05 UTC']) {
    t.match(html, `<dd>${fact}</dd>`)
  }
})

t.test('what would be markup in a name is text', async (t) => {
  t.notMatch(html, '<script')
  t.notMatch(html, '<b>')
  t.notMatch(html, '<here>')
  t.match(html, '&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; more')
  t.match(html, '<h2>&lt;b&gt;bold&lt;/b&gt;</h2>')
})

t.test('met, not met, no target and not measured are told apart', async (t) => {
  const rows = html.split('<tr>')
  const row = (name: string) => rows.find((row) => row.startsWith(`<th scope="row">${name}<`)) ?? ''
  t.match(row('met figure'), /class="badge met">.*<\/span> met<.*2\.27 ×.*≤ 9\.00 ×/)
  t.match(row('missed figure'), /class="badge missed">.*<\/span> not met</)
  t.match(row('figure without target'), /class="badge open">.*<\/span> no target</)
  t.match(row('absent figure'), /class="badge absent">.*<\/span> not measured</)
  t.match(row('absent figure'), 'reason: no device &lt;here&gt;')
  t.match(row('bandwidth'), '≥ 0.50 ×')
  t.match(row('bandwidth'), '25.0 MB/s')
  t.match(row('met figure'), '25.0 µs')
  t.match(row('met figure'), '20.0–30.0 µs', 'the rounds')
  t.match(row('met figure'), '40.0 µs', 'the 99th percentile')
  t.match(html, '2 of 4 targets met')
  t.match(html, '1 not met')
  t.match(html, '1 not measured')
})

t.test('charts are drawn in the colours of the page, wide and narrow', async (t) => {
  const charts = html.match(/<svg\b.*?<\/svg>/gs) ?? []
  // Two overviews, since more is better for one figure, and one of each benchmark and unit.
  t.equal(charts.length, 2 * (2 + 3))
  for (const chart of charts) {
    t.notMatch(chart, /(fill|stroke)="(#|rgb|black|white)/, 'no colour of its own')
    t.match(chart, 'var(--ink)')
    t.notMatch(chart, /NaN|Infinity|undefined/)
  }
  t.match(charts[0], 'missed figure')
  t.match(charts[0], 'floor: a round trip')
})

t.test('a run that measured nothing is a page too', async (t) => {
  t.match(await htmlReport({ ...run, lines: [] }), '0 of 0 targets met')
  const empty = await htmlReport({ ...run, lines: [lines[3]] })
  t.match(empty, 'absent figure')
  t.notMatch(empty, '<svg')
})

t.test('the check for active parts can fail', async (t) => {
  t.strictSame(activeParts('<script src="https://a"></script>'), ['<script', 'https:'])
  t.strictSame(activeParts('a { background: URL(b) }<LINK>'), ['URL(', '<LINK'])
})

t.test('amounts are easy to read', async (t) => {
  const amounts = [null, 0, 0.05, 1.234, 56.78, 512.3, 4321, 12_345, 2_500_000]
  t.same(
    amounts.map((value) => formatAmount(value)),
    ['–', '0.00 ns', '50.0 ns', '1.23 µs', '56.8 µs', '512 µs', '4,321 µs', '12.3 ms', '2.50 s'],
  )
  t.equal(formatAmount(1234.5, 'MB/s'), '1,235 MB/s')
})

t.test('--out is checked before anything is measured', async (t) => {
  const main = fileURLToPath(new URL('main.mjs', bench))
  for (const [out, message] of [
    ['report.pdf', /^--out takes a file that ends with \.html or \.json, not 'report\.pdf'/],
    ['/nowhere/report.html', /^--out \/nowhere\/report\.html: the folder is not there/],
  ] as const) {
    const args = [main, 'words', '--out', out]
    const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' })
    t.equal(status, 2)
    t.equal(stdout, '')
    t.match(stderr, message)
  }
})
