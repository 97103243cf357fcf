import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const joinTimeoutMs = 30_000
const orderTimeoutMs = 120_000
const leaveTimeoutMs = 5_000

/**
 * The members of a mesh, started by the benchmark and led by orders over Node's IPC channel: they
 * sleep between orders, so that the floor programs have the machine to themselves.
 */
export class Members {
  /** @type {Member[]} */
  #members
  #folder

  /**
   * @param {Member[]} members
   * @param {string} folder holds the rendezvous file; removed at the end
   */
  constructor(members, folder) {
    this.#members = members
    this.#folder = folder
  }

  /**
   * Starts `size` members that run bench/members/PROGRAM, or the program at a URL, and waits until
   * all have joined.
   * @param {string | URL} program
   * @param {{ size?: number, cpus?: number[], transport?: string, addonFolder?: string,
   *   faults?: string, options?: Record<string, unknown> }} [how] with `cpus`, the core that each
   *   rank is pinned to; with `addonFolder`, another addon than the usual one
   */
  static async start(program, how = {}) {
    const { size = 2, cpus, transport = 'tcp', addonFolder, faults, options = {} } = how
    const folder = await mkdtemp(join(tmpdir(), 'pagemesh-bench-'))
    const key = randomBytes(32).toString('hex')
    const rendezvous = `file:${join(folder, 'rendezvous')}`
    const ranks = Array.from({ length: size }, (_, rank) => rank)
    const launch = { size, key, rendezvous, transport, addonFolder, faults }
    const started = ranks.map((rank) => new Member(program, { rank, ...launch, cpu: cpus?.[rank] }))
    const members = new Members(started, folder)
    try {
      await members.askAll('open', options, { timeoutMs: joinTimeoutMs })
    } catch (error) {
      await members.kill()
      throw error
    }
    return members
  }

  /**
   * Gives one member an order and waits for its result.
   * @param {number} rank
   * @param {string} order
   * @param {Record<string, unknown>} [args]
   * @param {{ timeoutMs?: number, onNotice?: () => void }} [how]
   * @returns {Promise<any>}
   */
  ask(rank, order, args = {}, how = {}) {
    return this.#members[rank].ask(order, args, how)
  }

