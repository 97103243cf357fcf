import { execFileSync } from 'node:child_process'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { Child, runMesh, startMesh } from './fixtures/children.js'

// Signals whose handlers touch shared memory, in every kind of thread. What is tested elsewhere:
// handlers in JavaScript and `--cpu-prof` (faults.test.ts), and ends without such signals
// (endings.test.ts).

const directory = fs.mkdtempSync(path.join(tmpdir(), 'native-test-'))
t.teardown(() => fs.rmSync(directory, { recursive: true, force: true }))
const library = path.join(directory, 'ticks.node')
const source = fileURLToPath(new URL('fixtures/ticks.c', import.meta.url))
execFileSync('cc', ['-O1', '-Wall', '-Wextra', '-shared', '-fPIC', '-o', library, source])

const settings = [
  { name: 'now and then', nodeArgs: [], intervalUs: 2000 },
  { name: 'without a pause', nodeArgs: [], intervalUs: 200 },
  {
    name: 'with a profiler beside them',
    nodeArgs: ['--cpu-prof', `--cpu-prof-dir=${directory}`, '--cpu-prof-interval=500'],
    intervalUs: 1000,
  },
]

for (const { name, nodeArgs, intervalUs } of settings) {
  t.test(`handlers that write shared pages in all threads: ${name}`, async (t) => {
    const args = { library, forMs: 2000, intervalUs }
    const results = await runMesh(t, 2, 'signals', 'handlersThatFault', { args, nodeArgs })
    for (const [rank, result] of results.entries()) {
      t.equal(result.counted, result.ran, `no write of rank ${rank}'s handlers is lost`)
      t.ok(result.ran > 100, `${result.ran} handlers ran`)
      t.ok(result.elsewhere > 10, `${result.elsewhere} of them off the main thread`)
      t.ok(result.inPoolThreads > 10, `${result.inPoolThreads} of them in libuv's pool`)
      t.ok(result.handlerFaults > 10, `${result.handlerFaults} write faults of handlers`)
      t.equal(result.wrong, 0, 'what the interrupted threads read is right')
      t.ok(result.rounds > 1, `${result.rounds} rounds`)
      t.ok(result.workerRounds > 1, `${result.workerRounds} rounds of the worker`)
    }
    t.ok(results[1].readFaults > 10, `${results[1].readFaults} read faults`)
  })
}

const ends = [
  { way: 'exit', expected: 7 },
  { way: 'throw', expected: 1 },
  { way: 'terminate', expected: 0 },
  { way: 'SIGTERM', expected: 'SIGTERM' },
]
for (const { way, expected } of ends) {
  t.test(`${way} while handlers fault in all threads`, async (t) => {
    const [home, other] = startMesh(t, 2, 'signals', 'endsAmongSignals', { args: { library, way } })
    const end = await other.ended
    t.equal(end.signal ?? end.code, expected, end.stderr)
    if (way === 'terminate') t.match(end.stdout, /^codes 1,1$/m)
    const { code, stderr, result } = await home.ended
    t.equal(code, 0, stderr)
    t.same(result, { code: 'ERR_PAGEMESH_MEMBER_DOWN', pattern: true })
  })
}

t.test("signals for the process never run on the engine's thread", async (t) => {
  const { code, stderr, result } = await new Child(t, 'signals', 'blockedSignals').ended
  t.equal(code, 0, stderr)
  t.same(result, { count: 1, segv: 0 }, 'it alone blocks them, and not those that it may raise')
})
