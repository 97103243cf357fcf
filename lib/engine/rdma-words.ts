import { AtomicOperation } from '../protocol/messages.js'
import type { Command } from './commands.js'
import type { EngineContext } from './context.js'
import type { WordRegion } from './word-region.js'

type Atomic = Extract<Command, { op: 'atomic' }>

interface Pending {
  readonly command: Atomic
  readonly region: WordRegion
  /** What the word must be for this attempt to write it. */
  expected: bigint
}

/**
 * Operations by RDMA atomics, which add and which compare and exchange; the others are made of
 * these two. To read a word is to add nothing to it. To write it is to exchange it for whatever it
 * holds, tried until nobody comes between: an attempt fails only because another member's change
 * succeeded.
 */
export class RdmaWords {
  /** Operations under way, by the number of their command. */
  private readonly pending = new Map<number, Pending>()

  constructor(private readonly context: EngineContext) {}

  start(command: Atomic, region: WordRegion): void {
    const pending = { command, region, expected: command.expected }
    this.pending.set(command.id, pending)
    this.post(pending)
  }

  /** The word as an operation found it. */
  onResult(id: number, before: bigint): void {
    const pending = this.pending.get(id)
    if (pending === undefined) return // failed meanwhile
    if (pending.command.operation === AtomicOperation.store && before !== pending.expected) {
      pending.expected = before
      this.post(pending)
      return
    }
    this.pending.delete(id)
    this.context.answer(id, before)
  }

  /** Nobody waits for the results any more. */
  forgetAll(): void {
    this.pending.clear()
  }

  private post({ command, region, expected }: Pending): void {
    const { id, byteOffset, operation } = command
    const compares =
      operation === AtomicOperation.store || operation === AtomicOperation.compareExchange
    const operand = operation === AtomicOperation.load ? 0n : command.operand
    const { home, rkey, address } = region.wordAt(byteOffset)
    this.context.ring.word(home, id, compares, rkey, address, operand, expected)
  }
}
