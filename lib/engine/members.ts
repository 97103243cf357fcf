import { PagemeshError } from '../errors.js'

type Standing = 'up' | 'leaving' | 'gone' | 'down'

/**
 * Who of the members is still there, as this member sees it. The view is numbered: it is 1 when
 * all have joined, and one more for each member that went down or left for good.
 */
export class Members {
  view = 1
  private readonly standings: Standing[]
  private readonly heardMs: Float64Array
  private readonly reasons = new Map<number, string>()

  constructor(
    size: number,
    private readonly rank: number,
    nowMs: number,
  ) {
    this.standings = Array.from({ length: size }, () => 'up')
    this.heardMs = new Float64Array(size).fill(nowMs)
  }

  /** Its engine answers, though its program may have called leave. */
  isUp(rank: number): boolean {
    const standing = this.standings[rank]
    return standing === 'up' || standing === 'leaving'
  }

  isLeaving(rank: number): boolean {
    return this.standings[rank] === 'leaving'
  }

  /** The others whose engines answer. */
  *others(): Generator<number> {
    for (let rank = 0; rank < this.standings.length; rank++) {
      if (rank !== this.rank && this.isUp(rank)) yield rank
    }
  }

  /** Everybody, this member included, has said that it leaves, or is not there any more. */
  allLeaving(): boolean {
    return this.standings.every((standing) => standing !== 'up')
  }

  markLeaving(rank: number): void {
    this.standings[rank] = 'leaving'
  }

  markGone(rank: number): void {
    this.standings[rank] = 'gone'
    this.view++
  }

  markDown(rank: number, reason: string): void {
    this.standings[rank] = 'down'
    this.reasons.set(rank, reason)
    this.view++
  }

  heard(rank: number, nowMs: number): void {
    this.heardMs[rank] = nowMs
  }

  /** This member itself was stopped for a while: that says nothing about the others. */
  heardAll(nowMs: number): void {
    this.heardMs.fill(nowMs)
  }

  silentSince(rank: number): number {
    return this.heardMs[rank] ?? 0
  }

  reasonOf(rank: number): string {
    return this.reasons.get(rank) ?? 'another member says so'
  }

  /** The error for what needs a member that is not there any more: it is down, or has left. */
  errorFor(rank: number, what: string, down: boolean): PagemeshError {
    if (down) {
      return new PagemeshError(
        'ERR_PAGEMESH_MEMBER_DOWN',
        `${what} cannot complete: rank ${rank} is down (${this.reasonOf(rank)})`,
        { rank },
      )
    }
    return new PagemeshError(
      'ERR_PAGEMESH_MEMBER_LEFT',
      `${what} cannot complete: rank ${rank} has left the mesh`,
      { rank },
    )
  }
}
