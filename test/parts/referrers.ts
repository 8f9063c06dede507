/** Registries with the referrers API: olareg where Go is, and everywhere a real registry with the API put in front of it. */
import http from 'node:http'
import { temporaryFolder } from './children.ts'
import { goTools } from './go.ts'
import { fromOlareg, type Launch, type Registry } from './registries.ts'
import { scripted } from './scripted.ts'

export type Referring = Pick<Registry, 'url' | 'host'> & { stop: () => Promise<unknown> }

/** How to start one, by what it is. */
export async function referring(launch: Launch, say: (line: string) => void) {
  const tools = await goTools(() => say('NO GO: the registry with referrers of its own, olareg, is not tried'))
  const kinds: Record<string, () => Promise<Referring>> = {
    'a registry with the API in front': async () => {
      return inFront(await launch({ name: `behind-${count++}`, folder: temporaryFolder() }))
    },
  }
  if (tools) kinds.olareg = () => fromOlareg(tools.olareg)({ name: 'olareg', folder: '' })
  return kinds
}
let count = 0

/** Pages of one (OCI distribution-spec 1.1, "Listing Referrers"); what is no referrers request passes to the registry. */
async function inFront(registry: Registry): Promise<Referring> {
  const listed = new Map<string, { digest: string; artifactType?: string }[]>()
  const { port } = new URL(registry.url)
  const front = await scripted((request, response) => {
    const { method, headers, url: path = '' } = request
    const [, digest, query] = /\/referrers\/([^?]+)(.*)$/.exec(path) ?? []
    if (digest) {
      const searchParams = new URLSearchParams(query)
      const type = searchParams.get('artifactType')
      const all = (listed.get(digest) ?? []).filter(({ artifactType }) => !type || artifactType === type)
      const page = Number(searchParams.get('page') ?? 0)
      const index = { schemaVersion: 2, mediaType, manifests: all.slice(page, page + 1) }
      response.setHeader('Content-Type', mediaType)
      if (type) response.setHeader('OCI-Filters-Applied', 'artifactType')
      searchParams.set('page', `${page + 1}`)
      const next = `${path.replace(/\?.*/, '')}?${searchParams}`
      if (page + 1 < all.length) response.setHeader('Link', `<${next}>; rel="next"`)
      response.end(JSON.stringify(index))
      return
    }
    const chunks: Buffer[] = []
    const passed = http.request({ host: '127.0.0.1', port, method, path, headers }, (answer) => {
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
      listed.set(subject.digest, [...(listed.get(subject.digest) ?? []), descriptor])
    })
    passed.on('error', () => response.destroy())
    request.on('data', (chunk) => chunks.push(chunk)).pipe(passed)
  })
  const stop = async () => {
    await front.close()
    await registry.stop()
  }
  return { url: `http://${front.host}`, host: front.host, stop }
}

const mediaType = 'application/vnd.oci.image.index.v1+json'
