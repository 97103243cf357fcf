import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import * as path from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

interface RankTest {
  pairsToCut: (m: number, n: number, probability: number) => number
  quotientOf: (
    before: number[],
    after: number[],
    confidence: number,
  ) => { change: number; low: number; high: number }
}
interface Change {
  name: string
  change: number | null
  range: [number, number] | null
  verdict: string
  reason?: string
}

const bench = new URL('../../bench/', import.meta.url)
const { pairsToCut, quotientOf } = (await import(`${bench.href}lib/rank-test.mjs`)) as RankTest
const { compareFigures } = (await import(`${bench.href}lib/comparison.mjs`)) as {
  compareFigures: (before: object[], after: object[], margin: number) => Change[]
}
const { readResults } = (await import(`${bench.href}lib/results.mjs`)) as {
  readResults: (path: string) => Promise<object>
}

/** A figure whose rounds took so many times the floor, whatever the floor took. */
function figure(ratios: number[], more: object = {}): object {
  const floorMediansByRoundUs = ratios.map((_, round) => 10 + 3 * round)
  const mediansByRoundUs = ratios.map((ratio, round) => ratio * floorMediansByRoundUs[round])
  return {
    ...{ bench: 'fault', name: 'read', floor: 'round trip', ratio: ratios[0] },
    ...{ floorMediansByRoundUs, mediansByRoundUs, ...more },
  }
}

const steady = [2, 2.02, 1.99, 2.01, 1.98]

function verdictOf(before: object, after: object, margin = 0.05): Partial<Change> {
  const changes = compareFigures([before], [after], margin)
  t.equal(changes.length, 1)
  return changes[0] ?? {}
}

t.test('how many pairs an interval leaves out is as the tables of Mann and Whitney say', (t) => {
  // Critical values of U, two-sided: the largest U that is significant, which is one less.
  for (const [m, n, level, critical] of [
    [4, 4, 0.05, 0],
    [5, 5, 0.05, 2],
    [5, 5, 0.01, 0],
    [6, 8, 0.05, 8],
    [10, 10, 0.05, 23],
    [10, 10, 0.01, 16],
    [20, 20, 0.05, 127],
  ] as const) {
    t.equal(pairsToCut(m, n, level / 2), critical + 1, `${m} and ${n} at ${level}`)
  }
  t.equal(pairsToCut(3, 3, 0.025), 0, 'three and three never suffice')
  t.equal(pairsToCut(4, 4, 0.005), 0, 'nor four and four at 1 %')
  t.end()
})

t.test('many rounds go by the normal approximation, which is near the exact number', (t) => {
  const exact = pairsToCut(50, 50, 0.005)
  const beyond = pairsToCut(50, 51, 0.005)
  t.ok(beyond >= exact && beyond < exact + 40, `${exact}, ${beyond}`)
  t.ok(pairsToCut(1000, 1000, 0.005) > 400_000)
  t.end()
})

t.test('the quotient of two samples', (t) => {
  t.match(quotientOf([1, 2, 4], [2, 4, 8], 0.9), { change: 2, low: 0.5, high: 8 })
  t.match(quotientOf([1, 2], [2, 4], 0.99), { low: 0, high: Infinity }, 'too few to be so sure')
  t.end()
})

t.test('slower, faster and the same', (t) => {
  const half = steady.map((ratio) => ratio * 1.5)
  t.match(verdictOf(figure(steady), figure(half)), { verdict: 'slower' })
  t.match(verdictOf(figure(half), figure(steady)), { verdict: 'faster' })
  t.match(verdictOf(figure(steady), figure([...steady].reverse())), { verdict: 'same' })
  const { change = 0, range } = verdictOf(figure(steady), figure(half))
  t.ok((change ?? 0) > 1.48 && (change ?? 0) < 1.52)
  t.ok(range && range[0] > 1.4 && range[1] < 1.6)
  t.end()
})

t.test(
  'it is the ratio to the floor that counts: a machine that is busier changes nothing',
  (t) => {
    const busier = figure(steady) as { mediansByRoundUs: number[]; floorMediansByRoundUs: number[] }
    for (const list of [busier.mediansByRoundUs, busier.floorMediansByRoundUs]) {
      for (const round of list.keys()) list[round] = list[round] * 3
    }
    t.match(verdictOf(figure(steady), busier), { verdict: 'same' })
    t.end()
  },
)

t.test('noise is no change', (t) => {
  const noisy = [1.2, 3.9, 2.2, 1.7, 2.9]
  const noisier = [1.5, 4.4, 2.4, 2.1, 3.3]
  t.match(verdictOf(figure(noisy), figure(noisier)), {
    verdict: 'cannot tell',
    reason: 'the rounds lie too far apart',
  })
  t.end()
})

t.test('a change within the margin is none, however sure', (t) => {
  const little = steady.map((ratio) => ratio * 1.08)
  t.match(verdictOf(figure(steady), figure(little), 0.05), { verdict: 'slower' })
  t.match(verdictOf(figure(steady), figure(little), 0.12), { verdict: 'same' })
  t.end()
})

t.test('four rounds are too few to say that something changed', (t) => {
  const [before, after] = [figure([1, 1, 1, 1]), figure([9, 9, 9, 9])]
  t.match(verdictOf(before, after), { verdict: 'cannot tell', reason: 'too few rounds' })
  t.end()
})

t.test('of rates, more is faster', (t) => {
  const rate = { unit: 'MB/s' }
  const lower = steady.map((ratio) => ratio / 2)
  t.match(verdictOf(figure(steady, rate), figure(lower, rate)), { verdict: 'slower' })
  t.match(verdictOf(figure(lower, rate), figure(steady, rate)), { verdict: 'faster' })
  t.match(verdictOf(figure(steady), figure(steady, rate)), { verdict: 'cannot tell' })
  t.end()
})

