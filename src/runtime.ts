/** The only file that knows Node, Bun and Deno apart: how to listen, and which fetch to use. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import process from 'node:process'
import { ociError } from './errors.ts'
import { hasBody } from './headers.ts'

/** What only the runtime knows of the connection a request came on. */
export interface Connection {
  /** The client's address. */
  address?: string
  /** Settles when the request's body was read to its end; absent where the runtime cannot tell. */
  bodyRead?: Promise<void>
  /** Settles when the answer was sent: true for all of it, false where the connection broke before. */
  sent?: Promise<boolean>
}

export type Handler = (request: Request, connection: Connection) => Response | Promise<Response>

/** The web's fetch; `fresh`: not on a connection that served before. */
export type Fetch = (url: string, init: RequestInit, fresh?: boolean) => Promise<Response>

export interface Server {
  port: number
  /** Accepts no more connections and closes the idle ones; what is in flight goes on. */
  stop: () => Promise<void>
}

export interface Runtime {
  /** Name and version, as in the metric `build_info`. */
  name: string
  /** Set where the way it was started limits it. */
  warning?: string
  /** Rejects with an AbortError where the client left in the middle of the body. */
  fetch: Fetch
  listen: Listen
}

/** `idleTimeout`: seconds without a byte, either way, that end a stream; Deno cannot watch one without slowing it. */
export type Listen = (handler: Handler, options: { port: number; host: string; idleTimeout: number }) => Promise<Server>

/** As much of the other two as is used here. */
interface Globals {
  Bun?: { version: string }
  Deno?: {
    version: { deno: string }
    serve: (options: object, handler: DenoHandler) => DenoServer
    createHttpClient: (options: object) => unknown
  }
}
type DenoHandler = (request: Request, info: { remoteAddr: { hostname?: string }; completed: Promise<void> }) => unknown
type DenoServer = { addr: { port: number }; shutdown: () => Promise<void> }

/** Which runtime this is. */
export async function detectRuntime(): Promise<Runtime> {
  const { Bun, Deno } = globalThis as Globals
  if (Deno) return { name: `deno ${Deno.version.deno}`, fetch: denoFetch(Deno), listen: listenOnDeno(Deno) }
  if (Bun) return { name: `bun ${Bun.version}`, warning: bunWarning(), fetch: bunFetch, listen: listenOnNode }
  return { name: `node ${process.versions.node}`, fetch: await nodeFetch(), listen: listenOnNode }
}

/** Node's own fetch gives up after 300 s without a byte and after 16 KB of header fields. */
async function nodeFetch(): Promise<Fetch> {
  const undici = await import('undici')
  // How long to wait, for a connection too, is the caller's signal to say.
  const options = { headersTimeout: 0, bodyTimeout: 0, maxHeaderSize: 128 * 1024, connect: { timeout: 0 } }
  const kept = new undici.Agent(options)
  const unkept = new undici.Agent({ ...options, pipelining: 0 })
  return (async (url: string, init: object, fresh?: boolean) => {
    const dispatcher = fresh ? unkept : kept
    const response = await undici.fetch(url, { ...init, dispatcher })
    if (!response.body || !response.headers.has('Content-Encoding')) return response
    // It decodes the body and leaves the fields that describe it encoded.
    const headers = new undici.Headers(response.headers)
    headers.delete('Content-Encoding')
    headers.delete('Content-Length')
    return new undici.Response(response.body, { status: response.status, headers })
  }) as unknown as Fetch
}

/** `decompress: false` gives the exact bytes; `timeout: false` lifts a limit of five minutes without a byte. */
const bunFetch: Fetch = (url, init, fresh) =>
  fetch(url, { ...init, decompress: false, timeout: false, keepalive: !fresh } as RequestInit)

/** A client that leaves an upload shows on Deno in the body alone, not in the request's signal. */
function denoFetch(deno: NonNullable<Globals['Deno']>): Fetch {
  const unkept = deno.createHttpClient({ poolMaxIdlePerHost: 0 })
  return (url, init, fresh) => {
    // On a kept connection that breaks, Deno sends a body of a few bytes twice.
    const once = fresh || (init.body && Number((init.headers as Headers).get('Content-Length') ?? 0) < 65_536)
    return fetch(url, once ? ({ ...init, client: unkept } as RequestInit) : init).catch((error: Error) => {
      const { message = '' } = (error.cause ?? {}) as Error
      throw /read(ing)? (request|HTTP\/1) body/.test(message) ? new DOMException(message, 'AbortError') : error
    })
  }
}

/** Bun reads the limit once, from the real environment, before any code runs. */
function bunWarning(): string | undefined {
  if (Number(process.env.BUN_CONFIG_MAX_HTTP_REQUESTS) > 256) return undefined
  return 'Bun runs 256 upstream requests at a time, the rest wait: set BUN_CONFIG_MAX_HTTP_REQUESTS=65336 before the start'
}

