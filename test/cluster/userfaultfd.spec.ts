import * as fs from 'node:fs'
import { createServer } from 'node:net'
import path from 'node:path'
import t, { type Test } from 'tap'
import {
  all,
  leaveAll,
  meetInFile,
  type Member,
  startMembers,
  startMesh,
  within,
} from './support/members.js'
import { temporaryDirectory } from './support/temporary-directory.js'
import { loadAddon } from '../../dist/native/addon.js'

const pageBytes = 4096
const options = { byteLength: 256 * pageBytes, placement: { rank: 0 } } as const
const isRoot = process.getuid?.() === 0
/** Whether this machine lets the tests have it. */
const permitted = loadAddon().probe().userfaultfd

t.test('which back end is in use', async (t) => {
  for (const faults of [undefined, 'auto', 'sigsegv'] as const) {
    const [member] = await startMesh(t, 1, faults === undefined ? {} : { faults })
    const found = await member.run((room) => room.mesh.stats().faults)
    const usual = process.env.PAGEMESH_FAULTS ?? 'sigsegv'
    t.equal(found, faults === undefined ? usual : 'sigsegv', String(faults))
    await leaveAll(t, [member])
  }
})

t.test('a value that is none', async (t) => {
  const [member] = await startMesh(t, 1)
  await member.run((room) => room.mesh.leave())
  const failure = await member.failure((room) => room.join({ faults: 'fast' as 'auto' }))
  t.match(failure, { code: 'ERR_PAGEMESH_INVALID_ARGUMENT', message: /option 'faults'/ })
})

t.test('where it is not permitted', async (t) => {
  if (!isRoot && permitted) {
    // Whoever may have it may not give it up.
    t.equal(loadAddon().probe().userfaultfd, true)
    return
  }
  if (isRoot && fs.readFileSync('/proc/sys/vm/unprivileged_userfaultfd', 'utf8') !== '0\n') {
    t.equal(permitted, true, 'it is permitted to all')
    return
  }
  const [member] = await startMesh(t, 1, { faults: 'sigsegv' })
  const failure = await member.failure(async (room) => {
    await room.mesh.leave()
    if (process.getuid?.() === 0) process.setuid?.(65534)
    delete process.env.PAGEMESH_RENDEZVOUS // in a directory that is no longer its own
    await room.join({ faults: 'userfaultfd' })
  })
  const message = /not permitted.*\/dev\/userfaultfd.*vm.unprivileged_userfaultfd=1.*'sigsegv'/
  t.match(failure, { code: 'ERR_PAGEMESH_NO_USERFAULTFD', message })
  t.equal(
    await member.run(async (room) => (await room.join({ faults: 'auto' })).stats().faults),
    'sigsegv',
    'nothing else needs it',
  )
  await leaveAll(t, [member])
})

