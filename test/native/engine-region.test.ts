import t, { type Test } from 'tap'
import type { RegionInfo } from '../../dist/engine/commands.js'
import type { EngineContext } from '../../dist/engine/context.js'
import { EngineRegion, NEVER_MS } from '../../dist/engine/engine-region.js'
import { loadAddon } from '../../dist/native/addon.js'
import { Kind } from '../../dist/protocol/messages.js'
import { PlacementCode } from '../../dist/protocol/placement.js'

const addon = loadAddon()
const rank = 1
const home = 0
const writer = 2
let nextBase = 0x4e80_0000_0000n

/** A region of one page at a member that is not its home; what it sends, and what the clock says. */
function make(t: Test) {
  const session = addon.sessionCreate(rank, 3, 0, -1)
  t.teardown(() => addon.sessionDestroy(session))
  const base = (nextBase += 2n ** 24n)
  t.equal(addon.mapRegion(session, 0, 4096, 1, base, PlacementCode.fixed, home), 0)
  const sent: string[] = []
  const clock = { nowMs: 0, waiters: 1 }
  const ring = {
    protect: () => undefined,
    wake: () => undefined,
    sendTwo: (to: number, kind: number) => sent.push(`${kind}→${to}`),
  }
  const context = {
    session,
    rank,
    size: 3,
    ring,
    addon: { countWaiters: () => clock.waiters },
    get nowMs() {
      return clock.nowMs
    },
    isUp: () => true,
    isLeaving: () => false,
    watchResuming: () => undefined,
  }
  const info = { id: 0, name: 'r', pageBytes: 4096, pageCount: 1, base, placement: { rank: home } }
  const region = new EngineRegion(
    context as unknown as EngineContext,
    info as unknown as RegionInfo,
  )
  region.onFault(0, 'read', 0)
  region.onMessage(Kind.Data, 0, home, 0, 0) // a thread waits, so the page is held for it
  return { region, clock, take: () => sent.splice(0) }
}

const invalidate = (region: EngineRegion): void =>
  region.onMessage(Kind.Invalidate, 0, home, writer, 0)
const acknowledged = [`${Kind.InvalidateAck}→${writer}`]

t.test('a page that a thread was woken for is held until it has touched it', async (t) => {
  const { region, clock, take } = make(t)
  take()
  invalidate(region)
  t.equal(region.releaseResumed(), 4, 'looked at again when the time is up')
  t.strictSame(take(), [])
  clock.waiters = 0
  t.equal(region.releaseResumed(), NEVER_MS)
  t.strictSame(take(), acknowledged)
})

t.test('but not for longer than 4 ms', async (t) => {
  const { region, clock, take } = make(t)
  take()
  invalidate(region)
  clock.nowMs = 4
  region.releaseResumed()
  t.strictSame(take(), acknowledged)
})

t.test('a thread that has read the page and waits to write it has had its turn', async (t) => {
  const { region, take } = make(t)
  region.onFault(0, 'write', 0)
  take()
  invalidate(region)
  t.equal(region.releaseResumed(), NEVER_MS)
  t.strictSame(take(), acknowledged)
})
