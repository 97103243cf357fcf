import t from 'tap'
import { sized } from './support/machine.js'
import { all, leaveAll, type Member, type Room, startMesh } from './support/members.js'

// What a lock promises is in synchronization.test.ts; here, that its token stays where it was used,
// and comes when it is asked for.

t.test('who uses a lock alone asks once', async (t) => {
  const members = await startMesh(t, 3)
  for (const [rank, member] of members.entries()) {
    const seen = await member.run(async (room, rank) => {
      const lock = room.mesh.lock(`alone ${rank}`)
      const before = room.mesh.stats().locksTakenHere
      for (let i = 0; i < 100; i++) lock.acquireSync().release()
      for (let i = 0; i < 100; i++) (await lock.acquire()).release()
      for (let i = 0; i < 100; i++) (await lock.tryAcquire())?.release()
      const held = room.mesh.lock(`alone ${rank}`).acquireSync() // the same one, by another object
      const refused = await lock.tryAcquire()
      held.release()
      return [room.mesh.stats().locksTakenHere - before, refused]
    }, rank)
    // One is asked for in vain while it is held; after that it is asked for again.
    t.same(seen, [300, undefined])
  }
  await leaveAll(t, members)
})

t.test('eight members, each with a lock of its own and one for all', async (t) => {
  const members = await startMesh(t, 8)
  const times = sized(100, 20)
  const counts = await all(
    members,
    async (room, times) => {
      const { mesh } = room
      const region = await room.open('sum', { byteLength: 4096, placement: { rank: 0 } })
      const words = new Int32Array(region.buffer)
      const [own, shared] = [mesh.lock(`own ${mesh.rank}`), mesh.lock('shared')]
      for (let i = 0; i < times; i++) {
        const mine = own.acquireSync()
        const held = i % 2 === 0 ? shared.acquireSync() : await shared.acquire()
        words[0] = words[0] + 1
        held.release()
        mine.release()
      }
      await mesh.barrier()
      return { sum: words[0], here: mesh.stats().locksTakenHere }
    },
    times,
  )
  for (const { sum, here } of counts) {
    t.equal(sum, 8 * times)
    t.ok(here >= times - 1, `${here} of ${2 * times} were taken without asking`)
  }
  await leaveAll(t, members)
})

t.test('a token that lies idle comes to who waits, tries or gives up', async (t) => {
  const members = await startMesh(t, 3)
  const names = Array.from({ length: 6 }, (_, i) => `idle ${i}`) // managers of every rank
  const use = (room: Room, names: string[]): void => {
    for (const name of names) room.mesh.lock(name).acquireSync().release()
  }
  const tryAll = async (room: Room, names: string[]): Promise<boolean[]> => {
    const held = await Promise.all(names.map((name) => room.mesh.lock(name).tryAcquire()))
    for (const each of held) each?.release()
    return held.map((each) => each !== undefined)
  }
  for (let round = 0; round < 3; round++) {
    for (const member of members) {
      await member.run(use, names)
      const next = members[(members.indexOf(member) + 1) % members.length]
      t.same(
        await next.run(tryAll, names),
        names.map(() => true),
        'a try gets what lies idle',
      )
    }
  }
  const [zero, one, two] = members as [Member, Member, Member]
  await zero.run(async (room, names) => {
    for (const name of names) room.held[name] = await room.mesh.lock(name).acquire()
  }, names)
  t.same(
    await one.run(tryAll, names),
    names.map(() => false),
    'and not what is in use',
  )
  const gaveUp = await two.run(async (room, names) => {
    const signal = AbortSignal.timeout(30)
    const waiting = names.map((name) =>
      room.failure(() => room.mesh.lock(name).acquire({ signal })),
    )
    const gaveUp = (await Promise.all(waiting)).length
    // Comes to the managers after what takes these waiters out of their queues.
    await Promise.all(names.map((name) => room.mesh.lock(name).tryAcquire()))
    return gaveUp
  }, names)
  t.equal(gaveUp, names.length)
  await zero.run((room, names) => names.forEach((name) => room.held[name].release()), names)
  t.same(
    await one.run(tryAll, names),
    names.map(() => true),
    'whoever gave up does not have it',
  )
  await leaveAll(t, members)
})

