import * as barriers from './goals/barriers.mjs'
import * as busy from './goals/busy.mjs'
import * as cached from './goals/cached.mjs'
import * as faults from './goals/faults.mjs'
import * as jacobi from './goals/jacobi.mjs'
import * as locks from './goals/locks.mjs'
import * as redis from './goals/redis.mjs'
import * as scans from './goals/scans.mjs'
import { reasonAgainst } from './lib/capabilities.mjs'
import { placements } from './lib/placement.mjs'
import { makeEmptyLine } from './lib/report.mjs'

/**
 * One thing that pagemesh must show. Two members unless it says otherwise.
 * @typedef {object} Goal
 * @property {string} id by which its group knows it
 * @property {string} name
 * @property {Group} group what measures it
 * @property {'shm' | 'tcp' | 'verbs'} [over] the transport that it is about; without, any
 * @property {string} floor what it stands on, in few words
 * @property {number} target
 * @property {boolean} [atLeast] how many times quicker than the floor we must be; without, how
 *   many times slower we may be
 * @property {number} [steps] how often a round takes floor and figure, if not once
 */

/**
 * Measures some of its goals over one transport.
 * @typedef {object} Group
 * @property {(goals: Goal[], setting: Setting) => Promise<import('./lib/report.mjs').Line[]>} measure
 */

/**
 * @typedef {object} Setting
 * @property {string} transport
 * @property {number} rounds
 * @property {Sizes} sizes
 * @property {{ free: import('./lib/placement.mjs').Placement,
 *   apart: import('./lib/placement.mjs').Placement }} placements `apart` is each of two members on a
 *   core of its own, where there are two
 * @property {boolean} mayInstall what a row needs and is missing may be installed
 * @property {() => void} step
 */

/** @type {Goal[]} */
export const goals = [
  {
    id: 'readCleanOverShm',
    name: 'read fault, clean at home, shm, one-sided',
    group: faults,
    over: 'shm',
    floor: 'local trap + 4 KiB copy + mprotect',
    target: 1.5,
  },
  {
    id: 'readDirtyOverShm',
    name: 'read fault, dirty at home, shm',
    group: faults,
    over: 'shm',
    floor: 'futex hand-over there and back + copy + local trap',
    target: 1.3,
  },
  {
    id: 'writeHeldByNobodyOverShm',
    name: 'write fault on a page nobody else holds, shm',
    group: faults,
    over: 'shm',
    floor: 'local trap + mprotect',
    target: 1.5,
  },
  {
    id: 'upgradeOverShm',
    name: 'upgrade with one other sharer, shm',
    group: faults,
    over: 'shm',
    floor: 'futex hand-over there and back + local trap',
    target: 1.3,
  },
  {
    id: 'readAsleepOverTcp',
    name: 'read fault, clean at home, tcp, sleeping peers',
    group: faults,
    over: 'tcp',
    floor: 'blocking socket round trip, 8 B → 4 KiB',
    target: 1.2,
  },
  {
    id: 'readSpinningOverTcp',
    name: 'read fault, clean at home, tcp, spinning allowed',
    group: faults,
    over: 'tcp',
    floor: 'spinning socket round trip, 8 B → 4 KiB',
    target: 1.6,
  },
  {
    id: 'readCleanOverVerbs',
    name: 'read fault, clean at home, verbs',
    group: faults,
    over: 'verbs',
    floor: 'ib_read_lat -s 4096',
    target: 1.5,
  },
  {
    id: 'readWhileHomeComputes',
    name: "read fault while the home's JavaScript computes",
    group: busy,
    floor: 'the same with the home idle',
    target: 1.5,
  },
  {
    id: 'scanOverTcp',
    name: 'sequential scan of 256 MiB, first pass, tcp',
    group: scans,
    over: 'tcp',
    floor: 'raw socket stream',
    target: 0.7,
    atLeast: true,
  },
  {
    id: 'scanOverShm',
    name: 'sequential scan of 256 MiB, first pass, shm',
    group: scans,
    over: 'shm',
    floor: 'memcpy from one memfd mapping to another',
    target: 0.6,
    atLeast: true,
  },
  {
    id: 'cachedPass',
    name: 'cached pass over 256 MiB',
    group: cached,
    floor: 'a plain SharedArrayBuffer, same loop, same process',
    target: 0.98,
    atLeast: true,
  },
  {
    id: 'uncontendedLock',
    name: 'uncontended acquireSync + release, token here',
    group: locks,
    floor: 'an empty Node-API call',
    target: 20,
  },
  {
    id: 'lockHandOver',
    name: 'lock hand-over',
    group: locks,
    floor: 'futex hand-over (shm), blocking one-way socket message (tcp)',
    target: 1.3,
  },
  {
    id: 'barrier',
    name: 'barrier, 2 and 4 members',
    group: barriers,
    floor: 'the same barrier in C over futexes or sockets',
    target: 1.5,
    steps: 2,
  },
  {
    id: 'turnsUnderLock',
    name: 'page written in turn under a lock, shm',
    group: locks,
    over: 'shm',
    floor: 'futex hand-over there and back + copy + local trap',
    target: 2.5,
  },
  {
    id: 'sparseScan',
    name: 'every 16th page of 64 MiB read, automatic prefetch',
    group: scans,
    floor: 'the same with prefetch off',
    target: 1.1,
  },
  {
    id: 'redisGet',
    name: '4 KiB first read, shm, against Redis',
    group: redis,
    over: 'shm',
    floor: 'Redis GET of 4 KiB by ioredis over a Unix socket',
    target: 8,
    atLeast: true,
  },
  {
    id: 'jacobi',
    name: 'Jacobi 2,048², 2 members',
    group: jacobi,
    floor: 'one process with plain typed arrays',
    target: 1.8,
    atLeast: true,
  },
]

