import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import t from 'tap'
import { type Stats } from '../../dist/api/region.js'
import { type Placement } from '../../dist/protocol/placement.js'
import { sized, transport } from './support/machine.js'
import { all, leaveAll, type Member, type Room, startMesh } from './support/members.js'

const KiB = 1024
const MiB = 2 ** 20

interface Shape {
  byteLength: number
  placement: Placement
  pageBytes: number
  prefetch?: 'auto' | 'off'
}

const openThere = async (room: Room, name: string, shape: Shape): Promise<bigint> => {
  const { address } = await room.open(name, shape)
  return address
}

/** Every member writes every size-th byte, then all look at all of them. */
async function interleavedBytesOf(room: Room, name: string): Promise<string> {
  const { mesh, regions } = room
  const bytes = new Uint8Array(regions[name].buffer)
  const expected = (at: number): number => ((at % mesh.size) * 41 + at * 7 + 1) % 256
  for (let at = mesh.rank; at < bytes.length; at += mesh.size) bytes[at] = expected(at)
  await mesh.barrier()
  for (let at = 0; at < bytes.length; at++) {
    if (bytes[at] !== expected(at)) return `byte ${at} is ${bytes[at]}, not ${expected(at)}`
  }
  await mesh.barrier()
  return 'right'
}

t.test('placements, lengths and page sizes', async (t) => {
  const members = await startMesh(t, 4)
  const placements: Placement[] = ['block', 'cyclic', { rank: 0 }, { rank: 3 }]
  // Fewer pages than members, as many, and more, that end within and at the end of a page.
  const lengths = [1, 8, 4096, 4097, 3 * 4096, 4 * 4096, 5 * 4096 - 1, 17 * 4096 + 13]
  for (const placement of placements) {
    for (const pageBytes of [4096, 65536]) {
      for (const byteLength of lengths.map((length) => (length * pageBytes) / 4096)) {
        const shape = { byteLength: Math.floor(byteLength), placement, pageBytes }
        const name = JSON.stringify(shape)
        const addresses = await all(members, openThere, name, shape)
        const same = addresses.every((address) => address === addresses[0])
        const found = same ? await all(members, interleavedBytesOf, name) : addresses
        if (found.some((word) => word !== 'right')) t.same(found, [], name)
      }
    }
  }
  t.pass(`${placements.length * 2 * lengths.length} shapes`)
  await leaveAll(t, members)
})

t.test('what a region says of itself', async (t) => {
  const members = await startMesh(t, 2)
  const seen = await all(members, async (room) => {
    const region = await room.open('r', { byteLength: 5000 })
    const { name, byteLength, pageBytes, placement, address, buffer } = region
    const isShared = Object.prototype.toString.call(buffer) === '[object SharedArrayBuffer]'
    const again = await room.open('r', { byteLength: 5000 })
    const same = again === region && buffer === again.buffer
    return {
      name,
      byteLength,
      pageBytes,
      placement,
      address,
      isShared,
      same,
      of: buffer.byteLength,
    }
  })
  t.match(seen[0], {
    name: 'r',
    byteLength: 5000,
    pageBytes: 4096,
    placement: 'block',
    isShared: true,
    same: true,
    of: 5000,
  })
  t.same(seen[1], seen[0])
  t.type(seen[0].address, 'bigint')
  const maps = readFileSync(`/proc/${members[0].child.pid}/maps`, 'utf8')
  t.match(maps, new RegExp(`^${seen[0].address.toString(16)}-`, 'm'), 'it stands there')
  await leaveAll(t, members)
})

t.test('opened at the same time, one after the other, and by some only', async (t) => {
  const members = await startMesh(t, 3)
  const counts = await all(members, async (room) => {
    const names = Array.from({ length: 60 }, (_, i) => `region ${(i * 7) % 60}`)
    const opened = await Promise.all(names.map((name) => room.open(name, { byteLength: 10000 })))
    return new Set(opened.map(({ address }) => address)).size
  })
  t.same(counts, [60, 60, 60], 'each has its own place')
  t.same(
    await all(members, async (room) => {
      const { mesh, regions } = room
      let wrong = 0
      for (const [name, region] of Object.entries(regions)) {
        const at = mesh.rank
        new Int32Array(region.buffer)[at] = Number(name.split(' ')[1]) * 3 + at
      }
      await mesh.barrier()
      for (const [name, region] of Object.entries(regions)) {
        const words = new Int32Array(region.buffer)
        for (let at = 0; at < 3; at++) {
          if (words[at] !== Number(name.split(' ')[1]) * 3 + at) wrong++
        }
      }
      return wrong
    }),
    [0, 0, 0],
  )
  const one = members[1]
  await one.run(async (room) => {
    new Int32Array((await room.open('late', { byteLength: 4096 })).buffer)[5] = 55
  })
  const late = await members[2].run(
    async (room) => new Int32Array((await room.open('late', { byteLength: 4096 })).buffer)[5],
  )
  t.equal(late, 55, 'whoever opens it later sees what was written')
  await leaveAll(t, members)
})

