import type { Mutation } from './mutations.js'
import { MUTATION_SETTINGS } from './mutations.js'
import { CheckFailed, type Settings } from './settings.js'
import { World } from './world.js'

/** The first seed whose run fails, and how; undefined if none of `seeds` does. */
export function findFailure(
  mutation: Mutation,
  seeds: number,
): { readonly seed: number; readonly why: string } | undefined {
  for (let seed = 1; seed <= seeds; seed++) {
    const settings: Settings = {
      ...MUTATION_SETTINGS,
      ...mutation.settings,
      seed,
      sabotage: mutation.sabotage(),
    }
    try {
      new World(settings).run()
    } catch (error) {
      if (!(error instanceof CheckFailed)) throw error
      return { seed, why: error.message }
    }
  }
  return undefined
}
