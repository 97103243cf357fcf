import t from 'tap'
import { Directory, ENTRY_FAR, EntryEvent, entryStateName } from '../../dist/protocol/directory.js'
import { FarRanks, farWordCount, nearBit } from '../../dist/protocol/far-ranks.js'
import { Kind, MAX_RANKS, NOBODY } from '../../dist/protocol/messages.js'
import { PageEvent, PageTable, stateName } from '../../dist/protocol/page-table.js'
import { refusal } from './support/cells.js'

const page = 5
const region = 9
const kindName = (kind: number): string =>
  Object.entries(Kind).find(([, value]) => value === kind)?.[0] ?? `kind ${kind}`

function makeSink() {
  const log: string[] = []
  const words = (a: number, b: number): string => (a === 0 && b === 0 ? '' : `(${a},${b})`)
  const sink = {
    send: (to: number, kind: number, _region: number, _page: number, a: number, b: number) =>
      log.push(`${kindName(kind)}${words(a, b)}→${to}`),
    sendPage: (to: number, kind: number, _region: number, _page: number, a: number, b: number) =>
      log.push(`page:${kindName(kind)}${words(a, b)}→${to}`),
    protect: (_region: number, _page: number, access: string) => log.push(`protect:${access}`),
    open: () => undefined,
    wake: () => log.push('wake'),
    granted: () => log.push('granted'),
    lost: () => log.push('lost'),
  }
  return { sink, take: () => log.splice(0) }
}

/** A large mesh's entry at its home. */
function makeEntry(home = 0, size = 1000) {
  const { sink, take } = makeSink()
  const here = {
    lowerHere: () => undefined,
    forbidHere: () => undefined,
    dropHere: () => true,
    isHeld: () => false,
  }
  const words = new Uint32Array(16)
  const entry = new Directory(region, words, (each) => each, home, here, sink, size)
  const sharers = (): number[] =>
    Array.from({ length: size }, (_, rank) => rank).filter((rank) => entry.isSharer(page, rank))
  const picture = (): string =>
    `${entryStateName(entry.control(page))} {${sharers().join(',')}}` +
    ((entry.control(page) & ENTRY_FAR) !== 0 ? ' far' : '')
  return { entry, take, picture }
}

/** A large mesh's page at a member; its home is rank 0. */
function makePage(me = 40, size = 1000) {
  const { sink, take } = makeSink()
  const table = new PageTable(region, new Uint8Array(8), me, () => 0, sink, size)
  const fault = (event: 'readFault' | 'writeFault'): void =>
    table.step(page, PageEvent[event], me, NOBODY)
  const state = (): string | undefined => stateName(table.byte(page))
  return { table, take, fault, state }
}

t.test('a set of ranks from 32 on', async (t) => {
  t.equal(farWordCount(2), 0)
  t.equal(farWordCount(32), 0)
  t.equal(farWordCount(33), 1)
  t.equal(farWordCount(1000), 31)
  t.equal(nearBit(31), -(2 ** 31))
  t.equal(nearBit(32), 0)
  const set = new FarRanks(farWordCount(1000))
  t.ok(set.isEmpty())
  for (const rank of [999, 32, 63, 64, 500]) set.add(rank)
  t.strictSame([...set.ranks()], [32, 63, 64, 500, 999])
  t.ok(set.has(63))
  t.notOk(set.has(62))
  const copy = set.copy()
  set.remove(63)
  t.strictSame([...set.ranks()], [32, 64, 500, 999])
  copy.removeAll(set)
  t.strictSame([...copy.ranks()], [63], 'a copy is a set of its own')
  t.notOk(new FarRanks(0).has(32), 'a small mesh has no such ranks')
})

t.test('an entry names any rank as its owner and requester', async (t) => {
  for (const owner of [1, 31, 32, 254, 255, 256, 257, 511, 512, 767, 768, 1022]) {
    for (const reader of [2, 33, 255, 256, 1021]) {
      if (reader === owner) continue
      const { entry, take, picture } = makeEntry(0, MAX_RANKS)
      entry.onRequest(page, Kind.WriteRequest, owner)
      t.equal(entry.ownerOf(page), owner)
      t.equal(entry.control(page) & ENTRY_FAR, 0)
      entry.onRequest(page, Kind.ReadRequest, reader)
      t.strictSame(take(), [`page:DataExclusive→${owner}`, `RecallRead(${reader},0)→${owner}`])
      t.equal(entry.ownerOf(page), owner)
      entry.onNotice(page, EntryEvent.writeBack, owner)
      const other = reader === 33 ? 34 : 33
      const refused = refusal(() => entry.onNotice(page, EntryEvent.confirm, other), 'confirm')
      t.equal(refused, 'impossible', 'the requester is known too')
      entry.onNotice(page, EntryEvent.confirm, reader)
      const both = [owner, reader].sort((one, two) => one - two)
      const far = both.some((rank) => rank >= 32) ? ' far' : ''
      t.equal(picture(), `clean {${both.join(',')}}${far}`)
    }
  }
  t.throws(() => makeEntry(0, MAX_RANKS + 1), RangeError)
})

