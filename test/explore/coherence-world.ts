import { ENTRY_BUSY, ENTRY_CLOSED, EntryState } from '../../dist/protocol/directory.js'
import type { LocalMessages } from '../../dist/protocol/local-messages.js'
import { Kind, NOBODY } from '../../dist/protocol/messages.js'
import type { PageFifo, PageQueues } from '../../dist/protocol/page-queues.js'
import { DeferredStep } from '../../dist/protocol/page-table.js'
import type { PageWords } from '../../dist/protocol/page-words.js'
import {
  begins,
  CheckFailed,
  type Choice,
  Cluster,
  type ClusterOptions,
  describeChoice,
  type FillStep,
  type Member,
  type Message,
} from '../protocol/support/cluster.js'
import type { ByteReader, ByteWriter } from './bytes.js'
import { KnownFields } from './known-fields.js'
import { type Symmetry, symmetriesOf } from './symmetry.js'
import type { Violation, World } from './world.js'

export interface CoherenceWorldOptions extends ClusterOptions {
  readonly symmetric: boolean
  /** How many messages may be under way from one member to another. */
  readonly mostInChannel: number
  /** Changes the protocol's own code or tables before the first step. */
  readonly mutate?: ((cluster: Cluster) => void) | undefined
}

/** What is private in the modules of lib/protocol, and has to be written and taken up again. */
interface PageTableState {
  awaited: PageWords
  early: PageWords
  deferred: PageWords
  holds: PageWords
  down: number
}
interface DirectoryState {
  queues: PageQueues
  pumped: PageFifo
  down: number
}
interface RegionState {
  local: LocalMessages
}
const pageTableOf = (member: Member): PageTableState =>
  member.coherence.pages as unknown as PageTableState
const directoryOf = (member: Member): DirectoryState =>
  member.coherence.directory as unknown as DirectoryState
const regionOf = (member: Member): RegionState => member.coherence as unknown as RegionState

const KNOWN = {
  pageTable: [
    ...['region', 'pageBytes', 'rank', 'homeOf', 'sink', 'awaited', 'early', 'deferred', 'holds'],
    'down',
  ],
  directory: ['region', 'words', 'indexOf', 'home', 'here', 'sink', 'queues', 'pumped', 'down'],
  region: ['pages', 'directory', 'region', 'rank', 'homes', 'local', 'draining'],
  member: [
    ...['cluster', 'rank', 'coherence', 'alive', 'down', 'states', 'directory', 'mmu', 'frames'],
    ...['threads', 'inbox', 'inBatch', 'flushing', 'faults', 'actions', 'opens', 'sends'],
    ...['discarded', 'held'],
    'stepping', // is over when a state is written
  ],
  cluster: [
    ...['options', 'homes', 'members', 'sabotage', 'channels', 'lastWrite', 'mayBeLost', 'trace'],
    ...['operationsLeft', 'pinsLeft', 'deathsLeft', 'everDied', 'everDiscarded'],
    ...['touches', 'lostTouches', 'latestAdd'], // counted, and never asked
  ],
}

const ALIVE = 1
const IN_BATCH = 2
const FLUSHING = 4
const NO_CONTENTS = 3
const CONTENTS_OF_FRAME = 2
const UNLIMITED = 255
/** Bits of a thread that is not idle. */
const BUSY = 1
const ASLEEP = 2
const WRITES = 4
const MODIFIES = 8
const LOADED = 16
const LOADED_LAST = 32
/** In bits 6 and 7 and ASLEEP: a thread that fills a page, or may not; neither is asleep. */
const FILL_BITS = {
  ...{ add: 0x40, copy: 0x80, raise: 0xc0 },
  ...{ claim: ASLEEP | 0x80, raiseClaimed: ASLEEP | 0xc0 },
} as const
const FILLS = ASLEEP | 0xc0
const FILL_STEPS = new Map(
  Object.entries(FILL_BITS).map(([step, bits]) => [bits, step as FillStep]),
)
const REFUSED = ASLEEP | 0x40

