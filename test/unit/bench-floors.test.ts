import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import t from 'tap'

interface Floors {
  addSamples: (parts: ArrayLike<number>[]) => Float64Array
}

const folder = fileURLToPath(new URL('../../build/bench/', import.meta.url))
const url = new URL('../../bench/lib/floors.mjs', import.meta.url).href
const { addSamples } = (await import(url)) as Floors

function run(program: string, args: string[]) {
  return spawnSync(folder + program, args, { encoding: 'utf8', timeout: 60_000 })
}

/** Small runs of every program; each checks by itself what it has copied and how often. */
const programs: [string, number][] = [
  ['socket_roundtrip --raw --iterations 20', 20],
  ['socket_roundtrip --raw --iterations 5 --pause-us 100', 5],
  ['socket_message --iterations 20 --hold-us 10', 20],
  ['socket_stream --mib 2 --passes 2', 2],
  ['futex_handover --iterations 20', 20],
  ['futex_handover --iterations 20 --copy', 20],
  ['futex_handover --one-way --iterations 20 --hold-us 10', 20],
  ['local_trap --pages 8 --passes 2 --kind read --copy', 16],
  ['local_trap --pages 8 --passes 2 --kind write', 16],
  ['local_trap --pages 8 --kind upgrade', 8],
  ['memfd_copy --mib 2 --passes 2', 2],
  ['barrier --members 2 --iterations 10', 10],
  ['barrier --members 5 --iterations 10', 10],
  ['barrier --members 3 --iterations 10 --sockets', 10],
]
for (const [line, count] of programs) {
  t.test(`${line} prints as many samples as it is asked for`, (t) => {
    const [program = '', ...args] = line.split(' ')
    const { status, stdout, stderr } = run(program, args)
    t.equal(status, 0, stderr)
    const { samplesUs } = JSON.parse(stdout) as { samplesUs: number[] }
    t.equal(samplesUs.length, count)
    t.ok(samplesUs.every((us) => us > 0))
    t.end()
  })
}

const mistakes: [string, RegExp][] = [
  ['local_trap --kind neither', /^usage: local_trap /],
  ['local_trap --pages 0', /^local_trap: --pages takes a whole number from 1 to /],
  ['barrier --members 1', /^barrier: --members takes a whole number from 2 to 64, not '1'\n/],
  ['futex_handover --one-way --copy', /^usage: futex_handover /],
  ['memfd_copy 5', /^usage: memfd_copy /],
]
for (const [line, message] of mistakes) {
  t.test(`${line} is refused`, (t) => {
    const [program = '', ...args] = line.split(' ')
    const { status, stdout, stderr } = run(program, args)
    t.equal(status, 2)
    t.equal(stdout, '')
    t.match(stderr, message)
    t.end()
  })
}

t.test('the addon with the empty call does nothing', (t) => {
  const addon = createRequire(import.meta.url)(`${folder}empty_call.node`) as {
    doNothing: () => unknown
  }
  t.equal(addon.doNothing(), undefined)
  t.end()
})

t.test('floors that are measured one after the other are added sample by sample', (t) => {
  t.same([...addSamples([[1, 2, 3], Float64Array.of(10, 20)])], [11, 22])
  t.same([...addSamples([[1]])], [1])
  t.end()
})
