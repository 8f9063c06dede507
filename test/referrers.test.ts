/** Signatures, SBOMs and other referrers, from the API and from tags. WAY selects the runtime. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { between, closeAll } from './parts/between.ts'
import { temporaryFolder } from './parts/children.ts'
import { accept, digestOf, makeImage, makeReferrer, push, type Reply, send } from './parts/client.ts'
import { type ReferrersRegistry, referrersRegistries } from './parts/referrers.ts'
import { findRegistry, type Launch, type Registry } from './parts/registries.ts'
import { startRouter, way } from './parts/router.ts'
import { answer, type Script } from './parts/scripted.ts'

const name = 'library/app'
const image = makeImage({ 'app.txt': 'app' })
const path = `/v2/${name}/referrers/${image.digest}`
const tag = image.digest.replace(':', '-')
const indexType = 'application/vnd.oci.image.index.v1+json'
const signature = 'application/vnd.dev.sigstore.bundle.v0.3+json'
const sbom = 'application/spdx+json'
/** Manifests with a subject, as cosign and ORAS push them. */
const attached = {
  publicSignature: makeReferrer(image, signature, 'public signature'),
  publicSbom: makeReferrer(image, sbom, 'public sbom'),
  ownSignature: makeReferrer(image, signature, 'own signature'),
  ownSbom: makeReferrer(image, sbom, 'own sbom'),
}
type Attached = keyof typeof attached

const launch: Launch = await findRegistry(console.error)
const kinds = await referrersRegistries(launch, console.error)
let hub: Registry
let cache: Registry
let plain: Registry

const attach = async (url: string, ...which: Attached[]) => {
  for (const one of which) await push(url, name, attached[one].digest, attached[one])
}
/** Pushes an index under the referrers tag, as clients do if a registry has no referrers API. */
const attachByTag = async (url: string, ...which: Attached[]) => {
  await attach(url, ...which)
  const manifests = which.map((one) => {
    const { mediaType, digest, manifest } = attached[one]
    return { mediaType, digest, size: manifest.length, artifactType: JSON.parse(manifest).artifactType }
  })
  const body = JSON.stringify({ schemaVersion: 2, mediaType: indexType, manifests })
  const reply = await send(url, 'PUT', `/v2/${name}/manifests/${tag}`, { headers: { 'Content-Type': indexType }, body })
  assert.equal(reply.status, 201)
}
const namesIn = ({ status, headers, json }: Reply) => {
  assert.deepEqual([status, headers['content-type']], [200, indexType])
  const { schemaVersion, mediaType, manifests } = json()
  assert.deepEqual([schemaVersion, mediaType], [2, indexType])
  return manifests.map(({ digest }: { digest: string }) => nameOf(digest)).sort()
}
const nameOf = (digest: string) => Object.entries(attached).find(([, one]) => one.digest === digest)?.[0]

before(async () => {
  const folder = temporaryFolder()
  hub = await launch({ name: 'hub', folder })
  plain = await launch({ name: 'plain', folder })
  cache = await launch({ name: 'cache', folder, proxyOf: hub.url })
  for (const { url } of [hub, plain]) await push(url, name, '1', image)
  await attachByTag(hub.url, 'publicSignature', 'publicSbom')
})
/** Closes what a failed test leaves open. */
const unclosed = new Set<() => Promise<void>>()
after(async () => {
  await closeAll()
  for (const close of unclosed) await close()
  for (const registry of [hub, plain, cache]) await registry?.stop()
})

