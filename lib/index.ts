/**
 * Distributed shared memory for Node.js. See {@link join}.
 *
 * @packageDocumentation
 */
export { join, type JoinOptions } from './api/join.js'
export { type Mesh, type MeshStats, type RegionOptions } from './api/mesh.js'
export { type PinnedRange, type Region, type Stats } from './api/region.js'
export { type AcquireOptions, type Held, type Semaphore } from './api/semaphore.js'
export { PagemeshError, type PagemeshErrorCode } from './errors.js'
