import type { OpenedRegion } from '../engine/commands.js'
import { PagemeshError } from '../errors.js'
import {
  type Addon,
  maxBufferBytes,
  RegionPart,
  regionBuffer,
  STAT_NAMES,
} from '../native/addon.js'
import { AtomicOperation } from '../protocol/messages.js'
import type { Placement } from '../protocol/placement.js'
import type { EngineClient } from './engine-client.js'
import { checkAccess, checkInteger, invalid, show } from './validate.js'

/** What a member did with a region (or, summed, with all of them) since it was opened. */
export interface Stats {
  /** Touches of a page that this member could not read, answered by the page's home. */
  readFaults: number
  /** The same for writing, upgrades of readable pages included. */
  writeFaults: number
  /** Touches of a page that this member had, but that was lowered; answered at once. */
  localFaults: number
  pagesReceived: number
  pagesSent: number
  bytesReceived: number
  bytesSent: number
  /** Pages taken away because another member writes them. */
  invalidations: number
  /**
   * How often a page that this member has was lowered all the same, to stay below
   * `vm.max_map_count`. Its next touch is one of `localFaults`, without a message.
   */
  pagesParked: number
  /** Pages that were copied from a home on this host without asking it. */
  directReads: number
  /** Of these, pages that nobody else had, and that became this member's own without asking. */
  directWrites: number
  /**
   * Pages that were asked for ahead of a thread that reads in a regular way: see
   * {@link RegionOptions.prefetch}. Their first touches are among `localFaults`, one for all that
   * lie together.
   */
  pagesPrefetched: number
  /** Of these, pages that had not been touched when the thread went on elsewhere. */
  prefetchesUseless: number
  /** How long threads of this member stood in faults, all together. */
  waitMs: number
  /** Word operations that this member asked for, and that a home's RDMA device carried out. */
  wordsByRdma: number
  /** The same, carried out by the home's engine. */
  wordsByHome: number
}

/** Pages that are held for a system call. Give them back by `release` or `using`. */
export class PinnedRange implements AsyncDisposable, Disposable {
  private released = false

  /** @internal */
  constructor(private readonly unpin: () => void) {}

  /** Lets other members have the pages again. A second call does nothing. */
  release(): void {
    if (this.released) return
    this.released = true
    this.unpin()
  }

  [Symbol.dispose](): void {
    this.release()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.release()
  }
}

const WORDS = { int32: 32, int64: 64 } as const

/** A named span of memory that all members share. Made by {@link Mesh.region}. */
export class Region {
  readonly name: string
  readonly byteLength: number
  /** The coherence unit in bytes: what moves on a fault. */
  readonly pageBytes: number
  readonly placement: Placement
  /** 'paged', or 'atomic': see {@link RegionOptions.words}. */
  readonly words: 'paged' | 'atomic'
  /**
   * What carries out operations on words: 'home', the engine of the word's home; or 'rdma', the
   * home's RDMA device, which only regions of atomic words have. The same in all members.
   */
  readonly wordsBy: 'home' | 'rdma'
  private wordOperations = 0
  private sharedBuffer: SharedArrayBuffer | undefined
  private lastStats: Stats | undefined
  private readonly counters = new Float64Array(STAT_NAMES.length)

  /** @internal */
  constructor(
    private readonly addon: Addon,
    private readonly client: EngineClient,
    private readonly info: OpenedRegion,
  ) {
    this.name = info.name
    this.byteLength = info.byteLength
    this.pageBytes = info.pageBytes
    this.placement = info.placement
    this.words = info.words
    this.wordsBy = info.wordsBy
  }

  /**
   * Where the region stands, the same in every member: for native code that shares pointers.
   *
   * @throws ERR_PAGEMESH_NO_PAGES for atomic words
   */
  get address(): bigint {
    this.mustHavePages('address')
    return this.info.base
  }

  /**
   * The memory. Touching it from any thread faults pages in. It goes to the member's own workers
   * through `workerData` or `postMessage`. After the mesh is left it is private memory: pages that
   * this member had keep their last contents, the others read as zero.
   *
   * @throws ERR_PAGEMESH_VIEW_TOO_LARGE beyond 4 GiB on Node.js 20; ERR_PAGEMESH_NO_PAGES for
   * atomic words
   */
  get buffer(): SharedArrayBuffer {
    this.mustHavePages('buffer')
    if (this.sharedBuffer !== undefined) return this.sharedBuffer
    const most = maxBufferBytes()
    if (this.byteLength > most) {
      throw new PagemeshError(
        'ERR_PAGEMESH_VIEW_TOO_LARGE',
        `region '${this.name}' has ${this.byteLength} bytes, and Node.js ` +
          `${process.versions.node} makes SharedArrayBuffers of at most ${most}: use Node.js 22 ` +
          'or newer, or several smaller regions',
      )
    }
    if (this.lastStats !== undefined) throw left()
    this.sharedBuffer = regionBuffer(
      this.client.session,
      this.info.id,
      RegionPart.application,
      this.byteLength,
    )
    return this.sharedBuffer
  }

