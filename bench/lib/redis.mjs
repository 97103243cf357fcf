import { spawn, spawnSync } from 'node:child_process'
import { accessSync, constants, existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

const startTimeoutMs = 10_000
const pollMs = 10
const installCommand = 'apt-get install -y --no-install-recommends redis-server'

/** @param {string} program */
function inPath(program) {
  return (process.env.PATH ?? '').split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, program), constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

/**
 * Installs Debian's redis-server if it is missing and this is root, as setup does with what it
 * needs; nobody else needs it, so it is not in setup.
 * @param {{ mayInstall: boolean }} how
 * @returns {string | undefined} why there is none
 */
export function reasonAgainstRedis({ mayInstall }) {
  if (inPath('redis-server')) return undefined
  if (mayInstall && process.getuid?.() === 0 && inPath('apt-get')) {
    // RUNLEVEL: the package would otherwise start a server of its own.
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' }
    for (const command of ['apt-get update', installCommand]) {
      const [program, ...args] = command.split(' ')
      spawnSync(program, args, { env, stdio: 'ignore' })
    }
    if (inPath('redis-server')) return undefined
  }
  return `no redis-server here; run: sudo ${installCommand}`
}

/** A Redis server of the benchmark's own: a Unix socket in a folder of its own, nothing on disk. */
export class RedisServer {
  #process
  #folder
  #output = ''

  /**
   * @param {string} folder
   * @param {number | undefined} cpu
   */
  constructor(folder, cpu) {
    this.#folder = folder
    const pin = cpu === undefined ? [] : ['taskset', '--cpu-list', String(cpu)]
    const options = ['--port', '0', '--unixsocket', this.path, '--unixsocketperm', '700']
    const inMemory = ['--save', '', '--appendonly', 'no', '--dir', folder, '--daemonize', 'no']
    const [command, ...args] = [...pin, 'redis-server', ...options, ...inMemory]
    this.#process = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    this.#process.on('error', (error) => (this.#output += error.message))
    for (const stream of [this.#process.stdout, this.#process.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => (this.#output += text))
    }
  }

  /** @param {number} [cpu] the core that it is pinned to */
  static async start(cpu) {
    const server = new RedisServer(await mkdtemp(join(tmpdir(), 'pagemesh-redis-')), cpu)
    try {
      await server.#untilListening()
    } catch (error) {
      await server.stop()
      throw error
    }
    return server
  }

  /** Where clients find it. */
  get path() {
    return join(this.#folder, 'redis.sock')
  }

  async #untilListening() {
    const deadlineMs = performance.now() + startTimeoutMs
    while (!existsSync(this.path)) {
      if (this.#hasEnded() || performance.now() > deadlineMs) {
        throw new Error(`redis-server did not start:\n${this.#output.trim()}`)
      }
      await delay(pollMs)
    }
  }

  #hasEnded() {
    const { pid, exitCode, signalCode } = this.#process
    return pid === undefined || exitCode !== null || signalCode !== null
  }

  async stop() {
    if (!this.#hasEnded()) {
      const ended = new Promise((resolve) => this.#process.on('close', resolve))
      this.#process.kill('SIGKILL') // there is nothing that it would have to save
      await ended
    }
    await rm(this.#folder, { recursive: true, force: true })
  }
}
