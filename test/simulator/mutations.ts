import { Kind, SemaphoreAnswer } from '../../dist/protocol/messages.js'
import type { Message } from './message.js'
import { Mmu } from './member.js'
import type { Sabotage, Settings } from './settings.js'

/** A way to break what is around the protocol, and the kind of runs in which it must be noticed. */
export interface Mutation {
  readonly name: string
  /** Some remember what they have seen, so each run has its own. */
  readonly sabotage: () => Sabotage
  readonly settings?: Partial<Settings>
}

const only = (kind: number, change: (message: Message) => readonly Message[]): Sabotage => ({
  send: (message) => (message.kind === kind ? change(message) : [message]),
})
const lose = (kind: number) => (): Sabotage => only(kind, () => [])
const isGrant = ({ kind }: Message): boolean => kind === Kind.Grant || kind === Kind.DataExclusive
const withWords = (message: Message, ...words: number[]): Message => ({ ...message, words })
const onGrants = (change: (awaited: number, b: number) => [number, number]) => (): Sabotage => ({
  send: (message) =>
    isGrant(message)
      ? [withWords(message, ...change(message.words[0], message.words[1]))]
      : [message],
})
const fromManager = (arrival: Message, kind: number, ...words: number[]): Message => ({
  ...arrival,
  from: arrival.to,
  to: arrival.from,
  kind,
  words,
})

const wide: Partial<Settings> = { members: 40, pages: 1, operations: 8, pattern: 'false-sharing' }
const locks: Partial<Settings> = { pattern: 'locks' }
const dying: Partial<Settings> = { kills: 1 }

