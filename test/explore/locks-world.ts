import { type EngineContext } from '../../dist/engine/context.js'
import { Synchronization } from '../../dist/engine/synchronization.js'
import { PagemeshError } from '../../dist/errors.js'
import {
  BARRIER_WORDS,
  BarrierLayout,
  BarrierWords,
  countsOf,
  isBehind,
} from '../../dist/protocol/barrier-words.js'
import { Kind } from '../../dist/protocol/messages.js'
import { HomeMap } from '../../dist/protocol/placement.js'
import { NO_SLOT, TokenWords, WORDS_PER_TOKEN } from '../../dist/protocol/token-words.js'
import type { Next } from '../../dist/protocol/semaphores.js'
import type { ByteReader, ByteWriter } from './bytes.js'
import { KnownFields } from './known-fields.js'
import { LockReferee, type Outcome } from './lock-referee.js'
import { type Symmetry, symmetriesOf } from './symmetry.js'
import type { Violation, World } from './world.js'

/**
 * Members that use one semaphore, or one barrier: the real managers of lib/protocol, the real client
 * of lib/engine/synchronization.ts, and channels between them. Rank 0 is the manager of the
 * semaphore. Where tokens may stay, each member has the word that its program's thread and its engine
 * share, and what the thread does to it (lib/api/lock-tokens.ts) is a step of its own. So it is with
 * the words of barriers (lib/api/barriers.ts), which native code changes too.
 */

export interface LocksWorldOptions {
  readonly members: number
  readonly use: 'semaphore' | 'barrier'
  readonly permits?: number
  /** How many requests of one member may be under way at once. */
  readonly slots?: number
  readonly tries?: boolean
  readonly cancels?: boolean
  /** Whether the token of the lock stays where it was used. */
  readonly keeps?: boolean
  /** Whether programs come to the barrier by themselves, and native code counts who comes. */
  readonly words?: boolean
  /** How many members may leave, and how many may die. */
  readonly leaves?: number
  readonly deaths?: number
  readonly symmetric: boolean
  readonly mostInChannel: number
  readonly sabotage?: LockSabotage | undefined
  readonly mutate?: ((world: LocksWorld) => void) | undefined
}

/** Ways to break the world around the managers. */
export interface LockSabotage {
  readonly send?: (message: LockMessage) => readonly LockMessage[]
  /** Members forget that they have cancelled. */
  readonly forgetsCancel?: boolean
  /** Members that leave go on waiting for a permit. */
  readonly keepsWaiting?: boolean
  /** The program keeps a lock that it waits for elsewhere, and takes it again. */
  readonly overtakes?: boolean
  /** Native code looks whether the engine wants to hear of an arrival before it counts it. */
  readonly looksFirst?: boolean
}

export interface LockMessage {
  readonly from: number
  readonly to: number
  readonly kind: number
  readonly words: readonly number[]
}

export type LockChoice =
  | { readonly do: 'acquire' | 'try' | 'cancel' | 'release' | 'arrive'; at: number; slot: number }
  | { readonly do: 'deliver' | 'take' | 'count'; at: number; from: number }
  | { readonly do: 'pass' | 'handOver'; at: number; slot: number }
  | { readonly do: 'leave' | 'kill' | 'giveAway' | 'tell'; at: number }
  | { readonly do: 'noticeDown'; at: number; down: number }

const BEGINNINGS: ReadonlySet<string> = new Set([
  ...['acquire', 'try', 'cancel', 'arrive', 'leave', 'kill'],
])
const KEY = 0 // managed by rank 0
const KIND_NAMES = new Map(Object.entries(Kind).map(([name, kind]) => [kind as number, name]))
const SLOT_STATES = ['idle', 'asked', 'cancelled', 'holding', 'arrived', 'waits'] as const
const STANDINGS = ['up', 'left', 'dead'] as const
const TELLINGS = ['nothing', 'looks', 'wakes', 'counts', 'countsAndWakes'] as const
const ASKED = ['nothing', 'recall', 'recallAndAnswer'] as const
/** Token words that are free, and before the grant; lib/protocol/token-words.ts. */
const FREE = 1
const FREE_EARLY = 9
const WANTED = 4
/** What whoever passes a token on must know. */
const TICKET = 5

export interface Slot {
  state: (typeof SLOT_STATES)[number]
  /** What it holds its permit by, or waits for at a barrier by itself. */
  request: number
}

