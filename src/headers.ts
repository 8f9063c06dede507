/** Which header fields cross, in both directions, and as what: the trust rules. */
import { HTTPException } from 'hono/http-exception'
import { match, type UpstreamName } from '../routing.ts'
import type { Config } from './config.ts'
import type { Connection, Fetch, Fields } from './runtime.ts'

/**
 * Fields of one connection, not of the message (RFC 9110, section 7.6.1), the older names for the same, and what a registry
 * says of its own host (RFC 6797, RFC 7838).
 */
const hopByHop =
  /^(connection|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade|strict-transport-security|alt-svc)$/
/** What a client claims about its way here, and what belongs to this hop's own connection or body. */
const replaced =
  /^(forwarded|x-forwarded-(?!for$).*|x-real-ip|host|expect|content-length|accept-encoding|x-request-id)$/
/** Fields that make an answer depend on more (RFC 9110, sections 13 and 14). */
export const conditions = ['range', 'if-match', 'if-none-match', 'if-modified-since', 'if-unmodified-since', 'if-range']
/** What says who the client is. */
const secret = /^(authorization|cookie)$/
/**
 * What else a read brings: what its answer may depend on, who asks, and its trace. Others may be given the same answer, so no
 * more of one client's fields may decide it.
 */
const ofReads = new RegExp(
  `^(accept|user-agent|x-forwarded-for|traceparent|tracestate|baggage|${conditions.join('|')})$`,
)
/** Characters of those together: nginx before a registry takes no field of more than 8 KiB. */
const mostOfReads = 8000
/** What a ping has, whose answer is for all who have the same login. */
export const ofPings = /^(authorization|cookie|accept-encoding|x-forwarded-(host|proto)|x-request-id)$/

/** Names of fields that the connection claims for itself, in lower case (RFC 9110, section 7.6.1). */
const namedIn = (headers: Headers) => new Set((headers.get('Connection') ?? '').toLowerCase().split(/[\s,]+/))

/** Gives a field by its name in lower case, if it is one that upstreams get too. */
export function passedOn(headers: Headers): (name: string) => string | null {
  const named = namedIn(headers)
  return (name) => (named.has(name) ? null : headers.get(name))
}

/** Calls back with what is the message's, names in lower case. Not by an iterator: on Deno that costs eight times as much. */
function endToEnd(from: Headers, use: (value: string, name: string) => void): void {
  const named = namedIn(from)
  from.forEach((value, name) => {
    if (!hopByHop.test(name) && !named.has(name)) use(value, name)
  })
}

/** Whether a registry and a client have a session of their own: hosted, where this router does not ask for logins itself. */
export function hasSessions(upstream: UpstreamName, { passLogin }: Config): boolean {
  return upstream === 'hosted' && passLogin
}

/**
 * The fields an upstream gets. The client's login and cookies are for its own session; all addresses are ours to tell.
 * Throws a 431 where they are too long.
 */
export function requestHeaders(
  upstream: UpstreamName,
  { method, headers }: Request,
  config: Config,
  client: Connection,
) {
  const { aggregate } = config
  const keepsSecrets = hasSessions(upstream, config)
  const reads = upstream === 'proxy' || method === 'GET' || method === 'HEAD'
  const fields: Fields = {}
  let size = 0
  endToEnd(headers, (value, name) => {
    const isOfReads = ofReads.test(name)
    if (secret.test(name) ? !keepsSecrets : reads ? !isOfReads : replaced.test(name)) return
    fields[name] = value
    if (isOfReads) size += value.length
  })
  if (size > mostOfReads) throw new HTTPException(431, { message: `more than ${mostOfReads} bytes of header fields` })
  // A body that is decoded on the way has another length, and on one runtime ends short in silence.
  fields['accept-encoding'] = 'identity'
  fields['x-forwarded-host'] = aggregate.host
  fields['x-forwarded-proto'] = aggregate.protocol.slice(0, -1)
  const way = [fields['x-forwarded-for'], client.address].filter(Boolean)
  if (way.length > 0) fields['x-forwarded-for'] = way.join(', ')
  if (client.id) fields['x-request-id'] = client.id
  return fields
}

