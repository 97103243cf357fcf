import t from 'tap'
import {
  Directory,
  ENTRY_BUSY,
  ENTRY_CLOSED,
  ENTRY_EVENTS,
  EntryEvent,
  type EntryEventName,
  EntryState,
  type EntryStateName,
  entryStateName,
} from '../../dist/protocol/directory.js'
import { Kind } from '../../dist/protocol/messages.js'
import { parseCells, refusal, uncovered } from './support/cells.js'

const home = 0
const reader = 1 // has a copy when the page is clean, and asks for one when it is owned
const newcomer = 2
const owner = 3
const page = 5
const region = 9

// The entry at its home, rank 0. Rank 3 is the owner, rank 1 the sharer or whoever is served, and
// requests come from rank 2, or from rank 1 where nobody but the requester has a copy. After the
// event: the next state, with its owner; the sharers; what is done, in order. Exclusive answers
// carry the bitmap of the acknowledgements to await.
const expected = parseCells(`
ownedHere
  readRequest           clean {0,2} lowerHere page:Data→2 open
  writeRequestAlone     ownedAway(2) {} forbidHere page:DataExclusive→2
  discard               ownedHere {}
  impossible: readRequestHere writeRequestShared upgradeRequestAlone upgradeRequestShared writeBack
  impossible: confirm
clean
  readRequest           clean {0,1,2} page:Data→2
  readRequestHere       clean {0,1} page:Data→0
  writeRequestAlone     ownedAway(1) {} forbidHere page:DataExclusive→1
  writeRequestShared    transferring {0,1} forbidHere Invalidate(2,0)→1 page:DataExclusive(2,0)→2
  upgradeRequestAlone   ownedAway(1) {} forbidHere Grant→1
  upgradeRequestShared  transferring {0,1,2} forbidHere Invalidate(2,0)→1 Grant(2,0)→2
  discard               clean {0}
  impossible: writeBack confirm
ownedAway
  readRequest           sharing {} RecallRead(2,0)→3
  readRequestHere       sharingWritten {} RecallRead→3
  writeRequestAlone     transferring {} RecallWrite(2,0)→3
  discard               ownedAway(3) {}
  impossible: writeRequestShared upgradeRequestAlone upgradeRequestShared writeBack confirm
sharing
  readRequest           wait
  readRequestHere       wait
  writeRequestAlone     wait
  writeBack             sharingWritten {}
  confirm               sharingConfirmed {}
  discard               sharing {}
  impossible: writeRequestShared upgradeRequestAlone upgradeRequestShared
sharingConfirmed
  readRequest           wait
  readRequestHere       wait
  writeRequestAlone     wait
  writeBack             clean {1,3} open
  discard               sharingConfirmed {}
  impossible: writeRequestShared upgradeRequestAlone upgradeRequestShared confirm
sharingWritten
  readRequest           wait
  readRequestHere       wait
  writeRequestAlone     wait
  confirm               clean {1,3} open
  discard               sharingWritten {}
  impossible: writeRequestShared upgradeRequestAlone upgradeRequestShared writeBack
transferring
  readRequest           wait
  readRequestHere       wait
  writeRequestAlone     wait
  confirm               ownedAway(1) {}
  discard               transferring {}
  impossible: writeRequestShared upgradeRequestAlone upgradeRequestShared writeBack
lost
  readRequest           lost {} Lost(3,0)→2
  readRequestHere       lost {} Lost(3,0)→0
  writeRequestAlone     lost {} Lost(3,0)→2
  writeBack             lost {}
  confirm               lost {}
  discard               lost {}
  impossible: writeRequestShared upgradeRequestAlone upgradeRequestShared
`)

const kindName = (kind: number): string =>
  Object.entries(Kind).find(([, value]) => value === kind)?.[0] ?? `kind ${kind}`

interface Bench {
  readonly entry: Directory
  readonly words: Uint32Array
  readonly held: Set<number>
  readonly take: () => string[]
  readonly picture: () => string
}

