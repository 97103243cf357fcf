import { createHash } from 'node:crypto'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer, type Server } from 'node:net'
import { homedir } from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { guestApplets, guestInit, guestModuleParameters, guestModules } from './guest-init.js'
import { findStaticBusybox } from './packages.js'
import { shellQuote } from './shell.js'
import { mustRun, type ToolRunner } from './tools.js'

/** Depends on the newest kernel of the distribution. The `-cloud-` kernels have no rdma_rxe. */
const kernelMetaPackage = 'linux-image-amd64'

const lockPollMs = 200

/** What a guest boots. Shared by all runs, never changed once it is there. */
export interface GuestImage {
  readonly kernel: string
  readonly initramfs: string
  /** `<version of the kernel package>-<hash of what we put in>` */
  readonly name: string
}

export function cacheFolder(environment: NodeJS.ProcessEnv = process.env): string {
  const given = environment.XDG_CACHE_HOME ?? ''
  const base = path.isAbsolute(given) ? given : path.join(homedir(), '.cache')
  return path.join(base, 'pagemesh', 'softroce')
}

/** Changes with everything that we put into an image. */
export function contentHash(): string {
  const content = JSON.stringify([guestInit, guestModules, guestModuleParameters, guestApplets])
  return createHash('sha256').update(content).digest('hex').slice(0, 12)
}

/** The newest image that is already there; it is used as long as our part of it is unchanged. */
export function findImage(folder: string = cacheFolder()): GuestImage | undefined {
  if (!existsSync(folder)) return undefined
  const ending = `-${contentHash()}`
  const names = readdirSync(folder).filter((name) => name.endsWith(ending))
  const name = names.sort((a, b) => a.localeCompare(b, 'en', { numeric: true })).at(-1)
  return name === undefined ? undefined : imageNamed(folder, name)
}

/** The image to boot; built first if there is none. */
export async function ensureImage(
  run: ToolRunner,
  say: (line: string) => void,
  folder: string = cacheFolder(),
): Promise<GuestImage> {
  const found = findImage(folder)
  if (found !== undefined) return found
  mkdirSync(folder, { recursive: true })
  return withLock(`${folder}\n${contentHash()}`, async () => {
    const foundNow = findImage(folder)
    if (foundNow !== undefined) return foundNow
    say(`fetching Debian's kernel and making a virtual machine's image of it, once`)
    const workFolder = mkdtempSync(path.join(folder, 'building-'))
    try {
      return await buildImage(run, workFolder, folder)
    } finally {
      rmSync(workFolder, { recursive: true, force: true })
    }
  })
}

function imageNamed(folder: string, name: string): GuestImage {
  const at = (file: string) => path.join(folder, name, file)
  return { kernel: at('vmlinuz'), initramfs: at('initramfs.cpio'), name }
}

/** An abstract socket can be bound once, and is free when its process has ended, however it did. */
async function withLock<T>(subject: string, action: () => Promise<T>): Promise<T> {
  const digest = createHash('sha256').update(subject).digest('hex')
  const name = `\0pagemesh-softroce-${process.getuid?.() ?? 0}-${digest}`
  let server = await tryListen(name)
  while (server === undefined) {
    await sleep(lockPollMs)
    server = await tryListen(name)
  }
  try {
    return await action()
  } finally {
    server.close()
  }
}

/** Undefined if somebody else has the name. */
function tryListen(name: string): Promise<Server | undefined> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE') resolve(undefined)
      else reject(error)
    })
    server.listen(name, () => resolve(server))
  })
}

async function buildImage(
  run: ToolRunner,
  workFolder: string,
  folder: string,
): Promise<GuestImage> {
  const packageFile = await downloadKernel(run, workFolder)
  const version = (await mustRun(run, 'dpkg-deb', ['-f', packageFile, 'Version'])).trim()
  const release = await unpackKernel(run, packageFile, workFolder)
  const modules = await modulesInOrder(run, workFolder, release)

  const imageFolder = path.join(workFolder, 'image')
  mkdirSync(imageFolder)
  copyFileSync(path.join(workFolder, `boot/vmlinuz-${release}`), path.join(imageFolder, 'vmlinuz'))
  const initFolder = makeInitFolder(workFolder, modules)
  const target = shellQuote(path.join(imageFolder, 'initramfs.cpio'))
  const archive = `find . | cpio --create --format=newc --owner=0:0 --quiet >${target}`
  await mustRun(run, '/bin/sh', ['-c', archive], { cwd: initFolder })

  const name = `${version}-${contentHash()}`
  const image = imageNamed(folder, name)
  try {
    renameSync(imageFolder, path.join(folder, name))
  } catch (error) {
    // In another network namespace the lock is another one.
    if (!existsSync(image.initramfs)) throw error
  }
  return image
}

