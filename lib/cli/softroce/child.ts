import { spawn } from 'node:child_process'
import { signalExitCode } from '../run-options.js'

export const endingSignals = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const

/** Runs a command on our own terminal and streams. Returns its exit code, as a shell counts. */
export function spawnInherited(
  command: readonly string[],
  environment: NodeJS.ProcessEnv,
): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(command[0], command.slice(1), { stdio: 'inherit', env: environment })
    // The terminal sends a Ctrl-C to both; we stay to tidy up. Others reach us alone.
    const listeners = endingSignals.map((signal) => {
      const listener = () => {
        if (signal !== 'SIGINT' || !process.stdin.isTTY) child.kill(signal)
      }
      process.on(signal, listener)
      return { signal, listener }
    })
    const done = () => {
      for (const { signal, listener } of listeners) process.off(signal, listener)
    }
    child.once('error', (error) => {
      done()
      reject(error)
    })
    child.once('exit', (code, signal) => {
      done()
      resolve(signal === null ? (code ?? 1) : signalExitCode(signal))
    })
  })
}
