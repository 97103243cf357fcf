/** Something that happens at a virtual time, in nanoseconds. */
interface Event {
  readonly atNs: number
  /** Tells events of one moment apart: first planned, first served. */
  readonly order: number
  readonly run: () => void
}

/** Virtual time: a heap of what is to happen. Nothing here knows of real time. */
export class Clock {
  nowNs = 0
  private readonly heap: Event[] = []
  private planned = 0

  get pendingCount(): number {
    return this.heap.length
  }

  at(atNs: number, run: () => void): void {
    const event = { atNs: Math.max(this.nowNs, Math.round(atNs)), order: this.planned++, run }
    const { heap } = this
    let index = heap.push(event) - 1
    while (index > 0) {
      const parent = (index - 1) >> 1
      if (!before(event, heap[parent])) break
      heap[index] = heap[parent]
      index = parent
    }
    heap[index] = event
  }

  after(delayNs: number, run: () => void): void {
    this.at(this.nowNs + delayNs, run)
  }

  /** Runs the next event; false if there is none. */
  step(): boolean {
    const { heap } = this
    const first = heap[0]
    if (heap.length === 0) return false
    const last = heap.pop()!
    if (heap.length > 0) this.sink(last)
    this.nowNs = first.atNs
    first.run()
    return true
  }

  private sink(event: Event): void {
    const { heap } = this
    let index = 0
    for (;;) {
      let child = 2 * index + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && before(heap[child + 1], heap[child])) child++
      if (!before(heap[child], event)) break
      heap[index] = heap[child]
      index = child
    }
    heap[index] = event
  }
}

const before = (one: Event, other: Event): boolean =>
  one.atNs < other.atNs || (one.atNs === other.atNs && one.order < other.order)
