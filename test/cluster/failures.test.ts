import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { slowness } from './support/machine.js'
import {
  all,
  eventually,
  type Failure,
  joinAll,
  leaveAll,
  meetInFile,
  type Member,
  type Room,
  startMembers,
  startMesh,
} from './support/members.js'

/** So long may it take until survivors know; the specification says 2 s. */
const noticeMs = 2000 * slowness
/** The shortest that there is, where members are quick. */
const heartbeatTimeoutMs = 1000 * slowness
const lostPageExitCode = 74

const openHomedAt = async (room: Room, name: string, rank: number): Promise<void> => {
  await room.open(name, { byteLength: 64 * 4096, placement: { rank } })
}

/** Starts what can only end by the death of `victim`, and says how each ended and when. */
async function waitForEver(room: Room, victim: number): Promise<(Failure & { atMs: number })[]> {
  const { mesh, regions } = room
  const local = regions[`home ${(victim + 1) % mesh.size}`]
  const remote = regions[`home ${victim}`]
  const calls = [
    () => mesh.barrier(),
    () => mesh.barrier('another'),
    () => mesh.lock('held by the victim').acquire(),
    () => mesh.lock('held by the victim').acquire({ signal: new AbortController().signal }),
    () => mesh.semaphore('held by the victim', 1).acquire(),
    () => remote.prefetch(4096, 8 * 4096, 'read'),
    () => remote.pin(4096, 4096, 'write'),
    () => remote.fetchAdd(4096, 1),
    () => remote.load(4096, 'int64'),
    () => local.prefetch(0, 4096, 'read'), // the victim has it pinned
    () => mesh.region('a new one', { byteLength: 4096 }),
  ]
  return Promise.all(
    calls.map(async (call) => ({ ...(await room.failure(call)), atMs: Date.now() })),
  )
}

/** Every operation of a member whose mesh has lost somebody. */
async function tryAll(room: Room): Promise<Failure[]> {
  const { mesh, regions } = room
  const region = Object.values(regions)[0]
  const calls = [
    () => mesh.barrier(),
    () => mesh.lock('l').acquire(),
    () => mesh.lock('l').acquireSync(),
    () => mesh.lock('l').tryAcquire(),
    () => mesh.semaphore('s', 2).acquire(),
    () => mesh.region('a newer one', { byteLength: 1 }),
    () => region.prefetch(0, 4096, 'read'),
    () => region.pin(0, 4096, 'read'),
    () => region.discard(0, 4096),
    () => region.fetchAdd(0, 1),
    () => region.compareExchange(0, 1n, 1n),
    () => region.load(0),
    () => region.store(0, 1),
  ]
  const failures: Failure[] = []
  for (const call of calls) failures.push(await room.failure(call))
  return failures
}

for (const victim of [0, 1, 2]) {
  t.test(`rank ${victim} is killed while the others wait for it`, async (t) => {
    const members = await startMesh(t, 3)
    const survivors = members.filter((_, rank) => rank !== victim)
    const dying = members[victim]
    for (const rank of [0, 1, 2]) await all(members, openHomedAt, `home ${rank}`, rank)
    await dying.run(
      async (room, local) => {
        room.held.lock = await room.mesh.lock('held by the victim').acquire()
        room.held.permit = await room.mesh.semaphore('held by the victim', 1).acquire()
        room.kept.pin = await room.regions[local].pin(0, 4096, 'write')
      },
      `home ${(victim + 1) % 3}`,
    )
    await dying.stop() // from here on it answers nobody
    const pending = survivors.map((member) => member.run(waitForEver, victim))
    await sleep(300)
    const killedMs = Date.now()
    dying.signal('SIGKILL')
    for (const failures of await Promise.all(pending)) {
      for (const { code, rank, message, atMs } of failures) {
        const expected = /ERR_PAGEMESH_(MEMBER_DOWN|PAGE_LOST)/
        t.match({ code, rank }, { code: expected, rank: victim }, message)
        t.ok(atMs >= killedMs && atMs - killedMs < noticeMs, `after ${atMs - killedMs} ms`)
      }
    }
    for (const failures of await all(survivors, tryAll)) {
      for (const failure of failures) {
        t.match(failure, { code: 'ERR_PAGEMESH_MEMBER_DOWN', rank: victim })
        t.match(failure.message, `rank ${victim} is down`)
      }
    }
    await leaveAll(t, survivors)
  })
}

