import * as fs from 'node:fs'
import * as path from 'node:path'

/**
 * The folder above `include/node` where this Node.js came with its headers. Without one, the build
 * tools download the headers.
 */
export function nodeHeadersPrefix() {
  const prefix = path.dirname(path.dirname(fs.realpathSync(process.execPath)))
  const header = path.join(prefix, 'include/node/node_version.h')
  if (!fs.existsSync(header)) return undefined
  // Headers left by another Node.js would build an addon that this one cannot load.
  const found = fs.readFileSync(header, 'utf8').match(/#define NODE_MAJOR_VERSION (\d+)/)
  return found?.[1] === process.versions.node.split('.')[0] ? prefix : undefined
}
