/** What a member tells its launcher, over the pipe between them, when it has joined. */
export interface JoinReport {
  readonly transport: 'tcp' | 'verbs' | 'mixed'
  /** Which device is used, or why there is none. */
  readonly detail: string
}

export function formatJoinReport({ transport, detail }: JoinReport): string {
  return `${JSON.stringify({ transport, detail })}\n`
}

/** Undefined if it is something else: whatever runs as a member may write to the pipe. */
export function parseJoinReport(line: string): JoinReport | undefined {
  try {
    const parsed = JSON.parse(line) as Partial<JoinReport> | null
    const { transport, detail } = parsed ?? {}
    const isKnown = transport === 'tcp' || transport === 'verbs' || transport === 'mixed'
    if (!isKnown || typeof detail !== 'string') return undefined
    return { transport, detail: detail.replace(/\p{Cc}/gu, ' ') }
  } catch {
    return undefined
  }
}
