import { RECORD_WORDS, Word } from '../protocol/messages.js'
import { type Addon, Call, CALL_WORDS } from '../native/addon.js'

/** Words of an event or an action: kind, three words, and a record. native/binding/session.h. */
export const ENTRY_WORDS = 4 + RECORD_WORDS
const RECORD = 4 // where the record begins in an entry

export const EventKind = {
  message: 1,
  clusterFrame: 2,
  opened: 3,
  accepted: 4,
  closed: 5,
  fault: 6,
  wake: 7,
  resumed: 8,
  word: 9,
  linkProbed: 10,
} as const

const ActionKind = {
  send: 1,
  sendPage: 2,
  sendBlob: 3,
  sendBlobTo: 4,
  protect: 5,
  wake: 6,
  word: 7,
  open: 8,
} as const

/** The third word of a word action. */
const WordChange = { adds: 0, compares: 1 } as const
const ProtectFlag = { wake: 1, invalidate: 2 } as const
const PROT = { none: 0, read: 1, write: 3 } as const

const EVENTS = 256
const ACTIONS = 4096
const BLOB_BYTES = 256 * 1024

/**
 * The typed arrays through which the engine and native code talk: actions out, events in. All
 * allocated once.
 */
export class Ring {
  private readonly callWords = new Int32Array(CALL_WORDS)
  private readonly actions = new Uint32Array(ACTIONS * ENTRY_WORDS)
  private readonly blobsOut = new Uint8Array(BLOB_BYTES)
  private readonly events = new Uint32Array(EVENTS * ENTRY_WORDS)
  private readonly noEvents = new Uint32Array(0)
  private readonly blobsIn = new Uint8Array(BLOB_BYTES)
  private actionCount = 0
  /** Where the last protect action is, if there is one: the next may continue its range. */
  private lastProtectAt = -1
  private blobsUsed = 0

  constructor(
    private readonly addon: Addon,
    private readonly session: number,
    /** The current view, which every record carries. */
    private readonly view: () => number,
  ) {}

  /** Carries out what is queued, then waits. Returns the number of events, -1 once stopped. */
  exchange(timeoutMs: number, watchResumes: boolean): number {
    return this.call(this.events, timeoutMs, watchResumes)
  }

  /** Carries out what is queued, now. */
  flush(): void {
    if (this.actionCount > 0) this.call(this.noEvents, 0, false)
  }

  /** When the last exchange returned, in whole milliseconds since the first one. */
  get nowMs(): number {
    const high = this.callWords[Call.nowMsHigh]
    const low = this.callWords[Call.nowMsLow]
    return high === 0 ? low : high * 2 ** 31 + low
  }

  private call(events: Uint32Array, timeoutMs: number, watchResumes: boolean): number {
    const { callWords, actions, blobsOut, blobsIn } = this
    callWords[Call.actionCount] = this.actionCount
    callWords[Call.timeoutMs] = timeoutMs
    callWords[Call.watchResumes] = watchResumes ? 1 : 0
    this.actionCount = 0
    this.lastProtectAt = -1
    this.blobsUsed = 0
    return this.addon.exchange(this.session, callWords, actions, blobsOut, events, blobsIn)
  }

  /** Word `word` (0 is the kind) of event `index`. */
  event(index: number, word: number): number {
    return this.events[index * ENTRY_WORDS + word] ?? 0
  }

  /** A word of the record of event `index`; see Word. */
  record(index: number, word: number): number {
    return this.events[index * ENTRY_WORDS + RECORD + word] ?? 0
  }

  /** The blob of event `index`: valid until the next exchange. */
  blob(index: number): Uint8Array {
    const start = this.event(index, 2)
    return this.blobsIn.subarray(start, start + this.event(index, 3))
  }

  /** A control record; `words` are a, b, c … */
  send(to: number, kind: number, region: number, page: number, ...words: number[]): void {
    const at = this.begin(ActionKind.send, to, 0, 0)
    this.writeRecord(at, 0, kind, region, page)
    for (let i = 0; i < words.length; i++) this.actions[at + RECORD + Word.a + i] = words[i] ?? 0
  }

  /** The same for the two words of page messages, without an allocation. */
  sendTwo(to: number, kind: number, region: number, page: number, a: number, b: number): void {
    const at = this.begin(ActionKind.send, to, 0, 0)
    this.writeRecord(at, 0, kind, region, page)
    this.actions[at + RECORD + Word.a] = a
    this.actions[at + RECORD + Word.b] = b
  }

