import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import * as path from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

interface Line {
  bench: string
  name: string
  medianUs: number
  floorMedianUs: number
  mediansByRoundUs: number[]
}

const main = fileURLToPath(new URL('../../bench/main.mjs', import.meta.url))
const names = [
  'message there and back, Unix socket',
  ...['Jacobi', 'PageRank', 'matrix multiply', 'integer sort', 'k-means'].flatMap((name) => [
    `${name}, against one process`,
    `${name}, against messages by hand`,
  ]),
  ...['copy', 'scale', 'add', 'triad'].map((name) => `STREAM ${name}`),
  '1000 random updates, pages held',
  '1000 random updates, two members at once',
]

// Results and tables are verified by the benchmarks themselves: a wrong one fails the run.
t.test('applications, STREAM and GUPS, small, and what --out writes', { timeout: 110_000 }, (t) => {
  const folder = t.testdir()
  const [json, html] = ['results.json', 'report.html'].map((name) => path.join(folder, name))
  const out = ['--out', json, '--out', html]
  const args = [main, 'apps', 'stream', 'gups', '--tiny', '--rounds', '1', '--json', ...out]
  const run = spawnSync(process.execPath, args, {
    ...{ encoding: 'utf8', timeout: 100_000, killSignal: 'SIGTERM' },
  })
  t.equal(run.status, 0, 'the run succeeds', { stderr: run.stderr })
  t.equal(run.stderr, `written: ${json}\nwritten: ${html}\n`)
  const lines = run.stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Line)
  t.same(
    lines.map(({ name }) => name),
    names,
  )
  for (const { name, medianUs, floorMedianUs } of lines) {
    t.ok(medianUs > 0 && floorMedianUs > 0, `${name} took some time`)
  }
  const results = JSON.parse(readFileSync(json, 'utf8'))
  t.match(results, { format: 'pagemesh-bench-1', machine: { node: process.version } })
  t.match(results.command, /^npm run bench -- apps stream gups --tiny /)
  t.same(
    results.lines.map(({ bench: _, ...line }: Line) => line),
    lines,
    'the lines of --json',
  )
  t.ok(results.lines.every(({ mediansByRoundUs }: Line) => mediansByRoundUs.length === 1))
  const page = readFileSync(html, 'utf8')
  for (const name of names) t.ok(page.includes(`<th scope="row">${name}<`), `${name} is reported`)
  t.end()
})
