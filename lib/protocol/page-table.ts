import { PagemeshError } from '../errors.js'
import { FarRanks, farWordCount, NEAR_RANKS } from './far-ranks.js'
import { Kind, MAX_MEMBERS, NOBODY } from './messages.js'
import { PageWords } from './page-words.js'
import type { CoherenceSink } from './sink.js'

/**
 * The member side: what this member may do with each page. One byte a page, shared with native
 * code, which knows the bits of a state (native/memory/page_state.h) but not the table. A faulting
 * thread may take a byte from a settled state to the matching requested one by itself, so every
 * change here is a compare-and-swap.
 */
export const PageState = {
  none: 0x00,
  read: 0x01,
  write: 0x03,
  /** A read request is out. The frame accepts a peer's bytes. */
  reading: 0x84,
  /** A write request is out, and there is no copy here. The frame accepts a peer's bytes. */
  writing: 0x8c,
  /** A write request is out, and the copy here is still good to read. */
  upgrading: 0x0d,
  /** The page is here for writing, but not every other copy is confirmed gone. */
  collecting: 0x1c,
  /** The same, with a copy that is still good to read. */
  upgradeCollecting: 0x1d,
  /** The copy has been given up, and the home is being told. */
  discarding: 0x04,
  /**
   * A faulting thread takes a copy from the home's frame by itself (directory.ts says how), and
   * will take the page on to `read`. Nothing was asked of the home.
   */
  filling: 0x14,
  /** The same, but that copy must not be used: the thread will go back to `none` and fault anew. */
  fillingInVain: 0x0c,
  /**
   * The copy is there, and the thread makes this member the owner by itself, if nobody else has
   * one. It will take the page on to `write`, or to `read` if it came too late.
   */
  claiming: 0x06,
  /** The same, and the thread will tell the engine when it has. */
  claimingHeard: 0x0e,
} as const
export type PageStateName = keyof typeof PageState

/** Set in a state's byte while the page is pinned: steps that lower it wait. */
export const PAGE_HELD = 0x20
/**
 * Set in a requested state's byte when the thread that faulted sent the request itself and looks
 * for the answer itself: it may carry out `data` from the home, and `grant`, without the engine.
 * Every step of the engine on the page takes that right away.
 */
export const PAGE_DIRECT = 0x40
const MARKS = PAGE_HELD | PAGE_DIRECT
const READABLE = 0x01
const WRITABLE = 0x02
export const PAGE_PENDING = 0x04
/** The grant has come, and acknowledgements are missing. */
const COLLECTING = 0x10

export const PAGE_EVENTS = [
  'readFault', // a touch, or a prefetch
  'writeFault',
  'data', // a copy from the home
  'dataToConfirm', // a copy from the owner: the home waits to hear of it
  'grant', // exclusive access, from the home, and nobody else had a copy
  'grantToConfirm', // exclusive access, and the home waits to hear of it
  'grantPending', // exclusive access once more acknowledgements are in
  'ack', // an acknowledgement, and more are to come
  'lastAck', // the acknowledgement that was still missing
  'invalidate', // the home takes the copy away for a writer
  'recallRead', // the home wants a copy sent on, and one for itself
  'recallWrite', // the home wants the page handed on
  'discard', // this member gives its copy back
  'discardSent', // the notice of that is on its way
  'lost', // the page's home or owner is down
  'lowerHere', // the directory, here, has given somebody a copy
  'forbidHere', // the directory, here, gives the page to a writer
  'dropHere', // this member, the home, gives its own access back
] as const
export type PageEventName = (typeof PAGE_EVENTS)[number]

export type PageAction =
  | 'requestRead'
  | 'requestWrite'
  | 'requestUpgrade'
  | 'allowRead'
  | 'allowWrite'
  | 'forbid'
  | 'forbidInvalidated'
  | 'forbidWrite'
  | 'acknowledge'
  | 'sendCopy'
  | 'sendOwnership'
  | 'writeBack'
  | 'confirm'
  | 'tellDiscard'
  | 'wake'
  | 'fail'

export interface PageStep {
  readonly next: PageStateName
  readonly does: readonly PageAction[]
}

