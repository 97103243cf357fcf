import { readdirSync, readFileSync } from 'node:fs'
import t, { type Test } from 'tap'
import { Kind, Word } from '../../../dist/protocol/messages.js'
import {
  eventually,
  leaveAll,
  meetInFile,
  type Member,
  startMember,
} from '../../cluster/support/members.js'
import {
  brokeProtocol,
  cannotBe,
  endWell,
  joinReal,
  leave,
  meet,
  nobodyAsked,
  openHalves,
  ownPages,
  pageBytes,
  prefetch,
  serve,
  servedFill,
  servedWord,
  strangeOwnWords,
  strangeWords,
  tooMuchRoom,
} from '../support/hostile-stage.js'
import {
  answerFor,
  type Frame,
  frameIn,
  keyedWords,
  LinkSay,
  type Offer,
  Status,
  VerbsFake,
} from '../support/verbs-fake.js'

// What a member does when another one cannot be linked to, is gone, does not keep to what it offered,
// or sends more than there is room for. Runs where there is an RDMA device, as hostile-verbs.ts.

const offers: Record<string, Partial<Offer>> = {
  'packets of no size': { mtu: 0 },
  'packets of 8 KiB': { mtu: 6 },
  'packets beyond all': { mtu: 0xffffffff },
  'no receives': { receiveDepth: 0 },
  'receives for its reserve alone': { receiveDepth: 16 },
  'more receives than a device has': { receiveDepth: 0xffffffff },
  'queue pair 0': { qpNumber: 0 },
  'queue pair 1': { qpNumber: 1 },
  'a queue pair of 25 bits': { qpNumber: 0x1000002 },
  'a packet number of 25 bits': { packetNumber: 0x1000000 },
  'an address of nobody': { gid: Buffer.alloc(16) },
  'a byte less than an offer': { gid: Buffer.alloc(15) },
  'a byte more than an offer': { gid: Buffer.alloc(17) },
}

t.test('an offer that makes no sense', async (t) => {
  const zero = startMember(t, meetInFile(t, 1), 0)
  for (const [name, offer] of Object.entries(offers)) {
    const meeting = meetInFile(t, 2)
    const join = joinReal([zero], meeting, { transport: 'verbs', heartbeatTimeoutMs: 60_000 })
    join.catch(() => undefined)
    await VerbsFake.offer(t, meeting, { offer })
    const message = /rank 1 cannot be reached by verbs: the link to rank 1 could not be set up/
    await t.rejects(join, { code: 'ERR_PAGEMESH_JOIN_FAILED', rank: 1, message }, name)
  }
  const meeting = meetInFile(t, 2)
  const join = joinReal([zero], meeting, { transport: 'auto', heartbeatTimeoutMs: 60_000 })
  const fake = await VerbsFake.offer(t, meeting, { offer: { qpNumber: 0 } })
  await join
  const stats = await zero.run((room) => room.mesh.stats())
  t.match(stats, { transport: 'tcp', transportDetail: /link to rank 1 could not be set up/ })
  fake.member.peer.send({ kind: Kind.Acquire, words: [2, 0, 5, 1] })
  await fake.member.peer.next(Kind.SemaphoreReply)
  await fake.kill()
  t.match(await zero.failure((room) => room.mesh.barrier()), { code: 'ERR_PAGEMESH_MEMBER_DOWN' })
  await leave(zero)
  await endWell(t, [zero])
})

t.test('a member that says that it is ready, and does not answer', async (t) => {
  const zero = startMember(t, meetInFile(t, 1), 0)
  const noAnswer = /rank 1 does not answer over \w+ port \d.*: transport retry counter exceeded/
  for (const policy of ['verbs', 'auto'] as const) {
    const meeting = meetInFile(t, 2)
    const join = joinReal([zero], meeting, { transport: policy, heartbeatTimeoutMs: 60_000 })
    join.catch(() => undefined)
    const fake = await VerbsFake.offer(t, meeting)
    const { peer } = fake.member
    t.equal((await peer.next(Kind.LinkControl)).payload[0], LinkSay.offer)
    peer.send({ kind: Kind.LinkControl, payload: new Uint8Array([LinkSay.ready]) })
    t.equal((await peer.next(Kind.LinkControl)).payload[0], LinkSay.ready)
    const { payload } = await peer.next(Kind.LinkControl)
    t.equal(payload[0], LinkSay.no, 'it takes back that it is ready')
    t.match(payload.subarray(1).toString(), noAnswer)
    if (policy === 'verbs') {
      await t.rejects(join, { code: 'ERR_PAGEMESH_JOIN_FAILED', rank: 1, message: noAnswer })
      continue
    }
    await join
    const stats = await zero.run((room) => room.mesh.stats())
    t.match(stats, { transport: 'tcp', transportDetail: noAnswer })
    peer.send({ kind: Kind.Acquire, words: [2, 0, 5, 1] })
    await peer.next(Kind.SemaphoreReply)
    await fake.kill()
    t.match(await zero.failure((room) => room.mesh.barrier()), { code: 'ERR_PAGEMESH_MEMBER_DOWN' })
    await leave(zero)
  }
  await endWell(t, [zero])
})

