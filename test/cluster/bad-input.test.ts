import t, { type Test } from 'tap'
import {
  all,
  type Failure,
  leaveAll,
  type Member,
  type Room,
  startMesh,
} from './support/members.js'
import { transport } from './support/machine.js'

/** A call and what it must fail with. Calls are text, as they go to another process. */
type Case = [call: string, code: string, message: RegExp]

const invalid = 'ERR_PAGEMESH_INVALID_ARGUMENT'
const range = 'ERR_PAGEMESH_OUT_OF_RANGE'
const unaligned = 'ERR_PAGEMESH_UNALIGNED'
const long = "'é'.repeat(128)" // 256 bytes

const tryCall = (room: Room, call: string): Promise<Failure> => {
  const variables = { mesh: room.mesh, region: room.regions.r }
  return room.failure(() => room.evaluate(call, variables))
}

async function check(t: Test, member: Member, cases: readonly Case[]): Promise<void> {
  for (const [call, code, message] of cases) {
    const failure = await member.run(tryCall, call)
    t.match(failure, { code, message }, `${call}: ${failure.code} ${failure.message}`)
  }
}

/** The mesh still does all it is for. */
async function checkUsable(t: Test, members: readonly Member[]): Promise<void> {
  const sums = await all(members, async (room) => {
    const { mesh, regions } = room
    const region = regions.r
    const words = new Int32Array(region.buffer)
    await mesh.barrier()
    const held = await mesh.lock('usable').acquire()
    words[0] += 1
    held.release()
    await region.fetchAdd(4096, 1)
    await region.prefetch(0, region.byteLength, 'read')
    await mesh.barrier()
    const sum = words[0] + words[1024]
    await mesh.barrier()
    return sum
  })
  t.equal(new Set(sums).size, 1)
  t.ok(sums[0] > 0, 'the mesh is usable')
}

/** Every value that cannot be a whole number from `least` to `most`. */
function badIntegers(call: (value: string) => string, least: number, most: number): Case[] {
  const wrong = ['NaN', 'Infinity', '-Infinity', '1.5', "'1'", '1n', 'null', 'true', '{}', '[4096]']
  return [
    ...[...wrong, 'undefined', 'Symbol()'].map((v): Case => [call(v), invalid, /must be a /]),
    ...[String(least - 1), '-4096', String(most + 1), '2 ** 53', '1e300'].map((v): Case => [
      call(v),
      range,
      /must be -?\d+ to \d+, not /,
    ]),
  ]
}

function badNames(what: string, call: (name: string) => string): Case[] {
  return [
    ...['7', 'null', '{}', '1n', 'Symbol()', "new String('a')"].map((name): Case => [
      call(name),
      invalid,
      new RegExp(`name of a ${what} must be a string, not`),
    ]),
    [call("''"), range, /1 to 255 bytes, not 0/],
    [call(long), range, /1 to 255 bytes, not 256/],
  ]
}

