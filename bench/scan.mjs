import { measureLines } from './lib/alternate.mjs'
import { faultFloor, memfdCopy, socketStream } from './lib/floors.mjs'
import { Members } from './lib/members.mjs'
import { pageBytes } from './lib/pages.mjs'
import { placements } from './lib/placement.mjs'

/** So much that a scan without prefetch takes a second or two. */
const defaultPages = 16_384
const pagesPerMib = 2 ** 20 / pageBytes
const floorPasses = 3
const floorFaults = 1000
const every = 16

/** @type {{ name: string, prefetch: 'auto' | 'off', order: string }[]} */
const scans = [
  { name: 'sequential, prefetch on', prefetch: 'auto', order: 'read' },
  { name: 'sequential, prefetch off', prefetch: 'off', order: 'read' },
  { name: 'every 16th page, prefetch on', prefetch: 'auto', order: 'readSome' },
  { name: 'every 16th page, prefetch off', prefetch: 'off', order: 'readSome' },
  { name: 'random, prefetch on', prefetch: 'auto', order: 'readAtRandom' },
  { name: 'random, prefetch off', prefetch: 'off', order: 'readAtRandom' },
]

export const summary = 'first passes over pages of another member, with and without prefetch'

/** @param {{ rounds: number }} options */
export function countSteps({ rounds }) {
  return scans.length * (rounds + 1)
}

/**
 * @param {{ faults?: number, rounds: number, transport?: string }} options `faults` is how many
 *   pages there are, in whole MiB
 * @param {() => void} step
 */
export async function run({ faults = defaultPages, rounds, transport = 'tcp' }, step) {
  const mib = Math.ceil(faults / pagesPerMib)
  const { free, apart: placement = free } = placements()
  const makeFloor = transport === 'shm' ? memfdCopy : socketStream
  const stream = makeFloor({ placement, mib, passes: floorPasses })
  // What cannot be foretold comes page by page.
  const oneByOne = faultFloor(transport, { placement, count: floorFaults, kind: 'read' })
  const { cpus } = placement
  const members = await Members.start('first-pass.mjs', { cpus, options: { mib }, transport })
  try {
    const known = await members.ask(0, 'knowsPrefetch')
    const note = `per page that is read, clean at its home${known ? '' : '; no prefetch here'}`
    for (const prefetch of ['auto', 'off']) {
      await members.ask(0, 'fill', { prefetch, stamp: 0 })
      await members.ask(1, 'read', { prefetch, stamp: 0 })
    }
    const figures = scans.map(({ name, prefetch, order }) => ({
      name,
      floor: order === 'read' ? stream : oneByOne,
      async samplesUs(/** @type {number} */ round) {
        await members.ask(1, 'discard', { prefetch })
        return [await members.ask(1, order, { prefetch, stamp: 0, seed: round, every })]
      },
      extra: { transport, mib, note },
    }))
    const lines = await measureLines(figures, rounds, step)
    await members.stop()
    return lines
  } finally {
    await members.kill()
  }
}
