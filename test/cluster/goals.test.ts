import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { byUserfaultfd, nodeOptions, sized, slowness } from './support/machine.js'

// What pagemesh promises, on real sizes. PAGEMESH_FULL_SIZE=1 runs the promises as they are made;
// otherwise two of them run smaller, but large enough to meet the limits that they are about.
const fullSize = process.env.PAGEMESH_FULL_SIZE === '1'
const launcher = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url))
const folder = fileURLToPath(new URL('../fixtures/goals/', import.meta.url))
/** The kernel's own default, or what members are told that it is. */
const maxMapCount = sized(65_530, 2_048)

/** What the programs print, each its part. */
interface Report {
  sum?: number
  expected?: number
  pages?: number
  readFaults?: number
  pageCount?: number
  wrong?: number
  mostMappings?: number
  pagesParked?: number
  total?: number
}

/** Runs a program on `members` members; they print one JSON object a line. */
function run(t: Test, members: number, program: string, ...args: (string | number)[]): Report[] {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [launcher, 'run', '-n', String(members), '--no-prefix', folder + program, ...args.map(String)],
    {
      encoding: 'utf8',
      env: { ...process.env, NODE_OPTIONS: nodeOptions },
      timeout: 230_000 * slowness,
    },
  )
  t.equal(status, 0, 'the run succeeds', { stderr })
  const lines = stdout.split('\n').filter((line) => line !== '')
  const reports = lines.map((line) => JSON.parse(line) as Report)
  for (const report of reports) t.comment(JSON.stringify(report))
  return reports
}

const mebibytes = sized(256, 8)
t.test(`one member increments ${mebibytes} MiB, the other sums it up`, (t) => {
  const [report = {}] = run(t, 2, 'increment-and-sum.mjs', mebibytes)
  t.equal(report.sum, report.expected)
  t.equal(report.readFaults, report.pages, 'one read fault for each page')
  t.end()
})

for (const placement of ['block', 'cyclic']) {
  t.test(`alternating pages, more than vm.max_map_count, ${placement}`, (t) => {
    const mebibytes = fullSize ? 1024 : sized(320, 16)
    const reports = run(t, 2, 'alternate-pages.mjs', mebibytes, placement, maxMapCount)
    t.equal(reports.length, 2)
    for (const report of reports) {
      t.equal(report.wrong, 0, 'right values to the last page')
      t.ok((report.mostMappings ?? Infinity) < maxMapCount)
      t.ok((report.pageCount ?? 0) > maxMapCount)
    }
    const parked = reports.reduce((sum, report) => sum + (report.pagesParked ?? 0), 0)
    if (byUserfaultfd) t.equal(parked, 0, 'no mapping is split, so nothing has to be lowered')
    else t.ok(parked > 0, 'pages were lowered to stay below the limit')
    t.end()
  })
}

t.test('eight members hammer one word under a lock', (t) => {
  const reports = run(t, 8, 'hammer.mjs', fullSize ? 10_000 : sized(500, 20))
  t.equal(reports.length, 8)
  for (const report of reports) t.equal(report.total, report.expected)
  t.end()
})
