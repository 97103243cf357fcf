import { readdirSync, readFileSync } from 'node:fs'
import t, { type Test } from 'tap'
import type { Placement } from '../../dist/protocol/placement.js'
import {
  all,
  type Failure,
  leaveAll,
  type Member,
  meetInFile,
  type Room,
  startMember,
  startMesh,
} from './support/members.js'

/** Where this file runs in a guest with an RDMA device, words must go that way, and it is checked. */
const overVerbs = process.env.PAGEMESH_TRANSPORT === 'verbs'
const way = overVerbs ? 'rdma' : 'home'

/** Opens a region of atomic words, which is `w` from then on. Gives what changes its words. */
const openWords = async (
  room: Room,
  name: string,
  options: { byteLength: number; placement?: Placement; pageBytes?: number },
): Promise<string> => {
  room.regions.w = await room.open(name, { ...options, words: 'atomic' })
  return room.regions.w.wordsBy
}

/** Packets that the kernel's RDMA device has sent and received. */
function packetsOfDevice(): number {
  const counters = '/sys/class/infiniband/rxe0/ports/1/hw_counters'
  const names = readdirSync(counters).filter((name) => /^(sent|rcvd)_pkts$/.test(name))
  return names.reduce((sum, name) => sum + Number(readFileSync(`${counters}/${name}`, 'utf8')), 0)
}

/** Adds `step` so many times, sixteen at a time; gives what each addition found. */
const addMany = async (room: Room, at: number, step: bigint, times: number): Promise<bigint[]> => {
  const found: bigint[] = []
  let next = 0
  const inTurn = async (): Promise<void> => {
    while (next++ < times) found.push(await room.regions.w.fetchAdd(at, step))
  }
  await Promise.all(Array.from({ length: 16 }, inTurn))
  return found
}

/** Most tests share these: to start a member takes seconds in a guest. */
const members = await startMesh(t, 3, { heartbeatTimeoutMs: 60_000 })

t.test('all members add to one word, its home too', async (t) => {
  const times = 400
  const home = 1
  t.same(
    await all(members, openWords, 'sum', { byteLength: 64, placement: { rank: home } }),
    members.map(() => way),
    'all change words in the same way',
  )
  const messages = (room: Room): number => room.mesh.stats().verbsMessages
  const messagesBefore = await members[home].run(messages)
  const packetsBefore = overVerbs ? packetsOfDevice() : 0
  const found = await Promise.all(
    members.map((member, rank) => member.run(addMany, 8, BigInt(rank + 1), times)),
  )
  const sum = BigInt((1 + 2 + 3) * times)
  for (const member of members) {
    t.equal(await member.run((room) => room.regions.w.load(8, 'int64')), sum, member.label)
  }
  // Each addition found what the ones before had left: no value twice, and the steps between them
  // are those of the members.
  const inOrder = found
    .flatMap((values, rank) => values.map((value) => ({ value, step: BigInt(rank + 1) })))
    .sort((a, b) => (a.value < b.value ? -1 : 1))
  const broken = inOrder.filter(({ value, step }, index) => {
    return value + step !== (inOrder[index + 1]?.value ?? sum)
  })
  t.same(broken, [], 'every addition is seen by the next')
  const neighbours = await members[0].run(async (room) => {
    const { w } = room.regions
    return [await w.load(0, 'int64'), await w.load(16, 'int64')]
  })
  t.same(neighbours, [0n, 0n])

  const stats = await all(members, (room) => {
    const { wordsByRdma, wordsByHome } = room.regions.w.stats()
    const sums = room.mesh.stats()
    return { wordsByRdma, wordsByHome, sums: [sums.wordsByRdma, sums.wordsByHome] }
  })
  for (const [rank, { wordsByRdma, wordsByHome, sums }] of stats.entries()) {
    const count = times + 1 + (rank === 0 ? 2 : 0)
    t.same([wordsByRdma, wordsByHome], overVerbs ? [count, 0] : [0, count])
    t.same(sums, [wordsByRdma, wordsByHome])
  }
  if (overVerbs) {
    // A request and an answer each, sent and received by the one device, also of the home's own.
    const packets = packetsOfDevice() - packetsBefore
    t.ok(packets >= 4 * times * members.length, `${packets} packets went through the device`)
    const heard = (await members[home].run(messages)) - messagesBefore
    t.ok(heard < times / 4, `the home's engine was sent ${heard} messages meanwhile`)
  }
})