interface Claim {
  rank: number
  request: number
  semaphore: Semaphore
  held: boolean
  mode: 'wait' | 'try'
  keeps: boolean
  ticket: number
  promised: boolean
  asked: (typeof ASKED)[number]
}
interface Semaphore {
  id: number
  permits: number
  heldCount: number
  waiters: Set<Claim>
  tries: number
  keeper: Claim | undefined
}
/** What is private in the real code. */
export interface SyncState {
  acquires: Map<
    number,
    {
      id: number
      key: number
      name: string
      permits: number
      slot: number
      ticket: number
      cancelled: boolean
      early: boolean
    }
  >
  tokens: Map<number, { request: number; slot: number; next: Next | undefined }>
  tokenWords: TokenWords
  recalled: (key: number, request: number, answer: boolean, next?: Next) => void
  passOn: (key: number, next: Next) => void
  arrivals: Map<number, string>
  nextRequest: number
  semaphores: SemaphoreState
  barriers: BarrierState
}
export interface SemaphoreState {
  emit: (outcome: Outcome) => void
  semaphores: Map<number, Semaphore>
  claims: Map<number, Map<number, Claim>>
  gone: Set<number>
  acquire: (
    ...args: [
      id: number,
      from: number,
      request: number,
      permits: number,
      mode: string,
      keeps?: boolean,
      ticket?: number,
    ]
  ) => void
  release: (id: number, from: number, request: number) => void
  cancel: (id: number, from: number, request: number) => void
  inUse: (id: number, from: number, request: number) => void
  memberGone: (rank: number) => void
  recall: (keeper: Claim, mode: string) => void
  giveBack: (claim: Claim) => void
  grant: (claim: Claim) => void
  forget: (claim: Claim) => void
}
export interface BarrierState {
  barriers: Map<number, Barrier>
  bound: Barrier[]
  gone: number[]
  size: number
  rank: number
  shared: BarrierWords
  arrived: (key: number, from: number) => void
  look: () => void
  memberGone: (rank: number) => void
  make: (key: number) => Barrier | undefined
  bind: (barrier: Barrier, slot: number) => Barrier
  isOpen: (barrier: Barrier, ticket: number) => boolean
  isDone: (barrier: Barrier) => boolean
}
interface Barrier {
  readonly key: number
  words: Int32Array
  at: number
  waiting: { ticket: number; request: number }[]
  witness: number
}
const KNOWN = {
  sync: [
    ...['context', 'goneError', 'semaphores', 'barriers', 'acquires', 'arrivals', 'nextRequest'],
    ...['tokens', 'tokenWords', 'ringProgram'],
  ],
  semaphores: ['emit', 'semaphores', 'claims', 'gone'],
  barriers: ['size', 'rank', 'shared', 'emit', 'barriers', 'bound', 'gone'],
}

class LockFailed extends Error {
  constructor(
    message: string,
    readonly invariant: string,
  ) {
    super(message)
  }
}

export class LockMember {
  standing: (typeof STANDINGS)[number] = 'up'
  /** It knows that a member is down: whatever needs all members has failed. */
  failed = false
  down = 0
  /** Barriers: how many generations it has begun, and how many have opened for it. */
  begun = 0
  opened = 0
  /** What the program has told its engine to give away, and it has not heard yet. */
  givingAway = 0
  /** … and that it has passed it on already. */
  passed = false
  readonly slots: Slot[]
  readonly sync: Synchronization
  readonly words = new TokenWords(new Int32Array(WORDS_PER_TOKEN))
  readonly barrierWords: BarrierWords
  /** Native code has counted an arrival, and has yet to see whether the engine wants to hear of it. */
  telling: (typeof TELLINGS)[number] = 'nothing'
  tellingOf = 0

  constructor(
    private readonly world: LocksWorld,
    readonly rank: number,
  ) {
    const { options } = world
    const words = new Int32Array(options.words === true ? BARRIER_WORDS : 0)
    this.barrierWords = new BarrierWords(words, options.members)
    this.slots = Array.from({ length: options.slots ?? 1 }, () => ({ state: 'idle', request: 0 }))
    const context = {
      rank,
      size: options.members,
      ring: {
        send: (to: number, kind: number, _region: number, _page: number, ...words: number[]) =>
          world.post({ from: rank, to, kind, words }),
      },
      answer: (id: number, value: unknown) => this.answered(id, value),
      fail: (id: number) => this.broken(id),
      isUp: (other: number) => (this.down & (1 << other)) === 0,
    }
    this.sync = new Synchronization(
      context as unknown as EngineContext,
      (gone, what) =>
        new PagemeshError('ERR_PAGEMESH_MEMBER_DOWN', `${what}: ${gone}`, { rank: gone }),
      this.words.words,
      this.barrierWords.words,
    )
    if (options.words !== true) return
    const { barriers } = this.state
    barriers.bind(barriers.make(KEY)!, 0)
  }

  /** As lib/api/barriers.ts: by itself, as long as nobody is gone. */
  arrive(slot: Slot, id: number): void {
    const { words = false, members } = this.world.options
    if (!words || this.barrierWords.isBroken) {
      slot.state = 'arrived'
      return this.sync.arrive(id, KEY, 'a barrier', words ? 0 : undefined)
    }
    Object.assign(slot, { state: 'waits', request: this.barrierWords.arrive(0, this.rank) })
    for (let to = 0; to < members; to++) {
      const message = { from: this.rank, to, kind: Kind.BarrierArrive, words: [KEY, 0] }
      if (to !== this.rank) this.world.post(message)
    }
  }

  /** As native/binding/barrier_words.cc: first it counts, and then it sees who wants to hear. */
  countArrival(from: number): void {
    const { words } = this.barrierWords
    if (this.world.options.sabotage?.looksFirst === true) {
      this.telling = words[BarrierLayout.ENGINE_AWAITS] === 0 ? 'counts' : 'countsAndWakes'
      this.tellingOf = from
      return
    }
    words[countsOf(0) + from]++
    this.telling = 'looks'
  }

  tell(): void {
    const { telling } = this
    const { words } = this.barrierWords
    if (telling === 'looks' && words[BarrierLayout.ENGINE_AWAITS] !== 0) {
      this.telling = 'wakes'
      return
    }
    if (telling === 'counts' || telling === 'countsAndWakes') words[countsOf(0) + this.tellingOf]++
    this.telling = 'nothing'
    this.tellingOf = 0
    if (telling === 'wakes' || telling === 'countsAndWakes') this.sync.lookAtBarriers()
  }

  get state(): SyncState {
    return this.sync as unknown as SyncState
  }

  /** Some permit is here by what the member's word says, whoever has it. */
  get hasToken(): boolean {
    return !this.words.isAway(0)
  }

