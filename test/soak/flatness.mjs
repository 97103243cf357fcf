// Whether a process stays as large as it is: samples of /proc, and a judgement over them.
import { readdirSync, readFileSync } from 'node:fs'

/**
 * How much the mean of the last third may exceed that of the first third. Resident size moves with
 * garbage collection; the others are counts of things that a run opens and closes again.
 */
export const tolerances = {
  residentBytes: { share: 0.2, least: 16 * 2 ** 20 },
  descriptors: { share: 0, least: 2 },
  mappings: { share: 0.05, least: 24 },
  threads: { share: 0, least: 1 },
}

export function sampleProcess(pid) {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return {
    residentBytes: Number(/^VmRSS:\s*(\d+) kB$/m.exec(status)[1]) * 1024,
    descriptors: readdirSync(`/proc/${pid}/fd`).length,
    mappings: readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n').length - 1,
    threads: Number(/^Threads:\s*(\d+)$/m.exec(status)[1]),
  }
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length

/** What has grown beyond its tolerance; empty if all is flat. Too few samples are an error. */
export function growths(samples) {
  const third = Math.floor(samples.length / 3)
  if (third < 3) throw new Error(`${samples.length} samples are too few to tell`)
  const found = []
  for (const [name, { share, least }] of Object.entries(tolerances)) {
    const values = samples.map((sample) => sample[name])
    if (!values.every(Number.isFinite)) throw new Error(`a sample has no ${name}`)
    const first = mean(values.slice(0, third))
    const last = mean(values.slice(-third))
    if (last > first + Math.max(first * share, least)) found.push({ name, first, last })
  }
  return found
}
