import { Kind } from '../../../dist/protocol/messages.js'
import type { ClusterOptions, Message, Sabotage } from './cluster.js'

/** A way to break the world, and the kind of runs in which it must be noticed. */
export interface Case {
  readonly name: string
  readonly sabotage: Sabotage
  readonly options?: Partial<ClusterOptions>
}

const only = (kind: number, change: (message: Message) => readonly Message[]): Sabotage => ({
  send: (message) => (message.kind === kind ? change(message) : [message]),
})
const lose = (kind: number): Sabotage => only(kind, () => [])
const isGrant = ({ kind }: Message): boolean => kind === Kind.Grant || kind === Kind.DataExclusive

export const cases: readonly Case[] = [
  {
    name: 'an invalidation is dropped and its acknowledgement faked',
    sabotage: only(Kind.Invalidate, ({ to, page, a }) => [
      { from: to, to: a, kind: Kind.InvalidateAck, page, a: 0, b: 0 },
    ]),
  },
  {
    name: 'a grant does not say which acknowledgements to await',
    sabotage: { send: (message) => [isGrant(message) ? { ...message, a: 0 } : message] },
  },
  {
    name: 'a grant awaits one acknowledgement too few',
    sabotage: {
      send: (message) => [
        isGrant(message) ? { ...message, a: message.a & (message.a - 1) } : message,
      ],
    },
  },
  {
    name: 'a page that is taken away stays as it was',
    sabotage: { protect: (access, _was, invalidated) => !(access === 'none' && invalidated) },
  },
  {
    name: 'a page that is given back stays as it was',
    sabotage: { protect: (access, _was, invalidated) => !(access === 'none' && !invalidated) },
    options: { discards: 'copies' },
  },
  {
    name: 'an owner that sends a copy goes on writing',
    sabotage: { protect: (access, was) => !(access === 'read' && was === 3) },
  },
  {
    name: 'a page is lowered only after its bytes and acknowledgements have gone out',
    sabotage: { sendsFirst: true },
    options: { actions: 'batched' },
  },
  {
    name: 'what the owner writes back does not reach the frame',
    sabotage: { fill: ({ kind }) => kind !== Kind.WriteBack },
  },
  {
    name: 'what a writer is sent does not reach the frame',
    sabotage: { fill: ({ kind }) => kind !== Kind.DataExclusive },
  },
  {
    name: 'the home sends its own frame instead of a recall',
    sabotage: {
      send: (message) => {
        if (message.kind !== Kind.RecallRead) return [message]
        const { from, a, page } = message
        return a === from
          ? [message]
          : [{ from, to: a, kind: Kind.Data, page, a: 0, b: 1, contents: NaN }, message]
      },
    },
  },
  {
    name: 'an owner sends what it had before its last write',
    sabotage: {
      send: (message, cluster) => {
        if (message.kind !== Kind.Data || message.b === 0) return [message]
        return [{ ...message, contents: Math.max(0, cluster.lastWrite[message.page] - 1) }]
      },
    },
  },
  { name: 'acknowledgements are lost', sabotage: lose(Kind.InvalidateAck) },
  {
    name: 'acknowledgements that come before the grant are lost',
    sabotage: {
      send: (message, cluster) => {
        if (message.kind !== Kind.InvalidateAck) return [message]
        const collects = (cluster.members[message.to].states[message.page] & 0x10) !== 0
        return collects ? [message] : []
      },
    },
  },
  { name: 'confirmations are lost', sabotage: lose(Kind.Confirm) },
  { name: 'write-backs are lost', sabotage: lose(Kind.WriteBack) },
  { name: 'requests to upgrade are lost', sabotage: lose(Kind.UpgradeRequest) },
  {
    name: 'requests are sent twice',
    sabotage: only(Kind.ReadRequest, (message) => [message, message]),
  },
  {
    name: 'a pair of members does not keep its order',
    sabotage: { unordered: true },
    options: { discards: 'copies' },
  },
  {
    name: 'a request overtakes the notice that the copy was given back',
    sabotage: { hastyDiscards: true },
    options: { actions: 'batched', discards: 'copies', members: 2, pages: 1 },
  },
  {
    name: 'a thread takes an answer that is not the last word',
    sabotage: { hastyAnswers: true },
    options: { direct: true },
  },
  { name: 'nobody is woken', sabotage: { wake: false } },
  {
    name: 'one member is never told that another is down',
    sabotage: { tellDown: (member) => member !== 0 },
    options: { deaths: 1 },
  },
  {
    name: 'nobody is told that a page is lost',
    sabotage: lose(Kind.Lost),
    options: { deaths: 1 },
  },
]