async function downloadKernel(run: ToolRunner, workFolder: string): Promise<string> {
  let kernelPackage = await kernelPackageName(run)
  if (kernelPackage === undefined && process.getuid?.() === 0) {
    await mustRun(run, 'apt-get', ['update'])
    kernelPackage = await kernelPackageName(run)
  }
  if (kernelPackage === undefined) {
    throw new Error(
      `apt knows no package ${kernelMetaPackage}: SoftRoCE in a virtual machine takes its kernel ` +
        'from Debian. On Debian run: sudo apt-get update',
    )
  }
  await mustRun(run, 'apt-get', ['download', kernelPackage], { cwd: workFolder })
  const file = readdirSync(workFolder).find((name) => name.endsWith('.deb'))
  if (file === undefined) throw new Error(`apt-get download ${kernelPackage} left no package`)
  return path.join(workFolder, file)
}

async function kernelPackageName(run: ToolRunner): Promise<string | undefined> {
  const { stdout } = await run('apt-cache', ['depends', kernelMetaPackage])
  return /^\s*Depends: (linux-image-[0-9]\S*-amd64)$/m.exec(stdout)?.[1]
}

/** Returns the kernel's release, such as `6.1.0-40-amd64`. */
async function unpackKernel(
  run: ToolRunner,
  packageFile: string,
  workFolder: string,
): Promise<string> {
  const wanted = ['boot/vmlinuz-*', 'lib/modules/*/modules.*']
  for (const part of ['crypto', 'drivers', 'fs', 'lib', 'net']) {
    wanted.push(`lib/modules/*/kernel/${part}/*`)
  }
  const patterns = wanted.map((pattern) => shellQuote(`./${pattern}`)).join(' ')
  const archive = `dpkg-deb --fsys-tarfile ${shellQuote(packageFile)}`
  const command = `${archive} | tar -x --wildcards ${patterns}`
  await mustRun(run, '/bin/sh', ['-c', command], { cwd: workFolder })
  const release = readdirSync(path.join(workFolder, 'lib/modules')).at(0)
  if (release === undefined) throw new Error(`${path.basename(packageFile)} holds no modules`)
  return release
}

/** Files to insert, each after those that it needs. */
async function modulesInOrder(
  run: ToolRunner,
  workFolder: string,
  release: string,
): Promise<string[]> {
  await mustRun(run, 'depmod', ['-b', workFolder, release])
  const files = new Set<string>()
  for (const module of guestModules) {
    const args = ['-d', workFolder, '-S', release, '--show-depends', module]
    const output = await mustRun(run, 'modprobe', args)
    for (const [, file] of output.matchAll(/^insmod (\S+)/gm)) files.add(file)
  }
  return [...files]
}

function makeInitFolder(workFolder: string, modules: readonly string[]): string {
  const initFolder = path.join(workFolder, 'init')
  const mountPoints = ['base', 'dev', 'io', 'layers', 'proc', 'root', 'spec', 'sys']
  for (const name of ['bin', 'modules', ...mountPoints]) {
    mkdirSync(path.join(initFolder, name), { recursive: true })
  }
  writeFileSync(path.join(initFolder, 'init'), guestInit, { mode: 0o755 })
  const busybox = findStaticBusybox()
  if (busybox === undefined) throw new Error('there is no statically linked busybox')
  copyFileSync(busybox, path.join(initFolder, 'bin/busybox'))
  for (const applet of guestApplets) symlinkSync('busybox', path.join(initFolder, 'bin', applet))
  const names = modules.map((file) => path.basename(file))
  for (const [index, file] of modules.entries()) {
    copyFileSync(file, path.join(initFolder, 'modules', names[index]))
  }
  const lines = names.map((name) => {
    const parameters = guestModuleParameters[name.replace(/\.ko.*$/, '')]
    return parameters === undefined ? name : `${name} ${parameters}`
  })
  writeFileSync(path.join(initFolder, 'modules/order'), `${lines.join('\n')}\n`)
  return initFolder
}
