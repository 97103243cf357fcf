import { execFile } from 'node:child_process'
import path from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'

const run = promisify(execFile)
const program = path.resolve('test/fixtures/members/common.cjs')

async function runIt(...args: string[]): Promise<unknown> {
  // By way of env, as tap puts options of its own into the environment of what a test starts.
  const { stdout } = await run('env', ['NODE_OPTIONS=', process.execPath, program, ...args])
  return JSON.parse(stdout)
}

t.test('require gives what import gives', async (t) => {
  t.same(await runIt('names'), ['PagemeshError', 'join'])
})

t.test('join through require', async (t) => {
  t.same(await runIt('join'), { rank: 0, size: 1, word: 42 })
})

t.test('errors are known by code and by instanceof', async (t) => {
  t.same(await runIt('errors'), {
    code: 'ERR_PAGEMESH_OUT_OF_RANGE',
    isOurs: true,
    isError: true,
    others: [false, false, false],
  })
})

t.test('require and import are one mesh', async (t) => {
  t.same(await runIt('twice'), { code: 'ERR_PAGEMESH_ALREADY_JOINED' })
})
