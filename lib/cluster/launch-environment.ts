import { randomBytes } from 'node:crypto'
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { isAbsolute } from 'node:path'
import { PagemeshError } from '../errors.js'
import { type FaultPolicy, isFaultPolicy } from './fault-names.js'
import { type Address, formatAddress } from './joiner.js'
import { generateKey, parseKey } from './key.js'
import { parseRdmaDevice, type RdmaDeviceName } from './rdma-device.js'
import { isTransportPolicy, type TransportPolicy } from './transport-names.js'

/** The most members that a mesh can have: copysets are bitmaps of 32 bits. */
export const maxMeshSize = 32
/** How long a join may take if nothing else is said. */
export const defaultJoinTimeoutMs = 30_000

const maxTimeoutMs = 2 ** 31 - 1
export const defaultHost = '127.0.0.1'

/**
 * Where rank 0 is found: an address at which it listens, or a file in which it publishes one.
 * Rank 0 itself listens at the address, or publishes in the file.
 */
export type Rendezvous =
  | { readonly kind: 'address'; readonly host: string; readonly port: number }
  | { readonly kind: 'file'; readonly path: string }

/** What a member has to know to join. */
export interface LaunchOptions {
  readonly rank: number
  readonly size: number
  /** Present if `size` is above 1. */
  readonly rendezvous: Rendezvous | undefined
  readonly key: Uint8Array
  /** Where this member listens. */
  readonly host: string
  readonly joinTimeoutMs: number
  readonly transport: TransportPolicy
  /** Undefined: the one that has the address `host`. */
  readonly rdmaDevice: RdmaDeviceName | undefined
  readonly faults: FaultPolicy
}

/** What a program may say itself; each goes before its variable. */
export interface LaunchOverrides {
  /** PAGEMESH_RANK: this member's number, from 0. */
  rank?: number | undefined
  /** PAGEMESH_SIZE: how many members the mesh has, at most 32. */
  size?: number | undefined
  /** PAGEMESH_RENDEZVOUS: `host:port`, `[::1]:port` or `file:/path`. */
  rendezvous?: string | undefined
  /** PAGEMESH_KEY: 16 to 64 bytes, in hexadecimal if a string. */
  key?: string | Uint8Array | undefined
  /** PAGEMESH_HOST: the name or address to listen on; 127.0.0.1 if nothing is said. */
  host?: string | undefined
  /** PAGEMESH_JOIN_TIMEOUT_MS: how long the join may take. */
  joinTimeoutMs?: number | undefined
  /**
   * PAGEMESH_TRANSPORT: 'shm' (memory of one host), 'verbs' (RDMA), 'tcp', or 'auto', which is for
   * each other member the first of them that both ends have; auto if nothing is said.
   */
  transport?: TransportPolicy | undefined
  /**
   * PAGEMESH_RDMA_DEVICE: `device`, `device:port` or `device:port:gid-index`. What is left out is
   * the port and the RoCE v2 GID with the address of `host`, or else the first. Without any, the
   * device is the one that has that address.
   */
  rdmaDevice?: string | undefined
  /**
   * PAGEMESH_FAULTS: what hears of the first touch of a page. With 'userfaultfd' system calls may
   * use pages that are not here, as any code may; it needs Linux 6.4 and a permission, and a fault
   * takes longer. With 'sigsegv' they need {@link Region.pin}. 'auto', if nothing is said, is the
   * quickest that works, which is 'sigsegv'. Members may differ.
   */
  faults?: FaultPolicy | undefined
}

type Environment = Readonly<Record<string, string | undefined>>

/** A value and the variable or option it came from. */
interface Setting {
  readonly source: string
  readonly value: unknown
}

/**
 * Puts together what a member needs to join, from the launcher's variables and the program's own
 * options. With neither it is a mesh of one member.
 *
 * @throws PagemeshError naming the variable or option, what it held and what is expected
 */
