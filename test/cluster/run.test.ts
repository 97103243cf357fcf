import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { typescriptSupport } from '../../dist/cli/node-version.js'
import { temporaryDirectory } from './support/temporary-directory.js'

const cli = path.resolve('dist/cli/main.js')
const evaluate = 'test/fixtures/cli/evaluate.mjs'
const pollMs = 10
/** Far beyond what anything here takes, so that only a real hang ends in it. */
const patienceMs = 30_000

/** A `pagemesh` command under test. */
class Launcher {
  readonly child: ChildProcess
  /** The only directory in which it may leave files. */
  readonly temporary: string
  stdout = ''
  stderr = ''
  readonly ended: Promise<number | NodeJS.Signals>

  constructor(t: Test, args: string[], environment: Record<string, string> = {}) {
    this.temporary = temporaryDirectory(t)
    const variables = { NODE_OPTIONS: '', TMPDIR: this.temporary, ...environment }
    const assignments = Object.entries(variables).map(([name, value]) => `${name}=${value}`)
    // By way of env, as tap puts options of its own into the environment of what a test starts.
    this.child = spawn('env', [...assignments, process.execPath, cli, ...args], {
      stdio: ['pipe', 'pipe', 'pipe'],
    })
    this.child.stdout?.setEncoding('latin1').on('data', (text: string) => (this.stdout += text))
    this.child.stderr?.setEncoding('latin1').on('data', (text: string) => (this.stderr += text))
    this.ended = new Promise((resolve) => {
      this.child.once('close', (code, signal) => resolve(signal ?? code ?? -1))
    })
    t.teardown(() => this.child.kill('SIGKILL'))
  }

  get pid(): number {
    return this.child.pid ?? 0
  }

  /** Waits until stdout matches as often as wanted, and returns the matches. */
  async sees(pattern: RegExp, count = 1): Promise<RegExpMatchArray[]> {
    return eventually(`${count} of ${pattern}`, () => {
      const found = [...this.stdout.matchAll(new RegExp(pattern, 'gm'))]
      return found.length >= count ? found : undefined
    })
  }

  /** The process ids that members print as `pid <n>`, by rank. */
  async memberPids(count: number): Promise<number[]> {
    const pids: number[] = []
    for (const [, rank, pid] of await this.sees(/^\[(\d+)\] pid (\d+)$/, count)) {
      pids[Number(rank)] = Number(pid)
    }
    return pids
  }
}

async function eventually<T>(what: string, probe: () => T | undefined): Promise<T> {
  const deadlineMs = performance.now() + patienceMs
  for (;;) {
    const found = probe()
    if (found !== undefined) return found
    if (performance.now() > deadlineMs) throw new Error(`waited in vain for ${what}`)
    await sleep(pollMs)
  }
}

/** 'Z' for a zombie, undefined if there is no such process. */
function processState(pid: number): string | undefined {
  try {
    return /\) (\S)/.exec(fs.readFileSync(`/proc/${pid}/stat`, 'utf8'))?.[1]
  } catch {
    return undefined
  }
}

/**
 * A killed process's first thread is a zombie while others still have its descriptors open, and
 * its parent cannot see the death before the last of them is gone.
 */
function isAlive(pid: number): boolean {
  const state = processState(pid)
  if (state === undefined) return false
  return state !== 'Z' || threadCount(pid) > 1
}

function threadCount(pid: number): number {
  try {
    return fs.readdirSync(`/proc/${pid}/task`).length
  } catch {
    return 0
  }
}

async function dead(pid: number): Promise<void> {
  await eventually(`the death of ${pid}`, () => (isAlive(pid) ? undefined : true))
}

/** Starts members that run `body`; see the fixture for what it may use. */
function launch(t: Test, options: string[], body: string, environment?: Record<string, string>) {
  return new Launcher(t, ['run', ...options, evaluate, body], environment)
}

const sayPidAndHold = 'console.log("pid", process.pid); await hold()'

