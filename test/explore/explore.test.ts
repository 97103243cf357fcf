import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import * as path from 'node:path'
import t from 'tap'
import { ByteReader, ByteWriter } from './bytes.js'
import { cellProblems, possibleCells, unreached } from './cells.js'
import { exploreSpace, spaceNamed } from './explore.js'
import { KnownFields } from './known-fields.js'
import { mutations } from './mutations.js'
import { spaces } from './spaces.js'
import { ADD_PLACES } from '../protocol/support/cluster.js'
import { makeWorld, parseTraceFile, replay, toTraceFile } from './trace-file.js'

// How many states there are is no promise; that there are at least as many as were once found
// guards against exploring less.
const leastStates: Record<string, number> = {
  '3x1': 32_000,
  '3x1-holds': 8000,
  '3x1-fair': 8000,
  '3x1-direct': 4000,
  '3x1-discards': 16_000,
  '3x1-death': 18_000,
  '3x1-one-sided': 7000,
  '2x1-batched-one-sided': 47_000,
  '2x1-one-sided-all': 10_000,
  lock: 700,
  'lock-leave': 5000,
  'lock-death': 4500,
  token: 290,
  'token-cancel': 500,
  'token-leave': 3000,
  'token-death': 2500,
  'token-two': 500,
  barrier: 50,
  'barrier-leave': 900,
  'barrier-words': 400,
  'barrier-words-leave': 1900,
}
const reached = new Set<string>()

t.test('in every state of these small meshes all invariants hold', async (t) => {
  let last = 0
  for (const space of spaces.filter(({ short }) => short)) {
    const { states, transitions, failure, latestAdd } = exploreSpace(space, { reached })
    last = Math.max(last, latestAdd)
    const least = leastStates[space.name] ?? 1
    if (failure !== undefined) {
      const { lines } = replay(toTraceFile(space.name, null, failure))
      t.fail(`${space.name}: ${failure.message}\n${lines.join('\n')}`)
    } else {
      t.ok(states >= least, `${space.name}: ${states} states, ${transitions} transitions`)
    }
  }
  t.ok(last > 1 && last < ADD_PLACES, `members add themselves at ${last} places within a step`)
})

t.test('the tables have no cell that nothing reaches, but those that say why', async (t) => {
  t.strictSame(cellProblems(reached), [])
  const fewer = new Set([...reached].filter((cell) => cell !== 'page: none × readFault'))
  t.match(cellProblems(fewer), [/none × readFault is not reached/], 'one that is not reached')
  const more = new Set(possibleCells())
  t.equal(cellProblems(more).length, unreached.size, 'reasons for what is reached')
})

t.test('whatever is broken is found, and a trace of it fails again', async (t) => {
  t.ok(mutations.length >= 20)
  t.equal(new Set(mutations.map(({ name }) => name)).size, mutations.length)
  // Those that take a large space are left to npm run explore, which tries all.
  const shortSpaces = new Set(spaces.filter(({ short }) => short).map(({ name }) => name))
  const tried = mutations.filter(({ space }) => shortSpaces.has(space))
  t.ok(tried.length >= 70, `${tried.length} of ${mutations.length} mutations`)
  for (const mutation of tried) {
    const { failure, states } = exploreSpace(spaceNamed(mutation.space), { mutation })
    if (failure === undefined) {
      t.fail(`${mutation.name}: not found in ${mutation.space}`)
      continue
    }
    const text = JSON.stringify(toTraceFile(mutation.space, mutation.name, failure))
    const again = replay(parseTraceFile(text))
    t.strictSame(
      [again.violation, again.step],
      [{ invariant: failure.invariant, message: failure.message }, failure.path.length],
      `${mutation.name}: ${failure.invariant}, after ${states} states`,
    )
    const healthy = replay({ ...parseTraceFile(text), mutation: null })
    t.not(healthy.violation?.message, failure.message, 'and does not without the mutation')
  }
})

t.test('states that are alike but for names: as many as without symmetry', async (t) => {
  for (const name of ['3x1-direct', '2x2-block', 'lock', 'barrier']) {
    const space = spaceNamed(name)
    const { world } = makeWorld(name, null, true)
    t.ok(world.symmetryCount > 1, `${name}: ${world.symmetryCount} ways to rename`)
    const reduced = exploreSpace(space).states
    t.equal(orbits(name), reduced, `${name}: ${reduced} states`)
  }
})

