import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { formatKey, generateKey } from '../../dist/cluster/key.js'
import { FakeMember, startStranger } from './support/fake-member.js'
import { ownAddress, slowness, transport } from './support/machine.js'
import {
  all,
  eventually,
  joinAll,
  leaveAll,
  meetAtAddress,
  meetInFile,
  Member,
  type Room,
  startMember,
  startMembers,
  startMesh,
} from './support/members.js'

const joinByEnvironment = async (room: Room): Promise<[number, number]> => {
  const { rank, size } = await room.join()
  return [rank, size]
}

/** A barrier and a page that moves: the mesh is usable. */
async function check(members: readonly Member[], name: string): Promise<number[]> {
  return all(
    members,
    async (room, name) => {
      const { mesh } = room
      const region = await room.open(name, { byteLength: 4096, placement: { rank: 0 } })
      const words = new Int32Array(region.buffer)
      await mesh.barrier(name)
      const held = await mesh.lock(name).acquire()
      words[0] = words[0] + 1
      held.release()
      await mesh.barrier(name)
      return words[0]
    },
    name,
  )
}

t.test('without anything, a mesh of one member', async (t) => {
  const member = new Member(t, 'alone')
  t.same(await member.run(joinByEnvironment), [0, 1])
  t.same(await check([member], 'first'), [1])
  await leaveAll(t, [member])
})

t.test('by the environment, in a file', async (t) => {
  const meeting = meetInFile(t, 3)
  const members = startMembers(t, meeting)
  t.same(await all(members, joinByEnvironment), [
    [0, 3],
    [1, 3],
    [2, 3],
  ])
  const [host, port] = readFileSync(meeting.file, 'utf8').split(':')
  t.equal(host, ownAddress)
  t.match(port, /^\d+\n$/)
  t.same(await check(members, 'first'), [3, 3, 3])
  await leaveAll(t, members)
})

t.test('by the environment, at an address', async (t) => {
  const members = startMembers(t, await meetAtAddress(2))
  await joinAll(members)
  t.same(await check(members, 'first'), [2, 2])
  await leaveAll(t, members)
})

t.test('by options, which go before the environment', async (t) => {
  const { rendezvous } = meetInFile(t, 2)
  const key = generateKey()
  const members = [0, 1].map(
    (rank) => new Member(t, `rank ${rank}`, { PAGEMESH_SIZE: '7', PAGEMESH_RANK: '6' }),
  )
  const joined = await Promise.all(
    members.map((member, rank) =>
      member.run(
        async (room, options) => {
          const { rank, size } = await room.join(options)
          return [rank, size]
        },
        {
          rank,
          size: 2,
          rendezvous,
          key: rank === 0 ? key : formatKey(key),
          host: rank === 0 ? 'localhost' : '127.0.0.2',
          joinTimeoutMs: 10_000 * slowness,
          heartbeatTimeoutMs: 2000 * slowness,
          // No device has these addresses.
          ...(transport === 'verbs' ? { rdmaDevice: 'rxe0:1:1' } : {}),
        },
      ),
    ),
  )
  t.same(joined, [
    [0, 2],
    [1, 2],
  ])
  t.same(await check(members, 'first'), [2, 2])
  await leaveAll(t, members)
})

t.test('members come in any order, and late', async (t) => {
  const members = startMembers(t, meetInFile(t, 4))
  const joins: Promise<unknown>[] = []
  for (const rank of [2, 3, 0, 1]) {
    joins.push(members[rank].run(joinByEnvironment))
    await sleep(150)
  }
  await Promise.all(joins)
  t.same(await check(members, 'first'), [4, 4, 4, 4])
  await leaveAll(t, members)
})

t.test('rank 0 comes last to an address', async (t) => {
  const members = startMembers(t, await meetAtAddress(2))
  const early = members[1].run(joinByEnvironment)
  await sleep(300)
  t.same(await members[0].run(joinByEnvironment), [0, 2])
  t.same(await early, [1, 2])
  await leaveAll(t, members)
})

t.test('joining twice', async (t) => {
  const members = await startMesh(t, 2)
  for (const member of members) {
    t.match(await member.failure((room) => room.pagemesh.join()), {
      name: 'Error',
      code: 'ERR_PAGEMESH_ALREADY_JOINED',
      message: /leave\(\)/,
    })
  }
  t.same(await check(members, 'still here'), [2, 2])
  await leaveAll(t, members)
})

