import t from 'tap'
import {
  ClientHandshake,
  type ClientHandshakeOptions,
  type ClientStep,
  maxHandshakeFrameBytes,
  protocolVersion,
  ServerHandshake,
  type ServerHandshakeOptions,
  type ServerStep,
} from '../../dist/cluster/handshake.js'
import { formatKey, generateKey, parseKey } from '../../dist/cluster/key.js'

const key = new Uint8Array(32).fill(7)
const otherKey = new Uint8Array(32).fill(8)

function clientOf(options: Partial<ClientHandshakeOptions> = {}): ClientHandshake {
  return new ClientHandshake({ key, rank: 2, size: 4, ...options })
}

function serverOf(options: Partial<ServerHandshakeOptions> = {}): ServerHandshake {
  return new ServerHandshake({ key, rank: 0, size: 4, decide: () => undefined, ...options })
}

interface Transcript {
  hello: Uint8Array
  challenge: Uint8Array
  proof: Uint8Array
  verdict: Uint8Array
  client: ClientStep
  server: ServerStep
}

function sent(step: ClientStep | ServerStep): Uint8Array {
  const send = 'send' in step ? step.send : undefined
  if (send === undefined) throw new Error(`nothing sent: ${step.state}`)
  return send
}

/** Runs a handshake that gets as far as a verdict. */
function run(client = clientOf(), server = serverOf()): Transcript {
  const hello = client.start()
  const challenge = sent(server.receive(hello))
  const proof = sent(client.receive(challenge))
  const last = server.receive(proof)
  const verdict = sent(last)
  return { hello, challenge, proof, verdict, client: client.receive(verdict), server: last }
}

function flipped(frame: Uint8Array, bit: number): Uint8Array {
  const changed = new Uint8Array(frame)
  changed[bit >> 3] ^= 1 << (bit & 7)
  return changed
}

t.test('both sides learn who the other is', async (t) => {
  const { client, server, ...frames } = run()
  t.strictSame(client, { state: 'done', peerRank: 0 })
  t.match(server, { state: 'done', peerRank: 2 })
  t.strictSame(
    [frames.hello, frames.challenge, frames.proof, frames.verdict].map(({ length }) => length),
    [42, 67, 33, 36],
  )
})

t.test('every handshake is different', async (t) => {
  const [first, second] = [run(), run()]
  for (const name of ['hello', 'challenge', 'proof', 'verdict'] as const) {
    t.notSame(first[name], second[name], name)
  }
})

t.test('a client without the key gets no further than the proof, and no answer', async (t) => {
  const asked: number[] = []
  const client = clientOf({ key: otherKey })
  const server = serverOf({ decide: (rank) => void asked.push(rank) })
  const challenge = sent(server.receive(client.start()))
  t.match(client.receive(challenge), {
    state: 'failed',
    error: { code: 'ERR_PAGEMESH_WRONG_KEY', message: /PAGEMESH_KEY/ },
  })
  const guess = new Uint8Array(33)
  guess[0] = 0x50
  const step = server.receive(guess)
  t.match(step, { state: 'failed', error: { code: 'ERR_PAGEMESH_WRONG_KEY' } })
  t.notOk('send' in step)
  t.strictSame(asked, [], 'nothing is decided about a stranger')
})

t.test('why somebody with the key is not let in', async (t) => {
  const cases = [
    ['rank-taken', 'ERR_PAGEMESH_RANK_TAKEN', /rank 2/],
    ['size-mismatch', 'ERR_PAGEMESH_SIZE_MISMATCH', /mesh of 5, member 0 for a mesh of 4/],
    ['rank-out-of-range', 'ERR_PAGEMESH_OUT_OF_RANGE', /0 to 3/],
    ['not-expected', 'ERR_PAGEMESH_JOIN_FAILED', /PAGEMESH_RENDEZVOUS/],
  ] as const
  for (const [reason, code, message] of cases) {
    const client = clientOf({ size: 5 })
    const { client: end, server } = run(client, serverOf({ decide: () => reason }))
    t.match(end, { state: 'failed', error: { code, message } }, reason)
    t.match(server, { state: 'failed', error: { code, message } }, reason)
  }
})

t.test('a verdict that this version does not know lets nobody in', async (t) => {
  const { verdict, client } = run(clientOf(), serverOf({ decide: () => 'newer' as never }))
  t.equal(verdict[1], 255)
  t.match(client, {
    state: 'failed',
    error: { code: 'ERR_PAGEMESH_PROTOCOL', message: /unknown verdict 255/ },
  })
})

t.test('decide gets what the client said, once it is proved', async (t) => {
  const asked: number[][] = []
  run(clientOf({ rank: 31, size: 32 }), serverOf({ decide: (...args) => void asked.push(args) }))
  t.strictSame(asked, [[31, 32]])
})

