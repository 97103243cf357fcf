import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const main = fileURLToPath(new URL('../../bench/main.mjs', import.meta.url))

function bench(...args: string[]) {
  return spawnSync(process.execPath, [main, ...args], { encoding: 'utf8', timeout: 30_000 })
}

t.test('list names the benchmarks', (t) => {
  const { status, stdout, stderr } = bench('list')
  t.equal(status, 0)
  const names = [
    'anatomy',
    'apps',
    'back-ends',
    'barrier',
    'fault',
    'goals',
    'gups',
    'lock',
    'progress',
    'redis',
    'scan',
    'stream',
    'upgrade',
    'words',
  ]
  t.same(
    stdout
      .trimEnd()
      .split('\n')
      .map((line) => line.split(/ +\S/)[0]),
    names,
  )
  t.equal(stderr, '')
  t.end()
})

const mistakes: [string[], RegExp][] = [
  [
    ['faults'],
    /^no benchmark is called 'faults'; there are anatomy, apps, back-ends, barrier, fault, .*, words\nusage: /,
  ],
  [['fault', 'nothing'], /^no benchmark is called 'nothing'/],
  [['toString'], /^no benchmark is called 'toString'/],
  [['fault', '--slow'], /^Unknown option '--slow'/],
  [['fault', '--faults', '0'], /^--faults takes a whole number from 1 to 1000000, not '0'\n/],
  [['fault', '--members', '2'], /^--members is for barrier, lock, upgrade, not for 'fault'\n/],
  [['barrier', '--members', '9'], /^--members takes a whole number from 2 to 8, not '9'\n/],
  [['fault', '--tiny'], /^--tiny is for apps, goals, gups, stream, not for 'fault'\n/],
  [['--tiny'], /^--tiny is for apps, goals, gups, stream, not for 'back-ends'\n/],
  [['fault', '--transport', 'smoke'], /^--transport takes tcp, verbs, shm, not 'smoke'\n/],
  [['fault', '--rounds', '1.5'], /^--rounds takes a whole number from 1 to 1000000, not '1.5'\n/],
]
for (const [args, message] of mistakes) {
  t.test(`${args.join(' ')} is refused`, (t) => {
    const { status, stdout, stderr } = bench(...args, '--json')
    t.equal(status, 2)
    t.equal(stdout, '')
    t.match(stderr, message)
    t.end()
  })
}
