/** Bodies on their way: as they arrive from a registry, and as they go into a Response. */
import type { Dispatcher } from 'undici'
import { type Body, type Connection, hasBody, type Reply, type Upload } from './runtime.ts'

/** Holds back the bytes of one connection, and lets them through again. */
export interface Valve {
  shut: () => void
  open: () => void
}

/** Takes a body. `data` gives false if no more may come before the next `resume`. */
export interface Taker {
  data: (chunk: Uint8Array) => boolean
  end: () => void
  error: (error: Error) => void
}

/** Bytes that may come before anybody takes them. Most answers are whole by then, and free their connection. */
const aheadBytes = 65_536

/** The body of an answer as it arrives. A Node or web stream instead would cost a layer a third of its speed, or more. */
export class Arrival {
  #held: Uint8Array[] = []
  #heldBytes = 0
  #outcome: ((taker: Taker) => void) | undefined
  #taker: Taker | undefined
  #controller: Dispatcher.DispatchController | undefined
  #valve: Valve | undefined

  /** The request is under way; `controller` can abort it. */
  begin(controller: Dispatcher.DispatchController): void {
    this.#controller = controller
  }

  /** A chunk has come, on the connection that `valve` holds back. */
  data(chunk: Uint8Array, valve: Valve): void {
    this.#valve = valve
    if (!this.#take(chunk)) valve.shut()
  }

  end(): void {
    this.#valve?.open()
    this.#finish((taker) => taker.end())
  }

  error(error: Error): void {
    this.#finish((taker) => taker.error(error))
  }

  /** From now on `taker` gets the body, beginning with what has come already. */
  to(taker: Taker): void {
    this.#taker = taker
    const wantsMore = this.#held.splice(0).map(taker.data).at(-1) ?? true
    if (this.#outcome) this.#outcome(taker)
    else if (wantsMore) this.#valve?.open()
  }

  resume(): void {
    this.#valve?.open()
  }

  /** Ends the request, unless it has ended. */
  abort(reason: Error = clientGone()): void {
    this.#controller?.abort(reason)
  }

  #take(chunk: Uint8Array): boolean {
    if (this.#taker) return this.#taker.data(chunk)
    this.#held.push(chunk)
    this.#heldBytes += chunk.byteLength
    return this.#heldBytes < aheadBytes
  }

  #finish(outcome: (taker: Taker) => void): void {
    // It holds what was sent with the request: an answer that is kept for the log would keep a manifest.
    this.#controller = undefined
    if (this.#taker) outcome(this.#taker)
    else this.#outcome = outcome
  }
}

/** The error of a request that ended because its client left. */
export const clientGone = () => new DOMException('the client left', 'AbortError')

/** What is behind the web streams made here, so that `send` can take it without a web stream in between. */
const arrivals = new WeakMap<ReadableStream, Arrival>()

/** What is behind a stream, if it is the body of an answer that was fetched here. */
export const arrivalOf = (body: ReadableStream) => arrivals.get(body)

/** The body as a web stream. */
function toWeb(arrival: Arrival): ReadableStream<Uint8Array> {
  let isTaken = false
  const stream = new ReadableStream<Uint8Array>(
    {
      pull: (controller) => {
        if (isTaken) return arrival.resume()
        isTaken = true
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

/** The whole body; rejects if it breaks. */
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
 * An answer whose body arrives; `body` is null if it has none, as to a HEAD. A class, since V8 makes a hidden class for each object
 * literal with a getter, and collects it late.
 */
export class ArrivingReply implements Reply {
  readonly status: number
  readonly headers = new Headers()
  readonly #arrival: Arrival
  #stream: ReadableStream<Uint8Array> | null | undefined

  constructor(method: string, status: number, record: Record<string, string | string[] | undefined>, arrival: Arrival) {
    this.status = status
    this.#arrival = arrival
    // RFC 9110, section 6.4.1.
    if (method === 'HEAD' || status === 204 || status === 304) this.#stream = null
    for (const [name, value = []] of Object.entries(record)) {
      for (const one of [value].flat()) this.headers.append(name, one)
    }
  }

  get body() {
    if (this.#stream === undefined) this.#stream = toWeb(this.#arrival)
    return this.#stream
  }

  arrayBuffer() {
    return wholeOf(this.#arrival)
  }
}

/** What Responses were made of: to read it back out of them costs a copy and a turn of the event loop. */
const sources = new WeakMap<Response, Body>()

/** A longer body is sent in pieces. */
export const largeBytes = 65_536

/** A Response would copy the bytes, and so would each client have a copy of what all share. */
function streamOf(bytes: Uint8Array): ReadableStream<Uint8Array> {
  return new ReadableStream(
    {
      pull: (controller) => {
        controller.enqueue(bytes)
        controller.close()
      },
    },
    { highWaterMark: 0 },
  )
}

/** A Response whose body `send` can write as it is. For anybody else it is a plain Response. */
export function respond(body: Body | string, init: ResponseInit): Response {
  const source = typeof body === 'string' ? new TextEncoder().encode(body) : body
  const isLarge = source instanceof Uint8Array && source.byteLength > largeBytes
  const response = new Response(isLarge ? streamOf(source) : source, init)
  sources.set(response, source)
  return response
}

/** The body of a Response: what `respond` was given, or else the Response's own stream. */
export function bodyOf(response: Response): Body {
  const source = sources.get(response)
  return source === undefined ? response.body : source
}

/** The same stream, and a promise that settles when its last byte was read. */
export function counted(stream: ReadableStream<Uint8Array>): {
  body: ReadableStream<Uint8Array>
  bodyRead: Promise<void>
} {
  let onRead = () => {}
  const bodyRead = new Promise<void>((resolve) => {
    onRead = resolve
  })
  return { body: stream.pipeThrough(new TransformStream({ flush: () => onRead() })), bodyRead }
}

/** Opens the body of a request: as the runtime has it, or else as the web's stream. Undefined if it has none. */
export function openerOf(request: Request, { upload, bodyRead }: Connection) {
  if (!hasBody(request)) return undefined
  return (): { body: Upload; bodyRead?: Promise<void> } =>
    upload ? { body: upload, bodyRead } : counted(request.body as ReadableStream<Uint8Array>)
}
