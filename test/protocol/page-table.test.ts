import t from 'tap'
import { Kind, NOBODY } from '../../dist/protocol/messages.js'
import {
  PAGE_EVENTS,
  PAGE_DIRECT,
  PAGE_HELD,
  PAGE_PENDING,
  type PageEventName,
  PageEvent,
  PageState,
  type PageStateName,
  PageTable,
  permits,
  stateName,
} from '../../dist/protocol/page-table.js'
import { parseCells, refusal, uncovered } from './support/cells.js'

const home = 0
const me = 1
const requester = 2
const other = 3
const page = 4
const region = 9

// The page at rank 1, whose home is rank 0. Recalls and invalidations are for rank 2; rank 3 is the
// owner that copies come from. After the event: the next state, then what is done, in order.
const expected = parseCells(`
none
  readFault      reading ReadRequest→0
  writeFault     writing WriteRequest→0
  invalidate     none InvalidateAck→2
  discard        none
  lost           none lost:home=0:owner=3
  forbidHere     none
  impossible: data dataToConfirm grant grantToConfirm grantPending ack lastAck recallRead
  impossible: recallWrite discardSent lowerHere dropHere
read
  readFault      read wake
  writeFault     upgrading UpgradeRequest→0
  invalidate     none protect:none:invalidated InvalidateAck→2
  discard        discarding protect:none Discard→0
  lost           none protect:none
  forbidHere     none protect:none:invalidated
  dropHere       none protect:none
  impossible: data dataToConfirm grant grantToConfirm grantPending ack lastAck recallRead
  impossible: recallWrite discardSent lowerHere
write
  readFault      write wake
  writeFault     write wake
  recallRead     read protect:read page:Data(0,1)→2 page:WriteBack→0
  recallWrite    none protect:none:invalidated page:DataExclusive(0,1)→2
  discard        write
  lost           none protect:none
  lowerHere      read protect:read
  forbidHere     none protect:none:invalidated
  dropHere       none protect:none
  impossible: data dataToConfirm grant grantToConfirm grantPending ack lastAck invalidate
  impossible: discardSent
reading
  readFault      reading
  writeFault     reading
  data           read protect:read granted
  dataToConfirm  read protect:read granted Confirm→0
  invalidate     reading InvalidateAck→2
  discard        reading
  lost           none lost:home=0:owner=3
  forbidHere     reading
  impossible: grant grantToConfirm grantPending ack lastAck recallRead recallWrite discardSent
  impossible: lowerHere dropHere
writing
  readFault      writing
  writeFault     writing
  grant          write protect:write granted
  grantToConfirm write protect:write granted Confirm→0
  grantPending   collecting
  ack            writing
  invalidate     writing InvalidateAck→2
  discard        writing
  lost           none lost:home=0:owner=3
  forbidHere     writing
  impossible: data dataToConfirm lastAck recallRead recallWrite discardSent lowerHere dropHere
upgrading
  readFault      upgrading wake
  writeFault     upgrading
  grant          write protect:write granted
  grantToConfirm write protect:write granted Confirm→0
  grantPending   upgradeCollecting
  ack            upgrading
  invalidate     writing protect:none:invalidated InvalidateAck→2
  discard        upgrading
  lost           none protect:none lost:home=0:owner=3
  forbidHere     writing protect:none:invalidated
  impossible: data dataToConfirm lastAck recallRead recallWrite discardSent lowerHere dropHere
collecting
  readFault      collecting
  writeFault     collecting
  ack            collecting
  lastAck        write protect:write granted Confirm→0
  discard        collecting
  lost           none lost:home=0:owner=3
  impossible: data dataToConfirm grant grantToConfirm grantPending invalidate recallRead
  impossible: recallWrite discardSent lowerHere forbidHere dropHere
upgradeCollecting
  readFault      upgradeCollecting wake
  writeFault     upgradeCollecting
  ack            upgradeCollecting
  lastAck        write protect:write granted Confirm→0
  discard        upgradeCollecting
  lost           none protect:none lost:home=0:owner=3
  impossible: data dataToConfirm grant grantToConfirm grantPending invalidate recallRead
  impossible: recallWrite discardSent lowerHere forbidHere dropHere
filling
  readFault      fillingInVain
  writeFault     fillingInVain
  invalidate     fillingInVain InvalidateAck→2
  discard        filling
  lost           fillingInVain
  impossible: data dataToConfirm grant grantToConfirm grantPending ack lastAck recallRead
  impossible: recallWrite discardSent lowerHere forbidHere dropHere
fillingInVain
  readFault      fillingInVain
  writeFault     fillingInVain
  invalidate     fillingInVain InvalidateAck→2
  discard        fillingInVain
  lost           fillingInVain
  impossible: data dataToConfirm grant grantToConfirm grantPending ack lastAck recallRead
  impossible: recallWrite discardSent lowerHere forbidHere dropHere
claiming
  readFault      claimingHeard
  writeFault     claimingHeard
  invalidate     fillingInVain InvalidateAck→2
  recallRead     fillingInVain page:Data(0,1)→2 page:WriteBack→0
  recallWrite    fillingInVain page:DataExclusive(0,1)→2
  discard        claiming
  lost           fillingInVain
  impossible: data dataToConfirm grant grantToConfirm grantPending ack lastAck discardSent
  impossible: lowerHere forbidHere dropHere
claimingHeard
  readFault      claimingHeard
  writeFault     claimingHeard
  invalidate     fillingInVain InvalidateAck→2
  recallRead     fillingInVain page:Data(0,1)→2 page:WriteBack→0
  recallWrite    fillingInVain page:DataExclusive(0,1)→2
  discard        claimingHeard
  lost           fillingInVain
  impossible: data dataToConfirm grant grantToConfirm grantPending ack lastAck discardSent
  impossible: lowerHere forbidHere dropHere
discarding
  readFault      discarding
  writeFault     discarding
  invalidate     discarding InvalidateAck→2
  discard        discarding
  discardSent    none wake
  lost           none lost:home=0:owner=3
  impossible: data dataToConfirm grant grantToConfirm grantPending ack lastAck recallRead
  impossible: recallWrite lowerHere forbidHere dropHere
`)

