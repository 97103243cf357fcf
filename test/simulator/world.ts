import { entryStateName } from '../../dist/protocol/directory.js'
import { PAGE_HELD, PAGE_PENDING, PageState } from '../../dist/protocol/page-table.js'
import { HomeMap } from '../../dist/protocol/placement.js'
import { Random } from '../protocol/support/random.js'
import { Clock } from './clock.js'
import { History } from './history.js'
import { Member, Mmu, type Thread } from './member.js'
import { bytesOf, describe, isPageKind, type Message } from './message.js'
import { program } from './programs.js'
import { CheckFailed, type Settings } from './settings.js'
import { SyncChecks } from './sync-checks.js'

/** 10 Gbit/s. */
const NS_PER_BYTE = 0.8
/** After how long a silence a member counts as down. */
const HEARTBEAT_TIMEOUT_NS = 1e9
/** Far more than any operation takes, with all others queueing before it. */
const MOST_EVENTS_PER_OPERATION = 20_000

/** How often something took so many messages, one after the other. */
export type Histogram = Map<number, number>

export interface Counts {
  faults: number
  faultNs: number
  longestFaultNs: number
  touches: number
  lostTouches: number
  messages: number
  bytes: number
  pageMessages: number
  pageBytes: number
  syncMessages: number
  acquires: number
  barriers: number
  longestInbox: number
  /** Beside the eight bytes of each entry; the most at one time, summed over members. */
  farBytes: number
  events: number
  readonly faultHops: Histogram
  readonly acquireHops: Histogram
  readonly barrierHops: Histogram
  /** By rank. */
  readonly received: number[]
}

export interface Outcome {
  readonly digest: string
  readonly lines: number
  readonly virtualNs: number
  readonly counts: Counts
}

/** Where a message may still come after its sender has died. */
interface Channel {
  lastNs: number
  /** From then on nothing comes: the connection has ended. */
  cutNs: number
}

const count = (histogram: Histogram, hops: number): void => {
  histogram.set(hops, (histogram.get(hops) ?? 0) + 1)
}

/** A mesh in one process, on a virtual clock, with a network that a seed decides about. */
export class World {
  readonly clock = new Clock()
  readonly random: Random
  readonly history: History
  readonly homes: HomeMap
  readonly members: Member[] = []
  readonly syncChecks = new SyncChecks((why) => this.fail(why))
  readonly counts: Counts
  everDied = false
  /** For each page, the number of the last write. */
  readonly lastWrite: Float64Array
  private readonly readers: Int32Array
  private readonly writers: Int32Array
  private readonly channels = new Map<number, Channel>()
  /** Notices of copies given back that their homes have not come to, by 'from * members + to'. */
  private readonly discards = new Map<number, number>()
  private readonly farBytesAt: number[]
  private farBytes = 0
  private operationsBegun = 0
  /** What happens once so many operations have begun, in order. */
  private readonly incidents: { readonly operation: number; readonly run: () => void }[] = []
  private lastRound = -1
  private finalRound = Infinity

  constructor(
    readonly settings: Settings,
    onLine?: (line: string) => void,
  ) {
    const { members, pages, placement, seed } = settings
    this.random = new Random(seed)
    this.history = new History(onLine)
    this.homes = new HomeMap(placement, pages, members)
    this.lastWrite = new Float64Array(pages)
    this.readers = new Int32Array(pages)
    this.writers = new Int32Array(pages)
    this.farBytesAt = new Array<number>(members).fill(0)
    this.counts = {
      faults: 0,
      faultNs: 0,
      longestFaultNs: 0,
      touches: 0,
      lostTouches: 0,
      messages: 0,
      bytes: 0,
      pageMessages: 0,
      pageBytes: 0,
      syncMessages: 0,
      acquires: 0,
      barriers: 0,
      longestInbox: 0,
      farBytes: 0,
      events: 0,
      faultHops: new Map(),
      acquireHops: new Map(),
      barrierHops: new Map(),
      received: new Array<number>(members).fill(0),
    }
    for (let rank = 0; rank < members; rank++) this.members.push(new Member(this, rank))
    for (let slow = 0; slow < settings.slowMembers; slow++) {
      this.random.pick(this.members).slowness = settings.slowFactor
    }
    this.planIncidents()
  }