t.test('pages that survivors home and own stay usable', async (t) => {
  const members = await startMesh(t, 4)
  const survivors = members.filter((_, rank) => rank !== 1)
  for (const rank of [0, 1, 2, 3]) await all(members, openHomedAt, `home ${rank}`, rank)
  // The victim has copies of everything; of its own pages each survivor has a copy of one.
  await all(members, (room) => {
    const { mesh, regions } = room
    const own = new Int32Array(regions[`home ${mesh.rank}`].buffer)
    for (let at = 0; at < own.length; at++) own[at] = mesh.rank * 1_000_000 + at
  })
  await members[1].run((room) => {
    for (const region of Object.values(room.regions)) {
      for (const word of new Int32Array(region.buffer)) room.kept.seen = word
    }
  })
  await all(survivors, (room) => {
    room.kept.seen = new Int32Array(room.regions['home 1'].buffer)[room.mesh.rank * 1024]
  })
  members[1].signal('SIGKILL')
  await Promise.all(
    survivors.map((member) =>
      eventually('the notice', async () => {
        const { code } = await member.failure((room) => room.mesh.lock('l').tryAcquire())
        return code === 'NONE' ? undefined : code
      }),
    ),
  )
  const outcomes = await all(survivors, async (room) => {
    const { mesh, regions } = room
    for (const home of [0, 2, 3]) {
      const words = new Int32Array(regions[`home ${home}`].buffer)
      for (let at = mesh.rank; at < words.length; at += 7) {
        if (words[at] % 1_000_000 !== at) return `${home}: word ${at} is ${words[at]}`
      }
      words[mesh.rank * 4] = words[mesh.rank * 4] + 1_000_000 // all three write the same pages
    }
    // Its copy of a page of the member that is gone is still good to read.
    return new Int32Array(regions['home 1'].buffer)[mesh.rank * 1024]
  })
  t.same(outcomes, [1_000_000, 1_002_048, 1_003_072])
  const words = await members[0].run((room) => [
    new Int32Array(room.regions['home 3'].buffer)[0],
    new Int32Array(room.regions['home 3'].buffer)[8],
    new Int32Array(room.regions['home 3'].buffer)[12],
  ])
  t.same(words, [4_000_000, 4_000_008, 4_000_012])
  await leaveAll(t, survivors)
})

/** Touches a word, and does not come back if its page is lost. */
const touch = (room: Room, name: string, at: number): number | undefined =>
  new Int32Array(room.regions[name].buffer)[at]

async function endsWithLostPage(t: Test, member: Member, pattern: RegExp): Promise<void> {
  t.equal(await member.end(), lostPageExitCode, 'the exit code of a lost page')
  t.match(member.stderr, pattern)
  t.equal(member.stderr.trimEnd().split('\n').length, 1, 'one line')
}

t.test('a thread that waits for a page whose home dies', async (t) => {
  const members = await startMesh(t, 3)
  const [zero, one, two] = members as [Member, Member, Member]
  await all(members, openHomedAt, 'r', 1)
  await one.stop()
  zero.run(touch, 'r', 5 * 1024)
  await sleep(200)
  one.signal('SIGKILL')
  await endsWithLostPage(t, zero, /rank 0: page 5 of region 'r' .*lost: its home, rank 1, is down/)
  t.match(await two.failure((room) => room.mesh.barrier()), { code: 'ERR_PAGEMESH_MEMBER_DOWN' })
  await leaveAll(t, [two])
})