/** The whole of a small mesh that shares a few pages: test/protocol/support/cluster.ts. */
export class CoherenceWorld implements World<Choice> {
  readonly cluster: Cluster
  readonly symmetryCount: number
  /** The most messages that were under way at once from one member to another. */
  longestChannel = 0
  private readonly symmetries: Symmetry[]
  private readonly extra = new KnownFields()

  constructor(private readonly options: CoherenceWorldOptions) {
    this.cluster = new Cluster(options)
    const { cluster } = this
    cluster.everDiscarded = options.discards !== undefined && options.discards !== 'never'
    this.symmetries = symmetriesOf(cluster.homes, options.symmetric)
    this.symmetryCount = this.symmetries.length
    this.extra.check(cluster, KNOWN.cluster)
    for (const member of cluster.members) {
      this.extra.check(member, KNOWN.member)
      this.extra.check(member.coherence, KNOWN.region)
      this.extra.check(member.coherence.pages, KNOWN.pageTable)
      this.extra.check(member.coherence.directory, KNOWN.directory)
    }
    options.mutate?.(cluster)
  }

  choices(): Choice[] {
    return this.cluster.choices()
  }

  begins(choice: Choice): boolean {
    return begins(choice)
  }

  perform(choice: Choice): Violation | undefined {
    return this.checked(() => {
      this.cluster.perform(choice)
      this.checkChannels()
    })
  }

  checkRest(): Violation | undefined {
    return this.checked(() => this.cluster.checkRest())
  }

  waiting(): number {
    let waiting = 0
    for (const { rank, alive, threads } of this.cluster.members) {
      if (alive && threads.some(({ state }) => state !== 'idle')) waiting |= 1 << rank
    }
    return waiting
  }

  /** By member: 0-7 what arrives from whom, 8 the engine, 9 threads, 10 holds, 11-14 deaths. */
  classOf(choice: Choice): number {
    const base = 16 * choice.at
    switch (choice.do) {
      case 'arrive':
      case 'answer':
      case 'serve':
        return base + choice.from
      case 'run':
      case 'add':
      case 'copy':
      case 'claim':
      case 'raise':
      case 'raiseClaimed':
        return base + 9
      case 'release':
        return base + 10
      case 'noticeDown':
        return base + 11 + choice.down
      case 'amid':
        return this.classOf(choice.step)
      case 'event':
      case 'fault':
      case 'action':
      case 'open':
      case 'send':
      case 'touch':
      case 'prefetch':
      case 'discard':
      case 'pin':
      case 'park':
      case 'kill':
        return base + 8
    }
  }

  tell(choice: Choice): string {
    return describeChoice(choice)
  }

  startTrace(): string[] {
    return (this.cluster.trace = [])
  }

  picture(): string {
    return this.cluster.picture()
  }

  /** The last place within a step of an engine at which a thread added its member to an entry. */
  get latestAdd(): number {
    return this.cluster.latestAdd
  }

  private checked(run: () => void): Violation | undefined {
    try {
      run()
      return undefined
    } catch (error) {
      if (!(error instanceof CheckFailed)) throw error
      return { invariant: error.invariant ?? 'unnamed', message: error.message }
    }
  }

  private checkChannels(): void {
    for (const channel of this.cluster.channels) {
      if (channel.length > this.longestChannel) this.longestChannel = channel.length
    }
    if (this.longestChannel <= this.options.mostInChannel) return
    throw new CheckFailed(
      `${this.longestChannel} messages are under way from one member to another, and there may ` +
        `be ${this.options.mostInChannel}`,
      'queues are bounded',
    )
  }

  // A state as bytes. What the two halves do must match, line by line.

  write(out: ByteWriter, symmetry: number): void {
    const to = this.symmetries[symmetry]
    const { cluster } = this
    this.extra.checkEmpty()
    out.length = 0
    out.put(cluster.operationsLeft === Infinity ? UNLIMITED : cluster.operationsLeft)
    out.put(cluster.pinsLeft)
    out.put(cluster.deathsLeft)
    for (const page of to.pageBefore) out.put(to.bits[cluster.mayBeLost[page]])
    for (const rank of to.rankBefore) this.writeMember(cluster.members[rank], out, to)
    const size = cluster.members.length
    for (const from of to.rankBefore) {
      for (const at of to.rankBefore)
        this.writeMessages(cluster.channels[from * size + at], out, to)
    }
  }

