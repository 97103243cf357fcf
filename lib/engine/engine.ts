import { constants } from 'node:os'
import { receiveMessageOnPort } from 'node:worker_threads'
import { PagemeshError } from '../errors.js'
import { type Addon, loadAddon, type WordsKey } from '../native/addon.js'
import { Kind, Word } from '../protocol/messages.js'
import { closeReason } from './close-reasons.js'
import type { Command, EngineData, RegionInfo } from './commands.js'
import { JOIN_ID } from './commands.js'
import type { EngineContext } from './context.js'
import { EngineRegion, NEVER_MS } from './engine-region.js'
import { Joining } from './joining.js'
import { Links, type TransportReport } from './links.js'
import { Members } from './members.js'
import { Pin, Prefetch } from './range-operations.js'
import { RdmaWords } from './rdma-words.js'
import { RegionOpening } from './region-opening.js'
import { EventKind, Ring, whole } from './ring.js'
import { Synchronization } from './synchronization.js'
import { type WordHost, WordOperations } from './word-operations.js'
import { WordRegion } from './word-region.js'
import { PlacementCode } from '../protocol/placement.js'

/**
 * A pinned range costs two mappings that parking cannot get back; half of all are left for what is
 * not pinned.
 */
const BOUNDARIES_PER_PIN = 4

/** How many messages about regions may come before this member's links are settled. */
const MAX_EARLY_MESSAGES = 1024

/** How long one wait lasts at most; heartbeats and time-outs are looked at between waits. */
const HEARTBEATS_PER_TIMEOUT = 5

/**
 * The engine: one loop on a thread of its own that waits in native code, steps the protocol, and
 * hands the resulting actions to native code with the next wait. It never touches a page through
 * the protected mapping, and never waits for an application thread.
 */
export class Engine implements EngineContext {
  readonly addon: Addon = loadAddon()
  readonly session: number
  readonly rank: number
  readonly size: number
  readonly ring: Ring
  private readonly data: EngineData
  private readonly members: Members
  private readonly joining: Joining
  private readonly regions: (EngineRegion | undefined)[] = []
  private readonly wordRegions: (WordRegion | undefined)[] = []
  private readonly opening: RegionOpening
  /** What members have said of regions before this one's links were settled; undefined since. */
  private early: { from: number; blob: Uint8Array }[] | undefined = []
  /** All other members are reached by links, as far as this member knows. */
  private linkedToAll = false
  private readonly sync: Synchronization
  private readonly pins = new Map<number, Pin>()
  private readonly maxPins: number
  private readonly words: WordOperations
  /** The event in hand, for `recordWord`. */
  private eventAt = 0
  /** The words of its record, a, b, c … One function for all events: none is made for each. */
  private readonly recordWord = (offset: number): number =>
    this.ring.record(this.eventAt, Word.a + offset)
  private readonly rdmaWords: RdmaWords
  private readonly links: Links
  /** Prefetches, pins and word operations that have not been answered. */
  private readonly operations = new Set<number>()
  private failure: PagemeshError | undefined
  private leaveId: number | undefined
  private running = true
  private nextBeatMs: number
  private readonly beatMs: number
  nowMs = 0
  /** In how many ms a page that waits for a thread to touch it is taken away all the same. */
  private resumeInMs: number = NEVER_MS
  /** The first `resumingCount` are regions that hold pages until threads have touched them. */
  private readonly resuming: (EngineRegion | undefined)[] = []
  private resumingCount = 0

