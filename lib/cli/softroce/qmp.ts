import { createInterface } from 'node:readline'
import type { Duplex } from 'node:stream'

interface QmpReply {
  readonly return?: unknown
  readonly error?: { readonly class: string; readonly desc: string }
  readonly event?: string
  readonly QMP?: unknown
}

interface Pending {
  readonly resolve: (value: unknown) => void
  readonly reject: (error: Error) => void
}

/** QEMU's machine protocol: one command after another, answered in order. */
export class QmpClient {
  readonly #stream: Duplex
  readonly #pending: Pending[] = []
  readonly #ready: Promise<unknown>
  #isClosed = false

  constructor(stream: Duplex) {
    this.#stream = stream
    const lines = createInterface({ input: stream })
    lines.on('line', (line) => this.#onReply(JSON.parse(line) as QmpReply))
    lines.once('close', () => this.#onClose())
    // A QEMU that is killed may reset the connection. Both throw if nobody listens.
    for (const each of [stream, lines]) each.on('error', () => this.#onClose())
    this.#ready = this.#send({ execute: 'qmp_capabilities' })
    this.#ready.catch(() => undefined) // whoever sends a command hears of it
  }

  /** @throws Error if QEMU refuses, or is gone. */
  async execute(command: string, args: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    await this.#ready
    return this.#send({ execute: command, arguments: args })
  }

  #send(message: object): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.#isClosed) return reject(new Error('the virtual machine is gone'))
      this.#pending.push({ resolve, reject })
      this.#stream.write(`${JSON.stringify(message)}\n`)
    })
  }

  #onReply(reply: QmpReply): void {
    if (reply.QMP !== undefined || reply.event !== undefined) return
    const pending = this.#pending.shift()
    if (reply.error === undefined) pending?.resolve(reply.return)
    else pending?.reject(new Error(`QEMU: ${reply.error.desc}`))
  }

  #onClose(): void {
    this.#isClosed = true
    for (const { reject } of this.#pending.splice(0)) {
      reject(new Error('the virtual machine is gone'))
    }
  }
}
