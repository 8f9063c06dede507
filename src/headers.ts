/** Which header fields cross, in both directions, and as what: the trust rules. */
import { match, type UpstreamName } from '../routing.ts'
import type { Config } from './config.ts'
import type { Connection, Fetch } from './runtime.ts'

/** Fields of one connection, not of the message (RFC 9110, section 7.6.1), and the older names for the same. */
const hopByHop = /^(connection|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade)$/
/** What a client claims about its way here, and what belongs to this hop's own connection or body. */
const replaced =
  /^(forwarded|x-forwarded-(?!for$).*|x-real-ip|host|expect|content-length|accept-encoding|x-request-id)$/
/** What says who the client is. */
const secret = /^(authorization|cookie)$/

/** Names in lower case, as Headers gives them. Pairs, since building Headers is what costs most. */
type Fields = [name: string, value: string][]

function endToEnd(from: Headers): Fields {
  const named = from
    .get('Connection')
    ?.toLowerCase()
    .split(/[\s,]+/)
  return [...from].filter(([name]) => !hopByHop.test(name) && !named?.includes(name))
}

/**
 * The fields an upstream gets. The client's login and cookies go to hosted alone, and there only if this router has not
 * asked for them itself; all addresses are ours to tell.
 */
export function requestHeaders(upstream: UpstreamName, from: Headers, config: Config, client: Connection): Headers {
  const { aggregate } = config
  const keepsSecrets = upstream === 'hosted' && config.passLogin
  const fields = endToEnd(from).filter(([name]) => !replaced.test(name) && (keepsSecrets || !secret.test(name)))
  // A body that is decoded on the way has another length, and on one runtime ends short in silence.
  fields.push(['accept-encoding', 'identity'])
  fields.push(['x-forwarded-host', aggregate.host])
  fields.push(['x-forwarded-proto', aggregate.protocol.slice(0, -1)])
  // Joined to what came, if anything did.
  if (client.address) fields.push(['x-forwarded-for', client.address])
  if (client.id) fields.push(['x-request-id', client.id])
  return new Headers(fields)
}

/** Ends `User-Agent` with this router, after the client; a request of its own names it alone (RFC 9110, section 10.1.5). */
export function signed(fetch: Fetch, version: string): Fetch {
  const product = `combined-registry/${version}`
  return (url, init, fresh) => {
    const fields = init.headers as Headers
    const client = fields.get('User-Agent') ?? ''
    // A second try has it already.
    if (!client.endsWith(product)) fields.set('User-Agent', `${client} ${product}`.trim())
    return fetch(url, init, fresh)
  }
}

/** The fields a client gets. A login is hosted's to ask for: the proxy's challenges and cookies stop here. */
export function responseHeaders(upstream: UpstreamName, status: number, from: Headers): Fields {
  const ownLocation = [201, 202, 204, 416].includes(status)
  return endToEnd(from).flatMap(([name, value]): Fields => {
    if (upstream === 'proxy' && (name === 'www-authenticate' || name === 'set-cookie')) return []
    if (name === 'www-authenticate') return [[name, bearerFirst(value)]]
    if (name === 'location' && ownLocation) return [[name, ownPath(value)]]
    if (name === 'link') return [[name, value.replace(/(?<=<)[^>]*(?=>)/g, ownPath)]]
    return [[name, value]]
  })
}

/** An address whose path is of the route table goes out as that path: TLS, ports and replicas then do not matter. */
export function ownPath(location: string): string {
  const [, path, query = ''] = /^(?:https?:)?\/\/[^/?#]*(\/[^?#]*)(\?[^#]*)?/i.exec(location) ?? []
  if (!path) return location
  const matched = match('GET', path)
  return 'route' in matched || matched.refused === 405 ? path + query : location
}

/** Clients take the first challenge they can follow, so Bearer comes first (RFC 9110, section 11.6.1). */
export function bearerFirst(challenges: string): string {
  const whole = challengesOf(challenges)
  const isBearer = (challenge: string) => /^bearer\b/i.test(challenge)
  return [...whole.filter(isBearer), ...whole.filter((challenge) => !isBearer(challenge))].join(', ')
}

/** The challenges that a field, or several joined to one, has. */
export function challengesOf(field: string): string[] {
  const parts = field.match(/(?:[^,"]|"(?:[^"\\]|\\.)*")+/g) ?? []
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
