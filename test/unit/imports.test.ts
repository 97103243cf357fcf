import * as fs from 'node:fs'
import * as path from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import ts from 'typescript'

const root = fileURLToPath(new URL('../..', import.meta.url))

/** The rooms of lib/, and those that each may import from. `errors` is open to all. */
const libRooms: Partial<Record<string, readonly string[]>> = {
  errors: [],
  index: ['api'],
  api: ['engine', 'cluster', 'protocol', 'native'],
  engine: ['protocol', 'native', 'cluster'],
  cluster: [],
  protocol: [],
  native: [],
  cli: ['index', 'api', 'native', 'cluster'],
}

/** The rooms of native/, and those that each may include from. */
const nativeRooms: Partial<Record<string, readonly string[]>> = {
  addon: ['binding'],
  binding: ['memory', 'transport', 'base'],
  memory: ['base'],
  transport: ['base'],
  base: [],
}

function filesUnder(folder: string): string[] {
  return fs
    .readdirSync(path.join(root, folder), { recursive: true, encoding: 'utf8' })
    .map((name) => path.join(folder, name))
    .filter((file) => fs.statSync(path.join(root, file)).isFile())
    .sort()
}

function textOf(file: string): string {
  return fs.readFileSync(path.join(root, file), 'utf8')
}

/** `lib/engine/loop.ts` → `engine`, `lib/index.cts` → `index`. */
function roomOf(file: string): string {
  const [, first = ''] = file.split('/')
  return first.replace(/\..*$/, '')
}

/** What is wrong with the imports of a TypeScript file, one line per import. */
function wrongImports(file: string, text: string): string[] {
  const room = roomOf(file)
  const allowed = libRooms[room]
  if (allowed === undefined) return [`${file}: ${room} is not a room of lib/`]
  return ts.preProcessFile(text, true, true).importedFiles.flatMap(({ fileName }) => {
    if (!fileName.startsWith('.')) {
      return room === 'protocol' ? [`${file}: protocol is pure, but imports ${fileName}`] : []
    }
    const target = roomOf(path.join(path.dirname(file), fileName))
    if (target === room || target === 'errors' || allowed.includes(target)) return []
    return [`${file}: ${room} may not import from ${target} (${fileName})`]
  })
}

/** What is wrong with the includes of a C++ file, one line per include. */
function wrongIncludes(file: string, text: string): string[] {
  const room = roomOf(file)
  const allowed = nativeRooms[room]
  if (allowed === undefined) return [`${file}: ${room} is not a room of native/`]
  return [...text.matchAll(/^\s*#\s*include\s+([<"])([^>"]+)[>"]/gm)].flatMap(
    ([, quote, name = '']) => {
      if (/^(napi|node_api|js_native_api|node|v8|uv)[-.]/.test(name)) {
        return room === 'binding' || room === 'addon'
          ? []
          : [`${file}: only binding knows Node.js, but ${room} includes ${name}`]
      }
      if (quote === '<') return []
      const target = roomOf(`native/${name}`)
      if (!name.includes('/')) return [`${file}: write "${room}/${name}", from native/ on`]
      if (target === room || allowed.includes(target)) return []
      return [`${file}: ${room} may not include from ${target} (${name})`]
    },
  )
}

function longLines(file: string, text: string): string[] {
  return text
    .split('\n')
    .flatMap((line, index) =>
      line.length > 100 ? [`${file}:${index + 1}: longer than 100 columns`] : [],
    )
}

const libFiles = filesUnder('lib')
const nativeFiles = filesUnder('native').filter((file) => /\.(cc|h)$/.test(file))

t.test('the rooms of lib/ import as ARCHITECTURE.md says', async (t) => {
  t.ok(libFiles.length > 0)
  t.strictSame(
    libFiles.flatMap((file) => wrongImports(file, textOf(file))),
    [],
  )
})

t.test('the rooms of native/ include as ARCHITECTURE.md says', async (t) => {
  t.ok(nativeFiles.length > 0)
  t.strictSame(
    nativeFiles.flatMap((file) => wrongIncludes(file, textOf(file))),
    [],
  )
})

t.test('the addon is loaded in lib/native/ alone', async (t) => {
  const loaders = libFiles.filter((file) => /dlopen|\.node['"`]/.test(textOf(file)))
  t.strictSame(
    loaders.filter((file) => roomOf(file) !== 'native'),
    [],
  )
})

t.test('names of files', async (t) => {
  t.strictSame(
    libFiles.filter((file) => !/^lib(\/[a-z0-9]+(-[a-z0-9]+)*)+\.c?ts$/.test(file)),
    [],
    'TypeScript: kebab-case',
  )
  t.strictSame(
    nativeFiles.filter((file) => !/^native(\/[a-z0-9]+(_[a-z0-9]+)*)+\.(cc|h)$/.test(file)),
    [],
    'C++: snake_case',
  )
})

t.test('lines end at column 100', async (t) => {
  t.strictSame(
    [...libFiles, ...nativeFiles].flatMap((file) => longLines(file, textOf(file))),
    [],
  )
})

t.test('no default exports', async (t) => {
  t.strictSame(
    libFiles.filter((file) => /^export default\b|\bas default\b/m.test(textOf(file))),
    [],
  )
})

t.test('the rules above can fail', async (t) => {
  t.match(wrongImports('lib/protocol/a.ts', "import * as fs from 'node:fs'"), [/protocol is pure/])
  t.match(wrongImports('lib/protocol/a.ts', "import { b } from '../engine/b.js'"), [/may not/])
  t.match(wrongImports('lib/engine/a.ts', "await import('../api/b.js')"), [/may not import/])
  t.match(wrongImports('lib/engine/a.ts', "import type { B } from '../index.js'"), [/may not/])
  t.match(wrongImports('lib/attic/a.ts', ''), [/not a room/])
  t.strictSame(wrongImports('lib/protocol/a.ts', "import { b } from './b/c.js'"), [])
  t.strictSame(wrongImports('lib/protocol/a.ts', "import { E } from '../errors.js'"), [])
  t.match(wrongIncludes('native/memory/a.cc', '#include "transport/tcp/a.h"\n'), [/may not/])
  t.match(wrongIncludes('native/transport/tcp/a.cc', '#include "memory/a.h"\n'), [/may not/])
  t.match(wrongIncludes('native/base/a.cc', '#include <napi.h>\n'), [/only binding/])
  t.match(wrongIncludes('native/memory/a.cc', '#include "a.h"\n'), [/write "memory\/a\.h"/])
  t.strictSame(wrongIncludes('native/addon.cc', '#include <napi.h>\n#include "binding/a.h"\n'), [])
  t.match(longLines('a', `${'x'.repeat(101)}\n`), ['a:1: longer than 100 columns'])
})
