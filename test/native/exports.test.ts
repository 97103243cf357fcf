import { existsSync, readdirSync } from 'node:fs'
import { constants } from 'node:os'
import t, { type Test } from 'tap'
import {
  type Addon,
  LinkWay,
  loadAddon,
  RegionPart,
  regionBuffer,
  STAT_NAMES,
  barrierWords,
} from '../../dist/native/addon.js'
import { ENTRY_WORDS, EventKind } from '../../dist/engine/ring.js'
import { Kind, Word } from '../../dist/protocol/messages.js'
import { PageState } from '../../dist/protocol/page-table.js'
import { BarrierWords } from '../../dist/protocol/barrier-words.js'
import { PlacementCode } from '../../dist/protocol/placement.js'
import { Child } from './fixtures/children.js'

/** Stops compiling when lib/native/addon.ts declares something else. */
const declared: Record<keyof Addon, 'function' | 'object'> = {
  sessionCreate: 'function',
  sessionDestroy: 'function',
  stop: 'function',
  wake: 'function',
  awaitToken: 'function',
  passToken: 'function',
  setView: 'function',
  exchange: 'function',
  listen: 'function',
  connect: 'function',
  bindRank: 'function',
  closeConnection: 'function',
  openLinks: 'function',
  link: 'function',
  linkRecords: 'function',
  barrierWords: 'function',
  tellArrival: 'function',
  waitAtBarrier: 'function',
  ringProgram: 'function',
  mapRegion: 'function',
  mapWords: 'function',
  unmapRegion: 'function',
  regionBuffer: 'function',
  regionStats: 'function',
  homeOf: 'function',
  atomic: 'function',
  countWaiters: 'function',
  die: 'function',
  probe: 'function',
  rdmaDevices: 'function',
  constants: 'object',
}

const real = loadAddon()
/** What the tests of this file have called or read. */
const used = new Set<string>()
const addon = new Proxy(real, {
  get(target, name) {
    used.add(String(name))
    return Reflect.get(target, name)
  },
})

const pageBytes = 4096
let nextBase = 0x4f00_0000_0000n
/** Regions of earlier tests stand until their buffers are collected. */
const freshBase = (): bigint => (nextBase += 2n ** 32n)
const record = 4 // where the record begins in an entry
const action = {
  send: addon.constants.actionSend,
  sendBlobTo: addon.constants.actionSendBlobTo,
  protect: addon.constants.actionProtect,
  wake: addon.constants.actionWake,
}

/** What an error of a system call must have. */
function failure(errno: number, syscall?: string): Error {
  const fields = { errno, ...(syscall === undefined ? {} : { syscall }) }
  return fields as unknown as Error
}

function createSession(t: Test, rank = 0, size = 1): number {
  const session = addon.sessionCreate(rank, size, 0, -1)
  t.teardown(() => {
    try {
      addon.sessionDestroy(session)
    } catch {
      // the test has destroyed it
    }
  })
  return session
}

/** The engine's side of `exchange`, by hand. */
class Exchange {
  readonly events = new Uint32Array(64 * ENTRY_WORDS)
  readonly blobsIn = new Uint8Array(1 << 16)
  constructor(readonly session: number) {}

  run(actions: number[][] = [], blobs = new Uint8Array(0), timeoutMs = 0, resumes = false): number {
    const words = new Uint32Array(actions.length * ENTRY_WORDS)
    for (const [index, entry] of actions.entries()) words.set(entry, index * ENTRY_WORDS)
    const { session, events, blobsIn } = this
    const call = Int32Array.of(actions.length, timeoutMs, resumes ? 1 : 0, 0, 0)
    return addon.exchange(session, call, words, blobs, events, blobsIn)
  }

  /** Runs until events of these kinds have come, and gives them in the order of `kinds`. */
  collect(
    kinds: number[],
    actions: number[][] = [],
    blobs?: Uint8Array<ArrayBuffer>,
  ): Uint32Array[] {
    const found = new Map<number, Uint32Array>()
    let pending = actions
    for (let round = 0; round < 100 && kinds.some((kind) => !found.has(kind)); round++) {
      const count = this.run(pending, blobs, 100)
      pending = []
      for (let i = 0; i < count; i++) {
        const entry = this.events.slice(i * ENTRY_WORDS, (i + 1) * ENTRY_WORDS)
        found.set(entry[0], entry)
      }
    }
    return kinds.map((kind) => found.get(kind) ?? new Uint32Array(ENTRY_WORDS))
  }
}

