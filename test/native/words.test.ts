import { constants } from 'node:os'
import t, { type Test } from 'tap'
import { ENTRY_WORDS, EventKind, Ring, whole } from '../../dist/engine/ring.js'
import { LinkWay, loadAddon, type WordsKey } from '../../dist/native/addon.js'
import { chooseRdmaPort } from '../../dist/native/rdma-devices.js'

// One process that changes its own words by RDMA, through a queue pair whose other end is itself.
// Where there is no device nothing is shared, and nothing is changed.

const host = process.env.PAGEMESH_HOST ?? '127.0.0.1'
const overVerbs = process.env.PAGEMESH_TRANSPORT === 'verbs'
const addon = loadAddon()
const region = 3
const pageBytes = 4096

/**
 * How a device refuses: as the one that is asked, by IBV_WC_REM_INV_REQ_ERR or
 * IBV_WC_REM_ACCESS_ERR, which stand behind the first reason for a failed link; or at once.
 */
const refusals = [2000 + 9, 2000 + 10, constants.errno.EINVAL]

class Device {
  readonly session: number
  readonly key: WordsKey
  private readonly events = new Uint32Array(64 * ENTRY_WORDS)
  private readonly ring: Ring
  private readonly results = new Map<number, bigint>()
  closedBy: { rank: number; reason: number } | undefined
  private nextRequest = 1

  constructor(t: Test) {
    this.session = addon.sessionCreate(0, 1, 0, -1)
    t.teardown(() => addon.sessionDestroy(this.session))
    this.ring = new Ring(addon, this.session, () => 1)
    const choice = chooseRdmaPort(addon.rdmaDevices(), host, undefined, true)
    if ('obstacle' in choice) throw new Error(choice.obstacle)
    addon.openLinks(this.session, 0, choice.device, choice.port, choice.gidIndex)
    const key = addon.mapWords(this.session, region, pageBytes, 2, true)
    if (key === undefined) throw new Error('the words are not shared')
    this.key = key
  }

  add(address: bigint, operand: bigint, rkey = this.key.rkey): number {
    this.ring.word(0, this.nextRequest, false, rkey, address, operand, 0n)
    return this.nextRequest++
  }

  compare(address: bigint, expected: bigint, operand: bigint): number {
    this.ring.word(0, this.nextRequest, true, this.key.rkey, address, operand, expected)
    return this.nextRequest++
  }

  /** Runs until the results of these requests have come, or the link has failed. */
  outcome(requests: number[]): (bigint | undefined)[] {
    this.ring.flush()
    const none = new Uint32Array(0)
    const bytes = new Uint8Array(8)
    for (let round = 0; round < 100 && this.closedBy === undefined; round++) {
      if (requests.every((request) => this.results.has(request))) break
      const { session, events } = this
      const call = Int32Array.of(0, 1000, 0, 0, 0)
      const count = addon.exchange(session, call, none, bytes, events, bytes)
      for (let i = 0; i < count; i++) this.take(events.subarray(i * ENTRY_WORDS))
    }
    return requests.map((request) => this.results.get(request))
  }

  private take([kind, first, second, third]: Uint32Array): void {
    if (kind === EventKind.word) this.results.set(first, whole(second, third))
    if (kind === EventKind.closed) this.closedBy = { rank: second - 1, reason: third }
  }
}

if (overVerbs) {
  t.test('a word of its own', async (t) => {
    const device = new Device(t)
    const at = device.key.address + 4096n + 16n
    t.same(device.outcome([device.add(at, 5n), device.add(at, -7n), device.add(at, 0n)]), [
      0n,
      5n,
      2n ** 64n - 2n,
    ])
    const tries = [device.compare(at, 5n, 9n), device.compare(at, 2n ** 64n - 2n, 9n)]
    t.same(device.outcome([...tries, device.add(at, 0n)]), [2n ** 64n - 2n, 2n ** 64n - 2n, 9n])
    t.equal(addon.linkRecords(device.session, LinkWay.verbs), 0)
  })

  t.test('many more at a time than a queue pair takes, and than there is room for', async (t) => {
    const device = new Device(t)
    const requests = Array.from({ length: 3000 }, () => device.add(device.key.address, 1n))
    const found = device.outcome(requests)
    t.same(
      found,
      requests.map((_, index) => BigInt(index)),
      'all, and in order',
    )
  })

  t.test("the processor does not change the device's words", async (t) => {
    const { session } = new Device(t)
    t.throws(() => addon.atomic(session, region, 0, 0, 64, 2, 1n, 0n), /EBUSY|busy/i)
  })

  t.test('what is not shared is refused, and ends the link', async (t) => {
    const changes: Record<string, (device: Device) => number> = {
      'a wrong key': (device) => device.add(device.key.address, 1n, device.key.rkey ^ 0x5500),
      'a word behind the end': (device) => device.add(device.key.address + 8192n, 1n),
      'a word before the beginning': (device) => device.add(device.key.address - 8n, 1n),
      'an unaligned word': (device) => device.add(device.key.address + 4n, 1n),
      'an address of nothing': (device) => device.compare(0n, 0n, 1n),
      'withdrawn words': (device) => {
        addon.unmapRegion(device.session, region)
        return device.add(device.key.address, 1n)
      },
    }
    for (const [name, change] of Object.entries(changes)) {
      await t.test(name, async (t) => {
        const device = new Device(t)
        t.same(device.outcome([device.add(device.key.address, 1n)]), [0n], 'it works')
        t.same(device.outcome([change(device)]), [undefined])
        t.ok(refusals.includes(device.closedBy?.reason ?? 0), `reason ${device.closedBy?.reason}`)
        t.equal(device.closedBy?.rank, 0, 'itself')
        // No answer comes any more, and nothing breaks.
        t.same(device.outcome([device.add(device.key.address, 1n)]), [undefined])
      })
    }
  })

  t.test('again in the next session', async (t) => {
    const device = new Device(t)
    t.same(device.outcome([device.add(device.key.address, 1n)]), [0n], 'words begin at zero')
  })
} else {
  t.test('no device: nothing is shared', async (t) => {
    const session = addon.sessionCreate(0, 1, 0, -1)
    t.teardown(() => addon.sessionDestroy(session))
    t.equal(addon.mapWords(session, region, pageBytes, 2, true), undefined)
    t.equal(addon.atomic(session, region, 1, 8, 64, 2, 5n, 0n), 0n)
    t.equal(addon.atomic(session, region, 1, 8, 64, 0, 0n, 0n), 5n)
  })
}
