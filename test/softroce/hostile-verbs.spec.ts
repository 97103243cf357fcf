import path from 'node:path'
import t from 'tap'
import { compileTests } from './support/compiled-tests.js'

// Members whose peer has a queue pair to them and breaks every rule, in a guest; and, in one of its
// own, members whose device is taken away.

const cli = path.resolve('dist/cli/main.js')
/** How much longer than outside things may take. */
const slowness = 10
const files = ['hostile-verbs.js', 'hostile-links.js', 'device-gone.js']

t.test('in guests', async (t) => {
  const folder = compileTests('hostile', [
    'test/cluster/support',
    'test/softroce/support',
    'test/softroce/guest',
  ])
  for (const file of files) {
    const test = path.join(folder, 'test/softroce/guest', file)
    // By way of env, as tap puts options of its own into the environment of what a test starts.
    const variables = [
      'NODE_OPTIONS=',
      'PAGEMESH_TRANSPORT=verbs',
      `PAGEMESH_TEST_SLOWNESS=${slowness}`,
      'TAP=1',
      'TAP_TIMEOUT=1200',
    ]
    const command = [process.execPath, cli, 'softroce', 'exec', '--way=guest', '--']
    await t.spawn(
      'env',
      [...variables, ...command, process.execPath, test],
      { stdio: ['ignore', 'pipe', 'inherit'], timeout: 0 },
      file,
    )
  }
})
