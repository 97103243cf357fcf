import { PNG } from 'pngjs'
import { cellKinds } from './plate.mjs'

/**
 * From cold to hot, each colour lighter than the one before, so that the order can be seen without
 * a legend, also in grey. Close to matplotlib's "inferno".
 */
const colours = [
  [0, 0, 4],
  [31, 12, 72],
  [85, 15, 109],
  [136, 34, 106],
  [186, 54, 85],
  [227, 89, 51],
  [249, 140, 10],
  [249, 201, 50],
  [252, 255, 164],
]
const wallColour = [128, 142, 160]
const isothermsPerUnit = 20
const leastPixels = 768

/**
 * A PNG of the plate: temperature as colour, isotherms as fine darker lines, walls in grey.
 * @param {import('./plate.mjs').Plate} plate @param {Float64Array} cells
 * @returns {Buffer}
 */
export function drawPlate(plate, cells) {
  const pixelsPerCell = Math.ceil(leastPixels / plate.size)
  const pixels = plate.size * pixelsPerCell
  const image = new PNG({ width: pixels, height: pixels, colorType: 2 })
  for (let y = 0; y < pixels; y++) {
    for (let x = 0; x < pixels; x++) {
      const row = Math.floor(y / pixelsPerCell)
      const column = Math.floor(x / pixelsPerCell)
      const isWall = plate.kinds[row * plate.size + column] === cellKinds.insulated
      const colour = isWall ? wallColour : colourAt(plate, cells, x, y, pixelsPerCell)
      image.data.set([...colour, 255], (y * pixels + x) * 4)
    }
  }
  return PNG.sync.write(image, { colorType: 2 })
}

/**
 * @param {import('./plate.mjs').Plate} plate @param {Float64Array} cells
 * @param {number} x @param {number} y @param {number} pixelsPerCell
 */
function colourAt(plate, cells, x, y, pixelsPerCell) {
  const here = temperatureAt(plate, cells, x, y, pixelsPerCell)
  const right = temperatureAt(plate, cells, x + 1, y, pixelsPerCell)
  const below = temperatureAt(plate, cells, x, y + 1, pixelsPerCell)
  const isOnLine = bandOf(right) !== bandOf(here) || bandOf(below) !== bandOf(here)
  return colourOf(here).map((part) => Math.round(isOnLine ? part * 0.78 : part))
}

/**
 * Isotherms run between two bands. Round temperatures are in the middle of one: large parts of the
 * plate have them, and rounding errors would draw lines there.
 * @param {number} temperature
 */
function bandOf(temperature) {
  return Math.round(temperature * isothermsPerUnit)
}

/**
 * Between the middles of cells the temperature is interpolated, but never with a wall's.
 * @param {import('./plate.mjs').Plate} plate @param {Float64Array} cells
 * @param {number} x @param {number} y @param {number} pixelsPerCell
 */
function temperatureAt({ size, kinds }, cells, x, y, pixelsPerCell) {
  const last = size - 1
  const rowAt = Math.min(last, Math.max(0, (y + 0.5) / pixelsPerCell - 0.5))
  const columnAt = Math.min(last, Math.max(0, (x + 0.5) / pixelsPerCell - 0.5))
  const row = Math.floor(rowAt)
  const column = Math.floor(columnAt)
  const rowPart = rowAt - row
  const columnPart = columnAt - column
  let sum = 0
  let weightSum = 0
  for (const [r, rowWeight] of [
    [row, 1 - rowPart],
    [Math.min(last, row + 1), rowPart],
  ]) {
    for (const [c, columnWeight] of [
      [column, 1 - columnPart],
      [Math.min(last, column + 1), columnPart],
    ]) {
      const i = r * size + c
      if (kinds[i] === cellKinds.insulated) continue
      sum += cells[i] * rowWeight * columnWeight
      weightSum += rowWeight * columnWeight
    }
  }
  return weightSum === 0 ? 0 : sum / weightSum
}

/** @param {number} temperature @returns {number[]} */
function colourOf(temperature) {
  const at = Math.min(1, Math.max(0, temperature)) * (colours.length - 1)
  const lower = Math.min(colours.length - 2, Math.floor(at))
  return colours[lower].map((part, i) => part + (colours[lower + 1][i] - part) * (at - lower))
}
