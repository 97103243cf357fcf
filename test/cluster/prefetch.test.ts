import { readFileSync } from 'node:fs'
import t, { type Test } from 'tap'
import type { JoinOptions, RegionOptions, Stats } from '../../dist/index.js'
import { sized } from './support/machine.js'
import { all, eventually, leaveAll, type Member, type Room, startMesh } from './support/members.js'

// Automatic prefetch, native/memory/prefetch.cc. Functions that members run are sent as text.

/** Opens a region; rank 0 writes `page + 1` into the first and the last word of each page. */
async function openFilled(room: Room, name: string, options: RegionOptions): Promise<void> {
  const words = new Int32Array((await room.open(name, options)).buffer)
  if (room.mesh.rank === 0) {
    for (let at = 0; at < words.length; at += 1024) {
      words[at] = at / 1024 + 1
      words[at + 1023] = at / 1024 + 1
    }
  }
  await room.mesh.barrier()
}

/** Reads pages in this order; returns those that hold something else, and what it took. */
function readPages(
  room: Room,
  name: string,
  pages: readonly number[],
): { wrong: number[]; stats: Stats } {
  const region = room.regions[name]
  const words = new Int32Array(region.buffer)
  const wrong = pages.filter((page) => {
    return words[page * 1024] !== page + 1 || words[page * 1024 + 1023] !== page + 1
  })
  return { wrong, stats: region.stats() }
}

/** The same, by as many threads as there are lists. */
async function readInThreads(
  room: Room,
  name: string,
  lists: readonly (readonly number[])[],
): Promise<number[]> {
  const { Worker } = await import('node:worker_threads')
  const body = `
    const { parentPort, workerData } = require('node:worker_threads')
    const words = new Int32Array(workerData.buffer)
    const wrong = workerData.pages.filter((page) => {
      return words[page * 1024] !== page + 1 || words[page * 1024 + 1023] !== page + 1
    })
    parentPort.postMessage(wrong)`
  const outcomes = lists.map(async (pages) => {
    const worker = new Worker(body, {
      eval: true,
      workerData: { buffer: room.regions[name].buffer, pages },
    })
    const exit = new Promise((resolve) => worker.once('exit', resolve))
    const wrong = await new Promise<number[]>((resolve, reject) => {
      worker.once('message', resolve)
      worker.once('error', reject)
    })
    await exit
    return wrong
  })
  return (await Promise.all(outcomes)).flat()
}

const upTo = (count: number, step = 1): number[] =>
  Array.from({ length: Math.ceil(count / step) }, (_, index) => index * step)

/** Any order, the same every time. */
function shuffled(pages: readonly number[]): number[] {
  const left = [...pages]
  let state = 7
  return pages.map(() => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return left.splice(state % left.length, 1)[0]
  })
}

const orders = (count: number): Record<string, number[]> => ({
  forward: upTo(count),
  backward: upTo(count).reverse(),
  'every third': upTo(count, 3),
  'every 16th, backward': upTo(count, 16).reverse(),
  'two places in turn': upTo(count / 2).flatMap((page) => [page, page + count / 2]),
  random: shuffled(upTo(count)),
})

t.test('whatever the order, the right contents', async (t) => {
  const members = await startMesh(t, 3)
  const pages = sized(512, 256)
  for (const placement of ['block', 'cyclic', { rank: 0 }] satisfies RegionOptions['placement'][]) {
    for (const [order, list] of Object.entries(orders(pages))) {
      const name = `${JSON.stringify(placement)}, ${order}`
      await all(members, openFilled, name, { byteLength: pages * 4096, placement })
      const found = await all(members.slice(1), readPages, name, list)
      t.same(
        found.map(({ wrong }) => wrong),
        [[], []],
        name,
      )
      const [{ stats }] = found
      const asked = stats.pagesPrefetched
      if (order === 'random') t.ok(asked < pages / 4, `${asked} of ${pages} pages asked ahead`)
      else t.ok(asked > list.length / 4, `${asked} of ${list.length} pages asked ahead`)
      t.ok(stats.prefetchesUseless <= asked, `${stats.prefetchesUseless} in vain`)
    }
  }
  await leaveAll(t, members)
})

t.test('a scan asks for nearly all pages ahead, and for each of them once', async (t) => {
  const members = await startMesh(t, 2)
  const pages = sized(4096, 512)
  const options = { byteLength: pages * 4096, placement: { rank: 0 } }
  await all(members, openFilled, 'auto', options)
  const { wrong, stats } = await members[1].run(readPages, 'auto', upTo(pages))
  t.same(wrong, [])
  t.equal(stats.pagesReceived, pages)
  t.ok(stats.pagesPrefetched > pages * 0.9, `${stats.pagesPrefetched} of ${pages}`)
  t.ok(stats.pagesPrefetched + stats.readFaults >= pages)

  await all(members, openFilled, 'off', { ...options, prefetch: 'off' as const })
  const off = await members[1].run(readPages, 'off', upTo(pages))
  t.same(off.wrong, [])
  const { readFaults, pagesReceived, pagesPrefetched, prefetchesUseless } = off.stats
  t.same([readFaults, pagesReceived], [pages, pages], 'a fault for each page')
  t.same([pagesPrefetched, prefetchesUseless], [0, 0], 'and none ahead')
  await leaveAll(t, members)
})

