/** Which runtime this is, and the types that the app and the runtime share. */
import process from 'node:process'
import type { Readable } from 'node:stream'

/** What only the runtime knows of a request. The app also works without any of it. */
export interface Connection {
  /** The address of the connection's other end. */
  address?: string
  /** The request's body as a Node stream: a web stream in between halves the speed of an upload. */
  upload?: Readable
  /** Settles when the request's body was read to its end. */
  bodyRead?: Promise<void>
  /** Settles when the answer has left: true if it was sent whole, false if the connection broke. */
  sent?: Promise<boolean>
}

/** A body in memory, or one that streams. */
export type Body = Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array> | null

/** What can be sent as the body of a request. */
export type Upload = Body | AsyncIterable<Uint8Array>

/** The parts of a Response that a registry's answer needs. */
export type Reply = Pick<Response, 'status' | 'headers' | 'body' | 'arrayBuffer'>

export type Handler = (request: Request, connection: Connection) => Response | Promise<Response>

/** Header fields to send, their names in lower case. */
export type Fields = Record<string, string>

export interface Asked {
  method: string
  headers: Fields
  body?: Upload
  signal: AbortSignal
  /** The address of the registry that led here, by a redirect or as a realm. It bounds the network addresses that are connected to. */
  sentBy?: string
  /** Whether HTTPS_PROXY, HTTP_PROXY and NO_PROXY decide how it is reached. */
  isPublic?: boolean
  /** The certificate and key, in PEM, that the server may ask for. Each pair has connections of its own. */
  identity?: { cert: string; key: string }
  /** The repository it is about, if the address does not tell. For the login only. */
  repository?: string
}

/** A registry led to a network address that it may not lead to. */
export class ForbiddenAddress extends Error {}

/**
 * The web's fetch, with less: it follows no redirect and decodes no body. With `fresh` it opens a new connection. It rejects
 * with an AbortError if the client left before its body had come whole, and with `ForbiddenAddress` because of `sentBy`.
 */
export type Fetch = (url: string, init: Asked, fresh?: boolean) => Promise<Reply>

/** Whether a method only reads; the body of such a request is ignored. */
export const isRead = ({ method }: { method: string }) => method === 'GET' || method === 'HEAD'

/** Whether a request brings a body, by its framing (RFC 9112, section 6.3). The body of a GET or HEAD is ignored. */
export function hasBody(request: Pick<Request, 'method' | 'headers'>): boolean {
  if (isRead(request)) return false
  const { headers } = request
  return headers.has('Transfer-Encoding') || !['0', null].includes(headers.get('Content-Length'))
}

const { Bun, Deno } = globalThis as { Bun?: { version: string }; Deno?: { version: { deno: string } } }
/** Name and version, as in the metric `build_info`. */
export const runtime = Deno ? `deno ${Deno.version.deno}` : Bun ? `bun ${Bun.version}` : `node ${process.versions.node}`
export const isDeno = Deno !== undefined