t.test('another version is told apart before anything else', async (t) => {
  const hello = new Uint8Array(clientOf().start())
  hello[5] = protocolVersion + 1
  for (const frame of [hello, hello.subarray(0, 6), new Uint8Array([...hello, 1, 2, 3])]) {
    const step = serverOf().receive(frame)
    const message = new RegExp(`version ${protocolVersion + 1}, this one ${protocolVersion}`)
    t.match(step, { state: 'failed', error: { code: 'ERR_PAGEMESH_VERSION_MISMATCH', message } })
    t.match(clientOf().receive(sent(step)), {
      state: 'failed',
      error: { code: 'ERR_PAGEMESH_VERSION_MISMATCH' },
    })
  }
})

t.test('the client insists on the rank that it wants to reach', async (t) => {
  t.strictSame(run(clientOf({ expectedRank: 0 })).client, { state: 'done', peerRank: 0 })
  const cases = [
    [clientOf({ expectedRank: 1 }), serverOf(), /member 0 answers where member 1 should/],
    [clientOf({ expectedRank: 0 }), serverOf({ rank: 2 }), /own rank 2 answers where member 0/],
    [clientOf(), serverOf({ rank: 2 }), /own rank 2 answers where another member/],
  ] as const
  for (const [client, server, message] of cases) {
    const step = client.receive(sent(server.receive(client.start())))
    t.match(step, { state: 'failed', error: { code: 'ERR_PAGEMESH_JOIN_FAILED', message } })
    t.notOk('send' in step)
  }
})

t.test('no single bit of any frame may change', async (t) => {
  const { hello, challenge, proof, verdict } = run()
  for (let bit = 0; bit < hello.length * 8; bit += 1) {
    const client = clientOf()
    const server = serverOf()
    const first = server.receive(flipped(client.start(), bit))
    if (first.state === 'failed') continue
    const step = client.receive(sent(first))
    if (step.state !== 'failed') t.fail(`hello, bit ${bit}`)
  }
  for (let bit = 0; bit < challenge.length * 8; bit += 1) {
    const client = clientOf()
    const frame = flipped(sent(serverOf().receive(client.start())), bit)
    if (client.receive(frame).state !== 'failed') t.fail(`challenge, bit ${bit}`)
  }
  for (let bit = 0; bit < proof.length * 8; bit += 1) {
    const client = clientOf()
    const server = serverOf()
    const frame = flipped(sent(client.receive(sent(server.receive(client.start())))), bit)
    if (server.receive(frame).state !== 'failed') t.fail(`proof, bit ${bit}`)
  }
  for (let bit = 0; bit < verdict.length * 8; bit += 1) {
    const client = clientOf()
    const server = serverOf()
    const good = sent(server.receive(sent(client.receive(sent(server.receive(client.start()))))))
    if (client.receive(flipped(good, bit)).state !== 'failed') t.fail(`verdict, bit ${bit}`)
  }
  t.pass('none')
})

t.test('no frame may be shorter or longer', async (t) => {
  const lengthsBut = (length: number): number[] =>
    [0, 1, 2, 3, 5, 6, length - 1, length + 1, 1023, 1024, 1025, 70_000].filter((n) => n !== length)
  const resized = (frame: Uint8Array, length: number): Uint8Array => {
    const changed = new Uint8Array(length)
    changed.set(frame.subarray(0, length))
    return changed
  }
  for (const length of lengthsBut(42)) {
    const step = serverOf().receive(resized(clientOf().start(), length))
    t.match(step, { state: 'failed', error: { code: 'ERR_PAGEMESH_PROTOCOL' } })
  }
  for (const length of lengthsBut(67)) {
    const client = clientOf()
    const frame = resized(sent(serverOf().receive(client.start())), length)
    t.match(client.receive(frame), { state: 'failed', error: { code: 'ERR_PAGEMESH_PROTOCOL' } })
  }
  for (const length of lengthsBut(33)) {
    const client = clientOf()
    const server = serverOf()
    const frame = resized(sent(client.receive(sent(server.receive(client.start())))), length)
    t.match(server.receive(frame), { state: 'failed', error: { code: 'ERR_PAGEMESH_PROTOCOL' } })
  }
  for (const length of lengthsBut(36)) {
    const client = clientOf()
    const server = serverOf()
    const proof = sent(client.receive(sent(server.receive(client.start()))))
    const frame = resized(sent(server.receive(proof)), length)
    t.match(client.receive(frame), { state: 'failed', error: { code: 'ERR_PAGEMESH_PROTOCOL' } })
  }
})

t.test('frames of an earlier handshake do not serve again', async (t) => {
  const old = run()
  const server = serverOf()
  t.equal(server.receive(old.hello).state, 'more')
  t.match(server.receive(old.proof), {
    state: 'failed',
    error: { code: 'ERR_PAGEMESH_WRONG_KEY' },
  })
  t.match(clientOf().receive(old.challenge), {
    state: 'failed',
    error: { code: 'ERR_PAGEMESH_WRONG_KEY' },
  })
  const client = clientOf()
  client.receive(sent(serverOf().receive(client.start())))
  t.match(client.receive(old.verdict), {
    state: 'failed',
    error: { code: 'ERR_PAGEMESH_PROTOCOL' },
  })
})

