import * as path from 'node:path'
import t from 'tap'

const bench = new URL('../../bench/', import.meta.url).href

interface Updates {
  numberAt: (place: number) => { high: number; low: number }
  fillTable: (table: Uint32Array) => void
  update: (table: Uint32Array, start: number, count: number) => void
  updateTogether: (table: Uint32Array, start: number, count: number) => void
  countWrong: (table: Uint32Array) => number
}
const updates = (await import(`${bench}lib/random-updates.mjs`)) as Updates

t.test('the stream of random updates: powers of x, from any place on', (t) => {
  t.same(updates.numberAt(0), { high: 0, low: 1 })
  t.same(updates.numberAt(63), { high: 0x80000000, low: 0 })
  t.same(updates.numberAt(64), { high: 0, low: 7 })
  // One update of a table of one word leaves the next number in it.
  for (const place of [0, 1, 63, 64, 1000, 123_456_789]) {
    const table = new Uint32Array(2)
    updates.update(table, place, 1)
    const { high, low } = updates.numberAt(place + 1)
    t.same([...table], [low, high], `after ${place}`)
  }
  t.end()
})

t.test('updates are taken back by the same updates, in parts and in any order', (t) => {
  const table = new Uint32Array(2 * 256)
  updates.fillTable(table)
  updates.update(table, 5000, 1000)
  t.ok(updates.countWrong(table) > 0)
  updates.updateTogether(table, 5500, 500)
  t.ok(updates.countWrong(table) > 0)
  updates.update(table, 5000, 500)
  t.equal(updates.countWrong(table), 0)
  updates.update(table, 5000, 1000)
  updates.update(table, 5000, 999)
  t.equal(updates.countWrong(table), 1, 'a single lost update is found')
  t.end()
})

interface Arrays {
  a: Float64Array
  b: Float64Array
  c: Float64Array
}
const stream = (await import(`${bench}lib/stream-kernels.mjs`)) as {
  kernels: { name: string; run: (arrays: Arrays) => void }[]
  fillArrays: (arrays: Arrays) => void
  checkArrays: (arrays: Arrays, passes: number) => void
}

t.test('STREAM is checked, element by element', (t) => {
  const arrays = { a: new Float64Array(9), b: new Float64Array(9), c: new Float64Array(9) }
  stream.fillArrays(arrays)
  for (let pass = 0; pass < 1000; pass++) for (const { run } of stream.kernels) run(arrays)
  stream.checkArrays(arrays, 1000)
  t.ok(Math.abs(arrays.a[0] - 1) < 1e-9, 'values stay as large as they are')
  t.throws(() => stream.checkArrays(arrays, 1001), { message: /^STREAM: a\[0\] is / })
  arrays.c[7] += 1e-15
  t.throws(() => stream.checkArrays(arrays, 1000), { message: /^STREAM: c\[7\] is / })
  t.end()
})

type Results = Record<'alone' | 'passing' | 'shared', number[]>
const { checkResults } = (await import(`${bench}apps/application.mjs`)) as {
  checkResults: (application: { name: string; tolerance: number }, results: Results) => void
}

t.test('a result that differs is an error', (t) => {
  const exact = { name: 'sort', tolerance: 0 }
  const near = { name: 'k-means', tolerance: 1e-9 }
  const good = { alone: [1, 2, 3], passing: [1, 2, 3], shared: [1, 2, 3] }
  checkResults(exact, good)
  checkResults(near, { ...good, shared: [1, 2, 3 + 1e-10] })
  const wrong: [object, Partial<Results>, RegExp][] = [
    [exact, { shared: [1, 2, 3 + 1e-10] }, /^sort: members came to a wrong result: it differs by /],
    [exact, { passing: [1, 3, 2] }, /^sort: passed messages came to a wrong result: .* by 0\.5 /],
    [near, { shared: [1, 2, 3.1] }, /^k-means: members .*, and may differ by 1e-9$/],
    [near, { shared: [1, NaN, 3] }, /differs by NaN/],
    [near, { shared: [1, 2] }, /differs by NaN/],
    [near, { alone: [], passing: [], shared: [] }, /differs by NaN/],
  ]
  for (const [application, results, message] of wrong) {
    t.throws(() => checkResults(application as never, { ...good, ...results }), { message })
  }
  t.end()
})

interface Run {
  step: () => void | Promise<void>
  result: () => Float64Array | Uint32Array
}
interface Application {
  name: string
  sizes: { tiny: number }
  tolerance: number
  alone: (size: number) => Run
  shared: (mesh: object, size: number) => Promise<Run>
}
const { applications } = (await import(`${bench}apps/all.mjs`)) as {
  applications: Record<string, Application>
}
const { multiplyRows } = (await import(`${bench}apps/multiply.mjs`)) as {
  multiplyRows: (size: number, matrices: object, start: number, end: number) => void
}
const { countingSort, shareBuckets } = (await import(`${bench}apps/sort.mjs`)) as {
  countingSort: (lists: Uint32Array[], counts: Uint32Array, sorted: Uint32Array) => void
  shareBuckets: (histograms: Uint32Array[]) => { owners: Uint8Array; counts: number[][] }
}