t.test('what cannot be compared says why', (t) => {
  const reasons = compareFigures(
    [
      figure(steady),
      figure(steady, { name: 'write' }),
      figure(steady, { name: 'gone' }),
      figure(steady, { name: 'lock', mediansByRoundUs: undefined }),
      figure(steady, { name: 'fast', mediansByRoundUs: [0, 0, 0, 0, 0] }),
    ],
    [
      figure(steady, { floor: 'another' }),
      figure(steady, { name: 'write', mediansByRoundUs: undefined }),
      figure(steady, { name: 'new' }),
      figure(steady, { name: 'lock' }),
      figure(steady, { name: 'fast' }),
      figure(steady, { bench: 'words' }),
    ],
    0.05,
  ).map(({ name, reason }) => [name, reason])
  t.same(reasons, [
    ['read', 'the floors are not the same'],
    ['write', 'the second run did not measure it'],
    ['new', 'only in the second run'],
    ['lock', 'the first run did not measure it'],
    ['fast', 'the first run did not measure it'],
    ['read', 'only in the second run'],
    ['gone', 'only in the first run'],
  ])
  t.end()
})

const folder = t.testdir()
const machine = {
  ...{ processor: 'one', cores: 2, virtual: false, memoryBytes: 2 ** 30 },
  ...{ kernel: 'Linux 6', node: 'v20.0.0', load: 0, commit: null },
}

function fileOf(name: string, contents: unknown): string {
  const file = path.join(folder, name)
  writeFileSync(file, typeof contents === 'string' ? contents : JSON.stringify(contents))
  return file
}
function results(name: string, lines: object[], more: object = {}): string {
  const run = { format: 'pagemesh-bench-1', date: '2026-01-02T03:04:05Z', command: 'x', machine }
  return fileOf(name, { ...run, lines, ...more })
}
function compare(...args: string[]) {
  const main = fileURLToPath(new URL('main.mjs', bench))
  const options = { encoding: 'utf8', timeout: 30_000 } as const
  return spawnSync(process.execPath, [main, 'compare', ...args], options)
}
const slow = figure(steady.map((ratio) => ratio * 2))
const before = results('before.json', [figure(steady), figure(steady, { name: 'write' })])
const after = results('after.json', [slow, figure(steady, { name: 'write' })])

t.test('the command prints a table, and fails on a regression if it is told to', (t) => {
  const { status, stdout, stderr } = compare(before, after)
  t.equal(status, 0)
  t.equal(stderr, '')
  t.match(stdout, /^figure +before +after +change +at 99 % +verdict\n/)
  t.match(stdout, /\nfault: read +2\.00 +4\.00 +\+100 % +\+\d+ % … \+\d+ % +slower\n/)
  t.match(stdout, /\nfault: write +2\.00 +2\.00 +±0 % .* same\n/)
  t.match(stdout, /\n1 slower, 0 faster, 1 same, 0 cannot tell\n$/)
  t.equal(compare(before, after, '--fail-on-regression').status, 1)
  t.equal(compare(after, before, '--fail-on-regression').status, 0, 'faster is no regression')
  const changes = compare(before, after, '--json').stdout.trim().split('\n')
  t.same(
    changes.map((line) => (JSON.parse(line) as Change).verdict),
    ['slower', 'same'],
  )
  t.end()
})

t.test('another machine is a warning; load and commit do not make another', (t) => {
  const other = { ...machine, cores: 64, kernel: 'Linux 7' }
  const { status, stderr, stdout } = compare(before, results('other.json', [], { machine: other }))
  t.equal(status, 0)
  t.match(stderr, /^warning: the runs are of different machines \(cores: 2 and 64; kernel: /)
  t.match(stdout, /only in the first run/)
  const busy = results('busy.json', [], { machine: { ...machine, load: 9, commit: 'abc' } })
  t.equal(compare(before, busy).stderr, '')
  t.end()
})

t.test('what was typed wrongly, and what is no JSON, end it', (t) => {
  const wrong = compare(before)
  t.equal(wrong.status, 2)
  t.match(wrong.stderr, /^compare takes two files of results\nusage: /)
  const malformed = compare(before, fileOf('cut.json', '{"format":'))
  t.equal(malformed.status, 1)
  t.equal(malformed.stdout, '')
  t.match(malformed.stderr, /^.*cut\.json is not JSON: .*\n$/)
  t.end()
})

const mistakes: [string, string, RegExp][] = [
  ['no file', path.join(folder, 'none.json'), /^cannot read .*: there is no such file$/],
  ['other JSON', fileOf('package.json', {}), /package\.json is no result of 'npm run bench/],
  ['null', fileOf('null.json', 'null'), /null\.json is no result of /],
  ['no lines', results('l.json', [], { lines: 1 }), /l\.json has no lines$/],
  ['no machine', results('m.json', [], { machine: 1 }), /m\.json names no machine$/],
  ['a line that is none', results('n.json', [5 as never]), /n\.json: line 0: not an object$/],
  [
    'a line without a floor',
    results('floor.json', [figure(steady), { bench: 'a', name: 'b' }]),
    /floor\.json: line 1: floor is not a text$/,
  ],
  [
    'a round that is no time',
    results('round.json', [figure(steady, { mediansByRoundUs: [1, '2'] })]),
    /round\.json: line 0: mediansByRoundUs holds what is no time$/,
  ],
  [
    'no rounds',
    results('none-of-it.json', [figure(steady, { floorMediansByRoundUs: [] })]),
    /none-of-it\.json: line 0: floorMediansByRoundUs is not a list of medians$/,
  ],
]
for (const [name, file, message] of mistakes) {
  t.test(`refused: ${name}`, (t) => t.rejects(readResults(file), { message }))
}
