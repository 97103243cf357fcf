import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'

/** What a page fault over verbs is held against, in words. */
export const readLatencyFloor = 'ib_read_lat -s 4096 (perftest), which spins for its completions'

const startMs = 1_000
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
export async function readLatenciesUs(iterations, host) {
  const [device, port, gid] = (process.env.PAGEMESH_RDMA_DEVICE ?? 'rxe0:1:1').split(':')
  const count = String(iterations + warmUpCount)
  const args = ['-d', device, '-i', port, '-x', gid, '-s', '4096', '-n', count, '-F', '-U']
  const server = spawn('ib_read_lat', args, { stdio: 'ignore', timeout: timeoutMs })
  server.on('error', () => {}) // the client says it too
  await delay(startMs)
  const client = spawn('ib_read_lat', [...args, host], { timeout: timeoutMs })
  let output = ''
  for (const stream of [client.stdout, client.stderr]) {
    stream.setEncoding('utf8').on('data', (text) => (output += text))
  }
  try {
    const [code] = await once(client, 'close')
    const samplesUs = [...output.matchAll(/^\d+, ([\d.]+)$/gm)].map(([, us]) => Number(us))
    if (code !== 0 || samplesUs.length <= warmUpCount) {
      throw new Error(`ib_read_lat failed (exit code ${code}):\n${output}`)
    }
    return samplesUs.slice(warmUpCount)
  } finally {
    server.kill()
  }
}
