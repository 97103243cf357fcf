import { runFloor } from './floor.mjs'
import { pageBytes } from './pages.mjs'
import { readLatenciesUs, readLatencyFloor } from './perftest.mjs'

/**
 * What a figure is held against: in words, and how to measure it once more, in µs.
 * @typedef {object} Floor
 * @property {string} words
 * @property {() => Promise<ArrayLike<number>>} samplesUs
 */

/** @typedef {import('./placement.mjs').Placement} Placement */

/**
 * @param {Placement} placement
 * @returns {string[]} where the two processes of a floor run: its client is our rank 1
 */
function pins({ cpus }) {
  return cpus === undefined ? [] : ['--server-cpu', `${cpus[0]}`, '--client-cpu', `${cpus[1]}`]
}

/** @param {Placement} placement */
function pin({ cpus }) {
  return cpus === undefined ? [] : ['--cpu', `${cpus[1]}`]
}

/**
 * @param {string} name
 * @param {string[]} args
 * @returns {Promise<number[]>}
 */
async function samplesOf(name, args) {
  const { samplesUs } = await runFloor(name, args)
  return samplesUs
}

/**
 * @param {{ placement: Placement, count: number, replyBytes?: number, spin?: boolean,
 *   pauseMs?: number }} how
 * @returns {Floor} a page, or `replyBytes`, asked for and received by a socket
 */
export function socketRoundTrip({
  placement,
  count,
  replyBytes = 4096,
  spin = false,
  pauseMs = 0,
}) {
  const args = ['--raw', '--iterations', `${count}`, '--reply-bytes', `${replyBytes}`]
  args.push('--pause-us', `${pauseMs * 1000}`)
  const kind = spin ? 'busy-polled' : 'blocking'
  const pauses = pauseMs > 0 ? `, a pause of ${pauseMs} ms before each` : ''
  return {
    words: `${kind} socket round trip, 8 B out, ${replyBytes} B back, ${placement.words}${pauses}`,
    samplesUs: () =>
      samplesOf('socket_roundtrip', [...args, ...(spin ? ['--spin'] : []), ...pins(placement)]),
  }
}

/**
 * @param {{ placement: Placement, count: number, holdUs: number }} how
 * @returns {Floor} a message to a process that sleeps
 */
export function socketMessage({ placement, count, holdUs }) {
  const args = ['--iterations', `${count}`, '--hold-us', `${holdUs}`, ...pins(placement)]
  return {
    words: `one blocking message by socket to a process that sleeps, ${placement.words}`,
    samplesUs: () => samplesOf('socket_message', args),
  }
}

/**
 * @param {{ placement: Placement, mib: number, passes: number }} how
 * @returns {Floor} time per 4 KiB of a stream
 */
export function socketStream({ placement, mib, passes }) {
  const args = ['--mib', `${mib}`, '--passes', `${passes}`, ...pins(placement)]
  return {
    words: `${mib} MiB through one socket, ${placement.words}; time per 4 KiB`,
    samplesUs: async () => perPage(await samplesOf('socket_stream', args), mib),
  }
}

/**
 * @param {{ placement: Placement, count: number, copy?: boolean }} how
 * @returns {Floor}
 */
export function futexRoundTrip({ placement, count, copy = false }) {
  const args = ['--iterations', `${count}`, ...(copy ? ['--copy'] : []), ...pins(placement)]
  return {
    words: `futex hand-over there and back${copy ? ' + 4 KiB copy' : ''}, ${placement.words}`,
    samplesUs: () => samplesOf('futex_handover', args),
  }
}

/**
 * @param {{ placement: Placement, count: number, holdUs: number }} how
 * @returns {Floor}
 */
export function futexHandOver({ placement, count, holdUs }) {
  const args = ['--one-way', '--iterations', `${count}`, '--hold-us', `${holdUs}`]
  return {
    words: `futex hand-over, one way, to a process that sleeps, ${placement.words}`,
    samplesUs: () => samplesOf('futex_handover', [...args, ...pins(placement)]),
  }
}

