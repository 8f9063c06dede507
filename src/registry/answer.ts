/** What one registry is asked, what it answers, and what the answer means. The types of all rooms above; pure. */
import { setMaxListeners } from 'node:events'
import type { Entity } from '../../routing.ts'
import type { Room } from '../runtime/budget.ts'
import type { Fields, Reply, Upload } from '../runtime/runtime.ts'
import type { Resource } from '../runtime/shortage.ts'
import type { OciError } from './errors.ts'
import type { Verdict } from './verdict.ts'

/** One registry, and all that is particular to it. */
export interface Registry {
  /** As logs, metrics and error details name it: `hosted`, `proxy`, or the host of a public registry. */
  readonly name: string
  /** As those who pull read it: `the private registry`, `ghcr.io`, or `the cache of ghcr.io`. */
  readonly title: string
  /** `hosted`: the private one, which takes pushes. `public`: a public one, or a cache of it, for reads only. */
  readonly role: 'hosted' | 'public'
  /** Whether it gets the client's own login and cookies. Then its challenges and cookies also go to the client. */
  readonly forwardsLogin: boolean
  /** Asks it. Never rejects: if something goes wrong, the answer has the verdict `failed` or `gone`. */
  ask(question: Question): Promise<Answer>
  /** Whether what it says of one image can be believed: it is not skipped, and its `/v2/` is a registry's. */
  isWell(): Promise<boolean>
  /** The header fields it gets of a client's request. Throws a 431 if they are too long. */
  fieldsFor(request: Pick<Request, 'method' | 'headers'>, client: Client): Fields
  /** The header fields a client gets of its answer. */
  fieldsFrom(answer: Answer): [string, string][]
  /**
   * Asks the realm that it names now for a token, for a client that cannot reach that realm. Undefined if the realm is not on the
   * registry's own host. Rejects if there is no answer, and with a RangeError if the form of a POST is too long.
   */
  askRealm(request: Request, client: Client): Promise<Reply | undefined>
}

/** Who sent a request. */
export interface Client {
  /** The client's address, which a trusted proxy may have told. */
  address?: string
  /** The other end of the connection: the client, or the last proxy. Registries are told of it. */
  peer?: string
  /** The request's id. */
  id?: string
}

export interface Question {
  method: string
  /** Path and query, with the name as it is called here. */
  target: string
  /** What the target is. */
  entity: Entity
  /** The digest that is asked for, if any. */
  digest?: string
  headers: Fields
  body?: Upload
  /** Settles when the last byte of a streamed body was read. The deadline of a write starts then. */
  bodyRead?: Promise<void>
  /** Aborted when nobody waits for the answer any more. */
  signal: AbortSignal
  read: Reading
  purpose: Purpose
  /** Counts what is read whole. If there is no room, the body streams; a body that must be read whole is refused then. */
  room?: Room
}

/**
 * How much of the answer's body is read before `ask` settles. What is not read streams.
 * - `head`: nothing.
 * - `error`: the body of an answer that is not `found`, so that its connection is free again.
 * - `maxBytes`: also the whole body of a `found` answer. A longer or a broken one is `failed`.
 *
 * A lookup of a manifest or of tags reads these whole as well, to judge them. The deadline is then for all of it.
 */
export type Reading = 'head' | 'error' | { maxBytes: number }

/**
 * What the question is for. The answers to the first three are judged: only what is of the image counts as `found` or `absent`.
 * - `lookup`: another registry may have the answer. One that failed lately, or a late blob, is `failed` for now, with `later`.
 * - `deciding`: a lookup that no other registry may answer in place of this one, so it is waited for.
 * - `copy`: a lookup of a blob for this router's own use: its redirects are followed.
 * - `read`: the answer passes as it came.
 * - `ping`: asked even if the registry is skipped, since it proves nothing about lookups.
 * - `write`: always tried.
 * - `mount`: a write that also names its source repository. A 401 may be about that one, so it is `denied`, not `failed`.
 */
export type Purpose = 'lookup' | 'deciding' | 'copy' | 'read' | 'ping' | 'write' | 'mount'

export interface Answer {
  from: Registry
  verdict: Verdict
  /** The status it gave; 504 if it gave none in time, 502 if it gave none at all, 499 if the client left. */
  status: number
  /** From asking to the verdict. */
  milliseconds: number
  /** The path of the list that was asked for, if it was one. */
  listPath?: string
  /** Where upload sessions of its name are here, if it was asked for one: `/v2/NAME/blobs/uploads/`. */
  uploads?: string
  /** Why there is no usable answer. Clients read it, so it never holds an address. */
  reason?: string
  /** More of that, in the runtime's words. A log may say it and a client may not: it may hold an address. */
  cause?: string
  /** What this machine ran out of. The registry has not failed then. */
  shortage?: Resource
  headers: Headers
  /** The answer itself. Its body is already consumed if `error` or `content` is set. */
  response?: Reply
  error?: OciError
  /** The whole body, if it was read. */
  content?: Uint8Array<ArrayBuffer>
  /** An answer to a HEAD whose meaning is only in the body that a GET would get. */
  isVague?: boolean
  /** A list without tags, or a page of one: another registry may have some. */
  isEmpty?: boolean
  /** The answer that is still on its way. */
  later?: Later
}

/** An answer on its way: to be waited for, or abandoned. */
export interface Later {
  readonly answer: Promise<Answer>
  /** Returns the answer if the question goes on without its asker. Its body is discarded. */
  abandon: () => Promise<Answer> | undefined
}

/** The reason of an answer that a skipped registry did not give. */
export const skipReason = 'skipped: it failed lately'

/** How a registry's `/v2/` is asked for, besides fields and signal. */
export const pingQuestion = { method: 'GET', target: '/v2/', entity: 'base', read: 'error', purpose: 'ping' } as const

/** The fields of an answer that did not come. */
export const noHeaders: Headers = new Headers()

/** What becomes of a request whose client has left. */
export function goneAnswer(from: Registry): Answer {
  return { from, verdict: 'gone', status: 499, milliseconds: 0, headers: noHeaders }
}

/** Whether a status says that the registry, or what is in front of it, is not well. */
export const isUnwell = (status: number) => status >= 502 && status <= 504

/** Whether a registry's answer to a ping says that it is up: one that wants a login is. */
export const isUp = ({ status }: Pick<Answer, 'status'>) => status === 200 || status === 401

/** Whether a registry's answer to a ping says that nobody needs a login. A challenge on a 200 is for those who write. */
export function asksForNoLogin({ status, headers }: Pick<Answer, 'status' | 'headers'>): boolean {
  return status === 200 && !headers.has('WWW-Authenticate')
}

/** What the log, and the `detail` of a combined error, tell of each answer. */
export function summarize(answers: readonly Answer[]) {
  return answers.map(summaryOf)
}

export function summaryOf({ from, verdict, status, milliseconds, reason }: Answer) {
  return { upstream: from.name, verdict, status, milliseconds: Math.round(milliseconds), reason }
}

export type Summary = ReturnType<typeof summaryOf>

/** A controller of its own that also aborts when `signal` does. */
export function linked(signal: AbortSignal): AbortController {
  const abort = new AbortController()
  // Node warns if many follow one signal.
  setMaxListeners(0, signal)
  if (signal.aborted) abort.abort()
  else signal.addEventListener('abort', () => abort.abort(), { once: true })
  return abort
}
