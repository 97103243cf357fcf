import t from 'tap'
import { LocalMessages } from '../../dist/protocol/local-messages.js'
import { PageFifo, PageQueues } from '../../dist/protocol/page-queues.js'
import { PageWords } from '../../dist/protocol/page-words.js'
import { Random } from './support/random.js'

// What the protocol keeps for single pages, against the collections of JavaScript.

t.test('words: as a Map has them, through collisions, growth and deletion', async (t) => {
  for (let seed = 1; seed <= 20; seed++) {
    const random = new Random(seed)
    const words = new PageWords()
    const model = new Map<number, number>()
    // Few pages at times, so that places are used again; neighbours and far ones.
    const pages = Array.from({ length: 8 * seed }, (_, index) =>
      index % 2 === 0 ? index : random.below(2 ** 31 - 1),
    )
    for (let step = 0; step < 2000; step++) {
      const page = random.pick(pages)
      const word = random.chance(0.4) ? 0 : random.below(2 ** 32) | 0 || 1
      if (random.chance(0.2)) {
        words.delete(page)
        model.delete(page)
      } else {
        words.set(page, word)
        if (word === 0) model.delete(page)
        else model.set(page, word)
      }
      const differs = pages.find((each) => words.get(each) !== (model.get(each) ?? 0))
      if (differs !== undefined || words.size !== model.size) {
        return t.fail(`seed ${seed}, step ${step}: page ${differs}, ${words.size} words`)
      }
    }
    t.same(words.keys().sort(), [...model.keys()].sort(), `seed ${seed}`)
    t.equal(words.has(pages[0]), model.has(pages[0]))
    words.clear()
    t.same([words.size, words.keys()], [0, []])
  }
})

t.test('queues: as arrays have them', async (t) => {
  const random = new Random(3)
  const queues = new PageQueues()
  const model = new Map<number, number[]>()
  for (let step = 0; step < 5000; step++) {
    const page = random.below(12)
    const queue = model.get(page) ?? []
    if (random.chance(0.55)) {
      queues.push(page, step)
      model.set(page, [...queue, step])
    } else if (queue.length > 0) {
      if (queues.first(page) !== queue[0]) return t.fail(`step ${step}: the first of page ${page}`)
      queues.shift(page)
      model.set(page, queue.slice(1))
    }
    if (queues.has(page) !== (model.get(page) ?? []).length > 0) return t.fail(`step ${step}`)
  }
  for (const [page, queue] of model) t.same(queues.of(page), queue, `page ${page}`)
  const filled = [...model].filter(([, queue]) => queue.length > 0).map(([page]) => page)
  t.same(queues.pages().sort(), filled.sort())
  t.equal(queues.size, filled.length)
  queues.replace(filled[0], [7, 8])
  t.same(queues.of(filled[0]), [7, 8])
  queues.clear()
  t.same([queues.size, queues.of(filled[0])], [0, []])
})

t.test('pages in a row: each once, in the order in which they came', async (t) => {
  const fifo = new PageFifo()
  for (const page of [5, 3, 5, 9, 3]) fifo.add(page)
  t.same([fifo.size, fifo.toArray(), fifo.first()], [3, [5, 3, 9], 5])
  fifo.removeFirst()
  fifo.add(5)
  t.same(fifo.toArray(), [3, 9, 5], 'one that was removed comes last')
  fifo.clear()
  t.same([fifo.size, fifo.toArray()], [0, []])
})

t.test(
  'messages to oneself: read while others are written, more than there was room for',
  async (t) => {
    const messages = new LocalMessages()
    for (let round = 0; round < 2; round++) {
      for (let at = 0; at === 0 || (at < messages.length && at < 200); at++) {
        if (at === 0) messages.push(0, 1, 2, 3, 4)
        const fields = [messages.kind(at), messages.page(at), messages.from(at)]
        const all = [...fields, messages.a(at), messages.b(at)]
        if (all.some((field, index) => field !== at + index)) return t.fail(`${at}: ${all.join()}`)
        messages.push(at + 1, at + 2, at + 3, at + 4, at + 5)
      }
      t.equal(messages.length, 201)
      messages.forget()
      t.equal(messages.length, 0)
    }
    messages.push(1, 2, 3, 0x80000000 | 0, 5)
    t.equal(messages.a(0), -(2 ** 31), 'bitmaps keep their sign')
  },
)
