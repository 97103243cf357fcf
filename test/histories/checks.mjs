import { checkLinearizability } from './linearizability.mjs'
import { checkSequentialConsistency } from './sequential.mjs'

/** @typedef {import('./linearizability.mjs').Operation} Operation */

/**
 * Every region must be sequentially consistent, with plain accesses; semaphores and words that are
 * used by atomic operations must be linearizable.
 * @param {readonly Operation[]} history
 * @returns {import('./linearizability.mjs').Verdict & { check: string }}
 */
export function checkHistory(history) {
  const plain = new Set(history.filter((each) => each.plain).map(({ object }) => object))
  const linear = checkLinearizability(history.filter(({ object }) => !plain.has(object)))
  if (linear.outcome !== 'ok') return { ...linear, check: 'linearizability' }
  /** @type {Map<string, Operation[]>} */
  const regions = new Map()
  for (const operation of history) {
    if (operation.kind === 'acquire' || operation.kind === 'release') continue
    const region = operation.object.split('/')[0]
    regions.set(region, [...(regions.get(region) ?? []), operation])
  }
  for (const operations of regions.values()) {
    const found = checkSequentialConsistency(operations)
    if (found.outcome !== 'ok') return { ...found, check: 'sequential consistency' }
  }
  return { outcome: 'ok', check: 'all' }
}

/** @param {Operation} operation */
export function show(operation) {
  const { thread, object, kind, value, expected, result, invokedNs, returnedNs } = operation
  const what = {
    read: () => `read ${result}`,
    write: () => `write ${value}`,
    cas: () => `cas ${expected} -> ${value}, was ${result}`,
    add: () => `add ${value}, was ${result}`,
    acquire: () => 'acquire',
    release: () => 'release',
  }[kind]()
  const end = returnedNs === null ? 'never returned' : `${(returnedNs / 1e3).toFixed(1)} µs`
  return `${thread.padEnd(8)} ${object.padEnd(14)} ${what}  [${(invokedNs / 1e3).toFixed(1)}, ${end}]`
}
