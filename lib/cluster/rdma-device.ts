/** Which RDMA device a member is to use; what is undefined is chosen by its address. */
export interface RdmaDeviceName {
  readonly device: string
  readonly port: number | undefined
  readonly gidIndex: number | undefined
}

const maxPort = 255
const maxGidIndex = 255

/** Reads `device`, `device:port` or `device:port:gid-index`. A string says what is wrong. */
export function parseRdmaDevice(text: string): RdmaDeviceName | string {
  const match = /^([\w.-]{1,63})(?::(\d{1,9}))?(?::(\d{1,9}))?$/.exec(text)
  if (match === null) {
    return 'expected device, device:port or device:port:gid-index, such as rxe0:1:1'
  }
  const [, device, portText, gidText] = match as (string | undefined)[]
  const port = portText === undefined ? undefined : Number(portText)
  const gidIndex = gidText === undefined ? undefined : Number(gidText)
  if (port !== undefined && (port < 1 || port > maxPort)) {
    return `its port must be from 1 to ${maxPort}`
  }
  if (gidIndex !== undefined && gidIndex > maxGidIndex) {
    return `its GID index must be from 0 to ${maxGidIndex}`
  }
  return { device: device ?? '', port, gidIndex }
}