t.test('each line has its rank, on the stream it was written to', async (t) => {
  const run = launch(t, ['-n', '3'], 'console.log("out\\ntwice"); console.error("err", rank)')
  t.equal(await run.ended, 0)
  const expected = [0, 1, 2].flatMap((rank) => [`[${rank}] out`, `[${rank}] twice`])
  t.same(run.stdout.trimEnd().split('\n').sort(), expected)
  t.same(run.stderr.trimEnd().split('\n').sort(), ['[0] err 0', '[1] err 1', '[2] err 2'])
  t.same(fs.readdirSync(run.temporary), [], 'nothing left behind')
})

t.test('lines stay whole when they come in parts', async (t) => {
  const run = launch(
    t,
    ['-n', '2'],
    `if (rank === 0) {
       process.stdout.write('first ')
       process.stdin.resume().once('end', () => console.log('half'))
     } else {
       console.log('in between')
       process.stdout.write('no newline \\u00e9\\0')
     }`,
  )
  await run.sees(/^\[1\] no newline/)
  t.equal(run.stdout, '[1] in between\n[1] no newline \xc3\xa9\0\n')
  run.child.stdin?.end()
  t.equal(await run.ended, 0)
  t.ok(run.stdout.endsWith('[0] first half\n'))
})

t.test('--no-prefix changes no byte of a member that is alone', async (t) => {
  const run = launch(t, ['-n', '1', '--no-prefix'], `process.stdout.write('a\\nb')`)
  t.equal(await run.ended, 0)
  t.equal(run.stdout, 'a\nb')
})

t.test('members see what they need to join', async (t) => {
  const run = launch(
    t,
    ['-n', '2', '--host', '127.0.0.2', '--join-timeout', '1234'],
    `const entries = Object.entries(process.env).filter(([name]) => name.startsWith('PAGEMESH_'))
     const file = process.env.PAGEMESH_RENDEZVOUS.replace('file:', '')
     const directory = file.slice(0, file.lastIndexOf('/'))
     const mode = fs.statSync(directory).mode & 0o777
     const lifeline = fs.fstatSync(3).isSocket()
     console.log(JSON.stringify({ ...Object.fromEntries(entries), directory, mode, lifeline }))`,
  )
  t.equal(await run.ended, 0)
  const seen = run.stdout
    .trimEnd()
    .split('\n')
    .sort()
    .map((line) => JSON.parse(line.slice(4)))
  t.equal(seen.length, 2)
  for (const [rank, member] of seen.entries()) {
    t.match(member, {
      PAGEMESH_RANK: String(rank),
      PAGEMESH_SIZE: '2',
      PAGEMESH_KEY: /^[0-9a-f]{64}$/,
      PAGEMESH_LIFELINE_FD: '3',
      PAGEMESH_HOST: '127.0.0.2',
      PAGEMESH_JOIN_TIMEOUT_MS: '1234',
      PAGEMESH_RENDEZVOUS: `file:${member.directory}/rendezvous`,
      mode: 0o700,
      lifeline: true,
    })
    t.equal(path.dirname(member.directory), run.temporary)
  }
  t.equal(seen[0].PAGEMESH_KEY, seen[1].PAGEMESH_KEY)
  t.equal(seen[0].PAGEMESH_RENDEZVOUS, seen[1].PAGEMESH_RENDEZVOUS)
})

t.test('no options, no variables; each run has its own key, on no command line', async (t) => {
  const body = `const { PAGEMESH_HOST, PAGEMESH_JOIN_TIMEOUT_MS, PAGEMESH_KEY } = process.env
    console.log('key', PAGEMESH_KEY, PAGEMESH_HOST, PAGEMESH_JOIN_TIMEOUT_MS)
    await hold()`
  const first = launch(t, ['-n', '2'], body)
  const second = launch(t, ['-n', '1'], body)
  const pattern = /^\[\d\] key (\S+) undefined undefined$/
  const keys = [...(await first.sees(pattern, 2)), ...(await second.sees(pattern))].map(
    (match) => match[1],
  )
  t.equal(new Set(keys).size, 2)
  for (const pid of fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    let commandLine = ''
    try {
      commandLine = fs.readFileSync(`/proc/${pid}/cmdline`, 'latin1')
    } catch {
      // It has ended since.
    }
    if (keys.some((key) => commandLine.includes(key))) t.fail(`the key is in ${commandLine}`)
  }
  for (const run of [first, second]) {
    run.child.kill('SIGTERM')
    t.equal(await run.ended, 143)
  }
})

