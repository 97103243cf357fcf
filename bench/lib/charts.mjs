import * as vega from 'vega'
import { compile } from 'vega-lite'
import { formatAmount } from './amounts.mjs'

/** @typedef {import('./results.mjs').Figure} Figure */

/** The page's style gives these their colours, for light and for dark. */
const colours = {
  ink: 'var(--ink)',
  muted: 'var(--muted)',
  grid: 'var(--grid)',
  ours: 'var(--ours)',
  floor: 'var(--floor)',
}

const ourMark = { colour: colours.ours, shape: 'circle' }
const floorMark = { colour: colours.floor, shape: 'square' }
/** How a verdict looks: never by its colour alone. @type {Record<string, object>} */
const verdictMarks = {
  met: { shape: 'circle', colour: 'var(--met)' },
  missed: { shape: 'diamond', colour: 'var(--missed)' },
  open: { shape: 'square', colour: colours.ours },
}

/** Height of a line of text above a row's marks, of a lane of marks, and of the gap below. */
const heights = { text: 16, lane: 15, gap: 14 }
const fontSizes = { name: 13, small: 12 }
const sidePadding = 10
/** Below this width the figure of a row stands under its name, not beside it. */
const narrowWidth = 500

/**
 * How many times the floor each figure is, and which floor: a dot, the range of its rounds, and its
 * target.
 * @param {Figure[]} lines those with a ratio, and all with one direction
 * @param {number} width
 * @returns {Promise<string>} SVG, without addresses of any kind
 */
export function ratioChart(lines, width) {
  /** @type {object[]} */
  const texts = []
  const rowHeight = rowHeights(width, { texts: 1, lanes: 1 })
  const rows = lines.map((line, index) => {
    const { name, ratio, target, atLeast, met, floor } = line
    const top = index * rowHeight
    const [low, high] = ratioRange(line)
    const verdict = met === null ? 'open' : met ? 'met' : 'missed'
    const aim = target === null ? '' : `, ${atLeast ? 'at least' : 'at most'} ${trimmed(target)} ×`
    const figure = `${trimmed(/** @type {number} */ (ratio))} ×${aim}`
    const labels = rowLabels({ name, figure, below: `floor: ${floor}` }, top, width)
    texts.push(...labels.texts)
    const fromY = labels.bottom
    const toY = fromY + heights.lane
    const place = { fromY, y: (fromY + toY) / 2, toY }
    return { ratio, target, low, high, ...verdictMarks[verdict], ...place }
  })
  const values = rows.flatMap(({ low, high, target }) => [low, high, target ?? low, 1])
  const x = logScale(values, 'times the floor')
  const upright = { y: pixels('fromY'), y2: pixels('toY') }
  return draw({ width, height: rows.length * rowHeight, rows, texts, x }, [
    {
      mark: { type: 'rule', strokeWidth: 1.5, color: colours.floor },
      encoding: { x: { datum: 1, type: 'quantitative' }, ...upright },
    },
    rangeMark,
    {
      transform: [{ filter: 'isValid(datum.target)' }],
      mark: { type: 'rule', strokeWidth: 3, color: colours.ink },
      encoding: { x: quantity('target'), ...upright },
    },
    pointMark('ratio', 90),
  ])
}

/**
 * What was measured: median, range of the rounds and 99th percentile, of ours and of the floor.
 * @param {Figure[]} lines those that were measured, and all in one unit
 * @param {number} width
 * @returns {Promise<string>} SVG, without addresses of any kind
 */
export function timeChart(lines, width) {
  const unit = lines[0].unit ?? 'µs'
  /** @type {object[]} */
  const texts = []
  const rowHeight = rowHeights(width, { texts: 0, lanes: 2 })
  const rows = lines.flatMap((line, index) => {
    const { name, medianUs, floorMedianUs } = line
    const ours = formatAmount(medianUs, unit)
    const figure = `${ours} · floor ${formatAmount(floorMedianUs, unit)}`
    const labels = rowLabels({ name, figure }, index * rowHeight, width)
    texts.push(...labels.texts)
    const [ourY, floorY] = [0.5, 1.5].map((lanes) => labels.bottom + heights.lane * lanes)
    return [
      { ...lane(medianUs, line.roundMediansUs, line.p99Us, ourY), ...ourMark },
      { ...lane(floorMedianUs, line.floorRoundMediansUs, line.floorP99Us, floorY), ...floorMark },
    ]
  })
  const values = rows.flatMap(({ median, low, high, p99 }) => [median, low, high, p99])
  const x = logScale(values, `${unit}, logarithmic`)
  return draw({ width, height: lines.length * rowHeight, rows, texts, x }, [
    {
      mark: { type: 'rule', strokeWidth: 1 },
      encoding: {
        x: quantity('median'),
        x2: quantity('p99'),
        y: pixels('y'),
        color: given('colour'),
      },
    },
    {
      mark: { type: 'rule', strokeWidth: 1.5 },
      encoding: {
        ...{ x: quantity('p99'), y: pixels('fromY'), y2: pixels('toY') },
        color: given('colour'),
      },
    },
    rangeMark,
    pointMark('median', 70),
  ])
}