t.test('a process has one session, and gets a new number each time', async (t) => {
  const session = createSession(t)
  t.throws(() => addon.sessionCreate(0, 1, 0, -1), failure(16, 'sessionCreate'))
  addon.sessionDestroy(session)
  const next = createSession(t)
  t.not(next, session)
  t.throws(() => addon.setView(session, 2), /no such session/)
  t.doesNotThrow(() => addon.setView(next, 2))
})

t.test('a thread that waits for a token is woken, and who is not a peer gets none', async (t) => {
  const session = createSession(t, 0, 2)
  addon.wake(session, true)
  t.equal(addon.awaitToken(session, 1, 2, 3), 0)
  for (const rank of [-1, 0, 1, 2, 31, 32]) {
    t.notOk(addon.passToken(session, rank, 1, 2, 3, 4), `to ${rank}, which has no connection`)
  }
  t.throws(() => addon.awaitToken(session + 1, 1, 2, 3), /no such session/)
})

t.test('ranks and sizes that cannot be', async (t) => {
  for (const [rank, size] of [
    [0, 0],
    [1, 1],
    [-1, 2],
    [0, 33],
    [0, -1],
  ] as const) {
    t.throws(() => addon.sessionCreate(rank, size, 0, -1), failure(22), `${rank} of ${size}`)
  }
})

t.test('wake is an event, and stop ends the exchange', async (t) => {
  const exchange = new Exchange(createSession(t))
  t.equal(exchange.run(), 0, 'nothing yet')
  addon.wake(exchange.session)
  addon.wake(exchange.session)
  t.equal(exchange.run([], undefined, 10_000), 1, 'two calls, one event')
  t.equal(exchange.events[0], EventKind.wake)
  t.equal(exchange.run(), 0)
  addon.stop(exchange.session)
  t.equal(exchange.run([], undefined, -1), -1)
})

t.test('stop and wake of a session that is gone do nothing', async (t) => {
  const session = createSession(t)
  addon.sessionDestroy(session)
  for (const dead of [session, 0, 2 ** 32 - 1]) {
    t.doesNotThrow(() => addon.wake(dead))
    t.doesNotThrow(() => addon.stop(dead))
  }
})

t.test('barriers', async (t) => {
  const session = createSession(t, 1, 2)
  const made = addon.barrierWords(session)
  t.ok(made instanceof SharedArrayBuffer || made.length === 4)
  const words = new BarrierWords(barrierWords(session), 2)
  words.bind(3, 2 ** 40 + 7, Int32Array.of(5, 4))
  t.equal(words.arrive(3, 1), 5)
  t.equal(addon.waitAtBarrier(session, 3, 5, 0), true)
  t.equal(addon.waitAtBarrier(session, 3, 6, 1000), false, 'nobody comes')
  t.equal(addon.tellArrival(session, 3), 0b01, 'rank 0 cannot be told')
  t.doesNotThrow(() => addon.ringProgram(session))
  words.break()
  t.equal(addon.waitAtBarrier(session, 3, 6, 100_000), false)
  for (const slot of [256, 2 ** 32 - 1]) {
    t.throws(() => addon.tellArrival(session, slot), failure(constants.errno.EINVAL))
    t.throws(() => addon.waitAtBarrier(session, slot, 1, 0), failure(constants.errno.EINVAL))
  }
  const long = (): unknown => addon.waitAtBarrier(session, 3, 5, 100_001)
  t.throws(long, failure(constants.errno.EINVAL, 'waitAtBarrier'))
  addon.sessionDestroy(session)
  const next = createSession(t, 0, 2)
  t.equal(words.isBroken, false, 'each session begins anew')
  t.equal(addon.waitAtBarrier(next, 3, 1, 0), false)
})

t.test('links where there is no device', async (t) => {
  const session = createSession(t, 0, 2)
  t.throws(() => addon.openLinks(session, 0, 'none0', 1, 1), { message: /./ })
  const wrong = failure(constants.errno.EINVAL, 'openLinks')
  t.throws(() => addon.openLinks(session, 0, 'none0', 256, 1), wrong)
  t.throws(() => addon.openLinks(session, 0, 'none0', 1, 256), wrong)
  for (const way of Object.values(LinkWay)) {
    t.throws(() => addon.link(session, way, 0, 1), failure(constants.errno.ENODEV, 'link'))
    const offer = new Uint8Array(32)
    t.throws(() => addon.link(session, way, 1, 1, offer), failure(constants.errno.EPROTO))
    t.throws(() => addon.link(session, way, 2, 1), failure(constants.errno.ENODEV))
    t.equal(addon.linkRecords(session, way), 0)
  }
  t.throws(() => addon.link(session, 2 as LinkWay, 4, 1), failure(constants.errno.EINVAL, 'link'))
  t.throws(() => addon.linkRecords(session, 2 as LinkWay), failure(constants.errno.EINVAL))
})

