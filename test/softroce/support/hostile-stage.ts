import { type Test } from 'tap'
import { Kind } from '../../../dist/protocol/messages.js'
import type { RawRecord } from '../../cluster/support/fake-member.js'
import { type Meeting, meetInFile, type Member } from '../../cluster/support/members.js'
import { type FakeOptions, type Frame, VerbsFake } from './verbs-fake.js'

// Members with a peer that is a fake, the region that they share, and what it looks like after what
// the fake has done.

export const pageBytes = 4096
export const chunkPages = 1024 // registered at a time, so what one key reaches
/** Of a region with a half for each of two members. */
export const ownPages = 2 * chunkPages
export const byteLength = 2 * ownPages * pageBytes
/** At either end of a member's half: what wrong addresses lead to. */
export const edgePages = 4
export const servedFill = 7

/** Has real members join, from rank 0 on, and a fake one as the last rank. */
export async function meet(
  t: Test,
  members: readonly Member[],
  options: FakeOptions & { heartbeatTimeoutMs?: number } = {},
): Promise<VerbsFake> {
  const meeting = meetInFile(t, members.length + 1)
  const { heartbeatTimeoutMs = 60_000 } = options
  const joined = joinReal(members, meeting, { transport: 'verbs', heartbeatTimeoutMs })
  const fake = await VerbsFake.join(t, meeting, options)
  await joined
  return fake
}

export async function joinReal(
  members: readonly Member[],
  { size, key, rendezvous }: Meeting,
  more: { transport: 'verbs' | 'auto'; heartbeatTimeoutMs: number },
): Promise<void> {
  await Promise.all(
    members.map((member, rank) =>
      member.run(
        async (room, options) => {
          await room.join(options)
        },
        { size, key, rendezvous, rank, joinTimeoutMs: 300_000, ...more },
      ),
    ),
  )
}

/** Opens a region of which each has a half; the outermost of the own pages begin as fives. */
export async function openHalves(zero: Member, fake: VerbsFake): Promise<void> {
  const open = zero.run(
    async (room, options, ownBytes, edgeBytes) => {
      const { buffer } = await room.open('r', options)
      for (const start of [0, ownBytes - edgeBytes]) {
        new Int32Array(buffer, start, edgeBytes / 4).fill(5)
      }
    },
    { byteLength },
    ownPages * pageBytes,
    edgePages * pageBytes,
  )
  await fake.member.answerMap()
  await open
}

export const dataRecord = (page: number, more: Partial<RawRecord> = {}): RawRecord => ({
  kind: Kind.Data,
  page,
  payloadBytes: pageBytes,
  ...more,
})

export function prefetch(member: Member, page: number): Promise<void> {
  return member.run(
    (room, offset, length) => room.regions.r.prefetch(offset, length, 'read'),
    page * pageBytes,
    pageBytes,
  )
}

/** Lets the member have a page of the fake's, filled; gives the key that it told. */
export async function serve(t: Test, zero: Member, fake: VerbsFake, page: number): Promise<Frame> {
  const fetched = prefetch(zero, page)
  const request = await fake.request(0)
  t.equal(request.page, page)
  await fake.write(0, request, pageBytes, servedFill)
  await fake.send(0, dataRecord(page))
  await fetched
  return request
}

/** The words of that many pages that are not `word`; it must be able to read them. */
export function strangeWords(
  member: Member,
  firstPage: number,
  pageCount: number,
  word: number,
): Promise<number> {
  return member.run(
    (room, offset, length, expected) => {
      const words = new Int32Array(room.regions.r.buffer, offset, length)
      return words.filter((found) => found !== expected).length
    },
    firstPage * pageBytes,
    (pageCount * pageBytes) / 4,
    word,
  )
}

/** The words of the own pages that were given a value and have another one. */
export async function strangeOwnWords(zero: Member): Promise<number> {
  const starts = [0, ownPages - edgePages]
  const counts = await Promise.all(starts.map((page) => strangeWords(zero, page, edgePages, 5)))
  return counts[0] + counts[1]
}

export const servedWord = servedFill * 0x01010101

export async function leave(zero: Member): Promise<void> {
  await zero.run((room) => room.mesh.leave())
}
export const linkFailed = /its link failed: [a-z ]+ \(verbs (status|event) \d+\)/
export const cannotBe = /it sent a record that cannot be/
export const nobodyAsked = /it sent a page that nobody asked for/
export const brokeProtocol = /it broke the protocol: /
export const tooMuchRoom = /it claimed more room for messages than there can be/

export const at = (frame: Frame, pages: number, bytes = 0): Frame => ({
  rkey: frame.rkey,
  address: frame.address + BigInt(pages * pageBytes + bytes),
})

/** The processes have gone through all of that, have nothing to complain about, and end well. */
export async function endWell(t: Test, members: readonly Member[]): Promise<void> {
  for (const member of members) {
    member.child.disconnect()
    t.equal(await member.end(), 0)
    t.equal(member.stderr, '')
  }
}
