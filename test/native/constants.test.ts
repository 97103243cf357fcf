import { readFileSync } from 'node:fs'
import { constants as constantsOfOs } from 'node:os'
import t from 'tap'
import {
  CLOSE_REASONS,
  closeReason,
  DEVICE_EVENT,
  FIRST_VERBS_EVENT_REASON,
  FIRST_VERBS_REASON,
  WORK_COMPLETION_STATUS,
} from '../../dist/engine/close-reasons.js'
import { EventKind, ENTRY_WORDS, Ring } from '../../dist/engine/ring.js'
import { type Addon, Call, loadAddon, RegionPart, regionBuffer } from '../../dist/native/addon.js'
import { AtomicOperation, Kind, MAX_MEMBERS, RECORD_WORDS } from '../../dist/protocol/messages.js'
import { BarrierLayout } from '../../dist/protocol/barrier-words.js'
import { ENTRY_BUSY, ENTRY_CLOSED, EntryState } from '../../dist/protocol/directory.js'
import { PAGE_DIRECT, PAGE_HELD, PAGE_PENDING, PageState } from '../../dist/protocol/page-table.js'
import { HomeMap, type Placement, PlacementCode } from '../../dist/protocol/placement.js'

const addon = loadAddon()
const { constants } = addon
const compared = new Set<string>()
let nextBase = 0x4e00_0000_0000n

function native(name: string): number | undefined {
  compared.add(name)
  return constants[name]
}

/** The native name of a number: `kindData` for Kind.Data. */
function nameOf(prefix: string, name: string): string {
  return prefix + name[0].toUpperCase() + name.slice(1)
}

function withSession<T>(rank: number, size: number, use: (session: number) => T): T {
  const session = addon.sessionCreate(rank, size, 0, -1)
  try {
    return use(session)
  } finally {
    addon.sessionDestroy(session)
  }
}

t.test('sizes', async (t) => {
  t.equal(native('recordWords'), RECORD_WORDS)
  t.equal(native('entryWords'), ENTRY_WORDS)
  t.equal(native('maxMembers'), MAX_MEMBERS)
  t.equal(native('maxBlobBytes'), 64 * 1024)
})

t.test('kinds of records that native code knows', async (t) => {
  const known = Object.keys(constants).filter((name) => name.startsWith('kind'))
  t.ok(known.length >= 7)
  const ours = Object.entries(Kind).map(([name, value]) => [nameOf('kind', name), value] as const)
  for (const name of known) t.equal(native(name), new Map(ours).get(name), name)
  // What follows a record is told by its kind alone.
  for (const [name, value] of Object.entries(Kind)) {
    const page = ['Data', 'DataExclusive', 'WriteBack'].includes(name)
    const blob = ['Cluster', 'RegionControl', 'LinkControl'].includes(name)
    t.equal(
      value >= 0x80 ? 'blob' : value >= 0x40 ? 'page' : 'none',
      page ? 'page' : blob ? 'blob' : 'none',
      name,
    )
  }
})

t.test('states of pages', async (t) => {
  const known = Object.keys(constants).filter((name) => name.startsWith('state'))
  const ours = Object.entries(PageState).map(([name, value]) => {
    return [nameOf('state', name), value] as const
  })
  t.equal(known.length, 10)
  for (const name of known) t.equal(native(name), new Map(ours).get(name), name)
  t.equal(native('pageHeld'), PAGE_HELD)
  t.equal(native('pageDirect'), PAGE_DIRECT)
  // The bits that native code reads out of states that it never makes itself.
  const collecting = native('pageCollecting')!
  const states = Object.entries(PageState)
  t.same(
    states.filter(([, byte]) => (byte & collecting) !== 0).map(([name]) => name),
    ['collecting', 'upgradeCollecting', 'filling'],
  )
  for (const [name, byte] of states) {
    t.equal(byte & PAGE_HELD, 0, `${name} leaves the bit for pins alone`)
    t.equal(byte & PAGE_DIRECT, 0, `${name} leaves the bit for threads alone`)
    const settled = ['none', 'read', 'write'].includes(name)
    t.equal((byte & PAGE_PENDING) === 0, settled, `${name} is${settled ? '' : ' not'} settled`)
    const acceptsData = (byte & 0x80) !== 0
    t.equal(acceptsData, name === 'reading' || name === 'writing', `data for ${name}`)
  }
})

t.test('directory entries', async (t) => {
  t.equal(native('entryClean'), EntryState.clean)
  // Nobody is waiting: rank 0xff.
  t.equal(native('controlOwnedAway'), (EntryState.ownedAway | (0xff << 24)) >>> 0)
  t.equal(native('controlStateMask'), ENTRY_CLOSED | ENTRY_BUSY | 0xff)
  t.equal(native('controlClosed'), ENTRY_CLOSED)
})