t.test('memory of this host: what is offered, and what is not taken', async (t) => {
  const session = createSession(t, 0, 2)
  t.equal(addon.openLinks(session, 0), 'memory of this host')
  const offer = addon.link(session, LinkWay.shm, 0, 1)
  const again = (): unknown => addon.link(session, LinkWay.shm, 0, 1)
  t.throws(again, failure(constants.errno.EALREADY, 'link'))
  const take = (change: (bytes: Uint8Array) => Uint8Array): (() => unknown) => {
    return () => addon.link(session, LinkWay.shm, 1, 1, change(Uint8Array.from(offer)))
  }
  const changed = (at: number): (() => unknown) => take((b) => b.with(at, b[at] ^ 1))
  t.throws(changed(0), failure(constants.errno.EPROTO, 'link'), 'another version')
  t.throws(changed(8), failure(constants.errno.EXDEV, 'link'), 'another host')
  t.throws(changed(24), failure(constants.errno.ECONNREFUSED, 'link'), 'nobody there')
  t.throws(
    take((bytes) => bytes.subarray(1)),
    failure(constants.errno.EPROTO, 'link'),
    'too short',
  )
  t.doesNotThrow(() => addon.link(session, LinkWay.shm, 4, 1))
  t.doesNotThrow(again, 'dropped, it may be offered anew')
})

t.test('connections: opened, accepted, a frame across, bound, closed', async (t) => {
  const session = createSession(t, 0, 2)
  const exchange = new Exchange(session)
  const port = addon.listen(session, '127.0.0.1', 0)
  t.ok(port > 0 && port < 65536)
  const ours = addon.connect(session, '127.0.0.1', port)
  const [opened, accepted] = exchange.collect([EventKind.opened, EventKind.accepted])
  t.equal(opened[1], ours)
  const theirs = accepted[1]
  t.not(theirs, ours)

  const blob = new TextEncoder().encode('a frame')
  const frame = Array<number>(ENTRY_WORDS).fill(0)
  frame.splice(0, 4, action.sendBlobTo, ours, 0, blob.length)
  frame[record + Word.payloadBytes] = blob.length
  frame[record + Word.kind] = Kind.Cluster
  const [received] = exchange.collect([EventKind.clusterFrame], [frame], blob)
  t.equal(received[1], theirs)
  const at = received[2]
  t.equal(new TextDecoder().decode(exchange.blobsIn.slice(at, at + received[3])), 'a frame')

  t.equal(addon.bindRank(session, theirs, 1), true)
  t.equal(addon.bindRank(session, ours, 1), false, 'the rank has a connection')
  t.equal(addon.bindRank(session, theirs, 0), false, 'the connection has a rank')
  t.equal(addon.bindRank(session, ours, 32), false)
  t.equal(addon.bindRank(session, ours, -1), false)
  t.equal(addon.bindRank(session, 12345, 0), false)

  addon.closeConnection(session, ours)
  addon.closeConnection(session, 12345)
  const [closed] = exchange.collect([EventKind.closed])
  t.same([...closed.slice(1, 4)], [theirs, 1 + 1, 1000], 'which, rank + 1, end of stream')
})

t.test('addresses that cannot be', async (t) => {
  const session = createSession(t)
  t.throws(() => addon.listen(session, 'no.such.host', 0), failure(22, 'listen'))
  t.throws(() => addon.listen(session, '192.0.2.1', 0), failure(99, 'listen'))
  t.throws(() => addon.connect(session, '', 1), failure(22, 'connect'))
  const exchange = new Exchange(session)
  const port = addon.listen(session, '127.0.0.1', 0)
  addon.listen(session, '127.0.0.1', 0) // takes the place of the first
  const number = addon.connect(session, '127.0.0.1', port)
  const [closed] = exchange.collect([EventKind.closed])
  t.same([...closed.slice(1, 4)], [number, 0, 111], 'ECONNREFUSED')
})

