import { freemem } from 'node:os'
import type { Finding } from '../doctor-checks.js'
import { formatFindings } from '../doctor.js'
import { realMachine, type Machine } from '../machine.js'
import { wantsColour } from '../terminal.js'
import { findImage } from './image.js'
import { installCommand, missingPackages } from './packages.js'
import { runTool, type ToolRunner } from './tools.js'
import { chooseWay } from './way.js'

/** Prints which way a run would go. Returns the exit code: 1 if there is none. */
export async function runSoftroceDoctor(
  options: { readonly json: boolean },
  output: NodeJS.WritableStream & { readonly isTTY?: boolean } = process.stdout,
): Promise<number> {
  const findings = await checkSoftroce()
  const text = options.json
    ? `${JSON.stringify(findings, undefined, 2)}\n`
    : formatFindings(findings, wantsColour(output))
  output.write(text)
  return findings.some((finding) => finding.status === 'problem') ? 1 : 0
}

export async function checkSoftroce(
  machine: Machine = realMachine,
  run: ToolRunner = runTool,
): Promise<Finding[]> {
  const { way, kernelObstacle, guestObstacle } = await chooseWay(machine, run)
  const findings: Finding[] = [
    {
      name: 'rdma_rxe here',
      status: kernelObstacle === undefined ? 'ok' : 'note',
      value: kernelObstacle ?? 'can be used',
    },
    {
      name: 'virtual machine',
      status: guestObstacle === undefined ? 'ok' : 'note',
      value: guestObstacle ?? 'can be used',
    },
  ]
  if (way === undefined) {
    findings.push({
      name: 'way',
      status: 'problem',
      value: 'none',
      advice: 'Use a kernel with rdma_rxe as root, or an x86-64 machine with Debian.',
    })
    return findings
  }
  findings.push({
    name: 'way',
    status: 'ok',
    value:
      way === 'kernel'
        ? 'an rxe link of this kernel, made for the run and removed after it'
        : 'a virtual machine under QEMU, by emulation',
  })
  findings.push(checkPackages(way))
  if (way === 'guest') findings.push(checkImage(), checkMemory())
  findings.push(checkPerftest())
  return findings
}

function checkPackages(way: 'kernel' | 'guest'): Finding {
  const missing = missingPackages(way)
  const name = 'packages'
  if (missing.length === 0) return { name, status: 'ok', value: 'all there' }
  return {
    name,
    status: process.getuid?.() === 0 ? 'note' : 'problem',
    value: `missing: ${missing.join(', ')}`,
    advice: `${installCommand(missing)}${
      process.getuid?.() === 0 ? '\n(the first run does this)' : ''
    }`,
  }
}

function checkPerftest(): Finding {
  const missing = [
    ...missingPackages('kernel', 'ib_read_lat'),
    ...missingPackages('kernel', 'ibv_devinfo'),
  ].filter((name) => name === 'perftest' || name === 'ibverbs-utils')
  const name = 'RDMA tools'
  if (missing.length === 0) return { name, status: 'ok', value: 'perftest, ibverbs-utils' }
  return {
    name,
    status: 'note',
    value: `missing: ${missing.join(', ')} (to measure and to look at devices)`,
    advice: installCommand(missing),
  }
}

function checkImage(): Finding {
  const image = findImage()
  const value =
    image === undefined
      ? "not there yet: the first run fetches Debian's kernel (70 MB)"
      : `${image.name} (${image.kernel.replace(/\/[^/]*$/, '')})`
  return { name: 'image', status: image === undefined ? 'note' : 'ok', value }
}

const comfortableMib = 2_048

function checkMemory(): Finding {
  const freeMib = Math.floor(freemem() / 2 ** 20)
  const value = `${freeMib} MiB free`
  if (freeMib >= comfortableMib) return { name: 'memory', status: 'ok', value }
  return { name: 'memory', status: 'note', value, advice: 'Try --memory 1024.' }
}
