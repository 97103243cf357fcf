import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { loadAddon } from '../../dist/native/addon.js'

interface Moment {
  rank: number
  point: string
  page: number
  ns: number
}
interface Fault {
  path: object[]
  wholeUs: number
  phasesUs: number[]
}
interface Row {
  name: string
  part: string
  medianUs: number
  share: number
}
interface Anatomy {
  alonePath: object[]
  askedPath: object[]
  threeMemberPath: object[]
  phasesOf: (path: object[]) => { name: string; part: string }[]
  readMoments: (kept: Float64Array, rank: number, constants: Record<string, number>) => Moment[]
  joinMoments: (
    touches: object[],
    moments: Moment[],
    ranks: object,
    pathOf: (moments: Moment[]) => object[],
  ) => Fault[]
  summarize: (faults: Fault[]) => { rows: Row[]; parts: Record<string, number> }
}

const bench = new URL('../../bench/', import.meta.url)
const anatomy = (await import(`${bench.href}lib/anatomy.mjs`)) as Anatomy
const { alonePath, askedPath, threeMemberPath, joinMoments, phasesOf, summarize } = anatomy
const { formatAnatomy } = (await import(`${bench.href}lib/anatomy-table.mjs`)) as {
  formatAnatomy: (line: object) => string
}

const ranks = { thread: 1, home: 0, owner: 2 }
const noPage = 2 ** 32 - 1
const touch = { page: 7, beforeNs: 1000, afterNs: 20_000 }

/** A fault whose request wakes the home: over shared memory, to TypeScript and back. */
const asked: [number, string, number][] = [
  [1, 'Entered', 2000],
  [1, 'Asking', 2500],
  [1, 'Posted', 3000],
  [1, 'Sent', 3600],
  [0, 'EngineAwake', 5000],
  [0, 'Seen', 5500],
  [0, 'Handed', 5600],
  [0, 'Stepped', 7000],
  [0, 'Protected', 9000],
  [0, 'Posted', 10_000],
  [1, 'Woken', 13_000],
  [1, 'Came', 13_500],
  [1, 'Woken', 13_600],
  [1, 'Raised', 15_000],
  [1, 'Left', 15_200],
]

function momentsOf(list: [number, string, number][], page = touch.page): Moment[] {
  return list.map(([rank, point, ns]) => {
    return { rank, point, page: point === 'EngineAwake' ? noPage : page, ns }
  })
}

/** What each phase took, in ns; phases of nothing are left out. */
function cut(list: [number, string, number][], path = askedPath): Record<string, number> {
  const [fault] = joinMoments([touch], momentsOf(list), ranks, () => path)
  const phases = phasesOf(path).map(({ name }, index) => {
    return [name, Math.round(fault.phasesUs[index] * 1e3)] as const
  })
  return Object.fromEntries(phases.filter(([, ns]) => ns !== 0))
}

const dissected = {
  trap: 1000,
  'prepare the request': 500,
  'send the request': 500,
  "home's engine wakes": 2000,
  'home takes it': 500,
  'home: into TypeScript': 100,
  'home: step': 1400,
  'home: lower its page': 2000,
  'home: copy and send': 1000,
  'thread or its engine wakes': 3000,
  'take the answer': 500,
  'thread goes on': 100,
  'install the page': 1400,
  'leave the handler': 200,
  resume: 4800,
}

t.test('the phases of a fault add up to the whole', async (t) => {
  const phases = cut(asked)
  t.same(phases, dissected)
  const sum = Object.values(phases).reduce((total, ns) => total + ns, 0)
  t.equal(sum, touch.afterNs - touch.beforeNs)
})

t.test('moments come in no order, and those of other pages and members do not count', async (t) => {
  const others: [number, string, number][] = [
    [2, 'Seen', 5200],
    [2, 'Stepped', 5300],
    [0, 'Came', 13_550],
  ]
  const moments = [
    ...momentsOf([...asked, ...others]).reverse(),
    ...momentsOf(asked, 8).map((moment) => ({ ...moment, ns: moment.ns + 17 })),
  ].filter(({ page, ns }) => page !== noPage || ns === 5000)
  const [fault] = joinMoments([touch], moments, ranks, () => askedPath)
  t.same(
    fault.phasesUs.filter((us) => us !== 0).map((us) => Math.round(us * 1e3)),
    Object.values(dissected),
  )
})

t.test('what is not there takes no time, and the next phase has it', async (t) => {
  const optional = ['EngineAwake', 'Handed', 'Protected']
  const phases = cut(asked.filter(([, point]) => !optional.includes(point)))
  t.equal(phases["home's engine wakes"], undefined)
  t.equal(phases['home takes it'], 2500)
  t.equal(phases['home: step'], 1500)
  t.equal(phases['home: copy and send'], 3000)
})

t.test('a call that returns after the other has gone on ends there', async (t) => {
  const list = asked.filter(([rank, point]) => rank !== 1 || point !== 'Posted')
  t.equal(cut(list)['send the request'], 1100)
  const late = list.map(([rank, point, ns]) => {
    return [rank, point, point === 'Sent' ? 6000 : ns] as [number, string, number]
  })
  t.equal(cut(late)['send the request'], 2500)
  t.equal(cut(late)["home's engine wakes"], undefined)
})

