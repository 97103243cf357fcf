import t from 'tap'
import { all, leaveAll, startMesh } from '../../cluster/support/members.js'

// The first thing that every-node.spec.ts runs with each Node.js: without it, a suite that started
// its members with another one would pass as well.

t.test('members run on the Node.js that is asked for', async (t) => {
  const wanted = process.env.PAGEMESH_TEST_NODE_VERSION
  t.equal(process.version, wanted)
  const members = await startMesh(t, 2)
  const found = await all(members, async (room) => {
    const region = await room.open('r', { byteLength: 8192, placement: { rank: 0 } })
    const words = new Int32Array(region.buffer)
    await room.mesh.barrier()
    Atomics.add(words, 1024 + room.mesh.rank, 7)
    await room.mesh.barrier()
    return [
      process.version,
      words[1024],
      words[1025],
      Object.prototype.toString.call(region.buffer),
    ]
  })
  const each = [wanted, 7, 7, '[object SharedArrayBuffer]']
  t.same(found, [each, each])
  await leaveAll(t, members)
})
