/** What the service has of the runtime it runs on: how to listen, and how to ask. */
import process from 'node:process'
import { nodeFetch } from './fetch.ts'
import { listenOnNode } from './node.ts'
import { type Pair, rootsWith } from './tls.ts'

/** What only the runtime knows of the connection a request came on. */
export interface Connection {
  /** The client's address. */
  address?: string
  /** The request's id, set by the handler. */
  id?: string
  /** Settles when the request's body was read to its end. */
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

/** Header fields to send, their names in lower case. */
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
  /** Seconds without a byte, either way, that end a stream. */
  idleTimeout: number
  /** Serves https. */
  tls?: Pair
}

export type Listen = (handler: Handler, options: ListenOptions) => Promise<Server>

/** Which runtime this is; its fetch trusts the usual authorities and `ca`, in PEM, and nobody else whatever the environment says. */
export async function detectRuntime(ca: string[]): Promise<Runtime> {
  const { Bun, Deno } = globalThis as { Bun?: { version: string }; Deno?: { version: { deno: string } } }
  const name = Deno ? `deno ${Deno.version.deno}` : Bun ? `bun ${Bun.version}` : `node ${process.versions.node}`
  return { name, fetch: await nodeFetch(rootsWith(ca)), listen: listenOnNode }
}
