import { PagemeshError } from '../errors.js'
import {
  ClientHandshake,
  type RandomSource,
  type RejectReason,
  ServerHandshake,
} from './handshake.js'
import { parseKey } from './key.js'

/** Where a process listens. */
export interface Address {
  readonly host: string
  readonly port: number
}

/** What the joiner has done for it. None of these calls back into the joiner before it returns. */
export interface JoinerIo {
  /** Begins to connect and gives the connection's number; later `opened` or `closed` follows. */
  connect(host: string, port: number): number
  send(connection: number, frame: Uint8Array): void
  /** Closes once everything sent has gone out. The joiner wants no event of it any more. */
  close(connection: number): void
  /** Authenticated: from now on the connection carries this rank's traffic. */
  bind(connection: number, rank: number): void
}

export interface JoinerOptions {
  rank: number
  size: number
  key: Uint8Array
  /** Where this member listens already, as the others are told. */
  listen: Address
  /** Where rank 0 listens. Unused at rank 0. */
  rendezvous: Address
  /** Where rank 0 listens by now: asked before each further attempt, if given. */
  findRendezvous?: () => Address | undefined
  nowMs: number
  /** For the whole join. */
  timeoutMs: number
  random?: RandomSource
}

export type JoinOutcome =
  | { readonly state: 'joining' }
  /** `addresses[rank]` is where that member listens. */
  | { readonly state: 'joined'; readonly addresses: readonly Address[] }
  | { readonly state: 'failed'; readonly error: PagemeshError }

/** A handshake that takes longer is given up. */
export const handshakeTimeoutMs = 5000
/** So many connections may be unauthenticated at once; the oldest makes room for one more. */
export const maxStrangers = 64
/** No frame after the handshake is longer. */
export const maxJoinFrameBytes = 16 * 1024

const firstRetryMs = 20
const lastRetryMs = 250
/** Nothing that JSON escapes: so the table of 32 members stays within a frame. */
const hostPattern = /^[A-Za-z0-9._:%-]{1,255}$/
const maxMessageLength = 2000

/** Counts from the first tick after it was made, because events come without the time. */
interface Timer {
  readonly afterMs: number
  atMs: number | undefined
}

/** Another member that this one connects to, until that connection is bound. */
interface Dial {
  /** The rank that must answer there. */
  readonly rank: number
  address: Address
  nextRetryMs: number
  retry: Timer | undefined
  lastReason: string
}

type Connection =
  /** Accepted, and not authenticated. */
  | { readonly kind: 'stranger'; readonly handshake: ServerHandshake; readonly timer: Timer }
  /** Ours, and not authenticated. */
  | {
      readonly kind: 'dialled'
      readonly dial: Dial
      readonly handshake: ClientHandshake
      readonly timer: Timer
    }
  | { readonly kind: 'bound'; readonly rank: number }

type JoinFrame =
  /** To rank 0, first of all: where I listen. */
  | { type: 'register'; host: string; port: number }
  /** From rank 0, once all have registered. */
  | { type: 'table'; addresses: Address[] }
  /** To rank 0: I am connected to every other member. */
  | { type: 'ready' }
  /** From rank 0, once all are ready. */
  | { type: 'go' }
  /** From anybody to anybody: member `by` gave up, and so must all. */
  | { type: 'abort'; by: number; code: string; message: string; rank: number | undefined }

type AbortFrame = Extract<JoinFrame, { type: 'abort' }>

/**
 * Brings up a connection between each two members of a mesh, and turns strangers away afterwards.
 *
 * Rank 0's listener is the rendezvous. Every other member connects to it and registers; when all
 * have, rank 0 sends them the table of addresses; each connects to the lower ranks and accepts
 * the higher; who is connected to all tells rank 0; when all have, rank 0 says go.
 *
 * It has no sockets and no clock: the caller passes events and the time in, and calls `tick`
 * whenever `nextDeadlineMs()` has come. Frames on a bound connection belong to the joiner while
 * `outcome` is joining, and are ignored by it later. A peer that got its go a little earlier may
 * already send other traffic: the caller tells that apart and keeps it for later. The last word of
 * a member that gives up may arrive when this one has its go: the caller drops it then.
 */
