// The development build, by cmake-js: warnings are errors, compile_commands.json for editors and
// clang-tidy, and with --sanitize AddressSanitizer and UndefinedBehaviorSanitizer. With --stamps it is
// the addon that keeps time stamps of faults, for the benchmark of their anatomy.
//
//   node scripts/cmake.mjs [--sanitize | --stamps] [--configure]
import { spawnSync } from 'node:child_process'
import { nodeHeadersPrefix } from './node-headers.mjs'

const sanitize = process.argv.includes('--sanitize')
const command = process.argv.includes('--configure') ? 'configure' : 'compile'
const stamps = process.argv.includes('--stamps')
const folder = sanitize ? 'build-sanitize' : stamps ? 'build-stamps' : 'build-cmake'
const args = ['node_modules/cmake-js/bin/cmake-js', command, '-O', folder, '--log-level', 'error']
args.push(`--CDPAGEMESH_SANITIZE=${sanitize ? 'ON' : 'OFF'}`)
args.push(`--CDPAGEMESH_STAMPS=${stamps ? 'ON' : 'OFF'}`)
if (sanitize) args.push('--debug')

const env = { ...process.env }
const prefix = nodeHeadersPrefix()
if (prefix !== undefined) env['npm_config_nodedir'] = prefix
else delete env['npm_config_nodedir']

const { status } = spawnSync(process.execPath, args, { stdio: 'inherit', env })
if (status === 0 && sanitize) {
  console.log(
    `To use it: LD_PRELOAD=$(c++ -print-file-name=libasan.so) with the addon of ${folder}`,
  )
}
process.exit(status ?? 1)
