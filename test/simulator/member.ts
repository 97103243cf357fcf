import { LockTokens, type TokenPlace } from '../../dist/api/lock-tokens.js'
import type { PagemeshError } from '../../dist/errors.js'
import type { AcquireResult } from '../../dist/engine/commands.js'
import type { EngineContext } from '../../dist/engine/context.js'
import { Members } from '../../dist/engine/members.js'
import { Synchronization } from '../../dist/engine/synchronization.js'
import { RegionCoherence } from '../../dist/protocol/coherence.js'
import { ENTRY_BUSY, ENTRY_CLOSED, EntryState } from '../../dist/protocol/directory.js'
import { Kind } from '../../dist/protocol/messages.js'
import {
  PAGE_DIRECT,
  PAGE_HELD,
  PAGE_PENDING,
  PageState,
  permits,
  stateName,
} from '../../dist/protocol/page-table.js'
import type { Next } from '../../dist/protocol/semaphores.js'
import type { CoherenceSink } from '../../dist/protocol/sink.js'
import { NO_SLOT, TOKEN_SLOTS, WORDS_PER_TOKEN } from '../../dist/protocol/token-words.js'
import type { Message } from './message.js'
import { describe, isPageKind } from './message.js'
import type { Program, Result, Step } from './programs.js'
import type { World } from './world.js'

export type Access = 'read' | 'write'
/** What the MMU enforces; bits as in a page's state. */
export const Mmu = { none: 0, read: 1, write: 3 } as const

const REGION = 7
const HIGH = 2 ** 32
const UNSENT = 0.1 // how often a transport does not take a record at once
const ACCEPTS_DATA = 0x80 // native/memory/page_state.h
const EXPECTS_WRITE_BACK = 0x80 // native/binding/session.cc
const NATIVE_MEMBERS = 32 // native code knows the sharers word only

// What things take, in nanoseconds: of the right order, and drawn at random around that.
const ENGINE_WAKE_NS = 8_000
const THREAD_WAKE_NS = 8_000
const STEP_NS = 700
const TRAP_NS = 1_500
const TOUCH_NS = 100
/** Nobody, as a control word has it. */
const NOBODY_HERE = 0xff
const ADD_NS = 200
const COPY_NS = 1_000
const RESUME_HOLD_NS = 4e6 // lib/engine/engine-region.ts

/** A thread of the program: it may be stopped in a fault, or wait for the engine. */
export interface Thread {
  readonly program: Program
  state: 'running' | 'asleep' | 'waiting' | 'done'
  page: number
  access: Access
  /** When what it is at now began. */
  sinceNs: number
  faulted: boolean
  hop: number
  step: Step
  /** Where the token of the lock is that it has, or asks for. */
  place?: TokenPlace | undefined
}

type Task = () => void
interface Action {
  readonly page: number
  /** What the MMU is to allow; undefined: only wake. */
  readonly access: number | undefined
  readonly invalidated: boolean
}

const OPEN_MASK = ENTRY_CLOSED | ENTRY_BUSY | 0xff
const REQUEST_OF: ReadonlyMap<number, number> = new Map([
  [PageState.reading, Kind.ReadRequest],
  [PageState.writing, Kind.WriteRequest],
  [PageState.upgrading, Kind.UpgradeRequest],
])
const ANSWERS: ReadonlyMap<number, number> = new Map([
  [PageState.reading, Kind.Data],
  [PageState.writing, Kind.DataExclusive],
  [PageState.upgrading, Kind.Grant],
])

/**
 * One member: the real tables, the real synchronization, and around them what lib/engine/ and the
 * native code do: batches of events, protections before sends, threads that fault, frames, pages
 * held until a thread has touched them.
 */
