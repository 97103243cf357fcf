/**
 * The kinds of records that members send each other, and what their words mean.
 *
 * A record is 16 words of 32 bits: payload length, kind, view, region, page, then eleven words that
 * depend on the kind, called a, b, c … here. native/transport/wire.h has the layout.
 *
 * | kind | from → to | words |
 * |---|---|---|
 * | ReadRequest, WriteRequest, UpgradeRequest | requester → home | |
 * | RecallRead, RecallWrite | home → owner | a: requester |
 * | Invalidate | home → sharer | a: requester, who gets the acknowledgement |
 * | InvalidateAck | sharer → requester | |
 * | Grant | home → requester | a: bitmap of the sharers whose acknowledgement is still to come; |
 * | | | … b: 2 if there are others, of whom AwaitAlso has told |
 * | Data | home or owner → requester | the page; b: 1 if from an owner, to be confirmed |
 * | DataExclusive | home or owner → requester | the page; a: as in Grant; b: as in Data or Grant |
 * | AwaitAlso | home → requester | comes before a grant; a: which 32 ranks, from 1 on, b: as … |
 * | | | … Grant's a. Only in meshes of more than 32 members: far-ranks.ts |
 * | WriteBack | owner → home | the page |
 * | Confirm | requester → home | |
 * | Lost | home → requester | a: the owner that took the page down with it |
 * | Discard | sharer → home | |
 * | AtomicRequest | anyone → home | a: request, b: byte in page, c: operation, d: bits, … |
 * | | | … e f: operand, g h: expected |
 * | AtomicReply | home → anyone | a: request, b c: the word before, d: 1 if lost, e: owner |
 * | Acquire | anyone → manager | a b: key, c: request, d: permits, e: 1 to try + 2 if it can … |
 * | | | … stay there, f: ticket |
 * | Release, Cancel | anyone → manager | a b: key, c: request |
 * | SemaphoreReply | manager → anyone | a: request, b: outcome, c: permits of a mismatch; of … |
 * | | | … a grant 1 if it may stay, d e f: who is next (rank + 1, or 0), request, ticket |
 * | TokenRecall | manager → keeper | a b: key, c: request, d: 1 to answer if it is in use, … |
 * | | | … e f g: who is next, as above |
 * | TokenInUse | keeper → manager | a b: key, c: request |
 * | TokenPassed | keeper → who is next | a b: key, c: request, d: ticket |
 * | BarrierArrive | everyone → everyone | a b: key |
 * | Heartbeat | everyone → everyone | |
 * | Leaving | everyone → everyone | a: 0, or 1 + a rank that is down, which the sender knows |
 * | Cluster, RegionControl, LinkControl | | a blob: cluster/joiner.ts, engine/region-opening.ts, |
 * | | | … engine/link-setup.ts |
 */
export const Kind = {
  ReadRequest: 1,
  WriteRequest: 2,
  UpgradeRequest: 3,
  RecallRead: 4,
  RecallWrite: 5,
  Invalidate: 6,
  InvalidateAck: 7,
  Grant: 8,
  Confirm: 9,
  Lost: 10,
  Discard: 11,
  AtomicRequest: 12,
  AtomicReply: 13,
  Acquire: 14,
  Release: 15,
  Cancel: 16,
  SemaphoreReply: 17,
  BarrierArrive: 18,
  Heartbeat: 20,
  Leaving: 21,
  AwaitAlso: 22,
  TokenRecall: 23,
  TokenInUse: 24,
  TokenPassed: 25,
  Data: 0x40,
  DataExclusive: 0x41,
  WriteBack: 0x42,
  Cluster: 0x80,
  RegionControl: 0x81,
  LinkControl: 0x82,
} as const
export type Kind = (typeof Kind)[keyof typeof Kind]

/** Words of a record. */
export const RECORD_WORDS = 16
export const Word = {
  payloadBytes: 0,
  kind: 1,
  view: 2,
  region: 3,
  page: 4,
  a: 5,
  b: 6,
  c: 7,
  d: 8,
  e: 9,
  f: 10,
  g: 11,
  h: 12,
} as const

/**
 * The most members a mesh may have: native code knows a sharers word of 32 bits and nothing beside
 * it. Directory and page tables themselves go up to MAX_RANKS.
 */
export const MAX_MEMBERS = 32

/** How many ranks a directory entry can name as owner and requester. */
export const MAX_RANKS = 1023

/** Stands where a rank could, and means no member. */
export const NOBODY = 0xffff

/** What AtomicRequest asks for; native/binding/exports_region.cc has the same numbers. */
export const AtomicOperation = { load: 0, store: 1, fetchAdd: 2, compareExchange: 3 } as const
export type AtomicOperation = (typeof AtomicOperation)[keyof typeof AtomicOperation]

/** What SemaphoreReply says. */
export const SemaphoreAnswer = { granted: 0, refused: 1, cancelled: 2, mismatch: 3 } as const
