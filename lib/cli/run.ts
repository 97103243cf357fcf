import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Janitor } from './janitor.js'
import { MemberProcess, graceMs, type MeshLaunch } from './member-process.js'
import { Outlet } from './outlet.js'
import { signalExitCode, type RunPlan } from './run-options.js'
import { colour, paint, wantsColour } from './terminal.js'
import { TransportLine, tellsTransport } from './transport-line.js'

const rankColours = [
  colour.cyan,
  colour.yellow,
  colour.green,
  colour.magenta,
  colour.blue,
  colour.red,
]

const forwardedSignals = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const

/** How long to wait for the exit status of a process whose end has begun. */
const statusWaitMs = 1_000

/** npm passes a Ctrl-C on that the terminal has sent us as well: not yet a second one. */
const echoMs = 250

/** Runs the members to their end. Returns the exit code; throws only if it cannot begin. */
export async function runMembers(plan: RunPlan): Promise<number> {
  let run: Run | undefined
  for (const signal of forwardedSignals) process.on(signal, () => run?.interrupt(signal))
  const directory = mkdtempSync(path.join(tmpdir(), 'pagemesh-'))
  const janitor = new Janitor(directory)
  const tidy = () => {
    // Members are still alive here only if the launcher itself goes wrong.
    run?.killAll()
    rmSync(directory, { recursive: true, force: true })
  }
  process.once('exit', tidy)
  try {
    run = new Run(plan, directory, janitor)
    return await run.toTheEnd()
  } finally {
    tidy()
    await janitor.dismiss()
  }
}

/** One run, from the first member's start to the last one's end. */
class Run {
  readonly #plan: RunPlan
  readonly #janitor: Janitor
  readonly #members: MemberProcess[] = []
  readonly #stdout: Outlet
  readonly #stderr: Outlet
  /** Members in the order in which they died. */
  readonly #departures: MemberProcess[] = []
  /** Set once, by whatever happens first. */
  #exitCode: number | undefined
  #ending: 'no' | 'politely' | 'by force' = 'no'
  #interruptedAtMs: number | undefined
  /** Failures already told on stderr. */
  readonly #reported = new Set<MemberProcess>()
  #onCleared: (() => void) | undefined
  readonly #transportLine: TransportLine | undefined

