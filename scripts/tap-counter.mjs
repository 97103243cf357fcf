/**
 * Counts what a stream of TAP says, line by line. Only assertions count: the line that sums up a
 * subtest counts when nothing inside it did, as when a test is empty or a process was killed.
 */
export class TapCounter {
  passed = 0
  failed = 0
  skipped = 0
  /** Called with the name of each finished top-level test (a file), and what was counted in it. */
  onFile = (_name, _counts) => {}
  /** Called with the path of names to each assertion that failed, and its diagnostic lines. */
  onFailure = (_names, _diagnostic) => {}

  /** The subtests that are open, outermost first, with the counts at their start. */
  #open = []
  /** The failed assertion whose diagnostic is being read. */
  #failure = undefined
  #yamlEnd = undefined

  read(line) {
    if (this.#yamlEnd !== undefined) {
      if (line !== this.#yamlEnd) this.#failure?.diagnostic.push(line.trimEnd())
      else this.#yamlEnd = undefined
      return
    }
    const yaml = line.match(/^( +)---$/)
    if (yaml !== null) {
      this.#yamlEnd = `${yaml[1]}...`
      return
    }
    const point = line.match(/^( *)(not )?ok\b(?: \d+)?(?: - )?(.*)$/)
    const subtest = line.match(/^( *)# Subtest: (.*)$/)
    if (point === null && subtest === null) return
    this.#endFailure()
    if (subtest !== null) this.#openSubtest(subtest[1].length, subtest[2])
    else this.#readPoint(point[1].length, point[2] === undefined, point[3])
  }

  end() {
    this.#endFailure()
  }

  #counts() {
    return { passed: this.passed, failed: this.failed, skipped: this.skipped }
  }

  #openSubtest(indent, name) {
    this.#open = this.#open.filter((test) => test.indent < indent)
    this.#open.push({ indent, name, before: this.#counts() })
  }

  #readPoint(indent, ok, text) {
    const at = this.#open.findIndex((test) => test.indent === indent)
    const test = at < 0 ? undefined : this.#open[at]
    this.#open = this.#open.filter((other) => other.indent < indent)
    const { before } = test ?? { before: this.#counts() }
    const nothingInside =
      this.passed === before.passed &&
      this.failed === before.failed &&
      this.skipped === before.skipped
    if (test === undefined || nothingInside || (!ok && this.failed === before.failed)) {
      this.#count(ok, text)
    }
    if (indent === 0) {
      const passed = this.passed - before.passed
      const failed = this.failed - before.failed
      const name = text.replace(/ # time=.*$/, '')
      this.onFile(name, { passed, failed, skipped: this.skipped - before.skipped })
    }
  }

  #count(ok, text) {
    if (/ # (SKIP|TODO)\b/i.test(text)) {
      this.skipped += 1
    } else if (ok) {
      this.passed += 1
    } else {
      this.failed += 1
      const names = [...this.#open.map((test) => test.name), text.replace(/ # time=.*$/, '')]
      this.#failure = { names, diagnostic: [] }
    }
  }

  #endFailure() {
    if (this.#failure === undefined) return
    this.onFailure(this.#failure.names, this.#failure.diagnostic)
    this.#failure = undefined
  }
}
