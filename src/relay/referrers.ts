/** The referrers of an image at the registries that may have it, as one list (OCI distribution-spec 1.1, "Listing Referrers"). */
import { loginAt, readingOf } from '../memory/reading.ts'
import { type Answer, goneAnswer, linked, type Registry } from '../registry/answer.ts'
import { anyManifest, unconditional } from '../registry/headers.ts'
import { json } from '../registry/json.ts'
import { nextQuery } from '../registry/links.ts'
import { discard } from '../registry/registry.ts'
import { isUnsure } from '../registry/verdict.ts'
import { respond } from '../runtime/body.ts'
import { type AskAs, askAs, type Exchange, type Outcome, registriesIn } from './exchange.ts'
import { failure } from './failure.ts'
import { namespaceIn } from './names.ts'
import type { Plan } from './plan.ts'
import type { Listed, Surroundings } from './surroundings.ts'

/** A descriptor, as far as it is looked at, and all of it as JSON. */
interface Descriptor {
  digest: string
  artifactType?: string
  text: string
}

/** What one registry lists; empty if the answer is not `found`. */
export interface Listing {
  answer: Answer
  descriptors: Descriptor[]
}

const indexType = 'application/vnd.oci.image.index.v1+json'
/** Registries stop a page at 4 MiB (distribution-spec 1.1, "Listing Referrers"). */
const maxPageBytes = 4 * 1024 * 1024
const maxPages = 20
/** Bytes of all pages: some 40,000 referrers. */
const maxListBytes = 8 * 1024 * 1024

/** Clients that ask for the same list at the same time share one answer, if they have the same login at hosted. */
export async function referrers(around: Surroundings, exchange: Exchange, plan: Plan): Promise<Outcome> {
  const { registries, memory, lists } = around
  const { request, query, client, room } = exchange
  const order = registriesIn(registries, plan.order)
  const official = registriesIn(registries, plan.official?.order ?? [])
  const asked = { ...exchange, request: unconditional(request, indexType) }
  // Before it is shared: if the fields are too long, only the client that sent them gets the 431.
  for (const one of [...order, ...official]) one.fieldsFor(asked.request, client)
  const reading = readingOf(request, plan, query, registries.hosted.forwardsLogin)
  const login = loginAt(registries.hosted, reading)
  const key = `${memory.writes.generationOf(reading.name)} ${plan.order} ${request.method} ${exchange.matched.path}${query} ${login}`
  const asker = { signal: request.signal, room }
  const landed = await lists.join(key, asker, (signal, room) =>
    listAll([...order, ...official], { ...asked, room }, plan, signal),
  )
  const { answers, body } = landed?.value ?? { answers: [goneAnswer(order[0] as Registry)] }
  if (!body) return { response: failure(request.method, 'referrers', answers, plan.unasked), answers }
  const headers = new Headers({ 'Content-Type': indexType, 'Content-Length': `${body.byteLength}` })
  if (artifactTypeIn(query) !== null) headers.set('OCI-Filters-Applied', 'artifactType')
  return { response: respond(body, { headers }), answers, bytesOut: body.byteLength }
}

const artifactTypeIn = (query: string) => new URLSearchParams(query).get('artifactType') || null

/**
 * Asks the first public registry, and hosted if it may have the name. If hosted lacks the API, its answer passes: clients then keep referrers
 * under a tag. If the public registry cannot be read, the answer is an error, never a shorter list.
 */
async function listAll(
  order: readonly Registry[],
  exchange: Exchange,
  plan: Plan,
  client: AbortSignal,
): Promise<Listed> {
  const { query, matched, room } = exchange
  const hostedDecides = linked(client)
  const { signal } = hostedDecides
  // What was read is needed no more once the lists are joined.
  const pages = room?.part()
  const ask = askAs(exchange)
  const hosted = order.find(({ role }) => role === 'hosted')
  const proxy = order.find(({ role }) => role === 'public') as Registry
  try {
    const ofProxy = officialOrNamed(proxy, { ...exchange, room: pages }, plan, ask, signal)
    // If hosted's list fails, nobody waits for this one.
    ofProxy.catch(() => {})
    const own =
      hosted && (await readList(pagesOf(hosted, { ...exchange, room: pages }, matched.path, ask, signal), query))
    if (own && own.answer.verdict !== 'found') {
      hostedDecides.abort()
      return { answers: [own.answer] }
    }
    const list = await ofProxy
    // Hosted's come last: of several signatures cosign looks at the last one.
    const lists = own ? [list, own] : [list]
    const answers = lists.map(({ answer }) => answer)
    const isFound = answers.some(({ verdict }) => verdict === 'found')
    if (!isFound || answers.some((one) => isUnsure(one) || one.verdict === 'gone')) return { answers }
    const body = await inTurn(() => new TextEncoder().encode(joined(lists, artifactTypeIn(query))))
    room?.add(body.byteLength)
    return { answers, body }
  } finally {
    pages?.end()
  }
}

/** The list of a public registry, under the name that was asked for or that of an official image of Docker Hub. */
async function officialOrNamed(
  proxy: Registry,
  exchange: Exchange,
  { order, official }: Plan,
  ask: AskAs,
  signal: AbortSignal,
): Promise<Listing> {
  const mayAsk = order.some((one) => one !== 'hosted')
  const named = mayAsk ? await publicList(proxy, exchange, ask, signal) : undefined
  if (named && !(official && isMissing(named))) return named
  return publicList(proxy, { ...exchange, matched: (official as Plan).matched }, ask, signal)
}

