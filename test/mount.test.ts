/** Pushing what the proxy has: mounts, HEAD of its blobs, completed manifests. WAY selects the runtime. */
import assert from 'node:assert/strict'
import type { ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { after, before, type TestContext, test } from 'node:test'
import packageManifest from '../package.json' with { type: 'json' }
import { between, closeAll, inFlight } from './parts/between.ts'
import { temporaryFolder } from './parts/children.ts'
import {
  accept,
  type Blob,
  digestOf,
  digestOfStream,
  makeImage,
  makeIndex,
  noise,
  open,
  pathOf,
  pull,
  push,
  pushBlob,
  type Reply,
  send,
  withDigest,
} from './parts/client.ts'
import { findRegistry, type Registry } from './parts/registries.ts'
import { type Router, startRouter, way } from './parts/router.ts'
import { schemes, tlsIn } from './parts/schemes.ts'
import { answer, type Script } from './parts/scripted.ts'
import { until } from './parts/until.ts'

const mebibyte = 1024 * 1024

let hub: Registry
let cache: Registry
let hosted: Registry
let router: Router
const manifestType = 'application/vnd.oci.image.manifest.v1+json'
const layerType = 'application/vnd.oci.image.layer.v1.tar+gzip'
const base = makeImage({ 'base.txt': 'base', 'more.txt': 'more' })
const layer = base.blobs[1]?.digest as string

before(async () => {
  const folder = temporaryFolder()
  const launch = await findRegistry(console.error)
  hub = await launch({ name: 'hub', folder })
  hosted = await launch({ name: 'hosted', folder })
  cache = await launch({ name: 'cache', folder, proxyOf: hub.url })
  for (const name of ['library/base', 'kanarie/base', 'library/both']) await push(hub.url, name, '1', base)
  router = await another({ HOSTED_NAMES: 'kanarie/**' })
})
after(async () => {
  await closeAll()
  await router?.stop()
  for (const registry of [hub, cache, hosted]) await registry?.stop()
})

const another = (environment: Record<string, string> = {}) =>
  startRouter(way, { HOSTED_HOSTNAME: hosted.host, PROXY_HOSTNAME: cache.host, ...environment })
const mount = (name: string, digest = layer, from: string | null = 'library/base', url = router.url) =>
  send(url, 'POST', `/v2/${name}/blobs/uploads/?mount=${digest}${from === null ? '' : `&from=${from}`}`)
const holds = async (name: string, digest = layer, url = hosted.url) =>
  (await send(url, 'HEAD', `/v2/${name}/blobs/${digest}`)).status === 200

test('the proxy has a blob that hosted lacks: it is mounted, and the client uploads nothing', async () => {
  for (const name of ['team/app', 'kanarie/app']) {
    const reply = await mount(name)
    assert.equal(reply.status, 201)
    assert.equal(reply.headers.location, `/v2/${name}/blobs/${layer}`)
    assert.equal(reply.headers['docker-content-digest'], layer)
    assert.ok(await holds(name))
  }
  const metrics = (await send(router.url, 'GET', '/metrics')).body.toString()
  assert.match(metrics, /^registry_router_copies_total\{outcome="mounted"\} 2$/m)
  assert.match(metrics, /^registry_router_copied_bytes_total [1-9]/m)
})

test('hosted can mount the blob itself: the proxy is not asked', async () => {
  await push(hosted.url, 'own/base', '1', base)
  const asked = cache.lines().length
  assert.equal((await mount('own/app', layer, 'own/base')).status, 201)
  assert.equal(cache.lines().length, asked)
})

/** A cache and a hosted registry with TLS, for one test; and the settings of a router with TLS in front of them. */
async function overTls(t: TestContext): Promise<[Registry, Record<string, string>]> {
  const folder = temporaryFolder()
  const { certificate, settings } = await tlsIn(folder)
  const launch = await findRegistry(() => {})
  const securedHosted = await launch({ name: 'hosted', folder, certificate })
  const securedCache = await launch({ name: 'cache', folder, certificate, proxyOf: hub.url })
  for (const { stop } of [securedHosted, securedCache]) t.after(() => stop())
  return [securedCache, { ...settings, HOSTED_HOSTNAME: securedHosted.url, PROXY_HOSTNAME: securedCache.url }]
}

for (const scheme of schemes) {
  test(`${scheme}: an image on a base of 200 MiB is pushed: the client sends under 1 MiB, and hosted has all of it`, async (t) => {
    const bytes = 200 * mebibyte
    const big = await digestOfStream(noise(bytes, 1))
    assert.equal((await pushBlob(hub.url, 'library/large', big, noise(bytes, 1))).status, 201)
    const { blobs } = makeImage({ 'mine.txt': 'mine' })
    const [config, mine] = blobs as [Blob, Blob]
    const manifest = JSON.stringify({
      schemaVersion: 2,
      mediaType: manifestType,
      config: {
        mediaType: 'application/vnd.oci.image.config.v1+json',
        digest: config.digest,
        size: config.content.length,
      },
      layers: [
        { mediaType: layerType, digest: big, size: bytes },
        { mediaType: layerType, digest: mine.digest, size: mine.content.length },
      ],
    })
    const [ownCache, environment] = scheme === 'https' ? await overTls(t) : [cache, {}]
    const ownRouter = await another(environment)
    const idleMiB = ownRouter.peakMemory() ?? 0
    assert.equal((await mount('team/large', big, 'library/large', ownRouter.url)).status, 201)
    for (const { digest, content } of blobs) {
      assert.equal((await pushBlob(ownRouter.url, 'team/large', digest, Readable.from([content]))).status, 201)
    }
    const headers = { 'Content-Type': manifestType }
    assert.equal(
      (await send(ownRouter.url, 'PUT', '/v2/team/large/manifests/1', { headers, body: manifest })).status,
      201,
    )
    await ownCache.stop()
    assert.equal(await pull(ownRouter.url, 'team/large', digestOf(manifest)), digestOf(manifest))
    await ownCache.start()
    const grownMiB = (ownRouter.peakMemory() ?? 0) - idleMiB
    assert.ok(grownMiB < 150, `${grownMiB} MiB more than at rest`)
    await ownRouter.stop()
  })
}

/** Mounts that must not be copied from the proxy: the client gets hosted's upload session, and uploads as usual. */
const declined: [why: string, from: string | null, environment: Record<string, string>][] = [
  ['from is in HOSTED_NAMES', 'kanarie/base', {}],
  ['from is not in PROXY_NAMES', 'library/base', { PROXY_NAMES: 'mirror/**' }],
  ['COPY_LIMIT is 0', 'library/base', { COPY_LIMIT: '0' }],
  ['the blob is larger than COPY_LIMIT', 'library/base', { COPY_LIMIT: '0.00000001' }],
  ['the proxy lacks it', 'library/nothing', {}],
  ['there is no from', null, {}],
  ['from is not a valid name', '../base', {}],
  ['from is not a valid name', 'library%2F..%2Fbase', {}],
]
for (const [i, [why, from, environment]] of declined.entries()) {
  test(`${why} (from=${from}): the client gets an upload session of hosted, and uploads`, async () => {
    const needsAnother = Object.keys(environment).length > 0
    const ownRouter = needsAnother ? await another(environment) : router
    const name = `declined/${i}`
    const asked = cache.lines().length
    const opened = await mount(name, layer, from, ownRouter.url)
    assert.equal(opened.status, 202)
    assert.ok(!(await holds(name)))
    if (!/larger|lacks/.test(why)) assert.equal(cache.lines().length, asked, 'the proxy was asked')
    const body = base.blobs[1]?.content as Buffer
    assert.equal((await send(ownRouter.url, 'PUT', withDigest(pathOf(opened), layer), { body })).status, 201)
    assert.ok(await holds(name))
    if (needsAnother) await ownRouter.stop()
  })
}

const content = Buffer.from('x'.repeat(100_000))
const digest = digestOf(content)
/** Sends the first half of a blob. The test sends the second half to a response in `waiting`, or never does. */
const halves = () => {
  const waiting: ServerResponse[] = []
  const script: Script = (_, response) => {
    response.writeHead(200, { 'Content-Length': content.length })
    response.write(content.subarray(0, 50_000), () => waiting.push(response))
  }
  return { waiting, script }
}
/** A router between a scripted proxy and the real hosted. */
const halfReal = async (proxy: Script, environment: Record<string, string> = {}) => {
  const scripts = await between(proxy, answer(500), { HOSTED_HOSTNAME: hosted.host, ...environment })
  return { ...scripts, mount: (name: string) => mount(name, digest, 'library/base', scripts.url) }
}
const upload = async (url: string, opened: Reply) => {
  assert.equal(opened.status, 202)
  assert.equal((await send(url, 'PUT', withDigest(pathOf(opened), digest), { body: content })).status, 201)
}

test('a slow copy goes on after the client got an upload session instead: the blob is there later', async () => {
  const slow = halves()
  const router = await halfReal(slow.script, { WRITE_TIMEOUT: '2' })
  assert.equal((await router.mount('slow/app')).status, 202)
  assert.ok(!(await holds('slow/app', digest)))
  for (const response of slow.waiting) response.end(content.subarray(50_000))
  await until('the copy', () => holds('slow/app', digest))
  // Hosted has the blob shortly before the router gets its answer.
  await until('the copy to be counted', async () => {
    const metrics = (await send(router.url, 'GET', '/metrics')).body.toString()
    return /^registry_router_copies_total\{outcome="late"\} 1$/m.test(metrics)
  })
  await router.close()
})

test('a second mount of a blob that is just being copied: its client gets an upload session at once', async () => {
  const slow = halves()
  const router = await halfReal(slow.script)
  const first = router.mount('twice/app')
  await until('the copy', () => slow.waiting.length === 1)
  await upload(router.url, await router.mount('twice/other'))
  slow.waiting[0]?.end(content.subarray(50_000))
  assert.equal((await first).status, 201)
  assert.equal(router.proxy.requests.length, 1)
  await router.close()
})

test('SIGTERM: the router first completes a copy that goes on without its client', async () => {
  const slow = halves()
  const router = await halfReal(slow.script, { WRITE_TIMEOUT: '2' })
  assert.equal((await router.mount('stopped/app')).status, 202)
  const stopped = router.router.stop('SIGTERM')
  await until('the router to stop', () => router.router.log().some(({ message }) => message === 'draining'))
  slow.waiting[0]?.end(content.subarray(50_000))
  assert.equal(await stopped, 0)
  assert.ok(await holds('stopped/app', digest))
  await router.close(true)
})

test('the proxy says 404 after the client got its own upload session: the session of the copy is cancelled', async () => {
  const late: ServerResponse[] = []
  const router = await between(
    (_, response) => late.push(response),
    answer(202, { Location: '/v2/a/blobs/uploads/1' }),
    { WRITE_TIMEOUT: '2' },
  )
  assert.equal((await mount('a', digest, 'library/base', router.url)).status, 202)
  late[0]?.writeHead(404).end()
  await until('the session to be ended', () => router.hosted.requests.some(({ method }) => method === 'DELETE'))
  await router.close()
})

const troubles: [what: string, script: Script, reason?: string][] = [
  [
    'sends other bytes',
    answer(200, { 'Content-Length': content.length }, 'y'.repeat(content.length)),
    'gave another digest',
  ],
  [
    'breaks in the middle',
    (_, response) => {
      response.writeHead(200, { 'Content-Length': content.length })
      response.write(content.subarray(0, 50_000), () => response.destroy())
    },
    'broke off',
  ],
  ['stands still in the middle', halves().script],
]
test('a copy that fails stores nothing: the client gets a new upload session, and uploads', async (t) => {
  const router = await halfReal(answer(404), { IDLE_TIMEOUT: '0.5' })
  for (const [i, [what, script, reason]] of troubles.entries()) {
    await t.test(`a proxy that ${what}`, async () => {
      router.now.proxy = script
      const opened = await router.mount(`trouble/${i}`)
      assert.ok(!(await holds(`trouble/${i}`, digest)))
      await upload(router.url, opened)
      assert.ok(await holds(`trouble/${i}`, digest))
      const metrics = (await send(router.url, 'GET', '/metrics')).body.toString()
      assert.match(metrics, new RegExp(`^registry_router_copies_total\\{outcome="failed"\\} ${i + 1}$`, 'm'))
      if (!reason) return
      const line = await until('the line', () =>
        router.router.log().find(({ name, status }) => name === `trouble/${i}` && status === 202),
      )
      const asked = line.asked as { upstream: string; reason?: string }[]
      assert.deepEqual(
        asked.filter((one) => one.reason).map((one) => [one.upstream, one.reason]),
        [['proxy', reason]],
      )
      assert.match(metrics, /^registry_router_upstream_up\{upstream="hosted"\} 1$/m)
    })
  }
  await router.close()
})

test('hosted refuses a mount: the router asks for an upload session instead; a 401 goes to the client, which may have another login', async () => {
  const challenge = 'Basic realm="team"'
  let refusal = 0
  const router = await between(answer(404), (request, ...rest) => {
    const fields = { 'WWW-Authenticate': challenge, Location: '/v2/a/blobs/uploads/1' }
    answer(request.url?.includes('from=') ? refusal : 202, fields)(request, ...rest)
  })
  for (const status of [400, 403, 404]) {
    refusal = status
    assert.equal((await mount('a', digest, 'b', router.url)).status, 202, `${status}`)
  }
  refusal = 401
  const { status, headers } = await mount('a', digest, 'b', router.url)
  assert.deepEqual([status, headers['www-authenticate']], [401, challenge])
  await router.close()
})

test('bytes with a wrong digest never reach hosted completely, even if hosted would not check them', async () => {
  const router = await between(
    answer(200, { 'Content-Length': content.length }, 'y'.repeat(content.length)),
    (request, response, recorded) => {
      const script = request.method === 'POST' ? answer(202, { Location: '/v2/a/blobs/uploads/1' }) : answer(201)
      script(request, response, recorded)
    },
  )
  assert.equal((await mount('a', digest, 'library/base', router.url)).status, 202)
  const [put] = router.hosted.requests.filter(({ method }) => method === 'PUT')
  assert.ok(!put?.complete)
  await router.close()
})

test('hosted is killed during a copy: the client gets 502, nothing partial is stored, and a second push succeeds', async () => {
  const slow = halves()
  const router = await halfReal(slow.script)
  const first = router.mount('killed/app')
  await until('the copy', () => slow.waiting.length === 1)
  await hosted.stop()
  assert.equal((await first).status, 502)
  await hosted.start()
  assert.ok(!(await holds('killed/app', digest)))
  const second = router.mount('killed/app')
  await until('the copy', () => slow.waiting.length === 2)
  slow.waiting[1]?.end(content.subarray(50_000))
  assert.equal((await second).status, 201)
  await router.close()
})

test('a client that leaves does not stop a copy that makes progress', async () => {
  const slow = halves()
  const router = await halfReal(slow.script, { WRITE_TIMEOUT: '2' })
  const request = open(router.url, 'POST', `/v2/left/app/blobs/uploads/?mount=${digest}&from=library/base`)
  request.on('error', () => {})
  request.end()
  await until('the copy', () => slow.waiting.length === 1)
  request.destroy()
  await until('the client to be gone', () => router.router.log().some(({ status }) => status === 499 || status === 201))
  slow.waiting[0]?.end(content.subarray(50_000))
  await until('the copy', () => holds('left/app', digest))
  await router.close()
})

test("the client's login goes to hosted with a copy, never to the proxy", async () => {
  const router = await between(
    answer(200, { 'Content-Length': content.length }, content.toString()),
    (request, response, recorded) => {
      const script = request.method === 'POST' ? answer(202, { Location: '/v2/a/blobs/uploads/1?x=1' }) : answer(201)
      script(request, response, recorded)
    },
  )
  const headers = { Authorization: 'Basic canary', Cookie: 'canary' }
  const path = `/v2/a/blobs/uploads/?mount=${digest}&from=library/base`
  assert.equal((await send(router.url, 'POST', path, { headers })).status, 201)
  assert.deepEqual(
    router.hosted.requests.map(({ method, target, headers }) => [method, target, headers.authorization]),
    [
      ['POST', path, 'Basic canary'],
      ['PUT', `/v2/a/blobs/uploads/1?x=1&digest=${digest}`, 'Basic canary'],
    ],
  )
  const [asked] = router.proxy.requests
  assert.deepEqual([asked?.target, asked?.headers.authorization], [`/v2/library/base/blobs/${digest}`, undefined])
  assert.ok(!JSON.stringify(router.proxy.requests).includes('canary'))
  await router.close()
})

test("User-Agent: the client's, then this router's; only this router's for pings of the proxy, copies and clients that send none", async () => {
  const own = `combined-registry/${packageManifest.version}`
  const docker = 'docker/28.2 go/1.24 (linux)'
  const router = await between(
    (request, ...rest) => (request.url?.includes('/manifests/') ? hasAll : hasLayer)(request, ...rest),
    (request, ...rest) => {
      const opened = request.method === 'POST' ? [202, { Location: '/v2/a/blobs/uploads/1' }] : [201]
      answer(...(opened as [number]))(request, ...rest)
    },
  )
  for (const [method, path, given, ...wanted] of [
    ['GET', '/v2/a/manifests/1', docker, [`${docker} ${own}`], []],
    ['GET', '/v2/b/manifests/1', undefined, [own], []],
    ['DELETE', '/v2/a/manifests/1', docker, [], [`${docker} ${own}`]],
    ['GET', '/v2/', docker, [own], [`${docker} ${own}`]],
    ['GET', '/healthcheck', docker, [own], [own]],
    ['POST', `/v2/a/blobs/uploads/?mount=${digest}&from=library/base`, docker, [own], [`${docker} ${own}`, own]],
  ] as const) {
    await send(router.url, method, path, { headers: given ? { 'User-Agent': given } : {} })
    const got = [router.proxy, router.hosted].map(({ requests }) =>
      requests.splice(0).map(({ headers }) => headers['user-agent']),
    )
    assert.deepEqual(got, wanted, `${method} ${path}`)
  }
  await router.close()
})

const head = (url: string, name: string, blob = layer) => send(url, 'HEAD', `/v2/${name}/blobs/${blob}`)
const read = (url: string, name: string, reference = '1') =>
  send(url, 'GET', `/v2/${name}/manifests/${reference}`, { headers: { Accept: accept } })

/** A registry that has everything it is asked for. */
const hasAll: Script = (request, ...rest) =>
  (request.url?.includes('/blobs/') ? answer(200, { 'Content-Length': 5 }) : answer(200, {}, '{"schemaVersion":2}'))(
    request,
    ...rest,
  )

test('hosted refuses a manifest because of a layer with urls: HEAD then says 404, so that a second push uploads the layer', async () => {
  const digest = digestOf('hello')
  const refusal = answer(400, {}, '{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}')
  const router = await between(hasAll, (request, ...rest) => {
    return (request.method === 'PUT' ? refusal : answer(404))(request, ...rest)
  })
  await read(router.url, 'library/base')
  assert.equal((await head(router.url, 'library/base', digest)).status, 200)
  const body = JSON.stringify({ layers: [{ digest, size: 5, urls: ['https://x.example/'] }] })
  assert.equal((await send(router.url, 'PUT', '/v2/library/base/manifests/2', { body })).status, 400)
  assert.equal((await head(router.url, 'library/base', digest)).status, 404)
  await router.close()
})

test('hosted refuses a write: it does not count as a push, and HEAD of a public blob stays as before', async () => {
  const router = await between(hasAll, answer(404))
  for (const [refusal, wanted] of [
    [404, 200],
    [429, 200],
    [503, 200],
    [202, 404],
  ] as const) {
    router.now.hosted = answer(404)
    assert.equal((await read(router.url, 'library/base')).status, 200)
    router.now.hosted = answer(refusal)
    assert.equal((await send(router.url, 'POST', '/v2/library/base/blobs/uploads/')).status, refusal)
    router.now.hosted = answer(404)
    await read(router.url, 'library/base')
    assert.equal((await head(router.url, 'library/base')).status, wanted, `${refusal}`)
  }
  await router.close()
})

test('HEAD of a blob that hosted lacks: where the proxy lately served a manifest of the name, its 200 counts', async () => {
  const ownRouter = await another()
  assert.equal((await head(ownRouter.url, 'library/base')).status, 404)
  assert.equal((await read(ownRouter.url, 'library/base')).status, 200)
  const { status, headers } = await head(ownRouter.url, 'library/base')
  assert.deepEqual([status, headers['content-length']], [200, `${base.blobs[1]?.content.length}`])
  assert.equal((await head(ownRouter.url, 'library/base', digestOf('nothing'))).status, 404)
  assert.equal((await head(ownRouter.url, 'library/both')).status, 404, 'another name')
  await ownRouter.stop()
})

test('a downstream cache that needs longer than LOOKUP_TTL for its layers: HEAD finds all of them', async () => {
  const ownRouter = await another({ LOOKUP_TTL: '2' })
  await push(hub.url, 'library/long', '1', base)
  assert.equal(await pull(ownRouter.url, 'library/long', '1'), base.digest)
  // Each HEAD is within LOOKUP_TTL of the one before; all together take longer.
  for (let i = 0; i < 12; i++) {
    assert.equal(await holds('library/long', layer, ownRouter.url), true, `layer ${i}`)
    await new Promise((resolve) => setTimeout(resolve, 250))
  }
  await ownRouter.stop()
})

test('after a write in a name, HEAD of its blobs asks hosted only', async () => {
  const ownRouter = await another()
  await read(ownRouter.url, 'library/both')
  await send(ownRouter.url, 'POST', '/v2/library/both/blobs/uploads/')
  assert.equal((await head(ownRouter.url, 'library/both')).status, 404)
  await read(ownRouter.url, 'library/both')
  assert.equal((await head(ownRouter.url, 'library/both')).status, 404)
  await ownRouter.stop()
})

test('LOOKUP_TTL=0: HEAD of a blob asks hosted alone', async () => {
  const ownRouter = await another({ LOOKUP_TTL: '0' })
  await read(ownRouter.url, 'library/base')
  assert.equal((await head(ownRouter.url, 'library/base')).status, 404)
  await ownRouter.stop()
})

test('pulled, then pushed under the same name: hosted has the whole image, even if HEAD found its layers at the proxy', async () => {
  const ownRouter = await another()
  assert.equal(await pull(ownRouter.url, 'library/base', '1'), base.digest)
  const mine = makeImage({ 'base.txt': 'base', 'mine.txt': 'mine' })
  await push(ownRouter.url, 'library/base', '2', mine)
  await cache.stop()
  assert.equal(await pull(hosted.url, 'library/base', '2'), mine.digest)
  await cache.start()
  await ownRouter.stop()
})

test('pulled, then pushed under the same name, but its layers may not be copied: a second push uploads them', async () => {
  const ownRouter = await another({ COPY_LIMIT: '0' })
  await push(hub.url, 'library/again', '1', base)
  assert.equal(await pull(ownRouter.url, 'library/again', '1'), base.digest)
  await assert.rejects(push(ownRouter.url, 'library/again', '2', base), /MANIFEST_BLOB_UNKNOWN/)
  await push(ownRouter.url, 'library/again', '2', base)
  assert.equal(await pull(hosted.url, 'library/again', '2'), base.digest)
  await ownRouter.stop()
})

test('hosted refuses a manifest because of a blob that nobody has: the client gets this refusal unchanged', async () => {
  const lost = makeImage({ 'lost.txt': 'lost' })
  const put = (url: string) =>
    send(url, 'PUT', '/v2/team/lost/manifests/1', { headers: { 'Content-Type': lost.mediaType }, body: lost.manifest })
  const [direct, through] = [await put(hosted.url), await put(router.url)]
  assert.equal(through.status, direct.status)
  assert.equal(through.body.toString(), direct.body.toString())
})

test('hosted refuses an index because of missing manifests: they are copied from the proxy with their layers', async () => {
  const name = 'library/many'
  const images = { amd64: makeImage({ 'many.txt': 'amd64' }), arm64: makeImage({ 'many.txt': 'arm64' }, 'arm64') }
  for (const image of Object.values(images)) await push(hub.url, name, image.digest, image)
  const mine = makeImage({ 'mine.txt': 'riscv64' }, 'riscv64')
  const more = makeIndex({ ...images, riscv64: mine })
  await push(router.url, name, mine.digest, mine)
  await push(router.url, name, 'more', more)
  await cache.stop()
  assert.equal(await pull(hosted.url, name, 'more'), more.digest)
  await cache.start()
  const lost = makeIndex({ amd64: makeImage({ 'lost.txt': 'lost' }) })
  const headers = { 'Content-Type': lost.mediaType }
  const refused = await send(router.url, 'PUT', `/v2/${name}/manifests/lost`, { headers, body: lost.manifest })
  assert.deepEqual([refused.status, refused.json().errors[0].code], [400, 'MANIFEST_BLOB_UNKNOWN'])
})

test('a name in HOSTED_NAMES: a refused manifest is not completed from the proxy', async () => {
  const asked = cache.lines().length
  const headers = { 'Content-Type': base.mediaType }
  const reply = await send(router.url, 'PUT', '/v2/kanarie/refused/manifests/1', { headers, body: base.manifest })
  assert.equal(reply.json().errors[0].code, 'MANIFEST_BLOB_UNKNOWN')
  assert.equal(cache.lines().length, asked)
})

const manifestOf = (layers: unknown) => JSON.stringify({ schemaVersion: 2, mediaType: manifestType, layers })
const put = (url: string, body: string) =>
  send(url, 'PUT', '/v2/a/manifests/1', { headers: { 'Content-Type': manifestType }, body })
const lacksBlob = '{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}'
const refused = (body: string | Buffer = lacksBlob): Script => {
  return (request, response) => {
    request.resume().on('end', () => response.writeHead(400, { 'Content-Length': body.length }).end(body))
  }
}
/** A hosted registry that refuses the first manifest because of a missing layer, and runs `second` for later ones. */
function lacks(second: Script, read: Script = answer(404)): Script {
  let puts = 0
  return (request, response, recorded) => {
    const { method, url = '' } = request
    const manifest = () => (method === 'PUT' ? (puts++ ? second : refused()) : read)
    const blob = () => (method === 'POST' ? answer(202, { Location: '/v2/a/blobs/uploads/1' }) : answer(404))
    const script = url.includes('/manifests/') ? manifest() : method === 'PUT' ? answer(201) : blob()
    script(request, response, recorded)
  }
}
const hasLayer = answer(200, { 'Content-Length': content.length }, content.toString('latin1'))

test('hosted refuses a manifest as MANIFEST_INVALID: a layer may be missing, so the router completes it all the same', async () => {
  const invalid = '{"errors":[{"code":"MANIFEST_INVALID"}]}'
  let puts = 0
  const hosted = lacks(answer(201))
  const router = await between(
    (request, ...rest) => (request.url?.includes('/blobs/') ? hasLayer : answer(404))(request, ...rest),
    (request, ...rest) => {
      const isFirst = request.method === 'PUT' && request.url?.includes('/manifests/') && puts++ === 0
      ;(isFirst ? refused(invalid) : request.method === 'PUT' && puts > 1 ? answer(201) : hosted)(request, ...rest)
    },
  )
  const layers = [
    { mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: digestOf(content), size: content.length },
  ]
  assert.equal((await put(router.url, manifestOf(layers))).status, 201)
  assert.equal(puts, 2)
  await router.close()
})

test('a read that began while a manifest is completed is not shared with a read that began after the push', async () => {
  const [puts, gets]: [ServerResponse[], ServerResponse[]] = [[], []]
  const router = await between(
    (request, ...rest) => (request.url?.includes('/blobs/') ? hasLayer : answer(404))(request, ...rest),
    lacks(
      (request, response) => request.resume().on('end', () => puts.push(response)),
      (_, response) => gets.push(response),
    ),
  )
  const pushed = put(router.url, manifestOf([{ digest }]))
  await until('the manifest to come again', () => puts.length === 1)
  const before = send(router.url, 'GET', '/v2/a/manifests/1')
  await until('hosted to be asked', () => gets.length === 1)
  puts[0]?.writeHead(201).end()
  assert.equal((await pushed).status, 201)
  const after = send(router.url, 'GET', '/v2/a/manifests/1')
  await until('hosted to be asked again', () => gets.length === 2)
  const manifests = ['old', 'new'].map((name) => `{"schemaVersion":2,"name":"${name}"}`)
  for (const [i, response] of gets.entries()) response.writeHead(200).end(manifests[i])
  assert.deepEqual([(await before).body.toString(), (await after).body.toString()], manifests)
  await router.close()
})

test('a layer that cannot be copied for a manifest leaves no upload session behind', async () => {
  for (const environment of [{}, { COPY_LIMIT: '0' }] as Record<string, string>[]) {
    const router = await between(answer(404), lacks(answer(201)), environment)
    assert.equal((await put(router.url, manifestOf([{ digest }]))).status, 400)
    const requestCount = (wanted: string) => router.hosted.requests.filter(({ method }) => method === wanted).length
    await until('every session to be ended', () => requestCount('DELETE') === requestCount('POST'))
    assert.equal(requestCount('POST'), 'COPY_LIMIT' in environment ? 0 : 1)
    await router.close()
  }
})

/** A proxy that answers no request for a blob until `giveAll` is called, and every request from then on. */
const holdsBack = (blobs: Buffer[]) => {
  const asked: string[] = []
  const waiting: (() => void)[] = []
  let isOpen = false
  const script: Script = ({ url = '' }, response) => {
    const blob = blobs.find((one) => url.endsWith(digestOf(one))) as Buffer
    asked.push(url)
    waiting.push(() => response.writeHead(200, { 'Content-Length': blob.length }).end(blob))
    if (isOpen) waiting.pop()?.()
  }
  const giveAll = () => {
    isOpen = true
    for (const give of waiting.splice(0)) give()
  }
  return { asked, script, giveAll }
}
const pushLayer = (url: string, name: string, blob: Buffer) => {
  const part = { mediaType: layerType, digest: digestOf(blob), size: blob.length }
  const body = JSON.stringify({ schemaVersion: 2, mediaType: manifestType, config: part, layers: [part] })
  return send(url, 'PUT', `/v2/${name}/manifests/1`, { headers: { 'Content-Type': manifestType }, body })
}
const nineLayers = Array.from({ length: 9 }, (_, i) => Buffer.from(`layer ${i}`))

test('pushes at the same time with the same missing layer, or with more layers than are copied at a time: the copies wait', async () => {
  const proxy = holdsBack(nineLayers)
  const router = await halfReal(proxy.script)
  // The pushes arrive in any order. If both of the first layer come last, the second asks only after the first.
  const pushed = [...nineLayers, nineLayers[0] as Buffer].map((blob, i) => pushLayer(router.url, `at-once/${i}`, blob))
  await until('as many copies as there may be', () => proxy.asked.length === 8)
  proxy.giveAll()
  for (const { status } of await Promise.all(pushed)) assert.equal(status, 201)
  assert.equal(proxy.asked.length, 10)
  await router.close()
})

test('two pushes with the same missing layer, while all places for copies are taken: the second copies after the first', async () => {
  const proxy = holdsBack(nineLayers)
  const router = await halfReal(proxy.script)
  const eight = nineLayers.slice(1).map((blob, i) => pushLayer(router.url, `turns/${i}`, blob))
  await until('as many copies as there may be', () => proxy.asked.length === 8)
  const two = ['turns/first', 'turns/second'].map((name) => pushLayer(router.url, name, nineLayers[0] as Buffer))
  await until('both to wait', async () => (await inFlight(router.url)) === 10)
  proxy.giveAll()
  for (const { status } of await Promise.all([...eight, ...two])) assert.equal(status, 201)
  assert.equal(proxy.asked.length, 10)
  await router.close()
})

test('a manifest names the same layer many times: hosted is asked once', async () => {
  const router = await between(hasLayer, lacks(answer(201)))
  await put(router.url, manifestOf(Array.from({ length: 50 }, () => ({ digest }))))
  assert.equal(router.hosted.requests.filter(({ method }) => method === 'HEAD').length, 1)
  await router.close()
})

test('a layer with urls may be missing in a registry, and is not copied', async () => {
  const router = await between(hasLayer, lacks(answer(201)))
  const foreign = { digest: digestOf('foreign'), urls: ['https://foreign.example/layer'] }
  assert.equal((await put(router.url, manifestOf([foreign, { digest }]))).status, 201)
  assert.deepEqual(
    router.proxy.requests.map(({ target }) => target),
    [`/v2/a/blobs/${digest}`],
  )
  await router.close()
})

test('hosted does not answer a completed manifest: 504 within WRITE_TIMEOUT', async () => {
  const router = await between(
    hasLayer,
    lacks((request) => request.resume()),
    { WRITE_TIMEOUT: '0.3' },
  )
  assert.equal((await put(router.url, manifestOf([{ digest }]))).status, 504)
  await router.close()
})

test("the client gets hosted's refusal of a manifest unchanged, whatever the manifest or the refusal contains", async () => {
  const latin = Buffer.from('r\xe9fus\xe9: BLOB_UNKNOWN', 'latin1')
  const worded = Buffer.from(lacksBlob)
  const router = await between(answer(404), answer(404))
  for (const refusal of [latin, worded]) {
    router.now.hosted = refused(refusal)
    for (const layers of [null, [null], 'none', undefined, [{}]]) {
      const reply = await put(router.url, manifestOf(layers))
      assert.deepEqual([reply.status, reply.body], [400, refusal])
    }
  }
  await router.close()
})
