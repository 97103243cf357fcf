import type { SemaphoreMode } from '../../dist/protocol/semaphores.js'
import type { Access } from './member.js'
import type { Pattern } from './settings.js'
import type { World } from './world.js'

/** What a thread does next. */
export type Step =
  | { readonly do: 'think'; readonly ns: number }
  | { readonly do: 'touch'; readonly page: number; readonly access: Access }
  | { readonly do: 'prefetch'; readonly page: number; readonly access: Access }
  | { readonly do: 'discard'; readonly page: number }
  | { readonly do: 'pin'; readonly page: number; readonly ns: number }
  | {
      readonly do: 'acquire'
      readonly key: number
      readonly permits: number
      readonly mode: SemaphoreMode
      readonly giveUpNs?: number
      /** A lock, whose token stays where it was used. */
      readonly keeps?: boolean
    }
  | { readonly do: 'release'; readonly key: number; readonly request: number }
  | { readonly do: 'barrier'; readonly key: number }

export interface Result {
  readonly ok: boolean
  /** A member is down, and with it what was asked for. */
  readonly failed?: boolean
  /** Of an acquire: what to release it by. */
  readonly request?: number | undefined
  readonly hop?: number
}
export type Program = Generator<Step, void, Result>

const BARRIER = 1_000_003
const LOCKS = 2_000_003
const SEMAPHORES = 3_000_017
const SEMAPHORE_PERMITS = 3
const THINK_NS = 3_000

const touch = (page: number, access: Access): Step => ({ do: 'touch', page, access })
const lock = (key: number): Step => ({
  ...{ do: 'acquire', key, permits: 1, mode: 'wait', keeps: true },
})

/** What each thread of each member does, for each pattern. */
export function program(pattern: Pattern, world: World, rank: number, thread: number): Program {
  switch (pattern) {
    case 'random':
      return random(world, thread)
    case 'readers':
      return readers(world, rank)
    case 'migratory':
      return migratory(world, rank)
    case 'producer-consumer':
      return producerConsumer(world, rank)
    case 'false-sharing':
      return falseSharing(world)
    case 'locks':
      return locks(world, thread)
  }
}

/** One member writes a page, all read it, and so on. */
function* readers(world: World, rank: number): Program {
  const { pages, members } = world.settings
  for (let round = 0; world.startsRound(round); round++) {
    for (let page = 0; page < pages; page++) {
      if (page % members === rank) yield touch(page, 'write')
    }
    if (!(yield { do: 'barrier', key: BARRIER }).ok) return
    for (let page = 0; page < pages; page++) yield touch(page, 'read')
    if (!(yield { do: 'barrier', key: BARRIER }).ok) return
  }
}

/** Each member in its turn reads a page and changes it, under a lock. */
function* migratory(world: World, rank: number): Program {
  const { pages } = world.settings
  for (let index = 0; world.startsOperation(index); index++) {
    const page = (index + rank) % pages
    const { request } = yield lock(LOCKS + page)
    yield touch(page, 'read')
    yield touch(page, 'write')
    if (request !== undefined) yield { do: 'release', key: LOCKS + page, request }
    yield { do: 'think', ns: THINK_NS }
  }
}

/** Each member writes pages that the next one reads. */
function* producerConsumer(world: World, rank: number): Program {
  const { pages, members } = world.settings
  for (let round = 0; world.startsRound(round); round++) {
    for (let page = rank; page < pages; page += members) yield touch(page, 'write')
    if (!(yield { do: 'barrier', key: BARRIER }).ok) return
    for (let page = (rank + 1) % members; page < pages; page += members) yield touch(page, 'read')
    if (!(yield { do: 'barrier', key: BARRIER }).ok) return
  }
}

/** All change the same pages all the time, each its own word. */
function* falseSharing(world: World): Program {
  for (let index = 0; world.startsOperation(index); index++) {
    const page = index % world.settings.pages
    yield touch(page, 'read')
    yield touch(page, 'write')
    yield { do: 'think', ns: THINK_NS }
  }
}

/** Everything that a member can do, at any time. */
function* random(world: World, thread: number): Program {
  const { random: chance, settings } = world
  const page = (): number => chance.below(settings.pages)
  let barriers = thread === 0
  for (let index = 0; world.startsOperation(index); index++) {
    const what = chance.below(100)
    if (what < 40) yield touch(page(), 'read')
    else if (what < 65) yield touch(page(), 'write')
    else if (what < 75) yield* section(world, page())
    else if (what < 80) yield* useSemaphore(world)
    else if (what < 86) {
      yield { do: 'prefetch', page: page(), access: chance.chance(0.5) ? 'read' : 'write' }
    } else if (what < 92) yield { do: 'discard', page: page() }
    else if (what < 95) yield { do: 'pin', page: page(), ns: 50_000 }
    else yield { do: 'think', ns: 10 * THINK_NS }
    // All members come to the same number of barriers, if nobody runs out of time before.
    const due = settings.virtualNs === Infinity && index % 16 === 15
    if (barriers && due) barriers = (yield { do: 'barrier', key: BARRIER }).ok
  }
}

function* section(world: World, page: number): Program {
  const key = LOCKS + page
  const { ok, request } = yield lock(key)
  if (!ok || request === undefined) return
  yield touch(page, 'read')
  if (world.random.chance(0.5)) yield touch(page, 'write')
  yield { do: 'release', key, request }
}

/** Taken by whoever waits, tries, or gives up waiting. */
function* useSemaphore(world: World): Program {
  const { random: chance } = world
  const key = SEMAPHORES + chance.below(4)
  const common = { do: 'acquire', key, permits: SEMAPHORE_PERMITS } as const
  const how = chance.below(3)
  const { ok, request } = yield how === 0
    ? { ...common, mode: 'try' }
    : how === 1
      ? { ...common, mode: 'wait' }
      : { ...common, mode: 'wait', giveUpNs: 30_000 }
  if (!ok || request === undefined) return
  yield { do: 'think', ns: THINK_NS }
  yield { do: 'release', key, request }
}

/** Locks, semaphores and barriers, and no pages. */
function* locks(world: World, thread: number): Program {
  let barriers = thread === 0
  for (let index = 0; world.startsOperation(index); index++) {
    if (world.random.chance(0.4)) yield* useSemaphore(world)
    else {
      const key = LOCKS + world.random.below(world.settings.pages)
      const { ok, request } = yield lock(key)
      if (ok && request !== undefined) {
        yield { do: 'think', ns: THINK_NS }
        yield { do: 'release', key, request }
      }
    }
    const due = world.settings.virtualNs === Infinity && index % 4 === 3
    if (barriers && due) barriers = (yield { do: 'barrier', key: BARRIER }).ok
  }
}