  /** What this member did with the region so far. After leaving, what it had done by then. */
  stats(): Stats {
    if (this.lastStats !== undefined) return { ...this.lastStats }
    if (this.words === 'paged') {
      this.addon.regionStats(this.client.session, this.info.id, this.counters)
    }
    const entries = STAT_NAMES.map((name, index) =>
      name === 'waitNs'
        ? (['waitMs', (this.counters[index] ?? 0) / 1e6] as const)
        : ([name, this.counters[index] ?? 0] as const),
    )
    const byRdma = this.wordsBy === 'rdma'
    return {
      ...(Object.fromEntries(entries) as unknown as Stats),
      wordsByRdma: byRdma ? this.wordOperations : 0,
      wordsByHome: byRdma ? 0 : this.wordOperations,
    }
  }

  /**
   * Brings many pages in at a time, without stopping this thread. A hint: other members may take
   * them away again before they are used.
   *
   * @param byteOffset start of the range; pages that it touches are brought whole
   * @param byteLength 0 does nothing
   * @throws ERR_PAGEMESH_OUT_OF_RANGE, ERR_PAGEMESH_PAGE_LOST, ERR_PAGEMESH_MEMBER_DOWN;
   * ERR_PAGEMESH_NO_PAGES for atomic words
   */
  async prefetch(byteOffset: number, byteLength: number, access: 'read' | 'write'): Promise<void> {
    this.mustHavePages('prefetch')
    const range = this.pagesOf(byteOffset, byteLength)
    checkAccess(access)
    if (range.pageCount === 0) return
    await this.client.ask({ op: 'prefetch', region: this.info.id, ...range, access })
  }

  /**
   * Brings the pages here and keeps them until the result is released: the kernel does not fault
   * on behalf of a system call, so memory that is given to one (`fs.writeSync`, `net.Socket`) must
   * be pinned. Other members wait meanwhile; so pin for 'write' whatever this member itself may
   * write while it holds the pin.
   *
   * @throws as {@link prefetch}; ERR_PAGEMESH_OUT_OF_RANGE also if too many ranges are pinned
   */
  async pin(
    byteOffset: number,
    byteLength: number,
    access: 'read' | 'write',
  ): Promise<PinnedRange> {
    this.mustHavePages('pin')
    const range = this.pagesOf(byteOffset, byteLength)
    checkAccess(access)
    if (range.pageCount === 0) return new PinnedRange(() => undefined)
    const { id, answer } = this.client.numbered({
      op: 'pin',
      region: this.info.id,
      ...range,
      access,
    })
    await answer
    return new PinnedRange(() => this.client.post({ op: 'unpin', pin: id }))
  }

  /**
   * Gives this member's unchanged copies of a range back; the next touch fetches them again. Pages
   * that it has for writing stay, except those that it homes. For measurements, and for programs
   * that know they are done with a range.
   */
  async discard(byteOffset: number, byteLength: number): Promise<void> {
    this.mustHavePages('discard')
    const range = this.pagesOf(byteOffset, byteLength)
    if (range.pageCount === 0) return
    await this.client.ask({ op: 'discard', region: this.info.id, ...range, access: 'read' })
  }

  /**
   * Adds to a word at its home, atomically for all members, and gives what was there before. A
   * number stands for a 32-bit word, a bigint for a 64-bit one; both are signed and wrap around.
   * Regions of atomic words take bigints only.
   *
   * @param byteOffset a multiple of the word's size
   * @throws ERR_PAGEMESH_UNALIGNED, ERR_PAGEMESH_OUT_OF_RANGE, ERR_PAGEMESH_PAGE_LOST,
   * ERR_PAGEMESH_INVALID_ARGUMENT
   */
  fetchAdd(byteOffset: number, value: number): Promise<number>
  fetchAdd(byteOffset: number, value: bigint): Promise<bigint>
  async fetchAdd(byteOffset: number, value: number | bigint): Promise<number | bigint> {
    return this.atomic(AtomicOperation.fetchAdd, byteOffset, value, 0)
  }

