// npm run histories -- [--members N] [--transport T] [--operations N] [--seed N] [--rounds N] …
import { readFileSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { parseChoice, parsed, parseInteger, runProgram } from '../../bench/lib/command-line.mjs'
import { checkHistory, show } from './checks.mjs'
import { record } from './record.mjs'

const usage = `usage: npm run histories -- [options]
  --members N     2 to 16 (default 3)
  --transport T   shm, tcp, verbs or auto (default shm)
  --operations N  steps of each thread in a round, 50 to 2000 (default 200)
  --rounds N      1 to 10000 (default 10); in every third one a member is killed
                  (none with --break)
  --seed N        of the first round; the next ones count on (default 1)
  --break WHAT    stale, lock or add: breaks the members, to see that it is found
  --json          one JSON object per round on stdout, and nothing else
  --check FILE    checks a history that was written to a file, and records nothing`

function parseCommandLine() {
  const { values } = parsed(() =>
    parseArgs({
      options: {
        members: { type: 'string', default: '3' },
        transport: { type: 'string', default: 'shm' },
        operations: { type: 'string', default: '200' },
        rounds: { type: 'string', default: '10' },
        seed: { type: 'string', default: '1' },
        break: { type: 'string', default: 'none' },
        json: { type: 'boolean', default: false },
        check: { type: 'string' },
        help: { type: 'boolean', default: false },
      },
    }),
  )
  return {
    help: values.help,
    json: values.json,
    check: values.check,
    members: parseInteger('members', values.members, 2, 16),
    transport: parseChoice('transport', values.transport, ['shm', 'tcp', 'verbs', 'auto']),
    operations: parseInteger('operations', values.operations, 50, 2000),
    rounds: parseInteger('rounds', values.rounds, 1, 10_000),
    seed: parseInteger('seed', values.seed, 0, 1_000_000),
    broken: parseChoice('break', values.break, ['none', 'stale', 'lock', 'add']),
  }
}

/**
 * @param {ReturnType<typeof checkHistory>} verdict
 * @param {(line: string) => void} say
 */
function explain({ outcome, check, reason, operations = [] }, say) {
  say(`${outcome} by the check of ${check}: ${reason}`)
  for (const operation of operations) say(`  ${show(operation)}`)
}

async function main() {
  const options = parseCommandLine()
  if (options.help) return console.log(usage)
  if (options.check !== undefined) {
    const verdict = checkHistory(JSON.parse(readFileSync(options.check, 'utf8')))
    if (options.json) console.log(JSON.stringify(verdict))
    else if (verdict.outcome === 'ok') console.log('ok')
    else explain(verdict, console.log)
    if (verdict.outcome !== 'ok') process.exitCode = 1
    return
  }
  let total = 0
  for (let round = 0; round < options.rounds; round += 1) {
    const seed = options.seed + round
    // Broken additions touch pages that a killed member homes.
    const kill = options.broken === 'none' && round % 3 === 2
    if (process.stderr.isTTY) process.stderr.write(`\rround ${round + 1} of ${options.rounds} `)
    const history = await record({ ...options, seed, kill })
    total += history.length
    const startMs = performance.now()
    const verdict = checkHistory(history)
    const checkMs = Math.round(performance.now() - startMs)
    const { outcome } = verdict
    const open = history.filter(({ returnedNs }) => returnedNs === null).length
    const line = { round, seed, kill, operations: history.length, open, checkMs, outcome }
    if (outcome === 'ok') {
      if (options.json) console.log(JSON.stringify(line))
      continue
    }
    const file = `history-${process.pid}-${seed}.json`
    writeFileSync(file, JSON.stringify(history))
    if (options.json) console.log(JSON.stringify({ ...line, ...verdict, file }))
    explain(verdict, console.error)
    console.error(`written to ${file}; npm run histories -- --check ${file} reads it again`)
    process.exitCode = 1
    return
  }
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K')
  if (!options.json) console.log(`${options.rounds} rounds, ${total} operations: all ok`)
}

await runProgram(main, usage)
