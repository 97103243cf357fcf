import { isIP } from 'node:net'
import { constants } from 'node:os'
import {
  chooseRdmaPort,
  deviceObstacle,
  isLoopback,
  noRoceGid,
  type RdmaDevice,
  type RdmaDevices,
  type RdmaPort,
} from '../native/rdma-devices.js'
import type { DoctorRequest, Outcome } from './doctor-checks.js'
import { hasCapability, type Machine } from './machine.js'

const sysfsFolder = '/sys/class/infiniband'
const capIpcLock = 14n

/** What Ethernet must carry for RoCE packets of 4096 bytes. */
const networkMtuBytes = 4_200
const bestMtuBytes = 4_096

/** All devices and what is wrong with them. Without any, members talk TCP, which is no problem. */
export async function checkRdmaDevices(machine: Machine): Promise<Outcome> {
  const inKernel = machine.list(sysfsFolder)
  if (inKernel.length === 0) return withoutDevices(machine)
  const found = await machine.rdmaDevices()
  if (found === undefined) return { status: 'note', value: `${inKernel.join(', ')}; not looked at` }
  if (found.unavailable !== '') {
    return {
      status: 'note',
      value: `${inKernel.join(', ')}; cannot be used: ${found.unavailable}`,
      advice: unavailableAdvice(found.unavailable),
    }
  }
  const advice = found.devices.flatMap((device) => deviceAdvice(machine, device))
  return {
    status: advice.length === 0 ? 'ok' : 'note',
    value: found.devices.map(({ name }) => name).join(', '),
    details: found.devices.flatMap((device) => deviceLines(machine, device)),
    ...(advice.length === 0 ? {} : { advice: advice.join('\n') }),
  }
}

