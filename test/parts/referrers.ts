/** Starts registries with the referrers API: a real one behind a server that adds the API, and olareg if there is Go. */
import http from 'node:http'
import { temporaryFolder } from './children.ts'
import { goTools } from './go.ts'
import { fromOlareg, type Launch, type Registry } from './registries.ts'
import { scripted } from './scripted.ts'

export type ReferrersRegistry = Pick<Registry, 'url' | 'host'> & { stop: () => Promise<unknown> }

/** The kinds of registry with the referrers API: a name, and a function that starts one. */
export async function referrersRegistries(launch: Launch, say: (line: string) => void) {
  const tools = await goTools(() => say('NO GO: the registry with referrers of its own, olareg, is not tried'))
  const kinds: Record<string, () => Promise<ReferrersRegistry>> = {
    'a registry with the API in front': async () => {
      return addReferrersApi(await launch({ name: `behind-${count++}`, folder: temporaryFolder() }))
    },
  }
  if (tools) kinds.olareg = () => fromOlareg(tools.olareg)({ name: 'olareg', folder: '' })
  return kinds
}
let count = 0

/**
 * Answers referrers requests with one descriptor a page (OCI distribution-spec 1.1, "Listing Referrers").
 * All other requests go to the registry.
 */
async function addReferrersApi(registry: Registry): Promise<ReferrersRegistry> {
  const bySubject = new Map<string, { digest: string; artifactType?: string }[]>()
  const { port } = new URL(registry.url)
  const front = await scripted((request, response) => {
    const { method, headers, url: path = '' } = request
    const [, digest, query] = /\/referrers\/([^?]+)(.*)$/.exec(path) ?? []
    if (digest) {
      const searchParams = new URLSearchParams(query)
      const type = searchParams.get('artifactType')
      const matching = (bySubject.get(digest) ?? []).filter(({ artifactType }) => !type || artifactType === type)
      const page = Number(searchParams.get('page') ?? 0)
      const index = { schemaVersion: 2, mediaType, manifests: matching.slice(page, page + 1) }
      response.setHeader('Content-Type', mediaType)
      if (type) response.setHeader('OCI-Filters-Applied', 'artifactType')
      searchParams.set('page', `${page + 1}`)
      const next = `${path.replace(/\?.*/, '')}?${searchParams}`
      if (page + 1 < matching.length) response.setHeader('Link', `<${next}>; rel="next"`)
      response.end(JSON.stringify(index))
      return
    }
    const chunks: Buffer[] = []
    const forwarded = http.request({ host: '127.0.0.1', port, method, path, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.pipe(response)
      if (method !== 'PUT' || answer.statusCode !== 201 || !path.includes('/manifests/')) return
      const content = Buffer.concat(chunks)
      const { subject, artifactType, config, annotations } = JSON.parse(content.toString())
      const digest = `${answer.headers['docker-content-digest']}`
      if (!subject) return
      const type = artifactType ?? config?.mediaType
      const descriptor = {
        mediaType: headers['content-type'],
        digest,
        size: content.length,
        artifactType: type,
        annotations,
      }
      bySubject.set(subject.digest, [...(bySubject.get(subject.digest) ?? []), descriptor])
    })
    forwarded.on('error', () => response.destroy())
    request.on('data', (chunk) => chunks.push(chunk)).pipe(forwarded)
  })
  const stop = async () => {
    await front.close()
    await registry.stop()
  }
  return { url: `http://${front.host}`, host: front.host, stop }
}

const mediaType = 'application/vnd.oci.image.index.v1+json'