t.test('large pages', async (t) => {
  const members = await startMesh(t, 2)
  const pageBytes = 2 ** 20
  const count = 12
  const options = { byteLength: count * pageBytes, pageBytes, placement: { rank: 0 } }
  await all(members, openFilled, 'large', options)
  const { wrong, stats } = await members[1].run(readPages, 'large', upTo(count * 256, 32))
  t.same(wrong, [])
  t.equal(stats.pagesReceived, count)
  t.ok(stats.pagesPrefetched > 0)
  await leaveAll(t, members)
})

t.test('several threads at once, in one region', async (t) => {
  const members = await startMesh(t, 2)
  const pages = sized(2048, 256)
  await all(members, openFilled, 'r', { byteLength: pages * 4096, placement: { rank: 0 } })
  const lists = Object.values(orders(pages))
  t.same(await members[1].run(readInThreads, 'r', [...lists, ...lists]), [])
  const { stats } = await members[1].run(readPages, 'r', [])
  t.equal(stats.pagesReceived, pages, 'no page came twice')
  await leaveAll(t, members)
})

t.test('a window that is left is given up, and counted', async (t) => {
  const members = await startMesh(t, 2)
  const pages = 8192
  await all(members, openFilled, 'r', { byteLength: pages * 4096, placement: { rank: 0 } })
  const scan = await members[1].run(readPages, 'r', upTo(200))
  t.ok(scan.stats.pagesPrefetched > 150)
  t.equal(scan.stats.prefetchesUseless, 0, 'it may go on')
  const elsewhere = Array.from({ length: 16 }, (_, index) => 1000 + index * 300)
  const { wrong, stats } = await members[1].run(readPages, 'r', elsewhere)
  t.same(wrong, [])
  t.equal(stats.pagesPrefetched, scan.stats.pagesPrefetched, 'nothing is asked ahead of these')
  const most = stats.pagesPrefetched + stats.readFaults - 200
  t.ok(stats.prefetchesUseless > 0 && stats.prefetchesUseless <= most, `${most} at most`)
  await leaveAll(t, members)
})

t.test('short runs are soon not asked ahead of', async (t) => {
  const members = await startMesh(t, 2)
  const runs = 80
  await all(members, openFilled, 'r', { byteLength: runs * 100 * 4096, placement: { rank: 0 } })
  const three = shuffled(upTo(runs)).flatMap((run) => upTo(3).map((page) => run * 100 + page))
  const { wrong, stats } = await members[1].run(readPages, 'r', three)
  t.same(wrong, [])
  t.ok(stats.pagesPrefetched > 0, 'at first they might go on')
  t.ok(stats.pagesPrefetched < runs, `${stats.pagesPrefetched} in ${runs} runs`)
  await leaveAll(t, members)
})

/** Writes 1, 2, 3 … into all pages, one after the other from the first to the last. */
function writeRounds(room: Room, name: string, rounds: number): void {
  const words = new Int32Array(room.regions[name].buffer)
  for (let round = 1; round <= rounds; round++) {
    for (let at = 0; at < words.length; at += 1024) words[at] = round
  }
}

/** Reads all pages there and back until the last round is seen; what must not be seen. */
async function watchRounds(room: Room, name: string, rounds: number): Promise<string[]> {
  const words = new Int32Array(room.regions[name].buffer)
  const last = words.length - 1024
  const wrong: string[] = []
  for (let scans = 0; wrong.length < 10; scans++) {
    let before = 0
    // What was written earlier than something that has been read must be seen.
    for (let at = last; at >= 0; at -= 1024) {
      const word = words[at]
      if (word < before) wrong.push(`backward, page ${at / 1024}: ${word} after ${before}`)
      before = word
    }
    for (let at = 0; at <= last; at += 1024) {
      const word = words[at]
      if (word < before - 1) wrong.push(`forward, page ${at / 1024}: ${word} after ${before}`)
      before = word
    }
    if (words[last] === rounds) return wrong
    await room.sleep(0)
  }
  return wrong
}

t.test('while another member writes: sequentially consistent', async (t) => {
  const members = await startMesh(t, 3)
  const pages = sized(64, 16)
  const rounds = sized(60, 10)
  for (const [index, placement] of (['block', { rank: 0 }, { rank: 1 }] as const).entries()) {
    const name = `r${index}`
    await all(
      members,
      (room, name, options) => room.open(name, options).then(() => undefined),
      name,
      {
        byteLength: pages * 4096,
        placement,
      },
    )
    const [wrong, none, also] = await Promise.all([
      members[1].run(watchRounds, name, rounds),
      members[0].run(writeRounds, name, rounds),
      members[2].run(watchRounds, name, rounds),
    ])
    t.same([wrong, none ?? [], also], [[], [], []], name)
  }
  const stats = await all(members, (room) => room.mesh.stats())
  t.ok(stats[1].pagesPrefetched > 0 && stats[1].invalidations > 0)
  await leaveAll(t, members)
})

