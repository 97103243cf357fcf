import type { HomeMap } from '../../dist/protocol/placement.js'

/** One way to rename members and pages such that nobody can tell the difference. */
export interface Symmetry {
  /** The new rank of each member, by its old one; whatever is no rank stays what it is. */
  readonly rank: Uint8Array
  readonly page: Uint8Array
  /** The same for bitmaps of members. */
  readonly bits: Uint8Array
  /** The old rank of each member, by its new one. */
  readonly rankBefore: readonly number[]
  readonly pageBefore: readonly number[]
}

function permutations(count: number): number[][] {
  if (count === 0) return [[]]
  return permutations(count - 1).flatMap((shorter) =>
    Array.from({ length: count }, (_, at) => [
      ...shorter.slice(0, at),
      count - 1,
      ...shorter.slice(at),
    ]),
  )
}

/** The identity first; then, if wanted, all others that take each page's home to its new home. */
export function symmetriesOf(homes: HomeMap, all: boolean): Symmetry[] {
  const { size, pageCount } = homes
  const found: Symmetry[] = []
  for (const ranks of permutations(size)) {
    for (const pages of permutations(pageCount)) {
      const homesFollow = pages.every((to, page) => homes.homeOf(to) === ranks[homes.homeOf(page)])
      if (homesFollow) found.push(makeSymmetry(ranks, pages))
    }
  }
  const same = found.filter(
    (each) =>
      each.rankBefore.every((old, rank) => old === rank) &&
      each.pageBefore.every((old, page) => old === page),
  )
  return all ? [...same, ...found.filter((each) => !same.includes(each))] : same
}

function makeSymmetry(ranks: readonly number[], pages: readonly number[]): Symmetry {
  const rank = Uint8Array.from({ length: 256 }, (_, old) => ranks[old] ?? old)
  const page = Uint8Array.from({ length: 256 }, (_, old) => pages[old] ?? old)
  const bits = Uint8Array.from({ length: 256 }, (_, map) =>
    ranks.reduce((sum, to, from) => ((map & (1 << from)) !== 0 ? sum | (1 << to) : sum), 0),
  )
  const inverse = (to: readonly number[]): number[] => to.map((_, index) => to.indexOf(index))
  return { rank, page, bits, rankBefore: inverse(ranks), pageBefore: inverse(pages) }
}
