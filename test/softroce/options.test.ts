import path from 'node:path'
import t from 'tap'
import { parseSoftroceExec, parseSoftroceRun } from '../../dist/cli/softroce/options.js'
import { rankBlock } from '../../dist/cli/softroce/softroce.js'

const script = 'test/fixtures/softroce/facts.mjs'

t.test('a run on two hosts, with options of both kinds', async (t) => {
  const args = ['-n', '3', '--hosts=2', '--transport', 'tcp', '--keep-going', '--writable', 'test']
  const run = parseSoftroceRun([...args, '--memory=1024', script, '--hosts', '9'])
  t.match(run, {
    machines: {
      way: 'guest',
      hostCount: 2,
      transport: 'tcp',
      writable: [path.resolve('test')],
      memoryMib: 1024,
      accelerator: 'tcg',
    },
    plan: { memberCount: 3, keepGoing: true, script: path.resolve(script) },
    runArgs: ['--members=3', '--keep-going', '--', script, '--hosts', '9'],
  })
})

t.test('verbs on one host, if nothing is said', async (t) => {
  t.match(parseSoftroceRun(['-n', '1', script]), {
    machines: { way: undefined, hostCount: 1, transport: 'verbs', writable: [] },
  })
})

t.test('a command that looks like options', async (t) => {
  t.match(parseSoftroceExec(['--way', 'guest', '--', 'ib_read_lat', '--help']), {
    machines: { way: 'guest' },
    command: ['ib_read_lat', '--help'],
  })
  t.equal(parseSoftroceExec(['--help']), 'help')
  t.equal(parseSoftroceRun(['-h']), 'help')
})

t.test('mistakes', async (t) => {
  const usageError = (message: RegExp) => ({ name: 'UsageError', message })
  const mistakes: [args: string[], message: RegExp][] = [
    [[script], /how many members/],
    [['-n', '1', '--hosts', '2', script], /a member for each/],
    [['-n', '2', '--hosts', '3', script], /--hosts is 1 or 2/],
    [['-n', '2', '--way', 'cloud', script], /--way is kernel or guest/],
    [['-n', '2', '--hosts=2', '--way', 'kernel', script], /needs virtual machines/],
    [['-n', '2', '--accel', 'xen', script], /--accel is tcg or kvm/],
    [['-n', '2', '--memory', '16', script], /--memory is a number/],
    [
      ['-n', '2', '--transport', 'pigeon', script],
      /--transport must be auto, shm, tcp or verbs, not 'pigeon'/,
    ],
    [['-n', '2', '--writable', 'no/such', script], /is not a folder/],
    [['-n', '2', '--host', '10.0.0.1', script], /unknown option --host/],
    [['-n', '2', 'no-such.mjs'], /cannot find the script/],
  ]
  for (const [args, message] of mistakes) {
    t.throws(() => parseSoftroceRun(args), usageError(message), args.join(' '))
  }
  t.throws(() => parseSoftroceExec([]), usageError(/name the command/))
})

t.test('every rank is on one host, in blocks', async (t) => {
  t.same(rankBlock(3, 2, 0), { firstRank: 0, rankCount: 2 })
  t.same(rankBlock(3, 2, 1), { firstRank: 2, rankCount: 1 })
  for (let memberCount = 2; memberCount <= 32; memberCount += 1) {
    const [first, second] = [rankBlock(memberCount, 2, 0), rankBlock(memberCount, 2, 1)]
    t.equal(first.rankCount, second.firstRank)
    t.equal(second.firstRank + second.rankCount, memberCount)
    t.ok(second.rankCount > 0)
  }
})
