/** One word for a POSIX shell, whatever is in it. */
export function shellQuote(word: string): string {
  if (/^[A-Za-z0-9_\-+=:,./@%]+$/.test(word)) return word
  return `'${word.replaceAll("'", "'\\''")}'`
}