const kindName = (kind: number): string =>
  Object.entries(Kind).find(([, value]) => value === kind)?.[0] ?? `kind ${kind}`

/** A page table whose wishes are written down. */
function make(): { table: PageTable; bytes: Uint8Array; take: () => string[] } {
  const log: string[] = []
  const words = (a: number, b: number): string => (a === 0 && b === 0 ? '' : `(${a},${b})`)
  const bytes = new Uint8Array(8)
  const table = new PageTable(region, bytes, me, () => home, {
    send: (to, kind, _region, _page, a, b) => log.push(`${kindName(kind)}${words(a, b)}→${to}`),
    sendPage: (to, kind, _region, _page, a, b) =>
      log.push(`page:${kindName(kind)}${words(a, b)}→${to}`),
    protect: (_region, _page, access, invalidated) =>
      log.push(`protect:${access}${invalidated ? ':invalidated' : ''}`),
    open: () => log.push('open'),
    wake: () => log.push('wake'),
    granted: () => log.push('granted'),
    lost: (_region, _page, itsHome, owner) => log.push(`lost:home=${itsHome}:owner=${owner}`),
  })
  return { table, bytes, take: () => log.splice(0) }
}

const fault = (table: PageTable, event: 'readFault' | 'writeFault'): void =>
  table.step(page, PageEvent[event], me, NOBODY)
const acks = (1 << requester) | (1 << other)

