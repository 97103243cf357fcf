import { execFile } from 'node:child_process'
import * as fs from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import t from 'tap'
import { PagemeshError } from '../../dist/errors.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
const require = createRequire(import.meta.url)
const manifest = JSON.parse(fs.readFileSync(`${root}package.json`, 'utf8'))

interface Platform {
  platform?: string
  arch?: string
  nodeVersion?: string
}
const { unsupportedReason } = (await import(`${root}scripts/platform.mjs`)) as {
  unsupportedReason: (platform?: Platform) => string | undefined
}
const { TapCounter } = await import(`${root}scripts/tap-counter.mjs`)

t.test('what package.json points at is there', async (t) => {
  const { import: esm, require: cjs } = manifest.exports['.']
  for (const file of [esm.types, esm.default, cjs.types, cjs.default, manifest.bin.pagemesh]) {
    t.ok(fs.existsSync(`${root}${file}`), file)
  }
  t.match(fs.readFileSync(`${root}${manifest.bin.pagemesh}`, 'utf8'), /^#!\/usr\/bin\/env node\n/)
})

t.test('the package holds what building and running it takes, and no more', async (t) => {
  const { stdout } = await promisify(execFile)(
    'npm',
    ['pack', '--dry-run', '--json', '--ignore-scripts', '--offline'],
    { cwd: root, maxBuffer: 2 ** 26 },
  )
  const files: string[] = JSON.parse(stdout)[0].files.map((file: { path: string }) => file.path)
  for (const file of [
    'package.json',
    'LICENSE',
    'README.md',
    'ARCHITECTURE.md',
    'binding.gyp',
    'native/sources.gypi',
    'native/addon.cc',
    'scripts/install.mjs',
    'scripts/platform.mjs',
    'dist/index.js',
    'dist/index.d.ts',
    'dist/index.cjs',
    'dist/index.d.cts',
    'dist/cli/main.js',
  ]) {
    t.ok(files.includes(file), file)
  }
  const known =
    /^(dist|native)\/|^scripts\/(install|platform)\.mjs$|^(package\.json|LICENSE|binding\.gyp|(README|ARCHITECTURE)\.md)$/
  t.strictSame(
    files.filter((file) => !known.test(file) || file.endsWith('.stamp')),
    [],
  )
})

t.test('the package finds itself by name, by import and by require', async (t) => {
  const esm = await import('pagemesh')
  const cjs = require('pagemesh')
  t.type(esm.join, 'function')
  t.type(cjs.join, 'function')
  t.equal(esm.PagemeshError, PagemeshError)
})

t.test('the CommonJS entry knows the errors of the ESM one', async (t) => {
  const cjs = require('pagemesh')
  t.ok(new PagemeshError('ERR_PAGEMESH_LEFT', 'left') instanceof cjs.PagemeshError)
  t.notOk(new Error('other') instanceof cjs.PagemeshError)
  t.notOk(Object.assign(new Error('other'), { code: 'EFAULT' }) instanceof cjs.PagemeshError)
  t.notOk(Object.assign(new Error('other'), { code: 5 }) instanceof cjs.PagemeshError)
  for (const value of [
    undefined,
    'ERR_PAGEMESH_LEFT',
    { code: 'ERR_PAGEMESH_LEFT' },
  ] as unknown[]) {
    t.notOk((value as object) instanceof cjs.PagemeshError)
  }
})

t.test('the CommonJS join hands its arguments over and rejects alike', async (t) => {
  const cjs = require('pagemesh')
  await t.rejects(cjs.join('nonsense'), { code: 'ERR_PAGEMESH_INVALID_ARGUMENT' })
})

t.test('other platforms are refused in plain words', async (t) => {
  const linux = { platform: 'linux', arch: 'x64', nodeVersion: '20.0.0' }
  t.equal(unsupportedReason(), undefined)
  t.equal(unsupportedReason(linux), undefined)
  t.equal(unsupportedReason({ ...linux, arch: 'arm64', nodeVersion: '26.1.0' }), undefined)
  t.match(unsupportedReason({ ...linux, platform: 'darwin' }), /needs Linux.*darwin/)
  t.match(unsupportedReason({ ...linux, arch: 'ia32' }), /x86-64 or aarch64.*ia32/)
  t.match(unsupportedReason({ ...linux, nodeVersion: '18.20.1' }), /Node\.js 20.*18\.20\.1/)
})

t.test('the count of tests: assertions, once each, whatever the nesting', async (t) => {
  const counter = new TapCounter()
  const failures: string[] = []
  counter.onFailure = (names: string[], diagnostic: string[]) => {
    failures.push(`${names.join(' > ')}: ${diagnostic.length}`)
  }
  const tap = [
    '# Subtest: a.test.ts',
    '    # Subtest: outer',
    '        ok 1 - fine',
    '        not ok 2 - wrong',
    '          ---',
    '          source: |',
    '            not ok 3 - not a test point',
    '          ...',
    '        ok 3 - later # SKIP',
    '        not ok 4 - some day # TODO',
    '        1..4',
    '    not ok 1 - outer # time=1ms',
    '    # Subtest: empty',
    '        1..0',
    '    ok 2 - empty # time=1ms',
    'not ok 1 - a.test.ts # time=9ms',
    '# Subtest: killed.test.ts',
    '    ok 1 - fine',
    'not ok 2 - killed.test.ts # time=9ms',
    '  ---',
    '  signal: SIGKILL',
    '  ...',
  ]
  for (const line of tap) counter.read(line)
  counter.end()
  t.equal(counter.passed, 3)
  t.equal(counter.failed, 2)
  t.equal(counter.skipped, 2)
  t.strictSame(failures, ['a.test.ts > outer > wrong: 2', 'killed.test.ts: 1'])
})
