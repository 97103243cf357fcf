/** Whether to colour what goes to this stream. See https://no-color.org. */
export function wantsColour(
  stream: { readonly isTTY?: boolean },
  environment: NodeJS.ProcessEnv = process.env,
): boolean {
  if ((environment.NO_COLOR ?? '') !== '' || environment.TERM === 'dumb') return false
  return stream.isTTY === true
}

/** SGR colour codes. */
export const colour = { red: 31, green: 32, yellow: 33, blue: 34, magenta: 35, cyan: 36 } as const

export function paint(text: string, code: number): string {
  return `\x1b[${code}m${text}\x1b[39m`
}