export class Joiner {
  readonly #options: JoinerOptions
  readonly #io: JoinerIo
  readonly #deadlineMs: number
  readonly #connections = new Map<number, Connection>()
  /** Ranks that have had a connection bound. They stay taken for good. */
  readonly #boundRanks = new Set<number>()
  readonly #dials = new Set<Dial>()
  /** Rank 0 only: by rank, what each has registered. */
  readonly #registered = new Map<number, Address>()
  /** Rank 0 only. */
  readonly #readyRanks = new Set<number>()
  #addresses: readonly Address[] | undefined
  #saidReady = false
  #nowMs: number
  #closed = false
  #outcome: JoinOutcome = { state: 'joining' }

  constructor(options: JoinerOptions, io: JoinerIo) {
    this.#options = { ...options, key: parseKey(options.key) }
    this.#io = io
    this.#nowMs = options.nowMs
    this.#deadlineMs = options.nowMs + options.timeoutMs
  }

  get outcome(): JoinOutcome {
    return this.#outcome
  }

  /** Begins. At most once. */
  start(): void {
    const { rank, listen, rendezvous } = this.#options
    if (rank === 0) {
      this.#registered.set(0, listen)
      this.#announceWhenComplete()
    } else {
      this.#dial(0, rendezvous)
    }
  }

  /** A connection that `connect` began is open. */
  opened(connection: number): void {
    const found = this.#connections.get(connection)
    if (found?.kind === 'dialled') this.#io.send(connection, found.handshake.start())
  }

