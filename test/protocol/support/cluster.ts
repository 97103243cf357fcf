import { PagemeshError } from '../../../dist/errors.js'
import { RegionCoherence } from '../../../dist/protocol/coherence.js'
import {
  ENTRY_BUSY,
  ENTRY_CLOSED,
  ENTRY_EVENTS,
  EntryState,
  entryStateName,
} from '../../../dist/protocol/directory.js'
import { Kind } from '../../../dist/protocol/messages.js'
import {
  PAGE_DIRECT,
  PAGE_EVENTS,
  PAGE_HELD,
  PAGE_PENDING,
  PageState,
  permits,
  stateName,
} from '../../../dist/protocol/page-table.js'
import { HomeMap, type Placement } from '../../../dist/protocol/placement.js'
import type { CoherenceSink } from '../../../dist/protocol/sink.js'

/**
 * A whole mesh in one process, one step at a time: members with the real protocol, and around it
 * fakes of what native code does (MMU, frames, faulting threads, transport) and of what the engine
 * does (members that are down). What happens next is chosen from outside: by a seed, or by an
 * explorer that tries everything.
 */

export type Access = 'read' | 'write'

export interface Message {
  readonly from: number
  readonly to: number
  readonly kind: number
  readonly page: number
  readonly a: number
  readonly b: number
  /** The page's bytes, if it carries them: the number of the write that they come from. */
  readonly contents?: number | undefined
}

/** What the MMU enforces; bits as in a page's state. */
const Mmu = { none: 0, read: 1, write: 3 } as const
const REGION = 7
const ACCEPTS_DATA = 0x80 // native/memory/page_state.h
const EXPECTS_WRITE_BACK = 0x80 // native/binding/session.cc

/** What a thread that fills a page by itself does next; native/memory/fault.cc. */
export type FillStep = 'add' | 'copy' | 'claim' | 'raise' | 'raiseClaimed'

interface Thread {
  page: number
  access: Access
  state: 'idle' | 'running' | 'asleep' | FillStep
  /** It could not fill the page by itself, and asks by message. */
  refused: boolean
  /** A read-modify-write in two steps, as a processor with load-linked and store-conditional. */
  modifies: boolean
  /** What it has loaded. Gone when the processor's reservation is: at a fault, or a change. */
  loaded: number | undefined
}

interface Fault {
  readonly page: number
  readonly access: Access
  readonly unsentState: number
}

type Action =
  | { readonly does: 'protect'; readonly page: number; readonly access: number }
  | { readonly does: 'wake'; readonly page: number }

/** What a thread looks at before it adds its member to the sharers. */
export type AddRule = 'control' | 'discard'
/** What a thread looks at before it makes its member the owner. */
export type ClaimRule = 'control' | 'sharers'

/** Ways to break the world around the protocol, to prove that the checks notice. */
export interface Sabotage {
  /** What goes onto the wire instead of a message. */
  readonly send?: (message: Message, cluster: Cluster) => readonly Message[]
  /** False: the MMU is not told. */
  readonly protect?: (access: 'none' | Access, was: number, invalidated: boolean) => boolean
  /** False: the bytes of a message do not reach the frame. */
  readonly fill?: (message: Message) => boolean
  /** False: nobody is woken. */
  readonly wake?: boolean
  /** Sends go out before protections are lowered. */
  readonly sendsFirst?: boolean
  /** Threads may ask for a page before the home has been told that it was given back. */
  readonly hastyDiscards?: boolean
  /** Threads take any answer for the last one, whoever sent it and whatever is still to come. */
  readonly hastyAnswers?: boolean
  /**
   * What a thread that fills a page does not look at when it adds its member. At the control word
   * it looks before, when it begins.
   */
  readonly addsWithout?: AddRule
  /** What a thread does not look at when it makes its member the owner. */
  readonly claimsWithout?: ClaimRule
  /** A notice that a copy was given back counts as seen when the home takes it up, not after. */
  readonly endsDiscardEarly?: boolean
  /** A thread copies the frame first, and adds its member then. */
  readonly copiesFirst?: boolean
  /** A thread uses a copy although the engine has said that it must not. */
  readonly raisesInVain?: boolean
  /** Entries are opened while the engine steps, before protections are lowered. */
  readonly opensAtOnce?: boolean
  /** The transport does not keep the order of a pair. */
  readonly unordered?: boolean
  /** False: this member is never told that another is down. */
  readonly tellDown?: (member: number, down: number) => boolean
}

export interface ClusterOptions {
  readonly members: number
  readonly pages: number
  readonly placement: Placement
  readonly threads?: number
  /** How many operations the threads and the engine's callers may begin in all. */
  readonly operations: number
  /** Members with parts: each only writes, or only reads and gives back. Without: all do all. */
  readonly writers?: readonly number[]
  /**
   * 'atOnce': a step's actions are carried out with the step. 'batched': as the engine does it, the
   * actions of a batch of events come after it, protections first, and threads run in between.
   */
  readonly actions: 'atOnce' | 'batched'
  /** Giving back copies, or whatever state the page is in. */
  readonly discards?: 'copies' | 'always' | 'never'
  /** Threads also read, modify and write. */
  readonly modifies?: boolean
  /** How many pins may be taken. */
  readonly pins?: number
  readonly prefetches?: boolean
  /** Lowering of pages by native code that is short of mappings; states stay what they are. */
  readonly parking?: boolean
  /** Whether a page granted to a waiting thread is held until some later step. */
  readonly holdGranted?: () => boolean
  /** No hold ends while a thread waits that may use the page: it gets a core before the deadline. */
  readonly patientHolds?: boolean
  /** Whether a faulting thread finds the connection busy, so that the engine sends for it. */
  readonly sendFails?: () => boolean
  /** Faulting threads look for the answers to their own requests, past whatever is before them. */
  readonly direct?: boolean
  /**
   * All members are on one host: a thread that reads may copy the home's frame by itself, and one
   * that writes may own a page that nobody else has.
   */
  readonly oneSided?: boolean
  /**
   * Threads do so also where their member is a sharer already, without having a copy. Native code
   * refuses that, and need not: the home tells every sharer of a write. It is the notice of a copy
   * given back that must not be under way.
   */
  readonly fillsAgain?: boolean
  /** How many members may die. */
  readonly deaths?: number
  /** Which part of what a dying member has sent still arrives. */
  readonly survives?: (count: number) => number
  readonly sabotage?: Sabotage
  /** Each state and event that the protocol's tables met. */
  readonly onCell?: (table: 'page' | 'entry', state: string, event: string) => void
}

