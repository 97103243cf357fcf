import * as fs from 'node:fs'
import path from 'node:path'
import ts from 'typescript'

const folder = path.resolve('build/suites')

/**
 * Compiles `test/cluster` into a folder that stands beside the same neighbours, and returns where.
 * A compiler in every process of a test is quick enough outside, but not in a guest.
 */
export function compileClusterTests(): string {
  fs.rmSync(folder, { recursive: true, force: true })
  const into = path.join(folder, 'test/cluster')
  for (const name of fs.readdirSync('test/cluster', { recursive: true, encoding: 'utf8' })) {
    if (!name.endsWith('.ts')) continue
    const file = path.join(into, name.replace(/\.ts$/, '.js'))
    fs.mkdirSync(path.dirname(file), { recursive: true })
    const { outputText } = ts.transpileModule(
      fs.readFileSync(path.join('test/cluster', name), 'utf8'),
      {
        fileName: name,
        compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ES2022 },
      },
    )
    fs.writeFileSync(file, outputText)
  }
  for (const neighbour of ['dist', 'examples', 'test/fixtures']) {
    fs.symlinkSync(path.resolve(neighbour), path.join(folder, neighbour))
  }
  return into
}
