import { parseArgs } from 'node:util'
import { UsageError } from './usage.js'

/** What one command accepts: long name → whether it takes a value, and its one-letter form. */
export type OptionTable = Readonly<
  Record<string, { readonly type: 'boolean' | 'string'; readonly short?: string }>
>

export interface ParsedArguments {
  /** Values in the order given; an option without value counts as `'true'`. */
  readonly values: ReadonlyMap<string, readonly string[]>
  /** The first positional argument and all that follows it, untouched. */
  readonly rest: readonly string[]
}

/**
 * Reads options up to the first positional argument. What stands after that belongs to somebody
 * else (the script), even where it looks like an option of ours.
 *
 * @throws UsageError for an unknown option, a missing value, or a value where none belongs.
 */
export function parseLeadingOptions(args: readonly string[], table: OptionTable): ParsedArguments {
  // Not strict: strict mode would also judge the script's own options.
  const { tokens } = parseArgs({
    args: [...args],
    options: table,
    allowPositionals: true,
    strict: false,
    tokens: true,
  })
  const values = new Map<string, string[]>()
  for (const token of tokens) {
    if (token.kind === 'option-terminator') continue
    if (token.kind === 'positional') return { values, rest: args.slice(token.index) }
    const option = Object.hasOwn(table, token.name) ? table[token.name] : undefined
    if (option === undefined) throw new UsageError(`unknown option ${token.rawName}`)
    if (option.type === 'string' && token.value === undefined) {
      throw new UsageError(`${token.rawName} needs a value`)
    }
    if (option.type === 'boolean' && token.value !== undefined) {
      throw new UsageError(`${token.rawName} takes no value`)
    }
    const given = values.get(token.name) ?? []
    given.push(token.value ?? 'true')
    values.set(token.name, given)
  }
  return { values, rest: [] }
}

/** The last value given for an option, as later ones win. */
export function lastValue(parsed: ParsedArguments, name: string): string | undefined {
  return parsed.values.get(name)?.at(-1)
}
