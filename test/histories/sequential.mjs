// Sequential consistency of a region: is there one order of all operations that keeps each thread's
// own order, and in which every read finds the last write? Every value is written once, so that it
// is known which write a read saw (Gibbons and Korach, "Testing shared memories", 1997). What
// follows from that is computed exactly, and a cycle in it rejects. The rest is a search for the
// order: with a result it is exact too, and when it is cut off the answer is 'undecided'.

/** @typedef {import('./linearizability.mjs').Operation} Operation */
/** @typedef {import('./linearizability.mjs').Verdict} Verdict */
/**
 * @typedef {object} Node
 * @property {Operation} operation
 * @property {number} thread
 * @property {number} index in its thread
 * @property {number | undefined} reads the value it found
 * @property {number | undefined} writes the value it left
 * @property {Node | undefined} source the write that it saw; undefined is the first zero
 * @property {Set<Node>} before what must come before it
 */

const defaultLimit = 300_000

/**
 * @param {readonly Operation[]} history of the words of one region
 * @param {number} [limit] steps of the search before it gives up
 * @returns {Verdict}
 */
export function checkSequentialConsistency(history, limit = defaultLimit) {
  const known = history.filter(({ returnedNs }) => returnedNs !== null)
  /** @type {Map<string, Set<number>>} */
  const missing = new Map()
  for (const { object, kind, result } of known) {
    if (kind === 'write' || result === 0) continue
    const produced = known.some(
      (other) => other.object === object && effect(other).writes === result,
    )
    if (produced) continue
    const values = missing.get(object) ?? new Set()
    missing.set(object, values.add(/** @type {number} */ (result)))
  }
  // Open operations count if somebody saw what they left; otherwise they need not have happened.
  const open = history.filter(({ returnedNs, kind }) => returnedNs === null && kind !== 'read')
  return assign(known, open, missing, limit)
}

/**
 * Gives every value that nobody is known to have written to an open operation, in all ways.
 * @param {readonly Operation[]} known
 * @param {readonly Operation[]} open
 * @param {Map<string, Set<number>>} missing
 * @param {number} limit
 * @returns {Verdict}
 */
function assign(known, open, missing, limit) {
  const object = [...missing.keys()].find((each) => missing.get(each)?.size !== 0)
  if (object === undefined) return checkKnown(known, limit)
  const [value] = /** @type {Set<number>} */ (missing.get(object))
  /** @type {Verdict} */
  let verdict = {
    outcome: 'rejected',
    reason: `${object} held ${value}, which nobody wrote`,
    operations: known.filter((each) => each.object === object && each.result === value).slice(0, 1),
  }
  for (const each of open) {
    if (each.object !== object) continue
    if (each.kind !== 'add' && each.value !== value) continue
    const result = each.kind === 'add' ? value - (each.value ?? 0) : each.expected
    const happened = { ...each, result, returnedNs: Infinity }
    const rest = new Map(missing)
    rest.set(object, new Set([...(missing.get(object) ?? [])].filter((other) => other !== value)))
    // An open add saw a value as well, which somebody must have written.
    const sources = [...known, happened].filter((other) => other.object === object)
    if (
      each.kind !== 'write' &&
      result !== 0 &&
      !sources.some((other) => effect(other).writes === result)
    ) {
      rest.get(object)?.add(/** @type {number} */ (result))
    }
    const found = assign(
      [...known, happened],
      open.filter((other) => other !== each),
      rest,
      limit,
    )
    if (found.outcome === 'ok') return found
    if (found.outcome === 'undecided' || verdict.outcome === 'rejected') verdict = found
    if (found.outcome === 'undecided') return found
  }
  return verdict
}

/** @param {Operation} operation */
function effect({ kind, value = 0, expected, result }) {
  if (kind === 'write') return { reads: undefined, writes: value }
  if (kind === 'add') return { reads: result, writes: /** @type {number} */ (result) + value }
  return { reads: result, writes: kind === 'cas' && result === expected ? value : undefined }
}

/**
 * @param {readonly Operation[]} history
 * @param {number} limit
 * @returns {Verdict}
 */
