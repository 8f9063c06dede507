/**
 * The whole router between real registries, with real clients. Scripted upstreams stand in only if a test must see the
 * bytes sent, or needs a fault on demand. WAY selects how to run it: node, bun, deno or binary.
 */
import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { after, before, type TestContext, test } from 'node:test'
import { between, closeAll } from './parts/between.ts'
import { run, start, temporaryFolder } from './parts/children.ts'
import * as client from './parts/client.ts'
import { accept, digestOf, download, makeImage, makeIndex, noise, pathOf, pull, push, send } from './parts/client.ts'
import { startNginx } from './parts/nginx.ts'
import { program } from './parts/packages.ts'
import { findRegistry, freePort, type Registry } from './parts/registries.ts'
import { type Router, startRouter, way } from './parts/router.ts'
import { schemes, tlsIn } from './parts/schemes.ts'
import { answer, type Script } from './parts/scripted.ts'
import { until } from './parts/until.ts'

const mebibyte = 1024 * 1024
/** Bytes of the big layer: more than the memory that the test allows. */
const bigBytes = Number(process.env.BIG_MIB ?? 256) * mebibyte

const skopeo = await program(['skopeo'], 'skopeo', console.error)
if (!skopeo && process.env.CI === 'true') throw new Error('skopeo is missing')
const nginx = await program(['nginx'], 'nginx', console.error)
if (!nginx && process.env.CI === 'true') throw new Error('nginx is missing')
const needsNginx = { skip: nginx ? false : 'NGINX IS MISSING: install it to run this test' }
const needsSkopeo = { skip: skopeo ? false : 'SKOPEO IS MISSING: install it to run this test' }

let folder: string
let hub: Registry
let cache: Registry
let hosted: Registry
let router: Router

const hello = makeImage({ 'hello.txt': 'hello', 'world.txt': 'world', 'more.txt': 'more' })
const helloArm = makeImage({ 'hello.txt': 'hello, arm' }, 'arm64')
const helloIndex = makeIndex({ amd64: hello, arm64: helloArm })
const depths = ['one', 'one/two', 'one/two/three', 'a/b/c/d', 'a/b/c/d/e']

before(async () => {
  folder = temporaryFolder()
  const launch = await findRegistry(console.error)
  hub = await launch({ name: 'hub', folder })
  hosted = await launch({ name: 'hosted', folder })
  cache = await launch({ name: 'cache', folder, proxyOf: hub.url })
  for (const image of [hello, helloArm]) await push(hub.url, 'library/hello', image.digest, image)
  await push(hub.url, 'library/hello', 'latest', helloIndex)
  for (const name of depths) await push(hub.url, `public/${name}`, 'v1', hello)
  const hosts = { HOSTED_HOSTNAME: hosted.host, PROXY_HOSTNAME: cache.host }
  router = await startRouter(way, { ...hosts, HOSTED_NAMES: 'kanarie/**' })
})

after(async () => {
  await closeAll()
  await router?.stop()
  for (const registry of [hub, cache, hosted]) await registry?.stop()
})

/** A router between the real registries, for tests that need other settings, or stop the router or a registry. */
const another = (environment: Record<string, string> = {}) =>
  startRouter(way, { HOSTED_HOSTNAME: hosted.host, PROXY_HOSTNAME: cache.host, ...environment })

const manifest = (name: string, reference: string, method = 'GET', url = router.url) =>
  send(url, method, `/v2/${name}/manifests/${reference}`, { headers: { Accept: accept } })

const code = (reply: client.Reply) => reply.json().errors[0].code

test('/v2/ is 200 if both registries are up, and /v2 redirects to it', async () => {
  assert.equal((await send(router.url, 'GET', '/v2/')).status, 200)
  assert.equal((await send(router.url, 'HEAD', '/v2/')).status, 200)
  const { status, headers } = await send(router.url, 'GET', '/v2')
  assert.deepEqual([status, headers.location], [301, '/v2/'])
})

test('/healthcheck, /livez and /metrics answer', async () => {
  const { url, stop } = await another()
  await send(url, 'GET', '/v2/')
  const health = await send(url, 'GET', '/healthcheck')
  assert.deepEqual([health.status, health.json()], [200, { proxy: 200, hosted: 200 }])
  assert.equal((await send(url, 'GET', '/livez')).status, 200)
  const metrics = (await send(url, 'GET', '/metrics')).body.toString()
  assert.match(metrics, /^registry_router_requests_total\{entity="base",method="GET",status="200"\} 1$/m)
  const runtime = way === 'binary' ? 'bun' : way
  assert.match(
    metrics,
    new RegExp(`^registry_router_build_info\\{version="[^"]+",runtime="${runtime} [^"]+"\\} 1$`, 'm'),
  )
  await stop()
})

test('a public image of two architectures: HEAD by tag, pulls by tag and by digest', async () => {
  const head = await manifest('library/hello', 'latest', 'HEAD')
  assert.equal(head.status, 200)
  assert.equal(head.headers['docker-content-digest'], helloIndex.digest)
  assert.equal(head.headers['content-length'], `${helloIndex.manifest.length}`)
  assert.equal(head.headers['content-type'], helloIndex.mediaType)
  assert.equal(await pull(router.url, 'library/hello', 'latest'), helloIndex.digest)
  assert.equal(await pull(router.url, 'library/hello', hello.digest), hello.digest)
})

