// All checks of form, or those that are named. Ends with one line per check.
//
//   node scripts/lint.mjs [--fix] [eslint prettier clang-format clang-tidy typescript …]
import { spawn } from 'node:child_process'
import * as fs from 'node:fs'
import * as os from 'node:os'
import * as path from 'node:path'

const fix = process.argv.includes('--fix')
const named = process.argv.slice(2).filter((arg) => !arg.startsWith('-'))

function filesUnder(folder, endings) {
  if (!fs.existsSync(folder)) return []
  return fs
    .readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && endings.includes(path.extname(entry.name)))
    .map((entry) => path.join(entry.parentPath ?? entry.path, entry.name))
    .sort()
}

/** Runs a program to its end; its output is printed only when it fails. */
function run(program, args) {
  return new Promise((resolve) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => (output += text))
    }
    child.on('error', (error) => {
      console.error(`${program}: ${error.message}. Run: npm run setup -- --lint`)
      resolve(false)
    })
    child.on('close', (code) => {
      if (code !== 0) process.stderr.write(output)
      resolve(code === 0)
    })
  })
}

const runNode = (script, ...args) => run(process.execPath, [`node_modules/${script}`, ...args])
const typeCheck = (project) => runNode('typescript/bin/tsc', '--noEmit', '-p', project)

async function clangFormat() {
  const files = [
    ...filesUnder('native', ['.cc', '.h']),
    ...filesUnder('bench', ['.c', '.cc', '.h']),
    ...filesUnder('test', ['.c', '.cc', '.h']),
  ]
  return run('clang-format', fix ? ['-i', ...files] : ['--dry-run', '-Werror', ...files])
}

/** One process per source file, as many at a time as there are cores. */
async function clangTidy() {
  if (!(await run(process.execPath, ['scripts/cmake.mjs', '--configure']))) return false
  const waiting = filesUnder('native', ['.cc'])
  let ok = true
  async function work() {
    for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) {
      ok = (await run('clang-tidy', ['-p', 'build-cmake', '--quiet', file])) && ok
    }
  }
  await Promise.all(Array.from({ length: os.availableParallelism() }, work))
  return ok
}

const checks = {
  typescript: () => typeCheck('tsconfig.json'),
  tests: () => typeCheck('tsconfig.test.json'),
  programs: () => typeCheck('tsconfig.programs.json'),
  types: () => typeCheck('tsconfig.types.json'),
  eslint: () => runNode('eslint/bin/eslint.js', '.', '--max-warnings=0', ...(fix ? ['--fix'] : [])),
  prettier: () =>
    runNode('prettier/bin/prettier.cjs', fix ? '--write' : '--check', '--log-level=warn', '.'),
  'clang-format': clangFormat,
  'clang-tidy': clangTidy,
}

for (const name of named) {
  if (name in checks) continue
  console.error(`No check is called ${name}. There are: ${Object.keys(checks).join(' ')}`)
  process.exit(2)
}
const chosen = named.length > 0 ? named : Object.keys(checks)
const failed = []
for (const name of chosen) {
  const ok = await checks[name]()
  console.log(`${ok ? 'ok  ' : 'FAIL'} ${name}`)
  if (!ok) failed.push(name)
}
if (failed.length > 0) console.log(`failed: ${failed.join(', ')}`)
process.exitCode = failed.length > 0 ? 1 : 0
