/** What clients do with a registry, flow by flow: to see what works directly, and what through the router. */
import assert from 'node:assert/strict'
import { accept, digestOf, type Image, makeImage, makeReferrer, type Reply, send, withDigest } from './client.ts'
import { account } from './dialects.ts'
import type { Client } from './performs.ts'

const image = makeImage({ 'a.txt': 'a', 'b.bin': 'b'.repeat(100_000) })
const referrer = makeReferrer(image, 'application/x-test', 'referrer')
const [, layer] = image.blobs as [Image['blobs'][0], Image['blobs'][0]]
const octets = { 'Content-Type': 'application/octet-stream' }

/** Throws unless the status is one of these. */
function want(step: string, reply: Reply, ...statuses: number[]): Reply {
  if (statuses.includes(reply.status)) return reply
  throw new Error(`${step}: ${reply.status} in place of ${statuses.join(' or ')} ${reply.body}`.slice(0, 300))
}

const open = async (client: Client, name: string, query = '') =>
  want('POST of an upload', await client.send('POST', `/v2/${name}/blobs/uploads/${query}`), 202)

async function pushBlob(client: Client, name: string, { digest, content }: Image['blobs'][0]): Promise<void> {
  const session = await open(client, name)
  const sent = want('PATCH', await client.send('PATCH', client.next(session), content, octets), 202, 201)
  want('PUT', await client.send('PUT', withDigest(client.next(sent), digest)), 201)
}

export async function pushImage(client: Client, name: string, tag: string, pushed = image): Promise<void> {
  for (const blob of pushed.blobs) await pushBlob(client, name, blob)
  const headers = { 'Content-Type': pushed.mediaType }
  const target = `/v2/${name}/manifests/${tag}`
  want('PUT of a manifest', await client.send('PUT', target, Buffer.from(pushed.manifest), headers), 201)
}

export async function pullImage(client: Client, name: string, reference: string, pulled = image): Promise<void> {
  const target = `/v2/${name}/manifests/${reference}`
  want('HEAD of a manifest', await client.send('HEAD', target, undefined, { Accept: accept }), 200)
  const { body } = want('GET of it', await client.send('GET', target, undefined, { Accept: accept }), 200)
  assert.equal(digestOf(body), pulled.digest)
  for (const { digest } of pulled.blobs) {
    const blob = want('GET of a blob', await client.send('GET', `/v2/${name}/blobs/${digest}`), 200)
    assert.equal(digestOf(blob.body), digest)
  }
}

/** A flow at a hosted registry. `name` is a new one, and `name` with `-other` is too. Rejects if it does not work. */
export type Flow = (client: Client, name: string) => Promise<void>

