const FIELDS = 5 // kind, page, from, a, b
const SMALLEST = 64 // messages at first

/**
 * Messages of a member to itself: written while others are read, and forgotten all at once.
 * Allocates nothing once there is room for as many as one step brings about.
 */
export class LocalMessages {
  /** How many have been written since the last `forget`. */
  length = 0
  private fields = new Int32Array(SMALLEST * FIELDS)

  push(kind: number, page: number, from: number, a: number, b: number): void {
    const at = this.length * FIELDS
    if (at === this.fields.length) this.grow()
    const { fields } = this
    fields[at] = kind
    fields[at + 1] = page
    fields[at + 2] = from
    fields[at + 3] = a
    fields[at + 4] = b
    this.length++
  }

  kind(index: number): number {
    return this.fields[index * FIELDS]
  }

  page(index: number): number {
    return this.fields[index * FIELDS + 1]
  }

  from(index: number): number {
    return this.fields[index * FIELDS + 2]
  }

  a(index: number): number {
    return this.fields[index * FIELDS + 3]
  }

  b(index: number): number {
    return this.fields[index * FIELDS + 4]
  }

  forget(): void {
    this.length = 0
  }

  private grow(): void {
    const more = new Int32Array(2 * this.fields.length)
    more.set(this.fields)
    this.fields = more
  }
}
