import { measureLines } from '../lib/alternate.mjs'
import { memfdCopy, socketStream } from '../lib/floors.mjs'
import { Members } from '../lib/members.mjs'
import { pageBytes } from '../lib/pages.mjs'
import { makeEmptyLine } from '../lib/report.mjs'

const floorPasses = 3
const sparsePasses = 3
const every = 16

/**
 * @param {import('../goals.mjs').Goal[]} goals
 * @param {import('../goals.mjs').Setting} setting
 */
export async function measure(goals, setting) {
  const lines = []
  for (const goal of goals) {
    const measureGoal = goal.id === 'sparseScan' ? measureSparseScan : measureScan
    lines.push(await measureGoal(goal, setting))
  }
  return lines
}

/**
 * @param {import('../goals.mjs').Setting} setting
 * @param {number} mib
 * @param {(members: Members) => Promise<any>} use
 */
async function withMembers({ transport, placements }, mib, use) {
  const { cpus } = placements.apart
  const members = await Members.start('first-pass.mjs', { cpus, options: { mib }, transport })
  try {
    const result = await use(members)
    await members.stop()
    return result
  } finally {
    await members.kill()
  }
}

/**
 * @param {import('../goals.mjs').Goal} goal
 * @param {import('../goals.mjs').Setting} setting
 */
async function measureScan(goal, setting) {
  const { transport, rounds, sizes, placements, step } = setting
  const mib = sizes.scanMib
  const makeFloor = transport === 'tcp' ? socketStream : memfdCopy
  const floor = makeFloor({ placement: placements.apart, mib, passes: floorPasses })
  return withMembers(setting, mib, async (members) => {
    /** @param {number} round */
    const samplesUs = async (round) => {
      const args = { prefetch: 'auto', stamp: round }
      await members.ask(0, 'fill', args)
      return [await members.ask(1, 'read', args)]
    }
    const [line] = await measureLines([{ ...goal, floor, samplesUs }], rounds, step)
    const ours = bytesPerSecond(line.medianUs)
    const floors = bytesPerSecond(line.floorMedianUs)
    return {
      ...line,
      transport,
      bytesPerSecond: ours,
      floorBytesPerSecond: floors,
      note:
        `time per 4 KiB page: ${inMegabytes(ours)} MB/s against ${inMegabytes(floors)}; the home ` +
        'has just written the pages, one number of each cache line is read, frames were touched before',
    }
  })
}

/** @param {number} perPageUs */
const bytesPerSecond = (perPageUs) => Math.round((pageBytes / perPageUs) * 1e6)

/** @param {number} bytes */
const inMegabytes = (bytes) => (bytes / 1e6).toFixed(0)

/**
 * @param {import('../goals.mjs').Goal} goal
 * @param {import('../goals.mjs').Setting} setting
 */
async function measureSparseScan(goal, setting) {
  const { transport, rounds, sizes, step } = setting
  return withMembers(setting, sizes.sparseMib, async (members) => {
    if (!(await members.ask(0, 'knowsPrefetch'))) {
      for (let round = 0; round <= rounds; round++) step()
      return makeEmptyLine(goal, 'not measured: no automatic prefetch here')
    }
    /** @param {string} prefetch */
    const passes = async (prefetch) => {
      const samplesUs = []
      for (let pass = 0; pass < sparsePasses; pass++) {
        await members.ask(1, 'discard', { prefetch })
        samplesUs.push(await members.ask(1, 'readSome', { prefetch, stamp: 0, every }))
      }
      return samplesUs
    }
    for (const prefetch of ['auto', 'off']) {
      await members.ask(0, 'fill', { prefetch, stamp: 0 })
      await members.ask(1, 'read', { prefetch, stamp: 0 })
    }
    const floor = { words: goal.floor, samplesUs: () => passes('off') }
    const note = 'time per page that is read; clean at home'
    const figure = { ...goal, floor, samplesUs: () => passes('auto'), extra: { transport, note } }
    const [line] = await measureLines([figure], rounds, step)
    return line
  })
}
