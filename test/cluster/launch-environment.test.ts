import * as fs from 'node:fs'
import t from 'tap'
import { formatKey } from '../../dist/cluster/key.js'
import {
  defaultJoinTimeoutMs,
  publishRendezvous,
  readLaunchOptions,
  readRendezvous,
} from '../../dist/cluster/launch-environment.js'

const key = new Uint8Array(32).map((_, index) => index)
const whole = {
  PAGEMESH_RANK: '1',
  PAGEMESH_SIZE: '4',
  PAGEMESH_RENDEZVOUS: '127.0.0.1:4000',
  PAGEMESH_KEY: formatKey(key),
}

t.test('with nothing at all it is a mesh of one with a key of its own', async (t) => {
  const options = readLaunchOptions({ PATH: '/bin' })
  t.match(options, { rank: 0, size: 1, host: '127.0.0.1', joinTimeoutMs: defaultJoinTimeoutMs })
  t.equal(options.rendezvous, undefined)
  t.equal(options.key.length, 32)
  t.notSame(options.key, readLaunchOptions({}).key)
})

t.test('the launcher may say everything', async (t) => {
  t.strictSame(
    readLaunchOptions({
      ...whole,
      PAGEMESH_HOST: '10.0.0.7',
      PAGEMESH_JOIN_TIMEOUT_MS: '1500',
      PAGEMESH_TRANSPORT: 'verbs',
      PAGEMESH_RDMA_DEVICE: 'rxe0:1:1',
      PAGEMESH_FAULTS: 'userfaultfd',
    }),
    {
      rank: 1,
      size: 4,
      rendezvous: { kind: 'address', host: '127.0.0.1', port: 4000 },
      key,
      host: '10.0.0.7',
      joinTimeoutMs: 1500,
      transport: 'verbs',
      rdmaDevice: { device: 'rxe0', port: 1, gidIndex: 1 },
      faults: 'userfaultfd',
    },
  )
  const code = 'ERR_PAGEMESH_INVALID_ARGUMENT'
  t.throws(() => readLaunchOptions({ ...whole, PAGEMESH_TRANSPORT: 'udp' }), { code })
  for (const text of ['', 'SIGSEGV', 'uffd']) {
    const message = /PAGEMESH_FAULTS holds ".*"; expected 'auto', 'sigsegv' or 'userfaultfd'/
    t.throws(() => readLaunchOptions({ ...whole, PAGEMESH_FAULTS: text }), { code, message }, text)
  }
  const own = { faults: 7 as unknown as 'auto' }
  t.throws(() => readLaunchOptions({}, own), { code, message: /option 'faults' holds 7/ })
})

t.test('an RDMA device may be named in part', async (t) => {
  const parsed = (text: string) =>
    readLaunchOptions({ ...whole, PAGEMESH_RDMA_DEVICE: text }).rdmaDevice
  t.strictSame(parsed('mlx5_0'), { device: 'mlx5_0', port: undefined, gidIndex: undefined })
  t.strictSame(parsed('rocep1s0f0:2'), { device: 'rocep1s0f0', port: 2, gidIndex: undefined })
  t.strictSame(parsed('a.b-c:255:0'), { device: 'a.b-c', port: 255, gidIndex: 0 })
  const wrong: [text: string, message: RegExp][] = [
    ['', /PAGEMESH_RDMA_DEVICE holds ""; expected device, device:port or device:port:gid-index/],
    [':1:1', /expected device,/],
    ['rxe0:', /expected device,/],
    ['rxe0:one', /expected device,/],
    ['rxe0:1:', /expected device,/],
    ['rxe0:1:-1', /expected device,/],
    ['rxe0:1:1:1', /expected device,/],
    ['rxe0 ', /expected device,/],
    ['../rxe0', /expected device,/],
    ['r'.repeat(64), /expected device,/],
    ['rxe0:0', /its port must be from 1 to 255/],
    ['rxe0:256', /its port must be from 1 to 255/],
    ['rxe0:1:256', /its GID index must be from 0 to 255/],
  ]
  const code = 'ERR_PAGEMESH_INVALID_ARGUMENT'
  for (const [text, message] of wrong) t.throws(() => parsed(text), { code, message }, text)
  const notText = { rdmaDevice: 7 as unknown as string }
  t.throws(() => readLaunchOptions({}, notText), { code, message: /holds 7; expected a string/ })
})

t.test('the program may say everything, and goes before the launcher', async (t) => {
  const own = {
    rank: 31,
    size: 32,
    rendezvous: 'file:/tmp/here',
    key: new Uint8Array(16),
    host: '::1',
    joinTimeoutMs: 1,
  }
  const expected = {
    ...own,
    rendezvous: { kind: 'file', path: '/tmp/here' },
    transport: 'auto',
    rdmaDevice: undefined,
    faults: 'auto',
  }
  t.strictSame(readLaunchOptions({}, own), expected)
  t.strictSame(readLaunchOptions(whole, own), expected)
  t.strictSame(readLaunchOptions(whole, { key: '00'.repeat(16) }).key, new Uint8Array(16))
  t.equal(readLaunchOptions(whole, { rank: undefined }).rank, 1, 'undefined says nothing')
})