const to = (next: PageStateName, ...does: PageAction[]): PageStep => ({ next, does })
/** A pair that cannot happen: meeting it is a protocol error. */
const impossible = 'impossible'

/** A thread takes a copy by itself: nothing was asked of the home, so it has nothing to answer. */
const whileFilling = {
  // The engine would not hear of what the thread does by itself, but of a new fault it will.
  readFault: to('fillingInVain'),
  writeFault: to('fillingInVain'),
  data: impossible,
  dataToConfirm: impossible,
  grant: impossible,
  grantToConfirm: impossible,
  grantPending: impossible,
  ack: impossible,
  lastAck: impossible,
  invalidate: to('fillingInVain', 'acknowledge'),
  recallRead: impossible,
  recallWrite: impossible,
  discardSent: impossible,
  lost: to('fillingInVain'),
  lowerHere: impossible,
  forbidHere: impossible,
  dropHere: impossible,
} as const

/**
 * The member may own the page by now, so its home may recall it. The thread writes into the frame
 * no more, so that the engine can hand the page on.
 */
const whileClaiming = {
  ...whileFilling,
  readFault: to('claimingHeard'),
  writeFault: to('claimingHeard'),
  recallRead: to('fillingInVain', 'sendCopy', 'writeBack'),
  recallWrite: to('fillingInVain', 'sendOwnership'),
} as const

/**
 * The whole member side. A copy may have been discarded while the home's invalidation was on its
 * way: that is why states without a copy answer `invalidate`, and stay what they are.
 */
export const PAGE_TABLE: Readonly<
  Record<PageStateName, Readonly<Record<PageEventName, PageStep | typeof impossible>>>