export const flows: Record<string, Flow> = {
  push: (client, name) => pushImage(client, name, 'v1'),
  pull: async (client, name) => {
    await pushImage(client, name, 'v1')
    for (const reference of ['v1', image.digest]) await pullImage(client, name, reference)
    const none = await client.send('GET', `/v2/${name}/manifests/none`, undefined, { Accept: accept })
    want('GET of a tag that is not there', none, 404)
  },
  resume: async (client, name) => {
    const { content, digest } = layer
    const half = content.length >> 1
    const range = (from: number, to: number) => ({ ...octets, 'Content-Range': `${from}-${to - 1}` })
    const session = await open(client, name)
    const begun = await client.send('PATCH', client.next(session), content.subarray(0, half), range(0, half))
    const state = await client.send('GET', client.next(want('PATCH of a half', begun, 202, 201)))
    assert.equal(want('GET of the state', state, 204).headers.range, `0-${half - 1}`)
    const rest = range(half, content.length)
    const sent = await client.send('PATCH', client.next(state), content.subarray(half), rest)
    want(
      'PUT',
      await client.send('PUT', withDigest(client.next(want('PATCH of the rest', sent, 202, 201)), digest)),
      201,
    )
    want('HEAD', await client.send('HEAD', `/v2/${name}/blobs/${digest}`), 200)
  },
  cancel: async (client, name) => {
    const sent = await client.send('PATCH', client.next(await open(client, name)), layer.content, octets)
    const at = client.next(want('PATCH', sent, 202, 201))
    // The specification has 204 and 404, olareg says 202 and 400.
    want('DELETE of an upload', await client.send('DELETE', at), 204, 202)
    want('PATCH of it', await client.send('PATCH', at, layer.content, octets), 404, 400)
  },
  mount: async (client, name) => {
    await pushBlob(client, name, layer)
    const mount = `/v2/${name}-other/blobs/uploads/?mount=${layer.digest}&from=${encodeURIComponent(name)}`
    want('POST of a mount', await client.send('POST', mount), 201)
    want('HEAD', await client.send('HEAD', `/v2/${name}-other/blobs/${layer.digest}`), 200)
  },
  tags: async (client, name) => {
    for (const tag of ['v1', 'v2']) await pushImage(client, name, tag)
    const list = want('GET of the tags', await client.send('GET', `/v2/${name}/tags/list`), 200).json()
    assert.deepEqual([list.name, list.tags.sort()], [name, ['v1', 'v2']])
  },
  referrers: async (client, name) => {
    await pushImage(client, name, 'v1')
    await pushImage(client, name, referrer.digest, referrer)
    const list = await client.send('GET', `/v2/${name}/referrers/${image.digest}`)
    const found = want('GET of the referrers', list, 200)
      .json()
      .manifests.map(({ digest }: { digest: string }) => digest)
    assert.deepEqual(found, [referrer.digest])
  },
  'refusal of an image whose layer is missing': async (client, name) => {
    const [config] = image.blobs as [Image['blobs'][0]]
    await pushBlob(client, name, config)
    const headers = { 'Content-Type': image.mediaType }
    const put = await client.send('PUT', `/v2/${name}/manifests/v1`, Buffer.from(image.manifest), headers)
    want('PUT of a manifest', put, 400, 404)
  },
  'delete an image': async (client, name) => {
    await pushImage(client, name, 'v1')
    const at = `/v2/${name}/manifests/${image.digest}`
    want('DELETE of a manifest', await client.send('DELETE', at), 202)
    for (const gone of [at, `/v2/${name}/manifests/v1`])
      want('GET of it', await client.send('GET', gone, undefined, { Accept: accept }), 404)
  },
  'delete a layer': async (client, name) => {
    await pushBlob(client, name, layer)
    want('DELETE of a layer', await client.send('DELETE', `/v2/${name}/blobs/${layer.digest}`), 202)
    want('HEAD of it', await client.send('HEAD', `/v2/${name}/blobs/${layer.digest}`), 404)
  },
}

/** A registry that wants a login refuses none and a wrong one, and takes the right one. */
export async function logIn(url: string, client: Client, name: string): Promise<void> {
  const upload = `/v2/${name}/blobs/uploads/`
  const headers = { 'Content-Length': 0 }
  const challenged = want('POST without a login', await send(url, 'POST', upload, { headers }), 401)
  const wrong = { Authorization: `Basic ${Buffer.from(`${account.username}:wrong`).toString('base64')}` }
  const [, realm] = /^Bearer realm="([^"]+)"/.exec(`${challenged.headers['www-authenticate']}`) ?? []
  const refused = realm
    ? await send(url, 'GET', `${new URL(realm).pathname}?scope=repository:${name}:pull,push`, { headers: wrong })
    : await send(url, 'POST', upload, { headers: { ...headers, ...wrong } })
  want('a wrong password', refused, 401, 403)
  await pushImage(client, name, 'v1')
  await pullImage(client, name, 'v1')
}

/** A public name has no such tag, manifest and layer. */
export async function notThere(client: Client, name: string): Promise<void> {
  for (const path of [`manifests/none`, `manifests/${digestOf('none')}`, `blobs/${digestOf('none')}`])
    want(`GET of ${path}`, await client.send('GET', `/v2/${name}/${path}`, undefined, { Accept: accept }), 404)
}
