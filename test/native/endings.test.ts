import t from 'tap'
import { Child, startMesh } from './fixtures/children.js'

const promptlyMs = 2000

interface Way {
  readonly way: string
  readonly expected: number | NodeJS.Signals
  readonly says?: RegExp
}

const ways: Way[] = [
  { way: 'exit', expected: 7 },
  { way: 'exitCode', expected: 8 },
  { way: 'exception', expected: 1, says: /uncaught on purpose/ },
  { way: 'rejection', expected: 1, says: /rejected on purpose/ },
  { way: 'workerException', expected: 1, says: /in a worker/ },
  { way: 'exitInWorker', expected: 9 },
  { way: 'abort', expected: 'SIGABRT' },
  { way: 'SIGTERM', expected: 'SIGTERM' },
  { way: 'SIGKILL', expected: 'SIGKILL' },
]

for (const faults of [false, true]) {
  for (const { way, expected, says } of ways) {
    t.test(`${way}${faults ? ' while a worker faults' : ''}`, async (t) => {
      const [survivor, ending] = startMesh(t, 2, 'endings', 'ends', { args: { way, faults } })
      await ending.sees(/^end \d+$/m)
      const startMs = performance.now()
      const end = await ending.ended
      t.equal(end.signal ?? end.code, expected, end.stderr)
      const tookMs = end.endedMs - startMs
      t.ok(tookMs < promptlyMs, `ended within ${promptlyMs} ms (${Math.round(tookMs)})`)
      if (says !== undefined) t.match(end.stderr, says)
      const { code, stderr, result } = await survivor.ended
      t.equal(code, 0, stderr)
      t.match(result, { code: 'ERR_PAGEMESH_MEMBER_DOWN', rank: 1 })
      const began = Number(/^end (\d+)$/m.exec(end.stdout)?.[1])
      t.ok(result.atMs - began < promptlyMs, `noticed after ${result.atMs - began} ms`)
    })
  }
}

t.test('worker.terminate() in the middle of faults', async (t) => {
  const [home, other] = startMesh(t, 2, 'endings', 'terminate')
  const { code, stderr, result } = await other.ended
  t.equal(code, 0, stderr)
  t.same(result, { codes: [1, 1, 1, 1, 1], sum: 4096 })
  t.equal((await home.ended).code, 0)
})

t.test('a program that has nothing more to do leaves by itself', async (t) => {
  const [home, other] = startMesh(t, 2, 'endings', 'nothingMore', { args: { lateMs: 200 } })
  const [first, second] = await Promise.all([home.ended, other.ended])
  t.equal(first.code, 0, first.stderr)
  t.equal(second.code, 0, second.stderr)
  t.same(second.result, { sum: 4096 })
  t.equal(first.stderr + second.stderr, '', 'no warning')
})

t.test('a page that is lost ends who waits for it, with a message', async (t) => {
  const [home, other] = startMesh(t, 2, 'endings', 'lostPage')
  await other.sees(/touching/)
  t.equal((await home.ended).signal, 'SIGKILL')
  const startMs = performance.now()
  const { code, stdout, stderr, endedMs } = await other.ended
  t.equal(code, 74)
  t.ok(endedMs - startMs < promptlyMs)
  t.match(stderr, /rank 1: page \d+ of region 'r' .* is lost: its home, rank 0, is down/)
  t.equal(stdout, 'touching\n', 'and it never reads made-up data')
})

t.test('a single member ends as it likes', async (t) => {
  const { code, stderr } = await new Child(t, 'endings', 'nothingMore', { args: { lateMs: 0 } })
    .ended
  t.equal(code, 0, stderr)
})
