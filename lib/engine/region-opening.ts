import { randomInt } from 'node:crypto'
import { constants } from 'node:os'
import { PagemeshError } from '../errors.js'
import { Kind } from '../protocol/messages.js'
import type { Placement } from '../protocol/placement.js'
import type { OpenedRegion, RegionInfo, RegionShape } from './commands.js'
import type { EngineContext } from './context.js'
import {
  COORDINATOR,
  MAX_REGIONS,
  parseMessage,
  type RegionMessage,
  type WireInfo,
  type WireKey,
} from './region-messages.js'
import type { WordsKey } from '../native/addon.js'

// Addresses that are free in every process on x86-64 and aarch64 with 47 bits and more: above what
// V8 picks at random (below 2^46), below where programs are loaded (0x55…).
const FIRST_BASE = 0x4100_0000_0000n
const SLOT_BYTES = 2n ** 32n
const SLOTS = 4096
const GAP_BYTES = 2n ** 21n // between regions: an overrun faults
const MAP_ATTEMPTS = 16

/** A region at the coordinator. */
interface Known {
  readonly shape: RegionShape
  readonly openedBy: number
  readonly id: number
  base: bigint
  state: 'mapping' | 'agreeing' | 'open'
  attempts: number
  /** Who has not answered 'map', or 'agree', yet. */
  readonly awaited: Set<number>
  /** Where the members that have mapped it let words be changed by RDMA; by rank. */
  readonly keys: Map<number, WireKey>
  /** The errno of whoever could not map it in this attempt. */
  failure: { rank: number; errno: number } | undefined
  /** Who waits for it, with the number of their question. */
  openers: { rank: number; question: number }[]
}

/** What opening a region makes this member do. */
export interface RegionHost {
  /** Maps the region; gives an errno, and for atomic words where RDMA may change them. */
  map(info: RegionInfo): { readonly errno: number; readonly key?: WordsKey | undefined }
  unmap(id: number): void
  /** All members change the words of this region by RDMA, with these keys, or nobody does. */
  agree(id: number, keys: readonly WordsKey[] | undefined): void
  /** Whether RDMA changes the region's words. */
  usesRdma(id: number): boolean
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
    private readonly host: RegionHost,
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
      if (known.state !== 'open') this.giveUp(known, this.goneError(rank, 'a region'))
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
        return this.coordinateMapped(from, message.id, message.errno, message.key)
      case 'map': {
        const { errno, key } = this.host.map(fromWire(message.region))
        const wireKey = key && { rkey: key.rkey, address: key.address.toString() }
        return this.say(COORDINATOR, { type: 'mapped', id: message.region.id, errno, key: wireKey })
      }
      case 'agree':
        this.host.agree(message.id, message.keys?.map(keyFromWire))
        return this.say(COORDINATOR, { type: 'agreed', id: message.id })
      case 'agreed':
        return this.coordinateAgreed(from, message.id)
      case 'unmap':
        return this.host.unmap(message.id)
      case 'opened': {
        if (!this.pending.delete(message.question)) return
        const info = fromWire(message.region)
        const opened: OpenedRegion = {
          ...info,
          wordsBy: this.host.usesRdma(info.id) ? 'rdma' : 'home',
        }
        return this.context.answer(message.question, opened)
      }
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
    if (known.state !== 'open') known.openers.push({ rank: from, question })
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
      keys: new Map(),
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
    known.keys.clear()
    known.base = this.nextBase
    const { byteLength, pageBytes } = known.shape
    const length = BigInt(Math.ceil(byteLength / pageBytes) * pageBytes)
    this.nextBase += ((length + GAP_BYTES - 1n) / GAP_BYTES + 1n) * GAP_BYTES
    this.askAll(known, { type: 'map', region: toWire(known) })
  }

  private askAll(known: Known, message: RegionMessage): void {
    for (let rank = 0; rank < this.context.size; rank++) known.awaited.add(rank)
    this.sayToAll(message)
  }

  private knownById(id: number): Known | undefined {
    return [...this.known.values()].find((known) => known.id === id)
  }

  private coordinateMapped(
    from: number,
    id: number,
    errno: number,
    key: WireKey | undefined,
  ): void {
    const known = this.knownById(id)
    if (known?.state !== 'mapping' || !known.awaited.delete(from)) return // given up meanwhile
    if (errno !== 0) known.failure = { rank: from, errno }
    if (key !== undefined) known.keys.set(from, key)
    if (known.awaited.size > 0) return
    if (known.failure !== undefined) this.coordinateFailure(known, known.failure)
    else if (known.shape.words === 'atomic') this.coordinateWords(known)
    else this.coordinateOpened(known)
  }

  /** Words are changed in one way by everybody, which everybody must know before anyone does it. */
  private coordinateWords(known: Known): void {
    const keys = Array.from({ length: this.context.size }, (_, rank) => known.keys.get(rank))
    const complete = keys.every((key) => key !== undefined)
    known.state = 'agreeing'
    this.askAll(known, { type: 'agree', id: known.id, keys: complete ? keys : null })
  }

  private coordinateAgreed(from: number, id: number): void {
    const known = this.knownById(id)
    if (known?.state !== 'agreeing' || !known.awaited.delete(from)) return // given up meanwhile
    if (known.awaited.size === 0) this.coordinateOpened(known)
  }

  private coordinateOpened(known: Known): void {
    known.state = 'open'
    for (const { rank, question } of known.openers) {
      this.say(rank, { type: 'opened', question, region: toWire(known) })
    }
    known.openers = []
  }

  private coordinateFailure(known: Known, failure: { rank: number; errno: number }): void {
    const { id } = known
    this.sayToAll({ type: 'unmap', id })
    if (failure.errno === constants.errno.EEXIST && known.attempts < MAP_ATTEMPTS) {
      // Something stands there in one of the members: somewhere else.
      this.nextBase = FIRST_BASE + BigInt(randomInt(SLOTS)) * SLOT_BYTES
      return this.tryMap(known)
    }
    const { rank } = failure
    const overLimit = failure.errno === constants.errno.EPERM
    const advice = overLimit
      ? 'RDMA locks memory, and this is more than its limit (ulimit -l): raise that, or use TCP'
      : "make it smaller, or raise that member's limits (ulimit -v, ulimit -n, " +
        'vm.overcommit_memory)'
    const error = new PagemeshError(
      'ERR_PAGEMESH_REGION_FAILED',
      `region '${known.shape.name}' of ${known.shape.byteLength} bytes cannot be mapped at rank ` +
        `${rank}: ${errnoName(failure.errno)}; ${advice}`,
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
  if (there.words !== shape.words)
    return `words are '${there.words}' ${by}, and '${shape.words}' here`
  if (there.prefetch !== shape.prefetch) {
    return `prefetch is '${there.prefetch}' ${by}, and '${shape.prefetch}' here`
  }
  const [theirs, ours] = [describe(there.placement), describe(shape.placement)]
  return theirs === ours ? undefined : `placement is ${theirs} ${by}, and ${ours} here`
}

function toWire(known: Known): WireInfo {
  return { ...known.shape, id: known.id, base: known.base.toString() }
}

function fromWire(wire: WireInfo): RegionInfo {
  const pageCount = Math.ceil(wire.byteLength / wire.pageBytes)
  const { name, byteLength, pageBytes, placement, words, prefetch, id } = wire
  const base = BigInt(wire.base)
  return { name, byteLength, pageBytes, placement, words, prefetch, id, pageCount, base }
}

function keyFromWire({ rkey, address }: WireKey): WordsKey {
  return { rkey, address: BigInt(address) }
}
