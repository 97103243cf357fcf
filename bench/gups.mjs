import { Members } from './lib/members.mjs'
import { makeLine } from './lib/report.mjs'
import { median, pool } from './lib/statistics.mjs'

/** Words of 64 bits, and how many updates are one batch: four for each word, as HPCC has it. */
const sizes = {
  normal: { words: 2 ** 20, updates: 2 ** 22, together: 2000 },
  tiny: { words: 2 ** 12, updates: 2 ** 14, together: 50 },
}
/** A single one is too quick to be given in µs. */
const perSample = 1000
const sides = /** @type {const} */ (['plain', 'held'])
const floor = 'the same updates of a plain SharedArrayBuffer in one process'

export const takesTiny = true
export const summary = 'random updates (GUPS) of a region, held by one member and by two at once'

/** @param {{ rounds: number }} options */
export function countSteps({ rounds }) {
  return rounds + 1
}

/**
 * @param {{ rounds: number, transport?: string, tiny?: boolean }} options
 * @param {() => void} step called after each round
 * @returns {Promise<import('./lib/report.mjs').Line[]>}
 */
export async function run({ rounds, transport = 'tcp', tiny = false }, step) {
  const { words, updates, together } = tiny ? sizes.tiny : sizes.normal
  /** @type {Record<'plain' | 'held' | 'moving', number[][]>} */
  const samples = { plain: [], held: [], moving: [] }
  const members = await Members.start('gups.mjs', { transport, options: { words } })
  try {
    // Round 0 warms everything up and is not counted.
    for (let round = 0; round <= rounds; round++) {
      const start = round * updates
      /** @type {Record<'plain' | 'held' | 'moving', number>} */
      const tookUs = { plain: 0, held: 0, moving: 0 }
      // Who comes first may matter: each does in turn.
      const order = round % 2 === 0 ? sides : [...sides].reverse()
      for (const table of order) {
        tookUs[table] = await members.ask(0, 'alone', { table, start, count: updates })
      }
      const both = await members.askAll('together', { start, count: together })
      tookUs.moving = Math.max(...both)
      await members.ask(0, 'verify', { start, count: together })
      step()
      if (round === 0) continue
      samples.plain.push([(tookUs.plain * perSample) / updates])
      samples.held.push([(tookUs.held * perSample) / updates])
      samples.moving.push([(tookUs.moving * perSample) / together])
    }
    await members.stop()
  } finally {
    await members.kill()
  }
  const table = `a table of ${(words * 8) / 2 ** 20} MiB, verified`
  return [
    makeLine({
      name: `${perSample} random updates, pages held`,
      rounds: samples.held,
      floor,
      floorRounds: samples.plain,
      extra: { note: `${gups(samples.held)} GUPS, and ${gups(samples.plain)}; ${table}` },
    }),
    makeLine({
      name: `${perSample} random updates, two members at once`,
      rounds: samples.moving,
      floor,
      floorRounds: samples.plain,
      extra: {
        note: `${gups(samples.moving, 2)} GUPS of both; nearly every update moves a page; ${table}`,
      },
    }),
  ]
}

/**
 * Thousand million updates per second.
 * @param {number[][]} samples µs for 1000 updates
 * @param {number} [members]
 */
function gups(samples, members = 1) {
  return ((members * perSample) / median(pool(samples)) / 1e3).toPrecision(3)
}
