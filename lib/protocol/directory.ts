import { PagemeshError } from '../errors.js'
import { FarRanks, farWordCount, NEAR_RANKS, nearBit } from './far-ranks.js'
import { Kind, MAX_MEMBERS, MAX_RANKS, NOBODY } from './messages.js'
import { PageFifo, PageQueues } from './page-queues.js'
import type { CoherenceSink } from './sink.js'

/**
 * The home side: who has each page that this member homes. An entry is eight bytes in memory that
 * members on the same host can reach:
 *
 * - the control word: state in bits 0-7, busy in bit 8, owner in bits 16-23, requester of the
 *   transaction in flight in bits 24-31;
 * - the sharers word: a bitmap of the members that hold a readable copy.
 *
 * Meshes of more than 32 members need more: bit 9 of the control word says that members beyond the
 * sharers word have copies too, which a table at the home names; bits 10-11 and 12-13 are two more
 * bits of the owner's and the requester's ranks.
 *
 * A busy entry is taken: whoever wants it waits. All zero is the beginning: the home owns the page.
 *
 * A member on the same host reads a page without asking: it adds itself to the sharers of an entry
 * that is clean and not closed, by one compare-and-swap of all eight bytes, and copies the frame.
 * If it is the only sharer, and wants to write, it makes itself the owner in the same way.
 * So the home closes an entry (bit 14), by a compare-and-swap too, before it does anything with one
 * that is clean, and opens it when the sharers are complete and its own threads can do no more than
 * it says. Only the home changes an entry that is not clean, or closed.
 */
export const EntryState = {
  /** The home has the page for writing, or nobody has touched it yet. */
  ownedHere: 0,
  /** The home's frame is good; the sharers have copies. */
  clean: 1,
  /** Another member has the page for writing. */
  ownedAway: 2,
  /** A copy is on its way from the owner to the requester, and one to the home. */
  sharing: 0x83,
  /** The same; the requester has confirmed, the home waits for its copy. */
  sharingConfirmed: 0x84,
  /** The same; the home has its copy, the requester has not confirmed. */
  sharingWritten: 0x05,
  /** The page is on its way to a writer, who has not confirmed. */
  transferring: 0x06,
  /** Its owner went down with it. */
  lost: 0x07,
} as const
export type EntryStateName = keyof typeof EntryState

export const ENTRY_BUSY = 0x100
/** Members beyond the sharers word have copies. */
export const ENTRY_FAR = 0x200
/** Clean, but members on this host may neither add themselves to the sharers nor own the page. */
export const ENTRY_CLOSED = 0x4000
const OWNER_SHIFT = 16
const REQUESTER_SHIFT = 24
const OWNER_HIGH_SHIFT = 10
const REQUESTER_HIGH_SHIFT = 12
/** A rank as a control word has it: nobody is 0xff, so ranks from there on are one more. */
const NOBODY_HERE = 0xff
const packed = (rank: number): number =>
  rank < NOBODY_HERE ? rank : rank === NOBODY ? NOBODY_HERE : rank + 1
const unpacked = (low: number, high: number): number => {
  const value = low | (high << 8)
  return value < NOBODY_HERE ? value : value === NOBODY_HERE ? NOBODY : value - 1
}
const ownerIn = (control: number): number =>
  unpacked((control >>> OWNER_SHIFT) & 0xff, (control >>> OWNER_HIGH_SHIFT) & 3)
const requesterIn = (control: number): number =>
  unpacked((control >>> REQUESTER_SHIFT) & 0xff, (control >>> REQUESTER_HIGH_SHIFT) & 3)

export const ENTRY_EVENTS = [
  'readRequest', // from another member
  'readRequestHere', // from the home itself
  'writeRequestAlone', // nobody but the requester and the home has a copy
  'writeRequestShared', // others have copies
  'upgradeRequestAlone', // the same; the requester's copy is good
  'upgradeRequestShared',
  'writeBack', // the owner's copy is in the home's frame
  'confirm', // the requester has what it asked for
  'discard', // a sharer has given its copy back
] as const
export type EntryEventName = (typeof ENTRY_EVENTS)[number]

export type EntryAction =
  | 'lowerHere'
  | 'forbidHere'
  | 'addSharer'
  | 'removeSharer'
  | 'sendData'
  | 'sendExclusive'
  | 'sendGrant'
  | 'recallCopy'
  | 'recallOwnership'
  | 'invalidateSharers'
  | 'settleShared'
  | 'settleOwner'
  | 'tellLost'

