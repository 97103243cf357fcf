import { PagemeshError } from '../errors.js'
import { Directory, EntryEvent } from './directory.js'
import { LocalMessages } from './local-messages.js'
import { Kind, NOBODY } from './messages.js'
import { PAGE_PENDING, PageEvent, PageState, PageTable, permits } from './page-table.js'
import type { HomeMap } from './placement.js'
import type { CoherenceSink } from './sink.js'

export interface CoherenceOptions {
  readonly region: number
  readonly rank: number
  readonly homes: HomeMap
  /** One byte a page, zero at first; shared with native code. */
  readonly states: Uint8Array
  /** Two words for each page homed here, zero at first. */
  readonly directory: Uint32Array
  readonly sink: CoherenceSink
}

/**
 * One region at one member: its page table, its part of the directory, and the messages that go
 * from one to the other without leaving the member. Pure, and single-threaded but for the state
 * bytes. Every public call runs until nothing is left to do here.
 */
export class RegionCoherence {
  readonly pages: PageTable
  readonly directory: Directory
  private readonly region: number
  private readonly rank: number
  private readonly homes: HomeMap
  /** Messages to ourselves, first in first out. */
  private readonly local = new LocalMessages()
  private draining = false

  constructor(options: CoherenceOptions) {
    const { region, rank, homes, states } = options
    this.region = region
    this.rank = rank
    this.homes = homes
    const sink = this.routeLocally(options.sink)
    const homeOf = (page: number): number => homes.homeOf(page)
    this.pages = new PageTable(region, states, rank, homeOf, sink, homes.size)
    const here = {
      lowerHere: (page: number) => this.pages.step(page, PageEvent.lowerHere, rank, NOBODY),
      forbidHere: (page: number) => this.pages.step(page, PageEvent.forbidHere, rank, NOBODY),
      dropHere: (page: number) => this.dropHere(page),
      isHeld: (page: number) => this.pages.isHeld(page),
    }
    const indexOf = (page: number): number => homes.indexOf(page)
    this.directory = new Directory(region, options.directory, indexOf, rank, here, sink, homes.size)
    for (const [first, count] of homes.runsOf(rank)) {
      states.fill(PageState.write, first, first + count)
    }
  }

  /** Whether this member may use the page now. */
  permits(page: number, access: 'read' | 'write'): boolean {
    return permits(this.pages.byte(page), access)
  }

  /** A touch that was refused, or a prefetch. */
  touch(page: number, access: 'read' | 'write'): void {
    this.pages.step(
      page,
      access === 'write' ? PageEvent.writeFault : PageEvent.readFault,
      this.rank,
      NOBODY,
    )
    this.drain()
  }

  /** A faulting thread has put the page in `state` but could not send the request for it. */
  requestUnsent(page: number, state: number, sink: CoherenceSink): void {
    const kind =
      state === PageState.reading
        ? Kind.ReadRequest
        : state === PageState.writing
          ? Kind.WriteRequest
          : Kind.UpgradeRequest
    sink.send(this.homes.homeOf(page), kind, this.region, page, 0, 0)
  }

  /** The home of a pending page is down: fails the page. */
  homeIsDown(page: number, home: number): void {
    if ((this.pages.byte(page) & PAGE_PENDING) !== 0) this.pages.onLost(page, home, NOBODY)
  }

  /** A record from another member. Throws ERR_PAGEMESH_PROTOCOL if it cannot be. */
  onMessage(kind: number, page: number, from: number, a: number, b: number): void {
    if (page >= this.homes.pageCount) throw this.refuse(kind, page, from, 'there is no such page')
    // The page was given up with its home; this is what was still on its way.
    if (this.pages.isDown(this.homes.homeOf(page))) return
    this.dispatch(kind, page, from, a, b)
    this.drain()
  }

  /**
   * Gives back this member's copy of a page, if it has a clean one and nothing holds it. Threads
   * that touch the page wait until `discardSent`, which must follow once everything that the sink
   * was asked to send has gone out: a thread's own request must not overtake the notice.
   */
  discard(page: number): void {
    if (this.pages.isHeld(page)) return
    if (this.homes.homeOf(page) === this.rank) this.directory.discardHere(page)
    else this.pages.step(page, PageEvent.discard, this.rank, NOBODY)
  }

  discardSent(page: number): void {
    if (this.pages.byte(page) === PageState.discarding) {
      this.pages.step(page, PageEvent.discardSent, this.rank, NOBODY)
    }
  }

  /** Somebody waits for a page that is held here. */
  isWanted(page: number): boolean {
    return this.pages.isDeferred(page) || this.directory.hasQueue(page)
  }

  hold(page: number): void {
    this.pages.hold(page)
  }

  release(page: number): void {
    if (!this.pages.release(page)) return
    if (this.homes.homeOf(page) === this.rank) this.directory.pump(page)
    this.drain()
  }