  constructor(data: EngineData) {
    this.data = data
    this.session = data.session
    this.rank = data.rank
    this.size = data.size
    const { mapBoundaryLimit } = this.addon.probe() // settled when the session began
    this.maxPins = Math.floor(mapBoundaryLimit / BOUNDARIES_PER_PIN)
    this.members = new Members(data.size, data.rank, this.nowMs)
    this.ring = new Ring(this.addon, data.session, () => this.members.view)
    const goneError = (rank: number, what: string): PagemeshError =>
      this.members.errorFor(rank, what, !this.members.isUp(rank))
    this.sync = new Synchronization(this, goneError, data.tokens, data.barrierWords, () =>
      this.addon.ringProgram(this.session),
    )
    this.opening = new RegionOpening(
      this,
      {
        map: (info) => this.mapRegion(info),
        unmap: (id) => this.unmapRegion(id),
        agree: (id, keys) => this.agreeOnWords(id, keys),
        usesRdma: (id) => this.wordRegions[id]?.usesRdma === true,
      },
      goneError,
    )
    this.beatMs = Math.ceil(data.heartbeatTimeoutMs / HEARTBEATS_PER_TIMEOUT)
    this.nextBeatMs = this.nowMs + this.beatMs
    this.joining = new Joining(this, data, (error) => this.onJoined(error))
    this.words = new WordOperations(this)
    this.rdmaWords = new RdmaWords(this)
    this.links = new Links(
      this,
      { policy: data.transport, host: data.listen.host, device: data.rdmaDevice },
      (result) => this.onLinked(result),
    )
  }

  /** Runs until the mesh is left or native code says stop. */
  run(): void {
    this.joining.start()
    while (this.running) if (!this.runOnce()) return
    this.ring.flush()
  }

  /** Returns false once stopped. A function of its own, which V8 can replace by a faster one. */
  private runOnce(): boolean {
    const count = this.ring.exchange(this.timeoutMs(), this.resumeInMs < NEVER_MS)
    if (count < 0) return false
    this.nowMs = this.ring.nowMs
    this.onEvents(count)
    if (this.timerInMs() <= 0) this.onTimer()
    return true
  }

  answer(id: number, value: unknown): void {
    this.operations.delete(id)
    this.post({ id, value })
  }

  fail(id: number, error: PagemeshError): void {
    this.operations.delete(id)
    const { code, message, rank } = error
    this.post({ id, error: { code, message, rank } })
  }

  isUp(rank: number): boolean {
    return this.members.isUp(rank)
  }

  whyDown(rank: number): string {
    return this.members.reasonOf(rank)
  }

  isLeaving(): boolean {
    return this.leaveId !== undefined
  }

  private post(answer: unknown): void {
    this.data.port.postMessage(answer)
    Atomics.add(this.data.answered, 0, 1)
    Atomics.notify(this.data.answered, 0)
    this.addon.wake(this.session, true)
  }

  watchResuming(region: EngineRegion): void {
    for (let at = 0; at < this.resumingCount; at++) if (this.resuming[at] === region) return
    this.resuming[this.resumingCount++] = region
  }

  private releaseResumed(): void {
    this.resumeInMs = NEVER_MS
    for (let at = 0; at < this.resumingCount;) {
      const region = this.resuming[at]!
      this.resumeInMs = Math.min(this.resumeInMs, region.releaseResumed())
      if (region.isResuming()) at++
      else this.resuming[at] = this.resuming[--this.resumingCount]
    }
  }

  // Events.

  private onEvents(count: number): void {
    for (let next = 0; next < count;) {
      try {
        while (next < count) this.onEvent(next++)
      } catch (error) {
        this.blame(error, undefined)
      }
    }
    try {
      this.releaseResumed()
    } catch (error) {
      this.blame(error, undefined)
    }
  }

  private onEvent(index: number): void {
    const { ring } = this
    switch (ring.event(index, 0)) {
      case EventKind.message:
        return this.onRecord(index, ring.event(index, 1))
      case EventKind.fault: {
        const region = this.regions[ring.record(index, Word.region)]
        const access = ring.event(index, 1) === 2 ? 'write' : 'read'
        return region?.onFault(ring.record(index, Word.page), access, ring.event(index, 2))
      }
      case EventKind.wake:
        this.onCommands()
        return this.sync.lookAtBarriers()
      case EventKind.clusterFrame:
        return this.joining.received(ring.event(index, 1), ring.blob(index).slice())
      case EventKind.opened:
        return this.joining.opened(ring.event(index, 1))
      case EventKind.accepted:
        return this.joining.accepted(ring.event(index, 1))
      case EventKind.closed:
        return this.onClosed(ring.event(index, 1), ring.event(index, 2) - 1, ring.event(index, 3))
      case EventKind.word: {
        const before = whole(ring.event(index, 2), ring.event(index, 3))
        return this.rdmaWords.onResult(ring.event(index, 1), before)
      }
      case EventKind.linkProbed:
        return this.links.onProbed(ring.event(index, 1), ring.event(index, 2))
    }
  }

