/** What failed lately: requests that failed alike are one line, with a count and the id of the last. */
import { html } from 'hono/html'
import type { Match } from '../../../routing.ts'
import { clean } from '../../log.ts'
import { type Said, time, verdictIn } from './words.ts'

/** A request that was answered. */
export interface Seen {
  id: string
  method: string
  path: string
  query: string
  matched?: Match
  status: number
  /** Whether the whole answer was sent. */
  isSent: boolean
  hasLogin: boolean
}

/** Requests that failed alike. */
export interface Failure {
  count: number
  /** The id and the time of the last. */
  id: string
  at: Date
  method: string
  /** The status, or that the answer broke. */
  outcome: string
  /** The image, and the query that explains it; or only the path. */
  image?: string
  link?: string
  path: string
  asked: readonly Said[]
}

export const maxFailures = 20
/** What clients hear in the normal course: such a layer is not there yet, nor such a list; a login is needed. */
const usual = /^404 (HEAD .*blobs|.*referrers|.*REFERRERS_TAG)|^401 .* anonymous$/

export class Failures {
  /** The last first. */
  readonly #failures = new Map<string, Failure>()

  /** `asked`: what each registry said. */
  record(seen: Seen, asked: readonly Said[]): void {
    const { method, path, matched, status, isSent, hasLogin } = seen
    const isFailed = status !== 499 && (status >= 400 || !isSent) && path.startsWith('/v2/')
    if (!isFailed || usual.test(`${status} ${method} ${matched?.route.path} ${hasLogin ? '' : 'anonymous'}`)) return
    const failure = failureOf(seen, asked)
    const { outcome, image, link } = failure
    const said = asked.map((one) => [one.upstream, verdictIn(one, false)])
    const key = JSON.stringify([outcome, failure.method, image ?? failure.path, link, said])
    failure.count += this.#failures.get(key)?.count ?? 0
    // A map keeps the order in which keys came: the newest is the last.
    this.#failures.delete(key)
    this.#failures.set(key, failure)
    if (this.#failures.size > maxFailures) this.#failures.delete(this.#failures.keys().next().value as string)
  }

  /** The newest first. */
  list(): Failure[] {
    return [...this.#failures.values()].reverse()
  }
}

function failureOf(seen: Seen, asked: readonly Said[]): Failure {
  const { id, method, path, query, matched, status, isSent } = seen
  const { name, reference, digest } = matched ?? {}
  const image = reference && clean(`${name}${digest ? '@' : ':'}${reference}`)
  const ns = new URLSearchParams(query).get('ns')
  const link = image && `?${new URLSearchParams({ image, ...(ns ? { ns } : {}) })}#why`
  const outcome = isSent ? `${status}` : 'cut short'
  return { count: 1, id, at: new Date(), method: clean(method), outcome, image, link, path: clean(path), asked }
}

/** `nameOf` gives the name of a registry for people. */
export function failureItem(failure: Failure, nameOf: (upstream: string) => string, mayKnow: boolean) {
  const { count, id, at, method, outcome, image, link, path, asked } = failure
  const said = asked.map((one) => `${nameOf(one.upstream)}: ${verdictIn(one, mayKnow)}. `)
  return html`<li><b>${outcome}</b> ${method} ${link ? html`<a href="${link}">${image}</a>` : path}
${count > 1 && html`<strong>${count} times</strong>`}
<p>${said}${asked.length === 0 && 'No registry was asked.'}</p>
<p><small>${count > 1 ? 'last ' : ''}${time(at)}, id <code>${id}</code></small></p></li>`
}
