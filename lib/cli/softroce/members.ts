import { readFileSync } from 'node:fs'
import { MemberProcess, graceMs, type MeshLaunch } from '../member-process.js'
import { Outlet } from '../outlet.js'
import { signalExitCode, type RunPlan } from '../run-options.js'
import { TransportLine, tellsTransport } from '../transport-line.js'

// What each of two virtual machines runs: the launcher for its share of the ranks. The other's
// failures are not seen from here; the machine that started both ends this one then.

/** Written by the launcher outside. It holds the key, so only root may read it. */
export interface MembersPlan {
  readonly plan: Omit<RunPlan, 'host' | 'joinTimeoutMs'> & {
    readonly host: string
    readonly joinTimeoutMs: number | null
  }
  readonly launch: MeshLaunch
  readonly firstRank: number
  readonly rankCount: number
}

const forwardedSignals = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const

async function runShare({ plan: written, launch, firstRank, rankCount }: MembersPlan) {
  const plan: RunPlan = { ...written, joinTimeoutMs: written.joinTimeoutMs ?? undefined }
  const prefixes = Array.from({ length: plan.memberCount }, (_, rank) =>
    plan.prefix ? `[${rank}] ` : '',
  )
  const ignore = () => undefined
  const stdout = new Outlet(process.stdout, prefixes, ignore)
  const stderr = new Outlet(process.stderr, prefixes, ignore)
  let exitCode: number | undefined
  let isEnding = false
  const members: MemberProcess[] = []
  const end = (signal: NodeJS.Signals) => {
    if (isEnding) return
    isEnding = true
    for (const member of members) member.signal(signal)
    setTimeout(() => {
      for (const member of members) member.signal('SIGKILL')
    }, graceMs).unref()
  }
  for (const signal of forwardedSignals) {
    process.on(signal, () => {
      exitCode ??= signalExitCode(signal)
      end(signal)
    })
  }
  // Each machine knows its own members only; those beside rank 0 speak for all.
  const transportLine =
    firstRank === 0 && tellsTransport(plan)
      ? new TransportLine(rankCount, (line) => stderr.announce(`pagemesh: ${line}`))
      : undefined
  const cleared: Promise<void>[] = []
  for (let rank = firstRank; rank < firstRank + rankCount; rank += 1) {
    let onCleared: () => void = ignore
    cleared.push(new Promise((resolve) => (onCleared = resolve)))
    const member = new MemberProcess(plan, launch, rank, {
      departed: ignore,
      exited: (exited) => {
        stdout.release(rank)
        stderr.release(rank)
        if (exited.failure === undefined || isEnding) return
        exitCode ??= exited.failure.exitCode
        stderr.announce(`pagemesh: rank ${rank} ${exited.failure.description}`)
        if (!plan.keepGoing) end('SIGTERM')
      },
      cleared: () => onCleared(),
      joined: (joined, report) => transportLine?.joined(joined.rank, report),
    })
    members.push(member)
    if (member.stdout !== null) stdout.attach(rank, member.stdout)
    if (member.stderr !== null) stderr.attach(rank, member.stderr)
  }
  await Promise.all(cleared)
  await Promise.all([stdout.settled(), stderr.settled()])
  return exitCode ?? 0
}

const planFile = process.argv[2]
process.exit(await runShare(JSON.parse(readFileSync(planFile, 'utf8')) as MembersPlan))