t.test('a thread that waits for a page whose owner dies', async (t) => {
  const members = await startMesh(t, 3)
  const [zero, one, two] = members as [Member, Member, Member]
  await all(members, openHomedAt, 'r', 0)
  await two.run((room) => {
    new Int32Array(room.regions.r.buffer)[7 * 1024] = 1
  })
  await two.stop()
  one.run(touch, 'r', 7 * 1024 + 3)
  await sleep(200)
  two.signal('SIGKILL')
  const pattern = /page 7 of region 'r' .*lost: its owner, rank 2, is down .*home: rank 0/
  await endsWithLostPage(t, one, pattern)
  // The home itself meets the loss when it touches the page, and not before.
  t.equal(await zero.run(touch, 'r', 0), 0)
  zero.run(touch, 'r', 7 * 1024)
  await endsWithLostPage(t, zero, pattern)
})

t.test('a worker that touches a lost page ends its process, too', async (t) => {
  const members = await startMesh(t, 2)
  const [zero, one] = members as [Member, Member]
  await all(members, openHomedAt, 'r', 0)
  zero.signal('SIGKILL')
  await eventually('the notice', async () => {
    const { code } = await one.failure((room) => room.mesh.lock('l').tryAcquire())
    return code === 'NONE' ? undefined : code
  })
  await one
    .run(async (room) => {
      const { Worker } = await import('node:worker_threads')
      const text = `new Int32Array(require('node:worker_threads').workerData)[0]`
      new Worker(text, { eval: true, workerData: room.regions.r.buffer })
      await room.sleep(10_000)
    })
    .catch(() => undefined)
  await endsWithLostPage(t, one, /page 0 of region 'r' .*its home, rank 0, is down/)
})

t.test('operations on a page whose owner is dead', async (t) => {
  const members = await startMesh(t, 3)
  const [zero, one, two] = members as [Member, Member, Member]
  await all(members, openHomedAt, 'r', 0)
  await two.run((room) => {
    new Int32Array(room.regions.r.buffer)[1024] = 1
  })
  await two.stop()
  const pending = [
    zero.failure((room) => room.regions.r.fetchAdd(4096, 1)),
    one.failure((room) => room.regions.r.fetchAdd(4096, 1)),
    one.failure((room) => room.regions.r.prefetch(0, 3 * 4096, 'write')),
    zero.failure((room) => room.regions.r.pin(0, 3 * 4096, 'read')),
  ]
  await sleep(200)
  two.signal('SIGKILL')
  for (const failure of await Promise.all(pending)) {
    t.match(failure, { code: /ERR_PAGEMESH_(MEMBER_DOWN|PAGE_LOST)/, rank: 2 })
  }
  await leaveAll(t, [zero, one])
})

t.test('a member that is stopped for longer than the heartbeat time-out', async (t) => {
  const members = startMembers(t, meetInFile(t, 2))
  const [zero, one] = members as [Member, Member]
  await joinAll(members, { heartbeatTimeoutMs })
  const startMs = performance.now()
  await one.stop()
  const failure = await zero.failure((room) => room.mesh.barrier())
  const tookMs = performance.now() - startMs
  t.match(failure, { code: 'ERR_PAGEMESH_MEMBER_DOWN', rank: 1, message: /nothing was heard/ })
  t.ok(
    tookMs > 0.9 * heartbeatTimeoutMs && tookMs < heartbeatTimeoutMs + noticeMs,
    `after ${Math.round(tookMs)} ms`,
  )
  one.signal('SIGCONT')
  // Another barrier: rank 0 had come to the first one.
  t.match(await one.failure((room) => room.mesh.barrier('later')), {
    code: 'ERR_PAGEMESH_MEMBER_DOWN',
  })
  await leaveAll(t, members)
})

t.test('a member that is stopped for a shorter time', async (t) => {
  const members = startMembers(t, meetInFile(t, 2))
  await joinAll(members, { heartbeatTimeoutMs: 3000 * slowness })
  await members[1].stop()
  await sleep(1000)
  members[1].signal('SIGCONT')
  await all(members, (room) => room.mesh.barrier())
  await leaveAll(t, members)
})

