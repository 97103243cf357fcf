/**
 * The random updates of HPCC's RandomAccess, which are counted in GUPS (P. Koester, R. Lucas, "The
 * RandomAccess Benchmark", in "Introduction to the HPC Challenge Benchmark Suite", 2005): a table of
 * 2^n words of 64 bits, and a stream of 64-bit numbers, each of which is xor-ed into the word that its
 * low bits name. A word is two of 32 bits here, low one first.
 */

/** x^64 = x^2 + x + 1: the stream is made of the powers of x over GF(2). */
const polynomial = 7
const degree = 64n
const lowWord = 0xffffffffn

/** @param {bigint} one @param {bigint} other @returns {bigint} their product modulo the polynomial */
function times(one, other) {
  let product = 0n
  for (let bit = degree - 1n; bit >= 0n; bit--) {
    product <<= 1n
    if (product >> degree !== 0n) product ^= (1n << degree) | BigInt(polynomial)
    if ((other >> bit) & 1n) product ^= one
  }
  return product
}

/**
 * The number at a place of the stream, without those before it.
 * @param {number} place
 * @returns {{ high: number, low: number }}
 */
export function numberAt(place) {
  let power = 1n
  let base = 2n
  for (let left = BigInt(place); left > 0n; left >>= 1n) {
    if (left & 1n) power = times(power, base)
    base = times(base, base)
  }
  return { high: Number(power >> 32n), low: Number(power & lowWord) }
}

/** @param {Uint32Array} table */
export function fillTable(table) {
  for (let i = 0; i < table.length; i += 2) {
    table[i] = i / 2
    table[i + 1] = 0
  }
}

/**
 * Updates by a single process.
 * @param {Uint32Array} table
 * @param {number} start where in the stream
 * @param {number} count
 */
export function update(table, start, count) {
  const mask = table.length / 2 - 1
  let { high, low } = numberAt(start)
  for (let i = 0; i < count; i++) {
    const carry = high >>> 31
    high = (high << 1) | (low >>> 31)
    low = (low << 1) ^ (carry * polynomial)
    const word = 2 * (low & mask)
    table[word] ^= low
    table[word + 1] ^= high
  }
}

/**
 * The same beside others. Atomics, so that a page that goes away between the load and the store
 * takes no update with it; and the first touch asks for the page for writing at once.
 * @param {Uint32Array} table
 * @param {number} start
 * @param {number} count
 */
export function updateTogether(table, start, count) {
  const mask = table.length / 2 - 1
  let { high, low } = numberAt(start)
  for (let i = 0; i < count; i++) {
    const carry = high >>> 31
    high = (high << 1) | (low >>> 31)
    low = (low << 1) ^ (carry * polynomial)
    const word = 2 * (low & mask)
    Atomics.xor(table, word, low)
    Atomics.xor(table, word + 1, high)
  }
}

/**
 * How many words are not as they were filled. Updating with the same part of the stream once more
 * takes the updates back, so that is how a table is verified.
 * @param {Uint32Array} table
 */
export function countWrong(table) {
  let wrong = 0
  for (let i = 0; i < table.length; i += 2) if (table[i] !== i / 2 || table[i + 1] !== 0) wrong++
  return wrong
}
