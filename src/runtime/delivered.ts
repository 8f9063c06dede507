/** Whether clients have got what was sent to them. Until then others hold it, and a container's end loses it. */
import { readFileSync } from 'node:fs'

/** Between two looks. The first look must see what closing the idle connections sends. */
const lookMs = 100

/**
 * Settles when the machine of each client has everything that was written to this port. A container's network ends with its
 * process: some MiB that a slow client had not taken yet would be lost, without even a reset. If the kernel does not say (not
 * Linux), it settles at once.
 */
export async function delivered(port: number): Promise<void> {
  do await look()
  while (connectionsOf(port).some(({ hasUnsent }) => hasUnsent))
}

/**
 * Settles when both sides of each connection of this port have closed it, or after `maxMs`; gives the number of those still open.
 * What has left this machine's kernel may lie in a process between: Docker's for a published port keeps up to 30 MiB, and ends with
 * the container. It closes its side when its client has everything. If the kernel does not say, it settles at once with 0.
 */
export async function closed(port: number, maxMs: number): Promise<number> {
  const deadline = performance.now() + maxMs
  for (;;) {
    const { length } = connectionsOf(port)
    if (length === 0 || performance.now() >= deadline) return length
    await look()
  }
}

const look = () => new Promise((resolve) => setTimeout(resolve, lookMs))

/** The connections of this port that are not closed by both sides: not TIME_WAIT, CLOSE or LISTEN (Linux, tcp_states.h). */
function connectionsOf(port: number): { hasUnsent: boolean }[] {
  const local = port.toString(16).toUpperCase().padStart(4, '0')
  // man 5 proc, /proc/net/tcp: local address, remote one, state, tx_queue.
  const row = new RegExp(`^ *\\d+: [0-9A-F]+:${local} \\S+ (?!06|07|0A)\\S+ (\\w+)`, 'gm')
  return ['/proc/net/tcp', '/proc/net/tcp6'].flatMap((table) =>
    [...textOf(table).matchAll(row)].map(([, queued]) => ({ hasUnsent: queued !== '00000000' })),
  )
}

function textOf(table: string): string {
  try {
    return readFileSync(table, 'latin1')
  } catch {
    return ''
  }
}
