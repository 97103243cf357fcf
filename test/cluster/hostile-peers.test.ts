import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { ClientHandshake } from '../../dist/cluster/handshake.js'
import { generateKey } from '../../dist/cluster/key.js'
import { Kind, Word } from '../../dist/protocol/messages.js'
import { FakeMember, RawPeer, type RawRecord, startStranger } from './support/fake-member.js'
import { sized, slowness } from './support/machine.js'
import {
  all,
  eventually,
  leaveAll,
  type Meeting,
  meetInFile,
  type Member,
  type Room,
  startMember,
  startMembers,
} from './support/members.js'

/** A barrier, a page and a lock: the mesh is usable. */
async function checkUsable(t: Test, members: readonly Member[], name: string): Promise<void> {
  const sums = await all(
    members,
    async (room, name) => {
      const { mesh } = room
      const region = await room.open(name, { byteLength: 4096, placement: { rank: 0 } })
      const words = new Int32Array(region.buffer)
      await mesh.barrier()
      const held = await mesh.lock(name).acquire()
      words[0] = words[0] + 1
      held.release()
      await mesh.barrier()
      const sum = words[0]
      await mesh.barrier()
      return sum
    },
    name,
  )
  t.ok(
    sums.every((sum) => sum === members.length),
    `usable: ${name}`,
  )
}

/** Joins; the others have to be heard of so often. */
const joinAndExpect = async (room: Room, heartbeatTimeoutMs: number): Promise<void> => {
  await room.join({ heartbeatTimeoutMs })
}

const wrongHello = (): Uint8Array =>
  new ClientHandshake({ key: generateKey(), rank: 1, size: 2 }).start()

/** What a process that does not hold the key may say. Each must end with its connection. */
const strangers: Record<string, (peer: RawPeer) => Promise<void>> = {
  'random bytes': async (peer) => peer.sendBytes(randomBytes(100_000)),
  'a request of HTTP': async (peer) =>
    peer.sendBytes('GET / HTTP/1.1\r\nHost: mesh\r\n\r\n'.repeat(9)),
  'a truncated record': async (peer) => {
    peer.sendBytes(Buffer.alloc(63))
    peer.socket.end()
  },
  'a truncated payload': async (peer) => {
    peer.send({ kind: Kind.Cluster, payload: 'short', payloadBytes: 1000 })
    peer.socket.end()
  },
  'an oversized payload': async (peer) =>
    peer.send({ kind: Kind.Cluster, payloadBytes: 2 ** 32 - 1 }),
  'a payload one byte too long': async (peer) =>
    peer.send({ kind: Kind.Cluster, payloadBytes: 16 * 1024 + 1 }),
  'nothing but zeros': async (peer) => peer.sendBytes(Buffer.alloc(4096)),
  "a member's record": async (peer) => peer.send({ kind: Kind.Heartbeat }),
  'a page': async (peer) => peer.send({ kind: Kind.Data, payload: Buffer.alloc(4096) }),
  'a message about regions': async (peer) => peer.send({ kind: Kind.RegionControl, payload: '{}' }),
  'a join frame at once': async (peer) =>
    peer.send({ kind: Kind.Cluster, payload: '{"type":"register","host":"127.0.0.1","port":9}' }),
  'an empty frame': async (peer) => peer.send({ kind: Kind.Cluster }),
  'a hello of another version': async (peer) => {
    const hello = Buffer.from(wrongHello())
    hello.writeUInt16BE(999, 4)
    peer.send({ kind: Kind.Cluster, payload: hello })
  },
  'a proof made up': async (peer) => {
    peer.send({ kind: Kind.Cluster, payload: wrongHello() })
    await peer.next(Kind.Cluster)
    const proof = Buffer.alloc(33, 7)
    proof[0] = 0x50
    peer.send({ kind: Kind.Cluster, payload: proof })
  },
  'a hello twice': async (peer) => {
    peer.send({ kind: Kind.Cluster, payload: wrongHello() })
    peer.send({ kind: Kind.Cluster, payload: wrongHello() })
  },
}

