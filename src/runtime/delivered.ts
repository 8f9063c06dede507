/** Whether clients have got what was sent to them: until then the kernel holds it, and a container's end loses it. */
import { readFileSync } from 'node:fs'

/** Between two looks. The first look must see what closing the idle connections sends. */
const lookMs = 100

/**
 * Settles when everything written to clients of this port has reached them. A container's network ends with its process: some MiB
 * that a slow client had not taken yet would be lost, without even a reset. If the kernel does not say (not Linux), it settles
 * at once.
 */
export async function delivered(port: number): Promise<void> {
  do await new Promise((resolve) => setTimeout(resolve, lookMs))
  while (['/proc/net/tcp', '/proc/net/tcp6'].some((table) => hasUnsent(table, port)))
}

/** Whether a connection of this port has a send queue (man 5 proc, /proc/net/tcp: local address, remote one, state, tx_queue). */
function hasUnsent(table: string, port: number): boolean {
  const local = port.toString(16).toUpperCase().padStart(4, '0')
  const queued = new RegExp(`^ *\\d+: [0-9A-F]+:${local} \\S+ \\S+ (?!00000000)`, 'm')
  try {
    return queued.test(readFileSync(table, 'latin1'))
  } catch {
    return false
  }
}