export class Member implements CoherenceSink {
  alive = true
  stoppedUntilNs = 0
  /** Everything that this member does takes so many times as long. */
  slowness = 1
  readonly members: Members
  readonly states: Uint8Array
  readonly mmu: Uint8Array
  /** For each page, the number of the write whose contents are in the frame. */
  readonly frames: Float64Array
  readonly coherence: RegionCoherence
  readonly sync: Synchronization
  /** Tickets need not be hard to guess here. */
  private nextTicket = 1
  /** Questions that were answered by a token that came to the thread, and not to its engine. */
  private readonly tookItself = new Set<number>()
  /** Of the program's threads, which all belong to one thread of the real API. */
  private readonly tokens: LockTokens
  private readonly tokenWords: Int32Array
  readonly threads: Thread[] = []
  failure: PagemeshError | undefined
  private readonly directory: Uint32Array
  private inbox: Message[] = []
  private tasks: Task[] = []
  private woken = false
  private busy = false
  private actions: Action[] = []
  private opens: number[] = []
  private sends: Omit<Message, 'view'>[] = []
  private given: number[] = []
  /** Pages held until threads that were woken for them have touched them, and until when. */
  private readonly resuming = new Map<number, number>()
  /** The hop of what the engine is at. */
  private hop = 0
  /** By the id of a question to `sync`: who waits for the answer. */
  private readonly questions = new Map<number, Thread>()
  private nextQuestion = 1

  constructor(
    private readonly world: World,
    readonly rank: number,
  ) {
    const { homes, settings } = world
    this.members = new Members(settings.members, rank, 0)
    this.states = new Uint8Array(settings.pages)
    this.mmu = new Uint8Array(settings.pages)
    this.frames = new Float64Array(settings.pages)
    this.directory = new Uint32Array(2 * homes.countAt(rank))
    const { states, directory } = this
    this.coherence = new RegionCoherence({
      region: REGION,
      rank,
      homes,
      states,
      directory,
      sink: this,
    })
    const words = new Int32Array(WORDS_PER_TOKEN * TOKEN_SLOTS)
    this.tokenWords = words
    this.sync = new Synchronization(
      this.context(),
      (gone, what, down = true) => this.members.errorFor(gone, what, down),
      words,
    )
    this.tokens = new LockTokens(
      words,
      (key, next) => this.passOn(key, next),
      (key, request, passed) => this.giveAway(key, request, passed),
    )
    world.syncChecks.watch(this.sync, settings.members)
    // Where a member's pages alternate with others', they begin parked; engine-region.ts.
    if (settings.placement === 'cyclic' && settings.members > 1) return
    for (const [first, count] of homes.runsOf(rank)) {
      for (let page = first; page < first + count; page++) world.setMmu(this, page, Mmu.write)
    }
  }

  /** As much of the engine as lib/engine/synchronization.ts asks of it. */
  private context(): EngineContext {
    const { world, rank } = this
    const context = {
      rank,
      size: world.settings.members,
      isUp: (other: number) => this.members.isUp(other),
      ring: {
        send: (to: number, kind: number, _region: number, page: number, ...words: number[]) =>
          this.sends.push({ from: rank, to, kind, page, words, hop: this.hop + 1 }),
      },
      answer: (id: number, value: unknown) => this.answered(id, value),
      fail: (id: number) => {
        if (!this.tookItself.has(id)) this.answered(id, undefined, true)
      },
    }
    return context as unknown as EngineContext
  }

  /** Nothing is under way in the engine. */
  get isIdle(): boolean {
    return !this.busy && this.inbox.length === 0 && this.tasks.length === 0
  }

  get queuedCount(): number {
    return this.inbox.length
  }

  // Time.

  /** Goes on later, unless this member dies before; a stopped member goes on when it may. */
  private later(delayNs: number, task: Task): void {
    const { clock, random } = this.world
    const spread = 0.5 + random.fraction()
    clock.after(delayNs * spread * this.slowness, () => this.whenRunning(task))
  }

  private whenRunning(task: Task): void {
    const { clock } = this.world
    if (!this.alive) return
    if (clock.nowNs < this.stoppedUntilNs) {
      clock.at(this.stoppedUntilNs, () => this.whenRunning(task))
    } else task()
  }

  // Threads; native/memory/fault.cc.

  start(program: Program): void {
    const thread: Thread = {
      program,
      state: 'running',
      page: 0,
      access: 'read',
      sinceNs: 0,
      faulted: false,
      hop: 0,
      step: { do: 'think', ns: 0 },
    }
    this.threads.push(thread)
    this.later(STEP_NS, () => this.resume(thread, { ok: true }))
  }

