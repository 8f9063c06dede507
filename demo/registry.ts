/**
 * Small registries in the demo's own memory, for a machine without a registry program: one that takes pushes, or a cache.
 * They know what the demo, a pull and a push need, and keep nothing. They are no part of the product.
 * https://github.com/opencontainers/distribution-spec/blob/v1.1.0/spec.md#endpoints
 */
import { randomUUID } from 'node:crypto'
import { createServer, type IncomingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { type Entity, match } from '../routing.ts'
import { digestOf } from '../test/parts/client.ts'
import type { Launch } from '../test/parts/registries.ts'

interface Request {
  method: string
  /** Path and query. */
  target: string
  path: string
  query: URLSearchParams
  headers: IncomingHttpHeaders
  body: Buffer
  entity: Entity
  name: string
  /** A tag or a digest, or empty. */
  reference: string
}
interface Answer {
  status: number
  headers?: Record<string, string>
  body?: Buffer | string
}
type Answering = (request: Request) => Answer | Promise<Answer>

const index = 'application/vnd.oci.image.index.v1+json'

/** Starts a registry in this process. With `proxyOf` it is a read-only cache of that registry. */
export const inMemory: Launch = async ({ name, proxyOf }) => {
  const answering = proxyOf ? cacheOf(proxyOf) : pushable()
  // Without a time limit: a layer takes as long as it takes.
  const server = createServer({ requestTimeout: 0 }, async (incoming, response) => {
    const { method = 'GET', url: target = '/', headers: sent } = incoming
    const answer = async (): Promise<Answer> => {
      const { pathname: path, searchParams: query } = new URL(target, 'http://registry')
      const found = match(method, path)
      if ('refused' in found) return error(found.refused, found.code, found.message)
      const { name = '', reference, digest = '' } = found
      const { entity } = found.route
      const body = await buffer(incoming)
      const request = { method, target, path, query, headers: sent, body, entity, name, reference: reference ?? digest }
      return answering(request)
    }
    const { status, headers, body = '' } = await answer().catch(({ message }) => error(500, 'UNKNOWN', message))
    const length = { 'Content-Length': Buffer.byteLength(body) }
    response.writeHead(status, { 'Docker-Distribution-Api-Version': 'registry/2.0', ...length, ...headers })
    response.end(method === 'HEAD' ? undefined : body)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`
  const stop = async () => {
    server.close()
    server.closeAllConnections()
  }
  const start = () => Promise.reject(new Error('a registry in memory is not started again'))
  return { name, url: `http://${host}`, host, lines: () => [], stop, start }
}

/** A cache keeps what has a digest. Tags and lists are always the remote's. */
function cacheOf(remote: string): Answering {
  const kept = new Map<string, Answer>()
  return async ({ method, target, path, headers, entity, name }) => {
    if (entity === 'base') return json(200, {})
    if (!['GET', 'HEAD'].includes(method)) return error(405, 'UNSUPPORTED', 'a cache takes no writes')
    const here = kept.get(path)
    if (here) return here
    const got = await fetch(`${remote}${target}`, { headers: { Accept: headers.accept ?? '*/*' } })
    const body = Buffer.from(await got.arrayBuffer())
    const type = got.headers.get('content-type') ?? ''
    if (got.status !== 200 || !/manifest|blob/.test(entity)) return { status: got.status, headers: typed(type), body }
    const answer = content(type, body)
    kept.set(`/v2/${name}/${entity}s/${digestOf(body)}`, answer)
    return answer
  }
}

interface Repository {
  blobs: Map<string, Buffer>
  manifests: Map<string, { type: string; body: Buffer }>
  tags: Map<string, string>
}

function pushable(): Answering {
  const repositories = new Map<string, Repository>()
  /** The bytes of each upload session so far, by its path. */
  const sessions = new Map<string, Buffer[]>()
  const entities: Record<Entity, (request: Request, repository: Repository) => Answer> = {
    base: () => json(200, {}),
    catalog: () => json(200, { repositories: [...repositories.keys()] }),
    tags: ({ name }, { tags }) => {
      return tags.size > 0 ? json(200, { name, tags: [...tags.keys()] }) : unknown('NAME')
    },
    referrers,
    manifest,
    blob: ({ reference }, { blobs }) => {
      const blob = blobs.get(reference)
      return blob ? content('application/octet-stream', blob) : unknown('BLOB')
    },
    uploads: ({ name, query }, { blobs }) => {
      const mount = query.get('mount') ?? ''
      const mounted = repositories.get(query.get('from') ?? '')?.blobs.get(mount)
      if (mounted) {
        blobs.set(mount, mounted)
        return created(name, 'blobs', mount)
      }
      const session = `/v2/${name}/blobs/uploads/${randomUUID()}`
      sessions.set(session, [])
      return { status: 202, headers: { Location: session } }
    },
    upload: ({ method, path, body, name, query }, { blobs }) => {
      const chunks = sessions.get(path)
      if (!chunks) return unknown('BLOB_UPLOAD')
      chunks.push(body)
      const size = chunks.reduce((sum, { length }) => sum + length, 0)
      if (method === 'PATCH') return { status: 202, headers: { Location: path, Range: `0-${Math.max(0, size - 1)}` } }
      sessions.delete(path)
      const whole = Buffer.concat(chunks)
      const digest = digestOf(whole)
      if (digest !== query.get('digest')) return error(400, 'DIGEST_INVALID', 'the content has another digest')
      blobs.set(digest, whole)
      return created(name, 'blobs', digest)
    },
  }
  return (request) => {
    const { method, entity, name } = request
    if (method === 'DELETE' || (entity === 'upload' && method === 'GET'))
      return error(405, 'UNSUPPORTED', `this small registry knows no ${method} of this path`)
    const repository = repositories.get(name) ?? { blobs: new Map(), manifests: new Map(), tags: new Map() }
    const answer = entities[entity](request, repository)
    if (answer.status === 201) repositories.set(name, repository)
    return answer
  }
}

function manifest({ method, name, reference, headers, body }: Request, repository: Repository): Answer {
  const { blobs, manifests, tags } = repository
  if (method !== 'PUT') {
    const found = manifests.get(tags.get(reference) ?? reference)
    return found ? content(found.type, found.body) : unknown('MANIFEST')
  }
  const { config, layers = [], manifests: children = [], subject } = JSON.parse(`${body}`)
  const complete = [config ?? [], ...layers].flat().every(({ digest }) => blobs.has(digest))
  if (!complete || !children.every(({ digest }: { digest: string }) => manifests.has(digest)))
    return error(404, 'MANIFEST_BLOB_UNKNOWN', 'the manifest names content that is not here')
  const digest = digestOf(body)
  manifests.set(digest, { type: headers['content-type'] ?? '', body })
  if (!reference.includes(':')) tags.set(reference, digest)
  return created(name, 'manifests', digest, subject ? { 'OCI-Subject': subject.digest } : {})
}

function referrers({ query, reference }: Request, { manifests }: Repository): Answer {
  const wanted = query.get('artifactType')
  const found = [...manifests].flatMap(([digest, { type: mediaType, body }]) => {
    const { subject, config, artifactType = config?.mediaType, annotations } = JSON.parse(`${body}`)
    const fits = subject?.digest === reference && (!wanted || wanted === artifactType)
    return fits ? [{ mediaType, digest, size: body.length, artifactType, annotations }] : []
  })
  const filtered: Record<string, string> = wanted ? { 'OCI-Filters-Applied': 'artifactType' } : {}
  return json(200, { schemaVersion: 2, mediaType: index, manifests: found }, { ...typed(index), ...filtered })
}

function typed(type: string): Record<string, string> {
  return { 'Content-Type': type }
}

function json(status: number, value: object, headers = typed('application/json')): Answer {
  return { status, headers, body: JSON.stringify(value) }
}

function error(status: number, code: string, message: string): Answer {
  return json(status, { errors: [{ code, message }] })
}

function unknown(what: string): Answer {
  return error(404, `${what}_UNKNOWN`, `${what.toLowerCase()} unknown`)
}

function content(type: string, body: Buffer): Answer {
  const digest = digestOf(body)
  return { status: 200, headers: { ...typed(type), 'Docker-Content-Digest': digest, ETag: `"${digest}"` }, body }
}

function created(name: string, kind: string, digest: string, headers: Record<string, string> = {}): Answer {
  const location = `/v2/${name}/${kind}/${digest}`
  return { status: 201, headers: { Location: location, 'Docker-Content-Digest': digest, ...headers } }
}
