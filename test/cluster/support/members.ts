import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { type Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import top, { type Test } from 'tap'
import { formatKey, generateKey } from '../../../dist/cluster/key.js'
import type * as pagemesh from '../../../dist/index.js'
import { nodeOptions, ownAddress, patienceMs, slowness, transport } from './machine.js'

const program = path.resolve('test/fixtures/members/member.mjs')

/** What a failure looks like on this side of the process boundary. */
export interface Failure {
  readonly name?: string
  readonly code: string | undefined
  readonly message: string
  readonly rank: number | undefined
}

/** What a member keeps between two functions; test/fixtures/members/member.mjs makes it. */
export interface Room {
  readonly pagemesh: typeof pagemesh
  readonly sleep: (ms: number) => Promise<void>
  /** Undefined before the first join. */
  mesh: pagemesh.Mesh
  readonly regions: Record<string, pagemesh.Region>
  readonly held: Record<string, pagemesh.Held>
  readonly kept: Record<string, unknown>
  join(options?: pagemesh.JoinOptions): Promise<pagemesh.Mesh>
  open(name: string, options: pagemesh.RegionOptions): Promise<pagemesh.Region>
  failure(action: () => unknown): Promise<Failure>
  /** Forgets all that was, and takes on another environment. */
  startAfresh(environment: Readonly<Record<string, string>>): void
  /** Runs an expression with these variables. */
  evaluate(expression: string, variables: Record<string, unknown>): unknown
}

type Body<A extends unknown[], R> = (room: Room, ...args: A) => R
type Answer = { id: number; value: unknown } | { id: number; error: Failure }
interface Settle {
  resolve: (value: unknown) => void
  reject: (error: Error) => void
}
type Ending = number | NodeJS.Signals

/** An error that a member's function threw. */
export class MemberFailure extends Error implements Failure {
  readonly code: string | undefined
  readonly rank: number | undefined

  constructor(of: string, { name, message, code, rank }: Failure) {
    super(code === undefined ? `${of}: ${name}: ${message}` : message)
    this.code = code
    this.rank = rank
  }
}

/** A process of test/fixtures/members/member.mjs. */
class MemberProcess {
  readonly child: ChildProcess
  readonly ended: Promise<Ending>
  owner: Member | undefined

  constructor(variables: Readonly<Record<string, string>>) {
    // By way of env, as tap puts options of its own into the environment of what a test starts.
    const assignments = Object.entries(variables).map(([name, value]) => `${name}=${value}`)
    this.child = spawn('env', [...assignments, process.execPath, program], {
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      serialization: 'advanced',
    })
    const { stdout, stderr } = this.child as { stdout: Readable; stderr: Readable }
    stdout.setEncoding('utf8').on('data', (text: string) => this.owner?.onOutput('stdout', text))
    stderr.setEncoding('utf8').on('data', (text: string) => this.owner?.onOutput('stderr', text))
    this.child.on('message', (answer) => this.owner?.settle(answer as Answer))
    this.ended = this.untilEnded([stdout, stderr])
  }

  private async untilEnded(streams: readonly Readable[]): Promise<Ending> {
    // Not its 'close', which does not come when the parent has closed the channel.
    const exited = once(this.child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>
    const closed = streams.map((stream) => once(stream, 'close'))
    const [code, signal] = await exited
    await Promise.all(closed)
    const ending = signal ?? code ?? -1
    this.owner?.onEnded(ending)
    return ending
  }
}

/**
 * Processes that have left their meshes, where a start takes so long (seconds, under emulation)
 * that they serve again. Elsewhere there are none.
 */
const idle: MemberProcess[] = []
top.teardown(() => {
  for (const { child } of idle) child.kill('SIGKILL')
})

/** A process that runs what the test tells it to. Its end is the test's, if not earlier. */
export class Member {
  stdout = ''
  stderr = ''
  /** False if the test has changed the process so that it is of no use to others. */
  reusable = slowness > 1
  private readonly process: MemberProcess
  private readonly pending = new Map<number, Settle>()
  private nextId = 1
  private hasEnded = false

  constructor(
    t: Test,
    readonly label: string,
    environment: Readonly<Record<string, string>> = {},
  ) {
    const used = idle.pop()
    this.process = used ?? new MemberProcess({ NODE_OPTIONS: nodeOptions, ...environment })
    this.process.owner = this
    if (used !== undefined) {
      this.run((room, environment) => room.startAfresh(environment), environment)
    }
    t.teardown(async () => {
      if (this.process.owner !== this) return
      this.child.kill('SIGKILL')
      await this.ended
    })
  }

  get child(): ChildProcess {
    return this.process.child
  }

  get ended(): Promise<Ending> {
    return this.process.ended
  }

  /**
   * Runs a function in the member. It is sent as text: it sees its arguments and nothing else.
   * Functions may run at the same time. Rejects with what the function throws, or when the member
   * ends first.
   */
  run<A extends unknown[], R>(body: Body<A, R>, ...args: A): Promise<Awaited<R>> {
    const id = this.nextId++
    const answer = new Promise((resolve, reject) => {
      if (this.hasEnded) reject(new Error(`${this.label} has ended already`))
      else this.pending.set(id, { resolve, reject })
    })
    this.child.send({ id, text: body.toString(), args }, () => undefined)
    const result = within(answer, `${this.label}: ${body.toString()}`) as Promise<Awaited<R>>
    // A test may look at it later, or not at all if the member has ended.
    result.catch(() => undefined)
    return result
  }

  /** Runs a function that is to fail, and gives what it failed with. */
  async failure<A extends unknown[]>(body: Body<A, unknown>, ...args: A): Promise<Failure> {
    try {
      await this.run(body, ...args)
    } catch (error) {
      if (error instanceof MemberFailure) return error
      throw error
    }
    return { code: 'NONE', message: 'it did not fail', rank: undefined }
  }

  /** The exit code or signal, once it has ended. */
  async end(): Promise<Ending> {
    return within(this.ended, `the end of ${this.label}`)
  }

  signal(signal: NodeJS.Signals): void {
    this.child.kill(signal)
  }

  /** Stops it, and waits until it has: the signal may take its time on a busy machine. */
  async stop(): Promise<void> {
    this.signal('SIGSTOP')
    const stat = `/proc/${this.child.pid}/stat`
    await eventually(`${this.label} to stop`, () =>
      readFileSync(stat, 'utf8').includes(') T ') ? true : undefined,
    )
  }

  /** It has left its mesh: checks that it ends well, or leaves it to the next test. */
  async retire(t: Test): Promise<void> {
    if (this.reusable) {
      this.process.owner = undefined
      idle.push(this.process)
    } else {
      this.child.disconnect()
      t.equal(await this.end(), 0, `${this.label} ends well`)
    }
    t.equal(this.stderr, '', `${this.label} has nothing to complain about`)
  }

  /** Called by its process, as the next two. */
  onOutput(stream: 'stdout' | 'stderr', text: string): void {
    this[stream] += text
  }

  onEnded(ending: Ending): void {
    this.hasEnded = true
    const error = new Error(`${this.label} has ended with ${ending}: ${this.stderr}`)
    for (const { reject } of this.pending.values()) reject(error)
    this.pending.clear()
  }

  settle(answer: Answer): void {
    const found = this.pending.get(answer.id)
    this.pending.delete(answer.id)
    if ('error' in answer) found?.reject(new MemberFailure(this.label, answer.error))
    else found?.resolve(answer.value)
  }
}

/** Where and how the members of one mesh meet. */
export interface Meeting {
  readonly size: number
  readonly key: string
  readonly rendezvous: string
  /** The file, where the rendezvous is one. */
  readonly file: string
}

export function meetInFile(t: Test, size: number): Meeting {
  const directory = mkdtempSync(path.join(tmpdir(), 'pagemesh-test-'))
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  const file = path.join(directory, 'rendezvous')
  return { size, key: formatKey(generateKey()), rendezvous: `file:${file}`, file }
}

export async function meetAtAddress(size: number): Promise<Meeting> {
  const rendezvous = `${ownAddress}:${await freePort()}`
  return { size, key: formatKey(generateKey()), rendezvous, file: '' }
}

/** A port of our own address where nobody listens. */
export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, ownAddress, resolve))
  const { port } = server.address() as { port: number }
  await new Promise((resolve) => server.close(resolve))
  return port
}

