import type { MessagePort } from 'node:worker_threads'
import type { RdmaDeviceName } from '../cluster/rdma-device.js'
import type { PagemeshErrorCode } from '../errors.js'
import type { TransportPolicy } from '../cluster/transport-names.js'
import type { Placement } from '../protocol/placement.js'

/** What describes a region, the same in all members. */
export interface RegionShape {
  readonly name: string
  readonly byteLength: number
  readonly pageBytes: number
  readonly placement: Placement
  /** 'atomic': words at their homes, without pages. */
  readonly words: 'paged' | 'atomic'
  /** 'auto': pages are asked for ahead of threads that read in a regular way. */
  readonly prefetch: 'auto' | 'off'
}

/** Width of a word of an atomic region: RDMA atomics have no other. */
export const WORD_BYTES = 8
/** How large such a region may be: for RDMA all of it is locked in memory. */
export const MAX_ATOMIC_BYTES = 2 ** 30

/** A region as the mesh has it. */
export interface RegionInfo extends RegionShape {
  readonly id: number
  readonly pageCount: number
  readonly base: bigint
}

/** What the API is told of an opened region. */
export interface OpenedRegion extends RegionInfo {
  /** What changes its words: an RDMA device at their home, or the home's processor. */
  readonly wordsBy: 'home' | 'rdma'
}

/** What the API asks of the engine. `id` numbers the answer; commands without one get none. */
export type Command =
  | { readonly op: 'region'; readonly id: number; readonly shape: RegionShape }
  | {
      readonly op: 'barrier'
      readonly id: number
      readonly key: number
      readonly name: string
      /** Which of the barrier words are this barrier's from now on; barrier-words.ts. */
      readonly slot: number
    }
  /** The program has come to the barrier of this slot by itself: it waits for its ticket. */
  | {
      readonly op: 'awaitBarrier'
      readonly id: number
      readonly name: string
      readonly slot: number
      readonly ticket: number
    }
  /** The same, and these ranks, a bit for each, have not been told. */
  | { readonly op: 'tellArrival'; readonly key: number; readonly ranks: number }
  | {
      readonly op: 'acquire'
      readonly id: number
      readonly key: number
      readonly name: string
      readonly permits: number
      readonly mode: 'wait' | 'try'
      /** Where its token may stay; token-words.ts. */
      readonly slot: number
      /** What whoever passes the token on must know; 0 if nobody may. */
      readonly ticket: number
    }
  | {
      readonly op: 'release'
      readonly key: number
      readonly request: number
      /** The program's thread has passed it on to who is next. */
      readonly passed: boolean
    }
  | { readonly op: 'cancel'; readonly id: number }
  | {
      readonly op: 'prefetch' | 'pin' | 'discard'
      readonly id: number
      readonly region: number
      readonly firstPage: number
      readonly pageCount: number
      readonly access: 'read' | 'write'
    }
  | { readonly op: 'unpin'; readonly pin: number }
  | {
      readonly op: 'atomic'
      readonly id: number
      readonly region: number
      readonly byteOffset: number
      readonly bits: 32 | 64
      readonly operation: number
      readonly operand: bigint
      readonly expected: bigint
    }
  | { readonly op: 'leave'; readonly id: number }

/** An error that crosses a thread: the class does not survive, so it is made anew. */
export interface ErrorParts {
  readonly code: PagemeshErrorCode
  readonly message: string
  readonly rank: number | undefined
}

export type Answer =
  | { readonly id: number; readonly value: unknown }
  | { readonly id: number; readonly error: ErrorParts }

/** The answers to `acquire`. */
export type AcquireResult =
  { readonly granted: true; readonly request: number } | { readonly granted: false }

/** The answer number of the join itself, which comes unasked. */
export const JOIN_ID = 0

/** What the engine's Worker starts with. */
export interface EngineData {
  readonly session: number
  readonly rank: number
  readonly size: number
  readonly key: Uint8Array
  readonly listen: { readonly host: string; readonly port: number }
  /** Where rank 0 is; unused at rank 0. */
  readonly rendezvous: { readonly host: string; readonly port: number }
  /** The file in which rank 0 publishes that, if it does. */
  readonly rendezvousFile: string | undefined
  readonly joinTimeoutMs: number
  readonly transport: TransportPolicy
  /** Which RDMA device to use; undefined for the one that has the address of `listen`. */
  readonly rdmaDevice: RdmaDeviceName | undefined
  readonly heartbeatTimeoutMs: number
  readonly port: MessagePort
  /** Its first word counts answers, for threads that wait for one without their event loop. */
  readonly answered: Int32Array
  /** Where the tokens of locks are, for the program's thread and the engine; token-words.ts. */
  readonly tokens: Int32Array
  /** How often each member has come to which barrier; barrier-words.ts. */
  readonly barrierWords: Int32Array
}
