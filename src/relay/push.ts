/** Assists pushes: what hosted lacks and the public registry has need not be uploaded. */
import { type Match, match } from '../../routing.ts'
import type { Answer, Registry } from '../registry/answer.ts'
import { errorSeconds, readBytes, readOciError } from '../registry/errors.ts'
import { json } from '../registry/json.ts'
import type { Room } from '../runtime/budget.ts'
import { networkOf } from '../runtime/networks.ts'
import type { Fields, Reply } from '../runtime/runtime.ts'
import { endSession, sessionOf, sourceOf } from './copy.ts'
import type { AskAs, Exchange } from './exchange.ts'
import { officialOf } from './plan.ts'
import type { Surroundings } from './surroundings.ts'

/** A request that hosted has answered, and what may assist it. */
export interface Assisted extends Exchange {
  around: Surroundings
  ask: AskAs
  /** The public registry that has the name too, if any may be asked for it. */
  source?: Registry
  /** The manifest that was put, if it is held. */
  manifest?: Uint8Array<ArrayBuffer>
}

/** Gives hosted's answer and those that followed. The last one is for the client. */
export type Assist = (assisted: Assisted, first: Answer) => Promise<Answer[]>

/** Registries take no longer manifests (distribution-spec 1.1, "Pushing Manifests"). */
export const maxManifestBytes = 4 * 1024 * 1024
const maxErrorBytes = 1024 * 1024

/** By method and entity. */
export const assists: Readonly<Record<string, Assist>> = {
  'POST uploads': mount,
  'HEAD blob': tellBlob,
  'PUT manifest': complete,
}

/** Whether a request asks for a blob of another name (distribution-spec 1.1, "Mounting a blob"). */
export function isMount({ matched, query }: Pick<Exchange, 'matched' | 'query'>): boolean {
  return matched.route.entity === 'uploads' && new URLSearchParams(query).has('mount')
}

/** A mount that hosted refuses, or answers with an upload session since it lacks the blob: the blob is copied. */
async function mount(assisted: Assisted, first: Answer): Promise<Answer[]> {
  const { around, matched, query, ask } = assisted
  const { registries, settings, copier } = around
  const wanted = new URLSearchParams(query)
  const openSession = () => ask(registries.hosted, { target: matched.path })
  // A login that opens this name may not open the other. A client with a login of its own hears so, and asks for a session itself.
  const isForClient = first.status === 401 && first.from.forwardsLogin
  const isRefused = wanted.has('mount') && ['denied', 'absent'].includes(first.verdict) && !isForClient
  if (isRefused) readOciError(first.response as Reply)
  const answers = isRefused ? [first, await openSession()] : [first]
  const session = sessionOf(answers.at(-1) as Answer)
  const source = sourceOf(settings, wanted.get('from'), wanted.get('mount') ?? '')
  if (!source || !session) return answers
  const copied = await copier.copy({ ...source, session, registries, ask, ...waiterOf(assisted) })
  if (copied.fullName) around.memory.names.saw(copied.fullName)
  if (copied.state === 'unused') return answers
  // The copy has used the session up. If it stored nothing so far, the client needs a fresh one.
  return [...answers, ...copied.answers, ...(copied.state === 'stored' ? [] : [await openSession()])]
}

/** HEAD of a blob that hosted lacks, of a name that is read from the public registry: a 200 of that registry is the answer. */
async function tellBlob({ around, matched, ask, source }: Assisted, first: Answer): Promise<Answer[]> {
  const { memory, settings } = around
  // After a push HEAD is only about hosted: else the client would not upload what hosted lacks.
  if (!source || first.verdict !== 'absent' || memory.writes.isPushedTo(matched.name ?? '')) return [first]
  for (const { name = '', path } of [matched, ...officialOf(settings, matched)]) {
    if (!memory.isPublic(name)) continue
    const told = await ask(source, { target: path, purpose: 'lookup' })
    if (told.status !== 200) continue
    memory.sawAt(source, name)
    return [first, told]
  }
  return [first]
}

/** A manifest that hosted refuses for what it lacks: what the public registry has of that in this name is copied. */
async function complete(assisted: Assisted, first: Answer): Promise<Answer[]> {
  const { around, matched, source } = assisted
  if (![400, 404].includes(first.status) || !first.response || !source) return [first]
  const answers = await completed({ ...assisted, source }, first)
  // A HEAD may have told the client that a blob is there. The next push must hear what hosted itself has.
  if (answers.at(-1)?.verdict !== 'found') around.memory.writes.record(matched.name ?? '')
  return answers
}

/** The last answer is hosted's own, or its refusal if the manifest cannot be completed. */
async function completed(assisted: Supplied, first: Answer): Promise<Answer[]> {
  const { around, ask, manifest } = assisted
  if (!manifest) return [first]
  const content = await readBytes(first.response as Reply, maxErrorBytes, { seconds: errorSeconds })
  if (!content) return [{ ...first, verdict: 'failed', status: 502, reason: 'no answer', response: undefined }]
  const refusal = { ...first, content }
  // Quay and zot say MANIFEST_INVALID if a blob is missing, and go-containerregistry MANIFEST_UNKNOWN if a manifest is.
  if (!/"((MANIFEST_)?BLOB_UNKNOWN|MANIFEST_(INVALID|UNKNOWN))"/.test(new TextDecoder().decode(content)))
    return [refusal]
  const supplied = await supply(assisted, manifest)
  return supplied ? [refusal, ...supplied, await ask(around.registries.hosted, { body: manifest })] : [refusal]
}