  private resume(thread: Thread, result: Result): void {
    thread.state = 'running'
    const next = thread.program.next(result)
    if (next.done === true) {
      thread.state = 'done'
      return
    }
    const step: Step = next.value
    thread.sinceNs = this.world.clock.nowNs
    thread.step = step
    switch (step.do) {
      case 'think':
        return this.later(step.ns, () => this.resume(thread, { ok: true }))
      case 'touch':
        thread.page = step.page
        thread.access = step.access
        thread.faulted = false
        return this.tryTouch(thread)
      case 'prefetch':
      case 'discard':
      case 'pin':
      case 'barrier':
        thread.state = 'waiting'
        return this.ask(() => this.command(thread, step))
      case 'acquire':
        return this.acquire(thread, step)
      case 'release':
        return this.release(thread, step)
    }
  }

  // Locks and semaphores; lib/api/semaphore.ts.

  private acquire(thread: Thread, step: Extract<Step, { do: 'acquire' }>): void {
    thread.place = step.keeps === true ? this.tokens.placeOf(step.key) : undefined
    const { place } = thread
    thread.state = 'waiting'
    if (place !== undefined && this.tokens.take(place)) {
      const { request } = place
      this.world.onAnswer(this, thread, true, request, 0)
      return this.later(TOUCH_NS, () => this.resume(thread, { ok: true, request, hop: 0 }))
    }
    if (place !== undefined) place.waiting++
    this.ask(() => this.command(thread, step))
  }

  private release(thread: Thread, { key, request }: Extract<Step, { do: 'release' }>): void {
    this.world.syncChecks.letGo(key, this.rank, request)
    if (thread.place === undefined) this.giveAway(key, request)
    else this.tokens.release(thread.place)
    this.later(TOUCH_NS, () => this.resume(thread, { ok: true }))
  }

  private giveAway(key: number, request: number, passed = false): void {
    this.ask(() => {
      if (this.failure === undefined) this.sync.release(key, request, passed)
    })
  }

  /** The program's thread sends it, if the transport takes it at once. */
  private passOn(key: number, { rank: to, request, ticket }: Next): boolean {
    if (this.world.random.chance(UNSENT)) return false
    const words = [key % HIGH, Math.floor(key / HIGH), request, ticket]
    this.post({ from: this.rank, to, kind: Kind.TokenPassed, page: 0, words, hop: 1 })
    return true
  }

  /** Session::TakeToken, and the thread that waits: its engine hears of it with the grant. */
  private takeToken({ kind, words, hop }: Message): boolean {
    if (kind !== Kind.TokenPassed) return false
    const [, , request, ticket] = words
    const { acquires } = this.sync as unknown as {
      acquires: ReadonlyMap<number, { id: number; ticket: number; slot: number; early: boolean }>
    }
    const pending = acquires.get(request)
    const thread = pending === undefined ? undefined : this.questions.get(pending.id)
    if (pending?.ticket !== ticket || thread?.place === undefined) return false
    if (!this.tokens.cameEarly(thread.place)) return false
    this.tookItself.add(pending.id)
    this.hop = hop
    this.answered(pending.id, { granted: true, request } satisfies AcquireResult)
    return true
  }

  /** Whether the lock's token lies here, and nobody uses it. */
  keeps(key: number): boolean {
    const slot = this.tokens.placeOf(key)?.slot
    return slot !== undefined && this.tokenWords[slot] === 1
  }

  private tryTouch(thread: Thread): void {
    const { page, access } = thread
    if ((this.mmu[page] & Mmu[access]) === Mmu[access]) {
      this.world.use(this, thread)
      if (this.resuming.has(page)) this.wakeEngine()
      return this.later(TOUCH_NS, () => this.resume(thread, { ok: true }))
    }
    if (permits(this.states[page], access)) {
      this.world.setMmu(this, page, permits(this.states[page], 'write') ? Mmu.write : Mmu.read)
      return this.later(TRAP_NS, () => this.tryTouch(thread))
    }
    if (!thread.faulted) {
      thread.faulted = true
      thread.hop = 0
      this.world.counts.faults++
    }
    if (this.mayFill(page)) {
      // Neither asleep nor at a touch: nobody wakes it.
      this.states[page] = PageState.filling
      return this.later(ADD_NS, () => this.addSelf(thread))
    }
    thread.state = 'asleep'
    this.requestPage(page, access)
  }

  // A read or write without asking; Fill in native/memory/fault.cc.

  private mayFill(page: number): boolean {
    const { settings, homes } = this.world
    if (!settings.oneSided || settings.members > NATIVE_MEMBERS) return false
    return homes.homeOf(page) !== this.rank && this.states[page] === PageState.none
  }

