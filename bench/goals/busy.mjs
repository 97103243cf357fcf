import { measureBusyHome } from '../progress.mjs'

/**
 * @param {import('../goals.mjs').Goal[]} goals
 * @param {import('../goals.mjs').Setting} setting
 */
export async function measure([goal], { transport, rounds, sizes, step }) {
  const { faults, busyMs } = sizes
  const line = await measureBusyHome({ ...goal, faults, busyMs, rounds, transport }, step)
  return [line]
}
