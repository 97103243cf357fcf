import { createHash } from 'node:crypto'
import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import t from 'tap'
import { compileTests } from '../softroce/support/compiled-tests.js'
import { nodeBinary } from './support/node-binary.js'

// One build of the addon serves every supported Node.js. npm's packages bring the binaries.

const given = process.env.PAGEMESH_TEST_NODES ?? ''
const majors = given === '' ? [20, 22, 24, 26] : given.split(',').map(Number)
const files = [
  'test/nodes/guest/runs-here.js',
  'test/cluster/regions.test.js',
  'test/cluster/synchronization.test.js',
  'test/cluster/commonjs.test.js',
  'test/native/faults.test.js',
]

const addons = ['pagemesh', 'pagemesh_v8'].map((name) => `build/Release/${name}.node`)
const hashOfAddons = (): string => {
  const hash = createHash('sha256')
  for (const addon of addons) hash.update(fs.readFileSync(addon))
  return hash.digest('hex')
}

const built = hashOfAddons()
const folder = compileTests('nodes', ['test/cluster', 'test/native', 'test/nodes'])

for (const major of majors) {
  t.test(`Node.js ${major}`, async (t) => {
    const { file, version } = nodeBinary(major)
    const startMs = performance.now()
    for (const test of files) {
      // By way of env, as tap puts options of its own into the environment of what a test starts.
      const result = await t.spawn(
        'env',
        ['NODE_OPTIONS=', `PAGEMESH_TEST_NODE_VERSION=${version}`, file, path.join(folder, test)],
        { stdio: ['ignore', 'pipe', 'inherit'] },
        `${path.basename(test)} on ${version}`,
      )
      t.ok((result?.pass ?? 0) > 0, `${path.basename(test)} has tested something`)
    }
    t.equal(hashOfAddons(), built, 'by the one build')
    console.error(`Node.js ${version}: ${Math.round((performance.now() - startMs) / 1000)} s`)
  })
}

t.test('a version that cannot be had is an error', async (t) => {
  const empty = fs.mkdtempSync(path.join(tmpdir(), 'every-node-'))
  t.teardown(() => fs.rmSync(empty, { recursive: true, force: true }))
  t.throws(() => nodeBinary(3, empty), { message: /npm cannot fetch node-linux-\w+@3: / })

  const other = path.join(empty, '99/node_modules', `node-linux-${process.arch}`, 'bin')
  fs.mkdirSync(other, { recursive: true })
  fs.symlinkSync(process.execPath, path.join(other, 'node'))
  t.throws(() => nodeBinary(99, empty), { message: /should be Node.js 99/ })
})
