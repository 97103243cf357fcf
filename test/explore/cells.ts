import { DIRECTORY_TABLE, ENTRY_EVENTS } from '../../dist/protocol/directory.js'
import { PAGE_EVENTS, PAGE_TABLE } from '../../dist/protocol/page-table.js'

// Cells that no sequence reaches, and why they are in the tables.
const atOnce = 'the engine does not stop between giving a copy back and having said so'
export const unreached: ReadonlyMap<string, string> = new Map([
  ...['readFault', 'writeFault', 'invalidate', 'discard', 'lost'].map((event): [string, string] => [
    `page: discarding × ${event}`,
    atOnce,
  ]),
  ['entry: lost × writeBack', 'an owner that is down is not heard any more'],
])

/** Every cell of the two tables that is not impossible. */
export function possibleCells(): string[] {
  const cells: string[] = []
  for (const [state, row] of Object.entries(PAGE_TABLE)) {
    for (const event of PAGE_EVENTS) {
      if (row[event] !== 'impossible') cells.push(`page: ${state} × ${event}`)
    }
  }
  for (const [state, row] of Object.entries(DIRECTORY_TABLE)) {
    for (const event of ENTRY_EVENTS) {
      if (row[event] !== 'impossible') cells.push(`entry: ${state} × ${event}`)
    }
  }
  return cells
}

/** What is wrong with the list above, given which cells were reached. */
export function cellProblems(reached: ReadonlySet<string>): string[] {
  const cells = possibleCells()
  return [
    ...cells
      .filter((cell) => !reached.has(cell) && !unreached.has(cell))
      .map((cell) => `${cell} is not reached, and nothing says why`),
    ...[...unreached.keys()]
      .filter((cell) => reached.has(cell) || !cells.includes(cell))
      .map((cell) => `${cell} is said to be unreached, and it is reached or no cell`),
  ]
}
