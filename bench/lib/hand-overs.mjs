/**
 * What one member did with a lock, hold by hold, by the machine's clock in µs.
 * @typedef {object} Holds
 * @property {ArrayLike<number>} requestedUs
 * @property {ArrayLike<number>} acquiredUs
 * @property {ArrayLike<number>} releasedUs
 */

/**
 * @param {Holds[]} members
 * @returns {{ member: number, requestedUs: number, acquiredUs: number, releasedUs: number }[]} all
 *   holds in their order
 * @throws if two have held the lock at the same time
 */
function inOrder(members) {
  const holds = members
    .flatMap(({ requestedUs, acquiredUs, releasedUs }, member) =>
      Array.from(acquiredUs, (acquired, i) => ({
        member,
        requestedUs: requestedUs[i],
        acquiredUs: acquired,
        releasedUs: releasedUs[i],
      })),
    )
    .sort((a, b) => a.acquiredUs - b.acquiredUs)
  for (const [i, hold] of holds.slice(1).entries()) {
    if (hold.acquiredUs >= holds[i].releasedUs) continue
    throw new Error(`members ${holds[i].member} and ${hold.member} held the lock at the same time`)
  }
  return holds
}

/**
 * How long a lock took from its holder to a member that waited for it: from before the release until
 * the other had it. Holds of one member after itself do not count, nor those of a member that had
 * come less than `waitingUs` before.
 * @param {Holds[]} members
 * @param {number} waitingUs
 * @returns {number[]} µs
 */
export function handOversUs(members, waitingUs) {
  const holds = inOrder(members)
  return holds.slice(1).flatMap((hold, i) => {
    const before = holds[i]
    const waited = before.releasedUs - hold.requestedUs >= waitingUs
    return hold.member !== before.member && waited ? [hold.acquiredUs - before.releasedUs] : []
  })
}

/**
 * The time from each hold to the next.
 * @param {Holds[]} members
 * @returns {number[]} µs
 */
export function holdIntervalsUs(members) {
  const holds = inOrder(members)
  return holds.slice(1).map((hold, i) => hold.acquiredUs - holds[i].acquiredUs)
}

/**
 * How long each barrier took at the first member, having checked that nobody left it before
 * everybody had come.
 * @param {{ cameUs: ArrayLike<number>, leftUs: ArrayLike<number> }[]} members by the machine's clock
 * @returns {Float64Array} µs
 */
export function barriersUs(members) {
  const [{ cameUs, leftUs }] = members
  return Float64Array.from(cameUs, (came, i) => {
    const lastCame = Math.max(...members.map((member) => member.cameUs[i]))
    const firstLeft = Math.min(...members.map((member) => member.leftUs[i]))
    if (firstLeft < lastCame) throw new Error(`barrier ${i} let a member pass too early`)
    return leftUs[i] - came
  })
}
