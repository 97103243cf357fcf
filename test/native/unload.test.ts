import t from 'tap'
import { Child } from './fixtures/children.js'

// Node.js unloads an addon when the last thread that loaded it ends. Code of ours that is still to
// be called (the fault handler, the ends of buffers) must not go with it.

t.test('a program that never looks at a buffer', async (t) => {
  const { code, signal, stderr, result } = await new Child(t, 'unload', 'noBuffer').ended
  t.equal(signal ?? code, 0, stderr)
  t.same(result, [0, 1, 0, 2, 0, 3])
})

t.test('a mesh that a worker joined and left', async (t) => {
  const { code, signal, stderr, result } = await new Child(t, 'unload', 'inWorker').ended
  t.equal(signal ?? code, 0, stderr)
  t.same(result, { code: 0, trap: 'RuntimeError', byte: 7 })
})

t.test('a mesh whose worker is terminated', async (t) => {
  const { code, signal, stderr, result } = await new Child(t, 'unload', 'terminated').ended
  t.equal(signal ?? code, 0, stderr)
  t.same(result, { code: 1 })
})
