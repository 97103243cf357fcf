import { measureLines } from '../lib/alternate.mjs'
import { faultFloor, localTrap, rdmaRead, socketRoundTrip } from '../lib/floors.mjs'
import { Members } from '../lib/members.mjs'

/** Longer than anything here spins before it goes to sleep. */
const pauseMs = 5

/**
 * @typedef {import('../lib/members.mjs').Members} TwoMembers
 * @typedef {{ count: number, seed: number, stamp: number, inSequence: boolean }} Pages
 */

/** @param {TwoMembers} members @param {Pages} pages */
async function makeCleanAtHome(members, pages) {
  // The first read makes the home lower its own access; the discard leaves the page there alone.
  await members.ask(0, 'fill', pages)
  await members.ask(1, 'read', pages)
  await members.ask(1, 'discard')
}

/** @param {TwoMembers} members @param {Pages} pages */
async function readCleanAtHome(members, pages) {
  await makeCleanAtHome(members, pages)
  return members.ask(1, 'read', pages)
}

/** @param {TwoMembers} members @param {Pages} pages */
async function readAsleep(members, pages) {
  await makeCleanAtHome(members, pages)
  return members.ask(1, 'readWithPauses', { ...pages, pauseMs })
}

/** @param {TwoMembers} members @param {Pages} pages */
async function readDirtyAtHome(members, pages) {
  await members.ask(0, 'fill', pages)
  return members.ask(1, 'read', pages)
}

/** @param {TwoMembers} members @param {Pages} pages */
async function writeHeldByNobody(members, pages) {
  await makeCleanAtHome(members, pages)
  await members.ask(0, 'discard')
  return writeAndCheck(members, pages)
}

/** @param {TwoMembers} members @param {Pages} pages */
async function upgrade(members, pages) {
  await members.ask(0, 'fill', pages)
  await members.ask(1, 'read', pages)
  return writeAndCheck(members, pages)
}

/** @param {TwoMembers} members @param {Pages} pages filled at home with their stamp */
async function writeAndCheck(members, pages) {
  const written = pages.stamp + 1
  const stamps = { before: pages.stamp, after: written }
  const samplesUs = await members.ask(1, 'write', { ...pages, stamps })
  await members.ask(0, 'check', { ...pages, stamps: { first: written, last: pages.stamp } })
  return samplesUs
}

const inTurn = 'pages touched one after the other, automatic prefetch off'

/** @type {Record<string, (where: { placement: any, count: number, pausedCount: number }) => any>} */
const figures = {
  readCleanOverShm: ({ placement, count }) => ({
    floor: localTrap({ placement, count, kind: 'read', copy: true }),
    batch: readCleanAtHome,
    note: inTurn,
  }),
  readDirtyOverShm: ({ placement, count }) => ({
    floor: faultFloor('shm', { placement, count, kind: 'read' }),
    batch: readDirtyAtHome,
    note: inTurn,
  }),
  writeHeldByNobodyOverShm: ({ placement, count }) => ({
    floor: localTrap({ placement, count, kind: 'write' }),
    batch: writeHeldByNobody,
    note: `${inTurn}; the page is clean at its home, no member can read it, and its data is copied`,
  }),
  upgradeOverShm: ({ placement, count }) => ({
    floor: faultFloor('shm', { placement, count, kind: 'upgrade' }),
    batch: upgrade,
    note: `${inTurn}; the home is the other sharer`,
  }),
  readAsleepOverTcp: ({ placement, pausedCount }) => ({
    floor: socketRoundTrip({ placement, count: pausedCount, pauseMs }),
    batch: readAsleep,
    count: pausedCount,
    note: `a pause of ${pauseMs} ms before each fault, so that everybody sleeps`,
  }),
  readSpinningOverTcp: ({ placement, count }) => ({
    floor: socketRoundTrip({ placement, count, spin: true }),
    batch: readCleanAtHome,
    note: 'one fault after the other, without a pause',
  }),
  readCleanOverVerbs: ({ count }) => ({
    floor: rdmaRead(count),
    batch: readCleanAtHome,
    note: 'one fault after the other, without a pause; nothing is pinned to a core',
  }),
}

/**
 * @param {import('../goals.mjs').Goal[]} goals
 * @param {import('../goals.mjs').Setting} setting
 */
export async function measure(goals, { transport, rounds, sizes, placements, step }) {
  const { faults: count, pausedFaults: pausedCount } = sizes
  // The devices of SoftRoCE do their work on any core: pinning members would hold against them.
  const placement = transport === 'verbs' ? placements.free : placements.apart
  const members = await Members.start('fault.mjs', {
    cpus: placement.cpus,
    options: { pageCount: Math.max(count, pausedCount) },
    transport,
  })
  let stamp = 0
  try {
    const lines = await measureLines(
      goals.map((goal) => {
        const figure = figures[goal.id]({ placement, count, pausedCount })
        return {
          ...goal,
          floor: figure.floor,
          extra: { transport, note: figure.note },
          samplesUs: () => {
            stamp += 2
            const pages = { count: figure.count ?? count, seed: stamp, stamp, inSequence: true }
            return figure.batch(members, pages)
          },
        }
      }),
      rounds,
      step,
    )
    await members.stop()
    return lines
  } finally {
    await members.kill()
  }
}
