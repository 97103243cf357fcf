import type { Placement } from '../../dist/protocol/placement.js'
import type { Message } from './message.js'
import type { World } from './world.js'

export const PATTERNS = [
  'random',
  'readers',
  'migratory',
  'producer-consumer',
  'false-sharing',
  'locks',
] as const
export type Pattern = (typeof PATTERNS)[number]

/** Ways to break the world around the protocol, to prove that the checks notice. */
export interface Sabotage {
  /** What goes onto the wire instead of a message. */
  readonly send?: (message: Message, world: World) => readonly Message[]
  /** False: the MMU is not told. */
  readonly protect?: (access: number, was: number, invalidated: boolean) => boolean
  /** False: the bytes of a message do not reach the frame. */
  readonly fill?: (message: Message) => boolean
  /** False: nobody is woken. */
  readonly wake?: boolean
  /** Sends go out some time before protections are lowered. */
  readonly sendsFirst?: boolean
  /** Threads may ask for a page before the home has been told that it was given back. */
  readonly hastyDiscards?: boolean
  /** The network does not keep the order of a pair. */
  readonly unordered?: boolean
  /** False: this member is never told that another is down. */
  readonly tellDown?: (member: number, down: number) => boolean
}

export interface Settings {
  readonly seed: number
  readonly members: number
  readonly pages: number
  readonly pattern: Pattern
  readonly placement: Placement
  /** By each thread; a round of a pattern with barriers counts as one. */
  readonly operations: number
  /** No operation begins later than this. */
  readonly virtualNs: number
  readonly threads: number
  readonly kills: number
  readonly stops: number
  /** How many members are slower than the others, and how much. */
  readonly slowMembers: number
  readonly slowFactor: number
  /** What a message takes at least, and on average beyond that. */
  readonly latencyNs: number
  readonly jitterNs: number
  /** Of a message in so many, the delay is a hundredfold. */
  readonly straggler: number
  /** Threads look for the answers to their own requests, and idle homes answer natively. */
  readonly direct: boolean
  /** All are on one host: threads copy pages that are clean at their homes by themselves. */
  readonly oneSided: boolean
  readonly sabotage: Sabotage
}

export class UsageError extends Error {}
/** What must never be was. */
export class CheckFailed extends Error {}
