import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { type Test } from 'tap'
import { LinkWay } from '../../../dist/native/addon.js'
import { Kind, RECORD_WORDS, Word } from '../../../dist/protocol/messages.js'
import { encodeRecord, FakeMember, type RawRecord } from '../../cluster/support/fake-member.js'
import { eventually, type Meeting } from '../../cluster/support/members.js'

/** Made by scripts/setup.mjs from test/softroce/fixtures/verbs_peer.c, which tells the orders. */
const program = path.resolve('build/softroce/verbs_peer')

/** Of a queue pair, as it travels; VerbsOffer in native/transport/verbs/verbs_link.h. */
export interface Offer {
  readonly qpNumber: number
  readonly packetNumber: number
  readonly mtu: number
  readonly receiveDepth: number
  readonly atomicsIn: number
  readonly gid: Buffer
}

export function encodeOffer(offer: Offer): Buffer {
  const { qpNumber, packetNumber, mtu, receiveDepth, atomicsIn, gid } = offer
  const numbers = Buffer.alloc(20)
  for (const [index, value] of [qpNumber, packetNumber, mtu, receiveDepth, atomicsIn].entries()) {
    numbers.writeUInt32LE(value, index * 4)
  }
  return Buffer.concat([numbers, gid])
}

function decodeOffer(bytes: Buffer): Offer {
  const [qpNumber, packetNumber, mtu, receiveDepth, atomicsIn] = [0, 4, 8, 12, 16].map((at) =>
    bytes.readUInt32LE(at),
  )
  return { qpNumber, packetNumber, mtu, receiveDepth, atomicsIn, gid: bytes.subarray(20, 36) }
}

/** The first byte of a LinkControl blob; lib/engine/link-setup.ts. */
export const LinkSay = { no: 0, offer: 1, ready: 2, reached: 3 } as const

/** ibv_wc_status, as far as the tests name it. */
export const Status = { success: 0, flushed: 5, invalidRequest: 9, access: 10, retry: 12 } as const

/** Where a page may be written, as requests and recalls say it. */
export interface Frame {
  readonly rkey: number
  readonly address: bigint
}

export interface ReceivedRecord {
  readonly news: number
  readonly bytes: number
  /** By Word; empty if it was news alone. */
  readonly words: number[]
}

/** The immediate data of an answer, a page for the thread in that slot; VerbsImmediate natively. */
export function answerFor(slot: number, view = 1, exclusive = false, credit = 0): string {
  const kind = (1 << 31) | (exclusive ? 1 << 30 : 0)
  return String((kind | (slot << 15) | (view << 9) | credit) >>> 0)
}

/** How many receive buffers a member posts, less those that it keeps for news of credit. */
const honestDepth = 256
const reserve = 8

/** The C program that owns the queue pairs. */
export class VerbsHands {
  private readonly child: ChildProcessWithoutNullStreams
  private readonly lines: string[] = []
  private readonly received = new Map<number, ReceivedRecord[]>()
  private ended = false

  constructor(t: Test) {
    this.child = spawn(program, { stdio: 'pipe' })
    this.child.stdin.on('error', () => undefined) // it may have been killed
    createInterface({ input: this.child.stdout }).on('line', (line) => this.take(line))
    const exited = new Promise<void>((resolve) => {
      this.child.once('close', () => {
        this.ended = true
        resolve()
      })
    })
    this.child.once('error', (error) => this.lines.push(`error ${error.message}`))
    t.teardown(async () => {
      this.child.kill('SIGKILL')
      await exited
    })
  }

  order(line: string): void {
    this.child.stdin.write(`${line}\n`)
  }

