import type { Machine } from './machine.js'
import { hasExternalSharedArrayBuffer, parseVersion } from './node-version.js'

/** `note`: works, but could be better. `problem`: pagemesh cannot work like this. */
export type FindingStatus = 'ok' | 'note' | 'problem'

export interface Finding {
  readonly name: string
  readonly status: FindingStatus
  readonly value: string
  /** What to do, where something is short of ideal. */
  readonly advice?: string
}

/** What a check finds out; its name comes from the table. */
type Outcome = Omit<Finding, 'name'>
type Check = (machine: Machine) => Outcome | Promise<Outcome>

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
  ['memlock limit', checkMemlock],
]

/** Runs every check, in the order in which they are shown. */
export async function checkMachine(machine: Machine): Promise<Finding[]> {
  const findings: Finding[] = []
  for (const [name, check] of checks) findings.push({ name, ...(await check(machine)) })
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

export function checkRdmaDevices(machine: Machine): Outcome {
  const devices = machine.list('/sys/class/infiniband')
  if (devices.length > 0) return { status: 'ok', value: devices.join(', ') }
  if (!hasSoftRoce(machine)) {
    return {
      status: 'note',
      value: 'none, and no rdma_rxe module',
      advice:
        'Members talk TCP. RDMA needs a device, or a kernel that has rdma_rxe (SoftRoCE), such\n' +
        'as the one in: sudo apt install linux-image-amd64',
    }
  }
  const network = machine.list('/sys/class/net').find((name) => name !== 'lo') ?? 'eth0'
  return {
    status: 'note',
    value: 'none; the rdma_rxe module is there',
    advice:
      'Members talk TCP. RDMA in software (SoftRoCE) can be switched on:\n' +
      `sudo modprobe rdma_rxe && sudo rdma link add rxe0 type rxe netdev ${network}`,
  }
}

function hasSoftRoce(machine: Machine): boolean {
  if (machine.list('/sys/module').includes('rdma_rxe')) return true
  const release = machine.readText('/proc/sys/kernel/osrelease')?.trim() ?? ''
  return ['modules.dep', 'modules.builtin'].some((file) =>
    machine.readText(`/lib/modules/${release}/${file}`)?.includes('/rdma_rxe.ko'),
  )
}

export function checkMemlock(machine: Machine): Outcome {
  const limits = machine.readText('/proc/self/limits') ?? ''
  const soft = /^Max locked memory\s+(\S+)/m.exec(limits)?.[1]
  if (soft === undefined) return { status: 'note', value: 'unknown' }
  if (soft === 'unlimited') return { status: 'ok', value: soft }
  const value = `${Math.floor(Number(soft) / 1024)} KiB`
  if (machine.list('/sys/class/infiniband').length === 0) {
    return { status: 'ok', value: `${value} (matters to RDMA only)` }
  }
  return {
    status: 'note',
    value,
    advice:
      'RDMA locks the whole of each region in memory. In the shell that starts the members:\n' +
      'ulimit -l unlimited (as root, or after raising memlock in /etc/security/limits.conf)',
  }
}

function readNumber(machine: Machine, path: string): number | undefined {
  const text = machine.readText(path)?.trim()
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : undefined
}

function hasCapability(machine: Machine, capability: bigint): boolean {
  const status = machine.readText('/proc/self/status') ?? ''
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1]
  return effective !== undefined && ((BigInt(`0x${effective}`) >> capability) & 1n) === 1n
}

function oneLine(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error)
  return message.split('\n')[0] ?? ''
}
