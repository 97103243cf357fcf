import t from 'tap'
import { tellsTransport, TransportLine } from '../../dist/cli/transport-line.js'
import {
  formatJoinReport,
  parseJoinReport,
  type JoinReport,
} from '../../dist/cluster/join-report.js'

function lineFor(...reports: JoinReport[]): string[] {
  const lines: string[] = []
  const line = new TransportLine(reports.length, (text) => lines.push(text))
  for (const [rank, report] of reports.entries()) {
    t.same(lines, [], 'not before all have joined')
    line.joined(rank, report)
    line.joined(rank, { transport: 'tcp', detail: 'of a later mesh' })
  }
  return lines
}

const verbs: JoinReport = { transport: 'verbs', detail: 'rxe0 port 1' }
const shm: JoinReport = { transport: 'shm', detail: 'memory of this host' }
const tcp: JoinReport = { transport: 'tcp', detail: 'no device' }
const mixed: JoinReport = { transport: 'mixed', detail: 'rank 2: no device' }

t.test('one line for all members', async (t) => {
  t.same(lineFor(verbs, verbs), ['members reach each other by verbs (rxe0 port 1)'])
  t.same(lineFor(tcp, tcp), ['members reach each other by TCP: no device'])
  t.same(lineFor(shm, shm), ['members reach each other by shared memory'])
  const both = 'members reach each other in more than one way: rank 2: no device'
  t.same(lineFor(mixed, mixed, tcp), [both])
  t.same(lineFor(verbs, mixed), [both])
})

t.test('only where it was asked for', async (t) => {
  const told = (memberCount: number, transport?: string, environment: NodeJS.ProcessEnv = {}) =>
    tellsTransport({ memberCount, transport }, environment)
  t.equal(told(2, 'auto'), true)
  t.equal(told(2, undefined, { PAGEMESH_TRANSPORT: 'auto' }), true)
  t.equal(told(2), false)
  t.equal(told(2, 'verbs', { PAGEMESH_TRANSPORT: 'auto' }), false)
  t.equal(told(1, 'auto'), false)
})

t.test('a report goes over the pipe as one line, and nothing else counts as one', async (t) => {
  const report: JoinReport = { transport: 'tcp', detail: 'why\nnot' }
  const text = formatJoinReport(report)
  t.equal(text.indexOf('\n'), text.length - 1)
  t.same(parseJoinReport(text), { transport: 'tcp', detail: 'why not' })
  for (const line of ['', 'x', 'null', '7', '{}', '{"transport":"udp","detail":""}']) {
    t.equal(parseJoinReport(line), undefined, line)
  }
  t.equal(parseJoinReport('{"transport":"tcp","detail":7}'), undefined)
})
