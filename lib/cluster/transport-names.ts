/** Which ways to other members may be taken; `auto` is the best that both ends have. */
export const TRANSPORT_POLICIES = ['auto', 'shm', 'tcp', 'verbs'] as const
export type TransportPolicy = (typeof TRANSPORT_POLICIES)[number]

/** How a member reaches the others: 'mixed' is not all of them the same way. */
export const TRANSPORTS_IN_USE = ['shm', 'tcp', 'verbs', 'mixed'] as const
export type TransportInUse = (typeof TRANSPORTS_IN_USE)[number]

export function isTransportPolicy(text: unknown): text is TransportPolicy {
  return (TRANSPORT_POLICIES as readonly unknown[]).includes(text)
}

export function isTransportInUse(text: unknown): text is TransportInUse {
  return (TRANSPORTS_IN_USE as readonly unknown[]).includes(text)
}