/** To read or to write a long list takes a while, so between two of them there is time for others. */
function inTurn<T>(work: () => T): Promise<T> {
  const done = lastTurn.then(() => new Promise((resolve) => setImmediate(resolve))).then(work)
  lastTurn = done.catch(() => {})
  return done
}
let lastTurn: Promise<unknown> = Promise.resolve()

/** The list of a public registry; if it lacks the API, the one under the referrers tag. */
async function publicList(proxy: Registry, exchange: Exchange, ask: AskAs, signal: AbortSignal): Promise<Listing> {
  const { path, name, digest = '' } = exchange.matched
  const pages = (at: string) => pagesOf(proxy, exchange, at, ask, signal)
  const listing = await readList(pages(path), exchange.query)
  // Registries without the API say 404, as they should, or 400, 403 or 405.
  if (!isMissing(listing)) return listing
  const namespace = namespaceIn(exchange.query)
  const tagged = await readList(pages(`/v2/${name}/manifests/${referrersTag(digest)}`), namespace)
  if (tagged.answer.verdict !== 'denied') return tagged
  // If it denies the lists of an image that it gives, there may be referrers that nobody may see now: no shorter list then.
  const target = `/v2/${name}/manifests/${digest}${namespace}`
  const asked = { target, entity: 'manifest', digest, signal, read: 'error', purpose: 'deciding' } as const
  const subject = await ask(proxy, asked, { accept: anyManifest })
  discard(subject)
  if (isUnsure(subject) || subject.verdict === 'gone') return { answer: subject, descriptors: [] }
  if (subject.verdict !== 'found') return tagged
  const reason = 'denies the referrers of an image that it has'
  return { answer: { ...tagged.answer, verdict: 'failed', status: 502, reason }, descriptors: [] }
}

/** The query of a next page, with the `ns` of the first. */
function withNamespace(next: string, first: string): string {
  const namespace = namespaceIn(first)
  return namespace && !namespaceIn(next) ? `${next}&${namespace.slice(1)}` : next
}

const isMissing = ({ answer }: Listing) => answer.verdict === 'absent' || answer.verdict === 'denied'

type AskPage = (query: string) => Promise<Answer>

function pagesOf(registry: Registry, { room }: Exchange, path: string, ask: AskAs, signal: AbortSignal): AskPage {
  const read = { maxBytes: maxPageBytes }
  // What lacks the API may answer it with anything. What is said of a tag is judged: a balancer's 404 says nothing.
  const [entity, purpose] = path.includes('/manifests/')
    ? (['manifest', 'deciding'] as const)
    : (['referrers', 'read'] as const)
  return async (query) => {
    const answer = await ask(registry, { target: path + query, entity, signal, read, purpose, room })
    // What is made of it takes as much again.
    room?.add(answer.content?.byteLength ?? 0)
    return answer
  }
}

/** Reads all pages; `ask` gets the query of each. A list that cannot be read to its end is `failed`. */
export async function readList(ask: AskPage, query: string): Promise<Listing> {
  const descriptors: Descriptor[] = []
  let next = query
  let bytes = 0
  for (let page = 1; ; page++) {
    const { content, ...answer } = await ask(next)
    // Only the first page may say that there is no list. A later page that is gone is not its end.
    const isGone = page > 1 && ['absent', 'denied'].includes(answer.verdict) && answer.status !== 401
    if (answer.verdict !== 'found' && !isGone) return { answer, descriptors: [] }
    bytes += content?.byteLength ?? 0
    const listed = await inTurn(() => descriptorsIn(json(content)))
    const following = nextQuery(answer.headers.get('Link') ?? '')
    const reason = faultOf(listed, following, page, bytes)
    if (reason) return { answer: { ...answer, verdict: 'failed', status: 502, reason }, descriptors: [] }
    for (const one of listed ?? []) descriptors.push(one)
    if (!following) return { answer, descriptors }
    next = withNamespace(following, query)
  }
}

function faultOf(listed: Descriptor[] | undefined, following: string | undefined, page: number, bytes: number) {
  if (!listed || following === '') return 'gave no list of referrers'
  if ((following && page === maxPages) || bytes > maxListBytes)
    return `lists more than ${maxPages} pages, or ${maxListBytes / 1024 ** 2} MiB, of referrers`
  return undefined
}

/** The descriptors of an index; undefined if it is none. */
function descriptorsIn(index: unknown): Descriptor[] | undefined {
  const listed = (index as { manifests?: Omit<Descriptor, 'text'>[] | null } | undefined)?.manifests
  // Go writes an empty list as null.
  if (listed === null) return []
  if (!Array.isArray(listed) || !listed.every((one) => typeof one?.digest === 'string')) return undefined
  return listed.map((one) => ({ digest: one.digest, artifactType: one.artifactType, text: JSON.stringify(one) }))
}

/** One index of all lists. Each descriptor is in it once, as the last list has it. */
export function joined(lists: readonly Pick<Listing, 'descriptors'>[], artifactType: string | null): string {
  const all = new Map<string, Descriptor>()
  for (const one of lists.flatMap(({ descriptors }) => descriptors)) {
    if (artifactType !== null && one.artifactType !== artifactType) continue
    all.delete(one.digest)
    all.set(one.digest, one)
  }
  const manifests = [...all.values()].map(({ text }) => text)
  return `{"schemaVersion":2,"mediaType":"${indexType}","manifests":[${manifests}]}`
}

/** The tag under which clients keep referrers if a registry lacks the API ("Referrers Tag Schema"). */
export function referrersTag(digest: string): string {
  const [algorithm = '', encoded = ''] = digest.split(':')
  return `${algorithm.slice(0, 32)}-${encoded.slice(0, 64)}`
}
