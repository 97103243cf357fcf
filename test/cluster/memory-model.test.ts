import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { sized } from './support/machine.js'
import { all, eventually, leaveAll, type Member, type Room, startMesh } from './support/members.js'

// What docs/memory-model.md says and no other test shows.

const rounds = sized(40, 20)

t.test('message passing between two regions', async (t) => {
  const members = await startMesh(t, 2)
  const wrong = await all(
    members,
    async (room, rounds) => {
      const { mesh } = room
      const data = await room.open('data', { byteLength: 4096, placement: { rank: 0 } })
      const flags = await room.open('flags', { byteLength: 4096, placement: { rank: 1 } })
      const [values, ready] = [new Float64Array(data.buffer), new Int32Array(flags.buffer)]
      let wrong = 0
      await mesh.barrier()
      for (let round = 1; round <= rounds; round++) {
        const writer = round % 2
        if (mesh.rank === writer) {
          values[0] = round // plain: the flag keeps it before
          Atomics.store(ready, 0, round)
        } else {
          while (Atomics.load(ready, 0) !== round);
          if (values[0] !== round) wrong++
        }
      }
      await mesh.barrier()
      return wrong
    },
    rounds,
  )
  t.same(wrong, [0, 0])
  await leaveAll(t, members)
})

t.test('who is told in another way that a word was written sees it', async (t) => {
  const members = await startMesh(t, 3)
  await all(members, async (room) => {
    await room.open('told', { byteLength: 3 * 4096, placement: 'cyclic' })
  })
  // What tells them is the channel of the test, of which the mesh knows nothing.
  for (let round = 0; round < 20; round++) {
    const write = (room: Room, at: number, value: number): void => {
      new Int32Array(room.regions.told.buffer)[at] = value
    }
    const at = (round % 3) * 1024
    await members[round % 3].run(write, at, round + 1)
    const seen = await all(members, (room, at) => new Int32Array(room.regions.told.buffer)[at], at)
    t.same(seen, [round + 1, round + 1, round + 1])
  }
  await leaveAll(t, members)
})

t.test('words of different homes, operation after operation', async (t) => {
  const members = await startMesh(t, 2)
  for (const words of ['paged', 'atomic'] as const) {
    const seen = await all(
      members,
      async (room, words, rounds) => {
        const { mesh } = room
        const options = { byteLength: 2 * 4096, placement: 'cyclic', words } as const
        const region = await room.open(`words ${words}`, options)
        const [own, other] = [mesh.rank * 4096, (1 - mesh.rank) * 4096]
        const seen: number[] = []
        for (let round = 1; round <= rounds; round++) {
          await mesh.barrier()
          await region.store(own, BigInt(round))
          seen.push(Number(await region.load(other, 'int64')) - round)
        }
        return seen
      },
      words,
      rounds,
    )
    const both = seen[0].filter((behind, round) => behind !== 0 && seen[1][round] !== 0)
    t.same(both, [], `${words}: store buffering never happens`)
    t.ok(seen.flat().every((behind) => behind === 0 || behind === -1))
  }
  await leaveAll(t, members)
})

t.test(
  'doubles: aligned ones are whole, across a page border each byte is from a write',
  async (t) => {
    const members = await startMesh(t, 2)
    const results = await all(
      members,
      async (room, rounds) => {
        const { mesh } = room
        const region = await room.open('doubles', { byteLength: 2 * 4096, placement: 'cyclic' })
        const view = new DataView(region.buffer)
        const [aligned, across] = [4096 - 16, 4096 - 4]
        const patterns = [0, 0x11, 0x22].map((byte) => {
          const bits = new DataView(new ArrayBuffer(8))
          for (let i = 0; i < 8; i++) bits.setUint8(i, byte)
          return bits.getFloat64(0)
        })
        await mesh.barrier()
        if (mesh.rank === 0) {
          for (let round = 0; round < rounds * 10; round++) {
            view.setFloat64(aligned, patterns[round % 3])
            view.setFloat64(across, patterns[round % 3])
          }
          await mesh.barrier()
          return { strange: 0, torn: 0, alignedTorn: 0, looks: 1 }
        }
        const bits = new DataView(new ArrayBuffer(8))
        const count = { strange: 0, torn: 0, alignedTorn: 0, looks: 0 }
        const done = mesh.barrier()
        let over = false
        void done.then(() => (over = true))
        while (!over) {
          for (let look = 0; look < 20; look++, count.looks++) {
            if (!patterns.includes(view.getFloat64(aligned))) count.alignedTorn++
            bits.setFloat64(0, view.getFloat64(across))
            const bytes = Array.from({ length: 8 }, (_, i) => bits.getUint8(i))
            if (bytes.some((byte) => ![0, 0x11, 0x22].includes(byte))) count.strange++
            if (bytes.some((byte) => byte !== bytes[0])) count.torn++
          }
          await room.sleep(0)
        }
        return count
      },
      rounds,
    )
    t.match(results[1], { strange: 0, alignedTorn: 0 })
    t.ok(
      results[1].looks > 0,
      `${results[1].looks} looks, ${results[1].torn} torn across the border`,
    )
    await leaveAll(t, members)
  },
)

