/** Which header fields cross, in both directions, and as what: the trust rules. */
import { HTTPException } from 'hono/http-exception'
import { match } from '../../routing.ts'
import { type Fetch, type Fields, isRead } from '../runtime/runtime.ts'
import type { Answer, Client } from './answer.ts'
import { bearerFirst, withRealms } from './challenge.ts'
import { linksOfList } from './links.ts'

/**
 * Never passed on: fields of one connection (RFC 9110, section 7.6.1), their older names, and what a registry says about its own
 * host (RFC 6797, RFC 7838).
 */
const hopByHop =
  /^(connection|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade|strict-transport-security|alt-svc)$/
/** Replaced by the router: what a client claims about its way here, and what belongs to the router's own request. */
const replaced =
  /^(forwarded|x-forwarded-(?!for$).*|x-real-ip|host|expect|content-length|accept-encoding|x-request-id)$/
/** Conditions and ranges: they make an answer depend on more than its name (RFC 9110, sections 13 and 14). */
export const conditions = ['range', 'if-match', 'if-none-match', 'if-modified-since', 'if-unmodified-since', 'if-range']
const secret = /^(authorization|cookie)$/
/** All that a read brings besides. Its answer may be shared with other clients, so no other field may decide it. */
const ofReads = new RegExp(
  `^(accept|user-agent|x-forwarded-for|traceparent|tracestate|baggage|${conditions.join('|')})$`,
)
/** Characters of `ofReads` together: nginx in front of a registry takes no field of more than 8 KiB. */
export const maxOfReads = 8000
/** What a ping brings. Its answer is shared by all clients that are the same in what of these tells clients apart. */
const ofPings = /^(accept-encoding|x-forwarded-(host|proto)|x-request-id)$/
/** zot with an anonymous policy challenges only clients whose User-Agent begins with `docker/`. */
const ofClients = /^(authorization|cookie|user-agent)$/

/** What decides which fields a registry gets. */
export interface Trust {
  role: 'hosted' | 'public'
  forwardsLogin: boolean
  /** This router's public address. */
  router: Pick<URL, 'host' | 'protocol'>
}

/** The names of fields that are for this connection only, in lower case (RFC 9110, section 7.6.1). */
function namedIn(headers: Headers): ReadonlySet<string> {
  const named = headers.get('Connection')
  return named === null ? nothing : new Set(named.toLowerCase().split(/[\s,]+/))
}
const nothing: ReadonlySet<string> = new Set()

/** Gives a field by its name in lower case, if registries get it too. */
export function passedOn(headers: Headers): (name: string) => string | null {
  const named = namedIn(headers)
  return (name) => (named.has(name) ? null : headers.get(name))
}

/** Calls `use` for each field of the message itself. By `forEach`: on Deno an iterator costs eight times as much. */
function endToEnd(from: Headers, use: (value: string, name: string) => void): void {
  const named = namedIn(from)
  from.forEach((value, name) => {
    if (!hopByHop.test(name) && !named.has(name)) use(value, name)
  })
}

/** The fields a registry gets. Throws an HTTPException of 431 if they are too long. */
export function requestFields(
  { method, headers }: Pick<Request, 'method' | 'headers'>,
  { peer, id }: Client,
  { role, forwardsLogin, router }: Trust,
): Fields {
  const isReading = role === 'public' || isRead({ method })
  const fields: Fields = {}
  let size = 0
  endToEnd(headers, (value, name) => {
    const isOfReads = ofReads.test(name)
    if (secret.test(name) ? !forwardsLogin : isReading ? !isOfReads : replaced.test(name)) return
    fields[name] = value
    if (isOfReads) size += value.length
  })
  if (size > maxOfReads) throw new HTTPException(431, { message: `more than ${maxOfReads} bytes of header fields` })
  // A body that is decoded on its way has another length.
  fields['accept-encoding'] = 'identity'
  fields['x-forwarded-host'] = router.host
  fields['x-forwarded-proto'] = router.protocol.slice(0, -1)
  const way = [fields['x-forwarded-for'], peer].filter(Boolean)
  if (way.length > 0) fields['x-forwarded-for'] = way.join(', ')
  if (id) fields['x-request-id'] = id
  return fields
}

