import { measureLines } from './lib/alternate.mjs'
import { faultFloor, localTrap } from './lib/floors.mjs'
import { Members } from './lib/members.mjs'
import { cpusFor, placements } from './lib/placement.mjs'

const leastPages = 1024
const defaultFaults = 300
const defaultMembers = 8
const writer = 1

/** The home, then members that are neither home nor writer. */
const others = [0, 2, 3, 4, 5, 6, 7]

/**
 * @typedef {object} Case
 * @property {string} name
 * @property {number} leastMembers
 * @property {'read' | 'write' | 'upgrade'} kind
 * @property {boolean} [alone] nobody else has to be asked
 * @property {(members: Members, pages: any) => Promise<ArrayLike<number>>} batch
 */

/** @type {Case[]} */
const cases = [
  {
    name: 'write fault, held by nobody',
    leastMembers: 2,
    kind: 'write',
    alone: true,
    async batch(members, pages) {
      await makeCopies(members, pages, 0)
      await members.ask(writer, 'discard')
      return write(members, pages)
    },
  },
  ...[0, 1, 3, 7].map((sharers) => ({
    name: `upgrade, ${sharers} other ${sharers === 1 ? 'sharer' : 'sharers'}`,
    leastMembers: Math.max(2, sharers + 1),
    kind: /** @type {const} */ ('upgrade'),
    alone: sharers === 0,
    async batch(/** @type {Members} */ members, /** @type {any} */ pages) {
      await makeCopies(members, pages, sharers)
      return write(members, pages)
    },
  })),
  {
    name: 'read fault, dirty at a third member',
    leastMembers: 3,
    kind: 'read',
    async batch(members, pages) {
      await members.ask(2, 'fill', pages)
      return members.ask(writer, 'read', pages)
    },
  },
]

/**
 * The writer has a copy, and so many others.
 * @param {Members} members
 * @param {any} pages
 * @param {number} sharers
 */
async function makeCopies(members, pages, sharers) {
  await members.ask(0, 'fill', pages)
  for (const rank of [...others.slice(0, sharers), writer]) await members.ask(rank, 'read', pages)
  if (sharers === 0) await members.ask(0, 'discard')
}

/**
 * @param {Members} members
 * @param {any} pages filled with their stamp
 */
async function write(members, pages) {
  const [before, after] = [pages.stamp, pages.stamp + 1]
  const samplesUs = await members.ask(writer, 'write', { ...pages, stamps: { before, after } })
  await members.ask(0, 'check', { ...pages, stamps: { first: after, last: before } })
  return samplesUs
}

export const summary = 'write faults by the number of members that have a copy'
export const takesMembers = true

/** @param {number} members */
const casesFor = (members) => cases.filter(({ leastMembers }) => leastMembers <= members)

/** @param {{ rounds: number, members?: number }} options */
export function countSteps({ rounds, members = defaultMembers }) {
  return casesFor(members).length * (rounds + 1)
}

/**
 * @param {{ faults?: number, rounds: number, transport?: string, members?: number }} options
 * @param {() => void} step
 */
export async function run(options, step) {
  const { faults: count = defaultFaults, rounds, transport = 'tcp' } = options
  const { members: size = defaultMembers } = options
  const { free, apart: placement = free } = placements()
  const members = await Members.start('fault.mjs', {
    size,
    cpus: cpusFor(placement, size),
    options: { pageCount: Math.max(leastPages, count) },
    transport,
  })
  let stamp = 0
  try {
    const figures = casesFor(size).map(({ name, kind, alone, batch }) => ({
      name,
      floor:
        alone === true && transport === 'shm'
          ? localTrap({ placement, count, kind })
          : faultFloor(transport, { placement, count, kind }),
      samplesUs() {
        stamp += 2
        return batch(members, { count, seed: stamp, stamp })
      },
      extra: { transport, members: size },
    }))
    const lines = await measureLines(figures, rounds, step)
    await members.stop()
    return lines
  } finally {
    await members.kill()
  }
}
