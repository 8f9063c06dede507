/** What was learned of both registries lately: it may save a question, and never changes an answer. */
import { createHash } from 'node:crypto'
import type { Match, UpstreamName } from '../routing.ts'
import { bounded } from './bounded.ts'
import type { Config } from './config.ts'
import { type AskWith, beginsSession, createFlights } from './flights.ts'
import { conditions, passedOn, responseHeaders } from './headers.ts'
import { type Answer, clientLeft, discard, leaving } from './upstream.ts'

/** Told of every use: whether memory had what was looked for. */
type OnUse = (kind: 'hint' | 'manifest' | 'tag' | 'flight' | 'ping', outcome: 'hit' | 'miss') => void

/** A read whose answer may be remembered, or shared with others that ask the same. */
export interface Reading {
  matched: Match
  name: string
  query: string
  accept: string
  /** All that the question is made of, its login aside. */
  question: string
  /** Whether the answer depends on more. */
  partial: boolean
  /** What tells one client from another, never in clear; empty where nothing does. */
  login: string
  /** Tells when the client leaves. */
  request: Request
}

/** A manifest, whole, its digest checked. */
export interface Kept {
  upstream: UpstreamName
  content: Uint8Array<ArrayBuffer>
  /** As a client gets them. */
  headers: [string, string][]
  type: string
}

export type Memory = ReturnType<typeof createMemory>

const mebibyte = 1024 * 1024
/** Entries of each kind, a few hundred bytes each. */
const most = 20_000
/** A client may send 64 KB of Accept. */
const longestKey = 2048
const pingTime = 1000
/** Milliseconds that a push of many layers may take. */
const writeTime = 3_600_000
/** What an entry takes beside its manifest, about, in bytes. */
const overhead = 1024

export function createMemory(config: Config, now: () => number, onUse: OnUse) {
  const { lookupTtl, manifestMemory } = config
  const ttl = Math.ceil(lookupTtl * 1000)
  const remembers = lookupTtl > 0
  /** What the proxy said 404 to. */
  const lacks = bounded<true>(most, ttl, now)
  /** Who last served a name. */
  const served = bounded<UpstreamName>(most, ttl, now)
  /** The names of which the proxy served a manifest or a blob. */
  const proxied = bounded<true>(most, ttl, now)
  const kept =
    remembers && manifestMemory > 0
      ? bounded<Kept>(manifestMemory * mebibyte, ttl, now, {
          sizeCalculation: ({ content }, key) => content.byteLength + key.length + overhead,
        })
      : undefined
  /** The digest that an answer by tag named, by its registry and question. */
  const tagged = bounded<string>(most, ttl, now)
  const pings = bounded<Answer>(1000, Math.min(pingTime, ttl), now)
  const share = createFlights(config, (shared) => onUse('flight', shared ? 'hit' : 'miss'))

  // Every write in a name gives it a new generation, which is part of every key: what was read before is not found again.
  let writes = 0
  let forgotten = 0
  const written = bounded<{ generation: number; until: number }>(most, 0, now, {
    dispose: ({ generation }, _, reason) => {
      if (reason === 'evict') forgotten = Math.max(forgotten, generation)
    },
  })
  const generationOf = (name: string) => written.get(name)?.generation ?? forgotten

  return {
    /** Whom to ask first, where that is known better than the table does. */
    first: (reading: Reading): UpstreamName | undefined => {
      if (!remembers) return undefined
      const known = hint(reading)
      onUse('hint', known ? 'hit' : 'miss')
      return known
    },

    /** What is held for it, untouched: whom it would ask first, and whose manifest it would give. */
    holds: (reading: Reading): { first?: UpstreamName; manifest?: UpstreamName } => ({
      first: hint(reading),
      manifest: reading.matched.digest ? kept?.peek(keptKey(reading))?.upstream : undefined,
    }),

    learn: ({ matched, name, question }: Reading, { upstream, verdict }: Answer): void => {
      if (!remembers) return
      if (verdict === 'found') served.set(name, upstream)
      if (upstream !== 'proxy') return
      if (verdict === 'found' && matched.route.entity !== 'tags') proxied.set(name, true)
      if (verdict === 'found') lacks.delete(question)
      else if (verdict === 'absent' && question.length <= longestKey) lacks.set(question, true)
    },

    /** The manifest this asks for, if it is kept and may be given to whoever asks. */
    manifest: (reading: Reading): Kept | undefined => {
      const { matched, partial } = reading
      if (!kept || matched.route.entity !== 'manifest' || !matched.digest || partial) return undefined
      const entry = kept.get(keptKey(reading))
      const usable = entry && accepts(reading, entry.type) && mayShare(entry.upstream, reading)
      onUse('manifest', usable ? 'hit' : 'miss')
      if (usable && entry.upstream === 'proxy') proxied.set(reading.name, true)
      return usable ? entry : undefined
    },

    /**
     * Asks once for all that ask the same at the same time, and keeps a manifest that may be kept. What `ask` gets is
     * aborted when the last of their clients has left.
     */
    together: async (upstream: UpstreamName, method: string, reading: Reading, ask: AskWith): Promise<Answer> => {
      const { request, matched, name, partial, question } = reading
      if (partial) return ask(leaving(request.signal))
      const generation = generationOf(name)
      const key = `${generation} ${upstream} ${method} ${question} ${upstream === 'hosted' ? reading.login : ''}`
      return share(key, upstream, request.signal, async (abort) => {
        if (!kept || !mayShare(upstream, reading)) return ask(abort)
        const asked = `${generation} ${upstream} ${question}`
        const known = matched.digest ? undefined : tagged.get(asked)
        const last = known && kept.get(keptKey(reading, known))
        const held = last && last.upstream === upstream ? last : undefined
        const answer = await ask(abort, held ? { 'if-none-match': `"${known}"` } : {})
        // A registry compares digests sooner than it reads a manifest (RFC 9110, section 13.1.2).
        const whole = (said: Answer): Answer =>
          held && said.status === 304
            ? { ...said, content: held.content, response: new Response(null, { headers: renewed(held, said) }) }
            : said
        if (!matched.digest) onUse('tag', held && answer.status === 304 ? 'hit' : 'miss')
        // Read before a write that was answered since, it may be what the write did away with.
        if (answer.status === 200 && generationOf(name) === generation) {
          const digest = matched.digest ?? /^"(sha.*)"$/.exec(answer.response?.headers.get('ETag') ?? '')?.[1]
          if (!matched.digest && digest && question.length <= longestKey) tagged.set(asked, digest)
          const manifest = method === 'GET' && toKeep(answer, digest, config)
          if (manifest) kept.set(keptKey(reading, digest), manifest)
        }
        return answer.later ? { ...answer, later: answer.later.then(whole) } : whole(answer)
      })
    },

    /** Asks a registry's `/v2/` at most once a second, for each login apart. */
    ping: async (upstream: UpstreamName, { login, request }: Reading, ask: AskWith): Promise<Answer> => {
      const key = `${upstream} ${upstream === 'hosted' ? login : ''}`
      const known = remembers ? pings.get(key) : undefined
      onUse('ping', known ? 'hit' : 'miss')
      if (known) return known
      return share(`ping ${key}`, upstream, request.signal, async (abort) => {
        const given = await ask(abort)
        discard(given)
        // Of a registry that is up, that alone is for all.
        const answer = given.verdict === 'found' ? { ...given, response: undefined } : given
        if (remembers && !clientLeft(answer)) pings.set(key, answer)
        return answer
      })
    },

    /** Whether a name is read from the proxy lately and nobody pushes into it, so that a HEAD of its blobs is a reader's. */
    readsProxy: (name: string): boolean => proxied.has(name) && now() >= (written.get(name)?.until ?? 0),

    /** To be told that the proxy has a blob of a name, which somebody reads. */
    sawAtProxy: (name: string): void => {
      proxied.set(name, true)
    },

    /** To be told when a write in a name was answered, before its client is, and whether hosted took it. */
    wrote: (name: string, taken = true): void => {
      const until = taken ? now() + writeTime : (written.get(name)?.until ?? 0)
      written.set(name, { generation: ++writes, until })
    },
  }

  function hint({ matched, name, question }: Reading): UpstreamName | undefined {
    // Content is the same wherever it lies; what a tag means is for the table to say, and for a 404 of the proxy.
    return (matched.digest && served.get(name)) || (lacks.has(question) ? 'hosted' : undefined)
  }

  function keptKey({ name, matched, query }: Reading, digest = matched.digest): string {
    return `${generationOf(name)} ${name} ${digest}${query}`
  }
}

