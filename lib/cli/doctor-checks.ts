import type { RdmaDeviceName } from '../cluster/rdma-device.js'
import type { TransportPolicy } from '../cluster/transport-names.js'
import { checkAddress, checkMemlock, checkRdmaDevices } from './doctor-rdma.js'
import { hasCapability, type Machine } from './machine.js'
import { hasExternalSharedArrayBuffer, parseVersion } from './node-version.js'

/** `note`: works, but could be better. `problem`: pagemesh cannot work like this. */
export type FindingStatus = 'ok' | 'note' | 'problem'

export interface Finding {
  readonly name: string
  readonly status: FindingStatus
  readonly value: string
  /** More about it, line by line. */
  readonly details?: readonly string[]
  /** What to do, where something is short of ideal. */
  readonly advice?: string
}

/** What a check finds out; its name comes from the table. */
export type Outcome = Omit<Finding, 'name'>

/** What members would be told that are to run here. */
export interface DoctorRequest {
  /** Where they listen. */
  readonly host: string
  readonly rdmaDevice: RdmaDeviceName | undefined
  readonly transport: TransportPolicy
}

type Check = (machine: Machine, request: DoctorRequest) => Outcome | Promise<Outcome>

const recommendedMaxMapCount = 1_048_576
const defaultMaxMapCount = 65_530
const capSysPtrace = 19n
const auxvPageSize = 6n

const checks: readonly (readonly [name: string, check: Check])[] = [
  ['architecture', checkArchitecture],
  ['kernel', checkKernel],
  ['Node.js', checkNode],
  ['SharedArrayBuffer', checkSharedArrayBuffer],
  ['addon', checkAddon],
  ['loopback TCP', checkLoopback],
  ['page size', checkPageSize],
  ['cores', checkCores],
  ['vm.max_map_count', checkMaxMapCount],
  ['userfaultfd', checkUserfaultfd],
  ['overcommit', checkOvercommit],
  ['RDMA devices', checkRdmaDevices],
  ['members listen on', checkAddress],
  ['memlock limit', checkMemlock],
]

/** Runs every check, in the order in which they are shown. */
export async function checkMachine(machine: Machine, request: DoctorRequest): Promise<Finding[]> {
  const findings: Finding[] = []
  for (const [name, check] of checks) findings.push({ name, ...(await check(machine, request)) })
  return findings
}

export function checkArchitecture(machine: Machine): Outcome {
  const value = `${machine.platform} on ${machine.arch}`
  const isSupported =
    machine.platform === 'linux' && (machine.arch === 'x64' || machine.arch === 'arm64')
  if (isSupported) return { status: 'ok', value }
  return { status: 'problem', value, advice: 'pagemesh needs Linux on x86-64 or aarch64.' }
}

export function checkKernel(machine: Machine): Outcome {
  const release = machine.readText('/proc/sys/kernel/osrelease')?.trim()
  if (release === undefined) return { status: 'note', value: 'unknown (/proc is not mounted?)' }
  const [major, minor] = parseVersion(release)
  if (major < 4 || (major === 4 && minor < 17)) {
    return {
      status: 'problem',
      value: release,
      advice: 'Use Linux 4.17 or newer: older kernels lack MAP_FIXED_NOREPLACE.',
    }
  }
  return { status: 'ok', value: release }
}

export function checkNode(machine: Machine): Outcome {
  const value = machine.nodeVersion
  if (parseVersion(value)[0] >= 20) return { status: 'ok', value }
  return { status: 'problem', value, advice: 'Use Node.js 20 or newer.' }
}

export function checkSharedArrayBuffer(machine: Machine): Outcome {
  const way = hasExternalSharedArrayBuffer(machine.nodeVersion)
    ? 'made through Node-API'
    : 'made through V8 (an addon for this Node.js release)'
  if (machine.maxViewBytes > 2 ** 32) {
    return { status: 'ok', value: `views beyond 4 GiB work; ${way}` }
  }
  return {
    status: 'note',
    value: `views up to 4 GiB; ${way}`,
    advice: 'Use Node.js 22 or newer for regions beyond 4 GiB.',
  }
}

export async function checkAddon(machine: Machine): Promise<Outcome> {
  try {
    await machine.loadAddon()
    return { status: 'ok', value: 'built, and it loads' }
  } catch (error) {
    return {
      status: 'problem',
      value: `does not load: ${oneLine(error)}`,
      advice: 'Build it: npm rebuild pagemesh (in a clone of the repository: npm install).',
    }
  }
}

export async function checkLoopback(machine: Machine): Promise<Outcome> {
  try {
    await machine.tryLoopback()
    return { status: 'ok', value: '127.0.0.1 connects' }
  } catch (error) {
    return {
      status: 'problem',
      value: `does not work: ${oneLine(error)}`,
      advice: 'Bring the interface up: sudo ip link set lo up',
    }
  }
}

