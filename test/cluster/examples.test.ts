import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { PNG } from 'pngjs'
import t from 'tap'
import * as heat from '../../examples/heat/plate.mjs'
import * as pagerank from '../../examples/pagerank/compute.mjs'
import { nodeOptions, slowness } from './support/machine.js'
import { temporaryDirectory } from './support/temporary-directory.js'

const root = fileURLToPath(new URL('../../', import.meta.url))

interface Outcome {
  exitCode: number
  stdout: string
  stderr: string
}

/** Runs a program to its end. A program that does not end in time counts as failed. */
function run(args: string[]): Promise<Outcome> {
  return new Promise((resolve) => {
    const options = {
      cwd: root,
      env: { ...process.env, NODE_OPTIONS: nodeOptions },
      timeout: 60_000 * slowness,
      killSignal: 'SIGTERM',
    } as const
    execFile(process.execPath, args, options, (error, stdout, stderr) => {
      const exitCode = error === null ? 0 : typeof error.code === 'number' ? error.code : -1
      resolve({ exitCode, stdout, stderr })
    })
  })
}

function runExample(memberCount: number, program: string, ...args: string[]): Promise<Outcome> {
  const launch = ['dist/cli/main.js', 'run', '-n', String(memberCount), '--no-prefix']
  return run([...launch, join('examples', program), ...args])
}

/** The table's rows as numbers, one for each member. */
function memberRows(stdout: string): number[][] {
  const [, table = ''] = stdout.split('What each member moved:\n')
  const [, ...lines] = table.split('\n\n')[0].split('\n')
  return lines.map((line) =>
    line
      .trim()
      .split(/\s+/)
      .map((cell) => Number(cell.replaceAll(',', ''))),
  )
}

t.test('PageRank by three members', async (t) => {
  const { exitCode, stdout, stderr } = await runExample(3, 'pagerank.mjs', '--limit', '5000')
  t.equal(exitCode, 0, stderr)
  t.equal(stderr, '')
  t.match(stdout, /^WordNet: 5,000 synsets, \d+,\d+ relations/)
  t.match(stdout, /^PageRank: \d+\/100  change \d/m)
  t.equal(stdout.match(/^ ?\d+\. 0\.\d{8}  .* \((noun|verb|adj|adv)\)\n {16}\S/gm)?.length, 10)
  t.match(stdout, /^Same scores: largest relative difference \S+, below 1e-9$/m)

  const rows = memberRows(stdout)
  t.strictSame(
    rows.map(([rank]) => rank),
    [0, 1, 2],
  )
  t.ok(
    rows.flat().every((value) => value >= 0),
    'every figure is a number',
  )
  const pagesReceived = rows.map(([, , , pages]) => pages)
  t.ok(
    pagesReceived.every((pages) => pages > 0),
    'every member has got pages of others',
  )
})

t.test('PageRank with more members than pages of scores', async (t) => {
  const { exitCode, stdout, stderr } = await runExample(3, 'pagerank.mjs', '--limit', '3')
  t.equal(exitCode, 0, stderr)
  t.match(stdout, 'Same scores')
})

t.test('heat on a plate by two members', async (t) => {
  const outPath = join(temporaryDirectory(t), 'heat.png')
  const options = ['--size', '64', '--steps', '50', '--out', outPath]
  const { exitCode, stdout, stderr } = await runExample(2, 'heat.mjs', ...options)
  t.equal(exitCode, 0, stderr)
  t.equal(stderr, '')
  t.match(stdout, /^Heat: 50\/50$/m)
  t.match(stdout, /^Same temperatures, bit for bit$/m)
  t.match(stdout, `Picture: ${outPath}`)
  t.equal(memberRows(stdout).length, 2)

  const picture = PNG.sync.read(readFileSync(outPath))
  t.strictSame([picture.width, picture.height], [768, 768])
  const colours = new Set<number>()
  for (let i = 0; i < picture.data.length; i += 4) colours.add(picture.data.readUInt32BE(i))
  t.ok(colours.size > 100, `${colours.size} colours`)
})

