import { PagemeshError } from '../errors.js'
import type { WordsKey } from '../native/addon.js'
import { HomeMap } from '../protocol/placement.js'
import type { RegionInfo } from './commands.js'
import type { EngineContext } from './context.js'
import type { WordOperation } from './range-operations.js'
import type { WordHost } from './word-operations.js'

/**
 * A region of atomic words: they stay at their homes, and there are no pages to lend. Either the
 * homes' devices change all of them, by RDMA atomics from everybody, the home included; or the
 * homes' processors do. Both at once would lose updates.
 */
export class WordRegion implements WordHost {
  readonly homes: HomeMap
  /** Undefined until the mesh has agreed on it; only then is the region used. */
  private way: 'home' | 'rdma' | undefined
  private keys: readonly (WordsKey | undefined)[] = []
  private readonly ownKey: WordsKey | undefined

  /** Maps this member's part; with `share`, offers its words to RDMA. Throws what has an errno. */
  constructor(
    private readonly context: EngineContext,
    readonly info: RegionInfo,
    share: boolean,
  ) {
    this.homes = new HomeMap(info.placement, info.pageCount, context.size)
    this.ownKey = this.map(share)
  }

  /** Where RDMA may change this member's words, if it may. */
  get key(): WordsKey | undefined {
    return this.ownKey
  }

  get usesRdma(): boolean {
    return this.way === 'rdma'
  }

  /** What all members do from now on. Throws ERR_PAGEMESH_PROTOCOL if it cannot be. */
  agree(keys: readonly WordsKey[] | undefined): void {
    if (this.way !== undefined) throw refuse(`region ${this.info.id} was agreed on before`)
    if (keys === undefined) {
      this.way = 'home'
      if (this.ownKey === undefined) return
      this.context.addon.unmapRegion(this.context.session, this.info.id) // withdraws the right
      this.map(false)
      return
    }
    if (keys.length !== this.context.size || !isSame(keys[this.context.rank], this.ownKey)) {
      throw refuse(`the keys of region ${this.info.id} are not what its members said`)
    }
    this.way = 'rdma'
    this.keys = keys
  }

  takesRequest(bits: number): boolean {
    return this.way === 'home' && bits === 64
  }

  perform(word: WordOperation, done: (before: bigint, error: undefined) => void): void {
    const { addon, session } = this.context
    const { page, byteInPage, bits, operation, operand, expected } = word
    const index = this.homes.indexOf(page)
    const { id } = this.info
    done(
      addon.atomic(session, id, index, byteInPage, bits, operation, operand, expected),
      undefined,
    )
  }

  /** Where the word at this byte of the region is, for RDMA. */
  wordAt(byteOffset: number): { home: number; rkey: number; address: bigint } {
    const { pageBytes } = this.info
    const page = Math.floor(byteOffset / pageBytes)
    const home = this.homes.homeOf(page)
    const key = this.keys[home]
    if (key === undefined) throw new Error(`no key of rank ${home} for region ${this.info.id}`)
    const inBlock = this.homes.indexOf(page) * pageBytes + (byteOffset % pageBytes)
    return { home, rkey: key.rkey, address: BigInt.asUintN(64, key.address + BigInt(inBlock)) }
  }

  private map(share: boolean): WordsKey | undefined {
    const { addon, session, rank } = this.context
    const { id, pageBytes } = this.info
    return addon.mapWords(session, id, pageBytes, this.homes.countAt(rank), share)
  }
}

function isSame(key: WordsKey | undefined, other: WordsKey | undefined): boolean {
  if (key === undefined || other === undefined) return false
  return key.rkey === other.rkey && key.address === other.address
}

function refuse(message: string): PagemeshError {
  return new PagemeshError('ERR_PAGEMESH_PROTOCOL', message)
}
