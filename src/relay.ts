/** Carries out a match: asks the upstreams in order, streams the winner, words the combined failure. */
import { type Entity, type Match, match, type UpstreamName } from '../routing.ts'
import type { Config } from './config.ts'
import { type OciError, ociError } from './errors.ts'
import type { Connection } from './runtime.ts'
import { type Answer, type Ask, clientLeft, discard, type Question } from './upstream.ts'

/** What came of one request, as the client, the log and the metrics need it. */
export interface Outcome {
  response: Response
  answers: readonly Answer[]
  /** Whose answer the client got; absent where it is this router's own. */
  by?: UpstreamName
  /** Bytes of the bodies: known at once where they have a length, counted as they pass where not. */
  traffic: Traffic
}

export interface Traffic {
  received: number
  sent: number
}

export type Relay = (request: Request, target: Target, connection: Connection) => Promise<Outcome>

/** A matched request, with its query as it came (`?…` or empty). */
export interface Target {
  matched: Match
  query: string
}

export function createRelay(config: Config, ask: Record<UpstreamName, Ask>): Relay {
  return async (request, target, connection) => {
    const { entity, ask: order } = target.matched.route
    if (entity === 'base') return base(request, target, connection)
    return order.length === 1 ? pass(request, target, connection) : lookup(request, target, connection)
  }

  /** What an upstream is asked on behalf of a client. */
  function question(
    upstream: UpstreamName,
    request: Request,
    { matched, query }: Target,
    connection: Connection,
  ): Question {
    const headers = requestHeaders(upstream, request.headers, config.aggregate, connection.address)
    return { method: request.method, target: matched.path + query, headers, signal: request.signal }
  }

  /** A row that asks one registry: its answer passes as it came, whatever its verdict. */
  async function pass(request: Request, target: Target, connection: Connection): Promise<Outcome> {
    const upstream = target.matched.route.ask[0] as UpstreamName
    const traffic = { received: 0, sent: 0 }
    const asked = question(upstream, request, target, connection)
    const { body, length } = bodyOf(request)
    if (body && length !== null) {
      // Deno keeps the length only where the body is the request's own, unwrapped.
      asked.body = body
      asked.bodyRead = connection.bodyRead
      asked.headers.set('Content-Length', length)
      traffic.received = Number(length)
    } else if (body) {
      const counted = count(body, (bytes) => {
        traffic.received += bytes
      })
      asked.body = counted.body
      asked.bodyRead = counted.ended
    }
    const answer = await ask[upstream](asked)
    if (answer.response) return deliver(answer, [answer], request.method, traffic)
    return { response: failure(request.method, target.matched.route.entity, [answer]), answers: [answer], traffic }
  }

  /** A row that asks both: the first answer that is `found` wins; with none, the failure names what each said. */
  async function lookup(request: Request, target: Target, connection: Connection): Promise<Outcome> {
    const { matched } = target
    const order = config.lookupOrder === 'hosted-first' ? (['hosted', 'proxy'] as const) : matched.route.ask
    const answers: Answer[] = []
    for (const upstream of order) {
      const answer = await ask[upstream]({ ...question(upstream, request, target, connection), readError: true })
      answers.push(answer)
      if (answer.verdict === 'found') return deliver(answer, answers, request.method, { received: 0, sent: 0 })
      // A tag hosted may hold is never served from elsewhere only because hosted could not be asked.
      const unsure = answer.verdict === 'failed' || answer.verdict === 'limited'
      if ((upstream === 'hosted' && unsure && !matched.digest) || clientLeft(answer)) break
    }
    const unclear = answers.findIndex(({ upstream, status }) => upstream === 'proxy' && status === 500)
    if (request.method === 'HEAD' && unclear >= 0) {
      // A cache's 500 tells what it means in its body alone, and a HEAD has none.
      const asked = { ...question('proxy', request, target, connection), method: 'GET', readError: true }
      const retold = await ask.proxy(asked)
      discard(retold.verdict === 'found' ? retold.response : undefined)
      if (retold.verdict !== 'found') answers[unclear] = retold
    }
    const response = failure(request.method, matched.route.entity, answers)
    return { response, answers, traffic: { received: 0, sent: 0 } }
  }

  /** Both registries are pinged at once; hosted's challenge goes to the client, so that it logs in there. */
  async function base(request: Request, target: Target, connection: Connection): Promise<Outcome> {
    const answers = await Promise.all(
      target.matched.route.ask.map((upstream) =>
        ask[upstream]({ ...question(upstream, request, target, connection), readError: true }),
      ),
    )
    for (const { response, verdict } of answers) if (verdict === 'found') discard(response)
    const traffic = { received: 0, sent: 0 }
    const [proxy, hosted] = answers as [Answer, Answer]
    if (hosted.status === 401)
      return { response: failure(request.method, 'base', answers), answers, by: 'hosted', traffic }
    const up = hosted.status === 200 && (config.v2Requires === 'hosted' || isUp(proxy))
    const response = up
      ? new Response(request.method === 'HEAD' ? null : '{}', { headers: { 'Content-Type': 'application/json' } })
      : ociError(request.method, 503, {
          code: 'UNAVAILABLE',
          message: 'a registry is not available',
          detail: told(answers),
        })
    return { response, answers, traffic }
  }

  function deliver(answer: Answer, answers: Answer[], method: string, traffic: Traffic): Outcome {
    const upstream = answer.response as Response
    const headers = responseHeaders(answer.upstream, upstream)
    const length = headers.get('Content-Length')
    let body = [204, 205, 304].includes(upstream.status) || method === 'HEAD' || length === '0' ? null : upstream.body
    if (body && !headers.has('Content-Type')) headers.set('Content-Type', 'application/octet-stream')
    if (body && length !== null) traffic.sent = Number(length)
    else if (body) {
      body = count(body, (bytes) => {
        traffic.sent += bytes
      }).body
    }
    const response = new Response(body, { status: upstream.status, headers })
    return { response, answers, by: answer.upstream, traffic }
  }
}

