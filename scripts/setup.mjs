// Brings a fresh clone to the point where everything runs, and does nothing that is done already.
// It runs before node_modules exists, so it imports nothing but Node's own modules.
// All its output goes to stderr: stdout belongs to the program that runs after it.
//
//   node scripts/setup.mjs [--quiet] [--lint] [--fuzz] [--budget] [--only npm,addon,typescript,programs]
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import * as fs from 'node:fs'
import * as path from 'node:path'
import { fileURLToPath } from 'node:url'
import { nodeHeadersPrefix } from './node-headers.mjs'
import { unsupportedReason } from './platform.mjs'

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)))
process.chdir(root)

const quiet = process.argv.includes('--quiet')
const forLint = process.argv.includes('--lint')
const forFuzzing = process.argv.includes('--fuzz')
const forBudget = process.argv.includes('--budget')
const onlyAt = process.argv.indexOf('--only')
const steps =
  onlyAt < 0 ? ['npm', 'addon', 'typescript', 'programs'] : process.argv[onlyAt + 1].split(',')

/** Debian package → the program, or the file, that it brings. */
const buildPrograms = {
  python3: 'python3',
  make: 'make',
  'g++': 'g++',
  gcc: 'cc',
  'libibverbs-dev': '/usr/include/infiniband/verbs.h',
}
const lintPrograms = {
  cmake: 'cmake',
  'clang-format': 'clang-format',
  'clang-tidy': 'clang-tidy',
}

/** Debian 12's; libFuzzer itself is in a package of its own. */
const fuzzPrograms = {
  clang: 'clang++',
  'libclang-rt-14-dev': '/usr/lib/llvm-14/lib/clang/14.0.6/lib/linux',
}

const budgetPrograms = { valgrind: 'valgrind' }

function say(line) {
  if (!quiet) process.stderr.write(`setup: ${line}\n`)
}

function fail(line) {
  process.stderr.write(`${line}\n`)
  process.exit(1)
}

/** Runs a program and keeps its output to itself unless the program fails. */
function run(what, program, args, env = process.env) {
  say(`${what}…`)
  const result = spawnSync(program, args, {
    env,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    maxBuffer: 2 ** 28,
  })
  if (result.status === 0) return
  if (result.error !== undefined) fail(`setup: ${what}: ${result.error.message}`)
  const output = `${result.stdout}${result.stderr}`.trimEnd().split('\n')
  fail(`${output.slice(-80).join('\n')}\nsetup: ${what} failed: ${program} ${args.join(' ')}`)
}

function inPath(program) {
  return (process.env.PATH ?? '').split(path.delimiter).some((folder) => {
    try {
      const file = path.join(folder, program)
      fs.accessSync(file, fs.constants.X_OK)
      return fs.statSync(file).isFile()
    } catch {
      return false
    }
  })
}

/** A program in the path, or a file if it is named by its whole path. */
function isThere(wanted) {
  return path.isAbsolute(wanted) ? fs.existsSync(wanted) : inPath(wanted)
}

function filesUnder(folder, ending = '') {
  if (!fs.existsSync(folder)) return []
  return fs
    .readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(ending))
    .map((entry) => path.join(entry.parentPath ?? entry.path, entry.name))
    .sort()
}

function hashOf(files, ...words) {
  const hash = createHash('sha256')
  for (const word of words) hash.update(`${word}\0`)
  for (const file of files) hash.update(`${file}\0`).update(fs.readFileSync(file)).update('\0')
  return hash.digest('hex')
}

function readOr(file, fallback) {
  try {
    return fs.readFileSync(file, 'utf8')
  } catch {
    return fallback
  }
}

function writeStamp(file, text) {
  fs.mkdirSync(path.dirname(file), { recursive: true })
  fs.writeFileSync(file, text)
}

/** Installs the missing system packages when root, and otherwise names the command that does. */
function ensurePrograms(wanted) {
  const missing = Object.keys(wanted).filter((name) => !isThere(wanted[name]))
  if (missing.length === 0) return
  const command = `apt-get install -y --no-install-recommends ${missing.join(' ')}`
  if (process.getuid() !== 0 || !inPath('apt-get')) {
    fail(`pagemesh needs ${missing.join(', ')}; run: sudo apt-get update && sudo ${command}`)
  }
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  run('reading package lists', 'apt-get', ['update'], env)
  run(`installing ${missing.join(', ')}`, 'apt-get', command.split(' ').slice(1), env)
}

/**
 * True when node_modules holds what package-lock.json asks for. npm writes its record of what is
 * installed last, so an install that was cut short does not count.
 */
function nodeModulesAreCurrent() {
  try {
    const wanted = JSON.parse(fs.readFileSync('package-lock.json', 'utf8')).packages
    const present = JSON.parse(fs.readFileSync('node_modules/.package-lock.json', 'utf8')).packages
    return Object.entries(wanted).every(
      ([where, { version, optional }]) =>
        where === '' || optional === true || present[where]?.version === version,
    )
  } catch {
    return false
  }
}

function ensureNodeModules() {
  if (nodeModulesAreCurrent()) return
  const args = ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error']
  const npm = process.env.npm_execpath ?? ''
  if (npm.endsWith('npm-cli.js')) {
    run('installing npm packages', process.execPath, [npm, ...args])
  } else {
    run('installing npm packages', 'npm', args)
  }
}

