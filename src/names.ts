/** Which registries may be asked for a name: the row of the route table, narrowed by the names rules and by `?ns=`. */
import type { Match, Refusal, UpstreamName } from '../routing.ts'
import type { Config } from './config.ts'

export interface Plan {
  /** Whom to ask, in order. */
  order: readonly UpstreamName[]
  /** Why a registry that the table has is not among them; clients read it. */
  unasked?: { upstream: UpstreamName; reason: string }
}

/**
 * Containerd says with `?ns=` which registry it takes this one for: a public one means the proxy alone, whose names these
 * are (github.com/containerd/containerd, docs/hosts.md). It is compared, never dialled.
 */
export function planOf(config: Config, method: string, { route, name }: Match, query: string): Plan | Refusal {
  const reason = name === undefined ? undefined : barred(config, name)
  const namespaces = namespacesOf(query, config)
  if (namespaces.length > 0 && name !== undefined) {
    const reads = ['GET', 'HEAD'].includes(method)
    if (!reads || route.entity === 'upload') {
      const message = 'a name of another registry is read-only here'
      return { refused: 405, code: 'UNSUPPORTED', message, allow: 'GET, HEAD' }
    }
    const listed = namespaces.every((one) => config.proxyNs.includes(one))
    const message = listed ? reason : 'PROXY_NS does not list this registry'
    if (message) return { refused: 404, code: 'NAME_UNKNOWN', message }
    return { order: ['proxy'], unasked: { upstream: 'hosted', reason: 'ns names a public registry' } }
  }
  const row: Plan['order'] = route.entity === 'tags' && config.tags === 'lookup' ? ['proxy', 'hosted'] : route.ask
  if (row.length < 2 || route.entity === 'base') return { order: row }
  if (reason) return { order: ['hosted'], unasked: { upstream: 'proxy', reason } }
  return { order: config.lookupOrder === 'hosted-first' ? ['hosted', 'proxy'] : row }
}

/** Why the proxy may not be asked for a name; undefined where it may. */
export function barred({ hostedNames, proxyNames }: Config, name: string): string | undefined {
  if (hostedNames.test(name)) return 'HOSTED_NAMES claims this name'
  return proxyNames.test(name) ? undefined : 'PROXY_NAMES does not list this name'
}

/** The registries that `ns` names and that are not this one; of several, the proxy may read any. */
function namespacesOf(query: string, config: Config): string[] {
  if (query === '') return []
  return new URLSearchParams(query).getAll('ns').filter((one) => one !== '' && !ownNames(config).includes(one))
}

/** What this router is called before names of images; the port of its scheme may stand there too. */
export function ownNames({ aggregate: { host, hostname, protocol } }: Config): string[] {
  return [host, hostname, `${hostname}:${protocol === 'https:' ? 443 : 80}`]
}