t.test('arguments of the script and of the runtime', async (t) => {
  const options = ['-n', '1', '--node-arg=--stack-size=900', '--node-arg', '--no-warnings']
  const body = 'console.log(JSON.stringify([args, process.execArgv, process.env.NODE_OPTIONS]))'
  const nodeOptions = '--max-old-space-size=200'
  const run = new Launcher(t, ['run', ...options, evaluate, body, '--keep-going', '-n', '--', ''], {
    NODE_OPTIONS: nodeOptions,
  })
  t.equal(await run.ended, 0)
  t.same(JSON.parse(run.stdout.slice(4)), [
    ['--keep-going', '-n', '--', ''],
    ['--stack-size=900', '--no-warnings'],
    nodeOptions,
  ])
})

t.test('a CommonJS script', async (t) => {
  const run = new Launcher(t, ['run', '-n', '1', 'test/fixtures/cli/common.cjs', 'a', 'b'])
  t.equal(await run.ended, 0)
  t.equal(run.stdout, '[0] common 0 a b\n')
})

t.test('a TypeScript script runs, or gets advice', async (t) => {
  const run = new Launcher(t, ['run', '-n', '1', 'test/fixtures/cli/typed.ts'])
  if (typescriptSupport(process.version) === 'no') {
    t.equal(await run.ended, 2)
    t.match(run.stderr, /^pagemesh: Node.js .* cannot run TypeScript: compile typed.ts first/)
  } else {
    t.equal(await run.ended, 0)
    t.equal(run.stdout, '[0] typed 0\n')
  }
})

t.test('standard input goes to rank 0 only', async (t) => {
  const run = launch(
    t,
    ['-n', '2'],
    `let text = ''
     for await (const chunk of process.stdin) text += chunk
     console.log(JSON.stringify(text))`,
  )
  await run.sees(/^\[1\] ""$/)
  run.child.stdin?.end('some\ninput')
  t.equal(await run.ended, 0)
  t.match(run.stdout, /^\[0\] "some\\ninput"$/m)
})

t.test('a failing member ends the others, and gives its exit code', async (t) => {
  const run = launch(
    t,
    ['-n', '3'],
    `process.once('SIGUSR2', () => process.exit(3))
     ${sayPidAndHold}`,
  )
  const pids = await run.memberPids(3)
  process.kill(pids[2], 'SIGUSR2')
  t.equal(await run.ended, 3)
  t.equal(run.stderr, 'pagemesh: rank 2 exited with code 3; ending the others\n')
  for (const pid of pids) t.notOk(isAlive(pid))
  t.same(fs.readdirSync(run.temporary), [])
})

t.test('a member killed by a signal', async (t) => {
  const run = launch(t, ['-n', '2'], sayPidAndHold)
  const [, victim] = await run.memberPids(2)
  process.kill(victim, 'SIGSEGV')
  t.equal(await run.ended, 139)
  t.equal(run.stderr, 'pagemesh: rank 1 was killed by SIGSEGV; ending the others\n')
})

t.test('a failure of a member that is alone', async (t) => {
  const run = launch(t, ['-n', '1'], 'process.exit(7)')
  t.equal(await run.ended, 7)
  t.equal(run.stderr, 'pagemesh: rank 0 exited with code 7\n')
})