/** The environment that a launcher would give a member. */
export function environmentOf(meeting: Meeting, rank: number): Record<string, string> {
  return {
    PAGEMESH_RANK: String(rank),
    PAGEMESH_SIZE: String(meeting.size),
    PAGEMESH_KEY: meeting.key,
    PAGEMESH_RENDEZVOUS: meeting.rendezvous,
  }
}

/** Starts a process that may join as this rank, and has not done so. */
export function startMember(
  t: Test,
  meeting: Meeting,
  rank: number,
  environment: Record<string, string> = {},
): Member {
  return new Member(t, `rank ${rank}`, { ...environmentOf(meeting, rank), ...environment })
}

export function startMembers(t: Test, meeting: Meeting): Member[] {
  return Array.from({ length: meeting.size }, (_, rank) => startMember(t, meeting, rank))
}

/** Starts the members of a mesh, and has them join. */
export async function startMesh(
  t: Test,
  size: number,
  options: pagemesh.JoinOptions = {},
): Promise<Member[]> {
  const members = startMembers(t, meetInFile(t, size))
  await joinAll(members, options)
  return members
}

export async function joinAll(
  members: readonly Member[],
  options: pagemesh.JoinOptions = {},
): Promise<void> {
  const found = await all(
    members,
    async (room, given) => (await room.join(given)).stats().transport,
    options,
  )
  const expected = members.length === 1 ? 'tcp' : (options.transport ?? transport)
  const other = found.findIndex((each) => each !== expected)
  if (other >= 0) throw new Error(`rank ${other} uses ${found[other]}, not ${expected}`)
}

/** Runs a function in all members at the same time; results by rank. */
export async function all<A extends unknown[], R>(
  members: readonly Member[],
  body: Body<A, R>,
  ...args: A
): Promise<Awaited<R>[]> {
  return Promise.all(members.map((member) => member.run(body, ...args)))
}

/** Has everybody leave and end; checks that all end well. */
export async function leaveAll(t: Test, members: readonly Member[]): Promise<void> {
  await all(members, (room) => room.mesh.leave())
  for (const member of members) await member.retire(t)
}

/** Where rank 0 listens, as it has published it. */
export function publishedAddress({ file }: Meeting): { host: string; port: number } {
  const [host = '', port] = readFileSync(file, 'utf8').trim().split(':')
  return { host, port: Number(port) }
}

export async function eventually<T>(
  what: string,
  probe: () => T | undefined | Promise<T | undefined>,
): Promise<T> {
  const deadlineMs = performance.now() + patienceMs
  for (;;) {
    const found = await probe()
    if (found !== undefined) return found
    if (performance.now() > deadlineMs) throw new Error(`waited in vain for ${what}`)
    await sleep(5)
  }
}

/** The promise's outcome, or an error that names what never came. */
export async function within<T>(promise: Promise<T>, what: string): Promise<T> {
  const abort = new AbortController()
  const late = sleep(patienceMs, undefined, { signal: abort.signal }).then(() => {
    throw new Error(`waited in vain for ${what}`)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    abort.abort()
    late.catch(() => undefined)
  }
}