/** `owned` stands for ownedHere or ownedAway, by who the requester is. */
export interface EntryStep {
  readonly next: EntryStateName | 'owned'
  readonly does: readonly EntryAction[]
}
const to = (next: EntryStateName | 'owned', ...does: EntryAction[]): EntryStep => ({ next, does })
const impossible = 'impossible'
/** The request is put at the end of the page's queue and comes again when the entry is free. */
const wait = 'wait'
export type EntryCell = EntryStep | typeof impossible | typeof wait

const busyRequests = {
  readRequest: wait,
  readRequestHere: wait,
  writeRequestAlone: wait,
  writeRequestShared: impossible, // the classes of a write are told apart in state clean only
  upgradeRequestAlone: impossible,
  upgradeRequestShared: impossible,
} as const

/** The whole home side. */
export const DIRECTORY_TABLE: Readonly<
  Record<EntryStateName, Readonly<Record<EntryEventName, EntryCell>>>
> = {
  ownedHere: {
    readRequest: to('clean', 'lowerHere', 'addSharer', 'sendData'),
    readRequestHere: impossible,
    writeRequestAlone: to('owned', 'forbidHere', 'settleOwner', 'sendExclusive'),
    writeRequestShared: impossible,
    upgradeRequestAlone: impossible,
    upgradeRequestShared: impossible,
    writeBack: impossible,
    confirm: impossible,
    discard: to('ownedHere'),
  },
  clean: {
    readRequest: to('clean', 'addSharer', 'sendData'),
    readRequestHere: to('clean', 'addSharer', 'sendData'),
    writeRequestAlone: to('owned', 'forbidHere', 'settleOwner', 'sendExclusive'),
    writeRequestShared: to('transferring', 'forbidHere', 'invalidateSharers', 'sendExclusive'),
    upgradeRequestAlone: to('owned', 'forbidHere', 'settleOwner', 'sendGrant'),
    upgradeRequestShared: to('transferring', 'forbidHere', 'invalidateSharers', 'sendGrant'),
    writeBack: impossible,
    confirm: impossible,
    discard: to('clean', 'removeSharer'),
  },
  ownedAway: {
    readRequest: to('sharing', 'recallCopy'),
    readRequestHere: to('sharingWritten', 'recallCopy'), // the requester's copy is the home's
    writeRequestAlone: to('transferring', 'recallOwnership'),
    writeRequestShared: impossible,
    upgradeRequestAlone: impossible,
    upgradeRequestShared: impossible,
    writeBack: impossible,
    confirm: impossible,
    discard: to('ownedAway'),
  },
  sharing: {
    ...busyRequests,
    writeBack: to('sharingWritten'),
    confirm: to('sharingConfirmed'),
    discard: to('sharing'),
  },
  sharingConfirmed: {
    ...busyRequests,
    writeBack: to('clean', 'settleShared'),
    confirm: impossible,
    discard: to('sharingConfirmed'),
  },
  sharingWritten: {
    ...busyRequests,
    writeBack: impossible,
    confirm: to('clean', 'settleShared'),
    discard: to('sharingWritten'),
  },
  transferring: {
    ...busyRequests,
    writeBack: impossible,
    confirm: to('owned', 'settleOwner'),
    discard: to('transferring'),
  },
  lost: {
    readRequest: to('lost', 'tellLost'),
    readRequestHere: to('lost', 'tellLost'),
    writeRequestAlone: to('lost', 'tellLost'),
    writeRequestShared: impossible,
    upgradeRequestAlone: impossible,
    upgradeRequestShared: impossible,
    // What was on its way when the owner went down may still arrive.
    writeBack: to('lost'),
    confirm: to('lost'),
    discard: to('lost'),
  },
}

export const EntryEvent = Object.fromEntries(
  ENTRY_EVENTS.map((name, index) => [name, index]),
) as Readonly<Record<EntryEventName, number>>

const STATE_NAMES = Object.keys(EntryState) as EntryStateName[]
const EVENT_COUNT = ENTRY_EVENTS.length
const compiled: (EntryCell | undefined)[] = []
for (const state of STATE_NAMES) {
  for (const event of ENTRY_EVENTS) {
    compiled[EntryState[state] * EVENT_COUNT + EntryEvent[event]] = DIRECTORY_TABLE[state][event]
  }
}
const BUSY_STATES: ReadonlySet<number> = new Set<number>([
  EntryState.sharing,
  EntryState.sharingConfirmed,
  EntryState.sharingWritten,
  EntryState.transferring,
])
const word = (state: number, owner: number, requester: number): number => {
  const ownerBits = packed(owner)
  const requesterBits = packed(requester)
  return (
    state |
    (BUSY_STATES.has(state) ? ENTRY_BUSY : 0) |
    ((ownerBits & 0xff) << OWNER_SHIFT) |
    ((ownerBits >>> 8) << OWNER_HIGH_SHIFT) |
    ((requesterBits & 0xff) << REQUESTER_SHIFT) |
    ((requesterBits >>> 8) << REQUESTER_HIGH_SHIFT)
  )
}