/** Ends members while the launcher is stopped, which then sees all of it at once. */
async function endAtOnce(run: Launcher, deaths: [number, NodeJS.Signals][]): Promise<void> {
  const pids = await run.memberPids(4)
  process.kill(run.pid, 'SIGSTOP')
  await eventually('the stop', () => (processState(run.pid) === 'T' ? true : undefined))
  for (const [rank, signal] of deaths) {
    process.kill(pids[rank], signal)
    await dead(pids[rank])
  }
  process.kill(run.pid, 'SIGCONT')
}

t.test('of several failures at once the first wins', async (t) => {
  const run = launch(t, ['-n', '4'], sayPidAndHold)
  await endAtOnce(run, [
    [2, 'SIGKILL'],
    [0, 'SIGTERM'],
    [3, 'SIGABRT'],
    [1, 'SIGINT'],
  ])
  t.equal(await run.ended, 137)
  t.match(run.stderr, /^pagemesh: rank 2 was killed by SIGKILL[^\n]*\n$/)
})

t.test('of several failures at once a signal goes before exit codes', async (t) => {
  const body = `process.once('SIGUSR2', () => process.exit(5)); ${sayPidAndHold}`
  const run = launch(t, ['-n', '4'], body)
  await endAtOnce(run, [
    [1, 'SIGUSR2'],
    [0, 'SIGUSR2'],
    [3, 'SIGKILL'],
  ])
  t.equal(await run.ended, 137)
  t.match(run.stderr, /^pagemesh: rank 3 was killed by SIGKILL[^\n]*\n$/)
})

t.test('members that fail because of another do not hide it', async (t) => {
  const socket = path.join(temporaryDirectory(t), 'socket')
  const body = `const net = await import('node:net')
    const [path] = args
    if (rank === 3) {
      let count = 0
      net.createServer(() => { if (++count === 3) process.kill(process.pid, 'SIGKILL') }).listen(path)
    } else {
      const connect = () => {
        const socket = net.connect(path)
        socket.on('error', () => setTimeout(connect, 10))
        socket.on('connect', () => socket.on('close', () => process.exit(10 + rank)))
      }
      connect()
    }
    await hold()`
  const run = new Launcher(t, ['run', '-n', '4', evaluate, body, socket])
  t.equal(await run.ended, 137)
  t.match(run.stderr, /^pagemesh: rank 3 was killed by SIGKILL[^\n]*\n$/)
})

t.test('--keep-going: the others go on, the exit code stays', async (t) => {
  const run = launch(
    t,
    ['-n', '3', '--keep-going'],
    `if (rank === 1) process.exit(5)
     console.log('pid', process.pid)
     if (rank === 0) for await (const chunk of process.stdin);
     else {
       await new Promise((resolve) => {
         process.once('SIGUSR2', resolve)
         console.log('ready')
         setInterval(() => undefined, 1_000_000)
       })
       process.exit(6)
     }
     console.log('done')`,
  )
  await eventually(
    'the first failure',
    () =>
      run.stderr.includes('pagemesh: rank 1 exited with code 5; the others go on\n') || undefined,
  )
  await run.sees(/^\[2\] ready$/)
  const [, pid] = (await run.sees(/^\[2\] pid (\d+)$/))[0]
  process.kill(Number(pid), 'SIGUSR2')
  await eventually(
    'the second failure',
    () =>
      run.stderr.includes('pagemesh: rank 2 exited with code 6; the others go on\n') || undefined,
  )
  run.child.stdin?.end()
  t.equal(await run.ended, 5)
  t.match(run.stdout, /^\[0\] done$/m)
})

for (const [signal, exitCode] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
] as const) {
  t.test(`${signal} to the launcher ends all`, async (t) => {
    const run = launch(
      t,
      ['-n', '2'],
      `process.once('${signal}', () => { console.log('got it'); process.exit(0) })
       ${sayPidAndHold}`,
    )
    const pids = await run.memberPids(2)
    run.child.kill(signal)
    t.equal(await run.ended, exitCode)
    t.match(run.stdout, /^\[0\] got it$/m, 'the signal is passed on')
    t.match(run.stdout, /^\[1\] got it$/m, 'to every member')
    t.equal(run.stderr, '')
    for (const pid of pids) t.notOk(isAlive(pid))
    t.same(fs.readdirSync(run.temporary), [])
  })
}

