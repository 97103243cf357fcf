import { realMachine, type Machine } from '../machine.js'
import { kernelLinkObstacle } from './kernel-link.js'
import type { Way } from './options.js'
import { runTool, type ToolRunner } from './tools.js'

export interface ChosenWay {
  /** Undefined if there is none. */
  readonly way: Way | undefined
  /** Why not the kernel's own. */
  readonly kernelObstacle: string | undefined
  /** Why not a virtual machine. */
  readonly guestObstacle: string | undefined
}

/** Which way a run goes here: the kernel's own, or else a virtual machine. */
export async function chooseWay(
  machine: Machine = realMachine,
  run: ToolRunner = runTool,
): Promise<ChosenWay> {
  const kernelObstacle = await kernelLinkObstacle(machine, run)
  const guestObstacle =
    machine.arch === 'x64'
      ? undefined
      : `virtual machines for SoftRoCE are made on x86-64 only, and this is ${machine.arch}`
  const way =
    kernelObstacle === undefined ? 'kernel' : guestObstacle === undefined ? 'guest' : undefined
  return { way, kernelObstacle, guestObstacle }
}