t.test('a fault that lacks a moment, or has it in the wrong place, is refused', async (t) => {
  const must = ['Entered', 'Asking', 'Seen', 'Stepped', 'Came', 'Raised', 'Left']
  for (const missing of must) {
    const list = asked.filter(([, point]) => point !== missing)
    t.throws(() => cut(list), /the fault on page 7 has no .* in its place/, `without ${missing}`)
  }
  t.throws(() => cut([]), /page 7 has no Entered of thread in its place, for 'trap'/)
  const moved = (of: string, to: number) =>
    asked.map(([rank, point, ns]) => {
      return [rank, point, point === of ? to : ns] as [number, string, number]
    })
  t.throws(() => cut(moved('Seen', 2400)), /no Seen of home/, 'seen before it was asked')
  t.throws(() => cut(moved('Entered', 900)), /no Entered/, 'before the touch')
  t.throws(() => cut(moved('Left', 20_001)), /no Left/, 'after it')
  t.throws(() => cut(moved('Left', 14_000)), /no Raised/, 'left before the page was raised')
  t.throws(() => cut(moved('Stepped', 13_550)), /no Came or Seen/, 'answered after the answer')
  t.throws(
    () => joinMoments([touch, touch], momentsOf(asked), ranks, () => askedPath),
    /a page was touched more than once/,
  )
})

t.test('a copy without asking, and a fault that three members take part in', async (t) => {
  const alone: [number, string, number][] = [
    [1, 'Entered', 2000],
    [1, 'Found', 2100],
    [1, 'Copied', 3100],
    [1, 'Raised', 5000],
    [1, 'Left', 5100],
  ]
  t.same(cut(alone, alonePath), {
    ...{ trap: 1000, 'become a sharer': 100, 'copy the page': 1000 },
    ...{ 'install the page': 1900, 'leave the handler': 100, resume: 14_900 },
  })
  const owner: [number, string, number][] = [
    [2, 'Seen', 10_500],
    [2, 'Stepped', 11_000],
    [2, 'Posted', 11_700],
  ]
  const phases = cut([...asked, ...owner], threeMemberPath)
  t.match(phases, { 'owner takes it': 500, 'owner: step': 500, 'owner: copy and send': 700 })
  t.equal(phases['thread or its engine wakes'], 1300)
  t.throws(() => cut(asked, threeMemberPath), /no Seen of owner/)
})

t.test('shares add up, and what no phase has is shown', async (t) => {
  const faults = Array.from({ length: 8 }, () => {
    const [fault] = joinMoments([touch], momentsOf(asked), ranks, () => askedPath)
    return fault
  })
  const { rows, parts } = summarize(faults)
  const shares = rows.map(({ share }) => share).reduce((total, share) => total + share, 0)
  t.ok(Math.abs(shares - 1) < 1e-9)
  t.ok(Math.abs(Object.values(parts).reduce((total, share) => total + share, 0) - 1) < 1e-9)
  t.match(rows.at(-1), { name: 'unaccounted', medianUs: 0 })
  t.same(
    [...new Set(rows.map(({ part }) => part))],
    ['trap', 'request', 'wire', 'wake-up', 'directory', 'install', 'resume', 'unaccounted'],
  )
  const longer = faults.map((fault) => ({ ...fault, wholeUs: fault.wholeUs + 19 }))
  const rest = summarize(longer).rows.at(-1)
  t.match(rest, { name: 'unaccounted', medianUs: 19 })
  t.ok(Math.abs((rest?.share ?? 0) - 0.5) < 1e-9)
})

t.test('the table has each phase with its bar', async (t) => {
  const [fault] = joinMoments([touch], momentsOf(asked), ranks, () => askedPath)
  const line = { name: 'a fault', medianUs: 19, ratio: 1.1, clockUs: 0.05, takenAnotherWay: 2 }
  const text = formatAnatomy({ ...line, ...summarize([fault]) })
  t.match(text, /^a fault: 19\.00 µs, 1\.1 times as long as without time stamps\n/)
  t.match(text, /^home: lower its page +directory +2\.00 +2\.00 +10\.5 % +█+/m)
  t.match(
    text,
    /^resume +resume +4\.80 +4\.80 +25\.3 % +█{30}$/m,
    'the longest has the longest bar',
  )
  t.match(text, /^in short: trap 5\.3 %, request 2\.6 %/m)
  t.match(text, 'reading the clock before and after costs 0.05 µs')
  t.match(text, '2 faults went another way')
})

t.test('what the addon hands out is read by its own numbers', async (t) => {
  const constants = { pointSeen: 3, pointLeft: 9, kindData: 3 }
  t.same(anatomy.readMoments(Float64Array.of(5, 9, 0, 7, 6, 3, 0, 8), 1, constants), [
    { rank: 1, point: 'Left', page: 7, ns: 5 },
    { rank: 1, point: 'Seen', page: 8, ns: 6 },
  ])
  const unknown = Float64Array.of(5, 4, 0, 7)
  t.throws(() => anatomy.readMoments(unknown, 1, constants), /rank 1 .* unknown point 4/)
})

t.test('the addon that users get keeps no time stamps', async (t) => {
  const addon = loadAddon()
  t.notOk('stamps' in addon)
  t.same(
    Object.keys(addon.constants).filter((name) => name.startsWith('point')),
    [],
  )
})

t.test('more faults than stamps have room for are refused', async (t) => {
  const main = fileURLToPath(new URL('main.mjs', bench))
  const { status, stderr } = spawnSync(process.execPath, [main, 'anatomy', '--faults', '5001'], {
    encoding: 'utf8',
    timeout: 30_000,
  })
  t.equal(status, 1)
  t.match(stderr, 'anatomy takes at most 5000 faults in each batch')
})
