/** What hears of touches that the MMU refuses; `auto` is the quickest that works here. */
export const FAULT_POLICIES = ['auto', 'sigsegv', 'userfaultfd'] as const
export type FaultPolicy = (typeof FAULT_POLICIES)[number]

export type FaultsInUse = Exclude<FaultPolicy, 'auto'>

export function isFaultPolicy(text: unknown): text is FaultPolicy {
  return (FAULT_POLICIES as readonly unknown[]).includes(text)
}

/** SIGSEGV works everywhere, wakes no thread of its own, and sleeps nowhere. */
export function faultsFor(policy: FaultPolicy): FaultsInUse {
  return policy === 'auto' ? 'sigsegv' : policy
}