export function entryStateName(control: number): EntryStateName | undefined {
  return STATE_NAMES.find((name) => EntryState[name] === (control & 0xff))
}

/** What the home's own page table must do when the directory takes the page from the home. */
export interface HomePages {
  /** Lowers the home's own access without telling anyone. */
  lowerHere(page: number): void
  forbidHere(page: number): void
  /** The same, because the home itself gives the page back. False if it has a request out. */
  dropHere(page: number): boolean
  /** The home's own use keeps the page from being lowered now. */
  isHeld(page: number): boolean
}

/** A request that waits: the requester in bits 0-7 and 16-17, the kind in bits 8-15. */
type QueuedRequest = number
const queued = (kind: number, requester: number): QueuedRequest =>
  (requester & 0xff) | (kind << 8) | ((requester >>> 8) << 16)
const kindOf = (request: QueuedRequest): number => (request >>> 8) & 0xff
const requesterOf = (request: QueuedRequest): number => (request & 0xff) | ((request >>> 16) << 8)

/** The entries of one region at their home. Pure: it changes the words and calls the sink. */
export class Directory {
  private readonly queues = new PageQueues()
  /** Pages whose queues may go on. */
  private readonly pumped = new PageFifo()
  private down = 0
  /** Of pages that have any: the sharers beyond the sharers word. Their entries say so. */
  private readonly far = new Map<number, FarRanks>()
  private readonly farDown: FarRanks

  /** Read with their sign: a number beyond 31 bits would be allocated for each look at it. */
  private readonly words: Int32Array

  /**
   * @param words two words for each page homed here, shared memory
   * @param indexOf the index of a page's entry
   * @param size of the mesh
   */
  constructor(
    private readonly region: number,
    words: Uint32Array,
    private readonly indexOf: (page: number) => number,
    private readonly home: number,
    private readonly here: HomePages,
    private readonly sink: CoherenceSink,
    size = MAX_MEMBERS,
  ) {
    if (size > MAX_RANKS) throw new RangeError(`an entry names up to ${MAX_RANKS} members`)
    this.farDown = new FarRanks(farWordCount(size))
    this.words = new Int32Array(words.buffer, words.byteOffset, words.length)
  }

  control(page: number): number {
    return this.signedControl(page) >>> 0
  }

  /** The sharers word: those below rank 32. */
  sharers(page: number): number {
    return this.signedSharers(page) >>> 0
  }

  private signedControl(page: number): number {
    return Atomics.load(this.words, 2 * this.indexOf(page))
  }

  private signedSharers(page: number): number {
    return Atomics.load(this.words, 2 * this.indexOf(page) + 1)
  }

  isSharer(page: number, rank: number): boolean {
    if (rank < NEAR_RANKS) return (this.signedSharers(page) & (1 << rank)) !== 0
    return this.far.get(page)?.has(rank) === true
  }

  /** How many bytes there are beside the entries, for pages with sharers from rank 32 on. */
  get farBytes(): number {
    return this.far.size * this.farDown.words.byteLength
  }

  ownerOf(page: number): number {
    const control = this.signedControl(page)
    return (control & 0xff) === EntryState.ownedHere ? this.home : ownerIn(control)
  }

  /** A ReadRequest, WriteRequest or UpgradeRequest. */
  onRequest(page: number, kind: number, requester: number): void {
    if (this.isDown(requester)) return
    if (this.queues.has(page) || !this.tryRequest(page, kind, requester)) {
      this.queues.push(page, queued(kind, requester))
    }
  }

  /** WriteBack, Confirm and Discard. */
  onNotice(page: number, event: number, from: number): void {
    this.checkSender(page, event, from)
    const closed = this.close(page)
    try {
      this.run(page, event, from)
    } finally {
      if (closed) this.reopen(page)
    }
    this.pump(page)
  }

  /** The entry is free, or the home lets go of the page: requests that wait may go on. */
  pump(page: number): void {
    if (this.queues.has(page)) this.pumped.add(page)
  }

