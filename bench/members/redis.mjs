// Member of the comparison with Redis: rank 0 is the home of every page and of a counter, rank 1
// uses them, and the same amounts of Redis's.
import { Redis } from 'ioredis'
import { serve } from '../lib/member.mjs'
import {
  checkPages,
  expectWord,
  fillPages,
  firstPages,
  pageBytes,
  shuffledPages,
  timeReads,
  timeWrites,
  wordOf,
  wordsPerPage,
} from '../lib/pages.mjs'

serve(async (mesh, { pageCount, path }) => {
  const byteLength = pageCount * pageBytes
  const own = { placement: { rank: 0 }, prefetch: 'off' }
  const region = await mesh.region('pages', { byteLength, ...own })
  const counters = await mesh.region('counters', { byteLength: 16, ...own })
  const cells = new Uint32Array(region.buffer)
  const redis = new Redis({ path, lazyConnect: true, maxRetriesPerRequest: 1 })
  if (mesh.rank === 1) await redis.connect()
  /** @param {{ seed: number, count: number }} args */
  const pick = ({ seed, count }) => shuffledPages(pageCount, count, seed)

  return {
    fill: (args) => fillPages(cells, pick(args), args.stamp),
    check: (args) => checkPages(cells, pick(args), args.stamps),
    discard: () => region.discard(0, byteLength),
    read: (args) => timeReads(cells, pick(args), args.stamp),
    write: (args) => timeWrites(cells, pick(args), args.stamps),
    add: ({ count, value }) =>
      timeCounter(count, { first: value, step: 1 }, () => counters.fetchAdd(0, 1n)),
    load: ({ count }) => timeCounter(count, { first: 0, step: 0 }, () => counters.load(8, 'int64')),

    async fillRedis({ stamp }) {
      const pages = firstPages(pageCount)
      const span = new Uint32Array(byteLength / Uint32Array.BYTES_PER_ELEMENT)
      fillPages(span, pages, stamp)
      for (const page of pages) await redis.set(`page:${page}`, bytesOf(span, page))
      await redis.set('span', Buffer.from(span.buffer))
      await redis.mset('counter', 0, 'other counter', 0)
    },
    get: ({ stamp, ...args }) =>
      timePages(pick(args), stamp, (page) => redis.getBuffer(`page:${page}`)),
    getRange: ({ stamp, ...args }) =>
      timePages(pick(args), stamp, (page) =>
        redis.getrangeBuffer('span', page * pageBytes, (page + 1) * pageBytes - 1),
      ),
    async set(args) {
      const [pages, stamp] = [pick(args), args.seed]
      const span = new Uint32Array(cells.length)
      fillPages(span, pages, stamp)
      const samplesUs = await timeEach(pages.length, (i) =>
        redis.set(`written:${pages[i]}`, bytesOf(span, pages[i])),
      )
      for (const page of pages) expectPage(page, stamp, await redis.getBuffer(`written:${page}`))
      return samplesUs
    },
    increment: ({ count, value }) =>
      timeCounter(count, { first: value + 1, step: 1 }, () => redis.incr('counter')),
    getCounter: ({ count }) =>
      timeCounter(count, { first: 0, step: 0 }, () => redis.get('other counter')),
    async disconnect() {
      if (mesh.rank === 1) redis.disconnect()
    },
  }
})

/** @param {Uint32Array} span @param {number} page */
function bytesOf(span, page) {
  return Buffer.from(span.buffer, page * pageBytes, pageBytes)
}

/**
 * @param {number} count
 * @param {(i: number) => Promise<unknown>} operation
 * @returns {Promise<Float64Array>} µs
 */
async function timeEach(count, operation) {
  const samplesUs = new Float64Array(count)
  for (let i = 0; i < count; i++) {
    const startMs = performance.now()
    await operation(i)
    samplesUs[i] = (performance.now() - startMs) * 1e3
  }
  return samplesUs
}

/**
 * @param {number} count
 * @param {{ first: number, step: number }} expected of the values that the operation gives
 * @param {() => Promise<unknown>} operation
 */
async function timeCounter(count, { first, step }, operation) {
  const values = []
  const samplesUs = await timeEach(count, async () => values.push(await operation()))
  for (const [i, value] of values.entries()) {
    const expected = first + i * step
    if (Number(value) !== expected) throw new Error(`the counter is ${value}, not ${expected}`)
  }
  return samplesUs
}

/**
 * @param {Uint32Array} pages
 * @param {number} stamp
 * @param {(page: number) => Promise<Buffer | null>} get
 * @returns {Promise<Float64Array>} µs
 */
async function timePages(pages, stamp, get) {
  const samplesUs = new Float64Array(pages.length)
  for (const [i, page] of pages.entries()) {
    const startMs = performance.now()
    const bytes = await get(page)
    samplesUs[i] = (performance.now() - startMs) * 1e3
    expectPage(page, stamp, bytes)
  }
  return samplesUs
}

/** @param {number} page @param {number} stamp @param {Buffer | null} bytes */
function expectPage(page, stamp, bytes) {
  if (bytes?.length !== pageBytes) throw new Error(`page ${page} has ${bytes?.length} bytes`)
  expectWord(page, bytes.readUInt32LE(0), wordOf(page, stamp))
  expectWord(page, bytes.readUInt32LE(4 * (wordsPerPage - 1)), wordOf(page, stamp))
}
