import { channel } from 'node:diagnostics_channel'
import { lookup } from 'node:dns/promises'
import { fstatSync, rmSync, writeSync } from 'node:fs'
import { constants } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'
import { debuglog } from 'node:util'
import { MessageChannel, Worker } from 'node:worker_threads'
import { type FaultsInUse, faultsFor } from '../cluster/fault-names.js'
import { formatJoinReport } from '../cluster/join-report.js'
import {
  type LaunchOptions,
  type LaunchOverrides,
  publishRendezvous,
  readLaunchOptions,
  readRendezvous,
} from '../cluster/launch-environment.js'
import { type EngineData, JOIN_ID } from '../engine/commands.js'
import type { TransportReport } from '../engine/links.js'
import { PagemeshError } from '../errors.js'
import { type Addon, barrierWords, loadAddon } from '../native/addon.js'
import { TOKEN_SLOTS, WORDS_PER_TOKEN } from '../protocol/token-words.js'
import { BarrierPlaces } from './barriers.js'
import { EngineClient } from './engine-client.js'
import { Mesh } from './mesh.js'
import { checkInteger, checkOptions, invalid } from './validate.js'

/** Options of {@link join}. What is left out comes from the launcher's environment. */
export interface JoinOptions extends LaunchOverrides {
  /**
   * A member that is not heard of for so long counts as down, even if its connection stands; 1,000
   * to 3,600,000, 10,000 if left out. A member that dies is noticed at once, by its connection.
   */
  heartbeatTimeoutMs?: number
  /** Behave as if `vm.max_map_count` were this; for tests. */
  maxMapCount?: number
}

/** `NODE_DEBUG=pagemesh` shows on standard error how each member has joined. */
const debug = debuglog('pagemesh')
const joinedChannel = channel('pagemesh:joined')

const POLL_MS = 5
const DEFAULT_HEARTBEAT_TIMEOUT_MS = 10_000

interface Endpoint {
  readonly host: string
  readonly port: number
}

/**
 * Joins this process to a mesh. Rank, size, rendezvous and key come from the options, or from the
 * environment that `pagemesh run` sets; with neither, the mesh has one member.
 *
 * @throws ERR_PAGEMESH_ALREADY_JOINED, ERR_PAGEMESH_WRONG_KEY, ERR_PAGEMESH_RANK_TAKEN,
 * ERR_PAGEMESH_SIZE_MISMATCH, ERR_PAGEMESH_JOIN_TIMEOUT, ERR_PAGEMESH_JOIN_FAILED,
 * ERR_PAGEMESH_UNSUPPORTED_PLATFORM, ERR_PAGEMESH_NO_USERFAULTFD, ERR_PAGEMESH_INVALID_ARGUMENT,
 * ERR_PAGEMESH_OUT_OF_RANGE
 */
export async function join(options?: JoinOptions): Promise<Mesh> {
  const given = checkOptions('join', options)
  const addon = loadAddon()
  const launch = readLaunchOptions(process.env, given)
  const heartbeatTimeoutMs = checkInteger(
    'heartbeatTimeoutMs',
    given.heartbeatTimeoutMs ?? DEFAULT_HEARTBEAT_TIMEOUT_MS,
    1000,
    3_600_000,
  )
  const maxMapCount = checkInteger('maxMapCount', given.maxMapCount ?? 0, 0, 2 ** 31 - 1)
  const faults = faultsFor(launch.faults)
  const session = createSession(addon, launch, maxMapCount, faults)
  try {
    const { listen, rendezvous } = await meet(addon, session, launch)
    const { rank, size, key, joinTimeoutMs, transport, rdmaDevice } = launch
    return await startEngine(addon, faults, {
      session,
      rank,
      size,
      key,
      listen,
      rendezvous,
      joinTimeoutMs,
      transport,
      rdmaDevice,
      heartbeatTimeoutMs,
      rendezvousFile: launch.rendezvous?.kind === 'file' ? launch.rendezvous.path : undefined,
    })
  } catch (error) {
    addon.sessionDestroy(session)
    throw error
  }
}

function createSession(
  addon: Addon,
  launch: LaunchOptions,
  maxMapCount: number,
  faults: FaultsInUse,
): number {
  const { rank, size } = launch
  const userfaultfd = faults === 'userfaultfd'
  try {
    return addon.sessionCreate(rank, size, maxMapCount, lifelineFd(), userfaultfd)
  } catch (cause) {
    const { errno } = cause as { errno?: number }
    const without = userfaultfd ? whyNoUserfaultfd(errno) : undefined
    if (without !== undefined) {
      throw new PagemeshError('ERR_PAGEMESH_NO_USERFAULTFD', without, { cause })
    }
    if (errno === constants.errno.EBUSY) {
      throw new PagemeshError(
        'ERR_PAGEMESH_ALREADY_JOINED',
        'this process is in a mesh already: leave() it before joining again',
        { cause },
      )
    }
    throw new PagemeshError('ERR_PAGEMESH_SYSTEM', `cannot start a member: ${String(cause)}`, {
      cause,
    })
  }
}

function whyNoUserfaultfd(errno: number | undefined): string | undefined {
  const instead = "Or ask for faults 'sigsegv' or 'auto', and use region.pin() for system calls"
  const { EPERM, ENOSYS, ENOTSUP } = constants.errno
  if (errno === EPERM) {
    return (
      'userfaultfd is not permitted to this process: give it read and write access to ' +
      "/dev/userfaultfd, or CAP_SYS_PTRACE, or everybody by 'sysctl -w " +
      "vm.unprivileged_userfaultfd=1'; in a container its seccomp profile must allow it as well. " +
      instead
    )
  }
  if (errno !== ENOSYS && errno !== ENOTSUP) return undefined
  return `this kernel's userfaultfd cannot do what pagemesh needs, which is Linux 6.4. ${instead}`
}

