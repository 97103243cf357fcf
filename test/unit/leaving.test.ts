import t from 'tap'
import type { EngineContext } from '../../dist/engine/context.js'
import { Synchronization } from '../../dist/engine/synchronization.js'
import { PagemeshError } from '../../dist/errors.js'
import { Kind, SemaphoreAnswer } from '../../dist/protocol/messages.js'

t.test('who leaves while it waits for a lock is not granted it any more', async (t) => {
  const answers: unknown[] = []
  const failures: string[] = []
  const sent: number[] = []
  const context = {
    rank: 1,
    size: 2,
    ring: { send: (_to: number, kind: number) => sent.push(kind) },
    answer: (_id: number, value: unknown) => answers.push(value),
    fail: (_id: number, error: PagemeshError) => failures.push(error.code),
    isUp: () => true,
  }
  const sync = new Synchronization(context as unknown as EngineContext, () => {
    throw new Error('nobody is gone')
  })
  sync.acquire(7, 0, 'a lock', 1, 'wait')
  t.strictSame(sent, [Kind.Acquire])
  sync.leave(new PagemeshError('ERR_PAGEMESH_LEFT', 'the mesh has been left'))
  t.strictSame(failures, ['ERR_PAGEMESH_LEFT'])
  // The manager had granted it before it heard of that, and has passed the permit on since.
  sync.onMessage(Kind.SemaphoreReply, 0, (index) => [1, SemaphoreAnswer.granted][index] ?? 0)
  t.strictSame(answers, [])
})
