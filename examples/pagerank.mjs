/**
 * PageRank over WordNet's synsets, by several members that share the graph and the scores:
 *
 *     pagemesh run -n 4 --no-prefix examples/pagerank.mjs [--limit SYNSETS]
 *
 * Rank 0 reads the files and writes the graph into regions. Then every member computes its share of
 * rows, and a barrier ends each step. At the end rank 0 compares with a single-process computation.
 */
import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import { join } from 'pagemesh'
import {
  balancedBounds,
  computeAlone,
  highestRows,
  largestRelativeDifference,
  maxStepCount,
  settledChange,
  startRows,
  stepRows,
} from './pagerank/compute.mjs'
import { Progress } from './support/progress.mjs'
import { gatherStats, wrap } from './support/report.mjs'
import { SharedArray, pageBytes } from './support/shared-array.mjs'
import { incomingEdges, readSynset, readWordnet } from './wordnet/wordnet.mjs'

/** @typedef {import('pagemesh').Mesh} Mesh */
/** @typedef {import('./wordnet/wordnet.mjs').Wordnet} Wordnet */
/** @typedef {import('./pagerank/compute.mjs').Graph} Graph */

const toleratedDifference = 1e-9
const scoresPerPage = pageBytes / Float64Array.BYTES_PER_ELEMENT

function readLimit() {
  const { values } = parseArgs({ options: { limit: { type: 'string' } } })
  const limit = values.limit === undefined ? Infinity : Number(values.limit)
  if (limit !== Infinity && !(Number.isInteger(limit) && limit > 0)) {
    throw new RangeError(`--limit should be a number of synsets, 1 or more, not ${values.limit}`)
  }
  return limit
}

/** @param {Mesh} mesh @param {number} limit */
async function run(mesh, limit) {
  const loaded = mesh.rank === 0 ? load(limit) : undefined
  const shared = await shareGraph(mesh, loaded?.graph)
  const { scores, stepCount, elapsedMs } = await rank(mesh, shared)
  const statsTable = await gatherStats(mesh)
  if (loaded !== undefined) {
    await scores.prefetch('read')
    printHighest(loaded.wordnet, scores.values)
    console.log(`\nWhat each member moved:\n${statsTable}`)
    compare(mesh, loaded.graph, scores.values, stepCount, elapsedMs)
  }
  // The others stay until rank 0 has read what they hold.
  await mesh.barrier()
}

/** What only rank 0 does. @param {number} limit @returns {{ wordnet: Wordnet, graph: Graph }} */
function load(limit) {
  const startMs = performance.now()
  const wordnet = readWordnet({ limit })
  const outDegrees = wordnet.edgeOffsets.subarray(1).map((end, s) => end - wordnet.edgeOffsets[s])
  const elapsedMs = performance.now() - startMs
  console.log(
    `WordNet: ${wordnet.synsetCount.toLocaleString('en-US')} synsets, ` +
      `${wordnet.edgeCount.toLocaleString('en-US')} relations of all types, ` +
      `read in ${elapsedMs.toFixed(0)} ms`,
  )
  return { wordnet, graph: { ...incomingEdges(wordnet), outDegrees } }
}

/**
 * Puts the graph into regions. Only rank 0 knows how large they are, so a first small region tells
 * the others, and which rows are whose.
 * @param {Mesh} mesh @param {Graph | undefined} graph rank 0's own copy
 * @returns {Promise<{ graph: Graph, start: number, end: number }>} start … end - 1 are our rows
 */
async function shareGraph(mesh, graph) {
  const header = await SharedArray.open(mesh, 'header', Uint32Array, mesh.size + 3, { rank: 0 })
  if (graph !== undefined) {
    // Shares begin at page boundaries of the scores. If two members wrote different scores of one
    // page, the page would travel between them although neither wants the other's numbers: false
    // sharing. The result would be the same, only later.
    const bounds = balancedBounds(graph.offsets, mesh.size, scoresPerPage)
    header.values.set([graph.outDegrees.length, graph.sources.length, ...bounds])
  }
  await mesh.barrier()

  const [rowCount, edgeCount, ...bounds] = header.values
  const offsets = await SharedArray.open(mesh, 'offsets', Uint32Array, rowCount + 1)
  const sources = await SharedArray.open(mesh, 'sources', Uint32Array, edgeCount)
  const outDegrees = await SharedArray.open(mesh, 'out-degrees', Uint32Array, rowCount)
  if (graph !== undefined) {
    await Promise.all([offsets, sources, outDegrees].map((array) => array.prefetch('write')))
    offsets.values.set(graph.offsets)
    sources.values.set(graph.sources)
    outDegrees.values.set(graph.outDegrees)
  }
  await mesh.barrier()

  const [start, end] = [bounds[mesh.rank], bounds[mesh.rank + 1]]
  await offsets.prefetch('read', start, end + 1)
  await sources.prefetch('read', offsets.values[start], offsets.values[end])
  await outDegrees.prefetch('read')
  return {
    graph: { offsets: offsets.values, sources: sources.values, outDegrees: outDegrees.values },
    start,
    end,
  }
}

/**
 * The steps. Each member reads all scores of the last step and writes its own rows of the next.
 * @param {Mesh} mesh
 * @param {{ graph: Graph, start: number, end: number }} share
 */