  /** From the first operation to the last message. Throws CheckFailed. */
  run(onProgress?: (part: number) => void): Outcome {
    const { settings, clock } = this
    for (const member of this.members) {
      for (let thread = 0; thread < settings.threads; thread++) {
        member.start(program(settings.pattern, this, member.rank, thread))
      }
    }
    const total = settings.members * settings.threads * settings.operations
    const most = Math.min(1e12, MOST_EVENTS_PER_OPERATION * (total + 100))
    while (clock.step()) {
      this.counts.events++
      if (this.counts.events > most) this.fail(`after ${most} events it has not come to rest`)
      if (this.counts.events % 50_000 === 0) {
        const byTime = clock.nowNs / settings.virtualNs
        onProgress?.(Math.min(1, Math.max(this.operationsBegun / total, byTime)))
      }
    }
    this.checkRest()
    return {
      lines: this.history.lineCount,
      digest: this.history.digest(),
      virtualNs: clock.nowNs,
      counts: this.counts,
    }
  }

  note(line: string): void {
    this.history.add(`${this.clock.nowNs} ${line}`)
  }

  fail(why: string): never {
    this.note(`FAILED: ${why}`)
    throw new CheckFailed(why)
  }

  // What programs ask.

  startsOperation(index: number): boolean {
    if (index >= this.settings.operations || this.clock.nowNs >= this.settings.virtualNs)
      return false
    this.begins()
    return true
  }

  /** The same for rounds that all members take part in: all do as many. */
  startsRound(round: number): boolean {
    if (round >= this.settings.operations) return false
    if (this.clock.nowNs >= this.settings.virtualNs) {
      this.finalRound = Math.min(this.finalRound, this.lastRound)
    }
    if (round > this.finalRound) return false
    this.lastRound = Math.max(this.lastRound, round)
    this.begins()
    return true
  }

  private begins(): void {
    this.operationsBegun++
    while (this.incidents.length > 0 && this.incidents[0].operation <= this.operationsBegun) {
      this.incidents.shift()!.run()
    }
  }

  // Members that stop, and members that die.

  private planIncidents(): void {
    const { settings, random, incidents } = this
    const { kills, stops, members, threads, operations } = settings
    const total = members * threads * Math.min(operations, 1000)
    const plan = (run: () => void): void => {
      const operation = 1 + Math.floor(total * (0.05 + 0.85 * random.fraction()))
      // Not in the middle of whatever began the operation.
      incidents.push({ operation, run: () => this.clock.after(random.below(50_000), run) })
    }
    for (let stop = 0; stop < stops; stop++) plan(() => this.stopOne())
    for (let kill = 0; kill < kills; kill++) plan(() => this.killOne())
    incidents.sort((one, other) => one.operation - other.operation)
  }

  private anyAlive(): Member | undefined {
    const alive = this.members.filter((each) => each.alive)
    return alive.length > 1 ? this.random.pick(alive) : undefined
  }

  /** Shorter than the time-out: the others only wait. */
  private stopOne(): void {
    const member = this.anyAlive()
    if (member === undefined) return
    const ns = Math.round(10 ** (4 + 4 * this.random.fraction()))
    member.stoppedUntilNs = Math.max(member.stoppedUntilNs, this.clock.nowNs + ns)
    this.note(`${member.rank} is stopped for ${ns} ns`)
  }

  /**
   * Killed, so that its connections end; or stopped for good, so that the others notice its silence.
   * One that wakes up again after that is not simulated.
   */
  private killOne(): void {
    const member = this.anyAlive()
    if (member === undefined) return
    const silent = this.random.chance(0.3)
    this.everDied = true
    this.note(`${member.rank} is ${silent ? 'stopped for good' : 'killed'}`)
    member.kill()
    for (const other of this.members) {
      if (other === member) continue
      const channel = this.channel(member.rank, other.rank)
      const { nowNs } = this.clock
      // Up to then what it had sent still comes; after that nothing does.
      const reach = silent ? HEARTBEAT_TIMEOUT_NS : 4 * this.settings.latencyNs
      channel.cutNs =
        nowNs +
        Math.round(reach * (silent ? 1 + this.random.fraction() / 5 : this.random.fraction()))
      this.clock.at(channel.cutNs, () => this.connectionEnds(other, member.rank))
    }
  }

  private connectionEnds(member: Member, down: number): void {
    if (this.settings.sabotage.tellDown?.(member.rank, down) === false) return
    member.ask(() => member.noticeDown(down))
  }

  // The network.

  /** One more is under way, or one less. */
  discardUnderWay(from: number, to: number, change: 1 | -1): void {
    const key = from * this.settings.members + to
    this.discards.set(key, (this.discards.get(key) ?? 0) + change)
  }