for (const depth of depths) {
  test(`names of ${depth.split('/').length} components: public images pull, private images push and pull`, async () => {
    assert.equal(await pull(router.url, `public/${depth}`, 'v1'), hello.digest)
    const mine = makeImage({ 'mine.txt': depth })
    await push(router.url, depth, 'v1', mine)
    assert.equal(await pull(router.url, depth, 'v1'), mine.digest)
    assert.equal(await pull(router.url, depth, mine.digest), mine.digest)
    assert.equal(await pull(hosted.url, depth, mine.digest), mine.digest)
    assert.equal((await manifest(depth, 'v1', 'HEAD')).status, 200)
    assert.equal((await manifest(depth, mine.digest, 'HEAD')).status, 200)
  })
}

test('a manifest or blob that neither registry has: 404, in JSON for GET, by tag and by digest', async () => {
  const missing = digestOf('missing')
  for (const reference of ['v1', missing]) {
    const reply = await manifest('no/such', reference)
    assert.deepEqual([reply.status, code(reply)], [404, 'MANIFEST_UNKNOWN'])
    assert.equal((await manifest('no/such', reference, 'HEAD')).status, 404)
  }
  const blob = await send(router.url, 'GET', `/v2/no/such/blobs/${missing}`)
  assert.deepEqual([blob.status, code(blob)], [404, 'BLOB_UNKNOWN'])
  assert.equal((await send(router.url, 'HEAD', `/v2/no/such/blobs/${missing}`)).status, 404)
})

test('a name in HOSTED_NAMES: no request of any kind reaches the cache', async () => {
  const name = 'kanarie/app'
  const image = makeImage({ 'private.txt': 'private' })
  const { digest } = image.blobs[1] as client.Blob
  const missing = digestOf('missing')
  await push(router.url, name, 'v1', image)
  assert.equal(await pull(router.url, name, 'v1'), image.digest)
  const tries: [method: string, path: string, status: number][] = [
    ['HEAD', `${name}/manifests/v1`, 200],
    ['GET', `${name}/manifests/none`, 404],
    ['GET', `${name}/manifests/${missing}`, 404],
    ['HEAD', `${name}/blobs/${digest}`, 200],
    ['HEAD', `${name}/blobs/${missing}`, 404],
    ['GET', `${name}/blobs/${missing}`, 404],
    ['GET', `${name}/tags/list`, 200],
    ['GET', `${name}/referrers/${image.digest}`, 404],
    ['POST', `team/other/blobs/uploads/?mount=${missing}&from=${name}`, 202],
    ['POST', `${name}/blobs/uploads/?mount=${missing}&from=team/other`, 202],
    ['DELETE', `${name}/manifests/${image.digest}`, 202],
  ]
  for (const [method, path, status] of tries) {
    const headers = { Accept: accept }
    assert.equal((await send(router.url, method, `/v2/${path}`, { headers })).status, status, `${method} ${path}`)
  }
  const { order } = (await send(router.url, 'GET', `/explain?image=${name}:v1`)).json()
  assert.deepEqual(order, ['hosted'])
  assert.ok(cache.lines().length > 0 && !cache.lines().join('\n').includes(name))
})

test('HEAD of a blob says what hosted has, not what the cache has', async () => {
  const [layer] = hello.blobs
  await push(hub.url, 'public/unread', 'v1', hello)
  assert.equal((await send(router.url, 'HEAD', `/v2/public/unread/blobs/${layer?.digest}`)).status, 404)
  await push(router.url, 'team/headed', 'v1', hello)
  const head = await send(router.url, 'HEAD', `/v2/team/headed/blobs/${layer?.digest}`)
  assert.deepEqual([head.status, head.headers['content-length']], [200, `${layer?.content.length}`])
})

test('skopeo copies a public image of many architectures to a folder', needsSkopeo, async () => {
  const to = join(folder, 'copied')
  const from = `docker://${router.host}/library/hello:latest`
  await run(['skopeo', '--insecure-policy', 'copy', '--all', '--src-tls-verify=false', from, `dir:${to}`])
  const inspected = await run(['skopeo', 'inspect', '--raw', `dir:${to}`])
  assert.equal(digestOf(inspected), helloIndex.digest)
})

test('skopeo copies a public image to a private name and back, by tag and by digest', needsSkopeo, async () => {
  const insecure = ['--insecure-policy', 'copy', '--all', '--src-tls-verify=false', '--dest-tls-verify=false']
  const mine = `docker://${router.host}/team/proj/deep/app`
  const layout = `oci:${join(folder, `layout-${way}`)}:v1`
  await run(['skopeo', ...insecure, `docker://${router.host}/library/hello:latest`, `${mine}:v1`])
  await run(['skopeo', ...insecure, `${mine}:v1`, layout])
  await run(['skopeo', ...insecure, `${mine}@${helloIndex.digest}`, layout])
  await run(['skopeo', ...insecure, layout, `${mine}:v2`])
  assert.equal(await pull(router.url, 'team/proj/deep/app', 'v2'), helloIndex.digest)
})

