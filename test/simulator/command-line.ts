import { parseArgs } from 'node:util'
import { MAX_RANKS } from '../../dist/protocol/messages.js'
import type { Placement } from '../../dist/protocol/placement.js'
import { Random } from '../protocol/support/random.js'
import { type Pattern, PATTERNS, type Settings, UsageError } from './settings.js'
import { mutations } from './mutations.js'

export const usage = `usage: npm run simulate -- [OPTION…]
Runs the real protocol, lock and barrier code of many members in one process, on a virtual clock.
One seed gives one history; its SHA-256 is printed.

  --seed N             what the network and the members do (default 1)
  --seeds N            so many seeds, from --seed on; ends at the first that fails
  --members N          1 to ${MAX_RANKS} (default 8)
  --pages N            of the region that they share (default 16)
  --pattern NAME       ${PATTERNS.join(', ')}
  --placement P        block, cyclic, or the rank that homes all pages (default block)
  --operations N       of each thread; rounds, of patterns with rounds (default 100)
  --virtual-seconds S  nothing begins later than this; without --operations, only this counts
  --threads N          of each member (default 1)
  --kill N             so many members die: killed, or stopped until the others notice
  --stop N             so many times a member is stopped for a while
  --slow N             so many members are 20 times slower than the others
  --latency-us U       what a message takes at least (default 5)
  --jitter-us U        and on average beyond that (default 5)
  --direct             faulting threads take answers themselves, idle homes answer natively
  --one-sided          all on one host: threads copy clean pages from their homes by themselves
  --any-shape          the seed decides about all of the above, with up to --members members
  --mutation NAME      breaks something on purpose ('list' names them); the run should fail
  --trace              prints the whole history
  --scale              prints how costs grow with members, for docs/scale.md
  --json               one JSON object per run, and nothing else
  --help`

export interface Options {
  readonly settings: (seed: number) => Settings
  readonly firstSeed: number
  readonly seeds: number
  readonly trace: boolean
  readonly scale: boolean
  readonly json: boolean
  readonly help: boolean
  readonly listMutations: boolean
  /** The options of one run, for who wants to run it again. */
  readonly replay: (seed: number) => string
}

const SLOW_FACTOR = 20
const STRAGGLER = 200

export function parseCommandLine(args: string[]): Options {
  const values = parse(args)
  const number = (name: keyof typeof values, least: number, most: number): number => {
    const text = String(values[name])
    const value = Number(text)
    const whole = !['latency-us', 'jitter-us', 'virtual-seconds'].includes(name)
    const shape = whole ? /^\d+$/ : /^\d+(\.\d+)?$/
    if (!shape.test(text) || value < least || value > most) {
      const kind = whole ? 'a whole number' : 'a number'
      throw new UsageError(`--${name} takes ${kind} from ${least} to ${most}, not '${text}'`)
    }
    return value
  }
  const members = number('members', 1, MAX_RANKS)
  const timed = values['virtual-seconds'] !== undefined
  const mutation = values.mutation ?? ''
  const known = mutations.find(({ name }) => name === mutation)
  if (mutation !== '' && mutation !== 'list' && known === undefined) {
    throw new UsageError(`no mutation is called '${mutation}'; --mutation list names them`)
  }
  const fixed: Omit<Settings, 'seed'> = {
    members,
    pages: number('pages', 1, 1 << 20),
    pattern: parsePattern(values.pattern),
    placement: parsePlacement(values.placement, members),
    operations: timed && values.operations === undefined ? 1e9 : operations(),
    virtualNs: timed ? 1e9 * number('virtual-seconds', 0.000001, 1e6) : Infinity,
    threads: number('threads', 1, 64),
    kills: number('kill', 0, MAX_RANKS),
    stops: number('stop', 0, 1e6),
    slowMembers: number('slow', 0, MAX_RANKS),
    slowFactor: SLOW_FACTOR,
    latencyNs: Math.round(1000 * number('latency-us', 0, 1e6)),
    jitterNs: Math.round(1000 * number('jitter-us', 0, 1e6)),
    straggler: STRAGGLER,
    direct: values.direct,
    oneSided: values['one-sided'],
    sabotage: known?.sabotage() ?? {},
  }
  function operations(): number {
    return values.operations === undefined ? 100 : number('operations', 1, 1e9)
  }
  if (fixed.kills >= members && fixed.kills > 0) {
    throw new UsageError(`--kill ${fixed.kills} leaves none of ${members} members`)
  }
  const anyShape = values['any-shape']
  const others = args.filter(
    (_, index) => !isAbout(args, index, ['seed', 'seeds', 'trace', 'json']),
  )
  return {
    settings: (seed) => ({
      ...(anyShape ? shapeOf(seed, members) : fixed),
      seed,
      sabotage: known?.sabotage() ?? {},
    }),
    firstSeed: number('seed', 0, 2 ** 32 - 1),
    seeds: number('seeds', 1, 1e9),
    trace: values.trace,
    scale: values.scale,
    json: values.json,
    help: values.help,
    listMutations: mutation === 'list',
    replay: (seed) => ['npm run simulate --', '--seed', seed, ...others, '--trace'].join(' '),
  }
}

