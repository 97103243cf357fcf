import { median, percentile } from './statistics.mjs'

/**
 * What the addon that keeps time stamps has beside the other's functions.
 * @typedef {object} StampedAddon
 * @property {(room: number) => Float64Array} stamps what was kept since the last call, and room for
 *   so many more, 2^20 at most; 0 for none, which is how a process begins. In no order, and four
 *   numbers for each: ns of the clock that process.hrtime reads, what happened (`constants.point…`),
 *   region, page (2^32 - 1 for none)
 * @property {Record<string, number>} constants
 *
 * One moment in the life of a fault: native/base/stamps.h says what each point is.
 * @typedef {object} Moment
 * @property {number} rank
 * @property {string} point
 * @property {number} page
 * @property {number} ns
 *
 * A touch of a page, by the clock of the program that touched it.
 * @typedef {object} Touch
 * @property {number} page
 * @property {number} beforeNs
 * @property {number} afterNs
 *
 * @typedef {'trap' | 'request' | 'wire' | 'wake-up' | 'directory' | 'install' | 'resume'} Part
 *
 * From the moment before it to its own. A phase that `must` be there has its moment in each fault;
 * of another that has none the time belongs to the phase behind it.
 * @typedef {object} Phase
 * @property {string} name
 * @property {Part} part of the fault
 * @property {Who} who
 * @property {string[]} points
 * @property {boolean} [must]
 * @property {boolean} [last] of several moments between those that must be, the last; otherwise the
 *   first
 * @property {boolean} [overlaps] ends with a system call, which may return after whoever it woke has
 *   gone on: then it ends there
 *
 * @typedef {'thread' | 'home' | 'owner'} Who the member that faults, the home of the page, a third
 *   one that has written it
 */

const noPage = 2 ** 32 - 1

/** @type {Phase} */
const trap = { name: 'trap', part: 'trap', who: 'thread', points: ['Entered'], must: true }

/** @type {Phase[]} */
const end = [
  {
    ...{ name: 'install the page', part: 'install', who: 'thread' },
    ...{ points: ['Raised'], must: true, last: true },
  },
  { name: 'leave the handler', part: 'resume', who: 'thread', points: ['Left'], must: true },
]

/** The page is copied from its home without anyone's help. */
export const alonePath = [
  trap,
  /** @type {Phase} */ ({
    ...{ name: 'become a sharer', part: 'directory', who: 'thread' },
    ...{ points: ['Found'], must: true },
  }),
  /** @type {Phase} */ ({
    ...{ name: 'copy the page', part: 'wire', who: 'thread' },
    ...{ points: ['Copied'], must: true },
  }),
  ...end,
]

/**
 * A member is sent a record, and steps it.
 * @param {'home' | 'owner'} who
 * @returns {Phase[]}
 */
function stepAt(who) {
  return [
    { name: `${who}'s engine wakes`, part: 'wake-up', who, points: ['EngineAwake'], last: true },
    { name: `${who} takes it`, part: 'wire', who, points: ['Seen'], must: true },
    { name: `${who}: into TypeScript`, part: 'directory', who, points: ['Handed'] },
    { name: `${who}: step`, part: 'directory', who, points: ['Stepped'], must: true },
    { name: `${who}: lower its page`, part: 'directory', who, points: ['Protected'], last: true },
    {
      ...{ name: `${who}: copy and send`, part: 'wire', who },
      ...{ points: ['Posted', 'Sent'], overlaps: true },
    },
  ]
}

/** @type {Phase[]} */
const asking = [
  trap,
  {
    ...{ name: 'prepare the request', part: 'request', who: 'thread' },
    ...{ points: ['Asking'], must: true },
  },
  {
    ...{ name: 'send the request', part: 'wire', who: 'thread' },
    ...{ points: ['Posted', 'Sent'], overlaps: true },
  },
]

/** @type {Phase[]} */
const answered = [
  // Either of them takes the answer.
  {
    ...{ name: 'thread or its engine wakes', part: 'wake-up', who: 'thread' },
    ...{ points: ['EngineAwake', 'Woken'], last: true },
  },
  {
    ...{ name: 'take the answer', part: 'wire', who: 'thread' },
    ...{ points: ['Came', 'Seen'], must: true, last: true },
  },
  { name: 'engine: into TypeScript', part: 'install', who: 'thread', points: ['Handed'] },
  { name: 'engine: step', part: 'install', who: 'thread', points: ['Stepped'] },
  { name: 'engine: raise the page', part: 'install', who: 'thread', points: ['Protected'] },
  {
    ...{ name: 'thread goes on', part: 'wake-up', who: 'thread' },
    ...{ points: ['Woken'], must: true, last: true },
  },
  ...end,
]

