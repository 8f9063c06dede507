/**
 * Registries that speak as the documentation and the clients' trackers say of others: where uploads are, how they log in, what
 * they refuse. As documented: none of the registries that they are named after was run.
 */
import { randomUUID } from 'node:crypto'
import type http from 'node:http'
import { digestOf } from './client.ts'
import { type Scripted, scripted } from './scripted.ts'

interface Session {
  id: string
  /** The repository. */
  name: string
  content: Buffer
  chunks: number
  /** Where it is now. */
  location: string
}

export interface Dialect {
  /** What names begin with, and so the path of HOSTED_HOSTNAME. */
  prefix: string
  /** Where a session is. `base`: the registry's own address. */
  locate: (session: Session, base: string) => string
  /** Path of the realm on its own host; without one it takes Basic. */
  realm?: string
  /** How it logs in; without it, not at all. */
  login?: 'basic' | 'bearer'
  /** The status of a PATCH, 202 if missing. */
  patched?: number
  /** Why a PATCH is refused, with its status. */
  refusesChunk?: (session: Session, chunk: Buffer, hasRange: boolean) => [status: number, code: string] | undefined
  /** Repositories that are there from the start; any other is refused. */
  repositories?: string[]
  /** What a name that is not there, or not this login's, gets. */
  unknownName?: [status: number, code: string]
  /** A mount without `from` looks nowhere. */
  mountNeedsFrom?: boolean
  /** What a tag gets that is not there. */
  unknownTag?: [status: number, code: string]
  /** Where referrers lead, instead of a 404. */
  referrers?: string
  /** What a tag list of a name without tags says. */
  noTags?: 'null' | '404'
  /** Paths that something in front of it maps to `/v2/`. */
  alias?: RegExp
  /** Whether it refuses a request of a token for several scopes. */
  refusesScopes?: boolean
}

export const account = { username: 'router', password: 'canary-password' }
const basic = `Basic ${Buffer.from(`${account.username}:${account.password}`).toString('base64')}`
const mebibyte = 1024 * 1024

/** The path of a session as the specification's examples have it. */
const standard = ({ name, id }: Session) => `/v2/${name}/blobs/uploads/${id}`
const stateOf = ({ name, content }: Session) => Buffer.from(`${name}:${content.length}+/`).toString('base64url')

export const dialects: Record<string, Dialect> = {
  'GitHub (ghcr.io)': {
    prefix: 'acme',
    locate: ({ name, id }) => `/v2/${name}/blobs/upload/${id}`,
    login: 'bearer',
    realm: '/token',
    unknownName: [403, 'DENIED'],
    refusesChunk: (_, chunk, hasRange) => {
      return hasRange && chunk.length > 4 * mebibyte ? [416, 'BLOB_UPLOAD_INVALID'] : undefined
    },
  },
  'Google Artifact Registry': {
    prefix: 'project/repo',
    locate: (session) => {
      const [project, repository] = session.name.split('/')
      if (session.chunks > 0) return standard({ ...session, id: `AJM_${session.id}` })
      return `/artifacts-uploads/namespaces/${project}/repositories/${repository}/uploads/AF2-${session.id}==`
    },
    login: 'bearer',
    realm: '/v2/token',
    refusesScopes: true,
    refusesChunk: ({ chunks }) => (chunks > 0 ? [416, 'BLOB_UPLOAD_INVALID'] : undefined),
  },
  'Amazon ECR': {
    prefix: 'team',
    locate: (session, base) => `${base}${standard(session)}`,
    login: 'basic',
    patched: 201,
    repositories: ['team/app', 'team/base'],
    unknownName: [404, 'NAME_UNKNOWN'],
  },
  'Azure ACR': {
    prefix: 'team',
    locate: (session) => `${standard(session)}?_nouploadcache=false&_state=${stateOf(session)}`,
    login: 'bearer',
    realm: '/oauth2/token',
  },
  Quay: {
    prefix: 'acme',
    locate: (session, base) => `${base}${standard(session)}`,
    login: 'bearer',
    realm: '/v2/auth',
    mountNeedsFrom: true,
  },
  Harbor: {
    prefix: 'project',
    locate: (session, base) => `${base}${standard(session)}?_state=${stateOf(session)}`,
    login: 'bearer',
    realm: '/service/token',
  },
  Artifactory: {
    prefix: 'docker-local',
    locate: (session, base) => `${base}${standard(session)}`,
    login: 'basic',
    unknownName: [403, 'DENIED'],
    unknownTag: [403, 'DENIED'],
  },
  'Nexus behind another proxy': {
    prefix: '',
    locate: (session) => `/repository/docker-hosted${standard(session)}`,
    alias: /^\/repository\/docker-hosted(?=\/v2\/)/,
    login: 'bearer',
    realm: '/v2/token',
    noTags: 'null',
  },
  GitLab: {
    prefix: 'group/project',
    locate: (session, base) => `${base}${standard(session)}?_state=${stateOf(session)}`,
    login: 'bearer',
    realm: '/jwt/auth',
  },
}