  /** As lib/api/lock-tokens.ts: nothing of this member's own may be overtaken. */
  takeHere(slot: Slot): boolean {
    const waits = this.slots.some(({ state }) => state === 'asked' || state === 'cancelled')
    if (waits && this.world.options.sabotage?.overtakes !== true) return false
    if (!this.words.take(0)) return false
    const request = this.state.tokens.get(KEY)?.request
    if (request === undefined || waits) {
      this.world.fail(
        waits
          ? `rank ${this.rank} takes the lock again, and has asked for it before`
          : `rank ${this.rank} takes a token that its engine does not know of`,
        'first come, first served',
      )
    }
    Object.assign(slot, { state: 'holding', request })
    return true
  }

  letGo(slot: Slot): void {
    const waits = this.slots.some(({ state }) => state === 'asked' || state === 'cancelled')
    slot.state = 'idle'
    if (this.world.options.keeps !== true) this.release(slot.request)
    else if (this.words.letGo(0, !waits || this.world.options.sabotage?.overtakes === true)) return
    if (this.world.options.keeps !== true) return
    this.givingAway = slot.request
    const next = this.words.nextOf(0)
    this.passed = next !== undefined
    if (next !== undefined) this.world.pass(this.rank, next)
  }

  /** A record that passes the token on comes to the program's thread, which waits for it. */
  takePassed(words: readonly number[]): void {
    const request = words[2]
    const pending = this.state.acquires.get(request)
    if (pending === undefined || !this.words.cameEarly(0)) return
    Object.assign(this.slots[pending.id], { state: 'holding', request })
  }

  release(request: number, passed = false): void {
    if (!this.failed) this.sync.release(KEY, request, passed)
  }

  private answered(id: number, value: unknown): void {
    const slot = this.slots.at(id)
    if (slot === undefined || slot.state === 'holding') {
      return this.world.fail(
        `rank ${this.rank} is granted what it has already`,
        'answers are right',
      )
    }
    if (value === undefined && this.standing === 'left') return // it went through all the same
    if (slot.state === 'arrived') return this.wentThrough(slot)
    const { granted, request } = value as { granted: boolean; request?: number }
    if (slot.state === 'cancelled' && granted) {
      this.world.fail(`rank ${this.rank} was granted what it had cancelled`, 'answers are right')
    }
    slot.state = granted ? 'holding' : 'idle'
    slot.request = request ?? 0
  }

  wentThrough(slot: Slot): void {
    slot.state = 'idle'
    this.opened++
    const late = this.world.members.find(({ begun }) => begun < this.opened)
    if (late === undefined) return
    this.world.fail(
      `the barrier opened for rank ${this.rank}, and rank ${late.rank} has not arrived`,
      'a barrier opens when all have arrived',
    )
  }

  broken(id: number): void {
    if (this.world.members.every(({ standing }) => standing === 'up')) {
      this.world.fail(
        `rank ${this.rank} is told of a failure, and nobody is gone`,
        'answers are right',
      )
    }
    this.checkBreaks()
    // What came to its program before its engine knew has been answered.
    const slot = this.slots.at(id)
    if (slot !== undefined && slot.state !== 'holding') slot.state = 'idle'
  }

  /** Where nobody has died, who had come to a barrier and then left does not break it. */
  private checkBreaks(): void {
    const { members, options } = this.world
    if (options.use !== 'barrier' || this.slots.length > 1) return
    const dead = members.some(({ standing }) => standing === 'dead')
    if (dead || members.some((each) => each.standing === 'left' && each.begun <= this.opened))
      return
    this.world.fail(
      `the barrier is broken for rank ${this.rank}, and all who have left had come`,
      'answers are right',
    )
  }
}

export class LocksWorld implements World<LockChoice> {
  readonly members: LockMember[]
  readonly channels: LockMessage[][]
  readonly symmetryCount: number
  readonly referee: LockReferee
  leavesLeft: number
  deathsLeft: number
  longestChannel = 0
  private readonly symmetries: Symmetry[]
  private readonly extra = new KnownFields()
  private trace: string[] | undefined

  constructor(readonly options: LocksWorldOptions) {
    const { members } = options
    this.leavesLeft = options.leaves ?? 0
    this.deathsLeft = options.deaths ?? 0
    this.channels = Array.from({ length: members * members }, () => [])
    this.members = Array.from({ length: members }, (_, rank) => new LockMember(this, rank))
    // Barriers have no manager: there all members are alike.
    const managed = options.use === 'barrier' ? 0 : 1
    this.symmetries = symmetriesOf(new HomeMap({ rank: 0 }, managed, members), options.symmetric)
    this.symmetryCount = this.symmetries.length
    for (const { state } of this.members) {
      this.extra.check(state, KNOWN.sync)
      this.extra.check(state.semaphores, KNOWN.semaphores)
      this.extra.check(state.barriers, KNOWN.barriers)
    }
    options.mutate?.(this)
    const fail = (why: string, invariant: string): never => this.fail(why, invariant)
    this.referee = new LockReferee(
      this.members[0].state.semaphores,
      options.permits ?? 1,
      (early) => this.tokenIsFree(early),
      fail,
    )
  }

  fail(why: string, invariant: string): never {
    throw new LockFailed(why, invariant)
  }

  post(message: LockMessage): void {
    for (const each of this.options.sabotage?.send?.(message) ?? [message]) {
      const known = (this.members[each.from].down & (1 << each.to)) !== 0
      if (this.members[each.to].standing === 'dead' || known) continue
      this.channelOf(each.from, each.to).push(each)
      this.trace?.push(`    sent ${describe(each)}`)
    }
  }

  /** The program's thread of a member that lets the lock go passes it on. */
  pass(from: number, { rank: to, request, ticket }: Next): void {
    this.post({ from, to, kind: Kind.TokenPassed, words: [KEY, 0, request, ticket] })
  }

