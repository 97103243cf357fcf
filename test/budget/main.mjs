// Counts the instructions of the native fault path and of a step of the protocol, and holds them
// against test/budget/budget.json. Counts, not seconds: they are the same on a busy machine. Ends
// with `N passed, N failed`.
//
//   npm run test:budget -- [--update] [native] [protocol]
import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import * as fs from 'node:fs'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { readPart, selfCosts } from './callgrind.mjs'
import { compare, figureOf } from './compare.mjs'

const folder = path.resolve('build/budget')
const budgetFile = 'test/budget/budget.json'
const faultsCounted = 500 // kPages of faults.cc
const usage = `Usage: npm run test:budget -- [--update] [native] [protocol]
  --update  writes what is counted now to ${budgetFile}
  native    the path of a fault in native code (some seconds)
  protocol  a step of the protocol in TypeScript (half a minute); both if nothing is said`

function stop(message) {
  console.error(`${message}\n${usage}`)
  process.exit(1)
}

function readArguments() {
  const options = {
    update: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  }
  try {
    const { values, positionals } = parseArgs({ options, allowPositionals: true })
    const unknown = positionals.find((name) => !['native', 'protocol'].includes(name))
    if (unknown !== undefined) stop(`There is no '${unknown}' to count.`)
    const parts = positionals.length > 0 ? positionals : ['native', 'protocol']
    return { ...values, parts }
  } catch (error) {
    return stop(error.message)
  }
}

function progress(line) {
  if (process.stderr.isTTY) process.stderr.write(`${line}…\r`)
}

/** The driver, built of what the addon is built of, but for what needs Node.js. */
function buildDriver() {
  const list = fs.readFileSync('native/sources.gypi', 'utf8').match(/native\/[\w/]+\.cc/g)
  const sources = list.filter(
    (file) => /binding\/(session|barrier_words)/.test(file) || !/addon|binding/.test(file),
  )
  const flags = [
    '-std=c++17',
    '-O2',
    '-g1',
    '-fno-exceptions',
    '-fno-rtti',
    '-Inative',
    '-DPAGEMESH_NEVER_SPIN',
  ]
  const program = path.join(folder, 'faults')
  const headers = fs.readdirSync('native', { recursive: true }).filter((file) => /\.h$/.test(file))
  const hash = createHash('sha256').update(flags.join())
  for (const file of [...sources, ...headers.map((header) => path.join('native', header))]) {
    hash.update(fs.readFileSync(file))
  }
  const stamp = hash.update(fs.readFileSync('test/budget/faults.cc')).digest('hex')
  const stampFile = `${program}.stamp`
  if (fs.existsSync(stampFile) && fs.readFileSync(stampFile, 'utf8') === stamp) return program
  progress('building the driver')
  const args = [...flags, '-o', program, 'test/budget/faults.cc', ...sources, '-lpthread', '-ldl']
  execFileSync('g++', args, { stdio: ['ignore', 'inherit', 'inherit'] })
  fs.writeFileSync(stampFile, stamp)
  return program
}

/**
 * Runs a program in callgrind, which dumps its counts at each call of `moment`.
 * @returns {{ pids: number[], output: string }} the processes, the one that was started first
 */
function runCounted(name, moment, command) {
  progress(`counting: ${name}`)
  for (const file of fs.readdirSync(folder).filter((file) => file.startsWith(`${name}.`))) {
    fs.rmSync(path.join(folder, file))
  }
  const options = ['--tool=callgrind', `--callgrind-out-file=${folder}/${name}.%p`]
  const result = spawnSync('valgrind', [...options, `--dump-before=${moment}`, ...command], {
    encoding: 'utf8',
    timeout: 300_000,
    killSignal: 'SIGKILL',
  })
  if (result.status !== 0) {
    console.error(`${result.stdout ?? ''}${result.stderr ?? ''}${result.error?.message ?? ''}`)
    throw new Error(`valgrind ${command.join(' ')} ended with ${result.status ?? result.signal}`)
  }
  const pids = fs
    .readdirSync(folder)
    .filter((file) => file.startsWith(`${name}.`) && file.endsWith('.2'))
    .map((file) => Number(file.split('.')[1]))
  const started = pids.filter((pid) => pid === result.pid)
  const forked = pids.filter((pid) => pid !== result.pid)
  return { pids: [...started, ...forked], output: result.stdout }
}

function countNative(mode) {
  const { pids } = runCounted(mode, 'Moment', [buildDriver(), mode])
  const [requester, home] = pids.map((pid) => {
    const text = readPart(path.join(folder, `${mode}.${pid}`), 2)
    // The C library is left out: how it copies a page depends on the processor.
    return figureOf(selfCosts(text, '/faults'), faultsCounted)
  })
  return { [`${mode}, where it faults`]: requester, [`${mode}, at the home`]: home }
}

function countProtocol() {
  // Without its compilers and its other threads V8 does the same each time.
  const flags = ['--jitless', '--single-threaded', '--hash-seed=1', '--random-seed=1']
  const command = [process.execPath, ...flags, 'test/budget/protocol-steps.mjs']
  const { pids, output } = runCounted('protocol', 'uv_os_getpriority', command)
  const costs = selfCosts(readPart(path.join(folder, `protocol.${pids[0]}`), 2))
  const { instructions } = figureOf(costs, Number(output))
  return { 'a step, interpreted': { instructions } }
}

const { update, help, parts } = readArguments()
if (help) {
  console.log(usage)
  process.exit(0)
}
fs.mkdirSync(folder, { recursive: true })
const budget = JSON.parse(fs.readFileSync(budgetFile, 'utf8'))
const [compiler] = execFileSync('g++', ['-dumpversion'], { encoding: 'utf8' }).split('.')
let passed = 0
let failed = 0

function report(ok, lines) {
  if (ok) passed++
  else failed++
  console.log([`${ok ? 'ok  ' : 'FAIL'} ${lines[0]}`, ...lines.slice(1)].join('\n     '))
}

/** @param {Record<string, import('./compare.mjs').Figure>} figures */
function hold(tools, figures) {
  const ours = (budget.figures[tools] ??= {})
  for (const [name, figure] of Object.entries(figures)) {
    if (update) ours[name] = figure
    const { ok, lines } = compare(`${name} (${tools})`, figure, ours[name], budget.tolerance)
    report(ok, lines)
  }
}

if (parts.includes('native')) {
  const tools = `${process.arch}, g++ ${compiler.trim()}`
  hold(tools, countNative('read'))
  hold(tools, countNative('upgrade'))
  // The same upgrade with a few instructions more, on purpose: it must be found out.
  const [planted] = Object.values(countNative('planted'))
  const limit = budget.figures[tools]['upgrade, where it faults']
  const { ok, lines } = compare('planted', planted, limit, budget.tolerance)
  const named = lines.some((line) => line.includes('PlantedWork'))
  report(!ok && named, [`what was planted is ${ok || !named ? 'NOT ' : ''}found out`, ...lines])
}
if (parts.includes('protocol')) {
  hold(`${process.arch}, Node.js ${process.versions.node}`, countProtocol())
}
if (update) fs.writeFileSync(budgetFile, `${JSON.stringify(budget, undefined, 2)}\n`)
if (failed > 0) console.log('If it is worth it: npm run test:budget -- --update, and say why.')
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed > 0 ? 1 : 0
