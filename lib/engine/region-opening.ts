import { randomInt } from 'node:crypto'
import { constants } from 'node:os'
import { PagemeshError, type PagemeshErrorCode } from '../errors.js'
import { Kind } from '../protocol/messages.js'
import type { Placement } from '../protocol/placement.js'
import type { RegionInfo, RegionShape } from './commands.js'
import type { EngineContext } from './context.js'

/** Rank 0 numbers the regions and places them. */
const COORDINATOR = 0
const MAX_REGIONS = 1024

// Addresses that are free in every process on x86-64 and aarch64 with 47 bits and more: above what
// V8 picks at random (below 2^46), below where programs are loaded (0x55…).
const FIRST_BASE = 0x4100_0000_0000n
const SLOT_BYTES = 2n ** 32n
const SLOTS = 4096
const GAP_BYTES = 2n ** 21n // between regions: an overrun faults
const MAP_ATTEMPTS = 16

/** What members say to each other about regions: JSON in a RegionControl blob. */
type RegionMessage =
  | { readonly type: 'open'; readonly question: number; readonly shape: RegionShape }
  | { readonly type: 'map'; readonly region: WireInfo }
  | { readonly type: 'mapped'; readonly id: number; readonly errno: number }
  | { readonly type: 'unmap'; readonly id: number }
  | { readonly type: 'opened'; readonly question: number; readonly region: WireInfo }
  | {
      readonly type: 'refused'
      readonly question: number
      readonly code: PagemeshErrorCode
      readonly message: string
      readonly rank?: number | undefined
    }
type WireInfo = RegionShape & { readonly id: number; readonly base: string }

/** A region at the coordinator. */
interface Known {
  readonly shape: RegionShape
  readonly openedBy: number
  readonly id: number
  base: bigint
  state: 'mapping' | 'open'
  attempts: number
  /** Who has not answered 'map' yet. */
  readonly awaited: Set<number>
  /** The errno of whoever could not map it in this attempt. */
  failure: { rank: number; errno: number } | undefined
  /** Who waits for it, with the number of their question. */
  openers: { rank: number; question: number }[]
}

/**
 * Opens regions by name. Any member may ask; the coordinator has every member map the region, at
 * one address, before anyone may use it, and compares the options of all who ask later.
 */
export class RegionOpening {
  private readonly known = new Map<string, Known>()
  /** The questions of this member's API that are not answered. */
  private readonly pending = new Set<number>()
  private nextBase = FIRST_BASE + BigInt(randomInt(SLOTS)) * SLOT_BYTES

  constructor(
    private readonly context: EngineContext,
    /** Maps the region here; 0 or errno. */
    private readonly map: (info: RegionInfo) => number,
    private readonly unmap: (id: number) => void,
    private readonly goneError: (rank: number, what: string) => PagemeshError,
  ) {}

  open(id: number, shape: RegionShape): void {
    this.pending.add(id)
    this.say(COORDINATOR, { type: 'open', question: id, shape })
  }

  /** Throws ERR_PAGEMESH_PROTOCOL if the blob is no region message. */
  onMessage(from: number, blob: Uint8Array): void {
    this.receive(from, parseMessage(from, blob))
  }

  /** Regions that are being mapped wait for every member: they cannot be opened any more. */
  memberGone(rank: number): void {
    for (const known of [...this.known.values()]) {
      if (known.state === 'mapping') this.giveUp(known, this.goneError(rank, 'a region'))
    }
  }

  failAll(error: PagemeshError): void {
    for (const id of this.pending) this.context.fail(id, error)
    this.pending.clear()
  }

  private say(to: number, message: RegionMessage): void {
    if (to === this.context.rank) {
      this.receive(to, message)
      return
    }
    const blob = new TextEncoder().encode(JSON.stringify(message))
    this.context.ring.sendBlob(to, Kind.RegionControl, blob)
  }

  private sayToAll(message: RegionMessage): void {
    for (let rank = this.context.size - 1; rank >= 0; rank--) this.say(rank, message)
  }