t.test('a member that is down writes no more', async (t) => {
  const zero = startMember(t, meetInFile(t, 1), 0)
  const ends: Record<string, (fake: VerbsFake) => void> = {
    'nothing was heard of it': () => undefined,
    'it closed the connection|ECONNRESET': (fake) => fake.member.destroy(),
    'it sent a record that cannot be': (fake) => fake.member.peer.send({ kind: 0 }),
  }
  for (const [reason, end] of Object.entries(ends)) {
    const fake = await meet(t, [zero], { heartbeatTimeoutMs: 5000 })
    await openHalves(zero, fake)
    const held = await serve(t, zero, fake, ownPages)
    t.equal(await fake.write(0, held, pageBytes, servedFill), Status.success, 'its key is good')
    const waiting = zero.failure((room) => room.mesh.barrier())
    end(fake)
    t.match(await waiting, { code: 'ERR_PAGEMESH_MEMBER_DOWN', message: new RegExp(reason) })
    t.equal(await fake.write(0, held, pageBytes, 9), Status.retry, 'nobody answers its write')
    t.equal(await strangeWords(zero, ownPages, 1, servedWord), 0, 'which did not land')
    await leave(zero)
  }
  await endWell(t, [zero])
})

t.test('a link without its process, a connection with it', async (t) => {
  const zero = startMember(t, meetInFile(t, 1), 0)
  const fake = await meet(t, [zero], { heartbeatTimeoutMs: 5000 })
  const waiting = zero.failure((room) => room.mesh.barrier())
  await fake.hands.kill()
  const message = /its link failed: transport retry counter exceeded \(verbs status 12\)/
  t.match(await waiting, { code: 'ERR_PAGEMESH_MEMBER_DOWN', rank: 1, message })
  await leave(zero)
  await endWell(t, [zero])
})

t.test('a member that posts fewer receives than it said', async (t) => {
  const zero = startMember(t, meetInFile(t, 1), 0)
  const fake = await meet(t, [zero], { receives: 20 })
  fake.hands.order('repost 0 0')
  const waiting = zero.failure((room) => room.mesh.barrier())
  for (let request = 0; request < 40; request++) {
    fake.member.peer.send({ kind: Kind.Acquire, words: [request, 0, request, 1] })
  }
  const message = /its link failed: receiver not ready \(verbs status 13\)/
  t.match(await waiting, { code: 'ERR_PAGEMESH_MEMBER_DOWN', rank: 1, message })
  await leave(zero)
  await endWell(t, [zero])
})

t.test('a peer that is killed in the middle of a write', async (t) => {
  for (const written of ['half a page', 'a page, over and over']) {
    const zero = startMember(t, meetInFile(t, 1), 0)
    const fake = await meet(t, [zero])
    await openHalves(zero, fake)
    const fetch = prefetch(zero, ownPages)
    const awaited = await fake.request(0)
    if (written === 'half a page') {
      t.equal(await fake.write(0, awaited, pageBytes / 2, 9), Status.success)
    } else {
      for (let i = 0; i < 60; i++) void fake.write(0, awaited, pageBytes, 9).catch(() => undefined)
    }
    await fake.kill()
    await t.rejects(fetch, { code: 'ERR_PAGEMESH_MEMBER_DOWN' }, written)
    t.equal(await strangeOwnWords(zero), 0, 'its own pages are good')
    const reading = strangeWords(zero, ownPages, 1, 0)
    await t.rejects(reading, /has ended with 74/, 'nobody reads what was written of it')
    t.match(zero.stderr, /page 2048 of region 'r' .* is lost: its home, rank 1, is down/)
  }
})

/**
 * Has the member's program touch a page of the fake's; gives its request, and what it reads. The
 * page before it is had by then: a thread sends its request itself where a key is known.
 */
