import type { TransportInUse, TransportPolicy } from '../cluster/transport-names.js'
import { PagemeshError } from '../errors.js'
import { LinkWay } from '../native/addon.js'
import { chooseRdmaPort, type RdmaWish } from '../native/rdma-devices.js'
import type { EngineContext } from './context.js'
import { type LinkKind, LinkSetup, wayOf } from './link-setup.js'

/** How this member reaches the others, and by which memory or device, or why by none. */
export interface TransportReport {
  readonly transport: TransportInUse
  readonly detail: string
}

interface LinkOptions {
  readonly policy: TransportPolicy
  /** Where this member listens. */
  readonly host: string
  readonly device: RdmaWish | undefined
}

const NAMES: ReadonlyMap<LinkWay, 'shm' | 'verbs'> = new Map([
  [LinkWay.shm, 'shm'],
  [LinkWay.verbs, 'verbs'],
])

/**
 * Finds the best way to each other member: memory of this host, then a queue pair, then TCP. One
 * kind of link after the other is agreed on with all members that have none yet.
 */
export class Links {
  private readonly stages: LinkSetup[]
  private stage = 0
  /** How each member is reached that is not reached by TCP. */
  private readonly ways = new Map<number, 'shm' | 'verbs'>()

  constructor(
    private readonly context: EngineContext,
    private readonly options: LinkOptions,
    private readonly done: (result: TransportReport | PagemeshError) => void,
  ) {
    const kinds = [shmLinks(context, options), verbsLinks(context, options)]
    this.stages = kinds.map((kind) => new LinkSetup(context, kind, () => this.next()))
  }

  /** All members are connected. */
  start(): void {
    this.stages[this.stage]?.start(new Set(this.ways.keys()))
  }

  /** A LinkControl blob. Throws ERR_PAGEMESH_PROTOCOL if it makes no sense. */
  onMessage(from: number, blob: Uint8Array): void {
    const setup = this.stages.find(({ kind }) => kind.way === wayOf(blob))
    if (setup !== undefined) return setup.onMessage(from, blob)
    throw new PagemeshError('ERR_PAGEMESH_PROTOCOL', 'a word about links that do not exist', {
      rank: from,
    })
  }

  onProbed(rank: number, reason: number): void {
    this.stages[this.stage]?.onProbed(rank, reason)
  }

  memberGone(rank: number): void {
    this.ways.delete(rank)
    for (const setup of this.stages) setup.memberGone(rank)
  }

  private next(): void {
    const setup = this.stages[this.stage]
    const name = NAMES.get(setup.kind.way)
    for (const rank of setup.linked()) if (name !== undefined) this.ways.set(rank, name)
    this.stage++
    if (this.stage < this.stages.length) this.start()
    else this.done(this.report())
  }

  private report(): TransportReport | PagemeshError {
    const { policy } = this.options
    const { rank: own, size } = this.context
    const others = [...Array(size).keys()].filter((rank) => rank !== own && this.context.isUp(rank))
    const missing = others.find((rank) => this.ways.get(rank) !== policy)
    const wanted = this.stages.find(({ kind }) => NAMES.get(kind.way) === policy)
    if (wanted !== undefined && missing !== undefined) {
      return new PagemeshError(
        'ERR_PAGEMESH_JOIN_FAILED',
        `rank ${missing} cannot be reached by ${policy}: ${wanted.detail} (` +
          "'pagemesh doctor' says more; transport auto falls back to TCP)",
        { rank: missing },
      )
    }
    const used = new Set(others.map((rank) => this.ways.get(rank) ?? 'tcp'))
    const [first = 'tcp', ...rest] = used
    const transport = rest.length > 0 ? 'mixed' : first
    // Only the last kind was asked for with all who had none of the others.
    const told = transport === 'shm' ? this.stages[0] : this.stages.at(-1)
    return { transport, detail: told?.detail ?? '' }
  }
}

function shmLinks({ addon, session, rank }: EngineContext, { policy }: LinkOptions): LinkKind {
  const isAsked = policy === 'shm' || policy === 'auto'
  return {
    way: LinkWay.shm,
    link: 'shared memory',
    refused: isAsked ? undefined : refusal(policy),
    open: () => addon.openLinks(session, rank),
  }
}

function verbsLinks({ addon, session, rank }: EngineContext, options: LinkOptions): LinkKind {
  const { policy, host, device } = options
  const isAsked = policy === 'verbs' || policy === 'auto'
  return {
    way: LinkWay.verbs,
    link: 'a queue pair',
    refused: isAsked ? undefined : refusal(policy),
    open: () => {
      const choice = chooseRdmaPort(addon.rdmaDevices(), host, device, policy === 'verbs')
      if ('obstacle' in choice) throw new Error(choice.obstacle)
      return addon.openLinks(session, rank, choice.device, choice.port, choice.gidIndex)
    },
  }
}

const refusal = (policy: TransportPolicy): string =>
  `${policy === 'tcp' ? 'TCP' : policy} was asked for`
