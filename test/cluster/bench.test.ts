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
