import { decodeHalves, decodeWord } from './batches.mjs'
import { Random } from './random.mjs'

/** @typedef {import('./batches.mjs').Batch} Batch */

/** One iteration in so many has pauses between its accesses. */
const looseShare = 2
/** A pause is one of these, in rounds: none, less than a fault takes, as long as some faults take. */
const longestPauses = [0, 30, 1_000, 100_000]
const pausesPerThread = 4

/**
 * Runs a thread of a program for all iterations of a batch.
 * @param {object} work
 * @param {any} work.memory
 * @param {ReturnType<typeof import('./thread-code.mjs').compileThread>} work.code
 * @param {Batch} work.batch
 * @param {number} work.thread
 * @param {number} work.variableCount
 * @param {boolean} work.straddling
 * @param {(slot: number) => void} work.meet waits for the others, more or less
 * @returns {Uint8Array} by slot and register of the thread, decoded
 */
export function runThread({ memory, code, batch, thread, variableCount, straddling, meet }) {
  const { slotCount, base, at, seed } = batch
  const random = new Random(seed, thread)
  const registerCount = code.registers.length
  const out = new Int32Array(slotCount * registerCount)
  const pauses = new Int32Array(pausesPerThread)
  memory.begin?.(at)
  for (let slot = 0; slot < slotCount; slot++) {
    const loose = random.below(looseShare) === 0
    if (loose) for (let i = 0; i < pausesPerThread; i++) pauses[i] = pauseOf(random)
    meet(slot)
    const run = loose ? code.loose : code.tight
    run(memory, base, at, slot * variableCount, out, slot * registerCount, pauses)
    memory.tick?.()
  }
  memory.settle?.()
  return Uint8Array.from(out, (raw) => (straddling ? decodeHalves : decodeWord)(raw, base))
}

/** @param {Random} random */
function pauseOf(random) {
  return random.below(random.pick(longestPauses) + 1)
}
