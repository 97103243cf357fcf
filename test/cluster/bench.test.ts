import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'

type Line = Record<string, unknown>

const main = fileURLToPath(new URL('../../bench/main.mjs', import.meta.url))
const formOfLine = ['name', 'medianUs', 'p99Us', 'floor', 'floorMedianUs', 'ratio', 'target', 'met']

/** Runs benchmarks with --json: a failed run and anything else than lines on stdout are failures. */
function runBench(t: Test, ...args: string[]): Line[] {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args, '--json'], {
    encoding: 'utf8',
    timeout: 100_000,
    killSignal: 'SIGTERM',
  })
  t.equal(status, 0, 'the run succeeds', { stderr })
  t.equal(stderr, '', 'nothing on stderr')
  return stdout
    .split('\n')
    .filter((text) => text !== '')
    .map((text) => JSON.parse(text) as Line)
}

/** The form of a line, never its speed: that depends on the machine and on what else runs there. */
function checkForm(t: Test, line: Line): void {
  const { name, medianUs, p99Us, floor, floorMedianUs, ratio, target, met } = line
  t.test(`form of '${String(name)}'`, (t) => {
    t.same(Object.keys(line).slice(0, 8), formOfLine)
    t.type(floor, 'string')
    t.ok([medianUs, floorMedianUs].every((us) => typeof us === 'number' && us > 0))
    t.ok(Number(p99Us) >= Number(medianUs))
    // All three are rounded.
    t.ok(Math.abs((Number(ratio) * Number(floorMedianUs)) / Number(medianUs) - 1) < 0.02)
    t.equal(met, target === null ? null : Number(ratio) <= Number(target))
    t.end()
  })
}

t.test('bench fault measures every state of a page', { timeout: 110_000 }, (t) => {
  const lines = runBench(t, 'fault', '--faults', '40', '--rounds', '2')
  const names = lines.map((line) => line.name)
  for (const name of [
    'read fault, clean at home',
    'read fault, dirty at home',
    'write fault, owned at home',
    'upgrade, home the only other sharer',
    'page ping-pong',
    'read fault, clean at home, one core',
  ]) {
    t.ok(names.includes(name), name)
  }
  for (const line of lines) checkForm(t, line)
  t.equal(lines[0]?.target, 2)
  t.match(lines[0], { samples: 80, rounds: 2 })
  t.end()
})

t.test('bench words: at another member and at its own', { timeout: 110_000 }, (t) => {
  const lines = runBench(t, 'words', '--faults', '100', '--rounds', '2')
  t.same(
    lines.map((line) => line.name),
    ["fetchAdd of another member's atomic word", "fetchAdd of the member's own atomic word"],
  )
  for (const line of lines) checkForm(t, line)
  t.match(lines[0], { samples: 200, rounds: 2, wordsBy: 'home', target: null })
  t.end()
})

t.test('bench progress shows that faults are served all the time', { timeout: 110_000 }, (t) => {
  const lines = runBench(t, 'progress', '--faults', '1000', '--rounds', '1')
  const names = ['read fault, home busy', 'cross faults, read', 'cross faults, write']
  t.same(
    lines.map((line) => line.name),
    names,
  )
  for (const line of lines) checkForm(t, line)
  t.ok(Number(lines[0]?.servedWhileBusy) > 0, 'served while the home computed')
  t.equal(lines[1]?.faultsEachWay, 1000)
  t.equal(lines[2]?.faultsEachWay, 1000)
  t.end()
})

/** The goals, in their order; each is there exactly once, measured or not. */
const goals: [string, number, 'shm' | 'tcp' | 'verbs' | undefined][] = [
  ['read fault, clean at home, shm, one-sided', 1.5, 'shm'],
  ['read fault, dirty at home, shm', 1.3, 'shm'],
  ['write fault on a page nobody else holds, shm', 1.5, 'shm'],
  ['upgrade with one other sharer, shm', 1.3, 'shm'],
  ['read fault, clean at home, tcp, sleeping peers', 1.2, 'tcp'],
  ['read fault, clean at home, tcp, spinning allowed', 1.6, 'tcp'],
  ['read fault, clean at home, verbs', 1.5, 'verbs'],
  ["read fault while the home's JavaScript computes", 1.5, undefined],
  ['sequential scan of 256 MiB, first pass, tcp', 0.7, 'tcp'],
  ['sequential scan of 256 MiB, first pass, shm', 0.6, 'shm'],
  ['cached pass over 256 MiB', 0.98, undefined],
  ['uncontended acquireSync + release, token here', 20, undefined],
  ['lock hand-over', 1.3, undefined],
  ['barrier, 2 and 4 members', 1.5, undefined],
  ['page written in turn under a lock, shm', 2.5, 'shm'],
  ['every 16th page of 64 MiB read, automatic prefetch', 1.1, undefined],
  ['4 KiB first read, shm, against Redis', 8, 'shm'],
  ['Jacobi 2,048², 2 members', 1.8, undefined],
]

t.test('bench goals has a line for each goal, and none that only looks met', (t) => {
  const lines = runBench(t, 'goals', '--tiny', '--rounds', '1')
  t.same(
    lines.map((line) => line.name),
    goals.map(([name]) => name),
  )
  for (const [index, line] of lines.entries()) {
    const [name, target, over] = goals[index] ?? ['', 0, undefined]
    t.test(`form of '${name}'`, (t) => {
      t.same(Object.keys(line).slice(0, 8), formOfLine)
      t.type(line.floor, 'string')
      t.equal(line.met, null, 'small sizes say nothing')
      t.type(line.reason, 'string')
      // Without a lock that is quicker than that, 2 µs are 20 empty calls and more.
      t.ok(name.startsWith('uncontended') ? Number(line.target) >= target : line.target === target)
      t.equal(line.atLeast === true, target < 1 || target === 1.8 || target === 8)
      if (over === 'tcp') t.ok(Number(line.medianUs) > 0, 'over TCP everything is measured')
      if (over === 'verbs') t.match(line.reason, /^not measured: /)
      const numbers = ['medianUs', 'p99Us', 'floorMedianUs', 'ratio'].map((key) => line[key])
      const missing = String(line.reason).startsWith('not measured: ')
      t.ok(numbers.every((number) => (missing ? number === null : Number(number) > 0)))
      t.end()
    })
  }
  t.end()
})