if (!permitted) {
  t.comment('userfaultfd is not permitted here: the rest needs it')
  process.exitCode = isRoot ? 1 : 0
} else {
  t.test('system calls use pages that are not here, without a pin', async (t) => {
    const directory = temporaryDirectory(t)
    const members = await startMesh(t, 2, { faults: 'userfaultfd' })
    await all(
      members,
      async (room, options) => {
        await room.open('calls', options)
      },
      options,
    )
    const [zero, one] = members as [Member, Member]
    t.equal(await one.run((room) => room.mesh.stats().faults), 'userfaultfd')
    await zero.run((room) => {
      const bytes = new Uint8Array(room.regions.calls.buffer)
      for (let at = 0; at < bytes.length; at++) bytes[at] = (at * 31) >> 3
    })
    const expected = Buffer.from(
      Uint8Array.from({ length: options.byteLength }, (_, at) => (at * 31) >> 3),
    )

    const written = path.join(directory, 'written')
    t.equal(
      await one.run(async (room, file) => {
        const fs = await import('node:fs')
        const fd = fs.openSync(file, 'w')
        const bytes = new Uint8Array(room.regions.calls.buffer)
        return fs.writeSync(fd, bytes, 100, 40 * 4096)
      }, written),
      40 * pageBytes,
    )
    t.ok(fs.readFileSync(written).equals(expected.subarray(100, 100 + 40 * pageBytes)), 'a write')

    const given = path.join(directory, 'given')
    fs.writeFileSync(given, Buffer.alloc(20 * pageBytes, 'given'))
    const at = 100 * pageBytes + 7
    t.equal(
      await one.run(
        async (room, file, at) => {
          const fs = await import('node:fs')
          const bytes = new Uint8Array(room.regions.calls.buffer)
          return fs.readSync(fs.openSync(file, 'r'), bytes, at, 20 * 4096, 0)
        },
        given,
        at,
      ),
      20 * pageBytes,
    )
    const seen = await zero.run(
      (room, at) =>
        Buffer.from(room.regions.calls.buffer)
          .subarray(at - 1, at + 20 * 4096 + 1)
          .toString('latin1'),
      at,
    )
    const wanted = Buffer.from(expected.subarray(at - 1, at + 20 * pageBytes + 1))
    fs.readFileSync(given).copy(wanted, 1)
    t.ok(Buffer.from(seen, 'latin1').equals(wanted), 'a read, which the home sees')

    const server = createServer()
    const received = new Promise<Buffer>((resolve) => {
      server.once('connection', (socket) => {
        const chunks: Buffer[] = []
        socket.on('data', (chunk: Buffer) => chunks.push(chunk))
        socket.once('end', () => resolve(Buffer.concat(chunks)))
      })
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    t.teardown(() => server.close())
    const { port } = server.address() as { port: number }
    await one.run(async (room, port) => {
      const net = await import('node:net')
      const socket = net.connect(port, '127.0.0.1')
      const bytes = new Uint8Array(room.regions.calls.buffer, 200 * 4096, 50 * 4096)
      await new Promise<void>((resolve) => socket.end(bytes, () => resolve()))
    }, port)
    const bytes = await within(received, 'what the socket wrote')
    t.ok(bytes.equals(expected.subarray(200 * pageBytes, 250 * pageBytes)), 'a socket')
    t.ok(await one.run((room) => room.regions.calls.stats().readFaults > 0))
    await leaveAll(t, members)
  })

  t.test('members with different back ends, who write in turn by system calls', async (t) => {
    const members = startMembers(t, meetInFile(t, 2))
    await all(members, async (room) => {
      await room.join({ faults: process.env.PAGEMESH_RANK === '0' ? 'sigsegv' : 'userfaultfd' })
    })
    const counts = await all(members, async (room) => {
      const fs = await import('node:fs')
      const words = new Int32Array((await room.open('turns', { byteLength: 4096 })).buffer)
      const other = 1 - room.mesh.rank
      const none = fs.openSync('/dev/null', 'w')
      for (let turn = 0; turn < 200; turn++) {
        if (room.mesh.rank === 1) fs.writeSync(none, new Uint8Array(words.buffer))
        Atomics.store(words, room.mesh.rank, turn + 1)
        while (Atomics.load(words, other) < turn) if (turn % 8 === 0) await room.sleep(0)
      }
      return [words[0], words[1]].every((count) => count >= 199)
    })
    t.same(counts, [true, true])
    await leaveAll(t, members)
  })

  /** A mesh whose home is stopped, while a worker of rank 1 writes one of its pages to the file. */
  async function startStuck(t: Test, file: string): Promise<[Member, Member]> {
    const members = await startMesh(t, 2, { faults: 'userfaultfd' })
    const [zero, one] = members as [Member, Member]
    await all(members, async (room) => {
      const region = await room.open('k', { byteLength: 4096, placement: { rank: 0 } })
      if (room.mesh.rank === 0) new Uint8Array(region.buffer).fill(9)
    })
    await zero.stop()
    await one.run(async (room, file) => {
      const { Worker } = await import('node:worker_threads')
      const code = `const { workerData: { buffer, file }, parentPort } = require('node:worker_threads')
        const fs = require('node:fs')
        const fd = fs.openSync(file, 'w')
        parentPort.postMessage('now')
        parentPort.postMessage(fs.writeSync(fd, new Uint8Array(buffer)))`
      const workerData = { buffer: room.regions.k.buffer, file }
      const worker = new Worker(code, { eval: true, workerData })
      await new Promise((resolve) => worker.once('message', resolve))
      room.kept.count = new Promise((resolve) => worker.once('message', resolve))
      const { readFaults } = room.regions.k.stats()
      if (readFaults > 1) throw new Error('others fault, too')
      while (room.regions.k.stats().readFaults === 0) await room.sleep(1)
    }, file)
    return [zero, one]
  }

  t.test('a thread in the kernel keeps nobody from ending', async (t) => {
    const directory = temporaryDirectory(t)
    for (const how of ['exit', 'kill'] as const) {
      const [zero, one] = await startStuck(t, path.join(directory, how))
      if (how === 'kill') one.signal('SIGKILL')
      else
        await one.run(() => {
          setTimeout(() => process.exit(7))
        })
      t.equal(await within(one.ended, how), how === 'kill' ? 'SIGKILL' : 7, how)
      zero.signal('SIGKILL')
      await zero.ended
    }
  })

  t.test('a thread in the kernel whose home dies ends the process', async (t) => {
    const [zero, one] = await startStuck(t, path.join(temporaryDirectory(t), 'lost'))
    zero.signal('SIGKILL')
    t.equal(await within(one.ended, 'the member that waits'), 74)
    t.match(one.stderr, /page 0 of region 'k'.* is lost/)
  })

  t.test('signals while a thread waits in a system call', async (t) => {
    const file = path.join(temporaryDirectory(t), 'signals')
    const [zero, one] = await startStuck(t, file)
    await one.run((room) => {
      room.kept.signals = 0
      process.on('SIGUSR2', () => {
        room.kept.signals = (room.kept.signals as number) + 1
      })
    })
    for (let sent = 1; sent <= 20; sent++) {
      one.signal('SIGUSR2')
      await one.run(async (room, sent) => {
        while ((room.kept.signals as number) < sent) await room.sleep(1)
      }, sent)
    }
    zero.signal('SIGCONT')
    t.equal(await one.run((room) => room.kept.count as Promise<number>), pageBytes)
    t.ok(fs.readFileSync(file).equals(Buffer.alloc(pageBytes, 9)))
    await leaveAll(t, [zero, one])
  })
}
