// Runs a TypeScript program of test/ with what it imports from there: test/A/B.ts becomes
// build/A/B.js, so that `../../dist/` means the same. Types are the linter's business.
//
//   node scripts/run-typescript.mjs test/simulator/main.ts [arguments]
import * as fs from 'node:fs'
import * as path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const [program, ...args] = process.argv.slice(2)
const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)))
const outputOf = (source) =>
  path.join(root, 'build', path.relative(path.join(root, 'test'), source)).replace(/\.ts$/, '.js')
const isCurrent = (source, output) =>
  fs.existsSync(output) && fs.statSync(output).mtimeMs >= fs.statSync(source).mtimeMs

let typescript
const done = new Set()

async function compile(source) {
  if (done.has(source)) return
  done.add(source)
  const text = fs.readFileSync(source, 'utf8')
  const output = outputOf(source)
  if (!isCurrent(source, output)) {
    typescript ??= (await import('typescript')).default
    const { outputText } = typescript.transpileModule(text, {
      fileName: source,
      compilerOptions: { target: 'ES2022', module: 'ES2022', verbatimModuleSyntax: true },
    })
    fs.mkdirSync(path.dirname(output), { recursive: true })
    // Two runs at once must not see each other's half-written files.
    fs.writeFileSync(`${output}.${process.pid}`, outputText)
    fs.renameSync(`${output}.${process.pid}`, output)
  }
  for (const [, imported] of text.matchAll(/from '(\.[^']+)\.js'/g)) {
    const other = path.resolve(path.dirname(source), `${imported}.ts`)
    if (other.startsWith(path.join(root, 'test')) && fs.existsSync(other)) await compile(other)
  }
}

const source = path.resolve(root, program)
await compile(source)
process.argv.splice(1, process.argv.length - 1, source, ...args)
await import(pathToFileURL(outputOf(source)).href)