  /**
   * Serves one request that has waited. Returns false when there is none that can go on. One at a
   * time, because what a request sends to the home itself must arrive there before the next one
   * takes the page away again.
   */
  pumpOne(): boolean {
    const { queues, pumped } = this
    while (pumped.size > 0) {
      const page = pumped.first()
      if (this.tryFirst(page)) {
        queues.shift(page)
        if (!queues.has(page)) pumped.removeFirst()
        return true
      }
      pumped.removeFirst()
    }
    return false
  }

  private tryFirst(page: number): boolean {
    if (!this.queues.has(page)) return false
    const request = this.queues.first(page)
    return this.tryRequest(page, kindOf(request), requesterOf(request))
  }

  hasQueue(page: number): boolean {
    return this.queues.has(page)
  }

  /** The home gives back its own access; the frame stays good. False if it cannot now. */
  discardHere(page: number): boolean {
    const state = this.signedControl(page) & 0xff
    if (this.here.isHeld(page) || this.queues.has(page)) return false
    const owned = state === EntryState.ownedHere
    if (!owned && (state !== EntryState.clean || !this.isSharer(page, this.home))) return false
    if (!this.here.dropHere(page)) return false
    // As long as the home is a sharer nobody makes himself the owner.
    if (owned) this.write(page, word(EntryState.clean, NOBODY, NOBODY) | ENTRY_CLOSED)
    else Atomics.or(this.words, 2 * this.indexOf(page), ENTRY_CLOSED)
    this.removeSharer(page, this.home)
    this.sink.open(this.region, page)
    return true
  }

  /** Takes a member that is down out of every entry; pages that it owned are lost. */
  memberDown(rank: number, pages: Iterable<[number, number]>): void {
    if (rank < NEAR_RANKS) this.down |= 1 << rank
    else this.farDown.add(rank)
    for (const page of this.queues.pages()) {
      const left = this.queues.of(page).filter((request) => requesterOf(request) !== rank)
      this.queues.replace(page, left)
    }
    for (const [first, count] of pages) {
      for (let page = first; page < first + count; page++) this.entryMemberDown(page, rank)
    }
  }

  private entryMemberDown(page: number, rank: number): void {
    const control = this.signedControl(page)
    const state = control & 0xff
    const owner = ownerIn(control)
    const requester = requesterIn(control)
    if (state === EntryState.clean) {
      this.removeSharer(page, rank)
    } else if (state === EntryState.ownedAway) {
      if (owner === rank) this.lose(page, owner, NOBODY)
    } else if ((control & ENTRY_BUSY) !== 0) {
      if (owner === rank) return this.lose(page, owner, requester)
      if (requester !== rank) return
      // A writer that went down has the only copy; a reader's confirmation is no longer needed.
      if (state === EntryState.transferring) return this.lose(page, rank, NOBODY)
      if (state !== EntryState.sharingConfirmed) this.run(page, EntryEvent.confirm, rank)
      this.removeSharer(page, rank)
      this.pump(page)
    }
  }

  private lose(page: number, owner: number, requester: number): void {
    this.write(page, word(EntryState.lost, owner, NOBODY))
    this.clearSharers(page)
    if (requester !== NOBODY && !this.isDown(requester)) {
      this.sink.send(requester, Kind.Lost, this.region, page, owner, 0)
    }
    this.pump(page)
  }

  /** False: the request has to wait. */
  private tryRequest(page: number, kind: number, requester: number): boolean {
    // Who shares the page decides what a request takes, so nobody may be added meanwhile.
    const closed = this.close(page)
    try {
      return this.tryClosed(page, kind, requester)
    } finally {
      if (closed) this.reopen(page)
    }
  }

  private tryClosed(page: number, kind: number, requester: number): boolean {
    const event = this.classify(page, kind, requester)
    if ((this.signedControl(page) & 0xff) === EntryState.ownedAway) {
      const owner = this.ownerOf(page)
      if (owner === requester) throw this.cannotHappen(page, event, requester) // it has it
      if (this.isDown(owner)) {
        this.lose(page, owner, requester) // it made itself the owner when it was down already
        return true
      }
    }
    const cell = compiled[(this.signedControl(page) & 0xff) * EVENT_COUNT + event]
    if (cell === wait) return false
    if (requester !== this.home && this.here.isHeld(page) && this.takesFromHome(page, event)) {
      return false
    }
    this.run(page, event, requester)
    return true
  }