function make(): Bench {
  const log: string[] = []
  const held = new Set<number>()
  const numbers = (a: number, b: number): string => (a === 0 && b === 0 ? '' : `(${a},${b})`)
  const words = new Uint32Array(16)
  const entry = new Directory(
    region,
    words,
    (each) => each,
    home,
    {
      lowerHere: () => log.push('lowerHere'),
      forbidHere: () => log.push('forbidHere'),
      dropHere: () => log.push('dropHere') > 0,
      isHeld: (each) => held.has(each),
    },
    {
      send: (to, kind, _region, _page, a, b) => log.push(`${kindName(kind)}${numbers(a, b)}→${to}`),
      sendPage: (to, kind, _region, _page, a, b) =>
        log.push(`page:${kindName(kind)}${numbers(a, b)}→${to}`),
      protect: () => log.push('protect'),
      open: () => log.push('open'),
      wake: () => log.push('wake'),
      granted: () => log.push('granted'),
      lost: () => log.push('lost'),
    },
  )
  const picture = (): string => {
    const control = entry.control(page)
    const name = entryStateName(control)
    const whose = name === 'ownedAway' ? `(${entry.ownerOf(page)})` : ''
    const ranks = [0, 1, 2, 3].filter((rank) => (entry.sharers(page) & (1 << rank)) !== 0)
    return `${name}${whose} {${ranks.join(',')}}`
  }
  return { entry, words, held, take: () => log.splice(0), picture }
}

const request = (entry: Directory, kind: keyof typeof Kind, from: number): void =>
  entry.onRequest(page, Kind[kind], from)

/** How an entry comes to each state. */
const reach: Record<EntryStateName, (entry: Directory) => void> = {
  ownedHere: () => undefined,
  clean: (entry) => request(entry, 'ReadRequest', reader),
  ownedAway: (entry) => request(entry, 'WriteRequest', owner),
  sharing: (entry) => {
    reach.ownedAway(entry)
    request(entry, 'ReadRequest', reader)
  },
  sharingConfirmed: (entry) => {
    reach.sharing(entry)
    entry.onNotice(page, EntryEvent.confirm, reader)
  },
  sharingWritten: (entry) => {
    reach.sharing(entry)
    entry.onNotice(page, EntryEvent.writeBack, owner)
  },
  transferring: (entry) => {
    reach.ownedAway(entry)
    request(entry, 'WriteRequest', reader)
  },
  lost: (entry) => {
    reach.ownedAway(entry)
    entry.memberDown(owner, [[page, 1]])
  },
}

/** Who an event comes from, and how it is fed, given the state. */
function feed(
  entry: Directory,
  state: EntryStateName,
  event: EntryEventName,
): [number, () => void] {
  const clean = state === 'clean'
  const notice = (from: number): [number, () => void] => [
    from,
    () => entry.onNotice(page, EntryEvent[event], from),
  ]
  const ask = (kind: keyof typeof Kind, from: number): [number, () => void] => [
    from,
    () => request(entry, kind, from),
  ]
  switch (event) {
    case 'readRequest':
      return ask('ReadRequest', newcomer)
    case 'readRequestHere':
      return state === 'ownedHere' ? notice(home) : ask('ReadRequest', home)
    case 'writeRequestAlone':
      return ask('WriteRequest', clean ? reader : newcomer)
    // In other states requests are not told apart so finely: the event itself is fed.
    case 'writeRequestShared':
      return clean ? ask('WriteRequest', newcomer) : notice(newcomer)
    case 'upgradeRequestAlone':
      return clean ? ask('UpgradeRequest', reader) : notice(newcomer)
    case 'upgradeRequestShared':
      if (!clean) return notice(newcomer)
      request(entry, 'ReadRequest', newcomer)
      return ask('UpgradeRequest', newcomer)
    case 'writeBack':
      return notice(owner)
    case 'confirm':
    case 'discard':
      return notice(reader)
  }
}

