import t from 'tap'
import {
  type Next,
  SemaphoreManager,
  type SemaphoreOutcome,
} from '../../dist/protocol/semaphores.js'

const lock = 2 ** 51 + 3

type Of<K> = Extract<SemaphoreOutcome, { kind: K }>
type Told = Exclude<SemaphoreOutcome, { kind: 'granted' | 'recall' }> | Granted | Recall
type Granted = Omit<Of<'granted'>, 'stays' | 'next'> & { stays?: true; next?: Next }
type Recall = Omit<Of<'recall'>, 'next'> & { next?: Next }

/** What the manager says; of a grant whether it stays only if it does, and who is next if it says. */
function make(): { manager: SemaphoreManager; take: () => Told[] } {
  const outcomes: Told[] = []
  const manager = new SemaphoreManager((outcome) => {
    if (outcome.kind !== 'granted' && outcome.kind !== 'recall') return outcomes.push(outcome)
    const { next, ...told } = outcome
    const named = next === undefined ? {} : { next }
    if (told.kind === 'recall') return outcomes.push({ ...told, ...named })
    const { stays, ...granted } = told
    return outcomes.push({ ...granted, ...named, ...(stays ? { stays } : {}) })
  })
  return { manager, take: () => outcomes.splice(0) }
}

/** Numbers in [0, 1) that are the same for the same seed. */
function randomOf(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

t.test('a lock passes on in order of arrival', async (t) => {
  const { manager, take } = make()
  for (const rank of [2, 0, 1]) manager.acquire(lock, rank, 7, 1, 'wait')
  t.strictSame(take(), [{ kind: 'granted', to: 2, request: 7 }])
  manager.release(lock, 2, 7)
  t.strictSame(take(), [{ kind: 'granted', to: 0, request: 7 }])
  manager.acquire(lock, 2, 8, 1, 'wait')
  manager.release(lock, 0, 7)
  t.strictSame(take(), [{ kind: 'granted', to: 1, request: 7 }])
  manager.release(lock, 1, 7)
  t.strictSame(take(), [{ kind: 'granted', to: 2, request: 8 }])
  manager.release(lock, 2, 8)
  t.strictSame(take(), [])
  t.equal(manager.semaphoreCount, 0)
})

t.test('as many as there are permits hold at once', async (t) => {
  const { manager, take } = make()
  for (const rank of [0, 1, 2, 3]) manager.acquire(5, rank, 1, 3, 'wait')
  t.strictSame(
    take().map(({ to }) => to),
    [0, 1, 2],
  )
  manager.release(5, 1, 1)
  t.strictSame(take(), [{ kind: 'granted', to: 3, request: 1 }])
})

t.test('one member may hold several permits, each by its own request', async (t) => {
  const { manager, take } = make()
  manager.acquire(5, 0, 1, 2, 'wait')
  manager.acquire(5, 0, 2, 2, 'wait')
  manager.acquire(5, 0, 3, 2, 'wait')
  t.equal(take().length, 2)
  manager.release(5, 0, 2)
  t.strictSame(take(), [{ kind: 'granted', to: 0, request: 3 }])
})

t.test('a try is granted or refused at once and never queues', async (t) => {
  const { manager, take } = make()
  manager.acquire(lock, 0, 1, 1, 'try')
  manager.acquire(lock, 1, 1, 1, 'try')
  t.strictSame(take(), [
    { kind: 'granted', to: 0, request: 1 },
    { kind: 'refused', to: 1, request: 1 },
  ])
  manager.acquire(lock, 2, 1, 1, 'wait')
  manager.release(lock, 0, 1)
  manager.acquire(lock, 1, 2, 1, 'try')
  t.strictSame(take(), [
    { kind: 'granted', to: 2, request: 1 },
    { kind: 'refused', to: 1, request: 2 },
  ])
  manager.release(lock, 2, 1)
  manager.acquire(lock, 1, 2, 1, 'try')
  t.strictSame(take(), [{ kind: 'granted', to: 1, request: 2 }])
})

t.test('a cancelled waiter is passed over', async (t) => {
  const { manager, take } = make()
  for (const rank of [0, 1, 2]) manager.acquire(lock, rank, 1, 1, 'wait')
  take()
  manager.cancel(lock, 1, 1)
  t.strictSame(take(), [{ kind: 'cancelled', to: 1, request: 1 }])
  manager.release(lock, 0, 1)
  t.strictSame(take(), [{ kind: 'granted', to: 2, request: 1 }])
})

t.test('a cancel that crosses the grant is ignored, as is an unknown one', async (t) => {
  const { manager, take } = make()
  manager.acquire(lock, 0, 1, 1, 'wait')
  take()
  manager.cancel(lock, 0, 1)
  manager.cancel(lock, 0, 2)
  manager.cancel(lock, 3, 1)
  manager.cancel(99, 0, 1)
  t.strictSame(take(), [])
  manager.release(lock, 0, 1)
  manager.cancel(lock, 0, 1)
  t.strictSame(take(), [])
  t.equal(manager.semaphoreCount, 0)
})

t.test('a cancel that names another semaphore takes nobody out', async (t) => {
  const { manager, take } = make()
  manager.acquire(lock, 0, 1, 1, 'wait')
  manager.acquire(lock, 1, 1, 1, 'wait')
  take()
  manager.cancel(lock + 1, 1, 1)
  manager.release(lock, 0, 1)
  t.strictSame(take(), [{ kind: 'granted', to: 1, request: 1 }])
})

t.test('another number of permits is a mismatch while the semaphore is in use', async (t) => {
  const { manager, take } = make()
  manager.acquire(5, 0, 1, 3, 'wait')
  take()
  manager.acquire(5, 1, 1, 2, 'wait')
  manager.acquire(5, 1, 2, 4, 'try')
  t.strictSame(take(), [
    { kind: 'mismatch', to: 1, request: 1, permits: 3 },
    { kind: 'mismatch', to: 1, request: 2, permits: 3 },
  ])
  manager.release(5, 0, 1)
  manager.acquire(5, 1, 1, 2, 'wait')
  t.strictSame(take(), [{ kind: 'granted', to: 1, request: 1 }])
})

t.test('what cannot be is a protocol error that names semaphore and member', async (t) => {
  const { manager, take } = make()
  const code = 'ERR_PAGEMESH_PROTOCOL'
  manager.acquire(lock, 0, 1, 1, 'wait')
  manager.acquire(lock, 1, 1, 1, 'wait')
  take()
  const named = { code, rank: 1, message: new RegExp(`semaphore ${lock}: member 1 `) }
  t.throws(() => manager.release(lock, 1, 1), named, 'still queued')
  t.throws(() => manager.release(lock, 1, 2), named, 'never asked')
  t.throws(() => manager.release(lock + 1, 0, 1), { code, rank: 0 }, 'held, but another one')
  t.throws(() => manager.acquire(lock, 1, 1, 1, 'wait'), named, 'queued already')
  t.throws(() => manager.acquire(6, 0, 1, 1, 'wait'), { code, message: /held/ }, 'held elsewhere')
  for (const permits of [0, -1, 1.5, NaN, Infinity]) {
    t.throws(() => manager.acquire(8, 2, 1, permits, 'wait'), { code, message: /permits/ })
  }
  t.strictSame(take(), [], 'nothing was said')
  manager.release(lock, 0, 1)
  t.strictSame(take(), [{ kind: 'granted', to: 1, request: 1 }], 'and nothing has changed')
  manager.release(lock, 1, 1)
  t.throws(() => manager.release(lock, 1, 1), named, 'released twice')
})

t.test('a member that is gone waits no more and passes on what it held', async (t) => {
  const { manager, take } = make()
  manager.acquire(1, 0, 1, 1, 'wait')
  manager.acquire(1, 0, 2, 1, 'wait') // behind itself: must not get its own permit
  manager.acquire(1, 1, 1, 1, 'wait')
  manager.acquire(2, 1, 2, 1, 'wait')
  manager.acquire(2, 0, 3, 1, 'wait')
  manager.acquire(2, 2, 1, 1, 'wait')
  manager.acquire(3, 0, 4, 2, 'wait')
  manager.acquire(3, 0, 5, 2, 'wait')
  manager.acquire(3, 1, 3, 2, 'wait')
  manager.acquire(3, 2, 2, 2, 'wait')
  take()
  manager.memberGone(0)
  t.strictSame(take(), [
    { kind: 'granted', to: 1, request: 1 },
    { kind: 'granted', to: 1, request: 3 },
    { kind: 'granted', to: 2, request: 2 },
  ])
  manager.release(2, 1, 2)
  t.strictSame(take(), [{ kind: 'granted', to: 2, request: 1 }])
})

t.test('what a gone member had sent is dropped', async (t) => {
  const { manager, take } = make()
  manager.acquire(1, 0, 1, 1, 'wait')
  manager.memberGone(0)
  manager.memberGone(0)
  manager.memberGone(5)
  take()
  manager.release(1, 0, 1)
  manager.cancel(1, 0, 1)
  manager.acquire(1, 0, 2, 1, 'wait')
  t.strictSame(take(), [])
  t.equal(manager.semaphoreCount, 0)
})

t.test('a permit that stays is recalled once, when somebody waits for it', async (t) => {
  const { manager, take } = make()
  manager.acquire(lock, 0, 1, 1, 'wait', true)
  t.strictSame(take(), [{ kind: 'granted', to: 0, request: 1, stays: true }])
  manager.acquire(lock, 1, 1, 1, 'wait', true)
  t.strictSame(take(), [{ kind: 'recall', to: 0, request: 1, id: lock, answer: false }])
  manager.acquire(lock, 2, 1, 1, 'wait', true)
  t.strictSame(take(), [], 'it has been told')
  manager.release(lock, 0, 1)
  t.strictSame(take(), [{ kind: 'granted', to: 1, request: 1 }], 'rank 2 waits: it may not stay')
  manager.acquire(lock, 0, 2, 1, 'wait', true)
  t.strictSame(take(), [], 'and so no recall is needed')
  manager.release(lock, 1, 1)
  manager.cancel(lock, 0, 2)
  t.strictSame(take(), [
    { kind: 'granted', to: 2, request: 1 },
    { kind: 'cancelled', to: 0, request: 2 },
  ])
  manager.release(lock, 2, 1)
  t.equal(manager.semaphoreCount, 0)
})

t.test('only the permit of a lock whose holder can keep it stays', async (t) => {
  const { manager, take } = make()
  manager.acquire(lock, 0, 1, 1, 'wait')
  manager.acquire(lock, 1, 1, 1, 'wait', true)
  manager.acquire(5, 0, 2, 2, 'wait', true)
  manager.acquire(5, 1, 2, 2, 'wait', true)
  manager.acquire(5, 2, 1, 2, 'wait', true)
  t.strictSame(take(), [
    { kind: 'granted', to: 0, request: 1 },
    { kind: 'granted', to: 0, request: 2 },
    { kind: 'granted', to: 1, request: 2 },
  ])
  manager.release(lock, 0, 1)
  t.strictSame(take(), [{ kind: 'granted', to: 1, request: 1, stays: true }])
})

t.test('a try asks whoever keeps the permit', async (t) => {
  const { manager, take } = make()
  const recall = { kind: 'recall', to: 0, request: 1, id: lock, answer: true }
  manager.acquire(lock, 0, 1, 1, 'wait', true)
  take()
  manager.acquire(lock, 1, 1, 1, 'try', true)
  manager.acquire(lock, 2, 1, 1, 'try', true)
  t.strictSame(take(), [recall], 'one question for all of them')
  manager.release(lock, 0, 1)
  t.strictSame(take(), [
    { kind: 'granted', to: 1, request: 1, stays: true },
    { kind: 'refused', to: 2, request: 1 },
  ])
  manager.acquire(lock, 0, 1, 1, 'try', true)
  take()
  manager.inUse(lock, 1, 1)
  t.strictSame(take(), [{ kind: 'refused', to: 0, request: 1 }])
  manager.acquire(lock, 0, 1, 1, 'try', true)
  t.strictSame(take(), [{ ...recall, to: 1 }], 'it may have let go since')
  manager.release(lock, 1, 1)
  t.strictSame(take(), [{ kind: 'granted', to: 0, request: 1, stays: true }])
  manager.release(lock, 0, 1)
  t.equal(manager.semaphoreCount, 0)
})

t.test('a try does not queue, and who queues makes tries fail', async (t) => {
  const { manager, take } = make()
  manager.acquire(lock, 0, 1, 1, 'wait', true)
  manager.acquire(lock, 1, 1, 1, 'try', true)
  manager.acquire(lock, 2, 1, 1, 'wait', true)
  take()
  manager.acquire(lock, 1, 2, 1, 'try', true)
  t.strictSame(take(), [{ kind: 'refused', to: 1, request: 2 }], 'somebody waits')
  manager.inUse(lock, 0, 1)
  t.strictSame(take(), [{ kind: 'refused', to: 1, request: 1 }])
  manager.release(lock, 0, 1)
  t.strictSame(take(), [{ kind: 'granted', to: 2, request: 1, stays: true }])
})

t.test('a recall for a waiter that gave up is followed by a question for a try', async (t) => {
  const { manager, take } = make()
  manager.acquire(lock, 0, 1, 1, 'wait', true)
  manager.acquire(lock, 1, 1, 1, 'wait', true)
  manager.cancel(lock, 1, 1)
  take()
  manager.acquire(lock, 2, 1, 1, 'try', true)
  t.strictSame(take(), [{ kind: 'recall', to: 0, request: 1, id: lock, answer: true }])
  manager.memberGone(2)
  manager.inUse(lock, 0, 1)
  t.strictSame(take(), [])
  manager.memberGone(0)
  t.equal(manager.semaphoreCount, 0)
})

t.test('an answer that was not asked for is a protocol error', async (t) => {
  const { manager, take } = make()
  const named = { code: 'ERR_PAGEMESH_PROTOCOL', rank: 0, message: /recall/ }
  t.throws(() => manager.inUse(lock, 0, 1), named, 'no such claim')
  manager.acquire(lock, 0, 1, 1, 'wait', true)
  t.throws(() => manager.inUse(lock, 0, 1), named, 'not asked')
  manager.acquire(lock, 1, 1, 1, 'wait', true)
  t.throws(() => manager.inUse(lock, 0, 1), named, 'told, but not asked')
  manager.cancel(lock, 1, 1)
  manager.acquire(lock, 1, 2, 1, 'try', true)
  t.throws(() => manager.inUse(lock + 1, 0, 1), named, 'another lock')
  take()
  manager.inUse(lock, 0, 1)
  t.throws(() => manager.inUse(lock, 0, 1), named, 'twice')
  manager.memberGone(0)
  manager.inUse(lock, 0, 1)
  t.strictSame(take(), [{ kind: 'refused', to: 1, request: 2 }])
})

t.test('emit may call back', async (t) => {
  const order: number[] = []
  const manager: SemaphoreManager = new SemaphoreManager((outcome) => {
    if (outcome.kind !== 'granted') return
    order.push(outcome.to)
    manager.release(lock, outcome.to, outcome.request)
  })
  for (const rank of [0, 1, 2]) manager.acquire(lock, rank, 1, 1, 'wait')
  t.strictSame(order, [0, 1, 2])
  t.equal(manager.semaphoreCount, 0)
})

t.test('random use never has more holders than permits, and serves in order', async (t) => {
  for (let seed = 1; seed <= 200; seed += 1) {
    const random = randomOf(seed)
    const pick = (below: number): number => Math.floor(random() * below)
    const permits = 1 + pick(3)
    const holders = new Set<string>()
    let queue: string[] = []
    const manager = new SemaphoreManager((outcome) => {
      const who = `${outcome.to}/${outcome.request}`
      if (outcome.kind === 'granted') {
        if (queue.length > 0 && queue[0] !== who) t.fail(`seed ${seed}: ${who} jumped the queue`)
        queue = queue.filter((waiting) => waiting !== who)
        holders.add(who)
      } else if (outcome.kind === 'cancelled') {
        queue = queue.filter((waiting) => waiting !== who)
      } else if (outcome.kind === 'refused') {
        if (holders.size < permits) t.fail(`seed ${seed}: refused with a free permit`)
        queue = queue.filter((waiting) => waiting !== who)
      }
      if (holders.size > permits) t.fail(`seed ${seed}: ${holders.size} holders`)
    })
    const gone = new Set<number>()
    for (let step = 0; step < 200; step += 1) {
      const rank = pick(5)
      if (gone.has(rank)) continue
      const held = [...holders].map((who) => who.split('/').map(Number))
      const choice = random()
      if (choice < 0.45) {
        const wait = random() < 0.7
        if (wait || holders.size < permits) queue.push(`${rank}/${step}`)
        manager.acquire(lock, rank, step, permits, wait ? 'wait' : 'try')
      } else if (choice < 0.8 && held.length > 0) {
        const [to, request] = held[pick(held.length)]
        holders.delete(`${to}/${request}`)
        manager.release(lock, to, request)
      } else if (choice < 0.95 && queue.length > 0) {
        const [to, request] = queue[pick(queue.length)].split('/').map(Number)
        manager.cancel(lock, to, request)
      } else if (choice > 0.995 && gone.size < 3) {
        gone.add(rank)
        queue = queue.filter((who) => !who.startsWith(`${rank}/`))
        for (const who of [...holders]) if (who.startsWith(`${rank}/`)) holders.delete(who)
        manager.memberGone(rank)
      }
      if (queue.length > 0 && holders.size < permits) t.fail(`seed ${seed}: a free permit is idle`)
    }
    for (let rank = 0; rank < 5; rank += 1) {
      queue = queue.filter((who) => !who.startsWith(`${rank}/`))
      for (const who of [...holders]) if (who.startsWith(`${rank}/`)) holders.delete(who)
      manager.memberGone(rank)
    }
    if (manager.semaphoreCount !== 0) t.fail(`seed ${seed}: not forgotten`)
  }
  t.pass('200 seeds')
})

t.test('who has the permit is told who is next', async (t) => {
  const { manager, take } = make()
  manager.acquire(lock, 0, 1, 1, 'wait', true, 70)
  manager.acquire(lock, 1, 1, 1, 'wait', true, 71)
  manager.acquire(lock, 2, 1, 1, 'wait', true, 72)
  t.strictSame(take().slice(1), [
    {
      ...{ kind: 'recall', to: 0, request: 1, id: lock, answer: false },
      next: { rank: 1, request: 1, ticket: 71 },
    },
  ])
  manager.release(lock, 0, 1)
  const next = { rank: 2, request: 1, ticket: 72 }
  t.strictSame(take(), [{ kind: 'granted', to: 1, request: 1, next }])
  manager.memberGone(1)
  t.strictSame(take(), [{ kind: 'granted', to: 2, request: 1, stays: true }])
})

t.test('what was promised can be cancelled', async (t) => {
  const { manager, take } = make()
  manager.acquire(lock, 0, 1, 1, 'wait', true, 70)
  manager.acquire(lock, 1, 1, 1, 'wait', true, 71)
  manager.acquire(lock, 2, 1, 1, 'wait', true, 72)
  take()
  manager.cancel(lock, 1, 1)
  t.strictSame(take(), [{ kind: 'cancelled', to: 1, request: 1 }])
  manager.release(lock, 0, 1)
  t.strictSame(take(), [{ kind: 'granted', to: 2, request: 1, stays: true }])
})

t.test('nobody is promised what somebody else may be granted first', async (t) => {
  const { manager, take } = make()
  manager.acquire(lock, 0, 1, 1, 'wait', true, 70)
  manager.acquire(lock, 1, 1, 1, 'try', true)
  manager.acquire(lock, 2, 1, 1, 'wait', true, 72)
  t.strictSame(take().slice(1), [{ kind: 'recall', to: 0, request: 1, id: lock, answer: true }])
  manager.release(lock, 0, 1)
  const next = { rank: 2, request: 1, ticket: 72 }
  t.strictSame(take(), [{ kind: 'granted', to: 1, request: 1, next }])

  manager.acquire(5, 0, 2, 1, 'wait', true, 70)
  manager.acquire(5, 0, 3, 1, 'wait', true, 71)
  manager.acquire(6, 0, 4, 1, 'wait', true, 72)
  manager.acquire(6, 1, 2, 1, 'wait')
  t.notOk(
    take().some((told) => 'next' in told),
    'neither to oneself, nor to who has no ticket',
  )
})

t.test('a try asks whoever the permit was promised to', async (t) => {
  const { manager, take } = make()
  manager.acquire(lock, 0, 1, 1, 'wait', true, 70)
  manager.acquire(lock, 1, 1, 1, 'wait', true, 71)
  take()
  manager.acquire(lock, 2, 1, 1, 'try', true)
  t.strictSame(take(), [{ kind: 'recall', to: 0, request: 1, id: lock, answer: true }])
  manager.acquire(lock, 3, 1, 1, 'wait', true, 73)
  manager.release(lock, 0, 1)
  t.strictSame(take(), [
    { kind: 'granted', to: 1, request: 1 },
    { kind: 'recall', to: 1, request: 1, id: lock, answer: true },
  ])
  manager.inUse(lock, 1, 1)
  t.strictSame(take(), [{ kind: 'refused', to: 2, request: 1 }])
  manager.acquire(lock, 2, 2, 1, 'try', true)
  t.strictSame(take(), [{ kind: 'refused', to: 2, request: 2 }], 'somebody waits')
  manager.release(lock, 1, 1)
  t.strictSame(take(), [{ kind: 'granted', to: 3, request: 1, stays: true }])
})