async function annoy(t: Test, meeting: Meeting): Promise<void> {
  for (const [name, act] of Object.entries(strangers)) {
    const peer = await RawPeer.connect(meeting)
    await act(peer)
    await peer.untilClosed()
    t.pass(`turned away: ${name}`)
  }
}

t.test('strangers, before and after the mesh is complete', async (t) => {
  const meeting = meetInFile(t, 2)
  const [zero, one] = startMembers(t, meeting) as [Member, Member]
  const join = zero.run(async (room) => {
    await room.join()
  })
  await annoy(t, meeting)
  const silent = await Promise.all(Array.from({ length: 10 }, () => RawPeer.connect(meeting)))
  await one.run(async (room) => {
    await room.join()
  })
  await join
  await checkUsable(t, [zero, one], 'before')
  await annoy(t, meeting)
  await checkUsable(t, [zero, one], 'after')
  await leaveAll(t, [zero, one])
  for (const peer of silent) await peer.untilClosed()
})

t.test('thousands of connections that say nothing', async (t) => {
  const meeting = meetInFile(t, 2)
  const [zero, one] = startMembers(t, meeting) as [Member, Member]
  const join = zero.run(async (room) => {
    await room.join()
  })
  const count = sized(2000, 200)
  const open = async (count: number): Promise<RawPeer[]> => {
    const peers: RawPeer[] = []
    for (let i = 0; i < count; i += 100) {
      const some = Array.from({ length: 100 }, () => RawPeer.connect(meeting))
      peers.push(...(await Promise.all(some)))
    }
    return peers
  }
  const before = await open(count)
  await one.run(async (room) => {
    await room.join()
  })
  await join
  await checkUsable(t, [zero, one], 'before')
  const after = await open(count)
  await checkUsable(t, [zero, one], 'after')
  const all = [...before, ...after]
  await eventually('room for others', () =>
    all.filter(({ closed }) => !closed).length <= 64 ? true : undefined,
  )
  for (const peer of all) peer.destroy()
  await leaveAll(t, [zero, one])
})

t.test('something else listens where rank 0 should', async (t) => {
  const stranger = await startStranger('HTTP/1.1 400 Bad Request\r\n\r\n'.repeat(20))
  const meeting = { ...meetInFile(t, 2), rendezvous: `127.0.0.1:${stranger.port}` }
  const failure = await startMember(t, meeting, 1).failure((room) =>
    room.join({ joinTimeoutMs: 1000 }),
  )
  stranger.stop()
  t.match(failure, { code: /ERR_PAGEMESH_(JOIN_FAILED|PROTOCOL)/, message: /127\.0\.0\.1/ })
})

const joinFrames: Record<string, unknown> = {
  'what is not JSON': 'register',
  'an unknown type': { type: 'hello' },
  'a register with a bad host': { type: 'register', host: '"', port: 1 },
  'a register with a bad port': { type: 'register', host: '127.0.0.1', port: 0 },
  'a table': { type: 'table', addresses: [] },
  'a ready too early': { type: 'ready' },
  'a go': { type: 'go' },
  'an abort by nobody': { type: 'abort', by: 7, code: 'ERR', message: '' },
  'a frame of 16 KiB and more': { type: 'register', host: 'a'.repeat(20_000), port: 1 },
}

t.test('who holds the key and sends a bad frame while joining', async (t) => {
  await Promise.all(
    Object.entries(joinFrames).map(async ([name, frame], index) => {
      await sleep(index * 60) // two cores
      const meeting = meetInFile(t, 2)
      const zero = startMember(t, meeting, 0)
      const join = zero.failure((room) => room.join())
      const fake = await FakeMember.authenticate(meeting)
      fake.say(frame)
      const failure = await join
      t.match(failure, { code: 'ERR_PAGEMESH_PROTOCOL', rank: 1, message: /member 1 sent/ }, name)
      fake.peer.destroy()
      t.equal(await zero.run((room) => room.join({ size: 1 }).then(({ size }) => size)), 1)
    }),
  )
})

const page = Buffer.alloc(4096, 7)
const shape = {
  name: 'x',
  byteLength: 4096,
  pageBytes: 4096,
  placement: 'block',
  words: 'paged',
  prefetch: 'auto',
}

