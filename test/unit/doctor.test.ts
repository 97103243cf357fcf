import { PassThrough } from 'node:stream'
import t from 'tap'
import { formatFindings, runDoctor } from '../../dist/cli/doctor.js'
import { checkMachine, type DoctorRequest, type Finding } from '../../dist/cli/doctor-checks.js'
import { realMachine, type Machine } from '../../dist/cli/machine.js'
import type { RdmaDevice, RdmaDevices, RdmaPort } from '../../dist/native/rdma-devices.js'

/** An auxiliary vector that says what the page size is. */
function auxv(pageSizeBytes: number): Uint8Array {
  const words = new BigUint64Array([16n, 0n, 6n, BigInt(pageSizeBytes), 0n, 0n])
  return new Uint8Array(words.buffer)
}

const limits = (memlock: string, hard = 'unlimited') =>
  `Limit                     Soft Limit           Hard Limit           Units\n` +
  `Max locked memory         ${memlock.padEnd(20)} ${hard.padEnd(20)} bytes\n`

const gid = (index: number, address: string, kind: 'RoCE v2' | 'RoCE v1' = 'RoCE v2') => ({
  index,
  address,
  kind,
  network: 'eth2',
})

const goodPort: RdmaPort = {
  number: 1,
  state: 'active',
  linkLayer: 'Ethernet',
  activeMtuBytes: 4096,
  gids: [gid(0, 'fe80::1'), gid(1, '10.0.0.1', 'RoCE v1'), gid(3, '10.0.0.1')],
}

const mlx: RdmaDevice = { name: 'mlx5_0', hasProvider: true, errno: 0, ports: [goodPort] }

/** One device, which is as it should be except for what is given. */
function rdma(device: Partial<RdmaDevice> = {}, port: Partial<RdmaPort> = {}): RdmaDevices {
  const ports = device.ports ?? [{ ...goodPort, ...port }]
  return { unavailable: '', devices: [{ ...mlx, ports, ...device }] }
}

const withRdma = (device: Partial<RdmaDevice>, port: Partial<RdmaPort> = {}): Difference => ({
  rdmaDevices: async () => rdma(device, port),
})

const idealFiles: Record<string, string> = {
  '/proc/sys/kernel/osrelease': '6.1.0-18-amd64\n',
  '/proc/sys/vm/max_map_count': '1048576\n',
  '/proc/sys/vm/unprivileged_userfaultfd': '0\n',
  '/proc/sys/vm/overcommit_memory': '0\n',
  '/proc/self/limits': limits('unlimited'),
  '/proc/self/status': 'Name:\tnode\nCapEff:\t0000000000000000\n',
  '/proc/self/uid_map': '         0          0 4294967295\n',
  '/sys/class/net/eth2/mtu': '9000\n',
}

const idealRequest: DoctorRequest = {
  host: '10.0.0.1',
  rdmaDevice: undefined,
  transport: 'auto',
}

interface Difference extends Partial<Omit<Machine, 'readText' | 'readBytes' | 'list'>> {
  files?: Record<string, string | undefined>
  directories?: Record<string, string[]>
  accessible?: string[]
  /** null: the auxiliary vector cannot be read. */
  pageSizeBytes?: number | null
}

/** A machine on which everything is as it should be, except for what is given. */
function machine(difference: Difference = {}): Machine {
  const {
    files,
    directories = { '/sys/class/infiniband': ['mlx5_0'] },
    accessible = ['/dev/userfaultfd'],
    pageSizeBytes = 4096,
    ...rest
  } = difference
  const allFiles: Record<string, string | undefined> = { ...idealFiles, ...files }
  return {
    platform: 'linux',
    arch: 'x64',
    nodeVersion: 'v24.16.0',
    maxViewBytes: 2 ** 53 - 1,
    coreCount: 8,
    readText: (path) => allFiles[path],
    readBytes: (path) => {
      if (path !== '/proc/self/auxv' || pageSizeBytes === null) return undefined
      return auxv(pageSizeBytes)
    },
    list: (path) => directories[path] ?? [],
    isAccessible: (path) => accessible.includes(path),
    loadAddon: async () => undefined,
    tryUserfaultfd: async () => undefined,
    tryLoopback: async () => undefined,
    rdmaDevices: async () => rdma(),
    addressOf: async (host) => (host === 'here' ? '10.0.0.1' : undefined),
    ...rest,
  }
}

