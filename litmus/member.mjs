// A member of the litmus tests' mesh: runs one thread of a program, or all of them in workers.
import { serve } from '../bench/lib/member.mjs'
import { pageCount } from './lib/batches.mjs'
import { PacedMeeting } from './lib/meetings.mjs'
import { MemberRun } from './lib/member-run.mjs'
import { WorkerPool } from './lib/worker-pool.mjs'

const leastPageBytes = 4096

serve(async (mesh, { broken, pageBytes = leastPageBytes }) => {
  /** @param {string} name */
  const open = (name) =>
    mesh.region(name, { byteLength: pageCount * pageBytes, pageBytes, placement: 'cyclic' })
  const control = await mesh.region('control', { byteLength: pageBytes, placement: { rank: 0 } })
  const pool = new WorkerPool()
  const home = {
    mesh,
    regions: { words: await open('words'), straddling: await open('straddling') },
    paces: new Float64Array(control.buffer, 0, 2),
    meeting: new PacedMeeting(),
    pool,
    broken,
  }
  return {
    run: (run) => new MemberRun(home, run).carryOut(),
    endWorkers: () => pool.end(),
  }
})