export function checkPageSize(machine: Machine): Outcome {
  const pageSizeBytes = pageSizeOf(machine.readBytes('/proc/self/auxv'))
  if (pageSizeBytes === undefined) {
    return { status: 'note', value: 'unknown (/proc/self/auxv cannot be read)' }
  }
  const value = `${pageSizeBytes / 1024} KiB`
  if (pageSizeBytes === 4096) return { status: 'ok', value }
  return {
    status: 'note',
    value,
    advice: `Pages of a region are at least ${value} here, on all members alike.`,
  }
}

/** The kernel's page size from the auxiliary vector: pairs of 64-bit words, type and value. */
function pageSizeOf(auxv: Uint8Array | undefined): number | undefined {
  if (auxv === undefined) return undefined
  const words = new DataView(auxv.buffer, auxv.byteOffset, auxv.byteLength)
  for (let at = 0; at + 16 <= auxv.byteLength; at += 16) {
    if (words.getBigUint64(at, true) === auxvPageSize) {
      return Number(words.getBigUint64(at + 8, true))
    }
  }
  return undefined
}

export function checkCores(machine: Machine): Outcome {
  const value = String(machine.coreCount)
  if (machine.coreCount > 1) return { status: 'ok', value }
  return {
    status: 'note',
    value,
    advice: 'A fault needs the faulting thread and an engine: two cores or more are faster.',
  }
}

export function checkMaxMapCount(machine: Machine): Outcome {
  const limit = readNumber(machine, '/proc/sys/vm/max_map_count')
  if (limit === undefined) return { status: 'note', value: 'unknown' }
  const value = String(limit)
  if (limit >= recommendedMaxMapCount) return { status: 'ok', value }
  const lowered =
    limit < defaultMaxMapCount ? `This is below Linux's default of ${defaultMaxMapCount}. ` : ''
  return {
    status: 'note',
    value,
    advice:
      `${lowered}Enough for most programs. Where held and not-held pages alternate over\n` +
      `more than about ${limit} pages, pagemesh lowers the protection of cached pages to stay\n` +
      'below the limit, and each takes an extra local fault (a few µs) to be raised again.\n' +
      'To avoid these faults:\n' +
      `sudo sysctl -w vm.max_map_count=${recommendedMaxMapCount}`,
  }
}

export async function checkUserfaultfd(machine: Machine): Promise<Outcome> {
  // Files and capabilities say what should be; a container's seccomp filter may see it otherwise.
  const tried = await machine.tryUserfaultfd()
  if (tried === 'all') return { status: 'ok', value: 'permitted (tried)' }
  if (tried !== undefined && checkUserfaultfdFiles(machine).status === 'ok') {
    return {
      status: 'note',
      value: tried === 'user-mode' ? 'for faults of user code only (tried)' : 'refused (tried)',
      advice: withoutUserfaultfd,
    }
  }
  return checkUserfaultfdFiles(machine)
}

function checkUserfaultfdFiles(machine: Machine): Outcome {
  const unprivileged = readNumber(machine, '/proc/sys/vm/unprivileged_userfaultfd')
  const hasDevice = machine.isAccessible('/dev/userfaultfd')
  if (unprivileged === undefined && !hasDevice) {
    return { status: 'note', value: 'not in this kernel', advice: withoutUserfaultfd }
  }
  if (hasDevice) return { status: 'ok', value: 'permitted, by /dev/userfaultfd' }
  if (unprivileged === 1) {
    return { status: 'ok', value: 'permitted, by vm.unprivileged_userfaultfd' }
  }
  if (hasCapability(machine, capSysPtrace)) {
    return { status: 'ok', value: 'permitted, by CAP_SYS_PTRACE' }
  }
  return {
    status: 'note',
    value: 'not permitted for this user',
    advice: `${withoutUserfaultfd} To permit it:\nsudo sysctl -w vm.unprivileged_userfaultfd=1`,
  }
}

const withoutUserfaultfd =
  'Not needed: faults come by SIGSEGV. System calls on shared pages then need region.pin().'

export function checkOvercommit(machine: Machine): Outcome {
  const mode = readNumber(machine, '/proc/sys/vm/overcommit_memory')
  if (mode === undefined) return { status: 'note', value: 'unknown' }
  if (mode === 0) return { status: 'ok', value: '0 (heuristic)' }
  if (mode === 1) return { status: 'ok', value: '1 (always)' }
  return {
    status: 'note',
    value: `${mode} (strict)`,
    advice:
      'Every member commits all of a region when it opens it, touched or not. If opening fails:\n' +
      'sudo sysctl -w vm.overcommit_memory=0',
  }
}

function readNumber(machine: Machine, path: string): number | undefined {
  const text = machine.readText(path)?.trim()
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : undefined
}

function oneLine(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error)
  return message.split('\n')[0] ?? ''
}
