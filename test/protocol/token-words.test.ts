import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import t from 'tap'
import { TokenWords, WORDS_PER_TOKEN } from '../../dist/protocol/token-words.js'

const make = (): TokenWords => new TokenWords(new Int32Array(2 * WORDS_PER_TOKEN))

t.test('a token stays until it is wanted', async (t) => {
  const words = make()
  t.notOk(words.take(1), 'not here')
  t.equal(words.granted(1, true), 'came')
  t.notOk(words.take(1), 'in use')
  t.ok(words.letGo(1))
  t.ok(words.take(1))
  t.ok(words.letGo(1))
  t.equal(words.want(1), 'free')
  t.notOk(words.take(1))
  t.ok(words.isAway(1))
  t.equal(words.words[0], 0, 'another lock')
})

t.test('a token in use goes when it is let go, if it is wanted', async (t) => {
  const words = make()
  words.granted(0, true)
  t.equal(words.want(0), 'used')
  t.equal(words.want(0), 'used')
  t.notOk(words.take(0), 'not reentrant')
  t.notOk(words.letGo(0))
  t.ok(words.isAway(0))
  t.equal(words.want(0), 'away', 'it is on its way')
  t.ok(words.isAway(0))
  words.granted(0, false)
  t.notOk(words.letGo(0), 'others were waiting when it came')
})

t.test('the program can give a token up', async (t) => {
  const words = make()
  words.granted(0, true)
  t.notOk(words.clear(0), 'in use')
  t.ok(words.letGo(0))
  t.ok(words.clear(0))
  t.notOk(words.clear(0), 'once')
  words.granted(0, true)
  t.notOk(words.letGo(0, false))
  t.ok(words.isAway(0))
})

const next = { rank: 0, request: 0xffffffff, ticket: 0x80000001 }

t.test('a token that is wanted tells who is next', async (t) => {
  const words = make()
  words.granted(0, true)
  t.equal(words.nextOf(0), undefined)
  t.equal(words.want(0, next), 'used')
  t.equal(words.want(0, { ...next, rank: 7 }), 'used')
  t.notOk(words.letGo(0))
  t.strictSame(words.nextOf(0), next, 'whoever was said first')
  words.granted(1, false, { ...next, rank: 3 })
  t.strictSame(words.nextOf(1), { ...next, rank: 3 })
  t.strictSame(words.nextOf(0), next)
  words.granted(0, true)
  t.equal(words.nextOf(0), undefined, 'of a token that is gone')
})

t.test('a token that comes before its grant goes only after it', async (t) => {
  const words = make()
  t.ok(words.cameEarly(0))
  t.notOk(words.cameEarly(0), 'once')
  t.notOk(words.take(0), 'in use')
  t.ok(words.letGo(0), 'nobody is told')
  t.notOk(words.take(0), 'others may have come first')
  t.notOk(words.clear(0))
  t.equal(words.granted(0, false, next), 'free')
  t.ok(words.isAway(0))
  t.strictSame(words.nextOf(0), next)

  words.cameEarly(0)
  t.equal(words.granted(0, false, next), 'confirmed', 'in use')
  t.notOk(words.letGo(0))

  words.cameEarly(0)
  t.ok(words.letGo(0))
  t.equal(words.granted(0, true), 'confirmed')
  t.ok(words.take(0), 'it stays')
  t.ok(words.letGo(0))
  t.ok(words.clear(0))

  words.cameEarly(0)
  t.ok(words.letGo(0, false), 'for good')
  t.equal(words.granted(0, true), 'free')

  words.granted(0, true)
  t.notOk(words.cameEarly(0), 'the grant was quicker')
})

// One thread takes the token and lets it go; another one wants it. Whoever gets it changes a counter
// by a plain read and write.
const RIVAL = `
const { workerData: { words, counter, url, times } } = require('node:worker_threads')
import(url).then(({ TokenWords }) => {
  const tokens = new TokenWords(words)
  for (let i = 0; i < times; i++) {
    for (;;) {
      const found = tokens.want(0)
      if (found === 'free') break
      // It is let go for good: then it is this thread's, as soon as the other says so.
      if (found === 'used' || Atomics.load(words, 4) === 0) continue
      Atomics.store(words, 4, 0)
      break
    }
    counter[0] = counter[0] + 1
    tokens.granted(0, true)
    tokens.letGo(0)
  }
})
`

t.test('two threads never have it both', async (t) => {
  const times = 20_000
  const words = new Int32Array(new SharedArrayBuffer(4 * (WORDS_PER_TOKEN + 1)))
  const counter = new Int32Array(new SharedArrayBuffer(4))
  const tokens = new TokenWords(words)
  tokens.granted(0, true)
  tokens.letGo(0)
  const url = new URL('../../dist/protocol/token-words.js', import.meta.url).href
  const workerData = { words, counter, url, times }
  const rival = new Worker(RIVAL, { eval: true, workerData })
  let running = true
  const ended = once(rival, 'exit').then(() => (running = false))
  let taken = 0
  while (running) {
    for (let i = 0; i < 1000; i++) {
      if (!tokens.take(0)) continue
      counter[0] = counter[0] + 1
      taken++
      if (!tokens.letGo(0)) Atomics.store(words, 4, 1) // what the engine would be told
    }
    await new Promise((resolve) => setImmediate(resolve))
  }
  await ended
  t.equal(counter[0], times + taken)
  t.ok(taken > 0)
})