const ignoring = `for (const signal of ['SIGINT', 'SIGTERM']) {
    process.on(signal, () => console.log('ignored', signal))
  }
  ${sayPidAndHold}`

t.test('members that ignore the signal are killed after the grace', async (t) => {
  const run = launch(t, ['-n', '2'], ignoring)
  const pids = await run.memberPids(2)
  const startMs = performance.now()
  run.child.kill('SIGTERM')
  t.equal(await run.ended, 143)
  t.ok(performance.now() - startMs >= 1_900, 'they had their time')
  t.match(run.stdout, /^\[1\] ignored SIGTERM$/m)
  t.equal(run.stderr, 'pagemesh: rank 0, 1 did not end within 2 s of SIGTERM; killing\n')
  for (const pid of pids) t.notOk(isAlive(pid))
})

t.test('after a failure, too', async (t) => {
  const run = launch(t, ['-n', '2'], ignoring)
  const [stubborn, victim] = await run.memberPids(2)
  process.kill(victim, 'SIGKILL')
  t.equal(await run.ended, 137)
  t.notOk(isAlive(stubborn))
})

t.test('a second Ctrl-C kills at once', async (t) => {
  const run = launch(t, ['-n', '1'], ignoring)
  const [pid] = await run.memberPids(1)
  run.child.kill('SIGINT')
  await run.sees(/^\[0\] ignored SIGINT$/)
  await sleep(400) // a person's second Ctrl-C, not npm's echo of the first
  run.child.kill('SIGINT')
  t.equal(await run.ended, 130)
  t.notMatch(run.stderr, /did not end/)
  t.notOk(isAlive(pid))
})

t.test('the echo of a Ctrl-C is not a second one', async (t) => {
  const run = launch(
    t,
    ['-n', '1'],
    `process.once('SIGINT', () => setTimeout(() => {
       console.log('tidied up')
       process.exit()
     }, 300))
     ${sayPidAndHold}`,
  )
  await run.memberPids(1)
  run.child.kill('SIGINT')
  await sleep(20) // of two signals pending together the kernel has the second handled first
  run.child.kill('SIGTERM')
  t.equal(await run.ended, 130)
  t.match(run.stdout, /tidied up/)
})

t.test('what a member started ends with it', async (t) => {
  const run = launch(
    t,
    ['-n', '1'],
    `const child = childProcess.spawn('sleep', ['1000'], { stdio: 'inherit' })
     console.log('child', child.pid)
     process.exit(0)`,
  )
  const [, pid] = (await run.sees(/child (\d+)/))[0]
  t.equal(await run.ended, 0)
  t.notOk(isAlive(Number(pid)))
})

t.test('a daemon that keeps the output open does not keep the run', async (t) => {
  const run = launch(
    t,
    ['-n', '1'],
    `const child = childProcess.spawn('sleep', ['1000'], { stdio: 'inherit', detached: true })
     console.log('child', child.pid)
     process.exit(0)`,
  )
  const [, pid] = (await run.sees(/child (\d+)/))[0]
  t.teardown(() => process.kill(Number(pid), 'SIGKILL'))
  t.equal(await run.ended, 0)
  t.ok(isAlive(Number(pid)), 'a process that left the session is not ours to end')
})

t.test('a launcher killed with SIGKILL leaves nothing either', async (t) => {
  const run = launch(t, ['-n', '3'], ignoring)
  const pids = await run.memberPids(3)
  t.equal(fs.readdirSync(run.temporary).length, 1)
  run.child.kill('SIGKILL')
  for (const pid of pids) await dead(pid)
  await eventually('the end of the directory', () =>
    fs.readdirSync(run.temporary).length === 0 ? true : undefined,
  )
})