t.test('every argument that cannot be', async (t) => {
  const members = await startMesh(t, 2)
  const options = { byteLength: 8 * 4096 + 8, placement: 'cyclic' } as const
  await all(
    members,
    async (room, options) => {
      await room.open('r', options)
    },
    options,
  )
  const last = 8 * 4096 + 8

  await t.test('regions', async (t) => {
    const cases: Case[] = [
      ...badNames('region', (name) => `mesh.region(${name}, { byteLength: 1 })`),
      ['mesh.region(undefined, { byteLength: 1 })', invalid, /must be a string, not undefined/],
      ["mesh.region('a')", invalid, /byteLength must be a number, not undefined/],
      ["mesh.region('a', null)", invalid, /options of a region must be an object, not null/],
      ["mesh.region('a', 4096)", invalid, /options of a region must be an object, not 4096/],
      ["mesh.region('a', () => 1)", invalid, /options of a region must be an object/],
      ["mesh.region('a', {})", invalid, /byteLength/],
      ...badIntegers((v) => `mesh.region('a', { byteLength: ${v} })`, 1, 2 ** 42),
      ...badIntegers(
        (v) => `mesh.region('a', { byteLength: 1, pageBytes: ${v} })`,
        4096,
        2 ** 20,
      ).filter(([call]) => !call.includes('undefined')),
      ["mesh.region('a', { byteLength: 1, pageBytes: 4097 })", invalid, /power of two, not 4097/],
      ["mesh.region('a', { byteLength: 1, pageBytes: 12288 })", invalid, /power of two/],
      ...["'first'", "''", '7', 'null', '[]', '{}', '() => 0'].map((v): Case => [
        `mesh.region('a', { byteLength: 1, placement: ${v} })`,
        invalid,
        /placement must be 'block', 'cyclic' or \{ rank \}, not/,
      ]),
      ...badIntegers((v) => `mesh.region('a', { byteLength: 1, placement: { rank: ${v} } })`, 0, 1),
      ...["'on'", 'true', 'null', '{}'].map((v): Case => [
        `mesh.region('a', { byteLength: 1, prefetch: ${v} })`,
        invalid,
        /prefetch must be 'auto' or 'off', not/,
      ]),
    ]
    await check(t, members[1], cases)
  })

  await t.test('locks, semaphores and barriers', async (t) => {
    const cases: Case[] = [
      ...badNames('barrier', (name) => `mesh.barrier(${name})`),
      ...badNames('lock', (name) => `mesh.lock(${name})`),
      ['mesh.lock()', invalid, /name of a lock must be a string, not undefined/],
      ...badNames('semaphore', (name) => `mesh.semaphore(${name}, 1)`),
      ...badIntegers((v) => `mesh.semaphore('s', ${v})`, 1, 2 ** 31 - 1),
      ["mesh.lock('l').acquire({ signal: 7 })", invalid, /signal must be an AbortSignal, not 7/],
      ["mesh.lock('l').acquire({ signal: {} })", invalid, /signal must be an AbortSignal/],
      ["mesh.lock('l').acquire({ signal: null })", invalid, /signal must be an AbortSignal/],
      ["mesh.lock('l').acquire(null)", invalid, /options of acquire must be an object/],
      ["mesh.lock('l').acquire('now')", invalid, /options of acquire must be an object/],
    ]
    await check(t, members[0], cases)
  })

  await t.test('ranges of pages', async (t) => {
    const access = (call: string): Case[] =>
      ["'rw'", '7', 'null', 'undefined', "''", "['read']"].map((v) => [
        `region.${call}(0, 0, ${v})`,
        invalid,
        /access must be 'read' or 'write', not/,
      ])
    const cases: Case[] = ['prefetch', 'pin', 'discard'].flatMap((call) => [
      ...badIntegers((v) => `region.${call}(${v}, 0, 'read')`, 0, last),
      ...badIntegers((v) => `region.${call}(0, ${v}, 'read')`, 0, last),
      ...badIntegers((v) => `region.${call}(${last - 8}, ${v}, 'read')`, 0, 8),
    ])
    await check(t, members[1], [...cases, ...access('prefetch'), ...access('pin')])
  })

  await t.test('words', async (t) => {
    const cases: Case[] = [
      ...['1', '2', '3', '4097', '8190'].flatMap((at): Case[] => [
        [`region.fetchAdd(${at}, 1)`, unaligned, /multiple of 4 for a 32-bit word, not \d/],
        [`region.load(${at})`, unaligned, /multiple of 4/],
        [`region.store(${at}, 1)`, unaligned, /multiple of 4/],
        [`region.compareExchange(${at}, 1, 1)`, unaligned, /multiple of 4/],
      ]),
      ['region.fetchAdd(4, 1n)', unaligned, /multiple of 8 for a 64-bit word, not 4/],
      ["region.load(4092, 'int64')", unaligned, /multiple of 8/],
      [`region.fetchAdd(${last - 4}, 1n)`, range, /byteOffset/],
      ...badIntegers((v) => `region.fetchAdd(${v}, 1)`, 0, last - 4),
      ...badIntegers((v) => `region.load(${v}, 'int64')`, 0, last - 8),
      ...badIntegers((v) => `region.store(${v}, 1n)`, 0, last - 8),
      ...badIntegers((v) => `region.compareExchange(${v}, 1, 1)`, 0, last - 4),
      ...['fetchAdd(0, #)', 'store(0, #)', 'compareExchange(0, #, #)'].flatMap((call) =>
        badIntegers((v) => `region.${call.replaceAll('#', v)}`, -(2 ** 31), 2 ** 32 - 1).filter(
          ([call]) => !call.includes('1n') && !call.includes('-4096'),
        ),
      ),
      ...['2n ** 64n', '-(2n ** 63n) - 1n'].flatMap((v): Case[] => [
        [`region.fetchAdd(0, ${v})`, range, /value must fit 64 bits/],
        [`region.store(0, ${v})`, range, /value must fit 64 bits/],
        [`region.compareExchange(0, ${v}, 1n)`, range, /expected must fit 64 bits/],
      ]),
      ['region.compareExchange(0, 1, 1n)', invalid, /both be numbers, or both bigints/],
      ['region.compareExchange(0, 1n, 1)', invalid, /both be numbers, or both bigints/],
      ["region.compareExchange(0, '1', '1')", invalid, /must be a number/],
      ["region.load(0, 'uint32')", invalid, /word must be 'int32' or 'int64', not "uint32"/],
      ['region.load(0, 64)', invalid, /word must be/],
      ['region.load(0, null)', invalid, /word must be/],
      ["region.load(0, 'toString')", invalid, /word must be/],
    ]
    await check(t, members[0], cases)
  })

  await checkUsable(t, members)
  await leaveAll(t, members)
})

