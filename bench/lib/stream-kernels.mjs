/**
 * The four loops of STREAM (J. McCalpin, "Memory Bandwidth and Machine Balance in Current High
 * Performance Computers", 1995), in the order in which they run. `bytes` are moved per element, as
 * STREAM counts them.
 * @type {{ name: string, bytes: number, run: (arrays: Arrays) => void }[]}
 */
export const kernels = [
  { name: 'copy', bytes: 16, run: ({ a, c }) => copy(a, c) },
  { name: 'scale', bytes: 16, run: ({ b, c }) => scale(c, b) },
  { name: 'add', bytes: 24, run: ({ a, b, c }) => add(a, b, c) },
  { name: 'triad', bytes: 24, run: ({ a, b, c }) => triad(b, c, a) },
]

/** @typedef {{ a: Float64Array, b: Float64Array, c: Float64Array }} Arrays */

/** With this one a pass over all four leaves a as large as it was, however many there are. */
const scalar = Math.SQRT2 - 1

/** @param {Arrays} arrays */
export function fillArrays({ a, b, c }) {
  a.fill(1)
  b.fill(2)
  c.fill(0)
}

/**
 * @param {Float64Array} from
 * @param {Float64Array} to
 */
function copy(from, to) {
  for (let i = 0; i < to.length; i++) to[i] = from[i]
}

/**
 * @param {Float64Array} from
 * @param {Float64Array} to
 */
function scale(from, to) {
  for (let i = 0; i < to.length; i++) to[i] = scalar * from[i]
}

/**
 * @param {Float64Array} one
 * @param {Float64Array} other
 * @param {Float64Array} to
 */
function add(one, other, to) {
  for (let i = 0; i < to.length; i++) to[i] = one[i] + other[i]
}

/**
 * @param {Float64Array} one
 * @param {Float64Array} other
 * @param {Float64Array} to
 */
function triad(one, other, to) {
  for (let i = 0; i < to.length; i++) to[i] = one[i] + scalar * other[i]
}

/**
 * Throws unless every element is what single numbers come to: here the same bits, since each element
 * goes through the same operations.
 * @param {Arrays} arrays
 * @param {number} passes over all four loops
 */
export function checkArrays({ a, b, c }, passes) {
  const single = { a: new Float64Array(1), b: new Float64Array(1), c: new Float64Array(1) }
  fillArrays(single)
  for (let pass = 0; pass < passes; pass++) for (const { run } of kernels) run(single)
  for (const [name, array] of Object.entries({ a, b, c })) {
    const expected = single[/** @type {'a' | 'b' | 'c'} */ (name)][0]
    const index = array.findIndex((value) => value !== expected)
    if (index >= 0) {
      throw new Error(`STREAM: ${name}[${index}] is ${array[index]}, and should be ${expected}`)
    }
  }
}
