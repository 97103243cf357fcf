import { faultFloor } from './lib/floors.mjs'
import { Members } from './lib/members.mjs'
import { placements } from './lib/placement.mjs'
import { makeLine } from './lib/report.mjs'

const busyPageCount = 4096
const defaultBusyMs = 2000
const warmUpMs = 100
const defaultIdleFaults = 1000
const crossPageCount = 1000
/** Each way, in all rounds together. */
const defaultCrossFaults = 100_000
const watchdogMs = 120_000

export const summary = 'faults while the home computes, and faults of two members on each other'

/** @param {{ rounds: number }} options */
export function countSteps({ rounds }) {
  return 3 * rounds + 1
}

/**
 * @param {{ faults?: number, rounds: number, transport?: string }} options
 * @param {() => void} step
 * @returns {Promise<import('./lib/report.mjs').Line[]>}
 */
export async function run({ faults, rounds, transport }, step) {
  const idleFaults = faults ?? defaultIdleFaults
  const busyLine = await measureBusyHome({ faults: idleFaults, rounds, transport }, step)
  const crossFaults = faults ?? Math.ceil(defaultCrossFaults / rounds)
  return [busyLine, ...(await measureCrossFaults({ faults: crossFaults, rounds, transport }, step))]
}

/**
 * Round 0 warms everything up and is not counted.
 * @param {object} what
 * @param {string} [what.name]
 * @param {number} [what.target]
 * @param {number} what.faults in each batch while the home is idle
 * @param {number} [what.busyMs] how long the home computes in each round
 * @param {number} what.rounds
 * @param {string} [what.transport]
 * @param {() => void} step
 */
export async function measureBusyHome(what, step) {
  const { name = 'read fault, home busy', target, busyMs = defaultBusyMs, rounds } = what
  const count = Math.min(what.faults, busyPageCount)
  const stamp = 1
  const idleRounds = []
  const busyRounds = []
  let longestUs = 0
  const options = { pageCount: busyPageCount }
  const members = await Members.start('busy.mjs', { options, transport: what.transport })
  try {
    await members.ask(0, 'fill', { stamp })
    // Once everything has been read, all pages are clean at their home.
    await members.ask(1, 'read', { count: busyPageCount, seed: 0, stamp })
    for (let round = 0; round <= rounds; round++) {
      await members.ask(1, 'discard')
      const idleUs = await members.ask(1, 'read', { count, seed: round, stamp })
      const durationMs = round === 0 ? warmUpMs : busyMs
      const busy = await readWhileHomeComputes(members, { durationMs, seed: round, stamp })
      if (round > 0) {
        idleRounds.push(idleUs)
        busyRounds.push(busy.servedUs)
        longestUs = Math.max(longestUs, busy.longestUs)
      }
      step()
    }
    await members.stop()
  } finally {
    await members.kill()
  }
  const servedWhileBusy = busyRounds.reduce((count, { length }) => count + length, 0)
  return makeLine({
    name,
    target,
    rounds: busyRounds,
    floor: 'the same fault while the home is idle',
    floorRounds: idleRounds,
    extra: {
      servedWhileBusy,
      busyMs: busyMs * rounds,
      longestUs,
      note:
        `${servedWhileBusy} faults served during ${rounds} × ${busyMs} ms of computing, ` +
        `the longest took ${longestUs.toFixed(0)} µs`,
    },
  })
}

/**
 * @param {Members} members
 * @param {{ durationMs: number, seed: number, stamp: number }} args
 */