/** Records that no honest member sends. Region 0 has two pages, and rank 0 homes both. */
const badRecords: Record<string, RawRecord | RawRecord[]> = {
  'kind 0': { kind: 0 },
  'an unknown kind': { kind: 50 },
  'a kind beyond all': { kind: 0x1234 },
  'an unknown blob': { kind: 0x90, payload: 'x' },
  'an unknown kind of page': { kind: 0x50, payload: page },
  'a control record with a payload': { kind: Kind.Heartbeat, payload: 'more' },
  'a view before the first': { kind: Kind.Heartbeat, view: 0 },
  'a view that two members cannot have': { kind: Kind.Heartbeat, view: 3 },
  'a view beyond all': { kind: Kind.ReadRequest, view: 0xffffffff },
  'a message about regions of no view': { kind: Kind.RegionControl, view: 0, payload: '{}' },
  'a request for a page out of range': { kind: Kind.ReadRequest, page: 2 },
  'a request for a page far out of range': { kind: Kind.WriteRequest, page: 0xffffffff },
  'a request in a region that does not exist': { kind: Kind.ReadRequest, region: 7 },
  'a request in a region beyond all': { kind: Kind.ReadRequest, region: 0xffffffff },
  'data that nobody asked for': { kind: Kind.Data, payload: page },
  'exclusive data that nobody asked for': { kind: Kind.DataExclusive, payload: page },
  'a page written back that nobody recalled': { kind: Kind.WriteBack, payload: page },
  'data for a page out of range': { kind: Kind.Data, page: 9, payload: page },
  'data without a payload': { kind: Kind.Data },
  'data of a wrong length': { kind: Kind.Data, payload: 'short' },
  'a recall from who is not the home': { kind: Kind.RecallRead, words: [1] },
  'an invalidation from who is not the home': { kind: Kind.Invalidate, words: [1] },
  'an acknowledgement of nothing': { kind: Kind.InvalidateAck },
  'a grant of nothing': { kind: Kind.Grant },
  'a confirmation of nothing': { kind: Kind.Confirm },
  'a loss that is not its to tell': { kind: Kind.Lost },
  'a request by the owner': [
    { kind: Kind.WriteRequest, page: 1 },
    { kind: Kind.WriteRequest, page: 1 },
  ],
  'a word out of range': { kind: Kind.AtomicRequest, page: 9, words: [1, 0, 2, 32, 1] },
  'a word across the end of its page': { kind: Kind.AtomicRequest, words: [1, 4096, 2, 32, 1] },
  'an unaligned word': { kind: Kind.AtomicRequest, words: [1, 2, 2, 32, 1] },
  'a word of 16 bits': { kind: Kind.AtomicRequest, words: [1, 0, 2, 16, 1] },
  'an unknown operation': { kind: Kind.AtomicRequest, words: [1, 0, 9, 32, 1] },
  'an answer to no operation': { kind: Kind.AtomicReply, words: [77] },
  'a release of what it does not hold': { kind: Kind.Release, words: [1, 0, 5] },
  'a claim without permits': { kind: Kind.Acquire, words: [1, 0, 5, 0] },
  'the same claim twice': [
    { kind: Kind.Acquire, words: [1, 0, 5, 1] },
    { kind: Kind.Acquire, words: [1, 0, 5, 1] },
  ],
  'a departure for the loss of itself': { kind: Kind.Leaving, words: [2] },
  'a departure for the loss of who hears of it': { kind: Kind.Leaving, words: [1] },
  'a departure for the loss of nobody that is': { kind: Kind.Leaving, words: [3] },
  'a departure for the loss of rank -3': { kind: Kind.Leaving, words: [0xfffffffe] },
  'an arrival at what cannot be a barrier': { kind: Kind.BarrierArrive, words: [1, 2 ** 20] },
  'a message about regions that is not JSON': { kind: Kind.RegionControl, payload: '{"type":' },
  'a message about regions that is not UTF-8': {
    kind: Kind.RegionControl,
    payload: Buffer.from([0xff, 0xfe]),
  },
  'an empty message about regions': { kind: Kind.RegionControl },
  'too long a message about regions': { kind: Kind.RegionControl, payloadBytes: 2 ** 17 },
  ...Object.fromEntries(
    [
      null,
      [],
      7,
      {},
      { type: 'open' },
      { type: 'open', question: -1, shape },
      { type: 'open', question: 1.5, shape },
      { type: 'open', question: 1, shape: null },
      { type: 'open', question: 1, shape: { ...shape, name: 7 } },
      { type: 'open', question: 1, shape: { ...shape, byteLength: 0 } },
      { type: 'open', question: 1, shape: { ...shape, byteLength: -1 } },
      { type: 'open', question: 1, shape: { ...shape, byteLength: 0.5 } },
      { type: 'open', question: 1, shape: { ...shape, byteLength: 2 ** 50 } },
      { type: 'open', question: 1, shape: { ...shape, byteLength: '4096' } },
      { type: 'open', question: 1, shape: { ...shape, pageBytes: 0 } },
      { type: 'open', question: 1, shape: { ...shape, pageBytes: 100 } },
      { type: 'open', question: 1, shape: { ...shape, pageBytes: 5000 } },
      { type: 'open', question: 1, shape: { ...shape, pageBytes: 2 ** 30 } },
      { type: 'open', question: 1, shape: { ...shape, placement: 'first' } },
      { type: 'map', region: { ...shape, id: 0, base: '0' } },
      { type: 'unmap', id: 0 },
      { type: 'opened', question: 0, region: { ...shape, id: 0, base: '0' } },
      { type: 'refused', question: 0, code: 'ERR', message: '' },
      { type: 'mapped', id: 5000, errno: 0 },
      { type: 'mapped', id: 0, errno: -1 },
    ].map((message) => {
      const payload = JSON.stringify(message)
      return [`of regions ${payload.slice(0, 120)}`, { kind: Kind.RegionControl, payload }]
    }),
  ),
}