  constructor(plan: RunPlan, directory: string, janitor: Janitor) {
    this.#plan = plan
    this.#janitor = janitor
    const onBroken = (error: NodeJS.ErrnoException) => this.#outputBroke(error)
    this.#stdout = new Outlet(process.stdout, prefixes(plan, process.stdout), onBroken)
    this.#stderr = new Outlet(process.stderr, prefixes(plan, process.stderr), () => undefined)
    if (tellsTransport(plan)) {
      this.#transportLine = new TransportLine(plan.memberCount, (line) => this.#say(line))
    }
    const launch: MeshLaunch = {
      rendezvous: `file:${path.join(directory, 'rendezvous')}`,
      key: randomBytes(32).toString('hex'),
    }
    for (let rank = 0; rank < plan.memberCount; rank += 1) {
      if (!this.#start(launch, rank)) break
    }
  }

  async toTheEnd(): Promise<number> {
    await new Promise<void>((resolve) => {
      this.#onCleared = resolve
      this.#checkCleared()
    })
    const outputs = Promise.all([this.#stdout.settled(), this.#stderr.settled()])
    // A reader that takes nothing must not hold up a run that was told to end.
    if (this.#ending === 'by force') this.#dropOutput()
    else if (this.#interruptedAtMs !== undefined) setTimeout(() => this.#dropOutput(), graceMs)
    await outputs
    return this.#exitCode ?? 0
  }

  /** The user, or the system, wants the run to end. The second time it means at once. */
  interrupt(signal: NodeJS.Signals): void {
    const nowMs = performance.now()
    this.#interruptedAtMs ??= nowMs
    this.#exitCode ??= signalExitCode(signal)
    if (this.#members.every((member) => member.isCleared)) {
      this.#dropOutput()
    } else if (this.#ending === 'no') {
      this.#end(signal)
    } else if (nowMs - this.#interruptedAtMs >= echoMs) {
      this.#ending = 'by force'
      this.killAll()
    }
  }

  killAll(): void {
    for (const member of this.#members) member.signal('SIGKILL')
  }

  #start(launch: MeshLaunch, rank: number): boolean {
    try {
      const member = new MemberProcess(this.#plan, launch, rank, {
        departed: (departed) => this.#departures.push(departed),
        exited: (exited) => this.#onExited(exited),
        cleared: (cleared) => {
          if (cleared.pid !== undefined) this.#janitor.forget(cleared.pid)
          this.#checkCleared()
        },
        joined: (joined, report) => this.#transportLine?.joined(joined.rank, report),
      })
      this.#members.push(member)
      if (member.pid !== undefined) this.#janitor.watch(member.pid)
      if (member.stdout !== null) this.#stdout.attach(rank, member.stdout)
      if (member.stderr !== null) this.#stderr.attach(rank, member.stderr)
      return true
    } catch (error) {
      this.#say(`could not start rank ${rank}: ${(error as Error).message}`)
      this.#exitCode ??= 1
      this.#end('SIGTERM')
      return false
    }
  }

  #onExited(member: MemberProcess): void {
    this.#stdout.release(member.rank)
    this.#stderr.release(member.rank)
    if (this.#members.some((other) => other.isDying)) {
      // It may have died before, and be the cause; its status is due any moment.
      setTimeout(() => this.#judge(), statusWaitMs)
    } else {
      this.#judge()
    }
  }

  /** Reports failures, the likely cause before its consequences, and ends the run at the first. */
  #judge(): void {
    const failures = this.#departures.flatMap((member) => {
      const { failure } = member
      return failure === undefined || this.#reported.has(member) ? [] : [{ member, failure }]
    })
    // Of several at once: members that lose another one end with a code of their own, while nobody
    // answers that with a signal. Otherwise in the order of the deaths.
    failures.sort((a, b) => Number(b.failure.bySignal) - Number(a.failure.bySignal))
    for (const { member, failure } of failures) {
      if (this.#ending !== 'no') return
      this.#reported.add(member)
      this.#exitCode ??= failure.exitCode
      this.#say(`rank ${member.rank} ${failure.description}${this.#consequence()}`)
      if (!this.#plan.keepGoing) this.#end('SIGTERM')
    }
  }

  #consequence(): string {
    if (this.#members.every((member) => member.hasExited)) return ''
    return this.#plan.keepGoing ? '; the others go on' : '; ending the others'
  }

  /** Asks all members to end, and makes them after the grace. */
  #end(signal: NodeJS.Signals): void {
    if (this.#ending !== 'no') return
    this.#ending = 'politely'
    for (const member of this.#members) member.signal(signal)
    setTimeout(() => {
      const stubborn = this.#members.filter((member) => !member.hasExited)
      if (stubborn.length === 0) return
      const ranks = stubborn.map((member) => member.rank).join(', ')
      this.#say(`rank ${ranks} did not end within ${graceMs / 1_000} s of ${signal}; killing`)
      this.killAll()
    }, graceMs).unref()
  }

  #outputBroke(error: NodeJS.ErrnoException): void {
    if (error.code !== 'EPIPE') this.#say(`cannot write the output: ${error.message}`)
    // A reader that has seen enough, as in `| head`, ends the run like any other program.
    this.#exitCode ??= error.code === 'EPIPE' ? signalExitCode('SIGPIPE') : 1
    this.#end('SIGTERM')
  }

  #checkCleared(): void {
    if (this.#members.every((member) => member.isCleared)) {
      this.#judge()
      this.#onCleared?.()
    }
  }

  #dropOutput(): void {
    this.#stdout.drop()
    this.#stderr.drop()
  }

  #say(line: string): void {
    this.#stderr.announce(`pagemesh: ${line}`)
  }
}

function prefixes(plan: RunPlan, stream: NodeJS.WriteStream): string[] {
  const coloured = wantsColour(stream)
  return Array.from({ length: plan.memberCount }, (_, rank) => {
    if (!plan.prefix) return ''
    const code = rankColours[rank % rankColours.length] as number
    return `${coloured ? paint(`[${rank}]`, code) : `[${rank}]`} `
  })
}
