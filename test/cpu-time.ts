/** Bounds of time that tell linear from quadratic, or done from for ever: in CPU time, which a busy machine does not lengthen much. */

/** Milliseconds of CPU time that this process has used. */
export function cpuTime(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}
