/** Where an image comes from: the lookup itself, told, and what the registry that was not needed has. */
import { type Match, match, type Refusal } from '../../routing.ts'
import type { NameFact } from '../memory/names.ts'
import { readingOf } from '../memory/reading.ts'
import { type Answer, type Registry, type Summary, summaryOf } from '../registry/answer.ts'
import { digestOf } from '../registry/digest.ts'
import { type OciError, readOciError } from '../registry/errors.ts'
import { anyManifest, unconditional } from '../registry/headers.ts'
import { discard } from '../registry/registry.ts'
import { askAs, type Exchange, registriesIn } from './exchange.ts'
import { lookup } from './lookup.ts'
import { ownNames } from './names.ts'
import { type Plan, planOf } from './plan.ts'
import type { Surroundings } from './surroundings.ts'

export interface Explanation {
  image: string
  /** The name that is asked for. */
  name: string
  /** What decided which registries may be asked, and in which order. */
  rule: string
  order: Plan['order']
  notAsked?: Plan['unasked']
  /** What memory held before: which registry would be asked first, whose manifest is kept, and what a public registry lacked. */
  memory: { first?: string; manifest?: string; age?: number; lacking?: Lacking; name?: NameFact }
  /** What each registry that may be asked says now. */
  registries: (Summary & { digest?: string })[]
  /** What a client gets. Without `by` it is an error of this router's own. */
  answer: { status: number; by?: string; digest?: string; stale?: boolean; error?: OciError }
  /** A registry that has the tag too, with other content, and what keeps it back. */
  shadowed?: { upstream: string; digest: string; because: string }
}

/** What a public registry said that it lacks, and how long ago. */
interface Lacking {
  upstream: string
  what: 'tag'
  seconds: number
}

/** Clients take the first part of a name for a registry if it looks like this. */
const isHost = (text: string) => /[.:]|^localhost$/.test(text)

/** `image` as clients write it, with or without this router's own name, tag and digest; `ns` as containerd sends it. */
export async function explain(
  around: Surroundings,
  image: string,
  ns: string | null,
  { request, client, room }: Pick<Exchange, 'request' | 'client' | 'room'>,
): Promise<Explanation | Refusal> {
  const { settings, registries, memory } = around
  const matched = matchImage(image, ownNames(settings))
  if ('refused' in matched) return { ...matched, refused: 400, message: 'an image is NAME[:TAG] or NAME@DIGEST' }
  const query = ns ? `?ns=${encodeURIComponent(ns)}` : ''
  const plan = planOf(settings, 'GET', matched, query)
  if ('refused' in plan) return plan
  const exchange = {
    request: unconditional(request, anyManifest),
    matched: plan.matched,
    query: plan.query,
    client,
    room,
  }
  const reading = readingOf(exchange.request, plan, plan.query, registries.hosted.forwardsLogin)
  const order = registriesIn(registries, plan.order)
  const held = memory.holds(reading, order)

  const { response, by, answers, isStale } = await lookup(around, exchange, plan, memory.onlyLooking())
  const others = order.filter((registry) => !answers.some(({ from }) => from === registry))
  const ask = askAs(exchange)
  const asked = await Promise.all(others.map((registry) => ask(registry, { read: 'error', purpose: 'deciding' })))
  for (const one of asked) discard(one)
  const said = [...answers, ...asked].map((one) => ({ ...summaryOf(one), digest: toldDigest(one) }))
  const answer: Explanation['answer'] = {
    status: response.status,
    by: by?.name,
    digest: toldDigest(response) ?? said.find(({ upstream }) => upstream === by?.name)?.digest,
    stale: isStale,
  }
  if (by) await response.body?.cancel()
  else answer.error = await readOciError(response)
  const rule = ruleOf(settings.lookupOrder, order, matched)
  const lacking = held.lacking && { ...held.lacking, upstream: held.lacking.by.name, by: undefined }
  return {
    image,
    name: plan.matched.name as string,
    rule: plan.unasked?.reason ?? rule,
    order: plan.order,
    notAsked: plan.unasked,
    memory: {
      first: held.first?.name,
      manifest: held.manifest?.from.name,
      age: held.manifest?.seconds,
      lacking,
      name: held.name,
    },
    registries: said,
    answer,
    shadowed: shadowedBy(answer, said, becauseOf(rule, matched, by, held.name, lacking)),
  }
}