/** The launcher's pipe, which closes when the launcher dies. */
function lifelineFd(): number {
  const text = process.env.PAGEMESH_LIFELINE_FD
  if (text === undefined || !/^[0-9]{1,6}$/.test(text)) return -1
  try {
    const kind = fstatSync(Number(text))
    return kind.isFIFO() || kind.isSocket() ? Number(text) : -1
  } catch {
    return -1 // a program between the launcher and this one has closed it
  }
}

/** Listens, and finds out where rank 0 listens. */
async function meet(
  addon: Addon,
  session: number,
  launch: LaunchOptions,
): Promise<{ listen: Endpoint; rendezvous: Endpoint }> {
  const { rank, rendezvous } = launch
  if (rank === 0) {
    const at = rendezvous?.kind === 'address' ? rendezvous : { host: launch.host, port: 0 }
    const listen = await listenAt(addon, session, at)
    if (rendezvous?.kind === 'file') publishRendezvous(rendezvous.path, listen.host, listen.port)
    return { listen, rendezvous: listen }
  }
  const listen = await listenAt(addon, session, { host: launch.host, port: 0 })
  if (rendezvous === undefined) throw invalid('a member with a rank above 0 needs a rendezvous')
  if (rendezvous.kind === 'file') {
    return { listen, rendezvous: await publishedIn(rendezvous.path, launch.joinTimeoutMs) }
  }
  const host = await addressOf(rendezvous.host)
  return { listen, rendezvous: { host, port: rendezvous.port } }
}

async function listenAt(addon: Addon, session: number, at: Endpoint): Promise<Endpoint> {
  const host = await addressOf(at.host)
  if (host === '0.0.0.0' || host === '::') {
    throw invalid(
      `a member cannot listen on ${host}: other members are told this address, so it must be one ` +
        'of this machine (or 127.0.0.1)',
    )
  }
  try {
    return { host, port: addon.listen(session, host, at.port) }
  } catch (cause) {
    throw new PagemeshError(
      'ERR_PAGEMESH_JOIN_FAILED',
      `cannot listen on ${host} port ${at.port}: ${(cause as Error).message}`,
      { cause },
    )
  }
}

async function addressOf(host: string): Promise<string> {
  try {
    return (await lookup(host)).address
  } catch (cause) {
    throw new PagemeshError('ERR_PAGEMESH_JOIN_FAILED', `the host '${host}' cannot be found`, {
      cause,
    })
  }
}

async function publishedIn(path: string, timeoutMs: number): Promise<Endpoint> {
  const deadlineMs = performance.now() + timeoutMs
  for (;;) {
    const found = readRendezvous(path)
    if (found !== undefined) return { ...found, host: await addressOf(found.host) }
    if (performance.now() > deadlineMs) {
      throw new PagemeshError(
        'ERR_PAGEMESH_JOIN_TIMEOUT',
        `rank 0 has not published its address in ${path} within ${timeoutMs} ms: is it running?`,
        { rank: 0 },
      )
    }
    await delay(POLL_MS)
  }
}

async function startEngine(
  addon: Addon,
  faults: FaultsInUse,
  data: Omit<EngineData, 'port' | 'answered' | 'tokens' | 'barrierWords'>,
): Promise<Mesh> {
  const { port1, port2 } = new MessageChannel()
  const answered = new Int32Array(new SharedArrayBuffer(4))
  const tokens = new Int32Array(new SharedArrayBuffer(4 * WORDS_PER_TOKEN * TOKEN_SLOTS))
  const words = barrierWords(data.session)
  const workerData: EngineData = { ...data, port: port2, answered, tokens, barrierWords: words }
  const worker = new Worker(new URL('../engine/worker.js', import.meta.url), {
    workerData,
    transferList: [port2],
    execArgv: [], // the program's own hooks and profilers are not for the engine
    name: 'pagemesh engine',
  })
  const client = new EngineClient(addon, data.session, worker, port1, answered, tokens)
  let report: TransportReport
  try {
    report = (await client.expect(JOIN_ID)) as TransportReport
  } catch (error) {
    await client.ended()
    throw error
  }
  // A worker that waits in native code would keep the process from exiting.
  const onExit = (code: number): void => addon.stop(data.session, code)
  // A program that ends without leave() leaves all the same, once it has nothing else to do.
  const onBeforeExit = (): void => void mesh.leave()
  const barriers = new BarrierPlaces(addon, client, words, data.rank, data.size)
  const mesh = new Mesh(addon, client, barriers, data.rank, data.size, report, faults, () => {
    process.off('exit', onExit)
    process.off('beforeExit', onBeforeExit)
    // Nobody may take what was published for the address of the next mesh.
    if (data.rank === 0 && data.rendezvousFile !== undefined) {
      rmSync(data.rendezvousFile, { force: true })
    }
  })
  process.on('exit', onExit)
  process.on('beforeExit', onBeforeExit)
  tellJoined(data.rank, data.size, report)
  return mesh
}

/** Never on the program's own output: the launcher decides what a user sees. */
function tellJoined(rank: number, size: number, report: TransportReport): void {
  const { transport, detail } = report
  debug('rank %d of %d has joined; transport %s: %s', rank, size, transport, detail)
  if (joinedChannel.hasSubscribers) joinedChannel.publish({ rank, size, transport, detail })
  const lifeline = lifelineFd()
  if (lifeline < 0) return
  try {
    writeSync(lifeline, formatJoinReport(report))
  } catch {
    // The launcher has other things to do, or none of its kind is there.
  }
}
