/** What one registry is asked, what it answers, and what the answer means. The types of all rooms above; pure. */
import { setMaxListeners } from 'node:events'
import type { UpstreamName } from '../../routing.ts'
import type { Fields, Reply, Upload } from '../runtime/runtime.ts'
import type { OciError } from './errors.ts'

/** One registry, and all that is particular to it. */
export interface Registry {
  /** As logs, metrics and error details name it. */
  readonly name: UpstreamName
  /** `hosted`: the private one, which takes pushes. `public`: a read-only cache of a public one. */
  readonly role: 'hosted' | 'public'
  /** Whether it gets the client's own login and cookies. Then its challenges and cookies also go to the client. */
  readonly forwardsLogin: boolean
  /** Asks it. Never rejects: if something goes wrong, the answer has the verdict `failed` or `gone`. */
  ask(question: Question): Promise<Answer>
  /** The header fields it gets of a client's request. Throws a 431 if they are too long. */
  fieldsFor(request: Pick<Request, 'method' | 'headers'>, client: Client): Fields
  /** The header fields a client gets of its answer. */
  fieldsFrom(answer: Answer): [string, string][]
}

/** Who sent a request, as registries are told. */
export interface Client {
  address?: string
  /** The request's id. */
  id?: string
}

export interface Question {
  method: string
  /** Path and query, with the name as it is called here. */
  target: string
  headers: Fields
  body?: Upload
  /** Settles when the last byte of a streamed body was read. The deadline of a write starts then. */
  bodyRead?: Promise<void>
  /** Aborted when nobody waits for the answer any more. */
  signal: AbortSignal
  read: Reading
  purpose: Purpose
}

/**
 * How much of the answer's body is read before `ask` settles. What is not read streams.
 * - `head`: nothing.
 * - `error`: the body of an answer that is not `found`, so that its connection is free again.
 * - `small`: also the body of a `found` answer, if its length is told and small. The deadline is then for all of it.
 * - `maxBytes`: also the whole body of a `found` answer. A longer or a broken one is `failed`.
 */
export type Reading = 'head' | 'error' | 'small' | { maxBytes: number }

/**
 * What the question is for.
 * - `lookup`: another registry may have the answer. A registry that failed lately answers `failed` at once, with `later`.
 * - `read`: only this registry has the answer. If it failed lately, the one trial of it is waited for.
 * - `ping`: asked even if the registry is skipped, since it proves nothing about lookups.
 * - `write`: always tried.
 * - `mount`: a write that also names its source repository. A 401 may be about that one, so it is `denied`, not `failed`.
 */
export type Purpose = 'lookup' | 'read' | 'ping' | 'write' | 'mount'

/** What an answer means for a lookup, in short (README, "What an answer means"). Only `found` ends a lookup. */
export const verdicts = {
  found: '2xx, 3xx',
  absent: '404',
  denied: 'other 4xx',
  limited: '429',
  failed: 'no usable answer',
} as const

/** `gone`: there is no answer, since the client left. */
export type Verdict = keyof typeof verdicts | 'gone'

export interface Answer {
  from: Registry
  verdict: Verdict
  /** The status it gave; 504 if it gave none in time, 502 if it gave none at all, 499 if the client left. */
  status: number
  /** From asking to the verdict. */
  milliseconds: number
  /** Why there is no usable answer. Clients read it, so it never holds an address. */
  reason?: string
  headers: Headers
  /** The answer itself. Its body is already consumed if `error` or `content` is set. */
  response?: Reply
  error?: OciError
  /** The whole body, if it was read. */
  content?: Uint8Array<ArrayBuffer>
  /** An answer to a HEAD whose meaning is only in the body that a GET would get. */
  isVague?: boolean
  /** The answer that is still on its way: to be waited for, or discarded. */
  later?: Promise<Answer>
}

/** The reason of an answer that a skipped registry did not give. */
export const skipReason = 'skipped: it failed lately'

export const isRead = ({ method }: Pick<Question, 'method'>) => method === 'GET' || method === 'HEAD'

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

/** Whether an answer leaves open what the registry has. */
export const isUnsure = ({ verdict }: Answer) => verdict === 'failed' || verdict === 'limited'

export const redirects: ReadonlySet<number> = new Set([301, 302, 307, 308])

/** The verdict of a status, without its body. */
export function verdictOf(status: number): Verdict {
  if (status < 300 || redirects.has(status) || [304, 412, 416].includes(status)) return 'found'
  if (status === 404) return 'absent'
  if (status === 429) return 'limited'
  if (status < 400 || status >= 500 || status === 408) return 'failed'
  return 'denied'
}

/** The verdict of a cache's 500. CNCF distribution says 500 to whatever its own upstream answered, and nests the truth. */
export function verdictOfNested(code: string | undefined): Verdict {
  if (code?.endsWith('_UNKNOWN')) return 'absent'
  if (code === 'TOOMANYREQUESTS') return 'limited'
  if (code === 'UNAUTHORIZED' || code === 'DENIED') return 'denied'
  return 'failed'
}

/** What the log, and the `detail` of a combined error, tell of each answer. */
export function summarize(answers: readonly Answer[]) {
  return answers.map(({ from, verdict, status, milliseconds, reason }) => {
    return { upstream: from.name, verdict, status, milliseconds: Math.round(milliseconds), reason }
  })
}

export type Summary = ReturnType<typeof summarize>[number]

/** A controller of its own that also aborts when `signal` does. */
export function linked(signal: AbortSignal): AbortController {
  const abort = new AbortController()
  // Node warns if many follow one signal.
  setMaxListeners(0, signal)
  if (signal.aborted) abort.abort()
  else signal.addEventListener('abort', () => abort.abort(), { once: true })
  return abort
}