function checkKnown(history, limit) {
  /** @type {Map<string, Node[]>} */
  const byThread = new Map()
  for (const operation of [...history].sort((a, b) => a.invokedNs - b.invokedNs)) {
    const own = byThread.get(operation.thread) ?? []
    byThread.set(operation.thread, own)
    const thread = [...byThread.keys()].indexOf(operation.thread)
    const before = new Set(own.slice(-1))
    const node = { operation, thread, index: own.length, source: undefined, before }
    own.push({ ...node, ...effect(operation) })
  }
  const threads = [...byThread.values()]
  const nodes = threads.flat()
  const ambiguous = writtenTwice(nodes)
  if (ambiguous !== undefined) return { outcome: 'undecided', reason: ambiguous }
  /** @type {Map<string, Node>} */
  const writers = new Map()
  /** @type {Map<string, Node>} */
  const successors = new Map()
  for (const node of nodes) {
    if (node.writes === undefined) continue
    const { object } = node.operation
    if (node.reads !== undefined) {
      const other = successors.get(`${object} ${node.reads}`)
      if (other !== undefined) {
        const operations = [other.operation, node.operation]
        const reason = `two read-modify-writes of ${object} replaced the same value ${node.reads}`
        return { outcome: 'rejected', reason, operations }
      }
      successors.set(`${object} ${node.reads}`, node)
    }
    writers.set(`${object} ${node.writes}`, node)
  }
  for (const node of nodes) {
    if (node.reads === undefined || node.reads === 0) continue
    node.source = writers.get(`${node.operation.object} ${node.reads}`)
    if (node.source === undefined) {
      const reason = `${node.operation.object} held ${node.reads}, which nobody wrote`
      return { outcome: 'rejected', reason, operations: [node.operation] }
    }
    node.before.add(node.source)
  }
  const cycle = saturate(threads, nodes)
  if (cycle !== undefined) {
    const operations = cycle.map(({ operation }) => operation)
    return {
      outcome: 'rejected',
      reason: 'each must come before the next, in a circle',
      operations,
    }
  }
  return search(threads, limit)
}

/**
 * Says which value has several writes. A word that only grows holds each value once: there two such
 * writes are no ambiguity but a violation, which two reads of one value tell.
 * @param {Node[]} nodes
 */
function writtenTwice(nodes) {
  const grows = new Map()
  for (const { operation, writes } of nodes) {
    const { object, kind, value = 0 } = operation
    if (writes === undefined) continue
    grows.set(object, (grows.get(object) ?? true) && kind === 'add' && value > 0)
  }
  const seen = new Set()
  for (const { operation, writes } of nodes) {
    if (writes === undefined || grows.get(operation.object)) continue
    const key = `${operation.object} ${writes}`
    if (writes === 0 || seen.has(key)) {
      return `${operation.object}: ${writes} was written twice, so reads have no known source`
    }
    seen.add(key)
  }
  return undefined
}

/**
 * Adds what follows: a write that comes before a read comes before the read's source, and one that
 * comes after the source comes after the read. Gives a cycle if there is one.
 * @param {Node[][]} threads
 * @param {Node[]} nodes
 * @returns {Node[] | undefined}
 */
function saturate(threads, nodes) {
  /** @type {Map<string, Node[][]>} */
  const writes = new Map()
  for (const { operation } of nodes) {
    if (writes.has(operation.object)) continue
    const list = threads.map((own) =>
      own.filter((each) => each.writes !== undefined && each.operation.object === operation.object),
    )
    writes.set(operation.object, list)
  }
  for (;;) {
    const order = topological(nodes)
    if (order === undefined) return shortestCycle(nodes)
    /** @type {Map<Node, Int32Array>} by thread, the last operation that comes before it, or is it */
    const clocks = new Map()
    for (const node of order) {
      const clock = new Int32Array(threads.length).fill(-1)
      for (const each of node.before) {
        const other = /** @type {Int32Array} */ (clocks.get(each))
        for (let t = 0; t < clock.length; t += 1) clock[t] = Math.max(clock[t], other[t])
      }
      clock[node.thread] = node.index
      clocks.set(node, clock)
    }
    /** @type {(a: Node, b: Node) => boolean} */
    const precedes = (a, b) => /** @type {Int32Array} */ (clocks.get(b))[a.thread] >= a.index
    let changed = false
    /** @type {(a: Node, b: Node) => void} */
    const add = (a, b) => {
      if (precedes(a, b) || b.before.has(a)) return
      b.before.add(a)
      changed = true
    }
    for (const read of nodes) {
      if (read.reads === undefined) continue
      const { source } = read
      for (const list of writes.get(read.operation.object) ?? []) {
        const later = list.find(
          (each) =>
            each !== read && each !== source && (source === undefined || precedes(source, each)),
        )
        if (later !== undefined) add(read, later)
        if (source === undefined) continue
        const earlier = list.findLast(
          (each) => each !== read && each !== source && precedes(each, read),
        )
        if (earlier !== undefined) add(earlier, source)
      }
    }
    if (!changed) return undefined
  }
}

