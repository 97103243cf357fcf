import t, { type Test } from 'tap'
import { softroce, type Outcome } from './support/pagemesh.js'

// These boot virtual machines: a machine that cannot is a failure, never a reason to skip.

t.setTimeout(600_000)

const transports = 'test/fixtures/softroce/transports.mjs'

interface Case {
  readonly name: string
  readonly hosts: readonly string[]
  readonly options?: readonly object[]
  readonly before?: readonly string[]
}

interface Told {
  readonly name: string
  readonly rank: number
  readonly transport?: string
  readonly detail?: string
  readonly isRight?: boolean
  readonly usesVerbs?: boolean
  readonly code?: string
  readonly message?: string
}

/** What the two members said about each case, by its name and then by rank. */
function toldBy(t: Test, { exitCode, stdout, stderr }: Outcome, cases: readonly Case[]) {
  t.equal(exitCode, 0, stderr)
  const lines = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Told)
  const told = new Map<string, Told[]>()
  for (const { name } of cases) {
    told.set(
      name,
      lines.filter((line) => line.name === name).sort((a, b) => a.rank - b.rank),
    )
  }
  return (name: string): Told[] => {
    const found = told.get(name) ?? []
    t.equal(found.length, 2, name)
    return found
  }
}

const both = <T>(value: T): [T, T] => [value, value]
const here = both('10.77.0.1')
const verbs = { transport: 'verbs' }
const auto = { transport: 'auto' }

