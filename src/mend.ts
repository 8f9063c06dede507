/** What the proxy can add where hosted alone was asked: blobs that a push mounts, a reader asks for, or a manifest needs. */
import { match } from '../routing.ts'
import type { Config } from './config.ts'
import { type AskFor, type Copier, letGo, sessionOf, sourceOf } from './copy.ts'
import { errorPatience, json, readBytes, readOciError } from './errors.ts'
import type { Memory } from './memory.ts'
import { barred } from './names.ts'
import type { Target } from './relay.ts'
import type { Reply } from './runtime.ts'
import type { Answer } from './upstream.ts'

export interface Mending extends Target {
  ask: AskFor
  /** The manifest that was put. */
  manifest?: Uint8Array<ArrayBuffer>
}

/** Further answers, the last of which takes the place of hosted's. */
export type Mend = (mending: Mending, hosted: Answer) => Promise<Answer[]>

const longestError = 1024 * 1024
/** Bytes; registries take no longer ones (distribution-spec 1.1, "Pushing Manifests"). */
export const longestManifest = 4 * 1024 * 1024

/** Whether it asks for a blob of another name. */
export function isMount({ matched, query }: Target): boolean {
  return matched.route.entity === 'uploads' && new URLSearchParams(query).has('mount')
}

/** By method and entity. */
export function createMends(config: Config, memory: Memory, copy: Copier): Readonly<Record<string, Mend>> {
  return { 'POST uploads': mount, 'HEAD blob': tell, 'PUT manifest': complete }

  /** A mount that hosted refuses, or answers with a session, since it lacks the blob (distribution-spec 1.1, "Mounting a blob"). */
  async function mount({ matched, query, ask }: Mending, first: Answer): Promise<Answer[]> {
    const wanted = new URLSearchParams(query)
    const session = () => ask('hosted', { target: matched.path })
    // A login that opens this name may not open the other; a client's own hears so, and asks for a session itself.
    const forClient = first.status === 401 && config.passLogin
    const refused = wanted.has('mount') && ['denied', 'absent'].includes(first.verdict) && !forClient
    if (refused) readOciError(first.response as Reply)
    const before = refused ? [await session()] : []
    const opened = before[0] ?? first
    const source = sourceOf(config, wanted.get('from'), wanted.get('mount') ?? '')
    const into = sessionOf(opened)
    if (!source || !into) return before
    const { state, answers } = await copy({ ...source, session: into }, ask)
    if (state === 'unused') return before
    return [...before, ...answers, ...(state === 'stored' ? [] : [await session()])]
  }

  /** A HEAD of a blob that hosted lacks: of a name that is read from the proxy, its 200 is the answer. */
  async function tell({ matched: { name = '' }, ask }: Mending, { verdict }: Answer): Promise<Answer[]> {
    if (verdict !== 'absent' || !memory.readsProxy(name) || barred(config, name)) return []
    const proxy = await ask('proxy', { aside: true })
    if (proxy.status !== 200) return []
    memory.sawAtProxy(name)
    return [proxy]
  }

  /** A manifest that hosted refuses for what it lacks: what the proxy has of that in this name is copied. */
  async function complete({ matched: { name = '' }, ask, manifest }: Mending, refusal: Answer): Promise<Answer[]> {
    if (![400, 404].includes(refusal.status) || !refusal.response || !manifest || barred(config, name)) return []
    const said = await readBytes(refusal.response, longestError, errorPatience)
    if (!said) return [{ ...refusal, verdict: 'failed', status: 502, reason: 'no answer', response: undefined }]
    refusal.content = said
    // Quay and zot say MANIFEST_INVALID of what they lack.
    if (!/"((MANIFEST_)?BLOB_UNKNOWN|MANIFEST_INVALID)"/.test(new TextDecoder().decode(said))) return []
    const answers: Answer[] = []
    if (!(await supply(name, manifest, ask, answers))) {
      // What a HEAD told from the proxy is not copied: the next push is to hear what hosted itself has.
      memory.wrote(name)
      return []
    }
    const again = await ask('hosted', { body: manifest })
    if (again.verdict !== 'found') memory.wrote(name)
    return [...answers, again]
  }

  /** Copies what hosted lacks of a manifest, of an index the manifests first; whether hosted has all of it then. */
  async function supply(name: string, manifest: Uint8Array, ask: AskFor, answers: Answer[]): Promise<boolean> {
    const { config: image, ...lists } = (json(manifest) ?? {}) as Manifest
    // What has `urls` need not be in any registry (OCI image-spec, "descriptor").
    const layers = partsOf(lists.layers).filter(({ urls }) => !urls)
    for (const { digest, mediaType = '' } of partsOf(lists.manifests)) {
      const child = match('HEAD', `/v2/${name}/manifests/${digest}`)
      if ('refused' in child || !mediaTypes.test(mediaType)) return false
      const [target, fields] = [child.path, { accept: mediaType }]
      if ((await ask('hosted', { method: 'HEAD', target }, fields)).verdict !== 'absent') continue
      const wanted = { method: 'GET', target, most: longestManifest, readError: true, aside: true }
      const got = await ask('proxy', wanted, fields)
      const body = got.content
      if (!body || !(await supply(name, body, ask, answers))) return false
      const put = await ask('hosted', { target, body, readError: true }, { 'content-type': mediaType })
      answers.push(got, put)
      if (put.status !== 201) return false
    }
    for (const { digest } of image ? [image, ...layers] : layers) {
      const blob = match('HEAD', `/v2/${name}/blobs/${digest}`)
      if ('refused' in blob) return false
      if ((await ask('hosted', { method: 'HEAD', target: blob.path })).verdict !== 'absent') continue
      const source = sourceOf(config, name, digest)
      if (!source) return false
      const opened = await ask('hosted', { method: 'POST', target: `/v2/${name}/blobs/uploads/`, readError: true })
      const session = sessionOf(opened)
      if (!session) return false
      const copied = await copy({ ...source, session }, ask, true)
      if (copied.state === 'unused') letGo(session, ask)
      if (copied.state !== 'stored') return false
      answers.push(...copied.answers)
    }
    return true
  }
}

/** RFC 6838, section 4.2: what is none must not get into a field. */
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

/** Each once. A client may put anything: `null` is how some write an empty list. */
function partsOf(list: unknown): Part[] {
  const parts: Part[] = Array.isArray(list) ? list.filter((one) => typeof one === 'object' && one) : []
  return [...new Map(parts.map((one) => [one.digest, one])).values()]
}
