/** Which registries a request is asked at, in which order, and under which name: the route table, narrowed by the name. Pure. */
import { type Match, match, type Refusal } from '../../routing.ts'
import { dockerHub } from '../registry/hosts.ts'
import { isRead } from '../runtime/runtime.ts'
import { blockedBy, type NameRules, namespacesIn, type Owner, ownerOf, withoutNamespace } from './names.ts'

/** The settings that decide it. */
export interface PlanRules extends NameRules {
  tags: 'hosted' | 'lookup'
  lookupOrder: 'proxy-first' | 'hosted-first'
}

export interface Plan {
  /** The names of the registries to ask, in order. */
  order: readonly string[]
  /** What they are asked for. */
  matched: Match
  query: string
  /** The name that memory keeps it under: names of several registries must not meet. */
  fullName: string
  /** Why a registry of the route table is not among them. Clients read it. */
  unasked?: { upstream: string; reason: string }
  /** The public registry that may assist a push of this name. */
  assistant?: string
  /** The registry that `ns` named, as the client wrote it. */
  namespace?: string
  /** The same for an official image of Docker Hub, to be asked if nobody has the name. */
  official?: Plan
}

export function planOf(rules: PlanRules, method: string, matched: Match, query: string): Plan | Refusal {
  const { route, name } = matched
  if (name === undefined) return { order: route.ask, matched, query, fullName: '' }
  const namespaces = namespacesIn(query, rules)
  const owner = ownerOf(rules, name, namespaces)
  const isReading = isRead({ method }) && route.entity !== 'upload'
  if (!isReading && (owner.kind === 'public' || owner.kind === 'nobody')) {
    const message = `${owner.host} is read-only here: copy the image to a name of your own, and push or attach there`
    return { refused: 405, code: 'UNSUPPORTED', message, allow: 'GET, HEAD' }
  }
  if (owner.kind === 'nobody') {
    const message = `this name is not looked for at ${owner.host}: ${owner.reason}`
    return { refused: 404, code: 'NAME_UNKNOWN', message }
  }
  // The query of an upload session is hosted's own.
  const asked = { matched, fullName: name, query: route.entity === 'upload' ? query : withoutNamespace(query) }
  if (owner.kind === 'public') return publicPlan(rules, owner, asked, namespaces.length > 0)
  return owner.kind === 'hosted' ? hostedPlan(owner.reason, asked) : tablePlan(rules, name, asked)
}

/** Whether only public registries are asked. */
export function isPublic(rules: PlanRules, method: string, matched: Match, query: string): boolean {
  const plan = planOf(rules, method, matched, query)
  return 'order' in plan && !plan.order.includes('hosted')
}

type Asked = Pick<Plan, 'matched' | 'query' | 'fullName'>

function publicPlan(
  rules: PlanRules,
  { registry, host, name, fullName }: Owner & { kind: 'public' },
  { matched, query }: Asked,
  isByNamespace: boolean,
): Plan {
  // Only a default registry that serves several hosts needs to know which one is meant. Strict registries refuse `ns`.
  const isSent = registry === 'proxy' && rules.proxyNs.length > 1
  const plan = {
    order: [registry],
    matched: renamed(matched, name),
    fullName,
    query: isSent ? `${query}${query ? '&' : '?'}ns=${host}` : query,
    unasked: { upstream: 'hosted', reason: `${isByNamespace ? 'ns names' : 'the name is of'} ${host}` },
    namespace: isByNamespace ? host : undefined,
  }
  return host === dockerHub ? withOfficial(rules, plan) : plan
}

function hostedPlan(reason: string, asked: Asked): Plan {
  const { ask } = asked.matched.route
  return ask.length > 1
    ? { ...asked, order: ['hosted'], unasked: { upstream: 'proxy', reason } }
    : { ...asked, order: ask }
}

/** Each read of hosted's comes here, so it makes one object, without `...`: those cost 9 µs. */
function tablePlan(rules: PlanRules, name: string, { matched, query, fullName }: Asked): Plan {
  const { route } = matched
  const isLookedUp = route.entity === 'tags' && rules.tags === 'lookup'
  const row = isLookedUp ? (['proxy', 'hosted'] as const) : route.ask
  const reason = blockedBy(rules, name)
  const assistant = reason ? undefined : 'proxy'
  if (row.length < 2) return { matched, fullName, query, order: row, assistant }
  const unasked = reason ? { upstream: 'proxy', reason } : undefined
  const plan = { matched, fullName, query, order: orderOf(rules, row, reason), unasked, assistant }
  return rules.proxyNs.includes(dockerHub) ? withOfficial(rules, plan) : plan
}

function orderOf(rules: PlanRules, row: readonly string[], reason: string | undefined): readonly string[] {
  if (reason) return ['hosted']
  return rules.lookupOrder === 'hosted-first' ? ['hosted', 'proxy'] : row
}

/** Docker Hub keeps its own images under `library/`, which only clients of it add. */
function withOfficial(rules: PlanRules, plan: Plan): Plan {
  const { matched, order, fullName } = plan
  const official = `library/${fullName}`
  if (fullName.includes('/') || blockedBy(rules, official)) return plan
  const hub = order.find((one) => one !== 'hosted') ?? 'proxy'
  const name = (matched.name as string).replace(/[^/]*$/, official)
  const asked = { ...plan, order: [hub], matched: renamed(matched, name), fullName: official, unasked: undefined }
  return { ...plan, official: asked }
}

/** The same request for the official image of Docker Hub, if the name may be its short form; else an empty list. */
export function officialOf(rules: PlanRules, { path }: Match): Match[] {
  const matched = match('GET', path)
  const plan = 'refused' in matched ? undefined : planOf(rules, 'GET', matched, '')
  return plan && 'order' in plan && plan.official ? [plan.official.matched] : []
}

/** The same request for another name. The rest of its path keeps its bytes. */
function renamed(matched: Match, name: string): Match {
  const rest = matched.path.slice('/v2/'.length + (matched.name as string).length)
  return { ...matched, name, path: `/v2/${name}${rest}` }
}