  private addSelf(thread: Thread): void {
    const { page, access } = thread
    const home = this.world.members[this.world.homes.homeOf(page)]
    if (this.members.isUp(home.rank) && home.takeSharer(page, this.rank, access)) {
      return this.later(COPY_NS, () => {
        this.frames[page] = home.frames[page]
        if (access === 'write') this.claimPage(thread, home)
        else this.endFilling(thread, PageState.read)
      })
    }
    if (this.states[page] !== PageState.filling) return this.endFilling(thread, PageState.none)
    this.states[page] = PageState.none
    thread.state = 'asleep'
    this.requestPage(page, access)
  }

  private claimPage(thread: Thread, home: Member): void {
    const { page } = thread
    if (this.states[page] !== PageState.filling) return this.endFilling(thread, PageState.none)
    this.states[page] = PageState.claiming
    this.later(ADD_NS, () => {
      const claimed = this.members.isUp(home.rank) && home.giveOwnership(page, this.rank)
      // Whatever comes between the two finds the page claimed, and the thread not through yet.
      this.later(ADD_NS, () => {
        this.endFilling(thread, claimed ? PageState.write : PageState.read)
      })
    })
  }

  /** From outside: one compare-and-swap of the entry. */
  private takeSharer(page: number, rank: number, access: Access): boolean {
    const entry = 2 * this.world.homes.indexOf(page)
    const clean = (this.directory[entry] & OPEN_MASK) === EntryState.clean
    const inTheWay = access === 'write' ? ~0 : 1 << rank
    const shared = (this.directory[entry + 1] & inTheWay) !== 0
    if (!clean || shared || this.world.hasDiscardUnderWay(rank, this.rank)) return false
    this.directory[entry + 1] |= 1 << rank
    return true
  }

  /** The same, to make a member the owner. */
  private giveOwnership(page: number, rank: number): boolean {
    const entry = 2 * this.world.homes.indexOf(page)
    const clean = (this.directory[entry] & OPEN_MASK) === EntryState.clean
    if (!clean || this.directory[entry + 1] !== (1 << rank) >>> 0) return false
    this.directory[entry] = (EntryState.ownedAway | (rank << 16) | (NOBODY_HERE << 24)) >>> 0
    this.directory[entry + 1] = 0
    return true
  }

  private endFilling(thread: Thread, settled: number): void {
    const { page, access } = thread
    if (this.states[page] === PageState.fillingInVain) {
      this.states[page] = PageState.none
      thread.state = 'asleep'
      return this.ask(() => this.touch(page, access))
    }
    const heard = this.states[page] === PageState.claimingHeard
    this.states[page] = settled
    if (heard) this.ask(() => this.touch(page, access))
    this.wakeThreads(page)
    this.tryTouch(thread)
  }

  private requestPage(page: number, access: Access): void {
    const home = this.world.homes.homeOf(page)
    if (home === this.rank) return this.ask(() => this.touch(page, access), 0)
    const pending = this.takePending(page, access)
    if (pending === 0) return
    if (this.members.isUp(home) && !this.world.random.chance(0.02)) {
      const kind = REQUEST_OF.get(pending)!
      return this.post({ from: this.rank, to: home, kind, page, words: [0, 0], hop: 1 })
    }
    // The connection is busy, or gone: the engine has to send it.
    this.ask(() => {
      if (!this.members.isUp(home)) return this.coherence.homeIsDown(page, home)
      this.coherence.requestUnsent(page, pending, this)
    }, 0)
  }

  private takePending(page: number, access: Access): number {
    const now = this.states[page]
    if ((now & PAGE_PENDING) !== 0 || permits(now, access)) return 0
    let next: number = access === 'read' ? PageState.reading : PageState.writing
    if (permits(now, 'read')) next = PageState.upgrading
    this.states[page] = next | (now & PAGE_HELD) | (this.world.settings.direct ? PAGE_DIRECT : 0)
    return next
  }

  private wakeThreads(page: number): void {
    if (this.world.settings.sabotage.wake === false) return
    for (const thread of this.threads) {
      if (thread.state !== 'asleep' || thread.page !== page) continue
      thread.state = 'running'
      this.later(THREAD_WAKE_NS, () => this.tryTouch(thread))
    }
  }

  // The network.

  private post(message: Omit<Message, 'view'>): void {
    if (!this.members.isUp(message.to)) return
    if (message.kind === Kind.Discard) this.world.discardUnderWay(this.rank, message.to, 1)
    this.world.send({ ...message, view: this.members.view })
  }