t.test('regions that members disagree on', async (t) => {
  const members = await startMesh(t, 3)
  const [zero, one, two] = members as [Member, Member, Member]
  const shape = { byteLength: 8192, placement: { rank: 1 }, pageBytes: 4096 }
  await one.run(openThere, 'r', shape)
  const cases: [Partial<Shape>, RegExp][] = [
    [{ byteLength: 8193 }, /'r': byteLength is 8192 as rank 1 opened it, and 8193 here/],
    [{ pageBytes: 8192 }, /'r': pageBytes is 4096 as rank 1 opened it, and 8192 here/],
    [{ placement: 'block' }, /placement is \{ rank: 1 \} as rank 1 opened it, and 'block' here/],
    [{ prefetch: 'off' }, /'r': prefetch is 'auto' as rank 1 opened it, and 'off' here/],
    [{ placement: { rank: 2 } }, /placement is \{ rank: 1 \} .* and \{ rank: 2 \} here/],
  ]
  for (const [difference, message] of cases) {
    for (const member of members) {
      const failure = await member.failure(openThere, 'r', { ...shape, ...difference })
      t.match(failure, { code: 'ERR_PAGEMESH_REGION_MISMATCH', message })
    }
  }
  const addresses = await all([zero, one, two], openThere, 'r', shape)
  t.equal(new Set(addresses).size, 1, 'it opens with the right options')
  const both = await Promise.all([
    zero.run(openThere, 'new', shape).catch((error: unknown) => (error as { code: string }).code),
    two
      .run(openThere, 'new', { ...shape, byteLength: 1 })
      .catch((error: unknown) => (error as { code: string }).code),
  ])
  t.equal(both.filter((outcome) => outcome === 'ERR_PAGEMESH_REGION_MISMATCH').length, 1)
  await leaveAll(t, members)
})

t.test('a region that cannot be mapped', async (t) => {
  const members = await startMesh(t, 2)
  const [zero, one] = members as [Member, Member]
  const { pid } = one.child
  const used = /VmSize:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  const limit = Number(used) * KiB + 512 * MiB
  one.reusable = false
  execFileSync('prlimit', ['--pid', String(pid), `--as=${limit}:`])
  for (const member of members) {
    const failure = await member.failure(async (room, byteLength) => {
      await room.open('large', { byteLength })
    }, 2048 * MiB)
    t.match(failure, {
      code: 'ERR_PAGEMESH_REGION_FAILED',
      message: /'large'.*rank 1: ENOMEM.*smaller/,
    })
  }
  const small = { byteLength: 3 * MiB, placement: 'block', pageBytes: 4096 } as const
  const addresses = await all([zero, one], openThere, 'large', small)
  t.equal(addresses[0], addresses[1], 'a smaller one of that name opens')
  t.same(await all(members, interleavedBytesOf, 'large'), ['right', 'right'])
  await leaveAll(t, members)
})

t.test('false sharing: five members write interleaved words, again and again', async (t) => {
  const members = await startMesh(t, 5)
  const sums = await all(members, async (room) => {
    const { mesh } = room
    const region = await room.open('words', { byteLength: 16 * 4096, placement: 'cyclic' })
    const words = new Int32Array(region.buffer)
    await mesh.barrier()
    for (let round = 0; round < 10; round++) {
      for (let at = mesh.rank; at < words.length; at += mesh.size) words[at] += at + round
      if (round % 3 === 0) await mesh.barrier()
    }
    await mesh.barrier()
    let wrong = 0
    for (let at = 0; at < words.length; at++) if (words[at] !== 10 * at + 45) wrong++
    await mesh.barrier()
    return wrong
  })
  t.same(sums, [0, 0, 0, 0, 0])
  await leaveAll(t, members)
})

