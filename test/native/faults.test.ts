import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import t from 'tap'
import { runMesh } from './fixtures/children.js'

t.test('every way to touch memory, from the main thread', async (t) => {
  const [, { wrong, count }] = await runMesh(t, 2, 'faults', 'mainThread')
  t.same(wrong, [])
  t.ok(count > 20)
})

t.test('the same from workers', async (t) => {
  const [, [byData, byMessage]] = await runMesh(t, 2, 'faults', 'workers')
  t.same(byData, [], 'buffer by workerData')
  t.same(byMessage, [], 'buffer by postMessage')
})

t.test('and while a profiler interrupts the thread', async (t) => {
  const directory = fs.mkdtempSync(path.join(tmpdir(), 'native-test-'))
  t.teardown(() => fs.rmSync(directory, { recursive: true, force: true }))
  const [, { wrong }] = await runMesh(t, 2, 'faults', 'mainThread', {
    nodeArgs: ['--cpu-prof', `--cpu-prof-dir=${directory}`, '--cpu-prof-interval=100'],
  })
  t.same(wrong, [])
  const profiles = fs.readdirSync(directory)
  t.equal(profiles.length, 2, 'one a member, none of the engine')
  for (const name of profiles) {
    const profile = JSON.parse(fs.readFileSync(path.join(directory, name), 'utf8'))
    t.ok(profile.samples.length > 10)
  }
})

t.test("faults of libuv's pool: zlib and crypto", async (t) => {
  const [home, { wrong, faultsInPool, writeFaults }] = await runMesh(t, 2, 'faults', 'pool')
  t.same(wrong, [], 'results are right')
  t.equal(faultsInPool, 64, 'one read fault a page while the main thread stood still')
  t.equal(writeFaults, 64, 'one write fault a page that randomFill filled')
  t.ok(home.distinct > 200, 'the home sees what the pool wrote')
})

t.test('WebAssembly still traps', async (t) => {
  const [home, other] = await runMesh(t, 2, 'faults', 'webAssembly')
  t.same(home.messages, ['memory access out of bounds'])
  t.same(other.messages, ['memory access out of bounds'], 'before, between and after faults')
  t.same(other.worker, { traps: 400, sum: 0 }, 'and in a worker')
  t.equal(other.load, 0)
})

t.test('signals for JavaScript handlers arrive during faults', async (t) => {
  const [, { handled, wrong, rounds, readFaults }] = await runMesh(t, 2, 'faults', 'signals')
  t.equal(wrong, 0)
  t.ok(rounds > 1, `${rounds} rounds`)
  t.ok(readFaults > 100, `${readFaults} faults`)
  for (const name of ['SIGUSR2', 'SIGWINCH', 'SIGHUP']) t.ok(handled[name] > 0, name)
})

t.test('starting other programs during faults', async (t) => {
  const [, result] = await runMesh(t, 2, 'faults', 'spawning')
  t.same(result, { outputs: '01234567', right: true })
})
