/** Ten thousand random questions against a small model of what a client may get: memory never gives a wrong answer. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import { setImmediate } from 'node:timers'
import { type Config, readConfig } from '../src/config.ts'
import type { Fetch } from '../src/runtime/runtime.ts'
import { createService } from '../src/service.ts'
import { createRandom } from './parts/random.ts'

const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31))
const type = 'application/vnd.oci.image.manifest.v1+json'
const digestOf = (text: string) => `sha256:${createHash('sha256').update(text).digest('hex')}`

/** Seconds. */
const lookupTtl = 60
const nameTtl = 3600
/** How many times longer a name may be believed to be lacking if the public registry says so again and again. */
const maxTimes = 8
/** Knowledge is forgotten after ten times as long as it was last believed. */
const lasting = 10

type Who = 'public' | 'hosted'
/**
 * - `down`: no connection. `limited`: 429.
 * - `lying`: a cache whose hub is away, as CNCF distribution is one: 404 to every tag and every list.
 */
type Mode = 'well' | 'down' | 'limited' | 'lying'

/** A registry that is made up, and all that happened to it. */
class Made {
  mode: Mode = 'well'
  /** Since when it answers, and says the truth. Before, it may be skipped, since it failed until then. */
  wellSince: number | undefined = Number.NEGATIVE_INFINITY
  /** What each tag leads to, by `name:tag`. */
  readonly tags = new Map<string, string>()
  /** Since when each tag and each name is there. */
  readonly since = new Map<string, number>()
  /** By `name digest`. */
  readonly contents = new Map<string, string>()
  readonly hasLists: boolean

  constructor(hasLists: boolean) {
    this.hasLists = hasLists
  }

  put(name: string, tag: string, content: string, now: number): void {
    this.tags.set(`${name}:${tag}`, content)
    this.contents.set(`${name} ${digestOf(content)}`, content)
    for (const key of [`${name}:${tag}`, name]) if (!this.since.has(key)) this.since.set(key, now)
  }

  /** Forgets a content, and the tags that lead to it. */
  delete(name: string, content: string): void {
    this.contents.delete(`${name} ${digestOf(content)}`)
    for (const [key, led] of this.tags) if (led === content && key.startsWith(`${name}:`)) this.untag(key)
  }

  untag(key: string): void {
    const name = key.replace(/:.*/, '')
    this.tags.delete(key)
    this.since.delete(key)
    if (![...this.tags.keys()].some((one) => one.startsWith(`${name}:`))) this.since.delete(name)
  }

  turn(mode: Mode): void {
    if (mode !== this.mode) this.wellSince = undefined
    this.mode = mode
  }

  /** Since when a tag or a name is there and the registry says so; undefined if it does not. */
  toldSince(key: string): number | undefined {
    const since = this.since.get(key)
    return since === undefined || this.wellSince === undefined ? undefined : Math.max(since, this.wellSince)
  }

  answer(method: string, path: string, body: string): Response {
    const [, name = '', kind = '', reference = ''] = /^\/v2\/(.+)\/(manifests|tags)\/([^?]+)/.exec(path) ?? []
    if (!name) return new Response('{}')
    if (this.mode === 'limited')
      return new Response('{"errors":[{"code":"TOOMANYREQUESTS","message":""}]}', { status: 429 })
    const absent = new Response('{"errors":[{"code":"MANIFEST_UNKNOWN","message":""}]}', { status: 404 })
    if (kind === 'tags') {
      if (!this.hasLists) return new Response('{"errors":[{"code":"UNAUTHORIZED","message":""}]}', { status: 401 })
      return this.mode === 'well' && this.since.has(name) ? new Response('{"tags":["a"]}') : absent
    }
    const isDigest = reference.startsWith('sha256:')
    if (this.mode === 'lying') return isDigest ? new Response('', { status: 503 }) : absent
    const content = isDigest ? this.contents.get(`${name} ${reference}`) : this.tags.get(`${name}:${reference}`)
    if (method === 'DELETE') {
      if (content) this.delete(name, content)
      return new Response(null, { status: content ? 202 : 404 })
    }
    if (content === undefined) return absent
    assert.equal(body, '')
    const fields = { ETag: `"${digestOf(content)}"`, 'Content-Type': type, 'Content-Length': `${content.length}` }
    return new Response(method === 'HEAD' ? null : content, { headers: fields })
  }
}