export const askedPath = [...asking, ...stepAt('home'), ...answered]
export const threeMemberPath = [...asking, ...stepAt('home'), ...stepAt('owner'), ...answered]

/** What is left: the way out of the kernel, and the clock. @type {Pick<Phase, 'name' | 'part'>} */
const resume = { name: 'resume', part: 'resume' }

/** @param {Phase[]} path */
export const phasesOf = (path) => [...path.map(({ name, part }) => ({ name, part })), resume]

/**
 * @param {Float64Array} kept what `stamps` handed out
 * @param {number} rank
 * @param {Record<string, number>} constants of the same addon
 * @returns {Moment[]}
 */
export function readMoments(kept, rank, constants) {
  const names = new Map(
    Object.entries(constants)
      .filter(([name]) => name.startsWith('point'))
      .map(([name, number]) => [number, name.slice('point'.length)]),
  )
  return Array.from({ length: kept.length / 4 }, (_, index) => {
    const [ns, number, , page] = kept.subarray(4 * index, 4 * index + 4)
    const point = names.get(number)
    if (point === undefined) throw new Error(`rank ${rank} has kept the unknown point ${number}`)
    return { rank, point, page, ns }
  })
}

/**
 * Puts the moments of each touch in order.
 * @param {Touch[]} touches of different pages, one after the other
 * @param {Moment[]} moments of all members
 * @param {Record<Who, number>} ranks
 * @param {(moments: Moment[]) => Phase[]} pathOf the way that a fault has taken, by its moments
 * @returns {{ path: Phase[], wholeUs: number, phasesUs: number[] }[]} by touch; as in `phasesOf`
 * @throws if a fault's moments are not all there, or not in order
 */
export function joinMoments(touches, moments, ranks, pathOf) {
  /** @type {Map<number, Moment[]>} */
  const byPage = new Map(touches.map(({ page }) => [page, []]))
  if (byPage.size < touches.length) throw new Error('a page was touched more than once')
  const inOrder = [...moments].sort((a, b) => a.ns - b.ns)
  const ofNoPage = inOrder.filter(({ page }) => page === noPage)
  for (const moment of inOrder) byPage.get(moment.page)?.push(moment)
  let next = 0
  return touches.map((touch) => {
    const { page, beforeNs, afterNs } = touch
    const within = (/** @type {Moment} */ { ns }) => ns >= beforeNs && ns <= afterNs
    const own = /** @type {Moment[]} */ (byPage.get(page)).filter(within)
    while (next < ofNoPage.length && ofNoPage[next].ns < beforeNs) next++
    let last = next
    while (last < ofNoPage.length && ofNoPage[last].ns <= afterNs) last++
    const all = [...own, ...ofNoPage.slice(next, last)].sort((a, b) => a.ns - b.ns)
    const path = pathOf(all)
    return { path, wholeUs: (afterNs - beforeNs) / 1e3, phasesUs: cut(touch, all, ranks, path) }
  })
}

/**
 * @param {Touch} touch
 * @param {Moment[]} moments in order
 * @param {Record<Who, number>} ranks
 * @param {Phase[]} path
 * @returns {number[]} µs of each phase, and of the resume
 */
