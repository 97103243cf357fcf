import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import os from 'node:os'

/**
 * What figures depend on. Two runs are of one machine if all but the load and the commit are the
 * same.
 * @typedef {object} Machine
 * @property {string} processor
 * @property {number} cores
 * @property {boolean} virtual whether it is a virtual machine
 * @property {number} memoryBytes
 * @property {string} kernel
 * @property {string} node
 * @property {number} load of the last minute, when the run began
 * @property {string | null} commit of what was measured, if it is known
 */

/** @returns {Machine} */
export function machineFacts() {
  const cpus = os.cpus()
  return {
    processor: cpus[0]?.model.trim() ?? 'unknown processor',
    cores: cpus.length,
    virtual: /^flags.*\bhypervisor\b/m.test(readFileSync('/proc/cpuinfo', 'utf8')),
    memoryBytes: os.totalmem(),
    kernel: `${os.type()} ${os.release()}`,
    node: process.version,
    load: os.loadavg()[0],
    commit: commitOf(new URL('.', import.meta.url)),
  }
}

/**
 * @param {URL} folder
 * @returns {string | null} with a mark if files are not as they were committed
 */
function commitOf(folder) {
  try {
    const args = ['describe', '--always', '--dirty', '--exclude', '*']
    const options = { cwd: folder, stdio: ['ignore', 'pipe', 'ignore'], encoding: 'utf8' }
    return String(execFileSync('git', args, /** @type {any} */ (options))).trim()
  } catch {
    return null // no repository, or no git
  }
}

/**
 * @param {Machine} one
 * @param {Machine} other
 * @returns {string[]} what is different between two machines that the figures depend on
 */
export function machineDifferences(one, other) {
  /** @type {(keyof Machine)[]} */
  const facts = ['processor', 'cores', 'virtual', 'memoryBytes', 'kernel', 'node']
  return facts
    .filter((fact) => one[fact] !== other[fact])
    .map((fact) => `${fact}: ${one[fact]} and ${other[fact]}`)
}