function observe(state: EntryStateName, event: EntryEventName): string {
  const { entry, take, picture } = make()
  reach[state](entry)
  if (entryStateName(entry.control(page)) !== state) return `${state} is not reached`
  const [from, give] = feed(entry, state, event)
  const before = [entry.control(page), entry.sharers(page)].join()
  take()
  if (expected.get(state)?.get(event) !== 'impossible') {
    give()
    const waits = entry.hasQueue(page)
    const unchanged = before === [entry.control(page), entry.sharers(page)].join()
    if (waits) return ['wait', unchanged ? '' : 'but it changes', ...take()].join(' ').trimEnd()
    return [picture(), ...take()].join(' ')
  }
  const refused = refusal(
    give,
    `page ${page} of region ${region}`,
    `state '${state}'`,
    `'${event}'`,
    `from rank ${from} `,
  )
  const unchanged = before === [entry.control(page), entry.sharers(page)].join()
  return [refused, unchanged ? '' : 'it changes the entry', ...take()].join(' ').trimEnd()
}

const states = Object.keys(EntryState) as EntryStateName[]

t.test('each state and each event is written down, and no other', async (t) => {
  t.strictSame(uncovered(expected, states, ENTRY_EVENTS), [])
  t.equal(states.length * ENTRY_EVENTS.length, 72, 'a cell is new: say here what it does')
})

t.test('each cell does what is written down', async (t) => {
  let exercised = 0
  for (const state of states) {
    for (const event of ENTRY_EVENTS) {
      t.equal(observe(state, event), expected.get(state)?.get(event), `${state} × ${event}`)
      exercised++
    }
  }
  t.equal(exercised, 72)
})

t.test('a control word says state, busy, owner and requester', async (t) => {
  const { entry } = make()
  reach.transferring(entry)
  const control = entry.control(page)
  t.equal(control & 0xff, EntryState.transferring)
  t.ok(control & ENTRY_BUSY)
  t.equal((control >>> 16) & 0xff, owner)
  t.equal(control >>> 24, reader)
  for (const state of states) {
    const bench = make()
    reach[state](bench.entry)
    const busy = (bench.entry.control(page) & ENTRY_BUSY) !== 0
    t.equal(busy, /^(sharing|transferring)/.test(state), `${state}: busy`)
    // native/binding/session.cc lets a WriteBack into the frame in these.
    const awaits = (EntryState[state] & 0x80) !== 0
    t.equal(awaits, state === 'sharing' || state === 'sharingConfirmed', `${state}: awaits bytes`)
  }
  t.equal(entryStateName(0x7f), undefined)
})

t.test('only the owner writes back, and only the requester confirms', async (t) => {
  for (const state of ['sharing', 'sharingConfirmed', 'sharingWritten', 'transferring'] as const) {
    for (const event of ['writeBack', 'confirm'] as const) {
      for (const from of [newcomer, event === 'confirm' ? owner : reader]) {
        const { entry } = make()
        reach[state](entry)
        const refused = refusal(
          () => entry.onNotice(page, EntryEvent[event], from),
          `state '${state}'`,
          `'${event}'`,
          `from rank ${from} `,
        )
        t.equal(refused, 'impossible', `${state}: ${event} from ${from}`)
      }
    }
  }
})

t.test('requests that wait are served in order of arrival, one at a time', async (t) => {
  const { entry, take, picture } = make()
  reach.transferring(entry)
  request(entry, 'ReadRequest', newcomer)
  request(entry, 'ReadRequest', owner)
  request(entry, 'WriteRequest', newcomer)
  take()
  entry.onNotice(page, EntryEvent.confirm, reader)
  t.strictSame(take(), [], 'nothing before what the home is owed has arrived')
  t.ok(entry.pumpOne())
  t.strictSame(take(), ['RecallRead(2,0)→1'])
  t.notOk(entry.pumpOne())
  entry.onNotice(page, EntryEvent.confirm, newcomer)
  t.notOk(entry.pumpOne())
  entry.onNotice(page, EntryEvent.writeBack, reader)
  t.ok(entry.pumpOne())
  t.strictSame(take(), ['open', 'page:Data→3'])
  t.ok(entry.pumpOne())
  t.strictSame(take(), [
    'forbidHere',
    'Invalidate(2,0)→1',
    'Invalidate(2,0)→3',
    'page:DataExclusive(10,0)→2',
  ])
  t.equal(picture(), 'transferring {1,2,3}')
  t.notOk(entry.hasQueue(page))
  t.notOk(entry.pumpOne())
})

