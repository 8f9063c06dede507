/** Who answers what: the grammar of the registry API, the route table as data, and `match()`. Pure: imports nothing. */

export type UpstreamName = 'proxy' | 'hosted'
export type Entity = 'base' | 'catalog' | 'tags' | 'referrers' | 'manifest' | 'blob' | 'uploads' | 'upload'

/** One row: the methods of a path, and the registries to ask, in order. */
export interface Route {
  entity: Entity
  methods: readonly string[]
  path: string
  ask: readonly UpstreamName[]
}

/** A request that the table knows. `path` is as it came, byte for byte; in the other parts `%3A` is read as `:`. */
export interface Match {
  route: Route
  path: string
  name?: string
  /** Tag or digest of a manifest. */
  reference?: string
  /** Set if the reference is a digest: its content is then the same at every registry. */
  digest?: string
}

/** A request that no registry is asked, with the status and OCI error code for the client. */
export interface Refusal {
  refused: 400 | 404 | 405
  code: 'NAME_INVALID' | 'NAME_UNKNOWN' | 'DIGEST_INVALID' | 'MANIFEST_INVALID' | 'UNSUPPORTED'
  message: string
  /** The methods this path has, for the `Allow` field of a 405 (RFC 9110, section 10.2.1). */
  allow?: string
}

const component = '[a-z0-9]+(?:(?:[.]|_|__|-+)[a-z0-9]+)*'
const tag = '[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}'
const anyAlgorithm = '(?!sha256:|sha512:)[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+'
const digest = `(?:sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128}|${anyAlgorithm})`

/**
 * The productions a path is made of (OCI distribution-spec 1.1, "Pulling manifests"; digests: image-spec, "Digests").
 * Clients keep referrers under REFERRERS_TAG if a registry has no API for them (distribution-spec, "Referrers Tag Schema"), and
 * cosign keeps signatures under such a tag (`sha256-<hex>.sig`).
 */
const grammar = {
  NAME: { pattern: `${component}(?:/${component})*`, group: 'name', code: 'NAME_INVALID' },
  REFERRERS_TAG: { pattern: '(?=.{1,128}$)sha(?:256|512)-[a-f0-9]{64}[a-zA-Z0-9._-]*', group: 'reference' },
  REFERENCE: { pattern: `${tag}|(?<digest>${digest})`, group: 'reference', code: 'MANIFEST_INVALID' },
  DIGEST: { pattern: digest, group: 'digest', code: 'DIGEST_INVALID' },
  SESSION: { pattern: '[a-zA-Z0-9_=~-][a-zA-Z0-9._=~-]*', group: 'session' },
} as const
const production = /NAME|REFERRERS_TAG|REFERENCE|DIGEST|SESSION/g
/** CNCF distribution refuses longer names too. */
const maxName = 255
/** Ten times what a name and a digest need. Bun's regular expressions take 0.3 s for a path of 64 KiB. */
const maxPath = 4096

/** All that this router answers under /v2/. The first row that has the path and the method counts. */
export const routes: readonly Route[] = [
  row('base', 'GET HEAD', '/v2/', 'proxy hosted'),
  row('catalog', 'GET', '/v2/_catalog', 'hosted'),
  row('tags', 'GET', '/v2/NAME/tags/list', 'hosted'),
  // Both are asked at once, and their lists are joined.
  row('referrers', 'GET', '/v2/NAME/referrers/DIGEST', 'hosted proxy'),
  row('manifest', 'GET HEAD', '/v2/NAME/manifests/REFERRERS_TAG', 'hosted proxy'),
  row('manifest', 'GET HEAD', '/v2/NAME/manifests/REFERENCE', 'proxy hosted'),
  row('manifest', 'PUT DELETE', '/v2/NAME/manifests/REFERENCE', 'hosted'),
  row('blob', 'GET', '/v2/NAME/blobs/DIGEST', 'proxy hosted'),
  // A client that pushes asks with HEAD whether it must send a layer. A 200 for a layer that hosted lacks would lose it.
  row('blob', 'HEAD DELETE', '/v2/NAME/blobs/DIGEST', 'hosted'),
  row('uploads', 'POST', '/v2/NAME/blobs/uploads/', 'hosted'),
  row('upload', 'GET PATCH PUT DELETE', '/v2/NAME/blobs/uploads/SESSION', 'hosted'),
]

function row(entity: Entity, methods: string, path: string, ask: string): Route {
  return { entity, methods: methods.split(' '), path, ask: ask.split(' ') as UpstreamName[] }
}

type Production = keyof typeof grammar
const compiled = routes.map((route) => {
  const expand = (part: (name: Production) => string) =>
    new RegExp(`^${route.path.replace(production, (name) => part(name as Production))}$`)
  return {
    route,
    // Most paths lack this word, and looking for it is faster than trying the grammar.
    word: route.path.split(production).reduce((longest, part) => (part.length > longest.length ? part : longest)),
    exact: expand((name) => `(?<${grammar[name].group}>${grammar[name].pattern})`),
    // The same path with any words as its parts: a match means that one part is bad, not that the path is unknown.
    form: expand((name) => (name === 'NAME' ? '(?<NAME>.+)' : `(?<${name}>[^/]+)`)),
  }
})

/**
 * Finds the row for a request. `path` is the raw path, without query. Only `%3A` is read as `:`. The grammar has no other escape, no
 * `//` and no `..`, so they are refused.
 */
export function match(method: string, path: string): Match | Refusal {
  if (path.length > maxPath) return unknown
  const plain = path.replace(/%3a/gi, ':')
  for (const { route, word, exact } of compiled) {
    const found = route.methods.includes(method) && plain.includes(word) && exact.exec(plain)
    if (!found) continue
    const { name, reference, digest } = found.groups ?? {}
    if (name && name.length > maxName) return invalid('NAME_INVALID')
    return { route, path, name, reference, digest }
  }
  const allowed = new Set(compiled.flatMap(({ route, exact }) => (exact.test(plain) ? route.methods : [])))
  if (allowed.size > 0) {
    const message = `${method} is not an operation of this path`
    return { refused: 405, code: 'UNSUPPORTED', message, allow: [...allowed].join(', ') }
  }
  for (const { form } of compiled) {
    for (const [name, value] of Object.entries(form.exec(plain)?.groups ?? {})) {
      const { pattern, code } = grammar[name as Production] as { pattern: string; code?: keyof typeof complaints }
      if (code && !new RegExp(`^(?:${pattern})$`).test(value)) return invalid(code)
    }
  }
  return unknown
}

const unknown: Refusal = { refused: 404, code: 'UNSUPPORTED', message: 'no such path in the registry API' }

const complaints = {
  NAME_INVALID: 'invalid repository name',
  DIGEST_INVALID: 'invalid digest',
  MANIFEST_INVALID: 'invalid tag or digest',
}

function invalid(code: keyof typeof complaints): Refusal {
  return { refused: 400, code, message: complaints[code] }
}
