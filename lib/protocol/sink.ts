/**
 * What the protocol asks for. The engine carries it out in this order: protections at once, then
 * all sends, so that a page is lowered here before its bytes leave. A simulator may do otherwise
 * with the sends, as long as each pair of members keeps its order.
 */
export interface CoherenceSink {
  /** A record without payload to another member. */
  send(to: number, kind: number, region: number, page: number, a: number, b: number): void
  /** A record with the page behind it, read from the frame. */
  sendPage(to: number, kind: number, region: number, page: number, a: number, b: number): void
  /**
   * Sets what the MMU enforces. Raising also wakes the threads that wait for the page.
   * `invalidated` marks a copy lost to another member's write.
   */
  protect(
    region: number,
    page: number,
    access: 'none' | 'read' | 'write',
    invalidated: boolean,
  ): void
  /**
   * From now on members on this host may read the page without asking: takes ENTRY_CLOSED out of
   * its entry. After the protections that were asked for before.
   */
  open(region: number, page: number): void
  /** Lets waiting threads look again. */
  wake(region: number, page: number): void
  /** The page has become readable, or writable. Called after protect. */
  granted(region: number, page: number): void
  /** The page cannot be had any more: its home or its owner is down. */
  lost(region: number, page: number, home: number, owner: number): void
}