t.test('random access, checked against a model', async (t) => {
  const members = await startMesh(t, 5)
  const outcomes = await all(members, async (room) => {
    const { mesh } = room
    const wordCount = 24 * 1024
    const region = await room.open('random', { byteLength: wordCount * 4 })
    const words = new Int32Array(region.buffer)
    // The same numbers in all members: in each round every word has one writer.
    const model = new Int32Array(wordCount)
    let seed = 12345
    const random = (below: number): number => {
      seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff
      return (seed >>> 8) % below
    }
    await mesh.barrier()
    for (let round = 0; round < 15; round++) {
      for (let i = 0; i < 200; i++) {
        const [at, writer, value] = [random(wordCount), random(mesh.size), random(2 ** 20)]
        const kept = model[at] === 0 || model[at] % mesh.size === writer
        if (!kept) continue
        model[at] = value * mesh.size + writer
        if (writer === mesh.rank) words[at] = value * mesh.size + writer
      }
      await mesh.barrier()
      for (let i = 0; i < 300; i++) {
        const at = random(wordCount)
        if (words[at] !== model[at])
          return `round ${round}: ${at} is ${words[at]}, not ${model[at]}`
      }
      await mesh.barrier()
    }
    return 'right'
  })
  t.same(outcomes, ['right', 'right', 'right', 'right', 'right'])
  await leaveAll(t, members)
})

t.test('one writes, one reads: a read fault for each page, and sums that agree', async (t) => {
  const members = await startMesh(t, 2)
  const pages = sized(2048, 128)
  const byteLength = pages * 4096
  for (const placement of ['block', 'cyclic', { rank: 0 }, { rank: 1 }] satisfies Placement[]) {
    const name = JSON.stringify(placement)
    const [writer, reader] = await all(
      members,
      async (room, name, options) => {
        const { mesh } = room
        const region = await room.open(name, options)
        const words = new Int32Array(region.buffer)
        let sum = 0
        if (mesh.rank === 0) for (let i = 0; i < words.length; i++) words[i] = words[i] + 1
        await mesh.barrier()
        if (mesh.rank === 1) for (const word of words) sum += word
        await mesh.barrier()
        return { sum, ...region.stats() }
      },
      name,
      { byteLength, placement, prefetch: 'off' } as const,
    )
    t.equal(reader.sum, byteLength / 4, name)
    t.equal(reader.readFaults, pages, 'one read fault per page touched')
    t.equal(reader.writeFaults, 0)
    t.equal(writer.pagesSent, reader.pagesReceived)
    t.equal(writer.pagesReceived, reader.pagesSent + writer.directReads)
    t.equal(reader.bytesReceived, reader.pagesReceived * 4096)
    t.equal(writer.bytesSent, writer.pagesSent * 4096)
    t.ok(reader.waitMs > 0)
  }
  const meshStats = await all(members, (room) => {
    const { transport, transportDetail, faults, ...numbers } = room.mesh.stats()
    const { verbsMessages, shmMessages, locksTakenHere, ...sums } = numbers
    const all = Object.values(room.regions).map((region) => region.stats())
    const names = Object.keys(sums) as (keyof typeof sums)[]
    return names.map((name) => sums[name] === all.reduce((sum, stats) => sum + stats[name], 0))
  })
  t.ok(meshStats.flat().every(Boolean), 'mesh.stats() sums them')
  t.equal(await members[0].run((room) => room.mesh.stats().transport), transport)
  await leaveAll(t, members)
})

t.test('what all members moved adds up', async (t) => {
  const members = await startMesh(t, 4)
  const move = async (room: Room, pages: number): Promise<Stats> => {
    const { mesh } = room
    const region = await room.open('all', { byteLength: pages * 4096, placement: 'cyclic' })
    const words = new Int32Array(region.buffer)
    for (let round = 0; round < 6; round++) {
      for (let page = 0; page < pages; page++) {
        if ((page + round) % mesh.size === mesh.rank) words[page * 1024 + mesh.rank] += 1
        else if ((page * 5 + round) % 3 === 0) room.kept.word = words[page * 1024]
      }
      await mesh.barrier()
    }
    return region.stats()
  }
  const stats = await all(members, move, sized(64, 16))
  const total = (name: keyof Stats): number => stats.reduce((sum, each) => sum + each[name], 0)
  const fetched = total('directReads') // by who received it, and sent by nobody
  t.equal(total('pagesSent') + fetched, total('pagesReceived'))
  t.equal(total('bytesSent') + fetched * 4096, total('bytesReceived'))
  t.equal(total('bytesSent'), total('pagesSent') * 4096)
  t.ok(total('invalidations') > 0)
  await leaveAll(t, members)
})

