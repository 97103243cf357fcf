import { randomBytes } from 'node:crypto'
import { realpathSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { lastValue, parseLeadingOptions } from '../arguments.js'
import { realMachine } from '../machine.js'
import { signalExitCode } from '../run-options.js'
import { UsageError } from '../usage.js'
import { endingSignals, spawnInherited } from './child.js'
import { runGuests, type GuestRunOptions, type GuestTask } from './guest-run.js'
import { guestSpecFolder } from './guest-init.js'
import { guestAddress, passedEnvironment } from './guest-spec.js'
import { ensureImage } from './image.js'
import { addKernelLink, kernelLink, removeKernelLink } from './kernel-link.js'
import type { MembersPlan } from './members.js'
import {
  parseSoftroceExec,
  parseSoftroceRun,
  softroceHelp,
  type MachineOptions,
  type SoftroceRun,
  type Way,
} from './options.js'
import { installPackages, missingPackages } from './packages.js'
import { runSoftroceDoctor } from './softroce-doctor.js'
import { runTool } from './tools.js'
import { chooseWay } from './way.js'

const packageRoot = fileURLToPath(new URL('../../..', import.meta.url))
const launcher = fileURLToPath(new URL('../main.js', import.meta.url))
const membersProgram = fileURLToPath(new URL('members.js', import.meta.url))

const rendezvousPort = 7_000
/** More would only get into each other's way: emulation is bound by the host's cores. */
const maxGuestCpus = 4

/** `pagemesh softroce …`: returns the exit code. */
export async function softroce(args: readonly string[]): Promise<number> {
  const parsed = parseLeadingOptions(args, { help: { type: 'boolean', short: 'h' } })
  const command = parsed.rest.at(0)
  const rest = parsed.rest.slice(1)
  if (parsed.values.has('help') || command === undefined) return printHelp()
  switch (command) {
    case 'run':
      return run(rest)
    case 'exec':
      return exec(rest)
    case 'doctor':
      return doctor(rest)
    default:
      throw new UsageError(`unknown command 'softroce ${command}'`)
  }
}

function printHelp(): number {
  process.stdout.write(softroceHelp)
  return 0
}

async function doctor(args: readonly string[]): Promise<number> {
  const parsed = parseLeadingOptions(args, {
    json: { type: 'boolean' },
    help: { type: 'boolean', short: 'h' },
  })
  if (parsed.values.has('help')) return printHelp()
  if (parsed.rest.length > 0) throw new UsageError(`unexpected '${parsed.rest.join(' ')}'`)
  return runSoftroceDoctor({ json: lastValue(parsed, 'json') !== undefined })
}

async function run(args: readonly string[]): Promise<number> {
  const request = parseSoftroceRun(args)
  if (request === 'help') return printHelp()
  const { machines, plan } = request
  if ((await prepare(machines)) === 'kernel') {
    return runOnKernelLink(machines, launcherCommand(request))
  }
  return runGuests(await runTasks(request), { ...ownStreams(), keepGoing: plan.keepGoing })
}

function launcherCommand({ runArgs }: SoftroceRun): string[] {
  return [process.execPath, launcher, 'run', ...runArgs]
}

/** What the guests of `softroce run` are to do. What they need of this machine is there. */
export async function runTasks(request: SoftroceRun): Promise<GuestTask[]> {
  const { machines, plan } = request
  const needed = [path.dirname(plan.script)]
  return machines.hostCount === 1
    ? guestTasks(machines, [launcherCommand(request)], needed)
    : twoHostTasks(request, needed)
}

async function exec(args: readonly string[]): Promise<number> {
  const request = parseSoftroceExec(args)
  if (request === 'help') return printHelp()
  const { machines, command } = request
  const way = await prepare(machines, command[0])
  if (way === 'kernel') return runOnKernelLink(machines, command)
  const commands = Array.from({ length: machines.hostCount }, () => command)
  return runGuests(await guestTasks(machines, commands), ownStreams())
}

function say(line: string): void {
  process.stderr.write(`pagemesh: ${line}\n`)
}

function ownStreams(): GuestRunOptions {
  return {
    stdin: process.stdin.isTTY ? undefined : process.stdin,
    stdout: process.stdout,
    stderr: process.stderr,
  }
}

/** Chooses the way and gets what it needs. */
export async function prepare(machines: MachineOptions, command?: string): Promise<Way> {
  const { way: possible, kernelObstacle, guestObstacle } = await chooseWay(realMachine, runTool)
  const way = machines.way ?? possible
  const obstacle =
    way === 'kernel'
      ? kernelObstacle
      : way === 'guest'
        ? guestObstacle
        : `${kernelObstacle}, and ${guestObstacle}`
  if (way === undefined || obstacle !== undefined) {
    throw new Error(`SoftRoCE cannot run here: ${obstacle} (see pagemesh softroce doctor)`)
  }
  await installPackages(missingPackages(way, command), runTool, say)
  return way
}

function environmentFor(machines: MachineOptions, address: string): Record<string, string> {
  return {
    ...passedEnvironment(),
    PAGEMESH_TRANSPORT: machines.transport,
    PAGEMESH_HOST: address,
  }
}

/** One guest for each command. */
export async function guestTasks(
  machines: MachineOptions,
  commands: readonly (readonly string[])[],
  needed: readonly string[] = [],
): Promise<GuestTask[]> {
  const image = await ensureImage(runTool, say)
  const cpus = Math.min(availableParallelism(), maxGuestCpus)
  return commands.map((command, hostIndex) => ({
    image,
    hostIndex,
    hostCount: commands.length,
    cpuCount: commands.length === 1 ? cpus : 1,
    memoryMib: machines.memoryMib,
    accelerator: machines.accelerator,
    command,
    environment: environmentFor(machines, guestAddress(hostIndex)),
    directory: process.cwd(),
    needed: [realpathSync(packageRoot), path.dirname(process.execPath), ...needed],
    writable: machines.writable,
    files: {},
  }))
}

/** The first ranks on the first host, the others on the second. */
async function twoHostTasks(
  { machines, plan }: SoftroceRun,
  needed: readonly string[],
): Promise<GuestTask[]> {
  const planFile = 'members.json'
  const command = [process.execPath, membersProgram, `${guestSpecFolder}/${planFile}`]
  const tasks = await guestTasks(machines, [command, command], needed)
  const launch = {
    rendezvous: `${guestAddress(0)}:${rendezvousPort}`,
    key: randomBytes(32).toString('hex'),
  }
  return tasks.map((task) => {
    const { firstRank, rankCount } = rankBlock(plan.memberCount, task.hostCount, task.hostIndex)
    const share: MembersPlan = {
      plan: {
        ...plan,
        host: guestAddress(task.hostIndex),
        joinTimeoutMs: plan.joinTimeoutMs ?? null,
      },
      launch,
      firstRank,
      rankCount,
    }
    return { ...task, files: { [planFile]: JSON.stringify(share) } }
  })
}

/** The ranks of one host, as even as it goes. */
export function rankBlock(
  memberCount: number,
  hostCount: number,
  hostIndex: number,
): { firstRank: number; rankCount: number } {
  const start = (index: number) => Math.ceil((memberCount * index) / hostCount)
  return { firstRank: start(hostIndex), rankCount: start(hostIndex + 1) - start(hostIndex) }
}

async function runOnKernelLink(
  machines: MachineOptions,
  command: readonly string[],
): Promise<number> {
  const link = kernelLink()
  // From here on the link has to be removed again, so a signal ends the program and not us.
  let interruptedBy: NodeJS.Signals | undefined
  for (const signal of endingSignals) process.on(signal, () => (interruptedBy ??= signal))
  await addKernelLink(link, realMachine, runTool)
  try {
    if (interruptedBy !== undefined) return signalExitCode(interruptedBy)
    return await spawnInherited(command, environmentFor(machines, link.address))
  } finally {
    await removeKernelLink(link.name, runTool)
  }
}
