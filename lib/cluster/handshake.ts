import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { PagemeshError } from '../errors.js'
import { parseKey } from './key.js'

/*
 * Four frames on each new connection; multi-byte numbers are big-endian.
 *
 *   client  Hello      'PGMH'  version u16  rank u16  size u16  nonce 32
 *   server  Challenge  'C'  rank u16  nonce 32  mac 32
 *   client  Proof      'P'  mac 32
 *   server  Verdict    'V'  verdict u8  size u16  mac 32      0 is welcome, else why not
 *
 * Each mac is HMAC-SHA-256 under the mesh's key of: the sender's part in the handshake, as words;
 * Hello; Challenge without its mac; and for the Verdict its own bytes. The words keep one frame's
 * mac from serving as another's (reflection), the nonces keep an old one from serving again, and
 * both ranks are covered from the Challenge on.
 *
 * A server of another version answers instead: 'X'  version u16. Magic and version keep their
 * place in all versions.
 */

/** The version of everything that members say to one another. */
export const protocolVersion = 1
/** No frame of a handshake is longer. */
export const maxHandshakeFrameBytes = 1024

const magic = Buffer.from('PGMH')
const nonceBytes = 32
const macBytes = 32
const helloBytes = 10 + nonceBytes
const challengeBodyBytes = 3 + nonceBytes
const challengeBytes = challengeBodyBytes + macBytes
const proofBytes = 1 + macBytes
const verdictBodyBytes = 4
const verdictBytes = verdictBodyBytes + macBytes
const otherVersionBytes = 3

const tagChallenge = 0x43
const tagProof = 0x50
const tagVerdict = 0x56
const tagOtherVersion = 0x58

/** Why a process that holds the key is not let in. */
export type RejectReason = 'rank-taken' | 'size-mismatch' | 'rank-out-of-range' | 'not-expected'

/** The verdict's number for a reason is its index here; 0 is welcome. */
const verdicts: readonly (RejectReason | undefined)[] = [
  undefined,
  'rank-taken',
  'size-mismatch',
  'rank-out-of-range',
  'not-expected',
]

/** Gives that many unpredictable bytes. Tests pass their own. */
export type RandomSource = (lengthBytes: number) => Uint8Array

/** What the connecting side does next. */
export type ClientStep =
  | { state: 'more'; send?: Uint8Array }
  | { state: 'done'; peerRank: number }
  | { state: 'failed'; error: PagemeshError }

/** What the accepting side does next; `send` goes out first, also before closing. */
export type ServerStep =
  | { state: 'more'; send: Uint8Array }
  | { state: 'done'; peerRank: number; send: Uint8Array }
  | { state: 'failed'; error: PagemeshError; send?: Uint8Array }

export interface ClientHandshakeOptions {
  key: Uint8Array
  rank: number
  size: number
  /** Who must answer. Without it any other member may. */
  expectedRank?: number
  random?: RandomSource
}

export interface ServerHandshakeOptions {
  key: Uint8Array
  rank: number
  size: number
  /** Asked once the other side has proved that it holds the key; undefined lets it in. */
  decide: (rank: number, size: number) => RejectReason | undefined
  random?: RandomSource
}

/** The side that connected. One object per connection; `receive` never throws. */
export class ClientHandshake {
  readonly #options: ClientHandshakeOptions
  readonly #hello: Buffer
  /** Empty until the server has proved itself. */
  #challengeBody = Buffer.alloc(0)
  #peerRank = -1
  #next: 'challenge' | 'verdict' | 'nothing' = 'challenge'

