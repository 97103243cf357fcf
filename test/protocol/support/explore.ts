import { begins, CheckFailed, type Choice, Cluster, type ClusterOptions } from './cluster.js'

/**
 * Tries everything that can happen, depth first, and never goes on from a state that it has seen.
 * Two states are the same when nothing that follows can tell them apart: which write a frame's
 * contents come from counts only as being the last one or not.
 */

type Plain = number | boolean | string | undefined | Plain[] | { [key: string]: Plain }

function copy(value: unknown): Plain {
  if (Array.isArray(value)) return value.map(copy)
  if (value instanceof Map) return [...(value as Map<unknown, unknown>)].map(copy)
  if (value instanceof Set) return [...(value as Set<unknown>)].map(copy)
  if (ArrayBuffer.isView(value)) return [...(value as Uint8Array)]
  if (typeof value === 'object' && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, copy(each)]))
  }
  return value as Plain
}

/** Whether a property holds state, as opposed to what the object works with. */
const isState = (value: unknown): boolean =>
  typeof value === 'number' ||
  typeof value === 'boolean' ||
  Array.isArray(value) ||
  value instanceof Map ||
  value instanceof Set ||
  ArrayBuffer.isView(value)

/** Everything in these objects that changes, whatever they call it. */
class Snapshots {
  private readonly places: { owner: Record<string, unknown>; key: string }[] = []

  constructor(owners: readonly object[]) {
    for (const each of owners) {
      const owner = each as Record<string, unknown>
      for (const key of Object.keys(owner)) {
        if (isState(owner[key])) this.places.push({ owner, key })
      }
    }
  }

  take(): Plain[] {
    return this.places.map(({ owner, key }) => copy(owner[key]))
  }

  restore(taken: readonly Plain[]): void {
    this.places.forEach(({ owner, key }, index) => {
      const value = copy(taken[index])
      const target = owner[key]
      if (target instanceof Map) {
        target.clear()
        for (const [name, each] of value as [unknown, unknown][]) target.set(name, each)
      } else if (target instanceof Set) {
        target.clear()
        for (const each of value as unknown[]) target.add(each)
      } else if (ArrayBuffer.isView(target)) {
        ;(target as Uint8Array).set(value as number[])
      } else if (Array.isArray(target)) {
        target.splice(0, target.length, ...(value as unknown[]))
      } else {
        owner[key] = value
      }
    })
  }
}

export interface Exploration {
  readonly states: number
  readonly steps: number
  /** How many of the states are at rest: nothing is under way. */
  readonly atRest: number
}

export function explore(options: ClusterOptions, mostStates = Infinity): Exploration {
  const cluster = new Cluster(options)
  const owners: object[] = []
  for (const member of cluster.members) {
    owners.push(member, member.coherence, member.coherence.pages, member.coherence.directory)
  }
  const members = new Snapshots(owners)
  const { channels, lastWrite, mayBeLost } = cluster
  const network = new Snapshots([{ channels, lastWrite, mayBeLost }])
  const counters = ['operationsLeft', 'pinsLeft', 'deathsLeft', 'everDied'] as const
  const take = (): [Plain[], Plain[], (number | boolean)[]] => [
    members.take(),
    network.take(),
    counters.map((name) => cluster[name]),
  ]
  const restore = (taken: ReturnType<typeof take>): void => {
    members.restore(taken[0])
    network.restore(taken[1])
    counters.forEach((name, index) => Object.assign(cluster, { [name]: taken[2][index] }))
  }
  const seen = new Set<string>()
  let steps = 0
  let atRest = 0

  /** Contents are the last or not; nothing else about them matters. */
  const normalize = (): void => {
    const fresh = (contents: number, page: number): number =>
      contents === cluster.lastWrite[page] ? 1 : 0
    for (const { frames } of cluster.members) {
      frames.forEach((contents, page) => (frames[page] = fresh(contents, page)))
    }
    for (const channel of [
      ...cluster.channels,
      ...cluster.members.map(({ inbox }) => inbox),
      ...cluster.members.map(({ sends }) => sends),
    ]) {
      channel.forEach((message, index) => {
        if (message.contents === undefined || Number.isNaN(message.contents)) return
        channel[index] = { ...message, contents: fresh(message.contents, message.page) }
      })
    }
    cluster.lastWrite.fill(1)
  }

  /** A state on the way to where the search is, and what is still to be tried from it. */
  interface Visit {
    readonly taken: ReturnType<typeof take>
    readonly choices: readonly Choice[]
    next: number
  }
  const path: Visit[] = []

  const visit = (): void => {
    normalize()
    const taken = take()
    const key = JSON.stringify(taken)
    if (seen.has(key)) return
    seen.add(key)
    if (seen.size > mostStates) throw new Error(`there are more than ${mostStates} states`)
    const choices = cluster.choices()
    if (choices.every(begins)) {
      atRest++
      cluster.checkRest()
    }
    path.push({ taken, choices, next: 0 })
  }

  try {
    visit()
    for (let last = path.at(-1); last !== undefined; last = path.at(-1)) {
      if (last.next === last.choices.length) {
        path.pop()
        continue
      }
      const choice = last.choices[last.next++]
      restore(last.taken)
      steps++
      cluster.perform(choice)
      visit()
    }
  } catch (error) {
    if (!(error instanceof CheckFailed)) throw error
    const way = path.map(({ choices, next }) => choices[next - 1])
    throw new CheckFailed(`${error.message}\n${replay(options, way)}`)
  }
  return { states: seen.size, steps, atRest }
}

/** The way to a failure, with what was sent on it. */
function replay(options: ClusterOptions, path: readonly Choice[]): string {
  const cluster = new Cluster(options)
  cluster.trace = []
  try {
    for (const choice of path) cluster.perform(choice)
  } catch {
    // That is what it is replayed for.
  }
  return `${cluster.trace.join('\n')}\n${cluster.picture()}`
}
