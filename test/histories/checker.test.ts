import t from 'tap'
import { apply, checkLinearizability, type Operation } from './linearizability.mjs'
import { checkSequentialConsistency } from './sequential.mjs'
import { random } from './thread.mjs'

type Kind = Operation['kind']

/** Short for an operation: thread, object, kind, [from, to], and what else it has. */
function op(
  thread: string,
  object: string,
  kind: Kind,
  [from, to]: [number, number | null],
  rest: Partial<Operation> = {},
): Operation {
  return { thread, object, kind, invokedNs: from, returnedNs: to, ...rest }
}

interface Case {
  readonly linearizable: string
  readonly sequential?: string
  readonly history: Operation[]
}

const write = (value: number) => ({ value })
const read = (result: number) => ({ result })
const cas = (expected: number, value: number, result: number) => ({ expected, value, result })
const one = { permits: 1 }
const two = { permits: 2 }

const cases: Record<string, Case> = {
  'an empty history': { linearizable: 'ok', sequential: 'ok', history: [] },
  'a read during a write sees either': {
    linearizable: 'ok',
    sequential: 'ok',
    history: [
      op('a', 'r/0', 'write', [0, 10], write(1)),
      op('b', 'r/0', 'read', [1, 2], read(0)),
      op('b', 'r/0', 'read', [3, 4], read(1)),
    ],
  },
  'a stale read of another thread: sequentially consistent, not linearizable': {
    linearizable: 'rejected',
    sequential: 'ok',
    history: [op('a', 'r/0', 'write', [0, 1], write(1)), op('b', 'r/0', 'read', [2, 3], read(0))],
  },
  'a stale read of its own write': {
    linearizable: 'rejected',
    sequential: 'rejected',
    history: [op('a', 'r/0', 'write', [0, 1], write(1)), op('a', 'r/0', 'read', [2, 3], read(0))],
  },
  'new, then old': {
    linearizable: 'rejected',
    sequential: 'rejected',
    history: [
      op('a', 'r/0', 'write', [0, 10], write(1)),
      op('b', 'r/0', 'read', [1, 2], read(1)),
      op('b', 'r/0', 'read', [3, 4], read(0)),
    ],
  },
  'store buffering, both zero': {
    linearizable: 'rejected',
    sequential: 'rejected',
    history: [
      op('a', 'r/0', 'write', [0, 1], write(1)),
      op('a', 'r/4', 'read', [2, 3], read(0)),
      op('b', 'r/4', 'write', [0, 1], write(1)),
      op('b', 'r/0', 'read', [2, 3], read(0)),
    ],
  },
  'message passing, flag without data': {
    linearizable: 'rejected',
    sequential: 'rejected',
    history: [
      op('a', 'r/0', 'write', [0, 1], write(1)),
      op('a', 'r/4', 'write', [2, 3], write(1)),
      op('b', 'r/4', 'read', [4, 5], read(1)),
      op('b', 'r/0', 'read', [6, 7], read(0)),
    ],
  },
  'independent reads of independent writes in two orders': {
    linearizable: 'rejected',
    sequential: 'rejected',
    history: [
      op('a', 'r/0', 'write', [0, 20], write(1)),
      op('b', 'r/4', 'write', [0, 20], write(1)),
      op('c', 'r/0', 'read', [1, 2], read(1)),
      op('c', 'r/4', 'read', [10, 11], read(0)),
      op('d', 'r/4', 'read', [1, 2], read(1)),
      op('d', 'r/0', 'read', [10, 11], read(0)),
    ],
  },
  'two writes seen in two orders': {
    linearizable: 'rejected',
    sequential: 'rejected',
    history: [
      op('a', 'r/0', 'write', [0, 20], write(1)),
      op('b', 'r/0', 'write', [0, 20], write(2)),
      op('c', 'r/0', 'read', [1, 2], read(1)),
      op('c', 'r/0', 'read', [3, 4], read(2)),
      op('d', 'r/0', 'read', [1, 2], read(2)),
      op('d', 'r/0', 'read', [3, 4], read(1)),
    ],
  },
  'a lost update': {
    linearizable: 'rejected',
    sequential: 'rejected',
    history: [
      op('a', 'r/0', 'add', [0, 5], { value: 1, result: 0 }),
      op('b', 'r/0', 'add', [0, 5], { value: 1, result: 0 }),
    ],
  },
  'two adds': {
    linearizable: 'ok',
    sequential: 'ok',
    history: [
      op('a', 'r/0', 'add', [0, 5], { value: 1, result: 1 }),
      op('b', 'r/0', 'add', [0, 5], { value: 1, result: 0 }),
    ],
  },
  'two swaps of the same value, both successful': {
    linearizable: 'rejected',
    sequential: 'rejected',
    history: [
      op('a', 'r/0', 'cas', [0, 5], cas(0, 1, 0)),
      op('b', 'r/0', 'cas', [0, 5], cas(0, 2, 0)),
    ],
  },
  'a swap that fails': {
    linearizable: 'ok',
    sequential: 'ok',
    history: [
      op('a', 'r/0', 'cas', [0, 5], cas(0, 1, 0)),
      op('b', 'r/0', 'cas', [0, 5], cas(0, 2, 1)),
    ],
  },
  'a value from nowhere': {
    linearizable: 'rejected',
    sequential: 'rejected',
    history: [op('a', 'r/0', 'read', [0, 1], read(7))],
  },
  'an open write that was seen': {
    linearizable: 'ok',
    sequential: 'ok',
    history: [
      op('a', 'r/0', 'write', [0, null], write(1)),
      op('b', 'r/0', 'read', [9, 10], read(0)),
      op('b', 'r/0', 'read', [11, 12], read(1)),
    ],
  },
  'an open write that was not seen': {
    linearizable: 'ok',
    sequential: 'ok',
    history: [
      op('a', 'r/0', 'write', [0, null], write(1)),
      op('b', 'r/0', 'read', [9, 10], read(0)),
    ],
  },
  'an open write that was seen and then not': {
    linearizable: 'rejected',
    sequential: 'rejected',
    history: [
      op('a', 'r/0', 'write', [0, null], write(1)),
      op('b', 'r/0', 'read', [9, 10], read(1)),
      op('b', 'r/0', 'read', [11, 12], read(0)),
    ],
  },
  'open adds, one of which was seen': {
    linearizable: 'ok',
    sequential: 'ok',
    history: [
      op('a', 'r/0', 'add', [0, null], { value: 1 }),
      op('b', 'r/0', 'add', [0, null], { value: 1 }),
      op('c', 'r/0', 'read', [1, 2], read(1)),
    ],
  },
  'a read of what is written later': {
    linearizable: 'rejected',
    sequential: 'ok',
    history: [op('a', 'r/0', 'read', [0, 1], read(1)), op('b', 'r/0', 'write', [2, 3], write(1))],
  },
  'a lock held by two': {
    linearizable: 'rejected',
    history: [
      op('a', 'lock', 'acquire', [0, 1], one),
      op('b', 'lock', 'acquire', [2, 3], one),
      op('a', 'lock', 'release', [4, 5]),
      op('b', 'lock', 'release', [6, 7]),
    ],
  },
  'a lock handed on': {
    linearizable: 'ok',
    history: [
      op('a', 'lock', 'acquire', [0, 1], one),
      op('b', 'lock', 'acquire', [2, 9], one),
      op('a', 'lock', 'release', [4, 5]),
      op('b', 'lock', 'release', [10, 11]),
    ],
  },
  'a semaphore of two, held by two and then three': {
    linearizable: 'rejected',
    history: [
      op('a', 's', 'acquire', [0, 1], two),
      op('b', 's', 'acquire', [2, 3], two),
      op('c', 's', 'acquire', [4, 5], two),
    ],
  },
  'a permit that came back from nobody': {
    linearizable: 'rejected',
    history: [
      op('a', 's', 'acquire', [0, 1], two),
      op('a', 's', 'release', [2, 3]),
      op('b', 's', 'release', [4, 5]),
    ],
  },
  'the lock of a killed holder, taken by another before any release': {
    linearizable: 'ok',
    history: [
      op('a', 'lock', 'acquire', [0, 1], one),
      op('a', 'lock', 'release', [2, null]),
      op('b', 'lock', 'acquire', [4, 5], one),
    ],
  },
}