  /** The next line that begins so; the words after that. */
  async answer(beginning: string): Promise<string[]> {
    return eventually(`'${beginning}' from the hands`, () => {
      const failed = this.lines.find((line) => line.startsWith('error'))
      if (failed !== undefined) throw new Error(failed)
      const index = this.lines.findIndex((line) => `${line} `.startsWith(`${beginning} `))
      if (index >= 0)
        return this.lines
          .splice(index, 1)[0]
          .slice(beginning.length + 1)
          .split(' ')
      if (this.ended) throw new Error(`the hands ended while '${beginning}' was waited for`)
      return undefined
    })
  }

  /** The next record of that kind that came to queue pair `pair`. */
  async record(pair: number, kind: number): Promise<ReceivedRecord> {
    return eventually(`a record of kind ${kind} by verbs`, () => {
      const records = this.received.get(pair) ?? []
      const index = records.findIndex(({ words }) => words[Word.kind] === kind)
      if (index >= 0) return records.splice(index, 1)[0]
      if (this.ended) throw new Error(`the hands ended while kind ${kind} was waited for`)
      return undefined
    })
  }

  /** Ends as a process does that is killed: its queue pairs go at once. */
  async kill(): Promise<void> {
    this.child.kill('SIGKILL')
    await eventually('the end of the hands', () => (this.ended ? true : undefined))
  }

  private take(line: string): void {
    if (!line.startsWith('received ')) {
      this.lines.push(line)
      return
    }
    const [pair, news, bytes, hex] = line.slice('received '.length).split(' ')
    const raw = Buffer.from(hex === '-' ? '' : hex, 'hex')
    const count = raw.length >= RECORD_WORDS * 4 ? RECORD_WORDS : 0
    const words = Array.from({ length: count }, (_, i) => raw.readUInt32LE(i * 4))
    const records = this.received.get(Number(pair)) ?? []
    records.push({ news: Number(news), bytes: Number(bytes), words })
    this.received.set(Number(pair), records)
  }
}

export interface FakeOptions {
  /** Receives that are posted; as many as an honest member posts if left out. */
  readonly receives?: number
  /** What the offers say instead of the truth. */
  readonly offer?: Partial<Offer>
  /** 7 tries for ever when the receiver is not ready. */
  readonly rnrRetry?: number
}

/** A fake member with a queue pair to each other member: queue pair N is the one to rank N. */
export class VerbsFake {
  private constructor(
    readonly member: FakeMember,
    readonly hands: VerbsHands,
  ) {}

  /** Joins, and agrees on a link with everybody. */
  static async join(t: Test, meeting: Meeting, options: FakeOptions = {}): Promise<VerbsFake> {
    const fake = await VerbsFake.offer(t, meeting, options)
    for (const [rank, peer] of fake.member.peers.entries()) {
      const { payload } = await peer.next(Kind.LinkControl)
      if (payload[0] !== LinkSay.offer) throw new Error(`no link: ${payload.toString()}`)
      const theirs = decodeOffer(payload.subarray(1))
      fake.hands.order(`psn ${rank} ${theirs.packetNumber}`)
      const gid = theirs.gid.toString('hex')
      const credit = theirs.receiveDepth - reserve
      fake.hands.order(
        `connect ${rank} ${theirs.qpNumber} ${theirs.mtu} ${gid} ${credit} ${options.rnrRetry ?? 0}`,
      )
      await fake.hands.answer(`connected ${rank}`)
      // It sends no probe: it is sure of its member.
      for (const say of [LinkSay.ready, LinkSay.reached]) {
        peer.send({ kind: Kind.LinkControl, payload: new Uint8Array([say]) })
        const said = await peer.next(Kind.LinkControl)
        if (said.payload[0] !== say) throw new Error(`no link: ${said.payload.toString()}`)
      }
    }
    return fake
  }

