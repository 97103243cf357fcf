import { fork } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { random } from './thread.mjs'

/** @typedef {import('./linearizability.mjs').Operation} Operation */

const program = fileURLToPath(new URL('member.mjs', import.meta.url))

/**
 * Runs members with random operations and gives what they did.
 * @param {{ members: number, operations: number, seed: number, transport: string, kill?: boolean,
 *   broken?: string, timeoutMs?: number }} options `kill` has the last member killed on the way
 * @returns {Promise<Operation[]>}
 */
export async function record(options) {
  const { members, operations, seed, transport, kill = false, broken = 'none' } = options
  const directory = mkdtempSync(path.join(tmpdir(), 'pagemesh-histories-'))
  const key = randomBytes(32).toString('hex')
  /** @type {import('node:child_process').ChildProcess[]} */
  const children = []
  let [killed, victimDone] = [false, false]
  let [ready, done, left] = [0, 0, 0]
  /** @type {string[][]} */
  const files = Array.from({ length: members }, (_, rank) =>
    ['main', 'worker'].map((thread) => path.join(directory, `${rank}.${thread}`)),
  )
  const plansOf = (/** @type {number} */ rank) =>
    ['main', 'worker'].map((name, i) => ({
      thread: `${rank}.${name}`,
      number: 2 * rank + i + 1,
      seed: seed * 1000 + 2 * rank + i,
      operations,
      broken,
      kill: !kill ? 'none' : rank === members - 1 ? 'victim' : 'survivor',
    }))
  try {
    await new Promise((resolve, reject) => {
      const timeoutMs = options.timeoutMs ?? 60_000
      const timer = setTimeout(() => reject(new Error(`no end after ${timeoutMs} ms`)), timeoutMs)
      const settle = (/** @type {Error | undefined} */ error) => {
        clearTimeout(timer)
        if (error === undefined) resolve(undefined)
        else reject(error)
      }
      const finish = () => {
        if (killed && done === members - 1) settle(undefined)
        else if (!killed && done === members) for (const child of children) child.send('leave')
      }
      for (let rank = 0; rank < members; rank += 1) {
        const child = fork(program, {
          env: {
            ...process.env,
            PAGEMESH_RANK: String(rank),
            PAGEMESH_SIZE: String(members),
            PAGEMESH_KEY: key,
            PAGEMESH_RENDEZVOUS: `file:${path.join(directory, 'rendezvous')}`,
            PAGEMESH_TRANSPORT: transport,
          },
          stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
        })
        children.push(child)
        let complaints = ''
        child.stderr?.on('data', (text) => (complaints += text))
        child.on('error', settle)
        child.on('message', (/** @type {any} */ message) => {
          if (message.done) {
            done += 1
            victimDone ||= rank === members - 1
            return finish()
          }
          if ((ready += 1) < members) return
          children.forEach((each, i) => each.send({ plans: plansOf(i), files: files[i] }))
          if (!kill) return
          // Once it has done something, and before it is through.
          const sizeAtKill = operations * 20 + random(seed)(operations * 30)
          const victim = members - 1
          const poll = setInterval(() => {
            const file = files[victim][0]
            if (!existsSync(file) || readFileSync(file).length < sizeAtKill) return
            clearInterval(poll)
            if (victimDone) return
            killed = true
            children[victim].kill('SIGKILL')
          }, 1)
          timer.unref()
          child.once('exit', () => clearInterval(poll))
        })
        child.on('exit', (code, signal) => {
          if (killed && rank === members - 1) return finish()
          if (code !== 0) {
            return settle(new Error(`rank ${rank} ended with ${signal ?? code}: ${complaints}`))
          }
          if ((left += 1) === members) settle(undefined)
        })
      }
    })
    if (kill && !killed) throw new Error('the member was through before it could be killed')
    return readRecords(files)
  } finally {
    for (const child of children) if (child.exitCode === null) child.kill('SIGKILL')
    rmSync(directory, { recursive: true, force: true })
  }
}

/** @param {string[][]} files */
function readRecords(files) {
  /** @type {(Omit<Operation, 'invokedNs' | 'returnedNs'> & { times: (bigint | null)[] })[]} */
  const found = []
  files.forEach((list, rank) =>
    list.forEach((file, i) => {
      if (!existsSync(file)) return
      for (const line of readFileSync(file, 'utf8').split('\n')) {
        const [operation, invoked, returned, result] = line.split('\t')
        // A line that is cut off in the middle did not begin.
        if (invoked === undefined) continue
        found.push({
          thread: `${rank}.${i === 0 ? 'main' : 'worker'}`,
          ...JSON.parse(operation),
          ...(result === undefined || result === '' ? {} : { result: Number(result) }),
          times: [BigInt(invoked), result === undefined ? null : BigInt(returned)],
        })
      }
    }),
  )
  const times = found.map((each) => /** @type {bigint} */ (each.times[0]))
  const startNs = times.reduce((least, each) => (each < least ? each : least), times[0] ?? 0n)
  return found.map(({ times: [invoked, returned], ...operation }) => ({
    ...operation,
    invokedNs: Number(/** @type {bigint} */ (invoked) - startNs),
    returnedNs: returned === null ? null : Number(returned - startNs),
  }))
}