t.test('the last of 32 members is told to give its copy up, and nobody after it', async (t) => {
  const { entry, take } = make()
  for (const rank of [30, 31]) request(entry, 'ReadRequest', rank)
  take()
  request(entry, 'WriteRequest', newcomer)
  t.strictSame(take(), [
    'forbidHere',
    'Invalidate(2,0)→30',
    'Invalidate(2,0)→31',
    `page:DataExclusive(${(1 << 30) | (1 << 31)},0)→2`,
  ])
})

t.test('an owner cannot ask for what it has', async (t) => {
  for (const kind of ['ReadRequest', 'WriteRequest', 'UpgradeRequest'] as const) {
    const { entry, take, picture } = make()
    reach.ownedAway(entry)
    take()
    const refused = refusal(
      () => request(entry, kind, owner),
      `page ${page} of region ${region}`,
      `state 'ownedAway'`,
      `from rank ${owner} `,
    )
    t.equal(refused, 'impossible', kind)
    t.strictSame([picture(), ...take()], ['ownedAway(3) {}'])
  }
})

t.test('what the home holds is not taken from it', async (t) => {
  const taken = [
    ['ownedHere', 'ReadRequest'],
    ['ownedHere', 'WriteRequest'],
    ['clean', 'WriteRequest'],
    ['clean', 'UpgradeRequest'],
  ] as const
  for (const [state, kind] of taken) {
    const { entry, held, take } = make()
    reach[state](entry)
    held.add(page)
    take()
    request(entry, kind, reader)
    t.ok(entry.hasQueue(page), `${state}: ${kind} waits`)
    t.strictSame(take(), [])
    held.clear()
    entry.pump(page)
    t.ok(entry.pumpOne())
    t.notOk(entry.hasQueue(page))
  }
  const { entry, held, take } = make()
  reach.clean(entry)
  held.add(page)
  take()
  request(entry, 'ReadRequest', newcomer)
  t.strictSame(take(), ['page:Data→2'], 'a reader takes nothing away')
})

t.test('the home gives back its own access', async (t) => {
  for (const state of states) {
    const { entry, take, picture } = make()
    reach[state](entry)
    take()
    const can = state === 'ownedHere' || state === 'clean'
    t.equal(entry.discardHere(page), can, state)
    t.strictSame(take(), can ? ['dropHere', 'open'] : [])
    t.equal((entry.control(page) & ENTRY_CLOSED) !== 0, can, 'closed until the sink opens it')
    t.notOk(entry.discardHere(page), 'nothing is left to give back')
    if (can) t.equal(picture(), state === 'clean' ? 'clean {1}' : 'clean {}')
  }
  const { entry, held } = make()
  held.add(page)
  t.notOk(entry.discardHere(page), 'not while it is held')
})

// What members on the same host see, who add themselves to entries that are clean and not closed,
// and may then become owners.

const OPEN_MASK = ENTRY_CLOSED | ENTRY_BUSY | 0xff
const isOpen = (control: number): boolean => (control & OPEN_MASK) === EntryState.clean
const isClosed = ({ entry }: Bench): boolean => (entry.control(page) & ENTRY_CLOSED) !== 0
const openEntry = ({ words }: Bench): void => void (words[2 * page] &= ~ENTRY_CLOSED)

/** The accesses to the entry, but for reads of control, that found it open while something ran. */
function accessesWhileOpen({ words }: Bench, run: () => void): string[] {
  const names = ['load', 'store', 'or', 'and', 'compareExchange'] as const
  const atomics = Atomics as unknown as Record<string, (...args: unknown[]) => unknown>
  const originals = names.map((name) => [name, atomics[name]] as const)
  const found: string[] = []
  for (const [name, original] of originals) {
    atomics[name] = (...args) => {
      const word = args[1] === 2 * page ? 'control' : args[1] === 2 * page + 1 ? 'sharers' : ''
      const ofEntries = (args[0] as Uint32Array).buffer === words.buffer
      const matters = ofEntries && word !== '' && (word === 'sharers' || name !== 'load')
      if (matters && isOpen(words[2 * page])) found.push(`${name} ${word}`)
      return original(...args)
    }
  }
  try {
    run()
  } finally {
    for (const [name, original] of originals) atomics[name] = original
  }
  return found
}

