/** What a client does with a registry, and what it is told: to compare a registry with the same one behind the router. */
import assert from 'node:assert/strict'
import { digestOf, makeImage, type Reply, send } from './client.ts'
import { account } from './dialects.ts'

const basic = `Basic ${Buffer.from(`${account.username}:${account.password}`).toString('base64')}`
export const image = makeImage({ 'a.txt': 'a' })
export const [config, layer] = image.blobs as [(typeof image.blobs)[0], (typeof image.blobs)[0]]
const big = Buffer.alloc(6 * 1024 * 1024, 'layer')

/** A client of one registry. It follows a `Location` wherever it leads, and logs in as it is asked to. */
export class Client {
  readonly #base: string
  #authorization: string | undefined

  constructor(base: string) {
    this.#base = base
  }

  async send(
    method: string,
    target: string,
    body?: Buffer,
    headers: Record<string, string | number> = {},
  ): Promise<Reply> {
    const ask = () => {
      const login = this.#authorization ? { Authorization: this.#authorization } : {}
      const length = body || method === 'POST' ? { 'Content-Length': body?.length ?? 0 } : {}
      return send(this.#base, method, target, { headers: { ...length, ...headers, ...login }, body })
    }
    const first = await ask()
    if (first.status !== 401) return first
    await this.#logIn(`${first.headers['www-authenticate']}`)
    return ask()
  }

  async #logIn(challenge: string): Promise<void> {
    this.#authorization = basic
    const [, realm, scope = ''] = /^Bearer realm="([^"]+)".*?(?:scope="([^"]+)")?$/.exec(challenge) ?? []
    if (!realm) return
    // The public name of the router leads to it.
    const { pathname } = new URL(realm)
    const query = new URLSearchParams({ service: 'x', ...(scope ? { scope } : {}) })
    const reply = await send(this.#base, 'GET', `${pathname}?${query}`, { headers: { Authorization: basic } })
    this.#authorization = `Bearer ${reply.json().token}`
  }

  /** Where an upload goes on: on this registry, or else it fails. */
  next({ headers: { location = '' } }: Reply): string {
    const url = new URL(location, this.#base)
    assert.equal(url.origin, new URL(this.#base).origin, 'leads elsewhere')
    return url.pathname + url.search
  }
}

const closed = (location: string, digest: string) => `${location}${location.includes('?') ? '&' : '?'}digest=${digest}`

/** What a client does, and what it is told: status, and what else matters. `name` is as it is called there. */
export async function perform(client: Client, name: string, other: string): Promise<string[]> {
  const told: string[] = []
  const tell = (step: string, { status, headers, body }: Reply) => {
    const code = status >= 400 && body.length > 0 ? JSON.parse(`${body}`).errors?.[0]?.code : ''
    told.push([step, status, headers.range, headers['docker-content-digest'], code].filter(Boolean).join(' '))
  }
  const open = (query = '', at = name) => client.send('POST', `/v2/${at}/blobs/uploads/${query}`)
  const type = { 'Content-Type': 'application/octet-stream' }

  let session = await open()
  tell('POST', session)
  tell(
    'PUT of a whole layer',
    await client.send('PUT', closed(client.next(session), layer.digest), layer.content, type),
  )
  tell('HEAD', await client.send('HEAD', `/v2/${name}/blobs/${layer.digest}`))

  session = await open()
  const half = Math.floor(config.content.length / 2)
  session = await client.send('PATCH', client.next(session), config.content.subarray(0, half), {
    ...type,
    'Content-Range': `0-${half - 1}`,
  })
  tell('PATCH of a half', session)
  const state = await client.send('GET', client.next(session))
  tell('GET of the state', state)
  tell(
    'PATCH of a wrong half',
    await client.send('PATCH', client.next(state), config.content, { 'Content-Range': '900-999' }),
  )
  const second = await client.send('PATCH', client.next(state), config.content.subarray(half), {
    ...type,
    'Content-Range': `${half}-${config.content.length - 1}`,
  })
  tell('PATCH of the rest', second)
  const rest = second.status < 300 ? undefined : config.content.subarray(half)
  tell('PUT', await client.send('PUT', closed(client.next(rest ? state : second), config.digest), rest))

  session = await client.send('PATCH', client.next(await open()), big, type)
  tell('PATCH of a large layer', session)
  tell('PUT with a wrong digest', await client.send('PUT', closed(client.next(session), digestOf('other'))))
  tell('DELETE', await client.send('DELETE', client.next(session)))
  tell('GET of a cancelled upload', await client.send('GET', client.next(session)))
  tell(
    'PATCH with a range',
    await client.send('PATCH', client.next(await open()), big, { 'Content-Range': `0-${big.length - 1}` }),
  )

  tell('mount', await open(`?mount=${layer.digest}&from=${name}`, other))
  tell('mount of what is not there', await open(`?mount=${digestOf('none')}&from=${encodeURIComponent(name)}`, other))
  tell('mount from anywhere', await open(`?mount=${layer.digest}`, other))

  const manifest = `/v2/${name}/manifests`
  tell(
    'PUT of a manifest',
    await client.send('PUT', `${manifest}/v1`, Buffer.from(image.manifest), { 'Content-Type': image.mediaType }),
  )
  tell('GET of it', await client.send('GET', `${manifest}/v1`, undefined, { Accept: image.mediaType }))
  tell('GET of a tag that is not there', await client.send('GET', `${manifest}/none`))
  const referrers = await client.send('GET', `/v2/${name}/referrers/${image.digest}`)
  told.push(`referrers ${referrers.status}`)
  const none = await client.send('GET', `/v2/${other}/tags/list`)
  told.push(`tags of a name without ${none.status} ${none.status === 200 ? JSON.stringify(none.json().tags) : ''}`)
  const tags = await client.send('GET', `/v2/${name}/tags/list`)
  told.push(`tags ${tags.status} ${JSON.stringify(tags.json().tags)}`)
  assert.equal(tags.json().name, name, told.join('\n'))
  tell('DELETE of it', await client.send('DELETE', `${manifest}/${image.digest}`))
  tell('DELETE of a layer', await client.send('DELETE', `/v2/${name}/blobs/${layer.digest}`))
  tell('HEAD of it', await client.send('HEAD', `/v2/${name}/blobs/${layer.digest}`))
  return told
}
