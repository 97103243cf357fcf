import {
  DIRECTORY_TABLE,
  ENTRY_CLOSED,
  EntryState,
  type EntryStateName,
} from '../../dist/protocol/directory.js'
import { Kind } from '../../dist/protocol/messages.js'
import type { PageQueues } from '../../dist/protocol/page-queues.js'
import { PageEvent, PageState } from '../../dist/protocol/page-table.js'
import type { PageWords } from '../../dist/protocol/page-words.js'
import type { TokenWords } from '../../dist/protocol/token-words.js'
import type { Cluster, ClusterOptions, Member, Sabotage } from '../protocol/support/cluster.js'
import { cases } from '../protocol/support/sabotage.js'
import type { BarrierState, LockSabotage, LocksWorld, SemaphoreState } from './locks-world.js'

/**
 * One thing each that is wrong: in the protocol's tables, in its code, or in the world around it. An
 * exploration of the named space must find it.
 */
export interface Mutation {
  readonly name: string
  readonly space: string
  readonly pages?: PageMutation
  readonly locks?: LockMutation
}

export interface PageMutation {
  readonly sabotage?: Sabotage
  readonly options?: Partial<ClusterOptions>
  readonly mutate?: (cluster: Cluster) => void
  /** Changes a table that all worlds share; returns how to change it back. */
  readonly table?: () => () => void
}

export interface LockMutation {
  readonly sabotage?: LockSabotage
  readonly mutate?: (world: LocksWorld) => void
}

function spaceFor(options: Partial<ClusterOptions> | undefined): string {
  if (options?.actions === 'batched') return '2x1-batched'
  if (options?.deaths !== undefined) return '3x1-death'
  if (options?.direct === true) return '3x1-direct'
  return options?.discards === undefined ? '3x1' : '3x1-discards'
}

const around: Mutation[] = cases.map(({ name, sabotage, options }) => ({
  name,
  space: spaceFor(options),
  pages: { sabotage },
}))

/** Replaces a method of real code, in every member. */
function patch<Part extends object>(
  partOf: (member: Member) => object,
  name: keyof Part & string,
  make: (original: (...args: number[]) => unknown, part: Part) => (...args: number[]) => unknown,
): (cluster: Cluster) => void {
  return ({ members }) => {
    for (const member of members) {
      const part = partOf(member) as Record<string, unknown>
      const original = part[name] as (...args: number[]) => unknown
      part[name] = make(original.bind(part), part as Part)
    }
  }
}
const pageTable = ({ coherence }: Member): object => coherence.pages
const directory = ({ coherence }: Member): object => coherence.directory

interface Lists {
  down: number
  awaited: PageWords
  early: PageWords
  deferred: PageWords
  queues: PageQueues
}
interface PageTableParts extends Lists {
  onGrant: unknown
  onAck: unknown
  memberDown: unknown
  release: unknown
  step: unknown
  pageBytes: Uint8Array
}
interface DirectoryParts extends Lists {
  othersThan: unknown
  hasQueue: unknown
  onRequest: unknown
  classify: unknown
  pump: (page: number) => void
  memberDown: unknown
  close: unknown
  perform: unknown
  tryRequest: unknown
  tryClosed: (page: number, kind: number, requester: number) => boolean
  onNotice: unknown
  checkSender: (page: number, event: number, from: number) => void
  run: (page: number, event: number, from: number) => void
  discardHere: unknown
  removeSharer: unknown
  words: Uint32Array
  indexOf: (page: number) => number
}

type Row = Record<string, { next: string; does: string[] }>
function inTable(
  state: EntryStateName,
  event: string,
  change: (cell: { next: string; does: string[] }) => void,
): () => () => void {
  return () => {
    const cell = (DIRECTORY_TABLE[state] as unknown as Row)[event]
    const { next, does } = cell
    cell.does = [...does]
    change(cell)
    return () => Object.assign(cell, { next, does })
  }
}
const without = (list: string[], what: string): string[] => list.filter((each) => each !== what)

