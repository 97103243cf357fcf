import path from 'node:path'
import t from 'tap'
import { parseLeadingOptions } from '../../dist/cli/arguments.js'
import {
  hasExternalSharedArrayBuffer,
  parseVersion,
  typescriptSupport,
} from '../../dist/cli/node-version.js'
import { parseRunArguments, signalExitCode } from '../../dist/cli/run-options.js'
import { paint, wantsColour } from '../../dist/cli/terminal.js'
import { type UsageError } from '../../dist/cli/usage.js'

const script = 'test/fixtures/cli/evaluate.mjs'
const typedScript = 'test/fixtures/cli/typed.ts'

t.test('a plain run', async (t) => {
  t.same(parseRunArguments(['-n', '4', script], {}), {
    memberCount: 4,
    keepGoing: false,
    prefix: true,
    host: undefined,
    joinTimeoutMs: undefined,
    transport: undefined,
    rdmaDevice: undefined,
    faults: undefined,
    nodeArgs: [],
    script: path.resolve(script),
    scriptArgs: [],
  })
})

t.test('all options, and arguments that belong to the script', async (t) => {
  const args = [
    ...['--members=32', '--keep-going', '--no-prefix', '--host', '10.0.0.1'],
    ...['--join-timeout', '500', '--node-arg=--expose-gc', '--node-arg', '--no-warnings'],
    ...['--transport', 'verbs', '--rdma-device', 'rxe0:1', '--faults', 'userfaultfd'],
    ...[script, '-n', '9', '--unknown', '--', '--help'],
  ]
  t.same(parseRunArguments(args, {}), {
    memberCount: 32,
    keepGoing: true,
    prefix: false,
    host: '10.0.0.1',
    joinTimeoutMs: 500,
    transport: 'verbs',
    rdmaDevice: 'rxe0:1',
    faults: 'userfaultfd',
    nodeArgs: ['--expose-gc', '--no-warnings'],
    script: path.resolve(script),
    scriptArgs: ['-n', '9', '--unknown', '--', '--help'],
  })
})

t.test('ways to write the number of members', async (t) => {
  for (const args of [['-n2'], ['-n', '2'], ['--members', '2'], ['-n', '5', '-n', '2']]) {
    const plan = parseRunArguments([...args, script], {})
    t.match(plan, { memberCount: 2 }, args.join(' '))
  }
})

t.test('-- before the script', async (t) => {
  t.match(parseRunArguments(['-n', '1', '--', script, '-x'], {}), { scriptArgs: ['-x'] })
})

t.test('the ending of the script may be left out where Node.js finds it', async (t) => {
  const plan = parseRunArguments(['-n', '1', 'dist/cli/main'], {})
  t.match(plan, { script: path.resolve('dist/cli/main') })
})

t.test('help and version', async (t) => {
  t.equal(parseRunArguments(['--help']), 'help')
  t.equal(parseRunArguments(['-n', '2', '-h']), 'help')
  t.equal(parseRunArguments(['--version']), 'version')
})

t.test('mistakes get one line that names them', async (t) => {
  const cases: [args: string[], message: RegExp][] = [
    [[script], /how many members/],
    [['-n', '0', script], /-n must be a whole number from 1 to 32, not '0'/],
    [['-n', '33', script], /not '33'/],
    [['-n', '-1', script], /not '-1'/],
    [['-n', '1.5', script], /not '1.5'/],
    [['-n', '0x2', script], /not '0x2'/],
    [['-n', 'four', script], /not 'four'/],
    [['-n', '', script], /not ''/],
    [['-n'], /-n needs a value/],
    [['-n', '2'], /name the script/],
    [['-n', '2', 'no-such-file.js'], /cannot find the script 'no-such-file.js'/],
    [['-n', '2', 'test'], /cannot find the script 'test'/],
    [['-n', '2', '--frobnicate', script], /unknown option --frobnicate/],
    [['-n', '2', '--toString', script], /unknown option --toString/],
    [['-x', script], /unknown option -x/],
    [['-n', '2', '--keep-going=yes', script], /--keep-going takes no value/],
    [['-n', '2', '--host', ' ', script], /--host needs an address/],
    [['-n', '2', '--join-timeout', '0', script], /--join-timeout .* not '0'/],
    [['-n', '2', '--join-timeout', '2147483648', script], /--join-timeout/],
    [
      ['-n', '2', '--transport', 'udp', script],
      /--transport must be auto, shm, tcp or verbs, not 'udp'/,
    ],
    [['-n', '2', '--rdma-device', 'rxe0:x', script], /--rdma-device is 'rxe0:x'; expected device/],
    [['-n', '2', '--rdma-device', 'rxe0:0', script], /'rxe0:0'; its port must be from 1 to 255/],
    [['-n', '2', '--node-arg', 'x.js', script], /--node-arg must be an option of Node.js/],
  ]
  for (const [args, message] of cases) {
    t.throws(() => parseRunArguments(args, {}), { name: 'UsageError', message }, args.join(' '))
    try {
      parseRunArguments(args, {})
    } catch (error) {
      t.notMatch((error as UsageError).message, /\n/, 'one line')
    }
  }
})