t.test('words of barriers', async (t) => {
  const ours = Object.entries(BarrierLayout)
  t.ok(ours.length > 8)
  for (const [name, value] of ours) {
    const words = name.toLowerCase().split('_')
    const nativeName = words.map((word) => word[0].toUpperCase() + word.slice(1)).join('')
    t.equal(native(`barrier${nativeName}`), value, name)
  }
})

t.test('events', async (t) => {
  for (const [name, value] of Object.entries(EventKind)) {
    t.equal(native(nameOf('event', name)), value, name)
  }
})

t.test('actions, as the ring writes them', async (t) => {
  let written = new Uint32Array(0)
  const recorder = {
    exchange(_session: number, call: Int32Array, actions: Uint32Array) {
      written = actions.slice(0, call[Call.actionCount] * ENTRY_WORDS)
      return 0
    },
  }
  const ring = new Ring(recorder as unknown as Addon, 1, () => 9)
  const blob = new Uint8Array([1, 2, 3])
  ring.send(1, Kind.Heartbeat, 0, 0)
  ring.sendPage(1, Kind.Data, 2, 3, 4096, 5, 6)
  ring.sendBlob(1, Kind.RegionControl, blob)
  ring.sendBlobTo(1, Kind.Cluster, blob)
  ring.protect(2, 3, 4, 'write', false, false)
  ring.wake(2, 3, 4)
  ring.protect(2, 3, 4, 'read', true, false)
  ring.protect(2, 3, 4, 'none', false, true)
  ring.word(3, 77, true, 5, 0x1_0000_0002n, 0x3_0000_0004n, -1n)
  ring.word(3, 78, false, 5, 0n, 1n, 0n)
  ring.open(2, 3)
  ring.flush()
  const entry = (index: number): Uint32Array => written.subarray(index * ENTRY_WORDS)
  const names = ['Send', 'SendPage', 'SendBlob', 'SendBlobTo', 'Protect', 'Wake']
  for (const [index, name] of names.entries()) {
    t.equal(entry(index)[0], native(`action${name}`), name)
    t.equal(entry(index)[4 + 2] === 9, true, 'the view')
  }
  t.same([...entry(4).subarray(1, 4)], [3, 4, 0], 'PROT_READ|PROT_WRITE, pages, flags')
  t.same([...entry(6).subarray(1, 4)], [1, 4, native('protectWake')])
  t.same([...entry(7).subarray(1, 4)], [0, 4, native('protectInvalidate')])
  t.equal(entry(8)[0], native('actionWord'))
  t.same([...entry(8).subarray(1, 4)], [3, 77, native('wordCompares')])
  t.same([...entry(8).subarray(4 + 5, 4 + 12)], [5, 2, 1, 4, 3, 2 ** 32 - 1, 2 ** 32 - 1])
  t.same([...entry(9).subarray(1, 4)], [3, 78, native('wordAdds')])
  t.equal(entry(10)[0], native('actionOpen'))
  t.same([...entry(10).subarray(4 + 3, 4 + 5)], [2, 3])
})

/** The enumerators of a C enum, in order, with what is assigned to them, if anything is. */
function enumerators(file: string, heading: string): [string, string | undefined][] {
  const text = readFileSync(file, 'utf8').replace(/\/\/.*$/gm, '')
  const [, body] = text.split(new RegExp(`${heading}\\s*\\{`))
  return body
    .slice(0, body.indexOf('}'))
    .split(',')
    .map((one) => one.trim().split(/\s*=\s*/) as [string, string | undefined])
    .filter(([name]) => name !== '')
}

t.test('why connections end, as native code numbers it', async (t) => {
  const header = 'native/transport/transport.h'
  const reasons = enumerators(header, 'enum class CloseReason : uint32_t')
  t.same(
    reasons.map(([, value]) => value),
    Object.keys(CLOSE_REASONS),
  )
  const text = readFileSync(header, 'utf8')
  t.ok(text.includes(`kFirstVerbsReason = ${FIRST_VERBS_REASON};`))
  t.ok(text.includes(`kFirstVerbsEventReason = ${FIRST_VERBS_EVENT_REASON};`))
  t.equal(closeReason(1000), 'it closed the connection')
  t.equal(closeReason(constantsOfOs.errno.ECONNRESET), 'ECONNRESET')
  t.equal(closeReason(999), 'error 999')
})