t.test('a frame does not serve in the other role', async (t) => {
  // An attacker gives the server's own mac back as the proof.
  const server = serverOf()
  const challenge = sent(server.receive(clientOf().start()))
  const reflected = new Uint8Array(33)
  reflected[0] = 0x50
  reflected.set(challenge.subarray(35), 1)
  t.match(server.receive(reflected), {
    state: 'failed',
    error: { code: 'ERR_PAGEMESH_WRONG_KEY' },
  })
  // Or plays a server towards a client by means of the client's own proof.
  const { proof } = run()
  const client = clientOf()
  client.receive(sent(serverOf().receive(client.start())))
  const forged = new Uint8Array(36)
  forged.set([0x56, 0, 0, 4])
  forged.set(proof.subarray(1), 4)
  t.equal(client.receive(forged).state, 'failed')
  t.equal(clientOf().receive(clientOf().start()).state, 'failed', 'a client is no server')
})

t.test('a relayed hello cannot be answered under another rank', async (t) => {
  const client = clientOf({ expectedRank: 0 })
  const challenge = new Uint8Array(sent(serverOf({ rank: 3 }).receive(client.start())))
  challenge[2] = 0
  t.match(client.receive(challenge), {
    state: 'failed',
    error: { code: 'ERR_PAGEMESH_WRONG_KEY' },
  })
})

t.test('nothing follows the end', async (t) => {
  const client = clientOf()
  const server = serverOf()
  const { proof, verdict } = run(client, server)
  for (const step of [client.receive(verdict), server.receive(proof)]) {
    t.match(step, { state: 'failed', error: { code: 'ERR_PAGEMESH_PROTOCOL' } })
  }
  const broken = serverOf()
  broken.receive(new Uint8Array(3))
  t.equal(broken.receive(clientOf().start()).state, 'failed', 'no second try')
})

t.test('random bytes are refused and never throw', async (t) => {
  let state = 1
  const next = (): number => (state = (state * 48271) % 2147483647)
  for (let round = 0; round < 2000; round += 1) {
    const frame = Uint8Array.from({ length: next() % (maxHandshakeFrameBytes + 10) }, next)
    if (round % 2 === 0) frame.set([0x50, 0x47, 0x4d, 0x48].slice(0, frame.length))
    if (serverOf().receive(frame).state !== 'failed') t.fail('server')
    if (clientOf().receive(frame).state !== 'failed') t.fail('client')
  }
  t.pass('2000 frames')
})

t.test('frames may be views into a larger buffer, and are not kept', async (t) => {
  const client = clientOf()
  const server = serverOf()
  const buffer = new Uint8Array(200)
  const through = (frame: Uint8Array): Uint8Array => {
    buffer.set(frame, 50)
    return buffer.subarray(50, 50 + frame.length)
  }
  const challenge = sent(server.receive(through(client.start())))
  const proof = sent(client.receive(through(challenge)))
  const verdict = sent(server.receive(through(proof)))
  t.strictSame(client.receive(through(verdict)), { state: 'done', peerRank: 0 })
})

t.test('random passes for a source of nonces, if it gives enough', async (t) => {
  const random = (lengthBytes: number): Uint8Array => new Uint8Array(lengthBytes).fill(5)
  t.strictSame(clientOf({ random }).start(), clientOf({ random }).start())
  t.throws(() => clientOf({ random: () => new Uint8Array(31) }), {
    code: 'ERR_PAGEMESH_INVALID_ARGUMENT',
  })
})

t.test('keys', async (t) => {
  const fresh = generateKey()
  t.equal(fresh.length, 32)
  t.notSame(fresh, generateKey())
  t.strictSame(parseKey(formatKey(fresh)), fresh)
  t.strictSame(parseKey(formatKey(fresh).toUpperCase()), fresh)
  const copy = parseKey(fresh)
  fresh.fill(0)
  t.notSame(copy, fresh, 'a copy')
  for (const length of [16, 64]) t.equal(parseKey(new Uint8Array(length)).length, length)
  for (const length of [0, 15, 65]) {
    const wrong = { code: 'ERR_PAGEMESH_OUT_OF_RANGE', message: new RegExp(`${length} bytes`) }
    t.throws(() => parseKey(new Uint8Array(length)), wrong)
    t.throws(() => parseKey('ab'.repeat(length)), wrong)
    t.throws(() => clientOf({ key: new Uint8Array(length) }), wrong)
    t.throws(() => serverOf({ key: new Uint8Array(length) }), wrong)
  }
  const secret = 'secretsecretsecretsecretsecretsecret'
  for (const wrong of [secret, 'abc', '0x'.padEnd(34, '0'), null, undefined, 5, {}, []]) {
    t.throws(() => parseKey(wrong, 'PAGEMESH_KEY'), {
      code: 'ERR_PAGEMESH_INVALID_ARGUMENT',
      message: /^PAGEMESH_KEY /,
    })
  }
  try {
    parseKey(secret)
  } catch (error) {
    t.notMatch((error as Error).message, /secret/, 'the key is not in the message')
  }
})