/** How a page comes to each state. */
const reach: Record<PageStateName, (table: PageTable, bytes: Uint8Array) => void> = {
  none: () => undefined,
  read: (table, bytes) => {
    reach.reading(table, bytes)
    table.step(page, PageEvent.data, home, NOBODY)
  },
  write: (table, bytes) => {
    reach.writing(table, bytes)
    table.onGrant(page, home, 0, false)
  },
  reading: (table) => fault(table, 'readFault'),
  writing: (table) => fault(table, 'writeFault'),
  upgrading: (table, bytes) => {
    reach.read(table, bytes)
    fault(table, 'writeFault')
  },
  collecting: (table, bytes) => {
    reach.writing(table, bytes)
    table.onGrant(page, home, acks, false)
  },
  upgradeCollecting: (table, bytes) => {
    reach.upgrading(table, bytes)
    table.onGrant(page, home, acks, false)
  },
  // A thread does this, without the engine.
  filling: (_table, bytes) => (bytes[page] = PageState.filling),
  fillingInVain: (table, bytes) => {
    reach.filling(table, bytes)
    fault(table, 'readFault')
  },
  claiming: (_table, bytes) => (bytes[page] = PageState.claiming),
  claimingHeard: (table, bytes) => {
    reach.claiming(table, bytes)
    fault(table, 'writeFault')
  },
  discarding: (table, bytes) => {
    reach.read(table, bytes)
    table.step(page, PageEvent.discard, me, NOBODY)
  },
}

/** Who an event comes from, and how it is fed. */
const feed: Record<PageEventName, [from: number, feed: (table: PageTable) => void]> = {
  readFault: [me, (table) => fault(table, 'readFault')],
  writeFault: [me, (table) => fault(table, 'writeFault')],
  data: [home, (table) => table.step(page, PageEvent.data, home, NOBODY)],
  dataToConfirm: [other, (table) => table.step(page, PageEvent.dataToConfirm, other, NOBODY)],
  grant: [home, (table) => table.onGrant(page, home, 0, false)],
  grantToConfirm: [other, (table) => table.onGrant(page, other, 0, true)],
  grantPending: [home, (table) => table.onGrant(page, home, acks, false)],
  ack: [requester, (table) => table.onAck(page, requester)],
  lastAck: [other, (table) => feedLastAck(table)],
  invalidate: [home, (table) => table.step(page, PageEvent.invalidate, home, requester)],
  recallRead: [home, (table) => table.step(page, PageEvent.recallRead, home, requester)],
  recallWrite: [home, (table) => table.step(page, PageEvent.recallWrite, home, requester)],
  discard: [me, (table) => table.step(page, PageEvent.discard, me, NOBODY)],
  discardSent: [me, (table) => table.step(page, PageEvent.discardSent, me, NOBODY)],
  lost: [home, (table) => table.onLost(page, home, other)],
  lowerHere: [me, (table) => table.step(page, PageEvent.lowerHere, me, NOBODY)],
  forbidHere: [me, (table) => table.step(page, PageEvent.forbidHere, me, NOBODY)],
  dropHere: [me, (table) => table.step(page, PageEvent.dropHere, me, NOBODY)],
}

/** The last acknowledgement is the last only where others were awaited. */
function feedLastAck(table: PageTable): void {
  const state = stateName(table.byte(page))
  if (state !== 'collecting' && state !== 'upgradeCollecting') {
    return table.step(page, PageEvent.lastAck, other, NOBODY)
  }
  table.onAck(page, requester)
  table.onAck(page, other)
}

function observe(state: PageStateName, event: PageEventName): string {
  const { table, bytes, take } = make()
  reach[state](table, bytes)
  if (stateName(table.byte(page)) !== state) return `${state} is not reached`
  take()
  const [from, give] = feed[event]
  if (expected.get(state)?.get(event) !== 'impossible') {
    give(table)
    return [stateName(table.byte(page)), ...take()].join(' ')
  }
  const refused = refusal(
    () => give(table),
    `page ${page} of region ${region}`,
    `state '${state}'`,
    `'${event}'`,
    `from rank ${from} `,
  )
  const left = [stateName(table.byte(page)) === state ? '' : 'it changes the state', ...take()]
  return [refused, ...left].join(' ').trimEnd()
}

const states = Object.keys(PageState) as PageStateName[]

t.test('each state and each event is written down, and no other', async (t) => {
  t.strictSame(uncovered(expected, states, PAGE_EVENTS), [])
  t.equal(states.length * PAGE_EVENTS.length, 234, 'a cell is new: say here what it does')
})

