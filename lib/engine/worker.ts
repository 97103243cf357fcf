import { workerData } from 'node:worker_threads'
import { loadAddon } from '../native/addon.js'
import type { EngineData } from './commands.js'
import { Engine } from './engine.js'

/** Exit code of a process whose engine had a defect: EX_SOFTWARE. */
const ENGINE_FAILED_EXIT_CODE = 70

// Without its engine a member answers nobody, and its threads would wait in their faults for ever:
// a defect in here ends the process, and says where it is.
try {
  new Engine(workerData as EngineData).run()
} catch (error) {
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
  loadAddon().die(`pagemesh: the engine failed: ${text}`, ENGINE_FAILED_EXIT_CODE)
}
