import { PagemeshError } from '../errors.js'
import { Kind, MAX_MEMBERS } from '../protocol/messages.js'
import type { Command } from './commands.js'
import type { EngineContext } from './context.js'
import type { HomeMap } from '../protocol/placement.js'
import type { RegionInfo } from './commands.js'
import type { WordOperation } from './range-operations.js'
import { halves, whole } from './ring.js'

/** A region, as far as its words are concerned, whose homes' processors change them. */
export interface WordHost {
  readonly info: RegionInfo
  readonly homes: HomeMap
  /** Whether another member may ask this home to change a word of so many bits. */
  takesRequest(bits: number): boolean
  /** Changes a word that is homed here; `done` is called now or later. */
  perform(
    word: WordOperation,
    done: (before: bigint, error: PagemeshError | undefined) => void,
  ): void
}

/**
 * Atomic operations on words by their homes' processors: this member as the home of some, and as a
 * client of all.
 */
export class WordOperations {
  /** Operations whose answer is to come from another member, with that member. */
  private readonly remote = new Map<number, number>()

  constructor(private readonly context: EngineContext) {}

  /** Carries out what this member's API asks. */
  start(command: Extract<Command, { op: 'atomic' }>, region: WordHost): void {
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
    region.perform(word, (before, error) => {
      if (error === undefined) context.answer(id, before)
      else context.fail(id, error)
    })
  }

  /** AtomicRequest. `word` reads the record's words a, b, c … . */
  onRequest(region: WordHost, page: number, from: number, word: (offset: number) => number): void {
    const { ring, rank } = this.context
    const [request, byteInPage, operation, bits] = [word(0), word(1), word(2), word(3)]
    const valid =
      page < region.info.pageCount &&
      region.homes.homeOf(page) === rank &&
      (bits === 32 || bits === 64) &&
      region.takesRequest(bits) &&
      operation <= 3 &&
      byteInPage % (bits / 8) === 0 &&
      byteInPage < region.info.pageBytes
    if (!valid) {
      throw new PagemeshError('ERR_PAGEMESH_PROTOCOL', 'an operation on no word of this home')
    }
    const operand = whole(word(4), word(5))
    const expected = whole(word(6), word(7))
    const operationOnWord = { page, byteInPage, bits, operation, operand, expected }
    region.perform(operationOnWord, (before, error) => {
      const [low, high] = halves(before)
      const lost = error === undefined ? 0 : 1
      const owner = error?.rank ?? 0
      ring.send(from, Kind.AtomicReply, region.info.id, page, request, low, high, lost, owner)
    })
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
