import { constants as bufferConstants } from 'node:buffer'
import { lookup } from 'node:dns/promises'
import { accessSync, constants, readdirSync, readFileSync } from 'node:fs'
import { connect, createServer, type AddressInfo } from 'node:net'
import { availableParallelism, endianness } from 'node:os'
import type { RdmaDevices } from '../native/rdma-devices.js'

/** What the doctor's checks may ask of the machine, so that tests can be any machine. */
export interface Machine {
  readonly platform: string
  readonly arch: string
  readonly nodeVersion: string
  /** The largest view that this Node.js can make. */
  readonly maxViewBytes: number
  readonly coreCount: number
  /** Undefined if the file cannot be read. */
  readText(path: string): string | undefined
  /** Undefined if the file cannot be read. */
  readBytes(path: string): Uint8Array | undefined
  /** Names in a directory; empty if there is none. */
  list(path: string): readonly string[]
  /** Whether this process may open the file for reading and writing. */
  isAccessible(path: string): boolean
  /** Resolves if the native addon loads, rejects with the reason if it does not. */
  loadAddon(): Promise<void>
  /** Whether userfaultfd can be opened: for all faults, for those of user code, or not. */
  tryUserfaultfd(): Promise<'all' | 'user-mode' | 'no' | undefined>
  /** Undefined if the native addon does not load. */
  rdmaDevices(): Promise<RdmaDevices | undefined>
  /** The IP address of a host; undefined if there is none. */
  addressOf(host: string): Promise<string | undefined>
  /** Resolves if a byte goes through a TCP connection over loopback. */
  tryLoopback(): Promise<void>
}

function orUndefined<T>(read: () => T): T | undefined {
  try {
    return read()
  } catch {
    return undefined
  }
}

/** The machine that this process runs on. */
export const realMachine: Machine = {
  platform: process.platform,
  arch: endianness() === 'LE' ? process.arch : `${process.arch} (big-endian)`,
  nodeVersion: process.version,
  maxViewBytes: bufferConstants.MAX_LENGTH,
  coreCount: availableParallelism(),
  readText: (path) => orUndefined(() => readFileSync(path, 'utf8')),
  readBytes: (path) => orUndefined(() => readFileSync(path)),
  list: (path) => orUndefined(() => readdirSync(path)) ?? [],
  isAccessible: (path) =>
    orUndefined(() => {
      accessSync(path, constants.R_OK | constants.W_OK)
      return true
    }) ?? false,
  loadAddon,
  tryUserfaultfd,
  rdmaDevices,
  addressOf,
  tryLoopback,
}

/** Whether this process has a capability, by its number, in its own user namespace. */
export function hasCapability(machine: Pick<Machine, 'readText'>, capability: bigint): boolean {
  const status = machine.readText('/proc/self/status') ?? ''
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1]
  return effective !== undefined && ((BigInt(`0x${effective}`) >> capability) & 1n) === 1n
}

async function loadAddon(): Promise<void> {
  const addon = await import('../native/addon.js')
  addon.loadAddon()
}

async function tryUserfaultfd(): Promise<'all' | 'user-mode' | 'no' | undefined> {
  const addon = await import('../native/addon.js')
  try {
    const probe = addon.loadAddon().probe()
    if (probe.userfaultfd) return 'all'
    return probe.userfaultfdUserMode ? 'user-mode' : 'no'
  } catch {
    return undefined // the addon has a check of its own
  }
}

async function rdmaDevices(): Promise<RdmaDevices | undefined> {
  const addon = await import('../native/addon.js')
  try {
    return addon.loadAddon().rdmaDevices()
  } catch {
    return undefined // as above
  }
}

async function addressOf(host: string): Promise<string | undefined> {
  try {
    return (await lookup(host)).address
  } catch {
    return undefined
  }
}

const loopbackTimeoutMs = 2_000

function tryLoopback(): Promise<void> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.on('error', reject).end('.'))
    server.on('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const client = connect((server.address() as AddressInfo).port, '127.0.0.1')
      client.setTimeout(loopbackTimeoutMs, () => client.destroy(new Error('timed out')))
      client.once('data', () => resolve())
      client.on('error', reject)
      client.on('close', () => {
        server.close()
        reject(new Error('the connection closed without data'))
      })
    })
  })
}