export function readLaunchOptions(
  env: Environment,
  overrides: LaunchOverrides = {},
): LaunchOptions {
  const find = (option: keyof LaunchOverrides, variable: string): Setting | undefined => {
    const own = overrides[option]
    if (own !== undefined) return { source: `the option '${option}'`, value: own }
    const set = env[variable]
    return set === undefined ? undefined : { source: variable, value: set }
  }
  const rankSetting = find('rank', 'PAGEMESH_RANK')
  const sizeSetting = find('size', 'PAGEMESH_SIZE')
  const rendezvousSetting = find('rendezvous', 'PAGEMESH_RENDEZVOUS')
  const keySetting = find('key', 'PAGEMESH_KEY')
  const hostSetting = find('host', 'PAGEMESH_HOST')
  const timeoutSetting = find('joinTimeoutMs', 'PAGEMESH_JOIN_TIMEOUT_MS')
  const transportSetting = find('transport', 'PAGEMESH_TRANSPORT')
  const deviceSetting = find('rdmaDevice', 'PAGEMESH_RDMA_DEVICE')
  const faultsSetting = find('faults', 'PAGEMESH_FAULTS')

  const needsSize = rankSetting ?? rendezvousSetting
  if (needsSize !== undefined && sizeSetting === undefined) {
    throw missing('PAGEMESH_SIZE', 'size', `${needsSize.source} is set`)
  }
  const size = sizeSetting === undefined ? 1 : readInteger(sizeSetting, 1, maxMeshSize, 'members')
  const because = `the mesh has ${size} members`
  if (size > 1 && rankSetting === undefined) throw missing('PAGEMESH_RANK', 'rank', because)
  if (size > 1 && rendezvousSetting === undefined) {
    throw missing('PAGEMESH_RENDEZVOUS', 'rendezvous', because)
  }
  if (size > 1 && keySetting === undefined) throw missing('PAGEMESH_KEY', 'key', because)

  return {
    rank: rankSetting === undefined ? 0 : readInteger(rankSetting, 0, size - 1, because),
    size,
    rendezvous: rendezvousSetting === undefined ? undefined : readTarget(rendezvousSetting),
    key: keySetting === undefined ? generateKey() : parseKey(keySetting.value, keySetting.source),
    host: hostSetting === undefined ? defaultHost : readHost(hostSetting),
    joinTimeoutMs:
      timeoutSetting === undefined
        ? defaultJoinTimeoutMs
        : readInteger(timeoutSetting, 1, maxTimeoutMs, 'milliseconds'),
    transport: transportSetting === undefined ? 'auto' : readTransport(transportSetting),
    rdmaDevice: deviceSetting === undefined ? undefined : readDevice(deviceSetting),
    faults: faultsSetting === undefined ? 'auto' : readFaults(faultsSetting),
  }
}

/**
 * Rank 0 makes its address known. The file appears whole or not at all, and only its owner may
 * read it. An earlier file of that name is replaced.
 */
export function publishRendezvous(path: string, host: string, port: number): void {
  const temporary = `${path}.${process.pid}.${randomBytes(6).toString('hex')}`
  try {
    writeFileSync(temporary, `${formatAddress({ host, port })}\n`, { flag: 'wx', mode: 0o600 })
    renameSync(temporary, path)
  } catch (cause) {
    rmSync(temporary, { force: true })
    throw new PagemeshError(
      'ERR_PAGEMESH_JOIN_FAILED',
      `cannot write the rendezvous file ${path}: its directory must exist and be writable ` +
        `(${reasonOf(cause)})`,
      { cause },
    )
  }
}

/** What rank 0 has published; undefined as long as the file is absent. */
export function readRendezvous(path: string): Address | undefined {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new PagemeshError(
      'ERR_PAGEMESH_JOIN_FAILED',
      `cannot read the rendezvous file ${path} (${reasonOf(cause)})`,
      { cause },
    )
  }
  const address = parseAddress(text.replace(/\n$/, ''))
  if (address === undefined) {
    throw new PagemeshError(
      'ERR_PAGEMESH_JOIN_FAILED',
      `the rendezvous file ${path} holds ${show(text)}; expected host:port as rank 0 writes it: ` +
        'remove the file and start all members again',
    )
  }
  return address
}