t.test('two joins at once: the first one counts', async (t) => {
  const member = new Member(t, 'alone')
  const outcomes = await member.run(async (room) => {
    const joins = await Promise.allSettled([room.join(), room.pagemesh.join()])
    return joins.map((join) => (join.status === 'rejected' ? join.reason.code : join.status))
  })
  t.same(outcomes, ['fulfilled', 'ERR_PAGEMESH_ALREADY_JOINED'])
  await leaveAll(t, [member])
})

t.test('join, leave and join again in the same processes', async (t) => {
  const members = startMembers(t, meetInFile(t, 3))
  for (let time = 0; time < 3; time++) {
    const { rendezvous } = meetInFile(t, 3)
    await joinAll(members, { rendezvous })
    t.same(await check(members, 'the same name'), [3, 3, 3])
    await all(members, (room) => room.mesh.leave())
  }
  await joinAll(members, { rendezvous: meetInFile(t, 3).rendezvous })
  await leaveAll(t, members)
})

t.test('join again where one has met before', async (t) => {
  const members = startMembers(t, meetInFile(t, 2))
  for (let time = 0; time < 3; time++) {
    // Whoever is first finds the file of the time before.
    const joins = [members[1].run(joinByEnvironment)]
    await sleep(30)
    joins.push(members[0].run(joinByEnvironment))
    await Promise.all(joins)
    t.same(await check(members, 'the same name'), [2, 2])
    await all(members, (room) => room.mesh.leave())
  }
})

t.test('a wrong key', async (t) => {
  const meeting = meetInFile(t, 2)
  const zero = startMember(t, meeting, 0)
  const intruder = startMember(t, meeting, 1, { PAGEMESH_KEY: formatKey(generateKey()) })
  const one = startMember(t, meeting, 1)
  const join = zero.run(joinByEnvironment)
  const failure = await intruder.failure(joinByEnvironment)
  t.match(failure, { code: 'ERR_PAGEMESH_WRONG_KEY', message: /PAGEMESH_KEY/ })
  t.notMatch(failure.message, meeting.key, 'no message repeats the key')
  await one.run(joinByEnvironment)
  t.same(await join, [0, 2])
  t.match(await intruder.failure(joinByEnvironment), { code: 'ERR_PAGEMESH_WRONG_KEY' })
  t.same(await check([zero, one], 'first'), [2, 2])
  await leaveAll(t, [zero, one])
})

t.test('a rank that is taken, while others are awaited and later', async (t) => {
  const meeting = meetInFile(t, 3)
  const zero = startMember(t, meeting, 0)
  const join = zero.run(joinByEnvironment)
  const rivals = [startMember(t, meeting, 1), startMember(t, meeting, 1)]
  const attempts = rivals.map(async (rival) => {
    const failure = await rival.failure(joinByEnvironment)
    return { rival, failure }
  })
  const { rival: loser, failure } = await Promise.race(attempts)
  t.match(failure, { code: 'ERR_PAGEMESH_RANK_TAKEN', rank: 1, message: /PAGEMESH_RANK/ })
  const one = rivals.find((rival) => rival !== loser)!
  const two = startMember(t, meeting, 2)
  t.same(await two.run(joinByEnvironment), [2, 3])
  t.same(await join, [0, 3])
  t.match(await loser.failure(joinByEnvironment), { code: 'ERR_PAGEMESH_RANK_TAKEN', rank: 1 })
  await eventually('rank 1', () =>
    one.run((room) => ((room.mesh as unknown) === undefined ? undefined : true)),
  )
  t.same(await check([zero, one, two], 'first'), [3, 3, 3])
  await leaveAll(t, [zero, one, two])
})

t.test('another size', async (t) => {
  const meeting = meetInFile(t, 2)
  const [zero, one] = startMembers(t, meeting) as [Member, Member]
  const join = zero.run(joinByEnvironment)
  const other = startMember(t, meeting, 1, { PAGEMESH_SIZE: '4' })
  t.match(await other.failure(joinByEnvironment), {
    code: 'ERR_PAGEMESH_SIZE_MISMATCH',
    message: /4.*2.*PAGEMESH_SIZE/,
  })
  await Promise.all([join, one.run(joinByEnvironment)])
  t.same(await check([zero, one], 'first'), [2, 2])
  await leaveAll(t, [zero, one])
})