function matchImage(image: string, ownNames: readonly string[]): Match | Refusal {
  const own = ownNames.find((one) => isHost(one) && image.startsWith(`${one}/`))
  const [, name = '', tag = 'latest', digest] =
    /^([^@]+?)(?::([^/:@]+))?(?:@(.+))?$/.exec(own ? image.slice(own.length + 1) : image) ?? []
  return match('GET', `/v2/${name}/manifests/${digest ?? tag}`)
}

function ruleOf(lookupOrder: string, order: readonly Registry[], { route }: Match): string {
  return lookupOrder === 'proxy-first' && order[0]?.role === 'hosted' && route.ask[0] === 'hosted'
    ? 'signatures and other referrers are looked up in hosted first'
    : `LOOKUP_ORDER=${lookupOrder}`
}

/** Why the registry that answered came before the other. */
function becauseOf(
  rule: string,
  { name }: Match,
  by: Registry | undefined,
  fact: NameFact | undefined,
  lacking: Lacking | undefined,
): string {
  if (fact && fact.state !== 'public' && by?.role === 'hosted') return nameIn(fact)
  if (lacking && by?.role === 'hosted') return lackingIn(lacking)
  return `${rule}${by?.role === 'public' ? `; HOSTED_NAMES=${name} makes it hosted's alone` : ''}`
}

const lackingIn = ({ upstream, seconds }: Lacking) => `${upstream} lacked this tag ${seconds} s ago (LOOKUP_TTL)`

const nameFacts: Record<NameFact['state'], (seconds: number) => string> = {
  lacking: (seconds) => `the public registry lacked this name ${seconds} s ago (NAME_TTL)`,
  closed: (seconds) => `the public registry denied the tags of this name ${seconds} s ago (LOOKUP_TTL)`,
  public: (seconds) => `the public registry had this name ${seconds} s ago`,
}
const nameIn = ({ state, seconds }: NameFact) => nameFacts[state](seconds)

function shadowedBy({ by, digest }: Explanation['answer'], said: Explanation['registries'], because: string) {
  const other = said.find((one) => by && one.upstream !== by && one.digest && one.digest !== digest)
  return other && { upstream: other.upstream, digest: other.digest as string, because }
}

/** The digest of what was found. Not every registry says it (OCI distribution-spec: "SHOULD"). */
function toldDigest({ headers, content }: Pick<Answer, 'headers' | 'content'>): string | undefined {
  return headers.get('Docker-Content-Digest') ?? (content && digestOf(content))
}

/** For people: what each fact is about, and the fact. */
export function factsOf({ rule, order, notAsked, registries, memory, answer, shadowed }: Explanation): string[][] {
  const { by, status, digest, stale, error } = answer
  const why = stale ? ', from memory (STALE_IF_ERROR)' : ''
  const { first, manifest, age, lacking, name } = memory
  const held = [
    first && `${first} is asked first`,
    name && nameIn(name),
    lacking && lackingIn(lacking),
    manifest && `${manifest}'s manifest is kept, ${age} s old`,
  ].filter(Boolean)
  return [
    ['rule', `${rule}: ${order.join(', then ')}`],
    ...(notAsked ? [[notAsked.upstream, `not asked: ${notAsked.reason}`]] : []),
    ...registries.map(({ upstream, verdict, status, milliseconds, digest, reason }) => [
      upstream,
      [verdict, status, digest, `${milliseconds} ms`, reason].filter(Boolean).join('  '),
    ]),
    ['memory', held.join(', ') || 'nothing'],
    ['answer', by ? `${status} from ${by}  ${digest ?? ''}${why}` : `${status} ${error?.code}: ${error?.message}`],
    ...(shadowed ? [['shadowed', `${shadowed.upstream}'s ${shadowed.digest}, because ${shadowed.because}`]] : []),
  ]
}

/** As lines of text. */
export function toText(explanation: Explanation): string {
  const lines = factsOf(explanation).map(([subject = '', fact]) => `  ${subject.padEnd(10)}${fact}`)
  return [explanation.image, ...lines].join('\n')
}
