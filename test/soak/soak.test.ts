import { spawnSync } from 'node:child_process'
import t from 'tap'
import { growths, sampleProcess } from './flatness.mjs'

interface Sample {
  residentBytes: number
  descriptors: number
  mappings: number
  threads: number
}

const flat: Sample = { residentBytes: 60e6, descriptors: 20, mappings: 140, threads: 11 }
const samplesOf = (at: (index: number) => Partial<Sample>): Sample[] =>
  Array.from({ length: 30 }, (_, index) => ({ ...flat, ...at(index) }))
const namesOf = (samples: Sample[]): string[] => growths(samples).map(({ name }) => name)

t.test('what is flat', async (t) => {
  t.same(namesOf(samplesOf(() => ({}))), [])
  const waves = (i: number): Partial<Sample> => ({ residentBytes: 60e6 + (i % 5) * 3e6 })
  t.same(namesOf(samplesOf(waves)), [], 'as garbage collection makes it')
  t.same(namesOf(samplesOf((i) => ({ mappings: 200 - i }))), [], 'getting smaller')
})

t.test('what is not', async (t) => {
  t.same(namesOf(samplesOf((i) => ({ residentBytes: 60e6 + i * 1e6 }))), ['residentBytes'])
  t.same(namesOf(samplesOf((i) => ({ descriptors: 20 + Math.floor(i / 5) }))), ['descriptors'])
  t.same(namesOf(samplesOf((i) => ({ mappings: 140 + i * 2 }))), ['mappings'])
  t.same(namesOf(samplesOf((i) => ({ threads: i < 15 ? 11 : 13 }))), ['threads'])
  t.throws(() => growths(samplesOf(() => ({})).slice(0, 8)), /8 samples are too few/)
  t.throws(() => growths(samplesOf(() => ({ threads: NaN }))), /no threads/)
})

t.test('a process is sampled', async (t) => {
  const sample = sampleProcess(process.pid)
  t.ok(sample.residentBytes > 2 ** 20)
  t.ok(sample.descriptors > 2)
  t.ok(sample.mappings > 10)
  t.ok(sample.threads > 1)
})

t.test('a soak of members that leak fails', async (t) => {
  const args = ['NODE_OPTIONS=', 'PAGEMESH_SOAK_LEAK=1', process.execPath, 'test/soak/main.mjs']
  const { status, stdout, stderr } = spawnSync('env', [...args, '--minutes', '0.01'], {
    encoding: 'utf8',
    timeout: 120_000,
  })
  t.equal(status, 1, stderr)
  t.match(stdout, /residentBytes has grown/)
  t.match(stdout, /^ok {3}sums in \d+ meshes, with \d+ kills$/m)
  t.match(stdout, /^1 passed, 3 failed$/m)
})
