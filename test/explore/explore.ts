import { CoherenceWorld } from './coherence-world.js'
import { type LocksWorld } from './locks-world.js'
import type { Mutation } from './mutations.js'
import { type Exploration, type Progress, search } from './search.js'
import { type Space, spaces } from './spaces.js'

export interface ExploreOptions {
  readonly mostStates?: number
  readonly mutation?: Mutation | undefined
  readonly reached?: Set<string> | undefined
  readonly onProgress?: (progress: Progress) => void
  readonly symmetric?: boolean
}

export interface SpaceResult extends Exploration {
  readonly space: string
  readonly symmetries: number
  readonly longestChannel: number
  readonly latestAdd: number
}

export function spaceNamed(name: string): Space {
  const space = spaces.find((each) => each.name === name)
  if (space === undefined) throw new RangeError(`there is no space '${name}'`)
  return space
}

export function exploreSpace(space: Space, options: ExploreOptions = {}): SpaceResult {
  const { mutation, reached, mostStates, onProgress, symmetric = true } = options
  const undo = mutation?.pages?.table?.()
  try {
    const world = space.make({
      symmetric,
      mutation,
      ...(reached === undefined || !space.hasPages
        ? {}
        : {
            onCell: (table: string, state: string, event: string): void =>
              void reached.add(`${table}: ${state} × ${event}`),
          }),
    })
    const found = search(world, {
      fair: space.fair,
      ...(mostStates === undefined ? {} : { mostStates }),
      ...(onProgress === undefined ? {} : { onProgress }),
    })
    const { longestChannel } = world as CoherenceWorld | LocksWorld
    const latestAdd = world instanceof CoherenceWorld ? world.latestAdd : 0
    return {
      ...{ ...found, space: space.name, symmetries: world.symmetryCount },
      ...{ longestChannel, latestAdd },
    }
  } finally {
    undo?.()
  }
}