t.test('pages that nobody has become a writer’s own, on one host without asking', async (t) => {
  const members = await startMesh(t, 3)
  const pages = sized(256, 64)
  const rounds = sized(20, 6)
  const counts = await all(
    members,
    async (room, pages, rounds) => {
      const { mesh } = room
      const options = { placement: { rank: 0 }, prefetch: 'off' } as const
      const region = await room.open('own', { byteLength: pages * 4096, ...options })
      const words = new Int32Array(region.buffer)
      const giveBack = async (): Promise<void> => {
        await mesh.barrier()
        await region.discard(0, region.buffer.byteLength)
        await mesh.barrier()
      }
      // Clean at the home, and nobody has a copy: one member writes all of it.
      for (let page = 0; page < pages; page++) if (mesh.rank === 0) words[page * 1024 + 7] = page
      await mesh.barrier()
      if (mesh.rank === 1)
        for (let page = 0; page < pages; page++) room.kept.word = words[page * 1024]
      await giveBack()
      const before = region.stats().directWrites
      if (mesh.rank === 1) for (let page = 0; page < pages; page++) words[page * 1024] = page
      const alone = region.stats().directWrites - before
      await mesh.barrier()
      // Two, and sometimes the home, want the same pages at the same time.
      for (let round = 0; round < rounds; round++) {
        if (mesh.rank === 0)
          for (let page = 0; page < pages; page++) room.kept.word = words[page * 1024]
        await giveBack()
        if (mesh.rank > 0 || round % 3 === 0) {
          for (let page = 0; page < pages; page++) words[page * 1024 + 1 + mesh.rank] = round + 1
        }
        await mesh.barrier()
      }
      let wrong = 0
      const [last, ofHome] = [rounds, rounds - ((rounds - 1) % 3)]
      for (let page = 0; page < pages; page++) {
        const now = words.subarray(page * 1024, page * 1024 + 8).join()
        if (now !== [page, ofHome, last, last, 0, 0, 0, page].join()) wrong++
      }
      await mesh.barrier()
      return { alone, wrong }
    },
    pages,
    rounds,
  )
  t.same(
    counts.map(({ wrong }) => wrong),
    [0, 0, 0],
  )
  // The first ones may come before the home is through with what was given back.
  if (transport === 'shm') t.ok(counts[1].alone > pages / 2, `${counts[1].alone} of ${pages}`)
  else t.equal(counts[1].alone, 0)
  await leaveAll(t, members)
})

t.test('prefetch: the pages are there, without faults', async (t) => {
  const members = await startMesh(t, 2)
  const [zero, one] = members as [Member, Member]
  const byteLength = sized(64, 2) * MiB
  await zero.run(async (room, byteLength) => {
    const { buffer } = await room.open('p', { byteLength, placement: { rank: 0 } })
    new Int32Array(buffer).fill(7)
  }, byteLength)
  const read = await one.run(async (room, byteLength) => {
    const region = await room.open('p', { byteLength, placement: { rank: 0 } })
    await region.prefetch(0, byteLength, 'read')
    let sum = 0
    for (const word of new Int32Array(region.buffer)) sum += word
    return { sum, ...region.stats() }
  }, byteLength)
  t.match(read, {
    sum: (7 * byteLength) / 4,
    readFaults: 0,
    writeFaults: 0,
    pagesReceived: byteLength / 4096,
  })
  const write = await one.run(async (room, byteLength) => {
    const region = room.regions.p
    await region.prefetch(0, byteLength, 'write')
    new Int32Array(region.buffer).fill(8)
    return region.stats()
  }, byteLength)
  t.match(write, { readFaults: 0, writeFaults: 0, pagesReceived: byteLength / 4096 })
  const back = await zero.run(async (room) => {
    const region = room.regions.p
    const before = region.stats()
    await region.prefetch(4096 * 3 + 17, 4096 * 2, 'write')
    const words = new Int32Array(region.buffer)
    const values = [3, 4, 5].map((page) => words[page * 1024])
    const after = region.stats()
    return { values, faults: after.readFaults - before.readFaults }
  })
  t.same(back.values, [8, 8, 8])
  t.equal(back.faults, 0, 'pages that the range touches are brought whole')
  await leaveAll(t, members)
})