function parse(args: string[]) {
  const flag = { type: 'boolean', default: false } as const
  try {
    return parseArgs({
      args,
      options: {
        seed: { type: 'string', default: '1' },
        seeds: { type: 'string', default: '1' },
        members: { type: 'string', default: '8' },
        pages: { type: 'string', default: '16' },
        pattern: { type: 'string', default: 'random' },
        placement: { type: 'string', default: 'block' },
        operations: { type: 'string' },
        'virtual-seconds': { type: 'string' },
        threads: { type: 'string', default: '1' },
        kill: { type: 'string', default: '0' },
        stop: { type: 'string', default: '0' },
        slow: { type: 'string', default: '0' },
        'latency-us': { type: 'string', default: '5' },
        'jitter-us': { type: 'string', default: '5' },
        mutation: { type: 'string' },
        direct: flag,
        'one-sided': flag,
        'any-shape': flag,
        trace: flag,
        scale: flag,
        json: flag,
        help: flag,
      },
    }).values
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
}

/** Whether the argument at `index` is one of these options, or the value of one. */
function isAbout(args: readonly string[], index: number, names: readonly string[]): boolean {
  const is = (text: string | undefined): boolean =>
    names.some((name) => text === `--${name}` || text?.startsWith(`--${name}=`) === true)
  const before = args[index - 1] as string | undefined
  const takesValue = before === '--seed' || before === '--seeds'
  return is(args[index]) || takesValue
}

function parsePattern(text: string): Pattern {
  const found = PATTERNS.find((name) => name === text)
  if (found !== undefined) return found
  throw new UsageError(`--pattern takes one of ${PATTERNS.join(', ')}, not '${text}'`)
}

function parsePlacement(text: string, members: number): Placement {
  if (text === 'block' || text === 'cyclic') return text
  if (/^\d+$/.test(text) && Number(text) < members) return { rank: Number(text) }
  throw new UsageError(
    `--placement takes block, cyclic or a rank from 0 to ${members - 1}, not '${text}'`,
  )
}

/** What a seed decides before its run begins. */
export function shapeOf(seed: number, mostMembers: number): Omit<Settings, 'seed' | 'sabotage'> {
  const random = new Random(seed ^ 0x5eed)
  const few = 2 + random.below(7)
  const many = 2 + random.below(Math.max(1, mostMembers - 1))
  const members = Math.min(mostMembers, random.chance(0.6) ? few : many)
  const dies = members > 2 && random.chance(0.4)
  return {
    members,
    pages: random.pick([1, 2, 3, 8, 32]),
    pattern: random.chance(0.5) ? 'random' : random.pick(PATTERNS),
    placement: random.pick<Placement>(['block', 'cyclic', { rank: random.below(members) }]),
    operations: random.pick([5, 20, members > 16 ? 20 : 60]),
    virtualNs: random.chance(0.1) ? 1e6 : Infinity,
    threads: random.pick([1, 1, 2]),
    kills: dies ? 1 + random.below(Math.min(3, members - 1)) : 0,
    stops: random.pick([0, 0, 1, 5]),
    slowMembers: random.pick([0, 0, 1, 2]),
    slowFactor: SLOW_FACTOR,
    latencyNs: random.pick([500, 5_000, 50_000]),
    jitterNs: random.pick([0, 2_000, 100_000]),
    straggler: random.pick([0, 50, 500]),
    direct: random.chance(0.5),
    oneSided: random.chance(0.5),
  }
}