> = {
  none: {
    readFault: to('reading', 'requestRead'),
    writeFault: to('writing', 'requestWrite'),
    data: impossible,
    dataToConfirm: impossible,
    grant: impossible,
    grantToConfirm: impossible,
    grantPending: impossible,
    ack: impossible,
    lastAck: impossible,
    invalidate: to('none', 'acknowledge'),
    recallRead: impossible,
    recallWrite: impossible,
    discard: to('none'),
    discardSent: impossible,
    lost: to('none', 'fail'),
    lowerHere: impossible,
    forbidHere: to('none'),
    dropHere: impossible,
  },
  read: {
    readFault: to('read', 'wake'),
    writeFault: to('upgrading', 'requestUpgrade'),
    data: impossible,
    dataToConfirm: impossible,
    grant: impossible,
    grantToConfirm: impossible,
    grantPending: impossible,
    ack: impossible,
    lastAck: impossible,
    invalidate: to('none', 'forbidInvalidated', 'acknowledge'),
    recallRead: impossible,
    recallWrite: impossible,
    discard: to('discarding', 'forbid', 'tellDiscard'),
    discardSent: impossible,
    lost: to('none', 'forbid'),
    lowerHere: impossible,
    forbidHere: to('none', 'forbidInvalidated'),
    dropHere: to('none', 'forbid'),
  },
  write: {
    readFault: to('write', 'wake'),
    writeFault: to('write', 'wake'),
    data: impossible,
    dataToConfirm: impossible,
    grant: impossible,
    grantToConfirm: impossible,
    grantPending: impossible,
    ack: impossible,
    lastAck: impossible,
    invalidate: impossible,
    recallRead: to('read', 'forbidWrite', 'sendCopy', 'writeBack'),
    recallWrite: to('none', 'forbidInvalidated', 'sendOwnership'),
    discard: to('write'),
    discardSent: impossible,
    lost: to('none', 'forbid'),
    lowerHere: to('read', 'forbidWrite'),
    forbidHere: to('none', 'forbidInvalidated'),
    dropHere: to('none', 'forbid'),
  },
  reading: {
    readFault: to('reading'),
    writeFault: to('reading'),
    data: to('read', 'allowRead'),
    dataToConfirm: to('read', 'allowRead', 'confirm'),
    grant: impossible,
    grantToConfirm: impossible,
    grantPending: impossible,
    ack: impossible,
    lastAck: impossible,
    invalidate: to('reading', 'acknowledge'),
    recallRead: impossible,
    recallWrite: impossible,
    discard: to('reading'),
    discardSent: impossible,
    lost: to('none', 'fail'),
    lowerHere: impossible,
    forbidHere: to('reading'),
    dropHere: impossible,
  },
  writing: {
    readFault: to('writing'),
    writeFault: to('writing'),
    data: impossible,
    dataToConfirm: impossible,
    grant: to('write', 'allowWrite'),
    grantToConfirm: to('write', 'allowWrite', 'confirm'),
    grantPending: to('collecting'),
    ack: to('writing'),
    lastAck: impossible,
    invalidate: to('writing', 'acknowledge'),
    recallRead: impossible,
    recallWrite: impossible,
    discard: to('writing'),
    discardSent: impossible,
    lost: to('none', 'fail'),
    lowerHere: impossible,
    forbidHere: to('writing'),
    dropHere: impossible,
  },
  upgrading: {
    readFault: to('upgrading', 'wake'),
    writeFault: to('upgrading'),
    data: impossible,
    dataToConfirm: impossible,
    grant: to('write', 'allowWrite'),
    grantToConfirm: to('write', 'allowWrite', 'confirm'),
    grantPending: to('upgradeCollecting'),
    ack: to('upgrading'),
    lastAck: impossible,
    invalidate: to('writing', 'forbidInvalidated', 'acknowledge'),
    recallRead: impossible,
    recallWrite: impossible,
    discard: to('upgrading'),
    discardSent: impossible,
    lost: to('none', 'forbid', 'fail'),
    lowerHere: impossible,
    forbidHere: to('writing', 'forbidInvalidated'),
    dropHere: impossible,
  },
  collecting: {
    readFault: to('collecting'),
    writeFault: to('collecting'),
    data: impossible,
    dataToConfirm: impossible,
    grant: impossible,
    grantToConfirm: impossible,
    grantPending: impossible,
    ack: to('collecting'),
    lastAck: to('write', 'allowWrite', 'confirm'),
    invalidate: impossible,
    recallRead: impossible,
    recallWrite: impossible,
    discard: to('collecting'),
    discardSent: impossible,
    lost: to('none', 'fail'),
    lowerHere: impossible,
    forbidHere: impossible,
    dropHere: impossible,
  },
  upgradeCollecting: {
    readFault: to('upgradeCollecting', 'wake'),
    writeFault: to('upgradeCollecting'),
    data: impossible,
    dataToConfirm: impossible,
    grant: impossible,
    grantToConfirm: impossible,
    grantPending: impossible,
    ack: to('upgradeCollecting'),
    lastAck: to('write', 'allowWrite', 'confirm'),
    invalidate: impossible,
    recallRead: impossible,
    recallWrite: impossible,
    discard: to('upgradeCollecting'),
    discardSent: impossible,
    lost: to('none', 'forbid', 'fail'),
    lowerHere: impossible,
    forbidHere: impossible,
    dropHere: impossible,
  },
  filling: {
    ...whileFilling,
    discard: to('filling'),
  },
  fillingInVain: {
    ...whileFilling,
    discard: to('fillingInVain'),
  },
  claiming: {
    ...whileClaiming,
    discard: to('claiming'),
  },
  claimingHeard: {
    ...whileClaiming,
    discard: to('claimingHeard'),
  },
  discarding: {
    readFault: to('discarding'),
    writeFault: to('discarding'),
    data: impossible,
    dataToConfirm: impossible,
    grant: impossible,
    grantToConfirm: impossible,
    grantPending: impossible,
    ack: impossible,
    lastAck: impossible,
    invalidate: to('discarding', 'acknowledge'),
    recallRead: impossible,
    recallWrite: impossible,
    discard: to('discarding'),
    discardSent: to('none', 'wake'),
    lost: to('none', 'fail'),
    lowerHere: impossible,
    forbidHere: impossible,
    dropHere: impossible,
  },
}

/** PAGE_EVENTS by number: PageEvent.readFault is 0 and so on. */
export const PageEvent = Object.fromEntries(
  PAGE_EVENTS.map((name, index) => [name, index]),
) as Readonly<Record<PageEventName, number>>