function readInteger(setting: Setting, lowest: number, highest: number, of: string): number {
  const { source, value } = setting
  const isText = typeof value === 'string' && source.startsWith('PAGEMESH_')
  const number = isText && /^-?\d{1,15}$/.test(value) ? Number(value) : value
  const expected = `expected a whole number from ${lowest} to ${highest} (${of})`
  if (typeof number !== 'number' || !Number.isInteger(number)) {
    throw new PagemeshError(
      'ERR_PAGEMESH_INVALID_ARGUMENT',
      `${source} holds ${show(value)}; ${expected}`,
    )
  }
  if (number < lowest || number > highest) {
    throw new PagemeshError(
      'ERR_PAGEMESH_OUT_OF_RANGE',
      `${source} holds ${show(value)}; ${expected}`,
    )
  }
  return number
}

function readTransport({ source, value }: Setting): TransportPolicy {
  if (isTransportPolicy(value)) return value
  throw new PagemeshError(
    'ERR_PAGEMESH_INVALID_ARGUMENT',
    `${source} holds ${show(value)}; expected 'auto', 'shm', 'tcp' or 'verbs'`,
  )
}

function readFaults({ source, value }: Setting): FaultPolicy {
  if (isFaultPolicy(value)) return value
  throw new PagemeshError(
    'ERR_PAGEMESH_INVALID_ARGUMENT',
    `${source} holds ${show(value)}; expected 'auto', 'sigsegv' or 'userfaultfd'`,
  )
}

function readDevice({ source, value }: Setting): RdmaDeviceName {
  const parsed = typeof value === 'string' ? parseRdmaDevice(value) : 'expected a string'
  if (typeof parsed !== 'string') return parsed
  throw new PagemeshError(
    'ERR_PAGEMESH_INVALID_ARGUMENT',
    `${source} holds ${show(value)}; ${parsed}`,
  )
}

function readTarget({ source, value }: Setting): Rendezvous {
  if (typeof value === 'string') {
    if (value.startsWith('file:')) {
      // file:/path, and file:///path as URLs are written; the path itself is taken literally.
      const path = value.slice('file:'.length).replace(/^\/\/\//, '/')
      const isUsable = isAbsolute(path) && !path.startsWith('//') && !path.includes('\0')
      if (isUsable && path !== '/') return { kind: 'file', path }
    } else {
      const address = parseAddress(value)
      if (address !== undefined) return { kind: 'address', ...address }
    }
  }
  throw new PagemeshError(
    'ERR_PAGEMESH_INVALID_ARGUMENT',
    `${source} holds ${show(value)}; expected host:port (port 1 to 65535), [IPv6 address]:port, ` +
      'or file: and an absolute path',
  )
}

function readHost({ source, value }: Setting): string {
  const host = typeof value === 'string' ? value.replace(/^\[(.*:.*)\]$/, '$1') : ''
  if (isHostName(host) || isIpv6(host)) return host
  throw new PagemeshError(
    'ERR_PAGEMESH_INVALID_ARGUMENT',
    `${source} holds ${show(value)}; expected a host name or an IP address to listen on`,
  )
}

function parseAddress(text: string): Address | undefined {
  const match = /^(?:\[([^[\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text)
  if (match === null) return undefined
  const [, ipv6, name, digits] = match as (string | undefined)[]
  const port = Number(digits)
  if (port < 1 || port > 65535) return undefined
  if (ipv6 !== undefined) return isIpv6(ipv6) ? { host: ipv6, port } : undefined
  return name !== undefined && isHostName(name) ? { host: name, port } : undefined
}

function isHostName(text: string): boolean {
  return /^[A-Za-z0-9._-]{1,253}$/.test(text)
}

function isIpv6(text: string): boolean {
  return isIP(text) === 6
}

function missing(variable: string, option: string, because: string): PagemeshError {
  return new PagemeshError(
    'ERR_PAGEMESH_INVALID_ARGUMENT',
    `${because}, but neither ${variable} nor the option '${option}' says more: set it, or start ` +
      'the members with `pagemesh run`',
  )
}

function show(value: unknown): string {
  if (typeof value === 'string') {
    return JSON.stringify(value.length > 200 ? `${value.slice(0, 200)}…` : value)
  }
  if (typeof value === 'number' || typeof value === 'boolean' || value === null)
    return String(value)
  return `a value of type ${typeof value}`
}

function reasonOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause)
}
