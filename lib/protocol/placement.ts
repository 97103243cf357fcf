/** Which member homes which pages; a pure function that every member evaluates alike. */
export type Placement = 'block' | 'cyclic' | { readonly rank: number }

/** How the native side writes a placement; native/memory/region.h. */
export const PlacementCode = { block: 0, cyclic: 1, fixed: 2 } as const

/** home(P) and the index of P in its home's directory, for one region. */
export class HomeMap {
  readonly pageCount: number
  readonly size: number
  readonly code: number
  readonly fixedHome: number
  private readonly blockPages: number

  constructor(placement: Placement, pageCount: number, size: number) {
    this.pageCount = pageCount
    this.size = size
    this.code = typeof placement === 'object' ? PlacementCode.fixed : PlacementCode[placement]
    this.fixedHome = typeof placement === 'object' ? placement.rank : 0
    this.blockPages = Math.ceil(pageCount / size)
  }

  homeOf(page: number): number {
    if (this.code === PlacementCode.block) return Math.floor(page / this.blockPages)
    return this.code === PlacementCode.cyclic ? page % this.size : this.fixedHome
  }

  /** The index of `page` in the directory of its home. */
  indexOf(page: number): number {
    if (this.code === PlacementCode.block) return page % this.blockPages
    return this.code === PlacementCode.cyclic ? Math.floor(page / this.size) : page
  }

  /** How many pages `rank` homes. */
  countAt(rank: number): number {
    const { pageCount, size, blockPages } = this
    if (this.code === PlacementCode.fixed) return rank === this.fixedHome ? pageCount : 0
    if (this.code === PlacementCode.cyclic) return Math.max(0, Math.ceil((pageCount - rank) / size))
    return Math.min(blockPages, Math.max(0, pageCount - rank * blockPages))
  }

  /** The runs of pages that `rank` homes, as [first, count]. */
  *runsOf(rank: number): Generator<[number, number]> {
    if (this.code === PlacementCode.cyclic) {
      for (let page = rank; page < this.pageCount; page += this.size) yield [page, 1]
      return
    }
    const first = this.code === PlacementCode.block ? rank * this.blockPages : 0
    const whole = this.code === PlacementCode.block ? this.blockPages : this.pageCount
    const count = Math.min(whole, this.pageCount - first)
    const mine = this.code === PlacementCode.block || rank === this.fixedHome
    if (mine && count > 0) yield [first, count]
  }
}
