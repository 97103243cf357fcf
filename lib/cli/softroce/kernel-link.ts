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

/** What the link is made with. Older rdma_rxe need crc32_generic, and do not say so. */
const modules = ['dummy', 'crc32_generic', 'rdma_rxe'] as const

/** dummy would make a network device of its own, unasked. */
const parameters: Readonly<Record<string, readonly string[]>> = { dummy: ['numdummies=0'] }

/** Why this kernel cannot give us an RDMA device; undefined if it can. */
export async function kernelLinkObstacle(
  machine: Machine,
  run: ToolRunner,
): Promise<string | undefined> {
  const missing = ['dummy', 'rdma_rxe'].filter((name) => !isLoaded(machine, name))
  for (const name of missing) {
    if (!(await canLoad(run, name))) return `this kernel has no ${name}`
  }
  const mask = effectiveCapabilities(machine)
  if ((mask & (1n << capNetAdmin)) === 0n) return 'only root may make an RDMA device'
  if (missing.length > 0 && (mask & (1n << capSysModule)) === 0n) {
    return `${missing.join(' and ')} must be loaded, and only root may load modules`
  }
  return undefined
}

function isLoaded(machine: Machine, module: string): boolean {
  return machine.list(`/sys/module/${module}`).length > 0
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
export async function addKernelLink(
  link: KernelLink,
  machine: Machine,
  run: ToolRunner,
): Promise<void> {
  await removeStaleLinks(run)
  await loadModules(machine, run)
  const { name, address } = link
  const steps = [
    ['ip', 'link', 'add', name, 'type', 'dummy'],
    ['ip', 'link', 'set', name, 'mtu', String(linkMtuBytes)],
    ['ip', 'address', 'add', `${address}/32`, 'dev', name],
    ['ip', 'link', 'set', name, 'up'],
    ['rdma', 'link', 'add', name, 'type', 'rxe', 'netdev', name],
  ]
  try {
    for (const [command, ...args] of steps) await mustRun(run, command, args, { detached: true })
  } catch (error) {
    await removeKernelLink(name, run)
    throw error
  }
}

/** What is loaded already needs no modprobe, which may find nothing to load in a container. */
async function loadModules(machine: Machine, run: ToolRunner): Promise<void> {
  for (const name of modules.filter((module) => !isLoaded(machine, module))) {
    const args = [name, ...(parameters[name] ?? [])]
    // Newer kernels need no crc32_generic, and do not have it.
    if (name === 'crc32_generic') await run('modprobe', ['--quiet', ...args], { detached: true })
    else await mustRun(run, 'modprobe', args, { detached: true })
  }
}

/** Removes what is there of it; what is not there needs no removal. */
export async function removeKernelLink(name: string, run: ToolRunner): Promise<void> {
  await run('rdma', ['link', 'delete', name], { detached: true })
  await run('ip', ['link', 'delete', name], { detached: true })
}

/** A run that was killed could not remove its own. */
async function removeStaleLinks(run: ToolRunner): Promise<void> {
  const { stdout } = await run('ip', ['-o', 'link', 'show', 'type', 'dummy'])
  for (const [, name, pid] of stdout.matchAll(/^\d+: (pmrxe(\d+))[:@]/gm)) {
    if (!existsSync(`/proc/${pid}`)) await removeKernelLink(name, run)
  }
}
