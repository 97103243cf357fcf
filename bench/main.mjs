// npm run bench -- NAME… [--json] [--out FILE] [--faults N] [--members N] [--rounds R] …
// npm run bench -- compare BEFORE.json AFTER.json
import { parseArgs } from 'node:util'
import * as anatomy from './anatomy.mjs'
import * as apps from './apps.mjs'
import * as backEnds from './back-ends.mjs'
import * as barrier from './barrier.mjs'
import * as compare from './compare.mjs'
import * as fault from './fault.mjs'
import * as goals from './goals.mjs'
import * as gups from './gups.mjs'
import { reasonAgainst, transports } from './lib/capabilities.mjs'
import { parseChoice, parsed, parseInteger, runProgram, UsageError } from './lib/command-line.mjs'
import { machineFacts } from './lib/machine.mjs'
import { checkOutputs, writeOutputs } from './lib/outputs.mjs'
import { startProgressBar } from './lib/progress-bar.mjs'
import { describeMachine, formatTable, toJson } from './lib/report.mjs'
import * as lock from './lock.mjs'
import * as progress from './progress.mjs'
import * as redis from './redis.mjs'
import * as scan from './scan.mjs'
import * as stream from './stream.mjs'
import * as upgrade from './upgrade.mjs'
import * as words from './words.mjs'

/**
 * What was asked for; a benchmark that is not told something chooses itself.
 * @typedef {object} Options
 * @property {number} rounds
 * @property {number} [faults]
 * @property {string} [transport]
 * @property {number} [members]
 * @property {boolean} [tiny]
 */

/**
 * @typedef {object} Bench
 * @property {string} summary
 * @property {boolean} [takesMembers] says for how many members it is, if asked
 * @property {boolean} [takesTiny] has small sizes, too
 * @property {(options: Options) => number} countSteps
 * @property {(options: Options, step: () => void) => Promise<import('./lib/report.mjs').Line[]>} run
 * @property {(lines: import('./lib/report.mjs').Line[]) => string} [format] for people, if not a table
 */

/** @type {Record<string, Bench>} */
const benches = {
  anatomy,
  apps,
  'back-ends': backEnds,
  barrier,
  fault,
  goals,
  gups,
  lock,
  progress,
  redis,
  scan,
  stream,
  upgrade,
  words,
}
/**
 * Have to be named: one takes minutes, and measures what the others do; one builds an addon first.
 */
const notByItself = ['anatomy', 'goals']

const defaultRounds = 5
const usage = `usage: npm run bench -- [NAME…] [--json] [--out FILE] [--faults N] [--members N]
                        [--rounds R] [--transport T] [--tiny]
  NAME         ${Object.keys(benches).join(', ')};
               all but anatomy and goals without a name; 'list' says what they measure
  --json       one JSON object per figure and line on stdout, and nothing else
  --faults N   faults, words changed, locks or barriers taken in each batch
  --members N  how many members ${namesWith('takesMembers')} have, 2 to 8
  --transport T ${transports.join(', ')}: how the members reach each other, and so what they stand on
               (tcp; for anatomy and goals shm where it is there)
  --rounds R   rounds, each of one batch and one of the floor (default ${defaultRounds})
  --tiny       small sizes for ${namesWith('takesTiny')}, to see that it works: no figure says anything
  --out FILE   writes a report, FILE.html, or results that can be compared, FILE.json; may be
               given several times
${compare.usage}`

/** @param {'takesMembers' | 'takesTiny'} ability */
function namesWith(ability) {
  return Object.keys(benches)
    .filter((name) => benches[name][ability] === true)
    .join(', ')
}

/** @param {string[]} args */
function parseCommandLine(args) {
  const { values, positionals } = parsed(() =>
    parseArgs({
      args,
      allowPositionals: true,
      options: {
        json: { type: 'boolean', default: false },
        faults: { type: 'string' },
        members: { type: 'string' },
        tiny: { type: 'boolean', default: false },
        rounds: { type: 'string' },
        out: { type: 'string', multiple: true, default: [] },
        transport: { type: 'string' },
        help: { type: 'boolean', default: false },
      },
    }),
  )
  const list = positionals.length === 1 && positionals[0] === 'list'
  const names = list
    ? Object.keys(benches)
    : positionals.length > 0
      ? positionals
      : Object.keys(benches).filter((name) => !notByItself.includes(name))
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
  const { json, help, out, tiny } = values
  const members =
    values.members === undefined ? undefined : parseInteger('members', values.members, 2, 8)
  if (members !== undefined) mustAll(names, 'takesMembers', '--members')
  if (tiny) mustAll(names, 'takesTiny', '--tiny')
  const transport = readTransport(values.transport)
  checkOutputs(out)
  return { names, list, json, help, out, options: { faults, rounds, transport, members, tiny } }
}

/**
 * @param {string[]} names
 * @param {'takesMembers' | 'takesTiny'} ability
 * @param {string} option
 */
function mustAll(names, ability, option) {
  const without = names.find((name) => benches[name][ability] !== true)
  if (without === undefined) return
  throw new UsageError(`${option} is for ${namesWith(ability)}, not for '${without}'`)
}

/** @param {string | undefined} text */
function readTransport(text) {
  if (text === undefined) return undefined
  const transport = parseChoice('transport', text, transports)
  const reason = reasonAgainst(transport)
  if (reason !== undefined) throw new UsageError(`--transport ${transport}: ${reason}`)
  return transport
}

/**
 * @param {string} name
 * @param {Options} options
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
  const args = process.argv.slice(2)
  if (args[0] === 'compare') return compare.main(args.slice(1))
  const { names, list, json, help, out, options } = parseCommandLine(args)
  if (help) return console.log(usage)
  if (list) {
    for (const name of names) console.log(`${name.padEnd(10)}${benches[name].summary}`)
    return
  }
  if (!json) console.log(describeMachine())
  const run = { date: new Date().toISOString(), machine: machineFacts() }
  const figures = []
  for (const name of names) {
    const lines = await runBench(name, options)
    const { format = formatTable } = benches[name]
    console.log(json ? lines.map(toJson).join('\n') : `\n${format(lines)}`)
    figures.push(...lines.map((line) => ({ bench: name, ...line })))
    if (lines.some((line) => line.failed === true)) process.exitCode = 1
  }
  const command = ['npm run bench --', ...args].join(' ')
  await writeOutputs(out, { ...run, command, lines: figures })
}

await runProgram(main, usage)
