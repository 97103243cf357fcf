import cliProgress from 'cli-progress'

/**
 * A progress bar on stderr if that is a terminal, otherwise nothing.
 * @param {string} name
 * @param {number} total
 * @returns {{ step: () => void, stop: () => void }}
 */
export function startProgressBar(name, total) {
  if (!process.stderr.isTTY) return { step() {}, stop() {} }
  const bar = new cliProgress.SingleBar({
    format: `${name} {bar} {percentage} % | {eta_formatted} left`,
    stream: process.stderr,
    hideCursor: true,
    clearOnComplete: true,
    // Few redraws: they run on the machine that is being measured.
    fps: 2,
  })
  bar.start(total, 0)
  return { step: () => bar.increment(), stop: () => bar.stop() }
}
