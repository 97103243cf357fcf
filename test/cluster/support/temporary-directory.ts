import * as fs from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { Test } from 'tap'

/** Goes with the test. Not `t.testdir`, whose place is in the checkout, where a guest cannot write. */
export function temporaryDirectory(t: Test): string {
  const directory = fs.mkdtempSync(path.join(tmpdir(), 'pagemesh-test-'))
  t.teardown(() => fs.rmSync(directory, { recursive: true, force: true }))
  return directory
}
