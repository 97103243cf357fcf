import { spawn, type ChildProcess } from 'node:child_process'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { createInterface } from 'node:readline'
import type { Duplex, Readable } from 'node:stream'
import { EndMarkStream } from './end-mark.js'
import { guestPorts, type GuestPort } from './guest-init.js'
import { writableTag, writeSpecFolder, type GuestSpec } from './guest-spec.js'
import { QmpClient } from './qmp.js'
import { searchPath } from './tools.js'

/** QEMU finds its ends of the ports from here on, and that of its own protocol after them. */
const firstPortFd = 3
const qmpFd = firstPortFd + guestPorts.length

/** How a guest ended. */
export type GuestEnd =
  | { readonly kind: 'exit'; readonly exitCode: number }
  /** The program's exit is not known: the guest could not begin, or was ended. */
  | { readonly kind: 'failure'; readonly reason: string }

/**
 * One virtual machine that runs one program. It leads a process group of its own, out of reach of
 * the terminal's Ctrl-C, and powers off when this process is gone.
 */
export class Guest {
  readonly hostIndex: number
  /** The program's output, unchanged. */
  readonly stdout: EndMarkStream
  readonly stderr: EndMarkStream
  /** Resolves when the program runs; never, if it does not come to that. */
  readonly ready: Promise<void>
  /** Resolves when nothing is left of the machine and its output is complete. */
  readonly ended: Promise<GuestEnd>
  readonly #qemu: ChildProcess
  readonly #qmp: QmpClient
  readonly #runFolder: string
  #exitCode: number | undefined
  #reason: string | undefined
  #complaints = ''

