import t from 'tap'
import { EndMarkStream } from '../../dist/cli/softroce/end-mark.js'

const mark = 'abab!'

async function pass(chunks: string[]): Promise<{ text: string; isComplete: boolean }> {
  const stream = new EndMarkStream(mark)
  let text = ''
  stream.on('data', (chunk: Buffer) => (text += chunk.toString()))
  const ended = new Promise((resolve) => stream.once('end', resolve))
  for (const chunk of chunks) stream.write(chunk)
  if (!stream.isComplete) stream.end()
  await ended
  return { text, isComplete: stream.isComplete }
}

t.test('however the stream is cut, the mark alone is taken out', async (t) => {
  const text = `ab\nabababab!`
  for (let first = 0; first <= text.length; first += 1) {
    for (let second = first; second <= text.length; second += 1) {
      const chunks = [text.slice(0, first), text.slice(first, second), text.slice(second)]
      const passed = await pass(chunks.filter((chunk) => chunk !== ''))
      t.same(passed, { text: 'ab\nabab', isComplete: true }, `cut at ${first} and ${second}`)
    }
  }
})

t.test('without the mark all is passed on, and it is known that it did not come', async (t) => {
  t.same(await pass(['some', 'thing ab', 'ab']), { text: 'something abab', isComplete: false })
  t.same(await pass([]), { text: '', isComplete: false })
})
