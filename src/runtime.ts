/** Which runtime this is, and what the service has of it. */
import process from 'node:process'
import type { Readable } from 'node:stream'

/** What only the runtime knows of the connection a request came on. */
export interface Connection {
  /** The client's address. */
  address?: string
  /** The request's id, set by the handler. */
  id?: string
  /** Who logged in here, set by the handler. */
  user?: string
  /** Settles when the request's body was read to its end. */
  bodyRead?: Promise<void>
  /** Settles when the answer was sent: true for all of it, false where the connection broke before. */
  sent?: Promise<boolean>
  /** The request's body as Node has it: the request's own would cost an upload half of its speed. */
  upload?: Readable
  /** Set by the handler: what its answer's body was made of, where that is known; getting it back would cost. */
  body?: Body
}

/** A body in memory, or one that streams. */
export type Body = Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array> | null

/** As much of a Response as an upstream's answer needs. */
export type Reply = Pick<Response, 'status' | 'headers' | 'body' | 'arrayBuffer'>

export type Handler = (request: Request, connection: Connection) => Response | Promise<Response>

/** Header fields to send, their names in lower case. */
export type Fields = Record<string, string>

/**
 * The web's fetch; `fresh`: not on a connection that served before. Rejects with an AbortError where the client left in the
 * middle of the body.
 */
export type Fetch = (url: string, init: Asked, fresh?: boolean) => Promise<Reply>
type Asked = { method: string; headers: Fields; body?: RequestInit['body']; signal: AbortSignal }

const { Bun, Deno } = globalThis as { Bun?: { version: string }; Deno?: { version: { deno: string } } }
/** Name and version, as in the metric `build_info`. */
export const runtime = Deno ? `deno ${Deno.version.deno}` : Bun ? `bun ${Bun.version}` : `node ${process.versions.node}`