t.test('regions: mapped, seen, counted, unmapped', async (t) => {
  const session = createSession(t, 1, 3)
  const exchange = new Exchange(session)
  const { block } = PlacementCode
  const base = freshBase()
  t.equal(addon.mapRegion(session, 5, pageBytes, 30, base, block, 0), 0)
  t.equal(addon.mapRegion(session, 5, pageBytes, 30, base + 2n ** 30n, block, 0), 22, 'id taken')
  t.equal(addon.mapRegion(session, 1024, pageBytes, 30, base + 2n ** 30n, block, 0), 22)
  t.equal(addon.mapRegion(session, 6, pageBytes, 1, base + 4096n, block, 0), 17, 'EEXIST')
  t.equal(addon.homeOf(session, 5, 10), 1)

  const states = new Uint8Array(regionBuffer(session, 5, RegionPart.states))
  t.equal(states.length, 30)
  t.equal(regionBuffer(session, 5, RegionPart.directory).byteLength, 10 * 8)
  t.type(addon.regionBuffer(session, 5, RegionPart.application), 'object')
  const bytes = new Uint8Array(regionBuffer(session, 5, RegionPart.application, 100_000))
  t.equal(bytes.length, 100_000)
  t.throws(() => addon.regionBuffer(session, 5, RegionPart.application, 30 * 4096 + 1), failure(22))

  // What the MMU enforces is set by an action, or by a touch of a page whose state permits it.
  const protect = Array<number>(ENTRY_WORDS).fill(0)
  protect.splice(0, 4, action.protect, 3, 2, 0)
  protect[record + Word.region] = 5
  protect[record + Word.page] = 10
  exchange.run([protect])
  bytes[10 * pageBytes] = 42
  t.equal(addon.atomic(session, 5, 10, 0, 32, 0, 0n, 0n), 42n, 'seen in the service mapping')
  states[20] = PageState.write
  t.equal(bytes[20 * pageBytes], 0)
  const stats = new Float64Array(STAT_NAMES.length)
  addon.regionStats(session, 5, stats)
  const expected = STAT_NAMES.map((name) => (name === 'localFaults' ? 1 : 0))
  t.same([...stats], expected, 'one touch of a page that was lowered')

  t.equal(addon.countWaiters(session, 5, 0, 30), 0)
  const wake = Array<number>(ENTRY_WORDS).fill(0)
  wake.splice(0, 4, action.wake, 0, 30, 0)
  wake[record + Word.region] = 5
  exchange.run([wake], undefined, 0, true)

  addon.unmapRegion(session, 5)
  addon.unmapRegion(session, 5)
  addon.unmapRegion(session, 99999)
  t.throws(() => addon.homeOf(session, 5, 0), /no such region/)
  t.throws(() => addon.atomic(session, 5, 0, 0, 32, 0, 0n, 0n), /no such region/)
  t.equal(bytes[10 * pageBytes], 42, 'a view keeps the memory')
})

t.test('a send to nobody is nothing', async (t) => {
  const exchange = new Exchange(createSession(t, 0, 2))
  const send = Array<number>(ENTRY_WORDS).fill(0)
  send.splice(0, 2, action.send, 1)
  send[record + Word.kind] = Kind.Heartbeat
  t.equal(exchange.run([send]), 0)
})

t.test('word operations', async (t) => {
  const session = createSession(t)
  addon.mapRegion(session, 0, pageBytes, 2, freshBase(), PlacementCode.block, 0)
  for (const [page, byte, bits] of [
    [2, 0, 32],
    [0, 2, 32],
    [0, 4, 64],
    [0, 4096, 32],
    [0, 4092, 64],
    [0, 0, 16],
    [0, 0, 0],
  ] as const) {
    t.throws(
      () => addon.atomic(session, 0, page, byte, bits, 0, 0n, 0n),
      failure(22),
      `${bits} bits at ${byte} of page ${page}`,
    )
  }
  t.equal(addon.atomic(session, 0, 1, 4092, 32, 1, 7n, 0n), 0n)
  t.equal(addon.atomic(session, 0, 1, 4088, 64, 0, 0n, 0n), 7n << 32n)
})

t.test('RDMA devices: those of the kernel, whether they can be used or not', async (t) => {
  const { unavailable, devices } = addon.rdmaDevices()
  t.type(unavailable, 'string')
  const folder = '/sys/class/infiniband'
  const names = existsSync(folder) ? readdirSync(folder).sort() : []
  t.same(
    devices.map(({ name }) => name),
    names,
  )
  if (unavailable !== '') t.notOk(devices.some(({ hasProvider }) => hasProvider))
})