/** A worker that says in the first word of its own memory how far it has come. */
const startWorker = async (room: Room, name: string, text: string): Promise<void> => {
  const { Worker } = await import('node:worker_threads')
  const steps = new Int32Array(new SharedArrayBuffer(4))
  room.kept[name] = steps
  new Worker(
    `const { buffer, steps } = require('node:worker_threads').workerData
     const words = new Int32Array(buffer)
     const step = (number) => Atomics.store(steps, 0, number)
     ${text}`,
    { eval: true, workerData: { buffer: room.regions.wait.buffer, steps } },
  ).unref()
}
const stepOf = (room: Room, name: string): number => Atomics.load(room.kept[name] as Int32Array, 0)
const openWait = async (room: Room): Promise<void> => {
  await room.open('wait', { byteLength: 2 * 4096, placement: { rank: 0 } })
}

async function untilStep(member: Member, name: string, step: number): Promise<void> {
  await eventually(`step ${step} of ${name}`, async () =>
    (await member.run(stepOf, name)) === step ? step : undefined,
  )
}

t.test('Atomics.notify wakes threads of its own member only', async (t) => {
  const members = await startMesh(t, 2)
  const [zero, one] = members as [Member, Member]
  await all(members, openWait)
  await one.run(async (room) => {
    // So that the page does not go away while V8 looks at the word.
    room.kept.pin = await room.regions.wait.pin(0, 4096, 'write')
  })
  await one.run(startWorker, 'sleeper', 'step(1); Atomics.wait(words, 0, 0); step(2)')
  await untilStep(one, 'sleeper', 1)
  // Each round tries it: the worker may not be asleep yet.
  t.equal(await zero.run((room) => Atomics.notify(new Int32Array(room.regions.wait.buffer), 0)), 0)
  t.equal(await one.run(stepOf, 'sleeper'), 1)
  const woken = await eventually('a sleeper', async () => {
    const count = await one.run((room) => {
      return Atomics.notify(new Int32Array(room.regions.wait.buffer), 0)
    })
    return count === 0 ? undefined : count
  })
  t.equal(woken, 1)
  await untilStep(one, 'sleeper', 2)
  await one.run((room) => (room.kept.pin as Disposable)[Symbol.dispose]())
  await leaveAll(t, members)
})

t.test('Atomics.wait on a page that is not here keeps others from waiting', async (t) => {
  for (const [touch, blocks] of [
    ['Atomics.load(words, 0)', false],
    ['Atomics.wait(words, 0, 1, 0)', true],
  ] as const) {
    const members = await startMesh(t, 2, { heartbeatTimeoutMs: 3_600_000 })
    const [zero, one] = members as [Member, Member]
    await all(members, openWait)
    await zero.stop() // the page does not come
    await one.run(startWorker, 'fault', `step(1); ${touch}; step(2)`)
    await untilStep(one, 'fault', 1)
    await sleep(200)
    const notifyOther = async (): Promise<string> => {
      await one.run((room) => Atomics.notify(room.kept.fault as Int32Array, 0))
      return 'answered'
    }
    if (blocks) {
      // The first may come before the fault has begun.
      await eventually('a notify of other memory that waits', async () => {
        const answer = notifyOther().catch(() => 'ended')
        const outcome = await Promise.race([answer, sleep(300, 'waits')])
        return outcome === 'waits' ? true : undefined
      })
      t.pass(`${touch}: Atomics.notify of other memory waits`)
    } else {
      t.equal(await notifyOther(), 'answered')
      t.equal(await one.run(stepOf, 'fault'), 1, 'and the page has not come')
    }
    // It may stand still for ever: so both are killed.
    for (const member of members) member.signal('SIGKILL')
    for (const member of members) t.equal(await member.end(), 'SIGKILL')
  }
})
