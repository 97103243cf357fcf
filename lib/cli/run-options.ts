import { statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { constants } from 'node:os'
import path from 'node:path'
import { maxMeshSize as maxMembers } from '../cluster/launch-environment.js'
import { type FaultPolicy, isFaultPolicy } from '../cluster/fault-names.js'
import { parseRdmaDevice, type RdmaDeviceName } from '../cluster/rdma-device.js'
import { isTransportPolicy, type TransportPolicy } from '../cluster/transport-names.js'
import { lastValue, parseLeadingOptions, type OptionTable } from './arguments.js'
import { typescriptSupport } from './node-version.js'
import { UsageError } from './usage.js'

const maxTimeoutMs = 2 ** 31 - 1

/** What `pagemesh run` was asked to do, checked. */
export interface RunPlan {
  readonly memberCount: number
  readonly keepGoing: boolean
  readonly prefix: boolean
  /** The address to listen on; loopback unless given. */
  readonly host: string | undefined
  readonly joinTimeoutMs: number | undefined
  /** How members reach each other; auto unless given. */
  readonly transport: TransportPolicy | undefined
  /** Which RDMA device, if the address does not tell. */
  readonly rdmaDevice: string | undefined
  /** What hears of touches of pages that are not here; auto unless given. */
  readonly faults: FaultPolicy | undefined
  /** Arguments for the runtime itself, before the script. */
  readonly nodeArgs: readonly string[]
  /** Absolute path. */
  readonly script: string
  readonly scriptArgs: readonly string[]
}

const table: OptionTable = {
  members: { type: 'string', short: 'n' },
  'keep-going': { type: 'boolean' },
  'no-prefix': { type: 'boolean' },
  host: { type: 'string' },
  'join-timeout': { type: 'string' },
  transport: { type: 'string' },
  'rdma-device': { type: 'string' },
  faults: { type: 'string' },
  'node-arg': { type: 'string' },
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean' },
}

export const runHelp = `Usage: pagemesh run -n <members> [options] <script> [arguments…]

Starts a mesh of <members> processes on this machine, each running <script>.
What stands after <script> belongs to the script.

Options:
  -n, --members <count>   how many members to start, 1 to ${maxMembers} (required)
      --keep-going        let the others go on when one member fails
      --no-prefix         do not put the rank before each line of output
      --host <address>    address the members listen on (default: loopback only)
      --join-timeout <ms> how long join() waits for all members
      --transport <name>  how members reach each other: shm (memory of this host),
                          verbs (RDMA), tcp, or auto: the first of them that both
                          ends have. That is the default; asked for, it says which
      --rdma-device <dev> RDMA device, as name, name:port or name:port:gid-index
                          (default: the one with the address of --host)
      --faults <name>     what hears of the first touch of a page: sigsegv (quick),
                          userfaultfd (system calls may use such pages, too), or
                          auto, which is sigsegv (default)
      --node-arg <arg>    argument for Node.js itself, such as
                          --node-arg=--max-old-space-size=4096 (repeatable)
  -h, --help              show this help
      --version           show the version

Standard input goes to rank 0. The exit code is that of the first member to fail,
128 + the signal's number if a signal ended it, and 0 if all succeed.
`

/** Reads the arguments after `run`. `'help'` and `'version'` mean: show it, and do nothing else. */
export function parseRunArguments(
  args: readonly string[],
  environment: NodeJS.ProcessEnv = process.env,
  nodeVersion: string = process.version,
): RunPlan | 'help' | 'version' {
  const parsed = parseLeadingOptions(args, table)
  if (parsed.values.has('help')) return 'help'
  if (parsed.values.has('version')) return 'version'

  const memberCount = parseMemberCount(lastValue(parsed, 'members'))
  const host = checkHost(lastValue(parsed, 'host'))
  const joinTimeoutMs = parseTimeout(lastValue(parsed, 'join-timeout'))
  const transport = checkTransport(lastValue(parsed, 'transport'), '--transport')
  const rdmaDevice = lastValue(parsed, 'rdma-device')
  checkRdmaDevice(rdmaDevice, '--rdma-device')
  const faults = checkFaults(lastValue(parsed, 'faults'))
  const nodeArgs = parsed.values.get('node-arg') ?? []
  if (nodeArgs.length > 0 && !nodeArgs[0].startsWith('-')) {
    throw new UsageError(`--node-arg must be an option of Node.js, not '${nodeArgs[0]}'`)
  }
  const scriptName = parsed.rest.at(0)
  if (scriptName === undefined) throw new UsageError('name the script to run')
  const script = resolveScript(scriptName)
  return {
    memberCount,
    keepGoing: parsed.values.has('keep-going'),
    prefix: !parsed.values.has('no-prefix'),
    host,
    joinTimeoutMs,
    transport,
    rdmaDevice,
    faults,
    nodeArgs: withTypescript(script, nodeArgs, environment, nodeVersion),
    script: path.resolve(scriptName),
    scriptArgs: parsed.rest.slice(1),
  }
}

/** @throws UsageError if it is empty. */
export function checkHost(host: string | undefined): string | undefined {
  if (host?.trim() === '') throw new UsageError('--host needs an address')
  return host
}

/** @throws UsageError naming `source` if there is no such transport. */
export function checkTransport(
  text: string | undefined,
  source: string,
): TransportPolicy | undefined {
  if (text === undefined || isTransportPolicy(text)) return text
  throw new UsageError(`${source} must be auto, shm, tcp or verbs, not '${text}'`)
}

function checkFaults(text: string | undefined): FaultPolicy | undefined {
  if (text === undefined || isFaultPolicy(text)) return text
  throw new UsageError(`--faults must be auto, sigsegv or userfaultfd, not '${text}'`)
}

/** @throws UsageError naming `source` if the text cannot be a device. */
export function checkRdmaDevice(
  text: string | undefined,
  source: string,
): RdmaDeviceName | undefined {
  if (text === undefined) return undefined
  const parsed = parseRdmaDevice(text)
  if (typeof parsed === 'string') throw new UsageError(`${source} is '${text}'; ${parsed}`)
  return parsed
}

function parseMemberCount(text: string | undefined): number {
  if (text === undefined)
    throw new UsageError(`say how many members to start: -n 1 to ${maxMembers}`)
  const count = Number(text)
  if (!/^\d+$/.test(text) || count < 1 || count > maxMembers) {
    throw new UsageError(`-n must be a whole number from 1 to ${maxMembers}, not '${text}'`)
  }
  return count
}

function parseTimeout(text: string | undefined): number | undefined {
  if (text === undefined) return undefined
  const timeoutMs = Number(text)
  if (!/^\d+$/.test(text) || timeoutMs < 1 || timeoutMs > maxTimeoutMs) {
    throw new UsageError(`--join-timeout must be a whole number of milliseconds, not '${text}'`)
  }
  return timeoutMs
}

/** The file that Node.js would run, which may have an ending that the name leaves out. */
function resolveScript(name: string): string {
  const absolute = path.resolve(name)
  if (statSync(absolute, { throwIfNoEntry: false })?.isFile() === true) return absolute
  try {
    return createRequire(import.meta.url).resolve(absolute)
  } catch {
    throw new UsageError(`cannot find the script '${name}'`)
  }
}

/** Adds what this Node.js needs to run a TypeScript file, or says why it cannot. */
function withTypescript(
  script: string,
  nodeArgs: readonly string[],
  environment: NodeJS.ProcessEnv,
  nodeVersion: string,
): readonly string[] {
  if (!/\.[mc]?ts$/.test(script)) return nodeArgs
  const support = typescriptSupport(nodeVersion)
  if (support === 'as-is') return nodeArgs
  if (support === 'with-flag') return ['--experimental-strip-types', ...nodeArgs]
  // A loader that the user brings may well know TypeScript.
  const allArgs = [...nodeArgs, ...(environment.NODE_OPTIONS ?? '').split(' ')]
  if (allArgs.some((arg) => /^(-r|--(import|require|loader|experimental-loader))(=|$)/.test(arg))) {
    return nodeArgs
  }
  throw new UsageError(
    `Node.js ${nodeVersion} cannot run TypeScript: compile ${path.basename(script)} first ` +
      'and run the JavaScript, or use Node.js 22.18 or newer',
  )
}

/** 128 + the number of the signal, as shells count. */
export function signalExitCode(signal: NodeJS.Signals): number {
  return 128 + constants.signals[signal]
}
