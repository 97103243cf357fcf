/** States and their keys: packed bytes, a hash of 64 bits, and a table of hashes. */

export class ByteWriter {
  bytes: Uint8Array = new Uint8Array(1024)
  length = 0

  put(value: number): void {
    if (this.length === this.bytes.length) this.grow()
    this.bytes[this.length++] = value
  }

  private grow(): void {
    const more = new Uint8Array(2 * this.bytes.length)
    more.set(this.bytes)
    this.bytes = more
  }
}

export class ByteReader {
  private bytes: Uint8Array = new Uint8Array(0)
  private at = 0

  begin(bytes: Uint8Array, from: number): void {
    this.bytes = bytes
    this.at = from
  }

  take(): number {
    return this.bytes[this.at++]
  }
}

/**
 * Two hashes of 32 bits over the same bytes, each of them MurmurHash3 (Appleby, 2011) with a seed of
 * its own. Among n states the chance that any two share both is at most n² / 2⁶⁵: for ten million
 * states, one in 370,000.
 */
export class Hash64 {
  high = 0
  low = 0

  of(bytes: Uint8Array, length: number): void {
    let a = 0x9747b28c
    let b = 0x3c6ef372
    let at = 0
    for (; at + 4 <= length; at += 4) {
      const word = bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24)
      a = mixIn(a, word)
      b = mixIn(b, word)
    }
    let tail = 0
    for (let shift = 0; at < length; at++, shift += 8) tail |= bytes[at] << shift
    this.high = finish(mixIn(a, tail) ^ length)
    this.low = finish(mixIn(b, tail) ^ Math.imul(length, 0x9e3779b1))
  }

  isBelow(high: number, low: number): boolean {
    return this.high < high || (this.high === high && this.low < low)
  }
}

function mixIn(hash: number, word: number): number {
  const mixed = Math.imul(word, 0xcc9e2d51)
  const turned = hash ^ Math.imul((mixed << 15) | (mixed >>> 17), 0x1b873593)
  return (Math.imul((turned << 13) | (turned >>> 19), 5) + 0xe6546b64) | 0
}

function finish(hash: number): number {
  let mixed = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35)
  return (mixed ^ (mixed >>> 16)) >>> 0
}

/** Numbers keys in the order in which they come. Open addressing, at most half full. */
export class KeyTable {
  private keys = new Uint32Array(2 * 1024)
  /** The number of the key plus one; 0 is a free place. */
  private numbers = new Uint32Array(1024)
  size = 0

  /** The key's number. It is new if that is the size before the call. */
  add(high: number, low: number): number {
    if (2 * this.size >= this.numbers.length) this.grow()
    const place = this.placeOf(high, low)
    if (this.numbers[place] === 0) this.put(place, high, low, ++this.size)
    return this.numbers[place] - 1
  }

  private placeOf(high: number, low: number): number {
    const mask = this.numbers.length - 1
    let place = low & mask
    while (
      this.numbers[place] !== 0 &&
      (this.keys[2 * place] !== high || this.keys[2 * place + 1] !== low)
    ) {
      place = (place + 1) & mask
    }
    return place
  }

  private put(place: number, high: number, low: number, number: number): void {
    this.keys[2 * place] = high
    this.keys[2 * place + 1] = low
    this.numbers[place] = number
  }

  private grow(): void {
    const { keys, numbers } = this
    this.keys = new Uint32Array(2 * keys.length)
    this.numbers = new Uint32Array(2 * numbers.length)
    for (let place = 0; place < numbers.length; place++) {
      if (numbers[place] === 0) continue
      const high = keys[2 * place]
      const low = keys[2 * place + 1]
      this.put(this.placeOf(high, low), high, low, numbers[place])
    }
  }
}

/** A list of numbers below 2³² that may become very long. */
export class NumberList {
  private values = new Uint32Array(1024)
  length = 0

  push(value: number): void {
    if (this.length === this.values.length) {
      const more = new Uint32Array(2 * this.values.length)
      more.set(this.values)
      this.values = more
    }
    this.values[this.length++] = value
  }

  at(index: number): number {
    return this.values[index]
  }
}
