import { constants } from 'node:os'
import t from 'tap'
import { PagemeshError } from '../../dist/errors.js'
import { join } from '../../dist/index.js'
import { loadAddon, RegionPart, regionBuffer } from '../../dist/native/addon.js'
import { PageState } from '../../dist/protocol/page-table.js'
import { PlacementCode } from '../../dist/protocol/placement.js'
import { Child } from './fixtures/children.js'
import { mappingAt } from './fixtures/maps.mjs'

const addon = loadAddon()
const pageBytes = 4096
const base = 0x4d00_0000_0000n
const load = 0
const store = 1

t.test('a region is one memory in two places', async (t) => {
  const session = addon.sessionCreate(0, 2, 0, -1)
  t.equal(addon.mapRegion(session, 0, pageBytes, 8, base, PlacementCode.block, 0), 0)

  const mapping = mappingAt(base)
  t.equal(mapping?.first, base, 'at the address that was asked for')
  t.equal(mapping?.end, base + 8n * 4096n)
  t.match(mapping?.line, /---s .* \/memfd:pagemesh/, 'closed to all')
  t.equal(addon.mapRegion(session, 1, pageBytes, 1, base, 0, 0), constants.errno.EEXIST)
  t.equal(addon.mapRegion(session, 1, pageBytes, 2, base - 4096n, 0, 0), constants.errno.EEXIST)
  t.equal(mappingAt(base - 4096n), undefined, 'nothing is left of the attempt')

  const states = new Uint8Array(regionBuffer(session, 0, RegionPart.states))
  const words = new Uint32Array(regionBuffer(session, 0, RegionPart.application))
  states[2] = PageState.write
  words[2 * 1024 + 3] = 0xfeedbeef
  t.equal(addon.atomic(session, 0, 2, 12, 32, load, 0n, 0n), 0xfeedbeefn, 'seen by atomic')
  addon.atomic(session, 0, 2, 16, 32, store, 77n, 0n)
  t.equal(words[2 * 1024 + 4], 77, 'seen by the view')
  t.match(mappingAt(base + 2n * 4096n)?.line, /rw-s/)

  // The service mapping is there however the page is protected.
  addon.atomic(session, 0, 5, 0, 32, store, 55n, 0n)
  states[6] = PageState.read
  addon.atomic(session, 0, 6, 0, 32, store, 66n, 0n)
  t.equal(words[6 * 1024], 66)
  t.match(mappingAt(base + 6n * 4096n)?.line, /r--s/, 'no more than the state permits')

  addon.sessionDestroy(session)
  t.equal(words[2 * 1024 + 3], 0xfeedbeef, 'a page that was held for writing')
  t.equal(words[6 * 1024], 66, 'a page that was held for reading')
  t.equal(words[5 * 1024], 0, 'a page that was not held reads as zero, whatever is in the frame')
  words.fill(9)
  t.ok(
    words.every((word) => word === 9),
    'private memory, to read and to write',
  )
})

t.test('neighbours in the same position are raised together', async (t) => {
  const session = addon.sessionCreate(0, 1, 0, -1)
  t.teardown(() => addon.sessionDestroy(session))
  const at = base + 2n ** 32n
  addon.mapRegion(session, 0, pageBytes, 64, at, PlacementCode.block, 0)
  const states = new Uint8Array(regionBuffer(session, 0, RegionPart.states))
  const bytes = new Uint8Array(regionBuffer(session, 0, RegionPart.application))
  states.fill(PageState.write, 0, 20)
  states.fill(PageState.read, 20, 40)
  bytes[18 * pageBytes] = 1
  const raised = mappingAt(at + 18n * 4096n)
  t.ok(
    raised !== undefined && raised.first >= at && raised.end <= at + 20n * 4096n,
    String(raised?.line),
  )
  t.match(raised?.line, /rw-s/)
  t.equal(bytes[39 * pageBytes], 0)
  t.match(mappingAt(at + 39n * 4096n)?.line, /r--s/)
  t.match(mappingAt(at + 40n * 4096n)?.line, /---s/, 'not beyond what the states permit')
})

t.test('a mapping goes with the last buffer over it', async (t) => {
  const { code, stderr, result } = await new Child(t, 'memory', 'collected', {
    nodeArgs: ['--expose-gc'],
  }).ended
  t.equal(code, 0, stderr)
  t.same(result, {
    whileJoined: 2,
    withBuffer: 2,
    withView: 2,
    collected: 0,
  })
})

t.test('buffers that only workers still have keep the memory', async (t) => {
  const { code, stderr, result } = await new Child(t, 'memory', 'keptByWorker', {
    nodeArgs: ['--expose-gc'],
  }).ended
  t.equal(code, 0, stderr)
  t.same(result, { seen: 123, afterwards: 0 })
})

t.test('joining and leaving leaves no descriptor, mapping or thread behind', async (t) => {
  const { code, stderr, result } = await new Child(t, 'memory', 'cycles', {
    nodeArgs: ['--expose-gc'],
    args: { cycles: 10 },
  }).ended
  t.equal(code, 0, stderr)
  t.same(result.descriptorsAfter, result.descriptorsBefore)
  t.equal(result.mappings, 0, 'mappings of regions')
  t.ok(result.threadsAfter <= result.threadsBefore, `threads: ${JSON.stringify(result)}`)
})

t.test('what is larger than a view may be', async (t) => {
  const mesh = await join()
  t.teardown(() => mesh.leave())
  const region = await mesh.region('large', { byteLength: 5 * 2 ** 30 })
  t.equal(region.byteLength, 5 * 2 ** 30)
  const last = region.byteLength - 8
  await region.store(last, 42n)
  t.equal(await region.load(last, 'int64'), 42n, 'word operations reach all of it')
  if (Number(process.versions.node.split('.')[0]) < 22) {
    t.throws(() => region.buffer, { code: 'ERR_PAGEMESH_VIEW_TOO_LARGE', message: /5368709120/ })
    t.throws(() => region.buffer, PagemeshError)
  } else {
    t.equal(new BigInt64Array(region.buffer)[last / 8], 42n)
  }
  const small = await mesh.region('small', { byteLength: 100 })
  t.equal(small.buffer.byteLength, 100, 'the mesh goes on')
})

t.test('a region of exactly 4 GiB has a view', async (t) => {
  const mesh = await join()
  t.teardown(() => mesh.leave())
  const region = await mesh.region('full', { byteLength: 2 ** 32 })
  const words = new Float64Array(region.buffer)
  words[words.length - 1] = 1.5
  t.equal(words[2 ** 29 - 1], 1.5)
})