t.test('statuses and events of libibverbs, as its header numbers them', async (t) => {
  const verbs = '/usr/include/infiniband/verbs.h'
  const statuses = enumerators(verbs, 'enum ibv_wc_status')
  t.same(
    statuses,
    Object.keys(WORK_COMPLETION_STATUS).map((name) => [`IBV_WC_${name}`]),
  )
  const events = enumerators(verbs, 'enum ibv_event_type')
  t.same(
    events,
    Object.keys(DEVICE_EVENT).map((name) => [`IBV_EVENT_${name}`]),
  )
  t.equal(
    closeReason(FIRST_VERBS_REASON + 12),
    'its link failed: transport retry counter exceeded (verbs status 12)',
  )
  t.equal(
    closeReason(FIRST_VERBS_EVENT_REASON + 8),
    'its link failed: the device failed or was removed (verbs event 8)',
  )
  t.equal(closeReason(FIRST_VERBS_REASON + 99), 'its link failed: status (verbs status 99)')
})

t.test('nothing is left uncompared', async (t) => {
  t.same([...compared].sort(), Object.keys(constants).sort())
})

t.test('word operations do what their names say', async (t) => {
  for (const bits of [32, 64]) {
    withSession(0, 1, (session) => {
      addon.mapRegion(session, 0, 4096, 1, (nextBase += 2n ** 24n), PlacementCode.block, 0)
      const run = (operation: number, operand: bigint, expected = 0n): bigint =>
        addon.atomic(session, 0, 0, 8, bits, operation, operand, expected)
      const { load, store, fetchAdd, compareExchange } = AtomicOperation
      t.equal(run(store, 5n), 0n)
      t.equal(run(load, 99n), 5n)
      t.equal(run(fetchAdd, 3n), 5n)
      t.equal(run(compareExchange, 100n, 7n), 8n, 'refused')
      t.equal(run(compareExchange, 100n, 8n), 8n, 'taken')
      t.equal(run(load, 0n), 100n)
      t.equal(run(fetchAdd, BigInt.asUintN(bits, -101n)), 100n)
      t.equal(run(load, 0n), BigInt.asUintN(bits, -1n), 'wraps')
      const neighbours = [0, 16].map((byte) => addon.atomic(session, 0, 0, byte, 64, load, 0n, 0n))
      t.same(neighbours, [0n, 0n])
      if (bits === 32) t.equal(addon.atomic(session, 0, 0, 12, 32, load, 0n, 0n), 0n)
    })
  }
})

t.test('both sides agree on every home', async (t) => {
  const sizes = [1, 2, 3, 5, 7, 31, 32]
  const pageCounts = [1, 2, 3, 6, 7, 31, 33, 64, 97, 1000]
  for (const size of sizes) {
    for (const rank of new Set([0, size >> 1, size - 1])) {
      const placements: Placement[] = ['block', 'cyclic', { rank: 0 }, { rank: size - 1 }]
      const wrong = withSession(rank, size, (session) => {
        const differences: string[] = []
        let id = 0
        for (const pageCount of pageCounts) {
          for (const placement of placements) {
            const homes = new HomeMap(placement, pageCount, size)
            const { code, fixedHome } = homes
            const failed = addon.mapRegion(
              session,
              ++id,
              4096,
              pageCount,
              (nextBase += 2n ** 24n),
              code,
              fixedHome,
            )
            const what = `${JSON.stringify(placement)}, ${pageCount} pages`
            if (failed !== 0) differences.push(`${what}: errno ${failed}`)
            let own = 0
            for (let page = 0; page < pageCount; page++) {
              const home = homes.homeOf(page)
              if (home === rank) own++
              if (addon.homeOf(session, id, page) !== home) differences.push(`${what}: ${page}`)
              if (home < 0 || home >= size) differences.push(`${what}: ${page} at ${home}`)
            }
            // The directory has one entry for each page homed here, and indices fit it.
            const entries = regionBuffer(session, id, RegionPart.directory).byteLength / 8
            if (homes.countAt(rank) !== own) differences.push(`${what}: ${homes.countAt(rank)}`)
            if (entries !== own) differences.push(`${what}: ${entries} entries for ${own} pages`)
            const runs = [...homes.runsOf(rank)].flatMap(([first, count]) =>
              Array.from({ length: count }, (_, i) => first + i),
            )
            if (runs.length !== own) differences.push(`${what}: runs of ${runs.length} pages`)
            if (runs.some((page) => homes.indexOf(page) >= own)) differences.push(`${what}: index`)
          }
        }
        return differences
      })
      t.same(wrong, [], `rank ${rank} of ${size}`)
    }
  }
})
