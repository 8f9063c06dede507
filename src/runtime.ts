/** The only file that knows Node, Bun and Deno apart: how to listen, and which fetch to use. */
import process from 'node:process'
import { ociError } from './errors.ts'
import { nodeFetch } from './fetch.ts'
import { listenOnNode } from './node.ts'
import { type Pair, rootsWith } from './tls.ts'

/** What only the runtime knows of the connection a request came on. */
export interface Connection {
  /** The client's address. */
  address?: string
  /** The request's id, set by the handler. */
  id?: string
  /** Settles when the request's body was read to its end; absent where the runtime cannot tell. */
  bodyRead?: Promise<void>
  /** Settles when the answer was sent: true for all of it, false where the connection broke before. */
  sent?: Promise<boolean>
  /** The request's body, where the runtime has a quicker way to it than the request's own. */
  upload?: ReadableStream<Uint8Array>
  /** Set by the handler: what its answer's body was made of, where that is known; getting it back would cost. */
  body?: Body
}

/** A body in memory, or one that streams. */
export type Body = Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array> | null

/** As much of a Response as an upstream's answer needs. */
export type Reply = Pick<Response, 'status' | 'headers' | 'body' | 'arrayBuffer'>

export type Handler = (request: Request, connection: Connection) => Response | Promise<Response>

/** Header fields to send, their names in lower case; as Headers they would cost Deno's fetch three times as much. */
export type Fields = Record<string, string>

/** The web's fetch; `fresh`: not on a connection that served before. */
export type Fetch = (url: string, init: RequestInit & { headers: Fields }, fresh?: boolean) => Promise<Reply>

interface Server {
  port: number
  /** Accepts no more connections and closes the idle ones; what is in flight goes on. */
  stop: () => Promise<void>
  /** With `tls`: this certificate for connections to come; those there are go on. Throws where it cannot be used. */
  renew: (pair: Pair) => void
}

export interface Runtime {
  /** Name and version, as in the metric `build_info`. */
  name: string
  /** Rejects with an AbortError where the client left in the middle of the body. */
  fetch: Fetch
  listen: Listen
}

interface ListenOptions {
  port: number
  host: string
  /** Seconds without a byte, either way, that end a stream; Deno cannot watch one without slowing it. */
  idleTimeout: number
  /** Serves https. */
  tls?: Pair
}

export type Listen = (handler: Handler, options: ListenOptions) => Promise<Server>

type DenoGlobal = NonNullable<Globals['Deno']>
/** As much of the other two as is used here. */
interface Globals {
  Bun?: { version: string }
  Deno?: {
    version: { deno: string }
    serve: (options: object, handler: DenoHandler) => DenoServer
    createHttpClient: (options: object) => unknown
    listen: (options: object) => { close: () => void }
    listenTls: (options: object) => TlsListener
    internal: symbol
  }
}
type DenoHandler = (
  request: Request,
  info: { remoteAddr: { hostname?: string }; completed: Promise<void> },
) => Promise<Response>
/** What Deno.serve() itself is made of. */
interface Internal {
  serveHttpOnConnection?: (
    connection: object,
    signal: undefined,
    handler: DenoHandler,
    onError: () => Response,
    onListen: () => void,
  ) => { finished: Promise<void> }
}
type TlsListener = AsyncIterable<object> & { addr: { port: number }; close: () => void }
type DenoServer = { addr: { port: number }; finished: Promise<void>; shutdown: () => Promise<void> }

/** Which runtime this is; its fetch trusts the usual authorities and `ca`, in PEM, and nobody else whatever the environment says. */
export async function detectRuntime(ca: string[]): Promise<Runtime> {
  const { Bun, Deno } = globalThis as Globals
  if (Deno) return { name: `deno ${Deno.version.deno}`, fetch: denoFetch(Deno, ca), listen: listenOnDeno(Deno) }
  const name = Bun ? `bun ${Bun.version}` : `node ${process.versions.node}`
  return { name, fetch: await nodeFetch(rootsWith(ca)), listen: listenOnNode }
}

