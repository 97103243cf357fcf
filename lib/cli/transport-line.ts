import type { JoinReport } from '../cluster/join-report.js'

/** Says once, when all have joined, how the members of a run reach each other. */
export class TransportLine {
  readonly #memberCount: number
  readonly #say: (line: string) => void
  readonly #reports = new Map<number, JoinReport>()

  constructor(memberCount: number, say: (line: string) => void) {
    this.#memberCount = memberCount
    this.#say = say
  }

  /** A member has joined; only the first time counts. */
  joined(rank: number, report: JoinReport): void {
    if (this.#reports.has(rank)) return
    this.#reports.set(rank, report)
    if (this.#reports.size === this.#memberCount) this.#say(describe([...this.#reports.values()]))
  }
}

function describe(reports: readonly JoinReport[]): string {
  const [{ transport, detail }] = reports
  const odd = reports.find((report) => report.transport !== transport)
  if (odd !== undefined || transport === 'mixed') {
    const told = reports.find((report) => report.transport === 'mixed') ?? odd
    return `members reach each other in more than one way: ${told?.detail ?? detail}`
  }
  if (transport === 'shm') return 'members reach each other by shared memory'
  if (transport === 'verbs') return `members reach each other by verbs (${detail})`
  return `members reach each other by TCP: ${detail}`
}

/** Whether the run was told to choose, and so has to say what it chose. */
export function tellsTransport(
  plan: { readonly memberCount: number; readonly transport: string | undefined },
  environment: NodeJS.ProcessEnv = process.env,
): boolean {
  return plan.memberCount > 1 && (plan.transport ?? environment.PAGEMESH_TRANSPORT) === 'auto'
}