/** One thing that can happen next. */
export type Choice =
  | {
      readonly do: 'touch'
      at: number
      thread: number
      page: number
      access: Access
      modifies?: boolean
    }
  | { readonly do: 'prefetch'; at: number; page: number; access: Access }
  | { readonly do: 'discard' | 'pin' | 'park'; at: number; page: number }
  | { readonly do: 'kill'; at: number }
  | { readonly do: 'run' | FillStep; at: number; thread: number }
  | { readonly do: 'arrive' | 'answer' | 'serve'; at: number; from: number; index: number }
  | { readonly do: 'event' | 'fault' | 'action' | 'open' | 'send'; at: number }
  | { readonly do: 'release'; at: number; page: number }
  | { readonly do: 'noticeDown'; at: number; down: number }
  /** While the engine of `at` takes a step, a thread of `by` changes an entry there. */
  | {
      readonly do: 'amid'
      at: number
      by: number
      thread: number
      place: number
      step: Exclude<Choice, { do: 'amid' }>
    }

/** Choices that begin something, as opposed to those that carry on what has begun. */
const BEGINNINGS: ReadonlySet<string> = new Set([
  'touch',
  'prefetch',
  'discard',
  'pin',
  'park',
  'kill',
])
export const begins = (choice: Choice): boolean =>
  choice.do === 'amid' ? begins(choice.step) : BEGINNINGS.has(choice.do)

/** Steps in which an engine works at its entries. */
const ENGINE_STEPS: ReadonlySet<string> = new Set([
  ...['arrive', 'event', 'fault', 'release', 'noticeDown', 'prefetch', 'discard'],
])
/** At so many places within one step of an engine somebody may change an entry; fewer are enough. */
export const ADD_PLACES = 8

/** What is checked, by name. */
export type Invariant =
  | 'one writer, or readers'
  | 'readers see the last write'
  | 'no update is lost'
  | 'no bytes under a page in use'
  | 'only what can happen'
  | 'every request is answered'
  | 'directory and page tables agree'
  | 'only what is lost is lost'
  | 'queues are bounded'

export class CheckFailed extends Error {
  constructor(
    message: string,
    readonly invariant?: Invariant,
  ) {
    super(message)
  }
}

/** One member, and the native code and the engine around its protocol. */
export class Member implements CoherenceSink {
  alive = true
  /** Bitmap of the members that this one knows to be down. */
  down = 0
  readonly states: Uint8Array
  readonly directory: Uint32Array
  readonly mmu: Uint8Array
  /** For each page, the number of the write whose contents are in the frame. */
  readonly frames: number[]
  readonly threads: Thread[]
  readonly coherence: RegionCoherence
  inbox: Message[] = []
  /** What the engine steps through at this moment. */
  stepping: Message | undefined
  /** A batch of events is being stepped through: nothing new arrives. */
  inBatch = false
  /** Actions are being carried out: the engine does nothing else. */
  flushing = false
  faults: Fault[] = []
  actions: Action[] = []
  /** Pages to open once all actions have been carried out. */
  opens: number[] = []
  sends: Message[] = []
  /** Pages given back, of which the home has not been told yet. */
  discarded: number[] = []
  /** A page for each hold that somebody has to let go of. */
  held: number[] = []

  constructor(
    private readonly cluster: Cluster,
    readonly rank: number,
  ) {
    const { homes, options } = cluster
    const { pages } = options
    this.states = new Uint8Array(pages)
    this.mmu = new Uint8Array(pages)
    this.directory = new Uint32Array(2 * pages)
    this.frames = new Array<number>(pages).fill(0)
    this.threads = Array.from({ length: options.threads ?? 1 }, () => ({
      page: 0,
      access: 'read',
      state: 'idle',
      refused: false,
      modifies: false,
      loaded: undefined,
    }))
    const { states, directory } = this
    this.coherence = new RegionCoherence({
      region: REGION,
      rank,
      homes,
      states,
      directory,
      sink: this,
    })
    if (options.onCell !== undefined) this.watchCells(options.onCell)
    // Where a member's pages alternate with others', they begin parked.
    if (options.placement === 'cyclic' && options.members > 1) return
    for (const [first, count] of homes.runsOf(rank)) this.mmu.fill(Mmu.write, first, first + count)
  }

  /** Tells of each cell of the two tables that is used. */
  private watchCells(onCell: NonNullable<ClusterOptions['onCell']>): void {
    const { pages } = this.coherence
    const step = pages.step.bind(pages)
    pages.step = (page, event, from, requester) => {
      const state = stateName(pages.byte(page)) ?? 'unknown'
      const waited = pages.isDeferred(page)
      step(page, event, from, requester)
      if (pages.isDeferred(page) === waited) onCell('page', state, PAGE_EVENTS[event])
    }
    // Which cell a request meets is known to nobody outside.
    const directory = this.coherence.directory as unknown as {
      control: (page: number) => number
      run: (page: number, event: number, from: number) => void
      classify: (page: number, kind: number, requester: number) => number
      tryRequest: (page: number, kind: number, requester: number) => boolean
    }
    const run = directory.run.bind(directory)
    const tryRequest = directory.tryRequest.bind(directory)
    const cell = (page: number, event: number): [string, string] => [
      entryStateName(directory.control(page)) ?? 'unknown',
      ENTRY_EVENTS[event],
    ]
    directory.run = (page, event, from) => {
      const used = cell(page, event)
      run(page, event, from)
      onCell('entry', ...used)
    }
    directory.tryRequest = (page, kind, requester) => {
      const used = cell(page, directory.classify(page, kind, requester))
      const served = tryRequest(page, kind, requester)
      if (!served && (directory.control(page) & ENTRY_BUSY) !== 0) onCell('entry', ...used)
      return served
    }
  }

  // What the protocol asks for.

  send(to: number, kind: number, _region: number, page: number, a: number, b: number): void {
    this.queue({ from: this.rank, to, kind, page, a, b })
  }

