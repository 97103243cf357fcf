import { constants as bufferConstants } from 'node:buffer'
import { createRequire } from 'node:module'
import { PagemeshError } from '../errors.js'
import type { RdmaDevices } from './rdma-devices.js'

/** Where the words of one member are for RDMA atomics. */
export interface WordsKey {
  readonly rkey: number
  readonly address: bigint
}

/** What `probe` finds out about this machine and process. */
export interface Probe {
  readonly pageBytes: number
  /** userfaultfd for all faults, system calls included. */
  readonly userfaultfd: boolean
  /** userfaultfd for faults of user code only. */
  readonly userfaultfdUserMode: boolean
  /** Node-API can make a SharedArrayBuffer over foreign memory. */
  readonly nodeApiSharedBuffers: boolean
  /** How many changes of protection between neighbouring pages pagemesh allows itself. */
  readonly mapBoundaryLimit: number
  readonly mapBoundaries: number
}

/** The parts of a region that can be seen as a SharedArrayBuffer. */
export const RegionPart = { application: 0, states: 1, directory: 2 } as const
export type RegionPart = (typeof RegionPart)[keyof typeof RegionPart]

/** Ways to another member that are faster than its connection; native/transport/transport.h. */
export const LinkWay = { verbs: 0, shm: 1 } as const
export type LinkWay = (typeof LinkWay)[keyof typeof LinkWay]

/** What the words of `exchange`'s first array say. */
export const Call = {
  actionCount: 0,
  timeoutMs: 1,
  /** 1: report threads that come back from a fault. */
  watchResumes: 2,
  /** Written before it returns: milliseconds since the session's first exchange, bits 0-30. */
  nowMsLow: 3,
  nowMsHigh: 4,
} as const
export const CALL_WORDS = 5

/** What regionStats writes, in this order. */
export const STAT_NAMES = [
  'readFaults',
  'writeFaults',
  'localFaults',
  'pagesReceived',
  'pagesSent',
  'bytesReceived',
  'bytesSent',
  'invalidations',
  'pagesParked',
  'waitNs',
  'directReads',
  'directWrites',
  'pagesPrefetched',
  'prefetchesUseless',
] as const

/**
 * The functions of native/addon.cc. Arguments are checked for kind and liveness there, and for
 * meaning by the callers. Functions that make system calls throw an Error with `errno`.
 */