async function touch(
  t: Test,
  zero: Member,
  fake: VerbsFake,
): Promise<{ frame: Frame; slot: number; reading: Promise<number> }> {
  await serve(t, zero, fake, ownPages)
  const reading = strangeWords(zero, ownPages + 1, 1, servedWord)
  reading.catch(() => undefined)
  const { words } = await fake.hands.record(0, Kind.ReadRequest)
  t.equal(words[Word.page], ownPages + 1)
  const slot = words[Word.a + 8] - 1
  t.ok(slot >= 0, `slot ${slot} looks for its answer`)
  return { frame: frameIn(words, Word.c), slot, reading }
}

t.test('an answer for the thread that looks for it', async (t) => {
  const zero = startMember(t, meetInFile(t, 1), 0)
  const fake = await meet(t, [zero])
  await openHalves(zero, fake)
  const { frame, slot, reading } = await touch(t, zero, fake)
  await fake.write(0, frame, pageBytes, servedFill, answerFor(slot))
  t.equal(await reading, 0, 'it goes on with the page')
  await fake.kill()
  t.match(await zero.failure((room) => room.mesh.barrier()), { code: 'ERR_PAGEMESH_MEMBER_DOWN' })
  await leave(zero)
  await endWell(t, [zero])
})

t.test('a bad answer for the thread that looks for it', async (t) => {
  type Answer = [lengthBytes: number, news: (slot: number) => string, reason: RegExp]
  const answers: Record<string, Answer> = {
    'half a page': [pageBytes / 2, answerFor, nobodyAsked],
    'more credit than it offered': [
      pageBytes,
      (slot) => answerFor(slot, 1, false, 300),
      tooMuchRoom,
    ],
    'a view that cannot be': [pageBytes, (slot) => answerFor(slot, 9), brokeProtocol],
    'for the thread beside it': [pageBytes, (slot) => answerFor(slot + 1), cannotBe],
  }
  for (const [name, [lengthBytes, news, reason]] of Object.entries(answers)) {
    const zero = startMember(t, meetInFile(t, 1), 0)
    const fake = await meet(t, [zero])
    await openHalves(zero, fake)
    const waiting = zero.failure((room) => room.mesh.barrier())
    waiting.catch(() => undefined)
    const { frame, slot, reading } = await touch(t, zero, fake)
    await fake.write(0, frame, lengthBytes, 9, news(slot))
    await t.rejects(reading, /has ended with 74/, name)
    t.match(zero.stderr, /page 2049 of region 'r' .* is lost: its home, rank 1, is down/)
    t.match(zero.stderr, reason)
  }
})

// Three members: the last is the fake one, and rank 1 has done nothing wrong.
t.test('the others go on when one member breaks the rules', async (t) => {
  const real = [0, 1].map((rank) => startMember(t, meetInFile(t, 1), rank))
  const [zero, one] = real as [Member, Member]
  const fake = await meet(t, real)
  const opened = Promise.all(
    real.map((member) =>
      member.run(async (room) => {
        const region = await room.open('r', { byteLength: 3 * 4096 })
        if (room.mesh.rank === 0) new Int32Array(region.buffer, 0, 1024).fill(5)
      }),
    ),
  )
  await fake.member.answerMap()
  await opened
  // Rank 0 keeps the page; the request of rank 1 waits there, with the key of its frame.
  await zero.run(async (room) => {
    room.kept.pin = await room.regions.r.pin(0, 4096, 'write')
  })
  const fetched = prefetch(one, 0)
  await one.run((room) => room.regions.r.load(0)) // on the same link, after the request
  const waiting = zero.failure((room) => room.mesh.barrier())
  const nowhere = { rkey: 0x7fff00, address: 4096n }
  await fake.send(0, { kind: Kind.RecallRead, page: 0, words: keyedWords(1, nowhere, nowhere) })
  t.match(await waiting, { code: 'ERR_PAGEMESH_MEMBER_DOWN', rank: 2, message: brokeProtocol })
  await zero.run((room) => (room.kept.pin as Disposable)[Symbol.dispose]())
  await fetched
  t.equal(await strangeWords(one, 0, 1, 5), 0, 'the page went where rank 1 wanted it')
  await one.run((room) => {
    new Int32Array(room.regions.r.buffer, 0, 1024).fill(6)
  })
  t.equal(await strangeWords(zero, 0, 1, 6), 0, 'and back')
  await one.run(async (room) => room.regions.r.fetchAdd(0, 1))
  t.equal(await zero.run((room) => new Int32Array(room.regions.r.buffer)[0]), 7)
  const down = one.failure((room) => room.mesh.barrier())
  await fake.kill()
  t.match(await down, { code: 'ERR_PAGEMESH_MEMBER_DOWN', rank: 2 })
  await Promise.all(real.map(leave))
  await endWell(t, real)
})

