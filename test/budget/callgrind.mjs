import * as fs from 'node:fs'

/**
 * Reads what callgrind wrote: the instructions that each function itself executed, those it called
 * not included. The format is in valgrind's manual, "Callgrind Format Specification".
 * @param {string} text
 * @param {string} [object] only of functions of objects whose paths end so
 * @returns {Map<string, number>} by the function's name
 */
export function selfCosts(text, object = '') {
  const names = new Map() // "fn 12" → what number 12 stands for among functions
  const costs = new Map()
  let inObject = object === ''
  let current
  let skipsNext = false
  for (const line of text.split('\n')) {
    const position = /^(c?(?:fn|ob))=\((\d+)\)(?: (.*))?$/.exec(line)
    if (position !== null) {
      const [, what, number, name] = position
      const key = `${what.endsWith('fn') ? 'fn' : 'ob'} ${number}`
      if (name !== undefined) names.set(key, name)
      if (what === 'ob') inObject = names.get(key)?.endsWith(object) === true
      if (what === 'fn') current = names.get(key)
    } else if (line.startsWith('calls=')) {
      skipsNext = true // the next line is what the call costs, which the callee has as its own
    } else if (/^[+\-*\d]\S* \d+$/.test(line)) {
      if (!skipsNext && inObject && current !== undefined) {
        const cost = Number(line.slice(line.indexOf(' ') + 1))
        costs.set(current, (costs.get(current) ?? 0) + cost)
      }
      skipsNext = false
    }
  }
  return costs
}

/**
 * @param {string} prefix of the file that holds the counts of one process
 * @param {number} part counted from 1
 */
export function readPart(prefix, part) {
  return fs.readFileSync(`${prefix}.${part}`, 'utf8')
}