export interface Speaking extends Scripted {
  url: string
  /** The scopes that its realm was asked for. */
  scopes: string[]
  /** The sessions that are open. */
  sessions: Map<string, Session>
  /** The content of a blob of a repository. */
  blob: (name: string, digest: string) => Buffer | undefined
}

/** Starts a registry that speaks so. */
export async function speaks(dialect: Dialect): Promise<Speaking> {
  const registry = new Spoken(dialect)
  const upstream = await scripted((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk) => chunks.push(chunk))
    request.on('end', () => registry.answer(request, Buffer.concat(chunks), response))
  })
  registry.base = `http://${upstream.host}`
  const blob = (name: string, digest: string) => registry.blobs.get(`${name} ${digest}`)
  return { ...upstream, url: registry.base, scopes: registry.scopes, sessions: registry.sessions, blob }
}

type Said = [status: number, fields?: http.OutgoingHttpHeaders, body?: string | Buffer]
const refusal = (status: number, code: string): Said => {
  return [status, { 'Content-Type': 'application/json' }, JSON.stringify({ errors: [{ code, message: code }] })]
}

class Spoken {
  base = ''
  readonly scopes: string[] = []
  readonly sessions = new Map<string, Session>()
  readonly blobs = new Map<string, Buffer>()
  readonly #manifests = new Map<string, { type: string; body: Buffer }>()
  readonly #dialect: Dialect

  constructor(dialect: Dialect) {
    this.#dialect = dialect
  }

  answer(request: http.IncomingMessage, body: Buffer, response: http.ServerResponse): void {
    const [status, fields = {}, content = ''] = this.#say(request, body)
    const length = request.method === 'HEAD' || status === 204 ? {} : { 'Content-Length': content.length }
    response.writeHead(status, { 'Docker-Distribution-Api-Version': 'registry/2.0', ...length, ...fields })
    response.end(content)
  }

