import t from 'tap'

type Line = Record<string, unknown>
interface Report {
  makeLine: (figure: object) => Line
  makeEmptyLine: (figure: object, reason: string) => Line
  toJson: (line: Line) => string
  formatTable: (lines: Line[]) => string
  describeMachine: () => string
}

const url = new URL('../../bench/lib/report.mjs', import.meta.url).href
const { describeMachine, formatTable, makeEmptyLine, makeLine, toJson } = (await import(
  url
)) as Report

const figure = {
  name: 'read fault',
  rounds: [
    [10, 20, 30],
    [20, 30, 40],
  ],
  floor: 'round trip',
  floorRounds: [[10], [10], [12]],
}
const formOfLine = ['name', 'medianUs', 'p99Us', 'floor', 'floorMedianUs', 'ratio', 'target', 'met']

t.test('a line begins with the eight keys that every benchmark keeps, in their order', (t) => {
  const line = JSON.parse(toJson(makeLine({ ...figure, extra: { faultsPerSecond: 7 } }))) as Line
  t.same(Object.keys(line).slice(0, 8), formOfLine)
  t.match(line, {
    name: 'read fault',
    medianUs: 25,
    p99Us: 40,
    floor: 'round trip',
    floorMedianUs: 10,
    ratio: 2.5,
    rounds: 2,
    samples: 6,
    roundMediansUs: [20, 30],
    floorRoundMediansUs: [10, 12],
    faultsPerSecond: 7,
  })
  t.notMatch(toJson(makeLine(figure)), /\n/)
  t.end()
})

t.test('a target is met up to and including itself, and without one nothing is', (t) => {
  t.match(makeLine({ ...figure, target: 2.5 }), { target: 2.5, met: true })
  t.match(makeLine({ ...figure, target: 2.4 }), { target: 2.4, met: false })
  const { target, met } = makeLine(figure)
  t.equal(target, null)
  t.equal(met, null)
  t.end()
})

t.test('with atLeast the ratio says how many times quicker than the floor', (t) => {
  const quick = { ...figure, floorRounds: [[50], [50]], atLeast: true }
  t.match(makeLine({ ...quick, target: 2 }), { ratio: 2, target: 2, met: true, atLeast: true })
  t.match(makeLine({ ...quick, target: 2.1 }), { ratio: 2, met: false })
  t.match(makeLine(quick), { ratio: 2, target: null, met: null })
  t.equal(makeLine({ ...quick, floorRounds: [[0.0123456]] }).ratio, 0.000494, 'never 0')
  t.notOk('atLeast' in makeLine(figure))
  t.same(Object.keys(makeLine({ ...quick, target: 2 })).slice(0, 8), formOfLine)
  t.end()
})

t.test('a figure that was not measured says why, and was not met', (t) => {
  const { name, floor } = figure
  const line = makeEmptyLine({ name, floor, target: 8, atLeast: true }, 'not measured: no device')
  t.same(line, {
    name,
    medianUs: null,
    p99Us: null,
    floor,
    floorMedianUs: null,
    ratio: null,
    target: 8,
    met: null,
    atLeast: true,
    reason: 'not measured: no device',
  })
  t.same(Object.keys(line).slice(0, 8), formOfLine)
  const rows = formatTable([line]).split('\n')
  t.match(rows[2], /^read fault +– +– +– +– +≥ 8\.00 +–$/)
  t.equal(rows[4], 'read fault: floor is round trip; not measured: no device')
  t.end()
})

t.test('the table has a row per figure, aligned, and names each floor', (t) => {
  const other = makeLine({ ...figure, name: 'upgrade', target: 2, extra: { note: 'per turn' } })
  const rows = formatTable([makeLine(figure), other]).split('\n')
  t.match(rows[0], /^name +median µs +by round +p99 µs +floor µs +by round +ratio +target +met$/)
  t.match(rows[2], /^read fault +25\.0 +20\.0–30\.0 +40\.0 +10\.0 +10\.0–12\.0 +2\.50 +– +–$/)
  t.match(rows[3], /^upgrade +25\.0 .* 2\.50 +≤ 2\.00 +NO$/)
  t.equal(new Set(rows.slice(0, 4).map((row) => row.length)).size, 1, 'one width')
  t.equal(rows[5], 'read fault: floor is round trip')
  t.equal(rows[6], 'upgrade: floor is round trip; per turn')
  t.end()
})

t.test('the facts of the machine are on one line', (t) => {
  t.match(describeMachine(), /^\d+ cores \(.+\), Linux \S+, Node v\d+\.\d+\.\d+, load \d+\.\d\d$/)
  t.end()
})
