import { PagemeshError } from '../errors.js'
import { RegionPart, regionBuffer } from '../native/addon.js'
import { RegionCoherence } from '../protocol/coherence.js'
import { PAGE_PENDING, PageState } from '../protocol/page-table.js'
import { HomeMap } from '../protocol/placement.js'
import type { CoherenceSink } from '../protocol/sink.js'
import type { RegionInfo } from './commands.js'
import type { EngineContext } from './context.js'
import { HomeAtomic, type WordOperation } from './range-operations.js'
import type { WordHost } from './word-operations.js'

/** Exit code of a process that had a thread waiting for a page that is gone: EX_IOERR. */
const LOST_PAGE_EXIT_CODE = 74

/**
 * How long a page that was granted to a waiting thread is kept from being taken away again before
 * the thread has touched it. Without this, members that contend for a page can take it from each
 * other for ever, with no thread getting a turn. Bounded, because an engine never depends on an
 * application thread: one that is not scheduled for so long asks again.
 */
const RESUME_HOLD_MS = 4

/** Room for so many pages that threads were woken for, at first: few threads fault at a time. */
const SMALLEST_RESUMING = 16

/** A time until something that does not happen. */
export const NEVER_MS = 0x7fffffff

/** Something that waits for pages: told of each page that it asked for. */
export interface PageWaiter {
  pageGranted(page: number): void
  pageLost(page: number, error: PagemeshError): void
}

/** One region in the engine: performs what its protocol asks for, and lets operations wait. */
export class EngineRegion implements CoherenceSink, WordHost {
  readonly homes: HomeMap
  readonly coherence: RegionCoherence
  private readonly waiters = new Map<number, PageWaiter[]>()
  /** The first `resumingCount`: pages held until a thread that was woken for them touches them. */
  private resumingPages = new Int32Array(SMALLEST_RESUMING)
  /** Until when, of each. */
  private resumingUntilMs = new Float64Array(SMALLEST_RESUMING)
  private resumingCount = 0
  /** Granted or lost while a step ran; told to the waiters after it. */
  private grantedPages: number[] = []
  private lostPages: { page: number; error: PagemeshError }[] = []

  /** The region must be mapped natively. */
  constructor(
    private readonly context: EngineContext,
    readonly info: RegionInfo,
  ) {
    const { session, rank, size } = context
    this.homes = new HomeMap(info.placement, info.pageCount, size)
    this.coherence = new RegionCoherence({
      region: info.id,
      rank,
      homes: this.homes,
      states: new Uint8Array(regionBuffer(session, info.id, RegionPart.states)),
      directory: new Uint32Array(regionBuffer(session, info.id, RegionPart.directory)),
      sink: this,
    })
    // Pages homed here begin as this member's own. Where they alternate with others' they stay
    // lowered (parked) until they are touched: raising each would cost two mappings a page.
    if (info.placement === 'cyclic' && size > 1) return
    for (const [first, count] of this.homes.runsOf(rank)) {
      context.ring.protect(info.id, first, count, 'write', false, false)
    }
  }

  /** A record about pages. */
  onMessage(kind: number, page: number, from: number, a: number, b: number): void {
    this.coherence.onMessage(kind, page, from, a, b)
    this.settle()
  }

  /** A thread touched a page, and the engine has to ask for it. */
  onFault(page: number, access: 'read' | 'write', unsentState: number): void {
    const home = this.homes.homeOf(page)
    if (unsentState !== 0) {
      if (this.context.isUp(home)) this.coherence.requestUnsent(page, unsentState, this)
      else this.coherence.homeIsDown(page, home)
    } else {
      this.touch(page, access)
    }
    this.settle()
  }

  memberDown(rank: number): void {
    this.coherence.memberDown(rank)
    this.settle()
  }

  discard(firstPage: number, pageCount: number): void {
    const end = firstPage + pageCount
    for (let page = firstPage; page < end; page++) this.coherence.discard(page)
    this.context.ring.flush()
    for (let page = firstPage; page < end; page++) this.coherence.discardSent(page)
  }

  release(page: number): void {
    this.coherence.release(page)
    this.settle()
  }

  /** Asks for a page; the waiter hears of it, now or later. */
  request(page: number, access: 'read' | 'write', waiter: PageWaiter): void {
    const waiting = this.waiters.get(page)
    if (waiting === undefined) this.waiters.set(page, [waiter])
    else waiting.push(waiter)
    this.touch(page, access)
  }

  takesRequest(): boolean {
    return true
  }

  perform(
    word: WordOperation,
    done: (before: bigint, error: PagemeshError | undefined) => void,
  ): void {
    new HomeAtomic(this.context, this, word, done).start()
  }

  private touch(page: number, access: 'read' | 'write'): void {
    const home = this.homes.homeOf(page)
    if (this.context.isUp(home)) this.coherence.touch(page, access)
    else if (this.coherence.permits(page, access)) this.wake(this.info.id, page)
    else this.lost(this.info.id, page, home, home)
  }