t.test('a flag for TypeScript where this Node.js needs one', async (t) => {
  const nodeArgsWith = (nodeVersion: string, environment = {}, args: string[] = []) => {
    const plan = parseRunArguments(['-n', '1', ...args, typedScript], environment, nodeVersion)
    return typeof plan === 'string' ? plan : plan.nodeArgs
  }
  t.same(nodeArgsWith('v22.18.0'), [])
  t.same(nodeArgsWith('v23.6.0'), [])
  t.same(nodeArgsWith('v24.0.0'), [])
  t.same(nodeArgsWith('v22.6.0'), ['--experimental-strip-types'])
  t.same(nodeArgsWith('v22.17.1'), ['--experimental-strip-types'])
  t.same(nodeArgsWith('v23.5.0'), ['--experimental-strip-types'])
  t.throws(() => nodeArgsWith('v20.20.2'), {
    name: 'UsageError',
    message: /v20.20.2 cannot run TypeScript: compile typed.ts first/,
  })
  t.throws(() => nodeArgsWith('v22.5.1'), { name: 'UsageError' })
  t.same(nodeArgsWith('v20.20.2', {}, ['--node-arg=--import=tsx']), ['--import=tsx'])
  t.same(nodeArgsWith('v20.20.2', { NODE_OPTIONS: '--import tsx' }), [])
})

t.test('typescriptSupport', async (t) => {
  t.equal(typescriptSupport('v20.0.0'), 'no')
  t.equal(typescriptSupport('v22.5.9'), 'no')
  t.equal(typescriptSupport('v22.6.0'), 'with-flag')
  t.equal(typescriptSupport('v23.0.0'), 'with-flag')
  t.equal(typescriptSupport('v25.1.0'), 'as-is')
})

t.test('hasExternalSharedArrayBuffer', async (t) => {
  const having = ['v22.23.3', 'v22.24.0', 'v24.16.0', 'v26.1.0', 'v27.0.0']
  const lacking = ['v20.99.0', 'v22.23.2', 'v23.99.0', 'v24.15.9', 'v25.99.0', 'v26.0.9']
  for (const version of having) t.equal(hasExternalSharedArrayBuffer(version), true, version)
  for (const version of lacking) t.equal(hasExternalSharedArrayBuffer(version), false, version)
})

t.test('parseVersion', async (t) => {
  t.same(parseVersion('v22.23.3'), [22, 23, 3])
  t.same(parseVersion('6.1.0-18-amd64'), [6, 1, 0])
  t.same(parseVersion('nonsense'), [0, 0, 0])
})

t.test('parseLeadingOptions keeps all values of an option', async (t) => {
  const parsed = parseLeadingOptions(['--a', '1', '--a=2'], { a: { type: 'string' } })
  t.same(parsed.values.get('a'), ['1', '2'])
  t.same(parsed.rest, [])
})

t.test('signals as exit codes', async (t) => {
  t.equal(signalExitCode('SIGINT'), 130)
  t.equal(signalExitCode('SIGTERM'), 143)
  t.equal(signalExitCode('SIGHUP'), 129)
})

t.test('colour only at a terminal that wants it', async (t) => {
  t.equal(wantsColour({ isTTY: true }, {}), true)
  t.equal(wantsColour({ isTTY: true }, { NO_COLOR: '' }), true)
  t.equal(wantsColour({ isTTY: true }, { NO_COLOR: '1' }), false)
  t.equal(wantsColour({ isTTY: true }, { TERM: 'dumb' }), false)
  t.equal(wantsColour({}, {}), false)
  t.equal(paint('x', 31), '\x1b[31mx\x1b[39m')
})