/** A read of the same, whatever its client has of it, of this type. */
export function unconditional({ url, headers: given, signal }: Request, accept: string): Request {
  const headers = new Headers(given)
  headers.set('Accept', accept)
  for (const field of conditions) headers.delete(field)
  return new Request(url, { headers, signal })
}

/** Ends `User-Agent` with this router, after the client; a request of its own names it alone (RFC 9110, section 10.1.5). */
export function signed(fetch: Fetch, version: string): Fetch {
  return (url, init, fresh) => {
    const agent = `${init.headers['user-agent'] ?? ''} combined-registry/${version}`.trim()
    return fetch(url, { ...init, headers: { ...init.headers, 'user-agent': agent } }, fresh)
  }
}

/**
 * The fields a client gets. A login is hosted's to ask for: the proxy's challenges stop here, and cookies that are of no
 * session of the client's. What stands before every name at the proxy stands before none here.
 */
export function responseHeaders(upstream: UpstreamName, status: number, from: Headers, config: Config) {
  const before = upstream === 'proxy' ? config.proxyPath : ''
  const inSession = hasSessions(upstream, config)
  const ownLocation = [201, 202, 204, 416].includes(status)
  const fields: [string, string][] = []
  endToEnd(from, (value, name) => {
    if (!inSession && (name === 'www-authenticate' || name === 'set-cookie')) return
    if (name === 'www-authenticate') fields.push([name, bearerFirst(value)])
    else if (name === 'location' && ownLocation) fields.push([name, ownPath(value)])
    else if (name === 'link')
      fields.push([name, value.replace(/(?<=<)[^<>]*(?=>)/g, (link) => withoutPath(ownPath(link), before))])
    else fields.push([name, value])
  })
  return fields
}

/** An address whose path is of the route table goes out as that path: TLS, ports and replicas then do not matter. */
export function ownPath(location: string): string {
  const [, path, query = ''] = /^(?:https?:)?\/\/[^/?#]*(\/[^?#]*)(\?[^#]*)?/i.exec(location) ?? []
  if (!path) return location
  const matched = match('GET', path)
  return 'route' in matched || matched.refused === 405 ? path + query : location
}

function withoutPath(path: string, before: string): string {
  return path.startsWith(`/v2${before}/`) ? `/v2${path.slice(3 + before.length)}` : path
}

/** Clients take the first challenge they can follow, so Bearer comes first (RFC 9110, section 11.6.1). */
export function bearerFirst(challenges: string): string {
  const whole = challengesOf(challenges)
  const isBearer = (challenge: string) => /^bearer\b/i.test(challenge)
  return [...whole.filter(isBearer), ...whole.filter((challenge) => !isBearer(challenge))].join(', ')
}

/** The challenges that a field, or several joined to one, has. */
export function challengesOf(field: string): string[] {
  // What begins a quoted string is of it even where its end is missing: else each of its characters is tried as a beginning.
  const parts = field.match(/(?:[^,"]|"(?:[^"\\]|\\.?)*(?:"|$))+/g) ?? []
  const whole: string[] = []
  for (const part of parts.map((text) => text.trim())) {
    // A scheme stands alone or before a space; a parameter has its `=` first.
    if (whole.length === 0 || /^[^\s=]+(\s|$)/.test(part)) whole.push(part)
    else whole[whole.length - 1] += `,${part}`
  }
  return whole
}

/** Whether a request brings a body, by its framing (RFC 9112, section 6.3); a read's is not looked at. */
export function hasBody({ method, headers }: Request): boolean {
  if (method === 'GET' || method === 'HEAD') return false
  return headers.has('Transfer-Encoding') || !['0', null].includes(headers.get('Content-Length'))
}
