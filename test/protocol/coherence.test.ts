import t, { type Test } from 'tap'
import { RegionCoherence } from '../../dist/protocol/coherence.js'
import { Kind } from '../../dist/protocol/messages.js'
import { HomeMap } from '../../dist/protocol/placement.js'
import {
  begins,
  CheckFailed,
  type Choice,
  Cluster,
  type ClusterOptions,
} from './support/cluster.js'
import { refusal } from './support/cells.js'
import { cases } from './support/sabotage.js'
import { simulate } from './support/simulate.js'

/**
 * A failure names its seed. To see every step of it:
 *   PAGEMESH_SEED=123 node scripts/test.mjs test/protocol/coherence.test.ts
 * PAGEMESH_SEEDS=100000 makes as many runs of each kind.
 * Every state of small meshes, and every cell of the tables: test/explore/.
 */
const oneSeed = process.env.PAGEMESH_SEED
const firstSeed = oneSeed === undefined ? 1 : Number(oneSeed)
const seeds = (count: number): number =>
  oneSeed === undefined ? Number(process.env.PAGEMESH_SEEDS ?? count) : 1

interface Failure {
  readonly seed: number
  readonly message: string
}

/** Runs seeds until one fails. */
function run(fixed: Partial<ClusterOptions>, count: number): Failure | { touches: number } {
  let touches = 0
  for (let seed = firstSeed; seed < firstSeed + count; seed++) {
    try {
      touches += simulate(seed, fixed, oneSeed !== undefined).touches
    } catch (error) {
      if (!(error instanceof CheckFailed)) throw error
      return { seed, message: error.message }
    }
  }
  return { touches }
}

function expectNoFailure(t: Test, fixed: Partial<ClusterOptions>, count: number): void {
  const result = run(fixed, count)
  if ('message' in result) t.fail(`PAGEMESH_SEED=${result.seed}: ${result.message}`)
  else t.ok(result.touches > count || oneSeed !== undefined, `${result.touches} touches`)
}

// Scenes without races. `1 writes 0` is a thread of rank 1 that touches page 0; below it, each
// message that arrives, until nothing is under way.

