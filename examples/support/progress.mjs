import cliProgress from 'cli-progress'

/**
 * Set by a parent whose standard output is a terminal this many columns wide. A member cannot see
 * that itself: its output goes through the launcher.
 */
export const terminalColumnsVariable = 'PAGEMESH_EXAMPLE_COLUMNS'

/** Of a terminal that does not say. */
export const defaultColumns = 80

const redrawMs = 80
const cursorUpAndClear = '\x1b[1A\x1b[2K'

/**
 * A progress bar where it ends up on a terminal; now and then a plain line where it does not.
 */
export class Progress {
  #title
  #stepCount
  #linePeriod
  /** @type {cliProgress.SingleBar | undefined} */
  #bar

  /** @param {string} title @param {number} stepCount @param {number} [columns] of the terminal */
  constructor(title, stepCount, columns = terminalColumns()) {
    this.#title = title
    this.#stepCount = stepCount
    this.#linePeriod = Math.max(1, Math.ceil(stepCount / 4))
    if (columns === 0) return
    this.#bar = new cliProgress.SingleBar(
      {
        format: `${title} [{bar}] {value}/{total}  {note}`,
        stream: /** @type {any} */ (new BarLine(columns)),
        barsize: 30,
        noTTYOutput: true, // makes every drawing a whole line
        notTTYSchedule: redrawMs,
        gracefulExit: false,
      },
      cliProgress.Presets.shades_classic,
    )
    this.#bar.start(stepCount, 0, { note: '' })
  }

  /** @param {number} step steps done so far @param {string} [note] */
  update(step, note = '') {
    if (this.#bar) this.#bar.update(step, { note })
    else if (step % this.#linePeriod === 0) this.#printLine(step, note)
  }

  /** @param {number} step the last one, which may be before stepCount @param {string} [note] */
  finish(step, note = '') {
    if (this.#bar) {
      this.#bar.update(step, { note })
      this.#bar.stop()
    } else if (step % this.#linePeriod !== 0) {
      this.#printLine(step, note)
    }
  }

  /** @param {number} step @param {string} note */
  #printLine(step, note) {
    console.log(`${this.#title}: ${step}/${this.#stepCount}  ${note}`.trimEnd())
  }
}

/**
 * Draws the bar over the one before. The launcher passes whole lines on, so that the output of the
 * members does not mix, and a bar that is redrawn within its line would be held back until its end.
 * This one ends its line each time, and begins by going back up.
 */
class BarLine {
  isTTY = false
  #text = ''
  #isFirst = true

  /** @param {number} columns */
  constructor(columns) {
    this.columns = columns
  }

  /** @param {string} text */
  write(text) {
    this.#text += text
    if (!this.#text.endsWith('\n')) return
    const line = this.#text
    this.#text = ''
    if (line === '\n') return // the end of the bar, whose own line has ended
    process.stdout.write((this.#isFirst ? '' : cursorUpAndClear) + line)
    this.#isFirst = false
  }
}

/** @returns {number} 0 when the output does not end up on a terminal */
function terminalColumns() {
  if (process.stdout.isTTY) return process.stdout.columns || defaultColumns
  return Math.max(0, Number.parseInt(process.env[terminalColumnsVariable] ?? '') || 0)
}
