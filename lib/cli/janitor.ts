import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'

// Its standard input ends when the launcher is gone, however that happened.
const script = `
live=
while read -r what pid; do
  case $what in
    +) live="$live $pid" ;;
    -) rest=; for p in $live; do [ "$p" = "$pid" ] || rest="$rest $p"; done; live=$rest ;;
  esac
done
signal_all() { for p in $live; do kill -s "$1" -- "-$p" 2>/dev/null; done; }
any_left() { for p in $live; do kill -s 0 -- "-$p" 2>/dev/null && return 0; done; return 1; }
signal_all TERM
tries=20
while any_left && [ $tries -gt 0 ]; do sleep 0.1; tries=$((tries - 1)); done
signal_all KILL
rm -rf -- "$1"
`

/**
 * A small shell process that outlives a launcher that is killed with SIGKILL: it then ends the
 * members and removes the run's directory. (Members in a mesh also watch the lifeline; this is for
 * those that never join.) Best effort: without it everything else still works.
 */
export class Janitor {
  readonly #process: ChildProcess
  #gone = false

  constructor(directory: string) {
    // A session of its own, out of reach of what is sent to the launcher's process group.
    this.#process = spawn('/bin/sh', ['-c', script, 'pagemesh-janitor', directory], {
      stdio: ['pipe', 'ignore', 'ignore'],
      detached: true,
      cwd: '/',
      env: { PATH: process.env.PATH ?? '/usr/bin:/bin' },
    })
    this.#process.once('exit', () => (this.#gone = true))
    this.#process.once('error', () => (this.#gone = true))
    this.#process.stdin?.on('error', () => undefined)
  }

  /** This process group is the run's. */
  watch(processGroup: number): void {
    this.#process.stdin?.write(`+ ${processGroup}\n`)
  }

  /** This process group is empty; its number may come to mean something else. */
  forget(processGroup: number): void {
    this.#process.stdin?.write(`- ${processGroup}\n`)
  }

  /** The launcher has tidied up itself. */
  async dismiss(): Promise<void> {
    if (this.#gone) return
    const exited = once(this.#process, 'exit').catch(() => undefined)
    this.#process.kill('SIGKILL')
    await exited
  }
}