  private get slot(): number {
    return this.options.keeps === true ? 0 : NO_SLOT
  }

  private channelOf(from: number, to: number): LockMessage[] {
    return this.channels[from * this.members.length + to]
  }

  choices(): LockChoice[] {
    const found: LockChoice[] = []
    for (const { rank: at, standing, down, failed } of this.members) {
      if (standing === 'dead') continue
      for (const { rank: from } of this.members) {
        const first = this.channelOf(from, at).at(0)
        if (first !== undefined) found.push({ do: 'deliver', at, from })
        if (first !== undefined && this.isAwaited(at, first)) found.push({ do: 'take', at, from })
        const counts = this.options.words === true && this.members[at].telling === 'nothing'
        if (counts && first?.kind === Kind.BarrierArrive) found.push({ do: 'count', at, from })
        const isDown = this.members[from].standing === 'dead'
        if (isDown && (down & (1 << from)) === 0) found.push({ do: 'noticeDown', at, down: from })
      }
      if (this.deathsLeft > 0) found.push({ do: 'kill', at })
      if (this.members[at].telling !== 'nothing') found.push({ do: 'tell', at })
      if (this.members[at].givingAway !== 0) found.push({ do: 'giveAway', at })
      else if (standing === 'up') this.ownChoices(this.members[at], failed, found)
    }
    return found
  }

  private ownChoices(member: LockMember, failed: boolean, found: LockChoice[]): void {
    const { rank: at, slots, barrierWords } = member
    const { use, tries, cancels } = this.options
    if (this.leavesLeft > 0) found.push({ do: 'leave', at })
    const idle = slots.findIndex(({ state }) => state === 'idle')
    if (idle >= 0 && !failed) {
      if (use === 'barrier') found.push({ do: 'arrive', at, slot: idle })
      else found.push({ do: 'acquire', at, slot: idle })
      if (tries === true) found.push({ do: 'try', at, slot: idle })
    }
    slots.forEach(({ state, request }, slot) => {
      if (state === 'holding') found.push({ do: 'release', at, slot })
      if (state === 'asked' && cancels === true) found.push({ do: 'cancel', at, slot })
      if (state !== 'waits') return
      // The first of them, as the others are behind it.
      if (slots.some((other) => other.state === 'waits' && other.request < request)) return
      if (barrierWords.isOpen(0, request)) found.push({ do: 'pass', at, slot })
      found.push({ do: 'handOver', at, slot })
    })
  }

  /** The program's thread waits for just this, and so may find it before its engine does. */
  private isAwaited(at: number, { kind, words }: LockMessage): boolean {
    if (kind !== Kind.TokenPassed) return false
    const { slots, state } = this.members[at]
    const pending = state.acquires.get(words[2])
    const isMine = pending !== undefined && !pending.early && pending.ticket === words[3]
    return isMine && slots.at(pending.id)?.state === 'asked'
  }

  begins(choice: LockChoice): boolean {
    return BEGINNINGS.has(choice.do)
  }

  perform(choice: LockChoice): Violation | undefined {
    this.trace?.push(this.tell(choice))
    try {
      this.carryOut(this.members[choice.at], choice)
      this.dropLateTokens()
      this.checkAlways()
      return undefined
    } catch (error) {
      if (error instanceof LockFailed) {
        return { invariant: error.invariant, message: error.message }
      }
      if (!(error instanceof PagemeshError)) throw error
      return { invariant: 'only what can happen', message: error.message }
    }
  }

  /**
   * A token that is passed on to a request that nobody waits for any more does nothing, and numbers
   * of requests are not used again. Any number of such records could be under way.
   */
  private dropLateTokens(): void {
    this.channels.forEach((channel, index) => {
      const { acquires } = this.members[index % this.members.length].state
      const late = ({ kind, words }: LockMessage): boolean =>
        kind === Kind.TokenPassed && !acquires.has(words[2])
      if (channel.some(late)) this.channels[index] = channel.filter((each) => !late(each))
    })
  }

  private carryOut(member: LockMember, choice: LockChoice): void {
    const permits = this.options.permits ?? 1
    switch (choice.do) {
      case 'acquire':
      case 'try': {
        const { keeps = false } = this.options
        const slot = member.slots[choice.slot]
        if (keeps && member.takeHere(slot)) return
        slot.state = 'asked'
        const mode = choice.do === 'try' ? 'try' : 'wait'
        const ticket = keeps && mode === 'wait' ? TICKET : 0
        // Questions of the API have numbers of their own: what is answered keeps none of a slot.
        for (const pending of member.state.acquires.values()) {
          if (pending.id === choice.slot) pending.id = member.slots.length
        }
        return member.sync.acquire(choice.slot, KEY, 'a lock', permits, mode, this.slot, ticket)
      }
      case 'cancel':
        member.slots[choice.slot].state = 'cancelled'
        member.sync.cancel(choice.slot)
        if (this.options.sabotage?.forgetsCancel === true) {
          for (const pending of member.state.acquires.values()) pending.cancelled = false
        }
        return
      case 'release':
        return member.letGo(member.slots[choice.slot])
      case 'giveAway': {
        const request = member.givingAway
        const { passed } = member
        member.givingAway = 0
        member.passed = false
        return member.release(request, passed)
      }
      case 'arrive':
        // Arrivals at a barrier that is broken open nothing: only those of two generations count.
        member.begun = Math.min(member.begun + 1, member.opened + member.slots.length)
        return member.arrive(member.slots[choice.slot], choice.slot)
      case 'count':
        this.channelOf(choice.from, member.rank).shift()
        return member.countArrival(choice.from)
      case 'tell':
        return member.tell()
      case 'pass':
        return member.wentThrough(member.slots[choice.slot])
      case 'handOver': {
        const slot = member.slots[choice.slot]
        slot.state = 'arrived'
        if (member.failed) return member.broken(choice.slot)
        return member.sync.awaitBarrier(choice.slot, 'a barrier', 0, slot.request)
      }
      case 'deliver':
        return this.deliver(member, choice.from)
      case 'take':
        return member.takePassed(this.channelOf(choice.from, member.rank).shift()!.words)
      case 'leave':
        return this.leave(member)
      case 'kill':
        this.deathsLeft--
        member.standing = 'dead'
        member.givingAway = 0
        member.passed = false
        member.telling = 'nothing'
        member.tellingOf = 0
        for (const { rank } of this.members) this.channelOf(rank, member.rank).length = 0
        return
      case 'noticeDown':
        return this.noticeDown(member, choice.down)
    }
  }

