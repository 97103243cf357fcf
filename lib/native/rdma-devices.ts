import { SocketAddress } from 'node:net'
import { getSystemErrorName } from 'node:util'

/** An address of a port. RoCE writes an IP address there. */
export interface RdmaGid {
  readonly index: number
  readonly address: string
  /** Empty if the kernel does not tell. */
  readonly kind: 'RoCE v2' | 'RoCE v1' | 'InfiniBand' | ''
  /** The network device that has the address; empty if there is none. */
  readonly network: string
}

export interface RdmaPort {
  readonly number: number
  /** 'active' is the one that can be used. */
  readonly state: string
  readonly linkLayer: 'Ethernet' | 'InfiniBand' | ''
  readonly activeMtuBytes: number
  readonly gids: readonly RdmaGid[]
}

export interface RdmaDevice {
  readonly name: string
  /** Whether libibverbs can drive it. */
  readonly hasProvider: boolean
  /** Why it cannot be opened; 0 if it can. */
  readonly errno: number
  readonly ports: readonly RdmaPort[]
}

/** The devices of this machine, and what this process can know of them. */
export interface RdmaDevices {
  /** Why none can be used, whatever there is; empty if libibverbs is there. */
  readonly unavailable: string
  readonly devices: readonly RdmaDevice[]
}

/** Which device a user wants, as far as it was said. */
export interface RdmaWish {
  readonly device: string
  readonly port?: number | undefined
  readonly gidIndex?: number | undefined
}

/** What a member uses. */
export interface RdmaChoice {
  readonly device: string
  readonly port: number
  readonly gidIndex: number
}

interface Candidate {
  readonly device: RdmaDevice
  readonly port: RdmaPort
  readonly gid: RdmaGid
}

/**
 * Chooses device, port and GID for a member: what the wish says, and what it leaves open by the
 * address that the member listens on. Where no GID has that address, a wish takes the first of
 * RoCE v2; so does a member that has to use RDMA but listens on a loopback address, since all its
 * peers are on this machine.
 */
export function chooseRdmaPort(
  found: RdmaDevices,
  host: string,
  wish: RdmaWish | undefined,
  isRequired: boolean,
): RdmaChoice | { readonly obstacle: string } {
  if (found.unavailable !== '') return { obstacle: found.unavailable }
  if (wish !== undefined) return chooseWished(found, host, wish)
  if (found.devices.length === 0) return { obstacle: 'there is no RDMA device' }
  const all = found.devices.flatMap(roceGids)
  const own = all.filter(({ gid }) => gid.address === plainAddress(host))
  const usable = all.filter(({ port }) => port.state === 'active')
  const best = own.find((candidate) => usable.includes(candidate))
  if (best !== undefined) return chosen(best)
  if (own.length > 0) return { obstacle: portObstacle(own[0]) }
  const first = firstOf(usable)
  if (first !== undefined && isRequired && isLoopback(host)) return chosen(first)
  return { obstacle: `no RDMA device has the address ${host}${elsewhere(found, usable)}` }
}

/** Why nothing can be done with the device; undefined if it can be opened. */
export function deviceObstacle({ name, hasProvider, errno }: RdmaDevice): string | undefined {
  if (!hasProvider) return `libibverbs has no provider for ${name}`
  if (errno !== 0) return `${name} cannot be opened: ${getSystemErrorName(-errno)}`
  return undefined
}

function chooseWished(
  found: RdmaDevices,
  host: string,
  wish: RdmaWish,
): RdmaChoice | { readonly obstacle: string } {
  const device = found.devices.find(({ name }) => name === wish.device)
  if (device === undefined) {
    const others = listOf(found.devices.map(({ name }) => name))
    return { obstacle: `there is no RDMA device '${wish.device}'; there is ${others}` }
  }
  const broken = deviceObstacle(device)
  if (broken !== undefined) return { obstacle: broken }
  const ports = device.ports.filter(({ number }) => number === (wish.port ?? number))
  if (ports.length === 0) {
    const others = listOf(device.ports.map(({ number }) => String(number)))
    return { obstacle: `${device.name} has no port ${wish.port}; it has ${others}` }
  }
  const all = roceGids({ ...device, ports })
  if (all.length === 0) return { obstacle: noRoceGid(device) }
  const candidates = all.filter(({ gid }) => gid.index === (wish.gidIndex ?? gid.index))
  if (candidates.length === 0) {
    const others = listOf(all.map(({ gid }) => `${gid.index} (${gid.address})`))
    return { obstacle: `${device.name} has no RoCE v2 GID ${wish.gidIndex}; it has ${others}` }
  }
  const usable = candidates.filter(({ port }) => port.state === 'active')
  const own = usable.find(({ gid }) => gid.address === plainAddress(host))
  const best = own ?? firstOf(usable)
  return best === undefined ? { obstacle: portObstacle(candidates[0]) } : chosen(best)
}

export function noRoceGid({ name }: RdmaDevice): string {
  return `${name} has no RoCE v2 GID, and pagemesh speaks nothing else`
}

function roceGids(device: RdmaDevice): Candidate[] {
  return device.ports.flatMap((port) =>
    port.gids.filter(({ kind }) => kind === 'RoCE v2').map((gid) => ({ device, port, gid })),
  )
}

/** Link-local addresses reach the fewest, so they come last. */
function firstOf(candidates: readonly Candidate[]): Candidate | undefined {
  return candidates.find(({ gid }) => !isLinkLocal(gid.address)) ?? candidates.at(0)
}

function chosen({ device, port, gid }: Candidate): RdmaChoice {
  return { device: device.name, port: port.number, gidIndex: gid.index }
}

function portObstacle({ device, port }: Candidate): string {
  return `port ${port.number} of ${device.name} is ${port.state}, not active`
}

/** What could be used instead, or why there is nothing. */
function elsewhere(found: RdmaDevices, usable: readonly Candidate[]): string {
  const addresses = usable
    .filter(({ gid }) => !isLinkLocal(gid.address))
    .map(({ device, gid }) => `${gid.address} (${device.name})`)
  if (addresses.length > 0) return `: listen on ${addresses.join(' or ')} instead`
  const broken = found.devices.map(deviceObstacle).find((obstacle) => obstacle !== undefined)
  return broken === undefined ? '' : ` (${broken})`
}

export function isLoopback(host: string): boolean {
  const address = plainAddress(host)
  return address === '::1' || address.startsWith('127.')
}

function isLinkLocal(address: string): boolean {
  return /^fe[89ab]/i.test(address) || address.startsWith('169.254.')
}

/** An IP address in the one way in which native code writes it; IPv4-mapped ones as IPv4. */
export function plainAddress(host: string): string {
  if (!host.includes(':')) return host
  const { address } = new SocketAddress({ address: host, family: 'ipv6' })
  return address.replace(/^::ffff:(?=\d+\.)/, '')
}

const listedNames = 8

function listOf(names: readonly string[]): string {
  if (names.length === 0) return 'none'
  const more = names.length > listedNames ? ', …' : ''
  return `${names.slice(0, listedNames).join(', ')}${more}`
}