t.test('compare and exchange: one winner', async (t) => {
  const count = 60
  await all(members, openWords, 'race', { byteLength: count * 8, placement: 'cyclic' })
  const seen = await all(
    members,
    async (room, count) => {
      const { w } = room.regions
      const mine = BigInt(room.mesh.rank + 1)
      const befores: bigint[] = []
      for (let word = 0; word < count; word++) {
        if (word % 10 === 0) await room.mesh.barrier()
        befores.push(await w.compareExchange(word * 8, 0n, mine))
      }
      await room.mesh.barrier()
      return Promise.all(
        befores.map(async (before, word) => ({ before, now: await w.load(word * 8, 'int64') })),
      )
    },
    count,
  )
  let wrong = 0
  const winners = new Set<bigint>()
  for (let word = 0; word < count; word++) {
    const { now } = seen[0][word]
    winners.add(now)
    for (const [rank, words] of seen.entries()) {
      const won = now === BigInt(rank + 1)
      if (words[word].now !== now || words[word].before !== (won ? 0n : now)) wrong++
    }
  }
  t.equal(wrong, 0)
  t.ok(
    [...winners].every((winner) => winner >= 1n && winner <= 3n),
    `won by ${[...winners].join(', ')}`,
  )
  const refused = await members[2].run(async (room) => {
    const { w } = room.regions
    await w.store(0, 5n)
    return [await w.compareExchange(0, 4n, 9n), await w.load(0, 'int64')]
  })
  t.same(refused, [5n, 5n], 'refused: what was there stays')
})

t.test('words wrap at 2^64, and are signed', async (t) => {
  await all(members, openWords, 'wrap', { byteLength: 32, placement: { rank: 0 } })
  for (const member of members) {
    const seen = await member.run(async (room) => {
      const { w } = room.regions
      await w.store(8, 2n ** 64n - 1n)
      const values = [await w.load(8, 'int64'), await w.fetchAdd(8, 1n), await w.load(8, 'int64')]
      values.push(await w.fetchAdd(8, -1n), await w.load(8, 'int64'))
      await w.store(8, 2n ** 63n - 1n)
      values.push(await w.fetchAdd(8, 1n), await w.load(8, 'int64'))
      values.push(await w.compareExchange(8, 2n ** 63n, 7n), await w.load(8, 'int64'))
      values.push(await w.load(0, 'int64'), await w.load(16, 'int64'))
      await w.store(8, 0n)
      return values
    })
    const most = 2n ** 63n - 1n
    t.same(seen, [-1n, -1n, 0n, 0n, -1n, most, -most - 1n, -most - 1n, 7n, 0n, 0n], member.label)
  }
})

t.test('placements, page sizes, and more homes than pages', async (t) => {
  const placements: Placement[] = ['block', 'cyclic', { rank: 2 }]
  for (const placement of placements) {
    for (const [pageBytes, byteLength] of [
      [4096, 8],
      [4096, 4096],
      [4096, 7 * 4096 + 16],
      [8192, 4 * 8192],
    ] as const) {
      const options = { byteLength, placement, pageBytes }
      const name = JSON.stringify(options)
      await all(members, openWords, name, options)
      const sums = await all(
        members,
        async (room, name, byteLength) => {
          const region = room.regions[name]
          // The first and the last word of each half page.
          const at: number[] = []
          for (let byte = 0; byte < byteLength; byte += 2048) {
            at.push(byte, Math.min(byte + 2040, byteLength - 8))
          }
          const words = [...new Set(at)]
          await Promise.all(words.map((byte) => region.fetchAdd(byte, BigInt(byte + 1))))
          await room.mesh.barrier()
          const values = await Promise.all(words.map((byte) => region.load(byte, 'int64')))
          return values.every((value, index) => value === 3n * BigInt(words[index] + 1))
        },
        name,
        byteLength,
      )
      t.same(sums, [true, true, true], name)
    }
  }
})

