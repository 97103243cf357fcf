import { randomFrom } from '../../test/support/xorshift.mjs'
import { openArray, pageBytes, prefetch, shareOf } from './application.mjs'

const bucketBits = 10
const bucketCount = 2 ** bucketBits
/** A histogram of buckets fills a page: no two members write the same one. */
const histogramWords = pageBytes / Uint32Array.BYTES_PER_ELEMENT
const uniformLimit = 2 ** 16

/**
 * Integer sort in the way of IS, of the NAS Parallel Benchmarks (D. Bailey and others, 1991): keys
 * about normally distributed, two of which change before each step. Several processes agree by
 * histograms of buckets on who gets which values, hand over the keys, and count those they have.
 * @type {import('./application.mjs').Application}
 */
export const sort = {
  name: 'integer sort',
  sizes: { normal: 20, tiny: 12 },
  stepsPerBatch: 10,
  describe: (bits) => `2^${bits} keys below 2^${keyBits(bits)}`,
  tolerance: 0,
  alone,
  shared,
  passing,
}

/** @param {number} bits */
const keyBits = (bits) => bits - 4

/**
 * Keys start … end - 1: sums of four random numbers, as NAS makes them.
 * @param {number} bits
 * @param {Uint32Array} keys
 * @param {{ start: number, end: number }} share
 */
function fillKeys(bits, keys, { start, end }) {
  const random = randomFrom(bits)
  const scale = 2 ** keyBits(bits) / (4 * uniformLimit)
  const uniform = () => random(uniformLimit)
  // All of them, because a key depends on those before it.
  for (let i = 0; i < end; i++) {
    const key = Math.floor((uniform() + uniform() + uniform() + uniform()) * scale)
    if (i >= start) keys[i - start] = key
  }
}

/**
 * Before each step two keys of rank 0 change, so that no step is the one before it again.
 * @param {number} bits
 * @param {Uint32Array} keys
 * @param {number} iteration
 */
function changeKeys(bits, keys, iteration) {
  const place = iteration % 1000
  keys[place] = place % 2 ** keyBits(bits)
  keys[place + 1000] = 2 ** keyBits(bits) - 1 - keys[place]
}

/**
 * Counting sort: writes the keys of all lists in order.
 * @param {Uint32Array[]} lists
 * @param {Uint32Array} counts one for each value, any contents
 * @param {Uint32Array} sorted
 */
export function countingSort(lists, counts, sorted) {
  counts.fill(0)
  for (const keys of lists) for (let i = 0; i < keys.length; i++) counts[keys[i]]++
  let place = 0
  for (let key = 0; key < counts.length; key++) {
    const end = place + counts[key]
    while (place < end) sorted[place++] = key
  }
}

/**
 * @param {number} bits
 * @param {Uint32Array} keys
 * @param {Uint32Array} histogram
 */
function countBuckets(bits, keys, histogram) {
  const shift = Math.max(0, keyBits(bits) - bucketBits)
  histogram.fill(0)
  for (let i = 0; i < keys.length; i++) histogram[keys[i] >>> shift]++
}

/**
 * Who gets which buckets: consecutive ones, so that all have about the same number of keys.
 * @param {Uint32Array[]} histograms by rank
 * @returns {{ owners: Uint8Array, counts: number[][] }} the owner of each bucket, and how many keys
 *   go from which rank to which
 */
export function shareBuckets(histograms) {
  const size = histograms.length
  const owners = new Uint8Array(bucketCount)
  const counts = histograms.map(() => new Array(size).fill(0))
  const keyCount = histograms.reduce((sum, histogram) => histogram.reduce((a, b) => a + b, sum), 0)
  let seen = 0
  for (let bucket = 0; bucket < bucketCount; bucket++) {
    const owner = Math.min(size - 1, Math.floor((seen * size) / keyCount))
    owners[bucket] = owner
    for (let rank = 0; rank < size; rank++) {
      counts[rank][owner] += histograms[rank][bucket]
      seen += histograms[rank][bucket]
    }
  }
  return { owners, counts }
}

/**
 * Puts keys that go to the same rank together, by rank.
 * @param {number} bits
 * @param {Uint32Array} keys
 * @param {{ owners: Uint8Array, counts: number[] }} share how many go to each rank
 * @param {Uint32Array} outgoing
 */
function groupKeys(bits, keys, { owners, counts }, outgoing) {
  const shift = Math.max(0, keyBits(bits) - bucketBits)
  const places = startsOf(counts)
  for (let i = 0; i < keys.length; i++) outgoing[places[owners[keys[i] >>> shift]]++] = keys[i]
}

/** @param {number[]} counts */
function startsOf(counts) {
  let sum = 0
  return Uint32Array.from(counts, (count) => (sum += count) - count)
}