  sendPage(to: number, kind: number, _region: number, page: number, a: number, b: number): void {
    this.queue({ from: this.rank, to, kind, page, a, b, contents: NaN })
  }

  protect(_region: number, page: number, access: 'none' | Access, invalidated: boolean): void {
    const { protect } = this.cluster.sabotage
    if (protect !== undefined && !protect(access, this.mmu[page], invalidated)) return
    this.perform({ does: 'protect', page, access: Mmu[access] })
  }

  open(_region: number, page: number): void {
    const atOnce = this.cluster.options.actions === 'atOnce'
    if (atOnce || this.cluster.sabotage.opensAtOnce === true) this.openEntry(page)
    else this.opens.push(page)
  }

  openEntry(page: number): void {
    this.directory[2 * this.cluster.homes.indexOf(page)] &= ~ENTRY_CLOSED
  }

  wake(_region: number, page: number): void {
    this.perform({ does: 'wake', page })
  }

  granted(_region: number, page: number): void {
    const waited = this.threads.some((thread) => thread.state !== 'idle' && thread.page === page)
    if (!waited || this.held.includes(page)) return
    if (this.cluster.options.holdGranted?.() === true) this.hold(page)
  }

  lost(_region: number, page: number, home: number, owner: number): void {
    this.cluster.checkLost(this, page, home, owner)
    for (const thread of this.threads) {
      if (thread.state === 'idle' || thread.page !== page || isFilling(thread)) continue
      thread.state = 'idle'
      this.cluster.lostTouches++
    }
  }

  private queue(message: Message): void {
    if (this.cluster.options.actions === 'batched') this.sends.push(message)
    else this.cluster.post(message)
  }

  private perform(action: Action): void {
    if (this.cluster.options.actions === 'batched') this.actions.push(action)
    else this.carryOut(action)
  }

  carryOut(action: Action): void {
    const wakes = action.does === 'wake' || action.access !== Mmu.none
    if (action.does === 'protect') this.mmu[action.page] = action.access
    if (wakes && this.cluster.sabotage.wake !== false) this.wakeThreads(action.page)
  }

  private wakeThreads(page: number): void {
    for (const thread of this.threads) {
      if (thread.state === 'asleep' && thread.page === page) thread.state = 'running'
    }
  }

  hold(page: number): void {
    this.coherence.hold(page)
    this.held.push(page)
  }

  // What a thread does; native/memory/fault.cc.

  run(thread: Thread): void {
    const { page, access } = thread
    if ((this.mmu[page] & Mmu[access]) === Mmu[access]) {
      this.use(thread)
    } else if (permits(this.states[page], access)) {
      // RaiseIfPermitted: it tries again, and may be too late.
      this.mmu[page] = permits(this.states[page], 'write') ? Mmu.write : Mmu.read
    } else {
      thread.loaded = undefined
      if (this.mayFill(thread)) {
        this.states[page] = PageState.filling
        thread.state = this.cluster.sabotage.copiesFirst === true ? 'copy' : 'add'
        return
      }
      thread.state = 'asleep'
      thread.refused = false
      this.ask(page, access)
    }
  }

  // How a thread takes a copy from the home's frame by itself. Anything may come between two steps.

  private mayFill({ page, access, refused }: Thread): boolean {
    const { options, sabotage, homes } = this.cluster
    if (options.oneSided !== true || refused) return false
    if (homes.homeOf(page) === this.rank || this.states[page] !== PageState.none) return false
    return sabotage.addsWithout !== 'control' || this.mayAdd(page, access, undefined)
  }

  /** Whether one compare-and-swap of the entry at its home adds this member to the sharers. */
  mayAdd(page: number, access: Access, without = this.cluster.sabotage.addsWithout): boolean {
    const { homes, members, options } = this.cluster
    const home = members[homes.homeOf(page)]
    const [control, sharers] = home.entryWords(page)
    const bit = 1 << this.rank
    // Only the home's own steps count its members that are down, so a member that is down adds
    // itself no more.
    if ((this.down & (1 << home.rank)) !== 0) return false
    if (without !== 'control' && (control & ADD_MASK) !== EntryState.clean) return false
    if (access === 'write' ? sharers !== 0 : options.fillsAgain !== true && (sharers & bit) !== 0) {
      return false
    }
    return without === 'discard' || !this.cluster.isDiscardUnderWay(this.rank, home, page)
  }

  entryWords(page: number): [number, number] {
    const entry = 2 * this.cluster.homes.indexOf(page)
    return [this.directory[entry], this.directory[entry + 1]]
  }

  /** Whether one compare-and-swap of the entry at its home makes this member the owner. */
  mayClaim(page: number): boolean {
    const { homes, members, sabotage } = this.cluster
    const home = members[homes.homeOf(page)]
    const [control, sharers] = home.entryWords(page)
    if ((this.down & (1 << home.rank)) !== 0) return false
    const without = sabotage.claimsWithout
    if (without !== 'control' && (control & ADD_MASK) !== EntryState.clean) return false
    return without === 'sharers' || sharers === 1 << this.rank
  }

  add(thread: Thread): void {
    const { page, access } = thread
    const { homes, members, sabotage } = this.cluster
    if (this.mayAdd(page, access)) {
      members[homes.homeOf(page)].directory[2 * homes.indexOf(page) + 1] |= 1 << this.rank
      thread.state = sabotage.copiesFirst === true ? 'raise' : 'copy'
    } else if (this.states[page] === PageState.filling) {
      this.states[page] = PageState.none
      thread.state = 'running'
      thread.refused = true
    } else {
      this.fillAnew(thread)
    }
  }

  copy(thread: Thread): void {
    const { page } = thread
    const { homes, members, sabotage } = this.cluster
    if (this.mmu[page] !== Mmu.none) {
      const why = `rank ${this.rank} copies page ${page} into its frame under a readable page`
      this.cluster.fail(why, 'no bytes under a page in use')
    }
    this.frames[page] = members[homes.homeOf(page)].frames[page]
    this.forgetLoaded(page)
    thread.state = sabotage.copiesFirst === true ? 'add' : 'raise'
    if (thread.access === 'read' || sabotage.copiesFirst === true) return
    if (this.states[page] !== PageState.filling) return this.fillAnew(thread)
    this.states[page] = PageState.claiming
    thread.state = 'claim'
  }

