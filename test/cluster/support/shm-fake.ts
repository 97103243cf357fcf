import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import * as fs from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { LinkWay } from '../../../dist/native/addon.js'
import { Kind } from '../../../dist/protocol/messages.js'
import { encodeRecord, FakeMember, type RawRecord } from './fake-member.js'
import type { Meeting } from './members.js'

/** The functions of shm-hands.c. */
interface Hands {
  listen(name: Uint8Array): boolean
  connect(name: Uint8Array): boolean
  hello(message: Uint8Array, ringBytes: number, bellBytes: number, what: number): boolean
  put(offset: number, bytes: Uint8Array): boolean
  region(message: Uint8Array, bytes: number, sealed: number): boolean
  say(message: Uint8Array): boolean
}

/** Where things are; native/transport/shm/shm_socket.h, shm_ring.h and native/base/bell.h. */
export const ringBytes = 128 + 1024 * 64
export const bellBytes = 128 + 2048 * 8 + 64 + 64 // slots, the program, the barrier
const recordsAt = 128
const version = 2
const nameAt = 24
const tokenAt = 56
const offerBytes = 72

const say = (what: number): number => what | (LinkWay.shm << 4)
const offerSay = say(1)
const readySay = say(2)
const reachedSay = say(3)
export const noSay = say(0)

const folder = fs.mkdtempSync(path.join(tmpdir(), 'shm-hands-'))
process.on('exit', () => fs.rmSync(folder, { recursive: true, force: true }))
const library = path.join(folder, 'shm-hands.node')
const source = fileURLToPath(new URL('shm-hands.c', import.meta.url))
execFileSync('cc', ['-O1', '-Wall', '-Wextra', '-shared', '-fPIC', '-o', library, source])
const hands = createRequire(import.meta.url)(library) as Hands

export interface ShmFakeOptions {
  /** What it hands over with its hello. */
  readonly ringBytes?: number
  readonly bellBytes?: number
  /** 1: a ring that may shrink; 2: a descriptor too few; 3: one too many. */
  readonly what?: number
  readonly version?: number
  readonly rank?: number
  readonly token?: 'wrong'
  /** It says that it has connected, and has not. */
  readonly silent?: boolean
}

/** A member on the same host, of rank 1 of two, that can say anything. */
export class ShmFake {
  private constructor(
    readonly member: FakeMember,
    private readonly theirs: Buffer,
  ) {}

  /** Joins, tells of its memory and hands it over; then its member has settled what it thinks. */
  static async join(meeting: Meeting, options: ShmFakeOptions = {}): Promise<ShmFake> {
    const member = await FakeMember.joinWithoutLinks(meeting)
    const { payload } = await member.peer.next(Kind.LinkControl)
    if (payload[0] !== offerSay || payload.length !== 1 + offerBytes) {
      throw new Error(`no offer of memory: ${payload.toString('hex')}`)
    }
    const theirs = Buffer.from(payload.subarray(1))
    const mine = Buffer.from(theirs)
    const name = Buffer.from(randomBytes(16).toString('hex'))
    name.copy(mine, nameAt)
    if (!hands.listen(name)) throw new Error('cannot listen')
    const fake = new ShmFake(member, theirs)
    fake.link(offerSay, mine)
    await fake.hears(readySay)
    fake.handOver(options)
    fake.link(readySay)
    return fake
  }

  /** Both sides have found each other: the link is in use. */
  async agree(): Promise<void> {
    await this.hears(reachedSay)
    this.link(reachedSay)
  }

  /** The member has no use for what it was handed over; both go on without memory. */
  async isRefused(): Promise<string> {
    const { payload } = await this.member.peer.next(Kind.LinkControl)
    if (payload[0] !== noSay) throw new Error(`not refused: ${payload.toString('hex')}`)
    this.link(noSay)
    await FakeMember.declineLink(this.member.peer, LinkWay.verbs)
    return payload.subarray(1).toString()
  }

  /** Puts records into the ring, or the counter to a number that cannot be. */
  send(...records: RawRecord[]): void {
    for (const [index, record] of records.entries()) {
      hands.put(recordsAt + 64 * index, encodeRecord(record).subarray(0, 64))
    }
    this.setSent(records.length)
  }

  setSent(count: number): void {
    const bytes = Buffer.alloc(4)
    bytes.writeUInt32LE(count >>> 0)
    hands.put(0, bytes)
    this.member.peer.send({ kind: Kind.Heartbeat }) // wakes the engine
  }

  /** Tells of a region's memory. */
  tellRegion(region: number, frames: number, total: number, actual = total, sealed = 1): void {
    const message = Buffer.alloc(24)
    message.writeUInt32LE(region, 0)
    message.writeBigUInt64LE(BigInt(frames), 8)
    message.writeBigUInt64LE(BigInt(total), 16)
    hands.region(message, actual, sealed)
  }

  sayOverSocket(message: Uint8Array): void {
    hands.say(message)
  }

  private handOver(options: ShmFakeOptions): void {
    if (options.silent === true) return
    if (!hands.connect(this.theirs.subarray(nameAt, tokenAt))) throw new Error('cannot connect')
    const hello = Buffer.alloc(24)
    hello.writeUInt32LE(options.version ?? version, 0)
    hello.writeUInt32LE(options.rank ?? 1, 4)
    if (options.token !== 'wrong') this.theirs.copy(hello, 8, tokenAt, offerBytes)
    const { ringBytes: ring = ringBytes, bellBytes: bell = bellBytes, what = 0 } = options
    if (!hands.hello(hello, ring, bell, what)) throw new Error('cannot say hello')
  }

  private link(what: number, payload: Uint8Array = new Uint8Array()): void {
    const blob = Buffer.concat([Buffer.from([what]), payload])
    this.member.peer.send({ kind: Kind.LinkControl, payload: blob })
  }

  private async hears(what: number): Promise<void> {
    const { payload } = await this.member.peer.next(Kind.LinkControl)
    if (payload[0] !== what) throw new Error(`${what} was to come: ${payload.toString()}`)
  }
}
