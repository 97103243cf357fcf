import { NumberList } from './bytes.js'
import { AT_REST, BEGINS, type Graph } from './search.js'

/**
 * What can be said only of all states together: that what has begun comes to an end. From each
 * state, if nothing new begins, some schedule leads to rest; and no fair schedule goes round for
 * ever while the same request waits, whatever begins meanwhile.
 */

/** The first state from which nothing leads to rest unless something new begins. */
export function statesThatNeverRest(graph: Graph): number | undefined {
  const { size } = graph
  const into = new Uint32Array(size + 1)
  forEachTransition(graph, (_from, to, label) => {
    if ((label & BEGINS) === 0) into[to + 1]++
  })
  for (let state = 0; state < size; state++) into[state + 1] += into[state]
  const sources = new Uint32Array(into[size])
  const filled = into.slice(0, size)
  forEachTransition(graph, (from, to, label) => {
    if ((label & BEGINS) === 0) sources[filled[to]++] = from
  })
  const rests = new Uint8Array(size)
  const waiting = new NumberList()
  for (let state = 0; state < size; state++) {
    if ((graph.marks.at(state) & AT_REST) === 0) continue
    rests[state] = 1
    waiting.push(state)
  }
  for (let at = 0; at < waiting.length; at++) {
    const state = waiting.at(at)
    for (let index = into[state]; index < into[state + 1]; index++) {
      const source = sources[index]
      if (rests[source] === 1) continue
      rests[source] = 1
      waiting.push(source)
    }
  }
  const stranded = rests.indexOf(0)
  return stranded < 0 ? undefined : stranded
}

function forEachTransition(
  graph: Graph,
  call: (from: number, to: number, label: number) => void,
): void {
  for (let state = 0; state < graph.size; state++) {
    const end = graph.first.at(state + 1)
    for (let index = graph.first.at(state); index < end; index++) {
      call(state, graph.targets.at(index), graph.labels.at(index))
    }
  }
}

/** A way round that can be gone for ever: where it begins, and what is chosen at each state. */
export interface Walk {
  readonly from: number
  readonly choices: readonly number[]
  readonly waiting: readonly number[]
}

const MOST_REQUESTERS = 8

/**
 * Weak fairness: whatever stays possible happens some time. A set of states that can all reach each
 * other holds a fair way round if each class of transitions is taken within it, or is impossible in
 * some of its states. A larger set is never less fair than its parts, so it is enough to look at the
 * strongly connected components of the states in which one requester waits.
 */
export function findFairCycle(graph: Graph): Walk | undefined {
  for (let rank = 0; rank < MOST_REQUESTERS; rank++) {
    const waits = (state: number): boolean => (graph.marks.at(state) & (1 << rank)) !== 0
    const walk = fairCycleAmong(graph, waits)
    if (walk !== undefined) return { ...walk, waiting: [rank] }
  }
  return undefined
}

type Found = Omit<Walk, 'waiting'>

function fairCycleAmong(graph: Graph, within: (state: number) => boolean): Found | undefined {
  const component = componentsOf(graph, within)
  const members = new Map<number, number[]>()
  component.forEach((number, state) => {
    if (number === 0) return
    const list = members.get(number)
    if (list === undefined) members.set(number, [state])
    else list.push(state)
  })
  for (const states of members.values()) {
    const walk = fairWalk(graph, states, component)
    if (walk !== undefined) return walk
  }
  return undefined
}

/**
 * By state, the number of its strongly connected component, 0 for those that are not within.
 * Tarjan, "Depth-first search and linear graph algorithms" (1972), with a stack of its own.
 */
