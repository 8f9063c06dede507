/** Node's ways to ask and to listen; Bun listens in the same way. Bytes pass from stream to stream as Node has them. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Readable } from 'node:stream'
import type { Dispatcher } from 'undici'
import { hasBody } from './headers.ts'
import type { Body, Connection, Fetch, Handler, ListenOptions, Reply, Server } from './runtime.ts'

/** What is behind the web streams given out here: where both ends of a transfer are Node's, nothing in between is needed. */
const uploads = new WeakMap<ReadableStream, Readable>()
const arrivals = new WeakMap<ReadableStream, Arrival>()

/** A web stream that does nothing until it is read. */
function toWeb(readable: Readable): ReadableStream<Uint8Array> {
  const chunks = readable.iterator({ destroyOnReturn: true })
  const stream = new ReadableStream<Uint8Array>(
    {
      pull: async (controller) => {
        const { done, value } = await chunks.next()
        if (done) controller.close()
        else controller.enqueue(value)
      },
      cancel: () => {
        readable.on('error', () => {}).destroy()
      },
    },
    { highWaterMark: 0 },
  )
  uploads.set(stream, readable)
  return stream
}

/** Takes a body; `data` says whether more may come before the next `resume`. */
interface Taker {
  data: (chunk: Uint8Array) => boolean
  end: () => void
  error: (error: Error) => void
}

/** The body of an answer on its way: a Node stream in between would cost a third of the speed. */
type Arrival = ReturnType<typeof createArrival>

/** Bytes that come before anybody takes them: most answers are whole then, and their connection serves again. */
const ahead = 65_536

function createArrival() {
  const held: Uint8Array[] = []
  let size = 0
  let over: ((taker: Taker) => void) | undefined
  let controller: Dispatcher.DispatchController | undefined
  let taker: Taker = {
    data: (chunk) => {
      held.push(chunk)
      size += chunk.byteLength
      return size < ahead
    },
    end: () => {
      over = (next) => next.end()
    },
    error: (error) => {
      over = (next) => next.error(error)
    },
  }
  return {
    begin: (by: Dispatcher.DispatchController) => {
      controller = by
    },
    taker: () => taker,
    to: (next: Taker) => {
      taker = next
      const more = held.splice(0).map(next.data).at(-1) ?? true
      if (over) over(next)
      else if (more) controller?.resume()
    },
    resume: () => controller?.resume(),
    abort: (reason: Error = gone()) => controller?.abort(reason),
  }
}

const gone = () => new DOMException('the client left', 'AbortError')

function arrivalToWeb(arrival: Arrival): ReadableStream<Uint8Array> {
  let taken = false
  const stream = new ReadableStream<Uint8Array>(
    {
      pull: (controller) => {
        if (taken) return arrival.resume()
        taken = true
        arrival.to({
          data: (chunk) => {
            controller.enqueue(chunk)
            return false
          },
          end: () => controller.close(),
          error: (error) => controller.error(error),
        })
      },
      cancel: () => arrival.abort(),
    },
    { highWaterMark: 0 },
  )
  arrivals.set(stream, arrival)
  return stream
}

function wholeOf(arrival: Arrival): Promise<ArrayBuffer> {
  const chunks: Uint8Array[] = []
  return new Promise((resolve, reject) => {
    arrival.to({
      data: (chunk) => chunks.push(chunk) > 0,
      end: () => resolve(new Uint8Array(Buffer.concat(chunks)).buffer),
      error: reject,
    })
  })
}

/**
 * Node's fetch keeps an upload whole for a redirect (nodejs/undici#4058), gives up after 300 s without a byte and after
 * 16 KB of header fields, decodes bodies, and costs twice as much as the client it is built on, which is used here.
 */
export async function nodeFetch(ca: string[] | undefined): Promise<Fetch> {
  const { Agent } = await import('undici')
  // How long to wait, for a connection too, is the caller's signal to say.
  const connect = { timeout: 0, ca, rejectUnauthorized: true }
  const options = { headersTimeout: 0, bodyTimeout: 0, maxHeaderSize: 128 * 1024, connect }
  const kept = new Agent(options)
  const unkept = new Agent({ ...options, pipelining: 0 })
  return (url, { method = 'GET', headers, body: given, signal }, fresh) => {
    const { origin, pathname, search } = new URL(url)
    const upload = given ? uploads.get(given as ReadableStream) : undefined
    // Whatever becomes of this request, the client's connection is still to carry the answer.
    const body = (upload?.iterator({ destroyOnReturn: false }) ?? given ?? null) as Readable | null
    const asked = { origin, path: pathname + search, method: method as 'GET', headers, body }
    const arrival = createArrival()
    return new Promise((resolve, reject) => {
      const abort = () => {
        arrival.abort(signal?.reason)
        reject(signal?.reason)
      }
      if (signal?.aborted) return abort()
      signal?.addEventListener('abort', abort, { once: true })
      const dispatcher = fresh ? unkept : kept
      dispatcher.dispatch(asked, {
        onRequestStart: (controller) => {
          arrival.begin(controller)
          if (signal?.aborted) abort()
        },
        onResponseStart: (_, status, record) => {
          if (status >= 200) resolve(replyOf(status, record, arrival))
        },
        onResponseData: (controller, chunk) => {
          // Resumed before more has come, the parser hands over nothing: to pause for that would be for ever.
          if (chunk.byteLength > 0 && !arrival.taker().data(chunk)) controller.pause()
        },
        onResponseEnd: () => arrival.taker().end(),
        onResponseError: (_, error) => {
          arrival.taker().error(error)
          const left = upload?.destroyed && !upload.readableEnded
          reject(left ? gone() : error)
        },
      })
    })
  }
}

