import type { Synchronization } from '../../dist/engine/synchronization.js'
import type { SemaphoreManager, SemaphoreOutcome } from '../../dist/protocol/semaphores.js'

/** What a semaphore's manager has to know, written as plainly as can be. */
interface Semaphore {
  permits: number
  readonly held: Set<string>
  readonly waiting: string[]
  /** Who has it, as those say who have it. */
  readonly users: Set<string>
}

interface Internals {
  readonly semaphores: SemaphoreManager
  semaphoreOutcome: (outcome: SemaphoreOutcome) => void
}

const claim = (rank: number, request: number): string => `${rank}/${request}`

/**
 * Locks, semaphores and barriers, checked at both ends: what a manager decides must be what first
 * come, first served says, and what members get must be what a manager decided.
 */
export class SyncChecks {
  private readonly semaphores = new Map<number, Semaphore>()
  /** What a manager must say now, in this order. */
  private expected: string[] = []
  private size = 0
  /** By barrier: how many have arrived for each generation, and by rank how often it has. */
  private readonly barriers = new Map<
    number,
    { readonly arrived: number[]; readonly times: number[]; readonly opened: number[] }
  >()

  constructor(private readonly fail: (why: string) => never) {}

  /** Looks over the shoulder of one member's managers. */
  watch(sync: Synchronization, size: number): void {
    this.size = size
    const inside = sync as unknown as Internals
    const { semaphores } = inside
    const outcome = inside.semaphoreOutcome.bind(sync)
    inside.semaphoreOutcome = (each) => {
      this.decided(each)
      outcome(each)
    }
    const acquire = semaphores.acquire.bind(semaphores)
    semaphores.acquire = (id, from, request, permits, mode, keeps, ticket) => {
      this.arrived(id, claim(from, request), permits, mode === 'try')
      acquire(id, from, request, permits, mode, keeps, ticket)
      this.allDecided()
    }
    const release = semaphores.release.bind(semaphores)
    semaphores.release = (id, from, request) => {
      const semaphore = this.semaphores.get(id)
      if (semaphore?.held.delete(claim(from, request)) === true) this.passOn(semaphore)
      release(id, from, request)
      this.allDecided()
    }
    const cancel = semaphores.cancel.bind(semaphores)
    semaphores.cancel = (id, from, request) => {
      const waiting = this.semaphores.get(id)?.waiting ?? []
      const index = waiting.indexOf(claim(from, request))
      if (index >= 0) {
        waiting.splice(index, 1)
        this.expected.push(`cancelled ${claim(from, request)}`)
      }
      cancel(id, from, request)
      this.allDecided()
    }
  }

  private arrived(id: number, who: string, permits: number, tries: boolean): void {
    let semaphore = this.semaphores.get(id)
    if (semaphore === undefined) {
      semaphore = { permits, held: new Set(), waiting: [], users: new Set() }
      this.semaphores.set(id, semaphore)
    }
    if (semaphore.held.size < semaphore.permits) {
      semaphore.held.add(who)
      this.expected.push(`granted ${who}`)
    } else if (tries) this.expected.push(`refused ${who}`)
    else semaphore.waiting.push(who)
  }

  private passOn(semaphore: Semaphore): void {
    const next = semaphore.waiting.shift()
    if (next === undefined) return
    semaphore.held.add(next)
    this.expected.push(`granted ${next}`)
  }

  private decided({ kind, to, request }: SemaphoreOutcome): void {
    if (kind === 'recall') return // whoever waits for what it should bring would wait for ever
    const what = `${kind} ${claim(to, request)}`
    const wanted = this.expected.shift()
    if (wanted !== what) this.fail(`a manager says '${what}' instead of '${wanted ?? 'nothing'}'`)
  }

  private allDecided(): void {
    if (this.expected.length > 0) this.fail(`a manager does not say '${this.expected.join(', ')}'`)
  }

  /** A member hears that it has a permit. */
  has(id: number, rank: number, request: number): void {
    const who = claim(rank, request)
    const semaphore = this.semaphores.get(id)
    // Whoever had it passes it on before the manager hears of it, but to nobody else.
    const isNext = semaphore?.permits === 1 && semaphore.waiting[0] === who
    if (semaphore === undefined || (!semaphore.held.has(who) && !isNext)) {
      return this.fail(`rank ${rank} has ${id}, which its manager gave to somebody else`)
    }
    semaphore.users.add(who)
    if (semaphore.users.size > semaphore.permits) {
      this.fail(`${id} has ${semaphore.permits} permit(s) and ${semaphore.users.size} users`)
    }
  }

  letGo(id: number, rank: number, request: number): void {
    this.semaphores.get(id)?.users.delete(claim(rank, request))
  }

  /** A member comes to a barrier. */
  arrives(id: number, rank: number): void {
    let barrier = this.barriers.get(id)
    if (barrier === undefined) {
      const times = new Array<number>(this.size).fill(0)
      this.barriers.set(id, (barrier = { arrived: [], times, opened: [...times] }))
    }
    const generation = barrier.times[rank]++
    barrier.arrived[generation] = (barrier.arrived[generation] ?? 0) + 1
  }

  /** A member hears that a barrier is open. */
  opens(id: number, rank: number): void {
    const barrier = this.barriers.get(id)!
    const generation = barrier.opened[rank]++
    const arrived = barrier.arrived[generation] ?? 0
    if (arrived !== this.size) {
      this.fail(
        `barrier ${id} opens for rank ${rank} a ${generation + 1}th time, and ${arrived} of ` +
          `${this.size} members are there`,
      )
    }
  }

  /** When nothing is under way any more, and nobody has died. */
  checkRest(keeps: (id: number, rank: number) => boolean): void {
    for (const [id, { held, waiting }] of this.semaphores) {
      const isKept = [...held].every((who) => keeps(id, Number.parseInt(who, 10)))
      if (isKept && waiting.length === 0) continue
      this.fail(`${id} stays held by ${[...held].join()}, awaited by ${waiting.join() || 'nobody'}`)
    }
  }
}