async function rank(mesh, { graph, start, end }) {
  const rowCount = graph.outDegrees.length
  let current = await SharedArray.open(mesh, 'scores-even', Float64Array, rowCount)
  let next = await SharedArray.open(mesh, 'scores-odd', Float64Array, rowCount)
  const sums = await PartialSums.open(mesh)
  const progress = mesh.rank === 0 ? new Progress('PageRank', maxStepCount) : undefined

  await current.prefetch('write', start, end)
  sums.put(0, 0, startRows(graph, current.values, start, end))
  await mesh.barrier()

  const startMs = performance.now()
  let dangling = (await sums.total(0)).dangling
  let change = Infinity
  let stepCount = 0
  while (change >= settledChange && stepCount < maxStepCount) {
    await Promise.all([current.prefetch('read'), next.prefetch('write', start, end)])
    const part = stepRows(graph, current.values, next.values, start, end, dangling)
    stepCount++
    sums.put(stepCount, part.change, part.dangling)
    // One barrier per step is enough: what a fast member writes in the next step is what all have
    // finished reading in this one.
    await mesh.barrier()
    ;({ change, dangling } = await sums.total(stepCount))
    ;[current, next] = [next, current]
    progress?.update(stepCount, `change ${change.toExponential(1)}`)
  }
  progress?.finish(stepCount, `change ${change.toExponential(1)}`)
  return { scores: current, stepCount, elapsedMs: performance.now() - startMs }
}

/**
 * Where each member leaves its part of a step's sums for all to add up, everyone in the same order,
 * so that all come to the same bits and stop at the same step.
 *
 * Two numbers per member would fit into one page together; then every write would take that page
 * away from the member that is about to write its own two numbers. So each member has pages of its
 * own. It has two, used in turn: a fast member writes the next step's sums while a slow one still
 * reads this step's.
 */
class PartialSums {
  /** @param {Mesh} mesh @param {SharedArray<Float64Array>} slots */
  constructor(mesh, slots) {
    this.mesh = mesh
    this.slots = slots
  }

  /** @param {Mesh} mesh */
  static async open(mesh) {
    const length = 2 * mesh.size * scoresPerPage
    return new PartialSums(mesh, await SharedArray.open(mesh, 'sums', Float64Array, length))
  }

  /** @param {number} memberRank @param {number} step */
  #slotIndex(memberRank, step) {
    return (2 * memberRank + (step % 2)) * scoresPerPage
  }

  /** @param {number} step @param {number} change @param {number} dangling */
  put(step, change, dangling) {
    this.slots.values.set([change, dangling], this.#slotIndex(this.mesh.rank, step))
  }

  /** @param {number} step */
  async total(step) {
    await Promise.all(
      Array.from({ length: this.mesh.size }, (_, memberRank) => {
        const slot = this.#slotIndex(memberRank, step)
        return this.slots.prefetch('read', slot, slot + 2)
      }),
    )
    let change = 0
    let dangling = 0
    for (let memberRank = 0; memberRank < this.mesh.size; memberRank++) {
      const slot = this.#slotIndex(memberRank, step)
      change += this.slots.values[slot]
      dangling += this.slots.values[slot + 1]
    }
    return { change, dangling }
  }
}

/** @param {Wordnet} wordnet @param {Float64Array} scores */
function printHighest(wordnet, scores) {
  console.log('\nThe highest synsets:')
  for (const [i, row] of highestRows(scores, 10).entries()) {
    const { partOfSpeech, words, gloss } = readSynset(wordnet, row)
    const place = `${String(i + 1).padStart(2)}. ${scores[row].toFixed(8)}  `
    const indent = ' '.repeat(place.length)
    const title = wrap(`${words.join(', ')} (${partOfSpeech})`, 100, indent)
    console.log(`${place}${title.trimStart()}\n${wrap(gloss, 100, indent)}`)
  }
}

/**
 * @param {Mesh} mesh @param {Graph} graph @param {Float64Array} scores
 * @param {number} stepCount @param {number} elapsedMs
 */
function compare(mesh, graph, scores, stepCount, elapsedMs) {
  const startMs = performance.now()
  const alone = computeAlone(graph)
  const aloneMs = performance.now() - startMs
  const difference = largestRelativeDifference(scores, alone.scores)

  console.log(`\nMembers: ${mesh.size}, ${stepCount} steps in ${elapsedMs.toFixed(0)} ms`)
  console.log(`One process, plain arrays: ${alone.stepCount} steps in ${aloneMs.toFixed(0)} ms`)
  console.log(
    wrap(
      'This shows that the result is right, not that it comes sooner: ' +
        `the members (${mesh.size} on ${availableParallelism()} cores) share a small graph, and ` +
        'every step sends all scores to all of them. Expect no speed-up.',
      100,
      '',
    ),
  )
  const verdict = `largest relative difference ${difference.toExponential(2)}`
  // Written so that NaN fails.
  if (difference < toleratedDifference) {
    console.log(`Same scores: ${verdict}, below ${toleratedDifference}`)
  } else {
    console.error(`WRONG SCORES: ${verdict}, should be below ${toleratedDifference}`)
    process.exitCode = 1
  }
}

const limit = readLimit()
const mesh = await join()
try {
  await run(mesh, limit)
} finally {
  await mesh.leave()
}