  constructor(options: ClientHandshakeOptions) {
    this.#options = { ...options, key: parseKey(options.key) }
    this.#hello = Buffer.alloc(helloBytes)
    magic.copy(this.#hello)
    this.#hello.writeUInt16BE(protocolVersion, 4)
    this.#hello.writeUInt16BE(options.rank, 6)
    this.#hello.writeUInt16BE(options.size, 8)
    this.#hello.set(nonce(options.random), 10)
  }

  /** The frame to send when the connection is open. */
  start(): Uint8Array {
    return this.#hello
  }

  receive(frame: Uint8Array): ClientStep {
    const next = this.#next
    this.#next = 'nothing'
    if (next === 'challenge') return this.#receiveChallenge(asBuffer(frame))
    if (next === 'verdict') return this.#receiveVerdict(asBuffer(frame))
    return failed(malformed('a frame after the end of the handshake'))
  }

  #receiveChallenge(frame: Buffer): ClientStep {
    if (frame.length === otherVersionBytes && frame[0] === tagOtherVersion) {
      return failed(versionMismatch(frame.readUInt16BE(1)))
    }
    if (frame.length !== challengeBytes || frame[0] !== tagChallenge) {
      return failed(malformed(`no challenge (${frame.length} bytes)`))
    }
    const body = Buffer.from(frame.subarray(0, challengeBodyBytes))
    const { key, rank, expectedRank } = this.#options
    if (!isMac(frame.subarray(challengeBodyBytes), key, 'server', this.#hello, body)) {
      return failed(
        new PagemeshError(
          'ERR_PAGEMESH_WRONG_KEY',
          'the process that answers does not hold the same key: start all members of a mesh ' +
            'with the same PAGEMESH_KEY',
        ),
      )
    }
    const peerRank = body.readUInt16BE(1)
    if (peerRank === rank || peerRank !== (expectedRank ?? peerRank)) {
      return failed(wrongMember(peerRank, rank, expectedRank))
    }
    this.#challengeBody = body
    this.#peerRank = peerRank
    this.#next = 'verdict'
    const proof = Buffer.alloc(proofBytes)
    proof[0] = tagProof
    proof.set(mac(key, 'client', this.#hello, body), 1)
    return { state: 'more', send: proof }
  }

  #receiveVerdict(frame: Buffer): ClientStep {
    if (frame.length !== verdictBytes || frame[0] !== tagVerdict) {
      return failed(malformed(`no verdict (${frame.length} bytes)`))
    }
    const body = frame.subarray(0, verdictBodyBytes)
    const { key, rank, size } = this.#options
    const sent = frame.subarray(verdictBodyBytes)
    if (!isMac(sent, key, 'verdict', this.#hello, this.#challengeBody, body)) {
      return failed(malformed('a verdict that is not from the member that began the handshake'))
    }
    const verdict = body.readUInt8(1)
    if (verdict >= verdicts.length) return failed(malformed(`the unknown verdict ${verdict}`))
    const reason = verdicts[verdict]
    if (reason === undefined) return { state: 'done', peerRank: this.#peerRank }
    return failed(rejectedAs(reason, rank, size, this.#peerRank, body.readUInt16BE(2)))
  }
}

/** The side that accepted. One object per connection; `receive` never throws. */
export class ServerHandshake {
  readonly #options: ServerHandshakeOptions
  #hello = Buffer.alloc(0)
  #challengeBody = Buffer.alloc(0)
  #next: 'hello' | 'proof' | 'nothing' = 'hello'

  constructor(options: ServerHandshakeOptions) {
    this.#options = { ...options, key: parseKey(options.key) }
  }

  receive(frame: Uint8Array): ServerStep {
    const next = this.#next
    this.#next = 'nothing'
    if (next === 'hello') return this.#receiveHello(asBuffer(frame))
    if (next === 'proof') return this.#receiveProof(asBuffer(frame))
    return failed(malformed('a frame after the end of the handshake'))
  }

  #receiveHello(frame: Buffer): ServerStep {
    const isHello =
      frame.length >= 6 &&
      frame.length <= maxHandshakeFrameBytes &&
      magic.equals(frame.subarray(0, 4))
    if (!isHello) return failed(malformed(`no hello (${frame.length} bytes)`))
    const version = frame.readUInt16BE(4)
    if (version !== protocolVersion) {
      const send = Buffer.alloc(otherVersionBytes)
      send[0] = tagOtherVersion
      send.writeUInt16BE(protocolVersion, 1)
      return { state: 'failed', error: versionMismatch(version), send }
    }
    if (frame.length !== helloBytes) return failed(malformed(`a hello of ${frame.length} bytes`))
    this.#hello = Buffer.from(frame)
    this.#challengeBody = Buffer.alloc(challengeBodyBytes)
    this.#challengeBody[0] = tagChallenge
    this.#challengeBody.writeUInt16BE(this.#options.rank, 1)
    this.#challengeBody.set(nonce(this.#options.random), 3)
    this.#next = 'proof'
    const proof = mac(this.#options.key, 'server', this.#hello, this.#challengeBody)
    return { state: 'more', send: Buffer.concat([this.#challengeBody, proof]) }
  }

  #receiveProof(frame: Buffer): ServerStep {
    if (frame.length !== proofBytes || frame[0] !== tagProof) {
      return failed(malformed(`no proof (${frame.length} bytes)`))
    }
    const { key, size, rank, decide } = this.#options
    if (!isMac(frame.subarray(1), key, 'client', this.#hello, this.#challengeBody)) {
      return failed(
        new PagemeshError('ERR_PAGEMESH_WRONG_KEY', 'a process that does not hold the key'),
      )
    }
    const peerRank = this.#hello.readUInt16BE(6)
    const peerSize = this.#hello.readUInt16BE(8)
    const reason = decide(peerRank, peerSize)
    const body = Buffer.alloc(verdictBodyBytes)
    body[0] = tagVerdict
    body[1] = verdicts.indexOf(reason)
    body.writeUInt16BE(size, 2)
    const proof = mac(key, 'verdict', this.#hello, this.#challengeBody, body)
    const send = Buffer.concat([body, proof])
    if (reason === undefined) return { state: 'done', peerRank, send }
    return { state: 'failed', error: rejectedAs(reason, peerRank, peerSize, rank, size), send }
  }
}

type MacRole = 'server' | 'client' | 'verdict'

function mac(key: Uint8Array, role: MacRole, ...parts: readonly Uint8Array[]): Buffer {
  // Every part has a fixed length and the words end in a zero byte: one reading only.
  const hmac = createHmac('sha256', key).update(`pagemesh ${role} v${protocolVersion}\0`)
  for (const part of parts) hmac.update(part)
  return hmac.digest()
}

function isMac(
  sent: Uint8Array,
  key: Uint8Array,
  role: MacRole,
  ...parts: readonly Uint8Array[]
): boolean {
  return sent.length === macBytes && timingSafeEqual(sent, mac(key, role, ...parts))
}

function nonce(random: RandomSource = randomBytes): Uint8Array {
  const bytes = random(nonceBytes)
  if (bytes.length !== nonceBytes) {
    throw new PagemeshError(
      'ERR_PAGEMESH_INVALID_ARGUMENT',
      `random gave ${bytes.length} bytes instead of ${nonceBytes}`,
    )
  }
  return bytes
}

function asBuffer(frame: Uint8Array): Buffer {
  return Buffer.from(frame.buffer, frame.byteOffset, frame.byteLength)
}

function failed(error: PagemeshError): { state: 'failed'; error: PagemeshError } {
  return { state: 'failed', error }
}

function malformed(what: string): PagemeshError {
  return new PagemeshError(
    'ERR_PAGEMESH_PROTOCOL',
    `the other side does not speak pagemesh's handshake: it sent ${what}`,
  )
}

function versionMismatch(version: number): PagemeshError {
  return new PagemeshError(
    'ERR_PAGEMESH_VERSION_MISMATCH',
    `the other side speaks protocol version ${version}, this one ${protocolVersion}: ` +
      'install the same release of pagemesh for all members',
  )
}

function wrongMember(
  peerRank: number,
  rank: number,
  expectedRank: number | undefined,
): PagemeshError {
  const expected = expectedRank === undefined ? 'another member' : `member ${expectedRank}`
  const found =
    peerRank === rank ? `a process of this one's own rank ${rank}` : `member ${peerRank}`
  return new PagemeshError(
    'ERR_PAGEMESH_JOIN_FAILED',
    `${found} answers where ${expected} should: check that PAGEMESH_RENDEZVOUS is the address ` +
      'of rank 0 and that every member has its own PAGEMESH_RANK',
    { rank: peerRank },
  )
}

/** One message for both sides: `rank` and `size` are the newcomer's. */
function rejectedAs(
  reason: RejectReason,
  rank: number,
  size: number,
  serverRank: number,
  serverSize: number,
): PagemeshError {
  switch (reason) {
    case 'rank-taken':
      return new PagemeshError(
        'ERR_PAGEMESH_RANK_TAKEN',
        `another process has rank ${rank} in this mesh: give every member its own PAGEMESH_RANK, ` +
          `from 0 to ${serverSize - 1}`,
        { rank },
      )
    case 'size-mismatch':
      return new PagemeshError(
        'ERR_PAGEMESH_SIZE_MISMATCH',
        `member ${rank} was started for a mesh of ${size}, member ${serverRank} for a mesh of ` +
          `${serverSize}: start all members with the same PAGEMESH_SIZE`,
        { rank },
      )
    case 'rank-out-of-range':
      return new PagemeshError(
        'ERR_PAGEMESH_OUT_OF_RANGE',
        `rank ${rank} is not in a mesh of ${serverSize}: ranks are 0 to ${serverSize - 1}`,
        { rank },
      )
    case 'not-expected':
      return new PagemeshError(
        'ERR_PAGEMESH_JOIN_FAILED',
        `member ${serverRank} connects to member ${rank} itself, not the other way round: ` +
          'check that PAGEMESH_RENDEZVOUS is the address of rank 0',
        { rank },
      )
  }
}