  sendPage(
    to: number,
    kind: number,
    region: number,
    page: number,
    pageBytes: number,
    a: number,
    b: number,
  ): void {
    const at = this.begin(ActionKind.sendPage, to, 0, 0)
    this.writeRecord(at, pageBytes, kind, region, page)
    this.actions[at + RECORD + Word.a] = a
    this.actions[at + RECORD + Word.b] = b
  }

  /** A blob to a member. */
  sendBlob(to: number, kind: number, blob: Uint8Array): void {
    this.writeBlob(ActionKind.sendBlob, to, kind, blob)
  }

  /** A blob to a connection that belongs to no member yet. */
  sendBlobTo(connection: number, kind: number, blob: Uint8Array): void {
    this.writeBlob(ActionKind.sendBlobTo, connection, kind, blob)
  }

  protect(
    region: number,
    page: number,
    pageCount: number,
    access: 'none' | 'read' | 'write',
    wake: boolean,
    invalidated: boolean,
  ): void {
    const flags = (wake ? ProtectFlag.wake : 0) | (invalidated ? ProtectFlag.invalidate : 0)
    if (this.continuesProtect(region, page, access, flags)) {
      this.actions[this.lastProtectAt + 2] += pageCount
      return
    }
    const at = this.begin(ActionKind.protect, PROT[access], pageCount, flags)
    this.writeRecord(at, 0, 0, region, page)
    this.lastProtectAt = at
  }

  /**
   * One call for a run of pages, however many sends stand between its pages: all of them go out
   * after all protections.
   */
  private continuesProtect(
    region: number,
    page: number,
    access: 'none' | 'read' | 'write',
    flags: number,
  ): boolean {
    const { actions, lastProtectAt: at } = this
    return (
      at >= 0 &&
      actions[at + 1] === PROT[access] &&
      actions[at + 3] === flags &&
      actions[at + RECORD + Word.region] === region &&
      (actions[at + RECORD + Word.page] ?? 0) + (actions[at + 2] ?? 0) === page
    )
  }

  /** After all protections that are queued; see CoherenceSink.open. */
  open(region: number, page: number): void {
    const at = this.begin(ActionKind.open, 0, 0, 0)
    this.writeRecord(at, 0, 0, region, page)
  }

  wake(region: number, page: number, pageCount: number): void {
    const at = this.begin(ActionKind.wake, 0, pageCount, 0)
    this.writeRecord(at, 0, 0, region, page)
  }

  /** An RDMA atomic on a word at `to`; an event tells what the word was. */
  word(
    to: number,
    request: number,
    compares: boolean,
    rkey: number,
    address: bigint,
    operand: bigint,
    expected: bigint,
  ): void {
    const change = compares ? WordChange.compares : WordChange.adds
    const at = this.begin(ActionKind.word, to, request, change) + RECORD + Word.a
    const words = [rkey, ...halves(address), ...halves(operand), ...halves(expected)]
    this.actions.set(words, at)
  }

  private writeBlob(action: number, to: number, kind: number, blob: Uint8Array): void {
    if (blob.length > BLOB_BYTES - this.blobsUsed) this.flush()
    const at = this.begin(action, to, this.blobsUsed, blob.length)
    this.blobsOut.set(blob, this.blobsUsed)
    this.blobsUsed += blob.length
    this.writeRecord(at, blob.length, kind, 0, 0)
  }

  private begin(kind: number, word0: number, word1: number, word2: number): number {
    if (this.actionCount === ACTIONS) this.flush()
    const at = this.actionCount++ * ENTRY_WORDS
    this.actions.fill(0, at, at + ENTRY_WORDS)
    this.actions[at] = kind
    this.actions[at + 1] = word0
    this.actions[at + 2] = word1
    this.actions[at + 3] = word2
    return at
  }

  private writeRecord(
    at: number,
    payloadBytes: number,
    kind: number,
    region: number,
    page: number,
  ): void {
    const record = at + RECORD
    this.actions[record + Word.payloadBytes] = payloadBytes
    this.actions[record + Word.kind] = kind
    this.actions[record + Word.view] = this.view()
    this.actions[record + Word.region] = region
    this.actions[record + Word.page] = page
  }
}

const HALF_MASK = 0xffffffffn

/** The two words that a word of 64 bits travels in, low and high. */
export function halves(value: bigint): [number, number] {
  const bits = BigInt.asUintN(64, value)
  return [Number(bits & HALF_MASK), Number(bits >> 32n)]
}

export function whole(low: number, high: number): bigint {
  return (BigInt(high) << 32n) | BigInt(low)
}