  claim(thread: Thread): void {
    const { page } = thread
    const { homes, members } = this.cluster
    if (!this.mayClaim(page)) {
      thread.state = 'raise'
      return
    }
    const { directory } = members[homes.homeOf(page)]
    const entry = 2 * homes.indexOf(page)
    directory[entry] = (EntryState.ownedAway | (this.rank << 16) | (0xff << 24)) >>> 0
    directory[entry + 1] = 0
    thread.state = 'raiseClaimed'
  }

  raise(thread: Thread): void {
    this.endFilling(thread, PageState.read)
  }

  raiseClaimed(thread: Thread): void {
    this.endFilling(thread, PageState.write)
  }

  private endFilling(thread: Thread, settled: number): void {
    const { page, access } = thread
    const state = this.states[page]
    const inVain = state === PageState.fillingInVain
    if (inVain && this.cluster.sabotage.raisesInVain !== true) return this.fillAnew(thread)
    this.states[page] = settled
    thread.state = 'running'
    this.wakeThreads(page)
    if (state === PageState.claimingHeard) this.faults.push({ page, access, unsentState: 0 })
  }

  /** It was in vain: the engine asks for the page. */
  private fillAnew(thread: Thread): void {
    const { page, access } = thread
    this.states[page] = PageState.none
    thread.state = 'asleep'
    this.faults.push({ page, access, unsentState: 0 })
  }

  private use(thread: Thread): void {
    const { page, access, modifies, loaded } = thread
    if (modifies && (access === 'read' || loaded === undefined)) {
      this.cluster.use(this, page, 'read')
      thread.loaded = this.frames[page]
      thread.access = 'write'
      return
    }
    if (modifies) this.cluster.checkModified(this, page, loaded!)
    this.cluster.use(this, page, access)
    if (access === 'write') this.forgetLoaded(page)
    thread.state = 'idle'
    thread.modifies = false
    thread.loaded = undefined
  }

  /** The page's bytes change: what threads have loaded from it, they must load again. */
  private forgetLoaded(page: number): void {
    for (const thread of this.threads) if (thread.page === page) thread.loaded = undefined
  }

  private ask(page: number, access: Access): void {
    const home = this.cluster.homes.homeOf(page)
    let unsentState = 0
    if (home !== this.rank) {
      const pending = this.takePending(page, access)
      if (pending === 0) return
      const connected = (this.down & (1 << home)) === 0
      if (connected && this.cluster.options.sendFails?.() !== true) {
        const kind = REQUEST_OF.get(pending)!
        return this.cluster.post({ from: this.rank, to: home, kind, page, a: 0, b: 0 })
      }
      unsentState = pending
    }
    this.faults.push({ page, access, unsentState })
  }

  private takePending(page: number, access: Access): number {
    const now = this.states[page]
    if ((now & PAGE_PENDING) !== 0 || permits(now, access)) return 0
    let next: number = access === 'read' ? PageState.reading : PageState.writing
    if (permits(now, 'read')) next = PageState.upgrading
    const direct = this.cluster.options.direct === true ? PAGE_DIRECT : 0
    this.states[page] = next | (now & PAGE_HELD) | direct
    return next
  }

  /** What native code may answer at once, while the engine has nothing to do; AnswerAtOnce. */
  mayServe(message: Message | undefined): boolean {
    if (message?.kind !== Kind.ReadRequest || this.inbox.length > 0) return false
    if ((this.down & (1 << message.from)) !== 0) return false
    const control = this.coherence.directory.control(message.page)
    return (control & ADD_MASK) === EntryState.clean
  }

  serve({ from, page }: Message): void {
    const entry = 2 * this.cluster.homes.indexOf(page)
    this.directory[entry + 1] |= 1 << from
    this.cluster.post({
      from: this.rank,
      to: from,
      kind: Kind.Data,
      page,
      a: 0,
      b: 0,
      contents: NaN,
    })
  }

  /** What a thread that looks for an answer may carry out itself; Session::TakeAnswer. */
  mayAnswer(message: Message): boolean {
    const { from, kind, page, a, b } = message
    const state = this.states[page]
    if ((state & PAGE_DIRECT) === 0 || (this.down & (1 << from)) !== 0) return false
    if (from !== this.cluster.homes.homeOf(page) && !this.cluster.sabotage.hastyAnswers)
      return false
    if ((a !== 0 || b !== 0) && this.cluster.sabotage.hastyAnswers !== true) return false
    return ANSWERS.get(state & ~(PAGE_DIRECT | PAGE_HELD)) === kind
  }

  takeAnswer(message: Message): void {
    const { page, kind } = message
    this.fill(message)
    const settled = kind === Kind.Data ? PageState.read : PageState.write
    this.states[page] = settled | (this.states[page] & PAGE_HELD)
    this.wakeThreads(page)
  }

  /** Bytes come in; what Session::FrameFor allows. */
  fill(message: Message): void {
    const { page, contents, kind, from } = message
    if (contents === undefined) return
    const state = this.states[page]
    const control = this.coherence.directory.control(page)
    const accepted =
      kind === Kind.WriteBack
        ? this.cluster.homes.homeOf(page) === this.rank &&
          (control & EXPECTS_WRITE_BACK) !== 0 &&
          ((control >>> 16) & 0xff) === from
        : (state & ACCEPTS_DATA) !== 0
    if (!accepted) {
      // What was on its way when the page's home went down is let go by.
      if ((this.down & (1 << this.cluster.homes.homeOf(page))) !== 0) return
      const why = `${describe(message)}: no page is expected in state ${stateText(state)}`
      throw new PagemeshError('ERR_PAGEMESH_PROTOCOL', why, { rank: from })
    }
    if (this.mmu[page] !== Mmu.none) {
      const why = `${describe(message)}: bytes are written under a readable page`
      this.cluster.fail(why, 'no bytes under a page in use')
    }
    if (this.cluster.sabotage.fill?.(message) === false) return
    this.frames[page] = contents
    this.forgetLoaded(page)
  }

  // What the engine does; lib/engine/engine.ts and engine-region.ts.

  onEvent(message: Message): void {
    if ((this.down & (1 << message.from)) !== 0) return
    this.stepping = message
    try {
      this.coherence.onMessage(message.kind, message.page, message.from, message.a, message.b)
    } finally {
      this.stepping = undefined
    }
  }

