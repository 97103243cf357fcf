// What --trace-gc prints. One line for each collection, which begins with the process and the
// isolate: `[4711:0x5581d3c2b000]      301 ms: Scavenge 5.1 (6.0) -> 4.4 (7.0) MB, …`.

export interface Collections {
  /** Of the isolate that marked the moments. */
  readonly ofMain: number
  /** Of all other isolates, which here is the engine's. */
  readonly ofOthers: number
}

const LINE =
  /^\[\d+:(0x[0-9a-f]+)\]\s+\d+ ms: (Scavenge|Mark-Compact|Minor Mark-Compact|Minor Mark-Sweep)\b.*$/gm

/**
 * How many collections there were between one moment and the next. A moment is a call of gc() on
 * the main thread: V8 prints its line into the same stream, and says that it was for testing.
 */
export function collectionsBetweenMarks(output: string): Collections[] {
  const lines = [...output.matchAll(LINE)].map(([line, isolate]) => ({
    isolate,
    isMark: line.includes('testing'),
  }))
  const marks = lines.flatMap(({ isMark }, index) => (isMark ? [index] : []))
  const main = lines[marks[0]]?.isolate
  return marks.slice(1).map((end, index) => {
    const between = lines.slice(marks[index] + 1, end)
    const ofMain = between.filter(({ isolate }) => isolate === main).length
    return { ofMain, ofOthers: between.length - ofMain }
  })
}
