/** Whether clients have got what was sent to them: until then it is the kernel's to send, and a container's end takes it along. */
import { readFileSync } from 'node:fs'

/** Milliseconds between two looks; the first one sees what closing the idle connections sends. */
const pause = 100

/**
 * Settles when everything written to clients of this port has reached them. A container's network ends with its process:
 * up to some MiB that a slow client had not taken yet would be lost, without even a reset. Where the kernel does not say
 * (not Linux), at once.
 */
export async function delivered(port: number): Promise<void> {
  do await new Promise((resolve) => setTimeout(resolve, pause))
  while (['/proc/net/tcp', '/proc/net/tcp6'].some((table) => holdsSome(table, port)))
}

/** Whether a connection of this port has a send queue (man 5 proc, /proc/net/tcp: local address, remote one, state, tx_queue). */
function holdsSome(table: string, port: number): boolean {
  const local = port.toString(16).toUpperCase().padStart(4, '0')
  const queued = new RegExp(`^ *\\d+: [0-9A-F]+:${local} \\S+ \\S+ (?!00000000)`, 'm')
  try {
    return queued.test(readFileSync(table, 'latin1'))
  } catch {
    return false
  }
}
