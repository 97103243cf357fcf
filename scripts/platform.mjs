/** Why pagemesh cannot work here, or `undefined` when it can. */
export function unsupportedReason({
  platform = process.platform,
  arch = process.arch,
  nodeVersion = process.versions.node,
} = {}) {
  if (platform !== 'linux') {
    return `pagemesh needs Linux: it is built on memfd, mprotect and SIGSEGV. This is ${platform}.`
  }
  if (arch !== 'x64' && arch !== 'arm64') {
    return `pagemesh needs an x86-64 or aarch64 processor. This Node.js is built for ${arch}.`
  }
  if (Number.parseInt(nodeVersion, 10) < 20) {
    return `pagemesh needs Node.js 20 or later. This is ${nodeVersion}.`
  }
  return undefined
}