t.test('an entry becomes clean closed, and is opened when all is done', async (t) => {
  const ways: readonly [EntryStateName, (bench: Bench) => void][] = [
    ['ownedHere', ({ entry }) => request(entry, 'ReadRequest', reader)],
    ['ownedHere', ({ entry }) => void entry.discardHere(page)],
    ['sharingConfirmed', ({ entry }) => entry.onNotice(page, EntryEvent.writeBack, owner)],
    ['sharingWritten', ({ entry }) => entry.onNotice(page, EntryEvent.confirm, reader)],
    ['sharingWritten', ({ entry }) => entry.memberDown(reader, [[page, 1]])],
  ]
  for (const [state, how] of ways) {
    const bench = make()
    reach[state](bench.entry)
    t.notOk(isClosed(bench))
    const whileOpen = accessesWhileOpen(bench, () => how(bench))
    t.strictSame(whileOpen, [], `${state}: nobody can come between`)
    t.equal(entryStateName(bench.entry.control(page)), 'clean')
    t.ok(isClosed(bench), `${state}: closed until the sink opens it`)
    t.equal(bench.take().filter((each) => each === 'open').length, 1)
    request(bench.entry, 'ReadRequest', newcomer)
    t.ok(isClosed(bench), 'a reader more does not open it')
    openEntry(bench)
    request(bench.entry, 'ReadRequest', owner)
    t.notOk(isClosed(bench), 'nor close it')
    t.strictSame(bench.take(), ['page:Data→2', 'page:Data→3'])
  }
})

t.test('the home closes an entry before it does anything with it', async (t) => {
  const cases: readonly [string, (entry: Directory) => void, EntryStateName][] = [
    ['a reader more', (entry) => request(entry, 'ReadRequest', newcomer), 'clean'],
    ['its only reader writes', (entry) => request(entry, 'WriteRequest', reader), 'ownedAway'],
    ['another writes', (entry) => request(entry, 'WriteRequest', newcomer), 'transferring'],
    ['an upgrade', (entry) => request(entry, 'UpgradeRequest', reader), 'ownedAway'],
    ['the home writes', (entry) => request(entry, 'WriteRequest', home), 'transferring'],
    ['a copy given back', (entry) => entry.onNotice(page, EntryEvent.discard, reader), 'clean'],
  ]
  for (const [name, how, next] of cases) {
    const bench = make()
    reach.clean(bench.entry)
    openEntry(bench)
    const whileOpen = accessesWhileOpen(bench, () => how(bench.entry))
    t.strictSame(whileOpen, ['compareExchange control'], `${name}: that is to close it`)
    t.equal(entryStateName(bench.entry.control(page)), next)
    t.notOk(isClosed(bench), 'not any more, or not a clean entry')
  }
})

// A member on this host has made itself the owner of a page that nobody else had.
const ownControl = (EntryState.ownedAway | (owner << 16) | (0xff << 24)) >>> 0
const claim = ({ words }: Bench): void => {
  words[2 * page] = ownControl
  words[2 * page + 1] = 0
}

t.test('a member that makes itself the owner is seen, whenever it comes', async (t) => {
  // Just when the home was about to close the entry.
  const bench = make()
  reach.clean(bench.entry)
  openEntry(bench)
  const { compareExchange } = Atomics
  t.teardown(() => (Atomics.compareExchange = compareExchange))
  Atomics.compareExchange = ((array: Int32Array, index: number, from: number, next: number) => {
    if (bench.words[2 * page] !== ownControl) claim(bench)
    return compareExchange(array, index, from, next)
  }) as typeof compareExchange
  bench.take()
  request(bench.entry, 'ReadRequest', newcomer)
  t.strictSame(bench.take(), ['RecallRead(2,0)→3'])
  t.equal(bench.picture(), 'sharing {}')
})

