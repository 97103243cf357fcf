import { readFileSync } from 'node:fs'

/**
 * Where the two sides of a measurement run. It decides more than anything else: the same blocking
 * round trip takes 5 µs when the scheduler puts both sides on one core, and 70 µs between two
 * cores that sleep. So a figure and its floor always have the same placement, and say which.
 * @typedef {object} Placement
 * @property {string} words
 * @property {[number, number]} [cpus] the cores of ranks 0 and 1; without, as the scheduler likes
 */

/** @returns {number[]} the cores that this process may run on */
function allowedCpus() {
  const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))
  return (list?.[1] ?? '0').split(',').flatMap((range) => {
    const [first, last = first] = range.split('-').map(Number)
    return Array.from({ length: last - first + 1 }, (_, index) => first + index)
  })
}

/**
 * @returns {{ free: Placement, apart: Placement | undefined, together: Placement }} `apart` only
 *   where there are two cores
 */
export function placements() {
  const [first, second] = allowedCpus()
  return {
    free: { words: 'placed by the scheduler' },
    apart:
      second === undefined
        ? undefined
        : { words: 'each process on its own core', cpus: [first, second] },
    together: { words: 'both processes on one core', cpus: [first, first] },
  }
}

/**
 * @param {Placement} placement
 * @param {number} size
 * @returns {number[] | undefined} the cores of so many members, dealt out in turn
 */
export function cpusFor({ cpus }, size) {
  return cpus && Array.from({ length: size }, (_, rank) => cpus[rank % cpus.length])
}