const STATE_NAMES = Object.keys(PageState) as PageStateName[]

// The table by numbers, for the path that every fault takes: [state byte * events + event].
const EVENT_COUNT = PAGE_EVENTS.length
interface CompiledStep {
  readonly nextByte: number
  readonly does: readonly PageAction[]
}
const compiled: (CompiledStep | undefined)[] = []
for (const state of STATE_NAMES) {
  for (const event of PAGE_EVENTS) {
    const step = PAGE_TABLE[state][event]
    compiled[PageState[state] * EVENT_COUNT + PageEvent[event]] =
      step === impossible ? undefined : { nextByte: PageState[step.next], does: step.does }
  }
}

export function stateName(byte: number): PageStateName | undefined {
  return STATE_NAMES.find((name) => PageState[name] === (byte & ~MARKS))
}

export function permits(byte: number, access: 'read' | 'write'): boolean {
  const bits = access === 'write' ? READABLE | WRITABLE : READABLE
  return (byte & bits) === bits
}

const lowers = (event: number): boolean =>
  event === PageEvent.invalidate ||
  event === PageEvent.recallRead ||
  event === PageEvent.recallWrite

/** How lowering continues once nothing holds the page any more: one word, which is never 0. */
export const DeferredStep = {
  of: (event: number, from: number, requester: number): number =>
    (event + 1) | (from << 5) | ((requester === NOBODY ? 0x7ff : requester) << 15),
  event: (step: number): number => (step & 0x1f) - 1,
  from: (step: number): number => (step >>> 5) & 0x3ff,
  requester: (step: number): number => {
    const requester = step >>> 15
    return requester === 0x7ff ? NOBODY : requester
  },
} as const

/** As `awaited` and `early`, for ranks from 32 on; gone when none is missing after a grant. */
interface FarAcks {
  /** Told by AwaitAlso, before the grant. */
  readonly awaited: FarRanks
  readonly early: FarRanks
}

/** The pages of one region at one member. Pure: it changes the bytes and calls the sink. */
export class PageTable {
  /** Bitmaps of whose acknowledgements are still to come, after the grant. */
  private readonly awaited = new PageWords()
  /** And of whose came early, before it. */
  private readonly early = new PageWords()
  private readonly deferred = new PageWords()
  private readonly holds = new PageWords()
  /** Bitmap of members that are down: their acknowledgements will never come, nor are needed. */
  private down = 0
  private readonly farAcks = new Map<number, FarAcks>()
  private readonly farDown: FarRanks

  constructor(
    private readonly region: number,
    private readonly pageBytes: Uint8Array,
    private readonly rank: number,
    private readonly homeOf: (page: number) => number,
    private readonly sink: CoherenceSink,
    size = MAX_MEMBERS,
  ) {
    this.farDown = new FarRanks(farWordCount(size))
  }

  byte(page: number): number {
    return Atomics.load(this.pageBytes, page)
  }

  /**
   * Runs one row of the table.
   * @param from the member that caused it, for messages; this member for faults
   * @param requester whom copies and acknowledgements go to
   */
  step(page: number, event: number, from: number, requester: number): void {
    for (;;) {
      const byte = Atomics.load(this.pageBytes, page)
      const held = byte & PAGE_HELD
      if (held !== 0 && lowers(event) && (byte & READABLE) !== 0) {
        this.deferred.set(page, DeferredStep.of(event, from, requester))
        return
      }
      const step = compiled[(byte & ~MARKS) * EVENT_COUNT + event]
      if (step === undefined) throw this.cannotHappen(page, event, from)
      const next = step.nextByte | held
      if (next !== byte && Atomics.compareExchange(this.pageBytes, page, byte, next) !== byte) {
        continue // a faulting thread was quicker: look again
      }
      const { does } = step
      for (let at = 0; at < does.length; at++) this.perform(does[at], page, requester)
      return
    }
  }

