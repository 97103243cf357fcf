import { spawn, type ChildProcess } from 'node:child_process'
import { readFileSync } from 'node:fs'
import type { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseJoinReport, type JoinReport } from '../cluster/join-report.js'
import { signalExitCode, type RunPlan } from './run-options.js'

/** Where each member finds the pipe that closes when the launcher is gone. */
const lifelineFd = 3

/** How long a process group has to end after SIGTERM, before SIGKILL. */
export const graceMs = 2_000

const groupPollMs = 20

/** PF_EXITING of linux/sched.h: among the flags of a process in /proc/PID/stat (proc(5)). */
const exitingFlag = 0x4

/** What is longer on a lifeline is no report. */
const maxReportLength = 8_192

/** How long a group that was sent SIGKILL may still be listed (as zombies nobody collects). */
const killedGroupMs = 1_000

/** What the launcher hands to the members besides the plan. */
export interface MeshLaunch {
  /** `file:<path>`: rank 0 publishes its address there. */
  readonly rendezvous: string
  /** Secret: only ever in the environment, which other users cannot read. */
  readonly key: string
}

export interface MemberEvents {
  /** The process is gone as far as the kernel is concerned. Comes in the order of the deaths. */
  departed(member: MemberProcess): void
  /** How it ended is known. Processes that end close together may come in any order. */
  exited(member: MemberProcess): void
  /** Nothing is left of its process group. */
  cleared(member: MemberProcess): void
  /** It is in the mesh. */
  joined(member: MemberProcess, report: JoinReport): void
}

/** How a member ended badly, in words and as an exit code. */
export interface Failure {
  readonly bySignal: boolean
  readonly description: string
  readonly exitCode: number
}

export function memberEnvironment(
  plan: RunPlan,
  launch: MeshLaunch,
  rank: number,
  base: NodeJS.ProcessEnv = process.env,
): NodeJS.ProcessEnv {
  return {
    ...base,
    PAGEMESH_RANK: String(rank),
    PAGEMESH_SIZE: String(plan.memberCount),
    PAGEMESH_KEY: launch.key,
    PAGEMESH_RENDEZVOUS: launch.rendezvous,
    PAGEMESH_LIFELINE_FD: String(lifelineFd),
    ...(plan.host === undefined ? {} : { PAGEMESH_HOST: plan.host }),
    ...(plan.transport === undefined ? {} : { PAGEMESH_TRANSPORT: plan.transport }),
    ...(plan.rdmaDevice === undefined ? {} : { PAGEMESH_RDMA_DEVICE: plan.rdmaDevice }),
    ...(plan.faults === undefined ? {} : { PAGEMESH_FAULTS: plan.faults }),
    ...(plan.joinTimeoutMs === undefined
      ? {}
      : { PAGEMESH_JOIN_TIMEOUT_MS: String(plan.joinTimeoutMs) }),
  }
}

/**
 * One member's process. It leads a session and process group of its own, so that a Ctrl-C at the
 * terminal reaches it once, through the launcher, and so that what it started can be ended with it.
 */
export class MemberProcess {
  readonly rank: number
  readonly #child: ChildProcess
  readonly #events: MemberEvents
  #departed = false
  #exited = false
  #cleared = false
  #failure: Failure | undefined

  /** @throws if the process cannot be started at all; later troubles come as a failure. */
  constructor(plan: RunPlan, launch: MeshLaunch, rank: number, events: MemberEvents) {
    this.rank = rank
    this.#events = events
    this.#child = spawn(process.execPath, [...plan.nodeArgs, plan.script, ...plan.scriptArgs], {
      env: memberEnvironment(plan, launch, rank),
      stdio: [rank === 0 ? 'inherit' : 'ignore', 'pipe', 'pipe', 'pipe'],
      detached: true,
    })
    this.#watchLifeline()
    this.#child.once('exit', (code, signal) => this.#onExit(failureOf(code, signal)))
    this.#child.once('error', (error) => {
      if (this.#child.pid !== undefined) return
      this.#onExit({
        bySignal: false,
        description: `could not be started: ${error.message}`,
        exitCode: 1,
      })
    })
  }

  /** Also the number of its process group; undefined if it could not be started. */
  get pid(): number | undefined {
    return this.#child.pid
  }

  get stdout(): Readable | null {
    return this.#child.stdout ?? null // undefined if there were no descriptors left
  }

  get stderr(): Readable | null {
    return this.#child.stderr ?? null
  }

  /**
   * Its end has begun, or is over and not yet known here. The kernel says so before it closes the
   * first descriptor of a dying process, so whoever dies because a socket of this member has
   * closed finds it true.
   */
  get isDying(): boolean {
    if (this.#child.pid === undefined || this.#exited) return false
    try {
      const stat = readFileSync(`/proc/${this.#child.pid}/stat`, 'utf8')
      // After the name, which may hold anything: state, five numbers, and the flags.
      const [state, , , , , , flags] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
      return state === 'Z' || state === 'X' || (Number(flags) & exitingFlag) !== 0
    } catch {
      return true // there is no such process any more
    }
  }

  get hasExited(): boolean {
    return this.#exited
  }

  get isCleared(): boolean {
    return this.#cleared
  }

  /** Defined once the member has ended badly. */
  get failure(): Failure | undefined {
    return this.#failure
  }

  /** Sends to the whole process group. False if there is nobody left. */
  signal(signal: NodeJS.Signals | 0): boolean {
    if (this.#child.pid === undefined || this.#cleared) return false
    try {
      return process.kill(-this.#child.pid, signal)
    } catch {
      return false
    }
  }

  #watchLifeline(): void {
    const stdio = this.#child.stdio as ChildProcess['stdio'] | undefined
    const lifeline = stdio?.[lifelineFd] as Readable | null | undefined
    // Ends come in the order of the deaths; closes of one turn of the event loop do not.
    lifeline?.once('end', () => this.#onDeparted())
    lifeline?.on('error', () => undefined)
    let said = ''
    lifeline?.setEncoding('utf8').on('data', (text: string) => {
      said = (said + text).slice(-maxReportLength)
      const lines = said.split('\n')
      said = lines.pop() ?? ''
      for (const line of lines) {
        const report = parseJoinReport(line)
        if (report !== undefined) this.#events.joined(this, report)
      }
    })
  }

  #onDeparted(): void {
    if (this.#departed) return
    this.#departed = true
    this.#events.departed(this)
  }

  #onExit(failure: Failure | undefined): void {
    if (this.#exited) return
    this.#exited = true
    this.#failure = failure
    this.#onDeparted()
    this.#events.exited(this)
    void this.#clearGroup()
  }

  /** Ends what the member started and left running. */
  async #clearGroup(): Promise<void> {
    if (this.signal('SIGTERM')) {
      await this.#groupGone(graceMs)
      if (this.signal('SIGKILL')) await this.#groupGone(killedGroupMs)
    }
    this.#cleared = true
    this.#events.cleared(this)
  }

  async #groupGone(timeoutMs: number): Promise<void> {
    const deadlineMs = performance.now() + timeoutMs
    while (this.signal(0) && performance.now() < deadlineMs) await sleep(groupPollMs)
  }
}

function failureOf(code: number | null, signal: NodeJS.Signals | null): Failure | undefined {
  if (signal !== null) {
    return {
      bySignal: true,
      description: `was killed by ${signal}`,
      exitCode: signalExitCode(signal),
    }
  }
  if (code === null || code === 0) return undefined
  return { bySignal: false, description: `exited with code ${code}`, exitCode: code }
}
