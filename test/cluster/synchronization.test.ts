import t from 'tap'
import { sized } from './support/machine.js'
import { all, eventually, leaveAll, type Member, type Room, startMesh } from './support/members.js'

t.test('barriers: named, reused, and two at the same time', async (t) => {
  const members = await startMesh(t, 4)
  const stay = async (room: Room, barriers: number): Promise<string> => {
    const { mesh } = room
    const region = await room.open('steps', { byteLength: 4 * 4096, placement: 'block' })
    const steps = new Int32Array(region.buffer)
    const own = mesh.rank * 1024
    const mine = (): Promise<void> => mesh.barrier('mine')
    for (let step = 1; step <= barriers; step++) await mine()
    for (let step = 1; step <= 40; step++) {
      steps[own] = step
      await mesh.barrier()
      // Nobody is behind; nobody can be ahead by more than the step that others still look at.
      for (let rank = 0; rank < mesh.size; rank++) {
        if (steps[rank * 1024] !== step) return `step ${step}: rank ${rank} is elsewhere`
      }
      await mesh.barrier('looked')
    }
    return 'together'
  }
  const seen = await all(members, stay, sized(1000, 100))
  t.same(seen, ['together', 'together', 'together', 'together'])
  // Each call counts once: two of one name are two generations.
  const orders = await all(members, async (room) => {
    const order: string[] = []
    const first = room.mesh.barrier('pair').then(() => order.push('first'))
    const second = room.mesh.barrier('pair').then(() => order.push('second'))
    const other = room.mesh.barrier('other')
    await Promise.all([first, second, other])
    return order
  })
  for (const order of orders) t.same(order, ['first', 'second'])
  await leaveAll(t, members)
})

t.test('barriers of threads that stand still, and of both kinds', async (t) => {
  const members = await startMesh(t, 3)
  const counts = await all(
    members,
    async (room, times) => {
      const { mesh } = room
      const region = await room.open('kinds', { byteLength: 3 * 4096, placement: 'block' })
      const steps = new Int32Array(region.buffer)
      for (let step = 1; step <= times; step++) {
        steps[mesh.rank * 1024] = step
        if ((step + mesh.rank) % 3 === 0) await mesh.barrier('kinds')
        else mesh.barrierSync('kinds')
        for (let rank = 0; rank < mesh.size; rank++) {
          const seen = steps[rank * 1024]
          if (seen !== step) return `step ${step}: rank ${rank} is at ${seen}`
        }
        mesh.barrierSync('looked')
      }
      // Under names that are used once nobody comes by itself; of many, not all have a slot.
      for (let i = 0; i < 300; i++) mesh.barrierSync(`once ${i}`)
      for (let i = 0; i < 3 * 300; i++) mesh.barrierSync(`often ${i % 300}`)
      return mesh.size
    },
    sized(150, 20),
  )
  t.same(counts, [3, 3, 3])
  await leaveAll(t, members)
})

t.test('a barrier that takes long, and one that a member leaves', async (t) => {
  const members = await startMesh(t, 3)
  await all(members, async ({ mesh }) => {
    for (let i = 0; i < 5; i++) await mesh.barrier('late')
  })
  // One has several to come to at once, one stands still, and one is late.
  const early = [
    members[0].run(async ({ mesh }) => {
      await Promise.all([mesh.barrier('late'), mesh.barrier('late'), mesh.barrier('late')])
    }),
    members[1].run(({ mesh }) => {
      for (let i = 0; i < 3; i++) mesh.barrierSync('late')
    }),
  ]
  const other = members[2].run((room) => room.sleep(150)).then(() => 'nobody')
  t.equal(await Promise.race([...early, other]), 'nobody')
  await members[2].run(async ({ mesh }) => {
    for (let i = 0; i < 3; i++) await mesh.barrier('late')
  })
  await Promise.all(early)
  const waiting = [
    members[0].failure(({ mesh }) => mesh.barrierSync('late')),
    members[1].failure(({ mesh }) => mesh.barrier('late')),
  ]
  await members[2].run((room) => room.sleep(50))
  const left = members[2].run(({ mesh }) => mesh.leave())
  for (const failure of await Promise.all(waiting)) {
    t.match(failure, { code: 'ERR_PAGEMESH_MEMBER_LEFT', rank: 2, message: /barrier 'late'/ })
  }
  for (const member of members.slice(0, 2)) {
    t.match(await member.failure(({ mesh }) => mesh.barrierSync('late')), { rank: 2 })
  }
  await leaveAll(t, members.slice(0, 2))
  await left
})

