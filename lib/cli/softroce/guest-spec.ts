import { existsSync, mkdirSync, readFileSync, realpathSync, statSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import path from 'node:path'
import { UsageError } from '../usage.js'
import type { GuestImage } from './image.js'
import { shellQuote } from './shell.js'
import { searchPath } from './tools.js'

/** Larger than RoCE's largest packet, so that the active MTU is 4096. */
export const linkMtuBytes = 9_000

/** Written anew in each guest: they hold what belongs to running processes. */
const freshFolders = ['/run', '/dev/shm'] as const

/** Variables that name what only the host has, or what the launcher inside sets. */
const hostOnlyVariables = [
  /^(TMPDIR|TMP|TEMP|PWD|OLDPWD|SHLVL|_|LD_PRELOAD)$/,
  /^(DISPLAY|WAYLAND_.*|XAUTHORITY|XDG_RUNTIME_DIR|DBUS_.*|SSH_.*|GPG_.*|SUDO_.*|TMUX.*|STY)$/,
  /^(NODE_CHANNEL_.*|NODE_UNIQUE_ID)$/,
  /^PAGEMESH_(RANK|SIZE|KEY|RENDEZVOUS|LIFELINE_FD|HOST|TRANSPORT)$/,
  /_proxy$/i,
] as const

/** What one guest is to do. */
export interface GuestSpec {
  readonly image: GuestImage
  /** The machine's number in the run, from 0. */
  readonly hostIndex: number
  readonly hostCount: number
  readonly cpuCount: number
  readonly memoryMib: number
  readonly accelerator: 'tcg' | 'kvm'
  /** The program and its arguments. */
  readonly command: readonly string[]
  readonly environment: Readonly<Record<string, string>>
  /** Where the program runs; read-only, unless it is in a writable folder. */
  readonly directory: string
  /** Folders of the host's that the program reads, wherever they are. */
  readonly needed: readonly string[]
  /** Folders of the host's that the program may change. Absolute, without symbolic links. */
  readonly writable: readonly string[]
  /** Further files for the guest's `/run/pagemesh`. */
  readonly files: Readonly<Record<string, string>>
  readonly hasStdin: boolean
  /** Stands after the last byte of the program's output. */
  readonly endMark: string
}

/** The guests' own network, on a cable that ends in them. */
export function guestAddress(hostIndex: number): string {
  return `10.77.0.${hostIndex + 1}`
}

/** The variables that a program in a guest gets, besides ours. */
export function passedEnvironment(base: NodeJS.ProcessEnv = process.env): Record<string, string> {
  const passed: Record<string, string> = {}
  for (const [name, value] of Object.entries(base)) {
    // A shell cannot set others.
    if (value === undefined || !/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) continue
    if (!hostOnlyVariables.some((pattern) => pattern.test(name))) passed[name] = value
  }
  return { ...passed, PATH: searchPath(base) }
}

/** @throws UsageError if it is no folder. */
export function writableFolder(name: string): string {
  const absolute = path.resolve(name)
  if (statSync(absolute, { throwIfNoEntry: false })?.isDirectory() !== true) {
    throw new UsageError(`--writable '${name}' is not a folder: make it first`)
  }
  return realpathSync(absolute)
}

/** Writes what the guest reads when it starts. */
export function writeSpecFolder(folder: string, spec: GuestSpec): void {
  mkdirSync(folder, { mode: 0o700 })
  const files = {
    ...spec.files,
    'setup.sh': setupScript(spec),
    'program.sh': programScript(spec),
  }
  for (const [name, text] of Object.entries(files)) {
    writeFileSync(path.join(folder, name), text, { mode: 0o600 })
  }
}

export function setupScript(spec: GuestSpec): string {
  const lines = [
    `end_mark=${spec.endMark}`,
    `has_stdin=${spec.hasStdin ? 'yes' : 'no'}`,
    `hostname pagemesh-${spec.hostIndex}`,
    'fresh /run 755',
  ]
  const overlays = overlaidFolders()
  for (const folder of overlays) lines.push(`overlay ${shellQuote(folder)}`)
  const covered = [...freshFolders, ...overlays]
  // What we put something over is brought back, read-only.
  const shown = [...new Set([spec.directory, ...spec.needed])].sort()
  for (const folder of shown) {
    if (covered.some((cover) => isBelow(folder, cover))) {
      lines.push(`as_on_host ${shellQuote(folder)}`)
    }
  }
  for (const [index, folder] of spec.writable.entries()) {
    if (freshFolders.some((cover) => isBelow(folder, cover))) {
      lines.push(`mkdir -p ${shellQuote(`/root${folder}`)}`)
    }
    lines.push(`writable ${writableTag(index)} ${shellQuote(folder)}`)
  }
  const address = `${guestAddress(spec.hostIndex)}/24`
  lines.push(`network ${address} fd77::${spec.hostIndex + 1}/64 ${linkMtuBytes}`)
  return `${lines.join('\n')}\n`
}

export function writableTag(index: number): string {
  return `writable${index}`
}

function programScript(spec: GuestSpec): string {
  const lines = [`umask ${ownUmask()}`, 'unset HOME TERM']
  for (const [name, value] of Object.entries(spec.environment)) {
    lines.push(`export ${name}=${shellQuote(value)}`)
  }
  lines.push(`cd ${shellQuote(spec.directory)} || exit 125`)
  lines.push(`exec ${spec.command.map(shellQuote).join(' ')}`)
  return `${lines.join('\n')}\n`
}

/** In octal. Asking by `process.umask()` would change it for a moment. */
function ownUmask(): string {
  return /^Umask:\s*([0-7]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '022'
}

/** What a program may take for its own: changes stay in the guest's memory. */
function overlaidFolders(): string[] {
  const folders = ['/tmp', '/var/tmp', path.join(homedir(), '.cache')]
  return folders.filter((folder) => existsSync(folder) && !/[:,\\\n]/.test(folder))
}

function isBelow(folder: string, cover: string): boolean {
  return folder.startsWith(`${cover}/`)
}
