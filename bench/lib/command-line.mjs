/** What was typed makes no sense: the message goes before the usage. */
export class UsageError extends Error {}

/**
 * @template T
 * @param {() => T} parse
 * @returns {T}
 * @throws {UsageError} of whatever `parse`, which calls util.parseArgs, throws
 */
export function parsed(parse) {
  try {
    return parse()
  } catch (error) {
    throw new UsageError(/** @type {Error} */ (error).message)
  }
}

/**
 * @param {string} option
 * @param {string} text
 * @param {number} least
 * @param {number} most
 */
export function parseInteger(option, text, least, most) {
  const value = Number(text)
  if (/^\d+$/.test(text) && value >= least && value <= most) return value
  throw new UsageError(`--${option} takes a whole number from ${least} to ${most}, not '${text}'`)
}

/**
 * @param {string} option
 * @param {string} text
 * @param {string[]} choices
 */
export function parseChoice(option, text, choices) {
  if (choices.includes(text)) return text
  throw new UsageError(`--${option} takes ${choices.join(', ')}, not '${text}'`)
}

/**
 * Runs a program to its end, which is 2 if it was asked wrongly and 1 if it fails.
 * @param {() => Promise<void>} main
 * @param {string} usage
 */
export async function runProgram(main, usage) {
  try {
    await main()
  } catch (error) {
    if (error instanceof UsageError) {
      console.error(`${error.message}\n${usage}`)
      process.exitCode = 2
    } else {
      console.error(error instanceof Error ? error.message : error)
      process.exitCode = 1
    }
  }
}
