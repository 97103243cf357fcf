import { execFile, spawn } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { promisify } from 'node:util'
import t from 'tap'
import {
  eventually,
  joinAll,
  type Member,
  meetInFile,
  startMember,
} from '../../cluster/support/members.js'

// Takes the RDMA device away from a running mesh: has a guest of its own, as it is of no use after.

const run = promisify(execFile)

t.test('the device is deleted, and its network goes', async (t) => {
  const meeting = meetInFile(t, 3)
  const members = [0, 1, 2].map((rank) => startMember(t, meeting, rank))
  await joinAll(members, { heartbeatTimeoutMs: 60_000 })
  const [device] = readdirSync('/sys/class/infiniband')
  const round = (member: Member): Promise<number> =>
    member.run(async (room) => {
      const { mesh } = room
      const region = await room.open('r', { byteLength: 3 * 64 * 4096 })
      await mesh.barrier()
      await region.prefetch(0, 3 * 64 * 4096, 'write')
      await mesh.barrier()
      return mesh.stats().verbsMessages
    })
  const before = await Promise.all(members.map(round))

  // Linux 6.1 does not take the device from who has it open: the command waits for them.
  const deletion = spawn('rdma', ['link', 'delete', device], { stdio: 'ignore' })
  let deleted = false
  const ended = new Promise<number | null>((resolve) => {
    deletion.once('close', (code) => {
      deleted = true
      resolve(code)
    })
  })
  await eventually('the device to be shut for others', () =>
    existsSync('/dev/infiniband/uverbs0') ? undefined : true,
  )
  const after = await Promise.all(members.map(round))
  t.ok(
    after.every((count, rank) => count > before[rank]),
    'the members go on by verbs',
  )
  t.notOk(deleted, 'and the deletion waits for them')

  // Each waits for the others, who do not come.
  const waiting = members.map((member) =>
    member.failure((room) => room.mesh.barrier(`end of ${room.mesh.rank}`)),
  )
  const [network] = readdirSync('/sys/class/net').filter((name) => name !== 'lo')
  await run('ip', ['link', 'set', network, 'down'])
  const failures = await Promise.all(waiting)
  for (const failure of failures) t.match(failure, { code: 'ERR_PAGEMESH_MEMBER_DOWN' })
  t.ok(
    failures.some(({ message }) => /its link failed: [a-z ]+ \(verbs status \d+\)/.test(message)),
    'who finds it out says what verbs said',
  )
  t.comment(failures.map(({ message }) => message).join('\n'))
  await Promise.all(members.map((member) => member.run((room) => room.mesh.leave())))
  t.equal(await ended, 0, 'the last to leave lets the device go')
  for (const member of members) {
    member.child.disconnect()
    t.equal(await member.end(), 0)
    t.equal(member.stderr, '')
  }
})
