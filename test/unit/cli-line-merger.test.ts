import t from 'tap'
import { LineMerger } from '../../dist/cli/line-merger.js'

const prefixes = ['[0] ', '[1] ']

function text(...pieces: Buffer[]): string {
  return Buffer.concat(pieces).toString('latin1')
}

t.test('whole lines pass with their prefix', async (t) => {
  const merger = new LineMerger(prefixes)
  t.equal(text(merger.push(0, Buffer.from('a\nb\n\n'))), '[0] a\n[0] b\n[0] \n')
  t.equal(text(merger.push(1, Buffer.from('c\n'))), '[1] c\n')
  t.equal(text(merger.end(0), merger.end(1)), '')
})

t.test('an unfinished line waits for its end', async (t) => {
  const merger = new LineMerger(prefixes)
  t.equal(text(merger.push(0, Buffer.from('a\nhal'))), '[0] a\n')
  t.equal(text(merger.push(1, Buffer.from('other\n'))), '[1] other\n')
  t.equal(text(merger.push(0, Buffer.from('f'))), '')
  t.equal(text(merger.push(0, Buffer.from(' b\nrest'))), '[0] half b\n')
  t.equal(text(merger.end(0)), '[0] rest\n')
})

t.test('bytes that are no text survive', async (t) => {
  const merger = new LineMerger(prefixes)
  const bytes = Buffer.from([0xff, 0x00, 0xc3, 0x0d, 0x0a, 0xe2])
  t.same(
    Buffer.concat([merger.push(1, bytes), merger.end(1)]),
    Buffer.from('[1] \xff\x00\xc3\r\n[1] \xe2\n', 'latin1'),
  )
})

t.test('what is held does not change when the chunk is used again', async (t) => {
  const merger = new LineMerger(prefixes)
  const chunk = Buffer.from('abc')
  merger.push(0, chunk)
  chunk.fill('x')
  t.equal(text(merger.end(0)), '[0] abc\n')
})

t.test('many small pieces make one line', async (t) => {
  const merger = new LineMerger(prefixes)
  for (let index = 0; index < 10_000; index += 1) merger.push(0, Buffer.from('ab'))
  t.equal(text(merger.push(0, Buffer.from('\n'))), `[0] ${'ab'.repeat(10_000)}\n`)
})

t.test('a very long line passes in pieces, as one line', async (t) => {
  const merger = new LineMerger(prefixes)
  const piece = Buffer.alloc(300_000, 'x')
  const first = merger.push(0, piece)
  t.equal(first.length, piece.length + 4, 'passed on at once')
  const second = merger.push(0, piece)
  const rest = merger.push(0, Buffer.from('y\nz\n'))
  t.equal(text(first, second, rest), `[0] ${'x'.repeat(600_000)}y\n[0] z\n`)
})

t.test('another source interrupts a very long line by starting a new one', async (t) => {
  const merger = new LineMerger(prefixes)
  const long = 'x'.repeat(300_000)
  const output = [
    merger.push(0, Buffer.from(long)),
    merger.push(1, Buffer.from('b\n')),
    merger.push(0, Buffer.from('y')),
    merger.end(0),
  ]
  t.equal(text(...output), `[0] ${long}\n[1] b\n[0] y\n`)
})

t.test('the end of a very long line gets its newline', async (t) => {
  const merger = new LineMerger(prefixes)
  const long = 'x'.repeat(300_000)
  t.equal(text(merger.push(0, Buffer.from(long)), merger.end(0)), `[0] ${long}\n`)
})

t.test('without prefixes a source that is alone is not changed', async (t) => {
  const merger = new LineMerger(['', ''])
  const output = [merger.push(0, Buffer.from('a\nb')), merger.end(0), merger.end(1)]
  t.equal(text(...output), 'a\nb')
})

t.test('without prefixes lines of different sources stay apart', async (t) => {
  const merger = new LineMerger(['', ''])
  const output = [
    merger.push(0, Buffer.from('a')),
    merger.end(0),
    merger.push(1, Buffer.from('b\n')),
  ]
  t.equal(text(...output), 'a\nb\n')
})

t.test("the launcher's own lines stand alone", async (t) => {
  const merger = new LineMerger(['', ''])
  t.equal(text(merger.announce('one')), 'one\n')
  t.equal(text(merger.push(0, Buffer.from('a')), merger.end(0), merger.announce('two')), 'a\ntwo\n')
})

t.test('a source that does not exist is refused', async (t) => {
  t.throws(() => new LineMerger(prefixes).push(2, Buffer.from('a')), RangeError)
})
