/** Which header fields cross, in both directions, and as what: the trust rules. */
import { match, type UpstreamName } from '../routing.ts'
import type { Config } from './config.ts'

/** Fields of one connection, not of the message (RFC 9110, section 7.6.1), and the older names for the same. */
const hopByHop = /^(connection|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade)$/
/** What a client claims about its way here, and what belongs to this hop's own connection or body. */
const replaced = /^(forwarded|x-forwarded-(?!for$).*|x-real-ip|host|expect|content-length|accept-encoding)$/

function endToEnd(from: Headers): Headers {
  const named = from
    .get('Connection')
    ?.toLowerCase()
    .split(/[\s,]+/)
  const headers = new Headers()
  for (const [name, value] of from) {
    if (!hopByHop.test(name) && !named?.includes(name)) headers.append(name, value)
  }
  return headers
}

type Aggregate = Config['aggregate']

/** The fields an upstream gets. The client's login and cookies go to hosted alone; all addresses are ours to tell. */
export function requestHeaders(upstream: UpstreamName, from: Headers, aggregate: Aggregate, client?: string): Headers {
  const headers = endToEnd(from)
  for (const name of [...headers.keys()]) if (replaced.test(name)) headers.delete(name)
  if (upstream === 'proxy') {
    headers.delete('Authorization')
    headers.delete('Cookie')
  }
  // A body that is decoded on the way has another length, and on one runtime ends short in silence.
  headers.set('Accept-Encoding', 'identity')
  headers.set('X-Forwarded-Host', aggregate.host)
  headers.set('X-Forwarded-Proto', aggregate.protocol.slice(0, -1))
  if (client) headers.append('X-Forwarded-For', client)
  return headers
}

/** The fields a client gets. A login is hosted's to ask for: the proxy's challenges and cookies stop here. */
export function responseHeaders(upstream: UpstreamName, status: number, from: Headers): Headers {
  const headers = endToEnd(from)
  const challenges = headers.get('WWW-Authenticate')
  headers.delete('WWW-Authenticate')
  if (upstream === 'proxy') headers.delete('Set-Cookie')
  else if (challenges) headers.set('WWW-Authenticate', bearerFirst(challenges))
  const location = headers.get('Location')
  if (location && [201, 202, 204, 416].includes(status)) headers.set('Location', ownPath(location))
  const link = headers.get('Link')?.replace(/(?<=<)[^>]*(?=>)/g, ownPath)
  if (link) headers.set('Link', link)
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
export function bearerFirst(challenges: string): string {
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

/** Whether a request brings a body, by its framing (RFC 9112, section 6.3); a read's is not looked at. */
export function hasBody({ method, headers }: Request): boolean {
  if (method === 'GET' || method === 'HEAD') return false
  return headers.has('Transfer-Encoding') || !['0', null].includes(headers.get('Content-Length'))
}
