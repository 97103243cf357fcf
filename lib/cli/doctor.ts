import {
  checkMachine,
  type DoctorRequest,
  type Finding,
  type FindingStatus,
} from './doctor-checks.js'
import type { Machine } from './machine.js'
import { colour, paint, wantsColour } from './terminal.js'

const marks: Readonly<Record<FindingStatus, { readonly text: string; readonly code: number }>> = {
  ok: { text: 'ok     ', code: colour.green },
  note: { text: 'note   ', code: colour.yellow },
  problem: { text: 'problem', code: colour.red },
}

/** Prints what the machine can do. Returns the exit code: 1 if pagemesh cannot work on it. */
export async function runDoctor(
  machine: Machine,
  options: DoctorRequest & { readonly json: boolean },
  output: NodeJS.WritableStream & { readonly isTTY?: boolean } = process.stdout,
): Promise<number> {
  const findings = await checkMachine(machine, options)
  const text = options.json
    ? `${JSON.stringify(findings, undefined, 2)}\n`
    : formatFindings(findings, wantsColour(output))
  output.write(text)
  return findings.some((finding) => finding.status === 'problem') ? 1 : 0
}

/** One line for each finding; details and advice stand below it. */
export function formatFindings(findings: readonly Finding[], coloured: boolean): string {
  const nameWidth = Math.max(0, ...findings.map((finding) => finding.name.length))
  const indent = ' '.repeat(marks.ok.text.length + nameWidth + 4)
  let text = ''
  for (const { name, status, value, details = [], advice } of findings) {
    const mark = marks[status]
    const shown = coloured ? paint(mark.text, mark.code) : mark.text
    text += `${shown}  ${name.padEnd(nameWidth)}  ${value}\n`
    for (const line of [...details, ...(advice?.split('\n') ?? [])]) text += `${indent}${line}\n`
  }
  return text
}
