// A worker of a litmus member: one thread of a program, beside the others in the same process.
import { parentPort } from 'node:worker_threads'
import { SharedMeeting } from './lib/meetings.mjs'
import { runThread } from './lib/run-thread.mjs'
import { compileThread, memoryOf } from './lib/thread-code.mjs'

/** @type {Map<string, ReturnType<typeof compileThread>>} code that is warm stays */
const codes = new Map()

parentPort?.on('message', ({ buffer, program, variant, broken, batch, meeting, thread }) => {
  const { layout, access } = variant
  const key = `${program.name} ${access} ${layout} ${thread}`
  const code = codes.get(key) ?? compileThread(program, thread, { layout, broken })
  codes.set(key, code)
  const shared = new SharedMeeting(meeting, program.threads.length)
  const results = runThread({
    memory: memoryOf(buffer, { layout, broken }),
    code,
    batch,
    thread,
    variableCount: program.variables.length,
    straddling: layout === 'straddling',
    meet: (slot) => shared.meet(slot),
  })
  parentPort?.postMessage(results)
})