const inProtocol: Mutation[] = [
  {
    name: 'the directory goes from ownedAway to sharingWritten, and from there to clean too early',
    space: '3x1',
    pages: { table: inTable('ownedAway', 'readRequest', (c) => (c.next = 'sharingWritten')) },
  },
  {
    name: 'sharingConfirmed and sharingWritten are swapped',
    space: '3x1',
    pages: { table: inTable('sharing', 'confirm', (c) => (c.next = 'sharingWritten')) },
  },
  {
    name: 'a write to a shared page needs no confirmation',
    space: '3x1',
    pages: { table: inTable('clean', 'writeRequestShared', (c) => (c.next = 'owned')) },
  },
  {
    name: 'a reader is not put down as a sharer',
    space: '3x1',
    pages: {
      table: inTable('clean', 'readRequest', (c) => (c.does = without(c.does, 'addSharer'))),
    },
  },
  {
    name: 'the home keeps its own copy when it gives the page to a writer',
    space: '3x1-discards',
    pages: {
      table: inTable('clean', 'writeRequestAlone', (c) => (c.does = without(c.does, 'forbidHere'))),
    },
  },
  {
    name: 'the home goes on writing when it gives out the first copy',
    space: '3x1',
    pages: {
      table: inTable('ownedHere', 'readRequest', (c) => (c.does = without(c.does, 'lowerHere'))),
    },
  },
  {
    name: 'an upgrade is granted although the copy was invalidated on the way',
    space: '3x1',
    pages: {
      mutate: patch<DirectoryParts>(directory, 'classify', (original) => (page, kind, from) => {
        const event = original(page, kind, from) as number
        return kind === Kind.UpgradeRequest && (event === 2 || event === 3) ? event + 2 : event
      }),
    },
  },
  {
    name: 'an acknowledgement that comes before the grant is forgotten by the page table',
    space: '3x1',
    pages: {
      mutate: patch<PageTableParts>(
        pageTable,
        'onGrant',
        (original, { early }) =>
          (page, ...rest) => {
            early.delete(page)
            return original(page, ...rest)
          },
      ),
    },
  },
  {
    name: 'a request that waits is served out of turn',
    space: '3x1-fair',
    pages: {
      mutate: patch<DirectoryParts>(
        directory,
        'onRequest',
        (original, { queues }) =>
          (page, ...rest) => {
            original(page, ...rest)
            const queue = queues.of(page)
            if (queue.length > 1) queues.replace(page, [queue.pop()!, ...queue])
          },
      ),
    },
  },
  {
    name: 'nobody goes on with requests that have waited',
    space: '3x1',
    pages: { mutate: patch<DirectoryParts>(directory, 'pump', () => () => undefined) },
  },
  {
    name: 'a page that a thread was granted is not held until it has used it',
    space: '3x1-fair',
    pages: { options: { holdGranted: () => false } },
  },
  {
    name: 'what waited for the end of a hold is forgotten',
    space: '3x1-holds',
    pages: {
      mutate: patch<PageTableParts>(pageTable, 'release', (original, { deferred }) => (page) => {
        deferred.delete(page)
        return original(page)
      }),
    },
  },
  {
    name: 'acknowledgements of a member that is down are still awaited',
    space: '3x1-death',
    pages: {
      mutate: patch<PageTableParts>(pageTable, 'memberDown', (original, { awaited }) => (rank) => {
        const kept = new Map(awaited.keys().map((page) => [page, awaited.get(page)]))
        awaited.clear()
        original(rank)
        for (const [page, word] of kept) awaited.set(page, word)
      }),
    },
  },
  {
    name: 'the directory forgets to look whether a sharer is down',
    space: '3x1-death',
    pages: {
      mutate: patch<DirectoryParts>(directory, 'memberDown', (original, part) => (...args) => {
        original(...args)
        part.down = 0
      }),
    },
  },
  {
    name: 'requests of a member that went down stay in the queue',
    space: '3x1-death',
    pages: {
      mutate: patch<DirectoryParts>(
        directory,
        'memberDown',
        (original, { queues }) =>
          (...args) => {
            const kept = new Map(queues.pages().map((page) => [page, queues.of(page)]))
            queues.clear()
            original(...args)
            for (const [page, queue] of kept) queues.replace(page, queue)
          },
      ),
    },
  },
]

