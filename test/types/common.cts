// The same for a CommonJS program. Compiled, never run.
import pagemesh = require('pagemesh')

async function run(): Promise<number> {
  const mesh = await pagemesh.join({ size: 1 })
  const region = await mesh.region('r', { byteLength: 4096 })
  const word: number = await region.fetchAdd(0, 1)
  // @ts-expect-error a rank is a number
  await pagemesh.join({ rank: '0' })
  await mesh.leave()
  return word
}

function rankOf(error: unknown): number | undefined {
  return error instanceof pagemesh.PagemeshError ? error.rank : undefined
}

export = { run, rankOf }
