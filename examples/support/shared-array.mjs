/** A typed array over a region of its own, and the rounding to whole pages that goes with it. */

/** The page size of regions that do not ask for another. */
export const pageBytes = 4096

/** @param {number} byteLength */
export function roundUpToPage(byteLength) {
  return Math.max(1, Math.ceil(byteLength / pageBytes)) * pageBytes
}

/**
 * @template {Float64Array | Uint32Array} View
 */
export class SharedArray {
  /**
   * @param {import('pagemesh').Region} region
   * @param {View} values
   */
  constructor(region, values) {
    this.region = region
    this.values = values
  }

  /**
   * Opens the region `name`, which every member does with the same length.
   * @template {Float64Array | Uint32Array} View
   * @param {import('pagemesh').Mesh} mesh
   * @param {string} name
   * @param {{ new (buffer: SharedArrayBuffer, byteOffset: number, length: number): View,
   *   BYTES_PER_ELEMENT: number }} ViewClass
   * @param {number} length
   * @param {'block' | 'cyclic' | { rank: number }} [placement]
   */
  static async open(mesh, name, ViewClass, length, placement = 'block') {
    const byteLength = roundUpToPage(length * ViewClass.BYTES_PER_ELEMENT)
    const region = await mesh.region(name, { byteLength, placement })
    return new SharedArray(region, new ViewClass(region.buffer, 0, length))
  }

  /**
   * Brings the pages of elements start … end - 1 in one round. Without it each page would come when
   * it is first touched: that is right too, but the thread, and so the event loop, stands still for
   * every one of them.
   * @param {'read' | 'write'} access @param {number} [start] @param {number} [end]
   */
  async prefetch(access, start = 0, end = this.values.length) {
    if (start >= end) return
    const elementBytes = this.values.BYTES_PER_ELEMENT
    const fromByte = Math.floor((start * elementBytes) / pageBytes) * pageBytes
    const toByte = roundUpToPage(end * elementBytes)
    await this.region.prefetch(fromByte, toByte - fromByte, access)
  }
}
