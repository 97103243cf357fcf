// Runs when the package is installed: builds the addon, or says plainly why that cannot be.
import { spawnSync } from 'node:child_process'
import { unsupportedReason } from './platform.mjs'

const reason = unsupportedReason()
if (reason !== undefined) {
  console.error(reason)
  process.exit(1)
}

// npm puts its own node-gyp in PATH while a package's scripts run.
const { status, error } = spawnSync('node-gyp', ['rebuild', '--jobs', 'max'], { stdio: 'inherit' })
if (error !== undefined) {
  console.error(`pagemesh: cannot run node-gyp (${error.message}). Install with npm.`)
} else if (status !== 0) {
  console.error('pagemesh: building the addon failed. It needs python3, make and g++ (C++17).')
}
process.exit(status ?? 1)
