/** The referrers of an image at both registries, as one list (OCI distribution-spec 1.1, "Listing Referrers"). */
import { json } from './errors.ts'
import type { Answer } from './upstream.ts'

/** As much of a descriptor as is looked at, and all of it as JSON. */
interface Descriptor {
  digest: string
  artifactType?: string
  text: string
}

/** What one registry lists; `descriptors` is empty where the answer is not `found`. */
export interface Listing {
  answer: Answer
  descriptors: Descriptor[]
}

export const indexType = 'application/vnd.oci.image.index.v1+json'
/** Bytes of a page: registries stop at 4 MiB (distribution-spec 1.1, "Listing Referrers"). */
export const longestPage = 4 * 1024 * 1024
const mostPages = 20
/** Bytes of all pages: some 40,000 referrers. */
const longestList = 8 * 1024 * 1024

/** Reads all pages, `ask` being given the query of each. What cannot be read to its end is `failed`, never a shorter list. */
export async function readList(ask: (query: string) => Promise<Answer>, query: string): Promise<Listing> {
  const descriptors: Descriptor[] = []
  let next = query
  let size = 0
  for (let page = 1; ; page++) {
    const answer = await ask(next)
    // That there is no such list is for the first page to say: a later one that is gone is not the end of it.
    const isGone = page > 1 && ['absent', 'denied'].includes(answer.verdict) && answer.status !== 401
    if (answer.verdict !== 'found' && !isGone) return { answer, descriptors: [] }
    size += answer.content?.byteLength ?? 0
    const listed = descriptorsIn(json(answer.content))
    const following = nextIn(answer.response?.headers.get('Link') ?? '')
    const fault =
      !listed || following === ''
        ? 'gave no list of referrers'
        : (following && page === mostPages) || size > longestList
          ? `lists more than ${mostPages} pages, or ${longestList / 1024 ** 2} MiB, of referrers`
          : undefined
    if (fault) return { answer: { ...answer, verdict: 'failed', status: 502, reason: fault }, descriptors: [] }
    for (const one of listed ?? []) descriptors.push(one)
    if (!following) return { answer, descriptors }
    next = following
  }
}

/** What an index lists; undefined where it lists none. */
function descriptorsIn(index: unknown): Descriptor[] | undefined {
  const listed = (index as { manifests?: Omit<Descriptor, 'text'>[] | null } | undefined)?.manifests
  // An empty list of Go's is null.
  if (listed === null) return []
  if (!Array.isArray(listed) || !listed.every((one) => typeof one?.digest === 'string')) return undefined
  try {
    return listed.map((one) => ({ digest: one.digest, artifactType: one.artifactType, text: JSON.stringify(one) }))
  } catch {
    // Nested deeper than can be written.
    return undefined
  }
}

/** The query of the next page (RFC 8288); empty where there is such a page, but no query leads to it. */
function nextIn(links: string): string | undefined {
  const [, target] =
    [...links.matchAll(/<([^<>]*)>((?:[^,"]|"[^"]*")*)/g)].find(([, , fields = '']) => {
      const [, several, one] = /;\s*rel\s*=\s*(?:"([^"]*)"|([^\s";,]+))/i.exec(fields) ?? []
      return (several ?? one ?? '').toLowerCase().split(/\s+/).includes('next')
    }) ?? []
  return target?.replace(/^[^?]*/, '')
}

/** One index of them all, each descriptor once, as and where the last list has it. */
export function joined(lists: readonly Listing[], artifactType: string | null): string {
  const all = new Map<string, Descriptor>()
  for (const one of lists.flatMap(({ descriptors }) => descriptors)) {
    if (artifactType !== null && one.artifactType !== artifactType) continue
    all.delete(one.digest)
    all.set(one.digest, one)
  }
  const manifests = [...all.values()].map(({ text }) => text)
  return `{"schemaVersion":2,"mediaType":"${indexType}","manifests":[${manifests}]}`
}

/** The tag under which clients keep referrers where a registry has no API for them ("Referrers Tag Schema"). */
export function referrersTag(digest: string): string {
  const [algorithm = '', encoded = ''] = digest.split(':')
  return `${algorithm.slice(0, 32)}-${encoded.slice(0, 64)}`
}