t.test('everything after leave', async (t) => {
  const members = await startMesh(t, 2)
  const kept = await all(members, async (room) => {
    const { mesh, kept } = room
    const region = await room.open('r', { byteLength: 4 * 4096, placement: 'block' })
    const unopened = await room.open('never touched', { byteLength: 4096 })
    const words = new Int32Array(region.buffer)
    const own = mesh.rank * 2048
    words[own] = 11 + mesh.rank
    words[own + 1024] = 21 + mesh.rank
    await mesh.barrier()
    kept.words = words
    kept.other = words[(1 - mesh.rank) * 2048] // a copy that stays
    kept.lock = mesh.lock('l')
    kept.semaphore = mesh.semaphore('s', 2)
    room.held.l = await mesh.semaphore('held', 2).acquire()
    kept.pin = await region.pin(0, 1, 'read')
    ;(kept.pin as Disposable)[Symbol.dispose]()
    await mesh.barrier()
    const before = region.stats()
    const leaving = mesh.leave()
    const same = leaving === mesh.leave()
    await leaving
    await mesh[Symbol.asyncDispose]()
    const after = region.stats()
    return { same, stats: before.readFaults === after.readFaults, name: unopened.name }
  })
  t.same(kept[0], { same: true, stats: true, name: 'never touched' })
  for (const member of members) {
    const failures = await member.run(async (room) => {
      const { mesh, kept, regions } = room
      const lock = kept.lock as ReturnType<typeof mesh.lock>
      const semaphore = kept.semaphore as ReturnType<typeof mesh.semaphore>
      const region = regions.r
      const calls: [string, () => unknown][] = [
        ['region', () => mesh.region('r', { byteLength: 4 * 4096 })],
        ['new region', () => mesh.region('new', { byteLength: 1 })],
        ['barrier', () => mesh.barrier()],
        ['lock', () => mesh.lock('l')],
        ['semaphore', () => mesh.semaphore('s', 1)],
        ['acquire', () => lock.acquire()],
        ['acquire with signal', () => lock.acquire({ signal: new AbortController().signal })],
        ['acquireSync', () => lock.acquireSync()],
        ['tryAcquire', () => semaphore.tryAcquire()],
        ['prefetch', () => region.prefetch(0, 1, 'read')],
        ['pin', () => region.pin(0, 1, 'write')],
        ['discard', () => region.discard(0, 1)],
        ['fetchAdd', () => region.fetchAdd(0, 1)],
        ['compareExchange', () => region.compareExchange(0, 1, 1)],
        ['load', () => region.load(0)],
        ['store', () => region.store(0, 1)],
        ['a first buffer', () => regions['never touched'].buffer],
      ]
      const found: string[] = []
      for (const [name, call] of calls) found.push(`${name}: ${(await room.failure(call)).code}`)
      return found
    })
    for (const failure of failures) t.match(failure, /: ERR_PAGEMESH_LEFT$/)
    const views = await member.run((room) => {
      const { mesh, kept, regions } = room
      const words = kept.words as Int32Array
      const own = mesh.rank * 2048
      const seen = [words[own], words[own + 1024], words[(1 - mesh.rank) * 2048] === kept.other]
      words.fill(9) // private memory now
      room.held.l.release()
      const { name, byteLength, buffer } = regions.r
      const { transport, readFaults } = mesh.stats()
      return [
        ...seen,
        words[4095],
        name,
        byteLength,
        buffer === words.buffer,
        transport,
        readFaults,
      ]
    })
    const rank = members.indexOf(member)
    t.same(views, [11 + rank, 21 + rank, true, 9, 'r', 16384, true, transport, 1])
  }
  for (const member of members) {
    member.child.disconnect()
    t.equal(await member.end(), 0)
  }
})

t.test('views in workers, after leave', async (t) => {
  const [alone] = (await startMesh(t, 1)) as [Member]
  const seen = await alone.run(async (room) => {
    const region = await room.open('r', { byteLength: 1 << 20 })
    const words = new Int32Array(region.buffer)
    words.fill(5)
    const { Worker } = await import('node:worker_threads')
    const { EventEmitter } = await import('node:events')
    const worker = new Worker(
      `const { parentPort, workerData } = require('node:worker_threads')
       parentPort.on('message', () => {
         const words = new Int32Array(workerData)
         parentPort.postMessage(words.reduce((sum, word) => sum + word, 0))
         words[0]++
       })`,
      { eval: true, workerData: region.buffer },
    )
    const sums: unknown[] = []
    for (let time = 0; time < 2; time++) {
      worker.postMessage('go')
      sums.push(...((await EventEmitter.once(worker, 'message')) as unknown[]))
      await room.mesh.leave()
    }
    await worker.terminate()
    return [...sums, words[0]]
  })
  t.same(seen, [5 * 2 ** 18, 5 * 2 ** 18 + 1, 7])
  alone.child.disconnect()
  t.equal(await alone.end(), 0)
})
