// Runs the tests with tap and ends with the line `N passed, N failed`: assertions, not files.
// On a terminal tap's own reporter shows what happens; elsewhere there is one line per file and
// the failures in full. The raw TAP is in build/test.tap.
//
//   node scripts/test.mjs [tap options] [test files]
import { spawn } from 'node:child_process'
import * as fs from 'node:fs'
import { createInterface } from 'node:readline'
import { TapCounter } from './tap-counter.mjs'

const tapFile = 'build/test.tap'
const onTerminal = process.stdout.isTTY === true
const counter = new TapCounter()
/** What tap says about how it started a file, which is the same for all of them. */
const testCommandLine =
  /^ *(stdio|cwd|externalID|command|args|jobId):|^ *- (--import=|--enable-|\/)/

function countsInWords({ passed, failed, skipped }) {
  const words = [`${passed} passed`]
  if (failed > 0) words.push(`${failed} failed`)
  if (skipped > 0) words.push(`${skipped} skipped`)
  return words.join(', ')
}

function reportOnLines() {
  counter.onFile = (name, counts) => {
    console.log(`${counts.failed > 0 ? 'FAIL' : 'ok  '} ${name} (${countsInWords(counts)})`)
  }
  counter.onFailure = (names, diagnostic) => {
    console.log(`  failed: ${names.join(' > ')}`)
    for (const line of diagnostic) {
      if (!testCommandLine.test(line)) console.log(line)
    }
  }
}

async function runTap() {
  const output = onTerminal ? `--output-file=${tapFile}` : '--reporter=tap'
  const args = ['node_modules/tap/dist/esm/run.mjs', output, ...process.argv.slice(2)]
  const child = spawn(process.execPath, args, {
    stdio: ['ignore', onTerminal ? 'inherit' : 'pipe', 'inherit'],
  })
  // tap gets the Ctrl-C of a terminal itself and ends its tests; what has run is still counted.
  process.on('SIGINT', () => child.kill('SIGINT'))
  process.on('SIGTERM', () => child.kill('SIGTERM'))
  const ended = new Promise((resolve) => {
    child.on('close', (code, signal) => resolve(signal ?? code))
  })
  if (!onTerminal) {
    reportOnLines()
    const copy = fs.createWriteStream(tapFile)
    for await (const line of createInterface({ input: child.stdout })) {
      counter.read(line)
      copy.write(`${line}\n`)
    }
    copy.end()
  }
  const status = await ended
  if (onTerminal && fs.existsSync(tapFile)) {
    for (const line of fs.readFileSync(tapFile, 'utf8').split('\n')) counter.read(line)
  }
  counter.end()
  return status
}

fs.mkdirSync('build', { recursive: true })
fs.rmSync(tapFile, { force: true })
const status = await runTap()
const { passed, skipped } = counter
let { failed } = counter
if (passed + failed === 0) {
  console.log('No test has run: that counts as a failure.')
  failed = 1
} else if (status !== 0 && failed === 0) {
  console.log(`tap ended with ${status}: that counts as a failure.`)
  failed = 1
}
if (skipped > 0) console.log(`${skipped} skipped`)
console.log(`${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 ? 0 : 1
