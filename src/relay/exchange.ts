/** One request on its way through the relay: what it is, what is asked for it, and what comes of it. */
import type { Match } from '../../routing.ts'
import type { Answer, Client, Question, Registry } from '../registry/answer.ts'
import { respond } from '../runtime/body.ts'
import type { Room } from '../runtime/budget.ts'
import { type Fields, isRead, type Reply, type Upload } from '../runtime/runtime.ts'

export interface Registries {
  readonly hosted: Registry
  /** The default public registry. */
  readonly proxy: Registry
  /** All of them by name, in the order in which people see them. */
  readonly byName: ReadonlyMap<string, Registry>
}

/** The registries of a plan. */
export function registriesIn({ byName }: Registries, order: readonly string[]): Registry[] {
  return order.map((name) => byName.get(name) as Registry)
}

/** A matched request and its client. */
export interface Exchange {
  request: Request
  matched: Match
  /** As it came: `?…` or empty. */
  query: string
  client: Client
  /** What is read whole for it is held here, until its answer has left. */
  room?: Room
  /** Opens the body of a write, once; with a promise that settles when its last byte was read. */
  openBody?: () => { body: Upload; bodyRead?: Promise<void> }
}

/** What came of one request, as the client, the log and the metrics need it. */
export interface Outcome {
  response: Response
  answers: readonly Answer[]
  /** Whose answer the client got; undefined if it is the router's own. */
  by?: Registry
  /** Bytes of the bodies from and to the client, if their length was known before they passed. */
  bytesIn?: number
  bytesOut?: number
  /** If it is a tag from memory: seconds since its registry said so, and whether it is given since that one failed. */
  age?: number
  isStale?: boolean
}

/** Asks a registry what the client asked, except for what is given in `changes` and `fields`. */
export type AskAs = (to: Registry, changes?: Partial<Question>, fields?: Fields) => Promise<Answer>

export function askAs({ request, matched, query, client, room }: Exchange): AskAs {
  const { method, signal } = request
  const { route, digest } = matched
  const asked = {
    method,
    target: matched.path + query,
    entity: route.entity,
    digest,
    signal,
    read: 'head',
    purpose: isRead(request) ? 'read' : 'write',
    room,
  } as const
  return (to, changes = {}, fields = {}) => {
    const headers = { ...(changes.headers ?? to.fieldsFor(request, client)), ...fields }
    return to.ask({ ...asked, ...changes, headers })
  }
}

/** Gives a registry's answer to the client. `bytesIn`: what the registry took of the client's body. */
export function deliver(answer: Answer, answers: readonly Answer[], method: string, bytesIn?: number): Outcome {
  const { status, body: stream } = answer.response as Reply
  const headers = answer.from.fieldsFrom(answer)
  const length = answer.headers.get('Content-Length')
  const hasNone = [204, 304].includes(status) || method === 'HEAD' || length === '0'
  const body = hasNone ? null : (answer.content ?? stream ?? null)
  // A body that was read whole has a length, even if the registry did not say it.
  if (answer.content && length === null) headers.push(['content-length', `${answer.content.byteLength}`])
  if (body && !answer.headers.has('Content-Type')) headers.push(['content-type', 'application/octet-stream'])
  const response = respond(body, { status, headers })
  return {
    response,
    answers,
    by: answer.from,
    bytesIn,
    bytesOut: body ? Number(length ?? answer.content?.byteLength ?? Number.NaN) : 0,
  }
}
