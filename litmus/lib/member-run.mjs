import { countBatches, decodeHalves, decodeWord, planBatch, unknown } from './batches.mjs'
import { runThread } from './run-thread.mjs'
import { compileThread, memoryOf } from './thread-code.mjs'

/** @typedef {import('./batches.mjs').Run} Run */
/** @typedef {import('./batches.mjs').Batch} Batch */

/**
 * What a member has from one run to the next.
 * @typedef {object} Home
 * @property {import('../../bench/lib/member.mjs').Mesh} mesh
 * @property {Record<'words' | 'straddling', import('../../bench/lib/member.mjs').Region>} regions
 * @property {Float64Array} paces rank 0 writes here when the threads of a batch begin
 * @property {import('./meetings.mjs').PacedMeeting} meeting
 * @property {import('./worker-pool.mjs').WorkerPool} pool
 * @property {string | undefined} broken
 */

/** A member's part in one run of a program: batch after batch, in step with the other members. */
export class MemberRun {
  #home
  #run
  #straddling
  #region
  #codes
  #words
  #view
  /** What the threads access: one of these, or a broken memory before the words. */
  #memory
  #registers
  #finals

  /** @param {Home} home @param {Run} run */
  constructor(home, run) {
    const { program, variant, iterations } = run
    const { layout } = variant
    const { broken } = home
    this.#home = home
    this.#run = run
    this.#straddling = layout === 'straddling'
    this.#region = this.#straddling ? home.regions.straddling : home.regions.words
    this.#words = new Int32Array(this.#region.buffer)
    this.#view = new DataView(this.#region.buffer)
    this.#memory = memoryOf(this.#region.buffer, { layout, broken })
    this.#codes = program.threads.map((_, thread) =>
      compileThread(program, thread, { layout, broken }),
    )
    this.#registers = new Uint8Array(iterations * program.registers.length).fill(unknown)
    this.#finals = new Uint8Array(iterations * program.finals.length).fill(unknown)
  }

  /** @returns {Promise<{ registers: Uint8Array, finals: Uint8Array }>} by iteration, as far as known here */
  async carryOut() {
    const { mesh } = this.#home
    const place = { size: mesh.size, pageBytes: this.#region.pageBytes }
    /** @type {Batch | undefined} */
    let last
    for (let index = 0; index < countBatches(this.#run); index++) {
      const batch = planBatch(this.#run, index, place)
      if (batch.preparer === mesh.rank) {
        if (last !== undefined) this.#lookAtFinals(last)
        await this.#prepare(batch)
      }
      await mesh.barrier()
      await this.#warm(batch)
      await mesh.barrier()
      await (this.#run.variant.place === 'members' ? this.#runOwn(batch) : this.#runAll(batch))
      await mesh.barrier()
      last = batch
    }
    if (last !== undefined && mesh.rank === last.preparer) this.#lookAtFinals(last)
    await mesh.barrier()
    return { registers: this.#registers, finals: this.#finals }
  }

  /** @param {Batch} batch */
  async #prepare({ at, base, byteOffset, byteLength }) {
    await this.#region.prefetch(byteOffset, byteLength, 'write')
    for (const place of at) {
      if (this.#straddling) this.#view.setUint16(place, base * 257, true)
      else this.#words[place] = base
    }
  }

  /** Copies that are about are what a lost invalidation would leave behind. @param {Batch} batch */
  async #warm({ warmth, byteOffset, byteLength }) {
    const own = warmth[this.#home.mesh.rank]
    if (own === 'read') await this.#region.prefetch(byteOffset, byteLength, 'read')
    if (own === 'discard') await this.#region.discard(byteOffset, byteLength)
  }

  /** One thread here, if any. @param {Batch} batch */
  async #runOwn(batch) {
    const { mesh, paces, meeting } = this.#home
    if (mesh.rank === 0) paces.set(meeting.propose())
    await mesh.barrier()
    const thread = batch.ranks.indexOf(mesh.rank)
    if (thread < 0) return
    meeting.begin(paces, batch.seed + thread)
    const results = runThread({
      memory: this.#memory,
      code: this.#codes[thread],
      batch,
      thread,
      variableCount: this.#run.program.variables.length,
      straddling: this.#straddling,
      meet: (slot) => meeting.meet(slot),
    })
    meeting.end(batch.slotCount)
    this.#keep(batch, thread, results)
  }

  /** All threads in workers of rank 0, while the others take pages away. @param {Batch} batch */
  async #runAll(batch) {
    const { mesh, pool, broken } = this.#home
    if (mesh.rank > 0) {
      await this.#region.prefetch(batch.byteOffset, batch.byteLength, 'read')
      return
    }
    const { program, variant } = this.#run
    const work = { buffer: this.#region.buffer, program, variant, broken, batch }
    const results = await pool.run(work, program.threads.length)
    for (const [thread, found] of results.entries()) this.#keep(batch, thread, found)
  }

  /** @param {Batch} batch @param {number} thread @param {Uint8Array} results */
  #keep({ firstIteration, slotCount }, thread, results) {
    const { registers } = this.#run.program
    const own = this.#codes[thread].registers
    for (let slot = 0; slot < slotCount; slot++) {
      const first = (firstIteration + slot) * registers.length
      for (const [index, name] of own.entries()) {
        this.#registers[first + registers.indexOf(name)] = results[slot * own.length + index]
      }
    }
  }

  /** @param {Batch} batch */
  #lookAtFinals({ firstIteration, slotCount, at, base }) {
    const { finals, variables } = this.#run.program
    for (let slot = 0; slot < slotCount; slot++) {
      for (const [index, name] of finals.entries()) {
        const place = at[slot * variables.length + variables.indexOf(name)]
        this.#finals[(firstIteration + slot) * finals.length + index] = this.#straddling
          ? decodeHalves(this.#view.getUint16(place, true), base)
          : decodeWord(Atomics.load(this.#words, place), base)
      }
    }
  }
}