  private deliver(member: LockMember, from: number): void {
    const message = this.channelOf(from, member.rank).shift()!
    this.trace?.push(`    ${describe(message)}`)
    if (message.kind === Kind.Leaving) return member.sync.memberLeft(from)
    member.sync.onMessage(message.kind, from, (index) => message.words[index] ?? 0)
  }

  /** As in lib/engine/engine.ts. A member that has left still serves the others. */
  private leave(member: LockMember): void {
    this.leavesLeft--
    member.standing = 'left'
    const error = new PagemeshError('ERR_PAGEMESH_LEFT', 'left')
    if (this.options.sabotage?.keepsWaiting === true) member.sync.memberLeft(member.rank)
    else member.sync.leave(error)
    for (const slot of member.slots) slot.state = 'idle'
    member.words.letGo(0, false) // lib/api/lock-tokens.ts takes nothing any more
    for (const { rank } of this.members) {
      const send = rank !== member.rank && (member.down & (1 << rank)) === 0
      if (send) this.post({ from: member.rank, to: rank, kind: Kind.Leaving, words: [] })
    }
  }

  private noticeDown(member: LockMember, down: number): void {
    this.channelOf(down, member.rank).length = 0
    member.down |= 1 << down
    member.failed = true
    const error = new PagemeshError('ERR_PAGEMESH_MEMBER_DOWN', 'down', { rank: down })
    member.sync.failAll(error)
    member.sync.memberDown(down)
  }

  private checkAlways(): void {
    // What a dead member held goes to nobody: what the lock guards may be half written.
    const holders = this.members.filter(({ slots }) => slots.some((s) => s.state === 'holding'))
    const count = holders.reduce(
      (sum, { slots }) => sum + slots.filter(({ state }) => state === 'holding').length,
      0,
    )
    const permits = this.options.permits ?? 1
    if (count > permits) {
      const who = holders.map(({ rank }) => rank).join(' and ')
      this.fail(`ranks ${who} hold ${count} of ${permits} permits`, 'mutual exclusion')
    }
    this.checkTokens()
    this.checkBarriers()
    for (const channel of this.channels) {
      if (channel.length > this.longestChannel) this.longestChannel = channel.length
    }
    if (this.longestChannel > this.options.mostInChannel) {
      this.fail(
        `${this.longestChannel} messages are under way, and there may be ` +
          `${this.options.mostInChannel}`,
        'queues are bounded',
      )
    }
    this.referee.check()
  }

  private checkBarriers(): void {
    for (const { rank, standing, state } of this.members) {
      const barrier = state.barriers.barriers.get(KEY)
      const first = barrier?.waiting.at(0)
      if (standing === 'dead' || barrier === undefined || first === undefined) continue
      // Where native code counts, it is told to look, whoever has come.
      if (barrier.at !== 0 || isBehind(barrier.words, barrier.witness, first.ticket)) continue
      this.fail(`rank ${rank} waits for one who has come already`, 'every request is answered')
    }
  }

  private checkTokens(): void {
    if (this.options.keeps !== true) return
    const heedless = this.members.find(({ failed, words }) => failed && words.words[0] === FREE)
    if (heedless !== undefined) {
      const why = `rank ${heedless.rank} knows of a death, and its program can still take the lock`
      this.fail(why, 'answers are right')
    }
    const isQuiet =
      this.channels.every((channel) => channel.length === 0) &&
      this.members.every((each) => each.standing !== 'dead' && each.givingAway === 0)
    if (isQuiet && this.referee.hasTries()) {
      this.fail('a try waits until the lock is released', 'a try does not wait')
    }
    const having = this.members.filter(({ hasToken }) => hasToken)
    if (having.length <= 1) return
    this.fail(`ranks ${having.map(({ rank }) => rank).join(' and ')} have a token`, 'one token')
  }

  /** Whether the token lies somewhere, and nobody has it. */
  tokenIsFree(early = false): boolean {
    return this.members.some(({ words: { words } }) => {
      return words[0] === FREE || (early && words[0] === FREE_EARLY)
    })
  }

  checkRest(): Violation | undefined {
    try {
      this.checkAtRest()
      return undefined
    } catch (error) {
      if (!(error instanceof LockFailed)) throw error
      return { invariant: error.invariant, message: error.message }
    }
  }

