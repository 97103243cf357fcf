const newline = 0x0a

/** A line longer than this is passed on in pieces, so that memory stays bounded. */
const maxHeldBytes = 256 * 1024

/** The unfinished line of one source. */
class HeldLine {
  #bytes = Buffer.alloc(0)
  #lengthBytes = 0

  get lengthBytes(): number {
    return this.#lengthBytes
  }

  append(chunk: Buffer): void {
    const neededBytes = this.#lengthBytes + chunk.length
    if (neededBytes > this.#bytes.length) {
      const grown = Buffer.allocUnsafeSlow(Math.max(256, neededBytes, this.#bytes.length * 2))
      this.#bytes.copy(grown, 0, 0, this.#lengthBytes)
      this.#bytes = grown
    }
    chunk.copy(this.#bytes, this.#lengthBytes)
    this.#lengthBytes = neededBytes
  }

  /** What is held; the line is empty afterwards. */
  take(): Buffer {
    const taken = this.#bytes.subarray(0, this.#lengthBytes)
    this.#bytes = Buffer.alloc(0)
    this.#lengthBytes = 0
    return taken
  }
}

/**
 * Merges the output of several sources into one stream of whole lines. Bytes are never decoded.
 * Each call returns what to write now, perhaps nothing.
 */
export class LineMerger {
  readonly #prefixes: readonly Buffer[]
  readonly #held: readonly HeldLine[]
  /** The source whose line stands unfinished at the end of what was returned so far. */
  #openSource: number | undefined

  /** One prefix for each source; an empty one changes no byte of a source that is alone. */
  constructor(prefixes: readonly string[]) {
    this.#prefixes = prefixes.map((prefix) => Buffer.from(prefix))
    this.#held = prefixes.map(() => new HeldLine())
  }

  push(source: number, chunk: Buffer): Buffer {
    const held = this.#heldOf(source)
    const wholeBytes = chunk.lastIndexOf(newline) + 1
    let lines: Buffer = Buffer.alloc(0)
    if (wholeBytes > 0) {
      held.append(chunk.subarray(0, wholeBytes))
      lines = this.#emit(source, held.take())
    }
    held.append(chunk.subarray(wholeBytes))
    if (held.lengthBytes <= maxHeldBytes) return lines
    return Buffer.concat([lines, this.#emit(source, held.take())])
  }

  /** The source has ended: its last line need not be whole. */
  end(source: number): Buffer {
    const rest = this.#heldOf(source).take()
    const needsNewline =
      this.#prefixOf(source).length > 0 && (rest.length > 0 || this.#openSource === source)
    if (!needsNewline) return this.#emit(source, rest)
    return this.#emit(source, Buffer.concat([rest, Buffer.of(newline)]))
  }

  /** A line of the launcher's own, which needs a line to itself. */
  announce(line: string): Buffer {
    const lead = this.#openSource === undefined ? '' : '\n'
    this.#openSource = undefined
    return Buffer.from(`${lead}${line}\n`)
  }

  #emit(source: number, data: Buffer): Buffer {
    if (data.length === 0) return data
    const prefix = this.#prefixOf(source)
    const parts: Buffer[] = []
    if (this.#openSource !== undefined && this.#openSource !== source) {
      parts.push(Buffer.of(newline))
      this.#openSource = undefined
    }
    const continues = this.#openSource === source
    if (prefix.length === 0) {
      parts.push(data)
    } else {
      parts.push(prefixLines(data, prefix, continues))
    }
    this.#openSource = data[data.length - 1] === newline ? undefined : source
    return parts.length === 1 ? parts[0] : Buffer.concat(parts)
  }

  #heldOf(source: number): HeldLine {
    const held = this.#held.at(source)
    if (held === undefined) throw new RangeError(`no source ${source}`)
    return held
  }

  #prefixOf(source: number): Buffer {
    return this.#prefixes[source] ?? Buffer.alloc(0)
  }
}

/** Puts the prefix before each line of `data`; not before the first if that one `continues`. */
function prefixLines(data: Buffer, prefix: Buffer, continues: boolean): Buffer {
  let lineCount = 0
  for (let at = 0; at < data.length; at = lineEnd(data, at)) lineCount += 1
  const prefixCount = continues ? lineCount - 1 : lineCount
  const result = Buffer.allocUnsafe(data.length + prefixCount * prefix.length)
  let writtenBytes = 0
  for (let at = 0; at < data.length;) {
    const end = lineEnd(data, at)
    if (at > 0 || !continues) writtenBytes += prefix.copy(result, writtenBytes)
    writtenBytes += data.copy(result, writtenBytes, at, end)
    at = end
  }
  return result
}

/** The offset just after the line that starts at `at`. */
function lineEnd(data: Buffer, at: number): number {
  const found = data.indexOf(newline, at)
  return found === -1 ? data.length : found + 1
}
