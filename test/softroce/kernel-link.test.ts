import t from 'tap'
import {
  addKernelLink,
  kernelLink,
  kernelLinkObstacle,
  removeKernelLink,
} from '../../dist/cli/softroce/kernel-link.js'
import { type Machine } from '../../dist/cli/machine.js'
import { type ToolRunner } from '../../dist/cli/softroce/tools.js'

/** Remembers what was called; `answer` says how it goes, by default well. */
function recorder(answer: (line: string) => { exitCode?: number; stdout?: string } = () => ({})) {
  const lines: string[] = []
  const run: ToolRunner = async (command, args) => {
    const line = [command, ...args].join(' ')
    lines.push(line)
    return { exitCode: 0, stdout: '', stderr: 'no luck', ...answer(line) }
  }
  return { lines, run }
}

const link = kernelLink(4711)

/** A machine with these modules loaded, and a process with these capabilities. */
const machine = (loaded: string[] = [], capabilities = '000001ffffffffff') =>
  ({
    readText: () => `CapEff:\t${capabilities}\n`,
    list: (path: string) => (loaded.some((name) => path.endsWith(`/${name}`)) ? ['x'] : []),
  }) as unknown as Machine

t.test('a device is made on a link of its own, and both are removed', async (t) => {
  const { lines, run } = recorder()
  await addKernelLink(link, machine(), run)
  await removeKernelLink(link.name, run)
  t.same(lines, [
    'ip -o link show type dummy',
    'modprobe dummy numdummies=0',
    'modprobe --quiet crc32_generic',
    'modprobe rdma_rxe',
    'ip link add pmrxe4711 type dummy',
    'ip link set pmrxe4711 mtu 9000',
    'ip address add 198.18.18.103/32 dev pmrxe4711',
    'ip link set pmrxe4711 up',
    'rdma link add pmrxe4711 type rxe netdev pmrxe4711',
    'rdma link delete pmrxe4711',
    'ip link delete pmrxe4711',
  ])
})

t.test('the longest name that a process can give fits', async (t) => {
  t.ok(kernelLink(2 ** 22).name.length <= 15)
})

t.test('what was made is taken back when the rest fails', async (t) => {
  const { lines, run } = recorder((line) =>
    line.startsWith('rdma link add') ? { exitCode: 2 } : {},
  )
  await t.rejects(addKernelLink(link, machine(), run), /rdma link add .* failed: no luck/)
  t.same(lines.slice(-2), ['rdma link delete pmrxe4711', 'ip link delete pmrxe4711'])
})

t.test('what a killed run left is removed, and what a living one uses is not', async (t) => {
  const { lines, run } = recorder((line) =>
    line.startsWith('ip -o')
      ? { stdout: `7: pmrxe999999999: <UP> mtu 9000\n8: pmrxe${process.pid}: <UP> mtu 9000\n` }
      : {},
  )
  await addKernelLink(link, machine(), run)
  t.same(lines.slice(1, 3), ['rdma link delete pmrxe999999999', 'ip link delete pmrxe999999999'])
  t.notOk(lines.some((line) => line.includes(`delete pmrxe${process.pid}`)))
})

t.test(
  'modules that are loaded are not looked for, and crc32_generic may be missing',
  async (t) => {
    const { lines, run } = recorder((line) =>
      line.startsWith('modprobe') ? { exitCode: line.includes('crc32_generic') ? 1 : 0 } : {},
    )
    await addKernelLink(link, machine(['dummy']), run)
    t.same(
      lines.filter((line) => line.startsWith('modprobe')),
      ['modprobe --quiet crc32_generic', 'modprobe rdma_rxe'],
    )
    const failing = recorder((line) => (line === 'modprobe rdma_rxe' ? { exitCode: 1 } : {}))
    await t.rejects(
      addKernelLink(link, machine(), failing.run),
      /modprobe rdma_rxe' failed: no luck/,
    )
  },
)

t.test('when the kernel cannot be used, the reason is said', async (t) => {
  const without = (module: string) =>
    recorder((line) => (line.includes(module) ? { exitCode: 1 } : {})).run
  const { run } = recorder()
  t.equal(await kernelLinkObstacle(machine(), without('rdma_rxe')), 'this kernel has no rdma_rxe')
  t.equal(await kernelLinkObstacle(machine(), without('dummy')), 'this kernel has no dummy')
  t.match(await kernelLinkObstacle(machine([], '0'), run), /only root may make/)
  const netAdmin = '0000000000001000'
  t.equal(
    await kernelLinkObstacle(machine(['rdma_rxe'], netAdmin), run),
    'dummy must be loaded, and only root may load modules',
  )
  t.equal(await kernelLinkObstacle(machine(['rdma_rxe', 'dummy'], netAdmin), run), undefined)
  t.equal(await kernelLinkObstacle(machine(), run), undefined)
})
