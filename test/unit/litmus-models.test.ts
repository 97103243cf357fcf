import t from 'tap'
import { catalogue, parseProgram, straddled, withAccess } from '../../litmus/lib/catalogue.mjs'
import {
  compiledOutcomes,
  ecmascriptOutcomes,
  sequentialOutcomes,
} from '../../litmus/lib/models.mjs'

// What the literature says of each program: the one outcome that a sequentially consistent memory
// forbids (Alglave et al., TACAS 2011, table of tests; "Herding cats", figures 5 to 20), and whether
// a compiler may bring it about where the accesses are plain. Registers first, then finals.
const known: Record<string, { forbidden: string; byCompiler: boolean }> = {
  SB: { forbidden: '0,0', byCompiler: true },
  MP: { forbidden: '1,0', byCompiler: true },
  LB: { forbidden: '1,1', byCompiler: true },
  S: { forbidden: '1,2', byCompiler: true },
  R: { forbidden: '0,2', byCompiler: true },
  '2+2W': { forbidden: '1,1', byCompiler: true },
  CoRR: { forbidden: '1,0', byCompiler: true },
  CoWW: { forbidden: '0,0,1', byCompiler: false },
  CoRW: { forbidden: '1,1', byCompiler: false },
  CoWR: { forbidden: '0,1', byCompiler: false },
  IRIW: { forbidden: '1,0,1,0', byCompiler: true },
  WRC: { forbidden: '1,1,0', byCompiler: true },
  ISA2: { forbidden: '1,1,0', byCompiler: true },
  RMW: { forbidden: '0,0,1', byCompiler: true },
  'MP+flag': { forbidden: '1,0', byCompiler: false },
  'ISA2+flags': { forbidden: '1,1,0', byCompiler: false },
}

function without(from: Set<string>, others: Set<string>): string[] {
  return [...from].filter((outcome) => !others.has(outcome)).sort()
}

t.test('every program of the catalogue has its forbidden outcome', async (t) => {
  t.same(
    catalogue.map(({ name }) => name),
    Object.keys(known),
  )
  for (const program of catalogue) {
    const { forbidden, byCompiler } = known[program.name]
    const flagged = program.name.includes('flag')
    const strong = flagged ? program : withAccess(program, 'Atomics')
    const plain = flagged ? program : withAccess(program, 'plain')
    t.notOk(sequentialOutcomes(strong).has(forbidden), `${program.name}, sequential`)
    t.notOk(compiledOutcomes(strong).has(forbidden), `${program.name}, compiled, atomic`)
    t.equal(compiledOutcomes(plain).has(forbidden), byCompiler, `${program.name}, compiled, plain`)
  }
})

t.test('how many outcomes are sequentially consistent', async (t) => {
  const counts = catalogue.map((program) => {
    const atomic = program.name.includes('flag') ? program : withAccess(program, 'Atomics')
    return [program.name, sequentialOutcomes(atomic).size]
  })
  t.same(Object.fromEntries(counts), {
    ...{ SB: 3, MP: 3, LB: 3, S: 3, R: 3, '2+2W': 3, CoRR: 3, CoWW: 6, CoRW: 3, CoWR: 3 },
    ...{ IRIW: 15, WRC: 7, ISA2: 7, RMW: 2, 'MP+flag': 3, 'ISA2+flags': 7 },
  })
})

// Two enumerations that know nothing of each other: by what a compiler does, and by axioms.
t.test("nothing is allowed that ECMAScript's memory model does not allow", async (t) => {
  for (const program of catalogue) {
    if (program.name === 'RMW') continue
    for (const access of ['Atomics', 'plain', 'as written'] as const) {
      const accessed = access === 'as written' ? program : withAccess(program, access)
      const allowed = compiledOutcomes(accessed)
      const promised = ecmascriptOutcomes(accessed)
      const what = `${program.name}, ${access}`
      t.same(without(allowed, promised), [], what)
      // The language leaves open what even a wild compiler cannot do over a coherent memory.
      const more = access === 'Atomics' || !/^Co[RW][WR]$/.test(program.name) ? [] : undefined
      if (more !== undefined) t.same(without(promised, allowed), more, `${what}: the same`)
      if (access === 'Atomics')
        t.same(promised, sequentialOutcomes(accessed), `${what}: sequential`)
    }
  }
  const plain = (text: string): Set<string> => ecmascriptOutcomes(parseProgram('', text))
  t.same(without(plain('a=x; x=1 | x=2'), compiledOutcomes(parseProgram('', 'a=x; x=1 | x=2'))), [
    '2,2',
  ])
  t.throws(() => ecmascriptOutcomes(withAccess(catalogue[13], 'plain')), /constants only/)
})

t.test('how a release and an acquire hold plain accesses', async (t) => {
  const outcomes = (text: string): Set<string> => compiledOutcomes(parseProgram('', text))
  t.ok(outcomes('x=1; y:=1 | a=y; b=x').has('1,0'), 'a plain read acquires nothing')
  t.ok(outcomes('x=1; y=1 | a:=y; b=x').has('1,0'), 'a plain write releases nothing')
  t.ok(outcomes('x:=1; a=y | y:=1; b=x').has('0,0'), 'a plain read may pass an atomic write')
  t.notOk(outcomes('a=x; y:=1 | b:=y; x=1').has('1,1'), 'nothing passes a release downwards')
  t.notOk(outcomes('x=1; a=x').has('0'), 'a thread sees its own writes')
  t.ok(outcomes('x=1; a=x; b=y | y=1; c=y; d=x').has('1,0,1,0'), 'by what it has just written')
})

t.test('adds: in one by Atomics, in two without', async (t) => {
  const program = parseProgram('', 'a=x++ | b=x++')
  t.same([...sequentialOutcomes(withAccess(program, 'Atomics'))].sort(), ['0,1,2', '1,0,2'])
  t.same([...compiledOutcomes(withAccess(program, 'plain'))].sort(), ['0,0,1', '0,1,2', '1,0,2'])
})

t.test('an access across a border is two, in any order', async (t) => {
  const program = straddled(withAccess(parseProgram('', 'x=1 | a=x'), 'plain'))
  t.same([...compiledOutcomes(program)].sort(), ['0,0', '0,1', '1,0', '1,1'])
  const again = straddled(withAccess(parseProgram('', 'x=1; a=x'), 'plain'))
  t.same([...compiledOutcomes(again)], ['1,1'], 'each half is coherent')
})

t.test('what is no program', async (t) => {
  for (const text of ['', 'x', 'x=9', 'a=b', 'x=a', 'x=1;', 'x=1 || a=x', 'a=x | a=x', 'x++']) {
    t.throws(() => parseProgram('', text), Error, text)
  }
})