  /** A record has come in. Looked at here only by threads and native code that need no engine. */
  deliver(message: Message): void {
    if (!this.alive) return
    const { settings, random, clock } = this.world
    const native = settings.direct && clock.nowNs >= this.stoppedUntilNs
    if (native && this.mayAnswer(message) && random.chance(0.7)) return this.takeAnswer(message)
    if (native && this.members.isUp(message.from) && random.chance(0.5)) {
      if (this.takeToken(message)) return
    }
    if (native && this.mayServe(message)) return this.serve(message)
    this.inbox.push(message)
    this.world.counts.longestInbox = Math.max(this.world.counts.longestInbox, this.inbox.length)
    this.wakeEngine()
  }

  /** Session::AnswerAtOnce: a clean page, and the engine between two steps. */
  private mayServe({ kind, from, page }: Message): boolean {
    if (kind !== Kind.ReadRequest || !this.isIdle || this.woken) return false
    if (this.world.settings.members > NATIVE_MEMBERS || !this.members.isUp(from)) return false
    const control = this.coherence.directory.control(page)
    return (control & OPEN_MASK) === EntryState.clean
  }

  private serve({ from, page, hop }: Message): void {
    this.directory[2 * this.world.homes.indexOf(page) + 1] |= 1 << from
    const contents = this.frames[page]
    this.post({
      from: this.rank,
      to: from,
      kind: Kind.Data,
      page,
      words: [0, 0],
      contents,
      hop: hop + 1,
    })
  }

  /** Session::TakeAnswer: what a thread that looks for its answer may carry out itself. */
  private mayAnswer({ from, kind, page, words }: Message): boolean {
    if (!isPageKind(kind)) return false
    const state = this.states[page]
    if ((state & PAGE_DIRECT) === 0 || !this.members.isUp(from)) return false
    if (from !== this.world.homes.homeOf(page) || words.some((word) => word !== 0)) return false
    const looks = this.threads.some((each) => each.state === 'asleep' && each.page === page)
    return looks && ANSWERS.get(state & ~(PAGE_DIRECT | PAGE_HELD)) === kind
  }

  private takeAnswer(message: Message): void {
    const { page, kind, hop } = message
    this.fill(message)
    const settled = kind === Kind.Data ? PageState.read : PageState.write
    this.states[page] = settled | (this.states[page] & PAGE_HELD)
    this.noteHop(page, hop)
    this.wakeThreads(page)
  }

  private noteHop(page: number, hop: number): void {
    for (const thread of this.threads) {
      if (thread.state === 'asleep' && thread.page === page) thread.hop = hop
    }
  }

  /** Bytes come in; what Session::FrameFor allows. */
  private fill(message: Message): void {
    const { page, contents, kind, from } = message
    if (contents === undefined) return
    const { world } = this
    const home = world.homes.homeOf(page)
    const { directory } = this.coherence
    const accepted =
      kind === Kind.WriteBack
        ? home === this.rank &&
          (directory.control(page) & EXPECTS_WRITE_BACK) !== 0 &&
          directory.ownerOf(page) === from
        : (this.states[page] & ACCEPTS_DATA) !== 0
    if (!accepted) {
      // What was on its way when its home or its sender went down is let go by; if it cannot be,
      // the tables will say so.
      if (!this.members.isUp(home) || !world.members[from].alive) return
      world.fail(`${describe(message)}: no page is expected in state ${this.stateOf(page)}`)
    }
    if (this.mmu[page] !== Mmu.none) {
      world.fail(`${describe(message)}: bytes are written under a readable page`)
    }
    if (world.settings.sabotage.fill?.(message) !== false) this.frames[page] = contents
  }

  stateOf(page: number): string {
    const byte = this.states[page]
    const held = (byte & PAGE_HELD) !== 0 ? ', held' : ''
    return `${stateName(byte) ?? `0x${byte.toString(16)}`}${held}`
  }

  // The engine; lib/engine/engine.ts and engine-region.ts.

  /** Has the engine do something when it gets to it. */
  ask(task: Task, hop = 0): void {
    this.tasks.push(() => {
      this.hop = hop
      task()
    })
    this.wakeEngine()
  }

