// Member of the GUPS benchmark: random updates of a table, alone or together with the other member.
import { openArray, prefetch } from '../apps/application.mjs'
import { serve } from '../lib/member.mjs'
import { countWrong, fillTable, update, updateTogether } from '../lib/random-updates.mjs'

serve(async (mesh, { words }) => {
  const length = 2 * words
  const held = await openArray(mesh, 'held', Uint32Array, length)
  const moving = await openArray(mesh, 'moving', Uint32Array, length)
  const tables = {
    held: held.values,
    moving: moving.values,
    plain: new Uint32Array(new SharedArrayBuffer(length * 4)),
  }
  if (mesh.rank === 0) {
    await prefetch(held, 'write', 0, length)
    await prefetch(moving, 'write', 0, length)
    for (const table of Object.values(tables)) fillTable(table)
  }
  await mesh.barrier()
  return {
    /**
     * @param {{ table: 'held' | 'plain', start: number, count: number }} args
     * @returns {number} µs for all, which are then taken back to see whether they were right
     */
    alone({ table, start, count }) {
      const startMs = performance.now()
      update(tables[table], start, count)
      const tookUs = (performance.now() - startMs) * 1e3
      update(tables[table], start, count)
      const wrong = countWrong(tables[table])
      if (wrong > 0) throw new Error(`GUPS: ${wrong} wrong words, table ${table}`)
      return tookUs
    },

    /**
     * The members share the stream, each its own part.
     * @param {{ start: number, count: number }} args
     * @returns {Promise<number>} µs for this member's updates
     */
    async together({ start, count }) {
      await mesh.barrier()
      const startMs = performance.now()
      updateTogether(tables.moving, start + mesh.rank * count, count)
      const tookUs = (performance.now() - startMs) * 1e3
      await mesh.barrier()
      return tookUs
    },

    /** Takes back what all members did. @param {{ start: number, count: number }} args */
    async verify({ start, count }) {
      await prefetch(moving, 'write', 0, length)
      update(tables.moving, start, count * mesh.size)
      const wrong = countWrong(tables.moving)
      if (wrong > 0) throw new Error(`GUPS: ${wrong} wrong words after updates of all members`)
    },
  }
})