/** What the router was told, and gave. */
class Seen {
  /** Of each tag: what the public registry said last. */
  readonly tags = new Map<string, { at: number; content?: string }>()
  /** Of each name: when the public registry last denied having it, the status, and for how many seconds that is believed. */
  readonly lists = new Map<string, { at: number; status: number; ttl: number }>()
  /** When hosted's answer was last given, for each tag and each name. */
  readonly hosteds = new Map<string, number>()

  told(path: string, response: Response, content: string | undefined, at: number): void {
    const [, name = '', kind = '', reference = ''] = /^\/v2\/(.+)\/(manifests|tags)\/([^?]+)/.exec(path) ?? []
    if (kind === 'tags' && [401, 404].includes(response.status)) this.denied(name, response.status, at)
    if (![200, 304, 404].includes(response.status)) return
    // Whatever it gives of a name ends what is known of the name.
    if (response.status !== 404) this.lists.delete(name)
    if (kind === 'manifests' && !reference.startsWith('sha256:'))
      this.tags.set(`${name}:${reference}`, { at, content: response.status === 404 ? undefined : content })
  }

  /** Who is told the same again believes it for twice as long. */
  private denied(name: string, status: number, at: number): void {
    const before = this.lists.get(name) ?? { at, status, ttl: nameTtl }
    const isKnown = before.status === status && at - before.at <= lasting * before.ttl
    const ttl = isKnown ? before.ttl : nameTtl
    const isStill = isKnown && status === 404 && at - before.at > ttl
    this.lists.set(name, { at, status, ttl: isStill ? Math.min(2 * ttl, maxTimes * nameTtl) : ttl })
  }
}

interface Variant {
  what: string
  settings: Record<string, string>
  hasLists?: boolean
}
const variants: Variant[] = [
  { what: 'the defaults', settings: {} },
  { what: 'a public registry whose lists are closed', settings: {}, hasLists: false },
  { what: 'TAG_TTL=30', settings: { TAG_TTL: '30' } },
  { what: 'TAG_TTL=100 and STALE_IF_ERROR=600', settings: { TAG_TTL: '100', STALE_IF_ERROR: '600' } },
  { what: 'STALE_IF_ERROR=5000', settings: { STALE_IF_ERROR: '5000' } },
]
const questions = 2000
const names = ['team/a', 'team/b', 'team/c']
const tags = ['1', '2', '3']
const steps = [1, 5, 20, 40, 70, 200, 700, 2000, 4000, 40_000]