  private receive(from: number, message: RegionMessage): void {
    switch (message.type) {
      case 'open':
        return this.coordinateOpen(from, message.question, message.shape)
      case 'mapped':
        return this.coordinateMapped(from, message.id, message.errno)
      case 'map': {
        const errno = this.map(fromWire(message.region))
        return this.say(COORDINATOR, { type: 'mapped', id: message.region.id, errno })
      }
      case 'unmap':
        return this.unmap(message.id)
      case 'opened':
        if (!this.pending.delete(message.question)) return
        return this.context.answer(message.question, fromWire(message.region))
      case 'refused':
        if (!this.pending.delete(message.question)) return
        return this.context.fail(
          message.question,
          new PagemeshError(
            message.code,
            message.message,
            message.rank === undefined ? {} : { rank: message.rank },
          ),
        )
    }
  }

  private coordinateOpen(from: number, question: number, shape: RegionShape): void {
    const known = this.known.get(shape.name)
    if (known === undefined) return this.coordinateNew(from, question, shape)
    const difference = differenceBetween(known, shape)
    if (difference !== undefined) {
      return this.say(from, {
        type: 'refused',
        question,
        code: 'ERR_PAGEMESH_REGION_MISMATCH',
        message: `region '${shape.name}': ${difference}`,
      })
    }
    if (known.state === 'mapping') known.openers.push({ rank: from, question })
    else this.say(from, { type: 'opened', question, region: toWire(known) })
  }

  private coordinateNew(from: number, question: number, shape: RegionShape): void {
    if (this.known.size >= MAX_REGIONS) {
      return this.say(from, {
        type: 'refused',
        question,
        code: 'ERR_PAGEMESH_REGION_FAILED',
        message: `region '${shape.name}': a mesh has at most ${MAX_REGIONS} regions`,
      })
    }
    const known: Known = {
      shape,
      openedBy: from,
      id: this.freeId(),
      base: 0n,
      state: 'mapping',
      attempts: 0,
      awaited: new Set(),
      failure: undefined,
      openers: [{ rank: from, question }],
    }
    this.known.set(shape.name, known)
    this.tryMap(known)
  }

  private freeId(): number {
    const taken = new Set([...this.known.values()].map(({ id }) => id))
    for (let id = 0; ; id++) if (!taken.has(id)) return id
  }

  private tryMap(known: Known): void {
    known.attempts++
    known.failure = undefined
    known.base = this.nextBase
    const { byteLength, pageBytes } = known.shape
    const length = BigInt(Math.ceil(byteLength / pageBytes) * pageBytes)
    this.nextBase += ((length + GAP_BYTES - 1n) / GAP_BYTES + 1n) * GAP_BYTES
    for (let rank = 0; rank < this.context.size; rank++) known.awaited.add(rank)
    this.sayToAll({ type: 'map', region: toWire(known) })
  }

  private coordinateMapped(from: number, id: number, errno: number): void {
    const known = [...this.known.values()].find((other) => other.id === id)
    if (known?.awaited.delete(from) !== true) return // given up meanwhile
    if (errno !== 0) known.failure = { rank: from, errno }
    if (known.awaited.size > 0) return
    if (known.failure === undefined) {
      known.state = 'open'
      for (const { rank, question } of known.openers) {
        this.say(rank, { type: 'opened', question, region: toWire(known) })
      }
      known.openers = []
      return
    }
    this.sayToAll({ type: 'unmap', id })
    if (known.failure.errno === constants.errno.EEXIST && known.attempts < MAP_ATTEMPTS) {
      // Something stands there in one of the members: somewhere else.
      this.nextBase = FIRST_BASE + BigInt(randomInt(SLOTS)) * SLOT_BYTES
      return this.tryMap(known)
    }
    const { rank } = known.failure
    const overLimit = known.failure.errno === constants.errno.EPERM
    const advice = overLimit
      ? 'RDMA locks memory, and this is more than its limit (ulimit -l): raise that, or use TCP'
      : "make it smaller, or raise that member's limits (ulimit -v, ulimit -n, " +
        'vm.overcommit_memory)'
    const error = new PagemeshError(
      'ERR_PAGEMESH_REGION_FAILED',
      `region '${known.shape.name}' of ${known.shape.byteLength} bytes cannot be mapped at rank ` +
        `${rank}: ${errnoName(known.failure.errno)}; ${advice}`,
      { rank },
    )
    this.giveUp(known, error)
  }

  private giveUp(known: Known, error: PagemeshError): void {
    this.known.delete(known.shape.name)
    const { code, message, rank: about } = error
    for (const { rank, question } of known.openers) {
      this.say(rank, { type: 'refused', question, code, message, rank: about })
    }
  }
}

