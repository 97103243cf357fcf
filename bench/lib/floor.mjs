import { execFile } from 'node:child_process'
import { access } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const run = promisify(execFile)
const floorTimeoutMs = 60_000

/**
 * Runs one of the C programs of bench/floor, which setup compiles into build/bench.
 * @param {string} name
 * @param {string[]} args
 * @returns {Promise<any>} the JSON object that it printed
 */
export async function runFloor(name, args) {
  const program = fileURLToPath(new URL(`../../build/bench/${name}`, import.meta.url))
  try {
    await access(program)
  } catch (cause) {
    throw new Error(`${program} is missing: run 'node scripts/setup.mjs' first`, { cause })
  }
  const { stdout } = await run(program, args, {
    timeout: floorTimeoutMs,
    maxBuffer: 256 * 2 ** 20,
  })
  return JSON.parse(stdout)
}

/** What a fault over verbs is held against that a DSM is not to blame for, in words. */
export const verbsFaultFloor = 'a fault over verbs by hand, in C (bench/floor/verbs_fault.c)'

/**
 * @param {number} iterations
 * @returns {Promise<number[]>} µs of each fault, over the device that the members use too
 */
export async function verbsFaultsUs(iterations) {
  const [device, port, gidIndex] = (process.env.PAGEMESH_RDMA_DEVICE ?? 'rxe0:1:1').split(':')
  const args = ['--device', device, '--port', port, '--gid-index', gidIndex]
  const { samplesUs } = await runFloor('verbs_fault', [...args, '--iterations', `${iterations}`])
  return samplesUs
}
