import { makeLine } from './report.mjs'

/**
 * A figure that is measured against its floor, round by round.
 * @typedef {object} Figure
 * @property {string} name
 * @property {import('./floors.mjs').Floor} floor
 * @property {(round: number) => Promise<ArrayLike<number>>} samplesUs
 * @property {number | null} [target]
 * @property {boolean} [atLeast]
 * @property {Record<string, unknown>} [extra]
 */

/**
 * Measures floor and figure in turn, so that both meet the same noise; of several figures one after
 * the other in each round. Round 0 warms everything up and is not counted.
 * @template {Pick<Figure, 'floor' | 'samplesUs'>} T
 * @param {T[]} figures
 * @param {number} rounds
 * @param {() => void} step called after each batch
 */
export async function alternate(figures, rounds, step) {
  const results = figures.map((figure) => ({
    figure,
    /** @type {ArrayLike<number>[]} */ rounds: [],
    /** @type {ArrayLike<number>[]} */ floorRounds: [],
  }))
  for (let round = 0; round <= rounds; round++) {
    for (const result of results) {
      const floorUs = await result.figure.floor.samplesUs()
      const samplesUs = await result.figure.samplesUs(round)
      if (round > 0) {
        result.floorRounds.push(floorUs)
        result.rounds.push(samplesUs)
      }
      step()
    }
  }
  return results
}

/**
 * @param {Figure[]} figures
 * @param {number} rounds
 * @param {() => void} step
 */
export async function measureLines(figures, rounds, step) {
  const results = await alternate(figures, rounds, step)
  return results.map(({ figure, rounds, floorRounds }) => {
    const { name, floor, target, atLeast, extra } = figure
    return makeLine({ name, rounds, floor: floor.words, floorRounds, target, atLeast, extra })
  })
}
