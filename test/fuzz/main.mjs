// Fuzzes every decoder for a fixed time, and ends with `N passed, N failed`: a decoder passes if
// nothing was found, and the two that are wrong on purpose if they were found out.
//
//   npm run fuzz -- [--seconds N] [--seed N] [target …]
import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { decoders, planted } from './decoders.mjs'
import { fuzz } from './javascript-fuzzer.mjs'

const folder = 'build/fuzz'
const corpus = 'test/fuzz/corpus/tcp-records'
const names = ['tcp-records', 'planted-native', ...Object.keys(decoders), 'planted']
const usage = `Usage: npm run fuzz -- [--seconds N] [--seed N] [target …]
  --seconds N  how long each target runs; 20 if nothing is said
  --seed N     of the random numbers; what the clock says if nothing is said
Targets: ${names.join(', ')}`

function stop(message) {
  console.error(`${message}\n${usage}`)
  process.exit(2)
}

function readArguments() {
  const options = {
    seconds: { type: 'string', default: '20' },
    seed: { type: 'string', default: String(Date.now() % 2 ** 31) },
    help: { type: 'boolean', default: false },
    one: { type: 'boolean', default: false }, // in this process: how main starts itself
  }
  try {
    const { values, positionals } = parseArgs({ options, allowPositionals: true })
    return { ...values, targets: positionals }
  } catch (error) {
    return stop(error.message)
  }
}

function wholeNumber(name, text) {
  if (/^[1-9]\d{0,9}$/.test(text)) return Number(text)
  return stop(`--${name} must be a whole number from 1, not '${text}'`)
}

const arguments_ = readArguments()
if (arguments_.help) {
  console.log(usage)
  process.exit(0)
}
const seconds = wholeNumber('seconds', arguments_.seconds)
const seed = wholeNumber('seed', arguments_.seed)
const unknown = arguments_.targets.find((name) => !names.includes(name))
if (unknown !== undefined) stop(`There is no target '${unknown}'.`)

function runDecoder(name) {
  const { found, ...figures } = fuzz(decoders[name] ?? planted, { seconds, seed })
  console.log(JSON.stringify(figures))
  if (found === undefined) return 0
  const file = path.join(folder, `${name}-found`)
  fs.mkdirSync(folder, { recursive: true })
  fs.writeFileSync(file, found.input)
  console.log(`found: ${found.error.stack}\nthe input is in ${file}`)
  return 77
}

/** A decoder that hangs cannot be stopped from inside its process. */
function startDecoder(name) {
  const own = fileURLToPath(import.meta.url)
  const args = [own, '--one', '--seconds', String(seconds), '--seed', String(seed), name]
  const result = spawnSync(process.execPath, args, {
    encoding: 'utf8',
    timeout: (seconds + 60) * 1000,
  })
  if (result.error?.code === 'ETIMEDOUT') return { found: true, output: 'it hangs' }
  const output = `${result.stdout}${result.stderr}`
  if (result.status !== 0 && result.status !== 77) return { broken: true, output }
  return { found: result.status === 77, output }
}

function startNative(name) {
  fs.mkdirSync(path.join(folder, 'corpus'), { recursive: true })
  const program = path.join(folder, name)
  const flags = ['-std=c++17', '-g', '-O1', '-fsanitize=fuzzer,address,undefined']
  flags.push('-fno-sanitize-recover=all', '-Inative', '-o', program)
  if (name === 'planted-native') flags.push('-DPAGEMESH_FUZZ_PLANTED')
  const sources = ['native/base/check.cc', 'native/transport/tcp/tcp_connection.cc']
  sources.push('test/fuzz/tcp_records.cc')
  const built = spawnSync('clang++', [...flags, ...sources, '-lpthread'], { encoding: 'utf8' })
  if (built.status !== 0) return { broken: true, output: built.stderr ?? String(built.error) }
  const options = [`-max_total_time=${seconds}`, `-seed=${seed}`, '-max_len=20000', '-timeout=10']
  options.push(`-artifact_prefix=${folder}/${name}-`, '-print_final_stats=1')
  // What it learns goes to the first folder; the committed corpus is only read.
  const result = spawnSync(program, [...options, path.join(folder, 'corpus'), corpus], {
    encoding: 'utf8',
    timeout: (seconds + 60) * 1000,
    maxBuffer: 2 ** 28,
  })
  const lines = result.stderr.split('\n')
  const found = /ERROR: |SUMMARY: |check failed/.test(result.stderr)
  const executed = Number(/number_of_executed_units: (\d+)/.exec(result.stderr)?.[1] ?? 0)
  const figures = lines.filter((line) => /DONE|number_of_executed/.test(line)).join('\n')
  if (!found && (result.status !== 0 || executed < 100)) {
    return { broken: true, output: lines.slice(-30).join('\n') }
  }
  return { found, output: found ? lines.slice(-60).join('\n') : figures }
}

function runAll(chosen) {
  let failed = 0
  for (const name of chosen) {
    if (process.stderr.isTTY) process.stderr.write(`${name}: ${seconds} s…\r`)
    const isNative = name === 'tcp-records' || name === 'planted-native'
    const { found, broken, output } = isNative ? startNative(name) : startDecoder(name)
    const wanted = name.startsWith('planted')
    const ok = broken !== true && found === wanted
    if (!ok) failed++
    const outcome = broken ? 'did not run' : found ? 'found something' : 'found nothing'
    console.log(`${ok ? 'ok  ' : 'FAIL'} ${name}: ${outcome}${wanted ? ', as it must' : ''}`)
    if (!ok || !found) console.log(output.trim().replace(/^/gm, '     '))
  }
  console.log(`seed ${seed}`)
  console.log(`${chosen.length - failed} passed, ${failed} failed`)
  return failed === 0 ? 0 : 1
}

if (arguments_.one) process.exitCode = runDecoder(arguments_.targets[0])
else process.exitCode = runAll(arguments_.targets.length > 0 ? arguments_.targets : names)
