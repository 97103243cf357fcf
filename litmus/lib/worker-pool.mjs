import { once } from 'node:events'
import { Worker } from 'node:worker_threads'

/** The workers of a member, which run the threads of a program in one process. */
export class WorkerPool {
  /** @type {Worker[]} */
  #workers = []

  /**
   * @param {object} work what all workers get
   * @param {number} threadCount
   * @returns {Promise<Uint8Array[]>} by thread
   */
  async run(work, threadCount) {
    while (this.#workers.length < threadCount) {
      this.#workers.push(new Worker(new URL('../worker.mjs', import.meta.url)))
    }
    const meeting = new SharedArrayBuffer(4)
    const workers = this.#workers.slice(0, threadCount)
    const results = workers.map(async (worker) => (await once(worker, 'message'))[0])
    for (const [thread, worker] of workers.entries()) {
      worker.postMessage({ ...work, meeting, thread })
    }
    return Promise.all(results)
  }

  async end() {
    await Promise.all(this.#workers.map((worker) => worker.terminate()))
    this.#workers = []
  }
}