  memberDown(rank: number): void {
    this.directory.memberDown(rank, this.homes.runsOf(this.rank))
    this.drain()
    this.pages.memberDown(rank)
    this.drain()
  }

  private dropHere(page: number): boolean {
    if ((this.pages.byte(page) & PAGE_PENDING) !== 0) return false
    this.pages.step(page, PageEvent.dropHere, this.rank, NOBODY)
    return true
  }

  private dispatch(kind: number, page: number, from: number, a: number, b: number): void {
    switch (kind) {
      case Kind.ReadRequest:
      case Kind.WriteRequest:
      case Kind.UpgradeRequest:
        this.mustBeHome(kind, page, from)
        return this.directory.onRequest(page, kind, from)
      case Kind.WriteBack:
        this.mustBeHome(kind, page, from)
        return this.directory.onNotice(page, EntryEvent.writeBack, from)
      case Kind.Confirm:
        this.mustBeHome(kind, page, from)
        return this.directory.onNotice(page, EntryEvent.confirm, from)
      case Kind.Discard:
        this.mustBeHome(kind, page, from)
        return this.directory.onNotice(page, EntryEvent.discard, from)
      case Kind.RecallRead:
        return this.recall(kind, page, from, a, PageEvent.recallRead)
      case Kind.RecallWrite:
        return this.recall(kind, page, from, a, PageEvent.recallWrite)
      case Kind.Invalidate:
        return this.recall(kind, page, from, a, PageEvent.invalidate)
      case Kind.InvalidateAck:
        return this.pages.onAck(page, from)
      case Kind.Grant:
        this.mustBeFromHome(kind, page, from)
        return this.pages.onGrant(page, from, a, b !== 0)
      case Kind.AwaitAlso:
        this.mustBeFromHome(kind, page, from)
        return this.pages.onAwaitAlso(page, from, a, b)
      case Kind.DataExclusive:
        return this.pages.onGrant(page, from, a, b !== 0)
      case Kind.Data:
        return this.pages.step(
          page,
          b !== 0 ? PageEvent.dataToConfirm : PageEvent.data,
          from,
          NOBODY,
        )
      case Kind.Lost:
        this.mustBeFromHome(kind, page, from)
        return this.pages.onLost(page, from, a)
      default:
        throw this.refuse(kind, page, from, 'it is no message about pages')
    }
  }

  private recall(kind: number, page: number, from: number, requester: number, event: number): void {
    this.mustBeFromHome(kind, page, from)
    if (requester >= this.homes.size || requester === this.rank) {
      throw this.refuse(kind, page, from, `rank ${requester} cannot be the requester`)
    }
    this.pages.step(page, event, from, requester)
  }

  private mustBeHome(kind: number, page: number, from: number): void {
    if (this.homes.homeOf(page) !== this.rank) throw this.refuse(kind, page, from, 'not its home')
  }

  private mustBeFromHome(kind: number, page: number, from: number): void {
    if (this.homes.homeOf(page) !== from) throw this.refuse(kind, page, from, 'not from its home')
  }

  private refuse(kind: number, page: number, from: number, why: string): PagemeshError {
    return new PagemeshError(
      'ERR_PAGEMESH_PROTOCOL',
      `message ${kind} for page ${page} of region ${this.region} from rank ${from} at rank ` +
        `${this.rank}: ${why}`,
      { rank: from },
    )
  }

  /** Sends to this member itself go into `local`; a page to itself moves no bytes. */
  private routeLocally(outer: CoherenceSink): CoherenceSink {
    const send = (
      remote: 'send' | 'sendPage',
      to: number,
      kind: number,
      region: number,
      page: number,
      a: number,
      b: number,
    ): void => {
      if (to === this.rank) this.local.push(kind, page, this.rank, a, b)
      else outer[remote](to, kind, region, page, a, b)
    }
    return {
      send: (to, kind, region, page, a, b) => send('send', to, kind, region, page, a, b),
      sendPage: (to, kind, region, page, a, b) => send('sendPage', to, kind, region, page, a, b),
      protect: (region, page, access, invalidated) =>
        outer.protect(region, page, access, invalidated),
      open: (region, page) => outer.open(region, page),
      wake: (region, page) => outer.wake(region, page),
      granted: (region, page) => outer.granted(region, page),
      lost: (region, page, home, owner) => outer.lost(region, page, home, owner),
    }
  }

  private drain(): void {
    if (this.draining) return
    this.draining = true
    try {
      do {
        const { local } = this
        for (let at = 0; at < local.length; at++) {
          this.dispatch(local.kind(at), local.page(at), local.from(at), local.a(at), local.b(at))
        }
        local.forget()
      } while (this.directory.pumpOne())
    } finally {
      this.local.forget()
      this.draining = false
    }
  }
}