test('tags of a private name, and the catalog page by page: each Link points to this router', async () => {
  for (const tag of ['a', 'b']) await push(router.url, 'team/tagged', tag, hello)
  const { status, json } = await send(router.url, 'GET', '/v2/team/tagged/tags/list')
  assert.deepEqual([status, json().name, json().tags.sort()], [200, 'team/tagged', ['a', 'b']])
  const seen: string[] = []
  let next = '/v2/_catalog?n=2'
  while (next) {
    const page = await send(router.url, 'GET', next)
    seen.push(...page.json().repositories)
    next = /^<([^>]+)>; rel="next"$/.exec(`${page.headers.link ?? ''}`)?.[1] ?? ''
    assert.ok(next === '' || next.startsWith('/v2/_catalog?'), next)
  }
  const whole = await send(router.url, 'GET', '/v2/_catalog?n=1000')
  assert.deepEqual(seen, whole.json().repositories)
  assert.ok(seen.includes('team/tagged') && seen.length > 3)
})

test('TAGS=lookup: an update bot sees the tags of public images and of private ones', async () => {
  const { url, stop } = await another({ TAGS: 'lookup' })
  const tags = async (name: string) => (await send(url, 'GET', `/v2/${name}/tags/list`)).json().tags
  await push(url, 'team/listed', 'a', hello)
  assert.deepEqual(await tags('library/hello'), (await send(hub.url, 'GET', '/v2/library/hello/tags/list')).json().tags)
  assert.deepEqual(await tags('team/listed'), ['a'])
  assert.equal(code(await send(url, 'GET', '/v2/team/nothing/tags/list')), 'NAME_UNKNOWN')
  await stop()
})

test('PROXY_HOSTNAME with a path: pulls, tags, signatures and mounts use the names without the path', async () => {
  const images = { v1: makeImage({ 'behind.txt': '1' }), v2: makeImage({ 'behind.txt': '2' }) }
  for (const [tag, image] of Object.entries(images)) await push(hub.url, 'mirror/hub/library/behind', tag, image)
  const { url, stop } = await another({ PROXY_HOSTNAME: `${hub.host}/mirror/hub`, TAGS: 'lookup' })
  const { digest, blobs } = images.v1
  assert.equal((await send(url, 'GET', '/v2/')).status, 200)
  for (const reference of ['v1', digest]) assert.equal(await pull(url, 'library/behind', reference), digest)
  assert.deepEqual((await send(url, 'GET', '/v2/library/behind/tags/list')).json().tags.sort(), ['v1', 'v2'])
  assert.equal((await manifest('mirror/hub/library/behind', 'v1', 'GET', url)).status, 404)
  const mount = `/v2/team/behind/blobs/uploads/?mount=${blobs[0]?.digest}&from=library/behind`
  assert.equal((await send(url, 'POST', mount)).status, 201)
  await push(url, 'team/behind', 'mine', hello)
  assert.equal(await pull(url, 'team/behind', 'mine'), hello.digest)
  const signature = images.v2.digest.replace(':', '-')
  await push(hub.url, 'mirror/hub/library/behind', `${signature}.sig`, hello)
  assert.equal(await pull(url, 'library/behind', `${signature}.sig`), hello.digest)
  await stop()
})