  /** A record from a member. What it says is checked; if it cannot be, the member is at fault. */
  private onRecord(index: number, from: number): void {
    if (!this.members.isUp(from)) return
    this.members.heard(from, this.nowMs)
    try {
      this.checkView(index, from)
      this.dispatch(index, from)
    } catch (error) {
      this.blame(error, from)
    }
  }

  /**
   * A step has found out that a member broke the protocol: ends that member's membership. Whatever
   * else was thrown is thrown on. The culprit is not always who sent the record in hand (`from`):
   * what a member sent earlier may have waited in a queue.
   */
  private blame(error: unknown, from: number | undefined): void {
    if (!(error instanceof PagemeshError) || error.code !== 'ERR_PAGEMESH_PROTOCOL') throw error
    const culprit = error.rank ?? from
    // Our own mistake, if nobody else's: the process cannot go on.
    if (culprit === undefined || culprit === this.rank) throw error
    this.memberDown(culprit, `it broke the protocol: ${error.message}`)
  }

  /**
   * A view is 1 when all have joined and rises by one with each other member that goes, so there
   * are as many as members. Within that a sender may be behind this member, or ahead of it.
   */
  private checkView(index: number, from: number): void {
    const view = this.ring.record(index, Word.view)
    if (view >= 1 && view <= this.size) return
    throw new PagemeshError(
      'ERR_PAGEMESH_PROTOCOL',
      `rank ${from} sent message ${this.ring.record(index, Word.kind)} of view ${view}, which a ` +
        `mesh of ${this.size} cannot have`,
      { rank: from },
    )
  }

  private dispatch(index: number, from: number): void {
    const { ring } = this
    const kind = ring.record(index, Word.kind)
    const word = this.recordWord
    this.eventAt = index
    switch (kind) {
      case Kind.Acquire:
      case Kind.Release:
      case Kind.Cancel:
      case Kind.SemaphoreReply:
      case Kind.TokenRecall:
      case Kind.TokenInUse:
      case Kind.TokenPassed:
      case Kind.BarrierArrive:
        return this.sync.onMessage(kind, from, word)
      case Kind.AtomicRequest:
        return this.words.onRequest(
          this.wordHostOf(index, from),
          ring.record(index, Word.page),
          from,
          word,
        )
      case Kind.AtomicReply:
        if (this.failure !== undefined) return // the question was failed already
        return this.words.onReply(from, word)
      case Kind.RegionControl:
        return this.onRegionControl(from, ring.blob(index))
      case Kind.LinkControl:
        return this.links.onMessage(from, ring.blob(index))
      case Kind.Heartbeat:
        return
      case Kind.Leaving:
        return this.onLeaving(from, word(0))
      default: {
        const region = this.regionOf(index, from)
        region.onMessage(kind, ring.record(index, Word.page), from, word(0), word(1))
      }
    }
  }

  private wordHostOf(index: number, from: number): WordHost {
    return this.wordRegions[this.ring.record(index, Word.region)] ?? this.regionOf(index, from)
  }

  private regionOf(index: number, from: number): EngineRegion {
    const id = this.ring.record(index, Word.region)
    const region = this.regions[id]
    if (region !== undefined) return region
    if (this.wordRegions[id] !== undefined) {
      throw new PagemeshError('ERR_PAGEMESH_PROTOCOL', `region ${id} has words and no pages`)
    }
    throw new PagemeshError(
      'ERR_PAGEMESH_PROTOCOL',
      `rank ${from} sent message ${this.ring.record(index, Word.kind)} about region ${id}, ` +
        'which does not exist',
      { rank: from },
    )
  }