t.test('stores: the last one stays, and none is mixed with another', async (t) => {
  await all(members, openWords, 'stores', { byteLength: 8, placement: { rank: 0 } })
  const seen = await all(members, async (room) => {
    const { w } = room.regions
    const mine = BigInt(room.mesh.rank + 1)
    const values: bigint[] = []
    for (let turn = 1n; turn <= 40n; turn++) {
      await w.store(0, (mine << 40n) | (turn << 8n) | mine)
      values.push(await w.load(0, 'int64'))
    }
    await room.mesh.barrier()
    return { values, last: await w.load(0, 'int64') }
  })
  const whole = (value: bigint): boolean => {
    const [high, turn, low] = [value >> 40n, (value >> 8n) & 0xffffffffn, value & 0xffn]
    return high === low && high >= 1n && high <= 3n && turn >= 1n && turn <= 40n
  }
  t.ok(seen.every(({ values }) => values.every(whole)))
  const { last } = seen[0]
  t.ok(seen.every((member) => member.last === last))
  t.equal((last >> 8n) & 0xffffffffn, 40n, 'the last of one of the members')
})

const invalid = 'ERR_PAGEMESH_INVALID_ARGUMENT'
const range = 'ERR_PAGEMESH_OUT_OF_RANGE'
const unaligned = 'ERR_PAGEMESH_UNALIGNED'
const noPages = 'ERR_PAGEMESH_NO_PAGES'

async function check(
  t: Test,
  member: Member,
  cases: [call: string, code: string, message: RegExp][],
): Promise<void> {
  const failures = await member.run(
    async (room, calls) => {
      const found: Failure[] = []
      for (const call of calls) {
        const scope = { mesh: room.mesh, region: room.regions.w }
        found.push(await room.failure(() => room.evaluate(call, scope)))
      }
      return found
    },
    cases.map(([call]) => call),
  )
  for (const [index, [call, code, message]] of cases.entries()) {
    t.match(failures[index], { code, message }, call)
  }
}

