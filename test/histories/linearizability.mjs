// Linearizability by Wing and Gong's search ("Testing and verifying concurrent objects", 1993) with
// Lowe's cache of configurations ("Testing for linearizability", 2017), as in Athalye's Porcupine.

/**
 * @typedef {object} Operation
 * @property {string} thread
 * @property {string} object a word, named region/byteOffset, or a semaphore
 * @property {'read' | 'write' | 'cas' | 'add' | 'acquire' | 'release'} kind
 * @property {number} [value] written, added, or the replacement
 * @property {number} [expected] of a compare-and-swap
 * @property {number} [permits] of a semaphore
 * @property {boolean} [plain] not an atomic access: no real-time order is demanded of it
 * @property {number} [result] what was in the word
 * @property {number} invokedNs
 * @property {number | null} returnedNs null if nobody knows whether it took effect
 */
/**
 * @typedef {object} Verdict
 * @property {'ok' | 'rejected' | 'undecided'} outcome
 * @property {string} [reason]
 * @property {Operation[]} [operations] those that explain it
 */

const defaultLimit = 2_000_000

/**
 * The state after an operation, or undefined if it cannot have happened in this state.
 * @param {Operation} operation
 * @param {number} state a word's value, or how many permits are held
 */
export function apply({ kind, value = 0, expected, permits = 1, result, returnedNs }, state) {
  if (kind === 'acquire') return state < permits ? state + 1 : undefined
  if (kind === 'release') return state > 0 ? state - 1 : undefined
  if (kind === 'write') return value
  if (returnedNs !== null && result !== state) return undefined
  if (kind === 'add') return state + value
  return kind === 'cas' && state === expected ? value : state
}

/**
 * Checks every object by itself: a history is linearizable if and only if all of its objects are.
 * @param {readonly Operation[]} history
 * @param {number} [limit] configurations to look at for each object before it gives up
 * @returns {Verdict}
 */
export function checkLinearizability(history, limit = defaultLimit) {
  /** @type {Map<string, Operation[]>} */
  const objects = new Map()
  for (const operation of history) {
    const found = objects.get(operation.object)
    if (found === undefined) objects.set(operation.object, [operation])
    else found.push(operation)
  }
  /** @type {Verdict} */
  let verdict = { outcome: 'ok' }
  for (const [object, operations] of objects) {
    const found = checkObject(object, operations, limit)
    if (found.outcome === 'rejected') return found
    if (found.outcome === 'undecided') verdict = found
  }
  return verdict
}

/**
 * @param {string} object
 * @param {Operation[]} operations
 * @param {number} limit
 * @returns {Verdict}
 */
function checkObject(object, operations, limit) {
  const order = operations.slice().sort((a, b) => a.invokedNs - b.invokedNs)
  const endsNs = order.map(({ returnedNs }) => returnedNs ?? Infinity)
  const done = new Uint8Array(order.length)
  let missing = endsNs.filter((endNs) => endNs !== Infinity).length
  /** @type {Set<string>} */
  const seen = new Set()
  /** @type {{ index: number, state: number, next: number }[]} */
  const stack = []
  /** @type {number[]} */
  let longest = []
  let [state, from, first] = [0, 0, 0]
  let configurations = 0
  for (;;) {
    if (missing === 0) return { outcome: 'ok' }
    while (done[first] === 1) first += 1
    // Whatever was invoked before the first return among the rest may come next.
    let deadlineNs = Infinity
    for (let i = first; i < order.length && order[i].invokedNs <= deadlineNs; i += 1) {
      if (done[i] === 0) deadlineNs = Math.min(deadlineNs, endsNs[i])
    }
    let taken = false
    for (let i = Math.max(from, first); i < order.length; i += 1) {
      if (order[i].invokedNs > deadlineNs) break
      if (done[i] === 1) continue
      const next = apply(order[i], state)
      if (next === undefined) continue
      done[i] = 1
      const key = `${next} ${keyOf(done, first)}`
      if (seen.has(key)) {
        done[i] = 0
        continue
      }
      seen.add(key)
      if ((configurations += 1) > limit) {
        return { outcome: 'undecided', reason: `${object}: gave up after ${limit} configurations` }
      }
      stack.push({ index: i, state, next: i + 1 })
      if (endsNs[i] !== Infinity) missing -= 1
      ;[state, from, taken] = [next, 0, true]
      if (stack.length > longest.length) longest = stack.map(({ index }) => index)
      break
    }
    if (taken) continue
    const last = stack.pop()
    if (last === undefined) break
    done[last.index] = 0
    if (endsNs[last.index] !== Infinity) missing += 1
    ;[state, from, first] = [last.state, last.next, 0]
  }
  const inPrefix = new Set(longest)
  const stuck = order.filter((_, i) => !inPrefix.has(i) && endsNs[i] !== Infinity)
  const tail = longest.slice(-8).map((i) => order[i])
  return {
    outcome: 'rejected',
    reason:
      `${object} is not linearizable: at most ${longest.length} of ${order.length} operations can ` +
      `be put in order, ending in the first ${tail.length} below; then none of the others fits`,
    operations: [...tail, ...stuck.slice(0, 8)],
  }
}

/**
 * What has been taken, as text: everything before `first` has, and mostly nothing far behind it.
 * @param {Uint8Array} done
 * @param {number} first
 */
function keyOf(done, first) {
  let start = first
  while (done[start] === 1) start += 1
  let key = `${start}`
  const last = done.lastIndexOf(1)
  for (let i = start + 1; i <= last; i += 1) if (done[i] === 1) key += ` ${i}`
  return key
}
