import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import t from 'tap'

interface Row {
  name: string
  part: string
  medianUs: number
  share: number
}
interface Line {
  name: string
  medianUs: number
  floor: string
  rows: Row[]
  parts: Record<string, number>
  clockUs: number
  takenAnotherWay: number
}

const root = new URL('../../', import.meta.url)
const names = [
  'read, clean at home',
  'read, clean at home, all asleep',
  'read, dirty at home',
  'read, dirty at home, all asleep',
  'write, held by nobody',
  'upgrade, home the only other sharer',
  'read, dirty at a third member',
]
const parts = ['trap', 'request', 'wire', 'wake-up', 'directory', 'install', 'resume']

// A fault that lacks a time stamp, or has it in the wrong place, ends the benchmark.
for (const transport of ['tcp', 'shm']) {
  t.test(`every fault over ${transport} has all its phases`, { timeout: 200_000 }, (t) => {
    const main = fileURLToPath(new URL('bench/main.mjs', root))
    const args = ['anatomy', '--json', '--faults', '50', '--rounds', '2', '--transport', transport]
    const { status, stdout, stderr } = spawnSync(process.execPath, [main, ...args], {
      encoding: 'utf8',
      timeout: 190_000,
    })
    t.equal(status, 0, 'the run succeeds', { stderr })
    t.equal(stderr, '', 'nothing on stderr')
    const lines = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as Line)
    t.same(
      lines.map(({ name }) => name),
      names,
    )
    for (const { name, medianUs, floor, rows, parts: shares, clockUs, takenAnotherWay } of lines) {
      const sum = rows.reduce((total, { share }) => total + share, 0)
      t.ok(Math.abs(sum - 1) < 1e-6, `${name}: the shares add up`)
      const rest = rows.at(-1)
      t.equal(rest?.name, 'unaccounted')
      t.ok(Math.abs(Number(rest?.share)) < 0.01, `${name}: next to nothing is unaccounted for`)
      t.ok(rows.slice(0, -1).every(({ medianUs, share }) => medianUs >= 0 && share >= 0))
      t.ok(clockUs > 0 && clockUs < medianUs)
      t.ok(takenAnotherWay < 50, `${name}: most faults go one way`)
      t.match(floor, `over ${transport}`)
      const alone = transport === 'shm' && rows.some(({ name }) => name === 'copy the page')
      if (alone) t.equal(shares['wake-up'], undefined, `${name}: nobody is woken`)
      else t.same(Object.keys(shares).sort(), [...parts].sort(), `${name}: all parts are there`)
    }
    if (transport === 'shm') {
      const [clean] = lines
      t.ok(clean.rows.some(({ name }) => name === 'copy the page'))
    }
    t.end()
  })
}

t.test('stamps are kept from when they are asked for until they are not', async (t) => {
  const load = createRequire(import.meta.url)
  const addon = load(fileURLToPath(new URL('build-stamps/Release/pagemesh.node', root))) as {
    stamps: (room: number) => Float64Array
    sessionCreate: (...args: number[]) => number
    sessionDestroy: (session: number) => void
    exchange: (...args: unknown[]) => number
  }
  const session = addon.sessionCreate(0, 1, 0, -1)
  // Sleeps for a millisecond and comes back, which is a moment.
  const sleep = () => {
    const call = Int32Array.of(0, 1, 0, 0, 0)
    const none = new Uint8Array(0)
    addon.exchange(session, call, new Uint32Array(0), none, new Uint32Array(20), none)
  }
  sleep()
  t.equal(addon.stamps(0).length, 0, 'nobody has asked')
  sleep()
  t.equal(addon.stamps(3).length, 0, 'room for none')
  sleep()
  t.equal(addon.stamps(2).length, 4, 'one stamp')
  for (let i = 0; i < 5; i++) sleep()
  t.equal(addon.stamps(0).length, 8, 'as many as there is room for')
  sleep()
  t.equal(addon.stamps(0).length, 0, 'no longer asked for')
  for (const wrong of [2 ** 20 + 1, -1, 'many', undefined]) {
    t.throws(() => addon.stamps(wrong as number), /^stamps: Invalid argument/)
  }
  addon.sessionDestroy(session)
})
