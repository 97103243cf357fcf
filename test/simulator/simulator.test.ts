import { spawnSync } from 'node:child_process'
import t from 'tap'
import { shapeOf } from './command-line.js'
import { findFailure } from './find.js'
import { MUTATION_SETTINGS, mutations } from './mutations.js'
import { fixedCosts, formatScale, measureScale } from './scale.js'
import { type Pattern, PATTERNS, type Settings } from './settings.js'
import { World } from './world.js'

const base: Settings = { ...MUTATION_SETTINGS, slowMembers: 0, operations: 10 }

function linesOf(settings: Settings): string[] {
  const lines: string[] = []
  new World(settings, (line) => lines.push(line)).run()
  return lines
}

t.test('one seed is one history, byte for byte, and another seed is another', async (t) => {
  for (const pattern of PATTERNS) {
    const settings: Settings = { ...base, members: 6, pattern, kills: 1, stops: 1, direct: true }
    const first = linesOf(settings)
    t.ok(first.length > 50, `${pattern}: ${first.length} lines`)
    t.strictSame(linesOf(settings), first)
    const { digest } = new World(settings).run()
    t.equal(new World(settings).run().digest, digest)
    t.not(new World({ ...settings, seed: 2 }).run().digest, digest)
  }
})

t.test('meshes of every shape', async (t) => {
  const patterns = new Set<Pattern>()
  let died = 0
  let events = 0
  for (let seed = 1; seed <= 40; seed++) {
    const settings = { ...shapeOf(seed, 40), seed, sabotage: {} }
    const world = new World(settings)
    events += world.run().counts.events
    patterns.add(settings.pattern)
    if (world.everDied) died++
  }
  t.ok(patterns.size >= 4, [...patterns].join())
  t.ok(died >= 5, `${died} of 40 lost members`)
  t.ok(events > 40_000, `${events} events`)
})

t.test('members on one host read without asking, and ask less', async (t) => {
  for (const pattern of ['random', 'readers'] as const) {
    let asked = 0
    let less = 0
    for (let seed = 1; seed <= 20; seed++) {
      const settings: Settings = { ...base, seed, pattern, operations: 40, latencyNs: 500 }
      asked += new World(settings).run().counts.pageMessages
      less += new World({ ...settings, oneSided: true }).run().counts.pageMessages
    }
    t.ok(less < asked, `${pattern}: ${less} messages instead of ${asked}`)
  }
  for (let seed = 1; seed <= 10; seed++) {
    const dying: Settings = { ...base, seed, oneSided: true, kills: 1, stops: 2, operations: 30 }
    t.ok(new World({ ...dying, direct: seed % 2 === 0 }).run().counts.touches > 0)
  }
})

t.test('hundreds of members', async (t) => {
  const readers = new World({ ...base, members: 300, pattern: 'readers', operations: 1, pages: 2 })
  const { counts } = readers.run()
  t.ok(counts.faults >= 2 * 299)
  t.equal(counts.barriers, 2 * 300)
  t.ok(counts.farBytes >= 4 * 9, 'sharers beyond the first word are at the home')
  const locks = new World({ ...base, members: 1000, pattern: 'locks', operations: 1 }).run()
  t.equal(locks.counts.acquires, 1000)
})

t.test('members that die are noticed by all, in each view', async (t) => {
  let lost = 0
  for (let seed = 1; seed <= 10; seed++) {
    const world = new World({ ...base, seed, members: 40, kills: 3, operations: 8 })
    lost += world.run().counts.lostTouches
    const dead = world.members.filter(({ alive }) => !alive)
    t.ok(dead.length >= 1)
    for (const { alive, members } of world.members) {
      if (alive) t.equal(members.view, 1 + dead.length)
    }
  }
  t.ok(lost > 0, `${lost} touches of pages that went down with their owners`)
})

t.test('whatever is broken on purpose is found', async (t) => {
  t.ok(mutations.length >= 20)
  for (const mutation of mutations) {
    const failure = findFailure(mutation, 24)
    t.ok(failure, `${mutation.name}: ${failure?.why ?? 'nothing fails'}`)
  }
})

