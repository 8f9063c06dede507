/** What an answer to a lookup means: the verdicts, by status and by body. Pure. */
import type { Entity } from '../../routing.ts'
import type { Reply } from '../runtime/runtime.ts'
import { hasDigest, isCheckable } from './digest.ts'
import type { OciError } from './errors.ts'
import { json, outlineOf } from './json.ts'

/** What an answer means for a lookup, in short (docs/routing.md, "What an answer means"). Only `found` ends a lookup. */
export const verdicts = {
  found: '2xx, 3xx',
  absent: '404',
  denied: 'other 4xx',
  limited: '429',
  failed: 'no usable answer',
} as const

/** `gone`: there is no answer, since the client left. */
export type Verdict = keyof typeof verdicts | 'gone'

/** Whether an answer leaves open what the registry has. */
export const isUnsure = ({ verdict }: { verdict: Verdict }) => verdict === 'failed' || verdict === 'limited'

/** Whether a registry surely lacks it. A public one says 401 or 403 for what it lacks. */
export const isMissing = ({ verdict, from, status }: { verdict: Verdict; from: { role: string }; status: number }) =>
  verdict === 'absent' || (from.role === 'public' && isRefusal({ verdict, status }))

/** Whether a registry refuses this client: it needs a login, or another one. */
export const isRefusal = ({ verdict, status }: { verdict: Verdict; status: number }) =>
  verdict === 'denied' && [401, 403].includes(status)

export const redirects: ReadonlySet<number> = new Set([301, 302, 303, 307, 308])

/** Statuses about the way to the registry (RFC 9110, section 15.5). */
const aboutTheWay = [407, 408, 421, 426]
/** To a read these say nothing about the image: they are about the request or the way. To a write they are an answer. */
const aboutReads = [...aboutTheWay, 405, 411, 413, 414, 415, 417, 428, 431]
/** Codes of a 400 that mean: this registry has no such name. */
const noSuchName = ['NAME_INVALID', 'NAME_UNKNOWN', 'TAG_INVALID']

/** The verdict of a status, without its body. */
export function verdictOf(status: number): Verdict {
  if (status < 300 || redirects.has(status) || [304, 412, 416].includes(status)) return 'found'
  if (status === 404) return 'absent'
  if (status === 429) return 'limited'
  if (status < 400 || status >= 500 || aboutTheWay.includes(status)) return 'failed'
  return 'denied'
}

/** Whether the refusal of a read is about the request, not about the image. So is a 400 without an OCI error: http spoken to a TLS port, say. */
export function isAboutRequest(status: number, error: OciError | undefined): boolean {
  return aboutReads.includes(status) || (status === 400 && !error)
}

/** The verdict of a 400 with an OCI error to a lookup. */
export function verdictOf400(error: OciError | undefined): Verdict {
  return error && noSuchName.includes(error.code) ? 'absent' : 'denied'
}

/** Whether a digest has an algorithm that registries need not know. */
export const isOddDigest = (digest: string | undefined) => digest !== undefined && !isCheckable(digest)

/** The verdict of a cache's 500. CNCF distribution says 500 to whatever its own upstream answered, and nests the truth. */
export function verdictOfNested(code: string | undefined): Verdict {
  if (code?.endsWith('_UNKNOWN')) return 'absent'
  if (code === 'TOOMANYREQUESTS') return 'limited'
  if (code === 'UNAUTHORIZED' || code === 'DENIED') return 'denied'
  return 'failed'
}

export const isHtml = (headers: Headers) => /^\s*text\/html\b/i.test(headers.get('Content-Type') ?? '')

/** Statuses to a HEAD that say nothing of a GET. */
const vagueOfManifests = [400, 405, 501]
/** The same for blobs at public registries: ECR Public says 401 to HEAD and redirects GET. */
const vagueOfBlobs = [401, 403, 405, 501]

/** Whether the answer to a HEAD leaves its meaning to a GET: then it is asked again so. */
export function isVagueHead(
  entity: Entity,
  role: 'hosted' | 'public',
  { status, headers }: Pick<Reply, 'status' | 'headers'>,
): boolean {
  if (entity === 'blob') return role === 'public' && vagueOfBlobs.includes(status)
  return entity === 'manifest' && (vagueOfManifests.includes(status) || (status === 200 && !isOfManifest(headers)))
}

/** Whether the header fields of a 200 show that it is a manifest. */
function isOfManifest(headers: Headers): boolean {
  if (headers.get('Content-Length') === '0') return false
  return headers.has('Docker-Content-Digest') || manifestTypes.test(headers.get('Content-Type') ?? '')
}
const manifestTypes = /^\s*application\/vnd\.(oci|docker)\./i

const membersOfManifests = ['schemaVersion', 'mediaType', 'manifests', 'layers', 'config']

/** Whether a whole body is a manifest: it has the digest that was asked for, or it is JSON and looks like one. */
export function isManifest(content: Uint8Array, digest: string | undefined): boolean {
  if (digest && hasDigest(content, digest)) return true
  const { isObject, members } = outlineOf(content, membersOfManifests)
  return isObject && members.size > 0
}

/** Whether a whole body is an index, as a list of referrers is one. */
export function isIndex(content: Uint8Array): boolean {
  const { isObject, members } = outlineOf(content, ['manifests'])
  return isObject && members.has('manifests')
}

/** Whether what has come of a body shows that it is a manifest. */
export const beginsManifest = (begun: Uint8Array) => outlineOf(begun, membersOfManifests).members.size > 0

/** Whether a body that is too long to be read whole may be JSON, by its first byte and its type. */
export function mayBeJson(begun: Uint8Array, headers: Headers): boolean {
  return !isHtml(headers) && begun[0] === 0x7b
}

/** The verdict of a tag list; `absent` if it names no tags, as some registries say of a name they lack. */
export function verdictOfTags(content: Uint8Array): Verdict {
  const { isObject, members } = outlineOf(content, ['tags'])
  const tags = isObject ? members.get('tags') : undefined
  return tags === 'n' ? 'absent' : tags === '[' ? 'found' : 'failed'
}

/** Whether a list has no tags, though some were asked for: some registries say so too of a name they lack. */
export function isEmptyList(content: Uint8Array, query: string): boolean {
  // To parse a long list takes a hundred times as long.
  if (!/"tags"\s*:\s*\[\s*\]/.test(new TextDecoder().decode(content))) return false
  const { tags } = (json(content) ?? {}) as { tags?: unknown }
  return Array.isArray(tags) && tags.length === 0 && new URLSearchParams(query).get('n') !== '0'
}

/** Whether a query asks for a page after the first: it has what only the link of a page before gives, `last` in most registries. */
export const isLaterPage = (query: string) =>
  [...new URLSearchParams(query).keys()].some((name) => name !== 'n' && name !== 'ns')

/** The digests of an empty blob. */
const digestsOfNothing = [
  'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
  'sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e',
]

/**
 * Why a 200 is not the blob that was asked for, by its header fields: it is a web page, or empty. A layer may be a web page too: it counts
 * if the registry names its digest. An empty blob counts only if it was asked for.
 */
export function faultOfBlob(headers: Headers, digest: string | undefined): string | undefined {
  if (isHtml(headers) && (!digest || headers.get('Docker-Content-Digest') !== digest)) return 'a web page'
  const isEmpty = headers.get('Content-Length') === '0'
  const isWrong = isEmpty && digest !== undefined && isCheckable(digest) && !digestsOfNothing.includes(digest)
  return isWrong ? 'no bytes' : undefined
}