/**
 * @param {number | null} median
 * @param {[number, number] | undefined} range
 * @param {number | null | undefined} p99
 * @param {number} y
 */
function lane(median, range, p99, y) {
  const [low, high] = range ?? [median, median]
  return { median, low, high, p99: p99 ?? median, fromY: y - 5, y, toY: y + 5 }
}

/**
 * The lowest and highest ratio of a round to the floor of the same round.
 * @param {Figure} line
 * @returns {[number, number]}
 */
function ratioRange({ ratio, mediansByRoundUs, floorMediansByRoundUs, atLeast }) {
  const middle = /** @type {number} */ (ratio)
  if (mediansByRoundUs?.length !== floorMediansByRoundUs?.length) return [middle, middle]
  const ratios = (mediansByRoundUs ?? [])
    .map((/** @type {number} */ us, /** @type {number} */ round) => {
      const [above, below] = [us, floorMediansByRoundUs[round]]
      return atLeast ? below / above : above / below
    })
    .filter((/** @type {number} */ value) => Number.isFinite(value) && value > 0)
  return [Math.min(middle, ...ratios), Math.max(middle, ...ratios)]
}

/**
 * @param {number} width
 * @param {{ texts: number, lanes: number }} rows texts below the name
 */
function rowHeights(width, { texts, lanes }) {
  const textCount = texts + (width < narrowWidth ? 2 : 1)
  return textCount * heights.text + lanes * heights.lane + heights.gap
}

/**
 * The name of a row at the left, its figure at the right or below, and what else is to be said.
 * @param {{ name: string, figure: string, below?: string }} words
 * @param {number} top
 * @param {number} width
 */
function rowLabels({ name, figure, below }, top, width) {
  const isNarrow = width < narrowWidth
  const room = width - 2 * sidePadding
  const besides = isNarrow ? 0 : (figure.length + 3) * fontSizes.small * letterWidth
  const atRight = { x: room, y: top + heights.text, text: figure, style: 'right' }
  const atLeft = { x: 0, y: top + 2 * heights.text, text: figure, style: 'small' }
  const texts = [
    {
      ...{ x: 0, y: top + heights.text, style: 'name' },
      text: shortened(name, room - besides, fontSizes.name),
    },
    isNarrow ? atLeft : atRight,
  ]
  let bottom = top + heights.text * (isNarrow ? 2 : 1)
  if (below !== undefined) {
    bottom += heights.text
    texts.push({ x: 0, y: bottom, text: shortened(below, room, fontSizes.small), style: 'small' })
  }
  return { texts, bottom: bottom + 4 }
}

/** @param {number} value */
const trimmed = (value) => String(Number(value.toPrecision(value < 100 ? 3 : 4)))

/** Of a letter, on the average, in font sizes. */
const letterWidth = 0.52

/**
 * A text that is too long for its place; the table below has all of it.
 * @param {string} text
 * @param {number} room in pixels
 * @param {number} fontSize
 */
function shortened(text, room, fontSize) {
  const letters = Math.max(8, Math.floor(room / (fontSize * letterWidth)))
  return text.length <= letters ? text : `${text.slice(0, letters - 1).trimEnd()}…`
}

/**
 * @param {(number | null)[]} values
 * @param {string} title
 */
function logScale(values, title) {
  const positive = values.filter((value) => value !== null && value > 0).map(Number)
  const low = Math.min(...positive) / 1.15
  const high = Math.max(...positive) * 1.15
  return { title, domain: low < high ? [low, high] : [0.5, 2] }
}

