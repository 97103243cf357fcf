import { MAX_ATOMIC_BYTES, type OpenedRegion, WORD_BYTES } from '../engine/commands.js'
import type { FaultsInUse } from '../cluster/fault-names.js'
import type { TransportInUse } from '../cluster/transport-names.js'
import type { TransportReport } from '../engine/links.js'
import { LinkWay, type Addon } from '../native/addon.js'
import type { Placement } from '../protocol/placement.js'
import type { BarrierPlaces } from './barriers.js'
import type { EngineClient } from './engine-client.js'
import { left, Region, type Stats } from './region.js'
import { Semaphore } from './semaphore.js'
import { checkInteger, checkName, checkOptions, invalid, show } from './validate.js'

/** Options of {@link Mesh.region}; all members that open the region must agree on them. */
export interface RegionOptions {
  /**
   * 1 to 4 TiB. Memory is used as pages are touched. Of atomic words: a multiple of 8, at most
   * 1 GiB.
   */
  byteLength: number
  /**
   * Which member homes which pages, that is, keeps their directory entries and owns them at first:
   * 'block' gives member i the i-th run of pages, 'cyclic' deals them out in turn, and a rank gives
   * that member all of them. 'block' if left out.
   */
  placement?: Placement
  /**
   * The coherence unit: a power of two from 4,096 (or the kernel's page, where that is larger) to
   * 1,048,576. The least if left out. Of atomic words: what the placement deals out.
   */
  pageBytes?: number
  /**
   * 'paged' if left out: memory that every member sees, in pages that move to who touches them.
   * With 'atomic' the region is 64-bit words that stay at their homes and are changed by
   * {@link Region.fetchAdd} and its like only, with bigints; it has no {@link Region.buffer}. Where
   * all members reach each other by RDMA devices that have atomics, the homes' devices change the
   * words, and no program or engine at the home takes part; otherwise the homes' engines do.
   * {@link Region.wordsBy} says which.
   */
  words?: 'paged' | 'atomic'
  /**
   * 'auto' if left out: when a thread reads pages at one distance from each other, forward or
   * backward, this member asks for the next ones before the thread comes to them, and for more of
   * them as long as it does. 'off' asks only for pages that are touched. {@link Region.prefetch}
   * works with both.
   */
  prefetch?: 'auto' | 'off'
}

/** What all regions did, and over which transport. */
export interface MeshStats extends Stats {
  /** How this member reaches the others: 'mixed' is not all of them the same way. */
  transport: TransportInUse
  /** The memory or RDMA device in use, or why there is none. */
  transportDetail: string
  /** What hears of touches of pages that are not here; see {@link JoinOptions.faults}. */
  faults: FaultsInUse
  /** How many messages have come by memory of this host. */
  shmMessages: number
  /** How many messages have come by verbs. */
  verbsMessages: number
  /** How many locks were taken without asking anybody, since this member had them last. */
  locksTakenHere: number
}

const MAX_REGION_BYTES = 2 ** 42
const MIN_PAGE_BYTES = 4096
const MAX_PAGE_BYTES = 2 ** 20
const MAX_PERMITS = 2 ** 31 - 1

/**
 * This process's membership in a mesh. Made by {@link join}; belongs to the thread that joined.
 * Every operation that needs other members rejects with ERR_PAGEMESH_MEMBER_DOWN once one of them
 * is gone without leaving, and with ERR_PAGEMESH_LEFT after {@link leave}.
 */
export class Mesh implements AsyncDisposable {
  private readonly regions = new Map<string, Region>()
  private leaving: Promise<void> | undefined
  private left = false
  private lastMessages: Pick<MeshStats, 'shmMessages' | 'verbsMessages'> | undefined

  /** @internal */
  constructor(
    private readonly addon: Addon,
    private readonly client: EngineClient,
    private readonly barriers: BarrierPlaces,
    /** This member's number, 0 to {@link size} − 1. */
    readonly rank: number,
    /** How many members the mesh has. */
    readonly size: number,
    private readonly report: TransportReport,
    private readonly faults: FaultsInUse,
    private readonly onLeft: () => void,
  ) {}

  /**
   * Opens a region by name; the first member that asks makes it, for all.
   *
   * @param name 1 to 255 bytes of UTF-8
   * @throws ERR_PAGEMESH_REGION_MISMATCH if it exists with other options,
   * ERR_PAGEMESH_REGION_FAILED if a member cannot map it
   */
  async region(name: string, options: RegionOptions): Promise<Region> {
    this.mustBeIn()
    checkName('region', name)
    const shape = { name, ...this.checkRegionOptions(options) }
    const info = (await this.client.ask({ op: 'region', shape })) as OpenedRegion
    let region = this.regions.get(name)
    if (region === undefined) {
      region = new Region(this.addon, this.client, info)
      this.regions.set(name, region)
    }
    return region
  }

  /**
   * Waits until every member has come to the barrier of this name, which can be used again. Members
   * that come within 0.2 ms are waited for right here, since an event loop costs more than that.
   */
  async barrier(name = 'default'): Promise<void> {
    this.mustBeIn()
    await this.barriers.pass(checkName('barrier', name))
  }