t.test('a rendezvous is an address or a file', async (t) => {
  const cases: [string, object][] = [
    ['localhost:1', { kind: 'address', host: 'localhost', port: 1 }],
    ['host-7.example_net:65535', { kind: 'address', host: 'host-7.example_net', port: 65535 }],
    ['[::1]:80', { kind: 'address', host: '::1', port: 80 }],
    ['[fe80::1%eth0]:80', { kind: 'address', host: 'fe80::1%eth0', port: 80 }],
    ['file:/tmp/a b%20#c', { kind: 'file', path: '/tmp/a b%20#c' }],
    ['file:///tmp/x', { kind: 'file', path: '/tmp/x' }],
  ]
  for (const [text, rendezvous] of cases) {
    const env = { ...whole, PAGEMESH_RENDEZVOUS: text }
    t.strictSame(readLaunchOptions(env).rendezvous, rendezvous, text)
  }
  const wrong = [
    '',
    'host',
    ':80',
    'host:',
    'host:0',
    'host:65536',
    'host:8a',
    'host:-1',
    'ho st:80',
    '::1:80',
    '[::1]',
    '[]:80',
    '[host]:80',
    'a:b:80',
    'host:80\n',
    'file:',
    'file:/',
    'file:relative',
    'file://host/path',
    'file:/a\0b',
    'http://host:80',
  ]
  for (const text of wrong) {
    t.throws(
      () => readLaunchOptions({ ...whole, PAGEMESH_RENDEZVOUS: text }),
      {
        code: 'ERR_PAGEMESH_INVALID_ARGUMENT',
        message: /^PAGEMESH_RENDEZVOUS holds ".*"; expected host:port/,
      },
      JSON.stringify(text),
    )
  }
  t.throws(() => readLaunchOptions(whole, { rendezvous: 80 as never }), {
    message: /^the option 'rendezvous' holds 80; expected/,
  })
})

t.test('a host is a name or an address', async (t) => {
  for (const host of ['0.0.0.0', '::', 'localhost', 'a-b.c']) {
    t.equal(readLaunchOptions({ PAGEMESH_HOST: host }).host, host)
  }
  t.equal(readLaunchOptions({ PAGEMESH_HOST: '[::1]' }).host, '::1')
  for (const host of ['', ' ', 'a b', 'host:80', '[host]', 'a/b', 'x'.repeat(300)]) {
    t.throws(() => readLaunchOptions({ PAGEMESH_HOST: host }), {
      code: 'ERR_PAGEMESH_INVALID_ARGUMENT',
      message: /^PAGEMESH_HOST holds ".*"; expected a host name or an IP address/,
    })
  }
  t.throws(() => readLaunchOptions({}, { host: null as never }), {
    message: /^the option 'host' holds null;/,
  })
})