t.test('what is not broken is not found', async (t) => {
  const shapes = new Map(
    mutations.map(({ settings }) => [JSON.stringify(settings ?? {}), settings]),
  )
  for (const [name, settings = {}] of shapes) {
    const nothing = { name, sabotage: () => ({}), settings }
    t.equal(findFailure(nothing, 3), undefined, name)
  }
})

t.test('the table of costs', async (t) => {
  const rows = measureScale([2, 4], () => undefined)
  t.equal(rows.length, 10)
  for (const row of rows) {
    const named = `${row.pattern}, ${row.members}`
    t.ok(row.messagesPerFault >= 1 && row.messagesPerFault < 8, `${named}: messages`)
    t.ok(row.bytesPerFault > 64, `${named}: bytes`)
    t.equal(row.directoryBytesPerPage, 8, `${named}: nothing beside the entries`)
  }
  const [first, , ...others] = formatScale(rows).split('\n')
  t.match(first, /^\| pattern +\| members \|/)
  t.equal(others.length, rows.length)
  t.ok(others.every((line) => line.length === first.length))
  t.strictSame(fixedCosts(33), {
    members: 33,
    connections: 528,
    heartbeatBytesPerBeat: 67_584,
    mostDirectoryBytesPerPage: 12,
  })
})

function simulate(...args: string[]) {
  const program = ['scripts/run-typescript.mjs', 'test/simulator/main.ts', ...args]
  return spawnSync(process.execPath, program, { encoding: 'utf8' })
}

t.test('the command', async (t) => {
  const short = ['--members', '4', '--operations', '10']
  const one = simulate('--seed', '7', ...short)
  t.equal(one.status, 0)
  t.match(one.stdout, /seed 7: 4 members.*all invariants hold\n +history +[0-9a-f]{64} /)
  t.equal(simulate('--seed', '7', ...short).stdout, one.stdout)
  t.equal(one.stderr, '', 'no progress where nobody looks')
  const trace = simulate('--seed', '7', ...short, '--trace').stdout
  t.ok(trace.endsWith(one.stdout), 'the history goes before')
  t.ok(trace.split('\n').length > 100)
  const many = simulate('--seeds', '3', '--any-shape', '--json')
  t.equal(many.stdout.trim().split('\n').length, 3)
  t.match(JSON.parse(many.stdout.split('\n')[0]), { seed: 1, digest: /^[0-9a-f]{64}$/ })
})

t.test('the command fails, and says how to see why', async (t) => {
  const args = ['--mutation', 'releases-lost', '--pattern', 'locks', '--operations', '10']
  const failed = simulate('--seeds', '3', ...args)
  t.equal(failed.status, 1)
  t.match(failed.stderr, /seed 1 failed: rank \d+ waits for ever to (acquire|barrier)/)
  const replay = `npm run simulate -- --seed 1 ${args.join(' ')} --trace`
  t.ok(failed.stderr.trimEnd().endsWith(replay), failed.stderr.slice(-300))
  const again = simulate('--seed', '1', ...args, '--trace')
  t.equal(again.status, 1)
  t.match(again.stdout, /FAILED: rank \d+ waits for ever to (acquire|barrier)/)
})

t.test('bad arguments are named', async (t) => {
  const wrong: readonly [RegExp, ...string[]][] = [
    [/--members takes a whole number from 1 to 1023, not '0'/, '--members', '0'],
    [/--pattern takes one of random, .* not 'x'/, '--pattern', 'x'],
    [/--placement takes block, cyclic or a rank from 0 to 7, not '8'/, '--placement', '8'],
    [/--kill 8 leaves none of 8 members/, '--kill', '8'],
    [/no mutation is called 'x'/, '--mutation', 'x'],
    [/--latency-us takes a number from 0/, '--latency-us', '1e3x'],
    [/Unknown option '--nonsense'/, '--nonsense'],
  ]
  const { parseCommandLine } = await import('./command-line.js')
  for (const [message, ...args] of wrong) t.throws(() => parseCommandLine(args), { message })
  const { status, stderr } = simulate('--members', '0')
  t.equal(status, 2)
  t.match(stderr, /usage: npm run simulate/)
  t.equal(simulate('--help').status, 0)
})
