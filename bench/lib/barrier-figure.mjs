import { measureLines } from './alternate.mjs'
import { barrierFloor } from './floors.mjs'
import { barriersUs } from './hand-overs.mjs'
import { Members } from './members.mjs'
import { cpusFor } from './placement.mjs'

/**
 * Barriers of `size` members against the same barrier in C.
 * @param {object} what
 * @param {string} what.name
 * @param {number} [what.target]
 * @param {number} what.size
 * @param {number} what.count in each batch
 * @param {number} what.rounds
 * @param {string} what.transport
 * @param {import('./placement.mjs').Placement} what.placement its cores are dealt out in turn
 * @param {() => void} step
 */
export async function measureBarrier(what, step) {
  const { name, target, size, count, rounds, transport, placement } = what
  const cpus = cpusFor(placement, size)
  const floor = barrierFloor({ members: size, count, sockets: transport !== 'shm', cpus })
  const members = await Members.start('barrier.mjs', { size, cpus, transport })
  try {
    const samplesUs = async () => barriersUs(await members.askAll('pass', { count }))
    const extra = { transport, members: size }
    const [line] = await measureLines([{ name, target, floor, samplesUs, extra }], rounds, step)
    await members.stop()
    return line
  } finally {
    await members.kill()
  }
}
