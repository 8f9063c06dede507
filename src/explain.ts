/** Why an image comes from where it comes: the lookup itself, told, and what the registry that was not needed has. */
import { type Match, match, type UpstreamName } from '../routing.ts'
import type { Config } from './config.ts'
import { type OciError, readOciError } from './errors.ts'
import { told } from './failure.ts'
import { unconditional } from './headers.ts'
import { type Memory, readingOf } from './memory.ts'
import { ownNames, type Plan, planOf } from './names.ts'
import type { Relay } from './relay.ts'
import type { Connection } from './runtime.ts'
import { discard } from './upstream.ts'

export interface Explanation {
  image: string
  /** What decided who may be asked, and in which order. */
  rule: string
  order: readonly UpstreamName[]
  notAsked?: { upstream: UpstreamName; reason: string }
  /** What memory held before. */
  memory: ReturnType<Memory['holds']>
  /** What each registry that may be asked says now. */
  registries: Registry[]
  /** What a client gets; `by` nobody where it is an error of this router's. */
  answer: { status: number; by?: UpstreamName; digest?: string; error?: OciError }
  /** A registry that has the tag too, with other content, and what keeps it back. */
  shadowed?: { upstream: UpstreamName; digest: string; because: string }
}

type Registry = ReturnType<typeof told>[number] & { digest?: string }

export type Explain = ReturnType<typeof createExplain>

const types = ['oci.image.index.v1', 'oci.image.manifest.v1', 'docker.distribution.manifest.list.v2']
const accept = [...types, 'docker.distribution.manifest.v2'].map((type) => `application/vnd.${type}+json`).join(', ')

/** As clients tell a registry from the first part of a name. */
const isHost = (text: string) => /[.:]|^localhost$/.test(text)

/** `image` as clients write it, with or without this router's own name, tag and digest. */
export function createExplain(config: Config, memory: Memory, relay: Relay) {
  return async (image: string, namespace: string | null, request: Request, connection: Connection) => {
    const own = ownNames(config).find((one) => isHost(one) && image.startsWith(`${one}/`))
    const [, name = '', tag = 'latest', digest] =
      /^([^@]+?)(?::([^/:@]+))?(?:@(.+))?$/.exec(own ? image.slice(own.length + 1) : image) ?? []
    const query = namespace ? `?ns=${encodeURIComponent(namespace)}` : ''
    const matched = match('GET', `/v2/${name}/manifests/${digest ?? tag}`)
    if ('refused' in matched)
      return { ...matched, refused: 400 as const, message: 'an image is NAME[:TAG] or NAME@DIGEST' }
    const plan = planOf(config, 'GET', matched, query)
    if ('refused' in plan) return plan
    const lookup = unconditional(request, accept)
    const held = memory.holds(readingOf(lookup, matched, query, config.passLogin))

    const { response, by, answers } = await relay.carryOut(lookup, { matched, query }, connection)
    const others = plan.order.filter((upstream) => !answers.some((one) => one.upstream === upstream))
    const ask = relay.askFor(lookup, { matched, query }, connection)
    const asked = await Promise.all(others.map((upstream) => ask(upstream, { readError: true })))
    for (const one of asked) discard(one)
    const registries = [...answers, ...asked].map(
      (one) => ({ ...told([one])[0], digest: digestOf(one.response) }) as Registry,
    )
    const answer: Explanation['answer'] = { status: response.status, by, digest: digestOf(response) }
    if (by) await response.body?.cancel()
    else answer.error = await readOciError(response)
    const other = registries.find(({ upstream, digest }) => by && upstream !== by && digest && digest !== answer.digest)
    const because =
      held.first === by && held.first !== plan.order[0]
        ? `the proxy lacked it less than ${config.lookupTtl} s ago (LOOKUP_TTL)`
        : `${ruleOf(config, plan, matched)}${by === 'proxy' ? `; HOSTED_NAMES=${name} makes it hosted's alone` : ''}`
    return {
      image,
      rule: plan.unasked?.reason ?? ruleOf(config, plan, matched),
      order: plan.order,
      notAsked: plan.unasked,
      memory: held,
      registries,
      answer,
      shadowed: other && { upstream: other.upstream, digest: other.digest as string, because },
    }
  }
}

function ruleOf({ lookupOrder }: Config, { order }: Plan, { route }: Match): string {
  return lookupOrder === 'proxy-first' && order[0] === 'hosted' && route.ask[0] === 'hosted'
    ? 'signatures and other referrers are looked up in hosted first'
    : `LOOKUP_ORDER=${lookupOrder}`
}

const digestOf = (response: Pick<Response, 'headers'> | undefined) =>
  response?.headers.get('Docker-Content-Digest') ?? undefined

/** For people: of what, and what. */
export function factsOf({ rule, order, notAsked, registries, memory, answer, shadowed }: Explanation): string[][] {
  const { by, status, digest, error } = answer
  const { first, manifest } = memory
  const held = [first && `${first} is asked first`, manifest && `${manifest}'s manifest is kept`].filter(Boolean)
  return [
    ['rule', `${rule}: ${order.join(', then ')}`],
    ...(notAsked ? [[notAsked.upstream, `not asked: ${notAsked.reason}`]] : []),
    ...registries.map(({ upstream, verdict, status, milliseconds, digest, reason }) => [
      upstream,
      [verdict, status, digest, `${milliseconds} ms`, reason].filter(Boolean).join('  '),
    ]),
    ['memory', held.join(', ') || 'nothing'],
    ['answer', by ? `${status} from ${by}  ${digest ?? ''}` : `${status} ${error?.code}: ${error?.message}`],
    ...(shadowed ? [['shadowed', `${shadowed.upstream}'s ${shadowed.digest}, because ${shadowed.because}`]] : []),
  ]
}

/** A line a fact. */
export function toText(explanation: Explanation): string {
  const lines = factsOf(explanation).map(([of = '', what]) => `  ${of.padEnd(10)}${what}`)
  return [explanation.image, ...lines].join('\n')
}