type Supplied = Assisted & Required<Pick<Assisted, 'source'>>

/** Copies what hosted lacks of a manifest: of an index its manifests first. Gives the answers; undefined if something is missing. */
async function supply(assisted: Supplied, manifest: Uint8Array): Promise<Answer[] | undefined> {
  const { config, ...lists } = (json(manifest) ?? {}) as Manifest
  const answers: Answer[] = []
  for (const part of partsOf(lists.manifests)) {
    const supplied = await supplyManifest(assisted, part)
    if (!supplied) return undefined
    answers.push(...supplied)
  }
  // A layer with `urls` need not be in any registry (OCI image-spec, "descriptor").
  const layers = partsOf(lists.layers).filter(({ urls }) => !urls)
  for (const part of config ? [config, ...layers] : layers) {
    const supplied = await supplyBlob(assisted, part)
    if (!supplied) return undefined
    answers.push(...supplied)
  }
  return answers
}

async function supplyManifest(assisted: Supplied, { digest, mediaType = '' }: Part): Promise<Answer[] | undefined> {
  const { ask, around, matched } = assisted
  const { hosted } = around.registries
  const child = match('HEAD', `/v2/${matched.name}/manifests/${digest}`)
  // A descriptor names a digest (image-spec, "Descriptors"). By a tag, hosted would get one that nobody pushed.
  if ('refused' in child || !child.digest || !mediaTypes.test(mediaType)) return undefined
  const target = child.path
  const fields = { accept: mediaType }
  const head = await ask(hosted, { method: 'HEAD', target, entity: 'manifest', digest, purpose: 'read' }, fields)
  if (!mayLack(head)) return []
  // One manifest is held at a time: of an index there may be hundreds.
  const room = assisted.room?.part()
  try {
    const found = await manifestOf(assisted, child, fields, room)
    if (!found) return undefined
    const { content: body, ...got } = found
    const supplied = body && (await supply(assisted, body))
    if (!supplied) return undefined
    const put = await ask(
      hosted,
      { target, entity: 'manifest', digest, body, read: 'error' },
      { 'content-type': mediaType },
    )
    return put.status === 201 ? [...supplied, got, put] : undefined
  } finally {
    room?.end()
  }
}

/** A manifest of the public registry, under its name there or under that of an official image. */
async function manifestOf(
  { ask, around, source }: Supplied,
  child: Match,
  fields: Fields,
  room: Room | undefined,
): Promise<Answer | undefined> {
  const read = { maxBytes: maxManifestBytes }
  const wanted = { method: 'GET', entity: 'manifest', digest: child.digest, read, purpose: 'lookup', room } as const
  for (const { path, name = '' } of [child, ...officialOf(around.settings, child)]) {
    const answer = await ask(source, { ...wanted, target: path }, fields)
    if (answer.verdict !== 'found') continue
    around.memory.names.saw(name)
    return answer
  }
  return undefined
}

async function supplyBlob(assisted: Supplied, { digest = '' }: Part): Promise<Answer[] | undefined> {
  const { ask, around, matched } = assisted
  const { registries, settings, copier } = around
  const { hosted } = registries
  const { name = '' } = matched
  const blob = match('HEAD', `/v2/${name}/blobs/${digest}`)
  if ('refused' in blob) return undefined
  const head = await ask(hosted, { method: 'HEAD', target: blob.path, entity: 'blob', digest, purpose: 'read' })
  if (!mayLack(head)) return []
  const source = sourceOf(settings, name, digest)
  if (!source) return undefined
  const opened = await ask(hosted, {
    method: 'POST',
    target: `/v2/${name}/blobs/uploads/`,
    entity: 'uploads',
    read: 'error',
  })
  const session = sessionOf(opened)
  if (!session) return undefined
  const copied = await copier.copy({ ...source, session, registries, ask, ...waiterOf(assisted) }, true)
  if (copied.fullName) around.memory.names.saw(copied.fullName)
  if (copied.state === 'unused') endSession(hosted, session, ask)
  return copied.state === 'stored' ? copied.answers : undefined
}

/** Whether hosted, asked with HEAD, may lack it. Some do not know that method. */
const mayLack = ({ verdict, status }: Answer) => verdict === 'absent' || status === 405 || status === 501

/** Who waits for a copy: copies are shared out by networks. */
function waiterOf({ request, client }: Exchange) {
  return { source: networkOf(client.address ?? ''), client: request.signal }
}

/** RFC 6838, section 4.2. Anything else must not get into a header field. */
const mediaTypes = /^[\w.+-]+\/[\w.+-]+$/

interface Manifest {
  config?: Part
  layers?: unknown
  manifests?: unknown
}

interface Part {
  digest?: string
  mediaType?: string
  urls?: unknown
}

/** Each descriptor of a list once. A client may put anything: some write an empty list as `null`. */
function partsOf(list: unknown): Part[] {
  const parts: Part[] = Array.isArray(list) ? list.filter((one) => typeof one === 'object' && one) : []
  return [...new Map(parts.map((one) => [one.digest, one])).values()]
}