t.test('the lifeline closes when the launcher dies', async (t) => {
  const witness = path.join(temporaryDirectory(t), 'witness')
  const body = `process.on('SIGTERM', () => undefined)
    const net = await import('node:net')
    new net.Socket({ fd: Number(process.env.PAGEMESH_LIFELINE_FD) })
      .on('close', () => { fs.writeFileSync(args[0], 'closed'); process.exit(1) })
      .resume()
    ${sayPidAndHold}`
  const run = new Launcher(t, ['run', '-n', '1', evaluate, body, witness])
  const [pid] = await run.memberPids(1)
  run.child.kill('SIGKILL')
  await dead(pid)
  t.equal(fs.readFileSync(witness, 'utf8'), 'closed')
})

t.test('a slow reader slows the members, and the launcher does not hoard', async (t) => {
  const lineBytes = 1_000
  const lineCount = 150_000
  const run = launch(
    t,
    ['-n', '2'],
    `const lines = ('x'.repeat(${lineBytes - 1}) + '\\n').repeat(100)
     for (let count = 0; count < ${lineCount}; count += 100) {
       if (!process.stdout.write(lines)) {
         await new Promise((resolve) => process.stdout.once('drain', resolve))
       }
     }
     console.error('written')
     for await (const chunk of process.stdin);`,
  )
  const { stdout } = run.child
  stdout?.removeAllListeners('data').pause()
  await sleep(1_000)
  t.equal(run.stderr, '', 'the members wait')
  let receivedBytes = 0
  stdout?.on('data', (text: string) => (receivedBytes += text.length)).resume()
  const expectedBytes = 2 * lineCount * (lineBytes + 4)
  await eventually('all output', () => (receivedBytes === expectedBytes ? true : undefined))
  const status = fs.readFileSync(`/proc/${run.pid}/status`, 'utf8')
  const peakMiB = Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1]) / 1024
  t.ok(peakMiB < 200, `${Math.round(peakMiB)} MiB at most, of ${expectedBytes >> 20} MiB`)
  run.child.stdin?.end()
  t.equal(await run.ended, 0)
  t.equal(receivedBytes, expectedBytes)
})

t.test('output that nobody reads any more ends the run', async (t) => {
  const run = launch(
    t,
    ['-n', '2'],
    `console.log('pid', process.pid); setInterval(() => console.log('more'), 5)`,
  )
  const pids = await run.memberPids(2)
  run.child.stdout?.destroy()
  t.equal(await run.ended, 141)
  for (const pid of pids) t.notOk(isAlive(pid))
})

t.test('a reader that takes nothing does not hold up a Ctrl-C', async (t) => {
  const run = launch(
    t,
    ['-n', '1'],
    `console.log('pid', process.pid)
     const lines = 'x\\n'.repeat(1_000_000)
     console.error('filling')
     process.stdout.write(lines)
     await hold()`,
  )
  await run.memberPids(1)
  run.child.stdout?.pause()
  await eventually('the last words', () => run.stderr.includes('filling') || undefined)
  const exited = once(run.child, 'exit')
  run.child.kill('SIGINT')
  t.same(await exited, [130, null])
  run.child.stdout?.destroy()
})

t.test('as many members as there may be', async (t) => {
  const run = launch(t, ['-n', '32'], 'console.log("here")')
  t.equal(await run.ended, 0)
  t.equal(run.stdout.trimEnd().split('\n').length, 32)
  t.match(run.stdout, /^\[31\] here$/m)
})