t.test('event loops that stand still are no failure', async (t) => {
  const members = startMembers(t, meetInFile(t, 2))
  await joinAll(members, { heartbeatTimeoutMs })
  await all(
    members,
    (_, forMs) => {
      const untilMs = performance.now() + forMs
      while (performance.now() < untilMs);
    },
    1.8 * heartbeatTimeoutMs,
  )
  await all(members, (room) => room.mesh.barrier())
  await leaveAll(t, members)
})

t.test('a member that leaves early breaks the barriers of the others', async (t) => {
  const members = await startMesh(t, 3)
  const [zero, one, two] = members as [Member, Member, Member]
  await all(members, openHomedAt, 'r', 1)
  await one.run((room) => {
    new Int32Array(room.regions.r.buffer).fill(3)
  })
  const names = ['a', 'b', 'c', 'd', 'e', 'f']
  const waiting = [zero, two].map((member) =>
    member.run(
      async (room, names) =>
        Promise.all(names.map((name) => room.failure(() => room.mesh.barrier(name)))),
      names,
    ),
  )
  await sleep(100)
  const leaving = one.run((room) => room.mesh.leave())
  for (const failures of await Promise.all(waiting)) {
    for (const failure of failures) {
      t.match(failure, { code: 'ERR_PAGEMESH_MEMBER_LEFT', rank: 1, message: /rank 1 has left/ })
    }
  }
  for (const member of [zero, two]) {
    t.match(await member.failure((room) => room.mesh.barrier()), {
      code: 'ERR_PAGEMESH_MEMBER_LEFT',
      rank: 1,
    })
    // Everything else goes on: it serves its pages until the last has called leave.
    t.equal(await member.run(touch, 'r', 2048 + (member.child.pid! % 1024)), 3)
    await member.run(async (room) => {
      const held = await room.mesh.lock('l').acquire()
      await room.regions.r.fetchAdd(0, 1)
      await room.open('opened without it', { byteLength: 4096 })
      held.release()
    })
  }
  t.equal(await zero.run(touch, 'r', 0), 5)
  await Promise.all([leaving, ...[zero, two].map((member) => member.run((r) => r.mesh.leave()))])
})

t.test('an exception in one program does not hang the others', async (t) => {
  const members = await startMesh(t, 3)
  const outcomes = await Promise.all(
    members.map((member, rank) =>
      member.failure(async (room, rank) => {
        try {
          await room.mesh.barrier()
          if (rank === 1) throw new Error('a mistake')
          await room.mesh.barrier()
        } finally {
          await room.mesh.leave()
        }
      }, rank),
    ),
  )
  t.match(
    outcomes.map(({ code, message }) => code ?? message),
    ['ERR_PAGEMESH_MEMBER_LEFT', /a mistake/, 'ERR_PAGEMESH_MEMBER_LEFT'],
  )
})

t.test('a member that ends without leave', async (t) => {
  const members = await startMesh(t, 2)
  const [zero, one] = members as [Member, Member]
  const waiting = zero.failure((room) => room.mesh.barrier())
  one.run(() => process.exit(7)).catch(() => undefined)
  t.match(await waiting, { code: 'ERR_PAGEMESH_MEMBER_DOWN', rank: 1 })
  t.equal(await one.end(), 7)
  await leaveAll(t, [zero])
})

t.test('one death after the other', async (t) => {
  const members = await startMesh(t, 5)
  for (const victim of [4, 0, 2]) {
    members[victim].signal('SIGKILL')
    t.equal(await members[victim].end(), 'SIGKILL')
    t.match(await members[1].failure((room) => room.mesh.barrier()), {
      code: 'ERR_PAGEMESH_MEMBER_DOWN',
      rank: 4,
    })
  }
  await leaveAll(t, [members[1], members[3]])
})