for (const [kind, begin] of Object.entries(kinds)) {
  /** A router whose hosted registry has the referrers API. */
  const withApi = async (proxy: Pick<ReferrersRegistry, 'host'>, environment: Record<string, string> = {}) => {
    const hosted = await begin()
    await push(hosted.url, name, '1', image)
    const router = await startRouter(way, { HOSTED_HOSTNAME: hosted.host, PROXY_HOSTNAME: proxy.host, ...environment })
    const close = async () => {
      unclosed.delete(close)
      await router.stop()
      await hosted.stop()
    }
    unclosed.add(close)
    return { hosted, router, url: router.url, close }
  }

  test(`${kind}: hosted's referrers and those under the cache's referrers tag are merged into one list`, async () => {
    const { hosted, url, close } = await withApi(cache)
    await attach(hosted.url, 'ownSignature', 'ownSbom')
    const all = await send(url, 'GET', path)
    assert.deepEqual(namesIn(all), ['ownSbom', 'ownSignature', 'publicSbom', 'publicSignature'])
    assert.equal(all.headers['oci-filters-applied'], undefined)
    const order = all.json().manifests.map(({ digest }: { digest: string }) => nameOf(digest)?.slice(0, 3))
    assert.deepEqual(order, ['pub', 'pub', 'own', 'own'], "hosted's last, since cosign looks at the last one alone")
    const some = await send(url, 'GET', `${path}?artifactType=${encodeURIComponent(sbom)}`)
    assert.deepEqual(namesIn(some), ['ownSbom', 'publicSbom'])
    assert.equal(some.headers['oci-filters-applied'], 'artifactType')
    for (const { digest } of all.json().manifests) {
      const got = await send(url, 'GET', `/v2/${name}/manifests/${digest}`, { headers: { Accept: accept } })
      assert.equal(digestOf(got.body), digest)
    }
    await close()
  })

  test(`${kind} as the proxy: its pages are followed, and what both registries have is listed once`, async () => {
    const proxy = await begin()
    await push(proxy.url, name, '1', image)
    await attach(proxy.url, 'publicSignature', 'publicSbom', 'ownSbom')
    const { hosted, url, close } = await withApi(proxy)
    await attach(hosted.url, 'ownSignature', 'ownSbom')
    assert.deepEqual(namesIn(await send(url, 'GET', path)), [
      'ownSbom',
      'ownSignature',
      'publicSbom',
      'publicSignature',
    ])
    await close()
    await proxy.stop()
  })

  test(`${kind}: an image that the proxy lacks has hosted's referrers; an image that nobody has gets an empty list`, async () => {
    const { hosted, url, close } = await withApi(cache)
    const mine = makeImage({ 'mine.txt': 'mine' })
    await push(hosted.url, 'team/mine', '1', mine)
    const referrer = makeReferrer(mine, sbom, 'mine')
    await push(hosted.url, 'team/mine', referrer.digest, referrer)
    const { manifests } = (await send(url, 'GET', `/v2/team/mine/referrers/${mine.digest}`)).json()
    assert.deepEqual([manifests.length, manifests[0].digest], [1, referrer.digest])
    assert.deepEqual((await send(url, 'GET', `/v2/team/mine/referrers/${digestOf('no')}`)).json().manifests, [])
    await close()
  })

  test(`${kind}: a name in HOSTED_NAMES has hosted's referrers only, and the proxy is not asked`, async () => {
    const { hosted, url, close } = await withApi({ host: '127.0.0.1:1' }, { HOSTED_NAMES: 'library/**' })
    await attach(hosted.url, 'ownSbom')
    assert.deepEqual(namesIn(await send(url, 'GET', path)), ['ownSbom'])
    await close()
  })

  test(`${kind}: the proxy cannot be asked: the list is a 502 with the reason, never a shorter list`, async () => {
    const { hosted, url, close } = await withApi({ host: '127.0.0.1:1' })
    await attach(hosted.url, 'ownSbom')
    const { status, json } = await send(url, 'GET', path)
    const [{ code, detail }] = json().errors
    assert.deepEqual([status, code], [502, 'UNAVAILABLE'])
    assert.deepEqual(
      detail.map((one: Record<string, unknown>) => [one.upstream, one.verdict]),
      [
        ['proxy', 'failed'],
        ['hosted', 'found'],
      ],
    )
    await close()
  })
}

test("hosted has no referrers API: its 404 reaches the client, which then finds referrers under hosted's tag", async () => {
  const router = await startRouter(way, { HOSTED_HOSTNAME: plain.host, PROXY_HOSTNAME: cache.host })
  const { status, json } = await send(router.url, 'GET', path)
  assert.equal(status, 404)
  // ORAS reads these codes as "no such repository", and would stop.
  assert.ok(!['NAME_UNKNOWN', 'MANIFEST_UNKNOWN'].includes(json().errors[0].code))
  const byTag = (reference: string) =>
    send(router.url, 'GET', `/v2/${name}/manifests/${reference}`, { headers: { Accept: accept } })
  assert.deepEqual(namesIn(await byTag(tag)), ['publicSbom', 'publicSignature'], "the proxy's, where hosted has none")
  await attachByTag(router.url, 'ownSignature')
  assert.deepEqual(namesIn(await byTag(tag)), ['ownSignature'])
  const cosign = makeImage({ 'payload.json': '{}' })
  await push(router.url, name, `${tag}.sig`, cosign)
  assert.equal(digestOf((await byTag(`${tag}.sig`)).body), cosign.digest)
  await router.stop()
})

