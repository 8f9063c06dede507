/** Whose name it is: which registries a name may be asked at, by the name itself and by `?ns=`. Pure. */
import type { Globs } from '../registry/globs.ts'
import { comparable, dockerHub } from '../registry/hosts.ts'

/** The settings that decide it. Hosts are as `comparable` gives them. */
export interface NameRules {
  /** This router's public address. */
  aggregate: Pick<URL, 'host' | 'hostname' | 'protocol'>
  hostedNames: Globs
  proxyNames: Globs
  /** Hosts that `?ns=` may name for the default public registry. */
  proxyNs: readonly string[]
  /** Hosts that `?ns=` may name for hosted. */
  hostedNs: readonly string[]
  /** The other public registries, by the host that stands before their names. */
  proxies: readonly { host: string }[]
}

/**
 * - `table`: the route table decides.
 * - `hosted`: only hosted may be asked.
 * - `public`: only this public registry may be asked, for reads.
 * - `nobody`: no registry may be asked; `reason` is for clients.
 */
export type Owner =
  | { kind: 'table' }
  | { kind: 'hosted'; reason: string }
  | PublicOwner
  | { kind: 'nobody'; reason: string; host: string }

interface PublicOwner {
  kind: 'public'
  /** The registry, and the host that clients know it by. */
  registry: string
  host: string
  /** What the registry is asked for: with its host before it, but at the default registry without. */
  name: string
  /** What HOSTED_NAMES and PROXY_NAMES match. */
  fullName: string
}

/** The first line that applies (docs/routing.md, "Whose name is it"). */
export function ownerOf(rules: NameRules, name: string, namespaces: readonly string[]): Owner {
  const [namespace, ...others] = namespaces
  const before = prefixOf(rules, name)
  if (namespace === undefined) {
    if (rules.hostedNames.has(name)) return { kind: 'hosted', reason: claimed }
    return before ? ownerAt(rules, before.host, before.rest) : { kind: 'table' }
  }
  const host = hostIn(namespace)
  if (others.length > 0) return nobody(host, `ns names ${namespaces.map(hostIn).join(' and ')}`)
  if (rules.hostedNs.includes(host)) return { kind: 'hosted', reason: `HOSTED_NS lists ${host}` }
  if (!registryAt(rules, host)) return nobody(host, `neither PROXIES nor PROXY_NS lists ${host}`)
  if (before && before.host !== host) return nobody(host, `ns names ${host}, but the name is of ${before.host}`)
  return ownerAt(rules, host, before?.rest ?? name)
}

function ownerAt(rules: NameRules, host: string, name: string): Owner {
  const registry = registryAt(rules, host) as string
  const fullName = host === dockerHub ? name : `${host}/${name}`
  const reason = blockedBy(rules, fullName)
  if (reason) return nobody(host, reason)
  return { kind: 'public', registry, host, name: registry === 'proxy' ? name : `${host}/${name}`, fullName }
}

const nobody = (host: string, reason: string): Owner => ({ kind: 'nobody', host, reason })

/** The public registry of a host. */
function registryAt({ proxies, proxyNs }: NameRules, host: string): string | undefined {
  if (proxies.some((one) => one.host === host)) return host
  return proxyNs.includes(host) ? 'proxy' : undefined
}

/** A name that begins with the host of a public registry, and what follows it. Without PROXIES no name does. */
function prefixOf(rules: NameRules, name: string): { host: string; rest: string } | undefined {
  const at = name.indexOf('/')
  if (rules.proxies.length === 0 || at < 0) return undefined
  const host = comparable(name.slice(0, at))
  return registryAt(rules, host) ? { host, rest: name.slice(at + 1) } : undefined
}

const claimed = 'HOSTED_NAMES claims this name'

/** Why no public registry may be asked for a full name; undefined if one may. */
export function blockedBy({ hostedNames, proxyNames }: Pick<NameRules, 'hostedNames' | 'proxyNames'>, name: string) {
  if (hostedNames.has(name)) return claimed
  return proxyNames.has(name) ? undefined : 'PROXY_NAMES does not list this name'
}

/** What a client may write as a host, cut to what a host may be. */
const hostIn = (text: string) => text.replace(/[^\w.:-]/g, '?').slice(0, 255)

/** The registries that `ns` names, without this one. */
export function namespacesIn(query: string, rules: Pick<NameRules, 'aggregate'>): string[] {
  if (query === '') return []
  const own = ownNames(rules).map(comparable)
  const named = new URLSearchParams(query).getAll('ns').filter(Boolean).map(comparable)
  return [...new Set(named)].filter((one) => !own.includes(one))
}

/** Only the `ns` of a query, `?ns=…` or empty: a registry that serves several hosts needs it in every question. */
export function namespaceIn(query: string): string {
  const namespace = new URLSearchParams(query).get('ns')
  return namespace ? `?ns=${namespace}` : ''
}

/** A query without `ns`, however that is written. The rest keeps its bytes. */
export function withoutNamespace(query: string): string {
  if (query === '') return query
  const rest = query
    .slice(1)
    .split('&')
    .filter((one) => !new URLSearchParams(one).has('ns'))
  return rest.length > 0 ? `?${rest.join('&')}` : ''
}

/** What this router is called in front of image names. The default port of its scheme may be written too. */
export function ownNames({ aggregate: { host, hostname, protocol } }: Pick<NameRules, 'aggregate'>): string[] {
  return [host, hostname, `${hostname}:${protocol === 'https:' ? 443 : 80}`]
}
