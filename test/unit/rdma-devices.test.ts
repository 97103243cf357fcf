import t from 'tap'
import {
  chooseRdmaPort,
  plainAddress,
  type RdmaDevice,
  type RdmaDevices,
  type RdmaGid,
  type RdmaPort,
} from '../../dist/native/rdma-devices.js'

const gid = (index: number, address: string, kind: RdmaGid['kind'] = 'RoCE v2'): RdmaGid => ({
  index,
  address,
  kind,
  network: 'eth0',
})

const port = (number: number, gids: RdmaGid[], state = 'active'): RdmaPort => ({
  number,
  state,
  linkLayer: 'Ethernet',
  activeMtuBytes: 1024,
  gids,
})

const device = (name: string, ports: RdmaPort[], rest: Partial<RdmaDevice> = {}): RdmaDevice => ({
  name,
  hasProvider: true,
  errno: 0,
  ports,
  ...rest,
})

/** Two devices, the second with two ports, one of which is down. */
const machine: RdmaDevices = {
  unavailable: '',
  devices: [
    device('rxe0', [port(1, [gid(0, 'fe80::1'), gid(1, '10.0.0.1'), gid(2, 'fd77::1')])]),
    device('mlx5_0', [
      port(1, [gid(0, '10.1.0.1')], 'down'),
      port(2, [gid(0, '10.2.0.1', 'RoCE v1'), gid(1, '10.2.0.1')]),
    ]),
  ],
}

const only = (...devices: RdmaDevice[]): RdmaDevices => ({ unavailable: '', devices })
const wish = (name: string, number?: number, gidIndex?: number) => ({
  device: name,
  port: number,
  gidIndex,
})

t.test('by the address that the member listens on', async (t) => {
  const cases: [host: string, ...expected: [string, number, number]][] = [
    ['10.0.0.1', 'rxe0', 1, 1],
    ['fd77::1', 'rxe0', 1, 2],
    ['FD77:0:0::1', 'rxe0', 1, 2],
    ['::ffff:10.0.0.1', 'rxe0', 1, 1],
    ['10.2.0.1', 'mlx5_0', 2, 1],
  ]
  for (const [host, name, number, gidIndex] of cases) {
    const expected = { device: name, port: number, gidIndex }
    t.same(chooseRdmaPort(machine, host, undefined, false), expected, host)
  }
})

t.test('loopback takes any device if there has to be one', async (t) => {
  for (const host of ['127.0.0.1', '127.1.2.3', '::1']) {
    const expected = { device: 'rxe0', port: 1, gidIndex: 1 }
    t.same(chooseRdmaPort(machine, host, undefined, true), expected, host)
    t.match(chooseRdmaPort(machine, host, undefined, false), { obstacle: /no RDMA device has/ })
  }
})

t.test('by a wish, in full or in part', async (t) => {
  const cases: [host: string, wished: object, ...expected: [string, number, number]][] = [
    ['10.0.0.1', wish('rxe0', 1, 2), 'rxe0', 1, 2],
    ['10.0.0.1', wish('rxe0', 1, 0), 'rxe0', 1, 0],
    ['fd77::1', wish('rxe0'), 'rxe0', 1, 2],
    ['fd77::1', wish('rxe0', 1), 'rxe0', 1, 2],
    ['127.0.0.1', wish('rxe0'), 'rxe0', 1, 1],
    ['10.0.0.1', wish('mlx5_0'), 'mlx5_0', 2, 1],
    ['10.0.0.1', wish('mlx5_0', 2), 'mlx5_0', 2, 1],
  ]
  for (const [host, wished, name, number, gidIndex] of cases) {
    const expected = { device: name, port: number, gidIndex }
    t.same(chooseRdmaPort(machine, host, wished as never, false), expected)
  }
  const linkLocal = only(device('rxe0', [port(1, [gid(0, 'fe80::1')])]))
  const expected = { device: 'rxe0', port: 1, gidIndex: 0 }
  t.same(chooseRdmaPort(linkLocal, '127.0.0.1', wish('rxe0'), false), expected)
})

t.test('why not', async (t) => {
  const obstacle = (found: RdmaDevices, host: string, wished?: ReturnType<typeof wish>) => {
    const choice = chooseRdmaPort(found, host, wished, true)
    return 'obstacle' in choice ? choice.obstacle : choice
  }
  t.equal(obstacle({ unavailable: 'no library', devices: [] }, '10.0.0.1'), 'no library')
  t.equal(obstacle({ unavailable: 'no library', devices: [] }, '::1', wish('x')), 'no library')
  t.equal(obstacle(only(), '10.0.0.1'), 'there is no RDMA device')
  t.equal(
    obstacle(machine, '10.9.9.9'),
    'no RDMA device has the address 10.9.9.9: listen on 10.0.0.1 (rxe0) or fd77::1 (rxe0) or ' +
      '10.2.0.1 (mlx5_0) instead',
  )
  t.equal(obstacle(machine, '10.1.0.1'), 'port 1 of mlx5_0 is down, not active')
  const refused = device('rxe0', [], { errno: 13 })
  t.equal(
    obstacle(only(refused), '10.0.0.1'),
    'no RDMA device has the address 10.0.0.1 (rxe0 cannot be opened: EACCES)',
  )
  t.equal(obstacle(only(refused), '10.0.0.1', wish('rxe0')), 'rxe0 cannot be opened: EACCES')
  const unknown = device('odd0', [], { hasProvider: false })
  t.equal(obstacle(only(unknown), '::1', wish('odd0')), 'libibverbs has no provider for odd0')
  const old = device('old0', [port(1, [gid(0, '10.0.0.1', 'RoCE v1')])])
  t.equal(obstacle(only(old), '10.0.0.1'), 'no RDMA device has the address 10.0.0.1')
  t.equal(
    obstacle(only(old), '10.0.0.1', wish('old0')),
    'old0 has no RoCE v2 GID, and pagemesh speaks nothing else',
  )

  t.equal(
    obstacle(machine, '10.0.0.1', wish('rxe9')),
    "there is no RDMA device 'rxe9'; there is rxe0, mlx5_0",
  )
  t.equal(
    obstacle(only(), '10.0.0.1', wish('rxe9')),
    "there is no RDMA device 'rxe9'; there is none",
  )
  t.equal(obstacle(machine, '::1', wish('mlx5_0', 3)), 'mlx5_0 has no port 3; it has 1, 2')
  t.equal(
    obstacle(machine, '::1', wish('rxe0', 1, 9)),
    'rxe0 has no RoCE v2 GID 9; it has 0 (fe80::1), 1 (10.0.0.1), 2 (fd77::1)',
  )
  t.equal(
    obstacle(machine, '::1', wish('mlx5_0', 2, 0)),
    'mlx5_0 has no RoCE v2 GID 0; it has 1 (10.2.0.1)',
  )
  t.equal(obstacle(machine, '::1', wish('mlx5_0', 1)), 'port 1 of mlx5_0 is down, not active')
  const many = Array.from({ length: 20 }, (_, index) => gid(index, `10.0.0.${index + 1}`))
  const crowded = only(device('big0', [port(1, many)]))
  t.match(obstacle(crowded, '::1', wish('big0', 1, 99)), /7 \(10\.0\.0\.8\), …$/)
})

t.test('an address is written in one way', async (t) => {
  t.equal(plainAddress('10.0.0.1'), '10.0.0.1')
  t.equal(plainAddress('FE80::0:1'), 'fe80::1')
  t.equal(plainAddress('::ffff:0a00:0001'), '10.0.0.1')
})
