/** The request middleware: gives every request an id, and tells log, metrics and page what came of it. */
import type { Context, MiddlewareHandler } from 'hono'
import type { Match } from '../../routing.ts'
import type { Log } from '../log.ts'
import { summarize } from '../registry/answer.ts'
import type { Outcome } from '../relay/exchange.ts'
import { type Connection, hasBody } from '../runtime/runtime.ts'
import type { Metrics } from './metrics.ts'
import type { Page } from './page/page.ts'

/** What handlers leave behind for the report. */
export interface Facts {
  /** The request's id. */
  id: string
  /** What the request is about: an entity of the route table, or a path of the router's own. */
  entity?: string
  matched?: Match
  outcome?: Outcome
  /** Who logged in here. */
  user?: string
}

/** `address` is the client's here, which a trusted proxy may have told; `peer`: the address of the connection's other end. */
export type Env = { Bindings: Connection & { peer?: string }; Variables: { facts: Facts } }

/** Counts the requests in flight, for the end of the process. */
export class Traffic {
  #inFlight = 0
  #isDraining = false
  #onIdle = () => {}

  get isDraining(): boolean {
    return this.#isDraining
  }

  begin(): void {
    this.#inFlight++
  }

  end(): void {
    this.#inFlight--
    if (this.#inFlight === 0) this.#onIdle()
  }

  /** From now on it drains. Settles when no request is in flight and `settle` has settled. */
  async drain(settle: () => Promise<unknown>): Promise<void> {
    this.#isDraining = true
    // On an open connection the next request may come just as the last answer goes.
    do {
      await this.#idle()
      await settle()
    } while (this.#inFlight > 0)
  }

  async #idle(): Promise<void> {
    if (this.#inFlight === 0) return
    await new Promise<void>((resolve) => {
      this.#onIdle = resolve
    })
  }
}

export interface Observers {
  now: () => number
  log: Log
  metrics: Metrics
  page: Page
  traffic: Traffic
}

export function observe(observers: Observers): MiddlewareHandler<Env> {
  const { now, metrics, traffic } = observers
  return async (c, next) => {
    const startedAt = now()
    traffic.begin()
    metrics.started()
    const facts: Facts = { id: idOf(c.req.raw) }
    c.set('facts', facts)
    await next()
    const { headers } = c.res
    headers.set('X-Request-Id', facts.id)
    // Older clients take an address for a registry only if this field says so.
    headers.set('Docker-Distribution-Api-Version', 'registry/2.0')
    // The rest of a refused upload must not be taken for the next request. While draining, the client shall go elsewhere.
    if (traffic.isDraining || (c.res.status >= 400 && hasBody(c.req.raw))) headers.set('Connection', 'close')
    const finish = (isSent: boolean) => {
      traffic.end()
      report(observers, c, facts, now() - startedAt, isSent)
    }
    if (c.env.sent) c.env.sent.then(finish)
    else finish(true)
  }
}

/** The client's own id if it is a plain one. */
function idOf({ headers }: Request): string {
  const given = headers.get('X-Request-Id') ?? ''
  return /^[\w.:=+/-]{1,128}$/.test(given) ? given : crypto.randomUUID()
}

function report(
  { log, metrics, page }: Observers,
  c: Context<Env>,
  { id, entity = 'other', matched, outcome, user }: Facts,
  milliseconds: number,
  isSent: boolean,
): void {
  const { method, headers, url } = c.req.raw
  const { status } = c.res
  const by = outcome?.by?.name
  const complete = isSent && status !== 499
  const bytesIn = complete ? outcome?.bytesIn : undefined
  const bytesOut = complete ? outcome?.bytesOut : undefined
  metrics.finished({ entity, method, status, seconds: milliseconds / 1000, by, bytesIn, bytesOut })
  const { path } = c.req
  const query = queryOf(url)
  const asked = outcome && summarize(outcome.answers)
  const hasLogin = headers.has('Authorization')
  page.record({ id, method, path, query, matched, status, isSent, hasLogin }, outcome?.answers ?? [])
  const isOften = entity === 'livez' || entity === 'metrics'
  log(isOften ? 'debug' : 'info', 'request', {
    id,
    method,
    path,
    entity,
    name: matched?.name,
    reference: matched?.reference ?? matched?.digest,
    ns: namespaceIn(query),
    status,
    by,
    age: outcome?.age,
    stale: outcome?.isStale,
    asked,
    milliseconds: Math.round(milliseconds),
    bytesIn,
    bytesOut,
    complete,
    client: c.env.address,
    user,
  })
}

/** The registry that a mirror's client names, for the log. */
function namespaceIn(query: string): string | undefined {
  return query.includes('ns=') ? (new URLSearchParams(query).get('ns')?.slice(0, 255) ?? undefined) : undefined
}

/** The path as it came: a URL object would change what the route table must see. */
export const pathOf = (url: string) => /^[a-z]+:\/\/[^/?#]*([^?#]*)/i.exec(url)?.[1] ?? '/'

/** The query as it came, with its `?`; or empty. */
export const queryOf = (url: string) => (url.includes('?') ? (/^[^?#]*(\?[^#]*)/.exec(url)?.[1] ?? '') : '')
