/** Which registries may be asked for a name: the row of the route table, narrowed by the names rules and by `?ns=`. Pure. */
import type { Match, Refusal, UpstreamName } from '../../routing.ts'
import { isRead } from '../runtime/runtime.ts'

/** The settings that decide it. */
export interface NameRules {
  /** This router's public address. */
  aggregate: Pick<URL, 'host' | 'hostname' | 'protocol'>
  hostedNames: RegExp
  proxyNames: RegExp
  /** Registries that `?ns=` may name. */
  proxyNs: readonly string[]
  tags: 'hosted' | 'lookup'
  lookupOrder: 'proxy-first' | 'hosted-first'
}

export interface Plan {
  /** The registries to ask, in order. */
  order: readonly UpstreamName[]
  /** Why a registry of the route table is not among them. Clients read it. */
  unasked?: { upstream: UpstreamName; reason: string }
}

/**
 * Containerd says with `?ns=` which registry it takes this one for (its docs/hosts.md). If that is a public one, only the proxy is
 * asked, for reads only. `ns` is compared, never dialled.
 */
export function planOf(rules: NameRules, method: string, { route, name }: Match, query: string): Plan | Refusal {
  const reason = name === undefined ? undefined : blockedBy(rules, name)
  const namespaces = namespacesIn(query, rules)
  if (namespaces.length > 0 && name !== undefined) {
    if (!isRead({ method }) || route.entity === 'upload') {
      const message = 'a name of another registry is read-only here'
      return { refused: 405, code: 'UNSUPPORTED', message, allow: 'GET, HEAD' }
    }
    const unlisted = namespaces.find((one) => !rules.proxyNs.includes(one))
    const message = unlisted === undefined ? reason : `PROXY_NS does not list ${hostIn(unlisted)}`
    if (message) return { refused: 404, code: 'NAME_UNKNOWN', message }
    return { order: ['proxy'], unasked: { upstream: 'hosted', reason: 'ns names a public registry' } }
  }
  const row: Plan['order'] = route.entity === 'tags' && rules.tags === 'lookup' ? ['proxy', 'hosted'] : route.ask
  if (row.length < 2 || route.entity === 'base') return { order: row }
  if (reason) return { order: ['hosted'], unasked: { upstream: 'proxy', reason } }
  return { order: rules.lookupOrder === 'hosted-first' ? ['hosted', 'proxy'] : row }
}

/** Why the proxy may not be asked for a name; undefined if it may. */
export function blockedBy({ hostedNames, proxyNames }: Pick<NameRules, 'hostedNames' | 'proxyNames'>, name: string) {
  if (hostedNames.test(name)) return 'HOSTED_NAMES claims this name'
  return proxyNames.test(name) ? undefined : 'PROXY_NAMES does not list this name'
}

/** What a client may write as a host, cut to what a host may be. */
const hostIn = (text: string) => text.replace(/[^\w.:-]/g, '?').slice(0, 255)

/** The registries that `ns` names, without this one. */
function namespacesIn(query: string, rules: NameRules): string[] {
  if (query === '') return []
  return new URLSearchParams(query).getAll('ns').filter((one) => one !== '' && !ownNames(rules).includes(one))
}

/** What this router is called in front of image names. The default port of its scheme may be written too. */
export function ownNames({ aggregate: { host, hostname, protocol } }: Pick<NameRules, 'aggregate'>): string[] {
  return [host, hostname, `${hostname}:${protocol === 'https:' ? 443 : 80}`]
}