/** Of the fields a registry would get, those that go with a ping; `tellsClients`: whether it may tell clients apart. */
export function pingFields(fields: Fields, tellsClients: boolean): Fields {
  const passes = (name: string) => ofPings.test(name) || (tellsClients && ofClients.test(name))
  return Object.fromEntries(Object.entries(fields).filter(([name]) => passes(name)))
}

/** How the fields of a registry's answers are mapped for clients. */
export interface Mapping {
  forwardsLogin: boolean
  /** A path of the registry, with the name as it is called here. */
  pathHere: (path: string) => string
  /** The address here of an upload session, below `uploads`; undefined for one that the route table has. */
  sessionHere: (location: string, uploads: string) => string | undefined
  /** The address of a realm that is asked through this router; undefined for any other. */
  realmHere: (realm: string) => string | undefined
  /** The scopes of such a challenge, with the names as they are called here. */
  scopesHere: (scopes: string) => string
}

/**
 * The fields a client gets of an answer.
 * - Challenges and cookies pass only if the client has its login at that registry.
 * - An address of this API becomes a path, with the name that the client knows.
 * - The next page of a list is linked at the path of the list, whatever address the registry names.
 */
export function responseFields(
  status: number,
  from: Headers,
  { forwardsLogin, pathHere, sessionHere, realmHere, scopesHere }: Mapping,
  { listPath, uploads }: Pick<Answer, 'listPath' | 'uploads'> = {},
): [string, string][] {
  const hasOwnLocation = [201, 202, 204, 416].includes(status)
  const fields: [string, string][] = []
  endToEnd(from, (value, name) => {
    if (!forwardsLogin && (name === 'www-authenticate' || name === 'set-cookie')) return
    if (name === 'www-authenticate') fields.push([name, bearerFirst(withRealms(value, realmHere, scopesHere))])
    else if (name === 'location' && hasOwnLocation)
      fields.push([name, (uploads && sessionHere(value, uploads)) || pathHere(ownPath(value))])
    else if (name === 'link' && listPath !== undefined) {
      const links = linksOfList(value, listPath, (link) => pathHere(ownPath(link)))
      if (links) fields.push([name, links])
    } else if (name === 'link')
      fields.push([name, value.replace(/(?<=<)[^<>]*(?=>)/g, (link) => pathHere(ownPath(link)))])
    else fields.push([name, value])
  })
  return fields
}

/** An address whose path is in the route table becomes that path: TLS, ports and replicas then do not matter. */
export function ownPath(location: string): string {
  const [, path, query = ''] = /^(?:https?:)?\/\/[^/?#]*(\/[^?#]*)(\?[^#]*)?/i.exec(location) ?? []
  if (!path) return location
  const matched = match('GET', path)
  return 'route' in matched || matched.refused === 405 ? path + query : location
}

const manifestTypes = [
  'oci.image.index.v1',
  'oci.image.manifest.v1',
  'docker.distribution.manifest.list.v2',
  'docker.distribution.manifest.v2',
]
/** `Accept` for every type of manifest. */
export const anyManifest = manifestTypes.map((type) => `application/vnd.${type}+json`).join(', ')

/** The same request as a GET without conditions that accepts only `accept`. */
export function unconditional({ url, headers: given, signal }: Request, accept: string): Request {
  const headers = new Headers(given)
  headers.set('Accept', accept)
  for (const field of conditions) headers.delete(field)
  return new Request(url, { headers, signal })
}

/** Adds this router to the end of `User-Agent` (RFC 9110, section 10.1.5). */
export function signed(fetch: Fetch, version: string): Fetch {
  return (url, asked, fresh) => {
    const agent = `${asked.headers['user-agent'] ?? ''} combined-registry/${version}`.trim()
    return fetch(url, { ...asked, headers: { ...asked.headers, 'user-agent': agent } }, fresh)
  }
}