  /** Tells the waiters what the last steps brought. They may ask for more. */
  settle(): void {
    while (this.grantedPages.length > 0 || this.lostPages.length > 0) {
      const granted = this.grantedPages
      const lost = this.lostPages
      this.grantedPages = []
      this.lostPages = []
      for (const page of granted) {
        for (const waiter of this.takeWaiters(page)) waiter.pageGranted(page)
      }
      for (const { page, error } of lost) {
        for (const waiter of this.takeWaiters(page)) waiter.pageLost(page, error)
      }
    }
  }

  private takeWaiters(page: number): PageWaiter[] {
    const waiting = this.waiters.get(page) ?? []
    this.waiters.delete(page)
    return waiting
  }

  send(to: number, kind: number, region: number, page: number, a: number, b: number): void {
    this.context.ring.sendTwo(to, kind, region, page, a, b)
  }

  sendPage(to: number, kind: number, region: number, page: number, a: number, b: number): void {
    this.context.ring.sendPage(to, kind, region, page, this.info.pageBytes, a, b)
  }

  protect(
    region: number,
    page: number,
    access: 'none' | 'read' | 'write',
    invalidated: boolean,
  ): void {
    this.context.ring.protect(region, page, 1, access, access !== 'none', invalidated)
  }

  private holdForThreads(page: number): void {
    const { addon, session, nowMs } = this.context
    if (this.holdsForThreads(page)) return
    if (addon.countWaiters(session, this.info.id, page, 1) === 0) return
    this.coherence.hold(page)
    if (this.resumingCount === this.resumingPages.length) {
      this.makeRoomToResume()
    }
    this.resumingPages[this.resumingCount] = page
    this.resumingUntilMs[this.resumingCount++] = nowMs + RESUME_HOLD_MS
    this.context.watchResuming(this)
  }

  private makeRoomToResume(): void {
    const pages = new Int32Array(2 * this.resumingPages.length)
    const untilMs = new Float64Array(pages.length)
    pages.set(this.resumingPages)
    untilMs.set(this.resumingUntilMs)
    this.resumingPages = pages
    this.resumingUntilMs = untilMs
  }

  private holdsForThreads(page: number): boolean {
    for (let at = 0; at < this.resumingCount; at++) if (this.resumingPages[at] === page) return true
    return false
  }

  isResuming(): boolean {
    return this.resumingCount > 0
  }

  /**
   * Lets go of pages whose threads have touched them. Returns in how many milliseconds that must be
   * looked at again: NEVER_MS if nobody waits for one of these pages.
   */
  releaseResumed(): number {
    const { addon, session, nowMs } = this.context
    let againInMs: number = NEVER_MS
    for (let at = 0; at < this.resumingCount;) {
      const page = this.resumingPages[at]
      const leftMs = this.resumingUntilMs[at] - nowMs
      // A thread that reads and then writes waits again at once: that it asks for more is as good a
      // sign that it has had its turn. Otherwise whoever contends with it would wait until the end.
      const upgrades = (this.coherence.pages.byte(page) & PAGE_PENDING) !== 0
      const resumed = upgrades || addon.countWaiters(session, this.info.id, page, 1) === 0
      if (resumed || leftMs <= 0) {
        const last = --this.resumingCount
        this.resumingPages[at] = this.resumingPages[last]
        this.resumingUntilMs[at] = this.resumingUntilMs[last]
        this.release(page)
        continue
      }
      if (this.coherence.isWanted(page)) againInMs = Math.min(againInMs, leftMs)
      at++
    }
    return againInMs
  }

  open(region: number, page: number): void {
    this.context.ring.open(region, page)
  }

  wake(region: number, page: number): void {
    this.context.ring.wake(region, page, 1)
    if (this.waiters.size > 0) this.grantedPages.push(page)
  }

  granted(_region: number, page: number): void {
    this.holdForThreads(page)
    if (this.waiters.size > 0) this.grantedPages.push(page)
  }

  lost(_region: number, page: number, home: number, owner: number): void {
    const { context, info } = this
    const error = this.lostError(page, home, owner)
    this.lostPages.push({ page, error })
    // Once this member is leaving, whatever still touches the region may wait for the end of that.
    if (context.isLeaving()) return
    if (context.addon.countWaiters(context.session, info.id, page, 1) === 0) return
    context.ring.flush()
    context.addon.die(
      `pagemesh: rank ${context.rank}: ${error.message}. A thread waits for it in a fault and ` +
        'can never go on, so this process ends.',
      LOST_PAGE_EXIT_CODE,
    )
  }

  private lostError(page: number, home: number, owner: number): PagemeshError {
    const { info } = this
    const first = page * info.pageBytes
    const why =
      home === owner
        ? `its home, rank ${home}, is down (${this.context.whyDown(home)})`
        : `its owner, rank ${owner}, is down (${this.context.whyDown(owner)}; home: rank ${home})`
    return new PagemeshError(
      'ERR_PAGEMESH_PAGE_LOST',
      `page ${page} of region '${info.name}' (bytes ${first} to ${first + info.pageBytes - 1}, ` +
        `address 0x${(info.base + BigInt(first)).toString(16)}) is lost: ${why}`,
      { rank: owner },
    )
  }

  /** The raw access that pins need: protections as far as the state permits. */
  raise(page: number): void {
    const writable = (this.coherence.pages.byte(page) & PageState.write) === PageState.write
    this.context.ring.protect(this.info.id, page, 1, writable ? 'write' : 'read', true, false)
  }
}