t.test('prefetch by all of the same pages', async (t) => {
  const members = await startMesh(t, 4)
  const stamp = async (room: Room, pages: number): Promise<number> => {
    const { mesh } = room
    const byteLength = pages * 4096
    const region = await room.open('p', { byteLength, placement: 'cyclic' })
    const words = new Int32Array(region.buffer)
    for (let round = 0; round < 3; round++) {
      await region.prefetch(0, byteLength, 'write')
      for (let page = 0; page < pages; page++) words[page * 1024 + mesh.rank] += 1
      await region.prefetch(0, byteLength, 'read')
    }
    await mesh.barrier()
    let sum = 0
    for (const word of words) sum += word
    await mesh.barrier()
    return sum
  }
  const pages = sized(256, 32)
  const stamps = await all(members, stamp, pages)
  t.same(stamps, Array(4).fill(4 * 3 * pages))
  await leaveAll(t, members)
})

t.test('discard: the next touch fetches again', async (t) => {
  const members = await startMesh(t, 2)
  const [zero, one] = members as [Member, Member]
  const options = { byteLength: 32 * 4096, placement: { rank: 0 }, prefetch: 'off' } as const
  await zero.run(async (room, options) => {
    new Int32Array((await room.open('d', options)).buffer).fill(3)
  }, options)
  const faults = await one.run(async (room, options) => {
    const region = await room.open('d', options)
    const words = new Int32Array(region.buffer)
    const touchAll = (): number => {
      for (let at = 0; at < words.length; at += 1024) if (words[at] !== 3) throw new Error('wrong')
      return region.stats().readFaults
    }
    const first = touchAll()
    const again = touchAll()
    await region.discard(0, options.byteLength)
    const all = touchAll()
    await region.discard(4096, 2 * 4096)
    const two = touchAll()
    words[0] = 4
    await region.discard(0, options.byteLength)
    return [first, again, all, two, words[0], words[1024]]
  }, options)
  t.same(faults, [32, 32, 64, 66, 4, 3])
  t.equal(await zero.run((room) => new Int32Array(room.regions.d.buffer)[0]), 4)
  t.equal(
    await zero.run(async (room) => {
      const region = room.regions.d
      await region.discard(0, 32 * 4096)
      return new Int32Array(region.buffer)[0]
    }),
    4,
    'its own pages survive being discarded at home',
  )
  await leaveAll(t, members)
})

t.test('pin: a system call uses the pages, others wait', async (t) => {
  const members = await startMesh(t, 2)
  const [zero, one] = members as [Member, Member]
  const options = { byteLength: 8 * 4096, placement: { rank: 0 } }
  await zero.run(async (room, options) => {
    new Uint8Array((await room.open('pin', options)).buffer).fill(65)
  }, options)
  const written = await one.run(async (room, options) => {
    const region = await room.open('pin', options)
    const pin = await region.pin(4096, 2 * 4096, 'read')
    const fs = await import('node:fs')
    const fd = fs.openSync('/dev/null', 'w')
    const count = fs.writeSync(fd, new Uint8Array(region.buffer, 4096, 2 * 4096))
    fs.closeSync(fd)
    pin.release()
    pin.release()
    return count
  }, options)
  t.equal(written, 8192)
  await one.run(async (room) => {
    const pin = await room.regions.pin.pin(0, 4096, 'write')
    new Uint8Array(room.regions.pin.buffer)[0] = 66
    room.kept.pin = pin
  })
  const waiting = zero.run((room) => new Uint8Array(room.regions.pin.buffer)[0])
  const early = await Promise.race([waiting, one.run((room) => room.sleep(150))])
  t.equal(early, undefined, 'rank 0 waits for the pinned page')
  await one.run((room) => (room.kept.pin as Disposable)[Symbol.dispose]())
  t.equal(await waiting, 66)
  t.same(
    await all(members, async (room) => {
      const region = room.regions.pin
      let done = 0
      for (let i = 0; i < 50; i++) {
        const pin = await region.pin((i % 4) * 4096, 3 * 4096, i % 2 === 0 ? 'write' : 'read')
        await pin[Symbol.asyncDispose]()
        done++
      }
      return done
    }),
    [50, 50],
    'pins of overlapping ranges do not lock each other up',
  )
  await leaveAll(t, members)
})