t.test('real members: one is stopped for too long, and goes on', async (t) => {
  const real = [0, 1, 2].map((rank) => startMember(t, meetInFile(t, 1), rank))
  const [zero, one, two] = real as [Member, Member, Member]
  await joinReal(real, meetInFile(t, 3), { transport: 'verbs', heartbeatTimeoutMs: 3000 })
  await Promise.all(
    real.map((member) =>
      member.run(async (room) => {
        const region = await room.open('r', { byteLength: 3 * 4096 })
        new Int32Array(region.buffer, room.mesh.rank * 4096, 1024).fill(5)
        await room.mesh.barrier()
        await region.prefetch(0, 3 * 4096, 'read')
        await room.mesh.barrier()
      }),
    ),
  )
  const waiting = [zero, one].map((member) => member.failure((room) => room.mesh.barrier()))
  two.signal('SIGSTOP')
  const failures = await Promise.all(waiting)
  for (const failure of failures) t.match(failure, { code: 'ERR_PAGEMESH_MEMBER_DOWN', rank: 2 })
  // The barrier's manager finds it out, and may tell the other first.
  t.ok(failures.some(({ message }) => message.includes('nothing was heard of it')))
  two.signal('SIGCONT')
  // The others had come to that barrier, and it hears of their arrivals before it hears the rest.
  await two.run((room) => room.mesh.barrier().catch(() => undefined))
  const alone = await two.failure((room) => room.mesh.barrier())
  t.match(alone, { code: 'ERR_PAGEMESH_MEMBER_DOWN' }, 'it finds out')
  for (const member of real)
    t.equal(await strangeWords(member, 0, 3, 5), 0, 'all hold what they had')
  await one.run((room) => {
    new Int32Array(room.regions.r.buffer, 0, 1024).fill(6) // its home is rank 0
  })
  t.equal(await strangeWords(zero, 0, 1, 6), 0, 'the two go on')
  await Promise.all(real.map(leave))
  await endWell(t, real)
})

t.test('real members: the home is killed while its pages are on their way', async (t) => {
  const real = [0, 1, 2].map((rank) => startMember(t, meetInFile(t, 1), rank))
  const [zero, one, two] = real as [Member, Member, Member]
  await joinReal(real, meetInFile(t, 3), { transport: 'verbs', heartbeatTimeoutMs: 60_000 })
  const pages = 1024
  await Promise.all(
    real.map((member) =>
      member.run(async (room, count) => {
        const length = count * 4096
        const region = await room.open('r', { byteLength: length, placement: { rank: 2 } })
        const own = await room.open('own', { byteLength: 4096, placement: { rank: 0 } })
        const words = new Int32Array(region.buffer)
        if (room.mesh.rank === 2) for (let i = 0; i < words.length; i++) words[i] = i >> 10
        if (room.mesh.rank === 0) new Int32Array(own.buffer).fill(5)
        await room.mesh.barrier()
      }, pages),
    ),
  )
  const fetching = zero.failure(async (room, count) => {
    const region = room.regions.r
    for (;;) {
      await region.prefetch(0, count * 4096, 'read')
      await region.discard(0, count * 4096)
    }
  }, pages)
  await zero.run(async (room) => {
    while (room.regions.r.stats().pagesReceived < 300) await room.sleep(1)
  })
  two.signal('SIGKILL')
  t.match(await fetching, { code: 'ERR_PAGEMESH_MEMBER_DOWN', rank: 2 })
  t.match(await one.failure((room) => room.mesh.barrier()), { code: 'ERR_PAGEMESH_MEMBER_DOWN' })
  await one.run((room) => {
    new Int32Array(room.regions.own.buffer).fill(6)
  })
  const own = await zero.run((room) =>
    new Int32Array(room.regions.own.buffer).every((x) => x === 6),
  )
  t.ok(own, 'the two go on with the pages that they home')
  // Each page that can be read is whole; the first that cannot ends the process.
  const reading = zero.run((room) => {
    const words = new Int32Array(room.regions.r.buffer)
    for (let i = 0; i < words.length; i++) {
      if (words[i] !== i >> 10) throw new Error(`word ${i} is ${words[i]}`)
    }
    return 'all of them'
  })
  await t.rejects(reading, /has ended with 74/)
  t.match(zero.stderr, /of region 'r' .* is lost: its home, rank 2, is down/)
  t.match(await one.run((room) => room.mesh.leave()).then(() => 'left'), 'left')
  await endWell(t, [one])
})

