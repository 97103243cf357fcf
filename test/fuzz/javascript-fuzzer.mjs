// A coverage-guided fuzzer for decoders in JavaScript, after M. Zalewski's AFL: inputs that reach
// new combinations of blocks in a function are kept and changed further. V8's precise coverage tells
// which blocks ran.
import { Session } from 'node:inspector'
import { randomFrom } from '../support/xorshift.mjs'

class Coverage {
  #session = new Session()
  #seen = new Set()
  #ours = new Map()

  constructor() {
    this.#session.connect()
    this.#post('Profiler.enable')
    this.#post('Profiler.startPreciseCoverage', { callCount: true, detailed: true })
  }

  #post(method, parameters) {
    let result
    this.#session.post(method, parameters, (error, value) => {
      if (error) throw new Error(`${method}: ${error.message}`)
      result = value
    })
    return result
  }

  /**
   * In how many functions the blocks that ran since the last call are a combination that is new.
   * V8 reports a block only where its count is not its parent's, so blocks cannot be counted alone.
   */
  countNew(isOurs) {
    let fresh = 0
    for (const { scriptId, url, functions } of this.#post('Profiler.takePreciseCoverage').result) {
      if (!this.#ours.has(scriptId)) this.#ours.set(scriptId, isOurs(url))
      if (!this.#ours.get(scriptId)) continue
      for (const { ranges } of functions) {
        if (ranges[0].count === 0) continue
        const ran = ranges.map(
          ({ startOffset, endOffset, count }) =>
            `${startOffset}-${endOffset}${count > 0 ? '+' : '-'}`,
        )
        const key = `${scriptId} ${ran.join()}`
        if (this.#seen.has(key)) continue
        this.#seen.add(key)
        fresh++
      }
    }
    return fresh
  }

  get size() {
    return this.#seen.size
  }
}

const interesting = [0, 1, 0x20, 0x22, 0x2c, 0x30, 0x39, 0x5b, 0x7b, 0x7d, 0x7f, 0x80, 0xff]

function mutate(input, corpus, words, random) {
  let bytes = Buffer.from(input)
  for (let i = 1 + random(4); i > 0; i--) {
    const at = random(bytes.length + 1)
    switch (random(7)) {
      case 0:
        if (bytes.length > 0) bytes[at % bytes.length] ^= 1 << random(8)
        break
      case 1:
        if (bytes.length > 0) bytes[at % bytes.length] = random(256)
        break
      case 2:
        if (bytes.length > 0) bytes[at % bytes.length] = interesting[random(interesting.length)]
        break
      case 3:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1 + random(8))])
        break
      case 4: {
        const word = Buffer.from(words[random(words.length)] ?? 'x', 'latin1')
        bytes = Buffer.concat([
          bytes.subarray(0, at),
          word,
          bytes.subarray(at + random(2) * word.length),
        ])
        break
      }
      case 5: {
        const other = corpus[random(corpus.length)]
        bytes = Buffer.concat([bytes.subarray(0, at), other.subarray(random(other.length + 1))])
        break
      }
      default: {
        const from = random(bytes.length + 1)
        const again = bytes.subarray(from, from + random(16))
        bytes = Buffer.concat([bytes.subarray(0, at), again, bytes.subarray(at)])
      }
    }
  }
  return bytes.subarray(0, 4096)
}

/**
 * Runs `decode` on changed inputs for this long. It returns, or throws what `isExpected` allows;
 * anything else is found, and so is an input that takes longer than a second.
 */
export function fuzz({ decode, isExpected, isOurs, seeds, words }, { seconds, seed }) {
  const random = randomFrom(seed)
  const corpus = seeds.length > 0 ? seeds.map((bytes) => Buffer.from(bytes)) : [Buffer.alloc(0)]
  const coverage = new Coverage()
  const untilMs = performance.now() + seconds * 1000
  let runs = 0
  const initial = corpus.length
  while (performance.now() < untilMs) {
    const input =
      runs < initial ? corpus[runs] : mutate(corpus[random(corpus.length)], corpus, words, random)
    runs++
    const startMs = performance.now()
    try {
      decode(Buffer.from(input))
    } catch (error) {
      if (!isExpected(error)) return { runs, paths: coverage.size, found: { input, error } }
    }
    const tookMs = performance.now() - startMs
    if (tookMs > 1000) {
      const error = new Error(`takes ${Math.round(tookMs)} ms`)
      return { runs, paths: coverage.size, found: { input, error } }
    }
    if (coverage.countNew(isOurs) > 0 && runs > initial) corpus.push(input)
  }
  return { runs, paths: coverage.size, kept: corpus.length - initial }
}