const scenes: readonly [name: string, members: number, scene: string][] = [
  [
    'a read of a page that is clean at its home: two hops',
    2,
    `
1 reads 0
  1→0 ReadRequest (page 0)
  0→1 Data (page 0, contents 0)
1 reads 0
`,
  ],
  [
    'a read of a page that another member wrote: three hops, and the home gets a copy',
    3,
    `
2 writes 0
  2→0 WriteRequest (page 0)
  0→2 DataExclusive (page 0, contents 0)
1 reads 0
  1→0 ReadRequest (page 0)
  0→2 RecallRead (page 0, a 1)
  2→0 WriteBack (page 0, contents 1)
  2→1 Data (page 0, b 1, contents 1)
  1→0 Confirm (page 0)
0 reads 0
`,
  ],
  [
    'a write to a page that another member wrote: it goes from one to the other',
    3,
    `
2 writes 0
  2→0 WriteRequest (page 0)
  0→2 DataExclusive (page 0, contents 0)
1 writes 0
  1→0 WriteRequest (page 0)
  0→2 RecallWrite (page 0, a 1)
  2→1 DataExclusive (page 0, b 1, contents 1)
  1→0 Confirm (page 0)
`,
  ],
  [
    'a write to a page that others read: each of them acknowledges to the writer',
    4,
    `
1 reads 0
  1→0 ReadRequest (page 0)
  0→1 Data (page 0, contents 0)
2 reads 0
  2→0 ReadRequest (page 0)
  0→2 Data (page 0, contents 0)
3 writes 0
  3→0 WriteRequest (page 0)
  0→1 Invalidate (page 0, a 3)
  0→2 Invalidate (page 0, a 3)
  0→3 DataExclusive (page 0, a 6, contents 0)
  1→3 InvalidateAck (page 0)
  2→3 InvalidateAck (page 0)
  3→0 Confirm (page 0)
`,
  ],
  [
    'a reader that writes is granted it without the page',
    3,
    `
1 reads 0
  1→0 ReadRequest (page 0)
  0→1 Data (page 0, contents 0)
1 writes 0
  1→0 UpgradeRequest (page 0)
  0→1 Grant (page 0)
2 reads 0
  2→0 ReadRequest (page 0)
  0→1 RecallRead (page 0, a 2)
  1→0 WriteBack (page 0, contents 1)
  1→2 Data (page 0, b 1, contents 1)
  2→0 Confirm (page 0)
1 writes 0
  1→0 UpgradeRequest (page 0)
  0→1 Grant (page 0, a 4)
  0→2 Invalidate (page 0, a 1)
  2→1 InvalidateAck (page 0)
  1→0 Confirm (page 0)
`,
  ],
  [
    'the home reads and writes its own page',
    3,
    `
0 writes 0
1 writes 0
  1→0 WriteRequest (page 0)
  0→1 DataExclusive (page 0, contents 1)
0 reads 0
  0→1 RecallRead (page 0)
  1→0 Data (page 0, b 1, contents 2)
2 reads 0
  2→0 ReadRequest (page 0)
  0→2 Data (page 0, contents 2)
0 writes 0
  0→1 Invalidate (page 0)
  1→0 InvalidateAck (page 0)
  0→2 Invalidate (page 0)
  2→0 InvalidateAck (page 0)
1 writes 0
  1→0 WriteRequest (page 0)
  0→1 DataExclusive (page 0, contents 3)
0 writes 0
  0→1 RecallWrite (page 0)
  1→0 DataExclusive (page 0, b 1, contents 4)
`,
  ],
  [
    'a copy that is given back need not be invalidated',
    3,
    `
1 reads 0
  1→0 ReadRequest (page 0)
  0→1 Data (page 0, contents 0)
1 discards 0
  1→0 Discard (page 0)
2 writes 0
  2→0 WriteRequest (page 0)
  0→2 DataExclusive (page 0, contents 0)
1 reads 0
  1→0 ReadRequest (page 0)
  0→2 RecallRead (page 0, a 1)
  2→0 WriteBack (page 0, contents 1)
  2→1 Data (page 0, b 1, contents 1)
  1→0 Confirm (page 0)
0 discards 0
0 reads 0
`,
  ],
]

function play(members: number, scene: string): string {
  const cluster = new Cluster({
    members,
    pages: 1,
    placement: { rank: 0 },
    operations: Infinity,
    actions: 'atOnce',
    discards: 'copies',
  })
  const lines = ['']
  for (const command of scene.split('\n').filter((line) => /^\d/.test(line))) {
    lines.push(command)
    cluster.trace = []
    cluster.perform(commandOf(command))
    for (;;) {
      const next = cluster.choices().find((choice) => !begins(choice))
      if (next === undefined) break
      cluster.perform(next)
    }
    cluster.checkRest()
    lines.push(...cluster.trace.filter((line) => /^ +\d/.test(line)).map((line) => line.slice(2)))
  }
  return `${lines.join('\n')}\n`
}

function commandOf(command: string): Choice {
  const [rank, verb, page] = command.split(' ')
  const at = Number(rank)
  if (verb === 'discards') return { do: 'discard', at, page: Number(page) }
  const access = verb === 'writes' ? 'write' : 'read'
  return { do: 'touch', at, thread: 0, page: Number(page), access }
}

t.test('scenes', async (t) => {
  for (const [name, members, scene] of scenes) t.equal(play(members, scene), scene, name)
})