const oneSided: Mutation[] = [
  {
    name: 'the home does not close an entry before it looks at its sharers for a write',
    space: '3x1-one-sided',
    pages: { mutate: patch<DirectoryParts>(directory, 'close', () => () => false) },
  },
  {
    name: 'an entry is opened before the home can write no more',
    space: '2x1-batched-one-sided',
    pages: { sabotage: { opensAtOnce: true } },
  },
  {
    name: 'the sharers of an entry are written after it is open',
    space: '3x1-one-sided',
    pages: {
      mutate: patch<DirectoryParts>(
        directory,
        'perform',
        (original, { words, indexOf }) =>
          (action, page, ...rest) => {
            const settles = (action as unknown) === 'settleShared'
            if (settles) Atomics.and(words, 2 * indexOf(page), ~ENTRY_CLOSED)
            return original(action, page, ...rest)
          },
      ),
    },
  },
  {
    name: 'the home takes a sharer that is down out in two accesses',
    space: '3x1-one-sided',
    pages: {
      options: { deaths: 1 },
      mutate: patch<DirectoryParts>(
        directory,
        'removeSharer',
        (_original, { words, indexOf }) =>
          (page, rank) => {
            const sharers = Atomics.load(words, 2 * indexOf(page) + 1)
            Atomics.store(words, 2 * indexOf(page) + 1, sharers & ~(1 << rank))
          },
      ),
    },
  },
  {
    name: 'a thread adds its member although the home has yet to hear that it gave its copy back',
    space: '3x1-one-sided-discards',
    pages: { sabotage: { addsWithout: 'discard' }, options: { writers: [2] } },
  },
  {
    name: 'the same while the home takes the member out of the sharers',
    space: '3x1-one-sided-discards',
    pages: { sabotage: { endsDiscardEarly: true }, options: { writers: [2] } },
  },
  {
    name: 'a thread adds its member to sharers whose entry has changed since it looked',
    space: '3x1-one-sided',
    pages: { sabotage: { addsWithout: 'control' } },
  },
  {
    name: 'an invalidation does not spoil the copy that a thread takes',
    space: '3x1-one-sided',
    pages: {
      mutate: patch<PageTableParts>(
        pageTable,
        'step',
        (original, { pageBytes }) =>
          (page, event, ...rest) => {
            const filling = pageBytes[page] === PageState.filling
            original(page, event, ...rest)
            if (filling && event === PageEvent.invalidate) pageBytes[page] = PageState.filling
          },
      ),
    },
  },
  {
    name: 'a thread uses a copy that was taken in vain',
    space: '3x1-one-sided',
    pages: { sabotage: { raisesInVain: true } },
  },
  {
    name: 'a thread copies the frame before it adds its member',
    space: '3x1-one-sided',
    pages: { sabotage: { copiesFirst: true } },
  },
  {
    name: 'a thread makes its member the owner of a page that others share',
    space: '3x1-one-sided-discards',
    pages: { sabotage: { claimsWithout: 'sharers' } },
  },
  {
    name: 'a thread makes its member the owner of a page that its home is taking away',
    space: '3x1-one-sided-discards',
    pages: { sabotage: { claimsWithout: 'control' } },
  },
  {
    name: 'a thread writes to a page that was recalled before it had it',
    space: '3x1-one-sided-discards',
    pages: {
      mutate: patch<PageTableParts>(
        pageTable,
        'step',
        (original, { pageBytes }) =>
          (page, event, ...rest) => {
            const claiming = pageBytes[page] === PageState.claiming
            original(page, event, ...rest)
            if (claiming && event === PageEvent.recallWrite) pageBytes[page] = PageState.claiming
          },
      ),
    },
  },
  {
    name: 'the home closes an entry in two accesses',
    space: '3x1-one-sided-discards',
    pages: {
      mutate: patch<DirectoryParts>(
        directory,
        'close',
        (_original, { words, indexOf }) =>
          (page) => {
            const control = Atomics.load(words, 2 * indexOf(page))
            const isOpen = (control & (ENTRY_CLOSED | 0xff)) === EntryState.clean
            if (isOpen) Atomics.store(words, 2 * indexOf(page), control | ENTRY_CLOSED)
            return isOpen
          },
      ),
    },
  },
  {
    name: 'the home serves a read without closing the entry',
    space: '3x1-one-sided-discards',
    pages: {
      mutate: patch<DirectoryParts>(
        directory,
        'tryRequest',
        (original, parts) => (page, kind, from) =>
          kind === Kind.ReadRequest
            ? parts.tryClosed(page, kind, from)
            : original(page, kind, from),
      ),
    },
  },
  {
    name: 'the home takes a notice of a copy given back without closing the entry',
    space: '3x1-one-sided-discards',
    pages: {
      mutate: patch<DirectoryParts>(
        directory,
        'onNotice',
        (_original, parts) => (page, event, from) => {
          parts.checkSender(page, event, from)
          parts.run(page, event, from)
          parts.pump(page)
        },
      ),
    },
  },
  {
    name: 'the home gives its copy back with the entry open',
    space: '2x1-batched-one-sided',
    pages: {
      mutate: patch<DirectoryParts>(
        directory,
        'discardHere',
        (original, { words, indexOf }) =>
          (page) => {
            const given = original(page)
            Atomics.and(words, 2 * indexOf(page), ~ENTRY_CLOSED)
            return given
          },
      ),
    },
  },
]

