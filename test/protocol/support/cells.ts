import { PagemeshError } from '../../../dist/errors.js'

/** What a table has to say for each state and event, from a text that people can read. */
export type Cells = ReadonlyMap<string, ReadonlyMap<string, string>>

/**
 * A state stands alone on its line; below it, indented, one line per event with what happens, and
 * one that begins with `impossible:` for the events that cannot be.
 */
export function parseCells(text: string): Cells {
  const cells = new Map<string, Map<string, string>>()
  let row = new Map<string, string>()
  for (const line of text.split('\n').filter((each) => each.trim() !== '')) {
    const [name = '', ...rest] = line.trim().split(/ +/)
    if (!line.startsWith(' ')) {
      if (cells.has(name)) throw new Error(`state ${name} is written twice`)
      row = new Map()
      cells.set(name, row)
      continue
    }
    const events = name === 'impossible:' ? rest : [name]
    const expected = name === 'impossible:' ? 'impossible' : rest.join(' ')
    for (const event of events) {
      if (row.has(event)) throw new Error(`event ${event} is written twice: ${line}`)
      row.set(event, expected)
    }
  }
  return cells
}

/** Every pair that the text and the unions do not both have. */
export function uncovered(
  cells: Cells,
  states: readonly string[],
  events: readonly string[],
): string[] {
  const there = new Set(states.flatMap((state) => events.map((event) => `${state} × ${event}`)))
  const written = new Set(
    [...cells].flatMap(([state, row]) => [...row.keys()].map((event) => `${state} × ${event}`)),
  )
  return [
    ...[...there].filter((cell) => !written.has(cell)).map((cell) => `${cell} is not written down`),
    ...[...written].filter((cell) => !there.has(cell)).map((cell) => `${cell} does not exist`),
  ]
}

/** Feeds an event that cannot be; returns 'impossible' if it is refused as it has to be. */
export function refusal(feed: () => void, ...named: (string | RegExp)[]): string {
  try {
    feed()
  } catch (error) {
    if (!(error instanceof PagemeshError)) throw error
    if (error.code !== 'ERR_PAGEMESH_PROTOCOL') return `refused with ${error.code}`
    const missing = named.filter((name) =>
      typeof name === 'string' ? !error.message.includes(name) : !name.test(error.message),
    )
    if (missing.length === 0) return 'impossible'
    return `refused, but without ${missing.join(', ')}: ${error.message}`
  }
  return 'not refused'
}