t.test('a member that breaks the protocol', async (t) => {
  // In a guest some of each sort: what is native about them is the same for all.
  const entries = Object.entries(badRecords).filter((_, index) => index % sized(1, 4) === 0)
  const inTurn = async (): Promise<void> => {
    for (let next = entries.shift(); next !== undefined; next = entries.shift()) {
      const [name, records] = next
      const meeting = meetInFile(t, 2)
      const zero = startMember(t, meeting, 0)
      const join = zero.run(async (room) => {
        await room.join({ heartbeatTimeoutMs: 600_000 })
      })
      const fake = await FakeMember.join(meeting)
      await join
      const open = zero.run(async (room) => {
        const region = await room.open('r', { byteLength: 8192, placement: { rank: 0 } })
        new Int32Array(region.buffer).fill(5)
      })
      await fake.answerMap()
      await open
      const waiting = zero.failure((room) => room.mesh.barrier())
      for (const record of [records].flat()) fake.peer.send(record)
      const failure = await waiting.catch((error: unknown) => ({
        message: (error as Error).message,
      }))
      t.match(failure, { code: 'ERR_PAGEMESH_MEMBER_DOWN', rank: 1, message: /\(it .*\)$/ }, name)
      // The first page has not been touched by it; the second may have gone down with it.
      const words = zero.run((room) => {
        const words = new Int32Array(room.regions.r.buffer, 0, 1024)
        return words.every((word) => word === 5)
      })
      t.equal(await words.catch((error: unknown) => (error as Error).message), true)
      fake.peer.destroy()
      await leaveAll(t, [zero])
    }
  }
  await Promise.all([inTurn(), inTurn(), inTurn()])
})