  private checkAtRest(): void {
    const answered = 'every request is answered'
    const someGone = this.members.some(({ standing }) => standing !== 'up')
    const someDead = this.members.some(({ standing }) => standing === 'dead')
    for (const { rank, standing, slots, state, begun, opened } of this.members) {
      if (standing !== 'up') continue
      const waits = slots.some((slot) => slot.state !== 'idle')
      // Who has left and had come before is not in the way.
      const awaited = this.members.filter((member) => member.begun <= opened)
      const inVain = someDead || awaited.some((member) => member.standing !== 'up')
      if (waits && (this.options.use === 'semaphore' || awaited.length === 0 || inVain)) {
        this.fail(`rank ${rank} waits for ever`, answered)
      }
      if (begun > opened && !waits && !someGone) {
        this.fail(`rank ${rank} has arrived, and nobody knows`, answered)
      }
      if (!waits && state.acquires.size + state.arrivals.size > 0) {
        this.fail(`rank ${rank} still expects answers`, answered)
      }
    }
    const manager = this.members[0]
    if (manager.standing === 'dead' || this.members.some(({ failed }) => failed)) return
    const keeper = manager.state.semaphores.semaphores.get(KEY)?.keeper
    const isKept = keeper !== undefined && this.members[keeper.rank].words.words[0] === FREE
    if (!isKept && manager.state.semaphores.semaphores.size > 0) {
      this.fail('the manager counts a permit as held, and nobody holds it', 'no permit is lost')
    }
    if (keeper === undefined && this.tokenIsFree()) {
      this.fail('a token lies somewhere, and the manager does not know of it', 'one token')
    }
  }

  classOf(choice: LockChoice): number {
    const base = 16 * choice.at
    if (choice.do === 'deliver' || choice.do === 'take' || choice.do === 'count') {
      return base + choice.from
    }
    if (choice.do === 'release') return base + 8 + choice.slot
    return choice.do === 'noticeDown' ? base + 11 + choice.down : base + 15
  }

  waiting(): number {
    return this.members.reduce(
      (map, { rank, standing, slots }) =>
        standing === 'up' && slots.some(({ state }) => state === 'asked') ? map | (1 << rank) : map,
      0,
    )
  }

  tell(choice: LockChoice): string {
    const { do: what, at, ...rest } = choice
    const details = Object.entries(rest).map(([name, value]) => `${name} ${value}`)
    return `rank ${at}: ${what} ${details.join(', ')}`.trimEnd()
  }

  startTrace(): string[] {
    return (this.trace = [])
  }

  picture(): string {
    const lines = this.members.map(({ rank, standing, slots, words }) => {
      const token = this.options.keeps === true ? `; token word ${words.words[0]}` : ''
      return `rank ${rank} (${standing}): ${slots.map(({ state }) => state).join(', ')}${token}`
    })
    lines.push(this.referee.picture())
    for (const channel of this.channels) {
      lines.push(...channel.map((message) => `  on its way ${describe(message)}`))
    }
    return lines.join('\n')
  }

  // A state as bytes. Requests are numbered anew, in their order, from 1 on.

  write(out: ByteWriter, symmetry: number): void {
    const to = this.symmetries[symmetry]
    const numbers = this.requestNumbers()
    this.extra.checkEmpty()
    out.length = 0
    out.put(this.leavesLeft)
    out.put(this.deathsLeft)
    const least = Math.min(...this.members.map(({ opened }) => opened))
    for (const rank of to.rankBefore) this.writeMember(this.members[rank], least, numbers, out, to)
    this.writeManager(numbers, out, to)
    for (const from of to.rankBefore) {
      for (const at of to.rankBefore) {
        const channel = this.channelOf(from, at)
        out.put(channel.length)
        for (const message of channel) writeMessage(message, numbers, out, to)
      }
    }
  }

  /** For each member its requests that anybody still knows, as their place in order. */
  private requestNumbers(): Map<number, number>[] {
    const known = this.members.map(() => new Set<number>())
    for (const { rank, state, slots, givingAway } of this.members) {
      for (const request of state.acquires.keys()) known[rank].add(request)
      for (const slot of slots) if (slot.state === 'holding') known[rank].add(slot.request)
      for (const { request, next } of state.tokens.values()) {
        known[rank].add(request)
        if (next !== undefined) known[next.rank].add(next.request)
      }
      if (givingAway !== 0) known[rank].add(givingAway)
    }
    for (const channel of this.channels) {
      for (const message of channel) {
        const place = requestPlace(message.kind)
        if (place !== undefined) known[requester(message)].add(message.words[place])
        const next = nextPlace(message)
        if (next !== undefined) known[message.words[next] - 1].add(message.words[next + 1])
      }
    }
    const { semaphores } = this.members[0].state
    for (const [rank, claims] of semaphores.claims) {
      for (const request of claims.keys()) known[rank].add(request)
    }
    for (const { rank, request } of this.referee.entries()) known[rank].add(request)
    return known.map((requests) => {
      const inOrder = [...requests].sort((one, other) => one - other)
      return new Map(inOrder.map((request, index) => [request, index + 1]))
    })
  }

  private writeMember(
    member: LockMember,
    least: number,
    numbers: Map<number, number>[],
    out: ByteWriter,
    to: Symmetry,
  ): void {
    const { rank, state, slots } = member
    const number = numbers[rank]
    out.put(STANDINGS.indexOf(member.standing) * 2 + (member.failed ? 1 : 0))
    out.put(to.bits[member.down])
    out.put(member.begun - least)
    out.put(member.opened - least)
    out.put(member.words.words[0])
    for (const slot of slots) {
      out.put(SLOT_STATES.indexOf(slot.state))
      out.put(slot.state === 'holding' ? number.get(slot.request)! : 0)
    }
    if (member.standing === 'dead') return
    this.writeBarrier(member, out, to)
    out.put(state.acquires.size)
    for (const [request, { id, cancelled, early, ticket }] of state.acquires) {
      out.put(number.get(request)!)
      out.put(8 * id + (ticket === 0 ? 4 : 0) + (early ? 2 : 0) + (cancelled ? 1 : 0))
    }
    // Whatever has a permit by itself is a token to its engine, also where none may stay.
    const token = state.tokens.get(KEY)
    out.put(token === undefined ? 0 : number.get(token.request)!)
    const putNext = (next: Next | undefined): void => {
      out.put(next === undefined ? 0 : to.rank[next.rank] + 1)
      if (next !== undefined) out.put(numbers[next.rank].get(next.request)!)
    }
    if (token !== undefined) putNext(token.next)
    // The words are looked at only while they say that others want the token.
    if ((member.words.words[0] & WANTED) !== 0) putNext(member.words.nextOf(0))
    out.put(member.givingAway === 0 ? 0 : number.get(member.givingAway)!)
    if (member.givingAway !== 0) out.put(member.passed ? 1 : 0)
  }

