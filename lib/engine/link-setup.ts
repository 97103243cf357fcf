import { PagemeshError } from '../errors.js'
import type { LinkWay } from '../native/addon.js'
import { Kind } from '../protocol/messages.js'
import { linkFailure } from './close-reasons.js'
import type { EngineContext } from './context.js'

/** A kind of link, and what has to be there for it. */
export interface LinkKind {
  readonly way: LinkWay
  /** What a link of it is made of, in words. */
  readonly link: string
  /** Opens what all links need. Returns what it is like. @throws with why it cannot be used */
  open(): string
  /** Why this member uses none, if it was told to. */
  readonly refused: string | undefined
}

/** The first byte of a LinkControl blob: this, and the way in the bits from 4 on. */
const Say = { no: 0, offer: 1, ready: 2, reached: 3 } as const
const WAY_SHIFT = 4

export function wayOf(blob: Uint8Array): number {
  return (blob.at(0) ?? 0) >> WAY_SHIFT
}

const MAX_OFFER_BYTES = 1024 // or a reason

interface Peer {
  mine: 'nothing' | 'no' | 'offer' | 'ready' | 'probing' | 'reached'
  theirs: 'nothing' | 'no' | 'offer' | 'ready' | 'reached'
  offer: Uint8Array | undefined
  settled: 'no' | 'refused' | 'link'
}

/**
 * Agrees with each other member, over the authenticated connection and before any other record,
 * on whether the two use a link of one kind. Each side says once what it offers, or that it does
 * not; both connect to what the other offered and say that they are ready. A queue pair connects to
 * anything, whatever lies between: so both then send an empty message over the link, and say so
 * when the other's device has acknowledged it; a side uses the link once each has reached the
 * other. A "no" at any point means no link for both.
 */
export class LinkSetup {
  private readonly peers = new Map<number, Peer>()
  private started = false
  /** What was opened, in words, or why there are not links to all. */
  detail: string
  /** What was opened, in words. */
  private opened = ''

  constructor(
    private readonly context: EngineContext,
    readonly kind: LinkKind,
    private readonly done: () => void,
  ) {
    this.detail = kind.refused ?? 'there is no other member'
    for (let rank = 0; rank < context.size; rank++) {
      if (rank === context.rank) continue
      this.peers.set(rank, { mine: 'nothing', theirs: 'nothing', offer: undefined, settled: 'no' })
    }
  }

  /** The members with which there is a link. */
  linked(): number[] {
    return [...this.peers].filter(([, { settled }]) => settled === 'link').map(([rank]) => rank)
  }

  /** Begins, with all members that are not `reached` by another way already. */
  start(reached: ReadonlySet<number>): void {
    for (const rank of reached) this.peers.delete(rank)
    this.started = true
    if (this.kind.refused !== undefined) this.detail = this.kind.refused
    const open = this.kind.refused === undefined && this.peers.size > 0 && this.open()
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
    const said = (blob.at(0) ?? 0) & ((1 << WAY_SHIFT) - 1)
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
      this.refuse(rank, peer, `rank ${rank} does not answer over ${this.opened}: ${why}`)
    }
    this.finish()
  }

  memberGone(rank: number): void {
    this.peers.delete(rank)
    if (this.started) this.finish()
  }

  private open(): boolean {
    try {
      this.opened = this.kind.open()
      this.detail = this.opened
      return true
    } catch (error) {
      this.detail = (error as Error).message
      return false
    }
  }

  private makeOffer(rank: number): Uint8Array | undefined {
    const { addon, session } = this.context
    try {
      return addon.link(session, this.kind.way, 0, rank)
    } catch (error) {
      this.detail = `${this.kind.link} could not be made: ${(error as Error).message}`
      return undefined
    }
  }

  private say(rank: number, what: number, payload: Uint8Array = new Uint8Array()): void {
    const blob = new Uint8Array(1 + Math.min(payload.length, MAX_OFFER_BYTES - 1))
    blob[0] = what | (this.kind.way << WAY_SHIFT)
    blob.set(payload.subarray(0, blob.length - 1), 1)
    this.context.ring.sendBlob(rank, Kind.LinkControl, blob)
  }

  private advance(rank: number, peer: Peer): void {
    const { addon, session } = this.context
    if (peer.mine === 'no' || peer.theirs === 'no') {
      // A side that has said more than no waits for the other's no, so both know.
      if (peer.theirs !== 'nothing') this.settle(rank, peer, 'refused')
      return
    }
    try {
      if (peer.mine === 'offer' && peer.offer !== undefined) {
        addon.link(session, this.kind.way, 1, rank, peer.offer)
        peer.mine = 'ready'
        this.say(rank, Say.ready)
      }
      if (peer.mine === 'ready' && peer.theirs === 'ready') {
        addon.link(session, this.kind.way, 2, rank)
        peer.mine = 'probing'
      }
    } catch (error) {
      const why = (error as Error).message
      return this.refuse(rank, peer, `the link to rank ${rank} could not be set up: ${why}`)
    }
    if (peer.mine === 'reached' && peer.theirs === 'reached') this.settle(rank, peer, 'link')
  }

  /** Takes back what this side has said. */
  private refuse(rank: number, peer: Peer, why: string): void {
    peer.mine = 'no'
    this.detail = why
    this.say(rank, Say.no, new TextEncoder().encode(why))
    this.settle(rank, peer, 'refused')
  }

  private settle(rank: number, peer: Peer, way: 'refused' | 'link'): void {
    const { addon, session } = this.context
    peer.settled = way
    addon.link(session, this.kind.way, way === 'link' ? 3 : 4, rank)
  }

  private finish(): void {
    if ([...this.peers.values()].some(({ settled }) => settled === 'no')) return
    this.started = false // nothing more is expected
    this.done()
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