function withoutDevices(machine: Machine): Outcome {
  if (!hasSoftRoce(machine)) {
    return {
      status: 'note',
      value: 'none, and no rdma_rxe module',
      advice:
        'Members talk TCP. RDMA needs a device, or a kernel that has rdma_rxe (SoftRoCE), such\n' +
        'as the one in: sudo apt install linux-image-amd64\n' +
        'To try programs over RDMA without either: pagemesh softroce run',
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

function unavailableAdvice(unavailable: string): string {
  if (unavailable.includes('headers')) {
    return (
      'Members talk TCP. To build with RDMA:\n' +
      'sudo apt-get install libibverbs-dev && npm rebuild pagemesh'
    )
  }
  return 'Members talk TCP. For RDMA:\nsudo apt-get install libibverbs1 ibverbs-providers'
}

function deviceLines(machine: Machine, device: RdmaDevice): string[] {
  const obstacle = deviceObstacle(device)
  if (obstacle !== undefined) return [obstacle]
  return device.ports.flatMap((port) => [
    `${device.name} port ${port.number}: ` +
      `${port.state}, ${port.linkLayer}, ${mtuText(machine, port)}`,
    ...port.gids.map(({ index, kind, address, network }) => {
      const where = network === '' ? '' : `  (${network})`
      return `  GID ${String(index).padEnd(3)}  ${(kind || '?').padEnd(8)}  ${address}${where}`
    }),
  ])
}

function mtuText(machine: Machine, port: RdmaPort): string {
  const networks = networksOf(port).map((name) => `${name}: ${networkMtu(machine, name) ?? '?'}`)
  const because = networks.length === 0 ? '' : ` (${networks.join(', ')})`
  return `active MTU ${port.activeMtuBytes}${because}`
}

function networksOf(port: RdmaPort): string[] {
  return [...new Set(port.gids.map(({ network }) => network).filter((name) => name !== ''))]
}

function networkMtu(machine: Machine, network: string): number | undefined {
  const text = machine.readText(`/sys/class/net/${network}/mtu`)?.trim()
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : undefined
}

/** What is wrong with a device and what to do, one line each. */
function deviceAdvice(machine: Machine, device: RdmaDevice): string[] {
  if (!device.hasProvider) {
    return [`${device.name} needs its driver: sudo apt-get install ibverbs-providers`]
  }
  if (device.errno === constants.errno.EACCES || device.errno === constants.errno.EPERM) {
    return [
      `${device.name}: this user may not open /dev/infiniband/uverbs*: sudo chmod a+rw them, or`,
      'sudo usermod -aG rdma <user> where a group rdma has them (see ls -l /dev/infiniband)',
    ]
  }
  if (device.errno === constants.errno.ENOENT || device.errno === constants.errno.ENXIO) {
    return [
      `${device.name}: /dev/infiniband/uverbs* is not here. In a container: docker run --device`,
      '/dev/infiniband --ulimit memlock=-1 …',
    ]
  }
  const obstacle = deviceObstacle(device)
  if (obstacle !== undefined) return [obstacle]
  return [
    ...gidAdvice(device),
    ...device.ports.flatMap((port) => portAdvice(machine, device, port)),
  ]
}

function gidAdvice(device: RdmaDevice): string[] {
  if (device.ports.every(({ linkLayer }) => linkLayer === 'InfiniBand')) {
    return [`${device.name} is InfiniBand; pagemesh speaks RoCE v2 over Ethernet.`]
  }
  const gids = device.ports.flatMap((port) => port.gids)
  if (gids.some(({ kind }) => kind === 'RoCE v2')) return []
  return [`${noRoceGid(device)}: is its network interface up, with an address?`]
}

function portAdvice(machine: Machine, device: RdmaDevice, port: RdmaPort): string[] {
  if (port.linkLayer === 'InfiniBand') return []
  const name = `Port ${port.number} of ${device.name}`
  if (port.state !== 'active') {
    const network = networksOf(port).at(0) ?? '<its network interface>'
    return [`${name} is ${port.state}: sudo ip link set ${network} up, and look at its cable.`]
  }
  if (port.activeMtuBytes >= bestMtuBytes) return []
  return networksOf(port)
    .filter((network) => (networkMtu(machine, network) ?? networkMtuBytes) < networkMtuBytes)
    .flatMap((network) => [
      `${name} sends a page of 4 KiB in ${bestMtuBytes / port.activeMtuBytes} packets, as the ` +
        `MTU of ${network} is ${networkMtu(machine, network)}.`,
      `If all on the way allow it: sudo ip link set ${network} mtu ${networkMtuBytes}`,
    ])
}

/** Where members would listen, and so which port they would use. */
export async function checkAddress(machine: Machine, request: DoctorRequest): Promise<Outcome> {
  const { host, rdmaDevice, transport } = request
  const address = isIP(host) === 0 ? await machine.addressOf(host) : host
  if (address === undefined) {
    return {
      status: 'note',
      value: `'${host}' cannot be found`,
      advice: 'Give an address of this machine: --host or PAGEMESH_HOST',
    }
  }
  if (address === '0.0.0.0' || address === '::') {
    return {
      status: 'note',
      value: `${address}, which is no address that others could be told`,
      advice: 'Give one of this machine, or 127.0.0.1: --host or PAGEMESH_HOST',
    }
  }
  const name = address === host ? address : `${host} (${address})`
  const sharing = transport === 'auto' ? '; shared memory on this machine' : ''
  const found = machine.list(sysfsFolder).length === 0 ? noDevices : await machine.rdmaDevices()
  if (found === undefined || transport === 'tcp')
    return { status: 'ok', value: `${name}, over TCP${sharing}` }
  const choice = chooseRdmaPort(found, address, rdmaDevice, transport === 'verbs')
  if (!('obstacle' in choice)) {
    const { device, port, gidIndex } = choice
    return { status: 'ok', value: `${name}, over ${device} port ${port} GID ${gidIndex}${sharing}` }
  }
  const advice = addressAdvice(found, address, rdmaDevice !== undefined)
  const told = advice === undefined ? {} : { advice }
  if (transport === 'verbs') {
    return { status: 'problem', value: `${name}, but not by verbs: ${choice.obstacle}`, ...told }
  }
  // Without any device there is nothing that the address could be wrong about.
  if (found.devices.length === 0 || found.unavailable !== '') {
    return { status: 'ok', value: `${name}, over TCP${sharing}` }
  }
  return { status: 'note', value: `${name}, over TCP: ${choice.obstacle}`, ...told }
}

const noDevices: RdmaDevices = { unavailable: '', devices: [] }

function addressAdvice(found: RdmaDevices, address: string, isWished: boolean): string | undefined {
  if (isWished) return 'Correct --rdma-device or PAGEMESH_RDMA_DEVICE, or leave it out.'
  const required = chooseRdmaPort(found, '127.0.0.1', undefined, true)
  if ('obstacle' in required) return undefined // what stands at the devices is to be done first
  if (!isLoopback(address)) {
    return 'Say where members listen: --host or PAGEMESH_HOST; or which device: --rdma-device'
  }
  const { device, port, gidIndex } = required
  return (
    'Say where members listen: pagemesh run --host <address> (or PAGEMESH_HOST). A run on this\n' +
    'machine alone may say --transport verbs instead, and takes ' +
    `${device} port ${port} GID ${gidIndex}.`
  )
}

/** What RDMA may lock; more than the regions of a member is never needed. */
export function checkMemlock(machine: Machine): Outcome {
  const limits = machine.readText('/proc/self/limits') ?? ''
  const match = /^Max locked memory\s+(\S+)\s+(\S+)/m.exec(limits)
  if (match === null) return { status: 'note', value: 'unknown' }
  const [, soft, hard] = match
  if (soft === 'unlimited') return { status: 'ok', value: soft }
  const value = `${Math.floor(Number(soft) / 1024)} KiB`
  if (mayLockAnything(machine))
    return { status: 'ok', value: `${value}, but CAP_IPC_LOCK lifts it` }
  if (machine.list(sysfsFolder).length === 0) {
    return { status: 'ok', value: `${value} (matters to RDMA only)` }
  }
  const how =
    hard === 'unlimited'
      ? 'ulimit -l unlimited (in the shell that starts the members)'
      : 'as root: ulimit -l unlimited; for a user, a line in /etc/security/limits.conf:\n' +
        '<user> - memlock unlimited (then log in again). A systemd unit: LimitMEMLOCK=infinity'
  return {
    status: 'note',
    value,
    advice:
      'A member that uses RDMA locks its regions, and cannot open more than this in all.\n' +
      `${how}\nIn a container: docker run --ulimit memlock=-1`,
  }
}

/** The capability counts in the first user namespace only; native code looks at the same. */
function mayLockAnything(machine: Machine): boolean {
  const users = machine.readText('/proc/self/uid_map') ?? ''
  return /^\s*0\s+0\s+4294967295\s*$/.test(users) && hasCapability(machine, capIpcLock)
}
