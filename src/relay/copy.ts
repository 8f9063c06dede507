/** Copies a blob from the public registry into hosted, so that a push need not upload it. */
import { match } from '../../routing.ts'
import type { Answer, Registry } from '../registry/answer.ts'
import { checkOf, isCheckable } from '../registry/digest.ts'
import { discard } from '../registry/registry.ts'
import { isMissing } from '../registry/verdict.ts'
import type { AskAs, Registries } from './exchange.ts'
import { type Plan, type PlanRules, planOf } from './plan.ts'

export interface Copy extends Source {
  /** Path and query of an upload session of hosted. */
  session: string
  registries: Registries
  ask: AskAs
  /** The client's network, and the signal that is aborted when the client leaves. */
  source: string
  client: AbortSignal
}

export interface Source {
  /** The public registry that may have it. */
  registry: string
  digest: string
  /** Its paths there, with the name that memory keeps for each. A short name has a second one, under `library/`. */
  places: readonly { path: string; fullName: string }[]
}

export interface Copied {
  /** `unused`: nothing has begun, and the session is as it was. `begun`: the session is used up. */
  state: 'unused' | 'begun' | 'stored'
  /** The name under which the public registry has it, as memory keeps it. */
  fullName?: string
  /** What the registries said so far. If it is stored, hosted's 201 is the last. */
  answers: Answer[]
}

/** `mounted`: stored while its client waited. `late`: stored after that. */
export type CopyOutcome = 'mounted' | 'late' | 'failed'

/** Called with what came of each copy that began, and its bytes. */
export type OnCopy = (outcome: CopyOutcome, bytes: number) => void

export interface CopySettings {
  /** Bytes. */
  copyLimit: number
  /** Seconds. */
  writeTimeout: number
  idleTimeout: number
}

/** Copies are our own requests: drop the client's User-Agent. */
const ownFields = { 'user-agent': '' }

/** A blob of the name `from`, as a public registry has it; undefined if it must not be copied. */
export function sourceOf(
  settings: PlanRules & Pick<CopySettings, 'copyLimit'>,
  from: string | null,
  digest: string,
): Source | undefined {
  // Without `from`, hosted decides where it looks (distribution-spec 1.1, "Mounting a blob").
  const source = match('GET', `/v2/${from ?? ''}/blobs/${digest}`)
  if ('refused' in source || source.route.entity !== 'blob') return undefined
  if (settings.copyLimit === 0 || !source.digest || !isCheckable(source.digest)) return undefined
  const plan = planOf(settings, 'GET', source, '')
  if ('refused' in plan) return undefined
  const publicIn = ({ order }: Plan) => order.find((name) => name !== 'hosted')
  const plans = [plan, ...(plan.official ? [plan.official] : [])].filter(publicIn)
  const registry = plans[0] && publicIn(plans[0])
  const places = plans.map(({ matched, query, fullName }) => ({ path: matched.path + query, fullName }))
  return registry ? { registry, digest: source.digest, places } : undefined
}

/** The upload session that an answer of hosted opened, as clients know it. */
export function sessionOf(answer: Answer): string | undefined {
  const session = new Headers(answer.from.fieldsFrom(answer)).get('Location') ?? ''
  const upload = match('PUT', session.replace(/\?.*/, ''))
  return answer.status === 202 && 'route' in upload && upload.route.entity === 'upload' ? session : undefined
}

/** Ends a session that nobody will use; hosted would keep its content for days. */
export function endSession(hosted: Registry, session: string, ask: AskAs): void {
  const { signal } = new AbortController()
  ask(hosted, { method: 'DELETE', target: session, entity: 'upload', signal, purpose: 'write' }, ownFields).then(
    discard,
  )
}

/** One copy, and whether its client still waits for it. */
export class Job {
  readonly copy: Copy
  readonly #settings: CopySettings
  readonly #onCopy: OnCopy
  readonly #answers: Answer[] = []
  // Not the client's: a copy that is doing well goes on without it.
  readonly #abort = new AbortController()
  #clientWaits = true
  #fullName: string | undefined

