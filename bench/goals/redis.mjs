import { firstRead, measureAgainstRedis } from '../redis.mjs'

/**
 * @param {import('../goals.mjs').Goal[]} goals
 * @param {import('../goals.mjs').Setting} setting
 */
export async function measure([goal], { transport, rounds, sizes, mayInstall, step }) {
  const { name, target } = goal
  const how = { count: sizes.faults, rounds, transport, mayInstall }
  return measureAgainstRedis([{ ...firstRead, name, target }], how, step)
}