t.test('what is not written down is noticed', async (t) => {
  t.strictSame(uncovered(expected, [...states, 'torn'], PAGE_EVENTS).length, PAGE_EVENTS.length)
  t.strictSame(uncovered(expected, states, [...PAGE_EVENTS, 'whim']).length, states.length)
  t.strictSame(uncovered(expected, states.slice(1), PAGE_EVENTS).length, PAGE_EVENTS.length)
})

t.test('each cell does what is written down', async (t) => {
  let exercised = 0
  for (const state of states) {
    for (const event of PAGE_EVENTS) {
      t.equal(observe(state, event), expected.get(state)?.get(event), `${state} × ${event}`)
      exercised++
    }
  }
  t.equal(exercised, 234)
})

t.test('the bits of a state say what native code may do', async (t) => {
  for (const state of states) {
    const byte = PageState[state]
    t.equal(permits(byte, 'read'), /^(read|write|upgrading|upgradeCollecting)$/.test(state), state)
    t.equal(permits(byte, 'write'), state === 'write', state)
    t.equal((byte & 0x04) !== 0, /ing(InVain|Heard)?$/i.test(state), `${state}: pending`)
    t.equal((byte & 0x80) !== 0, /^(reading|writing)$/.test(state), `${state}: takes bytes`)
    t.equal(byte & PAGE_HELD, 0, state)
    t.equal(byte & PAGE_DIRECT, 0, state)
    t.equal(stateName(byte | PAGE_HELD | PAGE_DIRECT), state)
  }
  t.equal(stateName(0x10), undefined)
})

t.test('a step takes the right to answer directly away', async (t) => {
  for (const state of ['reading', 'writing', 'upgrading'] as const) {
    for (const event of ['readFault', 'writeFault', 'invalidate', 'discard'] as const) {
      const { table, bytes } = make()
      reach[state](table, bytes)
      bytes[page] |= PAGE_DIRECT
      feed[event][1](table)
      t.equal(bytes[page] & PAGE_DIRECT, 0, `${state} × ${event}`)
      t.equal(bytes[page] & PAGE_PENDING, PAGE_PENDING)
    }
  }
})

t.test('a recall for the home itself brings the page back at once', async (t) => {
  const { table, bytes, take } = make()
  reach.write(table, bytes)
  take()
  table.step(page, PageEvent.recallRead, home, home)
  t.strictSame(take(), ['protect:read', 'page:Data(0,1)→0'])
})

t.test('an invalidation for nobody is not acknowledged', async (t) => {
  const { table, bytes, take } = make()
  reach.read(table, bytes)
  take()
  table.step(page, PageEvent.invalidate, home, NOBODY)
  t.strictSame(take(), ['protect:none:invalidated'])
})

t.test('what would lower a page that is held waits for the last release', async (t) => {
  const readable = states.filter((state) => permits(PageState[state], 'read'))
  let waited = 0
  for (const state of readable) {
    for (const event of ['invalidate', 'recallRead', 'recallWrite'] as const) {
      const wanted = expected.get(state)!.get(event)!
      if (wanted === 'impossible') continue
      const { table, bytes, take } = make()
      reach[state](table, bytes)
      table.hold(page)
      table.hold(page)
      take()
      feed[event][1](table)
      t.strictSame(take(), [], `${state} × ${event}: nothing happens yet`)
      t.equal(bytes[page], PageState[state] | PAGE_HELD)
      t.ok(table.isHeld(page) && table.isDeferred(page))
      t.notOk(table.release(page), 'one hold is left')
      t.strictSame(take(), [])
      t.ok(table.release(page))
      t.equal([stateName(table.byte(page)), ...take()].join(' '), wanted)
      t.notOk(table.isHeld(page) || table.isDeferred(page))
      waited++
    }
  }
  t.equal(waited, 4)
})

