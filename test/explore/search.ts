import { ByteReader, ByteWriter, Hash64, KeyTable, NumberList } from './bytes.js'
import { findFairCycle, statesThatNeverRest, type Walk } from './liveness.js'
import type { Violation, World } from './world.js'

/**
 * Breadth first through everything that can happen: the way to the first state that violates
 * something is a shortest one. States are kept as hashes of 64 bits; the packed states themselves
 * only of the two levels at work. Where states are alike but for names, one stands for all.
 */

export interface SearchOptions {
  readonly mostStates?: number
  /** Whether no fair schedule may leave a request waiting for ever. Needs a world without symmetry. */
  readonly fair?: boolean
  /** False: nothing new begins, and it is only looked whether what has begun can end. */
  readonly begins?: boolean
  readonly onProgress?: (progress: Progress) => void
}

export interface Progress {
  readonly states: number
  readonly transitions: number
  readonly depth: number
}

/** What went wrong, and how to get there. */
export interface Failure extends Violation {
  /** Choices from the beginning, by their place among all choices of each state. */
  readonly path: readonly number[]
  /** How many of them come before the part that can be gone round for ever. */
  readonly cycleFrom?: number
}

export interface Exploration extends Progress {
  /** How many of the states are at rest: nothing is under way. */
  readonly atRest: number
  /** Of the processor, so that other work on the machine does not count. */
  readonly seconds: number
  readonly failure: Failure | undefined
}

/** The label of a transition: its class, and whether it begins something. */
export const BEGINS = 0x80

/** All that is known of the states once they have all been seen. */
export class Graph {
  /** Where each state's transitions begin; one more at the end. */
  readonly first = new NumberList()
  readonly targets = new NumberList()
  readonly labels = new NumberList()
  /** For each state, 0x100 if it is at rest, and who waits. */
  readonly marks = new NumberList()
  /** How each state was found first. */
  readonly parents = new NumberList()
  readonly choices = new NumberList()
  readonly depths = new NumberList()

  get size(): number {
    return this.first.length - 1
  }

  pathTo(state: number): number[] {
    const path: number[] = []
    for (let at = state; at !== 0; at = this.parents.at(at)) path.push(this.choices.at(at))
    return path.reverse()
  }
}
export const AT_REST = 0x100

function cpuSeconds(): number {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1e6
}

/** States of one level, one behind the other. */
class Level {
  private bytes: Uint8Array = new Uint8Array(1 << 16)
  private readonly starts = new NumberList()
  private length = 0

  get size(): number {
    return this.starts.length
  }

  push(bytes: Uint8Array, length: number): void {
    if (this.length + length > this.bytes.length) {
      const more = new Uint8Array(2 * (this.length + length))
      more.set(this.bytes.subarray(0, this.length))
      this.bytes = more
    }
    this.bytes.set(bytes.subarray(0, length), this.length)
    this.starts.push(this.length)
    this.length += length
  }

  take(index: number, reader: ByteReader): void {
    reader.begin(this.bytes, this.starts.at(index))
  }

  clear(): void {
    this.starts.length = 0
    this.length = 0
  }
}

class Search<Choice extends object> {
  private readonly graph = new Graph()
  private readonly table = new KeyTable()
  private readonly out = new ByteWriter()
  private readonly renamed = new ByteWriter()
  private readonly hash = new Hash64()
  private readonly reader = new ByteReader()
  private level = new Level()
  private next = new Level()
  private transitions = 0
  private atRest = 0
  private depth = 0
  private failure: Failure | undefined
  private readonly startedSeconds = cpuSeconds()
  private toldMs = 0

  constructor(
    private readonly world: World<Choice>,
    private readonly options: SearchOptions,
  ) {}

  run(): Exploration {
    this.visit(0, 0)
    for (let state = 0; this.next.size > 0 && this.failure === undefined; this.depth++) {
      ;[this.level, this.next] = [this.next, this.level]
      this.next.clear()
      state = this.expandLevel(state)
    }
    if (this.failure === undefined) {
      this.graph.first.push(this.graph.targets.length)
      if (this.options.begins !== false) this.failure = this.checkLiveness()
    }
    const { transitions, depth, atRest, failure } = this
    const seconds = cpuSeconds() - this.startedSeconds
    return { states: this.table.size, transitions, depth, atRest, seconds, failure }
  }

