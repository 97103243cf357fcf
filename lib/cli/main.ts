#!/usr/bin/env node
import { readFileSync } from 'node:fs'
import { defaultHost } from '../cluster/launch-environment.js'
import { lastValue, parseLeadingOptions } from './arguments.js'
import { runDoctor } from './doctor.js'
import { realMachine } from './machine.js'
import {
  checkHost,
  checkRdmaDevice,
  checkTransport,
  parseRunArguments,
  runHelp,
} from './run-options.js'
import { runMembers } from './run.js'
import { UsageError, usageExitCode } from './usage.js'

const help = `Usage: pagemesh <command> [options]

Commands:
  run       start the members of a mesh on this machine
  doctor    show what this machine can do, and what to do about what it cannot
  softroce  run over RDMA without RDMA hardware, in a virtual machine if need be

Options:
  -h, --help     show this help, or that of a command
      --version  show the version
`

const doctorHelp = `Usage: pagemesh doctor [options]

Shows what this machine can do for pagemesh. The exit code is 1 if pagemesh
cannot work here at all, or not over verbs where verbs were asked for.

Options:
      --host <address>        where members would listen (default: PAGEMESH_HOST,
                              or loopback), to tell which RDMA port they would use
      --rdma-device <device>  which one they would be told to use, as in pagemesh run
      --transport <name>      how they would be told to reach each other
      --json                  print an array of {name, status, value, details?, advice?}
  -h, --help                  show this help
      --version               show the version
`

function version(): string {
  const manifest = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  return (JSON.parse(manifest) as { version: string }).version
}

function print(text: string): number {
  process.stdout.write(text)
  return 0
}

async function run(args: readonly string[]): Promise<number> {
  const plan = parseRunArguments(args)
  if (plan === 'help') return print(runHelp)
  if (plan === 'version') return print(`${version()}\n`)
  const exitCode = await runMembers(plan)
  // All is written and all members are gone; what is left, if anything, must not hold us up.
  process.exit(exitCode)
}

async function doctor(args: readonly string[]): Promise<number> {
  const parsed = parseLeadingOptions(args, {
    json: { type: 'boolean' },
    host: { type: 'string' },
    'rdma-device': { type: 'string' },
    transport: { type: 'string' },
    help: { type: 'boolean', short: 'h' },
    version: { type: 'boolean' },
  })
  if (parsed.values.has('help')) return print(doctorHelp)
  if (parsed.values.has('version')) return print(`${version()}\n`)
  if (parsed.rest.length > 0) throw new UsageError(`unexpected '${parsed.rest.join(' ')}'`)
  const { PAGEMESH_HOST, PAGEMESH_RDMA_DEVICE, PAGEMESH_TRANSPORT } = process.env
  return runDoctor(realMachine, {
    json: parsed.values.has('json'),
    host: checkHost(lastValue(parsed, 'host')) ?? PAGEMESH_HOST ?? defaultHost,
    rdmaDevice:
      checkRdmaDevice(lastValue(parsed, 'rdma-device'), '--rdma-device') ??
      checkRdmaDevice(PAGEMESH_RDMA_DEVICE, 'PAGEMESH_RDMA_DEVICE'),
    transport:
      checkTransport(lastValue(parsed, 'transport'), '--transport') ??
      checkTransport(PAGEMESH_TRANSPORT, 'PAGEMESH_TRANSPORT') ??
      'auto',
  })
}

async function dispatch(args: readonly string[]): Promise<number> {
  const parsed = parseLeadingOptions(args, {
    help: { type: 'boolean', short: 'h' },
    version: { type: 'boolean' },
  })
  if (parsed.values.has('help')) return print(help)
  if (parsed.values.has('version')) return print(`${version()}\n`)
  const command = parsed.rest.at(0)
  const rest = parsed.rest.slice(1)
  switch (command) {
    case 'run':
      return run(rest)
    case 'doctor':
      return doctor(rest)
    case 'softroce': {
      // Loaded when needed: a start of `run` in a virtual machine is slow enough.
      const { softroce } = await import('./softroce/softroce.js')
      // All is written and all machines are gone, but standard input may still be open.
      process.exit(await softroce(rest))
    }
    case 'help':
      return print(help)
    case undefined:
      process.stderr.write(help)
      return usageExitCode
    default:
      throw new UsageError(`unknown command '${command}'`)
  }
}

try {
  process.exitCode = await dispatch(process.argv.slice(2))
} catch (error) {
  const isUsage = error instanceof UsageError
  const hint = isUsage ? ' (see pagemesh --help)' : ''
  process.stderr.write(`pagemesh: ${(error as Error).message}${hint}\n`)
  process.exitCode = isUsage ? usageExitCode : 1
}