t.test('a page that is held and has no copy lets go at once', async (t) => {
  const { table, bytes, take } = make()
  reach.read(table, bytes)
  table.hold(page)
  table.onLost(page, home, other)
  take()
  t.equal(table.byte(page), PageState.none | PAGE_HELD)
  feed.invalidate[1](table)
  t.strictSame(take(), ['InvalidateAck→2'])
  t.ok(table.release(page))
  t.equal(table.byte(page), PageState.none)
})

t.test('a hold stays over a request of the same page', async (t) => {
  const { table, bytes } = make()
  reach.read(table, bytes)
  table.hold(page)
  fault(table, 'writeFault')
  t.equal(table.byte(page), PageState.upgrading | PAGE_HELD)
  table.onGrant(page, home, acks, false)
  table.onAck(page, requester)
  table.onAck(page, other)
  t.equal(table.byte(page), PageState.write | PAGE_HELD)
})

t.test('acknowledgements may come before the grant that counts them', async (t) => {
  const orders = [
    ['ack2', 'ack3', 'grant'],
    ['ack2', 'grant', 'ack3'],
    ['ack3', 'grant', 'ack2'],
    ['grant', 'ack3', 'ack2'],
  ]
  for (const state of ['writing', 'upgrading'] as const) {
    for (const order of orders) {
      const { table, bytes, take } = make()
      reach[state](table, bytes)
      take()
      order.forEach((what, index) => {
        if (what === 'grant') table.onGrant(page, home, acks, false)
        else table.onAck(page, what === 'ack2' ? requester : other)
        const done = index === order.length - 1
        t.equal(stateName(table.byte(page)) === 'write', done, `${state}: ${order.join(', ')}`)
        t.strictSame(take(), done ? ['protect:write', 'granted', 'Confirm→0'] : [])
      })
    }
  }
})

t.test('a member that is down need not acknowledge', async (t) => {
  for (const state of ['writing', 'upgrading'] as const) {
    const before = make()
    reach[state](before.table, before.bytes)
    before.take()
    before.table.memberDown(requester)
    before.table.onGrant(page, home, acks, false)
    t.strictSame(before.take(), [])
    before.table.onAck(page, other)
    t.strictSame(before.take(), ['protect:write', 'granted', 'Confirm→0'], 'down before the grant')

    const after = make()
    reach[state](after.table, after.bytes)
    after.table.onGrant(page, home, acks, false)
    after.take()
    after.table.onAck(page, other)
    after.table.memberDown(requester)
    t.strictSame(after.take(), ['protect:write', 'granted', 'Confirm→0'], 'down after the grant')
  }
})

t.test('what is asked of a home that is down is lost; what is here stays', async (t) => {
  for (const state of states) {
    const { table, bytes, take } = make()
    reach[state](table, bytes)
    take()
    table.memberDown(home)
    if (state.startsWith('filling') || state.startsWith('claiming')) {
      // Its thread goes on, and is told when it asks.
      t.strictSame([stateName(table.byte(page)), ...take()], ['fillingInVain'], state)
      continue
    }
    const pending = (PageState[state] & 0x04) !== 0
    t.equal(stateName(table.byte(page)), pending ? 'none' : state)
    const forbids = pending && permits(PageState[state], 'read')
    const wanted = [...(forbids ? ['protect:none'] : []), 'lost:home=0:owner=0']
    t.strictSame(take(), pending ? wanted : [], state)
  }
})

t.test('a faulting thread that is quicker is seen', async (t) => {
  const { table, bytes, take } = make()
  reach.read(table, bytes)
  take()
  // The thread changes the byte between the look and the exchange.
  const compareExchange = Atomics.compareExchange
  t.teardown(() => (Atomics.compareExchange = compareExchange))
  let quick = true
  Atomics.compareExchange = ((array: Uint8Array, index: number, from: number, next: number) => {
    if (quick) array[index] = PageState.upgrading
    quick = false
    return compareExchange(array, index, from, next)
  }) as typeof compareExchange
  table.step(page, PageEvent.invalidate, home, requester)
  t.equal(bytes[page], PageState.writing)
  t.strictSame(take(), ['protect:none:invalidated', 'InvalidateAck→2'])
})
