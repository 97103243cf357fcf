import type { ClusterOptions } from '../protocol/support/cluster.js'
import { CoherenceWorld } from './coherence-world.js'
import { type LocksWorldOptions, LocksWorld } from './locks-world.js'
import type { Mutation } from './mutations.js'
import type { World } from './world.js'

/** A small mesh, all of whose states are visited, however long it runs. */
export interface Space {
  readonly name: string
  readonly summary: string
  /** Part of `npm test`. */
  readonly short: boolean
  /** Also that no fair schedule starves a request. */
  readonly fair: boolean
  readonly make: (how: HowToMake) => World
  /** Whether it has pages, whose tables have cells. */
  readonly hasPages: boolean
}

export interface HowToMake {
  readonly symmetric: boolean
  readonly mutation?: Mutation | undefined
  readonly onCell?: ClusterOptions['onCell']
}

type PageOptions = Partial<ClusterOptions> & { readonly mostInChannel?: number }

function pages(
  name: string,
  summary: string,
  options: PageOptions,
  flags: { short?: boolean; fair?: boolean; asymmetric?: boolean } = {},
): Space {
  const { short = false, fair = false, asymmetric = false } = flags
  const make = ({ symmetric, mutation, onCell }: HowToMake): World => {
    const { sabotage, options: changed, mutate } = mutation?.pages ?? {}
    return new CoherenceWorld({
      ...{ members: 3, pages: 1, placement: { rank: 0 }, operations: Infinity, actions: 'atOnce' },
      // From one member to another there are at most, for each page: a notice that the copy is given
      // back, an acknowledgement and a request; or an answer, and what takes it away again; or both.
      mostInChannel: 4 * (options.pages ?? 1),
      ...options,
      ...changed,
      ...(sabotage === undefined ? {} : { sabotage }),
      ...(onCell === undefined ? {} : { onCell }),
      // What is changed may treat members differently.
      symmetric: symmetric && !fair && !asymmetric && mutation === undefined,
      mutate,
    })
  }
  return { name, summary, short, fair, make, hasPages: true }
}

function locks(
  name: string,
  summary: string,
  options: Pick<LocksWorldOptions, 'use'> & Partial<LocksWorldOptions>,
  flags: { short?: boolean; fair?: boolean } = {},
): Space {
  const { short = false, fair = false } = flags
  const make = ({ symmetric, mutation }: HowToMake): World =>
    new LocksWorld({
      members: 3,
      // Each request: itself, its cancellation, its release; and the notice that a member leaves.
      // Of a lock that stays, also two recalls for each of two grants.
      mostInChannel: (options.keeps === true ? 6 : 4) * (options.slots ?? 1) + 1,
      ...options,
      sabotage: mutation?.locks?.sabotage,
      mutate: mutation?.locks?.mutate,
      symmetric: symmetric && !fair && mutation === undefined,
    })
  return { name, summary, short, fair, make, hasPages: false }
}

