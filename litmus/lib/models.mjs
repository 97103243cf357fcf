// Which outcomes of a program are allowed, by enumeration. An outcome is the values of registers
// and finals in the program's order, joined by commas.

/** @typedef {import('./catalogue.mjs').Op} Op */
/** @typedef {import('./catalogue.mjs').Program} Program */
/** @typedef {Record<string, number>} Values */

/**
 * Sequential consistency (Lamport 1979): all interleavings of the threads, each in its order.
 * @param {Program} program
 */
export function sequentialOutcomes(program) {
  return explore(program, (thread, done) => {
    const next = thread.findIndex((_, index) => !(done & (1 << index)))
    return next < 0 ? [] : [{ index: next }]
  })
}

/**
 * A sequentially consistent memory under a compiler that does to plain accesses whatever
 * ECMAScript lets it do: accesses to different places change their order, and so do two reads of
 * one place; a read takes what its own thread has just written without looking at the memory; a
 * write that the next one covers is left out. (The last adds no outcome: nobody looks in between.)
 * @param {Program} program
 */
export function compiledOutcomes(program) {
  return explore(program, (thread, done) => {
    const steps = []
    for (const [index, op] of thread.entries()) {
      if (done & (1 << index)) continue
      const before = thread.slice(0, index).filter((_, earlier) => !(done & (1 << earlier)))
      if (before.every((earlier) => mayPass(op, earlier))) steps.push({ index })
      else if (op.kind === 'read' && !op.atomic) {
        const source = before.findLastIndex(({ variable }) => variable === op.variable)
        const passed = before.slice(source + 1)
        const write = before[source]
        const forwards = write?.kind === 'write' && !write.atomic && write.plus === undefined
        if (forwards && passed.every((earlier) => mayPass(op, earlier))) {
          steps.push({ index, forwarded: write.value })
        }
      }
    }
    return steps
  })
}

/**
 * Whether an access may be carried out before one that the program has earlier. An atomic read
 * keeps what follows behind it, an atomic write what precedes before it.
 * @param {Op} later
 * @param {Op} earlier
 */
function mayPass(later, earlier) {
  if (later.plus !== undefined && later.plus === earlier.register) return false
  if (earlier.atomic && (later.atomic || earlier.kind !== 'write')) return false
  if (later.atomic && later.kind !== 'read') return false
  const reads = later.kind === 'read' && earlier.kind === 'read'
  return later.variable !== earlier.variable || reads
}

/**
 * All states that can be reached, each once.
 * @param {Program} program
 * @param {(thread: Op[], done: number) => { index: number, forwarded?: number }[]} choose what may
 *   come next of a thread, `done` being the bits of what was
 * @returns {Set<string>}
 */
function explore({ threads, variables, registers, finals }, choose) {
  const outcomes = new Set()
  const seen = new Set()
  /** @param {number[]} done @param {Values} memory @param {Values} register */
  const visit = (done, memory, register) => {
    const key = [
      ...done,
      ...variables.map((name) => memory[name]),
      ...registers.map((name) => register[name]),
    ].join()
    if (seen.has(key)) return
    seen.add(key)
    let ended = true
    for (const [number, thread] of threads.entries()) {
      for (const { index, forwarded } of choose(thread, done[number])) {
        ended = false
        const op = thread[index]
        const before = forwarded ?? memory[op.variable]
        const nextDone = done.with(number, done[number] | (1 << index))
        const nextRegister =
          op.register === undefined ? register : { ...register, [op.register]: before }
        const nextMemory =
          op.kind === 'read' ? memory : { ...memory, [op.variable]: written(op, register, before) }
        visit(nextDone, nextMemory, nextRegister)
      }
    }
    if (ended) {
      const values = [
        ...registers.map((name) => register[name]),
        ...finals.map((name) => memory[name]),
      ]
      outcomes.add(values.join())
    }
  }
  visit(
    threads.map(() => 0),
    Object.fromEntries(variables.map((name) => [name, 0])),
    {},
  )
  return outcomes
}

/** @param {Op} op @param {Values} register @param {number} before */
function written(op, register, before) {
  if (op.kind === 'add') return before + 1
  return op.plus === undefined ? /** @type {number} */ (op.value) : register[op.plus] + 1
}

/**
 * @typedef {object} Event
 * @property {number} id
 * @property {number} thread −1 for the initial writes
 * @property {Op} op
 */

/**
 * What ECMAScript's memory model promises, without regard to what executes it: candidate executions
 * by its axioms ("Memory Model" in ECMA-262, in the form that Watt et al., "Repairing and
 * Mechanising the JavaScript Relaxed Memory Model", PLDI 2020, gave it), for accesses that do not
 * tear and are of one size for each variable. What variables hold at the end are reads that happen
 * after everything.
 * @param {Program} program without adds and writes that depend on registers
 */
