/**
 * Heat spreading on a plate, computed by several members that share it:
 *
 *     pagemesh run -n 2 --no-prefix examples/heat.mjs [--size 256] [--steps 4000] [--out heat.png]
 *
 * Each member computes a band of rows and reads its neighbours' edge rows through the shared pages.
 * At the end rank 0 compares with a single-process computation, bit for bit, and draws a picture.
 */
import { writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join as joinPath } from 'node:path'
import { parseArgs } from 'node:util'
import { join } from 'pagemesh'
import { drawPlate } from './heat/picture.mjs'
import { computeAlone, makePlate, rowBounds, startRows, stepRows } from './heat/plate.mjs'
import { Progress } from './support/progress.mjs'
import { gatherStats } from './support/report.mjs'
import { SharedArray, pageBytes } from './support/shared-array.mjs'

/** @typedef {import('pagemesh').Mesh} Mesh */
/** @typedef {import('./heat/plate.mjs').Plate} Plate */

const cellsPerPage = pageBytes / Float64Array.BYTES_PER_ELEMENT

function readOptions() {
  const { values } = parseArgs({
    options: {
      size: { type: 'string', default: '256' },
      steps: { type: 'string', default: '4000' },
      out: { type: 'string', default: joinPath(tmpdir(), 'pagemesh-heat.png') },
    },
  })
  return {
    size: readInteger('size', values.size, 8, 4096),
    stepCount: readInteger('steps', values.steps, 1, 1_000_000),
    outPath: /** @type {string} */ (values.out),
  }
}

/**
 * @param {string} name @param {string | undefined} text
 * @param {number} least @param {number} most
 */
function readInteger(name, text, least, most) {
  const value = Number(text)
  if (Number.isInteger(value) && value >= least && value <= most) return value
  throw new RangeError(`--${name} should be a whole number from ${least} to ${most}, not ${text}`)
}

/** @param {Mesh} mesh @param {ReturnType<typeof readOptions>} options */
async function run(mesh, { size, stepCount, outPath }) {
  const plate = makePlate(size)
  const { cells, elapsedMs } = await diffuse(mesh, plate, stepCount)
  const statsTable = await gatherStats(mesh)
  if (mesh.rank === 0) {
    await cells.prefetch('read')
    console.log(`\nWhat each member moved:\n${statsTable}\n`)
    compare(mesh, plate, cells.values, stepCount, elapsedMs)
    writeFileSync(outPath, drawPlate(plate, cells.values))
    console.log(`Picture: ${outPath}`)
  }
  // The others stay until rank 0 has read what they hold.
  await mesh.barrier()
}

/**
 * @param {Mesh} mesh @param {Plate} plate @param {number} stepCount
 * @returns {Promise<{ cells: SharedArray<Float64Array>, elapsedMs: number }>}
 */
async function diffuse(mesh, plate, stepCount) {
  const { size } = plate
  let current = await SharedArray.open(mesh, 'plate-even', Float64Array, size * size)
  let next = await SharedArray.open(mesh, 'plate-odd', Float64Array, size * size)
  const bounds = rowBounds(size, mesh.size, cellsPerPage)
  const [start, end] = [bounds[mesh.rank], bounds[mesh.rank + 1]]
  const progress = mesh.rank === 0 ? new Progress('Heat', stepCount) : undefined

  for (const grid of [current, next]) {
    await grid.prefetch('write', start * size, end * size)
    // Both, because a step does not write the cells that never change.
    startRows(plate, grid.values, start, end)
  }
  await mesh.barrier()

  const startMs = performance.now()
  for (let step = 1; step <= stepCount; step++) {
    // From now on only the neighbours' edge rows are not here: a page or two, which come when the
    // loop touches them. That is quicker than to ask for them first.
    stepRows(plate, current.values, next.values, start, end)
    // One barrier per step is enough: what a fast member writes in the next step is what all have
    // finished reading in this one.
    await mesh.barrier()
    ;[current, next] = [next, current]
    progress?.update(step)
  }
  progress?.finish(stepCount)
  return { cells: current, elapsedMs: performance.now() - startMs }
}

/**
 * @param {Mesh} mesh @param {Plate} plate @param {Float64Array} cells
 * @param {number} stepCount @param {number} elapsedMs
 */
function compare(mesh, plate, cells, stepCount, elapsedMs) {
  const startMs = performance.now()
  const expected = computeAlone(plate, stepCount)
  const aloneMs = performance.now() - startMs
  const differingCount = expected.reduce((count, cell, i) => count + Number(cell !== cells[i]), 0)

  const work = `${plate.size} x ${plate.size} cells, ${stepCount} steps`
  console.log(`Members: ${mesh.size}, ${work} in ${elapsedMs.toFixed(0)} ms`)
  console.log(`One process, plain arrays: the same in ${aloneMs.toFixed(0)} ms`)
  if (differingCount === 0) {
    console.log('Same temperatures, bit for bit')
  } else {
    console.error(`WRONG TEMPERATURES: ${differingCount} of ${cells.length} cells differ`)
    process.exitCode = 1
  }
}

const options = readOptions()
const mesh = await join()
try {
  await run(mesh, options)
} finally {
  await mesh.leave()
}
