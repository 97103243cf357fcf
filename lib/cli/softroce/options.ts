import { totalmem } from 'node:os'
import {
  lastValue,
  parseLeadingOptions,
  type OptionTable,
  type ParsedArguments,
} from '../arguments.js'
import { checkTransport, parseRunArguments, type RunPlan } from '../run-options.js'
import { UsageError } from '../usage.js'
import { writableFolder } from './guest-spec.js'

/** Where the kernel with rdma_rxe is: this machine's own, or a virtual machine's. */
export type Way = 'kernel' | 'guest'

/** What both `run` and `exec` may say about the machines. */
export interface MachineOptions {
  /** Undefined: the kernel's own way if there is one. */
  readonly way: Way | undefined
  readonly hostCount: 1 | 2
  readonly transport: string
  readonly writable: readonly string[]
  /** Of each virtual machine. */
  readonly memoryMib: number
  readonly accelerator: 'tcg' | 'kvm'
}

export interface SoftroceRun {
  readonly machines: MachineOptions
  readonly plan: RunPlan
  /** What `pagemesh run` would be called with to the same end. */
  readonly runArgs: readonly string[]
}

export interface SoftroceExec {
  readonly machines: MachineOptions
  readonly command: readonly string[]
}

const machineTable: OptionTable = {
  hosts: { type: 'string' },
  transport: { type: 'string' },
  writable: { type: 'string' },
  memory: { type: 'string' },
  way: { type: 'string' },
  accel: { type: 'string' },
  help: { type: 'boolean', short: 'h' },
}

/** Options of `pagemesh run` that are passed on to it. */
const runTable: OptionTable = {
  members: { type: 'string', short: 'n' },
  'keep-going': { type: 'boolean' },
  'no-prefix': { type: 'boolean' },
  'join-timeout': { type: 'string' },
  'rdma-device': { type: 'string' },
  'node-arg': { type: 'string' },
}

export const softroceHelp = `Usage: pagemesh softroce run -n <members> [options] <script> [args…]
       pagemesh softroce exec [options] -- <command> [args…]
       pagemesh softroce doctor [--json]

Runs a program over RDMA on a machine without RDMA hardware: on the kernel's
SoftRoCE device (rdma_rxe) where it can be had, otherwise in a small virtual
machine under QEMU that shows this machine's files, read-only. Changes to /tmp,
/var/tmp, /run, /dev/shm and ~/.cache stay in the virtual machine.

  run     starts the members of a mesh, like pagemesh run
  exec    runs any command beside the device, such as ib_read_lat
  doctor  shows which way it would go, and what is missing

Options:
      --hosts <1|2>       virtual machines, joined by a virtual cable; the ranks
                          are spread over them in blocks
      --transport <name>  auto, tcp or verbs (default: PAGEMESH_TRANSPORT, or verbs)
      --writable <folder> a folder that the program may change (repeatable)
      --memory <MiB>      memory of each virtual machine
      --way <kernel|guest>  instead of choosing
      --accel <tcg|kvm>   how QEMU runs the processor (default: tcg, emulation)
  -h, --help              show this help

run also takes -n, --keep-going, --no-prefix, --join-timeout, --rdma-device and
--node-arg of pagemesh run. Standard input is passed on unless it is a terminal. The exit code
is the program's.
`

export function parseSoftroceRun(args: readonly string[]): SoftroceRun | 'help' {
  const parsed = parseLeadingOptions(args, { ...machineTable, ...runTable })
  if (parsed.values.has('help')) return 'help'
  const machines = parseMachines(parsed)
  const runArgs = [...passedOn(parsed), '--', ...parsed.rest]
  const plan = parseRunArguments(runArgs)
  if (typeof plan === 'string') return 'help'
  if (plan.memberCount < machines.hostCount) {
    throw new UsageError(`--hosts ${machines.hostCount} needs a member for each: -n 2 or more`)
  }
  return { machines, plan, runArgs }
}

export function parseSoftroceExec(args: readonly string[]): SoftroceExec | 'help' {
  const parsed = parseLeadingOptions(args, machineTable)
  if (parsed.values.has('help')) return 'help'
  if (parsed.rest.length === 0) throw new UsageError('name the command to run')
  return { machines: parseMachines(parsed), command: parsed.rest }
}

function passedOn(parsed: ParsedArguments): string[] {
  return Object.entries(runTable).flatMap(([name, { type }]) =>
    (parsed.values.get(name) ?? []).map((value) =>
      type === 'boolean' ? `--${name}` : `--${name}=${value}`,
    ),
  )
}

function parseMachines(parsed: ParsedArguments): MachineOptions {
  const hosts = lastValue(parsed, 'hosts') ?? '1'
  if (hosts !== '1' && hosts !== '2') throw new UsageError(`--hosts is 1 or 2, not '${hosts}'`)
  const way = lastValue(parsed, 'way')
  if (way !== undefined && way !== 'kernel' && way !== 'guest') {
    throw new UsageError(`--way is kernel or guest, not '${way}'`)
  }
  const accelerator = lastValue(parsed, 'accel') ?? 'tcg'
  if (accelerator !== 'tcg' && accelerator !== 'kvm') {
    throw new UsageError(`--accel is tcg or kvm, not '${accelerator}'`)
  }
  const hostCount = hosts === '1' ? 1 : 2
  if (way === 'kernel' && hostCount === 2) {
    throw new UsageError('--hosts 2 needs virtual machines: leave --way kernel out')
  }
  const transport = lastValue(parsed, 'transport')
  checkTransport(transport, '--transport')
  return {
    way: hostCount === 2 ? 'guest' : way,
    hostCount,
    transport: transport ?? process.env.PAGEMESH_TRANSPORT ?? 'verbs',
    writable: (parsed.values.get('writable') ?? []).map(writableFolder),
    memoryMib: parseMemory(lastValue(parsed, 'memory'), hostCount),
    accelerator,
  }
}

const defaultMemoryMib = 4_096
const leastMemoryMib = 512

function parseMemory(text: string | undefined, hostCount: number): number {
  if (text === undefined) {
    const shareMib = Math.floor(totalmem() / 2 ** 20 / 2 / hostCount)
    return Math.max(leastMemoryMib, Math.min(defaultMemoryMib, shareMib))
  }
  const memoryMib = Number(text)
  if (!/^\d{1,7}$/.test(text) || memoryMib < leastMemoryMib) {
    throw new UsageError(`--memory is a number of MiB, ${leastMemoryMib} or more, not '${text}'`)
  }
  return memoryMib
}
