import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import t from 'tap'
import { defaultJoinTimeoutMs } from '../../dist/cluster/launch-environment.js'
import { compileTests } from './support/compiled-tests.js'

// The suites of test/cluster whose members speak to each other, over verbs in a guest. The others
// have no transport: handshake and joiner (pure, with a network made up), launch-environment, run
// (the launcher; its members do not join), commonjs (one member), and bench (which measures).

const suites = [
  'mesh.test.js',
  'regions.test.js',
  'synchronization.test.js',
  'failures.test.js',
  'bad-input.test.js',
  'goals.test.js',
  'examples.test.js',
]

/** How much longer than outside things may take. */
const slowness = 5

const cli = path.resolve('dist/cli/main.js')

interface MemberStats {
  /** The transport that it was told to use. */
  readonly asked: string
  readonly size: number
  readonly transport: string
  readonly verbsMessages: number
  readonly readFaults: number
  readonly writeFaults: number
  readonly pagesReceived: number
  readonly bytesReceived: number
}

interface Report {
  readonly before: Readonly<Record<string, number>>
  readonly after: Readonly<Record<string, number>>
  readonly members: readonly MemberStats[]
}

/** RoCE's largest packet, which the guest's link allows. */
const mtuBytes = 4_096

function sumOf(members: readonly MemberStats[], name: keyof MemberStats): number {
  return members.reduce((sum, member) => sum + Number(member[name]), 0)
}

t.test('the suites of test/cluster', async (t) => {
  const folder = fs.mkdtempSync(path.join(tmpdir(), 'suites-over-verbs-'))
  t.teardown(() => fs.rmSync(folder, { recursive: true, force: true }))
  const compiled = path.join(compileTests('suites', ['test/cluster']), 'test/cluster')
  const given = process.env.PAGEMESH_TEST_SUITES ?? ''
  const chosen = given === '' ? suites : given.split(',')
  const files = chosen.map((name) => (name.includes('=') ? name : path.join(compiled, name)))
  const program = path.resolve('test/fixtures/softroce/suites.mjs')
  const slow = [
    `PAGEMESH_TEST_SLOWNESS=${slowness}`,
    `PAGEMESH_JOIN_TIMEOUT_MS=${defaultJoinTimeoutMs * slowness}`,
  ]
  const inside = [process.execPath, program, folder, ...slow]
  // By way of env, as tap puts options of its own into the environment of what a test starts.
  await t.spawn(
    'env',
    [
      ...['NODE_OPTIONS=', 'PAGEMESH_TRANSPORT=verbs', 'TAP_TIMEOUT=1200'],
      ...[process.execPath, cli, 'softroce', 'exec', '--way=guest', '--writable', folder, '--'],
      ...[...inside, ...files],
    ],
    { stdio: ['ignore', 'pipe', 'inherit'], timeout: 0 },
    'over verbs in a guest',
  )

  const report = JSON.parse(fs.readFileSync(path.join(folder, 'report.json'), 'utf8')) as Report
  const members = report.members.filter(({ transport }) => transport === 'verbs')
  const faults = sumOf(members, 'readFaults') + sumOf(members, 'writeFaults')
  const grown = Object.entries(report.after)
    .map(([name, count]) => [name, count - report.before[name]] as const)
    .filter(([, growth]) => growth > 0)
  const counters = Object.fromEntries(grown)
  console.error(
    `faults served over verbs: ${faults}, by ${members.length} members, who got ` +
      `${sumOf(members, 'pagesReceived')} pages; rxe0 counted ${JSON.stringify(counters)}`,
  )
  const asked = report.members.filter(({ asked, size }) => asked === 'verbs' && size > 1)
  if (asked.length > 0) t.ok(faults > (given === '' ? 1_000 : 0), `${faults} faults`)
  // A page has packets of its own; what asked for it is another.
  const packets = sumOf(members, 'bytesReceived') / mtuBytes + faults
  for (const name of ['sent_pkts', 'rcvd_pkts']) {
    const growth = counters[name] ?? 0
    t.ok(growth >= packets, `${name} grew by ${growth}, and ${packets} were needed`)
  }
  for (const member of asked) {
    const moved = member.readFaults + member.writeFaults + member.pagesReceived > 0
    const used = member.transport === 'verbs' && (!moved || member.verbsMessages > 0)
    if (!used) t.match(member, { transport: 'verbs' }, 'a member of more than one uses verbs')
  }
})