  /** Joins and makes its offers, and leaves it at that. */
  static async offer(t: Test, meeting: Meeting, options: FakeOptions = {}): Promise<VerbsFake> {
    const hands = new VerbsHands(t)
    await hands.answer('ready')
    const member = await FakeMember.joinWithoutLinks(meeting)
    t.teardown(() => member.destroy())
    const fake = new VerbsFake(member, hands)
    for (const [rank, peer] of member.peers.entries()) {
      hands.order(`pair ${rank} ${options.receives ?? honestDepth}`)
      const [qpNumber, mtu, gid] = await hands.answer(`pair ${rank}`)
      const offer = encodeOffer({
        qpNumber: Number(qpNumber),
        packetNumber: 0,
        mtu: Number(mtu),
        receiveDepth: honestDepth,
        atomicsIn: 1,
        gid: Buffer.from(gid, 'hex'),
        ...options.offer,
      })
      await FakeMember.declineLink(peer, LinkWay.shm)
      peer.send({ kind: Kind.LinkControl, payload: Buffer.concat([Buffer.from([1]), offer]) })
    }
    return fake
  }

  /** A SEND to a member; resolves to the status of its completion. */
  async send(rank: number, record: RawRecord, news = 'auto'): Promise<number> {
    return this.sendBytes(rank, encodeRecord(record), news)
  }

  async sendBytes(rank: number, bytes: Buffer, news = 'auto'): Promise<number> {
    const hex = bytes.length === 0 ? '-' : bytes.toString('hex')
    this.hands.order(`send ${rank} ${news} ${bytes.length} ${hex}`)
    return this.sent(rank)
  }

  /** An RDMA WRITE into a member's memory; resolves to the status of its completion. */
  async write(
    rank: number,
    { rkey, address }: Frame,
    lengthBytes: number,
    fill: number,
    news = '',
  ): Promise<number> {
    this.hands.order(`write ${rank} ${rkey} ${address} ${lengthBytes} ${fill} ${news}`)
    return this.sent(rank)
  }

  private async sent(rank: number): Promise<number> {
    const [status] = await this.hands.answer(`sent ${rank}`)
    return Number(status)
  }

  /** Memory of this process that members may write. */
  async memory(lengthBytes: number): Promise<Frame> {
    this.hands.order(`memory ${lengthBytes}`)
    const [rkey, address] = await this.hands.answer('memory')
    return { rkey: Number(rkey), address: BigInt(address) }
  }

  /** What members have written there. */
  async peek(offsetBytes: number, lengthBytes: number): Promise<Buffer> {
    this.hands.order(`peek ${offsetBytes} ${lengthBytes}`)
    return Buffer.from((await this.hands.answer('peek'))[0], 'hex')
  }

  /** A request of the member `rank` for a page that this one homes, and where it wants the page. */
  async request(rank: number, kind: number = Kind.ReadRequest): Promise<{ page: number } & Frame> {
    const { words } = await this.hands.record(rank, kind)
    return { page: words[Word.page], ...frameIn(words, Word.c) }
  }

  async flood(rank: number, count: number, mode: 'credit' | 'reckless', record: RawRecord) {
    this.hands.order(`flood ${rank} ${count} ${mode} ${encodeRecord(record).toString('hex')}`)
    const [sent, failed] = await this.hands.answer(`flooded ${rank}`)
    return { sent: Number(sent), failed: Number(failed) }
  }

  /** The process is gone, as others see it: queue pairs and connections. */
  async kill(): Promise<void> {
    await this.hands.kill()
    this.member.destroy()
  }
}

/** The key of a frame that stands in three words of a record. */
export function frameIn(words: readonly number[], at: number): Frame {
  return { rkey: words[at], address: BigInt(words[at + 1]) | (BigInt(words[at + 2]) << 32n) }
}

/** The words of a request or recall: a, b, and the keys of the requester's frame and the home's. */
export function keyedWords(a: number, requester: Frame, home?: Frame): number[] {
  const wordsOf = ({ rkey, address }: Frame): number[] => [
    rkey,
    Number(address & 0xffffffffn),
    Number(address >> 32n),
  ]
  return [a, 0, ...wordsOf(requester), ...(home === undefined ? [] : wordsOf(home))]
}
