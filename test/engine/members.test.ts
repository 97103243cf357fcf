import t from 'tap'
import { Members } from '../../lib/engine/members.js'

t.test('the error for who is down, and for who has left', async (t) => {
  const members = new Members(4, 0, 0)
  members.markLeaving(1)
  members.markDown(3, 'it was killed')
  t.match(members.errorFor(3, 'a barrier', true), {
    code: 'ERR_PAGEMESH_MEMBER_DOWN',
    rank: 3,
    message: 'a barrier cannot complete: rank 3 is down (it was killed)',
  })
  t.match(members.errorFor(1, 'a barrier', false), {
    code: 'ERR_PAGEMESH_MEMBER_LEFT',
    rank: 1,
    message: 'a barrier cannot complete: rank 1 has left the mesh',
  })
})

t.test('who left because of a death is not the cause', async (t) => {
  const members = new Members(4, 0, 0)
  t.equal(members.lostRank(), undefined)
  members.markLeaving(1, 3) // and that rank 3 is down has not been seen here
  t.ok(members.isUp(3))
  t.match(members.errorFor(1, 'a barrier', false), {
    code: 'ERR_PAGEMESH_MEMBER_DOWN',
    rank: 3,
    message: /rank 3 is down \(rank 1 says so, and has left the mesh\)$/,
  })
  t.equal(members.lostRank(), 3, 'which is what to say when leaving')
  members.markDown(2, 'it was killed')
  t.equal(members.lostRank(), 2, 'rather what one has seen')
})
