// What the tests have to know of the machine that they run on. Under emulation, in the guests of
// `npm run test:softroce`, the environment says that it is slow, and that members use verbs.

/** How many times longer than usual things may take here. */
export const slowness = Number(process.env.PAGEMESH_TEST_SLOWNESS ?? 1)

/** Far beyond what anything here takes, so that only a real hang ends in it. */
export const patienceMs = 20_000 * slowness

/** A size for machines on which it takes a moment, or a smaller one for those that are slow. */
export function sized<T>(usual: T, onSlow: T): T {
  return slowness > 1 ? onSlow : usual
}

/** How members that the launcher started as we were started reach each other, all on one host. */
export const transport = process.env.PAGEMESH_TRANSPORT ?? 'shm'
/** Whether the environment says that members hear of touches by userfaultfd. */
export const byUserfaultfd = process.env.PAGEMESH_FAULTS === 'userfaultfd'

/** Where members listen; with verbs, an address of the RDMA device. */
export const ownAddress = process.env.PAGEMESH_HOST ?? '127.0.0.1'

/** NODE_OPTIONS for what a test starts, in the place of those that tap sets. */
export const nodeOptions = process.env.PAGEMESH_TEST_NODE_OPTIONS ?? ''