  private writeMember(member: Member, out: ByteWriter, to: Symmetry): void {
    if (!member.alive) {
      out.put(0)
      return this.writeWhatOutlives(member, out, to)
    }
    if (regionOf(member).local.length > 0) throw new Error('a step has left something undone')
    const { homes } = this.cluster
    const flags = (member.inBatch ? IN_BATCH : 0) | (member.flushing ? FLUSHING : 0)
    out.put(ALIVE | flags)
    out.put(to.bits[member.down])
    out.put(to.bits[pageTableOf(member).down])
    out.put(to.bits[directoryOf(member).down])
    for (const page of to.pageBefore) {
      this.writePage(member, page, out, to)
      if (homes.homeOf(page) === member.rank) this.writeEntry(member, page, out, to)
    }
    const { pumped } = directoryOf(member)
    out.put(pumped.size)
    for (const page of pumped.toArray()) out.put(to.page[page])
    this.writeThreads(member, out, to)
    this.writeMessages(member.inbox, out, to)
    this.writeMessages(member.sends, out, to)
    out.put(member.faults.length)
    for (const { page, access, unsentState } of member.faults) {
      out.put(2 * to.page[page] + (access === 'write' ? 1 : 0))
      out.put(unsentState)
    }
    out.put(member.actions.length)
    for (const action of member.actions) {
      out.put(to.page[action.page])
      out.put(action.does === 'wake' ? 0xff : action.access)
    }
    out.put(member.opens.length)
    for (const page of member.opens) out.put(to.page[page])
  }

  /** Members on its host go on reading the frames of one that died, until they know. */
  private writeWhatOutlives(member: Member, out: ByteWriter, to: Symmetry): void {
    const { homes, lastWrite, options } = this.cluster
    if (options.oneSided !== true) return
    for (const page of to.pageBefore) {
      if (homes.homeOf(page) !== member.rank) continue
      const [control, sharers] = member.entryWords(page)
      const open = (control & (ENTRY_CLOSED | ENTRY_BUSY | 0xff)) === EntryState.clean
      out.put(open ? 1 : 0)
      out.put(open ? to.bits[sharers] : 0)
      out.put(member.frames[page] === lastWrite[page] ? 1 : 0)
    }
  }

  private writePage(member: Member, page: number, out: ByteWriter, to: Symmetry): void {
    const { awaited, early, deferred, holds } = pageTableOf(member)
    out.put(member.states[page])
    out.put(
      (member.mmu[page] << 1) | (member.frames[page] === this.cluster.lastWrite[page] ? 1 : 0),
    )
    out.put(to.bits[awaited.get(page)])
    out.put(to.bits[early.get(page)])
    out.put(holds.get(page) * 16 + countOf(member.held, page))
    out.put(countOf(member.discarded, page))
    const step = deferred.get(page)
    if (step === 0) return out.put(0xff)
    out.put(DeferredStep.event(step))
    out.put(to.rank[DeferredStep.from(step)])
    out.put(to.rank[DeferredStep.requester(step)])
  }

  private writeEntry(member: Member, page: number, out: ByteWriter, to: Symmetry): void {
    const control = member.coherence.directory.control(page)
    out.put(control & 0xff)
    out.put((control >>> 8) & 0xff)
    out.put(to.rank[(control >>> 16) & 0xff])
    out.put(to.rank[control >>> 24])
    out.put(to.bits[member.coherence.directory.sharers(page)])
    const { queues } = directoryOf(member)
    if (!queues.has(page)) return out.put(0)
    const queue = queues.of(page)
    out.put(queue.length)
    for (const request of queue) {
      out.put(to.rank[request & 0xff])
      out.put(request >>> 8)
    }
  }

