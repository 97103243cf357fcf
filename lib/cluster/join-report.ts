import { isTransportInUse, type TransportInUse } from './transport-names.js'

/** What a member tells its launcher, over the pipe between them, when it has joined. */
export interface JoinReport {
  readonly transport: TransportInUse
  /** Which memory or device is used, or why there is none. */
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
    if (!isTransportInUse(transport) || typeof detail !== 'string') return undefined
    return { transport, detail: detail.replace(/\p{Cc}/gu, ' ') }
  } catch {
    return undefined
  }
}
