import t from 'tap'

interface Statistics {
  median: (samples: ArrayLike<number>) => number
  percentile: (samples: ArrayLike<number>, percent: number) => number
  spreadOfMedians: (rounds: ArrayLike<number>[]) => [number, number]
  pool: (rounds: ArrayLike<number>[]) => Float64Array
}

// The benches are plain JavaScript, which this project's type check of the tests does not read.
const url = new URL('../../bench/lib/statistics.mjs', import.meta.url).href
const { median, percentile, pool, spreadOfMedians } = (await import(url)) as Statistics

t.test('the median is the middle sample, or the mean of the two in the middle', (t) => {
  t.equal(median([5]), 5)
  t.equal(median([9, 1, 5]), 5)
  t.equal(median([10, 9, 1, 2]), 5.5)
  t.equal(median(Float64Array.of(100, 20, 3)), 20, 'by value, not by spelling')
  t.throws(() => median([]), { name: 'RangeError', message: 'no samples' })
  t.end()
})

t.test('samples are left as they are', (t) => {
  const samples = [3, 1, 2]
  median(samples)
  percentile(samples, 99)
  t.same(samples, [3, 1, 2])
  t.end()
})

t.test('percentiles go by nearest rank', (t) => {
  const samples = Array.from({ length: 200 }, (_, index) => 200 - index)
  t.equal(percentile(samples, 99), 198)
  t.equal(percentile(samples, 50), 100)
  t.equal(percentile(samples, 100), 200)
  t.equal(percentile([7], 1), 7)
  t.equal(percentile([1, 2, 3], 99), 3)
  for (const percent of [0, -1, 101, NaN]) {
    t.throws(() => percentile(samples, percent), { name: 'RangeError' }, `${percent}`)
  }
  t.end()
})

t.test('the spread is the lowest and the highest median of the rounds', (t) => {
  t.same(spreadOfMedians([[1, 2, 30], [4], [3, 5]]), [2, 4])
  t.same(spreadOfMedians([[6]]), [6, 6])
  t.end()
})

t.test('pooling keeps every sample of every round', (t) => {
  t.same([...pool([[1, 2], Float64Array.of(3), []])], [1, 2, 3])
  t.end()
})
