import { balancedBounds, startRows, stepRows } from '../../examples/pagerank/compute.mjs'
import { randomFrom } from '../../test/support/xorshift.mjs'
import { openArray, pageBytes, prefetch } from './application.mjs'

/** @typedef {import('../../examples/pagerank/compute.mjs').Graph} Graph */

const edgesPerRow = 16
/** How an edge falls into the quarters of the matrix, in per cent, as Graph500 has it. */
const quarters = { a: 57, b: 19, c: 19 }
const scoresPerPage = pageBytes / Float64Array.BYTES_PER_ELEMENT

/**
 * PageRank (Page, Brin, Motwani, Winograd, 1999), by the functions of the example. All scores go to
 * everybody in each step.
 * @type {import('./application.mjs').Application}
 */
export const pagerank = {
  name: 'PageRank',
  sizes: { normal: 17, tiny: 8 },
  stepsPerBatch: 10,
  describe: (scale) => `a step on 2^${scale} rows, ${edgesPerRow} edges each`,
  // The score of dangling rows is summed up in another order.
  tolerance: 1e-9,
  alone,
  shared,
  passing,
}

/**
 * A random graph whose degrees differ widely: R-MAT (D. Chakrabarti, Y. Zhan, C. Faloutsos, "R-MAT:
 * A Recursive Model for Graph Mining", 2004). Rows get their numbers at random, or the first ones
 * would have most of the edges.
 * @param {number} scale
 * @returns {Graph}
 */
export function makeGraph(scale) {
  const rowCount = 2 ** scale
  const random = randomFrom(scale)
  const edgeCount = rowCount * edgesPerRow
  const from = new Uint32Array(edgeCount)
  const to = new Uint32Array(edgeCount)
  const outDegrees = new Uint32Array(rowCount)
  const offsets = new Uint32Array(rowCount + 1)
  // An odd factor makes this one-to-one.
  const renamed = (/** @type {number} */ row) => (Math.imul(row, 0x9e3779b1) >>> 7) % rowCount
  for (let edge = 0; edge < edgeCount; edge++) {
    let source = 0
    let target = 0
    for (let bit = 0; bit < scale; bit++) {
      const quarter = random(100)
      const low = quarter >= quarters.a + quarters.b
      const right = low ? quarter >= quarters.a + quarters.b + quarters.c : quarter >= quarters.a
      source = 2 * source + Number(low)
      target = 2 * target + Number(right)
    }
    from[edge] = renamed(source)
    to[edge] = renamed(target)
    outDegrees[from[edge]]++
    offsets[to[edge] + 1]++
  }
  for (let row = 0; row < rowCount; row++) offsets[row + 1] += offsets[row]
  const sources = new Uint32Array(edgeCount)
  const next = offsets.slice()
  for (let edge = 0; edge < edgeCount; edge++) sources[next[to[edge]]++] = from[edge]
  return { offsets, sources, outDegrees }
}

/** @param {number} scale @returns {import('./application.mjs').Run} */
export function alone(scale) {
  const graph = makeGraph(scale)
  const rowCount = 2 ** scale
  let current = new Float64Array(rowCount)
  let next = new Float64Array(rowCount)
  let dangling = startRows(graph, current, 0, rowCount)
  return {
    step() {
      ;({ dangling } = stepRows(graph, current, next, 0, rowCount, dangling))
      ;[current, next] = [next, current]
    },
    result: () => current,
  }
}

/**
 * Rank 0 makes the graph and writes it into regions. A member's scores begin at a page, and its
 * part of the sums has pages of its own, two that are used in turn.
 * @param {import('../lib/member.mjs').Mesh} mesh
 * @param {number} scale
 * @returns {Promise<import('./application.mjs').Run>}
 */
export async function shared(mesh, scale) {
  const graph = await shareGraph(mesh, scale)
  const rowCount = 2 ** scale
  const bounds = balancedBounds(graph.offsets, mesh.size, scoresPerPage)
  const [start, end] = [bounds[mesh.rank], bounds[mesh.rank + 1]]
  let current = await openArray(mesh, 'scores even', Float64Array, rowCount)
  let next = await openArray(mesh, 'scores odd', Float64Array, rowCount)
  const sums = await openArray(mesh, 'sums', Float64Array, 2 * mesh.size * scoresPerPage)
  let stepCount = 0

  /** @param {number} rank */
  const slotOf = (rank) => (2 * rank + (stepCount % 2)) * scoresPerPage
  /** @param {number} ownPart @returns {Promise<number>} the sum, in the same order everywhere */
  async function total(ownPart) {
    sums.values[slotOf(mesh.rank)] = ownPart
    await mesh.barrier()
    let sum = 0
    for (let rank = 0; rank < mesh.size; rank++) sum += sums.values[slotOf(rank)]
    return sum
  }

  let dangling = await total(startRows(graph, current.values, start, end))
  return {
    async step() {
      stepCount++
      await Promise.all([
        prefetch(current, 'read', 0, rowCount),
        prefetch(next, 'write', start, end),
      ])
      const part = stepRows(graph, current.values, next.values, start, end, dangling)
      dangling = await total(part.dangling)
      ;[current, next] = [next, current]
    },
    result: () => (mesh.rank === 0 ? current.values : current.values.subarray(0, 0)),
  }
}

/**
 * @param {import('../lib/member.mjs').Mesh} mesh
 * @param {number} scale
 * @returns {Promise<Graph>}
 */
async function shareGraph(mesh, scale) {
  const rowCount = 2 ** scale
  const offsets = await openArray(mesh, 'offsets', Uint32Array, rowCount + 1)
  const sources = await openArray(mesh, 'sources', Uint32Array, rowCount * edgesPerRow)
  const outDegrees = await openArray(mesh, 'out-degrees', Uint32Array, rowCount)
  const arrays = [offsets, sources, outDegrees]
  if (mesh.rank === 0) {
    const graph = makeGraph(scale)
    await Promise.all(arrays.map((array) => prefetch(array, 'write', 0, array.values.length)))
    offsets.values.set(graph.offsets)
    sources.values.set(graph.sources)
    outDegrees.values.set(graph.outDegrees)
  }
  await mesh.barrier()
  await Promise.all(arrays.map((array) => prefetch(array, 'read', 0, array.values.length)))
  return { offsets: offsets.values, sources: sources.values, outDegrees: outDegrees.values }
}

/**
 * @param {import('./peer.mjs').Peer} peer
 * @param {number} scale
 * @returns {Promise<import('./application.mjs').Run>}
 */
export async function passing(peer, scale) {
  const graph = makeGraph(scale)
  const rowCount = 2 ** scale
  const bounds = balancedBounds(graph.offsets, peer.size, scoresPerPage)
  const [start, end] = [bounds[peer.rank], bounds[peer.rank + 1]]
  const other = 1 - peer.rank
  const own = new Float64Array(1)
  const theirs = new Float64Array(1)
  let current = new Float64Array(rowCount)
  let next = new Float64Array(rowCount)
  let dangling = startRows(graph, current, 0, rowCount)
  return {
    async step() {
      own[0] = stepRows(graph, current, next, start, end, dangling).dangling
      await Promise.all([
        peer.send(own),
        peer.send(next.subarray(start, end)),
        peer.receive(theirs).then(() => {
          return peer.receive(next.subarray(bounds[other], bounds[other + 1]))
        }),
      ])
      dangling = own[0] + theirs[0]
      ;[current, next] = [next, current]
    },
    result: () => current.subarray(start, end),
  }
}
