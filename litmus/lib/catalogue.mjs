/**
 * One access of a litmus program. A write stores `value`, or with `plus` what the register holds
 * plus one; an add is a read and a write in one.
 * @typedef {object} Op
 * @property {'read' | 'write' | 'add'} kind
 * @property {string} variable
 * @property {string} [register] what a read or an add fills
 * @property {number} [value]
 * @property {string} [plus] the register that a write depends on
 * @property {boolean} atomic by `Atomics`, or plain
 */

/**
 * What can be told from a run: the registers, then what variables hold at the end. Only those that
 * are written more than once have an end worth telling.
 * @typedef {object} Program
 * @property {string} name
 * @property {string} text
 * @property {Op[][]} threads
 * @property {string[]} variables
 * @property {string[]} registers
 * @property {string[]} finals
 */

/**
 * The programs by their names in the literature: Alglave, Maranget, Sarkar, Sewell, "Litmus:
 * running tests against hardware" (TACAS 2011); Alglave, Maranget, Tautschnig, "Herding cats"
 * (TOPLAS 2014). Threads are parted by `|`. Letters from the end of the alphabet are memory, 0 at
 * first; `:=` is an access by `Atomics` whatever the others are.
 * @type {[name: string, text: string][]}
 */
const texts = [
  ['SB', 'x=1; a=y | y=1; b=x'],
  ['MP', 'x=1; y=1 | a=y; b=x'],
  ['LB', 'a=x; y=1 | b=y; x=1'],
  ['S', 'x=2; y=1 | a=y; x=1'],
  ['R', 'x=1; y=1 | y=2; a=x'],
  ['2+2W', 'x=1; y=2 | y=1; x=2'],
  ['CoRR', 'x=1 | a=x; b=x'],
  ['CoWW', 'x=1; x=2 | a=x; b=x'],
  ['CoRW', 'a=x; x=1 | x=2'],
  ['CoWR', 'x=1; a=x | x=2'],
  ['IRIW', 'x=1 | y=1 | a=x; b=y | c=y; d=x'],
  ['WRC', 'x=1 | a=x; y=1 | b=y; c=x'],
  ['ISA2', 'x=1; y=1 | a=y; z=1 | b=z; c=x'],
  ['RMW', 'a=x++ | b=x++'],
  ['MP+flag', 'x=1; y:=1 | a:=y; b=x'],
  ['ISA2+flags', 'x=1; y:=1 | a:=y; z:=1 | b:=z; c=x'],
]

const opPattern = /^(?:([a-w])(:?=)([x-z])(\+\+)?|([x-z])(:?=)([1-3]))$/

/**
 * @param {string} text
 * @returns {Op}
 */
function parseOp(text) {
  const found = opPattern.exec(text)
  if (found === null) throw new Error(`'${text}' is no access of a litmus program`)
  const [, register, sign = '', source, plus, target, assign, value] = found
  if (register !== undefined) {
    const kind = plus === undefined ? 'read' : 'add'
    return { kind, variable: source, register, atomic: sign === ':=' }
  }
  return { kind: 'write', variable: target, value: Number(value), atomic: assign === ':=' }
}

/**
 * @param {string} name
 * @param {string} text
 * @returns {Program}
 */
export function parseProgram(name, text) {
  const threads = text.split('|').map((thread) => thread.split(';').map((op) => parseOp(op.trim())))
  const ops = threads.flat()
  const variables = [...new Set(ops.map((op) => op.variable))].sort()
  const registers = ops.flatMap(({ register }) => (register === undefined ? [] : [register])).sort()
  if (new Set(registers).size < registers.length) throw new Error(`${text}: a register twice`)
  /** @param {string} variable */
  const writes = (variable) => ops.filter((op) => op.variable === variable && op.kind !== 'read')
  const finals = variables.filter((variable) => writes(variable).length > 1)
  return { name, text, threads, variables, registers, finals }
}

export const catalogue = texts.map(([name, text]) => parseProgram(name, text))

/** Whether the program says itself which accesses are atomic. @param {Program} program */
export const saysAccess = ({ threads }) => threads.flat().some((op) => op.atomic)

/**
 * The program with all accesses of one kind. A plain add is a read, and a write that depends on it.
 * @param {Program} program
 * @param {'Atomics' | 'plain'} access
 * @returns {Program}
 */
export function withAccess(program, access) {
  const atomic = access === 'Atomics'
  const threads = program.threads.map((ops) =>
    ops.flatMap((op) => (atomic ? [{ ...op, atomic }] : split({ ...op, atomic }))),
  )
  return { ...program, threads }
}

/**
 * @param {Op} op
 * @returns {Op[]}
 */
function split(op) {
  if (op.kind !== 'add') return [op]
  const { variable, register, atomic } = op
  return [
    { kind: 'read', variable, register, atomic },
    { kind: 'write', variable, plus: register, atomic },
  ]
}

/** What the two halves of a thing are called, of which a page border lies between. */
const halves = ['<', '>']

/** @param {string[]} names */
const halved = (names) => names.flatMap((name) => halves.map((half) => name + half))

/**
 * The program whose accesses cross a page border: each is one to the page before it and one to the
 * page after it, and nothing holds these together.
 * @param {Program} program of plain accesses
 * @returns {Program}
 */
export function straddled(program) {
  /** @param {Op} op @param {string} half @returns {Op} */
  const halfOf = (op, half) => ({
    ...op,
    variable: op.variable + half,
    ...(op.register === undefined ? {} : { register: op.register + half }),
  })
  return {
    ...program,
    threads: program.threads.map((ops) =>
      ops.flatMap((op) => halves.map((half) => halfOf(op, half))),
    ),
    variables: halved(program.variables),
    registers: halved(program.registers),
    finals: halved(program.finals),
  }
}