test('HOSTED_HOSTNAME with a path: pushes, mounts, tags, the catalog and deletes use the names without the path', async () => {
  const { url, stop } = await another({ HOSTED_HOSTNAME: `${hosted.host}/below/here` })
  const image = makeImage({ 'below.txt': 'below' })
  await push(hosted.url, 'beside/app', 'v1', image)
  const { digest } = image.blobs[1] as client.Blob
  const mounting = await send(url, 'POST', `/v2/team/other/blobs/uploads/?mount=${digest}&from=team/app`)
  assert.equal(mounting.status, 202, 'it is not there yet')
  assert.match(mounting.headers.location ?? '', /^\/v2\/team\/other\/blobs\/uploads\//)
  assert.equal((await send(url, 'DELETE', pathOf(mounting))).status, 204)
  await push(url, 'team/app', 'v1', image)
  assert.equal(await pull(url, 'team/app', 'v1'), image.digest)
  assert.equal(await pull(hosted.url, 'below/here/team/app', 'v1'), image.digest)
  const mounted = await send(url, 'POST', `/v2/team/other/blobs/uploads/?mount=${digest}&from=team%2Fapp`)
  assert.deepEqual([mounted.status, mounted.headers.location], [201, `/v2/team/other/blobs/${digest}`])
  for (const from of ['beside/app', '../../beside/app', '..%2F..%2Fbeside%2Fapp'])
    assert.equal(
      (await send(url, 'POST', `/v2/team/none/blobs/uploads/?mount=${digest}&from=${from}`)).status,
      202,
      from,
    )
  const tags = await send(url, 'GET', '/v2/team/app/tags/list')
  assert.deepEqual(tags.json(), { name: 'team/app', tags: ['v1'] })
  assert.equal(Number(tags.headers['content-length']), tags.body.length)
  assert.equal((await send(url, 'GET', '/v2/beside/app/tags/list')).status, 404)
  await push(url, 'other', 'v1', image)
  const seen: string[] = []
  for (let next: string | undefined = '/v2/_catalog?n=1'; next; ) {
    const page: client.Reply = await send(url, 'GET', next)
    seen.push(...page.json().repositories)
    next = /<([^>]+)>/.exec(`${page.headers.link ?? ''}`)?.[1]
  }
  assert.deepEqual(seen, ['other', 'team/app', 'team/other'])
  assert.equal((await send(url, 'DELETE', `/v2/team/app/manifests/${image.digest}`)).status, 202)
  assert.equal((await send(hosted.url, 'GET', '/v2/below/here/team/app/manifests/v1')).status, 404)
  await stop()
})

test('a tag is read again: hosted says 304 and sends no manifest; a moved tag gives the new manifest', async () => {
  const [first, second] = ['first', 'second'].map((text) => makeImage({ 'again.txt': text })) as [
    client.Image,
    client.Image,
  ]
  const read = async () => digestOf((await manifest('team/again', 'v1')).body)
  const statuses = () =>
    hosted.lines().flatMap((line) => {
      const [, status] = /GET .*\/again\/manifests\/v1.* http\.response\.status=(\d+)/.exec(line) ?? []
      return status ?? []
    })
  await push(hosted.url, 'team/again', 'v1', first)
  assert.deepEqual([await read(), await read()], [first.digest, first.digest])
  const wanted = process.env.LOOKUP_TTL === '0' ? '200,200' : '200,304'
  await until(`hosted to log ${wanted}`, () => statuses().join() === wanted)
  await push(hosted.url, 'team/again', 'v1', second)
  assert.deepEqual([await read(), await read()], [second.digest, second.digest])
})

test('a deleted manifest or blob is gone at once', async () => {
  const image = makeImage({ 'gone.txt': 'gone' })
  await push(router.url, 'team/gone', 'v1', image)
  assert.equal((await manifest('team/gone', image.digest, 'DELETE')).status, 202)
  assert.equal((await manifest('team/gone', image.digest)).status, 404)
  assert.equal((await manifest('team/gone', 'v1')).status, 404)
  const path = `/v2/team/gone/blobs/${image.blobs[1]?.digest}`
  assert.equal((await send(router.url, 'DELETE', path)).status, 202)
  assert.equal((await send(router.url, 'GET', path)).status, 404)
})

test('a blob of another private name is mounted without an upload', async () => {
  const image = makeImage({ 'mounted.txt': 'mounted' })
  await push(router.url, 'team/source', 'v1', image)
  const { digest } = image.blobs[1] as client.Blob
  const mounted = await send(router.url, 'POST', `/v2/team/target/blobs/uploads/?mount=${digest}&from=team%2Fsource`)
  assert.deepEqual([mounted.status, mounted.headers.location], [201, `/v2/team/target/blobs/${digest}`])
  assert.equal((await download(router.url, `/v2/team/target/blobs/${digest}`)).digest, digest)
})

test('an upload in chunks can be queried, resumed and cancelled', async () => {
  const content = Buffer.from('first chunk, second chunk')
  const half = 12
  const opened = await send(router.url, 'POST', '/v2/team/chunks/blobs/uploads/')
  assert.match(opened.headers.location ?? '', /^\/v2\/team\/chunks\/blobs\/uploads\//)
  const patch = (from: string, range: string, body: Buffer) =>
    send(router.url, 'PATCH', from, {
      headers: { 'Content-Range': range, 'Content-Length': body.length, 'Content-Type': 'application/octet-stream' },
      body,
    })
  const first = await patch(pathOf(opened), `0-${half - 1}`, content.subarray(0, half))
  assert.deepEqual([first.status, first.headers.range], [202, `0-${half - 1}`])
  const state = await send(router.url, 'GET', pathOf(first))
  assert.deepEqual([state.status, state.headers.range], [204, `0-${half - 1}`])
  const second = await patch(pathOf(state), `${half}-${content.length - 1}`, content.subarray(half))
  const closed = await send(router.url, 'PUT', client.withDigest(pathOf(second), encodeURIComponent(digestOf(content))))
  assert.equal(closed.status, 201)
  assert.equal((await download(router.url, `/v2/team/chunks/blobs/${digestOf(content)}`)).bytes, content.length)
  const cancelled = await send(router.url, 'POST', '/v2/team/chunks/blobs/uploads/')
  assert.equal((await send(router.url, 'DELETE', pathOf(cancelled))).status, 204)
  assert.equal((await send(router.url, 'GET', pathOf(cancelled))).status, 404)
})

test("a wrong digest at the end of an upload is refused with hosted's own error", async () => {
  const reply = await client.pushBlob(router.url, 'team/wrong', digestOf('other'), Readable.from([Buffer.from('this')]))
  assert.deepEqual([reply.status, code(reply)], [400, 'DIGEST_INVALID'])
})

test('hosted has no referrers API: its 404 reaches the client, and a signature tag of a public image is found in hosted', async () => {
  assert.equal((await send(router.url, 'GET', `/v2/library/hello/referrers/${hello.digest}`)).status, 404)
  const tag = `${hello.digest.replace(':', '-')}.sig`
  const signature = makeImage({ sig: 'signed' })
  await push(router.url, 'library/hello', tag, signature)
  assert.equal(await pull(router.url, 'library/hello', tag), signature.digest)
})

test('a Range request gets exactly this part of the layer', async () => {
  const { digest, content } = hello.blobs[1] as client.Blob
  for (const name of ['public/one', 'one']) {
    await push(hosted.url, 'one', 'ranged', hello)
    const reply = await send(router.url, 'GET', `/v2/${name}/blobs/${digest}`, { headers: { Range: 'bytes=2-5' } })
    assert.equal(reply.status, 206)
    assert.deepEqual(reply.body, content.subarray(2, 6))
  }
})

/** A router with TLS on both sides, in front of a hosted registry of its own, for one test. */
async function startOverTls(t: TestContext): Promise<Router> {
  const tls = await tlsIn(folder)
  const launch = await findRegistry(() => {})
  const secured = await launch({ name: 'secured', folder, certificate: tls.certificate })
  t.after(() => secured.stop())
  const own = await startRouter(way, { HOSTED_HOSTNAME: secured.url, PROXY_HOSTNAME: cache.host, ...tls.settings })
  t.after(() => own.stop())
  return own
}

for (const scheme of schemes) {
  test(`${scheme}: a layer of ${bigBytes / mebibyte} MiB goes up chunked and comes down, one with a length goes up; memory stays`, async (t) => {
    const { url, peakMemory } = scheme === 'https' ? await startOverTls(t) : router
    const idle = peakMemory()
    const digest = await client.digestOfStream(noise(bigBytes, 1))
    const started = performance.now()
    const seconds = () => ((performance.now() - started) / 1000).toFixed(1)
    assert.equal((await client.pushBlob(url, 'team/big', digest, noise(bigBytes, 1))).status, 201)
    t.diagnostic(`${way}: pushed at ${seconds()} s`)
    const got = await download(url, `/v2/team/big/blobs/${digest}`)
    t.diagnostic(`${way}: pulled at ${seconds()} s`)
    assert.deepEqual(got, { status: 200, digest, bytes: bigBytes })
    const opened = await send(url, 'POST', '/v2/team/sized/blobs/uploads/')
    const headers = { 'Content-Type': 'application/octet-stream', 'Content-Length': bigBytes }
    const target = client.withDigest(pathOf(opened), digest)
    assert.equal((await send(url, 'PUT', target, { headers, body: noise(bigBytes, 1) })).status, 201)
    const peak = peakMemory()
    t.diagnostic(`${way}: peak memory ${peak} MiB, ${idle} MiB before`)
    if (peak !== undefined) assert.ok(peak < 250, `peak memory ${peak} MiB`)
  })
}

const mine = '{"schemaVersion":2,"name":"mine"}'

test('an upload keeps its framing: Content-Length, chunked, or no body', async () => {
  const { url, hosted, close } = await between(answer(404), answer(202))
  const path = '/v2/a/blobs/uploads/1'
  await send(url, 'PATCH', path, { headers: { 'Content-Length': 5 }, body: Readable.from(['12', '345']) })
  await send(url, 'PATCH', path, { body: Readable.from(['12', '345']) })
  await send(url, 'PUT', path, { headers: { 'Content-Length': 5, Expect: '100-continue' }, body: '12345' })
  await send(url, 'PUT', `${path}?digest=x`, { headers: { 'Content-Length': 0 } })
  await send(url, 'DELETE', path)
  const framing = hosted.requests.map(({ method, headers, bytes, complete }) => {
    const length = headers['transfer-encoding'] ?? headers['content-length'] ?? '0'
    return [method, length, bytes, complete, headers.expect]
  })
  assert.deepEqual(framing, [
    ['PATCH', '5', 5, true, undefined],
    ['PATCH', 'chunked', 5, true, undefined],
    ['PUT', '5', 5, true, undefined],
    ['PUT', '0', 0, true, undefined],
    ['DELETE', '0', 0, true, undefined],
  ])
  await close()
})

test('an answer keeps its length and its bytes: the upstream is asked not to compress; a missing type is application/octet-stream', async () => {
  const body = Buffer.from('{"schemaVersion":2}'.padEnd(1000))
  const script: Script = (request, response) => {
    const { url = '' } = request
    if (url.includes('sized')) response.writeHead(200, { 'Content-Length': body.length }).end(body)
    else if (url.includes('chunked')) response.writeHead(200, { 'Transfer-Encoding': 'chunked' }).end(body)
    else response.writeHead(200, { 'Content-Length': 0 }).end()
  }
  const { url, hosted, close } = await between(answer(404), script)
  const sized = await send(url, 'GET', '/v2/a/manifests/sized', { headers: { 'Accept-Encoding': 'gzip' } })
  assert.deepEqual([sized.headers['content-length'], sized.body.length], ['1000', 1000])
  assert.equal(sized.headers['content-type'], 'application/octet-stream')
  assert.equal(hosted.requests[0]?.headers['accept-encoding'], 'identity')
  // A manifest is read whole, so the router knows its length. A layer streams.
  for (const [path, length] of [
    ['/v2/a/manifests/chunked', '1000'],
    [`/v2/chunked/blobs/${digestOf(body)}`, undefined],
  ] as const) {
    const chunked = await send(url, 'GET', path)
    assert.deepEqual([chunked.headers['content-length'], chunked.body.length], [length, 1000])
  }
  const head = await send(url, 'HEAD', '/v2/a/manifests/sized')
  assert.deepEqual([head.status, head.headers['content-length']], [200, '1000'])
  const empty = await send(url, 'GET', `/v2/a/blobs/${digestOf('')}`)
  assert.deepEqual([empty.status, empty.headers['content-length']], [200, '0'])
  assert.equal((await send(url, 'GET', '/v2/a/manifests/empty')).status, 502, 'nothing is no manifest')
  await close()
})

test("a login goes to hosted only, even one of 14 KB; the client's Host and forwarding header fields go nowhere", async () => {
  const { url, proxy, hosted, close } = await between(answer(404), answer(200, {}, mine))
  const Authorization = `Bearer ${'canary'.repeat(2400)}`
  const headers = {
    Authorization,
    Cookie: 'canary',
    'X-Forwarded-Host': 'evil',
    Forwarded: 'host=evil',
    Host: 'evil:1',
  }
  for (const path of ['/v2/', '/v2/a/manifests/1', `/v2/b/blobs/${digestOf('x')}`]) {
    assert.equal((await send(url, 'GET', path, { headers })).status, path === '/v2/' ? 503 : 200)
  }
  assert.equal(proxy.requests.length, 3)
  assert.ok(!/canary|evil/.test(JSON.stringify(proxy.requests)))
  for (const { target, headers } of hosted.requests) {
    assert.equal(headers.authorization, Authorization)
    assert.equal(headers['x-forwarded-host'], 'registry.example')
    // A ping is shared by all clients with this login, so it names no client address.
    assert.equal(headers['x-forwarded-for'], target === '/v2/' ? undefined : '127.0.0.1')
    assert.ok(!JSON.stringify(headers).includes('evil'))
  }
  await close()
})

test('a path outside the grammar reaches no upstream, however it is encoded', async () => {
  const { url, proxy, hosted, close } = await between(answer(404), answer(404))
  const targets = [
    '/v2/a/..%2f..%2fmetrics/manifests/1',
    '/v2/a%2fb/manifests/1',
    '/v2/a%5cb/manifests/1',
    '/v2/a%00b/manifests/1',
    '/v2//a/manifests/1',
    '/v2/A/manifests/1',
    '/v2/a/manifests/%zz',
    '/v2/../etc/passwd',
    '/v2/../metrics',
    '/v2/%2e%2e/livez',
    '/v2/a/../_catalog',
    '/%6Detrics',
    'http://registry.example/v2/../metrics',
    '/v2/%2e%2e/%2e%2e/x',
    '/v1/',
    `/v2/a/blobs/${digestOf('x')}/..%2f..`,
    'http://evil.example/v2/a/b',
    '*',
  ]
  for (const target of targets) {
    for (const method of ['GET', 'PUT']) {
      const { status } = await send(url, method, target)
      assert.ok([400, 404, 405].includes(status), `${method} ${target}: ${status}`)
    }
  }
  assert.deepEqual([proxy.requests, hosted.requests], [[], []])
  await close()
})

test("HTTP/1.0 without Host: a load balancer's plain health check is answered", async () => {
  const socket = connect(Number(router.host.split(':')[1]), '127.0.0.1')
  socket.end('GET /livez HTTP/1.0\r\n\r\n')
  assert.match(await text(socket), /^HTTP\/1\.[01] 200 OK\r\n/)
})

test('the proxy accepts and never answers: a lookup waits PROXY_TIMEOUT, no longer', async () => {
  const { url, close } = await between(() => {}, answer(200, {}, mine), { PROXY_TIMEOUT: '0.2' })
  const started = performance.now()
  assert.equal((await send(url, 'GET', '/v2/a/manifests/1')).body.toString(), mine)
  const tookMs = performance.now() - started
  assert.ok(tookMs >= 190 && tookMs < 5000, `${tookMs} ms`)
  await close()
})

test('no packet reaches the proxy: a lookup waits PROXY_TIMEOUT, no longer', async () => {
  // A stopped process accepts no connections. Once its queue is full, packets are dropped, as if the host were gone.
  const listen =
    "net.createServer().listen({ host: '127.0.0.1', port: 0, backlog: 1 }, function () { console.log(this.address().port) })"
  const stoppedServer = start(['node', '-e', listen])
  const port = Number((await stoppedServer.line(/^\d+$/))[0])
  process.kill(stoppedServer.pid, 'SIGSTOP')
  const queue = Array.from({ length: 8 }, () => connect(port, '127.0.0.1').on('error', () => {}))
  await until('the queue', () => queue.some(({ connecting }) => !connecting))
  const settings = { PROXY_TIMEOUT: '0.2', PROXY_HOSTNAME: `127.0.0.1:${port}` }
  const { url, close } = await between(answer(404), answer(200, {}, mine), settings)
  const started = performance.now()
  assert.equal((await send(url, 'GET', '/v2/a/manifests/1')).body.toString(), mine)
  const tookMs = performance.now() - started
  assert.ok(
    queue.some(({ connecting }) => connecting),
    'the queue was not full',
  )
  assert.ok(tookMs >= 190 && tookMs < 5000, `${tookMs} ms`)
  for (const socket of queue) socket.destroy()
  await close()
  await stoppedServer.stop('SIGKILL')
})

test('hosted never answers a write: 504 after WRITE_TIMEOUT', async () => {
  const { url, close } = await between(answer(404), (request) => request.resume(), { WRITE_TIMEOUT: '0.2' })
  const reply = await send(url, 'PUT', '/v2/a/blobs/uploads/1?digest=x')
  assert.deepEqual([reply.status, code(reply)], [504, 'UNAVAILABLE'])
  await close()
})

test('a client that leaves during a pull frees the upstream at once', async () => {
  const endless: Script = (_, response) => {
    response.writeHead(200, { 'Content-Length': 10 ** 12 })
    const more = () => {
      while (response.write(Buffer.alloc(65_536)));
    }
    response.on('drain', more)
    more()
  }
  const { url, hosted, close } = await between(answer(404), endless)
  const request = client.open(url, 'GET', `/v2/a/blobs/${digestOf('x')}`)
  request.end()
  const reply = await client.answerOf(request)
  await new Promise((resolve) => reply.once('data', resolve))
  reply.on('error', () => {})
  assert.equal(hosted.sockets.size, 1)
  reply.destroy()
  await until('the upstream connection to close', () => hosted.sockets.size === 0)
  await until('no request in flight', async () =>
    /in_flight 1$/m.test((await send(url, 'GET', '/metrics')).body.toString()),
  )
  await close()
})

test('a client that leaves before the answer frees the upstream at once', async () => {
  const { url, hosted, close } = await between(answer(404), () => {})
  const request = client.open(url, 'GET', `/v2/a/blobs/${digestOf('x')}`)
  request.on('error', () => {})
  request.end()
  await until('hosted to be asked', () => hosted.requests.length === 1)
  request.destroy()
  await until('the upstream connection to close', () => hosted.sockets.size === 0)
  await close()
})

test('a client leaves during an upload, sized or chunked: hosted sees an incomplete request, never a finished one', async () => {
  const { url, hosted, close } = await between(answer(404), (request) => request.resume())
  for (const headers of [{ 'Content-Length': 1000 }, { 'Transfer-Encoding': 'chunked' }]) {
    const request = client.open(url, 'PATCH', '/v2/a/blobs/uploads/1', headers)
    request.on('error', () => {})
    request.write('half')
    const record = await until('hosted to have the half', () => hosted.requests.at(-1))
    await until('hosted to have the half', () => record.bytes === 4)
    request.destroy()
    await until('the upstream connection to close', () => hosted.sockets.size === 0)
    assert.equal(record.complete, false)
    hosted.requests.length = 0
  }
  await close()
})

for (const framing of ['sized', 'chunked']) {
  test(`an upstream that breaks in the middle of a ${framing} layer breaks the client's transfer`, async () => {
    const half: Script = (_, response) => {
      response.writeHead(200, framing === 'sized' ? { 'Content-Length': 100_000 } : {})
      response.write(Buffer.alloc(50_000), () => response.socket?.destroy())
    }
    const { url, close } = await between(answer(404), half)
    await assert.rejects(download(url, `/v2/a/blobs/${digestOf('x')}`))
    await close()
  })
}

test('a registry is killed in the middle of a layer: the client sees a broken transfer; after a restart the pull succeeds', async () => {
  const bytes = 128 * mebibyte
  const digest = await client.digestOfStream(noise(bytes, 2))
  await client.pushBlob(hosted.url, 'team/killed', digest, noise(bytes, 2))
  const path = `/v2/team/killed/blobs/${digest}`
  const request = client.open(router.url, 'GET', path)
  request.end()
  const reply = await client.answerOf(request)
  await new Promise((resolve) => reply.once('readable', resolve))
  await hosted.stop('SIGKILL')
  await assert.rejects(async () => {
    for await (const _ of reply);
  })
  await hosted.start()
  assert.deepEqual(await download(router.url, path), { status: 200, digest, bytes })
})

test(
  'hosted behind nginx, which closes a connection every few requests: slow clients get whole layers',
  needsNginx,
  async () => {
    const bytes = 16 * mebibyte
    const digest = await client.digestOfStream(noise(bytes, 9))
    const path = `/v2/team/slow/blobs/${digest}`
    assert.equal((await client.pushBlob(hosted.url, 'team/slow', digest, noise(bytes, 9))).status, 201)
    const port = await freePort()
    const url = `http://127.0.0.1:${port}`
    const server = `server { listen 127.0.0.1:${port}; keepalive_requests 3; location / { proxy_pass ${hosted.url}; } }`
    const front = await startNginx(folder, url, 'master_process off;', server)
    const ownRouter = await another({ HOSTED_HOSTNAME: url, HOSTED_NAMES: 'team/**' })
    const pulls = Array.from({ length: 4 }, async () => {
      for (let i = 0; i < 3; i++) {
        const answer = await client.answerOf(client.open(ownRouter.url, 'GET', path).end())
        assert.equal(await client.digestOfStream(Readable.from(client.throttled(answer, 1))), digest)
      }
    })
    await Promise.all(pulls)
    assert.deepEqual(ownRouter.odd(), [])
    await ownRouter.stop()
    await front.stop()
  },
)

test('a push interrupted by the client stores nothing, and succeeds when repeated', async () => {
  const bytes = 32 * mebibyte
  const digest = await client.digestOfStream(noise(bytes, 3))
  const opened = await send(router.url, 'POST', '/v2/team/again/blobs/uploads/')
  const target = client.withDigest(pathOf(opened), digest)
  const request = client.open(router.url, 'PUT', target, { 'Content-Length': bytes })
  request.on('error', () => {})
  for await (const chunk of noise(bytes / 2, 3)) {
    if (!request.write(chunk)) await new Promise((resolve) => request.once('drain', resolve))
  }
  request.destroy()
  await until('the request to end', () => router.log().some(({ complete }) => complete === false))
  assert.equal((await send(hosted.url, 'HEAD', `/v2/team/again/blobs/${digest}`)).status, 404)
  assert.equal((await client.pushBlob(router.url, 'team/again', digest, noise(bytes, 3))).status, 201)
  assert.equal((await download(router.url, `/v2/team/again/blobs/${digest}`)).digest, digest)
})

test('hosted dies during a push: the client gets 502 or a broken connection, and a second push succeeds', async () => {
  const bytes = 32 * mebibyte
  const digest = await client.digestOfStream(noise(bytes, 4))
  const opened = await send(router.url, 'POST', '/v2/team/died/blobs/uploads/')
  const half = noise(bytes, 4)
  let sentBytes = 0
  half.on('data', async (chunk) => {
    sentBytes += chunk.length
    if (sentBytes === bytes / 2) await hosted.stop('SIGKILL')
  })
  const failed = await send(router.url, 'PATCH', pathOf(opened), { body: half }).then(
    ({ status }) => status,
    () => 'broken',
  )
  assert.ok(failed === 502 || failed === 'broken', `${failed}`)
  await hosted.start()
  assert.equal((await client.pushBlob(router.url, 'team/died', digest, noise(bytes, 4))).status, 201)
})

test('the cache is down: private images pull and push; an image that hosted lacks is 502, never 404', async () => {
  const image = makeImage({ 'up.txt': 'up' })
  await cache.stop('SIGKILL')
  await push(router.url, 'team/up', 'v1', image)
  assert.equal(await pull(router.url, 'team/up', 'v1'), image.digest)
  const reply = await manifest('library/hello', 'other')
  assert.deepEqual([reply.status, code(reply)], [502, 'UNAVAILABLE'])
  assert.ok(!reply.body.includes(cache.host))
  assert.equal((await send(router.url, 'GET', '/v2/')).status, 503)
  const health = await send(router.url, 'GET', '/healthcheck')
  assert.deepEqual([health.status, health.json()], [503, { proxy: 502, hosted: 200 }])
  const hostedIsEnough = await another({ V2_REQUIRES: 'hosted' })
  assert.equal((await send(hostedIsEnough.url, 'GET', '/v2/')).status, 200)
  await hostedIsEnough.stop()
  await cache.start()
  await until('the cache to be pinged again', async () => (await send(router.url, 'GET', '/v2/')).status === 200)
  await until('the cache to be asked again', async () => (await manifest('library/hello', 'latest')).status === 200)
})

test('hosted is down: public images pull, private ones are 502', async () => {
  await hosted.stop('SIGKILL')
  assert.equal(await pull(router.url, 'library/hello', 'latest'), helloIndex.digest)
  const reply = await manifest('team/up', 'v1')
  assert.deepEqual([reply.status, code(reply)], [502, 'UNAVAILABLE'])
  assert.equal((await send(router.url, 'POST', '/v2/team/up/blobs/uploads/')).status, 502)
  await hosted.start()
  await until('hosted to be asked again', async () => (await manifest('team/up', 'v1')).status === 200)
})

test('bytes that are not HTTP do no harm', async () => {
  const [hostname = '', port = ''] = router.host.split(':')
  for (const bytes of [
    '\0\0\0',
    'GET\r\n\r\n',
    'GET / HTTP/9.9\r\n\r\n',
    'POST /v2/ HTTP/1.1\r\nContent-Length: x\r\n\r\n',
  ]) {
    const socket = connect(Number(port), hostname, () => socket.end(bytes))
    socket.on('error', () => {}).resume()
    await new Promise((resolve) => socket.once('close', resolve))
  }
  assert.equal((await send(router.url, 'GET', '/v2/')).status, 200)
})

test('the router logged no warning and no error except those that the tests above caused, and two about its settings', () => {
  const ofSettings = ['open: anybody who reaches this router', 'a client calls this router by another name']
  const causes = /ECONNREFUSED|EPIPE|socket|reset|closed|terminated|abort/i
  const odd = router
    .log()
    .filter(({ message }) => ![...ofSettings, 'well again'].some((one) => `${message}`.includes(one)))
    .filter(({ level, text, cause }) => text || level === 'error' || (level === 'warn' && !causes.test(`${cause}`)))
  assert.deepEqual(odd, [])
})