  onFault(fault: Fault): void {
    const home = this.cluster.homes.homeOf(fault.page)
    if (fault.unsentState === 0) return this.touch(fault.page, fault.access)
    if ((this.down & (1 << home)) !== 0) return this.coherence.homeIsDown(fault.page, home)
    this.coherence.requestUnsent(fault.page, fault.unsentState, this)
  }

  touch(page: number, access: Access): void {
    const home = this.cluster.homes.homeOf(page)
    if ((this.down & (1 << home)) === 0) this.coherence.touch(page, access)
    else if (this.coherence.permits(page, access)) this.wake(REGION, page)
    else this.lost(REGION, page, home, home)
  }

  noticeDown(rank: number): void {
    this.down |= 1 << rank
    this.coherence.memberDown(rank)
  }
}

/** What native code compares of a control word: the state, and that it is neither busy nor closed. */
const ADD_MASK = ENTRY_CLOSED | ENTRY_BUSY | 0xff
const isFilling = ({ state }: Thread): boolean =>
  state !== 'idle' && state !== 'running' && state !== 'asleep'

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
const KIND_NAMES = new Map(Object.entries(Kind).map(([name, kind]) => [kind as number, name]))

const stateText = (byte: number): string =>
  (stateName(byte) ?? `0x${byte.toString(16)}`) +
  ((byte & PAGE_HELD) !== 0 ? ', held' : '') +
  ((byte & PAGE_DIRECT) !== 0 ? ', direct' : '')

export function describe(message: Message): string {
  const { from, to, kind, page, a, b, contents } = message
  const words = `page ${page}${a !== 0 ? `, a ${a}` : ''}${b !== 0 ? `, b ${b}` : ''}`
  const what = contents === undefined ? '' : `, contents ${contents}`
  return `${from}→${to} ${KIND_NAMES.get(kind) ?? `kind ${kind}`} (${words}${what})`
}

export class Cluster {
  readonly homes: HomeMap
  readonly members: Member[]
  readonly sabotage: Sabotage
  /** Messages under way, by 'from * members + to'. */
  readonly channels: Message[][]
  /** For each page, the number of the last write. */
  readonly lastWrite: number[]
  /** Bitmap, for each page, of members that may have taken its only good copy with them. */
  readonly mayBeLost: number[]
  operationsLeft: number
  pinsLeft: number
  deathsLeft: number
  everDiscarded = false
  everDied = false
  lostTouches = 0
  touches = 0
  /** The last place within a step at which somebody added itself. */
  latestAdd = 0
  trace: string[] | undefined

  constructor(readonly options: ClusterOptions) {
    const { members, pages, placement } = options
    this.sabotage = options.sabotage ?? {}
    this.homes = new HomeMap(placement, pages, members)
    this.channels = Array.from({ length: members * members }, () => [])
    this.lastWrite = new Array<number>(pages).fill(0)
    this.mayBeLost = new Array<number>(pages).fill(0)
    this.operationsLeft = options.operations
    this.pinsLeft = options.pins ?? 0
    this.deathsLeft = options.deaths ?? 0
    this.members = Array.from({ length: members }, (_, rank) => new Member(this, rank))
  }

  // The network.

  post(message: Message): void {
    for (const each of this.sabotage.send?.(message, this) ?? [message]) {
      const sender = this.members[each.from]
      if (each.to >= this.members.length) {
        this.fail(`rank ${each.from} sends to rank ${each.to}`, 'only what can happen')
      }
      if (!this.members[each.to].alive || (sender.down & (1 << each.to)) !== 0) continue
      const contents = each.contents === undefined ? undefined : this.contentsOf(each, sender)
      const posted = { ...each, contents }
      this.channelOf(each.from, each.to).push(posted)
      this.trace?.push(`    sent ${describe(posted)}`)
    }
  }

  private channelOf(from: number, to: number): Message[] {
    return this.channels[from * this.members.length + to]
  }

  private contentsOf(message: Message, sender: Member): number {
    return Number.isNaN(message.contents) ? sender.frames[message.page] : message.contents!
  }

  /**
   * A notice that `rank` gave its copy back, which its home is not through with: the step that takes
   * the bit away counts until its end.
   */
  isDiscardUnderWay(rank: number, home: Member, page: number): boolean {
    const { stepping, inbox } = home
    const isIt = (message: Message): boolean =>
      message.kind === Kind.Discard && message.page === page && message.from === rank
    if (stepping !== undefined && this.sabotage.endsDiscardEarly !== true && isIt(stepping)) {
      return true
    }
    return this.channelOf(rank, home.rank).some(isIt) || inbox.some(isIt)
  }

  /** A thread uses a page that the MMU lets it use. */
  use(member: Member, page: number, access: Access): void {
    this.touches++
    const last = this.lastWrite[page]
    if (member.frames[page] !== last) {
      const why = `rank ${member.rank} ${access}s ${member.frames[page]}, and ${last} was written`
      this.fail(why, access === 'read' ? 'readers see the last write' : 'no update is lost')
    }
    if (access === 'write') this.lastWrite[page] = member.frames[page] = last + 1
  }

  checkModified(member: Member, page: number, loaded: number): void {
    const last = this.lastWrite[page]
    if (loaded === last) return
    const why = `rank ${member.rank} has loaded ${loaded} of page ${page}, and stores over ${last}`
    this.fail(why, 'no update is lost')
  }

  // What can happen.

  choices(): Choice[] {
    const found: Choice[] = []
    for (const member of this.members) {
      if (!member.alive) continue
      this.arrivals(member, found)
      if (this.options.direct === true) this.answers(member, found)
      this.engineChoices(member, found)
      for (let thread = 0; thread < member.threads.length; thread++) {
        const { state } = member.threads[thread]
        if (state === 'idle' || state === 'asleep') continue
        found.push({ do: state === 'running' ? 'run' : state, at: member.rank, thread })
      }
      this.noticeChoices(member, found)
      this.beginnings(member, found)
    }
    if (this.options.oneSided === true) this.addsAmid(found)
    return found
  }

