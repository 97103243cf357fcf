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
  /** Of those that leave because a member is down: which. */
  private readonly losses = new Map<number, number>()

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

  /** With `lost`, it has seen that this member is down, and leaves knowing that. */
  markLeaving(rank: number, lost?: number): void {
    this.standings[rank] = 'leaving'
    if (lost !== undefined) this.losses.set(rank, lost)
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

  /** One that is down, or of whom somebody who left has said so. */
  lostRank(): number | undefined {
    return [...this.reasons.keys(), ...this.losses.values()].at(0)
  }

  reasonOf(rank: number): string {
    return this.reasons.get(rank) ?? 'another member says so'
  }

  /**
   * The error for what needs a member that is not there any more: it is down, or has left. Who left
   * because of another's death did so before this member noticed that death: it is the cause.
   */
  errorFor(rank: number, what: string, down: boolean): PagemeshError {
    const lost = down ? rank : this.losses.get(rank)
    if (lost !== undefined) {
      const reason = down ? this.reasonOf(rank) : `rank ${rank} says so, and has left the mesh`
      return new PagemeshError(
        'ERR_PAGEMESH_MEMBER_DOWN',
        `${what} cannot complete: rank ${lost} is down (${reason})`,
        { rank: lost },
      )
    }
    return new PagemeshError(
      'ERR_PAGEMESH_MEMBER_LEFT',
      `${what} cannot complete: rank ${rank} has left the mesh`,
      { rank },
    )
  }
}