/** @param {Node[]} nodes */
function topological(nodes) {
  /** @type {Map<Node, Node[]>} */
  const after = new Map(nodes.map((node) => [node, []]))
  const missing = new Map(nodes.map((node) => [node, node.before.size]))
  for (const node of nodes) for (const each of node.before) after.get(each)?.push(node)
  const order = nodes.filter(({ before }) => before.size === 0)
  for (const node of order) {
    for (const each of after.get(node) ?? []) {
      const left = /** @type {number} */ (missing.get(each)) - 1
      missing.set(each, left)
      if (left === 0) order.push(each)
    }
  }
  return order.length === nodes.length ? order : undefined
}

/**
 * @param {Node[]} nodes
 * @returns {Node[]}
 */
function shortestCycle(nodes) {
  /** @type {Node[]} */
  let best = []
  for (const start of nodes) {
    /** @type {Map<Node, Node>} what each must come before */
    const next = new Map()
    const queue = [start]
    for (const node of queue) {
      if (next.has(start)) break
      for (const each of node.before) {
        if (next.has(each)) continue
        next.set(each, node)
        queue.push(each)
      }
    }
    if (!next.has(start)) continue
    const cycle = [start]
    for (let at = next.get(start); at !== undefined && at !== start; at = next.get(at)) {
      cycle.push(at)
    }
    if (best.length === 0 || cycle.length < best.length) best = cycle
  }
  return best
}

/**
 * @param {Node[][]} threads
 * @param {number} limit
 * @returns {Verdict}
 */
function search(threads, limit) {
  const at = threads.map(() => 0)
  const total = threads.reduce((sum, own) => sum + own.length, 0)
  /** @type {Map<string, number>} */
  const memory = new Map()
  /** @type {Map<string, number>} reads to come, by word and value */
  const readers = new Map()
  /** @type {(node: Node) => string} */
  const seenBy = ({ operation, reads }) => `${operation.object} ${reads}`
  for (const node of threads.flat()) {
    if (node.reads !== undefined) readers.set(seenBy(node), (readers.get(seenBy(node)) ?? 0) + 1)
  }
  const mayGo = (/** @type {Node} */ node) => {
    for (const each of node.before) if (each.index >= at[each.thread]) return false
    const { object } = node.operation
    const now = memory.get(object) ?? 0
    if (node.reads !== undefined && node.reads !== now) return false
    if (node.writes === undefined) return true
    const own = node.reads === undefined ? 0 : 1
    return (readers.get(`${object} ${now}`) ?? 0) === own
  }
  /** @type {{ node: Node, old: number, others: Node[] }[]} */
  const stack = []
  const go = (/** @type {Node} */ node, /** @type {Node[]} */ others) => {
    const { object } = node.operation
    stack.push({ node, old: memory.get(object) ?? 0, others })
    if (node.reads !== undefined) {
      readers.set(seenBy(node), /** @type {number} */ (readers.get(seenBy(node))) - 1)
    }
    if (node.writes !== undefined) memory.set(object, node.writes)
    at[node.thread] += 1
  }
  const undo = () => {
    const last = stack.pop()
    if (last === undefined) return undefined
    const { node, old, others } = last
    at[node.thread] -= 1
    memory.set(node.operation.object, old)
    if (node.reads !== undefined) {
      readers.set(seenBy(node), /** @type {number} */ (readers.get(seenBy(node))) + 1)
    }
    return others
  }
  /** @type {Set<string>} */
  const seen = new Set()
  let steps = 0
  while (stack.length < total) {
    if ((steps += 1) > limit) {
      return { outcome: 'undecided', reason: `found no order within ${limit} steps` }
    }
    const key = `${at.join(' ')}: ${[...memory.entries()].sort().join(' ')}`
    const heads = threads.flatMap((own, t) => own.slice(at[t], at[t] + 1))
    let choices = seen.has(key) ? [] : heads.filter(mayGo)
    seen.add(key)
    // A read that may go now changes nothing, so that it need not be tried later.
    const read = choices.find(({ writes }) => writes === undefined)
    if (read !== undefined) choices = [read]
    // Real time is no rule here, but a good guess.
    choices.sort((a, b) => (a.operation.returnedNs ?? 0) - (b.operation.returnedNs ?? 0))
    /** @type {Node[] | undefined} */
    let others = choices
    while (others !== undefined && others.length === 0) others = undo()
    if (others === undefined) {
      const reason = 'no order of all operations exists (the search tried all)'
      return { outcome: 'rejected', reason, operations: [] }
    }
    go(others[0], others.slice(1))
  }
  return { outcome: 'ok' }
}
