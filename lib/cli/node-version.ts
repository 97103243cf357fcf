/** How a Node.js runs a TypeScript file. */
export type TypescriptSupport = 'as-is' | 'with-flag' | 'no'

type Version = readonly [major: number, minor: number, patch: number]

/** `'v22.18.0'` or `'22.18.0'` as numbers; what is not a number counts as 0. */
export function parseVersion(text: string): Version {
  const [major = 0, minor = 0, patch = 0] = text
    .replace(/^v/, '')
    .split('.')
    .map((part) => Number.parseInt(part, 10) || 0)
  return [major, minor, patch]
}

function isAtLeast(version: Version, minimum: Version): boolean {
  for (const [index, part] of version.entries()) {
    const wanted = minimum[index] ?? 0
    if (part !== wanted) return part > wanted
  }
  return true
}

/** Types are stripped without a flag since 22.18 and 23.6, with one since 22.6. */
export function typescriptSupport(nodeVersion: string): TypescriptSupport {
  const version = parseVersion(nodeVersion)
  const asIsSince: Version = version[0] === 22 ? [22, 18, 0] : [23, 6, 0]
  if (isAtLeast(version, asIsSince)) return 'as-is'
  return isAtLeast(version, [22, 6, 0]) ? 'with-flag' : 'no'
}

/**
 * Whether Node-API itself can make a SharedArrayBuffer over foreign memory. It came to three
 * release lines at once; the odd lines in between never had it.
 */
export function hasExternalSharedArrayBuffer(nodeVersion: string): boolean {
  const version = parseVersion(nodeVersion)
  if (version[0] === 22) return isAtLeast(version, [22, 23, 3])
  if (version[0] === 24) return isAtLeast(version, [24, 16, 0])
  return isAtLeast(version, [26, 1, 0])
}