const index = (...manifests: object[]) => JSON.stringify({ schemaVersion: 2, mediaType: indexType, manifests })
const listing = (body: string, headers = {}) => answer(200, { 'Content-Type': indexType, ...headers }, body)
const empty = listing(index())
const loop = listing(index({ digest: image.digest }), { Link: `<${path}?page=1>; rel="next"` })
const unasked = answer(500)
/** Runs `script`, but serves a web page for people at `page`. */
const leadsTo =
  (page: string, script: Script): Script =>
  (request, ...rest) =>
    (request.url === page ? answer(200, { 'Content-Type': 'text/html' }, '<html>') : script)(request, ...rest)
/** A list whose first page links to a second page. `gone` answers the second page. */
const lastPageGone =
  (gone: Script): Script =>
  (request, ...rest) =>
    (request.url?.includes('page=1') ? gone : request.url?.includes('/referrers/') ? loop : answer(404))(
      request,
      ...rest,
    )

/** Nobody listens there. */
const nowhere = 'http://127.0.0.1:1/x'

/** What goes wrong, the scripts of proxy and hosted, and the status code and error code that the client gets. */
const troubles: [what: string, proxy: Script, hosted: Script, status: number, code: string][] = [
  ['the proxy fails', answer(503), empty, 502, 'UNAVAILABLE'],
  ['the proxy limits the rate', answer(429, { 'Retry-After': '7' }), empty, 429, 'TOOMANYREQUESTS'],
  ...[404, 400, 403, 405].map((statusCode): (typeof troubles)[number] => [
    `the proxy has no API (${statusCode}), and its tag cannot be read`,
    (request, response, recorded) => {
      const script = request.url?.includes('/referrers/') ? answer(statusCode) : answer(503)
      script(request, response, recorded)
    },
    empty,
    502,
    'UNAVAILABLE',
  ]),
  ['the proxy sends something that is not a list', listing('{}'), empty, 502, 'UNAVAILABLE'],
  ['the proxy redirects everything to nowhere', answer(307, { Location: nowhere }), empty, 502, 'UNAVAILABLE'],
  [
    'the proxy redirects everything to its page for logins',
    leadsTo('/login', answer(307, { Location: '/login' })),
    empty,
    502,
    'UNAVAILABLE',
  ],
  ['the proxy redirects without a usable Location', answer(302), empty, 502, 'UNAVAILABLE'],
  ['hosted lists something that is not a descriptor', empty, listing('{"manifests":[null]}'), 502, 'UNAVAILABLE'],
  [
    'hosted links to a next page at another path',
    empty,
    listing(index(), { Link: `<${path}/2>; rel="next"` }),
    502,
    'UNAVAILABLE',
  ],
  [
    'the proxy breaks in the middle',
    (_, response) => {
      response.writeHead(200, { 'Content-Length': 100 })
      response.write('{', () => response.destroy())
    },
    empty,
    502,
    'UNAVAILABLE',
  ],
  ...[404, 403, 302].map((gone): (typeof troubles)[number] => [
    `the proxy says ${gone} to the second page`,
    lastPageGone(answer(gone, { Location: nowhere })),
    empty,
    502,
    'UNAVAILABLE',
  ]),
  ['hosted says 404 to the second page', empty, lastPageGone(answer(404)), 502, 'UNAVAILABLE'],
  ['the proxy links to next pages without end', loop, empty, 502, 'UNAVAILABLE'],
  [
    'the proxy lists more than 8 MiB in all',
    (request, response, recorded) => {
      const next = { Link: `<${path}?page=${Number(/page=(\d+)/.exec(request.url ?? '')?.[1] ?? 0) + 1}>; rel="next"` }
      const last = request.url?.includes('page=3')
      listing(index() + ' '.repeat(3 * 1024 * 1024), last ? {} : next)(request, response, recorded)
    },
    empty,
    502,
    'UNAVAILABLE',
  ],
  ['the proxy lists more than 4 MiB in a page', listing(' '.repeat(5 * 1024 * 1024)), empty, 502, 'UNAVAILABLE'],
  ['hosted fails', empty, answer(503), 502, 'UNAVAILABLE'],
  ['hosted limits the rate', empty, answer(429), 429, 'TOOMANYREQUESTS'],
  ['hosted wants a login', unasked, answer(401, { 'WWW-Authenticate': 'Basic realm="team"' }), 401, 'UNAUTHORIZED'],
  ['hosted refuses', unasked, answer(403), 403, 'DENIED'],
  ['hosted links to next pages without end', empty, loop, 502, 'UNAVAILABLE'],
  [
    'hosted links to next pages without end, with more than rel in each Link',
    empty,
    listing(index(), { Link: `<${path}?page=1>; title="a, b"; rel="last next"` }),
    502,
    'UNAVAILABLE',
  ],
]
test('a list that cannot be complete is an error, never a shorter list', async (t) => {
  const router = await between(unasked, unasked)
  for (const [what, proxy, hosted, status, code] of troubles) {
    await t.test(`${what}: ${status} ${code}`, async () => {
      Object.assign(router.now, { proxy, hosted })
      const reply = await send(router.url, 'GET', path)
      assert.deepEqual([reply.status, reply.json().errors[0].code], [status, code])
      assert.equal(reply.headers['www-authenticate'], status === 401 ? 'Basic realm="team"' : undefined)
    })
  }
  await router.close()
})