  private writeThreads(member: Member, out: ByteWriter, to: Symmetry): void {
    for (const { state, page, access, refused, modifies, loaded } of member.threads) {
      if (state === 'idle') {
        out.put(0)
        continue
      }
      out.put(
        BUSY |
          (state === 'asleep' ? ASLEEP : state === 'running' ? 0 : FILL_BITS[state]) |
          (refused ? REFUSED : 0) |
          (access === 'write' ? WRITES : 0) |
          (modifies ? MODIFIES : 0) |
          (loaded === undefined ? 0 : LOADED) |
          (loaded === this.cluster.lastWrite[page] ? LOADED_LAST : 0),
      )
      out.put(to.page[page])
    }
  }

  private writeMessages(messages: readonly Message[], out: ByteWriter, to: Symmetry): void {
    out.put(messages.length)
    if (messages.length === 0) return
    for (const { from, to: at, kind, page, a, b, contents } of messages) {
      out.put(8 * to.rank[from] + to.rank[at])
      out.put(kind)
      out.put(8 * to.page[page] + b)
      out.put(RANK_IN_A.has(kind) ? to.rank[a] : MAP_IN_A.has(kind) ? to.bits[a] : a)
      out.put(this.contentsCode(contents, page))
    }
  }

  /** Which write contents come from counts only as being the last one or not. */
  private contentsCode(contents: number | undefined, page: number): number {
    if (contents === undefined) return NO_CONTENTS
    if (Number.isNaN(contents)) return CONTENTS_OF_FRAME
    return contents === this.cluster.lastWrite[page] ? 1 : 0
  }

  read(from: ByteReader): void {
    const { cluster } = this
    const operations = from.take()
    cluster.operationsLeft = operations === UNLIMITED ? Infinity : operations
    cluster.pinsLeft = from.take()
    cluster.deathsLeft = from.take()
    cluster.lastWrite.fill(1)
    for (let page = 0; page < cluster.options.pages; page++) cluster.mayBeLost[page] = from.take()
    for (const member of cluster.members) this.readMember(member, from)
    for (const channel of cluster.channels) this.readMessages(channel, from)
    cluster.everDied = cluster.members.some(({ alive }) => !alive)
  }

  private readMember(member: Member, from: ByteReader): void {
    const pages = pageTableOf(member)
    const directory = directoryOf(member)
    // Nearly all are empty, and to empty them again is most of what reading a state costs.
    if (pages.awaited.size > 0) pages.awaited.clear()
    if (pages.early.size > 0) pages.early.clear()
    if (pages.deferred.size > 0) pages.deferred.clear()
    if (pages.holds.size > 0) pages.holds.clear()
    if (directory.queues.size > 0) directory.queues.clear()
    if (directory.pumped.size > 0) directory.pumped.clear()
    if (member.held.length > 0) member.held.length = 0
    if (member.discarded.length > 0) member.discarded.length = 0
    if (member.faults.length > 0) member.faults.length = 0
    if (member.actions.length > 0) member.actions.length = 0
    if (member.opens.length > 0) member.opens.length = 0
    const flags = from.take()
    member.alive = flags !== 0
    member.inBatch = (flags & IN_BATCH) !== 0
    member.flushing = (flags & FLUSHING) !== 0
    if (flags === 0) {
      this.forget(member)
      return this.readWhatOutlives(member, from)
    }
    member.down = from.take()
    pages.down = from.take()
    directory.down = from.take()
    const { homes, options } = this.cluster
    for (let page = 0; page < options.pages; page++) {
      this.readPage(member, page, from)
      if (homes.homeOf(page) === member.rank) this.readEntry(member, page, from)
    }
    for (let count = from.take(); count > 0; count--) directory.pumped.add(from.take())
    for (const thread of member.threads) this.readThread(thread, from)
    this.readMessages(member.inbox, from)
    this.readMessages(member.sends, from)
    for (let count = from.take(); count > 0; count--) {
      const code = from.take()
      const access = (code & 1) === 1 ? 'write' : 'read'
      member.faults.push({ page: code >> 1, access, unsentState: from.take() })
    }
    for (let count = from.take(); count > 0; count--) {
      const page = from.take()
      const access = from.take()
      member.actions.push(
        access === 0xff ? { does: 'wake', page } : { does: 'protect', page, access },
      )
    }
    for (let count = from.take(); count > 0; count--) member.opens.push(from.take())
  }

