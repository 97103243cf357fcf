import t from 'tap'
import type { EngineContext } from '../../dist/engine/context.js'
import { Synchronization } from '../../dist/engine/synchronization.js'
import { PagemeshError } from '../../dist/errors.js'
import { Kind, SemaphoreAnswer } from '../../dist/protocol/messages.js'
import { TokenWords, WORDS_PER_TOKEN } from '../../dist/protocol/token-words.js'

const key = 0 // rank 0 manages it
const ticket = 0xfedcba98

/** Rank 1 of three, with its answers and what it sends. */
function make() {
  const sent: number[][] = []
  const answers: unknown[] = []
  const words = new Int32Array(WORDS_PER_TOKEN)
  const context = {
    rank: 1,
    size: 3,
    ring: {
      send: (to: number, kind: number, _region: number, _page: number, ...rest: number[]) =>
        sent.push([to, kind, ...rest]),
    },
    answer: (_id: number, value: unknown) => answers.push(value),
    fail: (_id: number, error: Error) => answers.push(error.message),
    isUp: () => true,
  }
  const sync = new Synchronization(
    context as unknown as EngineContext,
    (rank, what) => new PagemeshError('ERR_PAGEMESH_MEMBER_DOWN', what, { rank }),
    words,
  )
  return {
    sync,
    program: new TokenWords(words),
    receive: (from: number, kind: number, ...message: number[]) =>
      sync.onMessage(kind, from, (index) => message[index] ?? 0),
    acquire: () => sync.acquire(5, key, 'a lock', 1, 'wait', 0, ticket),
    take: () => ({ sent: sent.splice(0), answers: answers.splice(0) }),
  }
}

const granted = { granted: true, request: 1 }

t.test('a token that is passed on is used at once, and goes on after its grant', async (t) => {
  const { sync, program, receive, acquire, take } = make()
  acquire()
  t.strictSame(take(), { sent: [[0, Kind.Acquire, 0, 0, 1, 1, 2, ticket]], answers: [] })
  receive(2, Kind.TokenPassed, 0, 0, 1, ticket)
  t.strictSame(take(), { sent: [], answers: [granted] })
  sync.cancel(5)
  t.strictSame(take().sent, [], 'it is too late for that')
  t.ok(program.letGo(0))
  receive(0, Kind.SemaphoreReply, 1, SemaphoreAnswer.granted, 0, 3, 9, 77)
  t.strictSame(take(), {
    sent: [
      [2, Kind.TokenPassed, 0, 0, 9, 77],
      [0, Kind.Release, 0, 0, 1],
    ],
    answers: [],
  })
})

t.test('who was not told the ticket cannot pass a token on', async (t) => {
  const wrong = [
    [0, 0, 1, ticket ^ 1],
    [0, 0, 1, 0],
    [3, 0, 1, ticket],
  ]
  for (const words of wrong) {
    const { receive, acquire, take, program } = make()
    acquire()
    take()
    t.throws(() => receive(2, Kind.TokenPassed, ...words), {
      code: 'ERR_PAGEMESH_PROTOCOL',
      rank: 2,
    })
    t.strictSame(take().answers, [])
    t.ok(program.isAway(0))
  }
})

t.test('what asks for no token by itself is passed none', async (t) => {
  const { sync, receive, take } = make()
  sync.acquire(5, key, 'a lock', 1, 'try', 0)
  take()
  t.throws(() => receive(2, Kind.TokenPassed, 0, 0, 1, 0), { code: 'ERR_PAGEMESH_PROTOCOL' })
})

t.test('a token that its grant has overtaken does nothing', async (t) => {
  const { program, receive, acquire, take } = make()
  acquire()
  receive(0, Kind.SemaphoreReply, 1, SemaphoreAnswer.granted, 1)
  t.strictSame(take().answers, [granted])
  receive(2, Kind.TokenPassed, 0, 0, 1, ticket)
  t.strictSame(take(), { sent: [], answers: [] })
  t.ok(program.letGo(0))
  t.ok(program.take(0), 'it is here once, and stays')
})

t.test('a manager can name no other next than a member', async (t) => {
  for (const rankAndOne of [2, 4, 0xffffffff]) {
    const { receive, acquire } = make()
    acquire()
    receive(0, Kind.SemaphoreReply, 1, SemaphoreAnswer.granted, 1)
    t.throws(() => receive(0, Kind.TokenRecall, 0, 0, 1, 0, rankAndOne, 1, 1), {
      code: 'ERR_PAGEMESH_PROTOCOL',
      rank: 0,
    })
  }
})
