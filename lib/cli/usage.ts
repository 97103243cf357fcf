/** A mistake in how the command was called: shown as one line, exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** The exit code of a run that was called wrongly. */
export const usageExitCode = 2