  /** A grant is about to come, and more acknowledgements belong to it than it has room for. */
  onAwaitAlso(page: number, from: number, word: number, awaited: number): void {
    const state = this.byte(page) & ~MARKS
    const known = word >= 1 && word <= this.farDown.words.length
    if (!known || (state !== PageState.writing && state !== PageState.upgrading)) {
      throw this.refused(page, `'AwaitAlso ${word}'`, from)
    }
    this.farAcksOf(page).awaited.words[word - 1] = awaited
  }

  /**
   * A grant of exclusive access came; `awaited` is the bitmap of acknowledgements to come. `more`
   * says that they are not all that is awaited, or that the page comes from an owner: either way
   * the home waits to hear of it.
   */
  onGrant(page: number, from: number, awaited: number, more: boolean): void {
    const missing = awaited & ~this.early.get(page) & ~this.down
    const missesFar = this.missesFar(page)
    if (missing === 0 && !missesFar) {
      this.early.delete(page)
      const confirm = more || awaited !== 0
      this.step(page, confirm ? PageEvent.grantToConfirm : PageEvent.grant, from, NOBODY)
      return
    }
    this.step(page, PageEvent.grantPending, from, NOBODY)
    this.awaited.set(page, missing)
    this.early.delete(page)
  }

  onAck(page: number, from: number): void {
    if (from >= NEAR_RANKS) return this.onFarAck(page, from)
    const bit = 1 << from
    if (this.awaited.has(page)) return this.acknowledge(page, from, bit)
    this.step(page, PageEvent.ack, from, NOBODY)
    this.early.set(page, this.early.get(page) | bit)
  }

  private acknowledge(page: number, from: number, bit: number): void {
    this.awaited.set(page, this.awaited.get(page) & ~bit)
    this.settleAck(page, from)
  }

  private settleAck(page: number, from: number): void {
    const missing = this.awaited.has(page) || this.farAcks.has(page)
    if (missing) return this.step(page, PageEvent.ack, from, NOBODY)
    this.early.delete(page)
    this.step(page, PageEvent.lastAck, from, NOBODY)
  }

  private onFarAck(page: number, from: number): void {
    if ((this.byte(page) & COLLECTING) !== 0) return this.acknowledgeFar(page, from)
    this.step(page, PageEvent.ack, from, NOBODY)
    this.farAcksOf(page).early.add(from)
  }

  private acknowledgeFar(page: number, from: number): void {
    const awaited = this.farAcks.get(page)?.awaited
    awaited?.remove(from)
    if (awaited?.isEmpty() === true) this.farAcks.delete(page)
    this.settleAck(page, from)
  }

  /** The grant has come: whether it goes on waiting for a rank from 32 on. */
  private missesFar(page: number): boolean {
    const far = this.farAcks.get(page)
    if (far === undefined) return false
    far.awaited.removeAll(far.early)
    far.awaited.removeAll(this.farDown)
    if (!far.awaited.isEmpty()) return true
    this.farAcks.delete(page)
    return false
  }

  private farAcksOf(page: number): FarAcks {
    const words = this.farDown.words.length
    const far = this.farAcks.get(page) ?? {
      awaited: new FarRanks(words),
      early: new FarRanks(words),
    }
    this.farAcks.set(page, far)
    return far
  }

  private forgetAcks(page: number): void {
    this.awaited.delete(page)
    this.early.delete(page)
    this.farAcks.delete(page)
  }

  /** Keeps the page from being lowered until `release`; the page's state must permit the use. */
  hold(page: number): void {
    this.holds.set(page, this.holds.get(page) + 1)
    Atomics.or(this.pageBytes, page, PAGE_HELD)
  }

  /** Returns true when nothing holds the page any more. */
  release(page: number): boolean {
    const count = this.holds.get(page) - 1
    if (count > 0) {
      this.holds.set(page, count)
      return false
    }
    this.holds.delete(page)
    Atomics.and(this.pageBytes, page, ~PAGE_HELD & 0xff)
    const deferred = this.deferred.get(page)
    this.deferred.delete(page)
    if (deferred !== 0) {
      const { event, from, requester } = DeferredStep
      this.step(page, event(deferred), from(deferred), requester(deferred))
    }
    return true
  }

