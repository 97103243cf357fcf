import { spawnSync } from 'node:child_process'
import * as fs from 'node:fs'
import { homedir } from 'node:os'
import path from 'node:path'

/** Outside of the checkout: a fresh clone need not fetch them again. */
const cache = path.join(process.env.XDG_CACHE_HOME ?? path.join(homedir(), '.cache'), 'pagemesh')

export interface NodeBinary {
  readonly file: string
  /** As `process.version` says it. */
  readonly version: string
}

/** The newest Node.js of a major version, from npm; throws if it cannot be had. */
export function nodeBinary(major: number, folder = path.join(cache, 'node')): NodeBinary {
  const name = `node-linux-${process.arch}`
  const prefix = path.join(folder, String(major))
  const file = path.join(prefix, 'node_modules', name, 'bin/node')
  if (!fs.existsSync(file)) install(prefix, `${name}@${major}`)
  const asked = spawnSync('env', ['NODE_OPTIONS=', file, '-p', 'process.version'], {
    encoding: 'utf8',
  })
  const version = asked.stdout.trim()
  if (asked.status !== 0 || !version.startsWith(`v${major}.`)) {
    throw new Error(`${file} should be Node.js ${major}, and says: ${version}${asked.stderr}`)
  }
  return { file, version }
}

function install(prefix: string, wanted: string): void {
  const args = ['install', '--no-save', '--ignore-scripts', '--no-audit', '--no-fund']
  args.push('--loglevel=error', '--prefix', prefix, wanted)
  fs.mkdirSync(prefix, { recursive: true })
  const npm = process.env.npm_execpath ?? ''
  const [program, first] = npm.endsWith('npm-cli.js') ? [process.execPath, [npm]] : ['npm', []]
  const environment = Object.entries(process.env).filter(([key]) => key !== 'NODE_OPTIONS')
  const result = spawnSync(program, [...first, ...args], {
    encoding: 'utf8',
    env: Object.fromEntries(environment),
  })
  if (result.status === 0) return
  throw new Error(`npm cannot fetch ${wanted}: ${result.stderr}${result.error?.message ?? ''}`)
}