async function finding(
  name: string,
  difference: Difference,
  request: Partial<DoctorRequest> = {},
): Promise<Finding> {
  const findings = await checkMachine(machine(difference), { ...idealRequest, ...request })
  const found = findings.find((each) => each.name === name)
  if (found === undefined) throw new Error(`no check '${name}'`)
  return found
}

t.test('an ideal machine needs no advice', async (t) => {
  for (const { name, status, value, advice } of await checkMachine(machine(), idealRequest)) {
    t.equal(status, 'ok', name)
    t.not(value, '', name)
    t.equal(advice, undefined, name)
  }
})

interface Case {
  check: string
  on: string
  difference: Difference
  request?: Partial<DoctorRequest>
  details?: RegExp
  status: Finding['status']
  value: RegExp
  advice?: RegExp
}

const file = (path: string, content: string | undefined): Difference => ({
  files: { [path]: content },
})
const noDevices = { '/sys/class/net': ['lo', 'eth7'] }

const cases: Case[] = [
  {
    check: 'architecture',
    on: 'another processor',
    difference: { arch: 'riscv64' },
    status: 'problem',
    value: /linux on riscv64/,
    advice: /x86-64 or aarch64/,
  },
  {
    check: 'architecture',
    on: 'another system',
    difference: { platform: 'darwin', arch: 'arm64' },
    status: 'problem',
    value: /darwin/,
    advice: /needs Linux/,
  },
  {
    check: 'architecture',
    on: 'aarch64',
    difference: { arch: 'arm64' },
    status: 'ok',
    value: /linux on arm64/,
  },
  {
    check: 'kernel',
    on: 'an old kernel',
    difference: file('/proc/sys/kernel/osrelease', '4.16.18\n'),
    status: 'problem',
    value: /4.16.18/,
    advice: /4.17 or newer/,
  },
  {
    check: 'kernel',
    on: 'a machine without /proc',
    difference: file('/proc/sys/kernel/osrelease', undefined),
    status: 'note',
    value: /unknown/,
  },
  {
    check: 'Node.js',
    on: 'an old Node.js',
    difference: { nodeVersion: 'v18.20.0' },
    status: 'problem',
    value: /v18.20.0/,
    advice: /20 or newer/,
  },
  {
    check: 'SharedArrayBuffer',
    on: 'Node.js 20',
    difference: { nodeVersion: 'v20.20.2', maxViewBytes: 2 ** 32 },
    status: 'note',
    value: /up to 4 GiB; made through V8/,
    advice: /Node.js 22 or newer/,
  },
  {
    check: 'SharedArrayBuffer',
    on: 'Node.js 22 before Node-API had it',
    difference: { nodeVersion: 'v22.12.0' },
    status: 'ok',
    value: /beyond 4 GiB work; made through V8/,
  },
  {
    check: 'SharedArrayBuffer',
    on: 'Node.js 24.16',
    difference: {},
    status: 'ok',
    value: /beyond 4 GiB work; made through Node-API/,
  },
  {
    check: 'addon',
    on: 'a machine without a build',
    difference: { loadAddon: async () => Promise.reject(new Error('not built\nmore')) },
    status: 'problem',
    value: /does not load: not built$/,
    advice: /npm rebuild pagemesh/,
  },
  {
    check: 'loopback TCP',
    on: 'a machine without loopback',
    difference: { tryLoopback: async () => Promise.reject(new Error('EADDRNOTAVAIL')) },
    status: 'problem',
    value: /EADDRNOTAVAIL/,
    advice: /ip link set lo up/,
  },
  {
    check: 'page size',
    on: 'large pages',
    difference: { pageSizeBytes: 65536 },
    status: 'note',
    value: /^64 KiB$/,
    advice: /at least 64 KiB/,
  },
  {
    check: 'page size',
    on: 'a machine without /proc',
    difference: { pageSizeBytes: null },
    status: 'note',
    value: /unknown/,
  },
  {
    check: 'cores',
    on: 'one core',
    difference: { coreCount: 1 },
    status: 'note',
    value: /^1$/,
    advice: /two cores/,
  },
  {
    check: 'vm.max_map_count',
    on: 'the default',
    difference: file('/proc/sys/vm/max_map_count', '65530\n'),
    status: 'note',
    value: /^65530$/,
    advice: /extra local fault[^]*sudo sysctl -w vm.max_map_count=1048576$/,
  },
  {
    check: 'vm.max_map_count',
    on: 'less than the default',
    difference: file('/proc/sys/vm/max_map_count', '1000\n'),
    status: 'note',
    value: /^1000$/,
    advice: /below Linux's default of 65530/,
  },
  {
    check: 'vm.max_map_count',
    on: 'a machine without /proc',
    difference: file('/proc/sys/vm/max_map_count', undefined),
    status: 'note',
    value: /unknown/,
  },
  {
    check: 'userfaultfd',
    on: 'a user without privileges',
    difference: { accessible: [] },
    status: 'note',
    value: /not permitted/,
    advice: /region.pin\(\)[^]*sysctl -w vm.unprivileged_userfaultfd=1/,
  },
  {
    check: 'userfaultfd',
    on: 'a container that refuses it',
    difference: { tryUserfaultfd: async () => 'no' as const },
    status: 'note',
    value: /refused/,
    advice: /region.pin/,
  },
  {
    check: 'userfaultfd',
    on: 'a machine on which it was tried',
    difference: { accessible: [], tryUserfaultfd: async () => 'all' as const },
    status: 'ok',
    value: /tried/,
  },
  {
    check: 'userfaultfd',
    on: 'a kernel without it',
    difference: { accessible: [], ...file('/proc/sys/vm/unprivileged_userfaultfd', undefined) },
    status: 'note',
    value: /not in this kernel/,
    advice: /SIGSEGV/,
  },
  {
    check: 'userfaultfd',
    on: 'a machine that permits it to all',
    difference: { accessible: [], ...file('/proc/sys/vm/unprivileged_userfaultfd', '1\n') },
    status: 'ok',
    value: /unprivileged_userfaultfd/,
  },
  {
    check: 'userfaultfd',
    on: 'a process with the capability',
    difference: {
      accessible: [],
      ...file('/proc/self/status', 'CapInh:\t0\nCapEff:\t0000000000080000\n'),
    },
    status: 'ok',
    value: /CAP_SYS_PTRACE/,
  },
  {
    check: 'overcommit',
    on: 'strict accounting',
    difference: file('/proc/sys/vm/overcommit_memory', '2\n'),
    status: 'note',
    value: /strict/,
    advice: /vm.overcommit_memory=0/,
  },
  {
    check: 'overcommit',
    on: 'always',
    difference: file('/proc/sys/vm/overcommit_memory', '1\n'),
    status: 'ok',
    value: /always/,
  },
  {
    check: 'RDMA devices',
    on: 'a cloud kernel',
    difference: { directories: noDevices },
    status: 'note',
    value: /none, and no rdma_rxe/,
    advice: /SoftRoCE/,
  },
  {
    check: 'RDMA devices',
    on: 'a kernel with SoftRoCE',
    difference: {
      directories: noDevices,
      files: {
        '/lib/modules/6.1.0-18-amd64/modules.dep':
          'kernel/drivers/infiniband/sw/rxe/rdma_rxe.ko: kernel/net/ipv4/udp_tunnel.ko\n',
      },
    },
    status: 'note',
    value: /rdma_rxe module is there/,
    advice: /modprobe rdma_rxe && sudo rdma link add rxe0 type rxe netdev eth7$/,
  },
  {
    check: 'RDMA devices',
    on: 'a kernel with SoftRoCE loaded',
    difference: { directories: { '/sys/module': ['rdma_rxe'] } },
    status: 'note',
    value: /rdma_rxe module is there/,
    advice: /netdev eth0$/,
  },
  {
    check: 'RDMA devices',
    on: 'a good device',
    difference: {},
    status: 'ok',
    value: /^mlx5_0$/,
    details: new RegExp(
      '^mlx5_0 port 1: active, Ethernet, active MTU 4096 \\(eth2: 9000\\)\\n' +
        '  GID 0    RoCE v2   fe80::1  \\(eth2\\)\\n' +
        '  GID 1    RoCE v1   10.0.0.1  \\(eth2\\)\\n' +
        '  GID 3    RoCE v2   10.0.0.1  \\(eth2\\)$',
    ),
  },
  {
    check: 'RDMA devices',
    on: 'an addon that does not load',
    difference: { rdmaDevices: async () => undefined },
    status: 'note',
    value: /^mlx5_0; not looked at$/,
  },
  {
    check: 'RDMA devices',
    on: 'a machine without libibverbs',
    difference: {
      rdmaDevices: async () => ({ unavailable: 'libibverbs.so.1 is not installed', devices: [] }),
    },
    status: 'note',
    value: /^mlx5_0; cannot be used: libibverbs.so.1 is not installed$/,
    advice: /apt-get install libibverbs1 ibverbs-providers$/,
  },
  {
    check: 'RDMA devices',
    on: 'a build without RDMA',
    difference: {
      rdmaDevices: async () => ({ unavailable: 'built without the RDMA headers', devices: [] }),
    },
    status: 'note',
    value: /without the RDMA headers$/,
    advice: /apt-get install libibverbs-dev && npm rebuild pagemesh$/,
  },
  {
    check: 'RDMA devices',
    on: 'a device that libibverbs does not know',
    difference: withRdma({ hasProvider: false, ports: [] }),
    status: 'note',
    value: /^mlx5_0$/,
    details: /^libibverbs has no provider for mlx5_0$/,
    advice: /^mlx5_0 needs its driver: sudo apt-get install ibverbs-providers$/,
  },
  {
    check: 'RDMA devices',
    on: 'a user who may not open the device',
    difference: withRdma({ errno: 13, ports: [] }),
    status: 'note',
    value: /^mlx5_0$/,
    details: /^mlx5_0 cannot be opened: EACCES$/,
    advice: /may not open \/dev\/infiniband\/uverbs\*: sudo chmod a\+rw[^]*usermod -aG rdma/,
  },
  {
    check: 'RDMA devices',
    on: 'a container without the files of the device',
    difference: withRdma({ errno: 2, ports: [] }),
    status: 'note',
    value: /^mlx5_0$/,
    details: /^mlx5_0 cannot be opened: ENOENT$/,
    advice: /In a container: docker run --device\n\/dev\/infiniband/,
  },
  {
    check: 'RDMA devices',
    on: 'a device that is broken',
    difference: withRdma({ errno: 5, ports: [] }),
    status: 'note',
    value: /^mlx5_0$/,
    advice: /^mlx5_0 cannot be opened: EIO$/,
  },
  {
    check: 'RDMA devices',
    on: 'InfiniBand',
    difference: withRdma({}, { linkLayer: 'InfiniBand', gids: [] }),
    status: 'note',
    value: /^mlx5_0$/,
    advice: /^mlx5_0 is InfiniBand; pagemesh speaks RoCE v2 over Ethernet\.$/,
  },
  {
    check: 'RDMA devices',
    on: 'a device without an address',
    difference: withRdma({}, { gids: [gid(1, '10.0.0.1', 'RoCE v1')] }),
    status: 'note',
    value: /^mlx5_0$/,
    advice: /^mlx5_0 has no RoCE v2 GID, .*: is its network interface up, with an address\?$/,
  },
  {
    check: 'RDMA devices',
    on: 'a port that is down',
    difference: withRdma({}, { state: 'down' }),
    status: 'note',
    value: /^mlx5_0$/,
    details: /^mlx5_0 port 1: down/,
    advice: /^Port 1 of mlx5_0 is down: sudo ip link set eth2 up/,
  },
  {
    check: 'RDMA devices',
    on: 'an MTU for the Internet',
    difference: {
      ...withRdma({}, { activeMtuBytes: 1024 }),
      ...file('/sys/class/net/eth2/mtu', '1500\n'),
    },
    status: 'note',
    value: /^mlx5_0$/,
    details: /active MTU 1024 \(eth2: 1500\)/,
    advice: /in 4 packets, as the MTU of eth2 is 1500\.\n.*sudo ip link set eth2 mtu 4200$/,
  },
  {
    check: 'RDMA devices',
    on: 'a small MTU that the network is not to blame for',
    difference: withRdma({}, { activeMtuBytes: 2048 }),
    status: 'ok',
    value: /^mlx5_0$/,
  },
  {
    check: 'members listen on',
    on: 'the address of a device',
    difference: {},
    status: 'ok',
    value: /^10\.0\.0\.1, over mlx5_0 port 1 GID 3; shared memory on this machine$/,
  },
  {
    check: 'members listen on',
    on: 'the name of such an address',
    difference: {},
    request: { host: 'here' },
    status: 'ok',
    value: /^here \(10\.0\.0\.1\), over mlx5_0 port 1 GID 3; shared memory on this machine$/,
  },
  {
    check: 'members listen on',
    on: 'a name that nobody has',
    difference: {},
    request: { host: 'there' },
    status: 'note',
    value: /^'there' cannot be found$/,
    advice: /--host or PAGEMESH_HOST/,
  },
  {
    check: 'members listen on',
    on: 'all addresses at once',
    difference: {},
    request: { host: '0.0.0.0' },
    status: 'note',
    value: /no address that others could be told$/,
    advice: /or 127\.0\.0\.1: --host or PAGEMESH_HOST/,
  },
  {
    check: 'members listen on',
    on: 'an address without a device',
    difference: {},
    request: { host: '10.9.9.9' },
    status: 'note',
    value: /over TCP: no RDMA device has the address 10\.9\.9\.9: listen on 10\.0\.0\.1 \(mlx5_0\)/,
    advice: /--host or PAGEMESH_HOST; or which device: --rdma-device$/,
  },
  {
    check: 'members listen on',
    on: 'loopback',
    difference: {},
    request: { host: '127.0.0.1' },
    status: 'note',
    value: /^127\.0\.0\.1, over TCP: no RDMA device has the address 127\.0\.0\.1/,
    advice: /pagemesh run --host[^]*--transport verbs instead, and takes mlx5_0 port 1 GID 3\.$/,
  },
  {
    check: 'members listen on',
    on: 'loopback, when verbs are asked for',
    difference: {},
    request: { host: '127.0.0.1', transport: 'verbs' },
    status: 'ok',
    value: /^127\.0\.0\.1, over mlx5_0 port 1 GID 3$/,
  },
  {
    check: 'members listen on',
    on: 'a device, when TCP is asked for',
    difference: {},
    request: { transport: 'tcp' },
    status: 'ok',
    value: /^10\.0\.0\.1, over TCP$/,
  },
  {
    check: 'members listen on',
    on: 'a machine without devices, when verbs are asked for',
    difference: { directories: {} },
    request: { transport: 'verbs' },
    status: 'problem',
    value: /^10\.0\.0\.1, but not by verbs: there is no RDMA device$/,
  },
  {
    check: 'members listen on',
    on: 'a machine without devices',
    difference: { directories: {} },
    request: { host: '127.0.0.1' },
    status: 'ok',
    value: /^127\.0\.0\.1, over TCP; shared memory on this machine$/,
  },
  {
    check: 'members listen on',
    on: 'a device that there is not',
    difference: {},
    request: { rdmaDevice: { device: 'rxe9', port: undefined, gidIndex: undefined } },
    status: 'note',
    value: /there is no RDMA device 'rxe9'; there is mlx5_0$/,
    advice: /^Correct --rdma-device or PAGEMESH_RDMA_DEVICE/,
  },
  {
    check: 'members listen on',
    on: 'a device that cannot be opened',
    difference: withRdma({ errno: 13, ports: [] }),
    status: 'note',
    value: /no RDMA device has the address 10\.0\.0\.1 \(mlx5_0 cannot be opened: EACCES\)$/,
  },
  {
    check: 'memlock limit',
    on: 'a small limit with RDMA',
    difference: file('/proc/self/limits', limits('8388608')),
    status: 'note',
    value: /^8192 KiB$/,
    advice: /more than this in all\.\nulimit -l unlimited \(in the shell[^]*--ulimit memlock=-1$/,
  },
  {
    check: 'memlock limit',
    on: 'a small limit that only root may raise',
    difference: file('/proc/self/limits', limits('8388608', '8388608')),
    status: 'note',
    value: /^8192 KiB$/,
    advice: /as root: ulimit[^]*limits\.conf[^]*LimitMEMLOCK=infinity/,
  },
  {
    check: 'memlock limit',
    on: 'a process that may lock anything',
    difference: {
      files: {
        '/proc/self/limits': limits('8388608'),
        '/proc/self/status': 'CapEff:\t0000000000004000\n',
      },
    },
    status: 'ok',
    value: /^8192 KiB, but CAP_IPC_LOCK lifts it$/,
  },
  {
    check: 'memlock limit',
    on: "the root of a container's own user namespace",
    difference: {
      files: {
        '/proc/self/limits': limits('8388608'),
        '/proc/self/status': 'CapEff:\t000001ffffffffff\n',
        '/proc/self/uid_map': '         0     100000      65536\n',
      },
    },
    status: 'note',
    value: /^8192 KiB$/,
    advice: /memlock/,
  },
  {
    check: 'memlock limit',
    on: 'a small limit without RDMA',
    difference: { directories: {}, ...file('/proc/self/limits', limits('8388608')) },
    status: 'ok',
    value: /8192 KiB \(matters to RDMA only\)/,
  },
  {
    check: 'memlock limit',
    on: 'a machine without /proc',
    difference: file('/proc/self/limits', undefined),
    status: 'note',
    value: /unknown/,
  },
]

for (const { check, on, difference, request, status, value, details, advice } of cases) {
  t.test(`${check} on ${on}`, async (t) => {
    const found = await finding(check, difference, request)
    t.equal(found.status, status)
    t.match(found.value, value)
    if (details !== undefined) t.match(found.details?.join('\n'), details)
    if (advice === undefined) t.equal(found.advice, undefined)
    else t.match(found.advice, advice)
  })
}

/** What the doctor prints about a machine, and its exit code. */
async function print(difference: Difference, json: boolean, isTTY = false) {
  const output = Object.assign(new PassThrough(), { isTTY })
  const exitCode = await runDoctor(machine(difference), { ...idealRequest, json }, output)
  output.end()
  const chunks = await output.toArray()
  return { exitCode, text: Buffer.concat(chunks as Buffer[]).toString() }
}

t.test('only a problem makes the exit code 1', async (t) => {
  t.equal((await print({}, false)).exitCode, 0)
  t.equal((await print({ coreCount: 1 }, false)).exitCode, 0)
  t.equal((await print({ arch: 'mips' }, false)).exitCode, 1)
})

t.test('--json is an array of findings', async (t) => {
  const { text } = await print({ coreCount: 1 }, true, true)
  t.same(JSON.parse(text), await checkMachine(machine({ coreCount: 1 }), idealRequest))
})

t.test('the lines line up, with the advice below', async (t) => {
  const text = formatFindings(
    [
      { name: 'a', status: 'ok', value: 'fine', details: ['of this', 'and that'] },
      { name: 'longer', status: 'problem', value: 'bad', advice: 'do this\nand that' },
    ],
    false,
  )
  t.equal(
    text,
    'ok       a       fine\n' +
      '                 of this\n' +
      '                 and that\n' +
      'problem  longer  bad\n' +
      '                 do this\n' +
      '                 and that\n',
  )
})

t.test('colour only on a terminal', async (t) => {
  t.notMatch((await print({}, false)).text, /\x1b/)
  const { text } = await print({ arch: 'mips' }, false, true)
  const wanted = (process.env.NO_COLOR ?? '') === '' && process.env.TERM !== 'dumb'
  t.equal(text.includes('\x1b[31mproblem\x1b[39m'), wanted)
})

t.test('this machine', async (t) => {
  await t.resolves(realMachine.tryLoopback())
  const findings = await checkMachine(realMachine, { ...idealRequest, host: '127.0.0.1' })
  t.equal(findings.length, 14)
  const pageSize = findings.find((each) => each.name === 'page size')
  t.match(pageSize?.value, /^\d+ KiB$/)
  t.equal(realMachine.readText('/no/such/file'), undefined)
  t.equal(realMachine.readBytes('/no/such/file'), undefined)
  t.same(realMachine.list('/no/such/directory'), [])
  t.equal(realMachine.isAccessible('/no/such/file'), false)
  t.equal(await realMachine.addressOf('127.0.0.1'), '127.0.0.1')
  t.equal(await realMachine.addressOf('no.such.host.invalid'), undefined)
  t.match(await realMachine.rdmaDevices(), { unavailable: String, devices: Array })
})
