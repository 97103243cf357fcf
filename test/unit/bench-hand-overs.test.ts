import t from 'tap'

interface Holds {
  requestedUs: ArrayLike<number>
  acquiredUs: ArrayLike<number>
  releasedUs: ArrayLike<number>
}
interface HandOvers {
  handOversUs: (members: Holds[], waitingUs: number) => number[]
  holdIntervalsUs: (members: Holds[]) => number[]
  barriersUs: (members: { cameUs: number[]; leftUs: number[] }[]) => Float64Array
}

const url = new URL('../../bench/lib/hand-overs.mjs', import.meta.url).href
const { barriersUs, handOversUs, holdIntervalsUs } = (await import(url)) as HandOvers

/** Two members: the first holds at 0–100 and 205–300, the second at 110–200 and 310–400. */
const first = { requestedUs: [0, 101], acquiredUs: [0, 205], releasedUs: [100, 300] }
const second = { requestedUs: [5, 201], acquiredUs: [110, 310], releasedUs: [200, 400] }

t.test('a hand-over is from the release until the other has the lock', (t) => {
  t.same(handOversUs([first, second], 50), [10, 5, 10])
  t.same(handOversUs([second, first], 50), [10, 5, 10], 'whoever is named first')
  t.same(holdIntervalsUs([first, second]), [110, 95, 105])
  t.end()
})

t.test('only a member that waited was handed the lock', (t) => {
  const late = { requestedUs: [95], acquiredUs: [110], releasedUs: [120] }
  const holder = { requestedUs: [0], acquiredUs: [0], releasedUs: [100] }
  t.same(handOversUs([holder, late], 10), [])
  t.same(handOversUs([holder, late], 5), [10])
  t.end()
})

t.test('a member does not hand the lock to itself', (t) => {
  t.same(handOversUs([{ requestedUs: [0, 0], acquiredUs: [0, 20], releasedUs: [10, 30] }], 0), [])
  t.end()
})

t.test('two that hold the lock at the same time are found out', (t) => {
  const early = { requestedUs: [5], acquiredUs: [99], releasedUs: [150] }
  const wrong = { message: 'members 0 and 1 held the lock at the same time' }
  t.throws(() => handOversUs([first, early], 0), wrong)
  t.throws(() => holdIntervalsUs([first, early]), wrong)
  t.end()
})

t.test('a barrier is timed at the first member', (t) => {
  const members = [
    { cameUs: [0, 30], leftUs: [20, 41] },
    { cameUs: [10, 25], leftUs: [22, 40] },
  ]
  t.same([...barriersUs(members)], [20, 11])
  t.end()
})

t.test('a barrier that lets somebody pass before all have come is found out', (t) => {
  const members = [
    { cameUs: [0, 30], leftUs: [20, 34] },
    { cameUs: [10, 35], leftUs: [22, 40] },
  ]
  t.throws(() => barriersUs(members), { message: 'barrier 1 let a member pass too early' })
  t.end()
})
