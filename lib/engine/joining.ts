import { isIP } from 'node:net'
import { Joiner } from '../cluster/joiner.js'
import { readRendezvous } from '../cluster/launch-environment.js'
import type { PagemeshError } from '../errors.js'
import { Kind } from '../protocol/messages.js'
import type { EngineData } from './commands.js'
import type { EngineContext } from './context.js'

/** Gives the joiner, which has neither sockets nor a clock, both; and says when it is done. */
export class Joining {
  /** When `tick` is wanted; looked up when something happened, not for each event. */
  deadlineMs: number | undefined
  joined = false
  private readonly joiner: Joiner
  private answered = false
  private readonly connectionsByRank = new Map<number, number>()
  private readonly failedDials: { connection: number; reason: string }[] = []
  private nextFailedDial = -1 // no number of a native connection

  constructor(
    private readonly context: EngineContext,
    data: EngineData,
    private readonly done: (error: PagemeshError | undefined) => void,
  ) {
    const { addon, session, ring } = context
    this.joiner = new Joiner(
      {
        rank: data.rank,
        size: data.size,
        key: data.key,
        listen: data.listen,
        rendezvous: data.rendezvous,
        findRendezvous: () => publishedIn(data.rendezvousFile),
        nowMs: context.nowMs,
        timeoutMs: data.joinTimeoutMs,
      },
      {
        connect: (host, port) => this.dial(host, port),
        send: (connection, frame) => ring.sendBlobTo(connection, Kind.Cluster, frame),
        close: (connection) => {
          ring.flush()
          addon.closeConnection(session, connection)
        },
        bind: (connection, rank) => {
          this.connectionsByRank.set(rank, connection)
          addon.bindRank(session, connection, rank)
        },
      },
    )
  }

  start(): void {
    this.joiner.start()
    this.settle()
  }

  opened(connection: number): void {
    this.joiner.opened(connection)
    this.settle()
  }

  accepted(connection: number): void {
    this.joiner.accepted(connection)
    this.settle()
  }

  received(connection: number, frame: Uint8Array): void {
    this.joiner.received(connection, frame)
    this.settle()
  }

  closed(connection: number, reason: string): void {
    this.joiner.closed(connection, reason)
    this.settle()
  }

  tick(nowMs: number): void {
    this.joiner.tick(nowMs)
    this.settle()
  }

  /** Takes no more strangers. */
  close(): void {
    this.joiner.close()
  }

  /** Closes the connection to a member. */
  disconnect(rank: number): void {
    const connection = this.connectionsByRank.get(rank)
    const { addon, session } = this.context
    if (connection !== undefined) addon.closeConnection(session, connection)
  }

  private dial(host: string, port: number): number {
    const { addon, session } = this.context
    try {
      return addon.connect(session, host, port)
    } catch (error) {
      // Refused before it began. The joiner hears of it like of any other failure: afterwards.
      const connection = this.nextFailedDial--
      this.failedDials.push({ connection, reason: (error as Error).message })
      return connection
    }
  }

  private settle(): void {
    for (const { connection, reason } of this.failedDials.splice(0)) {
      this.joiner.closed(connection, reason)
    }
    const nextMs = this.joiner.nextDeadlineMs()
    this.deadlineMs = nextMs === Infinity ? undefined : Math.ceil(nextMs)
    const { outcome } = this.joiner
    if (this.answered || outcome.state === 'joining') return
    this.answered = true
    this.joined = outcome.state === 'joined'
    this.done(outcome.state === 'failed' ? outcome.error : undefined)
  }
}

function publishedIn(file: string | undefined): { host: string; port: number } | undefined {
  const found = file === undefined ? undefined : readRendezvous(file)
  return found !== undefined && isIP(found.host) !== 0 ? found : undefined
}
