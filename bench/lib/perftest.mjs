import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'

/** What a page fault over verbs is held against, in words. */
export const readLatencyFloor = 'ib_read_lat -s 4096 (perftest), which spins for its completions'

/** What an operation on a word by RDMA is held against, in words. */
export const atomicLatencyFloor = 'ib_atomic_lat (perftest), which spins for its completions'

const port = 18_516
const pollMs = 20
const timeoutMs = 60_000
/** The first reads of a run set up what later ones use. */
const warmUpCount = 10

/**
 * Runs perftest's RDMA READ latency between two processes of this machine, over the device and
 * GID that the members use too.
 * @param {number} iterations
 * @param {string} host the address of the device
 * @returns {Promise<number[]>} µs of each read
 */
export function readLatenciesUs(iterations, host) {
  return latenciesUs('ib_read_lat', ['-s', '4096'], iterations, host)
}

/**
 * The same of RDMA fetch-and-add.
 * @param {number} iterations
 * @param {string} host the address of the device
 * @returns {Promise<number[]>} µs of each
 */
export function atomicLatenciesUs(iterations, host) {
  return latenciesUs('ib_atomic_lat', [], iterations, host)
}

/**
 * @param {string} program
 * @param {string[]} own its own arguments
 * @param {number} iterations
 * @param {string} host
 */
async function latenciesUs(program, own, iterations, host) {
  const [device, devicePort, gid] = (process.env.PAGEMESH_RDMA_DEVICE ?? 'rxe0:1:1').split(':')
  const count = String(iterations + warmUpCount)
  const args = ['-d', device, '-i', devicePort, '-x', gid, '-p', String(port)]
  args.push(...own, '-n', count, '-F', '-U')
  const server = spawn(program, args, { stdio: 'ignore', timeout: timeoutMs })
  server.on('error', () => {}) // the client says it too
  await untilListening(program, server)
  const client = spawn(program, [...args, host], { timeout: timeoutMs })
  let output = ''
  for (const stream of [client.stdout, client.stderr]) {
    stream.setEncoding('utf8').on('data', (text) => (output += text))
  }
  try {
    const [code] = await once(client, 'close')
    const samplesUs = [...output.matchAll(/^\d+, ([\d.]+)$/gm)].map(([, us]) => Number(us))
    if (code !== 0 || samplesUs.length <= warmUpCount) {
      throw new Error(`${program} failed (exit code ${code}):\n${output}`)
    }
    return samplesUs.slice(warmUpCount)
  } finally {
    server.kill()
  }
}

/**
 * Perftest says nothing when its server is ready, and its client tries once.
 * @param {string} program
 * @param {import('node:child_process').ChildProcess} server
 */
async function untilListening(program, server) {
  const listening = new RegExp(`:${port.toString(16).toUpperCase()} \\S+ 0A `)
  const tables = ['/proc/net/tcp', '/proc/net/tcp6']
  const deadlineMs = performance.now() + timeoutMs
  while (!tables.some((table) => listening.test(readFileSync(table, 'utf8')))) {
    if (server.exitCode !== null || performance.now() > deadlineMs) {
      throw new Error(`the server of ${program} did not start (exit code ${server.exitCode})`)
    }
    await delay(pollMs)
  }
}
