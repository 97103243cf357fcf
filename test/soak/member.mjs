// One long-lived process that is in one mesh after the other: told by its parent when to join, what
// to do there, and whether somebody is going to be killed. Says what it has counted.
import { join } from 'pagemesh'
import { randomFrom } from '../support/xorshift.mjs'

const pageBytes = 4096
/** Wrong on purpose, for the test of the soak itself. */
const leaking = process.env.PAGEMESH_SOAK_LEAK === '1'
const leaked = []

/** Touches, locks, words and barriers at random. All members make the same choices of what to open. */
async function use(mesh, { seed, steps, pages }) {
  const placement = ['block', 'cyclic', { rank: seed % mesh.size }][seed % 3]
  const region = await mesh.region('soak', { byteLength: pages * pageBytes, placement })
  const words = new Int32Array(region.buffer)
  const random = randomFrom(seed * 31 + mesh.rank + 1)
  let added = 0
  for (let step = 0; step < steps; step++) {
    const word = random(pages) * 1024
    switch (random(5)) {
      case 0:
        Atomics.load(words, word)
        break
      case 1:
        Atomics.add(words, word, 1)
        added++
        break
      case 2: {
        const held = await mesh.lock(`lock ${word % 3}`).acquire()
        Atomics.add(words, word, 1)
        added++
        held.release()
        break
      }
      case 3:
        await region.discard(0, region.byteLength)
        break
      default:
        words[word + 8 + mesh.rank] = step
    }
  }
  return { region, words, added }
}

async function round({ environment, seed, steps, pages, victim }) {
  const options = {
    rank: Number(environment.rank),
    size: Number(environment.size),
    key: environment.key,
    rendezvous: environment.rendezvous,
    transport: 'tcp',
  }
  const mesh = await join(options)
  try {
    const { words, added } = await use(mesh, { seed, steps, pages })
    if (victim !== undefined) {
      process.send({ type: 'victimMayGo' })
      try {
        for (;;) await mesh.barrier('until somebody is gone')
      } catch (error) {
        if (error.code !== 'ERR_PAGEMESH_MEMBER_DOWN') throw error
      }
      return { added: 0, total: 0, killed: true }
    }
    await mesh.barrier('used')
    let total = 0
    for (let page = 0; page < pages; page++) total += Atomics.load(words, page * 1024)
    await mesh.barrier('counted')
    return { added, total }
  } finally {
    await mesh.leave().catch(() => undefined)
    if (leaking) leaked.push(new Uint8Array(2 ** 23).fill(1))
  }
}

process.on('message', (order) => {
  round(order).then(
    (result) => {
      globalThis.gc?.()
      process.send({ type: 'done', ...result })
    },
    (error) => process.send({ type: 'failed', message: error.stack }),
  )
})
process.on('disconnect', () => process.exit(0))
process.send({ type: 'ready' })