t.test('words: all members add at the same time', async (t) => {
  const members = await startMesh(t, 5)
  const options = { byteLength: 3 * 4096, placement: 'cyclic' } as const
  await all(
    members,
    async (room, options) => {
      await room.open('w', options)
    },
    options,
  )
  const seen = await all(members, async (room) => {
    const region = room.regions.w
    const narrow: number[] = []
    for (let i = 0; i < 20; i++) {
      const adds = Array.from({ length: 10 }, () => region.fetchAdd(4096 + 8, 1))
      narrow.push(...(await Promise.all(adds)))
      await region.fetchAdd(8, -(2n ** 40n))
      await region.fetchAdd(8192, -3)
    }
    return narrow
  })
  t.same(
    seen.flat().sort((a, b) => a - b),
    Array.from({ length: 1000 }, (_, i) => i),
    'each value was given to one',
  )
  const ends = await all(members, async (room) => {
    const region = room.regions.w
    const plain = new Int32Array(region.buffer)
    return [
      await region.load(4096 + 8),
      await region.load(8, 'int64'),
      await region.load(8192, 'int32'),
      plain[1026],
      new BigInt64Array(region.buffer)[1],
      plain[2048],
    ]
  })
  for (const end of ends)
    t.same(end, [1000, -100n * 2n ** 40n, -300, 1000, -100n * 2n ** 40n, -300])
  await leaveAll(t, members)
})

t.test('words: exchange, store, signs and wrapping', async (t) => {
  const members = await startMesh(t, 2)
  for (const member of members) {
    const seen = await member.run(async (room) => {
      const region = await room.open('w', { byteLength: 8192, placement: 'block' })
      const other = 4096 * (1 - room.mesh.rank) // homed at the other member
      const results: unknown[] = []
      for (const at of [other, 4096 - other]) {
        await region.store(at, -5)
        await region.store(at + 8, -5n)
        results.push([
          await region.load(at),
          await region.compareExchange(at, -5, 2 ** 31 - 1),
          await region.compareExchange(at, -5, 0),
          await region.fetchAdd(at, 1),
          await region.load(at),
          await region.fetchAdd(at, 2 ** 32 - 1),
          await region.load(at),
          await region.load(at + 8, 'int64'),
          await region.compareExchange(at + 8, -5n, 2n ** 63n - 1n),
          await region.compareExchange(at + 8, -5n, 0n),
          await region.fetchAdd(at + 8, 1n),
          await region.load(at + 8, 'int64'),
          await region.fetchAdd(at + 8, 2n ** 64n - 1n),
          await region.load(at + 8, 'int64'),
          await region.load(at + 4),
        ])
      }
      return results
    })
    const [max, min] = [2 ** 31 - 1, -(2 ** 31)]
    const [maxWide, minWide] = [2n ** 63n - 1n, -(2n ** 63n)]
    const expected = [-5, -5, max, max, min, min, max]
    const expectedWide = [-5n, -5n, maxWide, maxWide, minWide, minWide, maxWide]
    t.same(seen, [
      [...expected, ...expectedWide, 0],
      [...expected, ...expectedWide, 0],
    ])
  }
  await leaveAll(t, members)
})

t.test('words and plain access to the same page', async (t) => {
  const members = await startMesh(t, 3)
  const outcomes = await all(members, async (room) => {
    const { mesh } = room
    const region = await room.open('mixed', { byteLength: 4096, placement: { rank: 1 } })
    const words = new Int32Array(region.buffer)
    await mesh.barrier()
    for (let i = 0; i < 100; i++) {
      await region.fetchAdd(0, 1)
      words[8 + mesh.rank] += 1
      if (words[0] < i) return 'what was added is not seen'
    }
    await mesh.barrier()
    const end = Array.from(words.slice(0, 11))
    await mesh.barrier()
    return end
  })
  const expected = [300, 0, 0, 0, 0, 0, 0, 0, 100, 100, 100]
  t.same(outcomes, [expected, expected, expected])
  await leaveAll(t, members)
})

t.test('the last bytes of the last page', async (t) => {
  const members = await startMesh(t, 2)
  const byteLength = 64 * KiB + 24
  await all(
    members,
    async (room, byteLength) => {
      const region = await room.open('end', { byteLength, placement: 'block' })
      await region.fetchAdd(byteLength - 4, 1)
      await region.fetchAdd(byteLength - 16, 1n)
      await region.prefetch(byteLength - 1, 1, 'write')
      await region.prefetch(byteLength, 0, 'read')
      const pin = await region.pin(byteLength - 1, 1, 'read')
      pin.release()
      await room.mesh.barrier()
    },
    byteLength,
  )
  t.same(
    await all(members, (room) => {
      const { buffer } = room.regions.end
      const words = new Int32Array(buffer)
      return [words[words.length - 1], words[words.length - 4]]
    }),
    [
      [2, 2],
      [2, 2],
    ],
  )
  await leaveAll(t, members)
})
