// npm run simulate -- [OPTION…]: see --help.
import { createHash } from 'node:crypto'
import { type Options, parseCommandLine, usage } from './command-line.js'
import { mutations } from './mutations.js'
import { printScale } from './scale.js'
import { CheckFailed, type Settings, UsageError } from './settings.js'
import { type Outcome, World } from './world.js'

const onTerminal = process.stderr.isTTY

/** One line that is written over itself, if somebody looks. */
function progress(text: string): void {
  if (onTerminal) process.stderr.write(`\r\x1b[K${text}`)
}

function summary({ members, pages, pattern, seed }: Settings, outcome: Outcome): string {
  const { counts, digest, lines, virtualNs } = outcome
  const { faults, messages, bytes, acquires, barriers, lostTouches } = counts
  const meanUs = faults === 0 ? 0 : counts.faultNs / faults / 1000
  return [
    `seed ${seed}: ${members} members, ${pages} pages, ${pattern}: all invariants hold`,
    `  history  ${digest}  ${lines} lines`,
    `  ${(virtualNs / 1e6).toFixed(3)} virtual ms, ${counts.events} events`,
    `  ${counts.touches} touches, ${faults} faults of ${meanUs.toFixed(1)} µs on average, ` +
      `the longest ${(counts.longestFaultNs / 1000).toFixed(1)} µs; ${lostTouches} lost`,
    `  ${acquires} acquires, ${barriers} passages of barriers`,
    `  ${messages} messages, ${bytes} bytes; at most ${counts.longestInbox} wait at one member`,
  ].join('\n')
}

function toJson(settings: Settings, { counts, ...rest }: Outcome): string {
  const { sabotage: _sabotage, ...shape } = settings
  const plain = (_key: string, value: unknown): unknown =>
    value instanceof Map ? Object.fromEntries(value) : value === Infinity ? null : value
  return JSON.stringify({ ...shape, ...rest, ...counts }, plain)
}

function runSeed(options: Options, seed: number): Outcome {
  const settings = options.settings(seed)
  const onLine = options.trace ? (line: string) => process.stdout.write(`${line}\n`) : undefined
  const world = new World(settings, onLine)
  try {
    const outcome = world.run((part) => progress(`seed ${seed}: ${Math.floor(100 * part)} %`))
    if (options.json) console.log(toJson(settings, outcome))
    else if (options.seeds === 1) console.log(summary(settings, outcome))
    return outcome
  } catch (error) {
    if (!(error instanceof CheckFailed)) throw error
    progress('')
    const last = options.trace ? [] : ['the last that happened:', ...world.history.lastLines()]
    const how = `to see all of it: ${options.replay(seed)}`
    throw new CheckFailed([...last, `seed ${seed} failed: ${error.message}`, how].join('\n'))
  }
}

function runSeeds(options: Options): void {
  const hash = createHash('sha256')
  let events = 0
  for (let index = 0; index < options.seeds; index++) {
    const { digest, counts } = runSeed(options, options.firstSeed + index)
    hash.update(digest)
    events += counts.events
    progress(`${index + 1} of ${options.seeds} seeds, ${events} events`)
  }
  progress('')
  if (options.json || options.seeds === 1) return
  console.log(`${options.seeds} seeds, ${events} events: all invariants hold`)
  console.log(`histories ${hash.digest('hex')}`)
}

function main(): void {
  const options = parseCommandLine(process.argv.slice(2))
  if (options.help) return console.log(usage)
  if (options.listMutations) return console.log(mutations.map(({ name }) => name).join('\n'))
  if (options.scale) return printScale(options.json, progress)
  runSeeds(options)
}

try {
  main()
} catch (error) {
  process.exitCode = error instanceof UsageError ? 2 : 1
  if (error instanceof UsageError) console.error(`${error.message}\n${usage}`)
  else if (error instanceof CheckFailed) console.error(error.message)
  else console.error(error)
}