/** How many classes of states there are, found without ever leaving one out. */
function orbits(name: string): number {
  const { world } = makeWorld(name, null, true)
  const out = new ByteWriter()
  const reader = new ByteReader()
  const write = (symmetry: number): string => {
    world.write(out, symmetry)
    return Buffer.from(out.bytes.subarray(0, out.length)).toString('latin1')
  }
  const classes = new Set<string>()
  const seen = new Set<string>()
  const waiting: string[] = []
  const visit = (): void => {
    const own = write(0)
    if (seen.has(own)) return
    seen.add(own)
    waiting.push(own)
    const all = Array.from({ length: world.symmetryCount }, (_, symmetry) => write(symmetry))
    classes.add(all.sort()[0])
  }
  const restore = (state: string): void => {
    reader.begin(Buffer.from(state, 'latin1'), 0)
    world.read(reader)
  }
  visit()
  for (let state = waiting.pop(); state !== undefined; state = waiting.pop()) {
    restore(state)
    for (const choice of world.choices()) {
      restore(state)
      world.perform(choice)
      visit()
    }
  }
  return classes.size
}

t.test('a state that is written and read is the same state', async (t) => {
  for (const { name, make } of spaces) {
    const world = make({ symmetric: false })
    const out = new ByteWriter()
    const again = new ByteWriter()
    const reader = new ByteReader()
    let same = true
    for (let step = 0; step < 300; step++) {
      world.write(out, 0)
      const before = world.choices()
      reader.begin(out.bytes, 0)
      world.read(reader)
      world.write(again, 0)
      const size = out.length === again.length
      same &&=
        size &&
        Buffer.compare(out.bytes.subarray(0, out.length), again.bytes.subarray(0, again.length)) ===
          0
      const choices = world.choices()
      same &&= choices.length === before.length
      if (choices.length === 0) break
      world.perform(choices[(step * 7919) % choices.length])
    }
    t.ok(same, name)
  }
})

t.test('a field that the explorer does not know stops it', async (t) => {
  const fields = new KnownFields()
  t.throws(() => fields.check({ known: 1, other: 2 }, ['known']), /what 'other' of a Object holds/)
  const later = new Map<number, number>()
  fields.check({ known: 1, later, run: () => 1 }, ['known'])
  fields.checkEmpty()
  later.set(1, 1)
  t.throws(() => fields.checkEmpty(), /'later' of a Object has been filled/)
})

t.test('the command', async (t) => {
  const folder = t.testdir({})
  const file = path.join(folder, 'trace.json')
  const run = (...args: string[]): { status: number | null; out: string } => {
    const command = ['scripts/run-typescript.mjs', 'test/explore/main.ts', ...args]
    const { status, stdout, stderr } = spawnSync(process.execPath, command, { encoding: 'utf8' })
    return { status, out: stdout + stderr }
  }
  const name = 'acknowledgements are lost'
  const found = run('--mutation', name, '--trace', file)
  t.match(found, { status: 0, out: /every request is answered[^]*1 of 1 mutations found/ })
  t.equal(parseTraceFile(fs.readFileSync(file, 'utf8')).mutation, name)
  t.match(run('--replay', file), { status: 1, out: /That is what the file says/ })
  const small = run('--space', 'lock-fair', '--json')
  t.equal(small.status, 0)
  t.match(JSON.parse(small.out), { space: 'lock-fair', failure: null, depth: Number })
  t.match(run('--space', 'lock', '--most-states', '10'), { status: 1, out: /1 failed/ })
  t.match(run('--space', 'sea'), { status: 2, out: /no space is called 'sea'; there are 3x1/ })
  t.match(run('--most-states', 'x'), { status: 2, out: /takes a whole number/ })
  t.match(run('--mutation', 'x'), { status: 2, out: /no mutation is called 'x'/ })
  t.match(run('--help'), { status: 0, out: /usage: npm run explore/ })
  t.match(run('--list'), { status: 0, out: /3x1-death[^]*nobody is woken/ })
})

t.test('a space with too many states', async (t) => {
  t.throws(() => exploreSpace(spaceNamed('3x1'), { mostStates: 100 }), /more than 100 states/)
})