  private onClosed(connection: number, rank: number, reason: number): void {
    const why = closeReason(reason)
    this.joining.closed(connection, why)
    if (rank === this.rank) return this.onOwnLinkFailed(why)
    if (rank < 0 || !this.members.isUp(rank)) return
    if (this.members.isLeaving(rank) && this.isLeaving()) this.memberGone(rank)
    else this.memberDown(rank, why)
  }

  // Members.

  private onJoined(error: PagemeshError | undefined): void {
    this.members.heardAll(this.nowMs)
    if (error === undefined) return this.links.start()
    this.ring.flush()
    this.fail(JOIN_ID, error)
    this.running = false
  }

  private onLinked(result: TransportReport | PagemeshError): void {
    if (result instanceof PagemeshError) {
      this.ring.flush()
      this.fail(JOIN_ID, result)
      this.running = false
      return
    }
    this.linkedToAll = result.transport === 'verbs'
    const early = this.early ?? []
    this.early = undefined
    for (const { from, blob } of early) {
      try {
        this.opening.onMessage(from, blob)
      } catch (error) {
        this.blame(error, from)
      }
    }
    this.answer(JOIN_ID, result)
  }

  /** Whoever is quicker may open a region before this member knows whether it has all its links. */
  private onRegionControl(from: number, blob: Uint8Array): void {
    if (this.early === undefined) return this.opening.onMessage(from, blob)
    if (this.early.length === MAX_EARLY_MESSAGES) {
      throw new PagemeshError('ERR_PAGEMESH_PROTOCOL', 'too many messages about regions')
    }
    this.early.push({ from, blob: blob.slice() })
  }

  /** The queue pair through which this member changes words of its own is of no use any more. */
  private onOwnLinkFailed(why: string): void {
    const error = new PagemeshError(
      'ERR_PAGEMESH_MEMBER_DOWN',
      `rank ${this.rank} cannot change its own words any more: ${why}`,
      { rank: this.rank },
    )
    this.failure ??= error
    this.failAll(error)
  }

  /** A member is gone without a word: nothing that needs all members can complete any more. */
  private memberDown(rank: number, reason: string): void {
    if (!this.members.isUp(rank)) return
    this.members.markDown(rank, reason)
    this.addon.setView(this.session, this.members.view)
    this.joining.disconnect(rank)
    const error = this.members.errorFor(rank, 'what was asked of the mesh', true)
    this.failure ??= error
    this.failAll(error)
    this.sync.memberDown(rank)
    this.opening.memberGone(rank)
    this.links.memberGone(rank)
    for (const region of this.regions) region?.memberDown(rank)
    this.checkLeft()
  }

  /** A member that had said that it leaves has closed its connection, and so will this one. */
  private memberGone(rank: number): void {
    this.members.markGone(rank)
    this.addon.setView(this.session, this.members.view)
    for (const region of this.regions) region?.memberDown(rank)
    this.checkLeft()
  }

  private failAll(error: PagemeshError): void {
    this.sync.failAll(error)
    this.opening.failAll(error)
    this.words.forgetAll()
    this.rdmaWords.forgetAll()
    for (const id of [...this.operations]) {
      this.pins.get(id)?.release() // not complete, so nobody will
      this.pins.delete(id)
      this.fail(id, error)
    }
  }

  private onLeaving(from: number, lost: number): void {
    if (!(lost >= 0 && lost <= this.size) || lost === from + 1 || lost === this.rank + 1) {
      throw new PagemeshError(
        'ERR_PAGEMESH_PROTOCOL',
        `rank ${from} leaves, and says that rank ${lost - 1} is down, which cannot be`,
        { rank: from },
      )
    }
    this.members.markLeaving(from, lost === 0 ? undefined : lost - 1)
    this.sync.memberLeft(from)
    this.opening.memberGone(from)
    this.checkLeft()
  }