  /**
   * Gives all members the same order at the same time.
   * @param {string} order
   * @param {Record<string, unknown>} [args]
   * @param {{ timeoutMs?: number }} [how]
   * @returns {Promise<any[]>} by rank
   */
  askAll(order, args = {}, how = {}) {
    return Promise.all(this.#members.map((member) => member.ask(order, args, how)))
  }

  /** Lets all members leave the mesh in good order; whoever does not is killed, and it counts. */
  async stop() {
    try {
      await this.askAll('leave', {}, { timeoutMs: leaveTimeoutMs })
      await Promise.all(this.#members.map((member) => member.waitForEnd(leaveTimeoutMs)))
    } finally {
      await this.kill()
    }
  }

  async kill() {
    for (const member of this.#members) member.kill()
    await rm(this.#folder, { recursive: true, force: true })
  }
}

/**
 * The benchmark itself may have been started as a member of some mesh.
 * @param {NodeJS.ProcessEnv} env
 */
function withoutLaunchData(env) {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !name.startsWith('PAGEMESH_')))
}

/**
 * Where the RDMA device is, as `pagemesh softroce` says.
 * @param {NodeJS.ProcessEnv} env
 */
function deviceData({ PAGEMESH_HOST, PAGEMESH_RDMA_DEVICE }) {
  return { PAGEMESH_HOST, PAGEMESH_RDMA_DEVICE }
}

class Member {
  #rank
  #process
  #ended
  #output = ''
  #nextId = 0
  /** @type {Map<number, { resolve: Function, reject: Function, onNotice?: () => void }>} */
  #pending = new Map()
  /** Set once the process is gone: no order can be answered any more. @type {Error | undefined} */
  #end

  /**
   * @param {string | URL} program
   * @param {{ rank: number, size: number, key: string, rendezvous: string, transport: string,
   *   addonFolder?: string, faults?: string, cpu?: number }} place
   */
  constructor(program, { rank, size, key, rendezvous, transport, addonFolder, faults, cpu }) {
    this.#rank = rank
    const url = program instanceof URL ? program : new URL(`../members/${program}`, import.meta.url)
    const path = fileURLToPath(url)
    const pin = cpu === undefined ? [] : ['taskset', '--cpu-list', String(cpu)]
    const [command, ...args] = [...pin, process.execPath, path]
    this.#process = spawn(command, args, {
      serialization: 'advanced',
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      env: {
        ...withoutLaunchData(process.env),
        PAGEMESH_RANK: String(rank),
        PAGEMESH_SIZE: String(size),
        PAGEMESH_KEY: key,
        PAGEMESH_RENDEZVOUS: rendezvous,
        PAGEMESH_TRANSPORT: transport,
        ...(addonFolder === undefined ? {} : { PAGEMESH_ADDON_DIR: addonFolder }),
        ...(faults === undefined ? {} : { PAGEMESH_FAULTS: faults }),
        ...(transport === 'tcp' ? {} : deviceData(process.env)),
      },
    })
    for (const stream of [this.#process.stdout, this.#process.stderr]) {
      stream?.setEncoding('utf8').on('data', (text) => (this.#output += text))
    }
    this.#process.on('message', (message) => this.#onMessage(message))
    this.#process.on('error', (error) => this.#onEnd(error.message))
    this.#ended = new Promise((resolve) => {
      this.#process.on('close', (code, signal) => {
        this.#onEnd(signal === null ? `ended with exit code ${code}` : `was ended by ${signal}`)
        resolve(code === 0)
      })
    })
  }

  /**
   * @param {string} order
   * @param {Record<string, unknown>} args
   * @param {{ timeoutMs?: number, onNotice?: () => void }} how
   */
  async ask(order, args, { timeoutMs = orderTimeoutMs, onNotice }) {
    if (this.#end !== undefined) throw this.#end
    const id = this.#nextId++
    /** @type {NodeJS.Timeout | undefined} */
    let watchdog
    try {
      return await new Promise((resolve, reject) => {
        this.#pending.set(id, { resolve, reject, onNotice })
        const late = () => reject(this.#error(`'${order}' took over ${timeoutMs} ms`))
        watchdog = setTimeout(late, timeoutMs)
        this.#process.send({ id, order, args }, (error) => {
          if (error) reject(this.#error(error.message))
        })
      })
    } finally {
      clearTimeout(watchdog)
      this.#pending.delete(id)
    }
  }

  /** @param {number} timeoutMs */
  async waitForEnd(timeoutMs) {
    /** @type {NodeJS.Timeout | undefined} */
    let watchdog
    const late = new Promise((_, reject) => {
      const error = this.#error(`has left the mesh but did not end within ${timeoutMs} ms`)
      watchdog = setTimeout(() => reject(error), timeoutMs)
    })
    try {
      if (!(await Promise.race([this.#ended, late]))) throw this.#end
    } finally {
      clearTimeout(watchdog)
    }
  }

  kill() {
    if (this.#end === undefined) this.#process.kill('SIGKILL')
  }

  /** @param {any} message */
  #onMessage({ id, kind, value }) {
    const pending = this.#pending.get(id)
    if (kind === 'notice') pending?.onNotice?.()
    else if (kind === 'result') pending?.resolve(value)
    else pending?.reject(this.#error(value))
  }

  /** @param {string} how */
  #onEnd(how) {
    this.#end ??= this.#error(how)
    for (const { reject } of this.#pending.values()) reject(this.#end)
  }

  /** @param {string} what */
  #error(what) {
    const output = this.#output.trim()
    return new Error(`member ${this.#rank}: ${what}${output === '' ? '' : `\n${output}`}`)
  }
}