  /** Members change entries also in the middle of a step of the home's engine. */
  private addsAmid(found: Choice[]): void {
    const steps = found.filter((choice) => ENGINE_STEPS.has(choice.do))
    if (steps.length === 0) return
    for (const { rank: by, alive, threads } of this.members) {
      if (!alive) continue
      threads.forEach(({ state, page }, thread) => {
        if (state !== 'add' && state !== 'claim') return
        const home = this.homes.homeOf(page)
        for (const step of steps) {
          if (step.at !== home || step.do === 'amid') continue
          for (let place = 1; place <= ADD_PLACES; place++) {
            found.push({ do: 'amid', at: home, by, thread, place, step })
          }
        }
      })
    }
  }

  private arrivals(member: Member, found: Choice[]): void {
    const { actions, opens, sends } = member
    if (member.inBatch || actions.length + opens.length + sends.length > 0) return
    // The engine takes all events at once: none waits for ever while it goes on with others.
    if (member.faults.length > member.threads.length) return
    const at = member.rank
    for (let from = 0; from < this.members.length; from++) {
      const channel = this.channelOf(from, at)
      if (channel.length > 0) found.push({ do: 'arrive', at, from, index: 0 })
      const served = this.options.direct === true && member.mayServe(channel[0])
      if (served) found.push({ do: 'serve', at, from, index: 0 })
      if (this.sabotage.unordered !== true) continue
      for (let index = 1; index < channel.length; index++) {
        found.push({ do: 'arrive', at, from, index })
      }
    }
  }

  /** Threads do not wait for the engine, whatever it is at. */
  private answers(member: Member, found: Choice[]): void {
    const at = member.rank
    for (let from = 0; from < this.members.length; from++) {
      this.channelOf(from, at).forEach((message, index) => {
        if (member.mayAnswer(message)) found.push({ do: 'answer', at, from, index })
      })
    }
  }

  private engineChoices(member: Member, found: Choice[]): void {
    const at = member.rank
    const { actions, opens, sends } = member
    const sendsFirst = this.sabotage.sendsFirst === true && sends.length > 0
    if (actions.length > 0 && !sendsFirst) {
      found.push({ do: 'action', at })
    } else {
      // Nothing depends on which of the two come first.
      if (opens.length > 0 && !sendsFirst) found.push({ do: 'open', at })
      if (sends.length > 0) found.push({ do: 'send', at })
    }
    if (member.flushing) return
    if (member.inbox.length > 0) found.push({ do: 'event', at })
    if (member.faults.length > 0) found.push({ do: 'fault', at })
    const held = new Set(member.held)
    for (const page of held) {
      if (this.mayRelease(member, page)) found.push({ do: 'release', at, page })
    }
  }

  private mayRelease(member: Member, page: number): boolean {
    if (this.options.patientHolds !== true) return true
    return !member.threads.some(
      (thread) =>
        thread.state !== 'idle' &&
        thread.page === page &&
        permits(member.states[page], thread.access),
    )
  }

  private noticeChoices(member: Member, found: Choice[]): void {
    if (!this.everDied || member.flushing) return
    for (const { rank, alive } of this.members) {
      if (alive || (member.down & (1 << rank)) !== 0) continue
      if (this.sabotage.tellDown?.(member.rank, rank) === false) continue
      found.push({ do: 'noticeDown', at: member.rank, down: rank })
    }
  }

  private beginnings(member: Member, found: Choice[]): void {
    const at = member.rank
    const { options } = this
    if (this.deathsLeft > 0) found.push({ do: 'kill', at })
    if (this.operationsLeft === 0) return
    for (let page = 0; page < options.pages; page++) {
      const thread = member.threads.findIndex(({ state }) => state === 'idle')
      const { writers } = options
      const reads = writers?.includes(at) !== true
      if (thread >= 0) {
        if (reads) found.push({ do: 'touch', at, thread, page, access: 'read' })
        if (!reads || writers === undefined) {
          found.push({ do: 'touch', at, thread, page, access: 'write' })
        }
        if (options.modifies === true) {
          found.push({ do: 'touch', at, thread, page, access: 'read', modifies: true })
        }
      }
      if (reads) this.commands(member, page, found)
    }
  }

  private commands(member: Member, page: number, found: Choice[]): void {
    const at = member.rank
    const { options } = this
    if (options.parking === true && member.mmu[page] !== Mmu.none && !this.isHeld(member, page)) {
      found.push({ do: 'park', at, page })
    }
    if (member.flushing) return
    const readable = permits(member.states[page], 'read')
    if (options.prefetches === true) {
      found.push({ do: 'prefetch', at, page, access: 'read' })
      found.push({ do: 'prefetch', at, page, access: 'write' })
    }
    if (options.discards === 'always' || (options.discards === 'copies' && readable))
      found.push({ do: 'discard', at, page })
    if (this.pinsLeft > 0 && readable) found.push({ do: 'pin', at, page })
  }

  private isHeld(member: Member, page: number): boolean {
    return (member.states[page] & PAGE_HELD) !== 0
  }

  // What happens.

  perform(choice: Choice): void {
    this.trace?.push(describeChoice(choice))
    const member = this.members[choice.at]
    if (begins(choice) && choice.do !== 'kill') this.operationsLeft--
    try {
      this.carryOut(member, choice)
    } catch (error) {
      if (!(error instanceof PagemeshError)) throw error
      // The engine lets go of a member that breaks the protocol. One that is dead may seem to: what
      // it sent can arrive after the home has told that it is lost.
      const from = this.members[error.rank ?? choice.at]
      if (from.alive) this.fail(error.message, 'only what can happen')
      this.channelOf(from.rank, choice.at).length = 0
      member.noticeDown(from.rank)
    }
    this.checkSafety()
  }