  private wakeEngine(): void {
    if (this.woken || this.busy) return
    this.woken = true
    this.later(ENGINE_WAKE_NS, () => this.runBatch())
  }

  private runBatch(): void {
    this.woken = false
    this.busy = true
    const batch = this.inbox
    const { tasks } = this
    this.inbox = []
    this.tasks = []
    // Native code has put the bytes of the whole batch into their frames before the first step.
    for (const message of batch) {
      if (this.members.isUp(message.from)) this.fill(message)
    }
    for (const message of batch) this.guard(() => this.onRecord(message))
    for (const task of tasks) this.guard(task)
    this.guard(() => this.releaseResumed())
    for (const { kind, from } of batch) {
      if (kind === Kind.Discard) this.world.discardUnderWay(from, this.rank, -1)
    }
    this.world.noteDirectory(this)
    this.later(STEP_NS * (1 + batch.length + tasks.length), () => this.endBatch())
  }

  private endBatch(): void {
    if (this.world.settings.sabotage.sendsFirst === true) {
      this.postAll()
      return this.later(50_000, () => this.finishBatch())
    }
    this.finishBatch()
  }

  private finishBatch(): void {
    this.flush()
    this.busy = false
    if (!this.isIdle) this.wakeEngine()
  }

  /** Protections first, then everything that is sent. */
  private flush(): void {
    const { actions } = this
    this.actions = []
    for (const { page, access, invalidated } of actions) {
      const { protect } = this.world.settings.sabotage
      const was = this.mmu[page]
      const told = access === undefined || protect?.(access, was, invalidated) !== false
      if (access !== undefined && told) this.world.setMmu(this, page, access)
      if (access !== Mmu.none) this.wakeThreads(page)
    }
    for (const page of this.opens.splice(0)) {
      this.directory[2 * this.world.homes.indexOf(page)] &= ~ENTRY_CLOSED
    }
    this.postAll()
    for (const page of this.given.splice(0)) this.coherence.discardSent(page)
  }

  private postAll(): void {
    const { sends } = this
    this.sends = []
    for (const message of sends) {
      const { contents, page } = message
      // The bytes are read from the frame when the record goes out.
      this.post(Number.isNaN(contents) ? { ...message, contents: this.frames[page] } : message)
    }
  }

  /** Steps that find a member at fault; engine.ts ends its membership. */
  private guard(step: Task): void {
    try {
      step()
    } catch (error) {
      const { code, rank, message } = error as PagemeshError
      if (code !== 'ERR_PAGEMESH_PROTOCOL') throw error
      const culprit = rank ?? this.rank
      // What a dead member sent can arrive after the home has told that it is lost.
      if (this.world.members[culprit].alive) this.world.fail(message)
      this.noticeDown(culprit)
    }
  }

  private onRecord(message: Message): void {
    const { from, kind, page, words, view } = message
    if (!this.members.isUp(from)) return
    if (view < 1 || view > this.world.settings.members) {
      this.world.fail(`${describe(message)}: there is no view ${view}`)
    }
    this.hop = message.hop
    if (isPageKind(kind)) this.coherence.onMessage(kind, page, from, words[0], words[1])
    else this.sync.onMessage(kind, from, (index) => words[index] ?? 0)
  }

  noticeDown(rank: number): void {
    if (!this.members.isUp(rank)) return
    this.world.note(`${this.rank} finds ${rank} down`)
    this.members.markDown(rank, 'it was killed')
    const error = this.members.errorFor(rank, 'what was asked of the mesh', true)
    this.failure ??= error
    this.sync.failAll(error)
    this.sync.memberDown(rank)
    this.coherence.memberDown(rank)
  }

  private touch(page: number, access: Access): void {
    const home = this.world.homes.homeOf(page)
    if (this.members.isUp(home)) this.coherence.touch(page, access)
    else if (this.coherence.permits(page, access)) this.wake(REGION, page)
    else this.lost(REGION, page, home, home)
  }

  private releaseResumed(): void {
    const { nowNs } = this.world.clock
    for (const [page, untilNs] of this.resuming) {
      const waits = this.threads.some(
        (each) => each.page === page && each.faulted && each.state !== 'done',
      )
      // A copy that a thread here wants to write by now has been read: engine-region.ts.
      const upgrades = (this.states[page] & PAGE_PENDING) !== 0
      if (waits && !upgrades && nowNs < untilNs) continue
      this.resuming.delete(page)
      this.coherence.release(page)
    }
  }

