import t from 'tap'
import { BarrierManager, type BarrierOutcome } from '../../dist/protocol/barriers.js'

const id = 2 ** 51 + 9

function make(size: number): { manager: BarrierManager; take: () => BarrierOutcome[] } {
  const outcomes: BarrierOutcome[] = []
  const manager = new BarrierManager(size, (outcome) => outcomes.push(outcome))
  return { manager, take: () => outcomes.splice(0) }
}

const open = (to: number, request: number): BarrierOutcome => ({ kind: 'open', to, request })
const broken = (to: number, request: number, rank: number): BarrierOutcome => ({
  kind: 'broken',
  to,
  request,
  rank,
})

t.test('the last arrival opens it for all, again and again', async (t) => {
  const { manager, take } = make(3)
  for (let round = 0; round < 3; round += 1) {
    manager.arrive(id, 2, round)
    manager.arrive(id, 0, round)
    t.strictSame(take(), [])
    manager.arrive(id, 1, round)
    t.strictSame(take(), [open(2, round), open(0, round), open(1, round)])
    t.equal(manager.barrierCount, 0, 'forgotten')
  }
})

t.test('in a mesh of one it is always open', async (t) => {
  const { manager, take } = make(1)
  manager.arrive(id, 0, 1)
  manager.arrive(id, 0, 2)
  t.strictSame(take(), [open(0, 1), open(0, 2)])
  t.equal(manager.barrierCount, 0)
})

t.test('barriers do not mix', async (t) => {
  const { manager, take } = make(2)
  manager.arrive(1, 0, 1)
  manager.arrive(2, 1, 1)
  t.strictSame(take(), [])
  manager.arrive(1, 1, 2)
  t.strictSame(take(), [open(0, 1), open(1, 2)])
  t.equal(manager.barrierCount, 1)
})

t.test('a member that arrives again waits for the next generation', async (t) => {
  const { manager, take } = make(3)
  manager.arrive(id, 0, 1)
  manager.arrive(id, 0, 2)
  manager.arrive(id, 0, 3)
  manager.arrive(id, 1, 1)
  manager.arrive(id, 1, 2)
  t.strictSame(take(), [])
  manager.arrive(id, 2, 1)
  t.strictSame(take(), [open(0, 1), open(1, 1), open(2, 1)])
  manager.arrive(id, 2, 2)
  t.strictSame(take(), [open(0, 2), open(1, 2), open(2, 2)])
  manager.arrive(id, 2, 3)
  t.strictSame(take(), [])
  manager.arrive(id, 1, 3)
  t.strictSame(take(), [open(0, 3), open(2, 3), open(1, 3)])
  t.equal(manager.barrierCount, 0)
})

t.test('a request that waits already is a protocol error', async (t) => {
  const { manager, take } = make(2)
  const code = 'ERR_PAGEMESH_PROTOCOL'
  manager.arrive(id, 0, 1)
  manager.arrive(id, 0, 2)
  t.throws(() => manager.arrive(id, 0, 1), { code, rank: 0, message: /barrier \d+: member 0 / })
  t.throws(() => manager.arrive(id, 0, 2), { code })
  for (const rank of [-1, 2, 0.5, NaN]) t.throws(() => manager.arrive(id, rank, 1), { code })
  t.strictSame(take(), [])
})

t.test('a member that is gone breaks what waits and what comes later', async (t) => {
  const { manager, take } = make(3)
  manager.arrive(1, 0, 1)
  manager.arrive(1, 0, 2)
  manager.arrive(1, 2, 1)
  manager.arrive(1, 2, 2)
  manager.arrive(2, 1, 1)
  manager.memberGone(2)
  t.strictSame(take(), [broken(0, 1, 2), broken(0, 2, 2), broken(1, 1, 2)])
  t.equal(manager.barrierCount, 0)
  manager.arrive(3, 1, 2)
  t.strictSame(take(), [broken(1, 2, 2)])
  manager.arrive(3, 2, 9)
  t.strictSame(take(), [], 'the gone member is told nothing')
  manager.memberGone(1)
  manager.arrive(3, 0, 3)
  t.strictSame(take(), [broken(0, 3, 2)], 'the first to go is named')
  t.equal(manager.barrierCount, 0)
})

t.test('emit may arrive again at once', async (t) => {
  const opened: string[] = []
  const manager: BarrierManager = new BarrierManager(2, ({ to, request }) => {
    opened.push(`${to}/${request}`)
    if (request < 3) manager.arrive(id, to, request + 1)
  })
  manager.arrive(id, 0, 1)
  manager.arrive(id, 1, 1)
  t.strictSame([...opened].sort(), ['0/1', '0/2', '0/3', '1/1', '1/2', '1/3'])
  t.equal(manager.barrierCount, 0)
})
