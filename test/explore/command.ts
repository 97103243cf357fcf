import * as fs from 'node:fs'
import { parseArgs } from 'node:util'
import { cellProblems, possibleCells, unreached } from './cells.js'
import { exploreSpace, type SpaceResult } from './explore.js'
import { type Mutation, mutations } from './mutations.js'
import { type Failure, type Progress, TooManyStates } from './search.js'
import { type Space, spaces } from './spaces.js'
import { parseTraceFile, replay, toTraceFile } from './trace-file.js'

const usage = `usage: npm run explore -- [--space NAME]… [--mutation NAME] [options]
  Visits every state of small meshes of the real protocol code and checks what must hold; then
  breaks the protocol in ${mutations.length} ways, each of which must be found. Without --space and
  --mutation: all of it.
  --space NAME      this space; may be repeated. With --mutation: look there for it
  --mutation NAME   this mutation; 'all' for all of them, and no space without one
  --most-states N   give up on a space with more states (default 4000000)
  --trace FILE      where the way to a failure is written (default build/explore-trace.json)
  --replay FILE     go through such a file again, and fail in the same way
  --json            one JSON object per line on stdout, and nothing else
  --list            the spaces and the mutations
  --help            this`

class UsageError extends Error {}

interface CommandLine {
  readonly chosen: readonly Space[]
  readonly broken: readonly Mutation[]
  readonly everything: boolean
  readonly mostStates: number
  readonly trace: string
  readonly replay: string | undefined
  readonly json: boolean
  readonly list: boolean
  readonly help: boolean
}

