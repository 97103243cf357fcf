import { constants } from 'node:os'

/**
 * Why native code ended a connection, in words that complete "rank 2 is down (…)". Numbers below
 * 1000 are errno; native/transport/transport.h has the others.
 */
export const CLOSE_REASONS: Readonly<Record<number, string>> = {
  1000: 'it closed the connection',
  1001: 'it sent a record that cannot be',
  1002: 'it sent a page that nobody asked for',
  1003: 'it does not read what is sent to it',
  1004: 'its connection was closed by this member',
  1005: 'it claimed more room for messages than there can be',
}

/** From here on: this and the status of a work completion that failed. */
export const FIRST_VERBS_REASON = 2000
/** ibv_wc_status in verbs.h (IBV_WC_…): in its order, which gives the numbers. */
export const WORK_COMPLETION_STATUS = {
  SUCCESS: 'success',
  LOC_LEN_ERR: 'local length error',
  LOC_QP_OP_ERR: 'local queue pair operation error',
  LOC_EEC_OP_ERR: 'local end-to-end context operation error',
  LOC_PROT_ERR: 'local protection error',
  WR_FLUSH_ERR: 'work request flushed',
  MW_BIND_ERR: 'memory window bind error',
  BAD_RESP_ERR: 'bad response',
  LOC_ACCESS_ERR: 'local access error',
  REM_INV_REQ_ERR: 'remote invalid request',
  REM_ACCESS_ERR: 'remote access error',
  REM_OP_ERR: 'remote operation error',
  RETRY_EXC_ERR: 'transport retry counter exceeded',
  RNR_RETRY_EXC_ERR: 'receiver not ready',
  LOC_RDD_VIOL_ERR: 'local RDD violation',
  REM_INV_RD_REQ_ERR: 'remote invalid RD request',
  REM_ABORT_ERR: 'remote aborted',
  INV_EECN_ERR: 'invalid end-to-end context number',
  INV_EEC_STATE_ERR: 'invalid end-to-end context state',
  FATAL_ERR: 'fatal error',
  RESP_TIMEOUT_ERR: 'response timeout',
  GENERAL_ERR: 'general error',
  TM_ERR: 'tag matching error',
  TM_RNDV_INCOMPLETE: 'tag matching rendezvous incomplete',
} as const

/** From here on: this and an asynchronous event of the device. */
export const FIRST_VERBS_EVENT_REASON = 3000
/** ibv_event_type in verbs.h (IBV_EVENT_…): in its order, which gives the numbers. */
export const DEVICE_EVENT = {
  CQ_ERR: 'completion queue error',
  QP_FATAL: 'queue pair fatal error',
  QP_REQ_ERR: 'queue pair request error',
  QP_ACCESS_ERR: 'queue pair access error',
  COMM_EST: 'communication established',
  SQ_DRAINED: 'send queue drained',
  PATH_MIG: 'path migrated',
  PATH_MIG_ERR: 'path migration error',
  DEVICE_FATAL: 'the device failed or was removed',
  PORT_ACTIVE: 'port active',
  PORT_ERR: 'port error',
  LID_CHANGE: 'local identifier changed',
  PKEY_CHANGE: 'partition keys changed',
  SM_CHANGE: 'subnet manager changed',
  SRQ_ERR: 'shared receive queue error',
  SRQ_LIMIT_REACHED: 'shared receive queue limit reached',
  QP_LAST_WQE_REACHED: 'last work request reached',
  CLIENT_REREGISTER: 'client reregistration',
  GID_CHANGE: 'GID table changed',
  WQ_FATAL: 'work queue fatal error',
} as const

export function closeReason(reason: number): string {
  const ofLink = linkFailure(reason)
  if (ofLink !== undefined) return `its link failed: ${ofLink}`
  return CLOSE_REASONS[reason] ?? errnoText(reason)
}

/** Undefined if it is not a link that failed. */
export function linkFailure(reason: number): string | undefined {
  if (reason >= FIRST_VERBS_EVENT_REASON) {
    const event = reason - FIRST_VERBS_EVENT_REASON
    return `${Object.values(DEVICE_EVENT)[event] ?? 'event'} (verbs event ${event})`
  }
  if (reason >= FIRST_VERBS_REASON) {
    const status = reason - FIRST_VERBS_REASON
    return `${Object.values(WORK_COMPLETION_STATUS)[status] ?? 'status'} (verbs status ${status})`
  }
  return undefined
}

function errnoText(errno: number): string {
  const found = Object.entries(constants.errno).find(([, value]) => value === errno)
  return found?.[0] ?? `error ${errno}`
}