  private leave(id: number): void {
    this.leaveId = id
    for (const pin of this.pins.values()) pin.release() // others may wait for these pages
    this.pins.clear()
    this.members.markLeaving(this.rank)
    this.sync.leave(new PagemeshError('ERR_PAGEMESH_LEFT', 'the mesh has been left'))
    const lost = this.members.lostRank() ?? -1
    for (const rank of this.members.others()) this.ring.send(rank, Kind.Leaving, 0, 0, lost + 1)
    this.checkLeft()
  }

  /** Everybody keeps serving pages until the last has called leave. */
  private checkLeft(): void {
    if (this.leaveId === undefined || !this.members.allLeaving() || !this.running) return
    this.running = false
    this.joining.close()
    this.ring.flush()
    this.answer(this.leaveId, undefined)
  }

  // Time.

  /** In whole milliseconds: a fraction would be an object of its own, made for each exchange. */
  private timerInMs(): number {
    const joinMs = this.joining.deadlineMs ?? this.nextBeatMs
    return Math.min(joinMs, this.nextBeatMs) - this.nowMs
  }

  private timeoutMs(): number {
    return Math.max(0, Math.min(this.timerInMs(), this.resumeInMs))
  }

  private onTimer(): void {
    this.joining.tick(this.nowMs)
    if (this.nowMs < this.nextBeatMs) return
    const lateMs = this.nowMs - this.nextBeatMs
    this.nextBeatMs = this.nowMs + this.beatMs
    if (!this.joining.joined) return
    for (const rank of this.members.others()) this.ring.send(rank, Kind.Heartbeat, 0, 0)
    // A process that was stopped finds everyone silent: give them time to be heard again.
    if (lateMs > this.beatMs) return this.members.heardAll(this.nowMs)
    for (const rank of [...this.members.others()]) {
      const silentMs = this.nowMs - this.members.silentSince(rank)
      if (silentMs <= this.data.heartbeatTimeoutMs) continue
      this.memberDown(rank, `nothing was heard of it for ${Math.round(silentMs)} ms`)
    }
  }

  // Regions.

  private mapRegion(info: RegionInfo): { errno: number; key?: WordsKey | undefined } {
    const taken = this.regions[info.id] ?? this.wordRegions[info.id]
    if (taken !== undefined) return { errno: constants.errno.EEXIST }
    const { placement } = info
    const fixed = typeof placement === 'object'
    if (fixed && placement.rank >= this.size) return { errno: constants.errno.EINVAL }
    if (info.words === 'atomic') return this.mapWords(info)
    const errno = this.addon.mapRegion(
      this.session,
      info.id,
      info.pageBytes,
      info.pageCount,
      info.base,
      fixed ? PlacementCode.fixed : PlacementCode[placement],
      fixed ? placement.rank : 0,
      info.prefetch === 'auto',
    )
    if (errno === 0) this.regions[info.id] = new EngineRegion(this, info)
    return { errno }
  }

  private mapWords(info: RegionInfo): { errno: number; key?: WordsKey | undefined } {
    try {
      const region = new WordRegion(this, info, this.linkedToAll)
      this.wordRegions[info.id] = region
      return { errno: 0, key: region.key }
    } catch (error) {
      const { errno } = error as { errno?: number }
      if (errno === undefined) throw error
      return { errno }
    }
  }

  private agreeOnWords(id: number, keys: readonly WordsKey[] | undefined): void {
    const region = this.wordRegions[id]
    if (region !== undefined) return region.agree(keys)
    throw new PagemeshError('ERR_PAGEMESH_PROTOCOL', `region ${id} has no atomic words`)
  }

  private unmapRegion(id: number): void {
    this.ring.flush() // nothing queued may speak of it
    this.regions[id] = undefined
    this.wordRegions[id] = undefined
    this.addon.unmapRegion(this.session, id)
  }