function parseValues(args: string[]) {
  try {
    return parseArgs({
      args,
      options: {
        space: { type: 'string', multiple: true },
        mutation: { type: 'string' },
        'most-states': { type: 'string', default: '4000000' },
        trace: { type: 'string', default: 'build/explore-trace.json' },
        replay: { type: 'string' },
        json: { type: 'boolean', default: false },
        list: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    }).values
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
}

function parseCommandLine(args: string[]): CommandLine {
  const values = parseValues(args)
  const { json, list, help, trace } = values
  const text = values['most-states']
  const mostStates = Number(text)
  if (!/^\d+$/.test(text) || mostStates < 1 || mostStates > 1e8) {
    throw new UsageError(`--most-states takes a whole number from 1 to 100000000, not '${text}'`)
  }
  for (const name of values.space ?? []) {
    if (spaces.some((space) => space.name === name)) continue
    const known = spaces.map((space) => space.name).join(', ')
    throw new UsageError(`no space is called '${name}'; there are ${known}`)
  }
  const { mutation } = values
  if (mutation !== undefined && mutation !== 'all' && !mutations.some((m) => m.name === mutation)) {
    throw new UsageError(`no mutation is called '${mutation}'; --list names them`)
  }
  const everything = values.space === undefined && mutation === undefined
  const named = spaces.filter(({ name }) => values.space?.includes(name) ?? everything)
  const broken = mutations
    .filter(({ name }) => everything || mutation === 'all' || mutation === name)
    .map((each) => ({ ...each, space: values.space?.[0] ?? each.space }))
  const chosen = mutation === undefined ? named : []
  return {
    ...{ chosen, broken, everything, mostStates, trace, replay: values.replay, json, list, help },
  }
}

function progressLine(name: string) {
  if (!process.stderr.isTTY) return { clear: () => undefined }
  return {
    clear: (): void => void process.stderr.write('\r\x1b[K'),
    onProgress: ({ states, transitions, depth }: Progress): void => {
      process.stderr.write(
        `\r\x1b[K${name}: ${states} states, ${transitions} transitions, depth ${depth}`,
      )
    },
  }
}

function explore(space: Space, line: CommandLine, more: object): SpaceResult | TooManyStates {
  const { clear, ...progress } = progressLine(space.name)
  try {
    return exploreSpace(space, { mostStates: line.mostStates, ...progress, ...more })
  } catch (error) {
    if (error instanceof TooManyStates) return error
    throw error
  } finally {
    clear()
  }
}

const COLUMNS = [22, 11, 12, 6, 8, 8] as const
function row(cells: readonly (string | number)[], rest = ''): string {
  const padded = cells.map((cell, at) =>
    at === 0 ? String(cell).padEnd(COLUMNS[at]) : String(cell).padStart(COLUMNS[at]),
  )
  return `${padded.join(' ')}  ${rest}`.trimEnd()
}

function showFailure(line: CommandLine, space: string, mutation: string | null, failure: Failure) {
  const trace = toTraceFile(space, mutation, failure)
  fs.mkdirSync('build', { recursive: true })
  fs.writeFileSync(line.trace, `${JSON.stringify(trace, undefined, 1)}\n`)
  if (line.json) return
  const { lines, picture } = replay(trace)
  console.log(`\n${failure.invariant}: ${failure.message}\nafter ${trace.steps.length} steps:`)
  console.log(lines.map((each) => `  ${each}`).join('\n'))
  console.log(`\n${picture}\n\nTo go through it again: npm run explore -- --replay ${line.trace}`)
}

/** Returns how many spaces failed. */
function exploreSpaces(line: CommandLine): number {
  if (line.chosen.length === 0) return 0
  const reached = new Set<string>()
  let failed = 0
  if (!line.json) {
    console.log(row(['space', 'states', 'transitions', 'depth', 'seconds', 'longest']))
  }
  for (const space of line.chosen) {
    const found = explore(space, line, { reached })
    if (found instanceof TooManyStates) {
      failed++
      if (line.json) console.log(JSON.stringify({ space: space.name, failure: found.message }))
      else console.log(row([space.name, `>${found.states}`], 'FAILED: give it --most-states'))
      continue
    }
    const { states, transitions, depth, seconds, longestChannel, failure } = found
    if (line.json) console.log(JSON.stringify({ ...found, failure: failure?.message ?? null }))
    else {
      const figures = [space.name, states, transitions, depth, seconds.toFixed(1), longestChannel]
      console.log(row(figures, failure === undefined ? space.summary : 'FAILED'))
    }
    if (failure === undefined) continue
    failed++
    showFailure(line, space.name, null, failure)
  }
  return line.everything ? failed + showCells(line, reached) : failed
}

/** Which cells of the tables nothing has met. Returns how many of them nothing explains. */
function showCells(line: CommandLine, reached: ReadonlySet<string>): number {
  const problems = cellProblems(reached)
  if (line.json) {
    console.log(JSON.stringify({ cells: reached.size, unreached: [...unreached], problems }))
    return problems.length
  }
  console.log(`\n${reached.size} of ${possibleCells().length} cells of the tables are reached; not`)
  for (const [cell, why] of unreached) console.log(`  ${cell}: ${why}`)
  for (const problem of problems) console.log(`  FAILED: ${problem}`)
  return problems.length
}

/** Returns how many mutations nothing noticed. */
function exploreMutations(line: CommandLine): number {
  if (line.broken.length === 0) return 0
  let missed = 0
  if (!line.json) console.log(`\n${row(['space', 'states', 'steps'])} what is broken: found by`)
  for (const mutation of line.broken) {
    const space = spaces.find(({ name }) => name === mutation.space)!
    const found = explore(space, line, { mutation })
    const failure = found instanceof TooManyStates ? undefined : found.failure
    if (failure === undefined) missed++
    const { states } = found
    const by = failure?.invariant ?? null
    const steps = failure?.path.length ?? 0
    if (line.json) {
      console.log(JSON.stringify({ mutation: mutation.name, space: space.name, states, steps, by }))
    } else {
      console.log(row([space.name, states, steps], `${mutation.name}: ${by ?? 'NOT FOUND'}`))
    }
    if (failure !== undefined && line.broken.length === 1) {
      showFailure(line, space.name, mutation.name, failure)
    }
  }
  return missed
}

function replayFile(line: CommandLine, file: string): number {
  const trace = parseTraceFile(fs.readFileSync(file, 'utf8'))
  const { violation, step, lines, picture } = replay(trace)
  const same =
    violation?.invariant === trace.invariant &&
    violation.message === trace.message &&
    step === trace.steps.length
  if (line.json) {
    console.log(JSON.stringify({ same, step, violation: violation ?? null }))
  } else {
    console.log(`${lines.join('\n')}\n\n${picture}\n`)
    const what = violation === undefined ? 'nothing is wrong' : violation.message
    console.log(`step ${step}: ${violation?.invariant ?? ''}: ${what}`)
    console.log(same ? 'That is what the file says.' : `The file says: ${trace.message}`)
  }
  return 1
}

function list(): void {
  for (const { name, summary } of spaces) console.log(`${name.padEnd(18)}${summary}`)
  console.log('')
  for (const { name, space } of mutations) console.log(`${space.padEnd(18)}${name}`)
}

/** Returns the exit code. */
export function main(args: string[]): number {
  try {
    const line = parseCommandLine(args)
    if (line.help) console.log(usage)
    else if (line.list) list()
    else if (line.replay !== undefined) return replayFile(line, line.replay)
    else {
      const failed = exploreSpaces(line)
      const missed = exploreMutations(line)
      if (line.json) return failed + missed === 0 ? 0 : 1
      const found = line.broken.length - missed
      if (line.chosen.length > 0) {
        console.log(failed === 0 ? '\nall invariants hold' : `\n${failed} failed`)
      }
      if (line.broken.length > 0) console.log(`${found} of ${line.broken.length} mutations found`)
      return failed + missed === 0 ? 0 : 1
    }
    return 0
  } catch (error) {
    if (error instanceof UsageError) {
      console.error(`${error.message}\n${usage}`)
      return 2
    }
    console.error(error instanceof RangeError ? error.message : error)
    return 1
  }
}
