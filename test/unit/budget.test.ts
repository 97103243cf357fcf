import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import t from 'tap'

// What `npm run test:budget` stands on: reading what callgrind counted, and saying what grew.

type Figure = Readonly<{ instructions: number; functions?: Record<string, number> }>
interface Callgrind {
  readonly selfCosts: (text: string, object?: string) => Map<string, number>
}
interface Compare {
  readonly figureOf: (costs: Map<string, number>, count: number) => Figure
  readonly compare: (
    name: string,
    figure: Figure,
    budget: Figure | undefined,
    tolerance: number,
  ) => { ok: boolean; lines: string[] }
}
const load = async (name: string): Promise<unknown> =>
  import(new URL(`../budget/${name}.mjs`, import.meta.url).href)
const { selfCosts } = (await load('callgrind')) as Callgrind
const { figureOf, compare } = (await load('compare')) as Compare

// Abridged from what callgrind writes: names are given once, costs of calls stand behind `calls`.
const counted = `version: 1
positions: line
events: Ir
ob=(1) /build/faults
fl=(1) fault.cc
fn=(1) Serve
12 30
+2 5
cob=(2) /lib/libc.so.6
cfn=(2) memcpy
calls=4 0
+1 4000
* 7
fn=(3) Wake
20 8

ob=(2)
fl=(2) memcpy.S
fn=(2)
1 4000
totals: 4050
`

t.test('what callgrind counted, by function', async (t) => {
  t.same(
    [...selfCosts(counted)],
    [
      ['Serve', 42],
      ['Wake', 8],
      ['memcpy', 4000],
    ],
  )
  t.same(
    [...selfCosts(counted, '/faults')],
    [
      ['Serve', 42],
      ['Wake', 8],
    ],
  )
  t.same([...selfCosts('')], [])
})

t.test('a figure: all instructions, and the functions that matter', async (t) => {
  const costs = new Map([
    ['small', 5],
    ['large', 995],
  ])
  t.same(figureOf(costs, 10), { instructions: 100, functions: { large: 100 } })
})

t.test('what costs more than its budget is named', async (t) => {
  const budget = { instructions: 1000, functions: { Serve: 600, Wake: 400 } }
  const more = { instructions: 1030, functions: { Wake: 400, Serve: 610, Copy: 20 } }
  t.same(compare('a fault', more, budget, 0.02), {
    ok: false,
    lines: [
      'a fault: 1030 instructions, the budget is 1000 (+3.0 %)',
      '  grew from 0 to 20: Copy',
      '  grew from 600 to 610: Serve',
    ],
  })
  t.ok(compare('a fault', { ...more, instructions: 1019 }, budget, 0.02).ok, 'within the tolerance')
  const less = compare('a fault', { instructions: 900 }, budget, 0.02)
  t.same(less, {
    ok: true,
    lines: ['a fault: 900 instructions, the budget is 1000 (−10.0 %): --update keeps the gain'],
  })
  t.notOk(compare('a fault', more, undefined, 0.02).ok, 'no budget is no pass')
})

t.test('the budget that is committed, and the command line', async (t) => {
  const { tolerance, figures } = JSON.parse(readFileSync('test/budget/budget.json', 'utf8')) as {
    tolerance: number
    figures: Record<string, Record<string, Figure>>
  }
  t.ok(tolerance > 0 && tolerance <= 0.02)
  for (const ours of Object.values(figures)) {
    for (const { instructions } of Object.values(ours)) t.ok(instructions > 100)
  }
  const run = (...args: string[]) =>
    spawnSync(process.execPath, ['test/budget/main.mjs', ...args], { encoding: 'utf8' })
  t.equal(run('--help').status, 0)
  const wrong = run('everything')
  t.equal(wrong.status, 1)
  t.match(wrong.stderr, /There is no 'everything' to count/)
})
