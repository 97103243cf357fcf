/** What `npm run demo` shows when all is built: PageRank by several members over loopback. */
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { constants } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { defaultColumns, terminalColumnsVariable } from './support/progress.mjs'

const launcherPath = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url))
const programPath = fileURLToPath(new URL('pagerank.mjs', import.meta.url))

function readMemberCount() {
  const { values } = parseArgs({ options: { members: { type: 'string', default: '4' } } })
  const count = Number(values.members)
  if (Number.isInteger(count) && count >= 1) return count
  throw new RangeError(`--members should be a whole number from 1, not ${values.members}`)
}

/** @param {number} memberCount @returns {Promise<number>} the exit code */
function runPagerank(memberCount) {
  const launch = [launcherPath, 'run', '-n', String(memberCount), '--no-prefix', programPath]
  const env = { ...process.env }
  if (process.stdout.isTTY) {
    env[terminalColumnsVariable] = String(process.stdout.columns || defaultColumns)
  }
  const child = spawn(process.execPath, launch, { stdio: 'inherit', env })
  // The launcher ends its members; we only have to outlive it. On Ctrl-C the terminal tells it too.
  process.on('SIGINT', () => {})
  process.on('SIGTERM', () => child.kill('SIGTERM'))
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('exit', (code, signal) => {
      resolve(code ?? 128 + (signal === null ? 0 : constants.signals[signal]))
    })
  })
}

const memberCount = readMemberCount()
if (!existsSync(launcherPath)) {
  console.error('pagemesh is not built yet: `npm run demo` does that first')
  process.exitCode = 1
} else {
  console.log('PageRank over WordNet, by processes that share their memory over loopback')
  console.log(`Members: ${memberCount}\n`)
  process.exitCode = await runPagerank(memberCount)
  if (process.exitCode === 0) {
    console.log('\nNext, a picture: npx pagemesh run -n 2 --no-prefix examples/heat.mjs')
  }
}
