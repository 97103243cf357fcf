import { connect, createServer, type Socket } from 'node:net'
import { once } from 'node:events'
import { ClientHandshake } from '../../../dist/cluster/handshake.js'
import { parseKey } from '../../../dist/cluster/key.js'
import { LinkWay } from '../../../dist/native/addon.js'
import { Kind, RECORD_WORDS, Word } from '../../../dist/protocol/messages.js'
import { eventually, type Meeting, publishedAddress, within } from './members.js'

const recordBytes = RECORD_WORDS * 4

export interface RawRecord {
  kind: number
  view?: number
  region?: number
  page?: number
  /** a, b, c … */
  words?: number[]
  payload?: Uint8Array | string
  /** What the record says of its payload's length, if that is not the truth. */
  payloadBytes?: number
}

/** A record as it goes over the wire; native/transport/wire.h. */
export function encodeRecord(record: RawRecord): Buffer {
  const payload = Buffer.from((record.payload ?? '') as string)
  const head = Buffer.alloc(recordBytes)
  const write = (word: number, value: number): number => head.writeUInt32LE(value >>> 0, word * 4)
  write(Word.payloadBytes, record.payloadBytes ?? payload.length)
  write(Word.kind, record.kind)
  write(Word.view, record.view ?? 1)
  write(Word.region, record.region ?? 0)
  write(Word.page, record.page ?? 0)
  for (const [index, value] of (record.words ?? []).entries()) write(Word.a + index, value)
  return Buffer.concat([head, payload])
}

/** A connection to a member that says what a test wants it to say. */
export class RawPeer {
  closed = false
  private received = Buffer.alloc(0)
  private readonly records: { kind: number; words: number[]; payload: Buffer }[] = []

  private constructor(readonly socket: Socket) {
    socket.on('data', (bytes) => this.take(bytes))
    socket.on('error', () => (this.closed = true))
    socket.on('close', () => (this.closed = true))
  }

  /** A connection to rank 0. */
  static async connect(meeting: Meeting): Promise<RawPeer> {
    const address = await eventually('rank 0', () => {
      try {
        return publishedAddress(meeting)
      } catch {
        return undefined // not published yet
      }
    })
    return RawPeer.connectTo(address)
  }

  static async connectTo(address: { host: string; port: number }): Promise<RawPeer> {
    const socket = connect(address)
    await within(once(socket, 'connect'), 'a connection')
    return new RawPeer(socket)
  }

  send(record: RawRecord): void {
    this.sendBytes(encodeRecord(record))
  }

  sendBytes(bytes: Uint8Array | string): void {
    if (!this.closed) this.socket.write(bytes)
  }

  async next(kind: number): Promise<{ kind: number; words: number[]; payload: Buffer }> {
    return eventually(`a record of kind ${kind}`, () => {
      const index = this.records.findIndex((record) => record.kind === kind)
      if (index >= 0) return this.records.splice(index, 1)[0]
      if (this.closed) throw new Error(`closed while waiting for a record of kind ${kind}`)
      return undefined
    })
  }

  async untilClosed(): Promise<void> {
    await eventually('the end of the connection', () => (this.closed ? true : undefined))
  }

  destroy(): void {
    this.socket.destroy()
  }

  private take(bytes: Buffer): void {
    this.received = Buffer.concat([this.received, bytes])
    while (this.received.length >= recordBytes) {
      const end = recordBytes + this.received.readUInt32LE(0)
      if (this.received.length < end) return
      const words = Array.from({ length: RECORD_WORDS }, (_, i) =>
        this.received.readUInt32LE(i * 4),
      )
      const payload = Buffer.from(this.received.subarray(recordBytes, end))
      this.records.push({ kind: words[Word.kind], words, payload })
      this.received = this.received.subarray(end)
    }
  }
}

/** Proves over a fresh connection that it is a member. */
async function shakeHands(peer: RawPeer, meeting: Meeting, rank: number): Promise<void> {
  const { size } = meeting
  const handshake = new ClientHandshake({ key: parseKey(meeting.key), rank, size })
  peer.send({ kind: Kind.Cluster, payload: handshake.start() })
  for (;;) {
    const { payload } = await peer.next(Kind.Cluster)
    const step = handshake.receive(payload)
    if (step.state === 'done') return
    if (step.state === 'failed') throw step.error
    if (step.send !== undefined) peer.send({ kind: Kind.Cluster, payload: step.send })
  }
}

/** Holds the key, joins as the last rank, and can then say anything. */
export class FakeMember {
  private constructor(
    /** The connection to rank 0. */
    readonly peer: RawPeer,
    readonly rank: number,
    /** The connections to all others, by rank. */
    readonly peers: RawPeer[],
  ) {}

  /** Goes as far as the handshake with rank 0. */
  static async authenticate(meeting: Meeting): Promise<FakeMember> {
    const peer = await RawPeer.connect(meeting)
    const rank = meeting.size - 1
    await shakeHands(peer, meeting, rank)
    return new FakeMember(peer, rank, [peer])
  }

  /** Is connected to all, and has said nothing about links. */
  static async joinWithoutLinks(meeting: Meeting): Promise<FakeMember> {
    const fake = await FakeMember.authenticate(meeting)
    fake.say({ type: 'register', host: '127.0.0.1', port: 9 })
    const { payload } = await fake.peer.next(Kind.Cluster)
    const { addresses } = JSON.parse(payload.toString()) as {
      addresses: { host: string; port: number }[]
    }
    for (let rank = 1; rank < fake.rank; rank++) {
      const peer = await RawPeer.connectTo(addresses[rank])
      await shakeHands(peer, meeting, fake.rank)
      fake.peers.push(peer)
    }
    fake.say({ type: 'ready' })
    await fake.peer.next(Kind.Cluster) // go
    return fake
  }

  static async join(meeting: Meeting): Promise<FakeMember> {
    const fake = await FakeMember.joinWithoutLinks(meeting)
    for (const peer of fake.peers) {
      for (const way of [LinkWay.shm, LinkWay.verbs]) await FakeMember.declineLink(peer, way)
    }
    return fake
  }

  /** No link of this kind, thank you. */
  static async declineLink(peer: RawPeer, way: LinkWay): Promise<void> {
    peer.send({ kind: Kind.LinkControl, payload: new Uint8Array([way << 4]) })
    await peer.next(Kind.LinkControl)
  }

  say(frame: unknown): void {
    this.peer.send({ kind: Kind.Cluster, payload: JSON.stringify(frame) })
  }

  sayOfRegions(message: unknown): void {
    const payload = typeof message === 'string' ? message : JSON.stringify(message)
    this.peer.send({ kind: Kind.RegionControl, payload })
  }

  /** Maps the regions that the coordinator asks it to map, without any memory. */
  async answerMap(): Promise<number> {
    const { payload } = await this.peer.next(Kind.RegionControl)
    const { region } = JSON.parse(payload.toString()) as { region: { id: number } }
    this.sayOfRegions({ type: 'mapped', id: region.id, errno: 0 })
    return region.id
  }

  /** Agrees to how the words of a region are changed. */
  async answerAgree(id: number): Promise<void> {
    await this.peer.next(Kind.RegionControl)
    this.sayOfRegions({ type: 'agreed', id })
  }

  /** Ends like a process that is killed. */
  destroy(): void {
    for (const peer of this.peers) peer.destroy()
  }
}

/** Something that is no member listens; gives its port. */
export async function startStranger(answer: string): Promise<{ port: number; stop: () => void }> {
  const server = createServer((socket) => {
    socket.on('error', () => undefined)
    socket.end(answer)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  return { port, stop: () => server.close() }
}