t.test('a member that does not come', async (t) => {
  const meeting = meetInFile(t, 4)
  const [zero, , two] = startMembers(t, meeting) as [Member, Member, Member]
  await all([zero, two], () => 'started')
  const failures = Promise.all([
    zero.failure((room, slowness) => room.join({ joinTimeoutMs: 700 * slowness }), slowness),
    two.failure((room, slowness) => room.join({ joinTimeoutMs: 5000 * slowness }), slowness),
  ])
  const [atZero, atTwo] = await failures
  t.match(atZero, { code: 'ERR_PAGEMESH_JOIN_TIMEOUT', rank: 1, message: /ranks 1, 3 / })
  t.match(atTwo, { code: 'ERR_PAGEMESH_JOIN_TIMEOUT', message: /ranks 1, 3 / })
  // The processes can join another mesh afterwards.
  const { rendezvous } = meetInFile(t, 2)
  await Promise.all([
    zero.run(
      async (room, o) => {
        await room.join(o)
      },
      { rank: 0, size: 2, rendezvous },
    ),
    two.run(
      async (room, o) => {
        await room.join(o)
      },
      { rank: 1, size: 2, rendezvous },
    ),
  ])
  t.same(await check([zero, two], 'first'), [2, 2])
  await leaveAll(t, [zero, two])
})

t.test('rank 0 does not come', async (t) => {
  const inFile = startMember(t, meetInFile(t, 2), 1)
  const atAddress = startMember(t, await meetAtAddress(2), 1)
  const options = { joinTimeoutMs: 300 }
  t.match(await inFile.failure((room, o) => room.join(o), options), {
    code: 'ERR_PAGEMESH_JOIN_TIMEOUT',
    rank: 0,
    message: /rank 0 has not published/,
  })
  t.match(await atAddress.failure((room, o) => room.join(o), options), {
    code: 'ERR_PAGEMESH_JOIN_FAILED',
    rank: 0,
    message: /ECONNREFUSED/,
  })
})

t.test('a member that dies while the others join', async (t) => {
  const meeting = meetInFile(t, 3)
  const zero = startMember(t, meeting, 0)
  const join = zero.failure(joinByEnvironment)
  const fake = await FakeMember.authenticate(meeting)
  fake.peer.destroy() // all that the others see of a death
  t.match(await join, { code: 'ERR_PAGEMESH_MEMBER_DOWN', rank: 2, message: /member 2 closed/ })
})

t.test('an address that somebody has', async (t) => {
  const stranger = await startStranger('')
  t.teardown(stranger.stop)
  const rendezvous = `127.0.0.1:${stranger.port}`
  const member = startMember(t, { ...meetInFile(t, 2), rendezvous }, 0)
  t.match(await member.failure(joinByEnvironment), {
    code: 'ERR_PAGEMESH_JOIN_FAILED',
    message: `cannot listen on 127.0.0.1 port ${stranger.port}`,
  })
})