t.test('a thread that stands still at a barrier hears of a death', async (t) => {
  const members = await startMesh(t, 3)
  await all(members, ({ mesh }) => {
    for (let i = 0; i < 5; i++) mesh.barrierSync()
  })
  const waiting = members.slice(0, 2).map((m) => m.failure(({ mesh }) => mesh.barrierSync()))
  await members[2].run((room) => room.sleep(50))
  members[2].signal('SIGKILL')
  for (const failure of await Promise.all(waiting)) {
    t.match(failure, { code: 'ERR_PAGEMESH_MEMBER_DOWN', rank: 2 })
  }
  await leaveAll(t, members.slice(0, 2))
})

t.test('a barrier waits for the last', async (t) => {
  const members = await startMesh(t, 3)
  const early = members.slice(0, 2).map((member) => member.run((room) => room.mesh.barrier('b')))
  const other = members[2].run((room) => room.sleep(200)).then(() => 'nobody')
  t.equal(await Promise.race([...early, other]), 'nobody')
  await members[2].run((room) => room.mesh.barrier('b'))
  await Promise.all(early)
  await leaveAll(t, members)
})

const countUnder = async (room: Room, kind: 'async' | 'sync', times: number): Promise<void> => {
  const lock = room.mesh.lock('count')
  const region = await room.open('count', { byteLength: 4096, placement: { rank: 0 } })
  const words = new Int32Array(region.buffer)
  for (let i = 0; i < times; i++) {
    const held = kind === 'async' ? await lock.acquire() : lock.acquireSync()
    const before = words[0]
    if (i % 10 === 0) await room.sleep(0)
    words[0] = before + 1
    held.release()
  }
}

t.test('a lock: one at a time', async (t) => {
  const members = await startMesh(t, 4)
  const times = sized(200, 20)
  await all(members, countUnder, 'async', times)
  await all(members, countUnder, 'sync', times)
  await Promise.all(
    members.map((member, rank) => member.run(countUnder, rank % 2 === 0 ? 'async' : 'sync', times)),
  )
  const total = await members[3].run((room) => new Int32Array(room.regions.count.buffer)[0])
  t.equal(total, 4 * 3 * times)
  await leaveAll(t, members)
})

t.test('acquireSync in all members, while their event loops stand still', async (t) => {
  const members = await startMesh(t, 3)
  await all(members, (room) => {
    const lock = room.mesh.lock('sync')
    for (let i = 0; i < 300; i++) lock.acquireSync().release()
  })
  await members[0].run((room) => {
    room.held.a = room.mesh.lock('sync').acquireSync()
  })
  const waiting = members[1].run((room) => {
    room.held.a = room.mesh.lock('sync').acquireSync()
    return 'granted'
  })
  const early = members[0].run((room) => room.sleep(100))
  t.equal(await Promise.race([waiting, early]), undefined, 'it waits')
  await members[0].run((room) => room.held.a.release())
  t.equal(await waiting, 'granted')
  await members[1].run((room) => room.held.a.release())
  await leaveAll(t, members)
})

t.test('first come, first served', async (t) => {
  const members = await startMesh(t, 3)
  const [zero, one, two] = members as [Member, Member, Member]
  await zero.run(async (room) => {
    room.held.q = await room.mesh.lock('queue').acquire()
  })
  const order: string[] = []
  const claims: Promise<unknown>[] = []
  for (const [name, member] of [
    ['a', one],
    ['b', two],
    ['c', zero],
    ['d', one],
    ['e', two],
  ] as const) {
    const claim = member.run(async (room, name) => {
      room.held[name] = await room.mesh.lock('queue').acquire()
    }, name)
    claims.push(
      claim.then(async () => {
        order.push(name)
        await member.run((room, name) => room.held[name].release(), name)
      }),
    )
    // The manager has the claim once it has answered a later question of the same member.
    await member.run(async (room) => {
      await room.mesh.lock('queue').tryAcquire()
    })
  }
  await zero.run((room) => room.held.q.release())
  await Promise.all(claims)
  t.same(order, ['a', 'b', 'c', 'd', 'e'])
  await leaveAll(t, members)
})