  /** Counts and tickets from the least count on, as they grow for ever. */
  private writeBarrier(member: LockMember, out: ByteWriter, to: Symmetry): void {
    const { state, slots, barrierWords } = member
    out.put(state.arrivals.size)
    for (const id of state.arrivals.keys()) out.put(id)
    out.put(state.barriers.gone.length)
    for (const rank of state.barriers.gone) out.put(to.rank[rank])
    const barrier = state.barriers.barriers.get(KEY)
    out.put(barrier === undefined ? 0 : 1)
    if (barrier === undefined) return
    const { words, at, waiting } = barrier
    const least = Math.min(...words.subarray(at, at + this.members.length))
    for (const rank of to.rankBefore) out.put(words[at + rank] - least)
    out.put(waiting.length)
    for (const { ticket, request } of waiting) {
      out.put(ticket - least)
      out.put(request)
    }
    if (this.options.words !== true) return
    for (const slot of slots) out.put(slot.state === 'waits' ? slot.request - least : 0)
    out.put(barrierWords.words[BarrierLayout.ENGINE_AWAITS])
    out.put(barrierWords.isBroken ? 1 : 0)
    out.put(TELLINGS.indexOf(member.telling))
    out.put(to.rank[member.tellingOf])
  }

  private writeManager(numbers: Map<number, number>[], out: ByteWriter, to: Symmetry): void {
    const { standing, state } = this.members[0]
    if (standing === 'dead') return
    const { semaphores } = state
    out.put(semaphores.gone.size)
    for (const rank of semaphores.gone) out.put(to.rank[rank])
    const semaphore = semaphores.semaphores.get(KEY)
    out.put(semaphore === undefined ? 0xff : semaphore.heldCount)
    const claim = (rank: number, request: number): void => {
      out.put(to.rank[rank])
      out.put(numbers[rank].get(request)!)
    }
    const held = [...semaphores.claims.values()].flatMap((claims) =>
      [...claims.values()].filter((each) => each.held),
    )
    held.sort(
      (one, other) => to.rank[one.rank] - to.rank[other.rank] || one.request - other.request,
    )
    out.put(held.length)
    for (const each of held) {
      claim(each.rank, each.request)
      out.put(ASKED.indexOf(each.asked))
    }
    // Of those that are queued, what the table of claims says, and what the queue says.
    const waiters = semaphore === undefined ? [] : [...semaphore.waiters]
    out.put(waiters.length)
    for (const each of waiters) {
      claim(each.rank, each.request)
      const known = semaphores.claims.get(each.rank)?.get(each.request) === each
      out.put((known ? 1 : 0) + (each.mode === 'try' ? 2 : 0) + (each.promised ? 4 : 0))
    }
    this.referee.write(out, claim)
  }

  read(from: ByteReader): void {
    this.leavesLeft = from.take()
    this.deathsLeft = from.take()
    for (const member of this.members) this.readMember(member, from)
    this.readManager(from)
    this.channels.forEach((channel, index) => {
      channel.length = 0
      const size = this.members.length
      const ends = { from: Math.floor(index / size), to: index % size }
      for (let count = from.take(); count > 0; count--) channel.push(readMessage(ends, from))
    })
    for (const { state, rank } of this.members) {
      const known = this.requestNumbers()[rank].size
      state.nextRequest = known + 1
    }
  }

  private readMember(member: LockMember, from: ByteReader): void {
    const { state, slots } = member
    const code = from.take()
    member.standing = STANDINGS[code >> 1]
    member.failed = (code & 1) === 1
    member.down = from.take()
    member.begun = from.take()
    member.opened = from.take()
    member.words.words[0] = from.take()
    for (const slot of slots) {
      slot.state = SLOT_STATES[from.take()]
      slot.request = from.take()
    }
    state.acquires.clear()
    state.arrivals.clear()
    state.tokens.clear()
    member.givingAway = 0
    member.passed = false
    this.readBarrier(member, from)
    if (member.standing === 'dead') return
    for (let count = from.take(); count > 0; count--) {
      const request = from.take()
      const flags = from.take()
      state.acquires.set(request, {
        ...{ id: flags >> 3, key: KEY, name: 'a lock', permits: this.options.permits ?? 1 },
        slot: this.slot,
        ticket: (flags & 4) === 4 ? 0 : TICKET,
        early: (flags & 2) === 2,
        cancelled: (flags & 1) === 1,
      })
    }
    const request = from.take()
    const takeNext = (): Next | undefined => {
      const rank = from.take() - 1
      return rank < 0 ? undefined : { rank, request: from.take(), ticket: TICKET }
    }
    if (request !== 0) state.tokens.set(KEY, { request, slot: this.slot, next: takeNext() })
    const next = (member.words.words[0] & WANTED) === 0 ? undefined : takeNext()
    member.words.words.set(
      next === undefined ? [0, 0, 0] : [next.rank + 1, next.request, TICKET],
      1,
    )
    member.givingAway = from.take()
    member.passed = member.givingAway !== 0 && from.take() === 1
  }

