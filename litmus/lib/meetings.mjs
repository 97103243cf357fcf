// How threads come to the same iteration at about the same time, so that they race.
import { Random } from './random.mjs'

/** Below this a thread spins: going to sleep takes longer. */
const shortestSleepUs = 120
const startLeadUs = 400
const firstPeriodUs = 150
const leastPeriodUs = 4
const mostPeriodUs = 20_000
/** Of what an iteration took lately; the rest is what it took before. */
const weightOfNews = 0.3

const sleepCell = new Int32Array(new SharedArrayBuffer(4))

/** @param {number} us */
const sleepUs = (us) => Atomics.wait(sleepCell, 0, 0, us / 1_000)

/** All processes of a machine read the same clock, but count from different moments. */
const clockOffsetUs = Number(process.hrtime.bigint() / 1_000n) - performance.now() * 1_000
const nowUs = () => performance.now() * 1_000 + clockOffsetUs

/**
 * Between members: by the clock. Each iteration has its time, as far from the next as iterations
 * take lately, and a thread comes at random within it, rather early; who is late does not wait.
 */
export class PacedMeeting {
  #periodUs = firstPeriodUs
  #startUs = 0
  #beganUs = 0
  #waitedUs = 0
  #ownPeriodUs = firstPeriodUs
  #random = new Random(0)

  /** The times of a batch that is to begin, for all members. @returns {[number, number]} */
  propose() {
    return [nowUs() + startLeadUs, this.#ownPeriodUs]
  }

  /** @param {ArrayLike<number>} proposed @param {number} seed */
  begin(proposed, seed) {
    this.#startUs = proposed[0]
    this.#periodUs = proposed[1]
    this.#random = new Random(seed)
    this.#waitedUs = 0
    this.#beganUs = nowUs()
  }

  /** @param {number} slot */
  meet(slot) {
    const dueUs = this.#startUs + (slot + this.#random.fraction() ** 2) * this.#periodUs
    const cameUs = nowUs()
    let leftUs = dueUs - cameUs
    if (leftUs <= 0) return
    if (leftUs > shortestSleepUs) sleepUs(leftUs - shortestSleepUs / 2)
    while (leftUs > 0) leftUs = dueUs - nowUs()
    this.#waitedUs += nowUs() - cameUs
  }

  /** @param {number} slotCount */
  end(slotCount) {
    const tookUs = (nowUs() - this.#beganUs - this.#waitedUs) / slotCount
    const mixedUs = weightOfNews * tookUs + (1 - weightOfNews) * this.#ownPeriodUs
    this.#ownPeriodUs = Math.min(Math.max(mixedUs, leastPeriodUs), mostPeriodUs)
  }
}

const spins = 2_000

/** Between workers of one process: each waits for all at every iteration. */
export class SharedMeeting {
  #arrived
  #threadCount

  /** @param {SharedArrayBuffer} buffer of four zero bytes @param {number} threadCount */
  constructor(buffer, threadCount) {
    this.#arrived = new Int32Array(buffer)
    this.#threadCount = threadCount
  }

  /** @param {number} slot */
  meet(slot) {
    const all = (slot + 1) * this.#threadCount
    Atomics.add(this.#arrived, 0, 1)
    for (let looks = 0; Atomics.load(this.#arrived, 0) < all; looks++) {
      if (looks > spins) sleepUs(50) // more threads than cores: another has to run
    }
  }
}