export interface Addon {
  /**
   * Starts this process's membership. EBUSY if it has one.
   * @param mapLimit in place of vm.max_map_count; 0 for the kernel's
   * @param lifelineFd the process ends when this descriptor closes; -1 for none
   * @param userfaultfd as the back end of faults instead of SIGSEGV, if given and true; EPERM,
   * ENOSYS or ENOTSUP if it cannot be had
   * @returns the session's number, which the engine's thread uses too
   */
  sessionCreate(
    rank: number,
    size: number,
    mapLimit: number,
    lifelineFd: number,
    userfaultfd?: boolean,
  ): number
  /** After the engine has ended: regions become private memory, sockets close. */
  sessionDestroy(session: number): void
  /**
   * Makes `exchange` return -1. With an exit code the process is about to end, and threads that
   * still wait in a fault are not let go.
   */
  stop(session: number, exitCode?: number): void
  /** Makes `exchange` report a wake event; with `program`, lets `awaitToken` return. Any thread. */
  wake(session: number, program?: boolean): void
  /**
   * Sleeps until another member passes on the token of this lock to the request with this ticket,
   * or it was woken since the last time. One thread at a time.
   * @returns the number of the request, or 0
   */
  awaitToken(session: number, keyLow: number, keyHigh: number, ticket: number): number
  /** Passes a token on, now. False: the engine must. Any thread. */
  passToken(
    session: number,
    rank: number,
    keyLow: number,
    keyHigh: number,
    request: number,
    ticket: number,
  ): boolean
  setView(session: number, view: number): void
  /**
   * Carries out actions, then waits for events; engine thread only. No allocation: what is asked
   * for and answered by number is in `call`, by the indices of {@link Call}.
   * @returns how many events were written, or -1 once stopped
   */
  exchange(
    session: number,
    call: Int32Array,
    actions: Uint32Array,
    blobsOut: Uint8Array,
    events: Uint32Array,
    blobsIn: Uint8Array,
  ): number
  /** @returns the port */
  listen(session: number, host: string, port: number): number
  /** @returns a connection number; an event tells when it is open, or why not */
  connect(session: number, host: string, port: number): number
  /** The other side of the connection is `rank`, proven. */
  bindRank(session: number, connection: number, rank: number): boolean
  closeConnection(session: number, connection: number): void
  /**
   * Opens an RDMA device for links, or, without one, the memory of this host. Throws an Error that
   * says why it cannot be used.
   * @returns what it is like
   */
  openLinks(session: number, rank: number): string
  openLinks(session: number, rank: number, device: string, port: number, gidIndex: number): string
  /**
   * Makes an offer for a link to a member (0), takes its offer (1), probes the link (2; an event
   * tells the outcome), uses it (3), or drops it (4).
   */
  link(session: number, way: LinkWay, step: 0, rank: number): Uint8Array
  link(session: number, way: LinkWay, step: 1, rank: number, offer: Uint8Array): undefined
  link(session: number, way: LinkWay, step: 2 | 3 | 4, rank: number): undefined
  /** How many records have come over links of this kind. */
  linkRecords(session: number, way: LinkWay): number
  /** A SharedArrayBuffer over the words of barriers, or what the V8 addon makes one of. */
  barrierWords(session: number): SharedArrayBuffer | BigUint64Array
  /**
   * Tells all others that this member has come to the barrier of this slot, and wakes those who
   * wait for it alone. Program's thread.
   * @returns a bit for each rank that the engine must tell
   */
  tellArrival(session: number, slot: number): number
  /**
   * Stops the program's thread until all members have come so often to the barrier of this slot,
   * or a member is gone, for so long at most.
   * @returns whether all have come
   */
  waitAtBarrier(session: number, slot: number, ticket: number, mostUs: number): boolean
  /** Lets a thread in waitAtBarrier look again. Any thread. */
  ringProgram(session: number): void
  /** @returns 0 or errno; EEXIST if something stands at `base` */
  mapRegion(
    session: number,
    region: number,
    pageBytes: number,
    pageCount: number,
    base: bigint,
    placement: number,
    fixedHome: number,
    /** Ask for pages ahead of threads that read in a regular way; false if left out. */
    prefetch?: boolean,
  ): number
  /**
   * Maps the pages of a region of atomic words that this member homes. Throws an Error with errno.
   * @param share let peers change them by RDMA atomics, if that can be
   * @returns where, or undefined if they cannot be changed so
   */
  mapWords(
    session: number,
    region: number,
    pageBytes: number,
    pageCount: number,
    share: boolean,
  ): WordsKey | undefined
  /** Unmaps a region of either kind, and withdraws what peers may do with its memory. */
  unmapRegion(session: number, region: number): void
  /** A SharedArrayBuffer (of `byteLength` bytes if given), or what the V8 addon makes one of. */
  regionBuffer(
    session: number,
    region: number,
    part: RegionPart,
    byteLength?: number,
  ): SharedArrayBuffer | BigUint64Array
  regionStats(session: number, region: number, into: Float64Array): void
  homeOf(session: number, region: number, page: number): number
  /**
   * Performs an operation on a word in the service mapping, and returns what was there. In a region
   * of atomic words, `page` is the page's index at this home; EBUSY if RDMA changes them.
   */
  atomic(
    session: number,
    region: number,
    page: number,
    byteInPage: number,
    bits: number,
    operation: number,
    operand: bigint,
    expected: bigint,
  ): bigint
  /** How many threads are in a fault for these pages and have not touched them again yet. */
  countWaiters(session: number, region: number, page: number, pageCount: number): number
  /** Writes the message to stderr and ends the process at once, from any thread. */
  die(message: string, exitCode: number): never
  probe(): Probe
  /** Opens each device for a moment to look at it. */
  rdmaDevices(): RdmaDevices
  readonly constants: Readonly<Record<string, number>>
}

interface V8Addon {
  wrap(parts: BigUint64Array): SharedArrayBuffer
}

const require = createRequire(import.meta.url)
let addon: Addon | undefined

/**
 * Loads the native addon.
 * @throws ERR_PAGEMESH_UNSUPPORTED_PLATFORM where there is none
 */
export function loadAddon(): Addon {
  if (addon !== undefined) return addon
  const { platform, arch } = process
  if (platform !== 'linux' || (arch !== 'x64' && arch !== 'arm64')) {
    throw new PagemeshError(
      'ERR_PAGEMESH_UNSUPPORTED_PLATFORM',
      `pagemesh runs on Linux on x86-64 and aarch64; this is ${platform} on ${arch}`,
    )
  }
  addon = loadBinary('pagemesh') as Addon
  return addon
}

function loadBinary(name: string): unknown {
  // For development: the sanitizer build, for example.
  const folder = process.env.PAGEMESH_ADDON_DIR ?? '../../build/Release'
  try {
    return require(`${folder}/${name}.node`)
  } catch (cause) {
    throw new PagemeshError(
      'ERR_PAGEMESH_UNSUPPORTED_PLATFORM',
      `the native addon '${name}' does not load; run 'npm rebuild pagemesh' with this Node.js ` +
        `(${process.version}), or 'npm run build' in a checkout`,
      { cause },
    )
  }
}

/** How large a SharedArrayBuffer this Node.js can make. */
export function maxBufferBytes(): number {
  return bufferConstants.MAX_LENGTH // of a view, which is what limits its use
}

/** A SharedArrayBuffer over a part of a region; it keeps the region mapped while it lives. */
export function regionBuffer(
  session: number,
  region: number,
  part: RegionPart,
  byteLength?: number,
): SharedArrayBuffer {
  return sharedBufferOf(loadAddon().regionBuffer(session, region, part, byteLength))
}

/** The words of barriers that the program's thread, the engine and native code share. */
export function barrierWords(session: number): Int32Array {
  return new Int32Array(sharedBufferOf(loadAddon().barrierWords(session)))
}

function sharedBufferOf(made: SharedArrayBuffer | BigUint64Array): SharedArrayBuffer {
  if (!(made instanceof BigUint64Array)) return made
  return (loadBinary('pagemesh_v8') as V8Addon).wrap(made)
}