  #say({ method = '', url = '', headers }: http.IncomingMessage, body: Buffer): Said {
    const { realm, alias = /(?!)/ } = this.#dialect
    const [target = '', search = ''] = url.split(/\?(.*)/s)
    const query = new URLSearchParams(search)
    // A form counts as a query: OAuth 2 asks with a POST.
    const asked = method === 'POST' && target === realm ? new URLSearchParams(`${body}`) : query
    if (target === realm) return this.#token(headers.authorization, asked)
    const session = [...this.sessions.values()].find((one) => this.#isAt(one, target, query))
    const path = target.replace(alias, '')
    const [, name = '', kind = '', reference = ''] =
      /^\/v2\/(.+)\/(blobs\/uploads|blobs|manifests|tags|referrers)\/([^/]*)$/.exec(path) ?? []
    const about = session?.name ?? name
    if (!this.#mayEnter(headers.authorization, about, method)) return this.#challenge(about, method)
    if (path === '/v2/') return [200, {}, '{}']
    if (path === '/v2/_catalog') return [200, {}, JSON.stringify({ repositories: this.#names() })]
    if (session) return this.#upload(method, session, query, headers, body)
    if (!name || !`${name}/`.startsWith(this.#dialect.prefix && `${this.#dialect.prefix}/`)) return this.#unknownName()
    if (this.#dialect.repositories && !this.#dialect.repositories.includes(name)) return this.#unknownName()
    if (kind === 'blobs/uploads')
      return method === 'POST' ? this.#open(name, query) : refusal(404, 'BLOB_UPLOAD_UNKNOWN')
    if (kind === 'blobs') return this.#blob(method, name, reference)
    if (kind === 'manifests') return this.#manifest(method, name, reference, headers['content-type'] ?? '', body)
    if (kind === 'tags') return this.#tags(name)
    const { referrers } = this.#dialect
    return referrers ? [303, { Location: referrers }] : refusal(404, 'UNSUPPORTED')
  }

  #unknownName(): Said {
    return refusal(...(this.#dialect.unknownName ?? ([404, 'NAME_UNKNOWN'] as const)))
  }

  #names(): string[] {
    return [...new Set([...this.#manifests.keys()].map((key) => key.split(' ')[0] as string))].sort()
  }

  /** A session is only where its last answer said, with the query that stood there. */
  #isAt({ location, name }: Session, target: string, query: URLSearchParams): boolean {
    const own = new URL(location, this.base)
    const inFront = this.#dialect.alias && target === own.pathname.replace(this.#dialect.alias, '')
    const isThere = target === own.pathname || inFront
    return Boolean(name && isThere && [...own.searchParams].every(([key, value]) => query.get(key) === value))
  }

  #token(authorization: string | undefined, query: URLSearchParams): Said {
    const scopes = query.getAll('scope')
    this.scopes.push(...scopes)
    if (this.#dialect.refusesScopes && scopes.join(' ').split(' ').length > 1) return refusal(400, 'UNSUPPORTED')
    if (authorization && authorization !== basic) return refusal(401, 'UNAUTHORIZED')
    const token = Buffer.from(authorization ? scopes.join(' ') : '').toString('base64url')
    return [200, { 'Content-Type': 'application/json' }, JSON.stringify({ token: `t.${token}`, expires_in: 300 })]
  }

  #mayEnter(authorization: string | undefined, name: string, method: string): boolean {
    const { login } = this.#dialect
    if (!login) return true
    if (login === 'basic') return authorization === basic
    const [, token] = /^Bearer t\.(.*)$/.exec(authorization ?? '') ?? []
    if (token === undefined) return false
    if (!name) return true
    const granted = Buffer.from(token, 'base64url').toString().split(' ')
    const wanted = scopeOf(name, method).split(':')[2] as string
    return granted.some((scope) => {
      const [type, repository, actions = ''] = scope.split(':')
      return (
        type === 'repository' &&
        repository === name &&
        wanted.split(',').every((one) => actions.split(',').includes(one))
      )
    })
  }

  #challenge(name: string, method: string): Said {
    const { login, realm } = this.#dialect
    const [status, fields, body] = refusal(401, 'UNAUTHORIZED')
    const scope = name ? `,scope="${scopeOf(name, method)}"` : ''
    const challenge = login === 'basic' ? 'Basic realm="x"' : `Bearer realm="${this.base}${realm}",service="x"${scope}`
    return [status, { ...fields, 'WWW-Authenticate': challenge }, body]
  }

  #at(session: Session, status: number, fields: http.OutgoingHttpHeaders = {}): Said {
    session.location = this.#dialect.locate(session, this.base)
    const range = session.content.length > 0 ? `0-${session.content.length - 1}` : '0-0'
    return [status, { Location: session.location, Range: range, 'Docker-Upload-UUID': session.id, ...fields }]
  }

  #stored(status: number, name: string, digest: string): Said {
    return [status, { Location: `/v2/${name}/blobs/${digest}`, 'Docker-Content-Digest': digest }]
  }

  #open(name: string, query: URLSearchParams): Said {
    const [mount, from] = [query.get('mount'), query.get('from')]
    const looks = from ? [from] : this.#dialect.mountNeedsFrom ? [] : [name]
    for (const source of mount ? looks : []) {
      const content = this.blobs.get(`${source} ${mount}`)
      if (!content) continue
      this.blobs.set(`${name} ${mount}`, content)
      return this.#stored(201, name, `${mount}`)
    }
    const session = { id: randomUUID(), name, content: Buffer.alloc(0), chunks: 0, location: '' }
    this.sessions.set(session.id, session)
    return this.#at(session, 202)
  }

  #upload(
    method: string,
    session: Session,
    query: URLSearchParams,
    headers: http.IncomingHttpHeaders,
    body: Buffer,
  ): Said {
    if (method === 'GET') return this.#at(session, 204)
    if (method === 'DELETE') return this.sessions.delete(session.id) ? [204] : refusal(404, 'BLOB_UPLOAD_UNKNOWN')
    const [, first] = /^(?:bytes )?(\d+)-/.exec(headers['content-range'] ?? '') ?? []
    if (first && Number(first) !== session.content.length) return this.#at(session, 416)
    if (method === 'PATCH') {
      const refused = this.#dialect.refusesChunk?.(session, body, first !== undefined)
      if (refused) return refusal(...refused)
      session.content = Buffer.concat([session.content, body])
      session.chunks++
      return this.#at(session, this.#dialect.patched ?? 202)
    }
    if (method !== 'PUT') return refusal(405, 'UNSUPPORTED')
    const content = Buffer.concat([session.content, body])
    const digest = query.get('digest') ?? ''
    if (digestOf(content) !== digest) return refusal(400, 'DIGEST_INVALID')
    this.sessions.delete(session.id)
    this.blobs.set(`${session.name} ${digest}`, content)
    return this.#stored(201, session.name, digest)
  }

  #blob(method: string, name: string, digest: string): Said {
    const content = this.blobs.get(`${name} ${digest}`)
    if (!content) return refusal(404, 'BLOB_UNKNOWN')
    const fields = { 'Docker-Content-Digest': digest, 'Content-Type': 'application/octet-stream' }
    if (method === 'HEAD') return [200, { ...fields, 'Content-Length': content.length }]
    if (method === 'GET') return [200, fields, content]
    return this.blobs.delete(`${name} ${digest}`) ? [202] : refusal(404, 'BLOB_UNKNOWN')
  }

  #manifest(method: string, name: string, reference: string, type: string, body: Buffer): Said {
    const key = `${name} ${reference}`
    if (method === 'PUT') {
      const digest = digestOf(body)
      for (const one of [reference, digest]) this.#manifests.set(`${name} ${one}`, { type, body })
      return [201, { Location: `/v2/${name}/manifests/${digest}`, 'Docker-Content-Digest': digest }]
    }
    const found = this.#manifests.get(key)
    if (!found) return refusal(...(this.#dialect.unknownTag ?? ([404, 'MANIFEST_UNKNOWN'] as const)))
    const fields = { 'Content-Type': found.type, 'Docker-Content-Digest': digestOf(found.body) }
    if (method === 'HEAD') return [200, { ...fields, 'Content-Length': found.body.length }]
    if (method === 'GET') return [200, fields, found.body]
    return this.#manifests.delete(key) ? [202] : refusal(404, 'MANIFEST_UNKNOWN')
  }

  #tags(name: string): Said {
    const keys = [...this.#manifests.keys()].filter((key) => key.startsWith(`${name} `))
    const tags = keys.map((key) => key.slice(name.length + 1)).filter((one) => !one.includes(':'))
    if (tags.length === 0 && this.#dialect.noTags !== 'null') return refusal(404, 'NAME_UNKNOWN')
    return [
      200,
      { 'Content-Type': 'application/json' },
      JSON.stringify({ name, tags: tags.length > 0 ? tags.sort() : null }),
    ]
  }
}

function scopeOf(name: string, method: string): string {
  const actions = { GET: 'pull', HEAD: 'pull', DELETE: 'delete' }[method] ?? 'pull,push'
  return `repository:${name}:${actions}`
}
