import t from 'tap'
import { decodeHalves, decodeWord, planBatch, unknown } from '../../litmus/lib/batches.mjs'
import { catalogue } from '../../litmus/lib/catalogue.mjs'
import { countOutcomes, mergeObservations } from '../../litmus/lib/count.mjs'
import { formatProgram, formatSummary } from '../../litmus/lib/report.mjs'
import { programOf, variantsOf } from '../../litmus/lib/variants.mjs'

type Variant = ReturnType<typeof variantsOf>[number]
const [sb] = catalogue
const members = (layout: Variant['layout'], access: Variant['access']): Variant => ({
  layout,
  access,
  place: 'members',
})
const atomic = members('multi-page', 'Atomics')
const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values)

t.test('words and halves mean a value of this batch, or nothing', async (t) => {
  t.same(
    [40, 41, 43, 44, 39].map((raw) => decodeWord(raw, 40)),
    [0, 1, 3, 7, 7],
  )
  t.equal(decodeHalves(8 | (9 << 8), 8), 0x10)
  t.equal(decodeHalves(7 | (8 << 8), 8), 0x07, 'a half from an earlier batch')
})

t.test('outcomes are counted by what they are', async (t) => {
  const registers = bytes(0, 1, 1, 0, 0, 1, 0, 0, 1, 7)
  const observed = { registers, finals: bytes() }
  const strong = countOutcomes(sb, atomic, observed, 5)
  t.equal(strong.forbidden, 2)
  t.same(
    strong.outcomes.map(({ values, kind, count }) => [values, kind, count]),
    [
      ['0,0', 'forbidden', 1],
      ['0,1', 'sequential', 2],
      ['1,0', 'sequential', 1],
      ['1,1', 'sequential', 0],
      ['1,?', 'forbidden', 1],
    ],
  )
  const plain = countOutcomes(sb, members('same-page', 'plain'), observed, 5)
  t.equal(plain.forbidden, 1, 'a stale value is forbidden to all')
  t.match(plain.outcomes[0], { values: '0,0', kind: 'weak', count: 1 })
})

t.test('finals count as well', async (t) => {
  const twice = catalogue.find(({ name }) => name === '2+2W')
  if (twice === undefined) return t.fail('2+2W is gone')
  const observed = { registers: bytes(), finals: bytes(1, 1, 2, 2, 0, 2) }
  const { outcomes, forbidden } = countOutcomes(twice, atomic, observed, 3)
  t.equal(forbidden, 2, 'the cycle, and a write that got lost')
  t.match(outcomes[0], { values: '0,2', kind: 'forbidden' })
})

t.test('accesses across a border are whole or torn', async (t) => {
  const registers = bytes(0x11, 0x00, 0x10, 0x11, 0x01, 0x07)
  const straddling = members('straddling', 'plain')
  const { outcomes, forbidden } = countOutcomes(sb, straddling, { registers, finals: bytes() }, 3)
  t.equal(forbidden, 1)
  const seen = outcomes.filter(({ count }) => count > 0)
  t.same(
    seen.map(({ values, kind }) => [values, kind]),
    [
      ['0/1,1', 'torn'],
      ['1,0', 'sequential'],
      ['1/0,?/0', 'forbidden'],
    ],
  )
})

t.test('what members know is put together, and must be all', async (t) => {
  const finals = bytes()
  const first = { registers: bytes(1, unknown), finals }
  const second = { registers: bytes(unknown, 0), finals }
  t.same(mergeObservations([first, second]).registers, bytes(1, 0))
  t.throws(() => mergeObservations([first, first]), /two members/)
  t.throws(() => mergeObservations([first]), /nobody has observed/)
})

t.test('the table and the summary name what was seen', async (t) => {
  const registers = bytes(0, 0, 1, 0)
  const results = [atomic, members('same-page', 'plain')].map((variant) =>
    countOutcomes(sb, variant, { registers, finals: bytes() }, 2),
  )
  const [title, head, strong, plain] = formatProgram(results).split('\n')
  t.match(title, /^SB: x=1; a=y \| y=1; b=x +\(outcomes: a b\)$/)
  t.match(head.trim().split(/\s+/), ['iterations', '00', '01', '10', '11', 'torn'])
  t.match(strong, /^multi-page, Atomics +2 +1! +0 +1 +0 +· +· +1$/)
  t.match(plain, /^same-page, plain +2 +1~ +0 +1 +0 +· +· +0$/)
  const summary = formatSummary(results, { transport: 'tcp', seed: 7, seconds: 2 })
  t.match(summary, /FORBIDDEN:\n {2}SB, multi-page, Atomics: a=0 b=0 \(1\)/)
  t.match(summary, /never seen:\n {2}SB, multi-page, Atomics: a=0 b=1; a=1 b=1/)
  t.match(summary, /plain accesses, seen:\n {2}SB, same-page, plain: a=0 b=0 \(1\)/)
  t.match(summary, /1 tests in 2 variants over tcp, seed 7, 4 iterations .*: 1 forbidden outcomes$/)
})

t.test('plans: the same for the same seed, with every place used once', async (t) => {
  for (const program of catalogue) {
    for (const variant of variantsOf(program)) {
      const run = {
        program: programOf(program, variant),
        variant,
        iterations: 2000,
        seed: 5,
        firstEpoch: 1,
      }
      const mesh = { size: 4, pageBytes: 4096 }
      for (const index of [0, 1]) {
        const batch = planBatch(run, index, mesh)
        t.same(batch, planBatch(run, index, mesh))
        t.equal(new Set(batch.at).size, batch.at.length, 'no place twice')
        const unit = variant.layout === 'straddling' ? 1 : 4
        const end = batch.byteOffset + batch.byteLength
        t.ok(batch.at.every((at) => at * unit >= batch.byteOffset && at * unit < end))
        const pages = Array.from(batch.at, (at) => Math.floor((at * unit) / 4096))
        const { variables } = run.program
        for (let slot = 0; slot < batch.slotCount; slot++) {
          const first = slot * variables.length
          const used = new Set(pages.slice(first, first + variables.length)).size
          if (used !== (variant.layout === 'same-page' ? 1 : variables.length)) {
            t.fail(`${program.name}, ${variant.layout}: ${used} pages`)
          }
        }
        if (variant.layout !== 'straddling') continue
        t.ok(
          batch.at.every((at) => at % 4096 === 4095),
          'one byte on either side',
        )
      }
    }
  }
  const [variant] = variantsOf(sb)
  const run = { program: sb, variant, iterations: 100, seed: 5, firstEpoch: 1 }
  const mesh = { size: 4, pageBytes: 4096 }
  t.notSame(planBatch(run, 0, mesh).at, planBatch({ ...run, seed: 6 }, 0, mesh).at)
})
