import { execFileSync } from 'node:child_process'
import { appendFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import t, { type Test } from 'tap'
import {
  closeReason,
  DEVICE_EVENT,
  WORK_COMPLETION_STATUS,
} from '../../dist/engine/close-reasons.js'
import { all, leaveAll, meetInFile, type Member, startMember } from './support/members.js'

// What members make of a device that fails, with a device that does so on demand:
// test/native/fixtures/verbs/libibverbs.c, which scripts/setup.mjs compiles.

const library = path.resolve('build/stub-verbs')

/** Members with a made-up device each; `fail` writes to that of rank 1. */
async function startOverDevices(
  t: Test,
  size: number,
): Promise<{ members: Member[]; fail: (byte: number) => void }> {
  const folder = mkdtempSync(path.join(tmpdir(), 'device-events-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const types = path.join(folder, 'class/infiniband/stub0/ports/1/gid_attrs/types')
  mkdirSync(types, { recursive: true })
  writeFileSync(path.join(types, '0'), 'RoCE v2\n')
  const meeting = meetInFile(t, size)
  const fifos = Array.from({ length: size }, (_, rank) => path.join(folder, String(rank)))
  const members = fifos.map((fifo, rank) => {
    execFileSync('mkfifo', [fifo])
    return startMember(t, meeting, rank, {
      LD_LIBRARY_PATH: library,
      SYSFS_PATH: folder,
      PAGEMESH_TEST_EVENTS: fifo,
      PAGEMESH_RDMA_DEVICE: 'stub0:1:0',
    })
  })
  const details = await all(members, async (room) => {
    const mesh = await room.join({ transport: 'verbs', heartbeatTimeoutMs: 60_000 })
    return mesh.stats().transportDetail
  })
  t.same(details, Array(size).fill('stub0 port 1 GID 0 MTU 1024'))
  return { members, fail: (byte) => appendFileSync(fifos[1], Buffer.from([byte])) }
}

const eventOf = (name: keyof typeof DEVICE_EVENT): number => Object.keys(DEVICE_EVENT).indexOf(name)
const statusOf = (name: keyof typeof WORK_COMPLETION_STATUS): number =>
  Object.keys(WORK_COMPLETION_STATUS).indexOf(name)

/** What is written to the device, and what is said of the members that are down by it. */
const failures: Record<string, { byte: number; says: string; size?: number }> = {
  'the device is removed': { byte: eventOf('DEVICE_FATAL'), says: closeReason(3008), size: 3 },
  'the completion queue is overrun': { byte: eventOf('CQ_ERR'), says: closeReason(3000), size: 3 },
  'a queue pair fails': { byte: eventOf('QP_FATAL'), says: closeReason(3001) },
  'a queue pair gets a bad request': { byte: eventOf('QP_REQ_ERR'), says: closeReason(3002) },
  'a queue pair is accessed wrongly': { byte: eventOf('QP_ACCESS_ERR'), says: closeReason(3003) },
  'a request is flushed': { byte: 128 + statusOf('WR_FLUSH_ERR'), says: closeReason(2005) },
  'tries run out': { byte: 128 + statusOf('RETRY_EXC_ERR'), says: closeReason(2012) },
  'the device fails at a request': { byte: 128 + statusOf('FATAL_ERR'), says: closeReason(2019) },
}

for (const [name, { byte, says, size = 2 }] of Object.entries(failures)) {
  t.test(name, async (t) => {
    const { members, fail } = await startOverDevices(t, size)
    const waiting = members.map((member) => member.failure((room) => room.mesh.barrier()))
    // News that end nothing come first: the port goes down and up.
    fail(eventOf('PORT_ERR'))
    fail(eventOf('PORT_ACTIVE'))
    fail(byte)
    const [zero, one, ...more] = await Promise.all(waiting)
    t.match(one, { code: 'ERR_PAGEMESH_MEMBER_DOWN' })
    t.ok(one.message.includes(`(${says})`), one.message)
    // Whoever had a link to it hears of it by the connection.
    for (const other of [zero, ...more])
      t.match(other, { code: 'ERR_PAGEMESH_MEMBER_DOWN', rank: 1 })
    // Two that are up cannot tell each other that they leave: their links carry nothing.
    if (size === 2) await leaveAll(t, members)
  })
}