/** Whether a registry's answer to a ping says that it is up: one that wants a login is. */
export function isUp({ status }: Answer): boolean {
  return status === 200 || status === 401
}

/** Nothing was found: the first line that applies (the table is in the README, "When nothing is found"). */
function failure(method: string, entity: Entity, answers: readonly Answer[]): Response {
  const hosted = answers.find(({ upstream }) => upstream === 'hosted')
  const proxy = answers.find(({ upstream }) => upstream === 'proxy')
  const answer = (status: number, error: OciError, fields: Record<string, string> = {}) =>
    ociError(method, status, { ...error, detail: told(answers) }, fields)
  const failed = ({ upstream, status }: Answer) =>
    answer(status === 504 ? 504 : 502, { code: 'UNAVAILABLE', message: `${upstream} gave no usable answer` })

  if (answers.some(clientLeft)) return new Response(null, { status: 499 })
  if (hosted?.status === 401) {
    const challenges = bearerFirst(hosted.response?.headers.get('WWW-Authenticate') ?? '')
    const error = hosted.error ?? { code: 'UNAUTHORIZED', message: 'hosted requires a login' }
    return answer(401, error, challenges ? { 'WWW-Authenticate': challenges } : {})
  }
  if (hosted?.verdict === 'failed') return failed(hosted)
  const limited = [hosted, proxy].find((answer) => answer?.verdict === 'limited')
  if (limited) {
    const retryAfter = limited.response?.headers.get('Retry-After')
    const error = { code: 'TOOMANYREQUESTS', message: `${limited.upstream} limits the rate of requests` }
    return answer(429, error, retryAfter ? { 'Retry-After': retryAfter } : {})
  }
  if (proxy?.verdict === 'failed') return failed(proxy)
  if (hosted?.verdict === 'denied') {
    const code = hosted.status === 403 ? 'DENIED' : 'UNSUPPORTED'
    return answer(hosted.status, hosted.error ?? { code, message: 'hosted refuses this request' })
  }
  const code = entity === 'blob' ? 'BLOB_UNKNOWN' : 'MANIFEST_UNKNOWN'
  return answer(404, hosted?.error ?? { code, message: `${entity} unknown` })
}

/** What each upstream said, for the `detail` of a combined error: never an address. */
function told(answers: readonly Answer[]) {
  return answers.map(({ upstream, verdict, status, milliseconds, reason }) => ({
    upstream,
    verdict,
    status,
    milliseconds,
    reason,
  }))
}

/** RFC 9110, section 7.6.1, and the older names for the same. */
const hopByHop =
  'connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding upgrade'.split(
    ' ',
  )