/** `told`: whether upstreams are told the client's login; one this router has checked itself changes no answer. */
export function readingOf(request: Request, matched: Match, query: string, told: boolean): Reading {
  const { headers } = request
  const field = passedOn(headers)
  const accept = field('accept') ?? ''
  return {
    matched,
    name: matched.name ?? '',
    query,
    accept,
    question: `${matched.path}${query} ${accept}`,
    partial: conditions.some((name) => headers.has(name)),
    login: told ? loginOf(field('authorization'), field('cookie')) : '',
    request,
  }
}

function loginOf(...said: (string | null)[]): string {
  if (said.every((one) => one === null)) return ''
  return createHash('sha256').update(JSON.stringify(said)).digest('base64')
}

/** Whether an answer may be kept for others: what hosted says to a login is for that login to hear. */
function mayShare(upstream: UpstreamName, { login }: Reading): boolean {
  return upstream === 'proxy' || login === ''
}

/** Whether Accept lists the type itself: a wildcard leaves the choice to the registry. */
function accepts({ accept }: Reading, type: string): boolean {
  return accept === type || accept.split(',').some((one) => essence(one) === essence(type))
}

/** A media type without its parameters. */
const essence = (text: string) => text.replace(/;.*/, '').trim().toLowerCase()

/** How long an answer may be kept elsewhere is for the 304 to say: a tag's not as long as a digest's (RFC 9110, section 15.4.5). */
function renewed({ headers: kept }: Kept, { response }: Answer): Headers {
  const headers = new Headers(kept)
  for (const name of ['cache-control', 'expires', 'vary']) {
    headers.delete(name)
    const said = response?.headers.get(name)
    if (said) headers.set(name, said)
  }
  return headers
}

function toKeep(answer: Answer, digest = '', config: Config): Kept | undefined {
  const { upstream, status, content, response } = answer
  const [algorithm = '', hex] = digest.split(':')
  if (status !== 200 || !content || !response || !['sha256', 'sha512'].includes(algorithm)) return undefined
  const type = response.headers.get('Content-Type')
  if (!type || beginsSession(answer, config)) return undefined
  if (createHash(algorithm).update(content).digest('hex') !== hex) return undefined
  const headers = responseHeaders(upstream, status, response.headers, config).filter(([name]) => name !== 'date')
  return { upstream, content, headers, type }
}
