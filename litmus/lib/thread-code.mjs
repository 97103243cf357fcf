import { BROKEN_MEMORIES } from './broken-memories.mjs'

/** @typedef {import('./catalogue.mjs').Op} Op */
/** @typedef {import('./catalogue.mjs').Program} Program */
/** @typedef {import('./variants.mjs').Variant} Variant */

/**
 * One thread of a program for one iteration. The variables' places follow `base`; registers go to
 * `out`, in the order of the thread's accesses, from index `first` on.
 * @typedef {(memory: any, base: number, at: Int32Array, variables: number, out: Int32Array,
 *   first: number, pauses: Int32Array) => void} ThreadCode
 */

/**
 * A thread as JavaScript of its own, so that a compiler sees the accesses side by side, as it would
 * in a program. `tight` has nothing between them, `loose` has pauses.
 * @param {Program} program
 * @param {number} thread
 * @param {{ layout: Variant['layout'], broken: string | undefined }} memory
 * @returns {{ tight: ThreadCode, loose: ThreadCode, registers: string[] }}
 */
export function compileThread(program, thread, { layout, broken }) {
  const ops = program.threads[thread]
  const access = broken ? brokenAccess : layout === 'straddling' ? straddlingAccess : wordAccess
  const registers = ops.flatMap(({ register }) => (register === undefined ? [] : [register]))
  const places = program.variables.map(
    (name, index) => `const at_${name} = at[variables + ${index}]`,
  )
  const lines = ops.map((op) => statement(op, access))
  const results = registers.map((name, index) => `out[first + ${index}] = ${name}`)
  const pauses = lines.flatMap((line, index) => [`pause(pauses[${index}])`, line])
  /** @param {string[]} body @returns {ThreadCode} */
  const compile = (body) => {
    const parameters = 'memory, base, at, variables, out, first, pauses'
    const code = `return (${parameters}) => {\n${[...places, ...body, ...results].join('\n')}\n}`
    return new Function('pause', code)(pause)
  }
  return { tight: compile(lines), loose: compile(pauses), registers }
}

/**
 * @typedef {object} Access
 * @property {(at: string, atomic: boolean) => string} load
 * @property {(at: string, value: string, atomic: boolean) => string} store
 * @property {(at: string, atomic: boolean) => string} increment
 */

/** @param {Op} op @param {Access} access */
function statement({ kind, variable, register, value, plus, atomic }, access) {
  const at = `at_${variable}`
  if (kind === 'read') return `const ${register} = ${access.load(at, atomic)}`
  if (kind === 'add') return `const ${register} = ${access.increment(at, atomic)}`
  return access.store(at, plus === undefined ? `base + ${value}` : `${plus} + 1`, atomic)
}

/** @type {Access} */
const wordAccess = {
  load: (at, atomic) => (atomic ? `Atomics.load(memory, ${at})` : `memory[${at}]`),
  store: (at, value, atomic) =>
    atomic ? `Atomics.store(memory, ${at}, ${value})` : `memory[${at}] = ${value}`,
  increment: (at) => `Atomics.add(memory, ${at}, 1)`,
}

/** Two equal bytes, one on either side of the border. @type {Access} */
const straddlingAccess = {
  load: (at) => `memory.getUint16(${at}, true)`,
  store: (at, value) => `memory.setUint16(${at}, (${value}) * 257, true)`,
  increment: () => {
    throw new Error('nothing is added across a border')
  },
}

/** @type {Access} */
const brokenAccess = {
  load: (at) => `memory.load(${at})`,
  store: (at, value) => `memory.store(${at}, ${value})`,
  increment: (at) => `memory.increment(${at})`,
}

let spun = 0

/** Some nanoseconds for each of `rounds`. @param {number} rounds */
export function pause(rounds) {
  for (let i = 0; i < rounds; i++) spun = (Math.imul(spun, 1664525) + i) | 0
}

/**
 * What threads access: words, or a DataView for what straddles; a memory that is wrong on purpose
 * stands before the words.
 * @param {SharedArrayBuffer} buffer
 * @param {{ layout: Variant['layout'], broken: string | undefined }} how
 */
export function memoryOf(buffer, { layout, broken }) {
  if (layout === 'straddling') return new DataView(buffer)
  const words = new Int32Array(buffer)
  return broken === undefined ? words : new BROKEN_MEMORIES[broken](words)
}