t.test('options that make no sense end the run before it begins', async (t) => {
  const outPath = join(temporaryDirectory(t), 'heat.png')
  const cases = [
    ['heat.mjs', '--size', '7', '--out', outPath],
    ['heat.mjs', '--steps', 'many', '--out', outPath],
    ['heat.mjs', '--sise', '64', '--out', outPath],
    ['pagerank.mjs', '--limit', '-1'],
    ['pagerank.mjs', '--limit=0'],
  ] as const
  for (const [program, ...args] of cases) {
    const { exitCode, stderr } = await runExample(2, program, ...args)
    t.equal(exitCode, 1, `${program} ${args.join(' ')}`)
    t.match(stderr, /RangeError|ERR_PARSE_ARGS/)
  }
  t.notOk(existsSync(outPath))
})

t.test('the demo passes the exit code on', async (t) => {
  const refused = await run(['examples/demo.mjs', '--members', '0'])
  t.equal(refused.exitCode, 1)
  t.match(refused.stderr, '--members should be')
  // More than a mesh can have: the launcher says so.
  const tooMany = await run(['examples/demo.mjs', '--members', '1000'])
  t.equal(tooMany.exitCode, 2)
  t.notMatch(tooMany.stdout, 'Next, a picture')
})

t.test('the scores of a small graph', async (t) => {
  // Rows 0 and 1 point to row 2, which points to row 0. Row 3 points nowhere.
  const graph = {
    offsets: Uint32Array.of(0, 1, 1, 3, 3),
    sources: Uint32Array.of(2, 0, 1),
    outDegrees: Uint32Array.of(1, 1, 1, 0),
  }
  const { scores } = pagerank.computeAlone(graph)
  const [a, b, c, d] = scores as unknown as [number, number, number, number]
  // What the fixed point has to satisfy, written out by hand.
  const floor = (0.15 + 0.85 * d) / 4
  const expected = [floor + 0.85 * c, floor, floor + 0.85 * (a + b), floor]
  t.ok(pagerank.largestRelativeDifference(scores, Float64Array.from(expected)) < 1e-6)
  t.ok(Math.abs(a + b + c + d - 1) < 1e-12)
  t.strictSame(pagerank.highestRows(scores, 2), [2, 0])
})

t.test('differences are relative, and never hidden by NaN', async (t) => {
  const scores = Float64Array.of(1, 1e-6)
  const off = Float64Array.of(1, 1.1e-6)
  t.ok(Math.abs(pagerank.largestRelativeDifference(off, scores) - 0.1) < 1e-9)
  t.ok(Number.isNaN(pagerank.largestRelativeDifference(Float64Array.of(NaN, 1e-6), scores)))
  t.ok(Number.isNaN(pagerank.largestRelativeDifference(scores.subarray(1), scores)))
})

t.test('shares cover all rows once, in order', async (t) => {
  for (const rowCount of [1, 3, 64, 500, 5000]) {
    const offsets = Uint32Array.from({ length: rowCount + 1 }, (_, row) => row * 3)
    for (const shareCount of [1, 2, 3, 5, 32]) {
      const name = `${rowCount} rows, ${shareCount} shares`
      const shares = [
        pagerank.balancedBounds(offsets, shareCount, 512),
        heat.rowBounds(rowCount, shareCount, 512),
      ]
      for (const bounds of shares) {
        t.equal(bounds.length, shareCount + 1, name)
        t.strictSame([bounds[0], bounds[shareCount]], [0, rowCount], name)
        t.ok(
          bounds.every((bound, i) => i === 0 || bound >= bounds[i - 1]),
          name,
        )
      }
    }
  }
  const skewed = Uint32Array.from({ length: 5001 }, (_, row) => Math.min(row, 512) * 1000)
  t.strictSame(pagerank.balancedBounds(skewed, 2, 512), [0, 512, 5000])
  t.strictSame(heat.rowBounds(512, 4, 512), [0, 128, 256, 384, 512])
})

t.test('no heat goes through an insulated wall, and the plate settles', async (t) => {
  const plate = heat.makePlate(64)
  const cells = heat.computeAlone(plate, 20_000)
  t.ok(cells.every((cell) => cell >= 0 && cell <= 1))
  const middle = 32 * 64 + 32
  t.ok(cells[middle] > 0.99, 'inside the hot ring')
  const { insulated } = heat.cellKinds
  t.ok(plate.kinds.some((kind) => kind === insulated))
  const walls = cells.filter((_, i) => plate.kinds[i] === insulated)
  t.ok(
    walls.every((cell) => cell === 0),
    'walls take no heat',
  )
  const next = cells.slice()
  heat.stepRows(plate, cells, next, 0, plate.size)
  t.ok(
    next.every((cell, i) => Math.abs(cell - cells[i]) < 1e-9),
    'nothing changes any more',
  )
})