interface Managers {
  readonly semaphores: SemaphoreState
}
const inManager =
  (change: (managers: Managers) => void): ((world: LocksWorld) => void) =>
  ({ members }) =>
    change(members[0].state)
const atBarriers =
  (change: (barriers: BarrierState) => void): ((world: LocksWorld) => void) =>
  ({ members }) => {
    for (const { state } of members) change(state.barriers)
  }

const inWords =
  (change: (words: TokenWords) => void): ((world: LocksWorld) => void) =>
  ({ members }) => {
    // The same words for both sides, as the methods are changed.
    for (const { state, words } of members) change((state.tokenWords = words))
  }

/** Of token words; lib/protocol/token-words.ts. */
const FREE = 1
const WANTED = 4
const EARLY = 8

const inLocks: Mutation[] = [
  {
    name: 'the last to come is the first to be granted a permit',
    space: 'lock',
    locks: {
      mutate: inManager(({ semaphores }) => {
        semaphores.giveBack = (claim) => {
          const { semaphore } = claim
          semaphore.heldCount -= 1
          semaphores.forget(claim)
          const last = [...semaphore.waiters].at(-1)
          if (last === undefined) return
          semaphore.waiters.delete(last)
          semaphores.grant(last)
        }
      }),
    },
  },
  {
    name: 'a permit that is given back wakes nobody',
    space: 'lock',
    locks: {
      mutate: inManager(({ semaphores }) => {
        semaphores.giveBack = (claim) => {
          claim.semaphore.heldCount -= 1
          semaphores.forget(claim)
        }
      }),
    },
  },
  {
    name: 'a permit that is given back is granted to two',
    space: 'lock',
    locks: {
      mutate: inManager(({ semaphores }) => {
        const giveBack = semaphores.giveBack.bind(semaphores)
        semaphores.giveBack = (claim) => {
          giveBack(claim)
          const next = [...claim.semaphore.waiters].at(0)
          if (next === undefined) return
          claim.semaphore.waiters.delete(next)
          semaphores.grant(next)
        }
      }),
    },
  },
  {
    name: 'a cancelled request stays in the queue',
    space: 'lock',
    locks: {
      mutate: inManager(({ semaphores }) => {
        semaphores.cancel = (_id, rank, request) => {
          const claim = semaphores.claims.get(rank)?.get(request)
          if (claim === undefined || claim.held) return
          semaphores.emit({ kind: 'cancelled', to: rank, request })
        }
      }),
    },
  },
  {
    name: 'a permit that was granted while its request was cancelled is not given back',
    space: 'lock',
    locks: { sabotage: { forgetsCancel: true } },
  },
  {
    name: 'what a member held when it left is not passed on',
    space: 'lock-leave',
    locks: {
      mutate: inManager(({ semaphores }) => {
        semaphores.memberGone = (rank) => void semaphores.gone.add(rank)
      }),
    },
  },
  {
    name: 'a member that leaves goes on waiting for a permit',
    space: 'lock-leave',
    locks: { sabotage: { keepsWaiting: true } },
  },
  {
    name: 'what a dead member held is passed on, half written',
    space: 'lock-death',
    locks: {
      mutate: ({ members }) => {
        for (const { sync } of members) sync.memberDown = (rank) => sync.memberLeft(rank)
        // Those who have not heard of it yet believe that the mesh is whole.
        for (const { sync } of members) sync.failAll = () => undefined
      },
    },
  },
  {
    name: 'a release is lost',
    space: 'lock',
    locks: {
      sabotage: { send: (message) => (message.kind === Kind.Release ? [] : [message]) },
    },
  },
  {
    name: 'a recall of a token is lost',
    space: 'token',
    locks: {
      sabotage: { send: (message) => (message.kind === Kind.TokenRecall ? [] : [message]) },
    },
  },
  {
    name: 'a token that lies idle is given away, and stays',
    space: 'token',
    locks: {
      mutate: inWords((words) => {
        const want = words.want.bind(words)
        words.want = (slot, next) => {
          const found = want(slot, next)
          if (found === 'free') words.words[slot] = FREE
          return found
        }
      }),
    },
  },
  {
    name: 'a token in use is given away when it is recalled',
    space: 'token',
    locks: {
      mutate: inWords((words) => {
        const want = words.want.bind(words)
        words.want = (slot, next) => (want(slot, next) === 'away' ? 'away' : 'free')
      }),
    },
  },
  {
    name: 'a recall of a token in use is forgotten',
    space: 'token',
    locks: {
      mutate: inWords((words) => {
        const want = words.want.bind(words)
        words.want = (slot, next) => {
          const found = want(slot, next)
          if (found === 'used') words.words[slot] &= ~WANTED
          return found
        }
      }),
    },
  },
  {
    name: 'a program keeps a token that others want',
    space: 'token',
    locks: {
      mutate: inWords((words) => {
        words.letGo = (slot) => {
          words.words[slot] = FREE
          return true
        }
      }),
    },
  },
  {
    name: 'a grant does not tell that others wait',
    space: 'token',
    locks: {
      mutate: inManager(({ semaphores }) => {
        const { emit } = semaphores
        semaphores.emit = (outcome) => {
          emit(outcome.kind === 'granted' ? { ...outcome, stays: true } : outcome)
        }
      }),
    },
  },
  {
    name: 'who uses a token does not answer a try',
    space: 'token',
    locks: {
      sabotage: { send: (message) => (message.kind === Kind.TokenInUse ? [] : [message]) },
    },
  },
  {
    name: 'a try is refused without asking who keeps the token',
    space: 'token',
    locks: {
      mutate: inManager(({ semaphores }) => {
        const recall = semaphores.recall.bind(semaphores)
        semaphores.recall = (keeper, mode) => {
          if (mode !== 'try') return recall(keeper, mode)
          keeper.asked = 'recallAndAnswer'
          semaphores.inUse(keeper.semaphore.id, keeper.rank, keeper.request)
        }
      }),
    },
  },
  {
    name: 'a member that leaves keeps its token',
    space: 'token-leave',
    locks: {
      mutate: ({ members }) => {
        for (const { sync, state, words } of members) {
          const leave = sync.leave.bind(sync)
          sync.leave = (error) => {
            state.tokens.clear()
            leave(error)
          }
          words.letGo = () => true
        }
      },
    },
  },
  {
    name: 'a token that a member kept when it left is lost',
    space: 'token-leave',
    locks: {
      mutate: inManager(({ semaphores }) => {
        semaphores.memberGone = (rank) => void semaphores.gone.add(rank)
      }),
    },
  },
  {
    name: 'who has heard of a death can still take the lock',
    space: 'token-death',
    locks: {
      mutate: ({ members }) => {
        for (const { sync, state } of members) {
          const failAll = sync.failAll.bind(sync)
          sync.failAll = (error) => {
            const kept = new Map(state.tokens)
            state.tokens.clear()
            failAll(error)
            for (const [key, each] of kept) state.tokens.set(key, each)
          }
        }
      },
    },
  },
  {
    name: 'a token of which a survivor lets go when somebody dies is lost',
    space: 'token-death',
    locks: {
      mutate: ({ members }) => {
        for (const { sync, words } of members) {
          const failAll = sync.failAll.bind(sync)
          sync.failAll = (error) => {
            const before = words.words[0]
            failAll(error)
            words.words[0] = before
          }
        }
      },
    },
  },
  {
    name: 'a program overtakes what it has asked for itself',
    space: 'token-two',
    locks: { sabotage: { overtakes: true } },
  },
  {
    name: 'the manager does not hear that a token was passed on',
    space: 'token',
    locks: {
      mutate: ({ members }) => {
        for (const { sync } of members) {
          const release = sync.release.bind(sync)
          sync.release = (key, request, passed) => {
            if (passed !== true) release(key, request)
          }
        }
      },
    },
  },
  {
    name: 'a token that came before its grant is given back before it too',
    space: 'token',
    locks: {
      mutate: inWords((words) => {
        const letGo = words.letGo.bind(words)
        words.letGo = (slot, mayStay) => {
          if ((words.words[slot] & EARLY) === 0) return letGo(slot, mayStay)
          words.words[slot] = 0
          return false
        }
      }),
    },
  },
  {
    name: 'a token that came before its grant is taken again before it',
    space: 'token',
    locks: {
      mutate: inWords((words) => {
        const take = words.take.bind(words)
        words.take = (slot) => {
          if (words.words[slot] === FREE + EARLY) words.words[slot] = FREE
          return take(slot)
        }
      }),
    },
  },
  {
    name: 'the grant of a token that had come is told to the program again',
    space: 'token',
    locks: {
      mutate: inWords((words) => {
        const granted = words.granted.bind(words)
        words.granted = (slot, stays, next) => {
          const found = granted(slot, stays, next)
          return found === 'confirmed' ? 'came' : found
        }
      }),
    },
  },
  {
    name: 'a token is taken for a request that was cancelled',
    space: 'token-cancel',
    locks: {
      mutate: ({ members }) => {
        for (const { sync, state, words } of members) {
          const onMessage = sync.onMessage.bind(sync)
          sync.onMessage = (kind, from, word) => {
            const pending = state.acquires.get(word(2))
            const isCancelled = kind === Kind.TokenPassed && pending?.cancelled === true
            if (isCancelled && words.cameEarly(0)) pending.early = true
            onMessage(kind, from, word)
          }
        }
      },
    },
  },
  {
    name: 'a try is refused although whom the permit was promised to has let it go',
    space: 'token',
    locks: {
      mutate: inManager(({ semaphores }) => {
        const acquire = semaphores.acquire.bind(semaphores)
        semaphores.acquire = (...args) => {
          const [id, to, request, , mode] = args
          const first = [...(semaphores.semaphores.get(id)?.waiters ?? [])].at(0)
          if (mode !== 'try' || first?.promised !== true) return acquire(...args)
          semaphores.emit({ kind: 'refused', to, request })
        }
      }),
    },
  },
  {
    name: 'a token is passed on to somebody who is not next',
    space: 'token',
    locks: {
      mutate: inManager(({ semaphores }) => {
        const giveBack = semaphores.giveBack.bind(semaphores)
        semaphores.giveBack = (claim) => {
          const { waiters } = claim.semaphore
          const first = [...waiters].at(0)
          if (first?.promised === true && waiters.size > 1) {
            waiters.delete(first)
            waiters.add(first)
          }
          giveBack(claim)
        }
      }),
    },
  },
  {
    name: 'a barrier opens when one has not arrived',
    space: 'barrier',
    locks: {
      mutate: atBarriers((barriers) => {
        const isOpen = barriers.isOpen.bind(barriers)
        barriers.isOpen = (barrier, ticket) => {
          const { words, at } = barrier
          const counts = [...words.subarray(at, at + barriers.size)]
          const missing = counts.filter((count) => count < ticket).length
          return isOpen(barrier, ticket) || missing < 2
        }
      }),
    },
  },
  {
    name: 'a member that arrives twice counts as two',
    space: 'barrier-ahead',
    locks: {
      mutate: atBarriers((barriers) => {
        const isOpen = barriers.isOpen.bind(barriers)
        barriers.isOpen = (barrier, ticket) => {
          const { words, at } = barrier
          const counts = [...words.subarray(at, at + barriers.size)]
          const all = counts.reduce((sum, count) => sum + count)
          return isOpen(barrier, ticket) || all >= ticket * barriers.size
        }
      }),
    },
  },
  {
    name: 'who arrives early for the next generation is forgotten',
    space: 'barrier',
    locks: {
      mutate: atBarriers((barriers) => {
        const arrived = barriers.arrived.bind(barriers)
        barriers.arrived = (key, from) => {
          const { words = new Int32Array(barriers.size), at = 0 } = barriers.barriers.get(key) ?? {}
          const counts = words.subarray(at, at + barriers.size)
          if (counts[from] === Math.min(...counts)) arrived(key, from)
        }
      }),
    },
  },
  {
    name: 'a barrier that somebody has come to already is forgotten',
    space: 'barrier',
    locks: {
      mutate: atBarriers((barriers) => {
        const arrived = barriers.arrived.bind(barriers)
        barriers.arrived = (key, from) => {
          arrived(key, from)
          if (barriers.barriers.get(key)?.waiting.length === 0) barriers.barriers.delete(key)
        }
      }),
    },
  },
  {
    name: 'a barrier is not broken when a member is down',
    space: 'barrier-death',
    locks: {
      mutate: ({ members }) => {
        for (const { sync, state } of members) {
          sync.failAll = () => undefined
          state.barriers.memberGone = () => undefined
        }
      },
    },
  },
  {
    name: 'a barrier is not broken when a member leaves',
    space: 'barrier-leave',
    locks: {
      mutate: atBarriers((barriers) => {
        barriers.memberGone = (rank) => void barriers.gone.push(rank)
      }),
    },
  },
  {
    name: 'who had come to a barrier and has left is not counted',
    space: 'barrier-leave',
    locks: {
      mutate: atBarriers((barriers) => {
        const memberGone = barriers.memberGone.bind(barriers)
        barriers.memberGone = (rank) => {
          for (const { words, at } of barriers.barriers.values()) {
            if (rank !== barriers.rank && words[at + rank] > 0) words[at + rank]--
          }
          memberGone(rank)
        }
      }),
    },
  },
  {
    name: 'native code looks who wants to hear of an arrival before it counts it',
    space: 'barrier-words',
    locks: { sabotage: { looksFirst: true } },
  },
  {
    name: 'the engine does not look when native code has counted an arrival',
    space: 'barrier-words',
    locks: {
      mutate: atBarriers((barriers) => {
        barriers.look = () => undefined
      }),
    },
  },
  {
    name: 'the engine does not say that it waits at a barrier',
    space: 'barrier-words',
    locks: {
      mutate: atBarriers(({ shared }) => {
        shared.engineAwaits = () => undefined
      }),
    },
  },
]

export const mutations: readonly Mutation[] = [...around, ...inProtocol, ...oneSided, ...inLocks]