export function ecmascriptOutcomes({ threads, variables, registers, finals }) {
  /** @type {Event[]} */
  const events = []
  /** @param {number} thread @param {Op} op */
  const add = (thread, op) => events.push({ id: events.length, thread, op })
  for (const variable of variables) add(-1, { kind: 'write', variable, value: 0, atomic: false })
  for (const [number, thread] of threads.entries()) {
    for (const op of thread) {
      if (op.kind === 'add' || op.plus !== undefined) {
        throw new Error('the axioms are here for reads and writes of constants only')
      }
      add(number, op)
    }
  }
  const last = threads.length
  for (const variable of finals) {
    add(last, { kind: 'read', variable, register: `final ${variable}`, atomic: false })
  }
  /** Agent order, and what the start and the end of the run order. */
  const ordered = events.map((first) =>
    events.map((second) => {
      if (first.thread === second.thread) return first.thread >= 0 && first.id < second.id
      return first.thread === -1 || second.thread === last
    }),
  )
  const reads = events.filter(({ op }) => op.kind === 'read')
  const outcomes = new Set()
  /** @type {Map<number, Event>} */
  const readsFrom = new Map()
  /** @param {number} index */
  const choose = (index) => {
    if (index === reads.length) {
      if (!isValid(events, ordered, readsFrom)) return
      /** @param {string} name */
      const valueOf = (name) => {
        const read = reads.find(({ op }) => op.register === name)
        return read && readsFrom.get(read.id)?.op.value
      }
      const names = [...registers, ...finals.map((name) => `final ${name}`)]
      outcomes.add(names.map(valueOf).join())
      return
    }
    const read = reads[index]
    for (const write of events) {
      if (write.op.kind !== 'write' || write.op.variable !== read.op.variable) continue
      readsFrom.set(read.id, write)
      choose(index + 1)
    }
  }
  choose(0)
  return outcomes
}

/**
 * @param {Event[]} events
 * @param {boolean[][]} ordered
 * @param {Map<number, Event>} readsFrom
 */
function isValid(events, ordered, readsFrom) {
  const before = ordered.map((row) => [...row]) // happens-before
  for (const [id, write] of readsFrom) {
    if (events[id].op.atomic && write.op.atomic) before[write.id][id] = true // synchronizes-with
  }
  for (const { id: via } of events) {
    for (const { id: from } of events) {
      if (before[from][via]) for (const { id: to } of events) before[from][to] ||= before[via][to]
    }
  }
  if (events.some(({ id }) => before[id][id])) return false
  for (const [id, write] of readsFrom) {
    if (before[id][write.id]) return false
    const covered = events.some(
      ({ id: other, op }) =>
        op.kind === 'write' &&
        op.variable === write.op.variable &&
        before[write.id][other] &&
        before[other][id],
    )
    if (covered) return false
  }
  return hasMemoryOrder(events, before, readsFrom)
}

/**
 * Whether there is a total order of all events, with happens-before in it, in which no atomic
 * write comes between a read and the write that it reads from, where the model forbids that.
 * @param {Event[]} events
 * @param {boolean[][]} before
 * @param {Map<number, Event>} readsFrom
 */
function hasMemoryOrder(events, before, readsFrom) {
  /** @type {[write: number, between: number, read: number][]} */
  const forbidden = []
  for (const [read, { id: write, op: writeOp }] of readsFrom) {
    for (const { id: between, op, thread } of events) {
      const other = between !== write && thread >= 0 && op.kind === 'write' && op.atomic
      if (!other || op.variable !== writeOp.variable) continue
      const { atomic } = events[read].op
      const synchronized = atomic && writeOp.atomic
      const seenBefore = before[write][read] && before[between][read] && writeOp.atomic
      const laterWrite = before[write][read] && before[write][between] && atomic
      if (synchronized || seenBefore || laterWrite) forbidden.push([write, between, read])
    }
  }
  /** @param {number[]} placed */
  const extend = (placed) => {
    if (placed.length === events.length) return true
    return events.some(({ id }) => {
      if (placed.includes(id)) return false
      if (events.some((other) => before[other.id][id] && !placed.includes(other.id))) return false
      const breaks = forbidden.some(
        ([write, between, read]) =>
          id === between && placed.includes(write) && !placed.includes(read),
      )
      return !breaks && extend([...placed, id])
    })
  }
  return forbidden.length === 0 || extend([])
}
