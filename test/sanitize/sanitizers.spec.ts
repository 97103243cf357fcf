import { execFileSync, spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { compileTests } from '../softroce/support/compiled-tests.js'

// The native code under sanitizers: without V8 in a driver of its own (driver.cc), and as the addon
// under Node.js, which `npm run build:sanitize` has built.

const folder = path.resolve('build/sanitize')
const addonFolder = path.resolve('build-sanitize/Debug')

const sources = ['native/base', 'native/memory', 'native/transport/tcp', 'test/sanitize'].flatMap(
  (room) =>
    fs
      .readdirSync(room)
      .filter((name) => name.endsWith('.cc'))
      .map((name) => path.join(room, name)),
)

function buildDriver(sanitizers: string): string {
  const program = path.join(folder, `driver-${sanitizers}`)
  const flags = ['-std=c++17', '-g', '-O1', '-Wall', '-Wextra', '-fno-exceptions', '-fno-rtti']
  flags.push(`-fsanitize=${sanitizers}`, '-fno-sanitize-recover=all', '-fno-omit-frame-pointer')
  // GCC warns that TSan does not understand fences. They order atomics here, and nothing else.
  if (sanitizers === 'thread') flags.push('-Wno-tsan')
  fs.mkdirSync(folder, { recursive: true })
  execFileSync('g++', [...flags, '-Inative', '-o', program, ...sources, '-lpthread'])
  return program
}

function run(program: string, mode: string): { status: number | null; output: string } {
  // TSan of GCC 12 does not cope with all that the kernel randomises.
  const result = spawnSync('setarch', ['-R', program, mode], {
    encoding: 'utf8',
    timeout: 120_000,
  })
  return { status: result.status, output: result.stdout + result.stderr }
}

for (const [sanitizers, mode, report] of [
  ['thread', 'race', /WARNING: ThreadSanitizer: data race/],
  ['address,undefined', 'overflow', /ERROR: AddressSanitizer: heap-buffer-overflow/],
] as const) {
  t.test(`the driver with ${sanitizers}`, async (t) => {
    const driver = buildDriver(sanitizers)
    for (let round = 0; round < 3; round++) {
      const { status, output } = run(driver, 'touch')
      t.equal(status, 0, `members touch, serve and leave: ${output}`)
      for (const rank of [0, 1, 2]) {
        t.match(output, new RegExp(`^rank ${rank}: \\d{3,} faults, 0 wrong$`, 'm'))
      }
      t.notMatch(output, /Sanitizer|runtime error/)
    }
    const { status, output } = run(driver, mode)
    t.not(status, 0, `what is wrong on purpose (${mode}) fails`)
    t.match(output, report)
  })
}

t.test('the addon under Node.js, with address and undefined', async (t) => {
  const libasan = execFileSync('g++', ['-print-file-name=libasan.so'], { encoding: 'utf8' }).trim()
  const environment = [
    'NODE_OPTIONS=',
    `LD_PRELOAD=${fs.realpathSync(libasan)}`,
    `PAGEMESH_ADDON_DIR=${addonFolder}`,
    // Leaks: Node.js frees little when it ends. SIGSEGV: pagemesh and V8 handle it.
    'ASAN_OPTIONS=detect_leaks=0:handle_segv=0:allow_user_segv_handler=1',
    'UBSAN_OPTIONS=print_stacktrace=1',
  ]
  const probe = `
    import('pagemesh').then(async ({ join }) => {
      const mesh = await join()
      const maps = require('fs').readFileSync('/proc/self/maps', 'utf8')
      console.log([...new Set(maps.match(/\\S*(pagemesh\\.node|libasan\\S*)/g))].join(' '))
      await mesh.leave()
    })`
  const args = [...environment, process.execPath, '-e', probe]
  const loaded = execFileSync('env', args, { encoding: 'utf8' }).trim().split(' ').sort()
  t.ok(loaded.includes(path.join(addonFolder, 'pagemesh.node')), loaded.join(' '))
  t.ok(loaded.some((file) => file.includes('libasan')))
  t.equal(loaded.length, 2, 'no other build of the addon')

  const compiled = compileTests('sanitized', ['test/cluster', 'test/native'])
  for (const file of [
    'test/native/exports.test.js',
    'test/native/memory.test.js',
    'test/native/faults.test.js',
    'test/native/parking.test.js',
    'test/native/pin.test.js',
    'test/cluster/synchronization.test.js',
  ]) {
    const result = await t.spawn(
      'env',
      [...environment, process.execPath, path.join(compiled, file)],
      { stdio: ['ignore', 'pipe', 'inherit'] },
      path.basename(file),
    )
    t.ok((result?.pass ?? 0) > 0, `${path.basename(file)} has tested something`)
  }
})