t.test('numbers: which one, what it held, what is expected', async (t) => {
  const cases: [object, string, RegExp][] = [
    [
      { PAGEMESH_SIZE: '33' },
      'OUT_OF_RANGE',
      /^PAGEMESH_SIZE holds "33"; .* from 1 to 32 \(members/,
    ],
    [{ PAGEMESH_SIZE: '0' }, 'OUT_OF_RANGE', /^PAGEMESH_SIZE holds "0";/],
    [{ PAGEMESH_SIZE: '-1' }, 'OUT_OF_RANGE', /^PAGEMESH_SIZE holds "-1";/],
    [{ PAGEMESH_SIZE: '' }, 'INVALID_ARGUMENT', /^PAGEMESH_SIZE holds "";/],
    [{ PAGEMESH_SIZE: '4.0' }, 'INVALID_ARGUMENT', /^PAGEMESH_SIZE holds "4.0";/],
    [{ PAGEMESH_SIZE: ' 4' }, 'INVALID_ARGUMENT', /^PAGEMESH_SIZE holds " 4";/],
    [{ PAGEMESH_SIZE: '0x4' }, 'INVALID_ARGUMENT', /^PAGEMESH_SIZE holds "0x4";/],
    [{ PAGEMESH_SIZE: 'four' }, 'INVALID_ARGUMENT', /expected a whole number from 1 to 32/],
    [
      { PAGEMESH_RANK: '4' },
      'OUT_OF_RANGE',
      /^PAGEMESH_RANK holds "4"; .* from 0 to 3 .*4 members/,
    ],
    [{ PAGEMESH_RANK: '-1' }, 'OUT_OF_RANGE', /^PAGEMESH_RANK/],
    [{ PAGEMESH_RANK: 'a' }, 'INVALID_ARGUMENT', /^PAGEMESH_RANK holds "a";/],
    [{ PAGEMESH_JOIN_TIMEOUT_MS: '0' }, 'OUT_OF_RANGE', /^PAGEMESH_JOIN_TIMEOUT_MS .*milliseconds/],
    [{ PAGEMESH_JOIN_TIMEOUT_MS: '2147483648' }, 'OUT_OF_RANGE', /^PAGEMESH_JOIN_TIMEOUT_MS/],
    [{ PAGEMESH_JOIN_TIMEOUT_MS: '1e3' }, 'INVALID_ARGUMENT', /^PAGEMESH_JOIN_TIMEOUT_MS/],
  ]
  for (const [env, code, message] of cases) {
    t.throws(
      () => readLaunchOptions({ ...whole, ...env }),
      { code: `ERR_PAGEMESH_${code}`, message },
      JSON.stringify(env),
    )
  }
  const optionCases: [object, string, RegExp][] = [
    [{ size: 33 }, 'OUT_OF_RANGE', /^the option 'size' holds 33;/],
    [{ size: 2.5 }, 'INVALID_ARGUMENT', /^the option 'size' holds 2.5;/],
    [{ size: '4' }, 'INVALID_ARGUMENT', /^the option 'size' holds "4";/],
    [{ size: NaN }, 'INVALID_ARGUMENT', /^the option 'size' holds NaN;/],
    [{ rank: Infinity }, 'INVALID_ARGUMENT', /^the option 'rank' holds Infinity;/],
    [{ rank: null }, 'INVALID_ARGUMENT', /^the option 'rank' holds null;/],
    [{ rank: {} }, 'INVALID_ARGUMENT', /^the option 'rank' holds a value of type object;/],
    [{ joinTimeoutMs: -5 }, 'OUT_OF_RANGE', /^the option 'joinTimeoutMs' holds -5;/],
  ]
  for (const [options, code, message] of optionCases) {
    t.throws(
      () => readLaunchOptions(whole, options),
      { code: `ERR_PAGEMESH_${code}`, message },
      JSON.stringify(options),
    )
  }
})

t.test('what is missing is named', async (t) => {
  for (const name of ['PAGEMESH_RANK', 'PAGEMESH_SIZE', 'PAGEMESH_RENDEZVOUS', 'PAGEMESH_KEY']) {
    const { [name as keyof typeof whole]: _, ...rest } = whole
    t.throws(() => readLaunchOptions(rest), {
      code: 'ERR_PAGEMESH_INVALID_ARGUMENT',
      message: new RegExp(`neither ${name} nor the option`),
    })
  }
  t.throws(() => readLaunchOptions({}, { size: 2 }), { message: /the mesh has 2 members, but/ })
  t.throws(() => readLaunchOptions({}, { rank: 0 }), { message: /the option 'rank' is set, but/ })
  t.equal(readLaunchOptions({}, { size: 1 }).rank, 0)
  t.equal(readLaunchOptions({ PAGEMESH_KEY: whole.PAGEMESH_KEY }).size, 1)
})

t.test('a bad key is named, not shown', async (t) => {
  for (const text of [
    '',
    'abcd',
    'ab'.repeat(65),
    'hunter2'.repeat(5),
    `${whole.PAGEMESH_KEY}\n`,
  ]) {
    const error = t.throws(() => readLaunchOptions({ ...whole, PAGEMESH_KEY: text }), {
      message: /^PAGEMESH_KEY .*expected 16 to 64 bytes/,
    })
    if (text !== '') t.notOk((error as Error).message.includes(text))
  }
  t.throws(() => readLaunchOptions(whole, { key: 5 as never }), { message: /^the option 'key' / })
})

t.test('rank 0 publishes where it listens', async (t) => {
  const path = `${t.testdir()}/rendezvous`
  t.equal(readRendezvous(path), undefined, 'absent')
  publishRendezvous(path, '127.0.0.1', 4000)
  t.strictSame(readRendezvous(path), { host: '127.0.0.1', port: 4000 })
  publishRendezvous(path, '::1', 5000)
  t.strictSame(readRendezvous(path), { host: '::1', port: 5000 }, 'replaced')
  t.equal(fs.statSync(path).mode & 0o777, 0o600)
  t.strictSame(fs.readdirSync(t.testdirName), ['rendezvous'], 'nothing is left behind')
})

t.test('a rendezvous file that cannot be used', async (t) => {
  const folder = t.testdir({
    empty: '',
    junk: 'not an address',
    folder: {},
    long: 'x'.repeat(9999),
  })
  const code = 'ERR_PAGEMESH_JOIN_FAILED'
  for (const name of ['empty', 'junk', 'long']) {
    const message = new RegExp(`${name} holds ".{0,201}"; expected host:port`)
    t.throws(() => readRendezvous(`${folder}/${name}`), { code, message })
  }
  t.throws(() => readRendezvous(`${folder}/folder`), { code, message: /cannot read.*folder/ })
  t.throws(() => publishRendezvous(`${folder}/none/file`, 'a', 1), {
    code,
    message: /none\/file: its directory must exist/,
  })
  t.throws(() => publishRendezvous(`${folder}/folder`, 'a', 1), { code })
  t.strictSame(fs.readdirSync(folder).sort(), ['empty', 'folder', 'junk', 'long'])
})
