// npm run litmus -- [NAME…] [--transport T] [--members N] [--iterations N] [--seed N] [--json]
import { parseArgs } from 'node:util'
import {
  parseChoice,
  parsed,
  parseInteger,
  runProgram,
  UsageError,
} from '../bench/lib/command-line.mjs'
import { Members } from '../bench/lib/members.mjs'
import { startProgressBar } from '../bench/lib/progress-bar.mjs'
import { describeMachine } from '../bench/lib/report.mjs'
import { countBatches } from './lib/batches.mjs'
import { BROKEN_MEMORIES } from './lib/broken-memories.mjs'
import { catalogue } from './lib/catalogue.mjs'
import { countOutcomes, mergeObservations } from './lib/count.mjs'
import { formatLegend, formatProgram, formatSummary } from './lib/report.mjs'
import { programOf, variantsOf } from './lib/variants.mjs'

/** @typedef {import('./lib/catalogue.mjs').Program} Program */
/** @typedef {import('./lib/variants.mjs').Variant} Variant */
/** @typedef {import('./lib/count.mjs').Result} Result */

const mostMembers = 32
const transports = ['shm', 'tcp', 'verbs', 'auto']
/** Patience with one run: under emulation an iteration takes milliseconds. */
const runTimeoutMs = 60_000
const iterationTimeoutMs = 50

const usage = `usage: npm run litmus -- [NAME…] [options]
  NAME            tests, as 'SB' or '2+2W'; all without a name; 'list' shows them
  --transport T   shm, tcp, verbs or auto: how the members reach each other (default shm)
  --members N     at least so many members, 2 to ${mostMembers}; the rest looks on (default: one per thread)
  --iterations N  of each test in each variant, 1 to 1000000 (default 10000)
  --seed N        of delays, homes, and who runs what, 0 to 4294967295 (default 1)
  --json          one JSON object per test and variant on stdout, and nothing else
  --broken KIND   tests the tests: members use a memory that is wrong (${Object.keys(BROKEN_MEMORIES).join(', ')})
The exit code is 1 if a forbidden outcome was seen.`

/** @param {string[]} args */
function parseCommandLine(args) {
  const { values, positionals } = parsed(() =>
    parseArgs({
      args,
      allowPositionals: true,
      options: {
        transport: { type: 'string', default: 'shm' },
        members: { type: 'string', default: '2' },
        iterations: { type: 'string', default: '10000' },
        seed: { type: 'string', default: '1' },
        json: { type: 'boolean', default: false },
        broken: { type: 'string' },
        help: { type: 'boolean', default: false },
      },
    }),
  )
  const list = positionals.length === 1 && positionals[0] === 'list'
  const known = catalogue.map(({ name }) => name)
  const chosen = list || positionals.length === 0 ? known : positionals
  for (const name of chosen) {
    if (known.includes(name)) continue
    throw new UsageError(`no litmus test is called '${name}'; there are ${known.join(', ')}`)
  }
  const { transport, broken, json, help } = values
  parseChoice('transport', transport, transports)
  if (broken !== undefined) parseChoice('broken', broken, Object.keys(BROKEN_MEMORIES))
  return {
    programs: catalogue.filter(({ name }) => chosen.includes(name)),
    list,
    json,
    help,
    transport,
    broken,
    memberCount: parseInteger('members', values.members, 2, mostMembers),
    iterations: parseInteger('iterations', values.iterations, 1, 1e6),
    seed: parseInteger('seed', values.seed, 0, 2 ** 32 - 1),
  }
}

/** @typedef {ReturnType<typeof parseCommandLine>} Plan */

/** A mesh of one size, on which programs run one after the other. */
class Rig {
  #members
  #size
  #plan
  /** Of batches: what a page held before is told apart from what it holds now. */
  #epoch = 1

  /** @param {Members} members @param {number} size @param {Plan} plan */
  constructor(members, size, plan) {
    this.#members = members
    this.#size = size
    this.#plan = plan
  }

  /** @param {number} size @param {Plan} plan */
  static async start(size, plan) {
    const { transport, broken } = plan
    const program = new URL('member.mjs', import.meta.url)
    const members = await Members.start(program, { size, transport, options: { broken } })
    return new Rig(members, size, plan)
  }

  /** @param {Program} program @param {Variant} variant @param {number} number of the run */
  async run(program, variant, number) {
    const { iterations, seed } = this.#plan
    const run = {
      program: programOf(program, variant),
      variant,
      iterations,
      seed: (Math.imul(seed, 1009) + number) >>> 0,
      firstEpoch: this.#epoch,
    }
    this.#epoch += countBatches(run)
    const timeoutMs = runTimeoutMs + iterations * iterationTimeoutMs
    const parts = await this.#members.askAll('run', run, { timeoutMs })
    return countOutcomes(program, variant, mergeObservations(parts), iterations)
  }

  get size() {
    return this.#size
  }

  async stop() {
    await this.#members.askAll('endWorkers')
    await this.#members.stop()
  }

  kill() {
    return this.#members.kill()
  }
}

/**
 * A wrong memory stands before words only, and between members.
 * @param {Program} program
 * @param {Plan} plan
 */
function variantsFor(program, { broken }) {
  return variantsOf(program).filter(
    ({ layout, place }) => broken === undefined || (layout !== 'straddling' && place === 'members'),
  )
}

/** @param {Plan} plan @param {(results: Result[]) => void} tell called for each program */
async function runAll(plan, tell) {
  const { programs, memberCount } = plan
  const total = programs.reduce((sum, program) => sum + variantsFor(program, plan).length, 0)
  const bar = startProgressBar('litmus', total)
  /** @type {Rig | undefined} */
  let rig
  /** @type {Result[]} */
  const all = []
  try {
    for (const program of programs) {
      const size = Math.max(program.threads.length, memberCount)
      if (rig?.size !== size) {
        await rig?.stop()
        rig = await Rig.start(size, plan)
      }
      const first = all.length
      for (const variant of variantsFor(program, plan)) {
        all.push(await rig.run(program, variant, all.length))
        bar.step()
      }
      tell(all.slice(first))
    }
    await rig?.stop()
  } finally {
    bar.stop()
    await rig?.kill()
  }
  return all
}

async function main() {
  const plan = parseCommandLine(process.argv.slice(2))
  if (plan.help) return console.log(usage)
  if (plan.list) {
    for (const { name, text } of plan.programs) console.log(`${name.padEnd(12)}${text}`)
    return
  }
  const { json, transport, seed } = plan
  if (!json) console.log(`${describeMachine()}\n\n${formatLegend()}`)
  const startMs = performance.now()
  const results = await runAll(plan, (part) => {
    console.log(
      json ? part.map((line) => JSON.stringify(line)).join('\n') : `\n${formatProgram(part)}`,
    )
  })
  const seconds = (performance.now() - startMs) / 1_000
  if (!json) console.log(`\n${formatSummary(results, { transport, seed, seconds })}`)
  if (results.some(({ forbidden }) => forbidden > 0)) process.exitCode = 1
}

await runProgram(main, usage)