t.test('a member whose bad request waits in a queue', async (t) => {
  const meeting = meetInFile(t, 2)
  const zero = startMember(t, meeting, 0)
  const join = zero.run(joinAndExpect, 10_000 * slowness)
  const fake = await FakeMember.join(meeting)
  await join
  const open = zero.run(async (room) => {
    const region = await room.open('r', { byteLength: 4096 })
    room.kept.pin = await region.pin(0, 4096, 'write')
  })
  await fake.answerMap()
  await open
  const waiting = zero.failure((room) => room.mesh.barrier())
  fake.peer.send({ kind: Kind.WriteRequest })
  fake.peer.send({ kind: Kind.WriteRequest })
  // Answered by the home, so the home has both requests in its queue.
  fake.peer.send({ kind: Kind.Acquire, words: [2, 0, 5, 1] })
  await fake.peer.next(Kind.SemaphoreReply)
  await zero.run((room) => (room.kept.pin as Disposable)[Symbol.dispose]())
  t.match(await waiting, {
    code: 'ERR_PAGEMESH_MEMBER_DOWN',
    rank: 1,
    message: /broke the protocol/,
  })
  await leaveAll(t, [zero])
})

t.test('a member that knows of a later view', async (t) => {
  const meeting = meetInFile(t, 2)
  const zero = startMember(t, meeting, 0)
  const join = zero.run(async (room) => {
    await room.join()
  })
  const fake = await FakeMember.join(meeting)
  await join
  fake.peer.send({ kind: Kind.Acquire, view: 2, words: [2, 0, 5, 1] })
  const { words } = await fake.peer.next(Kind.SemaphoreReply)
  t.equal(words[Word.view], 1, 'it is answered by who does not know of it')
  fake.peer.destroy()
  t.match(await zero.failure((room) => room.mesh.barrier()), { code: 'ERR_PAGEMESH_MEMBER_DOWN' })
  await leaveAll(t, [zero])
})

t.test('a member that asks for a region that cannot be', async (t) => {
  const meeting = meetInFile(t, 2)
  const zero = startMember(t, meeting, 0)
  const join = zero.run(joinAndExpect, 10_000 * slowness)
  const fake = await FakeMember.join(meeting)
  await join
  const placement = { rank: 2 }
  fake.sayOfRegions({ type: 'open', question: 5, shape: { ...shape, placement } })
  await fake.answerMap()
  const answer = await eventually('a refusal', async () => {
    const { payload } = await fake.peer.next(Kind.RegionControl)
    const message = JSON.parse(payload.toString()) as { type: string }
    return message.type === 'refused' ? message : undefined
  })
  t.match(answer, { question: 5, code: 'ERR_PAGEMESH_REGION_FAILED', message: /rank 0: EINVAL/ })
  const open = zero.run(async (room) => {
    await room.open('x', { byteLength: 4096 })
  })
  await fake.answerMap()
  await open
  fake.peer.destroy()
  await leaveAll(t, [zero])
})

t.test('a member that sends half a record, and no more', async (t) => {
  const meeting = meetInFile(t, 2)
  const zero = startMember(t, meeting, 0)
  const join = zero.run(joinAndExpect, 1000 * slowness)
  const fake = await FakeMember.join(meeting)
  await join
  fake.peer.sendBytes(Buffer.alloc(30, 1))
  t.match(await zero.failure((room) => room.mesh.barrier()), {
    code: 'ERR_PAGEMESH_MEMBER_DOWN',
    rank: 1,
    message: /nothing was heard/,
  })
  await leaveAll(t, [zero])
})

t.test('a member that asks for everything and reads nothing', async (t) => {
  const meeting = meetInFile(t, 2)
  const zero = startMember(t, meeting, 0)
  const join = zero.run(joinAndExpect, 1000 * slowness)
  const fake = await FakeMember.join(meeting)
  await join
  const open = zero.run(async (room) => {
    await room.open('r', { byteLength: 64 * 2 ** 20, placement: { rank: 0 } })
  })
  await fake.answerMap()
  await open
  fake.peer.socket.pause()
  for (let page = 0; page < sized(16, 2) * 1024; page++)
    fake.peer.send({ kind: Kind.ReadRequest, page })
  t.equal(
    await zero.run((room) => new Int32Array(room.regions.r.buffer)[0]),
    0,
    'the honest member goes on',
  )
  fake.peer.destroy()
  t.match(await zero.failure((room) => room.mesh.barrier()), { code: 'ERR_PAGEMESH_MEMBER_DOWN' })
  await leaveAll(t, [zero])
})