  hasDiscardUnderWay(from: number, to: number): boolean {
    return (this.discards.get(from * this.settings.members + to) ?? 0) !== 0
  }

  private channel(from: number, to: number): Channel {
    const key = from * this.settings.members + to
    let channel = this.channels.get(key)
    if (channel === undefined) {
      this.channels.set(key, (channel = { lastNs: 0, cutNs: Infinity }))
    }
    return channel
  }

  send(message: Message): void {
    for (const each of this.settings.sabotage.send?.(message, this) ?? [message])
      this.transmit(each)
  }

  private transmit(message: Message): void {
    const { clock, random, settings, counts } = this
    const bytes = bytesOf(message)
    counts.messages++
    counts.bytes += bytes
    counts.received[message.to]++
    if (isPageKind(message.kind)) {
      counts.pageMessages++
      counts.pageBytes += bytes
    } else counts.syncMessages++
    const channel = this.channel(message.from, message.to)
    let delayNs = settings.latencyNs - settings.jitterNs * Math.log(1 - random.fraction())
    if (settings.straggler > 0 && random.chance(1 / settings.straggler)) delayNs *= 100
    let arrivalNs = Math.round(clock.nowNs + delayNs + bytes * NS_PER_BYTE)
    if (settings.sabotage.unordered !== true) arrivalNs = Math.max(arrivalNs, channel.lastNs + 1)
    channel.lastNs = arrivalNs
    this.note(`${describe(message)} until ${arrivalNs}`)
    clock.at(arrivalNs, () => {
      if (clock.nowNs < channel.cutNs) this.members[message.to].deliver(message)
    })
  }

  // What members do with pages, and what must be true then.

  /** Everything that changes what a member may do with a page goes through here. */
  setMmu(member: Member, page: number, access: number): void {
    const was = member.mmu[page]
    if (was === access) return
    member.mmu[page] = access
    if (was === Mmu.write) this.writers[page]--
    if (was === Mmu.read) this.readers[page]--
    if (access === Mmu.none) return
    if (access === Mmu.write) this.writers[page]++
    if (access === Mmu.read) this.readers[page]++
    this.checkPage(member, page)
  }

  /** One writer and nobody else, or readers of the last write. */
  private checkPage(member: Member, page: number): void {
    const last = this.lastWrite[page]
    if (member.frames[page] !== last) {
      this.fail(
        `rank ${member.rank} can use page ${page} as of write ${member.frames[page]}, and the ` +
          `last was ${last}`,
      )
    }
    const writers = this.writers[page]
    if (writers > 1 || (writers === 1 && this.readers[page] > 0)) {
      this.fail(`page ${page} has ${writers} writers and ${this.readers[page]} readers`)
    }
  }

  /** A thread uses a page that the MMU lets it use. */
  use(member: Member, thread: Thread): void {
    const { page, access } = thread
    const { counts } = this
    counts.touches++
    this.checkPage(member, page)
    if (access === 'write') member.frames[page] = ++this.lastWrite[page]
    if (thread.faulted) {
      thread.faulted = false
      const tookNs = this.clock.nowNs - thread.sinceNs
      counts.faultNs += tookNs
      counts.longestFaultNs = Math.max(counts.longestFaultNs, tookNs)
      count(counts.faultHops, thread.hop)
    }
    this.note(`${member.rank} ${access}s page ${page} =${this.lastWrite[page]}`)
  }

  onLost(member: Member, page: number, home: number, owner: number): void {
    this.counts.lostTouches++
    this.note(`${member.rank} loses page ${page} with ${owner}`)
    if (home !== this.homes.homeOf(page)) this.fail(`page ${page} is lost with home ${home}`)
    if (this.members[owner].alive) {
      this.fail(`page ${page} is lost at rank ${member.rank} with rank ${owner}, which is up`)
    }
  }

  /** A lock is taken or refused, or a barrier is open. */
  onAnswer(
    member: Member,
    thread: Thread,
    granted: boolean,
    request: number | undefined,
    hop: number,
  ): void {
    const { step } = thread
    const { counts } = this
    if (step.do === 'barrier') {
      counts.barriers++
      count(counts.barrierHops, hop)
      this.note(`${member.rank} passes barrier ${step.key}`)
      this.syncChecks.opens(step.key, member.rank)
    } else if (step.do === 'acquire') {
      counts.acquires++
      count(counts.acquireHops, hop)
      this.note(`${member.rank} ${granted ? 'has' : 'does not get'} ${step.key}`)
      if (granted && request !== undefined) this.syncChecks.has(step.key, member.rank, request)
    } else this.fail(`rank ${member.rank} gets an answer while it ${step.do}s`)
  }

