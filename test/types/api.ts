// What the public API lets a TypeScript program write, and what not. Compiled, never run.
import {
  type AcquireOptions,
  type Held,
  join,
  type JoinOptions,
  type Mesh,
  type MeshStats,
  PagemeshError,
  type PagemeshErrorCode,
  type PinnedRange,
  type Region,
  type RegionOptions,
  type Semaphore,
  type Stats,
} from 'pagemesh'

type Same<A, B> = [A, B] extends [B, A] ? true : false
const keep = (..._values: unknown[]): void => undefined

export async function joining(): Promise<void> {
  await using mesh = await join()
  true satisfies Same<typeof mesh, Mesh>
  await join({})
  const options: JoinOptions = {
    rank: 0,
    size: 2,
    rendezvous: 'file:/tmp/mesh',
    key: new Uint8Array(32),
    host: '127.0.0.1',
    joinTimeoutMs: 1000,
    heartbeatTimeoutMs: 1000,
  }
  await join(options)
  await join({ key: '00'.repeat(16) })
  // @ts-expect-error a rank is a number
  await join({ rank: '0' })
  // @ts-expect-error no such option
  await join({ ranks: 2 })
  // @ts-expect-error a key is no number
  await join({ key: 7 })
  // @ts-expect-error options are an object
  await join(2)
}

export async function meshes(mesh: Mesh): Promise<void> {
  true satisfies Same<Mesh['rank'], number>
  true satisfies Same<Mesh['size'], number>
  // @ts-expect-error nobody changes a rank
  mesh.rank = 1
  await mesh.barrier()
  await mesh.barrier('name')
  // @ts-expect-error a name is a string
  await mesh.barrier(7)
  const lock: Semaphore = mesh.lock('row')
  // @ts-expect-error a lock has a name
  mesh.lock()
  const semaphore: Semaphore = mesh.semaphore('slots', 3)
  // @ts-expect-error a semaphore has a number of permits
  mesh.semaphore('slots')
  const stats: MeshStats = mesh.stats()
  const sums: Stats = stats
  const transport: string = stats.transport
  // @ts-expect-error a region has options
  await mesh.region('grid')
  // @ts-expect-error a region has a length
  await mesh.region('grid', {})
  await mesh.leave()
  await mesh[Symbol.asyncDispose]()
  // @ts-expect-error a mesh is made by join
  const made = new Mesh()
  keep(lock, semaphore, sums, transport, made)
}

export async function regions(mesh: Mesh): Promise<void> {
  const options: RegionOptions = { byteLength: 4096 }
  await mesh.region('a', options)
  await mesh.region('b', { byteLength: 1, placement: 'block', pageBytes: 65536 })
  await mesh.region('c', { byteLength: 1, placement: 'cyclic' })
  const region: Region = await mesh.region('d', { byteLength: 1, placement: { rank: 0 } })
  // @ts-expect-error no such placement
  await mesh.region('e', { byteLength: 1, placement: 'first' })
  // @ts-expect-error a rank is a number
  await mesh.region('f', { byteLength: 1, placement: { rank: 'zero' } })
  // @ts-expect-error a length is a number
  await mesh.region('g', { byteLength: 1n })
  await mesh.region('h', { byteLength: 8, words: 'paged' })
  const counters: Region = await mesh.region('i', { byteLength: 8, words: 'atomic' })
  true satisfies Same<Region['words'], 'paged' | 'atomic'>
  true satisfies Same<Region['wordsBy'], 'home' | 'rdma'>
  await mesh.region('k', { byteLength: 8, prefetch: 'off' })
  // @ts-expect-error prefetch is on by itself, or off
  await mesh.region('l', { byteLength: 8, prefetch: 'on' })
  // @ts-expect-error no such words
  await mesh.region('j', { byteLength: 8, words: 'rdma' })
  // @ts-expect-error nobody changes what changes the words
  counters.wordsBy = 'rdma'
  true satisfies Same<Region['buffer'], SharedArrayBuffer>
  true satisfies Same<Region['address'], bigint>
  true satisfies Same<Region['name'], string>
  true satisfies Same<Region['byteLength'], number>
  true satisfies Same<Region['pageBytes'], number>
  const cells = new Float64Array(region.buffer)
  // @ts-expect-error the memory is shared, no ArrayBuffer
  const plain: ArrayBuffer = region.buffer
  // @ts-expect-error nobody changes the memory's place
  region.address = 0n
  const { readFaults, writeFaults, waitMs, wordsByRdma, wordsByHome }: Stats = region.stats()
  await region.prefetch(0, 4096, 'read')
  await region.prefetch(0, 4096, 'write')
  // @ts-expect-error a prefetch is for reading or writing
  await region.prefetch(0, 4096)
  // @ts-expect-error no such access
  await region.prefetch(0, 4096, 'rw')
  const pin: PinnedRange = await region.pin(0, 4096, 'read')
  pin.release()
  {
    using held = await region.pin(0, 1, 'write')
    await using again = await region.pin(0, 1, 'write')
    keep(held, again)
  }
  await region.discard(0, 4096)
  keep(cells, plain, readFaults, writeFaults, waitMs, wordsByRdma, wordsByHome)
}

export async function words(region: Region): Promise<void> {
  const narrow: number = await region.fetchAdd(0, 1)
  const wide: bigint = await region.fetchAdd(0, 1n)
  // @ts-expect-error a word of 64 bits is a bigint
  const wrong: number = await region.fetchAdd(0, 1n)
  // @ts-expect-error a word is a number or a bigint
  await region.fetchAdd(0, '1')
  const before: number = await region.compareExchange(0, 1, 2)
  const wideBefore: bigint = await region.compareExchange(0, 1n, 2n)
  // @ts-expect-error both words are of one kind
  await region.compareExchange(0, 1, 2n)
  const loaded: number = await region.load(0)
  const loadedNarrow: number = await region.load(0, 'int32')
  const loadedWide: bigint = await region.load(0, 'int64')
  // @ts-expect-error no such word
  await region.load(0, 'uint8')
  await region.store(0, 1)
  // @ts-expect-error store gives nothing
  keep(region.store(0, 1).then((before) => before.valueOf()))
  await region.store(0, 1n)
  // @ts-expect-error an offset is a number
  await region.store(0n, 1)
  keep(narrow, wide, wrong, before, wideBefore, loaded, loadedNarrow, loadedWide)
}

export async function locks(lock: Semaphore, signal: AbortSignal): Promise<void> {
  const options: AcquireOptions = { signal }
  const held: Held = await lock.acquire(options)
  held.release()
  await lock.acquire()
  // @ts-expect-error a signal is an AbortSignal
  await lock.acquire({ signal: 'now' })
  // @ts-expect-error no such option
  await lock.acquire({ timeoutMs: 5 })
  lock.acquireSync().release()
  const maybe = await lock.tryAcquire()
  true satisfies Same<typeof maybe, Held | undefined>
  // @ts-expect-error it may be held by another
  maybe.release()
  {
    await using first = await lock.acquire({ signal })
    using second = lock.acquireSync()
    keep(first, second)
  }
  // @ts-expect-error nobody changes the number of permits
  lock.permits = 2
}

export function errors(error: unknown): number | undefined {
  if (!(error instanceof PagemeshError)) return undefined
  const code: PagemeshErrorCode = error.code
  const asError: Error = error
  if (code === 'ERR_PAGEMESH_MEMBER_DOWN') return error.rank
  // @ts-expect-error no such code
  if (code === 'ERR_PAGEMESH_OOPS') return 1
  keep(asError)
  return undefined
}