function errnoName(errno: number): string {
  const found = Object.entries(constants.errno).find(([, value]) => value === errno)
  return found?.[0] ?? `errno ${errno}`
}

function describe(placement: Placement): string {
  return typeof placement === 'object' ? `{ rank: ${placement.rank} }` : `'${placement}'`
}

function differenceBetween(known: Known, shape: RegionShape): string | undefined {
  const there = known.shape
  const by = `as rank ${known.openedBy} opened it`
  if (there.byteLength !== shape.byteLength) {
    return `byteLength is ${there.byteLength} ${by}, and ${shape.byteLength} here`
  }
  if (there.pageBytes !== shape.pageBytes) {
    return `pageBytes is ${there.pageBytes} ${by}, and ${shape.pageBytes} here`
  }
  const [theirs, ours] = [describe(there.placement), describe(shape.placement)]
  return theirs === ours ? undefined : `placement is ${theirs} ${by}, and ${ours} here`
}

function toWire(known: Known): WireInfo {
  return { ...known.shape, id: known.id, base: known.base.toString() }
}

function fromWire(wire: WireInfo): RegionInfo {
  const pageCount = Math.ceil(wire.byteLength / wire.pageBytes)
  const { name, byteLength, pageBytes, placement, id } = wire
  return { name, byteLength, pageBytes, placement, id, pageCount, base: BigInt(wire.base) }
}

// What a peer says is checked before it is believed.

type Fields = Readonly<Record<string, unknown>>

function parseMessage(from: number, blob: Uint8Array): RegionMessage {
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(blob))
  } catch {
    value = undefined
  }
  if (!isRegionMessage(value) || !mayCome(from, value)) {
    throw new PagemeshError(
      'ERR_PAGEMESH_PROTOCOL',
      `rank ${from} sent a message about regions that cannot be read`,
      { rank: from },
    )
  }
  return value
}

/** Only the coordinator decides. */
const mayCome = (from: number, message: RegionMessage): boolean =>
  from === COORDINATOR || message.type === 'open' || message.type === 'mapped'

function isRegionMessage(value: unknown): value is RegionMessage {
  if (!isFields(value)) return false
  switch (value.type) {
    case 'open':
      return isQuestion(value.question) && isShape(value.shape)
    case 'map':
      return isInfo(value.region)
    case 'opened':
      return isQuestion(value.question) && isInfo(value.region)
    case 'mapped':
      return isIndex(value.id, MAX_REGIONS) && isIndex(value.errno, 4096)
    case 'unmap':
      return isIndex(value.id, MAX_REGIONS)
    case 'refused':
      return (
        isQuestion(value.question) &&
        [value.code, value.message].every((field) => typeof field === 'string') &&
        (value.rank === undefined || isIndex(value.rank, 32))
      )
    default:
      return false
  }
}

const isFields = (value: unknown): value is Fields => typeof value === 'object' && value !== null

const isIndex = (value: unknown, limit: number): boolean =>
  typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < limit

const isQuestion = (value: unknown): boolean => isIndex(value, Number.MAX_SAFE_INTEGER)

function isShape(value: unknown): boolean {
  if (!isFields(value)) return false
  const { name, byteLength, pageBytes, placement } = value
  const pages = Number(byteLength) / Number(pageBytes)
  return (
    typeof name === 'string' &&
    name.length > 0 &&
    Buffer.byteLength(name) <= 255 &&
    isIndex(byteLength, Number.MAX_SAFE_INTEGER) &&
    isPageSize(pageBytes) &&
    pages > 0 &&
    pages < 2 ** 32 &&
    isPlacement(placement)
  )
}

/** A power of two that the MMU may work with; mapping checks it against this machine's pages. */
function isPageSize(value: unknown): boolean {
  return (
    isIndex(value, 2 ** 20 + 1) &&
    Number(value) >= 4096 &&
    Number.isInteger(Math.log2(Number(value)))
  )
}

function isPlacement(value: unknown): boolean {
  return value === 'block' || value === 'cyclic' || (isFields(value) && isIndex(value.rank, 32))
}

function isInfo(value: unknown): boolean {
  if (!isShape(value)) return false
  const { id, base } = value as Fields
  return isIndex(id, MAX_REGIONS) && typeof base === 'string' && /^[0-9]{1,20}$/.test(base)
}