  /** True if the entry was clean and open, and is closed now. */
  private close(page: number): boolean {
    const at = 2 * this.indexOf(page)
    for (;;) {
      const control = Atomics.load(this.words, at)
      if ((control & 0xff) !== EntryState.clean || (control & ENTRY_CLOSED) !== 0) return false
      const before = Atomics.compareExchange(this.words, at, control, control | ENTRY_CLOSED)
      if (before === control) return true // else somebody has made himself the owner
    }
  }

  /** Nothing came of what the entry was closed for, if it is still clean. */
  private reopen(page: number): void {
    const control = this.signedControl(page)
    if ((control & 0xff) !== EntryState.clean) return
    Atomics.store(this.words, 2 * this.indexOf(page), control & ~ENTRY_CLOSED)
  }

  private takesFromHome(page: number, event: number): boolean {
    const state = this.signedControl(page) & 0xff
    if (state === EntryState.ownedHere) return true
    const hasCopy = this.isSharer(page, this.home)
    return state === EntryState.clean && hasCopy && event !== EntryEvent.readRequest
  }

  /** Which event a request is, given who has the page. */
  private classify(page: number, kind: number, requester: number): number {
    if (kind === Kind.ReadRequest) {
      return requester === this.home ? EntryEvent.readRequestHere : EntryEvent.readRequest
    }
    if ((this.signedControl(page) & 0xff) !== EntryState.clean) return EntryEvent.writeRequestAlone
    // An upgrade whose copy was invalidated on the way is a plain write request.
    const upgrade = kind === Kind.UpgradeRequest && this.isSharer(page, requester)
    const shared =
      this.othersThan(page, requester) !== 0 || this.farOthersThan(page, requester) !== undefined
    if (upgrade) return shared ? EntryEvent.upgradeRequestShared : EntryEvent.upgradeRequestAlone
    return shared ? EntryEvent.writeRequestShared : EntryEvent.writeRequestAlone
  }

  /** Sharers that must be told: not the requester, not the home, nobody who is down. */
  private othersThan(page: number, requester: number): number {
    return this.signedSharers(page) & ~nearBit(requester) & ~nearBit(this.home) & ~this.down
  }

  /** The same, of ranks from 32 on; undefined if there are none. */
  private farOthersThan(page: number, requester: number): FarRanks | undefined {
    const others = this.far.get(page)?.copy()
    if (others === undefined) return undefined
    others.removeAll(this.farDown)
    if (requester >= NEAR_RANKS) others.remove(requester)
    if (this.home >= NEAR_RANKS) others.remove(this.home)
    return others.isEmpty() ? undefined : others
  }

  private run(page: number, event: number, from: number): void {
    const control = this.signedControl(page)
    const cell = compiled[(control & 0xff) * EVENT_COUNT + event]
    if (cell === undefined || typeof cell === 'string') {
      throw this.cannotHappen(page, event, from)
    }
    const busy = (control & ENTRY_BUSY) !== 0
    const requester = busy ? requesterIn(control) : from
    const awaited = this.othersThan(page, requester)
    const farAwaited = this.farOthersThan(page, requester)
    const next =
      cell.next === 'owned'
        ? requester === this.home
          ? EntryState.ownedHere
          : EntryState.ownedAway
        : EntryState[cell.next]
    const owner = ownerIn(control)
    const kept = next === EntryState.clean ? NOBODY : owner
    const wasClean = (control & 0xff) === EntryState.clean
    const closed = next === EntryState.clean && (!wasClean || (control & ENTRY_CLOSED) !== 0)
    const mark = closed ? ENTRY_CLOSED : 0
    this.write(page, word(next, kept, BUSY_STATES.has(next) ? requester : NOBODY) | mark)
    const { does } = cell
    for (let at = 0; at < does.length; at++) {
      this.perform(does[at], page, owner, requester, from, awaited, farAwaited)
    }
    if (next === EntryState.clean && !wasClean) this.sink.open(this.region, page)
  }

