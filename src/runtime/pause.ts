/** Makes a pause of a TLS connection stop the reading of its socket, on Deno too. */
import type { Socket } from 'node:net'

/** A connection, as the runtime reads it. With TLS on Deno there is another one beneath it. */
interface Handle {
  readStart: () => number
  readStop: () => number
  _nativeTcpHandle?: Handle | null
}

/**
 * Deno (2.9.5) goes on reading from a TLS connection that is paused, and keeps all of it in memory: the whole layer, if its
 * taker is slow.
 */
export function pauseBeneath(socket: Socket): void {
  const { _handle: handle } = socket as { _handle?: Handle | null }
  if (!handle?._nativeTcpHandle) return
  const { readStart, readStop } = handle
  let isStopped = false
  handle.readStop = () => {
    isStopped = true
    handle._nativeTcpHandle?.readStop()
    return readStop.call(handle)
  }
  handle.readStart = () => {
    isStopped = false
    // It gives what it still holds. If that is enough for the reader, it is stopped again.
    const result = readStart.call(handle)
    if (!isStopped) handle._nativeTcpHandle?.readStart()
    return result
  }
}
