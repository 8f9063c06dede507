/** What a registry says of images: of one that it lacks, of one that a public registry must have, and of its tags. */
import { type Answer, isUp } from '../registry/answer.ts'
import { nestedCode } from '../registry/errors.ts'
import { json } from '../registry/json.ts'
import { nextQuery } from '../registry/links.ts'
import { wantsLogin } from '../registry/realm.ts'
import { type About, type Finding, finding, type Maybe } from './findings.ts'
import { loginSettings } from './reach.ts'
import type { Subject } from './subject.ts'
import type { Code } from './table.ts'

/** A name that nobody has. It is asked of every registry, so it must be no private one. */
export const absentName = 'combined-registry-check/absent'
const absentDigest = `sha256:${'0'.repeat(64)}`

/** An image that each of these public registries surely has. */
const knownImages: Record<string, readonly [name: string, tag: string]> = {
  'docker.io': ['library/hello-world', 'latest'],
  'ghcr.io': ['astral-sh/uv', 'latest'],
  'quay.io': ['prometheus/prometheus', 'latest'],
  'gcr.io': ['distroless/static', 'latest'],
  'registry.k8s.io': ['pause', '3.9'],
  'mcr.microsoft.com': ['hello-world', 'latest'],
  'public.ecr.aws': ['docker/library/hello-world', 'latest'],
}

/** The image that `host` surely has, unless `isAsked` says that it is not asked for this name. */
export function knownImageOf(host: string, isAsked: (name: string) => boolean): Image | undefined {
  const [name, tag] = knownImages[host] ?? []
  return name && tag && isAsked(host === 'docker.io' ? name : `${host}/${name}`) ? { name, tag } : undefined
}

export interface Image {
  name: string
  tag: string
}

export interface Absence {
  findings: Finding[]
  /** Whether it is a pull-through cache, as CNCF distribution is one. */
  isCache: boolean
  /** What it said of a tag that nobody has. */
  ofTag: Answer
}

const manifestOf = ({ nameHere }: Subject, name: string, reference: string) => ({
  target: `/v2/${nameHere(name)}/manifests/${reference}`,
  entity: 'manifest' as const,
  purpose: 'deciding' as const,
})

/** Asks for an image that nobody has, by tag and by digest. */
export async function askAbsent(subject: Subject): Promise<Absence> {
  const { ask, name, setting, registry } = subject
  const ofTag = await ask(manifestOf(subject, absentName, 'absent'))
  const ofDigest = await ask({ ...manifestOf(subject, absentName, absentDigest), digest: absentDigest })
  // To a digest that it lacks, distribution as a cache says 500, with what its own upstream said inside.
  const isCache = ofDigest.status === 500 && nestedCode(ofDigest.error) !== undefined
  const about = { upstream: name, setting }
  const ofReason = ({ status, reason, cause }: Answer): About => ({ ...about, status, reason, cause })
  const isCutOff = ofDigest.status === 500 && ofDigest.verdict === 'failed' && ofTag.verdict !== 'failed'
  const found: Maybe[] = [
    ofTag.verdict === 'failed' && ofTag.reason !== wantsLogin ? finding('lookup-fails', ofReason(ofTag)) : undefined,
    registry.role === 'public' && ofTag.reason === wantsLogin
      ? finding('login-missing', { upstream: name, setting: loginSettings[name], cause: ofTag.cause })
      : undefined,
    ofTag.verdict === 'limited' ? finding('rate-limited', about) : undefined,
    registry.role === 'public' && isCutOff ? finding('cache-cut-off', about) : undefined,
  ]
  return { findings: found.filter((one) => one !== undefined), isCache, ofTag }
}

/** `elsewhere` is the same registry under another path: one that surely is none, or none. */
export async function judgePath(
  subject: Subject,
  ofTag: Answer,
  image: Image | undefined,
  elsewhere: (path: string) => Subject,
): Promise<Maybe> {
  const { pathname } = subject.address
  if (pathname === '/' || pathname === '') return undefined
  const of = (code: Code, more: About = {}) =>
    finding(code, { upstream: subject.name, setting: subject.setting, path: pathname, ...more })
  // A balancer's 404, which no registry wrote: that there is a registry at /v2/ is known.
  const isOfNobody = ofTag.status === 404 && !ofTag.error && !ofTag.headers.has('Docker-Distribution-Api-Version')
  if (isOfNobody) return of('path-unknown', { status: 404 })
  const nowhere = elsewhere(`/${absentPath}`)
  const control = await nowhere.ask(manifestOf(nowhere, absentName, 'absent'))
  if (signOf(control, absentPath) !== signOf(ofTag, pathname.slice(1))) return undefined
  if (image && (await has(subject, image))) return undefined
  return of(image && (await has(elsewhere('/'), image)) ? 'path-unknown' : 'path-unproven')
}

const absentPath = 'combined-registry-check-path'

/** What tells two answers apart, without the names in them. */
const signOf = ({ status, error }: Answer, path: string) =>
  JSON.stringify([status, error?.code, error?.message]).replaceAll(path, '')

async function has(subject: Subject, { name, tag }: Image): Promise<boolean> {
  return (await ask(subject, name, tag)).verdict === 'found'
}

const ask = (subject: Subject, name: string, tag: string) =>
  subject.ask({ ...manifestOf(subject, name, tag), method: 'HEAD' })

const maxListBytes = 4 * 1024 * 1024

/** Whether the cache gives a tag that it does not list. `isAsked`: whether clients get its lists (TAGS=lookup). */
export async function judgeTags(subject: Subject, image: Image | undefined, isAsked: boolean): Promise<Maybe> {
  if (!image) return undefined
  const target = `/v2/${subject.nameHere(image.name)}/tags/list`
  const list = await subject.ask({ target, entity: 'tags', read: { maxBytes: maxListBytes } })
  const isWhole = !nextQuery(list.headers.get('Link') ?? '')
  const { tags } = (json(list.content) ?? {}) as { tags?: unknown }
  const isListed = Array.isArray(tags) && tags.includes(image.tag)
  if (isListed || !isWhole || ![200, 404].includes(list.status) || !(await has(subject, image))) return undefined
  const about = { upstream: subject.name, image: `${image.name}:${image.tag}` }
  return finding('cache-hides-tags', about, isAsked ? 'warning' : 'note')
}

/** The names of all repositories; undefined if it does not tell. */
export async function catalogOf({ ask }: Subject): Promise<string[] | undefined> {
  const names: string[] = []
  for (let query: string | undefined = '?n=1000', page = 0; query && page < maxPages; page++) {
    const read = { maxBytes: maxListBytes }
    const answer: Answer = await ask({ target: `/v2/_catalog${query}`, entity: 'catalog', read })
    const { repositories } = (json(answer.content) ?? {}) as { repositories?: unknown }
    if (!isUp(answer) || !Array.isArray(repositories)) return undefined
    names.push(...repositories.filter((one) => typeof one === 'string'))
    query = nextQuery(answer.headers.get('Link') ?? '')
    if (!query) return names
  }
  return undefined
}

/** Of a registry with more names than these pages have, nothing is said. */
const maxPages = 50
