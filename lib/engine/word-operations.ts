import { PagemeshError } from '../errors.js'
import { Kind, MAX_MEMBERS } from '../protocol/messages.js'
import type { Command } from './commands.js'
import type { EngineContext } from './context.js'
import type { EngineRegion } from './engine-region.js'
import { HomeAtomic } from './range-operations.js'

const WORD_MASK = 0xffffffffn

/** Atomic operations on words: this member as the home of some, and as a client of all. */
export class WordOperations {
  /** Operations whose answer is to come from another member, with that member. */
  private readonly remote = new Map<number, number>()

  constructor(private readonly context: EngineContext) {}

  /** Carries out what this member's API asks. */
  start(command: Extract<Command, { op: 'atomic' }>, region: EngineRegion): void {
    const { context } = this
    const { id, byteOffset, bits, operation, operand, expected } = command
    const page = Math.floor(byteOffset / region.info.pageBytes)
    const byteInPage = byteOffset % region.info.pageBytes
    const home = region.homes.homeOf(page)
    if (home !== context.rank) {
      this.remote.set(id, home)
      context.ring.send(
        home,
        Kind.AtomicRequest,
        region.info.id,
        page,
        id,
        byteInPage,
        operation,
        bits,
        ...halves(operand),
        ...halves(expected),
      )
      return
    }
    const word = { page, byteInPage, bits, operation, operand, expected }
    new HomeAtomic(context, region, word, (before, error) => {
      if (error === undefined) context.answer(id, before)
      else context.fail(id, error)
    }).start()
  }

  /** AtomicRequest. `word` reads the record's words a, b, c … . */
  onRequest(
    region: EngineRegion,
    page: number,
    from: number,
    word: (offset: number) => number,
  ): void {
    const { ring, rank } = this.context
    const [request, byteInPage, operation, bits] = [word(0), word(1), word(2), word(3)]
    const valid =
      page < region.info.pageCount &&
      region.homes.homeOf(page) === rank &&
      (bits === 32 || bits === 64) &&
      operation <= 3 &&
      byteInPage % (bits / 8) === 0 &&
      byteInPage < region.info.pageBytes
    if (!valid) {
      throw new PagemeshError('ERR_PAGEMESH_PROTOCOL', 'an operation on no word of this home')
    }
    const operand = whole(word(4), word(5))
    const expected = whole(word(6), word(7))
    const operationOnWord = { page, byteInPage, bits, operation, operand, expected }
    new HomeAtomic(this.context, region, operationOnWord, (before, error) => {
      const [low, high] = halves(before)
      const lost = error === undefined ? 0 : 1
      const owner = error?.rank ?? 0
      ring.send(from, Kind.AtomicReply, region.info.id, page, request, low, high, lost, owner)
    }).start()
  }

  /** AtomicReply. */
  onReply(from: number, word: (offset: number) => number): void {
    const id = word(0)
    if (this.remote.get(id) !== from) {
      throw new PagemeshError('ERR_PAGEMESH_PROTOCOL', 'an answer to an operation not asked for')
    }
    this.remote.delete(id)
    if (word(3) === 0) return this.context.answer(id, whole(word(1), word(2)))
    const owner = word(4) % MAX_MEMBERS
    this.context.fail(
      id,
      new PagemeshError(
        'ERR_PAGEMESH_PAGE_LOST',
        `the word's page is lost: its owner, rank ${owner}, is down (home: rank ${from})`,
        { rank: owner },
      ),
    )
  }

  /** Nobody waits for the answers any more. */
  forgetAll(): void {
    this.remote.clear()
  }
}

function halves(value: bigint): [number, number] {
  const bits = BigInt.asUintN(64, value)
  return [Number(bits & WORD_MASK), Number(bits >> 32n)]
}

function whole(low: number, high: number): bigint {
  return (BigInt(high) << 32n) | BigInt(low)
}