  private carryOut(member: Member, choice: Choice): void {
    switch (choice.do) {
      case 'touch':
        member.threads[choice.thread] = {
          page: choice.page,
          access: choice.access,
          state: 'running',
          refused: false,
          modifies: choice.modifies === true,
          loaded: undefined,
        }
        return member.run(member.threads[choice.thread])
      case 'run':
        return member.run(member.threads[choice.thread])
      case 'add':
      case 'copy':
      case 'claim':
      case 'raise':
      case 'raiseClaimed':
        return member[choice.do](member.threads[choice.thread])
      case 'amid':
        return this.amid(member, choice)
      case 'prefetch':
        return member.touch(choice.page, choice.access)
      case 'discard':
        this.everDiscarded = true
        member.coherence.discard(choice.page)
        member.discarded.push(choice.page)
        if (this.sabotage.hastyDiscards === true) member.coherence.discardSent(choice.page)
        return this.settleFlush(member)
      case 'pin':
        this.pinsLeft--
        return member.hold(choice.page)
      case 'park':
        member.mmu[choice.page] = Mmu.none
        return
      case 'release':
        member.held.splice(member.held.indexOf(choice.page), 1)
        return member.coherence.release(choice.page)
      case 'arrive':
        return this.arrive(member, choice.from, choice.index)
      case 'serve':
        return member.serve(this.channelOf(choice.from, choice.at).shift()!)
      case 'answer':
        return this.answer(member, choice.from, choice.index)
      case 'event':
        return this.stepEvent(member)
      case 'fault':
        return member.onFault(member.faults.shift()!)
      case 'action':
        member.carryOut(member.actions.shift()!)
        return this.settleFlush(member)
      case 'open':
        member.openEntry(member.opens.shift()!)
        return this.settleFlush(member)
      case 'send':
        this.post(member.sends.shift()!)
        return this.settleFlush(member)
      case 'kill':
        return this.kill(member)
      case 'noticeDown':
        this.channelOf(choice.down, choice.at).length = 0
        return member.noticeDown(choice.down)
    }
  }

  /**
   * A step of the home's engine, and a thread of another member adds itself just before the engine
   * looks at the sharers, or changes the entry: before the first access to the entry of this kind at
   * which it can, the second, and so on. One that makes its member the owner does so before any
   * access.
   */
  private amid(home: Member, { by, thread, place, step }: Choice & { do: 'amid' }): void {
    const member = this.members[by]
    const adding = member.threads[thread]
    const claims = adding.state === 'claim'
    const entry = 2 * this.homes.indexOf(adding.page)
    let left = place
    const before = (array: unknown, index: number, writes: boolean): void => {
      const matters = index === entry + 1 || (index === entry && (writes || claims))
      // The directory looks at the same memory by an array of its own.
      const ofEntries = (array as ArrayBufferView).buffer === home.directory.buffer
      if (!ofEntries || !matters || adding.state !== (claims ? 'claim' : 'add')) return
      const { page, access } = adding
      if (!(claims ? member.mayClaim(page) : member.mayAdd(page, access)) || --left > 0) return
      this.trace?.push(`    rank ${by} ${claims ? 'makes itself the owner' : 'adds itself'}`)
      this.latestAdd = Math.max(this.latestAdd, place)
      if (claims) member.claim(adding)
      else member.add(adding)
    }
    watchAtomics(before, () => this.carryOut(home, step))
  }

  private arrive(member: Member, from: number, index: number): void {
    const channel = this.channelOf(from, member.rank)
    const message = channel.splice(index, 1)[0]
    this.trace?.push(`    ${describe(message)}`)
    member.fill(message)
    if (this.options.actions === 'batched') member.inbox.push(message)
    else member.onEvent(message)
  }

  private answer(member: Member, from: number, index: number): void {
    const message = this.channelOf(from, member.rank).splice(index, 1)[0]
    this.trace?.push(`    ${describe(message)}`)
    member.takeAnswer(message)
  }

  private stepEvent(member: Member): void {
    member.inBatch = true
    const message = member.inbox.shift()!
    this.trace?.push(`    ${describe(message)}`)
    member.onEvent(message)
    if (member.inbox.length === 0) member.inBatch = false
  }

  private settleFlush(member: Member): void {
    member.flushing = member.actions.length + member.opens.length + member.sends.length > 0
    if (member.flushing) return
    for (const page of member.discarded.splice(0)) member.coherence.discardSent(page)
  }

  private kill(member: Member): void {
    this.deathsLeft--
    this.everDied = true
    this.noteWhatMayBeLost(member)
    member.alive = false
    for (const other of this.members) {
      const out = this.channelOf(member.rank, other.rank)
      out.length = this.options.survives?.(out.length) ?? out.length
      this.channelOf(other.rank, member.rank).length = 0
    }
    for (const thread of member.threads) thread.state = 'idle'
  }

  /** The pages that a member takes with it: it wrote them last, or was about to get them. */
  private noteWhatMayBeLost(member: Member): void {
    const bit = 1 << member.rank
    for (let page = 0; page < this.options.pages; page++) {
      const home = this.homes.homeOf(page)
      const control = this.members[home].coherence.directory.control(page)
      const state = control & 0xff
      const owner = (control >>> 16) & 0xff
      const owned = state === EntryState.ownedAway || (control & ENTRY_BUSY) !== 0
      const byte = member.states[page]
      const asks = (byte & 0x0c) === 0x0c && byte !== PageState.fillingInVain
      const wants = asks || permits(byte, 'write') || byte === PageState.claiming
      if (wants || home === member.rank || (owned && owner === member.rank)) {
        this.mayBeLost[page] |= bit
      }
    }
  }

  checkLost(member: Member, page: number, home: number, owner: number): void {
    const down = this.members.filter(({ alive }) => !alive).map(({ rank }) => rank)
    if (home !== this.homes.homeOf(page)) {
      this.fail(`page ${page} is lost with home ${home}`, 'only what is lost is lost')
    }
    if (!down.includes(owner)) {
      const why = `page ${page} is lost at rank ${member.rank} with rank ${owner}, which is up`
      this.fail(why, 'only what is lost is lost')
    }
    if ((this.mayBeLost[page] & (1 << owner)) === 0) {
      this.fail(
        `page ${page} is lost with rank ${owner}, which did not have it`,
        'only what is lost is lost',
      )
    }
  }

  // What must be.

  /** At every moment: one writer and nobody else, or readers of the last write. */
  checkSafety(): void {
    for (let page = 0; page < this.options.pages; page++) {
      let writers = 0
      let readers = 0
      for (const { alive, mmu, frames, rank } of this.members) {
        if (!alive || mmu[page] === Mmu.none) continue
        if (mmu[page] === Mmu.write) writers++
        else readers++
        if (frames[page] !== this.lastWrite[page]) {
          this.fail(
            `rank ${rank} can read write ${frames[page]} of page ${page}, and the last was ` +
              `${this.lastWrite[page]}`,
            'readers see the last write',
          )
        }
      }
      if (writers > 1 || (writers === 1 && readers > 0)) {
        const why = `page ${page} has ${writers} writers and ${readers} readers`
        this.fail(why, 'one writer, or readers')
      }
    }
  }

