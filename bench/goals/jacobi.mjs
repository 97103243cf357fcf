import { measureLines } from '../lib/alternate.mjs'
import { Members } from '../lib/members.mjs'
import { median } from '../lib/statistics.mjs'

/**
 * @param {import('../goals.mjs').Goal[]} goals
 * @param {import('../goals.mjs').Setting} setting
 */
export async function measure([goal], { transport, rounds, sizes, placements, step }) {
  const { size, stepCount } = sizes.jacobi
  const options = { size, stepCount }
  const { cpus, words } = placements.apart
  const members = await Members.start('jacobi.mjs', { cpus, options, transport })
  try {
    const floor = { words: goal.floor, samplesUs: async () => [await members.ask(0, 'alone')] }
    /** @type {number[]} */
    const apartUs = []
    const samplesUs = async () => {
      apartUs.push(Math.max(...(await members.askAll('apart'))))
      const [stepUs] = await members.askAll('together')
      await members.ask(0, 'compare')
      return [stepUs]
    }
    const note = `time per step of ${size} × ${size} cells, ${stepCount} steps, ${words}`
    const figure = { ...goal, floor, samplesUs, extra: { transport, note } }
    const [line] = await measureLines([figure], rounds, step)
    const boundUs = median(apartUs)
    const bound = ((line.floorMedianUs ?? NaN) / boundUs).toFixed(2)
    const apart = `the same bands on plain arrays, nothing shared: ${boundUs.toFixed(0)} µs`
    Object.assign(line, { note: `${note}; ${apart}, so this machine can do ${bound} ×` })
    await members.stop()
    return [line]
  } finally {
    await members.kill()
  }
}
