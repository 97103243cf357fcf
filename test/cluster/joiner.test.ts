import t from 'tap'
import { ClientHandshake, ServerHandshake } from '../../dist/cluster/handshake.js'
import {
  formatAddress,
  handshakeTimeoutMs,
  Joiner,
  type JoinerOptions,
  maxJoinFrameBytes,
  maxStrangers,
} from '../../dist/cluster/joiner.js'

const key = new Uint8Array(32).fill(7)
const otherKey = new Uint8Array(32).fill(8)
const basePort = 1000

/** What a process on the fake network is told. */
interface Process {
  opened(connection: number): void
  accepted(connection: number): void
  received(connection: number, frame: Uint8Array): void
  closed(connection: number, reason: string): void
}

interface End {
  readonly number: number
  readonly owner: Process
  /** Deliveries to this end, in order. */
  readonly inbox: (() => void)[]
  peer: End | undefined
  open: boolean
}

/** Numbers in [0, 1) that are the same for the same seed. */
function randomOf(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** Delivers in order on each end of a connection, and in random order among them. */
class Network {
  nowMs = 1000
  readonly random: () => number
  readonly ends = new Map<number, End>()
  readonly listeners = new Map<number, Process>()
  readonly members: Member[] = []
  readonly frames: Uint8Array[] = []
  readonly timers: { atMs: number; run: () => void }[] = []
  #nextNumber = 1

  constructor(seed: number) {
    this.random = randomOf(seed)
  }

  connect(owner: Process, port: number): number {
    const near = this.#end(owner)
    const listener = this.listeners.get(port)
    if (listener === undefined) {
      near.inbox.push(() => {
        this.ends.delete(near.number)
        owner.closed(near.number, 'connection refused')
      })
      return near.number
    }
    const far = this.#end(listener)
    near.peer = far
    far.peer = near
    near.inbox.push(() => owner.opened(near.number))
    far.inbox.push(() => listener.accepted(far.number))
    return near.number
  }

  send(number: number, frame: Uint8Array): void {
    const peer = this.ends.get(number)?.peer
    if (peer?.open !== true) return
    const copy = new Uint8Array(frame)
    this.frames.push(copy)
    peer.inbox.push(() => peer.owner.received(peer.number, copy))
  }

  close(number: number): void {
    const end = this.ends.get(number)
    if (end === undefined) return
    this.ends.delete(number)
    end.open = false
    const { peer } = end
    if (peer?.open !== true) return
    peer.inbox.push(() => {
      peer.open = false
      this.ends.delete(peer.number)
      peer.owner.closed(peer.number, 'closed by the other side')
    })
  }

  after(delayMs: number, run: () => void): void {
    this.timers.push({ atMs: this.nowMs + delayMs, run })
  }

  /** Kills a process: its listener and all its connections are gone. */
  kill(owner: Process, port: number): void {
    this.listeners.delete(port)
    for (const end of [...this.ends.values()]) if (end.owner === owner) this.close(end.number)
  }

  /** Runs until nothing is left to do, or until then. */
  run(untilMs = Infinity): void {
    for (let step = 0; step < 200_000; step += 1) {
      for (const { joiner } of this.members) {
        if (joiner.nextDeadlineMs() > this.nowMs) continue
        joiner.tick(this.nowMs)
        if (joiner.nextDeadlineMs() <= this.nowMs) throw new Error('a tick leaves work undone')
      }
      const due = this.timers.findIndex(({ atMs }) => atMs <= this.nowMs)
      if (due >= 0) {
        this.timers.splice(due, 1)[0].run()
        continue
      }
      const ready = [...this.ends.values()].filter(({ inbox, open }) => open && inbox.length > 0)
      if (ready.length > 0) {
        ready[Math.floor(this.random() * ready.length)].inbox.shift()!()
        if (this.random() < 0.2) this.nowMs += this.random() * 3
        continue
      }
      const nextMs = Math.min(
        ...this.members.map(({ joiner }) => joiner.nextDeadlineMs()),
        ...this.timers.map(({ atMs }) => atMs),
      )
      if (nextMs === Infinity || nextMs > untilMs) return
      this.nowMs = Math.max(this.nowMs, nextMs)
    }
    throw new Error('the network never comes to rest')
  }

  #end(owner: Process): End {
    const end: End = { number: this.#nextNumber, owner, inbox: [], peer: undefined, open: true }
    this.#nextNumber += 1
    this.ends.set(end.number, end)
    return end
  }
}

class Member {
  readonly joiner: Joiner
  readonly port: number
  readonly bound = new Map<number, number>()
  readonly connectsMs: number[] = []

  constructor(network: Network, options: Partial<JoinerOptions> & { rank: number; size: number }) {
    const port = options.listen?.port ?? basePort + options.rank
    this.port = port
    this.joiner = new Joiner(
      {
        key,
        listen: { host: `member${options.rank}`, port },
        rendezvous: { host: 'member0', port: basePort },
        nowMs: network.nowMs,
        timeoutMs: 10_000,
        ...options,
      },
      {
        connect: (_host, to) => {
          this.connectsMs.push(network.nowMs)
          return network.connect(this.joiner, to)
        },
        send: (connection, frame) => network.send(connection, frame),
        close: (connection) => network.close(connection),
        bind: (connection, rank) => {
          if (this.bound.has(rank)) throw new Error(`rank ${rank} is bound twice`)
          this.bound.set(rank, connection)
        },
      },
    )
    network.members.push(this)
  }

  /** Listens, and begins. */
  start(network: Network): this {
    if (!network.listeners.has(this.port)) network.listeners.set(this.port, this.joiner)
    this.joiner.start()
    return this
  }

  get state(): string {
    return this.joiner.outcome.state
  }

  get error(): unknown {
    const { outcome } = this.joiner
    return outcome.state === 'failed' ? outcome.error : undefined
  }
}

/** A process that is told what to do, and writes down what it sees. */
class Stranger implements Process {
  readonly frames: Uint8Array[] = []
  readonly connections: number[] = []
  closedBy: string | undefined
  onOpened: (connection: number) => void = () => undefined
  onReceived: (connection: number, frame: Uint8Array) => void = () => undefined

  opened(connection: number): void {
    this.onOpened(connection)
  }

  accepted(connection: number): void {
    this.connections.push(connection)
  }

  received(connection: number, frame: Uint8Array): void {
    this.frames.push(frame)
    this.onReceived(connection, frame)
  }

  closed(_connection: number, reason: string): void {
    this.closedBy = reason
  }
}

/** A stranger that says these frames, one after the other. */
function sayer(network: Network, port: number, ...frames: Uint8Array[]): Stranger {
  const stranger = new Stranger()
  stranger.onOpened = (connection) => {
    for (const frame of frames) network.send(connection, frame)
  }
  network.connect(stranger, port)
  return stranger
}

/** A process that has the key: it authenticates as `rank`, and then does as it likes. */
function insider(
  network: Network,
  rank: number,
  size: number,
  then: (send: (frame: unknown) => void, frame: unknown) => void,
): Stranger & { connection: number; error: unknown } {
  const handshake = new ClientHandshake({ key, rank, size })
  const extras: { connection: number; error: unknown } = { connection: 0, error: undefined }
  const stranger = Object.assign(new Stranger(), extras)
  let done = false
  const send = (frame: unknown): void => {
    const bytes = frame instanceof Uint8Array ? frame : bytesOf(frame)
    network.send(stranger.connection, bytes)
  }
  stranger.onOpened = (connection) => network.send(connection, handshake.start())
  stranger.onReceived = (connection, frame) => {
    if (done) {
      then(send, JSON.parse(Buffer.from(frame).toString()))
      return
    }
    const step = handshake.receive(frame)
    if (step.state === 'more' && step.send !== undefined) network.send(connection, step.send)
    if (step.state === 'failed') stranger.error = step.error
    if (step.state === 'done') {
      done = true
      then(send, undefined)
    }
  }
  stranger.connection = network.connect(stranger, basePort)
  return stranger
}

function bytesOf(value: unknown): Uint8Array {
  return new Uint8Array(Buffer.from(JSON.stringify(value)))
}

function meshOf(network: Network, size: number, but: Partial<JoinerOptions> = {}): Member[] {
  return Array.from({ length: size }, (_, rank) => new Member(network, { rank, size, ...but }))
}

function startAll(network: Network, members: Member[]): void {
  for (const member of members) member.start(network)
}

function problemOf(network: Network, members: Member[]): string | undefined {
  const size = members.length
  for (const [rank, { joiner, bound }] of members.entries()) {
    const { outcome } = joiner
    if (outcome.state === 'failed') return `rank ${rank}: ${outcome.error.message}`
    if (outcome.state === 'joining') return `rank ${rank} is still joining`
    if (outcome.addresses.length !== size) return `rank ${rank} has another table`
    for (const [other, { host, port }] of outcome.addresses.entries()) {
      if (host !== `member${other}` || port !== basePort + other) return `address ${other} is wrong`
    }
    if (bound.size !== size - 1 || bound.has(rank))
      return `rank ${rank} binds ${[...bound.keys()].join()}`
    for (const [other, connection] of bound) {
      const end = network.ends.get(connection)
      if (end?.open !== true) return `${rank}-${other} is closed`
      if (end.peer?.owner !== members[other].joiner) return `${rank}-${other} leads elsewhere`
      if (members[other].bound.get(rank) !== end.peer.number) return `${rank}-${other} is lopsided`
    }
    if (joiner.nextDeadlineMs() !== Infinity) return `rank ${rank} still waits for something`
  }
  return undefined
}

t.test('one member joins at once', async (t) => {
  const network = new Network(1)
  const [member] = meshOf(network, 1)
  t.equal(member.state, 'joining')
  member.joiner.start()
  t.strictSame(member.joiner.outcome, {
    state: 'joined',
    addresses: [{ host: 'member0', port: basePort }],
  })
  t.equal(problemOf(network, [member]), undefined)
})

t.test('any number of members, starting at any time, in any order of events', async (t) => {
  for (let size = 1; size <= 8; size += 1) {
    for (let seed = 1; seed <= 60; seed += 1) {
      const network = new Network(seed * 100 + size)
      const members = meshOf(network, size)
      for (const member of members) {
        network.after(network.random() * 2000, () => member.start(network))
      }
      network.run()
      const problem = problemOf(network, members)
      if (problem !== undefined) t.fail(`size ${size}, seed ${seed}: ${problem}`)
      if (network.frames.some(({ length }) => length > maxJoinFrameBytes)) t.fail('a long frame')
    }
  }
  t.pass('all joined')
})

t.test('thirty-two members', async (t) => {
  const network = new Network(32)
  const members = meshOf(network, 32)
  startAll(network, members)
  network.run()
  t.equal(problemOf(network, members), undefined)
  const longest = Math.max(...network.frames.map(({ length }) => length))
  t.ok(longest < maxJoinFrameBytes, `the longest frame has ${longest} bytes`)
})

t.test('strangers with garbage, cut, changed and replayed frames change nothing', async (t) => {
  const earlier = new Network(5)
  const recorded = meshOf(earlier, 3)
  startAll(earlier, recorded)
  earlier.run()
  t.equal(problemOf(earlier, recorded), undefined)

  for (let seed = 1; seed <= 60; seed += 1) {
    const network = new Network(seed)
    const { random } = network
    const pick = (below: number): number => Math.floor(random() * below)
    const garbage = (): Uint8Array => Uint8Array.from({ length: pick(300) }, () => pick(256))
    const members = meshOf(network, 4)
    for (const member of members) {
      network.after(random() * 500, () => member.start(network))
    }
    const strangers: Stranger[] = []
    for (let attack = 0; attack < 80; attack += 1) {
      network.after(random() * 700, () => {
        const live = network.frames.concat(earlier.frames)
        const old = live[pick(live.length)]
        const cut = old.subarray(0, pick(old.length + 1))
        const changed = new Uint8Array(old)
        if (changed.length > 0) changed[pick(changed.length)] ^= 1 << pick(8)
        const hello = new ClientHandshake({ key: otherKey, rank: pick(5), size: 4 }).start()
        const frames = [garbage(), old, cut, changed, hello]
        const said = Array.from({ length: pick(4) }, () => frames[pick(frames.length)])
        strangers.push(sayer(network, basePort + pick(4), ...said))
      })
    }
    network.run()
    const problem = problemOf(network, members)
    if (problem !== undefined) t.fail(`seed ${seed}: ${problem}`)
    if (strangers.some(({ closedBy }) => closedBy === undefined)) t.fail('a stranger is kept')
  }
  t.pass('always joined')
})

t.test('a whole handshake said again is not believed', async (t) => {
  const network = new Network(3)
  const zero = new Member(network, { rank: 0, size: 3 }).start(network)
  const one = new Member(network, { rank: 1, size: 3 }).start(network)
  network.run(network.nowMs + 100)
  t.equal(zero.bound.size, 1)
  const fromOne = network.frames.filter(({ length }) => length === 42 || length === 33)
  network.kill(one.joiner, one.port)
  const second = new Network(4)
  const fresh = new Member(second, { rank: 0, size: 3 }).start(second)
  const stranger = sayer(second, basePort, ...fromOne)
  second.run(second.nowMs + 100)
  t.equal(fresh.bound.size, 0)
  t.equal(stranger.closedBy, 'closed by the other side')
  t.equal(fresh.state, 'joining')
})

t.test('a member with another key fails, and the mesh goes on without it', async (t) => {
  const network = new Network(7)
  const members = meshOf(network, 3)
  members[0].start(network)
  members[1].start(network)
  const wrong = new Member(network, { rank: 2, size: 3, key: otherKey })
  wrong.joiner.start()
  network.run(network.nowMs + 500)
  t.match(wrong.error, {
    code: 'ERR_PAGEMESH_WRONG_KEY',
    message: /^member 0 at member0:1000: .*PAGEMESH_KEY/,
  })
  t.equal(wrong.joiner.nextDeadlineMs(), Infinity)
  t.equal(members[0].state, 'joining')
  members[2].start(network)
  network.run()
  t.equal(problemOf(network, members), undefined)
})

t.test('a rank that is taken: the newcomer fails, during the join and after it', async (t) => {
  const network = new Network(8)
  const members = meshOf(network, 3)
  members[0].start(network)
  members[1].start(network)
  network.run(network.nowMs + 100)
  const twin = (rank: number): Member => {
    const listen = { host: 'twin', port: 2000 + network.members.length }
    return new Member(network, { rank, size: 3, listen })
  }
  const taken = { code: 'ERR_PAGEMESH_RANK_TAKEN', message: /rank 1.*PAGEMESH_RANK/, rank: 1 }
  const early = twin(1).start(network)
  network.run(network.nowMs + 100)
  t.match(early.error, taken)
  members[2].start(network)
  network.run()
  t.equal(problemOf(network, members), undefined)
  const late = [twin(1).start(network), twin(2).start(network)]
  network.run()
  t.match(late[0].error, taken)
  t.match(late[1].error, { code: 'ERR_PAGEMESH_RANK_TAKEN' })
  t.equal(problemOf(network, members), undefined, 'the mesh is as it was')
})

t.test('two processes of one rank at the same time: one of them joins', async (t) => {
  for (let seed = 1; seed <= 50; seed += 1) {
    const network = new Network(seed)
    const members = meshOf(network, 3)
    const twin = new Member(network, { rank: 2, size: 3, listen: { host: 'twin', port: 1003 } })
    startAll(network, [...members, twin])
    network.run()
    const joined = [members[2], twin].filter(({ state }) => state === 'joined')
    const refused = [members[2], twin].filter(({ state }) => state === 'failed')
    const { code } = (refused[0]?.error ?? {}) as { code?: string }
    if (joined.length !== 1 || code !== 'ERR_PAGEMESH_RANK_TAKEN') t.fail(`seed ${seed}: ${code}`)
    if (members[0].state !== 'joined' || members[1].state !== 'joined') t.fail(`seed ${seed}`)
  }
  t.pass('50 seeds')
})

t.test('members of another size, and ranks that there are not', async (t) => {
  const network = new Network(9)
  const members = meshOf(network, 2)
  members[0].start(network)
  const five = new Member(network, { rank: 1, size: 5, listen: { host: 'x', port: 3000 } })
  const nine = new Member(network, { rank: 9, size: 2, listen: { host: 'x', port: 3001 } })
  startAll(network, [five, nine])
  network.run(network.nowMs + 500)
  t.match(five.error, { code: 'ERR_PAGEMESH_SIZE_MISMATCH', message: /a mesh of 5.*a mesh of 2/ })
  t.match(nine.error, { code: 'ERR_PAGEMESH_OUT_OF_RANGE', message: /rank 9/ })
  members[1].start(network)
  network.run()
  t.equal(problemOf(network, members), undefined)
})

t.test('rank 0 says who did not come, and all fail by it', async (t) => {
  const network = new Network(10)
  const members = meshOf(network, 5)
  for (const rank of [0, 1, 3]) members[rank].start(network)
  network.run()
  t.equal(network.nowMs < 12_000, true)
  t.match(members[0].error, {
    code: 'ERR_PAGEMESH_JOIN_TIMEOUT',
    message: /5 members .* within 10000 ms: ranks 2, 4 did not come to member0:1000/,
    rank: 2,
  })
  const [first, second] = [members[1].error, members[3].error] as { code: string }[]
  for (const error of [first, second]) t.match(error, { code: 'ERR_PAGEMESH_JOIN_TIMEOUT' })
})

t.test('when rank 0 gives up, the others do at once', async (t) => {
  const network = new Network(11)
  const zero = new Member(network, { rank: 0, size: 4, timeoutMs: 1000 })
  const others = [1, 2].map((rank) => new Member(network, { rank, size: 4, timeoutMs: 60_000 }))
  startAll(network, [zero, ...others])
  network.run(network.nowMs + 1100)
  for (const { error } of others) {
    t.match(error, {
      code: 'ERR_PAGEMESH_JOIN_TIMEOUT',
      message: /^member 0 gave up joining: .*rank 3 did not come/,
      rank: 3,
    })
  }
  t.equal(network.ends.size, 0, 'nothing is left open')
})

t.test('a rendezvous that cannot be reached', async (t) => {
  const network = new Network(12)
  const member = new Member(network, { rank: 1, size: 2, timeoutMs: 3000 }).start(network)
  network.run()
  t.match(member.error, {
    code: 'ERR_PAGEMESH_JOIN_FAILED',
    message: /rendezvous at member0:1000 within 3000 ms \(last: connection refused\): check/,
    rank: 0,
  })
  const gapsMs = member.connectsMs.slice(1).map((ms, index) => ms - member.connectsMs[index])
  const about = (gapMs: number, expectedMs: number): boolean => {
    return gapMs >= expectedMs && gapMs < expectedMs + 10
  }
  for (const [index, expectedMs] of [20, 40, 80, 160, 250, 250].entries()) {
    t.ok(about(gapsMs[index], expectedMs), `retry ${index} after ${expectedMs} ms`)
  }
  t.ok(gapsMs.length > 10, 'it goes on trying')
})

t.test('a rendezvous that accepts and says nothing is tried again', async (t) => {
  const network = new Network(13)
  const tarpit = new Stranger()
  network.listeners.set(basePort, tarpit)
  const members = meshOf(network, 2, { timeoutMs: 20_000 })
  members[1].start(network)
  network.run(network.nowMs + 12_000)
  t.ok(tarpit.connections.length >= 2)
  network.listeners.delete(basePort)
  members[0].start(network)
  network.run()
  t.equal(problemOf(network, members), undefined)

  const alone = new Network(14)
  alone.listeners.set(basePort, tarpit)
  const member = new Member(alone, { rank: 1, size: 2 }).start(alone)
  alone.run()
  t.match(member.error, { code: 'ERR_PAGEMESH_JOIN_FAILED', message: /last: no answer/ })
})

t.test('a rendezvous that is something else', async (t) => {
  const network = new Network(15)
  const other = new Stranger()
  other.onReceived = (connection) => network.send(connection, Buffer.from('HTTP/1.1 400 Bad'))
  network.listeners.set(basePort, other)
  const member = new Member(network, { rank: 1, size: 2 }).start(network)
  network.run()
  t.match(member.error, {
    code: 'ERR_PAGEMESH_PROTOCOL',
    message: /^member 0 at member0:1000: .*does not speak pagemesh/,
  })
})

t.test('a rendezvous that is another member, or the member itself', async (t) => {
  const network = new Network(16)
  const members = meshOf(network, 3)
  members[1].start(network)
  const rendezvous = { host: 'member1', port: basePort + 1 }
  const astray = new Member(network, { rank: 2, size: 3, rendezvous }).start(network)
  const self = new Member(network, { rank: 1, size: 3, rendezvous })
  self.joiner.start()
  network.run(network.nowMs + 200)
  t.match(astray.error, {
    code: 'ERR_PAGEMESH_JOIN_FAILED',
    message: /member 1 answers where member 0 should: check that PAGEMESH_RENDEZVOUS/,
  })
  t.match(self.error, { code: 'ERR_PAGEMESH_JOIN_FAILED', message: /own rank 1 answers/ })
  t.equal(members[1].state, 'joining')
})

t.test('a member of another version', async (t) => {
  const network = new Network(17)
  const zero = new Member(network, { rank: 0, size: 2 }).start(network)
  const hello = new Uint8Array(new ClientHandshake({ key, rank: 1, size: 2 }).start())
  hello[5] = 200
  const stranger = sayer(network, basePort, hello)
  network.run(network.nowMs + 100)
  t.strictSame(stranger.frames, [new Uint8Array([0x58, 0, 1])])
  t.ok(stranger.closedBy)
  t.equal(zero.state, 'joining')

  const other = new Stranger()
  other.onReceived = (connection) => network.send(connection, new Uint8Array([0x58, 0, 2]))
  network.listeners.set(5000, other)
  const rendezvous = { host: 'x', port: 5000 }
  const member = new Member(network, { rank: 1, size: 2, rendezvous }).start(network)
  network.run(network.nowMs + 100)
  t.match(member.error, { code: 'ERR_PAGEMESH_VERSION_MISMATCH', message: /x:5000.*version 2/ })
})

t.test('a member that dies during the join takes the join along', async (t) => {
  for (let seed = 1; seed <= 100; seed += 1) {
    const network = new Network(seed)
    const members = meshOf(network, 4)
    startAll(network, members.slice(0, 3)) // rank 3 is late, so nobody can be done
    const dying = members[1 + (seed % 2)]
    network.after(50, () => {
      network.members.splice(network.members.indexOf(dying), 1)
      network.kill(dying.joiner, dying.port)
    })
    network.run(network.nowMs + 100)
    const rank = 1 + (seed % 2)
    for (const survivor of members.slice(0, 3)) {
      if (survivor === dying) continue
      const { code, rank: down } = survivor.error as { code: string; rank: number }
      if (code !== 'ERR_PAGEMESH_MEMBER_DOWN' || down !== rank) t.fail(`seed ${seed}: ${code}`)
    }
  }
  t.pass('100 seeds')
})

t.test('a member that dies at any moment: the rest join or fail, and none waits', async (t) => {
  const ends = { joined: 0, failed: 0 }
  for (let seed = 1; seed <= 300; seed += 1) {
    const network = new Network(seed)
    const members = meshOf(network, 4, { timeoutMs: 3000 })
    startAll(network, members)
    const dying = members[seed % 4]
    network.after(network.random() * 60, () => {
      network.members.splice(network.members.indexOf(dying), 1)
      network.kill(dying.joiner, dying.port)
    })
    network.run()
    for (const survivor of members) {
      if (survivor === dying) continue
      if (survivor.state === 'joining') t.fail(`seed ${seed}: still joining`)
      else ends[survivor.state as 'joined' | 'failed'] += 1
    }
  }
  t.ok(ends.joined > 20 && ends.failed > 20, JSON.stringify(ends))
})

t.test('a member whose listener cannot be reached is named', async (t) => {
  const network = new Network(18)
  const members = meshOf(network, 4)
  startAll(network, members)
  network.listeners.delete(basePort + 1)
  network.run()
  for (const { error } of members) t.match(error, { code: 'ERR_PAGEMESH_JOIN_TIMEOUT' })
  const messages = members.map(({ error }) => (error as Error).message).join('\n')
  t.match(messages, /ranks? [123, ]+|member 1 at member1:1001: connection refused/)

  const slow = new Network(19)
  const zero = new Member(slow, { rank: 0, size: 3, timeoutMs: 60_000 })
  const one = new Member(slow, { rank: 1, size: 3, timeoutMs: 60_000 })
  const two = new Member(slow, { rank: 2, size: 3, timeoutMs: 2000 })
  startAll(slow, [zero, one, two])
  slow.listeners.delete(basePort + 1)
  slow.run()
  const detail = /no connection to rank 1 \(member 1 at member1:1001: connection refused\): check/
  t.match(two.error, { code: 'ERR_PAGEMESH_JOIN_TIMEOUT', message: detail, rank: 1 })
  for (const { error } of [zero, one]) {
    t.match(error, { code: 'ERR_PAGEMESH_JOIN_TIMEOUT', message: /^member 2 gave up joining: / })
    t.match(error, { message: detail, rank: 1 })
  }
})

t.test('members that come but do not do their part are named', async (t) => {
  const silent = new Network(20)
  const zero = new Member(silent, { rank: 0, size: 2 }).start(silent)
  insider(silent, 1, 2, () => undefined)
  silent.run()
  t.match(zero.error, { message: /rank 1 came but did not say where to listen/, rank: 1 })

  const unready = new Network(21)
  const again = new Member(unready, { rank: 0, size: 2 }).start(unready)
  insider(unready, 1, 2, (send, frame) => {
    if (frame === undefined) send({ type: 'register', host: 'x', port: 1 })
  })
  unready.run()
  t.match(again.error, { message: /rank 1 came but did not connect to all others/, rank: 1 })
})

t.test('a bad frame from a member ends the join for all', async (t) => {
  const register = { type: 'register', host: 'x', port: 1 }
  const bad: [string, unknown][] = [
    ['nothing', new Uint8Array()],
    ['garbage', new Uint8Array([1, 2, 255])],
    ['broken UTF-8', new Uint8Array([0x22, 0xff, 0x22])],
    ['cut JSON', bytesOf(register).subarray(0, 20)],
    ['too long', Buffer.from(JSON.stringify(register).padEnd(maxJoinFrameBytes + 1))],
    ['null', null],
    ['a number', 5],
    ['a list', [register]],
    ['no type', { host: 'x', port: 1 }],
    ['an unknown type', { type: 'constructor' }],
    ['no host', { type: 'register', port: 1 }],
    ['an empty host', { ...register, host: '' }],
    ['a host of other characters', { ...register, host: 'a"b' }],
    ['a long host', { ...register, host: 'x'.repeat(256) }],
    ['port 0', { ...register, port: 0 }],
    ['port 65536', { ...register, port: 65536 }],
    ['a fractional port', { ...register, port: 1.5 }],
    ['a port as text', { ...register, port: '1' }],
    ['ready before the table', { type: 'ready' }],
    ['go to rank 0', { type: 'go' }],
    ['a table to rank 0', { type: 'table', addresses: Array(3).fill({ host: 'x', port: 1 }) }],
    ['a short table', { type: 'table', addresses: [] }],
    ['a table of nothing', { type: 'table', addresses: [null, null, null] }],
    ['a table that is none', { type: 'table', addresses: 'x' }],
    ['an abort of nobody', { type: 'abort', by: 3, code: 'x', message: 'x' }],
    ['an abort about nobody', { type: 'abort', by: 1, code: 'x', message: 'x', rank: -1 }],
    ['an abort without words', { type: 'abort', by: 1, code: 'x' }],
    ['an abort without code', { type: 'abort', by: 1, message: 'x' }],
    ['a long abort', { type: 'abort', by: 1, code: 'x', message: 'x'.repeat(2001) }],
  ]
  for (const [name, frame] of bad) {
    const network = new Network(22)
    const zero = new Member(network, { rank: 0, size: 3 }).start(network)
    const one = new Member(network, { rank: 1, size: 3 }).start(network)
    network.run(network.nowMs + 100)
    const stranger = insider(network, 2, 3, (send, received) => {
      if (received === undefined) send(frame)
    })
    network.run(network.nowMs + 100)
    const message = /^member 2 sent .* while the mesh was being joined/
    t.match(zero.error, { code: 'ERR_PAGEMESH_PROTOCOL', message, rank: 2 }, name)
    t.match(one.error, { code: 'ERR_PAGEMESH_JOIN_FAILED', message: /member 0 gave up/ }, name)
    t.ok(stranger.closedBy, name)
  }
})

t.test('frames that come twice or from the wrong member are bad too', async (t) => {
  const register = { type: 'register', host: 'x', port: 1 }
  const twice = new Network(23)
  const zero = new Member(twice, { rank: 0, size: 2 }).start(twice)
  insider(twice, 1, 2, (send, frame) => {
    if (frame !== undefined) return
    send(register)
    send(register)
  })
  twice.run(twice.nowMs + 100)
  t.match(zero.error, {
    code: 'ERR_PAGEMESH_PROTOCOL',
    message: /'register', which cannot come now/,
  })

  /** Joins as rank 1 of 3 through a rank 0 that sends these frames after the registration. */
  const under = (...frames: unknown[]): Member => {
    const network = new Network(24)
    const server = new ServerHandshake({ key, rank: 0, size: 3, decide: () => undefined })
    const fake = new Stranger()
    let done = false
    fake.onReceived = (connection, frame) => {
      if (done) {
        for (const each of frames) network.send(connection, bytesOf(each))
        return
      }
      const step = server.receive(frame)
      done = step.state === 'done'
      if (step.send !== undefined) network.send(connection, step.send)
    }
    network.listeners.set(basePort, fake)
    const member = new Member(network, { rank: 1, size: 3 }).start(network)
    network.run(network.nowMs + 100)
    return member
  }
  const table = { type: 'table', addresses: Array(3).fill({ host: 'x', port: 9 }) }
  t.equal(under(table).state, 'joining')
  for (const frames of [[{ type: 'go' }], [table, { type: 'go' }], [table, table], [register]]) {
    const member = under(...frames)
    t.match(member.error, { code: 'ERR_PAGEMESH_PROTOCOL', rank: 0 }, JSON.stringify(frames))
  }
  const abort = { type: 'abort', by: 2, code: 'ERR_PAGEMESH_WRONG_KEY', message: 'no' }
  t.match(under(abort).error, {
    code: 'ERR_PAGEMESH_JOIN_FAILED',
    message: /member 2 .*: no/,
    rank: 2,
  })
})

t.test('a stranger that says nothing is closed after a while, and no earlier', async (t) => {
  const network = new Network(25)
  const zero = new Member(network, { rank: 0, size: 2, timeoutMs: 100_000 }).start(network)
  network.run(network.nowMs + 50_000) // long since the last event
  network.nowMs += 20_000
  const stranger = sayer(network, basePort)
  const sinceMs = network.nowMs
  network.run(sinceMs + handshakeTimeoutMs - 100)
  t.equal(stranger.closedBy, undefined)
  network.run(sinceMs + handshakeTimeoutMs + 100)
  t.equal(stranger.closedBy, 'closed by the other side')
  t.equal(zero.state, 'joining')
})

t.test('of too many strangers the oldest goes, and members still get in', async (t) => {
  const network = new Network(26)
  const members = meshOf(network, 3)
  members[0].start(network)
  const strangers: Stranger[] = []
  for (let count = 0; count < maxStrangers + 3; count += 1) {
    strangers.push(sayer(network, basePort))
    network.run(network.nowMs)
  }
  network.run(network.nowMs + 10)
  t.equal(strangers.filter(({ closedBy }) => closedBy !== undefined).length, 3)
  t.ok(strangers.slice(0, 3).every(({ closedBy }) => closedBy !== undefined))
  members[1].start(network)
  members[2].start(network)
  network.run()
  t.equal(problemOf(network, members), undefined)
})

t.test('after the join strangers get a handshake, an answer, and no more', async (t) => {
  const network = new Network(27)
  const members = meshOf(network, 3)
  startAll(network, members)
  network.run()
  const known = insider(network, 2, 3, () => t.fail('let in'))
  const garbage = sayer(network, basePort, new Uint8Array(42))
  const silent = sayer(network, basePort + 1)
  network.run()
  t.match(known.error, { code: 'ERR_PAGEMESH_RANK_TAKEN' })
  for (const { closedBy } of [known, garbage, silent]) t.ok(closedBy)
  // A member of the mesh that is gone is still not replaced by a stranger.
  network.kill(members[2].joiner, members[2].port)
  network.members.pop()
  const heir = insider(network, 2, 3, () => t.fail('let in'))
  network.run()
  t.match(heir.error, { code: 'ERR_PAGEMESH_RANK_TAKEN' })
  t.equal(members[0].state, 'joined', 'what happens later is not the concern of the joiner')
})

t.test('traffic on bound connections is not looked at after the join', async (t) => {
  const network = new Network(28)
  const members = meshOf(network, 2)
  startAll(network, members)
  network.run()
  members[0].joiner.received(members[0].bound.get(1)!, new Uint8Array([9]))
  members[0].joiner.received(424242, new Uint8Array([9]))
  t.equal(problemOf(network, members), undefined)
})

t.test('close after the join leaves what is bound, and takes no more', async (t) => {
  const network = new Network(29)
  const members = meshOf(network, 2)
  startAll(network, members)
  network.run()
  const waiting = sayer(network, basePort)
  network.run(network.nowMs + 10)
  t.equal(waiting.closedBy, undefined)
  members[0].joiner.close()
  members[0].joiner.close()
  const late = sayer(network, basePort)
  network.run(network.nowMs + 10)
  t.ok(waiting.closedBy)
  t.ok(late.closedBy)
  t.equal(problemOf(network, members), undefined)
})

t.test('close during the join ends it for all', async (t) => {
  const network = new Network(30)
  const members = meshOf(network, 3)
  members[0].start(network)
  members[1].start(network)
  network.run(network.nowMs + 100)
  members[1].joiner.close()
  network.run(network.nowMs + 100)
  t.match(members[1].error, { code: 'ERR_PAGEMESH_JOIN_FAILED', message: /member 1 stopped/ })
  t.match(members[0].error, { code: 'ERR_PAGEMESH_JOIN_FAILED', message: /member 1 stopped/ })
  t.equal(network.ends.size, 0)
  t.equal(members[0].joiner.nextDeadlineMs(), Infinity)
})

t.test('addresses are written as people write them', async (t) => {
  t.equal(formatAddress({ host: 'a', port: 1 }), 'a:1')
  t.equal(formatAddress({ host: '::1', port: 80 }), '[::1]:80')
})