t.test('a member that takes a lock all the time gives others a turn', async (t) => {
  const members = await startMesh(t, 2)
  const [zero, one] = members as [Member, Member]
  await zero.run(async (room) => {
    await room.open('stop', { byteLength: 4096, placement: { rank: 0 } })
  })
  await one.run(async (room) => {
    await room.open('stop', { byteLength: 4096, placement: { rank: 0 } })
  })
  const greedy = zero.run((room) => {
    const stop = new Int32Array(room.regions.stop.buffer)
    const lock = room.mesh.lock('greedy')
    for (let i = 0; i < 1000; i++) lock.acquireSync().release() // also if the other is quick
    while (Atomics.load(stop, 0) === 0) lock.acquireSync().release()
    return Atomics.load(stop, 0)
  })
  await one.run((room) => {
    for (let i = 0; i < 20; i++) room.mesh.lock('greedy').acquireSync().release()
    new Int32Array(room.regions.stop.buffer)[0] = 1
  })
  t.equal(await greedy, 1, 'the other had its turns')
  await leaveAll(t, members)
})

t.test('more locks than can keep their tokens', async (t) => {
  const members = await startMesh(t, 2)
  const uses = async (room: Room): Promise<[number, number]> => {
    const { mesh } = room
    const before = mesh.stats().locksTakenHere
    const kept = mesh.lock('kept')
    kept.acquireSync().release()
    for (let i = 0; i < 1100; i++) mesh.lock(`many ${i}`).acquireSync().release()
    const many = mesh.stats().locksTakenHere - before
    for (let i = 0; i < 10; i++) kept.acquireSync().release() // its word is another lock's now
    return [many, mesh.stats().locksTakenHere - before]
  }
  for (const member of members) t.same(await member.run(uses), [0, 9])
  // All words are in use: what is taken then works without a token.
  const without = await members[0].run((room) => {
    const held = Array.from({ length: 1030 }, (_, i) => room.mesh.lock(`held ${i}`).acquireSync())
    const before = room.mesh.stats().locksTakenHere
    for (let i = 0; i < 3; i++) room.mesh.lock('late').acquireSync().release()
    const here = room.mesh.stats().locksTakenHere - before
    for (const each of held) each.release()
    return here
  })
  t.equal(without, 0)
  t.equal(
    await members[1].run(async (room) => {
      const held = await Promise.all(
        [0, 512, 1029].map((i) => room.mesh.lock(`held ${i}`).acquire()),
      )
      for (const each of held) each.release()
      return held.length
    }),
    3,
  )
  await leaveAll(t, members)
})

t.test('what lies idle at a member that leaves is free', async (t) => {
  const members = await startMesh(t, 3)
  const [zero, one, two] = members as [Member, Member, Member]
  const names = Array.from({ length: 6 }, (_, i) => `left ${i}`)
  await one.run((room, names) => {
    for (const name of names) room.mesh.lock(name).acquireSync().release()
  }, names)
  const leaving = one.run((room) => room.mesh.leave())
  const taken = await zero.run((room, names) => {
    for (const name of names) room.mesh.lock(name).acquireSync().release()
    return names.length
  }, names)
  t.equal(taken, names.length)
  await Promise.all([leaving, ...[zero, two].map((member) => member.run((r) => r.mesh.leave()))])
})

t.test('a keeper is killed', async (t) => {
  for (const state of ['idle', 'held'] as const) {
    const members = await startMesh(t, 3)
    const [zero, one, two] = members as [Member, Member, Member]
    const names = Array.from({ length: 3 }, (_, i) => `killed ${i}`)
    await one.run((room, names) => {
      for (const name of names) room.mesh.lock(`mine ${name}`).acquireSync().release()
    }, names)
    await two.run(
      (room, names, state) => {
        const held = names.map((name) => room.mesh.lock(name).acquireSync())
        if (state === 'idle') for (const each of held) each.release()
      },
      names,
      state,
    )
    two.signal('SIGKILL')
    t.equal(await two.end(), 'SIGKILL')
    for (const member of [zero, one]) {
      const codes = await member.run(async (room, names) => {
        const seen: string[] = []
        for (const name of names) {
          // Until this member knows, it may still get what was given back before.
          const deadline = Date.now() + 10_000
          let failure: string | undefined
          while (failure === undefined && Date.now() < deadline) {
            failure = await room.mesh
              .lock(`mine ${name}`)
              .acquire()
              .then(
                (held) => {
                  held.release()
                  return undefined
                },
                (error: unknown) => (error as { code: string }).code,
              )
          }
          const sync = await room.failure(async () => {
            room.mesh.lock(name).acquireSync()
          })
          seen.push(failure ?? 'none', String(sync.code))
        }
        return seen
      }, names)
      const who = `rank ${members.indexOf(member)}, what was killed had it ${state}`
      t.same([...new Set(codes)], ['ERR_PAGEMESH_MEMBER_DOWN'], who)
    }
    await leaveAll(t, [zero, one])
  }
})
