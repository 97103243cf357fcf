// The entry for `require('pagemesh')`. The package itself is ESM, which a `require` cannot load on
// every Node.js that is supported, so it is imported when it is first used.
type Api = typeof import('./index.js', { with: { 'resolution-mode': 'import' } })
type PagemeshErrorOfApi = import('./errors.js', {
  with: { 'resolution-mode': 'import' },
}).PagemeshError

/** Joins the mesh: see the ESM entry. */
async function join(...args: Parameters<Api['join']>): ReturnType<Api['join']> {
  const api = await import('./index.js')
  return api.join(...args)
}

/**
 * For `instanceof` alone. The class that is thrown comes with the ESM entry, so an error is known
 * here by its stable code.
 */
class PagemeshError extends Error {
  static override [Symbol.hasInstance](value: unknown): value is PagemeshErrorOfApi {
    if (!(value instanceof Error) || !('code' in value)) return false
    return typeof value.code === 'string' && value.code.startsWith('ERR_PAGEMESH_')
  }
}

export = { join, PagemeshError }
