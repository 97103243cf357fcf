// Random use with kills for as long as is said: members that live on are in one mesh after the
// other, and in some of them another member is killed. What they hold must stay flat. Ends with
// `N passed, N failed`.
//
//   npm run soak -- [--minutes N] [--seed N] [--members N]
import { fork } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { growths, sampleProcess } from './flatness.mjs'

const usage = `Usage: npm run soak -- [--minutes N] [--seed N] [--members N]
  --minutes N  for how long; 1 if nothing is said, fractions are fine
  --members N  how many in a mesh, 2 to 8; 3 if nothing is said
  --seed N     of what they do; what the clock says if nothing is said`
const program = fileURLToPath(new URL('member.mjs', import.meta.url))
/** Far beyond what a round takes, so that only a hang ends in it. */
const patienceMs = 60_000
const warmUpRounds = 5

function stop(message) {
  console.error(`${message}\n${usage}`)
  process.exit(2)
}

function readArguments() {
  const options = {
    minutes: { type: 'string', default: '1' },
    members: { type: 'string', default: '3' },
    seed: { type: 'string', default: String((Date.now() % 1_000_000) + 1) },
    help: { type: 'boolean', default: false },
  }
  let values
  try {
    ;({ values } = parseArgs({ options }))
  } catch (error) {
    stop(error.message)
  }
  if (values.help) {
    console.log(usage)
    process.exit(0)
  }
  const given = {
    minutes: Number(values.minutes),
    members: Number(values.members),
    seed: Number(values.seed),
  }
  if (!(given.minutes > 0)) stop(`--minutes must be a number above 0, not '${values.minutes}'`)
  if (![2, 3, 4, 5, 6, 7, 8].includes(given.members)) stop('--members must be 2 to 8')
  if (!Number.isInteger(given.seed) || given.seed < 1) stop('--seed must be a whole number from 1')
  return given
}

const { minutes, members, seed } = readArguments()
const folder = mkdtempSync(path.join(tmpdir(), 'pagemesh-soak-'))
const alive = new Set()
process.on('exit', () => {
  for (const child of alive) child.kill('SIGKILL')
  rmSync(folder, { recursive: true, force: true })
})

async function start() {
  const child = fork(program, {
    execArgv: ['--expose-gc'],
    env: { ...process.env, NODE_OPTIONS: '' },
  })
  alive.add(child)
  child.once('exit', () => alive.delete(child))
  await once(child, 'message')
  return child
}

/** The next message of this child's that is none of those that come on the way. */
async function answerOf(child, onVictimMayGo) {
  const abort = new AbortController()
  const { signal } = abort
  const late = setTimeout(() => abort.abort(new Error('a round hangs')), patienceMs)
  const ended = once(child, 'exit', { signal }).then(([code, killed]) => {
    throw new Error(`a member ended with ${killed ?? code}`)
  })
  ended.catch(() => undefined)
  try {
    for (;;) {
      const [message] = await Promise.race([once(child, 'message', { signal }), ended])
      if (message.type === 'victimMayGo') onVictimMayGo()
      else if (message.type === 'failed') throw new Error(message.message)
      else return message
    }
  } finally {
    clearTimeout(late)
    abort.abort()
  }
}

/** One mesh. With a victim, its last rank is a process of its own that is killed. */
async function playRound(stayers, number) {
  const withVictim = number % 4 === 3
  const victim = withVictim ? await start() : undefined
  const all = withVictim ? [...stayers, victim] : stayers
  const key = randomBytes(32).toString('hex')
  const rendezvous = `file:${folder}/rendezvous-${number}`
  for (const [rank, child] of all.entries()) {
    child.send({
      environment: { rank, size: all.length, key, rendezvous },
      seed: seed + number,
      steps: 200,
      pages: 64,
      victim: withVictim ? all.length - 1 : undefined,
    })
  }
  let ready = 0
  const onVictimMayGo = () => {
    if (++ready === stayers.length) victim.kill('SIGKILL')
  }
  const results = await Promise.all(stayers.map((child) => answerOf(child, onVictimMayGo)))
  if (withVictim) return { killed: true, wrong: 0 }
  const added = results.reduce((sum, result) => sum + result.added, 0)
  return { killed: false, wrong: results.filter(({ total }) => total !== added).length }
}

const stayers = []
for (let i = 0; i < members; i++) stayers.push(await start())
const untilMs = performance.now() + minutes * 60_000
const samples = stayers.map(() => [])
let rounds = 0
let kills = 0
let wrong = 0
for (; performance.now() < untilMs || rounds < warmUpRounds + 9; rounds++) {
  const round = await playRound(stayers, rounds)
  if (round.killed) kills++
  wrong += round.wrong
  if (rounds < warmUpRounds) continue
  for (const [i, child] of stayers.entries()) samples[i].push(sampleProcess(child.pid))
  if (process.stderr.isTTY) {
    const leftS = Math.round((untilMs - performance.now()) / 1000)
    process.stderr.write(`${rounds + 1} meshes, ${kills} kills, ${leftS} s to go   \r`)
  }
}

let failed = 0
for (const [rank, of] of samples.entries()) {
  const grown = growths(of)
  if (grown.length > 0) failed++
  const [first, last] = [of[0], of[of.length - 1]]
  console.log(`${grown.length === 0 ? 'ok  ' : 'FAIL'} member ${rank}, ${of.length} samples`)
  for (const name of Object.keys(first)) console.log(`     ${name}: ${first[name]} → ${last[name]}`)
  for (const { name, first, last } of grown) {
    console.log(
      `     ${name} has grown, from ${Math.round(first)} to ${Math.round(last)} in the mean`,
    )
  }
}
if (wrong > 0) failed++
console.log(`${wrong === 0 ? 'ok  ' : 'FAIL'} sums in ${rounds} meshes, with ${kills} kills`)
console.log(`seed ${seed}`)
console.log(`${samples.length + 1 - failed} passed, ${failed} failed`)
process.exit(failed === 0 ? 0 : 1)