function replyOf(status: number, record: Record<string, string | string[] | undefined>, arrival: Arrival): Reply {
  const headers = new Headers()
  for (const [name, value = []] of Object.entries(record)) {
    for (const one of [value].flat()) headers.append(name, one)
  }
  let stream: ReadableStream<Uint8Array> | undefined
  return {
    status,
    headers,
    get body() {
      stream ??= arrivalToWeb(arrival)
      return stream
    },
    arrayBuffer: () => wholeOf(arrival),
  }
}

/** `native`: what an upload is sent on with can read a Node stream. */
export function listenOnNode(native: boolean) {
  return async (handler: Handler, { port: wanted, host, idleTimeout, tls }: ListenOptions): Promise<Server> => {
    const { createAdaptorServer } = await import('@hono/node-server')
    const { RESPONSE_ALREADY_SENT } = await import('@hono/node-server/utils/response')
    const { createServer } = tls ? await import('node:https') : await import('node:http')
    const server = createAdaptorServer({
      createServer,
      fetch: async (request, bindings) => {
        const incoming = bindings.incoming as IncomingMessage
        const outgoing = bindings.outgoing as ServerResponse
        const { socket } = incoming
        const connection: Connection = {
          address: socket.remoteAddress?.replace(/^::ffff:/, ''),
          sent: new Promise((resolve) => outgoing.once('close', () => resolve(outgoing.writableFinished))),
        }
        if (hasBody(request)) {
          // A silence counts while a body moves, not while a registry thinks: that has deadlines of its own.
          socket.setTimeout(idleTimeout * 1000)
          connection.bodyRead = new Promise((resolve) => incoming.once('end', resolve))
          connection.bodyRead.then(() => socket.setTimeout(0))
          if (native) connection.upload = toWeb(incoming)
        }
        const response = await handler(request, connection)
        const { status, headers } = response
        const body = connection.body === undefined ? response.body : connection.body
        const closing = headers.get('Connection') === 'close'
        send(status, headers, body, outgoing, idleTimeout * 1000, closing ? () => linger(incoming) : undefined)
        return RESPONSE_ALREADY_SENT
      },
      // An upload may take hours; a token may take 14 KB.
      serverOptions: { ...tls, requestTimeout: 0, keepAliveTimeout: 75_000, maxHeaderSize: 65_536 },
    }) as import('node:https').Server
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(wanted, host, resolve)
    })
    const { port } = server.address() as { port: number }
    return {
      port,
      renew: (pair) => {
        if (native) return server.setSecureContext(pair)
        // Bun's has no such thing (oven-sh/bun#43815), but may listen again at once; connections go on. Where it cannot, it ends.
        server.removeAllListeners('error').close()
        server.listen({ port, host, tls: pair } as object)
      },
      stop: async () => {
        server.close()
        // A connection that falls idle later would hold the server open until its keep-alive ends.
        setInterval(() => server.closeIdleConnections(), 100).unref()
      },
    }
  }
}

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
  try {
    headers.forEach((value, name) => {
      outgoing.appendHeader(name, value)
    })
    outgoing.statusCode = status
    if (streams) {
      outgoing.flushHeaders()
      await pour(body, outgoing, patience)
    } else if (body && beforeEnd) outgoing.write(body)
    await beforeEnd?.()
    outgoing.end(streams || beforeEnd ? undefined : body)
  } catch {
    // Half an answer must not look whole.
    outgoing.destroy()
  }
}

/** All of a body, unless nothing moves for `patience` milliseconds; rejects where it breaks. */
async function pour(body: ReadableStream<Uint8Array>, outgoing: ServerResponse, patience: number): Promise<void> {
  // Not the socket's own timeout: Bun's counts from when it was set, whatever has moved since.
  let moved = performance.now()
  const move = () => {
    moved = performance.now()
  }
  const watch = setInterval(() => {
    if (performance.now() - moved > patience) outgoing.destroy()
  }, patience / 4)
  outgoing.on('drain', move)
  outgoing.on('close', () => clearInterval(watch))
  const arrival = arrivals.get(body)
  if (arrival) {
    outgoing.on('drain', arrival.resume)
    outgoing.on('close', () => arrival.abort())
    return new Promise((end, error) => {
      const data = (chunk: Uint8Array) => {
        move()
        return outgoing.write(chunk)
      }
      arrival.to({ data, end, error })
    })
  }
  const reader = body.getReader()
  let wake = () => {}
  outgoing.on('drain', () => wake())
  outgoing.on('close', () => {
    wake()
    reader.cancel().catch(() => {})
  })
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    move()
    if (outgoing.write(value) || outgoing.destroyed) continue
    await new Promise<void>((resolve) => {
      wake = resolve
    })
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
    incoming.removeAllListeners('data').removeAllListeners('readable').resume()
  })
}
const lingerTime = 2000
