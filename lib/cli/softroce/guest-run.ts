import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { Writable } from 'node:stream'
import { Janitor } from '../janitor.js'
import { Outlet } from '../outlet.js'
import { signalExitCode } from '../run-options.js'
import type { GuestSpec } from './guest-spec.js'
import { Guest, type GuestEnd } from './guest.js'

const forwardedSignals = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const

/** How long programs that are told to end may take, before their machines are switched off. */
const graceMs = 1_500

/** npm passes a Ctrl-C on that the terminal has sent us as well: not yet a second one. */
const echoMs = 250

/** What the guests of a run are to do; what is the same for all is filled in here. */
export type GuestTask = Omit<GuestSpec, 'endMark' | 'hasStdin'>

export interface GuestRunOptions {
  /** Goes to the first guest. */
  readonly stdin?: NodeJS.ReadableStream | undefined
  readonly stdout: Writable
  readonly stderr: Writable
  /** Whether the other guest goes on when one ends badly. */
  readonly keepGoing?: boolean
  /** For tests: the machines, to pull their cable or to kill one. */
  readonly onStarted?: (guests: readonly Guest[]) => void
}

/** Runs the guests to their end. Returns the exit code; throws only if it cannot begin. */
export async function runGuests(
  tasks: readonly GuestTask[],
  options: GuestRunOptions,
): Promise<number> {
  const folder = mkdtempSync(path.join(tmpdir(), 'pagemesh-softroce-'))
  const janitor = new Janitor(folder)
  let run: GuestRun | undefined
  const tidy = () => {
    run?.killAll()
    rmSync(folder, { recursive: true, force: true })
  }
  const listeners = forwardedSignals.map((signal) => {
    const listener = () => run?.interrupt(signal)
    process.on(signal, listener)
    return { signal, listener }
  })
  process.once('exit', tidy)
  try {
    run = new GuestRun(tasks, options, folder, janitor)
    options.onStarted?.(run.guests)
    return await run.toTheEnd()
  } finally {
    tidy()
    await janitor.dismiss()
    process.off('exit', tidy)
    for (const { signal, listener } of listeners) process.off(signal, listener)
  }
}

class GuestRun {
  readonly guests: Guest[] = []
  readonly #options: GuestRunOptions
  readonly #stdout: Outlet
  readonly #stderr: Outlet
  /** Set once, by whatever happens first. */
  #exitCode: number | undefined
  #isEnding = false
  #interruptedAtMs: number | undefined

  constructor(
    tasks: readonly GuestTask[],
    options: GuestRunOptions,
    folder: string,
    janitor: Janitor,
  ) {
    this.#options = options
    const noPrefixes = tasks.map(() => '')
    this.#stdout = new Outlet(options.stdout, noPrefixes, (error) => this.#outputBroke(error))
    this.#stderr = new Outlet(options.stderr, noPrefixes, () => undefined)
    const endMark = randomBytes(16).toString('hex')
    for (const task of tasks) {
      const hasStdin = options.stdin !== undefined && task.hostIndex === 0
      const guest = new Guest({ ...task, endMark, hasStdin }, folder)
      this.guests.push(guest)
      if (guest.pid !== undefined) janitor.watch(guest.pid)
      this.#stdout.attach(task.hostIndex, guest.stdout)
      this.#stderr.attach(task.hostIndex, guest.stderr)
      if (hasStdin) options.stdin.pipe(guest.stdin)
    }
  }

  async toTheEnd(): Promise<number> {
    await Promise.all(this.guests.map(async (guest) => this.#onEnded(guest, await guest.ended)))
    this.#options.stdin?.unpipe()
    const outputs = Promise.all([this.#stdout.settled(), this.#stderr.settled()])
    if (this.#interruptedAtMs !== undefined) setTimeout(() => this.#dropOutput(), graceMs).unref()
    await outputs
    return this.#exitCode ?? 0
  }

  /** The user, or the system, wants the run to end. The second time it means at once. */
  interrupt(signal: NodeJS.Signals): void {
    const nowMs = performance.now()
    this.#interruptedAtMs ??= nowMs
    this.#exitCode ??= signalExitCode(signal)
    if (!this.#isEnding) {
      this.#end(signal)
    } else if (nowMs - this.#interruptedAtMs >= echoMs) {
      this.killAll()
      this.#dropOutput()
    }
  }

  killAll(): void {
    for (const guest of this.guests) guest.kill()
  }

  #onEnded(guest: Guest, end: GuestEnd): void {
    if (end.kind === 'exit' && end.exitCode === 0) return
    if (end.kind === 'failure' && !this.#isEnding) {
      const which = this.guests.length === 1 ? 'the virtual machine' : `host ${guest.hostIndex}`
      this.#stderr.announce(`pagemesh: ${which} has ended: ${end.reason}`)
    }
    this.#exitCode ??= end.kind === 'exit' ? end.exitCode : 1
    if (this.#options.keepGoing !== true) this.#end('SIGTERM')
  }

  /** Asks the programs to end, and switches the machines off after the grace. */
  #end(signal: NodeJS.Signals): void {
    if (this.#isEnding) return
    this.#isEnding = true
    for (const guest of this.guests) guest.signal(signal)
    setTimeout(() => this.killAll(), graceMs).unref()
  }

  #outputBroke(error: NodeJS.ErrnoException): void {
    this.#exitCode ??= error.code === 'EPIPE' ? signalExitCode('SIGPIPE') : 1
    this.#end('SIGTERM')
  }

  #dropOutput(): void {
    this.#stdout.drop()
    this.#stderr.drop()
  }
}