  /** Somebody has connected to this member's listener. */
  accepted(connection: number): void {
    if (this.#closed) {
      this.#io.close(connection)
      return
    }
    const { key, rank, size, random } = this.#options
    const handshake = new ServerHandshake({
      key,
      rank,
      size,
      decide: (peerRank, peerSize) => this.#decide(peerRank, peerSize),
      ...(random === undefined ? {} : { random }),
    })
    this.#connections.set(connection, {
      kind: 'stranger',
      handshake,
      timer: timer(handshakeTimeoutMs),
    })
    this.#limitStrangers()
  }

  /** A whole frame has come. */
  received(connection: number, frame: Uint8Array): void {
    const found = this.#connections.get(connection)
    switch (found?.kind) {
      case 'stranger':
        this.#receivedFromStranger(connection, found.handshake, frame)
        return
      case 'dialled':
        this.#receivedFromDialled(connection, found.dial, found.handshake, frame)
        return
      case 'bound':
        if (this.#outcome.state === 'joining') this.#receivedFromMember(found.rank, frame)
        return
      case undefined: // closed by us while this was under way
        return
    }
  }

  /** A connection is closed, or could not be made. */
  closed(connection: number, reason: string): void {
    const found = this.#connections.get(connection)
    this.#connections.delete(connection)
    if (found?.kind === 'dialled') {
      this.#retry(found.dial, reason)
    } else if (found?.kind === 'bound' && this.#outcome.state === 'joining') {
      this.#fail(
        new PagemeshError(
          'ERR_PAGEMESH_MEMBER_DOWN',
          `member ${found.rank} closed its connection before the mesh was complete (${reason}): ` +
            'see what that member says, then start all members again',
          { rank: found.rank },
        ),
      )
    }
  }

  /** Deals with everything that is due. `nowMs` never goes back. */
  tick(nowMs: number): void {
    this.#nowMs = Math.max(this.#nowMs, nowMs)
    if (this.#closed) return
    if (this.#outcome.state === 'joining' && this.#nowMs >= this.#deadlineMs) {
      this.#fail(this.#timeoutError())
      return
    }
    for (const dial of [...this.#dials]) {
      if (dial.retry !== undefined && this.#isDue(dial.retry)) this.#redial(dial)
    }
    for (const [connection, state] of [...this.#connections]) {
      if (state.kind === 'bound' || !this.#isDue(state.timer)) continue
      this.#drop(connection)
      if (state.kind === 'dialled') {
        this.#retry(state.dial, `no answer within ${handshakeTimeoutMs} ms`)
      }
    }
    for (const { retry } of this.#dials) if (retry !== undefined) this.#isDue(retry)
  }

  /** When `tick` is wanted next; Infinity if not at all. May have passed already. */
  nextDeadlineMs(): number {
    if (this.#closed) return Infinity
    let nextMs = this.#outcome.state === 'joining' ? this.#deadlineMs : Infinity
    for (const state of this.#connections.values()) {
      if (state.kind !== 'bound') nextMs = Math.min(nextMs, state.timer.atMs ?? this.#nowMs)
    }
    for (const { retry } of this.#dials) {
      if (retry !== undefined) nextMs = Math.min(nextMs, retry.atMs ?? this.#nowMs)
    }
    return nextMs
  }

  /**
   * Ends it: closes every connection that is not bound, and takes no more. A join that is not
   * complete fails by this, and then the bound connections are closed too.
   */
  close(): void {
    if (this.#outcome.state === 'joining') {
      this.#fail(
        new PagemeshError(
          'ERR_PAGEMESH_JOIN_FAILED',
          `member ${this.#options.rank} stopped joining before the mesh was complete`,
          { rank: this.#options.rank },
        ),
      )
      return
    }
    this.#shut((state) => state.kind !== 'bound')
  }

  #decide(peerRank: number, peerSize: number): RejectReason | undefined {
    const { rank, size } = this.#options
    if (peerSize !== size) return 'size-mismatch'
    if (peerRank >= size) return 'rank-out-of-range'
    if (peerRank === rank || this.#boundRanks.has(peerRank)) return 'rank-taken'
    return peerRank < rank ? 'not-expected' : undefined
  }

  #limitStrangers(): void {
    const strangers: number[] = []
    for (const [connection, state] of this.#connections) {
      if (state.kind === 'stranger') strangers.push(connection)
    }
    for (const oldest of strangers.slice(0, Math.max(0, strangers.length - maxStrangers))) {
      this.#drop(oldest)
    }
  }

  #receivedFromStranger(connection: number, handshake: ServerHandshake, frame: Uint8Array): void {
    const step = handshake.receive(frame)
    if (step.send !== undefined) this.#io.send(connection, step.send)
    if (step.state === 'failed') this.#drop(connection)
    if (step.state === 'done') this.#bind(connection, step.peerRank)
  }

  #receivedFromDialled(
    connection: number,
    dial: Dial,
    handshake: ClientHandshake,
    frame: Uint8Array,
  ): void {
    const step = handshake.receive(frame)
    if (step.state === 'failed') {
      const { code, message, rank } = step.error
      const text = `member ${dial.rank} at ${formatAddress(dial.address)}: ${message}`
      const options = rank === undefined ? {} : { rank }
      this.#fail(new PagemeshError(code, text, { cause: step.error, ...options }))
      return
    }
    if (step.state === 'more') {
      if (step.send !== undefined) this.#io.send(connection, step.send)
      return
    }
    this.#dials.delete(dial)
    this.#bind(connection, dial.rank)
  }

  #bind(connection: number, rank: number): void {
    this.#connections.set(connection, { kind: 'bound', rank })
    this.#boundRanks.add(rank)
    this.#io.bind(connection, rank)
    if (rank === 0) {
      const { host, port } = this.#options.listen
      this.#sendTo(0, { type: 'register', host, port })
    }
    this.#sayReadyWhenConnected()
  }

  #receivedFromMember(from: number, bytes: Uint8Array): void {
    const frame = parseFrame(bytes, this.#options.size)
    if (typeof frame === 'string') {
      this.#failProtocol(from, frame)
    } else if (frame.type === 'abort') {
      this.#fail(abortError(frame), frame)
    } else if (!this.#follow(from, frame)) {
      this.#failProtocol(from, `'${frame.type}', which cannot come now`)
    }
  }

  /** Whether the frame was one that this member can send now. */
  #follow(from: number, frame: Exclude<JoinFrame, AbortFrame>): boolean {
    const atRankZero = this.#options.rank === 0
    switch (frame.type) {
      case 'register':
        if (!atRankZero || this.#registered.has(from)) return false
        this.#registered.set(from, { host: frame.host, port: frame.port })
        this.#announceWhenComplete()
        return true
      case 'table':
        if (from !== 0 || this.#addresses !== undefined) return false
        this.#addresses = frame.addresses
        for (let rank = 1; rank < this.#options.rank; rank += 1) {
          this.#dial(rank, frame.addresses[rank])
        }
        this.#sayReadyWhenConnected()
        return true
      case 'ready':
        if (!atRankZero || this.#addresses === undefined || this.#readyRanks.has(from)) return false
        this.#readyRanks.add(from)
        this.#goWhenReady()
        return true
      case 'go':
        if (from !== 0 || this.#addresses === undefined || !this.#saidReady) return false
        this.#outcome = { state: 'joined', addresses: this.#addresses }
        return true
    }
  }

  #announceWhenComplete(): void {
    const { size } = this.#options
    if (this.#registered.size < size) return
    const addresses = Array.from({ length: size }, (_, rank) => this.#registered.get(rank)!)
    this.#addresses = addresses
    this.#sendToAll({ type: 'table', addresses })
    this.#goWhenReady()
  }

  #goWhenReady(): void {
    if (this.#addresses === undefined || this.#readyRanks.size < this.#options.size - 1) return
    this.#sendToAll({ type: 'go' })
    this.#outcome = { state: 'joined', addresses: this.#addresses }
  }

  #sayReadyWhenConnected(): void {
    const { rank, size } = this.#options
    const connected = this.#addresses !== undefined && this.#boundRanks.size === size - 1
    if (rank === 0 || !connected || this.#saidReady) return
    this.#saidReady = true
    this.#sendTo(0, { type: 'ready' })
  }

  #dial(rank: number, address: Address): void {
    const dial: Dial = {
      rank,
      address,
      nextRetryMs: firstRetryMs,
      retry: undefined,
      lastReason: 'no answer yet',
    }
    this.#dials.add(dial)
    this.#connect(dial)
  }

  #redial(dial: Dial): void {
    // What was published may have been left over from another mesh.
    if (dial.rank === 0) dial.address = this.#options.findRendezvous?.() ?? dial.address
    this.#connect(dial)
  }

  #connect(dial: Dial): void {
    const { key, rank, size, random } = this.#options
    dial.retry = undefined
    const handshake = new ClientHandshake({
      key,
      rank,
      size,
      expectedRank: dial.rank,
      ...(random === undefined ? {} : { random }),
    })
    const connection = this.#io.connect(dial.address.host, dial.address.port)
    const deadline = timer(handshakeTimeoutMs)
    this.#connections.set(connection, { kind: 'dialled', dial, handshake, timer: deadline })
  }

  #retry(dial: Dial, reason: string): void {
    dial.lastReason = reason
    dial.retry = timer(dial.nextRetryMs)
    dial.nextRetryMs = Math.min(dial.nextRetryMs * 2, lastRetryMs)
  }

  /** Also starts a timer that has not begun to count. Only while `tick` knows the time. */
  #isDue(due: Timer): boolean {
    due.atMs ??= this.#nowMs + due.afterMs
    return this.#nowMs >= due.atMs
  }

  #drop(connection: number): void {
    this.#connections.delete(connection)
    this.#io.close(connection)
  }

  #sendTo(rank: number, frame: JoinFrame): void {
    for (const [connection, state] of this.#connections) {
      if (state.kind === 'bound' && state.rank === rank) {
        this.#io.send(connection, encodeFrame(frame))
      }
    }
  }

  #sendToAll(frame: JoinFrame): void {
    const bytes = encodeFrame(frame)
    for (const [connection, state] of this.#connections) {
      if (state.kind === 'bound') this.#io.send(connection, bytes)
    }
  }

  #failProtocol(from: number, what: string): void {
    this.#fail(
      new PagemeshError(
        'ERR_PAGEMESH_PROTOCOL',
        `member ${from} sent ${what} while the mesh was being joined`,
        { rank: from },
      ),
    )
  }

  /** Gives up, and takes everybody along: a mesh that lacks a member is of no use to the rest. */
  #fail(error: PagemeshError, because?: AbortFrame): void {
    this.#outcome = { state: 'failed', error }
    const { rank: by } = this.#options
    const { code, message, rank } = error
    this.#sendToAll(
      because ?? { type: 'abort', by, code, message: message.slice(0, maxMessageLength), rank },
    )
    this.#shut(() => true)
  }

  #shut(closes: (state: Connection) => boolean): void {
    this.#closed = true
    this.#dials.clear()
    for (const [connection, state] of [...this.#connections]) {
      if (closes(state)) this.#drop(connection)
    }
  }

  #timeoutError(): PagemeshError {
    const { rank, size, timeoutMs, listen } = this.#options
    const inTime = `within ${timeoutMs} ms`
    const dialled = [...this.#dials]
    const rendezvous = dialled.find((dial) => dial.rank === 0)
    if (rendezvous !== undefined) {
      return new PagemeshError(
        'ERR_PAGEMESH_JOIN_FAILED',
        `member ${rank} could not join by the rendezvous at ${formatAddress(rendezvous.address)} ` +
          `${inTime} (last: ${rendezvous.lastReason}): check that rank 0 runs, listens there ` +
          'and can be reached from here',
        { rank: 0 },
      )
    }
    const absent = this.#ranksNotIn(this.#boundRanks)
    if (rank === 0 && absent.length > 0) {
      return timeoutError(
        `the mesh of ${size} members was not complete ${inTime}: ${ranks(absent)} did not ` +
          `come to ${formatAddress(listen)}: check that all members run and can reach it`,
        absent,
      )
    }
    if (rank === 0) {
      const settled = this.#addresses === undefined ? this.#registered : this.#readyRanks
      const late = this.#ranksNotIn(settled)
      const what = this.#addresses === undefined ? 'say where to listen' : 'connect to all others'
      return timeoutError(
        `the mesh of ${size} members was not complete ${inTime}: ${ranks(late)} came but did ` +
          `not ${what}: check that members can reach each other (PAGEMESH_HOST)`,
        late,
      )
    }
    if (this.#addresses === undefined) {
      return timeoutError(
        `the mesh of ${size} members was not complete ${inTime}: member 0 was reached but still ` +
          'waits for others; it says for whom',
        [],
      )
    }
    const tries = dialled.map(
      (dial) => `member ${dial.rank} at ${formatAddress(dial.address)}: ${dial.lastReason}`,
    )
    const detail = tries.length === 0 ? '' : ` (${tries.join('; ')})`
    const missing =
      absent.length === 0
        ? 'this member is connected to all, but others are not'
        : `no connection to ${ranks(absent)}${detail}`
    return timeoutError(
      `the mesh of ${size} members was not complete ${inTime}: ${missing}: ` +
        'check that members can reach each other (PAGEMESH_HOST)',
      absent,
    )
  }

  #ranksNotIn(present: { has(rank: number): boolean }): number[] {
    const { rank: own, size } = this.#options
    const all = Array.from({ length: size }, (_, rank) => rank)
    return all.filter((rank) => rank !== own && !present.has(rank))
  }
}