  private readManager(from: ByteReader): void {
    const { standing, state } = this.members[0]
    const { semaphores } = state
    for (const each of [semaphores.semaphores, semaphores.claims, semaphores.gone]) each.clear()
    this.referee.clear()
    if (standing === 'dead') return
    for (let count = from.take(); count > 0; count--) semaphores.gone.add(from.take())
    const heldCount = from.take()
    const semaphore: Semaphore = {
      ...{ id: KEY, permits: this.options.permits ?? 1, heldCount, waiters: new Set<Claim>() },
      ...{ tries: 0, keeper: undefined },
    }
    if (heldCount !== 0xff) semaphores.semaphores.set(KEY, semaphore)
    const readClaim = (held: boolean): Claim => {
      const names = { rank: from.take(), request: from.take(), semaphore }
      const keeps = this.options.keeps === true
      const ticket = keeps ? TICKET : 0
      return { ...names, keeps, ticket, held, promised: false, mode: 'wait', asked: 'nothing' }
    }
    const remember = (claim: Claim): void => {
      const ofMember = semaphores.claims.get(claim.rank) ?? new Map<number, Claim>()
      semaphores.claims.set(claim.rank, ofMember.set(claim.request, claim))
    }
    for (let count = from.take(); count > 0; count--) {
      const claim = readClaim(true)
      claim.asked = ASKED[from.take()]
      remember(claim)
      if (claim.keeps) semaphore.keeper = claim
    }
    for (let count = from.take(); count > 0; count--) {
      const claim = readClaim(false)
      semaphore.waiters.add(claim)
      const flags = from.take()
      if ((flags & 1) === 1) remember(claim)
      claim.promised = (flags & 4) === 4
      if ((flags & 2) === 0) continue
      claim.mode = 'try'
      claim.ticket = 0
      semaphore.tries++
    }
    this.referee.read(from)
  }

  private readBarrier(member: LockMember, from: ByteReader): void {
    const { state, slots, barrierWords } = member
    const { barriers } = state
    const { words } = barrierWords
    barriers.barriers.clear()
    barriers.gone.length = 0
    member.telling = 'nothing'
    member.tellingOf = 0
    if (member.standing === 'dead') return
    for (let count = from.take(); count > 0; count--) state.arrivals.set(from.take(), 'a barrier')
    for (let count = from.take(); count > 0; count--) barriers.gone.push(from.take())
    if (from.take() === 0) return
    const size = this.members.length
    const shared = this.options.words === true
    const barrier: Barrier = {
      ...{ key: KEY, waiting: [], witness: 0, at: shared ? countsOf(0) : 0 },
      words: shared ? words : new Int32Array(size),
    }
    for (let rank = 0; rank < size; rank++) barrier.words[barrier.at + rank] = from.take()
    for (let count = from.take(); count > 0; count--) {
      barrier.waiting.push({ ticket: from.take(), request: from.take() })
    }
    barriers.barriers.set(KEY, barrier)
    // Any of those who have not come will do.
    const ticket = barrier.waiting.at(0)?.ticket ?? 0
    const hasCome = (rank: number): boolean => !isBehind(barrier.words, barrier.at + rank, ticket)
    while (barrier.witness < size - 1 && hasCome(barrier.witness)) barrier.witness++
    if (!shared) return
    barriers.bound[0] = barrier
    for (const slot of slots) {
      const request = from.take()
      if (slot.state === 'waits') slot.request = request
    }
    words[BarrierLayout.ENGINE_AWAITS] = from.take()
    words[BarrierLayout.BROKEN] = from.take()
    member.telling = TELLINGS[from.take()]
    member.tellingOf = from.take()
  }
}

/** Which word of a message is a request's number, and whose it is. */
function requestPlace(kind: number): number | undefined {
  if (kind === Kind.Leaving || kind === Kind.BarrierArrive) return undefined
  return kind === Kind.SemaphoreReply ? 0 : 2
}
const requester = ({ from, to, kind }: LockMessage): number =>
  requestPlace(kind) === 0 || kind === Kind.TokenRecall || kind === Kind.TokenPassed ? to : from

/** Where a message tells who is next: a rank, plus one, then a request and a ticket. */
function nextPlace({ kind, words }: LockMessage): number | undefined {
  const place = kind === Kind.TokenRecall ? 4 : kind === Kind.SemaphoreReply ? 3 : words.length
  return (words[place] ?? 0) === 0 ? undefined : place
}

function writeMessage(
  message: LockMessage,
  numbers: Map<number, number>[],
  out: ByteWriter,
  to: Symmetry,
): void {
  const { kind, words } = message
  const place = requestPlace(kind)
  out.put(kind)
  out.put(words.length)
  const next = nextPlace(message)
  words.forEach((word, index) => {
    if (index === place) out.put(numbers[requester(message)].get(word)!)
    else if (index === next) out.put(to.rank[word - 1] + 1)
    else if (next !== undefined && index === next + 1) out.put(numbers[words[next] - 1].get(word)!)
    else out.put(word)
  })
}

function readMessage(ends: { from: number; to: number }, from: ByteReader): LockMessage {
  const kind = from.take()
  const words = Array.from({ length: from.take() }, () => from.take())
  return { ...ends, kind, words }
}

function describe({ from, to, kind, words }: LockMessage): string {
  return `${from}→${to} ${KIND_NAMES.get(kind) ?? kind} (${words.join(', ')})`
}