t.test('help, version and mistakes', async (t) => {
  const { version } = JSON.parse(fs.readFileSync('package.json', 'utf8')) as { version: string }
  const cases: [args: string[], exitCode: number, stdout: RegExp, stderr: RegExp][] = [
    [['--help'], 0, /^Usage: pagemesh <command>/, /^$/],
    [['help'], 0, /^Usage: pagemesh <command>/, /^$/],
    [['run', '--help'], 0, /^Usage: pagemesh run/, /^$/],
    [['doctor', '-h'], 0, /^Usage: pagemesh doctor/, /^$/],
    [['--version'], 0, new RegExp(`^${version}\n$`), /^$/],
    [['run', '--version'], 0, new RegExp(`^${version}\n$`), /^$/],
    [['doctor', '--version'], 0, new RegExp(`^${version}\n$`), /^$/],
    [[], 2, /^$/, /^Usage: pagemesh <command>/],
    [['dance'], 2, /^$/, /^pagemesh: unknown command 'dance' .*\n$/],
    [['--dance'], 2, /^$/, /^pagemesh: unknown option --dance .*\n$/],
    [['run', '-n', '2', '--dance', evaluate], 2, /^$/, /^pagemesh: unknown option --dance .*\n$/],
    [['run', '-n', '99', evaluate], 2, /^$/, /^pagemesh: -n must be .*\n$/],
    [['run', '-n', '2', 'gone.js'], 2, /^$/, /^pagemesh: cannot find the script 'gone.js'.*\n$/],
    [['run', '-n', '2'], 2, /^$/, /^pagemesh: name the script to run .*\n$/],
    [['doctor', 'x'], 2, /^$/, /^pagemesh: unexpected 'x' .*\n$/],
  ]
  for (const [args, exitCode, stdout, stderr] of cases) {
    const command = new Launcher(t, args)
    t.equal(await command.ended, exitCode, args.join(' '))
    t.match(command.stdout, stdout)
    t.match(command.stderr, stderr)
  }
})

t.test('doctor --json', async (t) => {
  const command = new Launcher(t, ['doctor', '--json'])
  const exitCode = await command.ended
  const findings = JSON.parse(command.stdout) as { status: string }[]
  t.equal(exitCode, findings.some(({ status }) => status === 'problem') ? 1 : 0)
})

const index = path.resolve('dist/index.js')
const joinAndLeave =
  'const { join } = await import(args[0]); const mesh = await join(); ' +
  'console.log("in"); await mesh.barrier(); await mesh.leave()'

function launchJoining(t: Test, options: string[], environment?: Record<string, string>) {
  return new Launcher(t, ['run', ...options, evaluate, joinAndLeave, index], environment)
}

t.test('auto says once how members reach each other, if it was asked for', async (t) => {
  const told = /^pagemesh: members reach each other by (TCP: .+|verbs \(.+\)|shared memory)\n$/
  const cases: [options: string[], environment: Record<string, string>, stderr: RegExp][] = [
    [['-n', '3', '--transport=auto'], {}, told],
    [['-n', '2'], { PAGEMESH_TRANSPORT: 'auto' }, told],
    [['-n', '2'], {}, /^$/],
    [['-n', '2', '--transport=tcp'], { PAGEMESH_TRANSPORT: 'auto' }, /^$/],
    [['-n', '1', '--transport=auto'], {}, /^$/],
  ]
  for (const [options, environment, stderr] of cases) {
    const run = launchJoining(t, options, environment)
    t.equal(await run.ended, 0)
    t.match(run.stderr, stderr, options.join(' '))
    t.match(run.stdout, /^(\[\d\] in\n)+$/, 'the output of the program is its own')
  }
})

t.test(
  'NODE_DEBUG tells it of every member, a diagnostics channel tells the program',
  async (t) => {
    const subscribe =
      '(await import("node:diagnostics_channel")).subscribe("pagemesh:joined", (message) => ' +
      'console.log(JSON.stringify(message))); '
    const args = ['run', '-n', '2', '--transport=tcp', evaluate, subscribe + joinAndLeave, index]
    const run = new Launcher(t, args, { NODE_DEBUG: 'pagemesh' })
    t.equal(await run.ended, 0)
    for (const rank of [0, 1]) {
      const detail = 'TCP was asked for'
      t.match(
        run.stderr,
        new RegExp(
          `^\\[${rank}\\] PAGEMESH \\d+: rank ${rank} of 2 has joined; transport tcp: ${detail}$`,
          'm',
        ),
      )
      const message = JSON.stringify({ rank, size: 2, transport: 'tcp', detail })
      t.ok(run.stdout.includes(`[${rank}] ${message}\n`))
    }
  },
)
