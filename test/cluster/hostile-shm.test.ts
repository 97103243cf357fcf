import t from 'tap'
import { Kind } from '../../dist/protocol/messages.js'
import type { RawRecord } from './support/fake-member.js'
import { leaveAll, meetInFile, type Member, startMember } from './support/members.js'
import { bellBytes, ringBytes, ShmFake, type ShmFakeOptions } from './support/shm-fake.js'

// A member on the same host that hands over what it should not, or writes it into shared memory.

const pageBytes = 4096

function joinInBackground(zero: Member): Promise<string> {
  return zero.run(async (room) => {
    await room.join({ transport: 'auto', heartbeatTimeoutMs: 600_000 })
    return room.mesh.stats().transport
  })
}

/** A region of two pages, full of fives. */
async function openRegion(zero: Member, fake: ShmFake): Promise<void> {
  const opened = zero.run(async (room) => {
    const region = await room.open('r', { byteLength: 8192, placement: { rank: 0 } })
    new Int32Array(region.buffer).fill(5)
  })
  await fake.member.answerMap()
  await opened
}

const badHandOvers: Record<string, ShmFakeOptions> = {
  'nothing, although it says so': { silent: true },
  'a wrong token': { token: 'wrong' },
  'the rank of the other': { rank: 0 },
  'a rank beyond all': { rank: 0xffffffff },
  'another version': { version: 1 },
  'a ring that may shrink': { what: 1 },
  'a ring that is too small': { ringBytes: 4096 },
  'a ring that is too large': { ringBytes: ringBytes + 64 },
  'a bell that is too small': { bellBytes: bellBytes - 64 },
  'a descriptor too few': { what: 2 },
  'a descriptor too many': { what: 3 },
}

for (const [name, options] of Object.entries(badHandOvers)) {
  t.test(`hands over ${name}: both go on over TCP`, async (t) => {
    const meeting = meetInFile(t, 2)
    const zero = startMember(t, meeting, 0)
    const joined = joinInBackground(zero)
    const fake = await ShmFake.join(meeting, options)
    t.match(await fake.isRefused(), /rank 1 does not answer over memory of this host/)
    t.equal(await joined, 'tcp')
    fake.member.destroy()
    await leaveAll(t, [zero])
  })
}

const control = (record: RawRecord) => (fake: ShmFake) => fake.send(record)
const data = (more: Partial<RawRecord> = {}): RawRecord => {
  return { kind: Kind.Data, payloadBytes: pageBytes, ...more }
}

/** Region 0 has two pages, and rank 0 homes both. */
const misdeeds: Record<string, (fake: ShmFake) => void> = {
  'more records than the ring holds': (fake) => fake.setSent(1025),
  'fewer records than before': (fake) => fake.setSent(-1),
  'a record of kind 0': control({ kind: 0 }),
  'a record of an unknown kind': control({ kind: 50 }),
  'a blob in the ring': control({ kind: Kind.RegionControl, payloadBytes: 2 }),
  'a control record with a payload': control({ kind: Kind.Heartbeat, payloadBytes: 64 }),
  'a view that cannot be': control({ kind: Kind.Heartbeat, view: 9 }),
  'data that nobody awaits': control(data()),
  'data for a page out of range': control(data({ page: 9 })),
  'data of a wrong length': control(data({ payloadBytes: 8 })),
  'a page written back that nobody recalled': control({ ...data(), kind: Kind.WriteBack }),
  'a request for a page out of range': control({ kind: Kind.ReadRequest, page: 2 }),
  'a request in a region that does not exist': control({ kind: Kind.ReadRequest, region: 900 }),
  'an invalidation from who is not the home': control({ kind: Kind.Invalidate, words: [1] }),
  'a request whose answer has nowhere to go': control({ kind: Kind.ReadRequest }),
  'a region beyond all': (fake) => fake.tellRegion(5000, 4096, 8192),
  'a region with more frames than memory': (fake) => fake.tellRegion(0, 16384, 8192),
  'a region whose memory is smaller than it says': (fake) => fake.tellRegion(0, 8192, 12288, 4096),
  'a region whose memory may shrink': (fake) => fake.tellRegion(0, 8192, 12288, 12288, 0),
  'half a word about a region': (fake) => fake.sayOverSocket(Buffer.alloc(7)),
  'a word about a region without memory': (fake) => fake.sayOverSocket(Buffer.alloc(24)),
}

// One after the other: the fake has one ring and one socket.
for (const [name, act] of Object.entries(misdeeds)) {
  t.test(`writes into the ring, or says of regions: ${name}`, async (t) => {
    const meeting = meetInFile(t, 2)
    const zero = startMember(t, meeting, 0)
    const joined = joinInBackground(zero)
    const fake = await ShmFake.join(meeting)
    await fake.agree()
    t.equal(await joined, 'shm')
    await openRegion(zero, fake)
    const waiting = zero.failure((room) => room.mesh.barrier())
    act(fake)
    const failure = { code: 'ERR_PAGEMESH_MEMBER_DOWN', rank: 1, message: /\(.+\)$/ }
    t.match(await waiting, failure)
    const kept = zero.run((room) =>
      new Int32Array(room.regions.r.buffer).every((word) => word === 5),
    )
    t.equal(await kept, true, 'the pages are as they were')
    fake.member.destroy()
    await leaveAll(t, [zero])
  })
}

t.test('a peer that behaves is served', async (t) => {
  const meeting = meetInFile(t, 2)
  const zero = startMember(t, meeting, 0)
  const joined = joinInBackground(zero)
  const fake = await ShmFake.join(meeting)
  await fake.agree()
  t.equal(await joined, 'shm')
  await openRegion(zero, fake)
  fake.tellRegion(0, 8192, 12288)
  fake.send({ kind: Kind.ReadRequest }, { kind: Kind.WriteRequest, page: 1 })
  const sent = zero.run(async (room) => {
    for (let tries = 0; tries < 500; tries++) {
      const { pagesSent } = room.mesh.stats()
      if (pagesSent === 2) return pagesSent
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    return room.mesh.stats().pagesSent
  })
  t.equal(await sent, 2)
  fake.member.destroy()
  await leaveAll(t, [zero])
})