function ensureAddon() {
  const stampFile = 'build/.addon-stamp'
  const setting = hashOf(['binding.gyp'], process.version, process.arch)
  const stamp = `${setting} ${hashOf(filesUnder('native'))}`
  const before = readOr(stampFile, '')
  const built = fs.existsSync('build/Release/pagemesh.node')
  if (built && before === stamp) return
  ensurePrograms(buildPrograms)
  fs.rmSync(stampFile, { force: true })
  const nodeGyp = 'node_modules/node-gyp/bin/node-gyp.js'
  // Other settings than last time: from scratch. Otherwise make knows what has changed.
  const commands = before.startsWith(setting) ? ['configure', 'build'] : ['rebuild']
  const prefix = nodeHeadersPrefix()
  const nodedir = prefix === undefined ? [] : [`--nodedir=${prefix}`]
  run('building the addon', process.execPath, [nodeGyp, ...commands, '--jobs', 'max', ...nodedir])
  writeStamp(stampFile, stamp)
}

/** What an earlier tsc left of sources that are gone: it would be imported, and published. */
function outputsWithoutSource(sources) {
  const sourceEndings = [
    { output: /\.d\.cts$|\.cjs$|\.cjs\.map$/, source: '.cts' },
    { output: /\.d\.ts$|\.js$|\.js\.map$/, source: '.ts' },
  ]
  return filesUnder('dist').filter((file) => {
    const ending = sourceEndings.find(({ output }) => output.test(file))
    if (ending === undefined) return false
    const source = file.replace(ending.output, ending.source).replace(/^dist/, 'lib')
    return !sources.includes(source)
  })
}

function ensureTypeScript() {
  const sources = filesUnder('lib')
  const stamp = hashOf(['tsconfig.json', 'node_modules/typescript/package.json', ...sources])
  if (readOr('dist/.stamp', '') === stamp && fs.existsSync('dist/index.js')) return
  fs.rmSync('dist/.stamp', { force: true })
  run('compiling TypeScript', process.execPath, ['node_modules/typescript/bin/tsc'])
  for (const file of outputsWithoutSource(sources)) fs.rmSync(file)
  if (fs.existsSync('dist/cli/main.js')) fs.chmodSync('dist/cli/main.js', 0o755)
  writeStamp('dist/.stamp', stamp)
}

/** What benchmarks are measured against, and what tests lead: FROM/NAME.c → INTO/NAME. */
const programFolders = [
  {
    from: 'bench/floor',
    into: 'build/bench',
    ending: '',
    flags: ['-lpthread', '-Wl,--as-needed', '-libverbs'],
  },
  // Addons that benchmarks load.
  { from: 'bench/native', into: 'build/bench', ending: '.node', flags: ['-shared', '-fPIC'] },
  { from: 'test/softroce/fixtures', into: 'build/softroce', ending: '', flags: ['-libverbs'] },
  // A device that fails on demand; found by LD_LIBRARY_PATH.
  {
    from: 'test/native/fixtures/verbs',
    into: 'build/stub-verbs',
    ending: '.so.1',
    flags: ['-shared', '-fPIC'],
  },
]

function ensureCPrograms({ from, into, ending, flags }) {
  const headers = filesUnder(from, '.h')
  for (const source of filesUnder(from, '.c')) {
    const program = path.join(into, path.basename(source, '.c') + ending)
    const all = ['-O2', '-Wall', '-Wextra', '-o', program, source, ...flags]
    const stamp = hashOf([source, ...headers], ...all)
    if (readOr(`${program}.stamp`, '') === stamp && fs.existsSync(program)) continue
    ensurePrograms(buildPrograms)
    fs.mkdirSync(into, { recursive: true })
    run(`compiling ${source}`, 'cc', all)
    writeStamp(`${program}.stamp`, stamp)
  }
}

function isAlive(pid) {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return error.code === 'EPERM'
  }
}

/** One setup at a time in one tree: a second one waits, and then finds everything done. */
function takeLock() {
  const lock = '.cache/setup.lock'
  fs.mkdirSync('.cache', { recursive: true })
  for (let told = false; ;) {
    try {
      fs.writeFileSync(lock, `${process.pid}\n`, { flag: 'wx' })
      process.on('exit', () => fs.rmSync(lock, { force: true }))
      for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'])
        process.on(signal, () => process.exit(1))
      return
    } catch (error) {
      if (error.code !== 'EEXIST') fail(`setup: cannot write in ${root}: ${error.message}`)
    }
    const owner = Number.parseInt(readOr(lock, ''), 10)
    const sleepArray = new Int32Array(new SharedArrayBuffer(4))
    Atomics.wait(sleepArray, 0, 0, 100)
    if (owner > 0 && isAlive(owner)) {
      if (!told) say(`waiting for the setup that runs already (process ${owner})…`)
      told = true
    } else if (Number.parseInt(readOr(lock, ''), 10) === owner || readOr(lock, '') === '') {
      fs.rmSync(lock, { force: true })
    }
  }
}

const reason = unsupportedReason()
if (reason !== undefined) fail(reason)
takeLock()
if (steps.includes('addon')) ensurePrograms(buildPrograms)
if (forLint) ensurePrograms({ ...buildPrograms, ...lintPrograms })
if (forFuzzing) ensurePrograms({ ...buildPrograms, ...fuzzPrograms })
if (forBudget) ensurePrograms({ ...buildPrograms, ...budgetPrograms })
if (steps.includes('npm')) ensureNodeModules()
if (steps.includes('addon')) ensureAddon()
if (steps.includes('typescript')) ensureTypeScript()
if (steps.includes('programs')) programFolders.forEach(ensureCPrograms)
