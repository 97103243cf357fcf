import { PassThrough } from 'node:stream'
import t from 'tap'
import { formatFindings, runDoctor } from '../../dist/cli/doctor.js'
import { checkMachine, type Finding } from '../../dist/cli/doctor-checks.js'
import { realMachine, type Machine } from '../../dist/cli/machine.js'

/** An auxiliary vector that says what the page size is. */
function auxv(pageSizeBytes: number): Uint8Array {
  const words = new BigUint64Array([16n, 0n, 6n, BigInt(pageSizeBytes), 0n, 0n])
  return new Uint8Array(words.buffer)
}

const limits = (memlock: string) =>
  `Limit                     Soft Limit           Hard Limit           Units\n` +
  `Max locked memory         ${memlock.padEnd(20)} unlimited            bytes\n`

const idealFiles: Record<string, string> = {
  '/proc/sys/kernel/osrelease': '6.1.0-18-amd64\n',
  '/proc/sys/vm/max_map_count': '1048576\n',
  '/proc/sys/vm/unprivileged_userfaultfd': '0\n',
  '/proc/sys/vm/overcommit_memory': '0\n',
  '/proc/self/limits': limits('unlimited'),
  '/proc/self/status': 'Name:\tnode\nCapEff:\t0000000000000000\n',
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
    ...rest,
  }
}

async function finding(name: string, difference: Difference): Promise<Finding> {
  const found = (await checkMachine(machine(difference))).find((each) => each.name === name)
  if (found === undefined) throw new Error(`no check '${name}'`)
  return found
}

t.test('an ideal machine needs no advice', async (t) => {
  for (const { name, status, value, advice } of await checkMachine(machine())) {
    t.equal(status, 'ok', name)
    t.not(value, '', name)
    t.equal(advice, undefined, name)
  }
})

interface Case {
  check: string
  on: string
  difference: Difference
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
    check: 'memlock limit',
    on: 'a small limit with RDMA',
    difference: file('/proc/self/limits', limits('8388608')),
    status: 'note',
    value: /^8192 KiB$/,
    advice: /ulimit -l unlimited/,
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

for (const { check, on, difference, status, value, advice } of cases) {
  t.test(`${check} on ${on}`, async (t) => {
    const found = await finding(check, difference)
    t.equal(found.status, status)
    t.match(found.value, value)
    if (advice !== undefined) t.match(found.advice, advice)
  })
}

/** What the doctor prints about a machine, and its exit code. */
async function print(difference: Difference, json: boolean, isTTY = false) {
  const output = Object.assign(new PassThrough(), { isTTY })
  const exitCode = await runDoctor(machine(difference), { json }, output)
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
  t.same(JSON.parse(text), await checkMachine(machine({ coreCount: 1 })))
})

t.test('the lines line up, with the advice below', async (t) => {
  const text = formatFindings(
    [
      { name: 'a', status: 'ok', value: 'fine' },
      { name: 'longer', status: 'problem', value: 'bad', advice: 'do this\nand that' },
    ],
    false,
  )
  t.equal(
    text,
    'ok       a       fine\n' +
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
  const findings = await checkMachine(realMachine)
  t.equal(findings.length, 13)
  const pageSize = findings.find((each) => each.name === 'page size')
  t.match(pageSize?.value, /^\d+ KiB$/)
  t.equal(realMachine.readText('/no/such/file'), undefined)
  t.equal(realMachine.readBytes('/no/such/file'), undefined)
  t.same(realMachine.list('/no/such/directory'), [])
  t.equal(realMachine.isAccessible('/no/such/file'), false)
})
