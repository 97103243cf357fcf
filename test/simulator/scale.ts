import { farWordCount } from '../../dist/protocol/far-ranks.js'
import { RECORD_BYTES } from './message.js'
import type { Pattern, Settings } from './settings.js'
import { type Histogram, type Outcome, World } from './world.js'

const SIZES = [2, 8, 64, 512]

/** How a pattern is run so that each size can be compared: the pages, and what each member does. */
interface Scale {
  readonly pattern: Pattern
  readonly title: string
  readonly pages: (members: number) => number
  readonly operations: (members: number) => number
}

const SCALES: readonly Scale[] = [
  {
    pattern: 'readers',
    title: 'all read, one writes',
    pages: () => 4,
    operations: (members) => (members > 64 ? 4 : 20),
  },
  {
    pattern: 'migratory',
    title: 'migratory, under a lock',
    pages: (members) => members,
    operations: (members) => (members > 64 ? 8 : 50),
  },
  {
    pattern: 'producer-consumer',
    title: 'producer and consumer',
    pages: (members) => members,
    operations: (members) => (members > 64 ? 8 : 50),
  },
  {
    pattern: 'false-sharing',
    title: 'false sharing of 4 pages',
    pages: () => 4,
    operations: (members) => (members > 64 ? 4 : 50),
  },
  {
    pattern: 'random',
    title: 'random',
    pages: (members) => 4 * members,
    operations: (members) => (members > 64 ? 16 : 64),
  },
]

export interface ScaleRow {
  readonly pattern: string
  readonly members: number
  readonly faults: number
  readonly messagesPerFault: number
  readonly bytesPerFault: number
  /** Messages that come one after the other: the middle one of all faults. */
  readonly hops: number
  readonly faultUs: number
  readonly directoryBytesPerPage: number
  readonly lockHops: number
  readonly barrierHops: number
  /** What the busiest member received, over what the average one did. */
  readonly imbalance: number
}

function settingsOf({ pattern, pages, operations }: Scale, members: number): Settings {
  return {
    seed: 4,
    members,
    pages: pages(members),
    pattern,
    placement: 'block',
    operations: operations(members),
    virtualNs: Infinity,
    threads: 1,
    kills: 0,
    stops: 0,
    slowMembers: 0,
    slowFactor: 1,
    latencyNs: 5_000,
    jitterNs: 1_000,
    straggler: 0,
    direct: false,
    oneSided: false,
    sabotage: {},
  }
}

function middle(histogram: Histogram): number {
  const total = [...histogram.values()].reduce((sum, each) => sum + each, 0)
  let seen = 0
  for (const [hops, times] of [...histogram].sort(([one], [other]) => one - other)) {
    seen += times
    if (2 * seen >= total) return hops
  }
  return 0
}

function rowOf(scale: Scale, { members, pages }: Settings, { counts }: Outcome): ScaleRow {
  const { faults, received } = counts
  const mean = received.reduce((sum, each) => sum + each, 0) / members
  return {
    pattern: scale.title,
    members,
    faults,
    messagesPerFault: counts.pageMessages / faults,
    bytesPerFault: counts.pageBytes / faults,
    hops: middle(counts.faultHops),
    faultUs: counts.faultNs / faults / 1000,
    directoryBytesPerPage: 8 + counts.farBytes / pages,
    lockHops: middle(counts.acquireHops),
    barrierHops: middle(counts.barrierHops),
    imbalance: received.reduce((most, each) => Math.max(most, each), 0) / mean,
  }
}

export function measureScale(
  sizes: readonly number[],
  onProgress: (text: string) => void,
): ScaleRow[] {
  return SCALES.flatMap((scale) =>
    sizes.map((members) => {
      onProgress(`${scale.title}, ${members} members`)
      const settings = settingsOf(scale, members)
      return rowOf(scale, settings, new World(settings).run())
    }),
  )
}

const COLUMNS: readonly [title: string, text: (row: ScaleRow) => string][] = [
  ['pattern', ({ pattern }) => pattern],
  ['members', ({ members }) => `${members}`],
  ['faults', ({ faults }) => `${faults}`],
  ['messages per fault', (row) => row.messagesPerFault.toFixed(2)],
  ['bytes per fault', (row) => row.bytesPerFault.toFixed(0)],
  ['hops', ({ hops }) => `${hops}`],
  ['virtual µs per fault', ({ faultUs }) => faultUs.toFixed(0)],
  ['directory bytes per page', (row) => row.directoryBytesPerPage.toFixed(1)],
  ['lock hops', ({ lockHops }) => (lockHops === 0 ? '' : `${lockHops}`)],
  ['barrier hops', ({ barrierHops }) => (barrierHops === 0 ? '' : `${barrierHops}`)],
  ['busiest member', ({ imbalance }) => `${imbalance.toFixed(1)} ×`],
]

/** As Markdown; prettier has nothing to change about it. */
export function formatScale(rows: readonly ScaleRow[]): string {
  const cells = [
    COLUMNS.map(([title]) => title),
    ...rows.map((row) => COLUMNS.map(([, text]) => text(row))),
  ]
  const widths = COLUMNS.map((_, column) => Math.max(...cells.map((each) => each[column].length)))
  const padded = (text: string, column: number): string =>
    column === 0 ? text.padEnd(widths[column]) : text.padStart(widths[column])
  const line = (texts: readonly string[]): string => `| ${texts.map(padded).join(' | ')} |`
  const rule = widths.map((width, column) =>
    column === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`,
  )
  return [line(cells[0]), `| ${rule.join(' | ')} |`, ...cells.slice(1).map(line)].join('\n')
}

/** What a mesh costs while nothing happens, and what the widest set of sharers takes. */
export function fixedCosts(members: number): Record<string, number> {
  return {
    members,
    connections: (members * (members - 1)) / 2,
    heartbeatBytesPerBeat: members * (members - 1) * RECORD_BYTES,
    mostDirectoryBytesPerPage: 8 + 4 * farWordCount(members),
  }
}

export function printScale(json: boolean, progress: (text: string) => void): void {
  const rows = measureScale(SIZES, progress)
  progress('')
  if (json) {
    for (const row of rows) console.log(JSON.stringify(row))
    return
  }
  console.log(formatScale(rows))
  console.log('')
  for (const members of SIZES) {
    const { connections, heartbeatBytesPerBeat, mostDirectoryBytesPerPage } = fixedCosts(members)
    console.log(
      `${members} members: ${connections} connections, ${heartbeatBytesPerBeat} bytes of ` +
        `heartbeats per beat, at most ${mostDirectoryBytesPerPage} bytes of directory per page`,
    )
  }
}
