import * as fs from 'node:fs'
import path from 'node:path'
import { PassThrough } from 'node:stream'
import t from 'tap'
import { runGuests } from '../../dist/cli/softroce/guest-run.js'
import { type Guest } from '../../dist/cli/softroce/guest.js'
import { parseSoftroceExec } from '../../dist/cli/softroce/options.js'
import { guestTasks } from '../../dist/cli/softroce/softroce.js'
import { softroce, temporaryFolder } from './support/pagemesh.js'

// These boot virtual machines: a machine that cannot is a failure, never a reason to skip.

const facts = 'test/fixtures/softroce/facts.mjs'

t.test('a command: its streams, its exit code, an active device', async (t) => {
  const script = 'cat; printf "no newline"; rdma link >&2; exit 7'
  const outcome = await softroce(t, ['exec', '--way=guest', '--', 'sh', '-c', script], 'in\0put\n')
  t.equal(outcome.stdout, 'in\0put\nno newline')
  t.match(outcome.stderr, /rxe0\/1 state ACTIVE physical_state LINK_UP netdev eth0/)
  t.equal(outcome.exitCode, 7)
})

t.test('a run: the files are those of the host, and may not be changed', async (t) => {
  const folder = temporaryFolder(t)
  const args = ['run', '--way=guest', '-n', '2', '--transport=tcp', '--writable', folder]
  const outcome = await softroce(t, [...args, facts, folder])
  t.equal(outcome.exitCode, 0)
  t.equal(outcome.stderr, '')
  const lines = outcome.stdout.trim().split('\n').sort()
  t.equal(lines.length, 2)
  for (const [rank, line] of lines.entries()) {
    t.ok(line.startsWith(`[${rank}] `))
    t.same(JSON.parse(line.slice(4)), {
      rank: String(rank),
      size: '2',
      host: '10.77.0.1',
      transport: 'tcp',
      machine: 'pagemesh-0',
      directory: process.cwd(),
      devices: ['rxe0'],
      written: 'yes',
    })
  }
  t.match(fs.readFileSync(path.join(folder, 'facts.txt'), 'utf8'), /facts\.mjs/)
})

t.test('ranks on two hosts; files that were not declared are read-only', async (t) => {
  const outcome = await softroce(t, ['run', '--hosts=2', '-n', '3', '--no-prefix', facts])
  t.equal(outcome.exitCode, 0)
  const seen = outcome.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, string>)
    .sort((a, b) => Number(a.rank) - Number(b.rank))
  t.same(
    seen.map(({ machine }) => machine),
    ['pagemesh-0', 'pagemesh-0', 'pagemesh-1'],
  )
  t.ok(seen.every(({ written, transport }) => written === 'EROFS' && transport === 'verbs'))
})

t.test('Ctrl-C ends the machine within two seconds, whatever runs in it', async (t) => {
  let interruptedAtMs: number | undefined
  const command = ['sh', '-c', 'trap "" INT TERM; echo up; sleep 1000']
  const outcome = await softroce(t, ['exec', '--way=guest', '--', ...command], '', (pid) => {
    interruptedAtMs = performance.now()
    process.kill(pid, 'SIGINT')
  })
  t.equal(outcome.exitCode, 130)
  t.ok(performance.now() - (interruptedAtMs ?? 0) < 2_000)
})

t.test('the cable can be pulled and plugged, and a machine killed', async (t) => {
  const request = parseSoftroceExec(['--hosts=2', '--', 'true'])
  if (request === 'help') throw new Error('not asked for')
  const carrier = `
    echo up
    for state in 0 1; do
      until grep -q $state /sys/class/net/eth0/carrier; do sleep 0.1; done
      echo "carrier $state"
    done
    sleep 1000`
  const command = ['sh', '-c', carrier]
  const tasks = await guestTasks(request.machines, [command, command])
  const [stdout, stderr] = [new PassThrough(), new PassThrough()]
  let [text, errors] = ['', '']
  let guests: readonly Guest[] = []
  const step = async (pattern: RegExp, count: number) => {
    while ([...text.matchAll(pattern)].length < count) {
      await new Promise((resolve) => stdout.once('data', resolve))
    }
  }
  stdout.on('data', (chunk: Buffer) => (text += chunk.toString()))
  stderr.on('data', (chunk: Buffer) => (errors += chunk.toString()))
  const ended = runGuests(tasks, { stdout, stderr, onStarted: (started) => (guests = started) })
  await step(/up/g, 2)
  await guests[1].setLink(false)
  await step(/carrier 0/g, 1)
  await guests[1].setLink(true)
  await step(/carrier 1/g, 1)
  guests[1].kill('the test wants it')
  t.equal(await ended, 1)
  t.match(errors, /host 1 has ended: the test wants it/)
})
