import * as fs from 'node:fs'
import path from 'node:path'
import ts from 'typescript'

/**
 * Compiles these folders of tests, with their programs, into `build/<name>`, where they stand
 * beside the same neighbours, and returns that folder. A compiler in every process of a test is
 * quick enough outside, but not in a guest.
 */
export function compileTests(name: string, parts: readonly string[]): string {
  const folder = path.resolve('build', name)
  fs.rmSync(folder, { recursive: true, force: true })
  const compilerOptions = { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ES2022 }
  for (const part of parts) {
    for (const source of fs.readdirSync(part, { recursive: true, encoding: 'utf8' })) {
      if (/\.[mc]js$/.test(source)) {
        const copy = path.join(folder, part, source)
        fs.mkdirSync(path.dirname(copy), { recursive: true })
        fs.copyFileSync(path.join(part, source), copy)
      }
      if (!source.endsWith('.ts')) continue
      const file = path.join(folder, part, source.replace(/\.ts$/, '.js'))
      fs.mkdirSync(path.dirname(file), { recursive: true })
      const text = fs.readFileSync(path.join(part, source), 'utf8')
      fs.writeFileSync(
        file,
        ts.transpileModule(text, { fileName: source, compilerOptions }).outputText,
      )
    }
  }
  for (const neighbour of ['dist', 'examples', 'test/fixtures']) {
    fs.symlinkSync(path.resolve(neighbour), path.join(folder, neighbour))
  }
  return folder
}
