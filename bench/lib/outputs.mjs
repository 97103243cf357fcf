import { accessSync, constants } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { dirname, extname } from 'node:path'
import { UsageError } from './command-line.mjs'
import { makeResults } from './results.mjs'

/** @typedef {import('./results.mjs').Results} Results */

/**
 * What a file holds is said by the end of its name.
 * @type {Record<string, (results: Results) => string | Promise<string>>}
 */
const writers = {
  // Drawing loads much, which a run that writes no report does without.
  '.html': async (results) => (await import('./html-report.mjs')).htmlReport(results),
  '.json': (results) => `${JSON.stringify(results, undefined, 2)}\n`,
}

/**
 * Before anything is measured: a run that takes minutes must not end with "no such folder".
 * @param {string[]} paths
 */
export function checkOutputs(paths) {
  for (const path of paths) {
    if (!Object.hasOwn(writers, extname(path))) {
      const known = Object.keys(writers).join(' or ')
      throw new UsageError(`--out takes a file that ends with ${known}, not '${path}'`)
    }
    try {
      accessSync(dirname(path), constants.W_OK)
    } catch {
      throw new UsageError(`--out ${path}: the folder is not there, or may not be written`)
    }
  }
}

/**
 * @param {string[]} paths
 * @param {Omit<Results, 'format'>} run
 */
export async function writeOutputs(paths, run) {
  const results = makeResults(run)
  for (const path of paths) {
    await writeFile(path, await writers[extname(path)](results))
    console.error(`written: ${path}`)
  }
}
