/** How to listen, on Node, Bun and Deno; a body that streams passes with nothing in between. */
import type { EventEmitter } from 'node:events'
import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import https from 'node:https'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { finished } from 'node:stream/promises'
import { createAdaptorServer } from '@hono/node-server'
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
import type { Config } from './config.ts'
import { type Arrival, arrivalOf } from './fetch.ts'
import { hasBody } from './headers.ts'
import { type Body, type Connection, type Handler, runtime } from './runtime.ts'
import type { Pair } from './tls.ts'

/** Requests of each connection that have no whole answer yet: all that a client has sent at once are begun at once. */
const underWay = new WeakMap<Socket, number>()
/** No client is known to send a second one; who sends more than this loses the connection. */
const mostUnderWay = 100

/** With `tls` it serves https. */
export async function listen(handler: Handler, { port: wanted, host, idleTimeout }: Config, tls?: Pair) {
  const server = createAdaptorServer({
    createServer: (tls ? https : http).createServer,
    // What HTTP/1.0, which needs no Host, is taken to ask for; health checks of balancers do.
    hostname: 'localhost',
    fetch: async (request, bindings) => {
      const incoming = bindings.incoming as IncomingMessage
      const outgoing = bindings.outgoing as ServerResponse
      const { socket } = incoming
      const before = underWay.get(socket) ?? 0
      if (before === mostUnderWay) {
        socket.destroy()
        return RESPONSE_ALREADY_SENT
      }
      underWay.set(socket, before + 1)
      // The adapter resolves `..` and escapes; what is matched is what came (RFC 9112, section 3.2).
      const target = (incoming.url as string).replace(/^https?:\/\/[^/?#]*/i, '')
      if (!request.url.endsWith(target)) Object.defineProperty(request, 'url', { value: `http://localhost${target}` })
      const connection: Connection = {
        address: socket.remoteAddress?.replace(/^::ffff:/, ''),
        sent: new Promise((resolve) => {
          outgoing.once('close', () => {
            underWay.set(socket, (underWay.get(socket) as number) - 1)
            resolve(outgoing.writableFinished)
          })
          // One that waits its turn behind others of its connection does not hear of that connection's end.
          if (outgoing.socket) return
          const end = () => !outgoing.socket && outgoing.destroy().emit('close')
          socket.setMaxListeners(0).once('close', end)
          outgoing.once('close', () => socket.off('close', end))
        }),
      }
      if (hasBody(request)) {
        // A silence counts while a body moves, not while a registry thinks: that has deadlines of its own.
        socket.setTimeout(idleTimeout * 1000)
        connection.bodyRead = new Promise((resolve) => incoming.once('end', resolve))
        connection.bodyRead.then(() => socket.setTimeout(0))
        connection.upload = incoming
      }
      const response = await handler(request, connection)
      const { status, headers } = response
      let { body } = connection
      // An answer of this router's own, and short.
      if (body === undefined) body = response.body && new Uint8Array(await response.arrayBuffer())
      if (!(body instanceof ReadableStream)) await ready()
      const closing = headers.get('Connection') === 'close'
      send(status, headers, body, outgoing, idleTimeout * 1000, closing ? () => linger(incoming) : undefined)
      return RESPONSE_ALREADY_SENT
    },
    // An upload may take hours; a token may take 14 KB.
    serverOptions: {
      ...tls,
      requestTimeout: 0,
      headersTimeout: Math.ceil(idleTimeout * 1000),
      connectionsCheckingInterval: Math.ceil(idleTimeout * 250),
      keepAliveTimeout: 75_000,
      maxHeaderSize: 65_536,
    },
  }) as https.Server
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(wanted, host, resolve)
  })
  const { port, address } = server.address() as AddressInfo
  const connections = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    connections.add(socket)
    socket.once('close', () => connections.delete(socket))
  })
  const again = () => server.close().listen({ port, host })
  const watch = isDeno ? keepHearing(server, address, port, again) : undefined
  let stopped = false
  if (bun) setInterval(collect, collectionPause).unref()
  return {
    port,
    /** With `tls`: this certificate for connections to come; those there are go on. Throws where it cannot be used. */
    renew: (pair: Pair) => {
      if (server.setSecureContext) return server.setSecureContext(pair)
      if (stopped) return
      // Bun's has no such thing (oven-sh/bun#43815), but may listen again at once; connections go on. Where it cannot, it ends.
      server.removeAllListeners('error').close()
      server.listen({ port, host, tls: pair } as object)
    },
    /** Accepts no more connections and closes the idle ones; what is in flight goes on. */
    stop: () => {
      stopped = true
      clearInterval(watch)
      server.close()
    },
    /** Resets what is left, so that its clients hear of the end even where they have not taken what was sent to them. */
    cut: () => {
      for (const socket of connections) reset(socket)
    },
  }
}