t.test('atomic words', async (t) => {
  const session = createSession(t)
  const exchange = new Exchange(session)
  t.equal(addon.mapWords(session, 3, pageBytes, 2, false), undefined)
  t.equal(addon.mapWords(session, 4, pageBytes, 1, true), undefined, 'there is no device')
  t.equal(addon.mapWords(session, 5, pageBytes, 0, false), undefined, 'none is homed here')
  const { EINVAL, ENOMEM } = constants.errno
  t.throws(() => addon.mapWords(session, 3, pageBytes, 2, false), failure(EINVAL, 'mapWords'))
  t.throws(() => addon.mapWords(session, 1024, pageBytes, 2, false), failure(EINVAL))
  t.throws(() => addon.mapWords(session, 6, 0, 1, false), failure(EINVAL))
  t.throws(() => addon.mapWords(session, 6, 4092, 1, false), failure(EINVAL), 'pages of half words')
  t.throws(() => addon.mapWords(session, 6, 2 ** 31, 2 ** 32 - 1, false), failure(ENOMEM))
  const { block } = PlacementCode
  t.equal(addon.mapRegion(session, 3, pageBytes, 1, freshBase(), block, 0), EINVAL, 'id taken')
  t.equal(addon.mapRegion(session, 7, pageBytes, 1, freshBase(), block, 0), 0)
  t.throws(() => addon.mapWords(session, 7, pageBytes, 1, false), failure(EINVAL), 'id taken')

  t.equal(addon.atomic(session, 3, 1, 4088, 64, 1, 7n, 0n), 0n)
  t.equal(addon.atomic(session, 3, 1, 4088, 64, 2, 1n, 0n), 7n)
  t.equal(addon.atomic(session, 3, 0, 4088, 64, 0, 0n, 0n), 0n)
  for (const [page, byte, bits] of [
    [2, 0, 64],
    [0, 4, 64],
    [0, 4096, 64],
    [0, 0, 32],
    [0, 0, 0],
  ] as const) {
    const what = `${bits} bits at ${byte} of page ${page}`
    t.throws(() => addon.atomic(session, 3, page, byte, bits, 0, 0n, 0n), failure(EINVAL), what)
  }
  t.throws(() => addon.atomic(session, 5, 0, 0, 64, 0, 0n, 0n), failure(EINVAL))

  // Without links there is nobody to change a word by RDMA.
  const change = Array<number>(ENTRY_WORDS).fill(0)
  change.splice(0, 3, addon.constants.actionWord, 0, 1)
  t.equal(exchange.run([change]), 0)
  addon.unmapRegion(session, 3)
  t.throws(() => addon.atomic(session, 3, 0, 0, 64, 0, 0n, 0n), /no such region/)
  t.equal(addon.mapWords(session, 3, pageBytes, 1, false), undefined, 'and again')
  t.equal(addon.atomic(session, 3, 0, 4088, 64, 0, 0n, 0n), 0n)
})

t.test('probe', async (t) => {
  const found = addon.probe()
  t.match(found, {
    pageBytes: Number,
    userfaultfd: Boolean,
    userfaultfdUserMode: Boolean,
    nodeApiSharedBuffers: Boolean,
    mapBoundaryLimit: Number,
    mapBoundaries: Number,
  })
  t.ok(found.pageBytes >= 4096)
})

t.test('wrong kinds of arguments and dead sessions give errors, never a crash', async (t) => {
  const { code, signal, stderr, result } = await new Child(t, 'arguments', 'allWrong').ended
  t.equal(signal ?? code, 0, stderr)
  t.ok(result.calls > 1000, `${result.calls} calls`)
  t.same(
    result.functions,
    Object.keys(real).filter((name) => name !== 'constants' && name !== 'die'),
  )
})

t.test('nothing is written behind the end of an array', async (t) => {
  const { code, result } = await new Child(t, 'arguments', 'overruns').ended
  t.equal(code, 0)
  t.same(result, [])
})

t.test('die says why and ends the process, from any thread', async (t) => {
  for (const thread of ['main', 'worker']) {
    const { code, signal, stderr } = await new Child(t, 'arguments', 'dies', { args: { thread } })
      .ended
    t.equal(signal ?? code, 74, thread)
    t.equal(stderr, 'the reason\n')
  }
  used.add('die') // by the scenario
})

t.test('every export is declared and used by a test', async (t) => {
  const names = Object.keys(real).sort()
  t.same(names, Object.keys(declared).sort(), 'as lib/native/addon.ts declares them')
  for (const name of names) t.equal(typeof real[name as keyof Addon], declared[name as keyof Addon])
  t.same([...used].sort(), names, 'called by the tests above')
  // Devices and atomic words brought one each, tokens two, barriers four; more, and the table needs
  // parts.
  t.ok(names.length <= 31, 'no more than one table can hold and be read')
})