/** The service between two registries that are made up, on a clock of its own. */
function play(variant: Variant, random: () => number) {
  const clock = { now: 1 }
  const made = { public: new Made(variant.hasLists ?? true), hosted: new Made(true) }
  const seen = new Seen()
  let inFlight = 0
  const fetch: Fetch = async (url, { method, body }) => {
    inFlight++
    await new Promise((resolve) => setImmediate(resolve))
    inFlight--
    const { hostname, pathname } = new URL(url)
    const who: Who = hostname === 'hosted' ? 'hosted' : 'public'
    if (made[who].mode === 'down') throw new TypeError('fetch failed', { cause: { code: 'ECONNREFUSED' } })
    if (method === 'PUT') {
      const [, name = '', tag = ''] = /^\/v2\/(.+)\/manifests\/(.+)/.exec(pathname) ?? []
      made.hosted.put(name, tag, new TextDecoder().decode(body as Uint8Array), clock.now)
      return new Response(null, { status: 201 })
    }
    const { mode } = made[who]
    // A write ends no breaker.
    if (mode === 'well' && method !== 'DELETE') made[who].wellSince ??= clock.now
    const response = made[who].answer(method, pathname, '')
    const tag = pathname.replace(/^\/v2\/(.+)\/manifests\//, '$1:')
    if (who === 'public') seen.told(pathname, response, made.public.tags.get(tag), clock.now)
    return response
  }
  const required = { AGGREGATE_HOSTNAME: 'registry.example', HOSTED_HOSTNAME: 'hosted', PROXY_HOSTNAME: 'public' }
  const ttls = { LOOKUP_TTL: `${lookupTtl}`, NAME_TTL: `${nameTtl}` }
  const config = readConfig({ ...required, ...ttls, ...variant.settings }) as Config
  const now = () => clock.now * 1000
  const service = createService(config, { fetch, now, log: () => {}, version: '0', runtime: 'test' })
  /** Waits until nothing is asked any more, in the background either. */
  const settled = async () => {
    for (let quiet = 0; quiet < 3; quiet = inFlight > 0 ? 0 : quiet + 1)
      await new Promise((resolve) => setImmediate(resolve))
  }
  const ask = async (method: string, path: string, body?: string) => {
    const headers: Record<string, string> = { Accept: type, 'Content-Type': type }
    if (body) headers['Content-Length'] = `${body.length}`
    const response = await service.handle(new Request(`http://registry.example${path}`, { method, headers, body }))
    const text = await response.text()
    return { status: response.status, text, digest: response.headers.get('ETag')?.slice(1, -1) }
  }
  const pick = <T>(list: readonly T[]) => list[Math.floor(random() * list.length)] as T
  return { clock, made, seen, config, ask, settled, pick }
}
type Play = ReturnType<typeof play>

/** Whether hosted's image may be given though the public registry has the tag: it lacked it, as far as is known. */
function mayBeHosteds({ clock: { now }, made, seen }: Play, name: string, tag: string): boolean {
  const key = `${name}:${tag}`
  const [ofTag, ofName] = [made.public.toldSince(key), made.public.toldSince(name)]
  if (ofTag === undefined || ofName === undefined) return true
  /** Until a time is over, and to the first question after it. */
  const isFirst = (since: number, ttl: number, asked: string) =>
    now <= since + ttl || (seen.hosteds.get(asked) ?? Number.NEGATIVE_INFINITY) <= since + ttl
  const [told, list] = [seen.tags.get(key), seen.lists.get(name)]
  const byTag = told && !told.content && now - told.at <= lasting * lookupTtl && isFirst(ofTag, lookupTtl, key)
  const byList =
    (list?.status === 404 && now - list.at <= lasting * list.ttl && isFirst(ofName, list.ttl, name)) ||
    (list?.status === 401 && now - list.at <= lookupTtl && isFirst(ofTag, lookupTtl, key))
  return byTag || byList
}

/** All that a client may get for a tag now: a content, or a status. */
function allowed(played: Play, name: string, tag: string): Set<string | number> {
  const { clock, made, seen, config } = played
  const key = `${name}:${tag}`
  const wanted = new Set<string | number>()
  const ofHosted = made.hosted.mode === 'well' ? made.hosted.tags.get(key) : undefined
  const ofPublic = made.public.mode === 'well' ? made.public.tags.get(key) : undefined
  const isUnsure = made.public.wellSince === undefined
  const told = seen.tags.get(key)
  const age = told?.content === undefined ? Number.POSITIVE_INFINITY : clock.now - told.at
  if (told?.content && (age <= config.tagTtl || (isUnsure && age <= config.staleIfError))) wanted.add(told.content)
  if (ofPublic !== undefined) wanted.add(ofPublic)
  if (ofHosted !== undefined && (ofPublic === undefined || mayBeHosteds(played, name, tag))) wanted.add(ofHosted)
  if (made.hosted.wellSince === undefined || (isUnsure && ofHosted === undefined)) wanted.add(502)
  if (ofPublic === undefined && ofHosted === undefined) {
    if (isUnsure || made.hosted.mode === 'down') wanted.add(502)
    if (made.public.mode === 'limited') wanted.add(429)
    if (made.hosted.mode === 'well' && ['well', 'lying'].includes(made.public.mode)) wanted.add(404)
  }
  return wanted
}

async function askForTag(played: Play, name: string, tag: string, method: string): Promise<void> {
  const { ask, seen, clock, made } = played
  const wanted = allowed(played, name, tag)
  const { status, digest, text } = await ask(method, `/v2/${name}/manifests/${tag}`)
  const given = status === 200 ? [...wanted].find((one) => digestOf(`${one}`) === digest) : status
  const lists = seen.lists.get(name)
  const told = seen.tags.get(`${name}:${tag}`)
  const facts = {
    now: clock.now,
    told,
    lists,
    given: seen.hosteds.get(`${name}:${tag}`),
    nameGiven: seen.hosteds.get(name),
  }
  const modes = [made.public.mode, made.public.wellSince, made.hosted.mode, made.hosted.wellSince]
  const since = [made.public.since.get(`${name}:${tag}`), made.public.since.get(name)]
  const state = { ...facts, modes, since, wanted: [...wanted], status, text }
  assert.ok(given !== undefined && wanted.has(given), `${method} ${name}:${tag} ${JSON.stringify(state)}`)
  if (given === made.hosted.tags.get(`${name}:${tag}`)) {
    for (const key of [`${name}:${tag}`, name]) seen.hosteds.set(key, clock.now)
  }
}

async function askForDigest(
  { ask, made, clock }: Play,
  name: string,
  content: string,
  gone: Set<string>,
): Promise<void> {
  const key = `${name} ${digestOf(content)}`
  const { status, digest } = await ask('GET', `/v2/${name}/manifests/${digestOf(content)}`)
  const state = `GET ${name} ${content} at ${clock.now}: ${status}`
  const isThere = [made.public, made.hosted].some(({ contents }) => contents.has(key))
  if (status === 200) assert.ok(digest === digestOf(content) && (isThere || !gone.has(key)), state)
  if (status === 404) assert.ok(!isThere && made.public.mode === 'well', state)
}

for (const [at, variant] of variants.entries()) {
  test(`${questions} random questions, ${variant.what}: SEED=${seed}`, { timeout: 300_000 }, async () => {
    const random = createRandom(seed + at)
    const played = play(variant, random)
    const { clock, made, ask, settled, pick } = played
    const contents: string[] = []
    /** What was deleted through the router. */
    const gone = new Set<string>()
    const make = (who: Who) => {
      contents.push(`{"schemaVersion":2,"annotations":{"${who}":"${contents.length}"}}`)
      return contents.at(-1) as string
    }
    const untagAll = () => {
      for (const name of names.slice(0, 2)) for (const tag of tags) made.public.untag(`${name}:${tag}`)
    }
    const remove = async () => {
      const [name, content] = [pick(names), contents.at(-1) ?? '']
      const { status } = await ask('DELETE', `/v2/${name}/manifests/${digestOf(content)}`)
      if (status === 202) gone.add(`${name} ${digestOf(content)}`)
    }
    const wait = () => {
      clock.now += pick(steps) * random()
    }
    /** Each as often as it stands here. */
    const acts: (() => unknown)[] = [
      ...Array(12).fill(wait),
      ...Array(4).fill(() => made.public.put(pick(names), pick(tags), make('public'), clock.now)),
      ...Array(4).fill(() => made.hosted.put(pick(names), pick(tags), make('hosted'), clock.now)),
      ...Array(5).fill(() => made.public.untag(`${pick(names)}:${pick(tags)}`)),
      untagAll,
      ...Array(2).fill(() => made.hosted.untag(`${pick(names)}:${pick(tags)}`)),
      ...Array(3).fill(() => ask('PUT', `/v2/${pick(names)}/manifests/${pick(tags)}`, make('hosted'))),
      ...Array(2).fill(remove),
      ...Array(5).fill(() => made.public.turn(pick(['well', 'well', 'down', 'limited', 'lying']))),
      () => made.hosted.turn(pick(['well', 'well', 'well', 'down'])),
      ...Array(6).fill(() => contents.length > 0 && askForDigest(played, pick(names), pick(contents.slice(-20)), gone)),
    ]
    for (let asked = 0; asked < questions; asked++) {
      for (let more = random(); more < 0.6; more = random()) {
        await pick(acts)()
        await settled()
      }
      await askForTag(played, pick(names), pick(tags), pick(['GET', 'HEAD']))
      await settled()
    }
  })
}