/** A client that leaves an upload shows on Deno in the body alone, not in the request's signal. */
function denoFetch(deno: DenoGlobal, ca: string[]): Fetch {
  // Deno would send all of it, logins included, by way of these; the addresses are the configuration's to say.
  for (const name of ['HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY', 'http_proxy', 'https_proxy', 'all_proxy']) {
    delete process.env[name]
  }
  // Over HTTP/2 all transfers would share one connection, and wait for the slowest client.
  const options = { caCerts: ca, http2: false }
  const kept = deno.createHttpClient(options)
  const unkept = deno.createHttpClient({ ...options, poolMaxIdlePerHost: 0 })
  return (url, init, fresh) => {
    // On a kept connection that breaks, Deno sends a body of a few bytes twice.
    const once = fresh || (init.body && Number(init.headers['content-length'] ?? 0) < 65_536)
    return fetch(url, { ...init, client: once ? unkept : kept } as RequestInit).catch((error: Error) => {
      const { message = '' } = (error.cause ?? {}) as Error
      throw /read(ing)? (request|HTTP\/1) body/.test(message) ? new DOMException(message, 'AbortError') : error
    })
  }
}

function listenOnDeno(deno: DenoGlobal): Listen {
  return async (handler, { port, host, tls }) => {
    let uploads = 0
    let stopping = false
    let noUpload = () => {}
    const answer: DenoHandler = async (request, { remoteAddr, completed }) => {
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
      // In HTTP/2, where alone a body needs neither, Deno takes an upload that its client cancels for a whole one.
      const isFramed = request.headers.has('Transfer-Encoding') || request.headers.has('Content-Length')
      if (request.body && !isFramed && (await request.body.getReader().read()).value?.byteLength) {
        return ociError(request.method, 411, { code: 'UNSUPPORTED', message: 'HTTP/2 needs a Content-Length here' })
      }
      const response = await handler(request, { address: remoteAddr.hostname?.replace(/^::ffff:/, ''), sent })
      if (request.method !== 'HEAD' || response.headers.has('Content-Length')) return response
      // Of no body at all Deno would say that its length is 0.
      const { status, headers } = response
      return new Response(new ReadableStream({ start: (body) => body.close() }), { status, headers })
    }
    const server = tls ? listenWithTls(deno, answer, port, host, tls) : listenInClear(deno, answer, port, host)
    const stop = async () => {
      // Deno's shutdown() breaks uploads in flight (denoland/deno#36809), so it waits for them and sends others away.
      stopping = true
      if (uploads > 0) {
        await new Promise<void>((resolve) => {
          noUpload = resolve
        })
      }
      await server.stop()
    }
    return { ...server, stop }
  }
}

function listenInClear(deno: DenoGlobal, answer: DenoHandler, port: number, host: string): Server {
  const serve = (port: number): DenoServer => {
    const server = deno.serve({ port, hostname: host, onListen: () => {} }, answer)
    server.finished.catch(() => again(server.addr.port))
    return server
  }
  // With too many files open, Deno.serve() ends; the connections it has go on.
  const again = (port: number) =>
    setTimeout(() => {
      try {
        server = serve(port)
      } catch {
        again(port)
      }
    }, listenPause)
  let server = serve(port)
  return { port: server.addr.port, renew: () => {}, stop: () => server.shutdown() }
}
/** Milliseconds until what there were too many files for is tried again. */
const listenPause = 100

/**
 * Deno.serve() offers HTTP/2 over TLS, in which Deno takes an upload that the client cancels for a whole one, and a
 * certificate that cannot be changed. So this listens itself, and hands each connection to what is behind Deno.serve().
 */
function listenWithTls(deno: DenoGlobal, answer: DenoHandler, port: number, host: string, tls: Pair): Server {
  const { serveHttpOnConnection } = (deno as unknown as Record<symbol, Internal>)[deno.internal] ?? {}
  if (!serveHttpOnConnection) throw new Error('this version of Deno cannot serve https with HTTP/1.1 alone')
  const failed = () => new Response(null, { status: 500 })
  const listen = (port: number, pair: Pair) => {
    const listener = deno.listenTls({ ...pair, port, hostname: host, alpnProtocols: ['http/1.1'], reusePort: true })
    accept(listener, (connection) => {
      // Rejects where what comes is no TLS.
      serveHttpOnConnection(connection, undefined, answer, failed, () => {}).finished.catch(() => {})
    })
    return listener
  }
  // The next listener takes the same port before this one leaves it; so, here, somebody else's could too.
  deno.listen({ port, hostname: host }).close()
  let listener = listen(port, tls)
  const taken = listener.addr.port
  const renew = (pair: Pair) => {
    const old = listener
    listener = listen(taken, pair)
    old.close()
  }
  return { port: taken, renew, stop: async () => listener.close() }
}

/** Each connection until the listener is closed. */
async function accept(listener: TlsListener, serve: (connection: object) => void): Promise<void> {
  try {
    for await (const connection of listener) serve(connection)
  } catch {
    // There are too many files open.
    setTimeout(() => accept(listener, serve), listenPause)
  }
}
