import { PagemeshError, type PagemeshErrorCode } from '../errors.js'
import { MAX_MEMBERS } from '../protocol/messages.js'
import { MAX_ATOMIC_BYTES, type RegionShape, WORD_BYTES } from './commands.js'

/** Rank 0 numbers the regions and places them. */
export const COORDINATOR = 0
export const MAX_REGIONS = 1024

/** What members say to each other about regions: JSON in a RegionControl blob. */
export type RegionMessage =
  | { readonly type: 'open'; readonly question: number; readonly shape: RegionShape }
  | { readonly type: 'map'; readonly region: WireInfo }
  | {
      readonly type: 'mapped'
      readonly id: number
      readonly errno: number
      /** Of atomic words: where they can be changed by RDMA, if they can be at this member. */
      readonly key?: WireKey | undefined
    }
  /** Of atomic words, once all have mapped them: where each member's are, or null: not by RDMA. */
  | { readonly type: 'agree'; readonly id: number; readonly keys: readonly WireKey[] | null }
  | { readonly type: 'agreed'; readonly id: number }
  | { readonly type: 'unmap'; readonly id: number }
  | { readonly type: 'opened'; readonly question: number; readonly region: WireInfo }
  | {
      readonly type: 'refused'
      readonly question: number
      readonly code: PagemeshErrorCode
      readonly message: string
      readonly rank?: number | undefined
    }
export type WireInfo = RegionShape & { readonly id: number; readonly base: string }
export interface WireKey {
  readonly rkey: number
  readonly address: string
}

// What a peer says is checked before it is believed.

type Fields = Readonly<Record<string, unknown>>

/** Throws ERR_PAGEMESH_PROTOCOL if the blob is no region message, or none that `from` may send. */
export function parseMessage(from: number, blob: Uint8Array): RegionMessage {
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(blob))
  } catch {
    value = undefined
  }
  if (!isRegionMessage(value) || !mayCome(from, value)) {
    throw new PagemeshError(
      'ERR_PAGEMESH_PROTOCOL',
      `rank ${from} sent a message about regions that cannot be read`,
      { rank: from },
    )
  }
  return value
}

/** Only the coordinator decides. */
const mayCome = (from: number, message: RegionMessage): boolean =>
  from === COORDINATOR || ['open', 'mapped', 'agreed'].includes(message.type)

function isRegionMessage(value: unknown): value is RegionMessage {
  if (!isFields(value)) return false
  switch (value.type) {
    case 'open':
      return isQuestion(value.question) && isShape(value.shape)
    case 'map':
      return isInfo(value.region)
    case 'opened':
      return isQuestion(value.question) && isInfo(value.region)
    case 'mapped':
      return (
        isIndex(value.id, MAX_REGIONS) &&
        isIndex(value.errno, 4096) &&
        (value.key === undefined || isKey(value.key))
      )
    case 'agree':
      return isIndex(value.id, MAX_REGIONS) && (value.keys === null || isKeys(value.keys))
    case 'agreed':
    case 'unmap':
      return isIndex(value.id, MAX_REGIONS)
    case 'refused':
      return (
        isQuestion(value.question) &&
        [value.code, value.message].every((field) => typeof field === 'string') &&
        (value.rank === undefined || isIndex(value.rank, 32))
      )
    default:
      return false
  }
}

const isFields = (value: unknown): value is Fields => typeof value === 'object' && value !== null

const isIndex = (value: unknown, limit: number): boolean =>
  typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < limit

const isQuestion = (value: unknown): boolean => isIndex(value, Number.MAX_SAFE_INTEGER)

function isShape(value: unknown): boolean {
  if (!isFields(value)) return false
  const { name, byteLength, pageBytes, placement, words, prefetch } = value
  const pages = Number(byteLength) / Number(pageBytes)
  return (
    typeof name === 'string' &&
    name.length > 0 &&
    Buffer.byteLength(name) <= 255 &&
    isIndex(byteLength, Number.MAX_SAFE_INTEGER) &&
    isPageSize(pageBytes) &&
    pages > 0 &&
    pages < 2 ** 32 &&
    isPlacement(placement) &&
    (prefetch === 'auto' || prefetch === 'off') &&
    (words === 'paged' || (words === 'atomic' && isWordLength(Number(byteLength))))
  )
}

const isWordLength = (byteLength: number): boolean =>
  byteLength % WORD_BYTES === 0 && byteLength <= MAX_ATOMIC_BYTES

/** A power of two that the MMU may work with; mapping checks it against this machine's pages. */
function isPageSize(value: unknown): boolean {
  return (
    isIndex(value, 2 ** 20 + 1) &&
    Number(value) >= 4096 &&
    Number.isInteger(Math.log2(Number(value)))
  )
}

function isPlacement(value: unknown): boolean {
  return value === 'block' || value === 'cyclic' || (isFields(value) && isIndex(value.rank, 32))
}

function isInfo(value: unknown): boolean {
  if (!isShape(value)) return false
  const { id, base } = value as Fields
  return isIndex(id, MAX_REGIONS) && isAddress(base)
}

const isAddress = (value: unknown): boolean =>
  typeof value === 'string' && /^[0-9]{1,20}$/.test(value) && BigInt(value) < 2n ** 64n

function isKeys(value: unknown): boolean {
  return Array.isArray(value) && value.length <= MAX_MEMBERS && value.every(isKey)
}

function isKey(value: unknown): boolean {
  return isFields(value) && isIndex(value.rkey, 2 ** 32) && isAddress(value.address)
}
