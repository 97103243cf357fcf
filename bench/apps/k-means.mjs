import { randomFrom } from '../../test/support/xorshift.mjs'
import { openArray, pageBytes, shareOf } from './application.mjs'

const dimensions = 8
const clusterCount = 32
/** The sum of a cluster's points, and how many there are. */
const sumsPerCluster = dimensions + 1
const sumsLength = clusterCount * sumsPerCluster
/** A member's sums have pages of their own. */
const doublesPerPage = pageBytes / Float64Array.BYTES_PER_ELEMENT

/**
 * k-means by Lloyd's algorithm (S. Lloyd, "Least squares quantization in PCM", 1982). A step finds
 * the nearest centre of each point, and moves each centre to the mean of its points. Points stay
 * where they are; only sums are handed over.
 * @type {import('./application.mjs').Application}
 */
export const kMeans = {
  name: 'k-means',
  sizes: { normal: 2 ** 15, tiny: 2 ** 10 },
  stepsPerBatch: 10,
  describe: (points) => `a step on ${points} points, ${dimensions} dimensions, k = ${clusterCount}`,
  // Sums of parts are rounded otherwise than the sum of everything.
  tolerance: 1e-9,
  alone,
  shared,
  passing,
}

/**
 * Points start … end - 1, each somewhere round one of `clusterCount` places.
 * @param {Float64Array} points
 * @param {{ start: number, end: number }} share
 */
function fillPoints(points, { start, end }) {
  for (let point = start; point < end; point++) {
    const noise = randomFrom(point + 1)
    noise(1) // neighbouring seeds begin alike
    const place = randomFrom(0x10000 + (point % clusterCount))
    place(1)
    for (let d = 0; d < dimensions; d++) {
      points[(point - start) * dimensions + d] = place(1000) + noise(400) / 2
    }
  }
}

/** The first centres are the first points. */
function firstCentres() {
  const centres = new Float64Array(clusterCount * dimensions)
  fillPoints(centres, { start: 0, end: clusterCount })
  return centres
}

/**
 * @param {Float64Array} points
 * @param {Float64Array} centres
 * @param {Float64Array} sums of the points nearest to each centre
 */
export function sumClusters(points, centres, sums) {
  sums.fill(0)
  for (let point = 0; point < points.length; point += dimensions) {
    let nearest = 0
    let least = Infinity
    for (let cluster = 0; cluster < clusterCount; cluster++) {
      let distance = 0
      for (let d = 0; d < dimensions; d++) {
        const difference = points[point + d] - centres[cluster * dimensions + d]
        distance += difference * difference
      }
      if (distance < least) {
        least = distance
        nearest = cluster
      }
    }
    const first = nearest * sumsPerCluster
    for (let d = 0; d < dimensions; d++) sums[first + d] += points[point + d]
    sums[first + dimensions]++
  }
}

/**
 * Moves each centre to the mean of its points; one that has none stays.
 * @param {Float64Array} centres
 * @param {Float64Array[]} parts sums, by rank
 */
export function moveCentres(centres, parts) {
  for (let cluster = 0; cluster < clusterCount; cluster++) {
    const first = cluster * sumsPerCluster
    const total = (/** @type {number} */ i) => parts.reduce((sum, part) => sum + part[first + i], 0)
    const count = total(dimensions)
    if (count === 0) continue
    for (let d = 0; d < dimensions; d++) centres[cluster * dimensions + d] = total(d) / count
  }
}

/** @param {number} pointCount @returns {import('./application.mjs').Run} */
export function alone(pointCount) {
  const points = new Float64Array(pointCount * dimensions)
  const sums = new Float64Array(sumsLength)
  const centres = firstCentres()
  fillPoints(points, { start: 0, end: pointCount })
  return {
    step() {
      sumClusters(points, centres, sums)
      moveCentres(centres, [sums])
    },
    result: () => centres,
  }
}

/**
 * Each member has two pages of sums, used in turn: a fast one writes the next step's while a slow
 * one still reads this step's.
 * @param {import('../lib/member.mjs').Mesh} mesh
 * @param {number} pointCount
 * @returns {Promise<import('./application.mjs').Run>}
 */
export async function shared(mesh, pointCount) {
  const { rank, size } = mesh
  const own = shareOf(pointCount, mesh)
  const all = await openArray(mesh, 'points', Float64Array, pointCount * dimensions)
  const sums = await openArray(mesh, 'sums', Float64Array, 2 * size * doublesPerPage)
  const points = all.values.subarray(own.start * dimensions, own.end * dimensions)
  const centres = firstCentres()
  fillPoints(points, own)
  const partsOf = [0, 1].map((turn) =>
    Array.from({ length: size }, (_, other) => {
      const first = (2 * other + turn) * doublesPerPage
      return sums.values.subarray(first, first + sumsLength)
    }),
  )
  let stepCount = 0
  return {
    async step() {
      const parts = partsOf[stepCount++ % 2]
      sumClusters(points, centres, parts[rank])
      await mesh.barrier()
      moveCentres(centres, parts)
    },
    result: () => (rank === 0 ? centres : centres.subarray(0, 0)),
  }
}

/**
 * @param {import('./peer.mjs').Peer} peer
 * @param {number} pointCount
 * @returns {Promise<import('./application.mjs').Run>}
 */
export async function passing(peer, pointCount) {
  const own = shareOf(pointCount, peer)
  const points = new Float64Array((own.end - own.start) * dimensions)
  const parts = Array.from({ length: peer.size }, () => new Float64Array(sumsLength))
  const centres = firstCentres()
  fillPoints(points, own)
  return {
    async step() {
      sumClusters(points, centres, parts[peer.rank])
      await peer.exchange(parts[peer.rank], parts[1 - peer.rank])
      moveCentres(centres, parts)
    },
    result: () => (peer.rank === 0 ? centres : centres.subarray(0, 0)),
  }
}
