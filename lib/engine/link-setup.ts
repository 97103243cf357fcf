import { PagemeshError } from '../errors.js'
import { chooseRdmaPort, type RdmaWish } from '../native/rdma-devices.js'
import { Kind } from '../protocol/messages.js'
import { linkFailure } from './close-reasons.js'
import type { EngineContext } from './context.js'

/** Which ways to other members may be taken; `auto` is verbs where both ends can, else TCP. */
export type TransportPolicy = 'auto' | 'tcp' | 'verbs'

/** How this member reaches the others, and which device it uses or why it uses none. */
export interface TransportReport {
  readonly transport: 'tcp' | 'verbs' | 'mixed'
  readonly detail: string
}

interface LinkOptions {
  readonly policy: TransportPolicy
  /** Where this member listens. */
  readonly host: string
  readonly device: RdmaWish | undefined
}

/** The first byte of a LinkControl blob. */
const Say = { no: 0, offer: 1, ready: 2, reached: 3 } as const
const MAX_OFFER_BYTES = 1024 // or a reason

interface Peer {
  mine: 'nothing' | 'no' | 'offer' | 'ready' | 'probing' | 'reached'
  theirs: 'nothing' | 'no' | 'offer' | 'ready' | 'reached'
  offer: Uint8Array | undefined
  settled: 'no' | 'tcp' | 'verbs'
}

/**
 * Agrees with each other member, over the authenticated connection and before any other record,
 * on whether the two use a queue pair. Each side says once what it offers, or that it does not;
 * both connect to what the other offered and say that they are ready. A queue pair connects to
 * anything, whatever lies between: so both then send an empty message over the link, and say so
 * when the other's device has acknowledged it; a side uses the link once each has reached the
 * other. A "no" at any point means TCP for both.
 */
export class LinkSetup {
  private readonly peers = new Map<number, Peer>()
  private started = false
  private detail: string
  /** What was opened, in words. */
  private device = ''

  constructor(
    private readonly context: EngineContext,
    private readonly options: LinkOptions,
    private readonly done: (result: TransportReport | PagemeshError) => void,
  ) {
    this.detail = options.policy === 'tcp' ? 'TCP was asked for' : 'there is no other member'
    for (let rank = 0; rank < context.size; rank++) {
      if (rank === context.rank) continue
      this.peers.set(rank, { mine: 'nothing', theirs: 'nothing', offer: undefined, settled: 'no' })
    }
  }

  /** All members are connected. */
  start(): void {
    this.started = true
    const open = this.options.policy !== 'tcp' && this.peers.size > 0 && this.openDevice()
    for (const [rank, peer] of this.peers) {
      const offer = open ? this.makeOffer(rank) : undefined
      peer.mine = offer === undefined ? 'no' : 'offer'
      if (offer === undefined) this.say(rank, Say.no, new TextEncoder().encode(this.detail))
      else this.say(rank, Say.offer, offer)
      this.advance(rank, peer)
    }
    this.finish()
  }

  /** A LinkControl blob. Throws ERR_PAGEMESH_PROTOCOL if it makes no sense. */
  onMessage(from: number, blob: Uint8Array): void {
    const peer = this.peers.get(from)
    const said = blob[0]
    if (peer === undefined || blob.length > MAX_OFFER_BYTES) throw refuse(from)
    if (peer.settled !== 'no') return // crossed with this side's no
    if (said === Say.no) {
      peer.theirs = 'no'
      if (peer.mine !== 'no') this.detail = `rank ${from}: ${textOf(blob.subarray(1))}`
    } else if (said === Say.offer && peer.theirs === 'nothing') {
      peer.theirs = 'offer'
      peer.offer = blob.slice(1)
    } else if (said === Say.ready && peer.theirs === 'offer') {
      peer.theirs = 'ready'
    } else if (said === Say.reached && peer.theirs === 'ready') {
      peer.theirs = 'reached'
    } else {
      throw refuse(from)
    }
    if (!this.started) return
    this.advance(from, peer)
    this.finish()
  }