/**
 * Pages of each member, in the tests below: so many that the window is at its largest at the end,
 * and reaches beyond what the last touch that anyone hears of has raised.
 */
const share = 512

/** Three members, each of which has filled its own share of a region. */
async function shares(t: Test, options: JoinOptions = {}): Promise<[Member, Member, Member]> {
  const members = await startMesh(t, 3, options)
  const fill = async (room: Room, share: number): Promise<void> => {
    const { mesh } = room
    const words = new Int32Array((await room.open('r', { byteLength: 3 * share * 4096 })).buffer)
    for (let page = mesh.rank * share; page < (mesh.rank + 1) * share; page++) {
      words[page * 1024] = page + 1
      words[page * 1024 + 1023] = page + 1
    }
    await mesh.barrier()
  }
  await all(members, fill, share)
  return members as [Member, Member, Member]
}

/** The pages of rank 2, backward: what comes next are those of rank 1. */
const ofRank2 = Array.from({ length: share - 1 }, (_, index) => 3 * share - 1 - index)

t.test('a home dies, and nobody waits for what was asked ahead', async (t) => {
  const [zero, one, two] = await shares(t)
  await one.stop()
  const { wrong, stats } = await zero.run(readPages, 'r', ofRank2)
  t.same(wrong, [])
  t.ok(stats.pagesPrefetched > share, `${stats.pagesPrefetched} asked, some of who cannot answer`)
  one.signal('SIGKILL')
  for (const member of [zero, two]) {
    t.match(await member.failure((room) => room.mesh.barrier('after')), {
      code: 'ERR_PAGEMESH_MEMBER_DOWN',
      rank: 1,
    })
  }
  t.same((await zero.run(readPages, 'r', ofRank2)).wrong, [], 'it goes on')
  t.same((await two.run(readPages, 'r', upTo(share))).wrong, [], 'and so does the other one')
  // A thread that does wait ends the process, as without prefetch.
  zero.run(readPages, 'r', [2 * share - 1])
  t.equal(await zero.end(), 74)
  t.match(zero.stderr, /page 1023 of region 'r' .* is lost: its home, rank 1, is down/)
  await leaveAll(t, [two])
})

t.test('a member dies while it asks ahead', async (t) => {
  const [zero, one, two] = await shares(t)
  const scanning = two.run(async (room) => {
    const words = new Int32Array(room.regions.r.buffer)
    for (;;) {
      for (let at = 0; at < words.length; at += 1024) if (words[at] === -1) return
      await room.regions.r.discard(0, room.regions.r.byteLength)
    }
  })
  await untilManySent(zero)
  two.signal('SIGKILL')
  await scanning.catch(() => undefined)
  for (const member of [zero, one]) {
    t.match(await member.failure((room) => room.mesh.barrier('after')), { rank: 2 })
    const { wrong } = await member.run(readPages, 'r', upTo(2 * share))
    t.same(wrong, [])
  }
  await leaveAll(t, [zero, one])
})

/** Until rank 2 has had many pages of this member. */
async function untilManySent(member: Member): Promise<void> {
  await eventually('pages sent', async () => {
    const sent = await member.run((room) => room.regions.r.stats().pagesSent)
    return sent > 50 ? sent : undefined
  })
}

t.test('a connection that takes no more is asked nothing ahead', async (t) => {
  // Over a link there is no such connection.
  const [zero, one, two] = await shares(t, { transport: 'tcp' })
  // Notices of so many copies given back at once are more than a socket holds.
  const pages = 98_304
  const options = { byteLength: pages * 4096, placement: { rank: 1 } }
  await all([zero, one, two], (room, options) => room.open('many', options).then(() => 0), options)
  await zero.run((room, bytes) => room.regions.many.prefetch(0, bytes, 'read'), pages * 4096)
  await one.stop()
  await zero.run((room, bytes) => room.regions.many.discard(0, bytes), pages * 4096)
  t.ok(isFull(zero), 'the socket is full')
  const { wrong, stats } = await zero.run(readPages, 'r', ofRank2)
  t.same(wrong, [])
  t.ok(stats.pagesPrefetched > share / 2 && stats.pagesPrefetched <= share, 'only of rank 2')
  one.signal('SIGCONT')
  const rest = await zero.run(readPages, 'r', upTo(2 * share).reverse())
  t.same(rest.wrong, [], 'and the others come when they are touched')
  t.equal(rest.stats.pagesReceived, 2 * share)
  await leaveAll(t, [zero, one, two])
})

/** Whether a connection of the member's has more to send than the other side has room for. */
function isFull({ child }: Member): boolean {
  const table = readFileSync(`/proc/${child.pid}/net/tcp`, 'utf8')
  return table.split('\n').some((line) => {
    const queued = /^ *\d+: \S+ \S+ 01 ([0-9A-F]{8}):/.exec(line)?.[1]
    return queued !== undefined && parseInt(queued, 16) > 2 ** 20
  })
}
