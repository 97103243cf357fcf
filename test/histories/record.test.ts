import { mkdtempSync, rmSync } from 'node:fs'
import { spawnSync } from 'node:child_process'
import { tmpdir } from 'node:os'
import path from 'node:path'
import t, { type Test } from 'tap'

const main = path.resolve('test/histories/main.mjs')

function run(t: Test, ...args: string[]) {
  const cwd = mkdtempSync(path.join(tmpdir(), 'pagemesh-test-'))
  t.teardown(() => rmSync(cwd, { recursive: true, force: true }))
  const env = { ...process.env, NODE_OPTIONS: '' }
  const go = (...args: string[]) =>
    spawnSync(process.execPath, [main, ...args], { cwd, env, encoding: 'utf8', timeout: 150_000 })
  return { ...go(...args), go }
}

t.test('histories of real members, one of them killed', { timeout: 200_000 }, (t) => {
  const { status, stdout, stderr } = run(t, '--rounds', '3', '--operations', '200', '--json')
  t.equal(status, 0, 'all are accepted', { stdout, stderr })
  const rounds = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
  t.same(
    rounds.map(({ outcome, kill }) => [outcome, kill]),
    [
      ['ok', false],
      ['ok', false],
      ['ok', true],
    ],
  )
  t.ok(Number(rounds[0]?.operations) > 1000)
  t.end()
})

for (const broken of ['stale', 'lock', 'add']) {
  t.test(`members broken on purpose: ${broken}`, { timeout: 200_000 }, (t) => {
    // It ends with the first round in which what is broken shows, which is a matter of luck.
    const found = run(t, '--rounds', '20', '--operations', '200', '--break', broken)
    t.equal(found.status, 1, found.stderr)
    t.match(found.stderr, /^rejected by the check of/m)
    const file = /written to (\S+);/.exec(found.stderr)?.[1] ?? 'none'
    const again = found.go('--check', file)
    t.equal(again.status, 1)
    t.match(again.stdout, /^rejected by the check of/, 'and the file says the same')
    t.end()
  })
}

t.test('the command line', (t) => {
  t.equal(run(t, '--members', '1').status, 2)
  t.equal(run(t, '--break', 'all').status, 2)
  t.equal(run(t, '--nonsense').status, 2)
  t.match(run(t, '--help').stdout, /^usage:/)
  t.end()
})