  /** What came of the probe: 0, or the reason why nobody answered it. */
  onProbed(rank: number, reason: number): void {
    const peer = this.peers.get(rank)
    if (peer?.mine !== 'probing' || peer.settled !== 'no') return
    if (reason === 0) {
      peer.mine = 'reached'
      this.say(rank, Say.reached)
      this.advance(rank, peer)
    } else {
      const why = linkFailure(reason) ?? `reason ${reason}`
      this.refuse(rank, peer, `rank ${rank} does not answer over ${this.device}: ${why}`)
    }
    this.finish()
  }

  memberGone(rank: number): void {
    this.peers.delete(rank)
    if (this.started) this.finish()
  }

  private openDevice(): boolean {
    const { addon, session, rank } = this.context
    const { policy, host, device } = this.options
    const choice = chooseRdmaPort(addon.rdmaDevices(), host, device, policy === 'verbs')
    if ('obstacle' in choice) {
      this.detail = choice.obstacle
      return false
    }
    try {
      this.device = addon.openLinks(session, choice.device, choice.port, choice.gidIndex, rank)
      this.detail = this.device
      return true
    } catch (error) {
      this.detail = (error as Error).message
      return false
    }
  }

  private makeOffer(rank: number): Uint8Array | undefined {
    const { addon, session } = this.context
    try {
      return addon.link(session, 0, rank)
    } catch (error) {
      this.detail = `a queue pair could not be made: ${(error as Error).message}`
      return undefined
    }
  }

  private say(rank: number, what: number, payload: Uint8Array = new Uint8Array()): void {
    const blob = new Uint8Array(1 + Math.min(payload.length, MAX_OFFER_BYTES - 1))
    blob[0] = what
    blob.set(payload.subarray(0, blob.length - 1), 1)
    this.context.ring.sendBlob(rank, Kind.LinkControl, blob)
  }

  private advance(rank: number, peer: Peer): void {
    const { addon, session } = this.context
    if (peer.mine === 'no' || peer.theirs === 'no') {
      // A side that has said more than no waits for the other's no, so both know.
      if (peer.theirs !== 'nothing') this.settle(rank, peer, 'tcp')
      return
    }
    try {
      if (peer.mine === 'offer' && peer.offer !== undefined) {
        addon.link(session, 1, rank, peer.offer)
        peer.mine = 'ready'
        this.say(rank, Say.ready)
      }
      if (peer.mine === 'ready' && peer.theirs === 'ready') {
        addon.link(session, 2, rank)
        peer.mine = 'probing'
      }
    } catch (error) {
      const why = (error as Error).message
      return this.refuse(rank, peer, `the link to rank ${rank} could not be set up: ${why}`)
    }
    if (peer.mine === 'reached' && peer.theirs === 'reached') this.settle(rank, peer, 'verbs')
  }

  /** Takes back what this side has said. */
  private refuse(rank: number, peer: Peer, why: string): void {
    peer.mine = 'no'
    this.detail = why
    this.say(rank, Say.no, new TextEncoder().encode(why))
    this.settle(rank, peer, 'tcp')
  }

  private settle(rank: number, peer: Peer, way: 'tcp' | 'verbs'): void {
    const { addon, session } = this.context
    peer.settled = way
    if (way === 'verbs') addon.link(session, 3, rank)
    else addon.link(session, 4, rank)
  }

  private finish(): void {
    const settled = [...this.peers.values()].map((peer) => peer.settled)
    if (settled.includes('no')) return
    this.started = false // nothing more is expected
    const links = settled.filter((way) => way === 'verbs').length
    const slow = [...this.peers].find(([, peer]) => peer.settled === 'tcp')
    if (this.options.policy === 'verbs' && slow !== undefined) {
      const error = new PagemeshError(
        'ERR_PAGEMESH_JOIN_FAILED',
        `rank ${slow[0]} cannot be reached by verbs: ${this.detail} (` +
          "'pagemesh doctor' says more; transport auto falls back to TCP)",
        { rank: slow[0] },
      )
      return this.done(error)
    }
    const all = links === settled.length
    const transport = links === 0 ? 'tcp' : all ? 'verbs' : 'mixed'
    this.done({ transport, detail: this.detail })
  }
}

function refuse(from: number): PagemeshError {
  return new PagemeshError('ERR_PAGEMESH_PROTOCOL', 'a word about links that makes no sense', {
    rank: from,
  })
}

function textOf(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes).replace(/[^\x20-\x7e]/g, '?')
}