const { Bun: bun } = globalThis as { Bun?: { gc: (now: boolean) => void } }
/** Whether any of a layer has passed since the last collection. */
let passed = false
/** Bun lets the buffers of what has passed lie, up to 100 MiB with 100 slow clients; to collect them takes it 15 ms. */
function collect(): void {
  if (passed) bun?.gc(true)
  passed = false
}
const collectionPause = 2000

const isDeno = runtime.startsWith('deno ')

/**
 * Settles when all requests at hand have been looked at: their answers then go out one after the other. To wake a client for
 * each, while the next request waits, costs as much as the answer does. Deno writes so by itself, and half as fast after this.
 */
const ready = () => (isDeno ? undefined : new Promise((resolve) => setImmediate(resolve)))

/**
 * After too many files were open Deno hears of no connection any more, and says nothing of it. So it calls on itself every
 * other second: where two of its calls in a row are taken by the kernel alone, it listens `again`.
 */
function keepHearing(server: EventEmitter, address: string, port: number, again: () => void) {
  let [called, heard, unheard] = [false, true, 0]
  server
    .on('error', () => {})
    .on('connection', () => {
      heard = true
    })
  return setInterval(() => {
    unheard = called && !heard ? unheard + 1 : 0
    if (unheard >= 2) again()
    ;[called, heard] = [false, false]
    const host = { '0.0.0.0': '127.0.0.1', '::': '::1' }[address] ?? address
    const call = connect(port, host, () => {
      called = true
      call.destroy()
    }).on('error', ({ code }: NodeJS.ErrnoException) => {
      // It could not listen again.
      called = code === 'ECONNREFUSED'
    })
  }, callPause).unref()
}
const callPause = 2000

/** The adapter's own way prints a stack where a body breaks, and tries to end the answer with a text of its own. */
async function send(
  status: number,
  headers: Headers,
  body: Body,
  outgoing: ServerResponse,
  patience: number,
  beforeEnd?: () => Promise<void>,
): Promise<void> {
  const streams = body instanceof ReadableStream
  if (outgoing.destroyed) {
    // The client left just now: no `close` will come any more, to free what is begun here.
    if (streams) body.cancel().catch(() => {})
    return
  }
  const giveUp = () => outgoing.setTimeout(patience, () => outgoing.destroy())
  try {
    const fields: string[] = []
    headers.forEach((value, name) => {
      fields.push(name, value)
    })
    outgoing.writeHead(status, fields)
    if (streams) {
      outgoing.flushHeaders()
      await pour(arrivalOf(body), outgoing, patience)
    } else if (body && beforeEnd) {
      giveUp()
      await new Promise((written) => outgoing.write(body, written))
    }
    await beforeEnd?.()
    outgoing.end(streams || beforeEnd ? undefined : body)
    // Of what is at hand whole, little is left here; so Bun's counting, which `pour` avoids, does no harm.
    if (outgoing.writableLength > 0) giveUp()
  } catch {
    // Half an answer must not look whole; without a length, to HTTP/1.0 it would by a plain end (RFC 9112, section 8).
    if (outgoing.req.httpVersion === '1.0' && !headers.has('Content-Length')) reset(outgoing.socket)
    outgoing.destroy()
  }
}

/** A socket of TLS cannot be reset, on Node, nor what is beneath it, on Bun: that is an error thrown, not told. */
function reset(socket: Socket | null): void {
  try {
    socket?.resetAndDestroy()
  } catch {
    socket?.destroy()
  }
}

/** All of a body, unless nothing moves for `patience` milliseconds; rejects where it breaks. */
function pour(arrival: Arrival, outgoing: ServerResponse, patience: number): Promise<void> {
  // Not the socket's own timeout: Bun's counts from when it was set, whatever has moved since.
  const watch = setTimeout(() => outgoing.destroy(), patience)
  outgoing.on('drain', () => {
    watch.refresh()
    arrival.resume()
  })
  outgoing.on('close', () => {
    clearTimeout(watch)
    arrival.abort()
  })
  return new Promise((end, error) => {
    // On Deno (2.9.5) an end that comes while TLS is still writing is never finished, and holds up what follows.
    let writing = 0
    let onWritten = () => {}
    const written = () => {
      if (--writing === 0) onWritten()
    }
    const data = (chunk: Uint8Array) => {
      watch.refresh()
      passed = true
      if (!isDeno) return outgoing.write(chunk)
      writing++
      return outgoing.write(chunk, written)
    }
    const ended = () => {
      if (writing === 0) end()
      else onWritten = end
    }
    arrival.to({ data, end: ended, error })
  })
}

/** Closing at once on a client that still sends would reset its connection, and lose the answer on its way. */
function linger(incoming: IncomingMessage): Promise<void> {
  // Nobody wants the rest any more, its reader included.
  incoming.removeAllListeners('data').removeAllListeners('readable').resume()
  return finished(incoming, { signal: AbortSignal.timeout(lingerTime) }).catch(() => {})
}
const lingerTime = 2000