t.test('device, port and GID by address and by name', async (t) => {
  const cases: Case[] = [
    { name: 'IPv6', hosts: both('fd77:0::1'), options: both(verbs) },
    { name: 'full', hosts: here, options: both({ ...verbs, rdmaDevice: 'rxe0:1:2' }) },
    {
      name: 'part',
      hosts: both('fd77::1'),
      options: [
        { ...verbs, rdmaDevice: 'rxe0' },
        { ...verbs, rdmaDevice: 'rxe0:1' },
      ],
    },
    { name: 'loopback', hosts: both('127.0.0.1'), options: both(verbs) },
    { name: 'auto', hosts: here, options: both(auto) },
    { name: 'no device', hosts: here, options: both({ ...verbs, rdmaDevice: 'rxe9' }) },
    { name: 'no GID', hosts: here, options: [verbs, { ...verbs, rdmaDevice: 'rxe0:1:9' }] },
    { name: 'malformed', hosts: here, options: both({ ...auto, rdmaDevice: 'rxe0:1:x' }) },
    { name: 'TCP', hosts: here, options: both({ transport: 'tcp', rdmaDevice: 'rxe9' }) },
  ]
  const args = ['run', '--way=guest', '-n', '2', '--no-prefix', transports, JSON.stringify(cases)]
  const told = toldBy(t, await softroce(t, args), cases)
  const overVerbs = (gidIndex: number) => ({
    transport: 'verbs',
    detail: `rxe0 port 1 GID ${gidIndex} MTU 4096`,
    isRight: true,
    usesVerbs: true,
  })
  const overTcp = (detail: string | RegExp) => ({
    transport: 'tcp',
    detail,
    isRight: true,
    usesVerbs: false,
  })
  const failed = (message: RegExp) => ({ code: 'ERR_PAGEMESH_JOIN_FAILED', message })
  t.match(told('IPv6'), both(overVerbs(2)))
  t.match(told('full'), both(overVerbs(2)))
  t.match(told('part'), both(overVerbs(2)))
  t.match(told('loopback'), both(overVerbs(1)))
  t.match(told('auto'), both({ ...overTcp('memory of this host'), transport: 'shm' }))
  const noDevice = "by verbs: there is no RDMA device 'rxe9'; there is rxe0 \\('pagemesh doctor'"
  t.match(told('no device'), both(failed(new RegExp(noDevice))))
  t.match(told('no GID'), [
    failed(/rank 1 cannot be reached by verbs: rank 1: rxe0 has no RoCE v2 GID 9; it has 0 \(fe80/),
    failed(/rank 0 cannot be reached by verbs: rxe0 has no RoCE v2 GID 9; it has 0 \(fe80/),
  ])
  const message = /'rdmaDevice' holds "rxe0:1:x"; expected device, device:port or/
  t.match(told('malformed'), both({ code: 'ERR_PAGEMESH_INVALID_ARGUMENT', message }))
  t.match(told('TCP'), both(overTcp('TCP was asked for')))
})

t.test('two hosts: over IPv6, and what auto takes', async (t) => {
  const hosts = ['10.77.0.1', '10.77.0.2']
  const cases: Case[] = [
    { name: 'IPv6', hosts: ['fd77::1', 'fd77::2'], options: both(verbs) },
    { name: 'auto', hosts, options: both(auto) },
    { name: 'no port', hosts, options: [{ ...auto, rdmaDevice: 'rxe0:2' }, auto] },
    { name: 'shm', hosts, options: both({ transport: 'shm' }) },
  ]
  const args = ['run', '--hosts=2', '-n', '2', '--no-prefix', transports, JSON.stringify(cases)]
  const told = toldBy(t, await softroce(t, args), cases)
  const overVerbs = { transport: 'verbs', isRight: true, usesVerbs: true }
  t.match(told('IPv6'), both(overVerbs))
  t.match(told('auto'), both(overVerbs))
  const overTcp = { transport: 'tcp', isRight: true, usesVerbs: false }
  t.match(told('no port'), [
    { ...overTcp, detail: 'rxe0 has no port 2; it has 1' },
    { ...overTcp, detail: 'rank 0: rxe0 has no port 2; it has 1' },
  ])
  const message = /cannot be reached by shm: .*(EXDEV|cross-device|ECONNREFUSED)/i
  t.match(told('shm'), both({ code: 'ERR_PAGEMESH_JOIN_FAILED', message }))
})

t.test('what the doctor says of a device, in its various states', async (t) => {
  const node = process.execPath
  const doctor = (...args: string[]) => `${node} dist/cli/main.js doctor --json ${args.join(' ')}`
  const views: [name: string, command: string][] = [
    ['good', doctor('--host', 'fd77::1')],
    ['no address', doctor('--host', '127.0.0.1', '--transport=verbs', '--rdma-device=rxe9')],
    [
      'not permitted',
      `chmod 600 /dev/infiniband/uverbs0; ulimit -l 1024
       setpriv --reuid=65534 --clear-groups ${doctor()}`,
    ],
    [
      'no provider',
      `mount -t tmpfs tmpfs /etc/libibverbs.d; ${doctor()} 2>/dev/null
       umount /etc/libibverbs.d`,
    ],
    [
      'no library',
      `library=$(ldconfig -p | sed -n 's/.*libibverbs.so.1 .*=> //p')
       mount --bind /dev/null $(readlink -f $library); ${doctor()}; umount $(readlink -f $library)`,
    ],
    ['small packets', `ip link set eth0 mtu 1500; ${doctor()}`],
    ['down', `ip link set eth0 down; ${doctor()}`],
  ]
  const script = views.map(([name, command]) => `echo '=${name}'\n${command}`).join('\n')
  const { stdout } = await softroce(t, ['exec', '--way=guest', '--', 'sh', '-c', script])
  const findings = new Map<string, { name: string }[]>()
  for (const part of stdout.split(/^=/m).slice(1)) {
    const at = part.indexOf('\n')
    findings.set(part.slice(0, at), JSON.parse(part.slice(at)) as { name: string }[])
  }
  const about = (view: string, name: string) =>
    findings.get(view)?.find((finding) => finding.name === name)
  const devices = (view: string) => about(view, 'RDMA devices')

  t.match(devices('good'), {
    status: 'ok',
    value: 'rxe0',
    details: [
      'rxe0 port 1: active, Ethernet, active MTU 4096 (eth0: 9000)',
      /^ {2}GID 0 {4}RoCE v2 {3}fe80::\S+ {2}\(eth0\)$/,
      '  GID 1    RoCE v2   10.77.0.1  (eth0)',
      '  GID 2    RoCE v2   fd77::1  (eth0)',
    ],
  })
  t.match(about('good', 'members listen on'), {
    status: 'ok',
    value: 'fd77::1, over rxe0 port 1 GID 2',
  })
  t.match(about('no address', 'members listen on'), {
    status: 'problem',
    value: "127.0.0.1, but not by verbs: there is no RDMA device 'rxe9'; there is rxe0",
  })
  t.match(devices('not permitted'), {
    status: 'note',
    details: ['rxe0 cannot be opened: EACCES'],
    advice: /may not open \/dev\/infiniband/,
  })
  t.match(about('not permitted', 'memlock limit'), { status: 'note', value: '1024 KiB' })
  t.match(about('good', 'memlock limit'), {
    status: 'ok',
    value: /unlimited|CAP_IPC_LOCK lifts it/,
  })
  t.match(devices('no provider'), { status: 'note', advice: /apt-get install ibverbs-providers/ })
  t.match(devices('no library'), {
    status: 'note',
    value: 'rxe0; cannot be used: libibverbs.so.1 is not installed',
    advice: /apt-get install libibverbs1/,
  })
  t.match(devices('small packets'), {
    status: 'note',
    details: ['rxe0 port 1: active, Ethernet, active MTU 1024 (eth0: 1500)', /^/, /^/, /^/],
    advice: /in 4 packets, as the MTU of eth0 is 1500[^]*ip link set eth0 mtu 4200/,
  })
  t.match(devices('down'), {
    status: 'note',
    advice: /Port 1 of rxe0 is down: sudo ip link set eth0/,
  })
})

t.test("the kernel's own link is made for a run, and removed after it", async (t) => {
  const pagemesh = `${process.execPath} dist/cli/main.js softroce`
  const cases = JSON.stringify([{ name: 'kernel', hosts: [] }])
  const show = "rdma link | grep -o 'link pmrxe[0-9]*'; ip -o link show type dummy"
  const script = `
    # What a killed run would leave: no process has such a number.
    ip link add pmrxe9999999 type dummy
    ip link set pmrxe9999999 up
    rdma link add pmrxe9999999 type rxe netdev pmrxe9999999
    echo '=stale'; ${show}
    echo '=doctor'; ${pagemesh} doctor --json
    echo '=run'; ${pagemesh} run --way=kernel -n 2 --no-prefix ${transports} '${cases}'
    echo '=after the run'; ${show}
    echo '=interrupted'
    ${pagemesh} exec --way=kernel -- sh -c "${show}; kill -INT \\$PPID; exec sleep 1000"
    echo "exit code $?"
    echo '=after the interruption'; ${show}
    echo '=failed'; ${pagemesh} exec --way=kernel -- sh -c 'exit 7'; echo "exit code $?"; ${show}`
  const { stdout, stderr } = await softroce(t, ['exec', '--way=guest', '--', 'sh', '-c', script])
  const parts = new Map<string, string>()
  for (const part of stdout.split(/^=/m).slice(1)) {
    const at = part.indexOf('\n')
    parts.set(part.slice(0, at), part.slice(at + 1))
  }
  t.equal(stderr, '')
  t.match(parts.get('stale'), /^link pmrxe9999999\n\d+: pmrxe9999999:/)
  const way = { name: 'way', status: 'ok', value: /^an rxe link of this kernel/ }
  const findings = JSON.parse(parts.get('doctor') ?? '[]') as { name: string }[]
  t.match(
    findings.find(({ name }) => name === 'way'),
    way,
  )
  const lines = (parts.get('run') ?? '').trim().split('\n')
  t.equal(lines.length, 2)
  for (const line of lines) {
    const detail = /^pmrxe\d+ port 1 GID 1 MTU 4096$/
    t.match(JSON.parse(line), { transport: 'verbs', detail, isRight: true, usesVerbs: true })
  }
  t.equal(parts.get('after the run'), '', 'nothing is left of it, nor of the killed one')
  t.match(parts.get('interrupted'), /^link pmrxe\d+\n\d+: pmrxe\d+: .*\n(.*\n)*exit code 130\n$/)
  t.equal(parts.get('after the interruption'), '')
  t.equal(parts.get('failed'), 'exit code 7\n')
})
