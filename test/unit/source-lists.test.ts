import * as fs from 'node:fs'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const root = fileURLToPath(new URL('../..', import.meta.url))
const v8Source = 'native/binding/v8_shared_buffer/v8_shared_buffer.cc'

function textOf(file: string): string {
  return fs.readFileSync(`${root}${file}`, 'utf8')
}

const listed = [...textOf('native/sources.gypi').matchAll(/'([^']+\.cc)'/g)].map(([, name]) => name)
const present = fs
  .readdirSync(`${root}native`, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.cc'))
  .map((name) => `native/${name}`)
  .filter((file) => file !== v8Source)
  .sort()

t.test('sources.gypi lists every source of the addon once, and nothing else', async (t) => {
  t.strictSame([...listed].sort(), present)
})

t.test('sources.gypi has one source per line, as CMakeLists.txt reads it', async (t) => {
  const lines = textOf('native/sources.gypi').split('\n')
  const read = lines.flatMap((line) => /^ *'([^']+\.cc)'/.exec(line)?.[1] ?? [])
  t.strictSame(read, listed)
})

t.test('both builds take the list, and the small V8 addon by itself', async (t) => {
  for (const file of ['binding.gyp', 'CMakeLists.txt']) {
    const text = textOf(file)
    t.match(text, /native\/sources\.gypi/, file)
    t.strictSame(text.match(/native\/[\w/]+\.cc/g), [v8Source], `${file} names no other source`)
  }
  t.ok(fs.existsSync(`${root}${v8Source}`))
})
