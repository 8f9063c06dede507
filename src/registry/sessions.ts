/** Upload sessions whose address the route table does not have: what clients get in its place, and the way back. Pure. */
import { match } from '../../routing.ts'
import { nameThere } from './names.ts'

/** Where a registry is, and where this router is. */
export interface Place {
  address: URL
  /** The path before every name there, or empty. */
  path: string
  /** This router's public address, from which a registry may build its own. */
  router: Pick<URL, 'hostname'>
}

/** What tells a token from the session ids of registries. A session id that begins like this gets a token too. */
const mark = '~'
const token = /^\/v2\/([^?]+)\/blobs\/uploads\/~([^/?]*)(?:\?(.*))?$/
const session =
  /^(\/[a-zA-Z0-9._/-]+\/)([a-zA-Z0-9_=~-][a-zA-Z0-9._=~-]*)(?:\?((?:[\w.~!$'()*+,=&:@/-]|%[\da-f]{2})+))?$/i
/** Dots and slashes that a server may resolve, and control characters. */
const unsound = /\.\.|\/\/|%(?:2e|[01][\da-f]|7f)/i
/** Parameters that would make another request of it. */
const ofRequests = ['mount', 'from', 'digest']

/**
 * What a client gets for the address of an upload session (distribution-spec 1.1: it is opaque). Undefined if that needs none of this.
 * - A known shape becomes a token, which holds path and query: so no replica needs to remember it.
 * - A path that something in front of the registry puts before `/v2/` goes: that is added again on the way there (Nexus, Artifactory).
 *
 * `uploads`: where the sessions of the request are here, `/v2/NAME/blobs/uploads/`.
 */
export function sessionHere(location: string, uploads: string, place: Place): string | undefined {
  const target = targetOn(location, [place.address.hostname, place.router.hostname])
  if (target === undefined) return undefined
  const name = uploads.slice('/v2/'.length, -'/blobs/uploads/'.length)
  if (isKnown(target, name, place)) return `${uploads}${mark}${encoded(target)}`
  const standard = [uploads, `/v2${place.path}${uploads.slice('/v2'.length)}`]
  const own = standard.find((one) => target.indexOf(one, 1) > 0)
  const behind = own && uploads + target.slice(target.indexOf(own, 1) + own.length)
  return behind && 'route' in match('PUT', behind.replace(/\?.*/, '')) ? behind : undefined
}

/** Whether the target of a request names its session by a token. */
export const hasToken = (target: string) => token.test(target)

/** Path and query there of a session that is named by a token. Undefined if the token was not made here for this name. */
export function sessionThere(target: string, place: Place): string | undefined {
  const [, name = '', text = '', query] = token.exec(target) ?? []
  const held = Buffer.from(text, 'base64url').toString('latin1')
  if (encoded(held) !== text || !isKnown(held, name, place)) return undefined
  return query ? `${held}${held.includes('?') ? '&' : '?'}${query}` : held
}

/** The repository there that a target is about, if its token hides that. */
export function repositoryOf(target: string, { path }: Place): string | undefined {
  const [, name] = token.exec(target) ?? []
  return name && nameThere(name, path)
}

const encoded = (text: string) => Buffer.from(text, 'latin1').toString('base64url')

/** Whether a target is a session of this name, in one of the shapes that get tokens. */
function isKnown(target: string, name: string, { address, path }: Place): boolean {
  const [, begin = '', id = '', query = ''] = session.exec(target) ?? []
  const isSound = begin !== '' && !unsound.test(target)
  if (!isSound || [...new URLSearchParams(query).keys()].some((key) => ofRequests.includes(key.toLowerCase())))
    return false
  const full = nameThere(name, path)
  if (begin === `/v2/${full}/blobs/uploads/`) return id.startsWith(mark)
  return begin === `/v2/${full}/blobs/upload/` || beginningsAtGoogle(full, address.hostname).includes(begin)
}

/** Names are PROJECT/REPOSITORY/IMAGE; at gcr.io PROJECT/IMAGE, in a repository that is called as the host. */
function beginningsAtGoogle(name: string, hostname: string): string[] {
  const [project, repository, image] = name.split('/')
  const repositories = [...(image ? [repository] : []), ...(repository ? [hostname] : [])]
  return repositories.map((one) => `/artifacts-uploads/namespaces/${project}/repositories/${one}/uploads/`)
}

/** Path and query of an address that has no host, or one of these, with any scheme and port: those may be inner ones. */
function targetOn(location: string, hostnames: readonly string[]): string | undefined {
  if (/^\/(?!\/)/.test(location)) return location
  const [, host = '', target] = /^(?:https?:)?\/\/([^/?#@]*)(\/[^#]*)/i.exec(location) ?? []
  return hostnames.includes(host.replace(/:\d*$/, '').toLowerCase()) ? target : undefined
}
