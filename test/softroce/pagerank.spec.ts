import { spawn } from 'node:child_process'
import path from 'node:path'
import t from 'tap'

// The demo's program over verbs. With transport verbs a mesh that would use anything else for one
// of its members does not come about.

const cli = path.resolve('dist/cli/main.js')
const counter = '/sys/class/infiniband/rxe0/ports/1/hw_counters/sent_pkts'
const script = `
  cat ${counter}
  "$0" "$1" run -n 4 --transport verbs --no-prefix examples/pagerank.mjs --limit 5000
  status=$?
  cat ${counter}
  exit $status`

interface Outcome {
  readonly exitCode: number | string
  readonly stdout: string
  readonly stderr: string
}

function runInGuest(command: readonly string[]): Promise<Outcome> {
  const args = ['NODE_OPTIONS=', process.execPath, cli, 'softroce', 'exec', '--way=guest', '--']
  // By way of env, as tap puts options of its own into the environment of what a test starts.
  const child = spawn('env', [...args, ...command], { stdio: ['ignore', 'pipe', 'pipe'] })
  t.teardown(() => child.kill('SIGTERM'))
  let [stdout, stderr] = ['', '']
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text))
  return new Promise((resolve) => {
    child.once('close', (code, signal) => {
      resolve({ exitCode: signal ?? code ?? -1, stdout, stderr })
    })
  })
}

t.test('four members compute what one process computes', async (t) => {
  const { exitCode, stdout, stderr } = await runInGuest(['sh', '-c', script, process.execPath, cli])
  t.equal(exitCode, 0, stderr)
  t.match(stdout, /^Same scores: largest relative difference \S+, below 1e-9$/m)
  const [, table = ''] = stdout.split('What each member moved:\n')
  const [, ...rows] = table.split('\n\n')[0].split('\n')
  t.equal(rows.length, 4)
  let packets = 0
  for (const row of rows) {
    const [, readFaults, writeFaults, pagesReceived] = row
      .trim()
      .split(/\s+/)
      .map((cell) => Number(cell.replaceAll(',', '')))
    t.ok(pagesReceived > 0, `every member has got pages of others: ${row}`)
    // Each page comes in a packet and its record in another; what asked for it is a third.
    packets += readFaults + writeFaults + pagesReceived
  }
  const counts = stdout.match(/^\d+$/gm)?.map(Number) ?? []
  t.equal(counts.length, 2)
  const growth = counts[1] - counts[0]
  t.ok(growth >= packets, `${growth} packets went through rxe0, and ${packets} were needed`)
})