const short = { short: true }
const ahead = { use: 'barrier', members: 2, slots: 2 } as const
const words = { use: 'barrier', members: 2, words: true } as const
const token = { use: 'semaphore', keeps: true } as const
const hold = { holdGranted: (): boolean => true }
export const spaces: readonly Space[] = [
  pages('3x1', 'reads, writes, read-modify-writes', { modifies: true }, short),
  pages('3x1-holds', 'a granted page is held for its thread', { ...hold }, short),
  pages(
    '3x1-fair',
    'the same, and threads get a core in time: no request starves',
    { ...hold, patientHolds: true },
    { short: true, fair: true },
  ),
  pages('3x1-direct', 'threads and native code answer by themselves', { direct: true }, short),
  pages('3x1-discards', 'copies are given back', { discards: 'copies' }, short),
  pages('3x1-death', 'one member dies', { deaths: 1 }, short),
  pages(
    '2x1-batched',
    'actions come after a batch of events',
    { members: 2, actions: 'batched', discards: 'copies' },
    short,
  ),
  pages(
    '2x1-all',
    'all that members do at once, five times, and one dies',
    {
      ...{ ...hold, members: 2, direct: true, discards: 'always', prefetches: true, deaths: 1 },
      operations: 5,
    },
    short,
  ),
  pages(
    '3x1-four',
    'four times: discards in any state, and one member dies',
    { discards: 'always', deaths: 1, operations: 4 },
    short,
  ),
  pages(
    '4x1-four',
    'four members, four times: copies are given back',
    { members: 4, discards: 'copies', operations: 4 },
    short,
  ),
  pages(
    '3x1-one-sided',
    'threads copy the home’s frame by themselves',
    { oneSided: true, direct: true },
    short,
  ),
  pages(
    '2x1-batched-one-sided',
    'one-sided, in batches, discards, one dies',
    { members: 2, actions: 'batched', oneSided: true, discards: 'copies', deaths: 1 },
    short,
  ),
  pages(
    '2x1-one-sided-all',
    'two threads each, all that they do at once, three times; one dies',
    {
      ...{ members: 2, threads: 2, oneSided: true, direct: true, discards: 'always' },
      ...{ prefetches: true, deaths: 1, operations: 3 },
    },
    short,
  ),
  pages(
    '2x1-one-sided-six',
    'two members, six times: prefetches, and discards in any state',
    { ...{ members: 2, oneSided: true, discards: 'always', prefetches: true }, operations: 6 },
    short,
  ),
  pages('2x2', 'two pages of one home', { members: 2, pages: 2 }, short),
  pages('2x2-block', 'two pages, two homes', { members: 2, pages: 2, placement: 'block' }, short),
  locks(
    'lock',
    'acquire, try, cancel, release',
    { use: 'semaphore', tries: true, cancels: true },
    short,
  ),
  locks('lock-fair', 'no acquire starves', { use: 'semaphore' }, { short: true, fair: true }),
  locks(
    'lock-leave',
    'and a member leaves',
    { use: 'semaphore', tries: true, cancels: true, leaves: 1 },
    short,
  ),
  locks(
    'lock-death',
    'and a member dies',
    { use: 'semaphore', tries: true, cancels: true, deaths: 1 },
    short,
  ),
  locks(
    'token',
    'the token of a lock stays where it was used: acquire, try, release',
    { ...token, tries: true },
    short,
  ),
  locks(
    'token-cancel',
    'and cancel, two members',
    { ...token, members: 2, tries: true, cancels: true },
    short,
  ),
  locks('token-fair', 'no acquire starves', token, { short: true, fair: true }),
  locks('token-leave', 'acquire and release, and a member leaves', { ...token, leaves: 1 }, short),
  locks(
    'token-leave-two',
    'acquire, try, cancel, release, two members; one leaves',
    { ...token, members: 2, tries: true, cancels: true, leaves: 1 },
    short,
  ),
  locks('token-death', 'and a member dies', { ...token, tries: true, deaths: 1 }, short),
  locks(
    'token-two',
    'two members, two requests of each',
    { ...token, members: 2, slots: 2 },
    short,
  ),
  locks('barrier', 'members come again and again', { use: 'barrier' }, short),
  locks('barrier-ahead', 'two members, two arrivals ahead', ahead, short),
  locks('barrier-leave', 'and a member leaves', { use: 'barrier', leaves: 1 }, short),
  locks('barrier-ahead-leave', 'and a member leaves', { ...ahead, leaves: 1 }, short),
  locks('barrier-death', 'and a member dies', { use: 'barrier', deaths: 1 }, short),
  locks('barrier-words', 'two members, programs come by themselves', words, short),
  locks('barrier-words-leave', 'and a member leaves', { ...words, leaves: 1 }, short),
  locks('barrier-words-death', 'and a member dies', { ...words, deaths: 1 }, short),
  locks('barrier-words-three', 'three members', { use: 'barrier', words: true }, {}),

  locks('semaphore', 'two permits, two requests of each member, one leaves', {
    ...{ use: 'semaphore', permits: 2, slots: 2, leaves: 1 },
  }),
  locks('token-most', 'acquire, cancel, release of a token', {
    ...{ ...token, cancels: true },
  }),
  pages('3x1-most', 'modifies, direct, discards, one dies', {
    ...{ modifies: true, direct: true, discards: 'copies', deaths: 1 },
  }),
  pages('3x1-prefetch', 'three times: prefetches, discards in any state, holds; one dies', {
    ...{ ...hold, prefetches: true, discards: 'always', deaths: 1, operations: 3 },
  }),
  pages(
    '3x1-batched',
    'actions come after a batch of events',
    { actions: 'batched' },
    { asymmetric: true },
  ),
  pages('2x1-batched-most', 'batches, direct, holds, discards, one dies', {
    ...{ ...hold, members: 2, actions: 'batched', direct: true, discards: 'copies', deaths: 1 },
  }),
  pages('2x2-most', 'two pages of one home: modifies, direct, discards', {
    ...{ members: 2, pages: 2, modifies: true, direct: true, discards: 'copies' },
  }),
  pages('2x2-death', 'two pages, two homes, one member dies', {
    ...{ members: 2, pages: 2, placement: 'block', direct: true, deaths: 1 },
  }),
  pages('3x1-one-sided-discards', 'and copies are given back', {
    ...{ oneSided: true, discards: 'copies' },
  }),
  pages('3x1-one-sided-most', 'one-sided, direct, discards, one dies', {
    ...{ oneSided: true, direct: true, discards: 'copies', deaths: 1 },
  }),
  pages('3x1-one-sided-again', 'and sharers without a copy take one again', {
    ...{ oneSided: true, fillsAgain: true, direct: true, discards: 'copies' },
  }),
  pages(
    '3x1-batched-one-sided',
    'one-sided, in batches',
    { actions: 'batched', oneSided: true },
    { asymmetric: true },
  ),
  pages('4x1', 'four members', { members: 4 }),
]