export const mutations: readonly Mutation[] = [
  {
    name: 'invalidation-dropped',
    sabotage: () =>
      only(Kind.Invalidate, (message) => [
        {
          ...message,
          from: message.to,
          to: message.words[0],
          kind: Kind.InvalidateAck,
          words: [0, 0],
        },
      ]),
  },
  { name: 'grant-awaits-nobody', sabotage: onGrants((_, b) => [0, b]) },
  { name: 'grant-awaits-one-too-few', sabotage: onGrants((a, b) => [a & (a - 1), b]) },
  { name: 'far-acknowledgements-not-announced', sabotage: lose(Kind.AwaitAlso), settings: wide },
  {
    name: 'far-acknowledgements-one-too-few',
    sabotage: () =>
      only(Kind.AwaitAlso, (message) => {
        const [word, bits] = message.words
        return [withWords(message, word, bits & (bits - 1))]
      }),
    settings: wide,
  },
  {
    name: 'invalidated-page-stays-readable',
    sabotage: () => ({
      protect: (access, _was, invalidated) => access !== Mmu.none || !invalidated,
    }),
  },
  {
    name: 'page-given-back-stays-readable',
    sabotage: () => ({
      protect: (access, _was, invalidated) => access !== Mmu.none || invalidated,
    }),
  },
  {
    name: 'owner-that-sends-a-copy-goes-on-writing',
    sabotage: () => ({ protect: (access, was) => access !== Mmu.read || was !== Mmu.write }),
  },
  { name: 'page-lowered-after-its-bytes-went-out', sabotage: () => ({ sendsFirst: true }) },
  {
    name: 'write-back-does-not-reach-the-frame',
    sabotage: () => ({ fill: ({ kind }) => kind !== Kind.WriteBack }),
  },
  {
    name: 'exclusive-page-does-not-reach-the-frame',
    sabotage: () => ({ fill: ({ kind }) => kind !== Kind.DataExclusive }),
  },
  {
    name: 'owner-sends-what-it-had-before-its-last-write',
    sabotage: () => ({
      send: (message, world) =>
        message.kind === Kind.Data && message.words[1] !== 0
          ? [{ ...message, contents: Math.max(0, world.lastWrite[message.page] - 1) }]
          : [message],
    }),
  },
  { name: 'acknowledgements-lost', sabotage: lose(Kind.InvalidateAck) },
  { name: 'confirmations-lost', sabotage: lose(Kind.Confirm) },
  { name: 'write-backs-lost', sabotage: lose(Kind.WriteBack) },
  { name: 'upgrades-lost', sabotage: lose(Kind.UpgradeRequest) },
  {
    name: 'read-requests-sent-twice',
    sabotage: () => only(Kind.ReadRequest, (message) => [message, message]),
  },
  { name: 'pair-not-in-order', sabotage: () => ({ unordered: true }) },
  {
    name: 'request-overtakes-the-notice-of-a-discard',
    sabotage: () => ({ hastyDiscards: true }),
    settings: {
      members: 2,
      pages: 1,
      threads: 6,
      operations: 600,
      slowMembers: 2,
      jitterNs: 2_000,
      straggler: 0,
    },
  },
  { name: 'nobody-is-woken', sabotage: () => ({ wake: false }) },
  {
    name: 'one-member-never-hears-of-a-death',
    sabotage: () => ({ tellDown: (member) => member !== 0 }),
    settings: { ...dying, kills: 2 },
  },
  { name: 'nobody-hears-of-lost-pages', sabotage: lose(Kind.Lost), settings: dying },
  {
    name: 'view-of-another-mesh',
    sabotage: () => ({ send: (message) => [{ ...message, view: message.view + 40 }] }),
  },
  {
    name: 'lock-granted-at-once',
    sabotage: () =>
      only(Kind.Acquire, (message) => [
        message,
        fromManager(message, Kind.SemaphoreReply, message.words[2], SemaphoreAnswer.granted, 0),
      ]),
    settings: locks,
  },
  { name: 'lock-granted-to-who-came-later', sabotage: swapsGrants, settings: locks },
  { name: 'releases-lost', sabotage: lose(Kind.Release), settings: locks },
  { name: 'token-recalls-lost', sabotage: lose(Kind.TokenRecall), settings: locks },
  {
    name: 'tokens-stay-though-others-wait',
    sabotage: () =>
      only(Kind.SemaphoreReply, (message) => [withWords(message, ...message.words.slice(0, 2), 1)]),
    settings: locks,
  },
  { name: 'lock-replies-lost', sabotage: lose(Kind.SemaphoreReply), settings: locks },
  {
    name: 'acquires-sent-twice',
    sabotage: () => only(Kind.Acquire, (message) => [message, message]),
    settings: locks,
  },
  {
    name: 'barrier-opens-early',
    sabotage: () => only(Kind.BarrierArrive, (message) => [message, message]),
    settings: locks,
  },
  { name: 'barrier-arrivals-lost', sabotage: lose(Kind.BarrierArrive), settings: locks },
]

/** Grants go to whoever asked last of those who wait at the same manager. */
function swapsGrants(): Sabotage {
  const asked: Message[] = []
  return {
    send: (message) => {
      if (message.kind === Kind.Acquire && (message.words[4] & 1) === 0) asked.push(message)
      if (message.kind !== Kind.SemaphoreReply) return [message]
      if (message.words[1] !== SemaphoreAnswer.granted) return [message]
      const other = asked.filter(({ to, from }) => to === message.from && from !== message.to).pop()
      if (other === undefined) return [message]
      asked.splice(asked.indexOf(other), 1)
      const { from, words } = other
      return [{ ...message, to: from, words: [words[2], SemaphoreAnswer.granted, 0] }]
    },
  }
}

/** Runs that meet most of what there is; a mutation's own settings go before these. */
export const MUTATION_SETTINGS: Settings = {
  seed: 1,
  members: 5,
  pages: 3,
  pattern: 'random',
  placement: 'block',
  operations: 40,
  virtualNs: Infinity,
  threads: 1,
  kills: 0,
  stops: 0,
  slowMembers: 1,
  slowFactor: 20,
  latencyNs: 5_000,
  jitterNs: 20_000,
  straggler: 50,
  direct: false,
  oneSided: false,
  sabotage: {},
}
