import type { ByteReader, ByteWriter } from './bytes.js'

/** What a check found, and which of the invariants it belongs to. */
export interface Violation {
  readonly invariant: string
  readonly message: string
}

/**
 * Something that can be explored: real protocol code in a world that is made up around it. It is in
 * one state at a time; a state can be written down and taken up again.
 */
export interface World<Choice extends object = object> {
  /** How many ways there are to rename members and pages that are alike; 1 is the identity only. */
  readonly symmetryCount: number
  /** Writes the state as it looks after renaming. Two states that write the same are the same. */
  write(out: ByteWriter, symmetry: number): void
  /** Takes up a state that was written without renaming. */
  read(from: ByteReader): void
  /** Everything that can happen next, always in the same order for the same state. */
  choices(): Choice[]
  /** Whether a choice begins something, as opposed to carrying on what has begun. */
  begins(choice: Choice): boolean
  /** Does it and checks what must hold at every moment. Returns what does not. */
  perform(choice: Choice): Violation | undefined
  /** What must hold when nothing is under way. */
  checkRest(): Violation | undefined
  /** What is fair: of what stays possible, something of each class happens. At most 127 classes. */
  classOf(choice: Choice): number
  /** A bit for each requester that waits for an answer. */
  waiting(): number
  /** For people: what the choice is, what was sent because of it. */
  tell(choice: Choice): string
  startTrace(): string[]
  picture(): string
}