function cut({ page, beforeNs, afterNs }, moments, ranks, path) {
  /** @param {Phase} phase @param {number} fromNs @param {number} toNs */
  const among = ({ who, points }, fromNs, toNs) =>
    moments.filter(
      ({ rank, point, ns }) =>
        rank === ranks[who] && points.includes(point) && ns >= fromNs && ns <= toNs,
    )
  // Those that must be: from the touch on the first of each, then from the end back the last.
  const endsNs = path.map(() => NaN)
  const turn = path.findIndex(({ must, last }) => must && last)
  const lack = (/** @type {Phase} */ { name, points, who }) => {
    const found = moments.map(({ rank, point, ns }) => `${rank} ${point} ${ns - beforeNs}`)
    const words = `no ${points.join(' or ')} of ${who} in its place, for '${name}'`
    return new Error(`the fault on page ${page} has ${words}: ${found.join(', ')}`)
  }
  let fromNs = beforeNs
  for (let i = 0; i < (turn < 0 ? path.length : turn); i++) {
    if (!path[i].must) continue
    const [first] = among(path[i], fromNs, afterNs)
    if (first === undefined) throw lack(path[i])
    fromNs = endsNs[i] = first.ns
  }
  let toNs = afterNs
  for (let i = path.length - 1; i >= turn && turn >= 0; i--) {
    if (!path[i].must) continue
    const last = among(path[i], fromNs, toNs).at(-1)
    if (last === undefined) throw lack(path[i])
    toNs = endsNs[i] = last.ns
  }
  fillIn(path, endsNs, among, { beforeNs, afterNs })
  return [...endsNs, afterNs].map((ns, i) => (ns - (i === 0 ? beforeNs : endsNs[i - 1])) / 1e3)
}

/**
 * Finds the ends of the phases that need not be there, between those that must.
 * @param {Phase[]} path
 * @param {number[]} endsNs NaN where an end is not known yet
 * @param {(phase: Phase, fromNs: number, toNs: number) => Moment[]} among
 * @param {{ beforeNs: number, afterNs: number }} touch
 */
function fillIn(path, endsNs, among, { beforeNs, afterNs }) {
  /** @type {(boolean | undefined)[]} */
  const missing = path.map(() => undefined)
  for (let i = path.length - 1; i >= 0; i--) {
    if (!Number.isNaN(endsNs[i])) continue
    const fromNs = endsNs.slice(0, i).findLast((ns) => !Number.isNaN(ns)) ?? beforeNs
    const toNs = endsNs.slice(i + 1).find((ns) => !Number.isNaN(ns)) ?? afterNs
    const phase = path[i]
    const found = among(phase, fromNs, toNs)
    // Of two points the first that there is counts: what was posted is there before it is sent.
    const moment = phase.last ? found.at(-1) : found[0]
    const isLate = phase.overlaps && among(phase, toNs, Infinity).length > 0
    if (moment !== undefined) endsNs[i] = moment.ns
    else if (isLate) endsNs[i] = toNs
    else missing[i] = true
  }
  for (let i = 0; i < path.length; i++) {
    if (missing[i]) endsNs[i] = i === 0 ? beforeNs : endsNs[i - 1]
  }
}

/**
 * One row of the table.
 * @typedef {object} Row
 * @property {string} name
 * @property {Part | 'unaccounted'} part
 * @property {number} medianUs
 * @property {number} p99Us
 * @property {number} share of the whole, 0 to 1
 */

/**
 * What each phase takes. Shares are those of the middle half of the faults by their time, because
 * medians do not add up and means are those of the worst.
 * @param {{ path: Phase[], wholeUs: number, phasesUs: number[] }[]} faults
 * @returns {{ rows: Row[], parts: Record<string, number> }} the last row is what no phase has; the
 *   shares of the parts
 */
export function summarize(faults) {
  const path = faults[0].path
  const inOrder = [...faults].sort((a, b) => a.wholeUs - b.wholeUs)
  const quarter = Math.floor(inOrder.length / 4)
  const middle = inOrder.slice(quarter, inOrder.length - quarter)
  const sum = (/** @type {number[]} */ values) => values.reduce((total, value) => total + value, 0)
  const middleUs = sum(middle.map(({ wholeUs }) => wholeUs))
  const rows = phasesOf(path).map(({ name, part }, index) => {
    const us = faults.map(({ phasesUs }) => phasesUs[index])
    const share = sum(middle.map(({ phasesUs }) => phasesUs[index])) / middleUs
    return { name, part, medianUs: median(us), p99Us: percentile(us, 99), share }
  })
  const restUs = faults.map(({ wholeUs, phasesUs }) => wholeUs - sum(phasesUs))
  /** @type {Record<string, number>} */
  const parts = {}
  for (const { part, share } of rows) parts[part] = (parts[part] ?? 0) + share
  /** @type {Row} */
  const rest = {
    ...{ name: 'unaccounted', part: 'unaccounted' },
    ...{ medianUs: median(restUs), p99Us: percentile(restUs, 99) },
    share: 1 - sum(rows.map(({ share }) => share)),
  }
  return { rows: [...rows.filter(({ p99Us, share }) => p99Us > 0 || share > 0), rest], parts }
}
