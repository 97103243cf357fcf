import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const read = (name: string): string =>
  readFileSync(fileURLToPath(new URL(`../../${name}`, import.meta.url)), 'utf8')

interface Reference {
  readonly file: string
  readonly name: string
}

/** Where a text names tests: `file`: "name", "name" */
function referencesOf(text: string): Reference[] {
  return [...text.matchAll(/`(test\/[\w./-]+\.ts)`: ((?:"[^"]+"(?:, (?="))?)+)/g)].flatMap(
    ([, file = '', names = '']) =>
      [...names.matchAll(/"([^"]+)"/g)].map(([, name = '']) => ({ file, name })),
  )
}

/** The names that are given to tests in a file, as they are written there. */
function testsIn(source: string): string[] {
  return [...source.matchAll(/\bt\.test\(\s*(['"`])(.*?)\1,/gs)].map(([, , name = '']) => name)
}

function missing(references: readonly Reference[], sourceOf: (file: string) => string): string[] {
  return references
    .filter(({ file, name }) => !testsIn(sourceOf(file)).includes(name))
    .map(({ file, name }) => `${file}: ${name}`)
}

/** Statements that name no test. */
function unproven(text: string): string[] {
  return text.split('\n').filter((line) => line.startsWith('- ') && referencesOf(line).length === 0)
}

const document = read('docs/memory-model.md')

t.test(
  'every statement of docs/memory-model.md names a test, and each of them exists',
  async (t) => {
    const references = referencesOf(document)
    t.ok(references.length > 40, `${references.length} references`)
    t.same(missing(references, read), [])
    t.same(unproven(document), [])
    // None has slipped through the pattern.
    const mentions = document.split('\n').filter((line) => line.startsWith('- '))
    const files = mentions.flatMap((line) => line.match(/`test\/[\w./-]+`/g) ?? [])
    const named = new Set(references.map(({ file }) => `\`${file}\``))
    t.same(
      files.filter((file) => !named.has(file)),
      [],
    )
  },
)

t.test('README.md leads there', async (t) => {
  t.match(read('README.md'), '(docs/memory-model.md)')
})

t.test('the rule can fail', async (t) => {
  const references = referencesOf(
    '- So. (`test/a.test.ts`: "one", "two"; `test/b.test.ts`: "three")',
  )
  t.same(references, [
    { file: 'test/a.test.ts', name: 'one' },
    { file: 'test/a.test.ts', name: 'two' },
    { file: 'test/b.test.ts', name: 'three' },
  ])
  const source = `t.test('one', async (t) => {})\n  t.test("three", { timeout: 1 }, (t) => {})`
  t.same(
    missing(references, () => source),
    ['test/a.test.ts: two'],
  )
  t.same(unproven('- believe me\nwords\n- so (`test/a.test.ts`: "one")'), ['- believe me'])
})