t.test('tryAcquire', async (t) => {
  const members = await startMesh(t, 2)
  const tryIt = async (room: Room): Promise<boolean> => {
    const held = await room.mesh.lock('try').tryAcquire()
    if (held !== undefined) room.held.try = held
    return held !== undefined
  }
  for (const [taker, other] of [members, [...members].reverse()] as [Member, Member][]) {
    t.equal(await taker.run(tryIt), true)
    t.equal(await taker.run(tryIt), false, 'not reentrant')
    t.equal(await other.run(tryIt), false)
    await taker.run((room) => room.held.try.release())
    // It returns before the manager has heard of it.
    await eventually('the release', async () => ((await other.run(tryIt)) ? true : undefined))
    await other.run((room) => room.held.try.release())
  }
  await leaveAll(t, members)
})

t.test('aborting', async (t) => {
  const members = await startMesh(t, 2)
  const [zero, one] = members as [Member, Member]
  for (const [holder, waiter] of [
    [zero, one],
    [one, zero],
  ] as const) {
    const before = await waiter.run(async (room) => {
      const lock = room.mesh.lock('abort')
      const reason = new Error('not today')
      const failure = await room.failure(() => lock.acquire({ signal: AbortSignal.abort(reason) }))
      const held = await lock.tryAcquire()
      held?.release()
      return [failure.message, held !== undefined]
    })
    t.same(before, ['not today', true], 'aborted before: the lock is not touched')
    await holder.run(async (room) => {
      room.held.abort = await room.mesh.lock('abort').acquire()
    })
    const during = await waiter.run(async (room) => {
      const controller = new AbortController()
      const { signal } = controller
      const waiting = room.failure(() => room.mesh.lock('abort').acquire({ signal }))
      setTimeout(() => controller.abort(new Error('enough')), 30)
      return (await waiting).message
    })
    t.equal(during, 'enough')
    const timedOut = await waiter.failure((room) =>
      room.mesh.lock('abort').acquire({ signal: AbortSignal.timeout(20) }),
    )
    t.equal(timedOut.message, 'The operation was aborted due to timeout')
    await holder.run((room) => room.held.abort.release())
    const free = await waiter.run(async (room) => {
      const held = await room.mesh.lock('abort').acquire()
      held.release()
      return true
    })
    t.equal(free, true, 'whoever gave up does not get it later')
  }
  // A grant that crosses the abort is given back.
  const outcomes = await all(members, async (room) => {
    const lock = room.mesh.lock('crossing')
    let granted = 0
    let aborted = 0
    for (let i = 0; i < 150; i++) {
      const controller = new AbortController()
      const { signal } = controller
      const claim = lock.acquire({ signal }).then(
        (held) => {
          granted++
          held.release()
        },
        () => aborted++,
      )
      const turns = i % 5
      for (let turn = 0; turn < turns; turn++) await new Promise((next) => setImmediate(next))
      controller.abort()
      await claim
    }
    return granted + aborted
  })
  t.same(outcomes, [150, 150])
  const last = await one.run(async (room) => {
    const held = await room.mesh.lock('crossing').acquire()
    held.release()
    return 'free'
  })
  t.equal(last, 'free', 'no grant was lost')
  await leaveAll(t, members)
})

t.test('giving back', async (t) => {
  const members = await startMesh(t, 2)
  const seen = await all(members, async (room) => {
    const lock = room.mesh.lock('back')
    const held = await lock.acquire()
    held.release()
    const twice = await room.failure(() => held.release())
    held[Symbol.dispose]()
    await held[Symbol.asyncDispose]()
    const second = await lock.acquire()
    second[Symbol.dispose]()
    second[Symbol.dispose]()
    const afterDispose = await room.failure(() => second.release())
    const third = lock.acquireSync()
    await third[Symbol.asyncDispose]()
    const fourth = await lock.acquire()
    fourth.release()
    return [twice, afterDispose].map(({ code, message }) => `${code} ${message}`)
  })
  const expected = "ERR_PAGEMESH_NOT_HELD 'back' has been released already"
  t.same(seen, [
    [expected, expected],
    [expected, expected],
  ])
  await leaveAll(t, members)
})