for (const [name, { linearizable, sequential, history }] of Object.entries(cases)) {
  t.test(name, (t) => {
    const linear = checkLinearizability(history)
    t.equal(linear.outcome, linearizable, 'linearizable', linear)
    if (sequential !== undefined) {
      const found = checkSequentialConsistency(history)
      t.equal(found.outcome, sequential, 'sequentially consistent', found)
      if (sequential === 'rejected') t.ok(found.operations, 'says why')
    }
    t.end()
  })
}

t.test('the explanation of store buffering is the circle of its four operations', (t) => {
  const history = cases['store buffering, both zero'].history
  t.equal(checkSequentialConsistency(history).operations?.length, 4)
  t.end()
})

t.test('a check that is cut off is undecided, never ok', (t) => {
  const history = cases['two writes seen in two orders'].history
  t.equal(checkLinearizability(history, 1).outcome, 'undecided')
  const fine = cases['a read during a write sees either'].history
  t.equal(checkSequentialConsistency(fine, 1).outcome, 'undecided')
  t.end()
})

t.test('what is written twice is undecided', (t) => {
  const history = [
    op('a', 'r/0', 'write', [0, 1], write(1)),
    op('b', 'r/0', 'write', [0, 1], write(1)),
  ]
  t.equal(checkSequentialConsistency(history).outcome, 'undecided')
  t.end()
})