  // Commands of the API.

  private onCommands(): void {
    for (;;) {
      const received: { message: Command } | undefined = receiveMessageOnPort(this.data.port)
      if (received === undefined) return
      this.onCommand(received.message)
    }
  }

  private onCommand(command: Command): void {
    switch (command.op) {
      case 'leave':
        return this.leave(command.id)
      case 'release':
        if (this.failure !== undefined) return
        return this.sync.release(command.key, command.request, command.passed)
      case 'cancel':
        return this.sync.cancel(command.id)
      case 'tellArrival':
        return this.sync.tellArrivals(command.key, command.ranks)
      case 'unpin':
        this.pins.get(command.pin)?.release()
        this.pins.delete(command.pin)
        return
      case 'region':
      case 'barrier':
      case 'awaitBarrier':
      case 'acquire':
      case 'atomic':
      case 'prefetch':
      case 'pin':
      case 'discard':
        if (this.failure !== undefined) return this.fail(command.id, this.failure)
        return this.onQuestion(command)
    }
  }

  private onQuestion(
    command: Exclude<Command, { op: 'leave' | 'release' | 'cancel' | 'tellArrival' | 'unpin' }>,
  ): void {
    switch (command.op) {
      case 'region':
        return this.opening.open(command.id, command.shape)
      case 'barrier':
        return this.sync.arrive(command.id, command.key, command.name, command.slot)
      case 'awaitBarrier': {
        const { id, name, slot, ticket } = command
        return this.sync.awaitBarrier(id, name, slot, ticket)
      }
      case 'acquire': {
        const { id, key, name, permits, mode, slot, ticket } = command
        return this.sync.acquire(id, key, name, permits, mode, slot, ticket)
      }
      case 'atomic':
        return this.onWordOperation(command)
      case 'prefetch':
      case 'pin':
      case 'discard':
        return this.onRange(command)
    }
  }

  private onRange(command: Extract<Command, { op: 'prefetch' | 'pin' | 'discard' }>): void {
    const region = this.regions[command.region]
    if (region === undefined) return this.fail(command.id, noRegion(command.region))
    const { id, firstPage, pageCount, access } = command
    this.operations.add(id)
    const done = (error: PagemeshError | undefined): void => {
      if (!this.operations.has(id)) return // failed meanwhile
      if (error !== undefined) return this.fail(id, error)
      this.ring.flush() // the pages are raised before the caller hears of it
      this.answer(id, undefined)
    }
    if (command.op === 'prefetch') {
      new Prefetch(region, firstPage, pageCount, access, done).start()
    } else if (command.op === 'pin') {
      if (this.pins.size >= this.maxPins) return done(tooManyPins(this.maxPins))
      const pin = new Pin(region, firstPage, pageCount, access, done)
      this.pins.set(id, pin)
      pin.start()
    } else {
      this.releaseResumed() // pages held for threads that have touched them by now
      region.discard(firstPage, pageCount)
      done(undefined)
    }
  }

  private onWordOperation(command: Extract<Command, { op: 'atomic' }>): void {
    const words = this.wordRegions[command.region]
    const region = words ?? this.regions[command.region]
    if (region === undefined) return this.fail(command.id, noRegion(command.region))
    this.operations.add(command.id)
    if (words?.usesRdma === true) this.rdmaWords.start(command, words)
    else this.words.start(command, region)
  }
}

function tooManyPins(most: number): PagemeshError {
  return new PagemeshError(
    'ERR_PAGEMESH_OUT_OF_RANGE',
    `at most ${most} ranges can be pinned at a time: release some, pin larger ranges, or raise ` +
      'vm.max_map_count',
  )
}

function noRegion(id: number): PagemeshError {
  return new PagemeshError(
    'ERR_PAGEMESH_PROTOCOL',
    `region ${id} was never mapped here, though rank 0 said so`,
    { rank: 0 },
  )
}
