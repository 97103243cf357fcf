import { Kind } from '../../dist/protocol/messages.js'

/** One record, as it travels; the view is the sender's. */
export interface Message {
  readonly from: number
  readonly to: number
  readonly kind: number
  readonly view: number
  readonly page: number
  /** a, b, c … of lib/protocol/messages.ts. */
  readonly words: readonly number[]
  /** If it carries the page: the number of the write that its bytes come from. */
  readonly contents?: number | undefined
  /** How many messages had to come one after the other, this one included, since an operation. */
  readonly hop: number
}

export const RECORD_BYTES = 64 // native/transport/wire.h
export const PAGE_BYTES = 4096

/** Kinds that a fault causes. */
export const isPageKind = (kind: number): boolean =>
  kind <= Kind.Discard || kind === Kind.AwaitAlso || (kind >= 0x40 && kind < 0x80)

export const bytesOf = (message: Message): number =>
  RECORD_BYTES + (message.contents === undefined ? 0 : PAGE_BYTES)

const KIND_NAMES = new Map(Object.entries(Kind).map(([name, kind]) => [kind as number, name]))
export const kindName = (kind: number): string => KIND_NAMES.get(kind) ?? `kind ${kind}`

export function describe({ from, to, kind, page, words, contents }: Message): string {
  const where = isPageKind(kind) ? ` page ${page}` : ''
  const what = words.some((word) => word !== 0) ? ` (${words.join(',')})` : ''
  const bytes = contents === undefined ? '' : ` =${contents}`
  return `${from}→${to} ${kindName(kind)}${where}${what}${bytes}`
}
