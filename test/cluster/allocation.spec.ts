import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import t, { type Test } from 'tap'
import { formatKey, generateKey } from '../../dist/cluster/key.js'
import { collectionsBetweenMarks } from './support/collections.js'
import { transport } from './support/machine.js'
import { temporaryDirectory } from './support/temporary-directory.js'

// A page fault allocates nothing: no engine collects garbage, and the addon does not call malloc, on
// any thread. The young generation is small, but large enough for what starting and compiling take:
// forty bytes for each fault would fill the rest of it, and so would be seen.

const size = 3
const leastFaults = 100_000
const plan = { pagesOfEach: 2048, rounds: 2, commands: 12_000 }
const youngMegabytes = ['--min-semi-space-size=8', '--max-semi-space-size=8']
const nodeFlags = ['--trace-gc', '--expose-gc', ...youngMegabytes]
const program = path.resolve('test/fixtures/allocation/member.mjs')
const addon = path.resolve('build/Release/pagemesh.node')

interface Mallocs {
  readonly ofAddon: number
  readonly places: readonly string[]
}
interface Report {
  readonly faults: number
  readonly whileJoining: Mallocs
  readonly whileFaulting: Mallocs
}

function buildCounter(folder: string): string {
  const library = path.join(folder, 'count_mallocs.so')
  const source = 'test/fixtures/allocation/count_mallocs.c'
  execFileSync('cc', ['-O2', '-Wall', '-Wextra', '-shared', '-fPIC', '-o', library, source])
  return library
}

/** Where in the sources an address of the addon is, for a failure's message. */
function nameOf(place: string): string {
  return execFileSync('addr2line', ['-fCpe', addon, place], { encoding: 'utf8' }).trim()
}

async function runMember(
  t: Test,
  folder: string,
  environment: Readonly<Record<string, string>>,
): Promise<{ output: string; report: Report }> {
  const counts = path.join(folder, `mallocs-${environment.PAGEMESH_RANK}`)
  writeFileSync(counts, new Uint8Array(4096))
  const variables = { ...environment, PAGEMESH_COUNT_MALLOCS: counts, NODE_OPTIONS: '' }
  // By way of env, as tap puts options of its own into the environment of what a test starts.
  const assignments = Object.entries(variables).map(([name, value]) => `${name}=${value}`)
  const command = [...assignments, process.execPath, ...nodeFlags, program, JSON.stringify(plan)]
  const child = spawn('env', command, { stdio: ['ignore', 'pipe', 'inherit'] })
  t.teardown(() => child.kill('SIGKILL'))
  let output = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text))
  const [code] = (await once(child, 'close')) as [number | null]
  t.equal(code, 0, `rank ${environment.PAGEMESH_RANK} ends well`)
  return { output, report: JSON.parse(/^\{.*\}$/m.exec(output)?.[0] ?? '{}') as Report }
}

t.test('100,000 faults allocate nothing', { timeout: 230_000 }, async (t) => {
  const folder = temporaryDirectory(t)
  const mesh = {
    PAGEMESH_SIZE: String(size),
    PAGEMESH_KEY: formatKey(generateKey()),
    PAGEMESH_RENDEZVOUS: `file:${path.join(folder, 'rendezvous')}`,
    PAGEMESH_TRANSPORT: transport,
    LD_PRELOAD: buildCounter(folder),
  }
  const members = await Promise.all(
    Array.from({ length: size }, (_, rank) =>
      runMember(t, folder, { ...mesh, PAGEMESH_RANK: String(rank) }),
    ),
  )
  const faults = members.reduce((sum, { report }) => sum + report.faults, 0)
  t.ok(faults >= leastFaults, `${faults} faults`)
  for (const [rank, { output, report }] of members.entries()) {
    const [whileFaulting, whileCommanded] = collectionsBetweenMarks(output)
    t.equal(whileFaulting.ofOthers, 0, `rank ${rank}: collections of its engine`, { output })
    t.ok(whileCommanded.ofOthers > 0, 'and that there are some is seen, where engines allocate')
    const places = [...new Set(report.whileFaulting.places)].map(nameOf)
    t.equal(report.whileFaulting.ofAddon, 0, `rank ${rank}: mallocs of native code`, { places })
    t.ok(report.whileJoining.ofAddon > 0, 'and that there are some is seen, while it joins')
  }
})

t.test('collections are told apart by isolate and by moment', async (t) => {
  const mark = '[77:0x1000]  20 ms: Mark-Compact 4.2 (5.5) -> 3.9 (5.5) MB, 1 / 0 ms testing; GC'
  const main = '[77:0x1000]  21 ms: Scavenge 5.1 (6.0) -> 4.4 (7.0) MB, 1.2 / 0.0 ms task;'
  const engine = '[77:0x2000] 3 ms: Scavenge 5.1 (6.0) -> 4.4 (7.0) MB, 1.2 / 0.0 ms allocation'
  const full = '[77:0x2000] 4 ms: Mark-Compact (reduce) 5.1 (6.0) -> 4.4 (7.0) MB, 1 / 0 ms'
  const output = [engine, mark, main, engine, full, 'a line', mark, engine, mark, full].join('\n')
  t.same(collectionsBetweenMarks(output), [
    { ofMain: 1, ofOthers: 2 },
    { ofMain: 0, ofOthers: 1 },
  ])
  t.same(collectionsBetweenMarks('nothing'), [])
})