  noteDirectory(member: Member): void {
    const bytes = member.coherence.directory.farBytes
    this.farBytes += bytes - this.farBytesAt[member.rank]
    this.farBytesAt[member.rank] = bytes
    this.counts.farBytes = Math.max(this.counts.farBytes, this.farBytes)
  }

  // When nothing is under way any more.

  private checkRest(): void {
    for (const member of this.members) {
      if (!member.alive) continue
      const { rank } = member
      for (const { state, step, page } of member.threads) {
        if (state === 'done') continue
        this.fail(
          `rank ${rank} waits for ever to ${step.do} (page ${page}, ${member.stateOf(page)})`,
        )
      }
      if (!member.isIdle) this.fail(`the engine of rank ${rank} has stopped with work to do`)
      this.checkView(member)
      for (let page = 0; page < this.settings.pages; page++) this.checkPageAtRest(member, page)
    }
    for (let page = 0; page < this.settings.pages; page++) {
      if (this.members[this.homes.homeOf(page)].alive) this.checkEntryAtRest(page)
    }
    if (!this.everDied) this.syncChecks.checkRest((id, rank) => this.members[rank].keeps(id))
  }

  /** Each survivor has noticed each death, and nothing else. */
  private checkView(member: Member): void {
    const dead = this.members.filter(({ alive }) => !alive)
    const wrong = this.members.find(({ rank, alive }) => member.members.isUp(rank) !== alive)
    if (wrong !== undefined) {
      this.fail(`rank ${member.rank} takes rank ${wrong.rank} to be ${wrong.alive ? 'down' : 'up'}`)
    }
    if (member.members.view !== 1 + dead.length) {
      this.fail(`rank ${member.rank} is in view ${member.members.view} of ${1 + dead.length}`)
    }
  }

  private checkPageAtRest(member: Member, page: number): void {
    const state = member.states[page]
    const where = `page ${page} at rank ${member.rank}`
    if ((state & PAGE_PENDING) !== 0) this.fail(`${where} stays ${member.stateOf(page)} for ever`)
    if ((state & PAGE_HELD) !== 0) this.fail(`${where} stays held`)
    if (member.coherence.isWanted(page)) this.fail(`${where}: somebody still waits for it`)
    const allowed = state & Mmu.write
    if ((member.mmu[page] & ~allowed) !== 0) {
      this.fail(`${where} is ${member.stateOf(page)}, and the MMU allows ${member.mmu[page]}`)
    }
  }

  private ranksWith(page: number, state: number): number[] {
    return this.members
      .filter((each) => each.alive && each.states[page] === state)
      .map(({ rank }) => rank)
  }

  private checkEntryAtRest(page: number): void {
    const home = this.members[this.homes.homeOf(page)]
    const { directory } = home.coherence
    const state = entryStateName(directory.control(page))
    const readers = this.ranksWith(page, PageState.read)
    const writers = this.ranksWith(page, PageState.write)
    const sharers = this.members.filter(({ rank }) => directory.isSharer(page, rank))
    const bad = (why: string): never =>
      this.fail(
        `page ${page} is ${state ?? 'in no state'}, readers ${readers.join()}, writers ` +
          `${writers.join()}, sharers ${sharers.map(({ rank }) => rank).join()}: ${why}`,
      )
    switch (state) {
      case 'ownedHere':
      case 'ownedAway': {
        const owner = state === 'ownedHere' ? home.rank : directory.ownerOf(page)
        if (writers.length !== 1 || writers[0] !== owner || readers.length > 0)
          bad('not its owner’s')
        if (sharers.length > 0) bad('an owned page has no sharers')
        return
      }
      case 'clean': {
        if (writers.length > 0) bad('a clean page has a writer')
        if (readers.some((rank) => !directory.isSharer(page, rank))) bad('an unknown reader')
        if (sharers.some(({ alive }) => !alive)) bad('a member that is down is a sharer')
        if (home.frames[page] !== this.lastWrite[page]) bad('the home’s frame is not the last')
        return
      }
      case 'lost':
        if (!this.everDied) bad('nobody has died')
        return
      case 'sharing':
      case 'sharingConfirmed':
      case 'sharingWritten':
      case 'transferring':
      case undefined:
        bad('the entry is still busy')
    }
  }
}