/** What a client claims about its way here, what the router speaks for itself, and what belongs to its own hop. */
const replaced =
  'host expect accept-encoding content-length forwarded x-forwarded-host x-forwarded-proto x-forwarded-port x-real-ip'.split(
    ' ',
  )

function endToEnd(headers: Headers): Headers {
  const kept = new Headers(headers)
  for (const name of kept.get('Connection')?.split(',') ?? []) {
    if (/^[\w!#$%&'*+.^`|~-]+$/.test(name.trim())) kept.delete(name.trim())
  }
  for (const name of hopByHop) kept.delete(name)
  return kept
}

function requestHeaders(
  upstream: UpstreamName,
  from: Headers,
  { host, scheme }: Config['aggregate'],
  address?: string,
): Headers {
  const headers = endToEnd(from)
  for (const name of [...headers.keys()])
    if (replaced.includes(name) || (name.startsWith('x-forwarded-') && name !== 'x-forwarded-for')) headers.delete(name)
  if (upstream === 'proxy') {
    headers.delete('Authorization')
    headers.delete('Cookie')
  }
  // A body that is decoded on the way has another length, and on one runtime ends short in silence.
  headers.set('Accept-Encoding', 'identity')
  headers.set('X-Forwarded-Host', host)
  headers.set('X-Forwarded-Proto', scheme)
  if (address) headers.append('X-Forwarded-For', address)
  return headers
}

function responseHeaders(upstream: UpstreamName, response: Response): Headers {
  const headers = endToEnd(response.headers)
  const challenges = headers.get('WWW-Authenticate')
  headers.delete('WWW-Authenticate')
  if (upstream === 'proxy') headers.delete('Set-Cookie')
  else if (challenges) headers.set('WWW-Authenticate', bearerFirst(challenges))
  const location = headers.get('Location')
  if (location && [201, 202, 204, 416].includes(response.status)) headers.set('Location', ownPath(location))
  const link = headers.get('Link')
  if (link)
    headers.set(
      'Link',
      link.replace(/<([^>]*)>/g, (_, target) => `<${ownPath(target)}>`),
    )
  return headers
}

/** An address whose path is of the route table goes out as that path: TLS, ports and replicas then do not matter. */
function ownPath(location: string): string {
  const [, path, query = ''] = /^(?:https?:)?\/\/[^/?#]*(\/[^?#]*)(\?[^#]*)?/i.exec(location) ?? []
  if (!path) return location
  const matched = match('GET', path)
  return 'route' in matched || matched.refused === 405 ? path + query : location
}

/** Clients take the first challenge they can follow, so Bearer comes first (RFC 9110, section 11.6.1). */
function bearerFirst(challenges: string): string {
  const parts = challenges.match(/(?:[^,"]|"(?:[^"\\]|\\.)*")+/g) ?? []
  const whole: string[] = []
  for (const part of parts.map((text) => text.trim())) {
    // A scheme stands alone or before a space; a parameter has its `=` first.
    if (whole.length === 0 || /^[^\s=]+(\s|$)/.test(part)) whole.push(part)
    else whole[whole.length - 1] += `,${part}`
  }
  const isBearer = (challenge: string) => /^bearer\b/i.test(challenge)
  return [...whole.filter(isBearer), ...whole.filter((challenge) => !isBearer(challenge))].join(', ')
}

/** The body to send on, if there is one, with its length as the client gave it (null: chunked). */
function bodyOf(request: Request): { body: ReadableStream<Uint8Array> | null; length: string | null } {
  const length = request.headers.get('Content-Length')
  const none =
    ['GET', 'HEAD'].includes(request.method) ||
    length === '0' ||
    (length === null && !request.headers.has('Transfer-Encoding'))
  return { body: none ? null : request.body, length }
}

/** The same stream, with its bytes counted and its end told. */
function count(stream: ReadableStream<Uint8Array>, add: (bytes: number) => void) {
  let end = () => {}
  const ended = new Promise<void>((resolve) => {
    end = resolve
  })
  const counter = new TransformStream<Uint8Array, Uint8Array>({
    transform: (chunk, controller) => {
      add(chunk.byteLength)
      controller.enqueue(chunk)
    },
    flush: () => end(),
  })
  return { body: stream.pipeThrough(counter), ended }
}
