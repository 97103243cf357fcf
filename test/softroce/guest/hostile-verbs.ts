import t, { type Test } from 'tap'
import { Kind } from '../../../dist/protocol/messages.js'
import { encodeRecord, type RawRecord } from '../../cluster/support/fake-member.js'
import { meetInFile, type Member, startMember } from '../../cluster/support/members.js'
import {
  at,
  brokeProtocol,
  cannotBe,
  chunkPages,
  dataRecord,
  endWell,
  leave,
  linkFailed,
  meet,
  nobodyAsked,
  openHalves,
  ownPages,
  pageBytes,
  prefetch,
  serve,
  servedWord,
  strangeOwnWords,
  strangeWords,
  tooMuchRoom,
} from '../support/hostile-stage.js'
import { answerFor, type Frame, keyedWords, Status, type VerbsFake } from '../support/verbs-fake.js'

// What a member does when another one, which holds the key and has a queue pair to it, writes and
// sends what it must not. Runs where there is an RDMA device: test/softroce/hostile-verbs.spec.ts
// takes it there.

interface Scene {
  readonly t: Test
  readonly zero: Member
  readonly fake: VerbsFake
  /** Page `ownPages`, which the member has been served and holds. */
  readonly held: Frame
  /** The page after it, which the member has asked for. */
  readonly awaited: Frame
}

interface Case {
  act(scene: Scene): Promise<unknown>
  readonly reason: RegExp
}
/** A write that the member's device must refuse. */
function badWrite(frame: (held: Frame) => Frame, lengthBytes = pageBytes): Case {
  return {
    act: async ({ t, fake, held }) =>
      t.equal(await fake.write(0, frame(held), lengthBytes, 9), Status.access, 'refused'),
    reason: linkFailed,
  }
}

/** A record that is taken off the queue pair and found wrong. */
function badRecord(reason: RegExp, ...records: RawRecord[]): Case {
  return {
    act: async ({ fake }) => {
      for (const record of records) await fake.send(0, record)
    },
    reason,
  }
}

function badBytes(lengthBytes: number, reason: RegExp, record = dataRecord(ownPages + 1)): Case {
  return {
    act: ({ fake }) => {
      const bytes = Buffer.alloc(lengthBytes)
      encodeRecord(record).copy(bytes)
      return fake.sendBytes(0, bytes)
    },
    reason,
  }
}

/** A request whose keys lead nowhere good: the member itself is to write there. */
function badKeys(keys: (fake: VerbsFake) => Promise<Frame>, reason: RegExp): Case {
  return {
    act: async ({ fake }) => {
      const words = keyedWords(0, await keys(fake))
      await fake.send(0, { kind: Kind.ReadRequest, page: 3, words })
    },
    reason,
  }
}

const requester = (rank: number): number[] => keyedWords(rank, { rkey: 1, address: 4096n })

