import t from 'tap'
import {
  addKernelLink,
  kernelLink,
  kernelLinkObstacle,
  removeKernelLink,
} from '../../dist/cli/softroce/kernel-link.js'
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

t.test('a device is made on a link of its own, and both are removed', async (t) => {
  const { lines, run } = recorder()
  await addKernelLink(link, run)
  await removeKernelLink(link.name, run)
  t.same(lines, [
    'ip -o link show type dummy',
    'modprobe -a dummy crc32_generic rdma_rxe',
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
  await t.rejects(addKernelLink(link, run), /rdma link add .* failed: no luck/)
  t.same(lines.slice(-2), ['rdma link delete pmrxe4711', 'ip link delete pmrxe4711'])
})

t.test('what a killed run left is removed, and what a living one uses is not', async (t) => {
  const { lines, run } = recorder((line) =>
    line.startsWith('ip -o')
      ? { stdout: `7: pmrxe999999999: <UP> mtu 9000\n8: pmrxe${process.pid}: <UP> mtu 9000\n` }
      : {},
  )
  await addKernelLink(link, run)
  t.same(lines.slice(1, 3), ['rdma link delete pmrxe999999999', 'ip link delete pmrxe999999999'])
  t.notOk(lines.some((line) => line.includes(`delete pmrxe${process.pid}`)))
})

t.test('when the kernel cannot be used, the reason is said', async (t) => {
  const machine = (capabilities: string, loaded: string[] = []) =>
    ({
      readText: () => `CapEff:\t${capabilities}\n`,
      list: (path: string) => (loaded.some((name) => path.endsWith(name)) ? ['x'] : []),
    }) as never
  const all = '000001ffffffffff'
  const noModule = recorder((line) => (line.includes('rdma_rxe') ? { exitCode: 1 } : {})).run
  const { run } = recorder()
  t.match(await kernelLinkObstacle(machine(all), noModule), /has no rdma_rxe/)
  t.match(await kernelLinkObstacle(machine('0'), run), /only root may make/)
  t.match(await kernelLinkObstacle(machine('0000000000001000'), run), /only root may load/)
  t.equal(
    await kernelLinkObstacle(machine('0000000000001000', ['rdma_rxe', 'dummy']), run),
    undefined,
  )
  t.equal(await kernelLinkObstacle(machine(all), run), undefined)
})