/**
 * 1, 2 and 5 times the powers of ten in a range, or only the powers if those are too many, or tenths
 * if those are too few.
 * @param {number[]} domain
 * @param {number} most
 */
function ticks([low, high], most) {
  const coarse = [[1, 2, 5], [1, 3], [1]]
  const tenths = Array.from({ length: 90 }, (_, i) => 1 + i / 10)
  const fine = [tenths, tenths.filter((_, i) => i % 2 === 0), tenths.filter((_, i) => i % 5 === 0)]
  for (const steps of high / low < 4 ? [...fine, ...coarse] : coarse) {
    const values = []
    for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power++) {
      for (const step of steps) values.push(Number((step * 10 ** power).toPrecision(2)))
    }
    const shown = values.filter((value) => value >= low && value <= high)
    if (shown.length <= most) return shown
  }
  return [low, high]
}

/** @param {string} field */
const quantity = (field) => ({ field, type: 'quantitative' })

/** A place from the top. @param {string} field */
const pixels = (field) => ({ field, type: 'quantitative', axis: null })

/** What a row says itself. @param {string} field */
const given = (field) => ({ field, type: 'nominal', scale: null })

const rangeMark = {
  mark: { type: 'rule', strokeWidth: 6, opacity: 0.35, strokeCap: 'round' },
  encoding: { x: quantity('low'), x2: quantity('high'), y: pixels('y'), color: given('colour') },
}

/** @param {string} field @param {number} size */
const pointMark = (field, size) => ({
  mark: { type: 'point', filled: true, size, opacity: 1 },
  encoding: {
    ...{ x: quantity(field), y: pixels('y') },
    ...{ color: given('colour'), shape: given('shape') },
  },
})

/** @param {string} style @param {object} mark */
const textMark = (style, mark) => ({
  transform: [{ filter: `datum.style === '${style}'` }],
  mark: { type: 'text', baseline: 'alphabetic', fontSize: fontSizes.small, ...mark },
  encoding: {
    x: { field: 'x', type: 'quantitative', scale: null },
    y: pixels('y'),
    text: { field: 'text' },
  },
})

const textMarks = [
  textMark('name', { align: 'left', fontSize: fontSizes.name, color: colours.ink }),
  textMark('small', { align: 'left', color: colours.muted }),
  textMark('right', { align: 'right', color: colours.muted }),
]

/**
 * Vega-Lite draws it, on a logarithmic axis across and pixels down.
 * @param {{ width: number, height: number, rows: object[], texts: object[],
 *   x: { title: string, domain: number[] } }} chart
 * @param {any[]} marks
 */
async function draw({ width, height, rows, texts, x }, marks) {
  const values = ticks(x.domain, Math.floor(width / 60))
  const across = {
    scale: { type: 'log', domain: x.domain, nice: false },
    axis: { orient: 'bottom', title: x.title, values, format: ',~g', grid: true },
  }
  const down = { scale: { domain: [0, height], range: [0, height], nice: false, zero: false } }
  /** @param {any} layer @param {object[]} values */
  const complete = ({ encoding, ...layer }, values) => ({
    ...layer,
    data: { values },
    encoding: { ...encoding, x: { ...across, ...encoding.x }, y: { ...down, ...encoding.y } },
  })
  const layer = [
    ...marks.map((mark) => complete(mark, rows)),
    ...textMarks.map((mark) => complete(mark, texts)),
  ]
  const font = 'system-ui, sans-serif'
  const text = { labelColor: colours.muted, titleColor: colours.muted, titleFontWeight: 'normal' }
  const { spec } = compile(
    /** @type {any} */ ({
      $schema: undefined,
      width: width - 2 * sidePadding,
      height,
      padding: { left: sidePadding, right: sidePadding, top: 0, bottom: 40 },
      autosize: 'none',
      background: null,
      layer,
      config: {
        font,
        view: { stroke: null },
        axis: { ...text, labelFontSize: 12, titleFontSize: 12, gridColor: colours.grid },
        axisX: { domainColor: colours.grid, tickColor: colours.grid },
      },
    }),
  )
  const svg = await new vega.View(vega.parse(spec), { renderer: 'none' }).toSVG()
  // Inside HTML the names of namespaces are not needed.
  return svg.replace(/ xmlns(:\w+)?="[^"]*"/g, '')
}
