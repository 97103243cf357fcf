import t, { type Test } from 'tap'
import { Kind } from '../../dist/protocol/messages.js'
import { FakeMember, type RawRecord } from './support/fake-member.js'
import { leaveAll, type Member, meetInFile, startMember } from './support/members.js'

async function startWithFake(t: Test): Promise<{ zero: Member; fake: FakeMember }> {
  const meeting = meetInFile(t, 2)
  const zero = startMember(t, meeting, 0)
  const join = zero.run(async (room) => {
    await room.join({ heartbeatTimeoutMs: 60_000 })
  })
  const fake = await FakeMember.join(meeting)
  await join
  return { zero, fake }
}

/** Records that no honest member sends about region 0, which has atomic words homed at rank 0. */
const badRecords: Record<string, RawRecord> = {
  'a request for a page': { kind: Kind.ReadRequest },
  'a request to write a page': { kind: Kind.WriteRequest },
  'data of a page': { kind: Kind.Data, payload: Buffer.alloc(4096) },
  'a page given back': { kind: Kind.Discard },
  'a word of 32 bits': { kind: Kind.AtomicRequest, words: [1, 0, 2, 32, 1] },
  'an unaligned word': { kind: Kind.AtomicRequest, words: [1, 4, 2, 64, 1] },
  'a word out of range': { kind: Kind.AtomicRequest, page: 2, words: [1, 0, 2, 64, 1] },
  'an unknown operation': { kind: Kind.AtomicRequest, words: [1, 0, 4, 64, 1] },
  ...Object.fromEntries(
    [
      { type: 'agree', id: 0, keys: null },
      { type: 'mapped', id: 0, errno: 0, key: null },
      { type: 'mapped', id: 0, errno: 0, key: { rkey: -1, address: '0' } },
      { type: 'mapped', id: 0, errno: 0, key: { rkey: 2 ** 32, address: '0' } },
      { type: 'mapped', id: 0, errno: 0, key: { rkey: 1, address: 0 } },
      { type: 'mapped', id: 0, errno: 0, key: { rkey: 1, address: '0x10' } },
      { type: 'mapped', id: 0, errno: 0, key: { rkey: 1, address: String(2n ** 64n) } },
      { type: 'agreed', id: 1024 },
      ...['none', 7, undefined].map((words) => ({
        type: 'open',
        question: 1,
        shape: {
          name: 'x',
          byteLength: 8,
          pageBytes: 4096,
          placement: 'block',
          words,
          prefetch: 'auto',
        },
      })),
      ...[12, 2 ** 31].map((byteLength) => ({
        type: 'open',
        question: 1,
        shape: {
          name: 'x',
          byteLength,
          pageBytes: 4096,
          placement: 'block',
          words: 'atomic',
          prefetch: 'auto',
        },
      })),
    ].map((message) => {
      const payload = JSON.stringify(message)
      return [payload, { kind: Kind.RegionControl, payload }]
    }),
  ),
}

t.test('a member that breaks the rules about words', async (t) => {
  const entries = Object.entries(badRecords)
  const inTurn = async (): Promise<void> => {
    for (let next = entries.shift(); next !== undefined; next = entries.shift()) {
      const [name, record] = next
      const { zero, fake } = await startWithFake(t)
      const open = zero.run(async (room) => {
        const placement = { rank: 0 }
        await room.open('w', { byteLength: 8192, words: 'atomic', placement })
      })
      const id = await fake.answerMap()
      await fake.answerAgree(id)
      await open
      fake.peer.send({ kind: Kind.AtomicRequest, words: [1, 8, 2, 64, 5] })
      await fake.peer.next(Kind.AtomicReply)
      const waiting = zero.failure((room) => room.mesh.barrier())
      fake.peer.send(record)
      t.match(
        await waiting,
        { code: 'ERR_PAGEMESH_MEMBER_DOWN', rank: 1, message: /\(it .*\)$/ },
        name,
      )
      zero.signal('SIGKILL')
      fake.peer.destroy()
    }
  }
  await Promise.all([inTurn(), inTurn()])
})

t.test('a member that goes before it has agreed', async (t) => {
  const { zero, fake } = await startWithFake(t)
  const open = zero.failure((room) => room.open('w', { byteLength: 8, words: 'atomic' }))
  await fake.answerMap()
  fake.peer.destroy()
  t.match(await open, { code: 'ERR_PAGEMESH_MEMBER_DOWN', rank: 1 })
  await leaveAll(t, [zero])
})