  constructor(copy: Copy, settings: CopySettings, onCopy: OnCopy) {
    this.copy = copy
    this.#settings = settings
    this.#onCopy = onCopy
  }

  get clientWaits(): boolean {
    return this.#clientWaits
  }

  /** The client waits no more; the copy goes on. Only the copy reads the bodies of what it was told. */
  leaveClient(): Copied {
    this.#clientWaits = false
    return this.#copied(
      'begun',
      this.#answers.map((one) => ({ ...one, response: undefined })),
    )
  }

  /** Ends the copy. */
  abandon(): void {
    this.#abort.abort()
  }

  async perform(): Promise<Copied> {
    const { digest, session, registries, ask } = this.copy
    const answers = this.#answers
    const blob = await this.#open()
    const length = Number(blob.headers.get('Content-Length') ?? Number.NaN)
    if (blob.status !== 200 || !blob.response?.body || !(length <= this.#settings.copyLimit)) {
      this.#abort.abort()
      return this.#copied('unused')
    }
    const { end, faultOf, ...content } = checked(blob.response.body, digest, this.#settings.idleTimeout, this.#abort)
    const target = `${session}${session.includes('?') ? '&' : '?'}digest=${digest}`
    const fields = { ...ownFields, 'content-type': 'application/octet-stream', 'content-length': `${length}` }
    const { signal } = this.#abort
    const put = {
      method: 'PUT',
      target,
      entity: 'upload',
      ...content,
      signal,
      read: 'error',
      purpose: 'write',
    } as const
    const stored = await ask(registries.hosted, put, fields)
    end()
    const reason = faultOf()
    // Hosted is not to blame for what does not come.
    if (reason) answers[answers.indexOf(blob)] = { ...blob, verdict: 'failed', status: 502, reason }
    else answers.push(stored)
    const isStored = stored.status === 201
    this.#onCopy(isStored ? (this.#clientWaits ? 'mounted' : 'late') : 'failed', length)
    if (isStored) return this.#copied('stored')
    this.#abort.abort()
    endSession(registries.hosted, session, ask)
    return this.#copied('begun')
  }

  #copied(state: Copied['state'], answers = this.#answers): Copied {
    return { state, answers, fullName: this.#fullName }
  }

  /** The answer of the first place that has the blob, or else of the last one. */
  async #open(): Promise<Answer> {
    const { registry, digest, places, registries, ask } = this.copy
    const from = registries.byName.get(registry) as Registry
    const { signal } = this.#abort
    for (const { path, fullName } of places) {
      const wanted = { method: 'GET', target: path, entity: 'blob', digest, signal, purpose: 'copy' } as const
      const blob = await ask(from, wanted, ownFields)
      this.#answers.push(blob)
      if (blob.verdict === 'found') this.#fullName = fullName
      if (!isMissing(blob)) break
    }
    return this.#answers.at(-1) as Answer
  }
}

class OtherDigest extends Error {}

/**
 * The same bytes, but the last of them only if all have the digest. Aborts if they do not come: `faultOf` says why. Aborts too if
 * nothing moves for `idleSeconds`.
 */
function checked(from: ReadableStream<Uint8Array>, digest: string, idleSeconds: number, abort: AbortController) {
  const { hash, isRight } = checkOf(digest)
  const timer = setTimeout(() => abort.abort(), idleSeconds * 1000)
  let onRead = () => {}
  const bodyRead = new Promise<void>((resolve) => {
    onRead = resolve
  })
  let fault: string | undefined
  async function* bytes() {
    let held: Uint8Array | undefined
    try {
      for await (const chunk of from) {
        timer.refresh()
        hash.update(chunk)
        if (held) yield held
        held = chunk
      }
      if (!isRight()) throw new OtherDigest()
    } catch (error) {
      if (!abort.signal.aborted) fault = error instanceof OtherDigest ? 'gave another digest' : 'broke off'
      abort.abort()
      throw error
    } finally {
      clearTimeout(timer)
    }
    if (held) yield held
    onRead()
  }
  return { body: bytes(), bodyRead, end: () => clearTimeout(timer), faultOf: () => fault }
}