/** Tries every order, the slow and plain way. */
function bruteForce(history: readonly Operation[], realTime: boolean): boolean {
  const go = (left: readonly Operation[], memory: ReadonlyMap<string, number>): boolean => {
    if (left.every(({ returnedNs }) => returnedNs === null)) return true
    return left.some((each) => {
      const rest = left.filter((other) => other !== each)
      const blocked = rest.some((other) =>
        realTime
          ? (other.returnedNs ?? Infinity) < each.invokedNs
          : other.thread === each.thread && other.invokedNs < each.invokedNs,
      )
      if (blocked) return false
      const state = apply(each, memory.get(each.object) ?? 0)
      return state !== undefined && go(rest, new Map(memory).set(each.object, state))
    })
  }
  return go(history, new Map())
}

/** A random history of few operations, mostly of plausible results. */
function randomHistory(seed: number): Operation[] {
  const pick = random(seed)
  const history: Operation[] = []
  const written: Record<string, number[]> = { 'r/0': [0], 'r/4': [0], 'r/8': [0] }
  const ends = [0, 0, 0]
  let next = 1
  for (let i = 4 + pick(4); i > 0; i -= 1) {
    const thread = pick(3)
    const from = (ends[thread] ?? 0) + 1 + pick(5)
    const to = from + 1 + pick(8)
    ends[thread] = to + 1
    const object = ['r/0', 'r/4', 'r/8'][pick(3)] ?? ''
    const values = written[object] ?? []
    const result = values[pick(2) === 0 ? values.length - 1 : pick(values.length)] ?? 0
    const name = `t${thread}`
    if (object === 'r/8') {
      if (pick(3) === 0) history.push(op(name, object, 'read', [from, to], read(result)))
      else {
        history.push(op(name, object, 'add', [from, to], { value: 1, result }))
        values.push(result + 1)
      }
      continue
    }
    const kind = (['read', 'write', 'cas'] as const)[pick(3)] ?? 'read'
    const value = next++
    if (kind === 'read') history.push(op(name, object, kind, [from, to], read(result)))
    else if (kind === 'write') history.push(op(name, object, kind, [from, to], write(value)))
    else {
      const expected = pick(2) === 0 ? result : (values[pick(values.length)] ?? 0)
      history.push(op(name, object, kind, [from, to], cas(expected, value, result)))
    }
    if (kind !== 'read') values.push(value)
  }
  // The last operation of a thread may be open.
  if (pick(3) === 0) {
    const name = history[0]?.thread
    const last = history.findLast(({ thread }) => thread === name)
    if (last !== undefined) {
      const open: Operation = { ...last, returnedNs: null }
      delete open.result
      history[history.indexOf(last)] = open
    }
  }
  return history
}

t.test('the checks agree with trying every order', (t) => {
  const counts = { linear: [0, 0], sequential: [0, 0] }
  for (let seed = 1; seed <= 4000; seed += 1) {
    const history = randomHistory(seed)
    const linear = bruteForce(history, true)
    const sequential = bruteForce(history, false)
    counts.linear[linear ? 1 : 0] += 1
    counts.sequential[sequential ? 1 : 0] += 1
    const found = checkLinearizability(history).outcome
    if (found !== (linear ? 'ok' : 'rejected')) t.fail(`linearizability, seed ${seed}: ${found}`)
    const other = checkSequentialConsistency(history).outcome
    if (other !== (sequential ? 'ok' : 'rejected')) {
      t.fail(`sequential consistency, seed ${seed}: ${other}`)
    }
  }
  t.ok(
    [...counts.linear, ...counts.sequential].every((count) => count > 200),
    'both happen',
    counts,
  )
  t.end()
})
