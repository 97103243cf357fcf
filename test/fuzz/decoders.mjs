// The decoders in TypeScript that read what a peer, or whoever starts a member, has written.
import { ClientHandshake, ServerHandshake } from '../../dist/cluster/handshake.js'
import { readLaunchOptions } from '../../dist/cluster/launch-environment.js'
import { parseMessage } from '../../dist/engine/region-messages.js'
import { PagemeshError } from '../../dist/errors.js'

const isTyped = (error) => error instanceof PagemeshError
const inFile = (name) => (url) => url.endsWith(name)

const key = new Uint8Array(32).fill(7)
const nonce = (lengthBytes) => new Uint8Array(lengthBytes).fill(9)
const server = () =>
  new ServerHandshake({ key, rank: 0, size: 4, decide: () => undefined, random: nonce })
const client = () => new ClientHandshake({ key, rank: 1, size: 4, random: nonce })

/** Frames with their lengths before them. */
function framesOf(bytes) {
  const frames = []
  for (let at = 0; at < bytes.length && frames.length < 8;) {
    const end = at + 1 + bytes[at]
    frames.push(bytes.subarray(at + 1, end))
    at = end
  }
  return frames
}
const framed = (...frames) =>
  Buffer.concat(frames.flatMap((frame) => [Buffer.from([frame.length]), frame]))

/** What an honest client and an honest server say: the nonces are always the same. */
function transcript() {
  const [asking, answering] = [client(), server()]
  const hello = asking.start()
  const challenge = answering.receive(hello).send
  const proof = asking.receive(challenge).send
  const verdict = answering.receive(proof).send
  return { toServer: framed(hello, proof), toClient: framed(challenge, verdict) }
}

function receiveAll(side, bytes) {
  for (const frame of framesOf(bytes)) {
    const step = side.receive(frame) // never throws
    if (step.state === 'failed' && !isTyped(step.error)) throw step.error
    if (!['more', 'done', 'failed'].includes(step.state)) throw new Error(`state ${step.state}`)
  }
}

const shape = '"name":"r","byteLength":8192,"pageBytes":4096,"placement":{"rank":1},"words":"paged"'
const regionMessages = [
  `{"type":"open","question":1,"shape":{${shape}}}`,
  `{"type":"map","region":{${shape},"id":3,"base":"71000"}}`,
  '{"type":"mapped","id":3,"errno":0,"key":{"rkey":5,"address":"4096"}}',
  '{"type":"agree","id":3,"keys":[{"rkey":5,"address":"4096"}]}',
  '{"type":"agree","id":3,"keys":null}',
  '{"type":"agreed","id":3}',
  '{"type":"refused","question":1,"code":"ERR_PAGEMESH_PROTOCOL","message":"m","rank":1}',
]

export const decoders = {
  'region-messages': {
    decode: (bytes) => parseMessage(bytes.length % 2, bytes),
    isExpected: isTyped,
    isOurs: inFile('/engine/region-messages.js'),
    seeds: regionMessages.map((text) => Buffer.from(text)),
    words: ['"type":', '"id":', 'null', '-1', '1e999', '[]', '{}', '"block"', '"atomic"', '\xff'],
  },
  'handshake-server': {
    decode: (bytes) => receiveAll(server(), bytes),
    isExpected: () => false,
    isOurs: inFile('/cluster/handshake.js'),
    seeds: [transcript().toServer],
    words: ['PGMH', 'P', '\x00\x01', '\xff\xff'],
  },
  'handshake-client': {
    decode: (bytes) => receiveAll(client(), bytes),
    isExpected: () => false,
    isOurs: inFile('/cluster/handshake.js'),
    seeds: [transcript().toClient],
    words: ['C', 'V', 'X', '\x00\x01', '\xff\xff'],
  },
  'launch-environment': {
    decode: (bytes) => {
      const lines = bytes.toString('latin1').split('\n')
      const pairs = lines.map((line) => [line.split('=', 1)[0], line.slice(line.indexOf('=') + 1)])
      return readLaunchOptions(Object.fromEntries(pairs))
    },
    isExpected: isTyped,
    isOurs: (url) => /\/cluster\/(launch-environment|key|rdma-device)\.js$/.test(url),
    seeds: [
      `PAGEMESH_RANK=1\nPAGEMESH_SIZE=2\nPAGEMESH_KEY=${'ab'.repeat(32)}\nPAGEMESH_RENDEZVOUS=file:/tmp/r`,
      'PAGEMESH_RANK=0\nPAGEMESH_SIZE=1\nPAGEMESH_HOST=[::1]\nPAGEMESH_TRANSPORT=auto',
      'PAGEMESH_RDMA_DEVICE=rxe0:1:1\nPAGEMESH_RENDEZVOUS=[::1]:80\nPAGEMESH_JOIN_TIMEOUT_MS=5',
    ].map((text) => Buffer.from(text)),
    words: ['PAGEMESH_', 'file:///', '127.0.0.1:', '[::1]:', '-1', '1e3', '\x00'],
  },
}

/** Wrong on purpose: what must be found, a byte at a time. */
export const planted = {
  decode: (bytes) => {
    if (bytes[0] !== 0x50) return 0
    if (bytes[1] !== 0x47) return 1
    if (bytes[2] !== 0x4d) return 2
    return bytes[9999].length
  },
  isExpected: isTyped,
  isOurs: inFile('/fuzz/decoders.mjs'),
  seeds: [Buffer.from('hello')],
  words: ['P', 'G', 'M'],
}
