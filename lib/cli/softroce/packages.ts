import { closeSync, existsSync, openSync, readSync } from 'node:fs'
import { mustRun, findProgram, type ToolRunner } from './tools.js'

/** A Debian package that something needs, and how to tell that what is needed of it is there. */
interface NeededPackage {
  readonly name: string
  readonly isThere: () => boolean
}

const program =
  (...names: string[]) =>
  () =>
    names.every((name) => findProgram(name) !== undefined)

const userSpace: readonly NeededPackage[] = [
  { name: 'iproute2', isThere: program('ip', 'rdma') },
  { name: 'ibverbs-providers', isThere: () => existsSync('/etc/libibverbs.d/rxe.driver') },
]

const forGuests: readonly NeededPackage[] = [
  { name: 'qemu-system-x86', isThere: program('qemu-system-x86_64') },
  { name: 'busybox-static', isThere: () => findStaticBusybox() !== undefined },
  { name: 'cpio', isThere: program('cpio') },
  { name: 'kmod', isThere: program('modprobe', 'depmod') },
  ...userSpace,
]

const forKernelLink: readonly NeededPackage[] = [
  { name: 'kmod', isThere: program('modprobe') },
  ...userSpace,
]

/** A busybox that needs no libraries, since the guest begins without any. */
export function findStaticBusybox(): string | undefined {
  const file = findProgram('busybox')
  return file !== undefined && !namesInterpreter(file) ? file : undefined
}

function namesInterpreter(file: string): boolean {
  const head = Buffer.alloc(4096)
  const fd = openSync(file, 'r')
  try {
    return head.subarray(0, readSync(fd, head)).includes('/ld-')
  } finally {
    closeSync(fd)
  }
}

/** Names of the packages that are missing; `command` is what is to be run, where it is known. */
export function missingPackages(way: 'kernel' | 'guest', command?: string): string[] {
  const needed = [...(way === 'guest' ? forGuests : forKernelLink)]
  if (command !== undefined) {
    if (command.startsWith('ib_')) needed.push({ name: 'perftest', isThere: program(command) })
    if (command.startsWith('ibv_'))
      needed.push({ name: 'ibverbs-utils', isThere: program(command) })
  }
  return needed.filter(({ isThere }) => !isThere()).map(({ name }) => name)
}

/** What a user types to get these packages. */
export function installCommand(packages: readonly string[]): string {
  return `sudo apt-get install --no-install-recommends ${packages.join(' ')}`
}

/**
 * Installs packages, or says how.
 *
 * @throws Error with the command, if it is not ours to install them.
 */
export async function installPackages(
  packages: readonly string[],
  run: ToolRunner,
  say: (line: string) => void,
): Promise<void> {
  if (packages.length === 0) return
  const isRoot = process.getuid?.() === 0
  if (!isRoot || findProgram('apt-get') === undefined) {
    throw new Error(`SoftRoCE needs ${packages.join(', ')}; run: ${installCommand(packages)}`)
  }
  say(`installing ${packages.join(', ')} with apt-get`)
  await mustRun(run, 'apt-get', ['update'])
  await mustRun(run, 'apt-get', ['install', '-y', '--no-install-recommends', ...packages])
}