/** `host:port`, with brackets around an IPv6 address. */
export function formatAddress({ host, port }: Address): string {
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

function timer(afterMs: number): Timer {
  return { afterMs, atMs: undefined }
}

function timeoutError(message: string, missing: readonly number[]): PagemeshError {
  const rank = missing.at(0)
  const options = rank === undefined ? {} : { rank }
  return new PagemeshError('ERR_PAGEMESH_JOIN_TIMEOUT', message, options)
}

function ranks(list: readonly number[]): string {
  return `${list.length === 1 ? 'rank' : 'ranks'} ${list.join(', ')}`
}

/** Another member's failure, as seen here. What only it did wrong is plain failure to the rest. */
function abortError({ by, code, message, rank }: AbortFrame): PagemeshError {
  const kept = code === 'ERR_PAGEMESH_JOIN_TIMEOUT' || code === 'ERR_PAGEMESH_MEMBER_DOWN'
  const text = `member ${by} gave up joining: ${message}`
  return new PagemeshError(kept ? code : 'ERR_PAGEMESH_JOIN_FAILED', text, { rank: rank ?? by })
}

function encodeFrame(frame: JoinFrame): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(frame))
}

/** The frame, or in words what came instead. */
function parseFrame(bytes: Uint8Array, size: number): JoinFrame | string {
  if (bytes.length > maxJoinFrameBytes) return `a frame of ${bytes.length} bytes`
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch {
    return `a frame of ${bytes.length} bytes that is not JSON`
  }
  return readFrame(value, size) ?? `a malformed frame of ${bytes.length} bytes`
}

