import t from 'tap'
import type { Command, RegionInfo } from '../../dist/engine/commands.js'
import type { EngineContext } from '../../dist/engine/context.js'
import { RdmaWords } from '../../dist/engine/rdma-words.js'
import { WordRegion } from '../../dist/engine/word-region.js'
import type { WordsKey } from '../../dist/native/addon.js'
import { AtomicOperation } from '../../dist/protocol/messages.js'

const pageBytes = 4096
const info: RegionInfo = {
  id: 5,
  name: 'w',
  byteLength: 4 * pageBytes,
  pageBytes,
  placement: 'cyclic',
  words: 'atomic',
  prefetch: 'off',
  pageCount: 4,
  base: 0n,
}
const keys: WordsKey[] = [
  { rkey: 100, address: 0x1000n },
  { rkey: 101, address: 0x2000_0000_0000n },
  { rkey: 102, address: 2n ** 64n - 4096n },
]

interface Posted {
  readonly to: number
  readonly request: number
  readonly compares: boolean
  readonly rkey: number
  readonly address: bigint
  readonly operand: bigint
  readonly expected: bigint
}

/** Rank 1 of 3, with an addon and a ring that only write down what they are asked. */
function makeEngine(shares: boolean) {
  const calls: string[] = []
  const posted: Posted[] = []
  const answers: [number, unknown][] = []
  const addon = {
    mapWords(_session: number, id: number, bytes: number, count: number, share: boolean) {
      calls.push(`map ${id} ${bytes} ${count} ${share}`)
      return share && shares ? keys[1] : undefined
    },
    unmapRegion: (_session: number, id: number) => calls.push(`unmap ${id}`),
    atomic: (...args: unknown[]) => {
      calls.push(`atomic ${args.slice(1).join(' ')}`)
      return 9n
    },
  }
  const ring = {
    word(...args: [number, number, boolean, number, bigint, bigint, bigint]) {
      const [to, request, compares, rkey, address, operand, expected] = args
      posted.push({ to, request, compares, rkey, address, operand, expected })
    },
  }
  const context = {
    addon,
    ring,
    session: 1,
    rank: 1,
    size: 3,
    answer: (id: number, value: unknown) => answers.push([id, value]),
  } as unknown as EngineContext
  return { context, calls, posted, answers }
}

t.test('keys of everybody: words are changed by RDMA', async (t) => {
  const { context, calls } = makeEngine(true)
  const region = new WordRegion(context, info, true)
  t.same(region.key, keys[1])
  t.equal(region.usesRdma, false, 'not before all have agreed')
  t.equal(region.takesRequest(64), false)
  region.agree(keys)
  t.equal(region.usesRdma, true)
  t.equal(region.takesRequest(64), false, 'the processor changes nothing')
  t.same(calls, ['map 5 4096 1 true'])
  // Pages 0 and 3 are the first and second of rank 0.
  t.same(region.wordAt(0), { home: 0, rkey: 100, address: 0x1000n })
  t.same(region.wordAt(3 * pageBytes + 8), { home: 0, rkey: 100, address: 0x2008n })
  t.same(region.wordAt(pageBytes), { home: 1, rkey: 101, address: 0x2000_0000_0000n })
  t.same(region.wordAt(3 * pageBytes - 8), { home: 2, rkey: 102, address: 2n ** 64n - 8n })
  t.throws(() => region.agree(keys), { code: 'ERR_PAGEMESH_PROTOCOL', message: /before/ })
})

t.test('not of everybody: what was shared is withdrawn', async (t) => {
  const { context, calls } = makeEngine(true)
  const region = new WordRegion(context, info, true)
  region.agree(undefined)
  t.equal(region.usesRdma, false)
  t.same(calls, ['map 5 4096 1 true', 'unmap 5', 'map 5 4096 1 false'])
  t.same([region.takesRequest(64), region.takesRequest(32)], [true, false])
  const word = { page: 1, byteInPage: 16, bits: 64, operation: 2, operand: 3n, expected: 0n }
  let found: bigint | undefined
  region.perform(word, (before) => (found = before))
  t.equal(found, 9n)
  t.equal(calls.at(-1), 'atomic 5 0 16 64 2 3 0', 'the first page that is homed here')
})

t.test('keys that cannot be', async (t) => {
  const own = keys[1]
  const wrong: Record<string, WordsKey[]> = {
    none: [],
    'too few': keys.slice(0, 2),
    'too many': [...keys, keys[0]],
    'another key of this member': [keys[0], { ...own, rkey: 7 }, keys[2]],
    'another address of this member': [keys[0], { ...own, address: 0n }, keys[2]],
  }
  for (const [name, given] of Object.entries(wrong)) {
    const region = new WordRegion(makeEngine(true).context, info, true)
    t.throws(() => region.agree(given), { code: 'ERR_PAGEMESH_PROTOCOL' }, name)
    t.equal(region.usesRdma, false)
  }
  const region = new WordRegion(makeEngine(false).context, info, true)
  t.throws(() => region.agree(keys), { code: 'ERR_PAGEMESH_PROTOCOL' }, 'it has given none')
})

t.test('operations are made of two', async (t) => {
  const { context, posted, answers } = makeEngine(true)
  const region = new WordRegion(context, info, true)
  region.agree(keys)
  const words = new RdmaWords(context)
  const start = (id: number, operation: number, operand: bigint, expected = 0n): Posted => {
    const command = { op: 'atomic', region: 5, byteOffset: 8, bits: 64 } as const
    const whole: Command = { ...command, id, operation, operand, expected }
    words.start(whole, region)
    return posted.at(-1)!
  }
  const { load, store, fetchAdd, compareExchange } = AtomicOperation
  const at = { to: 0, rkey: 100, address: 0x1008n }
  t.match(start(1, load, 99n), { ...at, request: 1, compares: false, operand: 0n })
  t.match(start(2, fetchAdd, 99n), { ...at, request: 2, compares: false, operand: 99n })
  const compare = start(3, compareExchange, 99n, 4n)
  t.match(compare, { ...at, request: 3, compares: true, operand: 99n, expected: 4n })
  t.match(start(4, store, 99n), { request: 4, compares: true, operand: 99n, expected: 0n })

  words.onResult(3, 5n)
  words.onResult(1, 6n)
  words.onResult(2, 7n)
  t.same(answers.splice(0), [
    [3, 5n],
    [1, 6n],
    [2, 7n],
  ])
  // Somebody comes between, twice.
  words.onResult(4, 70n)
  t.match(posted.at(-1), { request: 4, compares: true, operand: 99n, expected: 70n })
  words.onResult(4, 71n)
  t.match(posted.at(-1), { request: 4, compares: true, operand: 99n, expected: 71n })
  t.same(answers, [])
  const count = posted.length
  words.onResult(4, 71n)
  t.same(answers.splice(0), [[4, 71n]])

  // What comes after everything has failed is nobody's.
  start(5, store, 1n)
  words.forgetAll()
  words.onResult(5, 3n)
  words.onResult(1, 3n)
  t.same(answers, [])
  t.equal(posted.length, count + 1)
})
