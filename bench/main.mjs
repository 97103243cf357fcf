// npm run bench -- NAME… [--json] [--faults N] [--rounds R] [--transport T]
import { parseArgs } from 'node:util'
import * as fault from './fault.mjs'
import { parsed, parseInteger, runProgram, UsageError } from './lib/command-line.mjs'
import { startProgressBar } from './lib/progress-bar.mjs'
import { describeMachine, formatTable, toJson } from './lib/report.mjs'
import * as progress from './progress.mjs'
import * as words from './words.mjs'

/**
 * @typedef {object} Bench
 * @property {string} summary
 * @property {(options: { rounds: number, transport: string }) => number} countSteps
 * @property {(options: { faults?: number, rounds: number, transport: string }, step: () => void) =>
 *   Promise<import('./lib/report.mjs').Line[]>} run
 */

/** @type {Record<string, Bench>} */
const benches = { fault, progress, words }

const defaultRounds = 5
const usage = `usage: npm run bench -- [NAME…] [--json] [--faults N] [--rounds R] [--transport T]
  NAME         ${Object.keys(benches).join(', ')}; all without a name; 'list' says what they measure
  --json       one JSON object per figure and line on stdout, and nothing else
  --faults N   faults, or words changed, in each batch
  --transport T tcp or verbs: how the members reach each other, and which floor they stand on
  --rounds R   rounds, each of one batch and one of the floor (default ${defaultRounds})`

/** @param {string[]} args */
function parseCommandLine(args) {
  const { values, positionals } = parsed(() =>
    parseArgs({
      args,
      allowPositionals: true,
      options: {
        json: { type: 'boolean', default: false },
        faults: { type: 'string' },
        rounds: { type: 'string' },
        transport: { type: 'string', default: 'tcp' },
        help: { type: 'boolean', default: false },
      },
    }),
  )
  const list = positionals.length === 1 && positionals[0] === 'list'
  const names = positionals.length === 0 || list ? Object.keys(benches) : positionals
  for (const name of names) {
    if (!Object.hasOwn(benches, name)) {
      const known = Object.keys(benches).join(', ')
      throw new UsageError(`no benchmark is called '${name}'; there are ${known}`)
    }
  }
  const count = (/** @type {'faults' | 'rounds'} */ option) => {
    const text = values[option]
    return text === undefined ? undefined : parseInteger(option, text, 1, 1e6)
  }
  const faults = count('faults')
  const rounds = count('rounds') ?? defaultRounds
  const { json, help, transport } = values
  if (transport !== 'tcp' && transport !== 'verbs') {
    throw new UsageError(`--transport takes tcp or verbs, not '${transport}'`)
  }
  return { names, list, json, help, options: { faults, rounds, transport } }
}

/**
 * @param {string} name
 * @param {{ faults?: number, rounds: number, transport: string }} options
 */
async function runBench(name, options) {
  const bar = startProgressBar(name, benches[name].countSteps(options))
  try {
    return await benches[name].run(options, bar.step)
  } finally {
    bar.stop()
  }
}

async function main() {
  const { names, list, json, help, options } = parseCommandLine(process.argv.slice(2))
  if (help) return console.log(usage)
  if (list) {
    for (const name of names) console.log(`${name.padEnd(10)}${benches[name].summary}`)
    return
  }
  if (!json) console.log(describeMachine())
  for (const name of names) {
    const lines = await runBench(name, options)
    console.log(json ? lines.map(toJson).join('\n') : `\n${formatTable(lines)}`)
  }
}

await runProgram(main, usage)
