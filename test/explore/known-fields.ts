/**
 * What a world writes down of an object must be all that changes in it. A field that nobody has
 * thought of is an error before the first step, unless it is empty; and it must stay so.
 */
export class KnownFields {
  private readonly mustStayEmpty: { owner: object; key: string; size: () => number }[] = []

  /** @param known the fields that are written, or that never change */
  check(owner: object, known: readonly string[]): void {
    for (const [key, value] of Object.entries(owner) as [string, unknown][]) {
      if (typeof value === 'function' || known.includes(key)) continue
      const size = emptySize(value)
      if (size === undefined) {
        throw new Error(
          `the explorer does not know what '${key}' of a ${owner.constructor.name} holds: ` +
            'it has to be written down with the state (test/explore/*-world.ts)',
        )
      }
      this.mustStayEmpty.push({ owner, key, size })
    }
  }

  checkEmpty(): void {
    for (const { owner, key, size } of this.mustStayEmpty) {
      if (size() !== 0) throw new Error(`'${key}' of a ${owner.constructor.name} has been filled`)
    }
  }
}

/** How to ask for the size of a collection, or of all that an object consists of. */
function emptySize(value: unknown): (() => number) | undefined {
  if (value instanceof Map || value instanceof Set) return () => value.size
  if (Array.isArray(value)) return () => value.length
  if (ArrayBuffer.isView(value)) return () => value.byteLength
  if (typeof value !== 'object' || value === null) return undefined
  const parts = Object.values(value).map(emptySize)
  if (parts.some((part) => part === undefined)) return undefined
  return () => parts.reduce((sum, part) => sum + part!(), 0)
}