  private readWhatOutlives(member: Member, from: ByteReader): void {
    const { homes, options } = this.cluster
    if (options.oneSided !== true) return
    for (let page = 0; page < options.pages; page++) {
      if (homes.homeOf(page) !== member.rank) continue
      const entry = 2 * homes.indexOf(page)
      member.directory[entry] = from.take()
      member.directory[entry + 1] = from.take()
      member.frames[page] = from.take()
    }
  }

  /** Nothing of a member that is dead matters any more. */
  private forget(member: Member): void {
    member.states.fill(0)
    member.mmu.fill(0)
    member.directory.fill(0)
    member.inbox.length = member.sends.length = 0
    member.down = pageTableOf(member).down = directoryOf(member).down = 0
    for (const thread of member.threads) thread.state = 'idle'
  }

  private readPage(member: Member, page: number, from: ByteReader): void {
    const { awaited, early, deferred, holds } = pageTableOf(member)
    member.states[page] = from.take()
    const access = from.take()
    member.mmu[page] = access >> 1
    member.frames[page] = access & 1
    setIfAny(awaited, page, from.take())
    setIfAny(early, page, from.take())
    const held = from.take()
    if (held >= 16) holds.set(page, held >> 4)
    for (let count = held & 15; count > 0; count--) member.held.push(page)
    for (let count = from.take(); count > 0; count--) member.discarded.push(page)
    const event = from.take()
    if (event !== 0xff) deferred.set(page, DeferredStep.of(event, rankOf(from), rankOf(from)))
  }

  private readEntry(member: Member, page: number, from: ByteReader): void {
    const entry = 2 * this.cluster.homes.indexOf(page)
    const state = from.take() | (from.take() << 8)
    const owner = from.take()
    member.directory[entry] = (state | (owner << 16) | (from.take() << 24)) >>> 0
    member.directory[entry + 1] = from.take()
    const { queues } = directoryOf(member)
    for (let count = from.take(); count > 0; count--) {
      queues.push(page, from.take() | (from.take() << 8))
    }
  }

  private readThread(thread: Member['threads'][number], from: ByteReader): void {
    const flags = from.take()
    const refused = (flags & FILLS) === REFUSED
    const fills = FILL_STEPS.get(flags & FILLS)
    const rests = (flags & ASLEEP) !== 0 && !refused
    thread.state = flags === 0 ? 'idle' : (fills ?? (rests ? 'asleep' : 'running'))
    thread.refused = refused
    thread.access = (flags & WRITES) !== 0 ? 'write' : 'read'
    thread.modifies = (flags & MODIFIES) !== 0
    const loaded = (flags & LOADED_LAST) !== 0 ? 1 : 0
    thread.loaded = (flags & LOADED) !== 0 ? loaded : undefined
    thread.page = flags === 0 ? 0 : from.take()
  }

  private readMessages(messages: Message[], from: ByteReader): void {
    if (messages.length > 0) messages.length = 0
    for (let count = from.take(); count > 0; count--) {
      const ends = from.take()
      const kind = from.take()
      const words = from.take()
      const a = from.take()
      const code = from.take()
      const contents = code === NO_CONTENTS ? undefined : code === CONTENTS_OF_FRAME ? NaN : code
      const page = words >> 3
      messages.push({ from: ends >> 3, to: ends & 7, kind, page, a, b: words & 7, contents })
    }
  }
}

/** Nearly all words are 0, and all are when a state is read. */
function setIfAny(words: PageWords, page: number, word: number): void {
  if (word !== 0) words.set(page, word)
}

const countOf = (pages: readonly number[], page: number): number =>
  pages.length === 0 ? 0 : pages.filter((each) => each === page).length
const rankOf = (from: ByteReader): number => {
  const rank = from.take()
  return rank === 0xff ? NOBODY : rank
}
const RANK_IN_A = new Set<number>([
  ...[Kind.RecallRead, Kind.RecallWrite, Kind.Invalidate, Kind.Lost],
])
const MAP_IN_A = new Set<number>([Kind.Grant, Kind.DataExclusive])
