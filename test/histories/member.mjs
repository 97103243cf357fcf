// A member whose operations are recorded; record.mjs starts it and tells it what to do.
import { openSync } from 'node:fs'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { Worker, isMainThread, workerData } from 'node:worker_threads'
import { join } from '../../dist/index.js'
import { act } from './thread.mjs'

const pageBytes = 4096

if (isMainThread) {
  process.on('disconnect', () => process.exit(1))
  const mesh = await join()
  const paged = await mesh.region('paged', {
    byteLength: 4 * pageBytes,
    placement: 'cyclic',
    pageBytes,
  })
  const atomic = await mesh.region('atomic', { byteLength: 64, words: 'atomic' })
  const semaphores = [
    { semaphore: mesh.lock('one'), object: 'lock one', permits: 1 },
    { semaphore: mesh.semaphore('two', 2), object: 'semaphore two', permits: 2 },
  ]
  process.send?.({ ready: mesh.stats().transport })
  const [{ plans, files }] = await once(process, 'message')
  const worker = new Worker(fileURLToPath(import.meta.url), {
    workerData: { plan: plans[1], file: files[1], buffer: paged.buffer },
  })
  const ended = once(worker, 'exit')
  const words = new Int32Array(paged.buffer)
  await act(plans[0], openSync(files[0], 'w'), words, pageBytes, { paged, atomic, semaphores })
  const [code] = await ended
  if (code !== 0) throw new Error(`the worker ended with ${code}`)
  // Leaves when told to: its pages are needed by the others.
  const told = once(process, 'message')
  process.send?.({ done: true })
  await told
  await mesh.leave()
  process.removeAllListeners('disconnect')
  process.disconnect()
} else {
  const { plan, file, buffer } = workerData
  await act(plan, openSync(file, 'w'), new Int32Array(buffer), pageBytes)
}
