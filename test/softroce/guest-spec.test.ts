import { execFileSync } from 'node:child_process'
import t from 'tap'
import {
  passedEnvironment,
  setupScript,
  type GuestSpec,
} from '../../dist/cli/softroce/guest-spec.js'
import { qemuArguments } from '../../dist/cli/softroce/guest.js'
import { shellQuote } from '../../dist/cli/softroce/shell.js'

const spec: GuestSpec = {
  image: { kernel: '/cache/vmlinuz', initramfs: '/cache/initramfs.cpio', name: '6.1-abc' },
  hostIndex: 1,
  hostCount: 2,
  cpuCount: 1,
  memoryMib: 512,
  accelerator: 'tcg',
  command: ['true'],
  environment: { SECRET: 'of the user' },
  directory: '/tmp/work here',
  needed: ['/dev/shm/scripts', '/srv/app'],
  writable: ['/srv/a,b'],
  files: { 'members.json': 'the key' },
  hasStdin: false,
  endMark: 'mark',
}

t.test('words reach a shell as they are', async (t) => {
  for (const word of ['plain', '', 'two words', "it's", '$HOME `x` "y" \\', '\n', '~', '*', '-n']) {
    const text = execFileSync('/bin/sh', ['-c', `printf %s ${shellQuote(word)}`]).toString()
    t.equal(text, word)
  }
})

t.test('the environment goes along, but for what names things of the host', async (t) => {
  const passed = passedEnvironment({
    PATH: '/usr/bin',
    SIZE: '100',
    NODE_OPTIONS: '--no-warnings',
    PAGEMESH_RDMA_DEVICE: 'rxe0:1:1',
    PAGEMESH_RANK: '0',
    PAGEMESH_KEY: '00',
    TMPDIR: '/elsewhere',
    SSH_AUTH_SOCK: '/run/agent',
    https_proxy: 'http://proxy',
    'BASH_FUNC_f%%': '() { :; }',
  })
  t.same(passed, {
    PATH: '/usr/bin:/usr/local/sbin:/usr/sbin:/sbin',
    SIZE: '100',
    NODE_OPTIONS: '--no-warnings',
    PAGEMESH_RDMA_DEVICE: 'rxe0:1:1',
  })
})

t.test('what is covered by folders of the guest is brought back', async (t) => {
  const lines = setupScript(spec).split('\n')
  t.ok(lines.indexOf('overlay /tmp') < lines.indexOf("as_on_host '/tmp/work here'"))
  t.ok(lines.includes('as_on_host /dev/shm/scripts'))
  t.notOk(lines.includes('as_on_host /srv/app'))
  t.ok(lines.includes('writable writable0 /srv/a,b'))
  t.ok(lines.includes('network 10.77.0.2/24 fd77::2/64 9000'))
})

t.test(
  'the command line of QEMU holds no secret, no network of the host, and no KVM',
  async (t) => {
    const args = qemuArguments(spec, '/tmp/run').join(' ')
    t.notMatch(args, /the key|of the user|\bkvm\b|type=inet|-netdev (user|tap|bridge)/)
    t.match(args, /local\.path=cable-1\.sock,.*remote\.path=cable-0\.sock/)
    t.match(args, /id=root,path=\/,security_model=none,readonly=on/)
    t.match(args, /id=writable0,path=\/srv\/a,,b,/, 'a comma is doubled')
    t.match(qemuArguments({ ...spec, hostCount: 1 }, '/tmp/run').join(' '), /-netdev hubport/)
  },
)