const listenOnNode: Listen = async (handler, { port, host, idleTimeout }) => {
  const { createAdaptorServer } = await import('@hono/node-server')
  const { RESPONSE_ALREADY_SENT } = await import('@hono/node-server/utils/response')
  const server = createAdaptorServer({
    fetch: async (request, { incoming, outgoing }) => {
      const { socket } = incoming
      const bodyRead = new Promise<void>((resolve) => incoming.once('end', resolve))
      if (hasBody(request)) {
        // A silence counts while a body moves, not while a registry thinks: that has deadlines of its own.
        socket.setTimeout(idleTimeout * 1000)
        bodyRead.then(() => socket.setTimeout(0))
      }
      const response = await handler(request, {
        address: socket.remoteAddress?.replace(/^::ffff:/, ''),
        bodyRead,
        sent: new Promise((resolve) => outgoing.once('close', () => resolve(outgoing.writableFinished))),
      })
      const closing = response.headers.get('Connection') === 'close'
      if (!response.body && !closing) return response
      send(
        response,
        outgoing as ServerResponse,
        idleTimeout * 1000,
        closing ? () => linger(incoming as IncomingMessage) : undefined,
      )
      return RESPONSE_ALREADY_SENT
    },
    // An upload may take hours; a token may take 14 KB.
    serverOptions: { requestTimeout: 0, keepAliveTimeout: 75_000, maxHeaderSize: 65_536 },
  }) as import('node:http').Server
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, resolve)
  })
  return {
    port: (server.address() as { port: number }).port,
    stop: async () => {
      server.close()
      // A connection that falls idle later would hold the server open until its keep-alive ends.
      setInterval(() => server.closeIdleConnections(), 100).unref()
    },
  }
}

/** The adapter's own way prints a stack where a body breaks, and tries to end the answer with a text of its own. */
async function send(
  { status, headers, body }: Response,
  outgoing: ServerResponse,
  patience: number,
  beforeEnd?: () => Promise<void>,
) {
  if (outgoing.destroyed) {
    // The client left just now: no `close` will come any more, to free what is begun here.
    body?.cancel().catch(() => {})
    return
  }
  const reader = body?.getReader()
  let wake = () => {}
  // Not the socket's own timeout: Bun's counts from when it was set, whatever has moved since.
  let moved = performance.now()
  const watch = setInterval(() => {
    if (performance.now() - moved > patience) outgoing.destroy()
  }, patience / 4)
  outgoing.on('drain', () => wake())
  outgoing.on('close', () => {
    clearInterval(watch)
    wake()
    reader?.cancel().catch(() => {})
  })
  try {
    for (const [name, value] of headers) outgoing.appendHeader(name, value)
    outgoing.writeHead(status)
    outgoing.flushHeaders()
    while (reader) {
      const { done, value } = await reader.read()
      if (done) break
      moved = performance.now()
      if (outgoing.write(value) || outgoing.destroyed) continue
      await new Promise<void>((resolve) => {
        wake = resolve
      })
      moved = performance.now()
    }
    await beforeEnd?.()
    outgoing.end()
  } catch {
    // Half an answer must not look whole.
    outgoing.destroy()
  }
}

/** Closing at once on a client that still sends would reset its connection, and lose the answer on its way. */
function linger(incoming: IncomingMessage): Promise<void> {
  return new Promise((resolve) => {
    if (incoming.readableEnded || incoming.destroyed) return resolve()
    const timer = setTimeout(resolve, lingerTime)
    for (const event of ['end', 'close', 'error']) {
      incoming.once(event, () => {
        clearTimeout(timer)
        resolve()
      })
    }
    // Nobody wants the rest any more, its reader included.
    incoming.removeAllListeners('data').resume()
  })
}
const lingerTime = 2000

function listenOnDeno(deno: NonNullable<Globals['Deno']>): Listen {
  return async (handler, { port, host }) => {
    let uploads = 0
    let stopping = false
    let noUpload = () => {}
    const server = deno.serve({ port, hostname: host, onListen: () => {} }, (request, { remoteAddr, completed }) => {
      const sent = completed.then(
        () => true,
        () => false,
      )
      if (stopping) {
        const error = { code: 'UNAVAILABLE', message: 'this router is about to end' }
        return ociError(request.method, 503, error, { Connection: 'close', 'Retry-After': '1' })
      }
      if (request.body) {
        uploads++
        sent.then(() => {
          uploads--
          if (uploads === 0) noUpload()
        })
      }
      return handler(request, { address: remoteAddr.hostname?.replace(/^::ffff:/, ''), sent })
    })
    const stop = async () => {
      // Deno's shutdown() breaks uploads in flight (denoland/deno#36809), so it waits for them and sends others away.
      stopping = true
      if (uploads > 0) {
        await new Promise<void>((resolve) => {
          noUpload = resolve
        })
      }
      await server.shutdown()
    }
    return { port: server.addr.port, stop }
  }
}