t.test('a page is lost whose owner made itself that when it was down already', async (t) => {
  const bench = make()
  bench.entry.memberDown(owner, [[page, 1]])
  claim(bench)
  bench.take()
  request(bench.entry, 'WriteRequest', newcomer)
  t.strictSame(bench.take(), ['Lost(3,0)→2'])
  t.equal(entryStateName(bench.entry.control(page)), 'lost')
})

t.test('an entry that was closed for nothing is open again', async (t) => {
  for (const open of [true, false]) {
    const bench = make()
    reach.clean(bench.entry)
    if (open) openEntry(bench)
    bench.held.add(page)
    request(bench.entry, 'WriteRequest', reader)
    t.ok(bench.entry.hasQueue(page))
    t.equal(isClosed(bench), !open, 'as it was before, while the request waits')
  }
})

// Who goes down; the next state; what is done.
const deaths: readonly [EntryStateName, number, string][] = [
  ['ownedHere', reader, 'ownedHere {}'],
  ['clean', reader, 'clean {0}'],
  ['clean', newcomer, 'clean {0,1}'],
  ['ownedAway', owner, 'lost {}'],
  ['ownedAway', reader, 'ownedAway(3) {}'],
  ['sharing', owner, 'lost {} Lost(3,0)→1'],
  ['sharing', reader, 'sharingConfirmed {}'],
  ['sharing', newcomer, 'sharing {}'],
  ['sharingConfirmed', owner, 'lost {} Lost(3,0)→1'],
  ['sharingConfirmed', reader, 'sharingConfirmed {}'],
  ['sharingWritten', owner, 'lost {} Lost(3,0)→1'],
  ['sharingWritten', reader, 'clean {3} open'],
  ['transferring', owner, 'lost {} Lost(3,0)→1'],
  ['transferring', reader, 'lost {}'],
  ['transferring', newcomer, 'transferring {}'],
  ['lost', reader, 'lost {}'],
]

t.test('a member that is down is taken out of the entry', async (t) => {
  for (const [state, rank, wanted] of deaths) {
    const { entry, take, picture } = make()
    reach[state](entry)
    take()
    entry.memberDown(rank, [[page, 1]])
    t.equal([picture(), ...take()].join(' '), wanted, `${state}, rank ${rank} is down`)
    request(entry, 'ReadRequest', rank)
    t.strictSame(take(), [], 'it is not answered any more')
    t.notOk(entry.hasQueue(page))
  }
})

t.test('a reader that went down does not come back as a sharer', async (t) => {
  const { entry, picture } = make()
  reach.sharing(entry)
  entry.memberDown(reader, [[page, 1]])
  entry.onNotice(page, EntryEvent.writeBack, owner)
  t.equal(picture(), 'clean {3}')
})

t.test('requests of a member that is down leave the queue, the others go on', async (t) => {
  const { entry, take } = make()
  reach.transferring(entry)
  request(entry, 'WriteRequest', newcomer)
  request(entry, 'ReadRequest', home)
  take()
  entry.memberDown(newcomer, [[page, 1]])
  entry.onNotice(page, EntryEvent.confirm, reader)
  while (entry.pumpOne());
  t.strictSame(take(), ['RecallRead→1'])
  const alone = make()
  reach.transferring(alone.entry)
  request(alone.entry, 'WriteRequest', newcomer)
  alone.entry.memberDown(newcomer, [[page, 1]])
  t.notOk(alone.entry.hasQueue(page))
})

t.test('everybody who waits for a lost page is told', async (t) => {
  const { entry, take } = make()
  reach.transferring(entry)
  request(entry, 'WriteRequest', newcomer)
  request(entry, 'ReadRequest', home)
  take()
  entry.memberDown(owner, [[page, 1]])
  while (entry.pumpOne());
  t.strictSame(take(), ['Lost(3,0)→1', 'Lost(3,0)→2', 'Lost(3,0)→0'])
  t.notOk(entry.hasQueue(page))
})