function componentsOf(graph: Graph, within: (state: number) => boolean): Uint32Array {
  const { size } = graph
  const component = new Uint32Array(size)
  const order = new Uint32Array(size)
  const lowest = new Uint32Array(size)
  const edge = new Uint32Array(size)
  const open = new NumberList()
  const path = new NumberList()
  let counted = 0
  let components = 0
  const enter = (state: number): void => {
    order[state] = lowest[state] = ++counted
    edge[state] = graph.first.at(state)
    open.push(state)
    path.push(state)
  }
  const leave = (state: number): void => {
    path.length--
    if (path.length > 0) {
      const above = path.at(path.length - 1)
      lowest[above] = Math.min(lowest[above], lowest[state])
    }
    if (lowest[state] !== order[state]) return
    components++
    for (let last = -1; last !== state;) {
      last = open.at(--open.length)
      component[last] = components
    }
  }
  for (let root = 0; root < size; root++) {
    if (order[root] !== 0 || !within(root)) continue
    enter(root)
    while (path.length > 0) {
      const state = path.at(path.length - 1)
      if (edge[state] === graph.first.at(state + 1)) {
        leave(state)
        continue
      }
      const to = graph.targets.at(edge[state]++)
      if (!within(to)) continue
      if (order[to] === 0) enter(to)
      else if (component[to] === 0) lowest[state] = Math.min(lowest[state], order[to])
    }
  }
  return component
}

/** A way round in one component that is fair to every class, if there is one. */
function fairWalk(
  graph: Graph,
  states: readonly number[],
  component: Uint32Array,
): Found | undefined {
  const number = component[states[0]]
  // What the way round must do for each class: take it, or come by where it is impossible.
  const taken = new Map<number, number>()
  const always = new Map<number, number>()
  let inside = 0
  for (const state of states) {
    const possible = new Set<number>()
    forEachOf(graph, state, (index, to, label) => {
      if ((label & BEGINS) === 0) possible.add(label)
      if (component[to] !== number) return
      inside++
      if ((label & BEGINS) === 0 && !taken.has(label)) taken.set(label, index)
    })
    for (const label of possible) always.set(label, (always.get(label) ?? 0) + 1)
  }
  if (inside === 0) return undefined
  for (const [label, count] of always) {
    if (count === states.length && !taken.has(label)) return undefined
  }
  return goRound(graph, states, component, [...taken.values()], always)
}

function forEachOf(
  graph: Graph,
  state: number,
  call: (index: number, to: number, label: number) => void,
): void {
  const end = graph.first.at(state + 1)
  for (let index = graph.first.at(state); index < end; index++) {
    call(index, graph.targets.at(index), graph.labels.at(index))
  }
}

/** From the first of the states through these transitions and back. */
function goRound(
  graph: Graph,
  states: readonly number[],
  component: Uint32Array,
  through: readonly number[],
  always: ReadonlyMap<number, number>,
): Found {
  const from = states[0]
  const number = component[from]
  const choices: number[] = []
  let at = from
  const goTo = (isThere: (state: number, index: number) => boolean): void => {
    const way = shortestWay(graph, at, component, number, isThere)
    choices.push(...way.choices)
    at = way.end
  }
  // Transitions of classes that are impossible somewhere are taken too: that is fair all the more.
  const needed = through.filter((index) => always.has(graph.labels.at(index)))
  for (const index of needed) goTo((_state, edge) => edge === index)
  if (choices.length === 0 || at !== from) {
    goTo((_state, edge) => edge >= 0 && graph.targets.at(edge) === from)
  }
  return { from, choices }
}

/** Breadth first within a component, up to and with the first transition that is wanted. */
function shortestWay(
  graph: Graph,
  start: number,
  component: Uint32Array,
  number: number,
  isWanted: (state: number, index: number) => boolean,
): { choices: number[]; end: number } {
  const cameBy = new Map<number, { state: number; choice: number } | undefined>([
    [start, undefined],
  ])
  const wayTo = (state: number): number[] => {
    const choices: number[] = []
    for (let step = cameBy.get(state); step !== undefined; step = cameBy.get(step.state)) {
      choices.push(step.choice)
    }
    return choices.reverse()
  }
  for (const state of cameBy.keys()) {
    const end = graph.first.at(state + 1)
    for (let index = graph.first.at(state); index < end; index++) {
      const to = graph.targets.at(index)
      if (component[to] !== number) continue
      const choice = index - graph.first.at(state)
      if (isWanted(state, index)) return { choices: [...wayTo(state), choice], end: to }
      if (!cameBy.has(to)) cameBy.set(to, { state, choice })
    }
  }
  throw new Error('a component is not connected')
}
