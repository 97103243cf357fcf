import t from 'tap'
import { BARRIER_WORDS, BarrierWords, NO_BARRIER_SLOT } from '../../dist/protocol/barrier-words.js'
import { type BarrierOutcome, Barriers } from '../../dist/protocol/barriers.js'

const key = 2 ** 51 + 9

interface Made {
  readonly barriers: Barriers
  readonly words: BarrierWords
  /** Whether this member, 0, had to tell the others. */
  readonly arrive: (request: number, which?: number, slot?: number) => boolean
  readonly take: () => string[]
}

function make(size: number, emit?: (made: Made, outcome: BarrierOutcome) => void): Made {
  const outcomes: string[] = []
  const words = new BarrierWords(new Int32Array(new SharedArrayBuffer(4 * BARRIER_WORDS)), size)
  const barriers: Barriers = new Barriers(size, 0, words, (outcome) => {
    const { kind, request } = outcome
    outcomes.push(kind === 'open' ? `open ${request}` : `broken ${request} by ${outcome.rank}`)
    emit?.(made, outcome)
  })
  const arrive: Made['arrive'] = (request, which = key, slot = NO_BARRIER_SLOT) =>
    barriers.arrive(which, request, slot)
  const made = { barriers, words, arrive, take: () => outcomes.splice(0) }
  return made
}

t.test('it opens when all have come, again and again', async (t) => {
  const { barriers, arrive, take } = make(3)
  for (let round = 0; round < 3; round++) {
    barriers.arrived(key, 2)
    t.equal(arrive(round), true)
    t.strictSame(take(), [])
    barriers.arrived(key, 1)
    t.strictSame(take(), [`open ${round}`])
    t.equal(barriers.barrierCount, 0, 'forgotten')
    // Or this member comes last.
    barriers.arrived(key, 1)
    barriers.arrived(key, 2)
    arrive(round + 10)
    t.strictSame(take(), [`open ${round + 10}`])
    t.equal(barriers.barrierCount, 0, 'forgotten')
  }
})

t.test('in a mesh of one it is always open', async (t) => {
  const { barriers, arrive, take } = make(1)
  arrive(1)
  arrive(2)
  t.strictSame(take(), ['open 1', 'open 2'])
  t.equal(barriers.barrierCount, 0)
})

t.test('barriers do not mix', async (t) => {
  const { barriers, arrive, take } = make(2)
  arrive(1, 1)
  barriers.arrived(2, 1)
  t.strictSame(take(), [])
  barriers.arrived(1, 1)
  t.strictSame(take(), ['open 1'])
  t.equal(barriers.barrierCount, 1)
})

t.test('who comes again waits for the next generation', async (t) => {
  const { barriers, arrive, take } = make(3)
  for (const request of [1, 2, 3]) arrive(request)
  barriers.arrived(key, 1)
  barriers.arrived(key, 1)
  t.strictSame(take(), [])
  barriers.arrived(key, 2)
  t.strictSame(take(), ['open 1'])
  barriers.arrived(key, 2)
  t.strictSame(take(), ['open 2'])
  barriers.arrived(key, 2)
  t.strictSame(take(), [])
  barriers.arrived(key, 1)
  t.strictSame(take(), ['open 3'])
  t.equal(barriers.barrierCount, 0)
})

t.test('what cannot be is a protocol error', async (t) => {
  const { barriers, take } = make(2)
  const code = 'ERR_PAGEMESH_PROTOCOL'
  for (const from of [-1, 0, 2, 0.5, NaN]) t.throws(() => barriers.arrived(key, from), { code })
  for (const bad of [-1, 2 ** 52]) {
    t.throws(() => barriers.arrived(bad, 1), { code, rank: 1, message: /barrier -?\d+: member 1 / })
  }
  barriers.memberGone(1)
  t.throws(() => barriers.arrived(key, 1), { code, rank: 1, message: /has left/ })
  t.strictSame(take(), [])
})

t.test('who is gone breaks what it has not come to, and nothing else', async (t) => {
  const { barriers, words, arrive, take } = make(3)
  arrive(1, 1)
  barriers.arrived(2, 2) // and then leaves
  arrive(2, 2)
  arrive(3, 2)
  t.equal(words.isBroken, false)
  barriers.memberGone(2)
  t.equal(words.isBroken, true)
  t.strictSame(take(), ['broken 1 by 2'], 'what it had come to waits on')
  barriers.arrived(2, 1)
  t.strictSame(take(), ['open 2', 'broken 3 by 2'])
  t.equal(arrive(4, 3), false, 'and nobody is told of what comes later')
  barriers.arrived(3, 1)
  barriers.memberGone(1)
  barriers.memberGone(0) // this member itself leaves
  arrive(5, 3)
  t.strictSame(take(), ['broken 4 by 2', 'broken 5 by 2'], 'the first to go is named')
  t.equal(barriers.barrierCount, 0)
})

t.test('nothing is left of what has failed', async (t) => {
  const { barriers, words, arrive, take } = make(2)
  arrive(1)
  arrive(2, key, 0)
  barriers.forgetAll()
  t.strictSame(take(), [])
  t.equal(words.isBroken, true)
  barriers.arrived(key, 1)
  t.strictSame(take(), [])
})

t.test('emit may arrive again at once', async (t) => {
  const { barriers, arrive, take } = make(2, (made, { request }) => {
    if (request < 3) made.arrive(request + 1)
  })
  arrive(1)
  for (let times = 0; times < 3; times++) barriers.arrived(key, 1)
  t.strictSame(take(), ['open 1', 'open 2', 'open 3'])
  t.equal(barriers.barrierCount, 0)
})

t.test('with a slot the program comes by itself', async (t) => {
  const { barriers, words, arrive, take } = make(2)
  barriers.arrived(key, 1)
  barriers.arrived(key, 1)
  t.equal(words.isBound(0), false)
  arrive(1, key, 0)
  t.strictSame(take(), ['open 1'])
  t.equal(words.isBound(0), true)
  const ticket = words.arrive(0, 0)
  t.equal(ticket, 2)
  t.equal(words.isOpen(0, ticket), true, 'rank 1 had come before there was a slot')
  const next = words.arrive(0, 0)
  t.equal(words.isOpen(0, next), false)
  t.equal(words.words[0], 0, 'the engine awaits nobody')
  barriers.await(0, next, 7)
  t.equal(words.words[0], 1, 'the engine wants to hear of arrivals')
  words.arrive(0, 1) // as native code counts
  t.strictSame(take(), [])
  barriers.look()
  t.strictSame(take(), ['open 7'])
  t.equal(words.words[0], 0)
  t.throws(() => barriers.await(1, 1, 8), /slot 1 has no barrier/)
})

t.test('counts wrap around', async (t) => {
  const { words } = make(2)
  words.bind(0, key, Int32Array.of(0x7fff_fffe, 0x7fff_ffff))
  t.equal(words.arrive(0, 0), 0x7fff_ffff)
  t.equal(words.isOpen(0, 0x7fff_ffff), true)
  const ticket = words.arrive(0, 0)
  t.equal(ticket, -0x8000_0000)
  t.equal(words.isOpen(0, ticket), false)
  words.arrive(0, 1)
  t.equal(words.isOpen(0, ticket), true)
})

t.test('meshes that words have no room for', async (t) => {
  t.equal(new BarrierWords(new Int32Array(BARRIER_WORDS), 33).exist, false)
  t.equal(new BarrierWords(new Int32Array(0), 2).exist, false)
  t.equal(new BarrierWords(new Int32Array(BARRIER_WORDS), 32).exist, true)
})