  private perform(
    action: EntryAction,
    page: number,
    owner: number,
    requester: number,
    from: number,
    awaited: number,
    farAwaited: FarRanks | undefined,
  ): void {
    const { sink, region } = this
    const more = farAwaited === undefined ? 0 : 2
    switch (action) {
      case 'lowerHere':
        this.here.lowerHere(page)
        this.clearSharers(page)
        return this.addSharer(page, this.home)
      case 'forbidHere':
        if (requester !== this.home) this.here.forbidHere(page)
        return
      case 'addSharer':
        return this.addSharer(page, requester)
      case 'removeSharer':
        return this.removeSharer(page, from)
      case 'sendData':
        return sink.sendPage(requester, Kind.Data, region, page, 0, 0)
      case 'sendExclusive':
        this.announce(page, requester, farAwaited)
        return sink.sendPage(requester, Kind.DataExclusive, region, page, awaited, more)
      case 'sendGrant':
        this.announce(page, requester, farAwaited)
        return sink.send(requester, Kind.Grant, region, page, awaited, more)
      case 'recallCopy':
        return sink.send(owner, Kind.RecallRead, region, page, requester, 0)
      case 'recallOwnership':
        return sink.send(owner, Kind.RecallWrite, region, page, requester, 0)
      case 'invalidateSharers':
        // Bit by bit: a shift by 32 is one by 0, so counting up to rank 32 would not end.
        for (let left = awaited; left !== 0; left &= left - 1) {
          sink.send(31 - Math.clz32(left & -left), Kind.Invalidate, region, page, requester, 0)
        }
        if (farAwaited === undefined) return
        for (const rank of farAwaited.ranks()) {
          sink.send(rank, Kind.Invalidate, region, page, requester, 0)
        }
        return
      case 'settleShared':
        this.clearSharers(page)
        this.addSharer(page, owner)
        return this.addSharer(page, requester)
      case 'settleOwner': {
        this.clearSharers(page)
        const state = requester === this.home ? EntryState.ownedHere : EntryState.ownedAway
        return this.write(page, word(state, requester, NOBODY))
      }
      case 'tellLost':
        return sink.send(requester, Kind.Lost, region, page, owner, 0)
    }
  }

  /** WriteBack must come from the owner and Confirm from the requester. */
  private checkSender(page: number, event: number, from: number): void {
    const control = this.signedControl(page)
    if ((control & ENTRY_BUSY) === 0) return
    const owner = ownerIn(control)
    const requester = requesterIn(control)
    const wrong =
      (event === EntryEvent.writeBack && from !== owner) ||
      (event === EntryEvent.confirm && from !== requester)
    if (wrong) throw this.cannotHappen(page, event, from)
  }

  /** Tells a writer, before its grant, of acknowledgements that the grant has no room for. */
  private announce(page: number, writer: number, far: FarRanks | undefined): void {
    if (far === undefined) return
    for (const [index, bits] of far.words.entries()) {
      if (bits !== 0) this.sink.send(writer, Kind.AwaitAlso, this.region, page, index + 1, bits)
    }
  }

  private isDown(rank: number): boolean {
    return rank < NEAR_RANKS ? (this.down & (1 << rank)) !== 0 : this.farDown.has(rank)
  }

  private write(page: number, control: number): void {
    const mark = this.far.has(page) ? ENTRY_FAR : 0
    Atomics.store(this.words, 2 * this.indexOf(page), control | mark)
  }

  private sharersIndex(page: number): number {
    return 2 * this.indexOf(page) + 1
  }

  private addSharer(page: number, rank: number): void {
    if (this.isDown(rank)) return
    if (rank < NEAR_RANKS) {
      Atomics.or(this.words, this.sharersIndex(page), nearBit(rank))
      return
    }
    const far = this.far.get(page) ?? new FarRanks(this.farDown.words.length)
    far.add(rank)
    this.far.set(page, far)
    this.write(page, this.signedControl(page))
  }

  private removeSharer(page: number, rank: number): void {
    if (rank < NEAR_RANKS) {
      Atomics.and(this.words, this.sharersIndex(page), ~nearBit(rank))
      return
    }
    const far = this.far.get(page)
    far?.remove(rank)
    if (far?.isEmpty() === true) this.clearFar(page)
  }

  /** Of an entry that is not clean, or closed. */
  private clearSharers(page: number): void {
    Atomics.store(this.words, this.sharersIndex(page), 0)
    if (this.far.has(page)) this.clearFar(page)
  }

  private clearFar(page: number): void {
    this.far.delete(page)
    this.write(page, this.signedControl(page) & ~ENTRY_FAR)
  }

  private cannotHappen(page: number, event: number, from: number): PagemeshError {
    const state = entryStateName(this.signedControl(page)) ?? 'unknown'
    return new PagemeshError(
      'ERR_PAGEMESH_PROTOCOL',
      `the directory entry of page ${page} of region ${this.region} is in state '${state}', ` +
        `where '${ENTRY_EVENTS[event] ?? event}' from rank ${from} cannot happen`,
      { rank: from },
    )
  }
}
