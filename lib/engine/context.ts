import type { PagemeshError } from '../errors.js'
import type { Addon } from '../native/addon.js'
import type { EngineRegion } from './engine-region.js'
import type { Ring } from './ring.js'

/** What the parts of the engine share. */
export interface EngineContext {
  readonly addon: Addon
  readonly session: number
  readonly rank: number
  readonly size: number
  readonly ring: Ring
  /** The time of the events in hand: whole milliseconds since the engine began. */
  readonly nowMs: number
  /** Answers a command of the API. */
  answer(id: number, value: unknown): void
  fail(id: number, error: PagemeshError): void
  /** Whether the member can still be reached. */
  isUp(rank: number): boolean
  /** Why a member that is down is down, for messages. */
  whyDown(rank: number): string
  /** The region holds pages until threads have touched them. */
  watchResuming(region: EngineRegion): void
  /** The API has called leave: touches from now on are nobody's fault. */
  isLeaving(): boolean
}
