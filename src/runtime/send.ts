/** Writes a Response to its client, and ends both if one of them breaks. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { finished } from 'node:stream/promises'
import { type Arrival, arrivalOf, bodyOf, largeBytes } from './body.ts'
import { isDeno } from './runtime.ts'

const lingerMs = 2000

/**
 * The adapter's own way prints a stack if a body breaks, and tries to end the answer with a text of its own.
 * `idleMs`: how long nothing may move before the connection is cut. `onStream` is called for each chunk of a stream.
 */
export async function send(
  response: Response,
  incoming: IncomingMessage,
  outgoing: ServerResponse,
  idleMs: number,
  onStream: () => void,
): Promise<void> {
  const { status, headers } = response
  const body = bodyOf(response)
  const isStream = body instanceof ReadableStream
  const isLarge = body instanceof Uint8Array && body.byteLength > largeBytes
  if (!isStream) await requestsRead()
  if (outgoing.destroyed) {
    // The client left just now, and no `close` will come any more: free the registry's connection here.
    if (isStream) body.cancel().catch(() => {})
    return
  }
  const isLast = headers.get('Connection') === 'close'
  const giveUp = () => outgoing.setTimeout(idleMs, () => outgoing.destroy())
  try {
    outgoing.writeHead(status, fieldsOf(headers))
    if (isStream) {
      outgoing.flushHeaders()
      const taken = { outgoing, idleMs, onStream }
      const arrival = arrivalOf(body)
      await (arrival ? pour(arrival, taken) : pipe(body, taken))
    } else if (isLarge) {
      await writeInPieces(body, { outgoing, idleMs, onStream })
    } else if (body && isLast) {
      giveUp()
      await new Promise((written) => outgoing.write(body, written))
    }
    if (isLast) await linger(incoming)
    outgoing.end(isStream || isLarge || isLast ? undefined : body)
    // Only little is left to send here, so the socket's own timeout does no harm, even on Bun (see `watch`).
    if (outgoing.writableLength > 0) giveUp()
  } catch {
    // Half an answer must not look whole. For HTTP/1.0 without a length, a plain end does (RFC 9112, section 8).
    if (incoming.httpVersion === '1.0' && !headers.has('Content-Length')) reset(outgoing.socket)
    outgoing.destroy()
  }
}

/**
 * Settles when all requests that have come are read, so that their answers go out one after the other. To wake a client for
 * each answer, while the next request waits, costs as much as the answer. Deno does so by itself, and is half as fast with this.
 */
const requestsRead = () => (isDeno ? undefined : new Promise((resolve) => setImmediate(resolve)))

function fieldsOf(headers: Headers): string[] {
  const fields: string[] = []
  headers.forEach((value, name) => {
    fields.push(name, value)
  })
  return fields
}

/** Cuts a connection at once. A TLS socket cannot be reset on Node, nor the socket beneath it on Bun: they throw. */
export function reset(socket: Socket | null): void {
  try {
    socket?.resetAndDestroy()
  } catch {
    socket?.destroy()
  }
}

interface Outlet {
  outgoing: ServerResponse
  idleMs: number
  onStream: () => void
}

/** Destroys `outgoing` if nothing moves for `idleMs`. Not by the socket's timeout: Bun's counts on, whatever moves. */
function watch({ outgoing, idleMs }: Outlet, onDrain: () => void, onClose: () => void): NodeJS.Timeout {
  const timer = setTimeout(() => outgoing.destroy(), idleMs)
  outgoing.on('drain', () => {
    timer.refresh()
    onDrain()
  })
  outgoing.on('close', () => {
    clearTimeout(timer)
    onClose()
  })
  return timer
}

/** Sends the body of a registry's answer as it arrives; rejects if it breaks. */
function pour(arrival: Arrival, outlet: Outlet): Promise<void> {
  const { outgoing, onStream } = outlet
  const timer = watch(
    outlet,
    () => arrival.resume(),
    () => arrival.abort(),
  )
  return new Promise((resolve, reject) => {
    // With TLS on Deno (2.9.5) an answer that ends during a write never finishes, and blocks the connection.
    let writing = 0
    let onWritten = () => {}
    const written = () => {
      if (--writing === 0) onWritten()
    }
    const data = (chunk: Uint8Array) => {
      timer.refresh()
      onStream()
      if (!isDeno) return outgoing.write(chunk)
      writing++
      return outgoing.write(chunk, written)
    }
    const end = () => {
      if (writing === 0) resolve()
      else onWritten = resolve
    }
    arrival.to({ data, end, error: reject })
  })
}

/** Sends any other stream, no faster than the client takes it; rejects if it breaks. */
async function pipe(body: ReadableStream<Uint8Array>, outlet: Outlet): Promise<void> {
  const { outgoing, onStream } = outlet
  let onMove = () => {}
  const reader = body.getReader()
  const timer = watch(
    outlet,
    () => onMove(),
    () => {
      onMove()
      reader.cancel().catch(() => {})
    },
  )
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    timer.refresh()
    onStream()
    const moved = new Promise<void>((resolve) => {
      onMove = resolve
    })
    if (!outgoing.write(value) && !outgoing.destroyed) await moved
  }
}

/** Sends a body piece by piece: TLS, and Bun, would copy all of it at once for a client that is slow to take it. */
async function writeInPieces(body: Uint8Array, outlet: Outlet): Promise<void> {
  const { outgoing, onStream } = outlet
  let onMove = () => {}
  const timer = watch(
    outlet,
    () => onMove(),
    () => onMove(),
  )
  for (let at = 0; at < body.byteLength && !outgoing.destroyed; at += largeBytes) {
    timer.refresh()
    onStream()
    const piece = body.subarray(at, at + largeBytes)
    const moved = new Promise<void>((resolve) => {
      onMove = resolve
    })
    // With TLS on Deno (2.9.5) an answer that ends during a write never finishes.
    if (isDeno) outgoing.write(piece, () => onMove())
    if ((isDeno || !outgoing.write(piece)) && !outgoing.destroyed) await moved
  }
}

/** Reads the rest of a refused upload for a while: to close at once would reset the connection and lose the answer. */
function linger(incoming: IncomingMessage): Promise<void> {
  // Whoever was reading the upload does not want the rest.
  incoming.removeAllListeners('data').removeAllListeners('readable').resume()
  return finished(incoming, { signal: AbortSignal.timeout(lingerMs) }).catch(() => {})
}
