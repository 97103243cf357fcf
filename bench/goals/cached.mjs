import { measureLines } from '../lib/alternate.mjs'
import { Members } from '../lib/members.mjs'

const passesPerRound = 3

/**
 * @param {import('../goals.mjs').Goal[]} goals
 * @param {import('../goals.mjs').Setting} setting
 */
export async function measure([goal], { transport, rounds, sizes, placements, step }) {
  const members = await Members.start('cached.mjs', {
    cpus: placements.apart.cpus,
    options: { mib: sizes.scanMib },
    transport,
  })
  try {
    await members.ask(0, 'fill', { which: 'shared' })
    await members.ask(1, 'fill', { which: 'plain' })
    await members.ask(1, 'prefetch')
    /** @param {string} which */
    const passes = async (which) => {
      const samplesUs = []
      for (let pass = 0; pass < passesPerRound; pass++) {
        samplesUs.push(await members.ask(1, 'pass', { which }))
      }
      return samplesUs
    }
    await passes('shared')
    const faults = await members.ask(1, 'faults')
    const floor = { words: goal.floor, samplesUs: () => passes('plain') }
    const note = `whole passes over ${sizes.scanMib} MiB, every number summed up, at rank 1`
    const figure = { ...goal, floor, samplesUs: () => passes('shared'), extra: { transport, note } }
    const [line] = await measureLines([figure], rounds, step)
    if ((await members.ask(1, 'faults')) !== faults) throw new Error('a cached pass has faulted')
    await members.stop()
    return [line]
  } finally {
    await members.kill()
  }
}