  /**
   * Writes `replacement` if the word holds `expected`, and gives what was there before; words as
   * for {@link fetchAdd}, both of one kind.
   */
  compareExchange(byteOffset: number, expected: number, replacement: number): Promise<number>
  compareExchange(byteOffset: number, expected: bigint, replacement: bigint): Promise<bigint>
  async compareExchange(
    byteOffset: number,
    expected: number | bigint,
    replacement: number | bigint,
  ): Promise<number | bigint> {
    if (typeof expected !== typeof replacement) {
      throw invalid('expected and replacement must both be numbers, or both bigints')
    }
    return this.atomic(AtomicOperation.compareExchange, byteOffset, replacement, expected)
  }

  /**
   * Reads a word at its home; does not bring the page here. Regions of atomic words take 'int64'
   * only.
   */
  load(byteOffset: number, word?: 'int32'): Promise<number>
  load(byteOffset: number, word: 'int64'): Promise<bigint>
  async load(byteOffset: number, word: 'int32' | 'int64' = 'int32'): Promise<number | bigint> {
    if (!Object.hasOwn(WORDS, word)) {
      throw invalid(`word must be 'int32' or 'int64', not ${show(word)}`)
    }
    return this.atomic(AtomicOperation.load, byteOffset, word === 'int64' ? 0n : 0, 0)
  }

  /**
   * Writes a word at its home; words as for {@link fetchAdd}. By RDMA this is a compare-and-swap,
   * tried again whenever another member's change came between.
   */
  async store(byteOffset: number, value: number | bigint): Promise<void> {
    await this.atomic(AtomicOperation.store, byteOffset, value, 0)
  }

  /** @internal */
  freezeStats(): void {
    this.lastStats = this.stats()
  }

  private mustHavePages(what: string): void {
    if (this.words === 'paged') return
    throw new PagemeshError(
      'ERR_PAGEMESH_NO_PAGES',
      `region '${this.name}' has atomic words and no pages, so there is no '${what}': use load, ` +
        "store, fetchAdd and compareExchange, or open a region with words: 'paged'",
    )
  }

  private async atomic(
    operation: number,
    byteOffset: number,
    operand: number | bigint,
    expected: number | bigint,
  ): Promise<number | bigint> {
    const bits = typeof operand === 'bigint' ? 64 : 32
    const wordBytes = bits / 8
    if (bits === 32 && this.words === 'atomic') {
      throw invalid(
        `region '${this.name}' has atomic words, which are 64 bits wide: pass bigints, as 1n, ` +
          "and 'int64' to load",
      )
    }
    checkInteger('byteOffset', byteOffset, 0, this.byteLength - wordBytes)
    if (byteOffset % wordBytes !== 0) {
      throw new PagemeshError(
        'ERR_PAGEMESH_UNALIGNED',
        `byteOffset must be a multiple of ${wordBytes} for a ${bits}-bit word, not ${byteOffset}`,
      )
    }
    const before = await this.client.ask({
      op: 'atomic',
      region: this.info.id,
      byteOffset,
      bits,
      operation,
      operand: wordOf('value', operand),
      expected: wordOf('expected', expected),
    })
    this.wordOperations++
    const value = BigInt.asIntN(bits, before as bigint)
    return bits === 64 ? value : Number(value)
  }

  private pagesOf(
    byteOffset: number,
    byteLength: number,
  ): { firstPage: number; pageCount: number } {
    checkInteger('byteOffset', byteOffset, 0, this.byteLength)
    checkInteger('byteLength', byteLength, 0, this.byteLength - byteOffset)
    if (byteLength === 0) return { firstPage: 0, pageCount: 0 }
    const firstPage = Math.floor(byteOffset / this.pageBytes)
    const lastPage = Math.floor((byteOffset + byteLength - 1) / this.pageBytes)
    return { firstPage, pageCount: lastPage - firstPage + 1 }
  }
}

/** Checks a word and gives its bits. */
function wordOf(what: string, value: unknown): bigint {
  if (typeof value === 'bigint') {
    if (value < -(2n ** 63n) || value >= 2n ** 64n) {
      throw new PagemeshError('ERR_PAGEMESH_OUT_OF_RANGE', `${what} must fit 64 bits, not ${value}`)
    }
    return BigInt.asUintN(64, value)
  }
  return BigInt.asUintN(32, BigInt(checkInteger(what, value, -(2 ** 31), 2 ** 32 - 1)))
}

export function left(): PagemeshError {
  return new PagemeshError('ERR_PAGEMESH_LEFT', 'the mesh has been left')
}
