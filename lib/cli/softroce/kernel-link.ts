import { existsSync } from 'node:fs'
import type { Machine } from '../machine.js'
import { linkMtuBytes } from './guest-spec.js'
import { mustRun, type ToolRunner } from './tools.js'

const capNetAdmin = 12n
const capSysModule = 16n

/** An RDMA device of the kernel's, on a network device that leads nowhere. */
export interface KernelLink {
  /** Of both devices, so that what a killed run leaves is known by its process. */
  readonly name: string
  readonly address: string
}

const namePrefix = 'pmrxe'

export function kernelLink(pid: number = process.pid): KernelLink {
  // From the block for benchmarks between machines, which nothing else routes.
  return { name: `${namePrefix}${pid}`, address: `198.18.${(pid >> 8) & 255}.${pid & 255}` }
}

/** Why this kernel cannot give us an RDMA device; undefined if it can. */
export async function kernelLinkObstacle(
  machine: Machine,
  run: ToolRunner,
): Promise<string | undefined> {
  const isLoaded = machine.list('/sys/module/rdma_rxe').length > 0
  const hasDummy = machine.list('/sys/module/dummy').length > 0
  if (!isLoaded && !(await canLoad(run, 'rdma_rxe'))) return 'this kernel has no rdma_rxe'
  const mask = effectiveCapabilities(machine)
  if ((mask & (1n << capNetAdmin)) === 0n) return 'only root may make an RDMA device'
  const mustLoad = !isLoaded || !hasDummy
  if (mustLoad && (mask & (1n << capSysModule)) === 0n) {
    return 'rdma_rxe is not loaded, and only root may load it'
  }
  return undefined
}

async function canLoad(run: ToolRunner, module: string): Promise<boolean> {
  try {
    return (await run('modprobe', ['--dry-run', '--quiet', module])).exitCode === 0
  } catch {
    return false
  }
}

function effectiveCapabilities(machine: Machine): bigint {
  const status = machine.readText('/proc/self/status') ?? ''
  const hex = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1]
  return hex === undefined ? 0n : BigInt(`0x${hex}`)
}

/** Makes the device, and takes back what was made if not all can be made. */
export async function addKernelLink(link: KernelLink, run: ToolRunner): Promise<void> {
  await removeStaleLinks(run)
  await mustRun(run, 'modprobe', ['-a', 'dummy', 'crc32_generic', 'rdma_rxe'])
  try {
    await mustRun(run, 'ip', ['link', 'add', link.name, 'type', 'dummy'])
    await mustRun(run, 'ip', ['link', 'set', link.name, 'mtu', String(linkMtuBytes)])
    await mustRun(run, 'ip', ['address', 'add', `${link.address}/32`, 'dev', link.name])
    await mustRun(run, 'ip', ['link', 'set', link.name, 'up'])
    const device = ['link', 'add', link.name, 'type', 'rxe', 'netdev', link.name]
    await mustRun(run, 'rdma', device)
  } catch (error) {
    await removeKernelLink(link.name, run)
    throw error
  }
}

/** Removes what is there of it; what is not there needs no removal. */
export async function removeKernelLink(name: string, run: ToolRunner): Promise<void> {
  await run('rdma', ['link', 'delete', name])
  await run('ip', ['link', 'delete', name])
}

/** A run that was killed could not remove its own. */
async function removeStaleLinks(run: ToolRunner): Promise<void> {
  const { stdout } = await run('ip', ['-o', 'link', 'show', 'type', 'dummy'])
  for (const [, name, pid] of stdout.matchAll(/^\d+: (pmrxe(\d+))[:@]/gm)) {
    if (!existsSync(`/proc/${pid}`)) await removeKernelLink(name, run)
  }
}
