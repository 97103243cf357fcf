import t from 'tap'

type Line = Record<string, unknown>
interface Goal {
  name: string
  floor: string
  target: number
  group: { measure: (goals: Goal[], setting: Line) => Promise<Line[]> }
}
interface Goals {
  measureAll: (planned: object[], setting: object) => Promise<Line[]>
}

const url = new URL('../../bench/goals.mjs', import.meta.url).href
const { measureAll } = (await import(url)) as Goals

/** A group that notes what it was asked for together, and finds that everything is met. */
function makeGroup() {
  const asked: unknown[] = []
  const measure = (goals: Goal[], { transport }: Line) => {
    asked.push([transport, ...goals.map(({ name }) => name)])
    return Promise.resolve(goals.map(({ name }) => ({ name, met: true })))
  }
  return { asked, measure }
}
const goal = (name: string, group: Goal['group']): Goal => {
  return { name, floor: 'something', target: 1, group }
}

t.test('goals of a group are measured together, each over its transport', async (t) => {
  const [one, two] = [makeGroup(), makeGroup()]
  const lines = await measureAll(
    [
      { goal: goal('a', one), over: 'tcp' },
      { goal: goal('b', two), over: 'tcp' },
      { goal: goal('c', one), over: 'shm' },
      { goal: goal('d', one), over: 'tcp' },
    ],
    {},
  )
  t.same(
    lines.map((line) => line.name),
    ['a', 'b', 'c', 'd'],
  )
  t.same(one.asked, [
    ['tcp', 'a', 'd'],
    ['shm', 'c'],
  ])
  t.same(two.asked, [['tcp', 'b']])
})

t.test('a goal that cannot be measured is not met, and not asked for', async (t) => {
  const group = makeGroup()
  const lines = await measureAll([{ goal: goal('a', group), over: 'shm', reason: 'no shm' }], {})
  t.match(lines, [{ name: 'a', met: null, medianUs: null, reason: 'not measured: no shm' }])
  t.same(group.asked, [])
})

t.test('a group that fails does not meet its goals, and the others are measured', async (t) => {
  const failing = { measure: () => Promise.reject(new Error('wrong data in page 3')) }
  const lines = await measureAll(
    [
      { goal: goal('a', failing), over: 'tcp' },
      { goal: goal('b', makeGroup()), over: 'tcp' },
    ],
    {},
  )
  t.match(lines[0], { name: 'a', met: false, failed: true, reason: 'failed: wrong data in page 3' })
  t.match(lines[1], { name: 'b', met: true })
})

t.test('a group that forgets a goal is found out', async (t) => {
  const forgetful = { measure: () => Promise.resolve([]) }
  await t.rejects(measureAll([{ goal: goal('a', forgetful), over: 'tcp' }], {}), {
    message: "'a' has no figure",
  })
})
