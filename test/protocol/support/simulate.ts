import { type Placement } from '../../../dist/protocol/placement.js'
import { begins, CheckFailed, type Choice, Cluster, type ClusterOptions } from './cluster.js'
import { Random } from './random.js'

/** Far beyond what any run needs: one that goes on for so long never comes to rest. */
const MOST_STEPS = 20_000

export interface SimulationResult {
  readonly steps: number
  readonly touches: number
  readonly lostTouches: number
}

/** What a seed decides before the first step. */
export function optionsOf(random: Random, fixed: Partial<ClusterOptions>): ClusterOptions {
  const members = fixed.members ?? 2 + random.below(4)
  const placements: Placement[] = ['block', 'cyclic', { rank: random.below(members) }]
  const holds = random.pick([0, 0.2, 0.9])
  const unsent = random.pick([0, 0.1])
  const { sabotage } = fixed
  return {
    members,
    pages: 1 + random.below(3),
    placement: random.pick(placements),
    threads: 1 + random.below(2),
    operations: 5 + random.below(60),
    actions: random.chance(0.5) ? 'batched' : 'atOnce',
    discards: random.pick(['copies', 'copies', 'always', 'never', 'never']),
    prefetches: random.chance(0.5),
    parking: random.chance(0.3),
    direct: random.chance(0.5),
    pins: random.pick([0, 0, 4]),
    holdGranted: () => random.chance(holds),
    sendFails: () => random.chance(unsent),
    survives: (count) => random.below(count + 1),
    oneSided: random.chance(0.5),
    ...fixed,
    ...(sabotage === undefined ? {} : { sabotage }),
  }
}

/** Runs one seed to its end. Throws an Error that says how to run it again. */
export function simulate(
  seed: number,
  fixed: Partial<ClusterOptions> = {},
  trace = false,
): SimulationResult {
  const random = new Random(seed)
  const options = optionsOf(random, fixed)
  const cluster = new Cluster(options)
  if (trace) cluster.trace = []
  // How eagerly new things begin: sometimes one at a time, sometimes all at once.
  const eagerness = random.pick([0.02, 0.2, 0.6])
  const killChance = random.pick([0.002, 0.02, 0.1])
  let steps = 0
  try {
    for (; steps < MOST_STEPS; steps++) {
      const choice = choose(cluster, random, eagerness, killChance)
      if (choice === undefined) break
      cluster.perform(choice)
    }
    if (steps === MOST_STEPS) cluster.fail('it never comes to rest')
    cluster.checkRest()
    steps += probe(cluster, random)
  } catch (error) {
    if (!(error instanceof CheckFailed)) throw error
    const { members, pages, placement, actions } = options
    const shape = JSON.stringify({ members, pages, placement, actions })
    const history = trace ? `\n${cluster.trace!.join('\n')}\n${cluster.picture()}` : ''
    throw new CheckFailed(`seed ${seed}, ${shape}, step ${steps}: ${error.message}${history}`)
  }
  return { steps, touches: cluster.touches, lostTouches: cluster.lostTouches }
}

function choose(
  cluster: Cluster,
  random: Random,
  eagerness: number,
  killChance: number,
): Choice | undefined {
  const all = cluster.choices()
  const kills = all.filter((choice) => choice.do === 'kill')
  if (kills.length > 0 && random.chance(killChance)) return random.pick(kills)
  const starts = all.filter((choice) => begins(choice) && choice.do !== 'kill')
  const others = all.filter((choice) => !begins(choice))
  if (others.length === 0) return starts.length === 0 ? undefined : random.pick(starts)
  if (starts.length > 0 && random.chance(eagerness)) return random.pick(starts)
  return random.pick(others)
}

/** Every member that is left reads and writes every page once more: nothing is stuck. */
function probe(cluster: Cluster, random: Random): number {
  let steps = 0
  cluster.deathsLeft = 0
  for (const { rank, alive } of cluster.members) {
    if (!alive) continue
    for (let page = 0; page < cluster.options.pages; page++) {
      for (const access of ['read', 'write'] as const) {
        cluster.perform({ do: 'touch', at: rank, thread: 0, page, access })
        for (cluster.operationsLeft = 0; ; steps++) {
          const choices = cluster.choices()
          if (choices.length === 0) break
          if (steps > MOST_STEPS) cluster.fail('the last touches never come to rest')
          cluster.perform(random.pick(choices))
        }
        cluster.checkRest()
      }
    }
  }
  return steps
}
