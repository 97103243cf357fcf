import { ByteReader, ByteWriter } from './bytes.js'
import { mutations } from './mutations.js'
import { choicesOn, type Failure, search } from './search.js'
import { spaces } from './spaces.js'
import type { Violation, World } from './world.js'

/** A failure that can be gone through again. */
export interface TraceFile {
  readonly format: 'pagemesh explore trace 1'
  readonly space: string
  readonly mutation: string | null
  readonly invariant: string
  readonly message: string
  /** How many steps come before those that can be repeated for ever. */
  readonly cycleFrom?: number | undefined
  readonly steps: readonly object[]
}

const FORMAT = 'pagemesh explore trace 1'

/** A world of the space, with the mutation if there is one; and how to undo what it shares. */
export function makeWorld(
  spaceName: string,
  mutationName: string | null,
  symmetric = false,
): { world: World; undo: () => void } {
  const space = spaces.find(({ name }) => name === spaceName)
  if (space === undefined) throw new RangeError(`there is no space '${spaceName}'`)
  const mutation = mutations.find(({ name }) => name === mutationName)
  if (mutationName !== null && mutation === undefined) {
    throw new RangeError(`there is no mutation '${mutationName}'`)
  }
  const undo = mutation?.pages?.table?.() ?? ((): void => undefined)
  return { world: space.make({ symmetric, mutation }), undo }
}

export function toTraceFile(space: string, mutation: string | null, failure: Failure): TraceFile {
  const { world, undo } = makeWorld(space, mutation)
  try {
    const { invariant, message, cycleFrom } = failure
    const steps = choicesOn(world, failure.path)
    return { format: FORMAT, space, mutation, invariant, message, cycleFrom, steps }
  } finally {
    undo()
  }
}

export function parseTraceFile(text: string): TraceFile {
  const trace = JSON.parse(text) as Partial<TraceFile> | null
  if (trace?.format !== FORMAT || !Array.isArray(trace.steps)) {
    throw new RangeError(`this is no trace: it does not say "format": "${FORMAT}"`)
  }
  return trace as TraceFile
}

export interface Replay {
  /** What went wrong, if anything did, and after how many steps. */
  readonly violation: Violation | undefined
  readonly step: number
  readonly lines: readonly string[]
  readonly picture: string
}

/** Goes through a trace again, as far as it goes. */
export function replay(trace: TraceFile): Replay {
  const { world, undo } = makeWorld(trace.space, trace.mutation)
  try {
    return goThrough(world, trace)
  } finally {
    undo()
  }
}

function goThrough(world: World, trace: TraceFile): Replay {
  const out = new ByteWriter()
  const reader = new ByteReader()
  const settle = (): string => {
    world.write(out, 0)
    reader.begin(out.bytes, 0)
    world.read(reader)
    return Buffer.from(out.bytes.subarray(0, out.length)).toString('hex')
  }
  const lines = world.startTrace()
  const states: string[] = []
  let step = 0
  const end = (violation: Violation | undefined): Replay => {
    return { violation, step, lines: [...lines], picture: world.picture() }
  }
  for (const wanted of trace.steps) {
    states.push(settle())
    const choice = world.choices().find((each) => JSON.stringify(each) === JSON.stringify(wanted))
    if (choice === undefined) {
      const message = `step ${step + 1} cannot be done: ${JSON.stringify(wanted)}`
      return end({ invariant: 'the trace can be followed', message })
    }
    if (step === trace.cycleFrom) lines.push('--- from here on it can go round for ever:')
    const violation = world.perform(choice)
    step++
    if (violation !== undefined) return end(violation)
  }
  states.push(settle())
  return end(violationAtTheEnd(world, trace, states))
}

function violationAtTheEnd(
  world: World,
  trace: TraceFile,
  states: readonly string[],
): Violation | undefined {
  const { invariant, message, cycleFrom } = trace
  if (cycleFrom !== undefined) {
    return states[cycleFrom] === states.at(-1) ? { invariant, message } : undefined
  }
  if (world.choices().every((choice) => world.begins(choice))) return world.checkRest()
  return search(world, { begins: false }).atRest === 0 ? { invariant, message } : undefined
}