t.test('bad options of join', async (t) => {
  const member = new Member(t, 'alone')
  const key = '00'.repeat(16)
  const base = { rank: 0, size: 2, rendezvous: '127.0.0.1:9', key }
  const invalid = 'ERR_PAGEMESH_INVALID_ARGUMENT'
  const range = 'ERR_PAGEMESH_OUT_OF_RANGE'
  const cases: [unknown, string, RegExp][] = [
    [null, invalid, /options of join must be an object/],
    ['rank', invalid, /options of join/],
    [{ size: 2 }, invalid, /PAGEMESH_RANK.*'rank'/],
    [{ rank: 0 }, invalid, /PAGEMESH_SIZE.*'size'/],
    [{ ...base, rendezvous: undefined }, invalid, /PAGEMESH_RENDEZVOUS/],
    [{ ...base, key: undefined }, invalid, /PAGEMESH_KEY/],
    [{ ...base, size: 0 }, range, /'size'.*1 to 32/],
    [{ ...base, size: 33 }, range, /'size'.*1 to 32/],
    [{ ...base, size: -1 }, range, /'size'/],
    [{ ...base, size: 1.5 }, invalid, /'size'.*whole number/],
    [{ ...base, size: NaN }, invalid, /'size'/],
    [{ ...base, size: '2' }, invalid, /'size'/],
    [{ ...base, rank: 2 }, range, /'rank'.*0 to 1/],
    [{ ...base, rank: -1 }, range, /'rank'/],
    [{ ...base, rank: 0.5 }, invalid, /'rank'/],
    [{ ...base, rank: {} }, invalid, /'rank'/],
    [{ ...base, key: 'secret!' }, invalid, /'key'.*hexadecimal/],
    [{ ...base, key: '00' }, range, /'key'.*1 bytes.*16 to 64/],
    [{ ...base, key: new Uint8Array(65) }, range, /'key'.*65 bytes/],
    [{ ...base, key: 7 }, invalid, /'key'/],
    [{ ...base, rendezvous: 'nowhere' }, invalid, /'rendezvous'.*host:port/],
    [{ ...base, rendezvous: '127.0.0.1:0' }, invalid, /'rendezvous'/],
    [{ ...base, rendezvous: '127.0.0.1:65536' }, invalid, /'rendezvous'/],
    [{ ...base, rendezvous: 'file:relative' }, invalid, /'rendezvous'/],
    [{ ...base, rendezvous: 7 }, invalid, /'rendezvous'/],
    [{ ...base, rendezvous: 'file:/nowhere/at/all' }, 'ERR_PAGEMESH_JOIN_FAILED', /director/],
    [{ ...base, rendezvous: '0.0.0.0:7000' }, invalid, /0\.0\.0\.0/],
    [{ ...base, rendezvous: '[::]:7000' }, invalid, /::/],
    [{ ...base, rendezvous: '203.0.113.1:7000' }, 'ERR_PAGEMESH_JOIN_FAILED', /cannot listen/],
    [{ ...base, rank: 1, host: '0.0.0.0' }, invalid, /0\.0\.0\.0/],
    [{ host: '' }, invalid, /'host'/],
    [{ host: 'a b' }, invalid, /'host'/],
    [{ host: 7 }, invalid, /'host'/],
    [{ host: 'does-not-exist.invalid' }, 'ERR_PAGEMESH_JOIN_FAILED', /does-not-exist\.invalid/],
    [{ joinTimeoutMs: 0 }, range, /'joinTimeoutMs'/],
    [{ joinTimeoutMs: -1 }, range, /'joinTimeoutMs'/],
    [{ joinTimeoutMs: Infinity }, invalid, /'joinTimeoutMs'/],
    [{ joinTimeoutMs: 2 ** 31 }, range, /'joinTimeoutMs'/],
    [{ heartbeatTimeoutMs: 999 }, range, /heartbeatTimeoutMs.*1000 to 3600000/],
    [{ heartbeatTimeoutMs: 3_600_001 }, range, /heartbeatTimeoutMs/],
    [{ heartbeatTimeoutMs: NaN }, invalid, /heartbeatTimeoutMs/],
    [{ heartbeatTimeoutMs: '1000' }, invalid, /heartbeatTimeoutMs/],
    [{ maxMapCount: -1 }, range, /maxMapCount/],
    [{ maxMapCount: 1.5 }, invalid, /maxMapCount/],
    [{ maxMapCount: 2 ** 31 }, range, /maxMapCount/],
  ]
  for (const [options, code, message] of cases) {
    const failure = await member.failure(
      (room, given) => room.join(given as Parameters<typeof room.join>[0]),
      options,
    )
    t.match(failure, { code, message }, `${code}: ${failure.message}`)
  }
  t.same(await member.run(joinByEnvironment), [0, 1], 'and then joins all the same')
  await leaveAll(t, [member])
})

t.test('bad variables', async (t) => {
  const cases: [Record<string, string>, RegExp][] = [
    [{ PAGEMESH_SIZE: 'two' }, /PAGEMESH_SIZE holds "two"/],
    [{ PAGEMESH_SIZE: '1', PAGEMESH_RANK: '' }, /PAGEMESH_RANK holds ""/],
    [{ PAGEMESH_JOIN_TIMEOUT_MS: '1e3' }, /PAGEMESH_JOIN_TIMEOUT_MS holds "1e3"/],
    [{ PAGEMESH_HOST: '' }, /PAGEMESH_HOST/],
  ]
  await Promise.all(
    cases.map(async ([environment, message]) => {
      const member = new Member(t, 'alone', environment)
      t.match(await member.failure(joinByEnvironment), {
        code: /ERR_PAGEMESH_(INVALID_ARGUMENT|OUT_OF_RANGE)/,
        message,
      })
    }),
  )
})