  /** When nothing is under way any more. */
  checkRest(): void {
    for (const member of this.members) {
      if (!member.alive) continue
      for (const { state, page, access } of member.threads) {
        if (state !== 'idle') {
          const why = `a thread of rank ${member.rank} waits for ever to ${access} page ${page}`
          this.fail(why, 'every request is answered')
        }
      }
      for (let page = 0; page < this.options.pages; page++) this.checkPageAtRest(member, page)
    }
    for (let page = 0; page < this.options.pages; page++) {
      if (this.members[this.homes.homeOf(page)].alive) this.checkEntryAtRest(page)
    }
  }

  private checkPageAtRest(member: Member, page: number): void {
    const state = member.states[page]
    const where = `page ${page} at rank ${member.rank}`
    const answered = 'every request is answered'
    if ((state & PAGE_PENDING) !== 0) {
      this.fail(`${where} stays ${stateText(state)} for ever`, answered)
    }
    if (this.isHeld(member, page)) this.fail(`${where} stays held`, answered)
    if (member.coherence.isWanted(page)) {
      this.fail(`${where}: somebody still waits for it`, answered)
    }
    const allowed = state & Mmu.write
    if ((member.mmu[page] & ~allowed) !== 0) {
      const why = `${where} is ${stateText(state)}, and the MMU allows ${member.mmu[page]}`
      this.fail(why, 'directory and page tables agree')
    }
    const { parking, placement, direct, oneSided } = this.options
    // A thread that took its answer itself may have raised the page before an older action came.
    const itself = direct === true || oneSided === true
    const exact = parking !== true && placement !== 'cyclic' && !itself
    if (exact && member.mmu[page] !== allowed) {
      const why = `${where} is ${stateText(state)}, and the MMU allows only ${member.mmu[page]}`
      this.fail(why, 'directory and page tables agree')
    }
  }

  private checkEntryAtRest(page: number): void {
    const home = this.members[this.homes.homeOf(page)]
    const { directory } = home.coherence
    const control = directory.control(page)
    const state = entryStateName(control)
    const alive = this.members.filter((member) => member.alive)
    const withState = (wanted: number): number =>
      alive.reduce((map, m) => (m.states[page] === wanted ? map | (1 << m.rank) : map), 0)
    const readers = withState(PageState.read)
    const writers = withState(PageState.write)
    const up = alive.reduce((map, { rank }) => map | (1 << rank), 0)
    const sharers = directory.sharers(page)
    const bad = (why: string): never =>
      this.fail(
        `page ${page} is ${state} with sharers ${sharers.toString(2)}, readers ` +
          `${readers.toString(2)}, writers ${writers.toString(2)}: ${why}`,
        'directory and page tables agree',
      )
    switch (state) {
      case 'ownedHere':
        if (writers !== 1 << home.rank || readers !== 0) bad('the home does not own it')
        if (sharers !== 0) bad('an owned page has no sharers')
        return
      case 'ownedAway':
        if (writers !== 1 << directory.ownerOf(page) || readers !== 0) bad('not its owner’s')
        if (sharers !== 0) bad('an owned page has no sharers')
        return
      case 'clean':
        if (writers !== 0) bad('a clean page has a writer')
        if ((readers & ~sharers) !== 0) bad('the home does not know of a reader')
        if (home.frames[page] !== this.lastWrite[page]) bad('the home’s frame is not the last')
        if ((sharers & ~up) !== 0) bad('a member that is down is a sharer')
        if (!this.everDiscarded && readers !== sharers) bad('a sharer is no reader')
        return
      case 'lost':
        if (!this.everDied) bad('nobody has died')
        if ((this.mayBeLost[page] & ~up) === 0) bad('whoever died did not have it')
        return
      case 'sharing':
      case 'sharingConfirmed':
      case 'sharingWritten':
      case 'transferring':
      case undefined:
        bad('the entry is still busy')
    }
  }

  fail(why: string, invariant?: Invariant): never {
    throw new CheckFailed(why, invariant)
  }

  /** What the members and the network look like, for people. */
  picture(): string {
    const lines: string[] = []
    for (const member of this.members) {
      const pages = [...member.states].map(
        (state, page) => `${stateText(state)}/${member.mmu[page]}=${member.frames[page]}`,
      )
      lines.push(`rank ${member.rank}${member.alive ? '' : ' (dead)'}: ${pages.join('; ')}`)
    }
    for (let page = 0; page < this.options.pages; page++) {
      const { directory } = this.members[this.homes.homeOf(page)].coherence
      const control = directory.control(page)
      lines.push(
        `page ${page} at home ${this.homes.homeOf(page)}: ${entryStateName(control)}, ` +
          `control ${control.toString(16)}, sharers ${directory.sharers(page).toString(2)}, ` +
          `last write ${this.lastWrite[page]}`,
      )
    }
    for (const channel of this.channels)
      lines.push(...channel.map((m) => `  on its way ${describe(m)}`))
    return lines.join('\n')
  }
}

/** Runs something, and tells of each atomic access just before it. */
function watchAtomics(
  before: (array: unknown, index: number, writes: boolean) => void,
  run: () => void,
): void {
  const names = ['load', 'store', 'or', 'and', 'compareExchange'] as const
  const atomics = Atomics as unknown as Record<string, (...args: unknown[]) => unknown>
  const originals = names.map((name) => [name, atomics[name]] as const)
  for (const [name, original] of originals) {
    atomics[name] = (array, index, ...rest) => {
      before(array, index as number, name !== 'load')
      return original(array, index, ...rest)
    }
  }
  try {
    run()
  } finally {
    for (const [name, original] of originals) atomics[name] = original
  }
}

export function describeChoice(choice: Choice): string {
  if (choice.do === 'amid') {
    const { by, place, step } = choice
    return `${describeChoice(step)}; amid it, at place ${place}, rank ${by} adds itself`
  }
  const { do: what, at, ...rest } = choice
  const details = Object.entries(rest).map(([name, value]) => `${name} ${value}`)
  return `rank ${at}: ${what} ${details.join(', ')}`.trimEnd()
}