async function readWhileHomeComputes(members, { durationMs, ...args }) {
  /** @type {Promise<any> | undefined} */
  let reading
  // Rank 1 begins when the loop begins, and stops some time after its end.
  const onNotice = () => {
    reading = members.ask(1, 'readFor', { durationMs: durationMs + 100, ...args })
    // Awaited below; a failure must not count as unhandled until then.
    reading.catch(() => {})
  }
  const { startMs, endMs } = await members.ask(0, 'compute', { durationMs }, { onNotice })
  const { samplesUs, startsMs } = await reading
  const servedUs = []
  let longestUs = 0
  for (const [index, sampleUs] of samplesUs.entries()) {
    if (startsMs[index] < startMs || startsMs[index] > endMs) continue
    longestUs = Math.max(longestUs, sampleUs)
    if (startsMs[index] + sampleUs / 1e3 <= endMs) servedUs.push(sampleUs)
  }
  if (servedUs.length === 0) {
    throw new Error(`no fault was served while the home's JavaScript computed for ${durationMs} ms`)
  }
  return { servedUs, longestUs }
}

/**
 * @param {{ faults: number, rounds: number, transport?: string }} options faults of each member in each round
 * @param {() => void} step
 */
async function measureCrossFaults({ faults, rounds, transport }, step) {
  const pageCount = Math.min(crossPageCount, faults)
  const passes = Math.ceil(faults / pageCount)
  const { free: placement } = placements()
  const lines = []
  const members = await Members.start('cross.mjs', { options: { pageCount }, transport })
  try {
    for (const [kind, order] of [
      /** @type {const} */ (['read', 'crossReads']),
      /** @type {const} */ (['write', 'crossWrites']),
    ]) {
      const floor = faultFloor(transport, { placement, count: Math.min(faults, 1000), kind })
      /** @type {ArrayLike<number>[]} */
      const floorRounds = []
      /** @type {number[][]} */
      const bothRounds = []
      const clock = { leftMs: watchdogMs, togetherMs: 0, totalMs: 0 }
      for (let round = 0; round < rounds; round++) {
        floorRounds.push(await floor.samplesUs())
        const args = { passes, seed: round * passes }
        const results = await members.askAll(order, args, { timeoutMs: clock.leftMs })
        bothRounds.push(
          results.flatMap((result) =>
            result.rounds.flatMap((/** @type {Float64Array} */ us) => [...us]),
          ),
        )
        addTimes(clock, results)
        step()
      }
      lines.push(makeCrossLine({ kind, floor, bothRounds, floorRounds, clock }))
    }
    await members.stop()
  } finally {
    await members.kill()
  }
  return lines
}

/**
 * @param {{ leftMs: number, togetherMs: number, totalMs: number }} clock
 * @param {{ startMs: number, endMs: number }[]} results
 */
function addTimes(clock, results) {
  const starts = results.map((result) => result.startMs)
  const ends = results.map((result) => result.endMs)
  const totalMs = Math.max(...ends) - Math.min(...starts)
  clock.totalMs += totalMs
  clock.leftMs -= totalMs
  clock.togetherMs += Math.max(0, Math.min(...ends) - Math.max(...starts))
}

/**
 * @param {object} result
 * @param {string} result.kind
 * @param {import('./lib/floors.mjs').Floor} result.floor
 * @param {number[][]} result.bothRounds the samples of both members
 * @param {ArrayLike<number>[]} result.floorRounds
 * @param {{ togetherMs: number, totalMs: number }} result.clock
 */
function makeCrossLine({ kind, floor, bothRounds, floorRounds, clock }) {
  const faultsEachWay = bothRounds.reduce((count, { length }) => count + length, 0) / 2
  const seconds = clock.totalMs / 1e3
  const faultsPerSecond = Math.round((2 * faultsEachWay) / seconds)
  return makeLine({
    name: `cross faults, ${kind}`,
    rounds: bothRounds,
    floor: floor.words,
    floorRounds,
    extra: {
      faultsEachWay,
      seconds,
      bothAtOnceSeconds: clock.togetherMs / 1e3,
      faultsPerSecond,
      note:
        `${faultsEachWay} faults each way in ${seconds.toFixed(1)} s, ` +
        `${faultsPerSecond} per second`,
    },
  })
}