/** @param {number} bits @returns {import('./application.mjs').Run} */
export function alone(bits) {
  const keyCount = 2 ** bits
  const keys = new Uint32Array(keyCount)
  const counts = new Uint32Array(2 ** keyBits(bits))
  const sorted = new Uint32Array(keyCount)
  fillKeys(bits, keys, { start: 0, end: keyCount })
  let iteration = 0
  return {
    step() {
      changeKeys(bits, keys, iteration++)
      countingSort([keys], counts, sorted)
    },
    result: () => sorted,
  }
}

/**
 * @param {import('../lib/member.mjs').Mesh} mesh
 * @param {number} bits
 * @returns {Promise<import('./application.mjs').Run>}
 */
export async function shared(mesh, bits) {
  const { rank, size } = mesh
  const ranks = Array.from({ length: size }, (_, other) => other)
  const keyCount = 2 ** bits
  const own = shareOf(keyCount, mesh)
  const allKeys = await openArray(mesh, 'keys', Uint32Array, keyCount)
  const histograms = await openArray(mesh, 'buckets', Uint32Array, size * histogramWords)
  const outgoing = await openArray(mesh, 'outgoing', Uint32Array, keyCount)
  const sorted = await openArray(mesh, 'sorted', Uint32Array, keyCount)
  const keys = allKeys.values.subarray(own.start, own.end)
  const histogramOf = ranks.map((other) => {
    const first = other * histogramWords
    return histograms.values.subarray(first, first + bucketCount)
  })
  const valueCounts = new Uint32Array(2 ** keyBits(bits))
  fillKeys(bits, keys, own)
  await mesh.barrier()
  let iteration = 0
  return {
    async step() {
      if (rank === 0) changeKeys(bits, keys, iteration)
      iteration++
      countBuckets(bits, keys, histogramOf[rank])
      await mesh.barrier()
      const { owners, counts } = shareBuckets(histogramOf)
      await prefetch(outgoing, 'write', own.start, own.end)
      const mine = outgoing.values.subarray(own.start, own.end)
      groupKeys(bits, keys, { owners, counts: counts[rank] }, mine)
      await mesh.barrier()
      // Nobody writes here again before all have read it and come to the next step's first barrier.
      const incoming = ranks.map((other) => {
        const first = shareOf(keyCount, { rank: other, size }).start + startsOf(counts[other])[rank]
        return { start: first, end: first + counts[other][rank] }
      })
      const totals = ranks.map((owner) => counts.reduce((sum, to) => sum + to[owner], 0))
      const start = startsOf(totals)[rank]
      const end = start + totals[rank]
      const others = incoming.filter((_, other) => other !== rank)
      await Promise.all([
        ...others.map((keys) => prefetch(outgoing, 'read', keys.start, keys.end)),
        prefetch(sorted, 'write', start, end),
      ])
      const lists = incoming.map((keys) => outgoing.values.subarray(keys.start, keys.end))
      countingSort(lists, valueCounts, sorted.values.subarray(start, end))
    },
    result: () => (rank === 0 ? sorted.values : sorted.values.subarray(0, 0)),
  }
}

/**
 * @param {import('./peer.mjs').Peer} peer
 * @param {number} bits
 * @returns {Promise<import('./application.mjs').Run>}
 */
export async function passing(peer, bits) {
  const { rank, size } = peer
  const other = 1 - rank
  const own = shareOf(2 ** bits, peer)
  const keys = new Uint32Array(own.end - own.start)
  const outgoing = new Uint32Array(keys.length)
  const incoming = new Uint32Array(2 ** bits - keys.length)
  const sorted = new Uint32Array(2 ** bits)
  const histograms = Array.from({ length: size }, () => new Uint32Array(bucketCount))
  const valueCounts = new Uint32Array(2 ** keyBits(bits))
  fillKeys(bits, keys, own)
  let iteration = 0
  let sortedCount = 0
  return {
    async step() {
      if (rank === 0) changeKeys(bits, keys, iteration)
      iteration++
      countBuckets(bits, keys, histograms[rank])
      await peer.exchange(histograms[rank], histograms[other])
      const { owners, counts } = shareBuckets(histograms)
      groupKeys(bits, keys, { owners, counts: counts[rank] }, outgoing)
      const starts = startsOf(counts[rank])
      const groupOf = (/** @type {number} */ to) => {
        return outgoing.subarray(starts[to], starts[to] + counts[rank][to])
      }
      const theirs = incoming.subarray(0, counts[other][rank])
      await peer.exchange(groupOf(other), theirs)
      sortedCount = counts[rank][rank] + theirs.length
      countingSort([groupOf(rank), theirs], valueCounts, sorted.subarray(0, sortedCount))
    },
    result: () => sorted.subarray(0, sortedCount),
  }
}
