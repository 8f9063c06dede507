/** Copies a blob from the proxy into hosted, so that a push need not upload what the cache already has. */
import { createHash } from 'node:crypto'
import { match, type UpstreamName } from '../routing.ts'
import type { Config } from './config.ts'
import { ownPath } from './headers.ts'
import { barred } from './names.ts'
import type { Fields } from './runtime.ts'
import { type Answer, discard, leaving, type Question } from './upstream.ts'

/** Asks a registry the same as a client asked here, except for what is given, of its header fields too. */
export type AskFor = (to: UpstreamName, asked: Partial<Question>, fields?: Fields) => Promise<Answer>

export interface Copy {
  digest: string
  /** Path of the blob at the proxy. */
  source: string
  /** Path and query of an upload session of hosted. */
  session: string
}

export interface Copied {
  /** `unused`: nothing has begun, and the session is as it was; `begun`: it is used up. */
  state: 'unused' | 'begun' | 'stored'
  /** What the registries said so far; hosted's 201 is the last. */
  answers: Answer[]
}

/** `waitsItsTurn`: until nobody copies the same and there is room; else it is `unused` then. */
export type Copier = (copy: Copy, ask: AskFor, waitsItsTurn?: boolean) => Promise<Copied>

/** `mounted`: stored while its client waited; `late`: stored after that. */
export type CopyOutcome = 'mounted' | 'late' | 'failed'

/** Copies at a time. */
const most = 8
/** Seconds that a client waits for a copy, which goes on without it. */
const patience = 20
/** It is this router that copies, so no client is named. */
const own = { 'user-agent': '' }

/** A blob of the name `from`, as the proxy has it; nothing where it must not be copied. */
export function sourceOf(config: Config, from: string | null, blob = ''): Omit<Copy, 'session'> | undefined {
  // A mount without `from` leaves it to hosted where it looks (OCI distribution-spec, "Mounting a blob").
  const source = match('GET', `/v2/${from ?? ''}/blobs/${blob}`)
  if ('refused' in source) return undefined
  const { name, digest, path, route } = source
  if (route.entity !== 'blob' || !name || !digest || barred(config, name)) return undefined
  return config.copyLimit > 0 && /^sha(256|512):/.test(digest) ? { digest, source: path } : undefined
}

/** The upload session that hosted opened. */
export function sessionOf({ status, response }: Answer): string | undefined {
  const session = ownPath(response?.headers.get('Location') ?? '')
  const upload = match('PUT', session.replace(/\?.*/, ''))
  return status === 202 && 'route' in upload && upload.route.entity === 'upload' ? session : undefined
}

/** Ends a session that nobody will use; hosted would keep for days what is in it. */
export function letGo(session: string, ask: AskFor): void {
  ask('hosted', { method: 'DELETE', target: session, abort: new AbortController() }, own).then(discard)
}

/** `onCopy` is told what came of each copy, and its bytes. */
export function createCopier(config: Config, onCopy: (outcome: CopyOutcome, bytes: number) => void) {
  const { copyLimit, writeTimeout, idleTimeout } = config
  const under = new Map<string, Promise<Copied>>()
  const copier: Copier = ({ digest, source, session }, ask, waitsItsTurn = false) => {
    const answers: Answer[] = []
    let clientWaits = true
    const copied = inTurn().then((copied) => {
      if (copied.state === 'unused' && !clientWaits) letGo(session, ask)
      return copied
    })
    return new Promise<Copied>((resolve, reject) => {
      const leave = () => {
        clientWaits = false
        resolve({ state: 'begun', answers: [...answers] })
      }
      const timer = setTimeout(leave, Math.min(patience, writeTimeout) * 1000)
      copied.finally(() => clearTimeout(timer)).then(resolve, reject)
    })

    async function inTurn(): Promise<Copied> {
      const isTaken = () => under.has(digest) || under.size >= most
      while (waitsItsTurn && clientWaits && isTaken()) await Promise.race(under.values())
      if (!clientWaits || isTaken()) return { state: 'unused', answers }
      const copying = perform().finally(() => under.delete(digest))
      under.set(digest, copying)
      return copying
    }

    async function perform(): Promise<Copied> {
      // Not the client's signal: a copy that is doing well goes on without it.
      const abort = new AbortController()
      const blob = await ask('proxy', { method: 'GET', target: source, abort, aside: true }, own)
      answers.push(blob)
      const length = Number(blob.response?.headers.get('Content-Length') ?? Number.NaN)
      if (blob.status !== 200 || !blob.response?.body || !(length <= copyLimit)) {
        abort.abort()
        return { state: 'unused', answers }
      }
      const { end, ...content } = checked(blob.response.body, digest, idleTimeout, abort)
      const put = {
        method: 'PUT',
        target: `${session}${session.includes('?') ? '&' : '?'}digest=${digest}`,
        ...content,
        abort: leaving(abort.signal),
        readError: true,
      }
      const fields = { ...own, 'content-type': 'application/octet-stream', 'content-length': `${length}` }
      const stored = await ask('hosted', put, fields)
      end()
      answers.push(stored)
      const well = stored.status === 201
      onCopy(well ? (clientWaits ? 'mounted' : 'late') : 'failed', length)
      if (well) return { state: 'stored', answers }
      abort.abort()
      letGo(session, ask)
      return { state: 'begun', answers }
    }
  }
  return Object.assign(copier, {
    /** Settles when the copies under way have ended, also those whose client waits no more. */
    settled: () => Promise.all(under.values()),
  })
}

/** The same bytes, the last of them once all are known to have the digest; ended where nothing moves for `seconds`. */
function checked(from: ReadableStream<Uint8Array>, digest: string, seconds: number, abort: AbortController) {
  const [algorithm = '', hex] = digest.split(':')
  const hash = createHash(algorithm)
  const timer = setTimeout(() => abort.abort(), seconds * 1000)
  let allRead = () => {}
  const bodyRead = new Promise<void>((resolve) => {
    allRead = resolve
  })
  async function* bytes() {
    let held: Uint8Array | undefined
    for await (const chunk of from) {
      timer.refresh()
      hash.update(chunk)
      if (held) yield held
      held = chunk
    }
    clearTimeout(timer)
    if (hash.digest('hex') !== hex) throw new Error('another digest')
    if (held) yield held
    allRead()
  }
  return { body: bytes(), bodyRead, end: () => clearTimeout(timer) }
}
