// Steps of the protocol alone, to count what one costs in instructions: three members of the real
// `RegionCoherence`, and a queue in the place of engines and transports. callgrind dumps and zeroes
// its counts at each os.getPriority(): the second dump is that of the steps that are printed.
import os from 'node:os'
import { RegionCoherence } from '../../dist/protocol/coherence.js'
import { HomeMap } from '../../dist/protocol/placement.js'

const size = 3
const pageCount = 30
const rounds = 4
const queueLength = 64
const fields = 6 // to, kind, page, from, a, b

const queue = new Int32Array(queueLength * fields)
let head = 0
let tail = 0
let steps = 0

/** @param {number} from */
function sinkOf(from) {
  /** @param {number[]} message */
  const send = (to, kind, _region, page, a, b) => {
    const at = (tail++ % queueLength) * fields
    queue[at] = to
    queue[at + 1] = kind
    queue[at + 2] = page
    queue[at + 3] = from
    queue[at + 4] = a
    queue[at + 5] = b
  }
  const nothing = () => {}
  const lost = () => {
    throw new Error('nobody is down')
  }
  const others = { protect: nothing, open: nothing, wake: nothing, granted: nothing }
  return { send, sendPage: send, ...others, lost }
}

const members = Array.from({ length: size }, (_, rank) => {
  const homes = new HomeMap({ rank: 0 }, pageCount, size)
  const states = new Uint8Array(new SharedArrayBuffer(pageCount))
  const directory = new Uint32Array(new SharedArrayBuffer(8 * pageCount))
  return new RegionCoherence({ region: 0, rank, homes, states, directory, sink: sinkOf(rank) })
})

/** What a thread's touch of a page brings about, until everything is at rest. */
function touch(rank, page, access) {
  members[rank].touch(page, access)
  steps++
  while (head < tail) {
    const at = (head++ % queueLength) * fields
    members[queue[at]].onMessage(
      queue[at + 1],
      queue[at + 2],
      queue[at + 3],
      queue[at + 4],
      queue[at + 5],
    )
    steps++
  }
  if (!members[rank].permits(page, access)) throw new Error(`page ${page} was not granted`)
}

/** The ways in which faults come, all pages homed at rank 0: as in test/fixtures/allocation. */
const touches = [
  [0, 'write'],
  [1, 'read'],
  [2, 'read'],
  [1, 'write'],
  [2, 'read'],
  [0, 'read'],
  [2, 'write'],
  [1, 'write'],
  [0, 'read'],
]

function takeRounds() {
  for (let round = 0; round < rounds; round++) {
    for (const [rank, access] of touches) {
      for (let page = 0; page < pageCount; page++) touch(rank, page, access)
    }
  }
}

takeRounds()
const before = steps
os.getPriority()
takeRounds()
os.getPriority()
console.log(steps - before)