t.test('in a mesh of 32, words are as they always were', async (t) => {
  const { entry } = makeEntry(0, 32)
  entry.onRequest(page, Kind.ReadRequest, 31)
  t.equal(entry.control(page), 0xffff4001, 'clean and closed, and nobody owns it')
  t.equal(entry.sharers(page), 2 ** 31 + 1)
  entry.onRequest(page, Kind.WriteRequest, 30)
  t.equal(entry.control(page), 0x1eff0106, 'transferring, busy, for rank 30')
  t.equal(entry.farBytes, 0)
})

t.test('a writer is told whose acknowledgements it waits for, before its grant', async (t) => {
  const { entry, take, picture } = makeEntry()
  for (const reader of [3, 40, 41, 999]) entry.onRequest(page, Kind.ReadRequest, reader)
  t.equal(picture(), 'clean {0,3,40,41,999} far')
  t.equal(entry.farBytes, 124)
  take()
  entry.onRequest(page, Kind.WriteRequest, 500)
  t.strictSame(take(), [
    'Invalidate(500,0)→3',
    'Invalidate(500,0)→40',
    'Invalidate(500,0)→41',
    'Invalidate(500,0)→999',
    `AwaitAlso(1,${2 ** 8 + 2 ** 9})→500`,
    `AwaitAlso(31,${2 ** 7})→500`,
    'page:DataExclusive(8,2)→500',
  ])
  entry.onNotice(page, EntryEvent.confirm, 500)
  t.equal(picture(), 'ownedAway {}')
  t.equal(entry.farBytes, 0)
})

t.test('a reader far away that writes is no sharer that it waits for', async (t) => {
  const { entry, take } = makeEntry()
  for (const reader of [40, 999]) entry.onRequest(page, Kind.ReadRequest, reader)
  take()
  entry.onRequest(page, Kind.UpgradeRequest, 999)
  t.strictSame(take(), ['Invalidate(999,0)→40', 'AwaitAlso(1,256)→999', 'Grant(0,2)→999'])
  const alone = makeEntry()
  alone.entry.onRequest(page, Kind.ReadRequest, 999)
  alone.take()
  alone.entry.onRequest(page, Kind.UpgradeRequest, 999)
  t.strictSame(alone.take(), ['Grant→999'])
  t.equal(alone.picture(), 'ownedAway {}')
})

t.test('a home far away has its own copy', async (t) => {
  const { entry, take, picture } = makeEntry(700)
  entry.onRequest(page, Kind.ReadRequest, 1)
  t.equal(picture(), 'clean {1,700} far')
  take()
  entry.onRequest(page, Kind.WriteRequest, 1)
  t.strictSame(take(), ['page:DataExclusive→1'], 'it acknowledges to nobody')
  t.equal(picture(), 'ownedAway {}')
  const other = makeEntry(700)
  other.entry.onRequest(page, Kind.ReadRequest, 1)
  t.ok(other.entry.discardHere(page))
  t.equal(other.picture(), 'clean {1}')
})

t.test('who gives a copy back, or goes down, is taken out', async (t) => {
  const { entry, take, picture } = makeEntry()
  for (const reader of [40, 300, 999]) entry.onRequest(page, Kind.ReadRequest, reader)
  entry.onNotice(page, EntryEvent.discard, 300)
  t.equal(picture(), 'clean {0,40,999} far')
  entry.memberDown(999, [[page, 1]])
  t.equal(picture(), 'clean {0,40} far')
  entry.onRequest(page, Kind.ReadRequest, 999)
  t.equal(picture(), 'clean {0,40} far', 'it is not answered any more')
  entry.memberDown(40, [[page, 1]])
  t.equal(picture(), 'clean {0}')
  entry.onRequest(page, Kind.WriteRequest, 300)
  entry.onRequest(page, Kind.WriteRequest, 301)
  take()
  entry.memberDown(300, [[page, 1]])
  t.strictSame(take(), ['Lost(300,0)→301'])
})

