import { execFileSync } from 'node:child_process'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { Child } from './fixtures/children.js'

const directory = fs.mkdtempSync(path.join(tmpdir(), 'native-test-'))
t.teardown(() => fs.rmSync(directory, { recursive: true, force: true }))
const library = path.join(directory, 'wild.so')
execFileSync('cc', [
  '-shared',
  '-fPIC',
  '-o',
  library,
  fileURLToPath(new URL('fixtures/wild.c', import.meta.url)),
])

interface Case {
  readonly where: string
  readonly access: 'r' | 'w' | 'x'
  readonly joined?: boolean
  readonly thread?: 'main' | 'worker'
}

const cases: Case[] = [
  { where: 'null', access: 'r', joined: false },
  { where: 'null', access: 'r' },
  { where: 'null', access: 'w' },
  { where: 'null', access: 'x' },
  { where: 'null', access: 'w', thread: 'worker' },
  { where: 'noncanonical', access: 'r' },
  { where: 'hole', access: 'w' },
  { where: 'before', access: 'r' },
  { where: 'after', access: 'r' },
  { where: 'after', access: 'w', thread: 'worker' },
  { where: 'inside', access: 'x' },
  { where: 'leftInside', access: 'x' },
]

for (const wild of cases) {
  const { where, access, joined = true, thread = 'main' } = wild
  const name = `${access} at ${where}, ${thread} thread${joined ? '' : ', without pagemesh'}`
  t.test(name, async (t) => {
    const args = { library, where, access, joined, thread }
    const { code, signal, stdout, stderr } = await new Child(t, 'segv', 'wild', { args }).ended
    t.equal(signal ?? code, 'SIGSEGV', stderr)
    t.equal(stdout, 'ready\n')
  })
}

t.test('the library does no harm by itself', async (t) => {
  const args = { library, where: 'inside', access: 'r', joined: true, thread: 'main' }
  const { code, signal, stdout, stderr } = await new Child(t, 'segv', 'wild', { args }).ended
  t.equal(signal ?? code, 0, stderr)
  t.equal(stdout, 'ready\nsurvived\n')
})

for (const joined of [false, true]) {
  t.test(`SIGSEGV by kill(), ${joined ? 'joined' : 'without pagemesh'}`, async (t) => {
    const { code, signal } = await new Child(t, 'segv', 'killed', { args: { joined } }).ended
    t.equal(signal ?? code, 'SIGSEGV')
  })
}
