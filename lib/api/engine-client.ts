import { type MessagePort, receiveMessageOnPort, type Worker } from 'node:worker_threads'
import type { Answer, Command } from '../engine/commands.js'
import { PagemeshError } from '../errors.js'
import { type Addon } from '../native/addon.js'
import { LockTokens, type TokenPlace } from './lock-tokens.js'

const HIGH = 2 ** 32

interface Settle {
  resolve: (value: unknown) => void
  reject: (error: Error) => void
}
/** A command without its number, for each kind of command that has one. */
type Unnumbered<C> = C extends { readonly id: number } ? Omit<C, 'id'> : never
export type Question = Unnumbered<Command>

/**
 * The API's side of the engine: sends commands, and settles promises with the answers. Belongs to
 * the thread that joined.
 */
export class EngineClient {
  private readonly pending = new Map<number, Settle>()
  private nextId = 1 // 0 is the join's
  private closed: PagemeshError | undefined
  /** The tokens of locks that are here. */
  readonly tokens: LockTokens

  constructor(
    private readonly addon: Addon,
    readonly session: number,
    private readonly worker: Worker,
    private readonly port: MessagePort,
    private readonly answered: Int32Array,
    tokens: Int32Array,
  ) {
    this.tokens = new LockTokens(
      tokens,
      (key, { rank, request, ticket }) =>
        this.closed === undefined &&
        addon.passToken(session, rank, key % HIGH, Math.floor(key / HIGH), request, ticket),
      (key, request, passed) => this.post({ op: 'release', key, request, passed }),
    )
    port.on('message', (answer: Answer) => this.settle(answer))
    worker.on('error', (error) => this.close(engineGone(error)))
    worker.on('exit', () => {
      while (this.settleNext()); // its last answers may still be on their way
      this.close(engineGone(undefined))
    })
    port.unref()
    worker.unref()
  }

  /** Asks and waits for the answer; the event loop stays alive meanwhile. */
  ask(question: Question): Promise<unknown> {
    return this.numbered(question).answer
  }

  /** The same, with the number by which `post` can refer to the question. */
  numbered(question: Question): { id: number; answer: Promise<unknown> } {
    const id = this.newId()
    const answer = this.expect(id)
    if (this.closed === undefined) this.post({ ...question, id })
    return { id, answer }
  }

  /** Waits for an answer that comes unasked, or under a number used already. */
  expect(id: number): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.closed !== undefined) {
        reject(this.closed)
        return
      }
      this.pending.set(id, { resolve, reject })
      this.port.ref()
    })
  }

  /**
   * Asks, and stops this thread until the answer is there. Where a token is asked for, whoever had
   * it may pass it on to this thread, which then need not hear of it from its engine.
   */
  askSync(question: Question, place?: TokenPlace): unknown {
    if (this.closed !== undefined) throw this.closed
    const id = this.newId()
    const outcome: { value?: unknown; error?: Error; settled: boolean } = { settled: false }
    this.pending.set(id, {
      resolve: (value) => Object.assign(outcome, { value, settled: true }),
      reject: (error) => Object.assign(outcome, { error, settled: true }),
    })
    this.post({ ...question, id })
    while (!outcome.settled) {
      const seen = Atomics.load(this.answered, 0)
      if (this.settleNext()) continue
      if (place === undefined || question.op !== 'acquire') Atomics.wait(this.answered, 0, seen)
      else if (this.awaitToken(question, place)) {
        this.settle({ id, value: { granted: true, request: place.request } })
      }
    }
    if (outcome.error !== undefined) throw outcome.error
    return outcome.value
  }

  /** Sleeps until the token is passed on to this thread (true), or the engine has an answer. */
  private awaitToken(
    { key, ticket }: Extract<Question, { op: 'acquire' }>,
    place: TokenPlace,
  ): boolean {
    const { addon, session } = this
    const request = addon.awaitToken(session, key % HIGH, Math.floor(key / HIGH), ticket)
    if (request === 0 || !this.tokens.cameEarly(place)) return false
    place.request = request
    return true
  }

  /** The engine answers, as far as this thread knows. */
  get isOpen(): boolean {
    return this.closed === undefined
  }

  /** Sends a command that has no answer, or one whose number is known. */
  post(command: Command): void {
    if (this.closed !== undefined) return
    this.port.postMessage(command)
    this.addon.wake(this.session)
  }

  /** Resolves when the engine's thread has ended. */
  async ended(): Promise<void> {
    if (this.worker.threadId === -1) return
    this.worker.ref()
    await new Promise<void>((resolve) => this.worker.once('exit', () => resolve()))
  }

  /** Everything that is pending or comes later rejects with this. */
  close(error: PagemeshError): void {
    this.closed ??= error
    this.tokens.close()
    for (const { reject } of this.pending.values()) reject(this.closed)
    this.pending.clear()
    this.port.close()
  }

  /** Takes an answer that has come, without the event loop. False if there is none. */
  private settleNext(): boolean {
    const received: { message: Answer } | undefined = receiveMessageOnPort(this.port)
    if (received !== undefined) this.settle(received.message)
    return received !== undefined
  }

  private newId(): number {
    const id = this.nextId
    this.nextId = id === 0x7fffffff ? 1 : id + 1
    return id
  }

  private settle(answer: Answer): void {
    const found = this.pending.get(answer.id)
    if (found === undefined) return
    this.pending.delete(answer.id)
    if (this.pending.size === 0) this.port.unref()
    if ('error' in answer) {
      const { code, message, rank } = answer.error
      found.reject(new PagemeshError(code, message, rank === undefined ? {} : { rank }))
    } else {
      found.resolve(answer.value)
    }
  }
}

function engineGone(cause: unknown): PagemeshError {
  return new PagemeshError('ERR_PAGEMESH_LEFT', 'the mesh has been left', { cause })
}
