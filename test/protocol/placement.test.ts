import t from 'tap'
import { HomeMap, type Placement, PlacementCode } from '../../dist/protocol/placement.js'

const homesOf = (map: HomeMap): number[] =>
  Array.from({ length: map.pageCount }, (_, page) => map.homeOf(page))

// Placement, pages, members; the home of each page, and its index there.
const expected: readonly [Placement, number, number, string, string][] = [
  ['block', 8, 2, '0 0 0 0 1 1 1 1', '0 1 2 3 0 1 2 3'],
  ['block', 7, 3, '0 0 0 1 1 1 2', '0 1 2 0 1 2 0'],
  ['block', 4, 3, '0 0 1 1', '0 1 0 1'],
  ['block', 2, 5, '0 1', '0 0'],
  ['block', 1, 1, '0', '0'],
  ['cyclic', 7, 3, '0 1 2 0 1 2 0', '0 0 0 1 1 1 2'],
  ['cyclic', 2, 5, '0 1', '0 0'],
  [{ rank: 2 }, 4, 3, '2 2 2 2', '0 1 2 3'],
]

t.test('each page has its home and its place there', async (t) => {
  for (const [placement, pages, members, homes, indices] of expected) {
    const map = new HomeMap(placement, pages, members)
    const name = `${JSON.stringify(placement)}, ${pages} pages, ${members} members`
    t.equal(homesOf(map).join(' '), homes, name)
    const found = homesOf(map).map((_, page) => map.indexOf(page))
    t.equal(found.join(' '), indices, name)
  }
})

t.test('the runs of all members together are all pages, each at its home, once', async (t) => {
  let maps = 0
  for (let members = 1; members <= 9; members++) {
    const placements: Placement[] = ['block', 'cyclic']
    for (let rank = 0; rank < members; rank++) placements.push({ rank })
    for (const placement of placements) {
      for (let pages = 1; pages <= 33; pages++) {
        const map = new HomeMap(placement, pages, members)
        const homes = new Array<number>(pages).fill(-1)
        const places = new Set<string>()
        for (let rank = 0; rank < members; rank++) {
          for (const [first, count] of map.runsOf(rank)) {
            if (count <= 0) t.fail('an empty run')
            for (let page = first; page < first + count; page++) {
              if (homes[page] !== -1) t.fail(`page ${page} is in two runs`)
              homes[page] = rank
              places.add(`${rank}:${map.indexOf(page)}`)
              if (map.indexOf(page) >= pages) t.fail('an index beyond the directory')
            }
          }
        }
        if (places.size !== pages) t.fail('two pages have one entry')
        if (homes.join() !== homesOf(map).join()) t.fail('homeOf and runsOf disagree')
        maps++
      }
    }
  }
  t.equal(maps, 33 * (9 * 2 + 45))
})

t.test('runs are as long as they can be', async (t) => {
  t.strictSame([...new HomeMap('block', 10, 3).runsOf(1)], [[4, 4]])
  t.strictSame([...new HomeMap('block', 10, 3).runsOf(2)], [[8, 2]])
  t.strictSame([...new HomeMap('block', 4, 3).runsOf(2)], [], 'the last may home nothing')
  t.strictSame(
    [...new HomeMap('cyclic', 5, 2).runsOf(1)],
    [
      [1, 1],
      [3, 1],
    ],
  )
  t.strictSame([...new HomeMap({ rank: 1 }, 5, 2).runsOf(1)], [[0, 5]])
  t.strictSame([...new HomeMap({ rank: 1 }, 5, 2).runsOf(0)], [])
})

t.test('native code knows a placement by its number', async (t) => {
  t.strictSame(PlacementCode, { block: 0, cyclic: 1, fixed: 2 })
  t.strictSame(new HomeMap('block', 2, 2).code, 0)
  t.strictSame(new HomeMap('cyclic', 2, 2).code, 1)
  const fixed = new HomeMap({ rank: 1 }, 2, 2)
  t.strictSame([fixed.code, fixed.fixedHome], [2, 1])
})

t.test('pages beyond 32 bits of bytes are as good as others', async (t) => {
  const pages = 2 ** 24
  const map = new HomeMap('block', pages, 3)
  t.equal(map.homeOf(pages - 1), 2)
  t.equal(map.indexOf(pages - 1), pages - 1 - 2 * Math.ceil(pages / 3))
})