t.test('a lock that is held survives the garbage collector', async (t) => {
  const members = await startMesh(t, 2)
  await members[0].run(async (room) => {
    const { setFlagsFromString } = await import('node:v8')
    setFlagsFromString('--expose-gc')
    const { runInNewContext } = await import('node:vm')
    const collect = runInNewContext('gc') as () => void
    await room.mesh.lock('gc').acquire() // and forgets it
    for (let i = 0; i < 5; i++) {
      collect()
      await room.sleep(1)
    }
  })
  t.equal(await members[1].run((room) => room.mesh.lock('gc').tryAcquire()), undefined)
  await leaveAll(t, members)
})

t.test('semaphores', async (t) => {
  const members = await startMesh(t, 4)
  const peaks = await all(members, async (room) => {
    const { mesh } = room
    const region = await room.open('inside', { byteLength: 4096, placement: { rank: 1 } })
    const semaphore = mesh.semaphore('three', 3)
    const { name, permits } = semaphore
    if (name !== 'three' || permits !== 3) return -1
    let peak = 0
    const once = async (): Promise<void> => {
      const held = await semaphore.acquire()
      peak = Math.max(peak, 1 + (await region.fetchAdd(0, 1)))
      await room.sleep(1)
      await region.fetchAdd(0, -1)
      held.release()
    }
    for (let i = 0; i < 25; i++) await Promise.all([once(), once()])
    return peak
  })
  t.equal(Math.max(...peaks), 3, 'three at a time, no more and no less')
  const [zero, one] = members as [Member, Member]
  await zero.run(async (room) => {
    room.held.s = await room.mesh.semaphore('size', 2).acquire()
  })
  for (const member of members) {
    t.match(await member.failure((room) => room.mesh.semaphore('size', 3).acquire()), {
      code: 'ERR_PAGEMESH_SEMAPHORE_MISMATCH',
      message: /'size' is in use with 2 permit.* 3/,
    })
  }
  t.match(await one.failure((room) => room.mesh.semaphore('size', 1).tryAcquire()), {
    code: 'ERR_PAGEMESH_SEMAPHORE_MISMATCH',
  })
  t.match(await one.failure((room) => room.mesh.semaphore('size', 1).acquireSync()), {
    code: 'ERR_PAGEMESH_SEMAPHORE_MISMATCH',
  })
  await one.run(async (room) => {
    // A lock of the same name is another thing.
    const held = await room.mesh.lock('size').acquire()
    held.release()
    const permit = await room.mesh.semaphore('size', 2).acquire()
    permit.release()
  })
  await leaveAll(t, members)
})

t.test('what a member held when it left passes on', async (t) => {
  const members = await startMesh(t, 3)
  const [zero, one, two] = members as [Member, Member, Member]
  const names = Array.from({ length: 9 }, (_, i) => `left ${i}`) // managers of every rank
  await one.run(async (room, names) => {
    for (const name of names) room.held[name] = await room.mesh.lock(name).acquire()
  }, names)
  const waiting = zero.run(async (room, names) => {
    const held = await Promise.all(names.map((name) => room.mesh.lock(name).acquire()))
    for (const each of held) each.release()
    return held.length
  }, names)
  await two.run((room) => room.sleep(50))
  const leaving = one.run((room) => room.mesh.leave())
  t.equal(await waiting, 9)
  t.equal(
    await two.run((room) => {
      const held = room.mesh.lock('left 0').acquireSync()
      held.release()
      return 'granted'
    }),
    'granted',
  )
  await Promise.all([
    leaving,
    zero.run((room) => room.mesh.leave()),
    two.run((r) => r.mesh.leave()),
  ])
})

t.test('in a mesh of one', async (t) => {
  const [alone] = (await startMesh(t, 1)) as [Member]
  const seen = await alone.run(async (room) => {
    const { mesh } = room
    for (let i = 0; i < 100; i++) await mesh.barrier()
    const lock = mesh.lock('l')
    const held = lock.acquireSync()
    const refused = await lock.tryAcquire()
    const next = lock.acquire()
    held.release()
    ;(await next).release()
    const semaphore = mesh.semaphore('s', 2)
    const both = [await semaphore.acquire(), await semaphore.tryAcquire()]
    return [refused, both.every((each) => each !== undefined), await semaphore.tryAcquire()]
  })
  t.same(seen, [undefined, true, undefined])
  await leaveAll(t, [alone])
})