  /** A step that lowers the page waits for its release. */
  isDeferred(page: number): boolean {
    return this.deferred.has(page)
  }

  isHeld(page: number): boolean {
    return (this.byte(page) & PAGE_HELD) !== 0
  }

  /** A member is down: requests to it are lost, and its acknowledgements no longer awaited. */
  memberDown(rank: number): void {
    if (rank < NEAR_RANKS) this.down |= 1 << rank
    else this.farDown.add(rank)
    for (const page of this.deferred.keys()) {
      // Given up with its home: handing it on now would hand it to nobody.
      if (this.homeOf(page) === rank) this.deferred.delete(page)
    }
    for (let page = 0; page < this.pageBytes.length; page++) {
      if ((this.byte(page) & PAGE_PENDING) === 0) continue
      if (this.homeOf(page) === rank) {
        this.forgetAcks(page)
        this.step(page, PageEvent.lost, rank, NOBODY)
        continue
      }
      if (rank >= NEAR_RANKS) {
        const collects = (this.byte(page) & COLLECTING) !== 0
        const awaits = this.farAcks.get(page)?.awaited.has(rank) === true
        if (collects && awaits) this.acknowledgeFar(page, rank)
        continue
      }
      const bit = 1 << rank
      if ((this.awaited.get(page) & bit) !== 0) this.acknowledge(page, rank, bit)
    }
  }

  isDown(rank: number): boolean {
    return rank < NEAR_RANKS ? (this.down & (1 << rank)) !== 0 : this.farDown.has(rank)
  }

  /** The home says that the page is lost. */
  onLost(page: number, from: number, owner: number): void {
    this.forgetAcks(page)
    this.step(page, PageEvent.lost, from, owner)
  }

  private perform(action: PageAction, page: number, requester: number): void {
    const { sink, region } = this
    const home = this.homeOf(page)
    switch (action) {
      case 'requestRead':
        return sink.send(home, Kind.ReadRequest, region, page, 0, 0)
      case 'requestWrite':
        return sink.send(home, Kind.WriteRequest, region, page, 0, 0)
      case 'requestUpgrade':
        return sink.send(home, Kind.UpgradeRequest, region, page, 0, 0)
      case 'allowRead':
        sink.protect(region, page, 'read', false)
        return sink.granted(region, page)
      case 'allowWrite':
        sink.protect(region, page, 'write', false)
        return sink.granted(region, page)
      case 'forbid':
        return sink.protect(region, page, 'none', false)
      case 'forbidInvalidated':
        return sink.protect(region, page, 'none', true)
      case 'forbidWrite':
        return sink.protect(region, page, 'read', false)
      case 'acknowledge':
        if (requester !== NOBODY) sink.send(requester, Kind.InvalidateAck, region, page, 0, 0)
        return
      case 'sendCopy':
        return sink.sendPage(requester, Kind.Data, region, page, 0, 1)
      case 'sendOwnership':
        return sink.sendPage(requester, Kind.DataExclusive, region, page, 0, 1)
      case 'writeBack':
        // A copy sent to the home itself has brought the page back already.
        if (requester !== home) sink.sendPage(home, Kind.WriteBack, region, page, 0, 0)
        return
      case 'confirm':
        return sink.send(home, Kind.Confirm, region, page, 0, 0)
      case 'tellDiscard':
        return sink.send(home, Kind.Discard, region, page, 0, 0)
      case 'wake':
        return sink.wake(region, page)
      case 'fail':
        return sink.lost(region, page, home, requester === NOBODY ? home : requester)
    }
  }

  private cannotHappen(page: number, event: number, from: number): PagemeshError {
    return this.refused(page, `'${PAGE_EVENTS[event] ?? `event ${event}`}'`, from)
  }

  private refused(page: number, what: string, from: number): PagemeshError {
    const state = stateName(this.byte(page)) ?? `state ${this.byte(page)}`
    return new PagemeshError(
      'ERR_PAGEMESH_PROTOCOL',
      `page ${page} of region ${this.region} at rank ${this.rank} is in state '${state}', ` +
        `where ${what} from rank ${from} cannot happen`,
      { rank: from },
    )
  }
}