/** Members of a made-up mesh in one process: one that waits at a barrier lets the others run. */
function makeMesh(size: number): object[] {
  const buffers = new Map<string, SharedArrayBuffer>()
  let waiting: (() => void)[] = []
  return Array.from({ length: size }, (_, rank) => ({
    ...{ rank, size },
    region(name: string, { byteLength }: { byteLength: number }) {
      const buffer = buffers.get(name) ?? new SharedArrayBuffer(byteLength)
      buffers.set(name, buffer)
      return Promise.resolve({ buffer, prefetch: () => Promise.resolve() })
    },
    barrier: () =>
      new Promise<void>((resolve) => {
        waiting.push(resolve)
        if (waiting.length < size) return
        for (const pass of waiting) pass()
        waiting = []
      }),
  }))
}

t.test('applications come to the same result with any number of members', async (t) => {
  for (const { name, sizes, tolerance, alone, shared } of Object.values(applications)) {
    const single = alone(sizes.tiny)
    for (let step = 0; step < 3; step++) await single.step()
    for (const size of [1, 2, 3]) {
      const runs = await Promise.all(makeMesh(size).map((mesh) => shared(mesh, sizes.tiny)))
      for (let step = 0; step < 3; step++)
        await Promise.all(runs.map((run) => Promise.resolve(run.step())))
      const result = [...runs[0].result()]
      const expected = [...single.result()]
      checkResults({ name, tolerance }, { alone: expected, passing: expected, shared: result })
      t.ok(runs.slice(1).every((run) => run.result().length === 0))
      t.pass(`${name}, ${size} members`)
    }
  }
})

t.test('kernels against their definitions', (t) => {
  const size = 70 // no multiple of a block
  const left = Float64Array.from({ length: size ** 2 }, (_, i) => (i * 7) % 11)
  const right = Float64Array.from({ length: size ** 2 }, (_, i) => (i * 5) % 13)
  const product = new Float64Array(size ** 2).fill(9)
  multiplyRows(size, { left, right, product }, 0, size)
  const expected = product.map((_, i) => {
    const [row, column] = [Math.floor(i / size), i % size]
    let sum = 0
    for (let k = 0; k < size; k++) sum += left[row * size + k] * right[k * size + column]
    return sum
  })
  t.same([...product], [...expected], 'all are whole numbers, so in any order')

  const lists = [Uint32Array.of(5, 0, 3, 3), Uint32Array.of(4, 0)]
  const sorted = new Uint32Array(6)
  countingSort(lists, new Uint32Array(6), sorted)
  t.same([...sorted], [0, 0, 3, 3, 4, 5])

  const histograms = [new Uint32Array(1024).fill(2), new Uint32Array(1024).fill(1, 0, 512)]
  const { owners, counts } = shareBuckets(histograms)
  t.equal(owners[0], 0)
  t.equal(owners[1023], 1)
  const all = counts.map((to) => to.reduce((sum, count) => sum + count, 0))
  t.same(all, [2048, 512], 'no key is lost')
  const owned = [0, 1].map((owner) => counts[0][owner] + counts[1][owner])
  t.ok(Math.abs(owned[0] - owned[1]) <= 6, 'and both get about as many')
  t.end()
})

interface Peer {
  send: (message: ArrayBufferView) => Promise<void>
  receive: (message: ArrayBufferView) => Promise<void>
  exchange: (out: ArrayBufferView, into: ArrayBufferView) => Promise<void>
  close: () => Promise<void>
}
const { Peer } = (await import(`${bench}apps/peer.mjs`)) as {
  Peer: { listen: (path: string) => Promise<Peer>; connect: (path: string) => Promise<Peer> }
}

t.test('two processes that pass messages', async (t) => {
  const socketPath = path.join(t.testdir(), 'socket')
  // The one that connects is first, and waits for the other.
  const connecting = Peer.connect(socketPath)
  const [first, second] = await Promise.all([Peer.listen(socketPath), connecting])
  const large = Float64Array.from({ length: 200_000 }, (_, i) => i)
  const into = new Float64Array(large.length)
  const small = new Uint32Array(2)
  await Promise.all([first.exchange(large, small), second.exchange(Uint32Array.of(7, 8), into)])
  t.same([...small], [7, 8])
  t.ok(into.every((value, i) => value === i))
  await second.receive(new Float64Array(0))
  // Several messages at once, taken apart again by their lengths.
  await first.send(Uint8Array.of(1, 2, 3, 4, 5))
  const parts = [new Uint8Array(2), new Uint8Array(3)] as const
  for (const part of parts) await second.receive(part)
  t.same(
    parts.map((part) => [...part]),
    [
      [1, 2],
      [3, 4, 5],
    ],
  )
  const never = second.receive(new Uint8Array(1))
  await first.close()
  await t.rejects(never, { message: 'the other process closed its socket' })
  await second.close()
})