test('a referrer that both list appears once, where hosted lists it: last; an empty artifactType is no filter', async () => {
  const [a, b] = [{ digest: digestOf('a') }, { digest: digestOf('b') }]
  const router = await between(listing(index(a, b)), listing(index(a)))
  for (const query of ['', '?artifactType=']) {
    const { manifests } = (await send(router.url, 'GET', path + query)).json()
    assert.deepEqual(manifests, [b, a], query)
  }
  await router.close()
})

test('a list of 100 levels comes whole; one that is nested deeper is an error', async () => {
  const router = await between(empty, empty)
  for (const [levels, wanted] of [
    [97, 200],
    [98, 502],
    [1e5, 502],
  ] as const) {
    const data = '['.repeat(levels) + ']'.repeat(levels)
    router.now.hosted = listing(index({ digest: image.digest }).replace(/}(?=]}$)/, `,"data":${data}}`))
    const { status, body } = await send(router.url, 'GET', path)
    assert.deepEqual([status, body.includes(data)], [wanted, wanted === 200], `${levels}`)
  }
  await router.close()
})

test('a list that is too long does not open the breaker, because anyone who pushes can make one', async () => {
  const router = await between(empty, listing(' '.repeat(5 * 1024 * 1024)))
  for (let i = 0; i < 4; i++) assert.equal((await send(router.url, 'GET', path)).status, 502)
  router.now.hosted = empty
  assert.equal((await send(router.url, 'GET', path)).status, 200)
  await router.close()
})

test('a list of very many small referrers is accepted', async () => {
  const many = Array.from({ length: 140_000 }, (_, i) => `{"digest":"${i}"}`)
  const router = await between(listing(`{"manifests":[${many}]}`), empty)
  assert.equal((await send(router.url, 'GET', path)).json().manifests.length, many.length)
  await router.close()
})

test('the proxy denies, lacks or redirects the list: it has no referrers, since public registries deny what does not exist', async () => {
  const router = await between(unasked, listing(index({ digest: image.digest })))
  for (const status of [401, 403, 404, 302]) {
    // If a redirect leads to a web page, the router reads the referrers tag instead.
    const asked = leadsTo('/login', answer(status, { Location: '/login' }))
    router.now.proxy = (request, ...rest) => {
      const { url = '' } = request
      const script = url.includes('/manifests/') ? answer(404) : url === '/v2/' ? answer(200) : asked
      script(request, ...rest)
    }
    assert.equal((await send(router.url, 'GET', path)).json().manifests?.length, 1, `${status}`)
  }
  await router.close()
})

test('if referrers are denied, the image is asked for with every type of manifest: CNCF distribution says 404 without', async () => {
  const router = await between((request, ...rest) => {
    const isImage = request.url?.endsWith(image.digest) && request.headers.accept?.includes('image.manifest.v1+json')
    const script = isImage && !request.url?.includes('/referrers/') ? listing(image.manifest) : answer(401)
    script(request, ...rest)
  }, listing(index()))
  const { status, json } = await send(router.url, 'GET', path)
  assert.equal(status, 502)
  assert.match(json().errors[0].message, /denies the referrers of an image that it has/)
  await router.close()
})

test("a page's Link is followed only to the same list of the same registry", async () => {
  const pages: Script = (request, response, recorded) => {
    const more = { Link: `<http://127.0.0.1:1/v2/other/referrers/${image.digest}?page=2>; rel="next"` }
    const script = request.url?.includes('page=2') ? empty : listing(index({ digest: image.digest }), more)
    script(request, response, recorded)
  }
  const router = await between(answer(404), pages)
  assert.equal((await send(router.url, 'GET', path)).status, 200)
  assert.deepEqual(
    router.hosted.requests.map(({ target }) => target),
    [path, `${path}?page=2`],
  )
  await router.close()
})