/**
 * @typedef {object} Sizes
 * @property {number} faults in each batch
 * @property {number} pausedFaults in each batch of faults with pauses between them
 * @property {number} busyMs how long the home computes in each round
 * @property {number} scanMib
 * @property {number} sparseMib
 * @property {{ size: number, stepCount: number }} jacobi
 */
/** @type {Sizes} */
const fullSizes = {
  faults: 1000,
  pausedFaults: 100,
  busyMs: 500,
  scanMib: 256,
  sparseMib: 64,
  jacobi: { size: 2048, stepCount: 40 },
}
/** @type {Sizes} */
const tinySizes = {
  faults: 20,
  pausedFaults: 5,
  busyMs: 50,
  scanMib: 2,
  sparseMib: 1,
  jacobi: { size: 256, stepCount: 4 },
}

export const summary = 'what pagemesh must show, each figure with its target'
export const takesTiny = true

/**
 * @typedef {{ faults?: number, rounds: number, transport?: string, tiny?: boolean }} Options
 * @param {Options} options
 */
export function countSteps({ rounds, transport }) {
  const steps = plan(transport)
    .filter(({ reason }) => reason === undefined)
    .reduce((count, { goal }) => count + (goal.steps ?? 1), 0)
  return steps * (rounds + 1)
}

/**
 * What each goal is measured over, or why it is not.
 * @param {string | undefined} chosen
 * @returns {Planned[]}
 */
function plan(chosen) {
  const transport = chosen ?? (reasonAgainst('shm') === undefined ? 'shm' : 'tcp')
  return goals.map((goal) => {
    const over = goal.over ?? transport
    return { goal, over, reason: reasonAgainstMeasuring(goal, transport) }
  })
}

/**
 * @param {Goal} goal
 * @param {string} transport that of goals that name none
 * @returns {string | undefined}
 */
function reasonAgainstMeasuring(goal, transport) {
  const over = goal.over ?? transport
  if (transport === 'verbs' && over === 'verbs') return reasonAgainst('verbs')
  if (transport === 'verbs') return '--transport verbs measures the row that is about verbs'
  if (over !== 'verbs') return reasonAgainst(over)
  return 'over verbs in its guest only: see docs/benchmarks.md'
}

/**
 * @param {Options} options
 * @param {() => void} step
 * @returns {Promise<import('./lib/report.mjs').Line[]>}
 */
export async function run({ faults, rounds, transport, tiny = false }, step) {
  const sizes = { ...(tiny ? tinySizes : fullSizes) }
  sizes.faults = faults ?? sizes.faults
  const { free, apart = free } = placements()
  const setting = { rounds, sizes, placements: { free, apart }, mayInstall: !tiny, step }
  const lines = await measureAll(plan(transport), setting)
  return tiny ? lines.map(withoutVerdict) : lines
}

/**
 * @typedef {object} Planned
 * @property {Goal} goal
 * @property {string} over
 * @property {string | undefined} reason against measuring it
 */

/**
 * @param {Planned[]} planned
 * @param {Omit<Setting, 'transport'>} setting
 * @returns {Promise<import('./lib/report.mjs').Line[]>} one for each goal, in their order
 */
export async function measureAll(planned, setting) {
  /** @type {Map<string, import('./lib/report.mjs').Line>} */
  const lines = new Map()
  for (const { goal, over, reason } of planned) {
    if (reason !== undefined) lines.set(goal.name, makeEmptyLine(goal, `not measured: ${reason}`))
    if (lines.has(goal.name)) continue
    // Goals of one group and transport share their members.
    const together = planned
      .filter((other) => other.goal.group === goal.group && other.over === over)
      .filter((other) => other.reason === undefined)
      .map((other) => other.goal)
    const measured = await measureOrFail(goal.group, together, { ...setting, transport: over })
    for (const line of measured) lines.set(line.name, line)
  }
  return planned.map(({ goal: { name } }) => {
    const line = lines.get(name)
    if (line === undefined) throw new Error(`'${name}' has no figure`)
    return line
  })
}

/**
 * What fails has not met its target, and takes nothing else with it.
 * @param {Group} group
 * @param {Goal[]} goals
 * @param {Setting} setting
 */
async function measureOrFail(group, goals, setting) {
  try {
    return await group.measure(goals, setting)
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error)
    return goals.map((goal) => {
      return { ...makeEmptyLine(goal, `failed: ${message}`), met: false, failed: true }
    })
  }
}

/** @param {import('./lib/report.mjs').Line} line */
function withoutVerdict(line) {
  if (line.failed === true) return line
  return { ...line, met: null, reason: line.reason ?? 'measured with small sizes (--tiny)' }
}
