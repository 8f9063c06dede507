/** Connects to a host that has several addresses, of which some may be dead. */
import type { Connect } from './outgoing.ts'
import { Shortage } from './shortage.ts'

/** The next address is tried too if the one before takes so long (RFC 8305, section 5). It covers a TLS handshake to the other end of the world. */
const attemptMs = 1000
/** The owner of a host name decides how many addresses it has. */
const maxAttempts = 6

/** Connects to the first of these addresses that takes the connection. */
export function connectToAny(
  connect: Connect,
  target: Parameters<Connect>[0],
  addresses: readonly string[],
  callback: Parameters<Connect>[1],
): void {
  const untried = addresses.slice(0, maxAttempts)
  let trying = 0
  let isConnected = false
  let timer: ReturnType<typeof setTimeout> | undefined
  let fault: Error | undefined
  const tryNext = () => {
    clearTimeout(timer)
    const hostname = untried.shift()
    if (hostname === undefined) return
    trying++
    if (untried.length > 0) timer = setTimeout(tryNext, attemptMs)
    connect({ ...target, hostname }, (...[error, socket]) => {
      trying--
      if (isConnected) return socket?.destroy()
      if (socket) {
        isConnected = true
        clearTimeout(timer)
        callback(null, socket)
        return
      }
      // What the machine lacks for one address is not the cause if another one refused.
      if (!fault || fault instanceof Shortage) fault = error as Error
      if (untried.length > 0) tryNext()
      else if (trying === 0) callback(fault, null)
    })
  }
  tryNext()
}