/**
 * @param {{ placement: Placement, count: number, kind: 'read' | 'write' | 'upgrade',
 *   copy?: boolean }} how
 * @returns {Floor}
 */
export function localTrap({ placement, count, kind, copy = false }) {
  const args = ['--pages', `${count}`, '--kind', kind, ...(copy ? ['--copy'] : [])]
  return {
    words: `local trap (${kind})${copy ? ' + 4 KiB copy' : ''} + mprotect, page after page`,
    samplesUs: () => samplesOf('local_trap', [...args, ...pin(placement)]),
  }
}

/**
 * @param {{ placement: Placement, mib: number, passes: number }} how
 * @returns {Floor} time per 4 KiB
 */
export function memfdCopy({ placement, mib, passes }) {
  const args = ['--mib', `${mib}`, '--passes', `${passes}`, ...pin(placement)]
  return {
    words: `memcpy of ${mib} MiB from one memfd mapping to another, all touched; time per 4 KiB`,
    samplesUs: async () => perPage(await samplesOf('memfd_copy', args), mib),
  }
}

/**
 * @param {{ members: number, count: number, sockets: boolean, cpus?: number[] }} how
 * @returns {Floor}
 */
export function barrierFloor({ members, count, sockets, cpus }) {
  const args = ['--members', `${members}`, '--iterations', `${count}`]
  if (sockets) args.push('--sockets')
  if (cpus !== undefined) args.push('--cpus', cpus.join(','))
  const rounds = Math.ceil(Math.log2(members))
  return {
    words:
      `the barrier in C of ${members} processes over ${sockets ? 'sockets' : 'futexes'}, ` +
      (rounds === 1 ? '1 round' : `${rounds} rounds`),
    samplesUs: () => samplesOf('barrier', args),
  }
}

/**
 * @param {number} count
 * @param {string} [host] the address of the device: in the guest of SoftRoCE, or wherever
 * @returns {Floor}
 */
export function rdmaRead(count, host = process.env.PAGEMESH_HOST ?? '127.0.0.1') {
  return { words: readLatencyFloor, samplesUs: () => readLatenciesUs(count, host) }
}

/**
 * What a fault that another member has to answer stands on.
 * @param {string | undefined} transport
 * @param {{ placement: Placement, count: number, kind: 'read' | 'write' | 'upgrade' }} how
 */
export function faultFloor(transport = 'tcp', { placement, count, kind }) {
  if (transport === 'verbs') return rdmaRead(count)
  if (transport === 'tcp') return socketRoundTrip({ placement, count })
  return sum(
    futexRoundTrip({ placement, count, copy: kind !== 'upgrade' }),
    localTrap({ placement, count, kind }),
  )
}

/**
 * One floor after the other, each measured by itself in the same round.
 * @param {Floor[]} floors
 * @returns {Floor}
 */
export function sum(...floors) {
  return {
    words: `sum of: ${floors.map(({ words }) => words).join('; ')}`,
    async samplesUs() {
      /** @type {ArrayLike<number>[]} */
      const parts = []
      for (const floor of floors) parts.push(await floor.samplesUs())
      return addSamples(parts)
    },
  }
}

/**
 * Sample by sample. The parts are independent of each other, so their order means nothing.
 * @param {ArrayLike<number>[]} parts
 */
export function addSamples(parts) {
  const count = Math.min(...parts.map(({ length }) => length))
  return Float64Array.from({ length: count }, (_, i) =>
    parts.reduce((total, part) => total + part[i], 0),
  )
}

/** @param {ArrayLike<number>} passesUs @param {number} mib */
function perPage(passesUs, mib) {
  const pages = (mib * 2 ** 20) / pageBytes
  return Float64Array.from(passesUs, (us) => us / pages)
}