t.test('a message that cannot be names itself, and changes nothing', async (t) => {
  const make = (rank: number): { at: RegionCoherence; states: Uint8Array; sent: number[] } => {
    const sent: number[] = []
    const states = new Uint8Array(4)
    const count = (): void => void sent.push(1)
    const at = new RegionCoherence({
      region: 7,
      rank,
      homes: new HomeMap('cyclic', 4, 3),
      states,
      directory: new Uint32Array(8),
      sink: {
        send: count,
        sendPage: count,
        protect: count,
        open: count,
        wake: count,
        granted: count,
        lost: count,
      },
    })
    return { at, states, sent }
  }
  const bad: readonly [what: string, kind: number, page: number, from: number, a: number][] = [
    ['no such page', Kind.ReadRequest, 4, 2, 0],
    ['a read request for another home', Kind.ReadRequest, 0, 2, 0],
    ['a write request for another home', Kind.WriteRequest, 2, 2, 0],
    ['an upgrade for another home', Kind.UpgradeRequest, 2, 2, 0],
    ['a write-back for another home', Kind.WriteBack, 0, 0, 0],
    ['a confirmation for another home', Kind.Confirm, 0, 0, 0],
    ['a discard for another home', Kind.Discard, 0, 0, 0],
    ['a recall from a member that is not the home', Kind.RecallRead, 0, 2, 2],
    ['a recall of a page to write, from the same', Kind.RecallWrite, 0, 2, 2],
    ['an invalidation from a member that is not the home', Kind.Invalidate, 0, 2, 2],
    ['an invalidation for this very member', Kind.Invalidate, 0, 0, 1],
    ['an invalidation for a member that is not', Kind.Invalidate, 0, 0, 3],
    ['a grant from a member that is not the home', Kind.Grant, 0, 2, 0],
    ['a loss from a member that is not the home', Kind.Lost, 0, 2, 2],
    ['no message about pages', Kind.Heartbeat, 0, 0, 0],
    ['no kind at all', 9999, 0, 0, 0],
    ['a page that nobody asked for', Kind.Data, 0, 0, 0],
    ['a page for writing that nobody asked for', Kind.DataExclusive, 0, 0, 0],
    ['an acknowledgement that nobody waits for', Kind.InvalidateAck, 0, 2, 0],
    ['a recall of a page that is not here', Kind.RecallRead, 0, 0, 2],
    ['a confirmation of nothing', Kind.Confirm, 1, 2, 0],
    ['a write-back of nothing', Kind.WriteBack, 1, 2, 0],
  ]
  for (const [what, kind, page, from, a] of bad) {
    const { at, states, sent } = make(1)
    const before = states.join()
    const refused = refusal(
      () => at.onMessage(kind, page, from, a, 0),
      new RegExp(`page ${page} of region 7`),
      `from rank ${from}`,
    )
    t.equal(refused, 'impossible', what)
    t.equal(states.join(), before, `${what}: states stay`)
    t.strictSame(sent, [], `${what}: nothing is sent`)
  }
})

t.test('a mesh of any shape, with everything that members do', async (t) => {
  expectNoFailure(t, {}, seeds(2500))
})

t.test('many members that contend for one page', async (t) => {
  expectNoFailure(t, { members: 5, pages: 1, threads: 2, operations: 60 }, seeds(700))
})

t.test('the same with the actions of a batch after it, and threads in between', async (t) => {
  const fixed = { actions: 'batched', discards: 'copies', prefetches: true, pins: 4 } as const
  expectNoFailure(t, { ...fixed, members: 3, pages: 1 }, seeds(1000))
})

t.test('members that die', async (t) => {
  expectNoFailure(t, { deaths: 1 }, seeds(3000))
  expectNoFailure(t, { deaths: 3, members: 5 }, seeds(700))
  expectNoFailure(t, { deaths: 1, members: 3, pages: 1, operations: 10 }, seeds(1500))
})

t.test('what is broken is noticed', { skip: oneSeed !== undefined }, async (t) => {
  for (const { name, sabotage, options } of cases) {
    const result = run({ ...options, sabotage }, 400)
    if ('message' in result) t.pass(`${name}: ${result.message.split('\n')[0]}`)
    else t.fail(`${name}: not noticed in 400 runs`)
  }
})