/** What the device has counted, by the names that the kernel has for it. */
function counters(): Record<string, number> {
  const [device] = readdirSync('/sys/class/infiniband')
  const folder = `/sys/class/infiniband/${device}/ports/1/hw_counters`
  const names = readdirSync(folder).filter((name) => name !== 'lifespan')
  return Object.fromEntries(
    names.map((name) => [name, Number(readFileSync(`${folder}/${name}`, 'utf8'))]),
  )
}

/** What must not happen between members that keep to their credit. */
const neverCounted = [
  'send_rnr_err',
  'rcvd_rnr_err',
  'retry_exceeded_err',
  'retry_rnr_exceeded_err',
]

t.test('a flood of records, with credit and without', async (t) => {
  const zero = startMember(t, meetInFile(t, 1), 0)
  const fake = await meet(t, [zero], { rnrRetry: 7 })
  await openHalves(zero, fake)
  const received = (): Promise<number> => zero.run((room) => room.mesh.stats().verbsMessages)
  const start = { counted: counters(), received: await received() }
  const count = 20_000
  t.same(await fake.flood(0, count, 'credit', { kind: Kind.Heartbeat }), { sent: count, failed: 0 })
  await fake.send(0, { kind: Kind.Acquire, words: [2, 0, 5, 1] })
  await fake.hands.record(0, Kind.SemaphoreReply)
  t.equal(await received(), start.received + count + 1, 'all have come')
  const polite = counters()
  for (const name of neverCounted) t.equal(polite[name], start.counted[name], name)

  // The member stops until it has run out of buffers.
  zero.child.kill('SIGSTOP')
  const reckless = fake.flood(0, count, 'reckless', { kind: Kind.Heartbeat })
  await eventually('a receiver that is not ready', () =>
    counters().send_rnr_err > polite.send_rnr_err ? true : undefined,
  )
  zero.child.kill('SIGCONT')
  t.same(await reckless, { sent: count, failed: 0 })
  await fake.send(0, { kind: Kind.Acquire, words: [3, 0, 6, 1] })
  await fake.hands.record(0, Kind.SemaphoreReply)
  t.equal(await received(), start.received + 2 * count + 2, 'all have come, late')
  t.equal(await strangeOwnWords(zero), 0)
  await serve(t, zero, fake, ownPages)
  t.equal(await strangeWords(zero, ownPages, 1, servedWord), 0, 'and it goes on')
  await fake.kill()
  t.match(await zero.failure((room) => room.mesh.barrier()), { code: 'ERR_PAGEMESH_MEMBER_DOWN' })
  await leave(zero)
  await endWell(t, [zero])
})

t.test('real members: a flood of requests from all to all', async (t) => {
  const real = [0, 1, 2, 3].map((rank) => startMember(t, meetInFile(t, 1), rank))
  await joinReal(real, meetInFile(t, 4), { transport: 'verbs', heartbeatTimeoutMs: 60_000 })
  const start = counters()
  const outcomes = await Promise.all(
    real.map((member) =>
      member.run(async (room) => {
        const { mesh } = room
        const pages = 2048 // of all; far more requests at once than a link has credit for
        const region = await room.open('r', { byteLength: pages * 4096, placement: 'cyclic' })
        const words = new Int32Array(region.buffer)
        for (let page = mesh.rank; page < pages; page += mesh.size) words[page * 1024] = page
        await mesh.barrier()
        const locked = Array.from({ length: 400 }, async (_, i) => {
          const held = await mesh.lock(`lock ${i % 7}`).acquire()
          held.release()
        })
        await region.prefetch(0, pages * 4096, 'read')
        let wrong = 0
        for (let page = 0; page < pages; page++) if (words[page * 1024] !== page) wrong++
        await Promise.all(locked)
        await mesh.barrier()
        // Now everybody wants to write everything, each from the others.
        await region.prefetch(0, pages * 4096, 'write')
        await mesh.barrier()
        const { transport, verbsMessages } = mesh.stats()
        return { wrong, transport, verbsMessages }
      }),
    ),
  )
  for (const { wrong, transport, verbsMessages } of outcomes) {
    t.equal(wrong, 0)
    t.equal(transport, 'verbs')
    t.ok(verbsMessages > 5000, `${verbsMessages} records came by verbs`)
  }
  const end = counters()
  for (const name of neverCounted) t.equal(end[name], start[name], name)
  t.ok(end.rdma_sends - start.rdma_sends > 20_000, `${end.rdma_sends - start.rdma_sends} SENDs`)
  await leaveAll(t, real)
})
