import t from 'tap'
import { Child, runMesh } from './fixtures/children.js'

t.test('system calls fail on pages that are not here, and work on pinned ones', async (t) => {
  const [home, other] = await runMesh(t, 2, 'pin', 'systemCalls')
  // A system call does not fault, it fails: this is what pins are for.
  t.same(other.without, { write: 'EFAULT', read: 'EFAULT' })
  t.equal(other.right, true, 'what was written from a pinned range')
  t.same(other.read, { again: 'EFAULT' }, 'a range pinned for reading is not written to')
  t.equal(other.count, 4 * 4096, 'all of it was read into a pinned range')
  t.equal(other.onPool, 10)
  t.equal(other.touches, 0, 'pins bring the pages without a fault')
  t.same(home, { seen: true, before: ((4096 - 101) * 31) & 0xff }, 'the other member sees it')
})

for (const size of [2, 3]) {
  t.test(`${size} members pin overlapping ranges and get nowhere stuck`, async (t) => {
    const results = await runMesh(t, size, 'pin', 'opposing', { args: { rounds: 25 } })
    for (const { total, expected } of results) t.equal(total, expected, 'no update is lost')
  })
}

t.test('a page pinned for writing is kept until it is released', async (t) => {
  for (const touch of ['read', 'write']) {
    const args = { access: 'write', touch }
    const [home, other] = await runMesh(t, 2, 'pin', 'kept', { args })
    t.same(home, { early: false, seen: 3 }, `${touch}: waited, and got what was written last`)
    t.same(other, { during: 2, after: touch === 'write' ? 5 : 3 })
  }
})

t.test('a page pinned for reading is kept from writers, not from readers', async (t) => {
  const reads = await runMesh(t, 2, 'pin', 'kept', { args: { access: 'read', touch: 'read' } })
  t.equal(reads[0].seen, 1)
  const writes = await runMesh(t, 2, 'pin', 'kept', { args: { access: 'read', touch: 'write' } })
  t.same(writes[0], { early: false, seen: 1 })
  t.same(writes[1], { during: 1, after: 5 })
})

t.test('leaving gives pinned pages to who waits for them', async (t) => {
  const results = await runMesh(t, 2, 'pin', 'leaving')
  t.equal(results[0], 5)
})

t.test('ranges that cannot be', async (t) => {
  const { code, stderr, result } = await new Child(t, 'pin', 'invalid').ended
  t.equal(code, 0, stderr)
  t.same(result.codes, [
    'ERR_PAGEMESH_OUT_OF_RANGE',
    'ERR_PAGEMESH_OUT_OF_RANGE',
    'ERR_PAGEMESH_OUT_OF_RANGE',
    'ERR_PAGEMESH_INVALID_ARGUMENT',
    'ERR_PAGEMESH_INVALID_ARGUMENT',
    'ERR_PAGEMESH_INVALID_ARGUMENT',
    'ERR_PAGEMESH_INVALID_ARGUMENT',
    'ERR_PAGEMESH_INVALID_ARGUMENT',
  ])
  t.equal(result.afterwards, 'ERR_PAGEMESH_LEFT')
})
