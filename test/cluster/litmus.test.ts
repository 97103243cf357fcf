import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'

// The short form of `npm run litmus`. Outcomes are counted and judged in the program; which of the
// allowed ones come depends on the machine and on what else runs there.

interface Result {
  readonly name: string
  readonly variant: string
  readonly iterations: number
  readonly forbidden: number
  readonly outcomes: readonly { values: string; kind: string; count: number }[]
}

const main = fileURLToPath(new URL('../../litmus/main.mjs', import.meta.url))

function runLitmus(t: Test, exitCode: number, ...args: string[]): Result[] {
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args, '--json'], {
    encoding: 'utf8',
    timeout: 200_000,
    killSignal: 'SIGTERM',
  })
  t.equal(status, exitCode, `exit code of litmus ${args.join(' ')}`, { stderr })
  t.equal(stderr, '', 'nothing on stderr')
  return stdout
    .split('\n')
    .filter((text) => text !== '')
    .map((text) => JSON.parse(text) as Result)
}

const names = [
  ...['SB', 'MP', 'LB', 'S', 'R', '2+2W', 'CoRR', 'CoWW', 'CoRW', 'CoWR'],
  ...['IRIW', 'WRC', 'ISA2', 'RMW', 'MP+flag', 'ISA2+flags'],
]

t.test('litmus: no forbidden outcome, by Atomics and by plain accesses', async (t) => {
  const results = runLitmus(t, 0, '--iterations', '192')
  t.same([...new Set(results.map(({ name }) => name))], names)
  for (const { name, variant, iterations, forbidden, outcomes } of results) {
    const what = `${name}, ${variant}`
    t.equal(forbidden, 0, what)
    t.equal(iterations, 192, what)
    const counted = outcomes.reduce((sum, { count }) => sum + count, 0)
    t.equal(counted, iterations, `${what}: each iteration is counted`)
  }
  const variants = results.filter(({ name }) => name === 'SB').map(({ variant }) => variant)
  t.same(variants, [
    'multi-page, Atomics',
    'same-page, Atomics',
    'multi-page, plain',
    'same-page, plain',
    'straddling, plain',
    'same-page, Atomics, one member',
    'same-page, plain, one member',
  ])
  // Threads do race: where nothing ever did, each line would have one or two outcomes.
  const seen = results.flatMap(({ outcomes }) => outcomes.filter(({ count }) => count > 0))
  t.ok(seen.length > 2 * results.length, `${seen.length} outcomes in ${results.length} lines`)
})

const forbiddenOf = (results: readonly Result[], name: string): number =>
  results
    .filter((result) => result.name === name && result.variant.includes('Atomics'))
    .reduce((sum, { forbidden }) => sum + forbidden, 0)

t.test('litmus: a store buffer before the memory is found out', async (t) => {
  const args = ['SB', 'MP', '--iterations', '256', '--broken', 'store-buffer']
  const results = runLitmus(t, 1, ...args)
  t.ok(forbiddenOf(results, 'SB') > 0)
  t.equal(forbiddenOf(results, 'MP'), 0, 'stores are late, but in their order')
})

t.test('litmus: copies that are not taken away are found out', async (t) => {
  const args = ['MP', 'IRIW', '--iterations', '256', '--broken', 'late-copies']
  const results = runLitmus(t, 1, ...args)
  t.ok(forbiddenOf(results, 'MP') > 0)
  t.ok(forbiddenOf(results, 'IRIW') > 0)
})

t.test('litmus: members that only look on', async (t) => {
  const results = runLitmus(t, 0, 'CoRR', '--iterations', '64', '--members', '4', '--seed', '9')
  t.equal(results.length, 7)
})

t.test('litmus: what it cannot do is said', async (t) => {
  for (const [args, message] of [
    [['XY'], /no litmus test is called 'XY'; there are SB, MP/],
    [['--transport', 'pigeon'], /--transport takes shm, tcp, verbs, auto, not 'pigeon'/],
    [['--members', '1'], /--members takes a whole number from 2 to 32, not '1'/],
    [['--iterations', '0'], /--iterations takes a whole number from 1 to 1000000, not '0'/],
    [['--seed', '-1'], /--seed/],
    [['--broken', 'not'], /--broken takes store-buffer, late-copies, not 'not'/],
    [['--fast'], /--fast/],
  ] as const) {
    const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], {
      encoding: 'utf8',
    })
    t.equal(status, 2, args.join(' '))
    t.match(stderr, message)
    t.match(stderr, /usage: npm run litmus/)
    t.equal(stdout, '')
  }
  for (const [arg, expected] of [
    ['list', /^SB +x=1; a=y \| y=1; b=x$/m],
    ['--help', /^usage: npm run litmus/],
  ] as const) {
    const { status, stdout } = spawnSync(process.execPath, [main, arg], { encoding: 'utf8' })
    t.equal(status, 0)
    t.match(stdout, expected)
  }
})
