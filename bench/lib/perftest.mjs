import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'

/** What a page fault over verbs is held against, in words. */
export const readLatencyFloor = 'ib_read_lat -s 4096 (perftest), which spins for its completions'

/** What a page that is granted for writing is held against, in words. */
export const writeLatencyFloor =
  'ib_write_lat -s 4096 (perftest): half a round trip, of a page each way'

/** What pages that are prefetched are held against, in words. */
export const readBandwidthFloor = 'ib_read_bw -s 4096 (perftest), time per read'

/** What an operation on a word by RDMA is held against, in words. */
export const atomicLatencyFloor = 'ib_atomic_lat (perftest), which spins for its completions'

const port = 18_516
const pollMs = 20
const timeoutMs = 60_000
/** The first reads of a run set up what later ones use. */
const warmUpCount = 10
const readBytes = 4096
/** Perftest wants more iterations than it keeps under way. */
const leastForBandwidth = 200

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
 * The same of RDMA WRITE: half the time until the other side's write has come back.
 * @param {number} iterations
 * @param {string} host the address of the device
 * @returns {Promise<number[]>} µs of each write
 */
export function writeLatenciesUs(iterations, host) {
  return latenciesUs('ib_write_lat', ['-s', '4096'], iterations, host)
}

/**
 * How long a read takes where many are under way.
 * @param {number} iterations
 * @param {string} host the address of the device
 * @returns {Promise<number[]>} µs per read of 4096 bytes; one figure
 */
export async function readBandwidthUs(iterations, host) {
  const args = ['-s', String(readBytes), '-n', String(Math.max(iterations, leastForBandwidth))]
  const output = await runPair('ib_read_bw', args, host)
  // Bytes, iterations, peak and average MiB/s, million messages/s.
  const row = /^\s*4096\s+\d+\s+[\d.]+\s+([\d.]+)/m.exec(output)
  if (row === null) throw new Error(`ib_read_bw said nothing that can be read:\n${output}`)
  return [(readBytes / (Number(row[1]) * 2 ** 20)) * 1e6]
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
  const args = [...own, '-n', String(iterations + warmUpCount), '-U']
  const output = await runPair(program, args, host)
  const samplesUs = [...output.matchAll(/^\d+, ([\d.]+)$/gm)].map(([, us]) => Number(us))
  if (samplesUs.length <= warmUpCount) throw new Error(`${program} has no samples:\n${output}`)
  return samplesUs.slice(warmUpCount)
}

/**
 * @param {string} program
 * @param {string[]} own its own arguments
 * @param {string} host
 * @returns {Promise<string>} what its client printed
 */
async function runPair(program, own, host) {
  const [device, devicePort, gid] = (process.env.PAGEMESH_RDMA_DEVICE ?? 'rxe0:1:1').split(':')
  const args = ['-d', device, '-i', devicePort, '-x', gid, '-p', String(port), '-F', ...own]
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
    if (code !== 0) throw new Error(`${program} failed (exit code ${code}):\n${output}`)
    return output
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