t.test('requests of ranks from 256 on wait in their order', async (t) => {
  const { entry, take } = makeEntry()
  entry.onRequest(page, Kind.WriteRequest, 300)
  entry.onRequest(page, Kind.WriteRequest, 301) // takes it from 300
  for (const reader of [302, 46, 1]) entry.onRequest(page, Kind.ReadRequest, reader)
  entry.memberDown(46, [[page, 1]])
  take()
  entry.onNotice(page, EntryEvent.confirm, 301)
  t.ok(entry.pumpOne())
  t.strictSame(take(), ['RecallRead(302,0)→301'], '302 is not 46, though it is in 8 bits')
  entry.onNotice(page, EntryEvent.writeBack, 301)
  entry.onNotice(page, EntryEvent.confirm, 302)
  t.ok(entry.pumpOne())
  t.strictSame(take(), ['page:Data→1'])
  t.notOk(entry.hasQueue(page))
})

const grantedWords = ['protect:write', 'granted', 'Confirm→0']

t.test('a writer goes on when near and far have acknowledged, in any order', async (t) => {
  // 3 is in the grant; 41 and 999 are in what comes before it.
  const orders = [
    ['more', 'grant', 3, 41, 999],
    ['more', 'grant', 41, 999, 3],
    [3, 'more', 'grant', 999, 41],
    [999, 41, 'more', 'grant', 3],
    [999, 3, 41, 'more', 'grant'],
    ['more', 41, 'grant', 3, 999],
  ]
  for (const start of ['writing', 'upgrading'] as const) {
    for (const order of orders) {
      const { table, take, fault, state } = makePage()
      if (start === 'upgrading') {
        fault('readFault')
        table.step(page, PageEvent.data, 0, NOBODY)
      }
      fault('writeFault')
      t.equal(state(), start)
      take()
      order.forEach((what, index) => {
        if (what === 'more') {
          table.onAwaitAlso(page, 0, 1, 1 << 9)
          table.onAwaitAlso(page, 0, 31, 1 << 7)
        } else if (what === 'grant') table.onGrant(page, 0, 1 << 3, true)
        else table.onAck(page, Number(what))
        const done = index === order.length - 1
        t.strictSame(take(), done ? grantedWords : [], `${start}: ${order.join(', ')}: ${what}`)
        t.equal(state() === 'write', done)
      })
    }
  }
})

t.test('only far acknowledgements are missing', async (t) => {
  const { table, take, fault, state } = makePage()
  fault('writeFault')
  table.onAwaitAlso(page, 0, 1, 1)
  take()
  table.onGrant(page, 0, 0, true)
  t.equal(state(), 'collecting')
  table.onAck(page, 32)
  t.strictSame(take(), grantedWords)
  t.equal(
    refusal(() => table.onAck(page, 32), "'ack'", 'from rank 32 '),
    'impossible',
  )
})

t.test('a member far away that is down need not acknowledge', async (t) => {
  const before = makePage()
  before.fault('writeFault')
  before.table.onAwaitAlso(page, 0, 1, 3)
  before.table.memberDown(32)
  before.take()
  t.ok(before.table.isDown(32))
  t.notOk(before.table.isDown(33))
  before.table.onGrant(page, 0, 0, true)
  t.equal(before.state(), 'collecting')
  before.table.onAck(page, 33)
  t.strictSame(before.take(), grantedWords, 'down before the grant')

  const after = makePage()
  after.fault('writeFault')
  after.table.onAwaitAlso(page, 0, 1, 3)
  after.table.onGrant(page, 0, 0, true)
  after.table.onAck(page, 33)
  after.take()
  after.table.memberDown(99)
  t.strictSame(after.take(), [], 'nobody waited for that one')
  after.table.memberDown(32)
  t.strictSame(after.take(), grantedWords, 'down after the grant')
})

t.test('a page that is lost forgets who was to acknowledge', async (t) => {
  const { table, take, fault, state } = makePage()
  fault('writeFault')
  table.onAwaitAlso(page, 0, 1, 1)
  table.onLost(page, 0, 0)
  fault('writeFault')
  take()
  table.onGrant(page, 0, 0, false)
  t.equal(state(), 'write')
  t.strictSame(take(), ['protect:write', 'granted'])
})

t.test('more acknowledgements cannot be announced to who has asked for nothing', async (t) => {
  const announce = (bench: ReturnType<typeof makePage>, word = 1): string =>
    refusal(() => bench.table.onAwaitAlso(page, 0, word, 1), `page ${page}`, 'AwaitAlso')
  t.equal(announce(makePage()), 'impossible', 'none')
  const reading = makePage()
  reading.fault('readFault')
  t.equal(announce(reading), 'impossible', 'reading')
  const writing = makePage()
  writing.fault('writeFault')
  t.equal(announce(writing, 0), 'impossible', 'the first word is in the grant')
  t.equal(announce(writing, 32), 'impossible', 'there is no such word')
  const small = makePage(4, 32)
  small.fault('writeFault')
  t.equal(announce(small), 'impossible', 'a small mesh has one word')
})
