// What one thread of a member does: random operations, each written to a file before it begins and
// after it returns, so that what a killed process did is known.
import { writeSync } from 'node:fs'
import { randomFrom } from '../support/xorshift.mjs'

/**
 * @typedef {object} Plan
 * @property {string} thread
 * @property {number} number of this thread, from 1 on: makes its values its own
 * @property {number} seed
 * @property {number} operations
 * @property {'none' | 'stale' | 'lock' | 'add'} broken what is broken on purpose
 * @property {'none' | 'victim' | 'survivor'} kill what it will be in a round with a killed member.
 *   Only page 0, which the victim never owns, is touched then: a lost page would end the process.
 */

const pages = 4
/** Per page: two words for atomic operations, one for plain ones, one to count in. */
const wordsOfPage = { 0: 'register', 1: 'register', 2: 'plain', 3: 'counter' }
const atomicWords = 4

/** What may become of an operation when a member is killed. Nobody knows whether it happened. */
const lossCodes = ['ERR_PAGEMESH_MEMBER_DOWN', 'ERR_PAGEMESH_PAGE_LOST']

/** @param {number} seed neighbouring ones give numbers that have nothing in common */
export const random = (seed) => randomFrom(Math.imul(seed, 2654435761) | 1)

/**
 * @param {Plan} plan
 * @param {number} fd of the file that takes the record
 * @param {Int32Array} words of the paged region
 * @param {number} pageBytes
 * @param {any} [main] the regions and semaphores: in the main thread only
 */
export async function act(plan, fd, words, pageBytes, main) {
  const pick = random(plan.seed)
  /** @type {Map<string, number>} what this thread saw last */
  const last = new Map()
  let written = 0
  const fresh = () => plan.number * 1_000_000 + (written += 1)
  let pending = ''
  /** @type {Set<string>} */
  const lost = new Set()
  /**
   * @param {{ object: string } & Record<string, unknown>} operation
   * @param {() => unknown} body
   */
  const record = async (operation, body) => {
    writeSync(fd, `${pending}${JSON.stringify(operation)}\t${process.hrtime.bigint()}`)
    let value
    try {
      const outcome = body()
      value = outcome instanceof Promise ? await outcome : outcome
    } catch (error) {
      const { code } = /** @type {{ code?: string }} */ (error)
      if (plan.kill === 'none' || !lossCodes.includes(code ?? '')) throw error
      pending = '\n'
      lost.add(operation.object)
      return Number(last.get(operation.object) ?? 0)
    }
    pending = `\t${process.hrtime.bigint()}\t${value ?? ''}\n`
    return Number(value)
  }
  const stale = (/** @type {string} */ object, /** @type {() => unknown} */ body) => () =>
    plan.broken === 'stale' && last.has(object) && pick(10) === 0 ? last.get(object) : body()

  const onPage = async () => {
    const page = plan.kill !== 'none' && main === undefined ? 0 : pick(pages)
    const mayTouch = plan.kill === 'none' || (page === 0 && plan.kill === 'survivor')
    let word = /** @type {0 | 1 | 2 | 3} */ (pick(4))
    if (word === 2 && !mayTouch && page !== 0) word = 0
    const index = (page * pageBytes) / 4 + word
    const object = `paged/${index * 4}`
    if (lost.has(object)) return
    const use = wordsOfPage[word]
    const atHome = main !== undefined && use !== 'plain' && (!mayTouch || pick(3) === 0)
    // The victim may read page 0, which leaves it where it is.
    const choice = mayTouch || atHome ? pick(use === 'register' ? 4 : 2) : 0
    const plain = use === 'plain' ? { plain: true } : {}
    if (choice === 0 || (choice === 3 && !last.has(object))) {
      const read = () =>
        use === 'plain'
          ? words[index]
          : atHome
            ? main.paged.load(index * 4)
            : Atomics.load(words, index)
      last.set(object, await record({ object, kind: 'read', ...plain }, stale(object, read)))
    } else if (use === 'counter') {
      const add = () => {
        if (plan.broken === 'add') {
          const old = Atomics.load(words, index)
          Atomics.store(words, index, old + 1)
          return old
        }
        return atHome ? main.paged.fetchAdd(index * 4, 1) : Atomics.add(words, index, 1)
      }
      await record({ object, kind: 'add', value: 1 }, add)
    } else if (choice === 1 || use === 'plain') {
      const value = fresh()
      const write = () => {
        if (use === 'plain') words[index] = value
        else if (atHome) return main.paged.store(index * 4, value)
        else Atomics.store(words, index, value)
        return undefined
      }
      await record({ object, kind: 'write', value, ...plain }, write)
    } else {
      const value = fresh()
      const expected = last.get(object) ?? 0
      const swap = () =>
        atHome
          ? main.paged.compareExchange(index * 4, expected, value)
          : Atomics.compareExchange(words, index, expected, value)
      last.set(object, await record({ object, kind: 'cas', value, expected }, swap))
    }
  }

  const onAtomicWord = async () => {
    const byteOffset = 8 * pick(atomicWords)
    const object = `atomic/${byteOffset}`
    if (lost.has(object)) return
    const choice = byteOffset === 0 ? pick(2) * 3 : pick(3)
    const value = fresh()
    const expected = last.get(object) ?? 0
    if (choice === 0) {
      const read = stale(object, () => main.atomic.load(byteOffset, 'int64'))
      last.set(object, await record({ object, kind: 'read' }, read))
    } else if (choice === 1) {
      const write = () => main.atomic.store(byteOffset, BigInt(value))
      await record({ object, kind: 'write', value }, write)
    } else if (choice === 2) {
      const swap = () => main.atomic.compareExchange(byteOffset, BigInt(expected), BigInt(value))
      last.set(object, await record({ object, kind: 'cas', value, expected }, swap))
    } else {
      await record({ object, kind: 'add', value: 1 }, () => main.atomic.fetchAdd(byteOffset, 1n))
    }
  }

  const onSemaphore = async () => {
    const { semaphore, object, permits } = main.semaphores[pick(main.semaphores.length)]
    if (lost.has(object)) return
    /** @type {{ release: () => void } | undefined} */
    let held
    await record({ object, kind: 'acquire', permits }, () => {
      if (plan.broken === 'lock' && pick(4) === 0) return undefined
      if (pick(2) === 0) {
        held = semaphore.acquireSync()
        return undefined
      }
      return semaphore.acquire().then((/** @type {typeof held} */ each) => {
        held = each
      })
    })
    if (lost.has(object)) return
    for (let i = pick(3); i > 0; i -= 1) await onPage()
    await record({ object, kind: 'release' }, () => held?.release())
  }

  for (let i = 0; i < plan.operations; i += 1) {
    const choice = main === undefined ? 0 : pick(8)
    if (choice < 4) await onPage()
    else if (choice < 6) await onAtomicWord()
    else await onSemaphore()
  }
  writeSync(fd, pending)
}
