import { randomBytes } from 'node:crypto'
import { PagemeshError } from '../errors.js'

/** The fewest bytes a mesh's key may have. */
export const minKeyLengthBytes = 16
/** The most bytes a mesh's key may have: one block of SHA-256, so that HMAC uses it as it is. */
export const maxKeyLengthBytes = 64

/** A fresh random key, as a launcher makes one for each run. */
export function generateKey(): Uint8Array {
  return new Uint8Array(randomBytes(32))
}

/** The key as PAGEMESH_KEY holds it. */
export function formatKey(key: Uint8Array): string {
  return Buffer.from(key).toString('hex')
}

/**
 * Checks a key and gives a copy of it. No message ever repeats the key.
 *
 * @param source - the variable or option that held it, for the message
 */
export function parseKey(value: unknown, source = 'the key'): Uint8Array {
  const expected = `${minKeyLengthBytes} to ${maxKeyLengthBytes} bytes`
  let key: Uint8Array
  if (value instanceof Uint8Array) {
    key = new Uint8Array(value)
  } else if (typeof value === 'string') {
    if (!/^(?:[0-9a-f]{2})*$/i.test(value)) {
      throw new PagemeshError(
        'ERR_PAGEMESH_INVALID_ARGUMENT',
        `${source} holds ${value.length} characters that are not all pairs of hexadecimal ` +
          `digits; expected ${expected} in hexadecimal`,
      )
    }
    key = new Uint8Array(Buffer.from(value, 'hex'))
  } else {
    throw new PagemeshError(
      'ERR_PAGEMESH_INVALID_ARGUMENT',
      `${source} is ${value === null ? 'null' : `of type ${typeof value}`}; ` +
        `expected ${expected} as a hexadecimal string or a Uint8Array`,
    )
  }
  if (key.length < minKeyLengthBytes || key.length > maxKeyLengthBytes) {
    throw new PagemeshError(
      'ERR_PAGEMESH_OUT_OF_RANGE',
      `${source} has ${key.length} bytes; expected ${expected}`,
    )
  }
  return key
}