  /** Returns the number of the next level's first state. */
  private expandLevel(first: number): number {
    for (let index = 0; index < this.level.size; index++) {
      if (this.failure === undefined) this.expand(first + index, index)
    }
    return first + this.level.size
  }

  private expand(state: number, index: number): void {
    const { world, graph } = this
    this.level.take(index, this.reader)
    world.read(this.reader)
    const choices = world.choices()
    const atRest = choices.every((choice) => world.begins(choice))
    graph.first.push(graph.targets.length)
    graph.marks.push((atRest ? AT_REST : 0) | world.waiting())
    if (atRest) {
      this.atRest++
      const violation = world.checkRest()
      if (violation !== undefined) return this.fail(violation, graph.pathTo(state))
    }
    for (let at = 0; at < choices.length; at++) {
      if (at > 0) {
        this.level.take(index, this.reader)
        world.read(this.reader)
      }
      const choice = choices[at]
      if (this.options.begins === false && world.begins(choice)) continue
      const label = world.classOf(choice) | (world.begins(choice) ? BEGINS : 0)
      const violation = world.perform(choice)
      this.transitions++
      if (violation !== undefined) return this.fail(violation, [...graph.pathTo(state), at])
      graph.targets.push(this.visit(state, at))
      graph.labels.push(label)
    }
    this.tellProgress()
  }

  /** The number of the state that the world is in, which is put down for later if it is new. */
  private visit(parent: number, choice: number): number {
    const { world, table, out, renamed, hash, graph } = this
    world.write(out, 0)
    hash.of(out.bytes, out.length)
    let { high, low } = hash
    for (let symmetry = 1; symmetry < world.symmetryCount; symmetry++) {
      world.write(renamed, symmetry)
      hash.of(renamed.bytes, renamed.length)
      if (hash.isBelow(high, low)) ({ high, low } = hash)
    }
    const known = table.size
    const state = table.add(high, low)
    if (state < known) return state
    if (state >= (this.options.mostStates ?? Infinity)) {
      throw new TooManyStates(this.options.mostStates!)
    }
    graph.parents.push(parent)
    graph.choices.push(choice)
    this.next.push(out.bytes, out.length)
    return state
  }

  private fail(violation: Violation, path: readonly number[]): void {
    this.failure = { ...violation, path }
  }

  private checkLiveness(): Failure | undefined {
    const { graph } = this
    const stranded = statesThatNeverRest(graph)
    if (stranded !== undefined) {
      const message = 'whatever happens from here on, this never comes to rest'
      return { invariant: 'every request is answered', message, path: graph.pathTo(stranded) }
    }
    if (this.options.fair !== true) return undefined
    if (this.world.symmetryCount !== 1) throw new Error('what is fair needs names that stay')
    const walk: Walk | undefined = findFairCycle(graph)
    if (walk === undefined) return undefined
    const path = graph.pathTo(walk.from)
    const who = walk.waiting.map((rank) => `rank ${rank}`).join(' and ')
    return {
      invariant: 'no fair schedule starves a request',
      message:
        `the last ${walk.choices.length} steps can be repeated for ever, everybody gets a turn, ` +
        `and ${who} waits all the time`,
      path: [...path, ...walk.choices],
      cycleFrom: path.length,
    }
  }

  private tellProgress(): void {
    const { onProgress } = this.options
    if (onProgress === undefined || (this.transitions & 0xff) > 16) return
    const nowMs = performance.now()
    if (nowMs < this.toldMs + 200) return
    this.toldMs = nowMs
    onProgress({ states: this.table.size, transitions: this.transitions, depth: this.depth })
  }
}

export class TooManyStates extends Error {
  constructor(readonly states: number) {
    super(`there are more than ${states} states`)
  }
}

/** Explores all that follows from the state that the world is in. */
export function search<Choice extends object>(
  world: World<Choice>,
  options: SearchOptions = {},
): Exploration {
  return new Search(world, options).run()
}

/** The choices on a path, each of which was taken from a state that had been written down. */
export function choicesOn<Choice extends object>(
  world: World<Choice>,
  path: readonly number[],
): Choice[] {
  const out = new ByteWriter()
  const reader = new ByteReader()
  return path.map((at) => {
    world.write(out, 0)
    reader.begin(out.bytes, 0)
    world.read(reader)
    const choice = world.choices()[at]
    world.perform(choice)
    return choice
  })
}