  // Commands of the API.

  private command(
    thread: Thread,
    step: Exclude<Step, { do: 'think' | 'touch' | 'release' }>,
  ): void {
    switch (step.do) {
      case 'prefetch':
        this.touch(step.page, step.access)
        break
      case 'discard':
        this.coherence.discard(step.page)
        this.given.push(step.page)
        if (this.world.settings.sabotage.hastyDiscards === true) {
          this.coherence.discardSent(step.page)
        } else this.flush()
        break
      case 'pin':
        this.pin(step.page, step.ns)
        break
      case 'acquire':
      case 'barrier':
        return this.question(thread, step)
    }
    this.later(TOUCH_NS, () => this.resume(thread, { ok: true }))
  }

  private pin(page: number, ns: number): void {
    if (!this.coherence.permits(page, 'read')) return
    this.coherence.hold(page)
    this.later(ns, () => this.ask(() => this.coherence.release(page)))
  }

  private question(thread: Thread, step: Extract<Step, { do: 'acquire' | 'barrier' }>): void {
    const id = this.nextQuestion++
    this.questions.set(id, thread)
    if (this.failure !== undefined) return this.answered(id, undefined, true)
    if (step.do === 'barrier') {
      this.world.syncChecks.arrives(step.key, this.rank)
      return this.sync.arrive(id, step.key, `barrier ${step.key}`)
    }
    const { key, permits: wanted, mode, giveUpNs } = step
    const ticket = thread.place === undefined || mode === 'try' ? 0 : this.nextTicket++
    const slot = thread.place?.slot ?? NO_SLOT
    this.sync.acquire(id, key, `lock ${key}`, wanted, mode, slot, ticket)
    if (giveUpNs === undefined) return
    this.later(giveUpNs, () => this.ask(() => this.sync.cancel(id)))
  }

  private answered(id: number, value: unknown, failed = false): void {
    const thread = this.questions.get(id)
    if (thread === undefined) return this.world.fail(`rank ${this.rank}: ${id} is answered twice`)
    this.questions.delete(id)
    const { granted, request } = (value ?? { granted: true }) as AcquireResult & {
      request?: number
    }
    const { place } = thread
    if (thread.step.do === 'acquire' && place !== undefined) {
      place.waiting--
      if (request !== undefined) place.request = request
    }
    const hop = this.hop
    this.later(THREAD_WAKE_NS, () =>
      this.resume(thread, { ok: granted && !failed, failed, request, hop }),
    )
    if (!failed) this.world.onAnswer(this, thread, granted, request, hop)
  }

  // What the protocol asks for.

  send(to: number, kind: number, _region: number, page: number, a: number, b: number): void {
    this.sends.push({ from: this.rank, to, kind, page, words: [a, b], hop: this.hop + 1 })
  }

  sendPage(to: number, kind: number, _region: number, page: number, a: number, b: number): void {
    const words = [a, b]
    this.sends.push({ from: this.rank, to, kind, page, words, contents: NaN, hop: this.hop + 1 })
  }

  protect(_region: number, page: number, access: 'none' | Access, invalidated: boolean): void {
    this.actions.push({ page, access: Mmu[access], invalidated })
  }

  open(_region: number, page: number): void {
    this.opens.push(page)
  }

  wake(_region: number, page: number): void {
    this.actions.push({ page, access: undefined, invalidated: false })
  }

  granted(_region: number, page: number): void {
    this.noteHop(page, this.hop)
    const waits = this.threads.some((each) => each.state === 'asleep' && each.page === page)
    if (!waits || this.resuming.has(page)) return
    this.coherence.hold(page)
    this.resuming.set(page, this.world.clock.nowNs + RESUME_HOLD_NS)
    this.later(2 * RESUME_HOLD_NS, () => this.ask(() => undefined))
  }

  lost(_region: number, page: number, home: number, owner: number): void {
    this.world.onLost(this, page, home, owner)
    for (const thread of this.threads) {
      if (thread.state !== 'asleep' || thread.page !== page) continue
      thread.faulted = false
      this.later(THREAD_WAKE_NS, () => this.resume(thread, { ok: false, failed: true }))
      thread.state = 'running'
    }
  }

  kill(): void {
    this.alive = false
    for (let page = 0; page < this.mmu.length; page++) this.world.setMmu(this, page, Mmu.none)
  }
}
