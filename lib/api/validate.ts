import { PagemeshError } from '../errors.js'

const MAX_NAME_BYTES = 255

export function invalid(message: string): PagemeshError {
  return new PagemeshError('ERR_PAGEMESH_INVALID_ARGUMENT', message)
}

export function outOfRange(message: string): PagemeshError {
  return new PagemeshError('ERR_PAGEMESH_OUT_OF_RANGE', message)
}

/** How a value looks in a message. */
export function show(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.slice(0, 40))
  if (typeof value === 'bigint') return `${value}n`
  return typeof value === 'object' && value !== null ? 'an object' : String(value)
}

/** A name of a region, lock, semaphore or barrier: 1 to 255 bytes of UTF-8. */
export function checkName(what: string, name: unknown): string {
  if (typeof name !== 'string') {
    throw invalid(`the name of a ${what} must be a string, not ${show(name)}`)
  }
  const bytes = Buffer.byteLength(name)
  if (bytes === 0 || bytes > MAX_NAME_BYTES) {
    throw outOfRange(`the name of a ${what} must have 1 to ${MAX_NAME_BYTES} bytes, not ${bytes}`)
  }
  return name
}

/** A whole number within bounds, both included. */
export function checkInteger(what: string, value: unknown, least: number, most: number): number {
  if (typeof value !== 'number') throw invalid(`${what} must be a number, not ${show(value)}`)
  if (!Number.isInteger(value)) throw invalid(`${what} must be a whole number, not ${value}`)
  if (value < least || value > most) {
    throw outOfRange(`${what} must be ${least} to ${most}, not ${value}`)
  }
  return value
}

/** An options object; undefined stands for an empty one. */
export function checkOptions<T extends object>(what: string, options: T | undefined): T {
  if (options === undefined) return {} as T
  if (typeof options !== 'object' || (options as unknown) === null) {
    throw invalid(`the options of ${what} must be an object, not ${show(options)}`)
  }
  return options
}

export function checkAccess(access: unknown): 'read' | 'write' {
  if (access === 'read' || access === 'write') return access
  throw invalid(`access must be 'read' or 'write', not ${show(access)}`)
}
