/** Every code an error of pagemesh can carry. Codes are stable; messages are not. */
export type PagemeshErrorCode =
  | 'ERR_PAGEMESH_INVALID_ARGUMENT' // wrong type, or a value that makes no sense
  | 'ERR_PAGEMESH_OUT_OF_RANGE' // right type, but outside the bounds the message names
  | 'ERR_PAGEMESH_UNALIGNED' // an offset that is not a multiple of the word size
  | 'ERR_PAGEMESH_UNSUPPORTED_PLATFORM' // not Linux on x86-64 or aarch64, or the addon is not built
  | 'ERR_PAGEMESH_NO_USERFAULTFD' // it was asked for, and is not permitted or the kernel is too old
  | 'ERR_PAGEMESH_ALREADY_JOINED' // this process is in a mesh already
  | 'ERR_PAGEMESH_JOIN_TIMEOUT' // not all members came in time
  | 'ERR_PAGEMESH_JOIN_FAILED' // the rendezvous is out of reach, or the launch data is unusable
  | 'ERR_PAGEMESH_WRONG_KEY' // the other side does not hold this mesh's key
  | 'ERR_PAGEMESH_RANK_TAKEN' // another process has this rank
  | 'ERR_PAGEMESH_SIZE_MISMATCH' // members disagree on the size of the mesh
  | 'ERR_PAGEMESH_VERSION_MISMATCH' // the other side speaks another protocol version
  | 'ERR_PAGEMESH_MEMBER_DOWN' // a member is gone without leaving; see `rank`
  | 'ERR_PAGEMESH_MEMBER_LEFT' // a member has left, so this can never complete; see `rank`
  | 'ERR_PAGEMESH_LEFT' // the mesh has been left by this member
  | 'ERR_PAGEMESH_REGION_MISMATCH' // the region exists with other options
  | 'ERR_PAGEMESH_REGION_FAILED' // a member could not map the region
  | 'ERR_PAGEMESH_NO_PAGES' // the region has atomic words, and no memory to see or hold
  | 'ERR_PAGEMESH_VIEW_TOO_LARGE' // this Node.js cannot make a SharedArrayBuffer of that size
  | 'ERR_PAGEMESH_SEMAPHORE_MISMATCH' // the semaphore exists with another number of permits
  | 'ERR_PAGEMESH_NOT_HELD' // released twice, or never held
  | 'ERR_PAGEMESH_PAGE_LOST' // the page's home or owner is gone
  | 'ERR_PAGEMESH_PROTOCOL' // a peer sent something that cannot be; see the message
  | 'ERR_PAGEMESH_SYSTEM' // a system call failed; the message names it and errno

export interface PagemeshErrorOptions {
  cause?: unknown
  /** The member that the error is about. */
  rank?: number
}

/** The one class of pagemesh's errors: tell them apart by `code`. */
export class PagemeshError extends Error {
  override readonly name = 'PagemeshError'
  readonly code: PagemeshErrorCode
  /** The member that the error is about, where there is one. */
  readonly rank: number | undefined

  constructor(code: PagemeshErrorCode, message: string, options: PagemeshErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.rank = options.rank
  }
}
