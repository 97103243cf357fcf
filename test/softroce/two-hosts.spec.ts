import { PassThrough } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { runGuests } from '../../dist/cli/softroce/guest-run.js'
import { type Guest } from '../../dist/cli/softroce/guest.js'
import { parseSoftroceRun } from '../../dist/cli/softroce/options.js'
import { prepare, runTasks } from '../../dist/cli/softroce/softroce.js'

// A mesh over two machines whose cable is pulled, and of which one is killed, in the middle of a
// run. test/fixtures/softroce/two-hosts.mjs says what the members do.

/** Far beyond what a step takes, so that only a real hang ends in it. */
const patienceMs = 400_000
const program = 'test/fixtures/softroce/two-hosts.mjs'

/** What a member says in a line of JSON. */
interface Line {
  readonly part: number
  readonly rank: number
  readonly what: string
  readonly [more: string]: unknown
}

/** The members' lines as they come. */
class Progress {
  readonly stdout = new PassThrough()
  readonly stderr = new PassThrough()
  errors = ''
  private readonly lines: Line[] = []
  private rest = ''
  private notify: () => void = () => undefined

  constructor() {
    this.stdout.setEncoding('utf8').on('data', (text: string) => {
      const lines = (this.rest + text).split('\n')
      this.rest = lines.pop() ?? ''
      this.lines.push(...lines.map((line) => JSON.parse(line) as Line))
      this.notify()
    })
    this.stderr.setEncoding('utf8').on('data', (text: string) => (this.errors += text))
  }

  /** What each of these ranks says, in their order, once all have said it. */
  async said(part: number, what: string, ranks: readonly number[]): Promise<Line[]> {
    const abort = new AbortController()
    const late = sleep(patienceMs, 'late', { signal: abort.signal }).catch(() => 'heard')
    try {
      for (;;) {
        const found = ranks.map((rank) =>
          this.lines.find((l) => l.part === part && l.what === what && l.rank === rank),
        )
        if (found.every((line) => line !== undefined)) return found
        const more = new Promise((resolve) => (this.notify = () => resolve('more')))
        if ((await Promise.race([more, late])) === 'more') continue
        const heard = this.lines.map((line) => JSON.stringify(line)).join('\n')
        throw new Error(`part ${part}: no '${what}' of all ranks:\n${heard}\n${this.errors}`)
      }
    } finally {
      abort.abort()
    }
  }
}

type Counters = Readonly<Record<string, number>>

/** Faults of both kinds on both sides, by packets that both devices have counted. */
function checkWork(t: Test, lines: readonly Line[]): void {
  for (const line of lines) {
    const [before, after] = [line.before, line.after] as [Counters, Counters]
    const faults = Number(line.readFaults) + Number(line.writeFaults)
    const packets = faults + Number(line.pagesReceived)
    t.equal(line.transport, 'verbs')
    t.ok(faults >= 10, `rank ${line.rank}: ${faults} faults`)
    t.ok(Number(line.verbsMessages) >= faults)
    // A page comes in a packet of its own, and its record in another.
    for (const name of ['sent_pkts', 'rcvd_pkts']) {
      const growth = after[name] - before[name]
      t.ok(growth >= packets, `rank ${line.rank}: ${name} grew by ${growth} of at least ${packets}`)
    }
  }
}

const codes = /^ERR_PAGEMESH_(MEMBER_DOWN|PAGE_LOST)$/

/** Who is not there any more, and how the others say so. */
function checkDown(t: Test, lines: readonly Line[], gone: readonly number[], reason: RegExp): void {
  for (const line of lines) {
    // What waited for a page that the member owned may be told of the page.
    t.match(line.code, codes, `rank ${line.rank}: ${String(line.message)}`)
    t.ok(gone.includes(Number(line.of)), `rank ${line.rank} names rank ${String(line.of)}`)
    // Who manages a lock or a barrier may be quicker to tell than one's own link.
    const told = String(line.message).includes(bySomebody)
    if (line.code === 'ERR_PAGEMESH_MEMBER_DOWN' && !told) t.match(line.message, reason)
  }
}

const bySomebody = 'another member says so'
const bySilence = /nothing was heard of it for \d+ ms/
const byLink = /its link failed: transport retry counter exceeded \(verbs status 12\)/

t.test('a mesh over two machines, and the end of the cable and of a machine', async (t) => {
  const request = parseSoftroceRun(['--hosts=2', '-n3', '--keep-going', '--no-prefix', program])
  if (request === 'help') throw new Error('not asked for')
  await prepare(request.machines)
  const progress = new Progress()
  let guests: readonly Guest[] = []
  // tap puts options of its own into the environment of what a test starts.
  const tasks = (await runTasks(request)).map((task) => ({
    ...task,
    environment: { ...task.environment, NODE_OPTIONS: '' },
  }))
  const ended = runGuests(tasks, {
    stdout: progress.stdout,
    stderr: progress.stderr,
    keepGoing: true,
    onStarted: (started) => (guests = started),
  })
  t.teardown(async () => {
    for (const guest of guests) guest.kill()
    await ended
  })
  const all = [0, 1, 2]

  /** Members of both sides find each other gone, and keep what they have. */
  const checkCut = async (t: Test, part: number, reason: RegExp): Promise<void> => {
    await progress.said(part, 'running', all)
    await guests[1].setLink(false)
    for (const what of ['down', 'later']) {
      const lines = await progress.said(part, what, all)
      checkDown(t, lines.slice(0, 2), [2], reason)
      checkDown(t, lines.slice(2), [0, 1], reason)
    }
    const pages = await progress.said(part, 'pages', all)
    for (const { sum } of pages) t.equal(sum, 108, 'pages that its own machine homes and holds')
    await progress.said(part, 'left', all)
    await guests[1].setLink(true)
  }

  await t.test('faults, a lock and barriers over verbs', async (t) => {
    checkWork(t, await progress.said(0, 'worked', all))
  })
  await t.test('the cable is pulled while pages move', async (t) => checkCut(t, 0, byLink))
  await t.test('the cable is pulled while all wait', async (t) => checkCut(t, 1, byLink))
  await t.test('and over TCP, where heartbeats are all there is', async (t) =>
    checkCut(t, 2, bySilence),
  )
  await t.test('a machine is killed', async (t) => {
    await progress.said(3, 'running', all)
    guests[1].kill('the test wants it')
    for (const what of ['down', 'later']) {
      checkDown(t, await progress.said(3, what, [0, 1]), [2], byLink)
    }
    for (const { sum } of await progress.said(3, 'pages', [0, 1])) t.equal(sum, 108)
    await progress.said(3, 'left', [0, 1])
    t.equal(await ended, 1)
    t.equal(progress.errors, 'pagemesh: host 1 has ended: the test wants it\n')
  })
})
