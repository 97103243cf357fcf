import type { Addon } from '../native/addon.js'
import { BARRIER_SLOTS, BarrierWords, NO_BARRIER_SLOT } from '../protocol/barrier-words.js'
import type { EngineClient } from './engine-client.js'
import { keyOf } from './semaphore.js'

/** What the program's thread knows of a barrier that it has come to lately. */
interface Place {
  readonly name: string
  readonly key: number
  /** Its words among the barrier words. */
  slot: number
  /** The engine has given the slot to it. */
  bound: boolean
  /** How many arrivals the engine was asked for, and has not answered: they come first. */
  asked: number
  /** How often this thread may still wait in vain by itself before it lets the engine wait. */
  trust: number
  /** Waits that were left to the engine since. */
  left: number
}

/** How many names are remembered that have no slot: one that comes again gets one. */
const MOST_NAMES = 1024

/** How long a thread whose event loop should go on may stand still, and one that has none. */
const AWAIT_US = 200
const SLICE_US = 50_000

const MOST_TRUST = 3
/** While waiting by itself is in vain, a thread tries it once in so many times. */
const TRY_ONE_IN = 8

/**
 * Barriers, on the side of the program's thread. A name that is used again gets a slot, and then
 * the thread comes to the barrier by itself: it counts its arrival, tells all others, and sees when
 * all have come, without its engine. The engine waits where that takes long, and knows what it
 * means that a member is gone.
 */
export class BarrierPlaces {
  private readonly places = new Map<string, Place>()
  /** Those without a slot, the one that was used first in front. */
  private readonly names = new Map<string, Place>()
  private readonly words: BarrierWords

  constructor(
    private readonly addon: Addon,
    private readonly client: EngineClient,
    words: Int32Array,
    private readonly rank: number,
    size: number,
  ) {
    this.words = new BarrierWords(words, size)
  }

  async pass(name: string): Promise<void> {
    const place = this.placeOf(name)
    if (!this.comesByItself(place)) return this.ask(place)
    const ticket = this.arrive(place)
    if (this.waitShortly(place, ticket)) return
    const { slot } = place
    await this.client.ask({ op: 'awaitBarrier', name, slot, ticket })
  }

  passSync(name: string): void {
    const place = this.placeOf(name)
    if (!this.comesByItself(place)) return this.askSync(place)
    const { slot } = place
    const ticket = this.arrive(place)
    // In slices: a worker that is to end notices it in between.
    while (!this.addon.waitAtBarrier(this.client.session, slot, ticket, SLICE_US)) {
      if (!this.words.isBroken) continue
      this.client.askSync({ op: 'awaitBarrier', name, slot, ticket })
      return
    }
  }

  private comesByItself({ bound, asked }: Place): boolean {
    return bound && asked === 0 && !this.words.isBroken && this.client.isOpen
  }

  private arrive({ slot, key }: Place): number {
    const ticket = this.words.arrive(slot, this.rank)
    const ranks = this.addon.tellArrival(this.client.session, slot)
    if (ranks !== 0) this.client.post({ op: 'tellArrival', key, ranks })
    return ticket
  }

  /** Whether all have come, or do before long. */
  private waitShortly(place: Place, ticket: number): boolean {
    const { slot, trust } = place
    if (this.words.isOpen(slot, ticket)) return true
    if (trust === 0 && ++place.left % TRY_ONE_IN !== 0) return false
    if (this.addon.waitAtBarrier(this.client.session, slot, ticket, AWAIT_US)) {
      place.trust = MOST_TRUST
      return true
    }
    place.trust = Math.max(0, trust - 1)
    return false
  }

  private async ask(place: Place): Promise<void> {
    const { name, key, slot } = place
    place.asked++
    try {
      await this.client.ask({ op: 'barrier', key, name, slot })
      place.bound = slot !== NO_BARRIER_SLOT
    } finally {
      place.asked--
    }
  }

  private askSync(place: Place): void {
    const { name, key, slot } = place
    place.asked++
    try {
      this.client.askSync({ op: 'barrier', key, name, slot })
      place.bound = slot !== NO_BARRIER_SLOT
    } finally {
      place.asked--
    }
  }

  private placeOf(name: string): Place {
    const known = this.places.get(name)
    if (known !== undefined) return known
    const seen = this.names.get(name)
    if (seen !== undefined) return this.giveSlot(seen)
    const key = keyOf('barrier', name)
    const place = { name, key, slot: NO_BARRIER_SLOT, bound: false, asked: 0, trust: 0, left: 0 }
    this.names.set(name, place)
    if (this.names.size > MOST_NAMES) this.names.delete(this.names.keys().next().value!)
    return place
  }

  private giveSlot(place: Place): Place {
    const slot = this.places.size
    if (slot === BARRIER_SLOTS || !this.words.exist) return place
    place.slot = slot
    place.trust = MOST_TRUST
    this.names.delete(place.name)
    this.places.set(place.name, place)
    return place
  }
}
