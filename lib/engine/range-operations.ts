import type { PagemeshError } from '../errors.js'
import { AtomicOperation } from '../protocol/messages.js'
import type { EngineContext } from './context.js'
import type { EngineRegion, PageWaiter } from './engine-region.js'

type Access = 'read' | 'write'

/** How many pages one prefetch asks for at a time: enough to fill the pipe, not the queues. */
const PREFETCH_WINDOW_PAGES = 512

/** Brings pages in, many at a time; calls `done` once each has been here. */
export class Prefetch implements PageWaiter {
  private next: number
  private readonly end: number
  private outstanding = 0
  private filling = false
  private failed: PagemeshError | undefined

  constructor(
    private readonly region: EngineRegion,
    firstPage: number,
    pageCount: number,
    private readonly access: Access,
    private readonly done: (error: PagemeshError | undefined) => void,
  ) {
    this.next = firstPage
    this.end = firstPage + pageCount
  }

  start(): void {
    this.fill()
  }

  private fill(): void {
    if (this.filling) return // called back from a request that was granted at once
    this.filling = true
    while (
      this.failed === undefined &&
      this.next < this.end &&
      this.outstanding < PREFETCH_WINDOW_PAGES
    ) {
      const page = this.next++
      if (this.region.coherence.permits(page, this.access)) continue
      this.outstanding++
      this.region.request(page, this.access, this)
    }
    this.filling = false
    this.region.settle()
    if (this.outstanding === 0 && (this.next === this.end || this.failed)) this.finish()
  }

  private finished = false
  private finish(): void {
    if (this.finished) return
    this.finished = true
    this.done(this.failed)
  }

  pageGranted(page: number): void {
    if (!this.region.coherence.permits(page, this.access)) {
      this.region.request(page, this.access, this) // readable now, and writing was asked for
      return
    }
    this.outstanding--
    this.fill()
  }

  pageLost(_page: number, error: PagemeshError): void {
    this.failed ??= error
    this.outstanding--
    this.fill()
  }
}

/**
 * Holds pages for a system call. Pages are held in ascending order, so that two members that pin
 * overlapping ranges wait for each other in one direction only.
 */
export class Pin implements PageWaiter {
  private readonly end: number
  private heldEnd: number
  private released = false

  constructor(
    private readonly region: EngineRegion,
    private readonly firstPage: number,
    pageCount: number,
    private readonly access: Access,
    private readonly done: (error: PagemeshError | undefined) => void,
  ) {
    this.end = firstPage + pageCount
    this.heldEnd = firstPage
  }

  start(): void {
    // All at once first; what other members take away meanwhile is asked for again below.
    const prefetch = new Prefetch(
      this.region,
      this.firstPage,
      this.end - this.firstPage,
      this.access,
      (error) => (error === undefined ? this.holdNext() : this.done(error)),
    )
    prefetch.start()
  }

  private holdNext(): void {
    const { region, access } = this
    if (this.released) return
    while (this.heldEnd < this.end) {
      const page = this.heldEnd
      if (!region.coherence.permits(page, access)) {
        region.request(page, access, this)
        region.settle()
        return
      }
      region.coherence.hold(page)
      region.raise(page) // it may have been parked, and a system call cannot raise it
      this.heldEnd++
    }
    this.done(undefined)
  }

  pageGranted(page: number): void {
    if (page === this.heldEnd) this.holdNext()
  }

  pageLost(_page: number, error: PagemeshError): void {
    this.release()
    this.done(error)
  }

  release(): void {
    this.released = true
    while (this.heldEnd > this.firstPage) this.region.release(--this.heldEnd)
  }
}

/** An operation on one word, at its home. */
export interface WordOperation {
  readonly page: number
  readonly byteInPage: number
  readonly bits: number
  readonly operation: number
  readonly operand: bigint
  readonly expected: bigint
}

/**
 * Performs a word operation at its home, which is this member: takes the page to the home first,
 * for writing unless the operation only loads.
 */
export class HomeAtomic implements PageWaiter {
  constructor(
    private readonly context: EngineContext,
    private readonly region: EngineRegion,
    private readonly operation: WordOperation,
    private readonly done: (before: bigint, error: PagemeshError | undefined) => void,
  ) {}

  start(): void {
    this.tryNow()
    this.region.settle()
  }

  private tryNow(): void {
    const { operation: op, region } = this
    const access = op.operation === AtomicOperation.load ? 'read' : 'write'
    if (!region.coherence.permits(op.page, access)) {
      region.request(op.page, access, this)
      return
    }
    const { addon, session } = this.context
    const { page, byteInPage, bits, operation, operand, expected } = op
    this.done(
      addon.atomic(session, region.info.id, page, byteInPage, bits, operation, operand, expected),
      undefined,
    )
  }

  pageGranted(): void {
    this.tryNow()
  }

  pageLost(_page: number, error: PagemeshError): void {
    this.done(0n, error)
  }
}