t.test('what atomic words cannot do', async (t) => {
  await all(members, openWords, 'misuse', { byteLength: 4096 + 8 })
  const wide = /'misuse' has atomic words, which are 64 bits wide: pass bigints/
  const paged = /'misuse' has atomic words and no pages, .*: use load, .* words: 'paged'/
  await check(t, members[1], [
    ['region.buffer', noPages, paged],
    ['region.address', noPages, paged],
    ["region.prefetch(0, 8, 'read')", noPages, paged],
    ["region.pin(0, 8, 'write')", noPages, paged],
    ["region.pin(0, 0, 'write')", noPages, paged],
    ['region.discard(0, 8)', noPages, paged],
    ['region.fetchAdd(0, 1)', invalid, wide],
    ['region.compareExchange(0, 1, 1)', invalid, wide],
    ['region.compareExchange(0, 1, 1n)', invalid, /both be numbers, or both bigints/],
    ['region.store(0, 1)', invalid, wide],
    ['region.load(0)', invalid, wide],
    ["region.load(0, 'int32')", invalid, wide],
    ["region.fetchAdd(0, '1')", invalid, wide],
    ['region.fetchAdd(4, 1n)', unaligned, /multiple of 8/],
    ["region.load(4, 'int64')", unaligned, /multiple of 8/],
    ['region.fetchAdd(4104, 1n)', range, /byteOffset must be 0 to 4096/],
    ['region.fetchAdd(-8, 1n)', range, /byteOffset/],
    ['region.store(0, 2n ** 64n)', range, /value must fit 64 bits/],
    ["mesh.region('a', { byteLength: 8, words: 'rdma' })", invalid, /'paged' or 'atomic', not "r/],
    ["mesh.region('a', { byteLength: 8, words: null })", invalid, /'paged' or 'atomic', not null/],
    ["mesh.region('a', { byteLength: 12, words: 'atomic' })", invalid, /a multiple of 8/],
    ["mesh.region('a', { byteLength: 4, words: 'atomic' })", range, /must be 8 to 1073741824/],
    ["mesh.region('a', { byteLength: 2 ** 31, words: 'atomic' })", range, /must be 8 to 107374182/],
    ["mesh.region('a', { byteLength: '8', words: 'atomic' })", invalid, /must be a number/],
    [
      "mesh.region('misuse', { byteLength: 4104 })",
      'ERR_PAGEMESH_REGION_MISMATCH',
      /words are 'atomic' as rank \d opened it, and 'paged' here/,
    ],
  ])
  const stats = await members[1].run((room) => {
    const { w } = room.regions
    return { words: w.words, wordsBy: w.wordsBy, stats: w.stats() }
  })
  t.match(stats, { words: 'atomic', wordsBy: way })
  t.ok(
    Object.values(stats.stats).every((value) => value === 0),
    'nothing was done',
  )
  const pagedRegion = await members[0].run(async (room) => {
    const region = await room.open('p', { byteLength: 4096 })
    await region.fetchAdd(0, 1)
    return { words: region.words, by: region.wordsBy, count: region.stats().wordsByHome }
  })
  t.same(pagedRegion, { words: 'paged', by: 'home', count: 1 })
  const twice = await members[0].failure((room) =>
    room.open('p', { byteLength: 4096, words: 'atomic' }),
  )
  t.match(twice, { code: 'ERR_PAGEMESH_REGION_MISMATCH', message: /words are 'paged'/ })
})

t.test('opened by all at the same time, by some only, and among paged regions', async (t) => {
  const wrong = await all(members, async (room) => {
    const names = Array.from({ length: 40 }, (_, i) => `region ${(i * 7) % 40}`)
    await Promise.all(
      names.map((name, i) =>
        room.open(name, {
          byteLength: 10_000,
          words: ((i * 7) % 40) % 2 === 0 ? 'atomic' : 'paged',
        }),
      ),
    )
    const opened = names.map((name) => room.regions[name])
    await Promise.all(opened.map((region) => region.fetchAdd(9992, 3n)))
    await room.mesh.barrier()
    const sums = await Promise.all(opened.map((region) => region.load(9992, 'int64')))
    return sums.filter((sum) => sum !== 9n).length
  })
  t.same(wrong, [0, 0, 0])
  await members[1].run(async (room) => {
    const late = await room.open('late', { byteLength: 8, words: 'atomic' })
    await late.store(0, 55n)
  })
  const late = await members[2].run(async (room) => {
    const late = await room.open('late', { byteLength: 8, words: 'atomic' })
    return late.load(0, 'int64')
  })
  t.equal(late, 55n, 'whoever opens it later sees what was written')
})

if (overVerbs) {
  t.test('words are changed while their home stands still', async (t) => {
    await all(members, openWords, 'still', { byteLength: 16, placement: { rank: 0 } })
    const [home, other] = members
    await home.stop()
    const sum = await other.run(async (room) => {
      for (let i = 0; i < 200; i++) await room.regions.w.fetchAdd(0, 2n)
      return room.regions.w.load(0, 'int64')
    })
    t.equal(sum, 400n)
    home.signal('SIGCONT')
    t.equal(await home.run((room) => room.regions.w.fetchAdd(0, 1n)), 400n)
  })
}

t.test('after leave', async (t) => {
  await all(members, openWords, 'left', { byteLength: 16, placement: { rank: 0 } })
  const left = await all(members, async (room) => {
    const { w } = room.regions
    await w.fetchAdd(0, 1n)
    const pending = Array.from({ length: 100 }, () =>
      w.fetchAdd(8, 1n).then(
        () => 'done',
        (error: unknown) => (error as { code: string }).code,
      ),
    )
    await room.mesh.leave()
    const codes = new Set(await Promise.all(pending))
    codes.delete('done') // or too late
    for (const call of [
      () => w.fetchAdd(0, 1n),
      () => w.compareExchange(0, 1n, 1n),
      () => w.load(0, 'int64'),
      () => w.store(0, 1n),
    ]) {
      codes.add((await room.failure(call)).code ?? '')
    }
    const { wordsByRdma, wordsByHome } = w.stats()
    return { codes: [...codes], counted: wordsByRdma + wordsByHome > 0, by: w.wordsBy }
  })
  const expected = { codes: ['ERR_PAGEMESH_LEFT'], counted: true, by: way }
  t.same(left, [expected, expected, expected])
  for (const member of members) {
    const again = await member.run(async (room) => {
      await room.join({ size: 1, rank: 0 })
      const region = await room.open('w', { byteLength: 16, words: 'atomic' })
      const before = await region.fetchAdd(0, 1n)
      await room.mesh.leave()
      return [before, region.wordsBy]
    })
    t.same(again, [0n, 'home'], 'the next mesh begins anew')
    member.child.disconnect()
    t.equal(await member.end(), 0)
  }
})

t.test('the home dies while words are being changed', async (t) => {
  const members = await startMesh(t, 3)
  await all(members, openWords, 'w', { byteLength: 16, placement: { rank: 2 } })
  const pending = members.slice(0, 2).map((member) =>
    member.run(async (room) => {
      const { w } = room.regions
      const codes = new Set<string>()
      let done = 0
      const inTurn = async (): Promise<void> => {
        for (;;) {
          try {
            await w.fetchAdd(0, 1n)
            done++
          } catch (error) {
            codes.add((error as { code: string }).code)
            return
          }
        }
      }
      await Promise.all(Array.from({ length: 100 }, inTurn))
      const later = await room.failure(() => w.load(8, 'int64'))
      return { codes: [...codes], done: done > 0, later: later.code, rank: later.rank }
    }),
  )
  await members[0].run((room) => room.sleep(200))
  members[2].signal('SIGKILL')
  const code = 'ERR_PAGEMESH_MEMBER_DOWN'
  for (const seen of await Promise.all(pending)) {
    t.same(seen, { codes: [code], done: true, later: code, rank: 2 })
  }
  const refused = await members[1].failure((room) =>
    room.open('new', { byteLength: 8, words: 'atomic' }),
  )
  t.match(refused, { code, rank: 2 })
  await leaveAll(t, members.slice(0, 2))
})

if (overVerbs) {
  t.test('one member without a link: nobody uses RDMA', async (t) => {
    const meeting = meetInFile(t, 3)
    const members = [0, 1, 2].map((rank) =>
      startMember(t, meeting, rank, { PAGEMESH_TRANSPORT: rank === 1 ? 'tcp' : 'auto' }),
    )
    const transports = await all(members, async (room) => (await room.join()).stats().transport)
    t.same(transports, ['mixed', 'tcp', 'mixed'])
    const ways = await all(members, openWords, 'w', { byteLength: 8, placement: { rank: 2 } })
    t.same(ways, ['home', 'home', 'home'])
    await all(members, addMany, 0, 1n, 100)
    t.equal(await members[0].run((room) => room.regions.w.load(0, 'int64')), 300n)
    await leaveAll(t, members)
  })
}
