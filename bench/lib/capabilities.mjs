import { existsSync, readdirSync } from 'node:fs'
import { readLaunchOptions } from '../../dist/cluster/launch-environment.js'

/** What a benchmark may be run over. */
export const transports = ['tcp', 'verbs', 'shm']

/**
 * @param {string} transport
 * @returns {string | undefined} why members cannot use it here, if they cannot
 */
export function reasonAgainst(transport) {
  try {
    readLaunchOptions({ PAGEMESH_TRANSPORT: transport })
  } catch {
    return `no ${transport} transport here`
  }
  if (transport === 'verbs' && !hasRdmaDevice()) return 'no RDMA device here'
  return undefined
}

function hasRdmaDevice() {
  const folder = '/sys/class/infiniband'
  return existsSync(folder) && readdirSync(folder).length > 0
}