const cases: Record<string, Case> = {
  'a write with a key of nothing': badWrite((held) => ({ ...held, rkey: held.rkey ^ 0x7fff00 })),
  'a write with an old key': badWrite((held) => ({ ...held, rkey: held.rkey ^ 1 })),
  'a write with the key 0': badWrite((held) => ({ ...held, rkey: 0 })),
  'a write below its chunk': badWrite((held) => at(held, -1)),
  "a write into the member's own pages": badWrite((held) => at(held, -ownPages)),
  'a write beyond its chunk': badWrite((held) => at(held, chunkPages)),
  'a write across the end of its chunk': badWrite((held) => at(held, chunkPages, -2048)),
  'a write to address 0': badWrite((held) => ({ ...held, address: 0n })),
  'a write to the last address': badWrite((held) => ({ ...held, address: 2n ** 64n - 4096n })),

  'a page that nobody awaits': {
    act: async ({ t, fake, held }) => {
      t.equal(await fake.write(0, at(held, 2), pageBytes, 9), Status.success, 'in its chunk')
      await fake.send(0, dataRecord(ownPages + 2))
    },
    reason: nobodyAsked,
  },
  'a page that is held': badRecord(nobodyAsked, dataRecord(ownPages)),
  'an exclusive page that is held': badRecord(
    nobodyAsked,
    dataRecord(ownPages, { kind: Kind.DataExclusive }),
  ),
  'a page out of range': badRecord(nobodyAsked, dataRecord(2 * ownPages)),
  'a page far out of range': badRecord(nobodyAsked, dataRecord(0xffffffff)),
  'a page of a region that does not exist': badRecord(
    nobodyAsked,
    dataRecord(ownPages + 1, { region: 7 }),
  ),
  'a page of a region beyond all': badRecord(
    nobodyAsked,
    dataRecord(ownPages + 1, { region: 0xffffffff }),
  ),
  'a page written back that nobody recalled': badRecord(
    nobodyAsked,
    dataRecord(0, { kind: Kind.WriteBack }),
  ),
  'an unknown kind of page': badRecord(nobodyAsked, dataRecord(ownPages + 1, { kind: 0x50 })),
  'an awaited page, a byte short': badRecord(
    nobodyAsked,
    dataRecord(ownPages + 1, { payloadBytes: pageBytes - 1 }),
  ),
  'an awaited page, twice as long': badRecord(
    nobodyAsked,
    dataRecord(ownPages + 1, { payloadBytes: 2 * pageBytes }),
  ),
  'an awaited page of length 0': badRecord(
    nobodyAsked,
    dataRecord(ownPages + 1, { payloadBytes: 0 }),
  ),

  'a record a byte short': badBytes(63, cannotBe),
  'a record of one byte': badBytes(1, cannotBe),
  'a record a byte long': badBytes(65, linkFailed),
  'a record of a page': badBytes(pageBytes, linkFailed),
  'kind 0': badRecord(cannotBe, { kind: 0 }),
  'a blob over the link': badRecord(cannotBe, { kind: Kind.RegionControl }),
  'a word about links over the link': badRecord(cannotBe, { kind: Kind.LinkControl }),
  'a cluster frame over the link': badRecord(cannotBe, { kind: Kind.Cluster }),
  'the last kind of a blob': badRecord(cannotBe, { kind: 0xff }),
  'a kind beyond all': badRecord(cannotBe, { kind: 0xffffffff }),
  'an unknown kind': badRecord(brokeProtocol, { kind: 50 }),
  'a control record that has a payload': badRecord(cannotBe, {
    kind: Kind.Heartbeat,
    payloadBytes: 1,
  }),
  'a view before the first': badRecord(brokeProtocol, { kind: Kind.Heartbeat, view: 0 }),
  'a view that two members cannot have': badRecord(brokeProtocol, {
    kind: Kind.Heartbeat,
    view: 3,
  }),
  'a page of a view beyond all': {
    act: async ({ fake, awaited }) => {
      await fake.write(0, awaited, pageBytes, 9)
      await fake.send(0, dataRecord(ownPages + 1, { view: 0xffffffff }))
    },
    reason: brokeProtocol,
  },
  'a record without news of credit': {
    act: ({ fake }) => fake.send(0, { kind: Kind.Heartbeat }, 'none'),
    reason: cannotBe,
  },
  'a write that ends a receive': {
    act: ({ fake, awaited }) => fake.write(0, awaited, 64, 9, '0'),
    reason: cannotBe,
  },
  'an answer that no thread waits for': {
    act: ({ fake, awaited }) => fake.write(0, awaited, pageBytes, 9, answerFor(0)),
    reason: cannotBe,
  },
  'an answer for a slot beyond all': {
    act: ({ fake, awaited }) => fake.write(0, awaited, pageBytes, 9, answerFor(2047, 1, true)),
    reason: cannotBe,
  },
  'an answer of no bytes': {
    act: ({ fake, awaited }) => fake.write(0, awaited, 0, 9, answerFor(0)),
    reason: cannotBe,
  },
  'a write of no bytes that ends a receive': {
    act: ({ fake, awaited }) => fake.write(0, awaited, 0, 9, '0'),
    reason: cannotBe,
  },
  'an answer by a record': {
    act: ({ fake }) => fake.send(0, dataRecord(ownPages + 1), answerFor(0)),
    reason: cannotBe,
  },
  'news alone that calls itself an answer': {
    act: ({ fake }) => fake.sendBytes(0, Buffer.alloc(0), answerFor(0)),
    reason: cannotBe,
  },
  'news alone, of all bits': {
    act: ({ fake }) => fake.sendBytes(0, Buffer.alloc(0), '4294967295'),
    reason: cannotBe,
  },

  'more credit than it offered': {
    act: ({ fake }) => fake.send(0, { kind: Kind.Heartbeat }, '200'),
    reason: tooMuchRoom,
  },
  'all the credit that can be said': {
    act: ({ fake }) => fake.send(0, { kind: Kind.Heartbeat }, '511'),
    reason: tooMuchRoom,
  },
  'more credit by news alone': {
    act: ({ fake }) => fake.sendBytes(0, Buffer.alloc(0), '249'),
    reason: tooMuchRoom,
  },

  'a recall by who is not the home': badRecord(brokeProtocol, {
    kind: Kind.RecallRead,
    page: 0,
    words: requester(0),
  }),
  "a recall for the member's own": badRecord(brokeProtocol, {
    kind: Kind.RecallWrite,
    page: ownPages,
    words: requester(0),
  }),
  'a recall for a rank that is not there': badRecord(brokeProtocol, {
    kind: Kind.RecallWrite,
    page: ownPages,
    words: requester(2),
  }),
  'a recall for a rank beyond all': badRecord(brokeProtocol, {
    kind: Kind.RecallRead,
    page: ownPages,
    words: requester(0xffffffff),
  }),
  'an invalidation for a rank beyond all': badRecord(brokeProtocol, {
    kind: Kind.Invalidate,
    page: ownPages,
    words: [0xffffffff],
  }),
  'a request without a key': badKeys(async () => ({ rkey: 0, address: 0n }), cannotBe),
  'a request with a key of nothing': badKeys(
    async (fake) => ({ ...(await fake.memory(pageBytes)), rkey: 0x7fff00 }),
    /remote access error \(verbs status 10\)/,
  ),
  'a request for a page into memory that ends before': badKeys(
    async (fake) => at(await fake.memory(pageBytes), 0, 1),
    /remote access error \(verbs status 10\)/,
  ),
  "a request for a page into the member's own memory": {
    act: ({ fake, held }) =>
      fake.send(0, { kind: Kind.ReadRequest, page: 3, words: keyedWords(0, held) }),
    reason: /remote access error \(verbs status 10\)/,
  },

  'a queue pair in error': {
    act: async ({ fake }) => {
      fake.hands.order('fail 0')
      await fake.hands.answer('failed 0')
      // Nothing tells the member before it sends again.
      fake.member.peer.send({ kind: Kind.Acquire, words: [2, 0, 5, 1] })
    },
    reason: /transport retry counter exceeded \(verbs status 12\)/,
  },
}

t.test('a member that breaks the rules of its link', async (t) => {
  const zero = startMember(t, meetInFile(t, 1), 0)
  for (const [name, each] of Object.entries(cases)) {
    await t.test(name, async (t) => {
      const fake = await meet(t, [zero])
      await openHalves(zero, fake)
      const held = await serve(t, zero, fake, ownPages)
      const fetch = prefetch(zero, ownPages + 1)
      const awaited = await fake.request(0)
      const waiting = zero.failure((room) => room.mesh.barrier())
      await each.act({ t, zero, fake, held, awaited })
      t.match(await waiting, { code: 'ERR_PAGEMESH_MEMBER_DOWN', rank: 1, message: each.reason })
      await t.rejects(fetch, { code: 'ERR_PAGEMESH_MEMBER_DOWN' }, 'the awaited page is not had')
      t.equal(await strangeOwnWords(zero), 0, 'its own pages are as they were')
      t.equal(await strangeWords(zero, ownPages, 1, servedWord), 0, 'and the page that it holds')
      await leave(zero)
    })
  }
  await endWell(t, [zero])
})
