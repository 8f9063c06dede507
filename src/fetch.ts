/** How to ask, on Node, Bun and Deno: bodies pass as Node has them, and become web streams only for whoever reads one. */
import type { Socket } from 'node:net'
import { Readable } from 'node:stream'
import type { Dispatcher } from 'undici'
import type { Fetch, Reply } from './runtime.ts'

/** What is behind the web streams given out here: where both ends of a transfer are Node's, nothing in between is needed. */
const arrivals = new WeakMap<ReadableStream, Arrival>()

/** An answer's body as it comes; each that was fetched here has that behind it. */
export const arrivalOf = (body: ReadableStream) => arrivals.get(body) as Arrival

/** Takes a body; `data` says whether more may come before the next `resume`. */
interface Taker {
  data: (chunk: Uint8Array) => boolean
  end: () => void
  error: (error: Error) => void
}

/** The body of an answer on its way: a Node stream in between would cost a third of the speed. */
export type Arrival = ReturnType<typeof createArrival>

/** Bytes that come before anybody takes them: most answers are whole then, and their connection serves again. */
const ahead = 65_536

function createArrival() {
  const held: Uint8Array[] = []
  let size = 0
  let over: ((taker: Taker) => void) | undefined
  let controller: Dispatcher.DispatchController | undefined
  let valve: Valve | undefined
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
    data: (chunk: Uint8Array) => {
      valve = passing
      if (!taker.data(chunk)) valve.shut()
    },
    end: () => {
      valve?.open()
      taker.end()
    },
    error: (error: Error) => taker.error(error),
    to: (next: Taker) => {
      taker = next
      const more = held.splice(0).map(next.data).at(-1) ?? true
      if (over) over(next)
      else if (more) valve?.open()
    },
    resume: () => valve?.open(),
    abort: (reason: Error = gone()) => controller?.abort(reason),
  }
}

/** Holds a connection's bytes back, and lets them through. */
interface Valve {
  shut: () => void
  open: () => void
}
/** That of the connection whose bytes undici looks at now. */
let passing: Valve

/**
 * Undici's own pause stops its parser: where the connection ends meanwhile, an assertion takes the process along, and a body
 * that has come whole counts as broken (nodejs/undici#5360; mended in 8, which does without Node 20). So what is paused here is
 * its reading, and its parser sees no end before it has seen all that came before.
 */
function fitValve(socket: Socket): void {
  const read = socket.read.bind(socket)
  let isShut = false
  let isParsing = false
  const valve: Valve = {
    shut: () => {
      isShut = true
      // Bun would read on, up to half a MiB, which a slow client leaves here; the next `read` ends this by itself.
      ;(socket as { _handle?: { pause?: () => void } })._handle?.pause?.()
    },
    open: () => {
      if (!isShut) return
      isShut = false
      // Undici reads on by itself after what it is looking at.
      if (!isParsing) socket.emit('readable')
    },
  }
  socket.read = (size) => {
    isParsing = false
    if (isShut) return null
    passing = valve
    const chunk = read(size)
    isParsing = chunk !== null
    return chunk
  }
  // A reset is no end: undici takes it for one where an answer has no other.
  socket.prependListener('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'ECONNRESET') error.code = 'RESET'
  })
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
 * Bun's runs 256 requests at a time, and holds up to 2.5 MiB of each body that its client is slow to take. `connectTime`:
 * milliseconds after which a connection that is not there yet is given up.
 */
export async function createFetch(ca: string[] | undefined, connectTime: number): Promise<Fetch> {
  // Under its bare name Bun gives a stand-in that is made of its own fetch.
  const { Agent, buildConnector } = await import('undici/index.js')
  // How long to wait is the caller's signal to say; it does not reach a connection whose handshake never ends.
  const connector = buildConnector({ timeout: connectTime, ca, rejectUnauthorized: true })
  const connect: typeof connector = (options, callback) =>
    connector(options, (...result) => {
      if (result[1]) fitValve(result[1])
      callback(...result)
    })
  const options = { headersTimeout: 0, bodyTimeout: 0, maxHeaderSize: 128 * 1024, connect }
  const kept = new Agent(options)
  const unkept = new Agent({ ...options, pipelining: 0 })
  return (url, { method, headers, body: given, signal }, fresh) => {
    const { origin } = new URL(url)
    const upload = given instanceof Readable ? given : undefined
    // Whatever becomes of this request, the client's connection is still to carry the answer.
    const body = (upload?.iterator({ destroyOnReturn: false }) ?? given ?? null) as Readable | null
    // What is after it goes out as it came: a URL would escape some of it.
    const asked = { origin, path: url.slice(origin.length), method: method as 'GET', headers, body }
    const arrival = createArrival()
    return new Promise((resolve, reject) => {
      const abort = () => {
        arrival.abort(signal.reason)
        reject(signal.reason)
      }
      if (signal.aborted) return abort()
      signal.addEventListener('abort', abort, { once: true })
      const dispatcher = fresh ? unkept : kept
      dispatcher.dispatch(asked, {
        onRequestStart: (controller) => {
          arrival.begin(controller)
          if (signal.aborted) abort()
        },
        onResponseStart: (_, status, record) => {
          if (status >= 200) resolve(replyOf(status, record, arrival))
        },
        onResponseData: (_, chunk) => arrival.data(chunk),
        onResponseEnd: arrival.end,
        onResponseError: (_, error) => {
          arrival.error(error)
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
