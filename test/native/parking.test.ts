import t from 'tap'
import { runMesh } from './fixtures/children.js'

const maxMapCount = 4000
const pages = 12_288

for (const placement of ['block', 'cyclic', { rank: 0 }]) {
  const name = JSON.stringify(placement)
  t.test(`alternating pages stay below vm.max_map_count, homes ${name}`, async (t) => {
    const args = { maxMapCount, pages, placement, pinned: false }
    const results = await runMesh(t, 2, 'parking', 'alternating', { args })
    for (const [rank, { wrong, most, stats, mappingsLeft }] of results.entries()) {
      t.equal(wrong, 0, `rank ${rank} reads what was written`)
      t.ok(most < maxMapCount, `${most} mappings`)
      t.ok(mappingsLeft < 1500, `${mappingsLeft} after leaving`)
      t.ok(stats.pagesParked > 0, `${stats.pagesParked} parked`)
      t.ok(stats.localFaults > 0, `${stats.localFaults} local faults`)
    }
    // Parking moves no data: each page went over once for each parity.
    const moved = results.reduce((sum: number, { stats }) => sum + Number(stats.pagesSent), 0)
    t.ok(moved <= 2 * pages, `${moved} pages were sent`)
  })
}

t.test('pinned pages are never parked', async (t) => {
  const args = { maxMapCount, pages, placement: { rank: 0 }, pinned: true }
  const results = await runMesh(t, 2, 'parking', 'alternating', { args })
  t.ok(results[0].stats.pagesParked > 0)
  t.ok(results[0].systemCalls > 100, `${results[0].systemCalls} system calls on pinned pages`)
  const sevens = new Float64Array(new Uint8Array(8).fill(7).buffer)[0]
  t.equal(results[1].afterPin, sevens, 'what they wrote is there for the other member')
})

t.test('pages dealt out in turn', async (t) => {
  const args = { maxMapCount, pages: 9000 }
  const results = await runMesh(t, 3, 'parking', 'cyclicHome', { args })
  for (const [rank, { wrong, most, stats }] of results.entries()) {
    t.equal(wrong, 0, `rank ${rank} reads what was written`)
    t.ok(most < maxMapCount, `${most} mappings`)
    t.ok(stats.pagesParked > 0, `${stats.pagesParked} parked`)
  }
})