  /** @throws if QEMU cannot be started at all. */
  constructor(spec: GuestSpec, runFolder: string) {
    this.hostIndex = spec.hostIndex
    this.#runFolder = runFolder
    writeSpecFolder(path.join(runFolder, specFolderName(spec.hostIndex)), spec)
    this.#qemu = spawn('qemu-system-x86_64', qemuArguments(spec, runFolder), {
      stdio: ['ignore', 'ignore', 'pipe', ...guestPorts.map(() => 'pipe' as const), 'pipe'],
      detached: true,
      cwd: runFolder, // a socket's path must be short, so it is relative
      env: { PATH: searchPath() },
    })
    this.stdout = new EndMarkStream(spec.endMark)
    this.stderr = new EndMarkStream(spec.endMark)
    this.#port('stdout').pipe(this.stdout)
    this.#port('stderr').pipe(this.stderr)
    this.#qmp = new QmpClient(this.#descriptor(qmpFd))
    this.#qemu.stderr?.on('data', (chunk: Buffer) => {
      this.#complaints = (this.#complaints + chunk.toString()).slice(-2_000)
    })
    this.ready = new Promise((resolve) => this.#followControl(resolve))
    this.ended = this.#follow()
  }

  /** Also the number of its process group; undefined if it could not be started. */
  get pid(): number | undefined {
    return this.#qemu.pid
  }

  /** The program's standard input, if the spec says that it has one. */
  get stdin(): Duplex {
    return this.#port('stdin')
  }

  /** Sends to the program's process group; before it runs, ends the guest. */
  signal(signal: NodeJS.Signals): void {
    const control = this.#port('control')
    if (control.writable) control.write(`signal ${signal.replace(/^SIG/, '')}\n`)
  }

  /** Pulls or plugs the cable. Resolves when it is done. */
  async setLink(isUp: boolean): Promise<void> {
    await this.#qmp.execute('set_link', { name: 'cable', up: isUp })
  }

  /** Ends the machine at once, as if its power had failed. */
  kill(reason = 'it was killed'): void {
    this.#reason ??= reason
    this.#qemu.kill('SIGKILL')
  }

  #descriptor(fd: number): Duplex {
    const stream = this.#qemu.stdio[fd] as Duplex | null | undefined
    if (stream === null || stream === undefined) throw new Error('there is no descriptor left')
    return stream
  }

  #port(name: GuestPort): Duplex {
    return this.#descriptor(firstPortFd + guestPorts.indexOf(name))
  }

  #followControl(onReady: () => void): void {
    const control = this.#port('control')
    this.#port('stdin').on('error', () => undefined)
    const lines = createInterface({ input: control })
    // QEMU that is killed may reset its ends. Both throw if nobody listens.
    for (const each of [control, lines]) each.on('error', () => undefined)
    lines.on('line', (line) => {
      const [what, ...rest] = line.split(' ')
      if (what === 'ready') onReady()
      else if (what === 'exit') this.#onExit(Number(rest[0]))
      else if (what === 'failed') this.kill(rest.join(' '))
    })
    control.write('go\n')
  }

  #onExit(exitCode: number): void {
    this.#exitCode = exitCode
    // Its output is on the way, and its files are written: the machine has nothing more to do.
    void Promise.all([outputEnded(this.stdout), outputEnded(this.stderr)]).then(() =>
      this.#qemu.kill('SIGKILL'),
    )
  }

  async #follow(): Promise<GuestEnd> {
    const qemuEnd = await new Promise<string>((resolve) => {
      this.#qemu.once('error', (error) => resolve(`QEMU could not be started: ${error.message}`))
      this.#qemu.once('exit', (code, signal) => {
        resolve(signal === null ? `QEMU exited with code ${code}` : `QEMU was killed by ${signal}`)
      })
    })
    // A mark never comes now if it has not been sent.
    this.#port('stdout').once('close', () => this.stdout.end())
    this.#port('stderr').once('close', () => this.stderr.end())
    await Promise.all([outputEnded(this.stdout), outputEnded(this.stderr)])
    if (this.#exitCode !== undefined) return { kind: 'exit', exitCode: this.#exitCode }
    return { kind: 'failure', reason: this.#reason ?? `${qemuEnd}${this.#lastWords()}` }
  }

  #lastWords(): string {
    let console = ''
    try {
      console = readFileSync(path.join(this.#runFolder, consoleName(this.hostIndex)), 'latin1')
    } catch {
      // It never came to a console.
    }
    const lines = `${this.#complaints}\n${console}`.split('\n').map((line) => line.trim())
    const told = lines.filter((line) => line !== '' && !line.includes('not connected to host'))
    return told.length === 0 ? '' : `:\n${told.slice(-12).join('\n')}`
  }
}

function outputEnded(stream: Readable): Promise<void> {
  if (stream.readableEnded || stream.destroyed) return Promise.resolve()
  return new Promise((resolve) => {
    stream.once('end', resolve)
    stream.once('close', resolve)
  })
}

function specFolderName(hostIndex: number): string {
  return `guest-${hostIndex}`
}

function consoleName(hostIndex: number): string {
  return `console-${hostIndex}.log`
}

export function qemuArguments(spec: GuestSpec, runFolder: string): string[] {
  const { hostIndex, image } = spec
  const folder9p = (id: string, folder: string, access: string) => [
    '-fsdev',
    `local,id=${id},path=${folder.replaceAll(',', ',,')},security_model=none,${access}`,
    '-device',
    `virtio-9p-pci,fsdev=${id},mount_tag=${id}`,
  ]
  const ports = guestPorts.flatMap((name, index) => [
    '-chardev',
    `socket,id=${name},fd=${firstPortFd + index}`,
    '-device',
    `virtserialport,chardev=${name},name=${name},nr=${index + 1}`,
  ])
  return [
    ...['-nodefaults', '-no-user-config', '-no-reboot'],
    ...['-machine', 'q35', '-cpu', spec.accelerator === 'kvm' ? 'host' : 'max,-erms,-fsrm,-pku'],
    ...['-accel', spec.accelerator === 'kvm' ? 'kvm' : 'tcg,thread=multi'],
    ...['-smp', String(spec.cpuCount), '-m', String(spec.memoryMib)],
    ...['-display', 'none', '-serial', `file:${consoleName(hostIndex)}`],
    ...['-kernel', image.kernel, '-initrd', image.initramfs],
    '-append',
    'console=ttyS0 quiet panic=-1 tsc=reliable mitigations=off random.trust_cpu=on',
    ...folder9p('root', '/', 'readonly=on,multidevs=remap'),
    ...folder9p('spec', path.join(runFolder, specFolderName(hostIndex)), 'readonly=on'),
    ...spec.writable.flatMap((folder, index) =>
      folder9p(writableTag(index), folder, 'multidevs=remap'),
    ),
    ...['-netdev', cable(spec)],
    '-device',
    `virtio-net-pci,id=cable,netdev=cable-end,mac=52:54:00:77:00:0${hostIndex + 1},romfile=`,
    ...['-device', 'virtio-serial-pci'],
    ...ports,
    ...['-chardev', `socket,id=qmp,fd=${qmpFd}`, '-mon', 'chardev=qmp,mode=control'],
  ]
}

/** It leads to the other guest, or nowhere, and never to the host. */
function cable({ hostIndex, hostCount }: GuestSpec): string {
  if (hostCount === 1) return 'hubport,id=cable-end,hubid=0'
  // `-netdev socket` would hold small packets back for milliseconds.
  const end = (index: number) => `cable-${index}.sock`
  return [
    'dgram,id=cable-end',
    `local.type=unix,local.path=${end(hostIndex)}`,
    `remote.type=unix,remote.path=${end(1 - hostIndex)}`,
  ].join(',')
}