  /** The same, and stops this thread until all have come: its event loop stands still. */
  barrierSync(name = 'default'): void {
    this.mustBeIn()
    this.barriers.passSync(checkName('barrier', name))
  }

  /** The lock of this name: a semaphore of one permit. Locks and semaphores share no names. */
  lock(name: string): Semaphore {
    this.mustBeIn()
    return new Semaphore(this.client, 'lock', checkName('lock', name), 1)
  }

  /** The semaphore of this name. All members name the same number of permits, 1 to 2^31 − 1. */
  semaphore(name: string, permits: number): Semaphore {
    this.mustBeIn()
    checkName('semaphore', name)
    checkInteger('permits', permits, 1, MAX_PERMITS)
    return new Semaphore(this.client, 'semaphore', name, permits)
  }

  /** The sums of all regions' {@link Region.stats} at this member. */
  stats(): MeshStats {
    const sum: MeshStats = {
      readFaults: 0,
      writeFaults: 0,
      localFaults: 0,
      pagesReceived: 0,
      pagesSent: 0,
      bytesReceived: 0,
      bytesSent: 0,
      invalidations: 0,
      pagesParked: 0,
      directReads: 0,
      directWrites: 0,
      pagesPrefetched: 0,
      prefetchesUseless: 0,
      waitMs: 0,
      wordsByRdma: 0,
      wordsByHome: 0,
      transport: this.report.transport,
      transportDetail: this.report.detail,
      faults: this.faults,
      ...(this.lastMessages ?? this.countMessages()),
      locksTakenHere: this.client.tokens.takenHere,
    }
    for (const region of this.regions.values()) {
      for (const [name, value] of Object.entries(region.stats())) {
        sum[name as keyof Stats] += value as number
      }
    }
    return sum
  }

  /**
   * Leaves the mesh: waits until every member has called leave or is gone, and serves their faults
   * meanwhile. Barriers that wait for this member are broken at once. Regions become private
   * memory. A second call gives the same promise.
   */
  leave(): Promise<void> {
    this.leaving ??= this.finish()
    return this.leaving
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.leave()
  }

  private countMessages(): Pick<MeshStats, 'shmMessages' | 'verbsMessages'> {
    const { addon, client } = this
    return {
      shmMessages: addon.linkRecords(client.session, LinkWay.shm),
      verbsMessages: addon.linkRecords(client.session, LinkWay.verbs),
    }
  }

  private async finish(): Promise<void> {
    this.lastMessages = this.countMessages()
    this.left = true
    this.client.tokens.close()
    const ended = this.client.ended()
    await this.client.ask({ op: 'leave' })
    await ended
    for (const region of this.regions.values()) region.freezeStats()
    this.client.close(left())
    this.addon.sessionDestroy(this.client.session)
    this.onLeft()
  }

  private mustBeIn(): void {
    if (this.left) throw left()
  }

  private checkRegionOptions(options: RegionOptions): {
    byteLength: number
    pageBytes: number
    placement: Placement
    words: 'paged' | 'atomic'
    prefetch: 'auto' | 'off'
  } {
    const given = checkOptions<Partial<RegionOptions>>('a region', options)
    const leastPageBytes = Math.max(MIN_PAGE_BYTES, this.addon.probe().pageBytes)
    const { placement = 'block', pageBytes = leastPageBytes, words = 'paged' } = given
    const { prefetch = 'auto' } = given
    const byteLength = checkByteLength(given.byteLength, words)
    checkInteger('pageBytes', pageBytes, leastPageBytes, MAX_PAGE_BYTES)
    if ((pageBytes & (pageBytes - 1)) !== 0) {
      throw invalid(`pageBytes must be a power of two, not ${pageBytes}`)
    }
    return {
      byteLength,
      pageBytes,
      words,
      placement: this.checkPlacement(placement),
      prefetch: checkPrefetch(prefetch),
    }
  }

  private checkPlacement(placement: unknown): Placement {
    if (placement === 'block' || placement === 'cyclic') return placement
    if (typeof placement === 'object' && placement !== null && 'rank' in placement) {
      return { rank: checkInteger('placement.rank', placement.rank, 0, this.size - 1) }
    }
    throw invalid(`placement must be 'block', 'cyclic' or { rank }, not ${show(placement)}`)
  }
}

function checkPrefetch(prefetch: unknown): 'auto' | 'off' {
  if (prefetch === 'auto' || prefetch === 'off') return prefetch
  throw invalid(`prefetch must be 'auto' or 'off', not ${show(prefetch)}`)
}

function checkByteLength(byteLength: unknown, words: unknown): number {
  if (words === 'paged') return checkInteger('byteLength', byteLength, 1, MAX_REGION_BYTES)
  if (words !== 'atomic') throw invalid(`words must be 'paged' or 'atomic', not ${show(words)}`)
  const checked = checkInteger('byteLength', byteLength, WORD_BYTES, MAX_ATOMIC_BYTES)
  if (checked % WORD_BYTES === 0) return checked
  throw invalid(`byteLength must be a multiple of ${WORD_BYTES} for atomic words, not ${checked}`)
}
