import { spawn } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import path from 'node:path'

export interface ToolResult {
  readonly exitCode: number
  readonly stdout: string
  readonly stderr: string
}

export interface ToolOptions {
  readonly cwd?: string
  /** Out of reach of the terminal's Ctrl-C: it goes on to its end. */
  readonly detached?: boolean
}

/** Runs a program of the system to its end. Tests bring their own. */
export type ToolRunner = (
  command: string,
  args: readonly string[],
  options?: ToolOptions,
) => Promise<ToolResult>

/** The caller's search path, and where administrators' programs are, which users lack in theirs. */
export function searchPath(environment: NodeJS.ProcessEnv = process.env): string {
  const folders = (environment.PATH ?? '/usr/local/bin:/usr/bin:/bin').split(':')
  for (const folder of ['/usr/local/sbin', '/usr/sbin', '/sbin']) {
    if (!folders.includes(folder)) folders.push(folder)
  }
  return folders.join(':')
}

/** Where the search path has this program, if it does. */
export function findProgram(
  name: string,
  environment: NodeJS.ProcessEnv = process.env,
): string | undefined {
  return searchPath(environment)
    .split(':')
    .map((folder) => path.join(folder, name))
    .find((file) => {
      try {
        accessSync(file, constants.X_OK)
        return true
      } catch {
        return false
      }
    })
}

export const runTool: ToolRunner = (command, args, options = {}) =>
  new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      ...options,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        ...process.env,
        PATH: searchPath(),
        LC_ALL: 'C',
        DEBIAN_FRONTEND: 'noninteractive',
      },
    })
    const stdout: Buffer[] = []
    const stderr: Buffer[] = []
    child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk))
    child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk))
    child.once('error', reject)
    child.once('close', (code) => {
      resolve({
        exitCode: code ?? 1,
        stdout: Buffer.concat(stdout).toString(),
        stderr: Buffer.concat(stderr).toString(),
      })
    })
  })

/**
 * Runs a program that must succeed, and returns its output.
 *
 * @throws Error with the command and the last line of what it said, if it fails.
 */
export async function mustRun(
  run: ToolRunner,
  command: string,
  args: readonly string[],
  options?: ToolOptions,
): Promise<string> {
  const { exitCode, stdout, stderr } = await run(command, args, options)
  if (exitCode === 0) return stdout
  const said = stderr.trim().split('\n').at(-1) ?? ''
  throw new Error(`'${[command, ...args].join(' ')}' failed: ${said || `exit code ${exitCode}`}`)
}
