import { createHash } from 'node:crypto'

/** Lines are hashed in pieces of about this size. */
const PIECE_CHARS = 1 << 16

/** Everything that happened, in order: hashed always, kept or passed on only if asked for. */
export class History {
  lineCount = 0
  private readonly hash = createHash('sha256')
  private piece = ''
  /** The last lines, for whoever has to read about a failure. */
  private readonly last: string[] = []

  constructor(
    private readonly onLine: ((line: string) => void) | undefined,
    private readonly keepCount = 40,
  ) {}

  add(line: string): void {
    this.lineCount++
    this.onLine?.(line)
    this.last[this.lineCount % this.keepCount] = line
    this.piece += `${line}\n`
    if (this.piece.length >= PIECE_CHARS) this.flush()
  }

  /** In order, the newest at the end. */
  lastLines(): string[] {
    const next = (this.lineCount + 1) % this.keepCount
    return [...this.last.slice(next), ...this.last.slice(0, next)].filter(
      (line) => (line as string | undefined) !== undefined,
    )
  }

  /** The SHA-256 of all lines. Ends the history. */
  digest(): string {
    this.flush()
    return this.hash.digest('hex')
  }

  private flush(): void {
    this.hash.update(this.piece)
    this.piece = ''
  }
}
