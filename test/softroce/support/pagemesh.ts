import { spawn } from 'node:child_process'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { Test } from 'tap'

export const cli = path.resolve('dist/cli/main.js')

export interface Outcome {
  readonly exitCode: number | string
  readonly stdout: string
  readonly stderr: string
}

export function temporaryFolder(t: Test): string {
  const folder = fs.mkdtempSync(path.join(tmpdir(), 'softroce-test-'))
  t.teardown(() => fs.rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** Runs `pagemesh softroce …`; `onOutput` is called when there is some. */
export function softroce(
  t: Test,
  args: string[],
  stdin = '',
  onOutput: (pid: number) => void = () => undefined,
): Promise<Outcome> {
  // Nothing but the cache may be left: the folder for temporary files is looked into.
  const temporary = temporaryFolder(t)
  const assignments = ['NODE_OPTIONS=', `TMPDIR=${temporary}`]
  // By way of env, as tap puts options of its own into the environment of what a test starts.
  const child = spawn('env', [...assignments, process.execPath, cli, 'softroce', ...args])
  t.teardown(() => child.kill('SIGKILL'))
  let stdout = ''
  let stderr = ''
  child.stdout.on('data', (chunk: Buffer) => {
    stdout += chunk.toString('latin1')
    onOutput(child.pid ?? 0)
  })
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString('latin1')))
  child.stdin.end(stdin)
  return new Promise((resolve) => {
    child.once('close', (code, signal) => {
      t.same(fs.readdirSync(temporary), [], 'nothing is left behind')
      resolve({ exitCode: signal ?? code ?? -1, stdout, stderr })
    })
  })
}
