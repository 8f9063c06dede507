/** Names at a registry that has a path before each of them: what they are called there, and here. Pure. */

/** What a page of the catalog begins after, if the registry's own word for it is no name. No name begins so. */
const opaque = '~'

/** The target of a request, with names as they are called there. `/v2/`, and what begins with `_`, is about no name. */
export function targetThere(target: string, path: string): string {
  if (!path) return target
  const [own = '', query] = target.split(/\?(.*)/s)
  const named = own.replace(/^\/v2(?=\/[^_])/, `/v2${path}`)
  return query ? `${named}?${queryThere(own, query, path)}` : named
}

function queryThere(target: string, query: string, path: string): string {
  if (target.endsWith('/blobs/uploads/')) return withParameter(query, 'from', (name) => nameThere(name, path))
  if (target !== '/v2/_catalog') return query
  return withParameter(query, 'last', (name) => (name.startsWith(opaque) ? name.slice(1) : nameThere(name, path)))
}

/** The same target, with the name as it is without the host of its registry before it. */
export function withoutPrefix(target: string, prefix: string): string {
  return prefix && target.startsWith(`/v2${prefix}/`) ? `/v2${target.slice(3 + prefix.length)}` : target
}

/** A path that came from there, with the name as it is called here. */
export function pathHere(target: string, path: string, prefix: string): string {
  const isNamed = target.startsWith(`/v2${path}/`) && /^\/v2\/[^?_]/.test(target)
  return isNamed ? `/v2${prefix}${target.slice(3 + path.length)}` : target
}

/** A name as it is called here; undefined if it is outside the path. */
export function nameHere(name: string, path: string): string | undefined {
  return path && !`/${name}`.startsWith(`${path}/`) ? undefined : name.slice(path.length)
}

export const nameThere = (name: string, path: string) => (path ? `${path.slice(1)}/${name}` : name)

/** What the next page begins after, as a client is told; `last` is what the registry says. */
export function lastHere(last: string, path: string): string {
  return nameHere(last, path) ?? `${opaque}${last}`
}

/** The scopes in a challenge or a request of a token, with mapped names (distribution, "Token Scope Documentation"). */
function withNames(scopes: string, map: (name: string) => string): string {
  return scopes.replace(/\S+/g, (scope) =>
    scope.replace(/^(repository(?:\([^)]*\))?:)(.+)(?=:[^:]*$)/, (_, type, name) => type + map(name)),
  )
}

export function scopesHere(scopes: string, path: string): string {
  return withNames(scopes, (name) => nameHere(name, path) ?? name)
}

/** The query or form of a request for a token, with the names in its scopes as they are called there. */
export function tokenQueryThere(query: string, path: string): string {
  return path ? withParameter(query, 'scope', (scopes) => withNames(scopes, (name) => nameThere(name, path))) : query
}

/** The body of the tag list at a target, with the name as it is called here. */
export function tagsHere(content: Uint8Array, path: string, target: string): Uint8Array<ArrayBuffer> {
  const name = target.replace(/^\/v2\/|\/tags\/list.*$/g, '')
  const there = nameThere(name, path).replace(/[.]/g, '\\.').replaceAll('/', '\\\\?/')
  const text = Buffer.from(content).toString('latin1')
  return new Uint8Array(Buffer.from(text.replace(new RegExp(`("name"\\s*:\\s*)"${there}"`), `$1"${name}"`), 'latin1'))
}

/** The same query, with other values of one parameter. Empty ones, and all else, stay as they came. */
export function withParameter(query: string, name: string, map: (value: string) => string): string {
  return query.replace(/[^&;]+/g, (pair) => {
    const [[key, value] = []] = [...new URLSearchParams(pair)]
    if (key !== name || !value) return pair
    return `${name}=${encodeURIComponent(map(value)).replace(/%(2F|3A)/g, (escaped) => decodeURIComponent(escaped))}`
  })
}