function readFrame(value: unknown, size: number): JoinFrame | undefined {
  if (!isRecord(value)) return undefined
  switch (value.type) {
    case 'register': {
      const address = readAddress(value)
      return address === undefined ? undefined : { type: 'register', ...address }
    }
    case 'table': {
      const list = value.addresses
      if (!Array.isArray(list) || list.length !== size) return undefined
      const addresses: Address[] = []
      for (const item of list as unknown[]) {
        const address = readAddress(item)
        if (address === undefined) return undefined
        addresses.push(address)
      }
      return { type: 'table', addresses }
    }
    case 'ready':
      return { type: 'ready' }
    case 'go':
      return { type: 'go' }
    case 'abort': {
      const { by, code, message, rank } = value
      if (!isRank(by, size) || typeof code !== 'string') return undefined
      if (typeof message !== 'string' || message.length > maxMessageLength) return undefined
      if (rank !== undefined && !isRank(rank, size)) return undefined
      return { type: 'abort', by, code, message, rank }
    }
    default:
      return undefined
  }
}

function readAddress(value: unknown): Address | undefined {
  if (!isRecord(value)) return undefined
  const { host, port } = value
  if (typeof host !== 'string' || !hostPattern.test(host)) return undefined
  if (!Number.isInteger(port)) return undefined
  const portNumber = port as number
  return portNumber >= 1 && portNumber <= 65535 ? { host, port: portNumber } : undefined
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isRank(value: unknown, size: number): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) < size
}
