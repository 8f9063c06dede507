/** What other registries answer, and how they log in, as public trackers report it. WAY selects the runtime. */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { between, closeAll } from './parts/between.ts'
import { temporaryFolder } from './parts/children.ts'
import { digestOf, send } from './parts/client.ts'
import { startRouter, way } from './parts/router.ts'
import { answer, type Script, scripted } from './parts/scripted.ts'
import { until } from './parts/until.ts'

after(closeAll)

const manifest = '{"schemaVersion":2}'
const type = 'application/vnd.oci.image.manifest.v1+json'
const found = (body = manifest, fields = {}) =>
  answer(200, { 'Content-Type': type, 'Content-Length': body.length, ...fields }, body)
const oci = (status: number, code: string): Script =>
  answer(status, { 'Content-Type': 'application/json' }, JSON.stringify({ errors: [{ code }] }))
const absent = oci(404, 'MANIFEST_UNKNOWN')
const page = answer(200, { 'Content-Type': 'text/html' }, '<html>Welcome</html>')
/** Answers by the path, and by the whole target if that is listed; `/v2/` with 200. */
const by = (scripts: Record<string, Script>, otherwise: Script = absent): Script => {
  return (request, ...rest) => {
    const { url = '' } = request
    const script =
      scripts[url] ?? scripts[url.replace(/\?.*/, '')] ?? (url === '/v2/' ? answer(200, {}, '{}') : otherwise)
    script(request, ...rest)
  }
}
const layer = Buffer.alloc(100_000, 'layer')
const digest = digestOf(layer)
const blob = `/v2/a/blobs/${digest}`
const tag = '/v2/a/manifests/1'

// --- layers that take long

test('a slow layer: it arrives, manifests meanwhile are 200, and no breaker opens', async () => {
  const waiting: ServerResponse[] = []
  const slow: Script = (_, response) => waiting.push(response)
  const proxy: Script = (request, ...rest) => (request.url?.includes('/blobs/') ? slow : found())(request, ...rest)
  const router = await between(proxy, by({}), { PROXY_TIMEOUT: '0.3', HOSTED_TIMEOUT: '0.3', BLOB_TIMEOUT: '30' })
  const layers = [0, 1, 2, 3].map((i) => send(router.url, 'GET', `/v2/${i}/blobs/${digest}`))
  await until('the layers to be asked for', () => waiting.length === 4)
  // Hosted is asked once the cache has taken as long as a manifest may.
  await until(
    'hosted to be asked too',
    () => router.hosted.requests.filter(({ target }) => target.includes('/blobs/')).length === 4,
  )
  for (let i = 0; i < 5; i++) assert.equal((await send(router.url, 'GET', `/v2/a/manifests/${i}`)).status, 200)
  for (const response of waiting) response.writeHead(200, { 'Content-Length': layer.length }).end(layer)
  for (const { status, body } of await Promise.all(layers)) assert.deepEqual([status, digestOf(body)], [200, digest])
  assert.deepEqual(
    router.router
      .log()
      // Not those about the settings, which have a code, or name the host.
      .filter(({ level, code, host }) => (level === 'warn' && !code && !host) || level === 'error')
      .map(({ message }) => message),
    [],
  )
  await router.close()
})

test('a cache that gives no layer in BLOB_TIMEOUT, or says 503 to each: 504 or 502, and its manifests are still asked for', async () => {
  for (const [script, wanted] of [
    [() => {}, 504],
    [answer(503), 502],
  ] as const) {
    const proxy: Script = (request, ...rest) => (request.url?.includes('/blobs/') ? script : found())(request, ...rest)
    const router = await between(proxy, by({}), { PROXY_TIMEOUT: '0.2', HOSTED_TIMEOUT: '0.2', BLOB_TIMEOUT: '0.5' })
    for (let i = 0; i < 4; i++) assert.equal((await send(router.url, 'GET', blob)).status, wanted)
    assert.equal((await send(router.url, 'GET', tag)).status, 200)
    await router.close()
  }
})

test('a hung cache costs a private layer PROXY_TIMEOUT, proxy-first; a hung hosted costs a public one HOSTED_TIMEOUT, hosted-first', async () => {
  const hangs: Script = () => {}
  const has = by({ [blob]: answer(200, { 'Content-Length': layer.length }, layer as never) })
  const times = { PROXY_TIMEOUT: '0.4', HOSTED_TIMEOUT: '0.4' }
  for (const [proxy, hosted, order] of [
    [hangs, has, 'proxy-first'],
    [has, hangs, 'hosted-first'],
  ] as const) {
    const router = await between(proxy, hosted, { ...times, LOOKUP_ORDER: order, V2_REQUIRES: 'hosted' })
    const started = performance.now()
    const reply = await send(router.url, 'GET', blob)
    const seconds = (performance.now() - started) / 1000
    assert.deepEqual([reply.status, digestOf(reply.body)], [200, digest])
    assert.ok(seconds > 0.35 && seconds < 10, `${seconds} s`)
    await until('the hung question to be given up', () =>
      [router.proxy, router.hosted].some(({ requests }) => requests.some(({ broken }) => broken)),
    )
    await router.close()
  }
})

// --- a HEAD that a registry answers only as a GET

test('the body of a GET in place of a HEAD keeps no connection', async () => {
  const long = manifest.padEnd(5 * 1024 * 1024)
  for (const refusal of [405, 400]) {
    const proxy: Script = (request, response, recorded) => {
      if (request.method === 'HEAD') return answer(refusal)(request, response, recorded)
      response.writeHead(200, { 'Content-Type': type, 'Content-Length': long.length }).write(long.slice(0, -1))
    }
    const router = await between(by({ [tag]: proxy }), by({}))
    assert.equal((await send(router.url, 'HEAD', tag)).status, 200)
    await until('its connection to be free', () => router.proxy.requests.at(-1)?.broken)
    await router.close()
  }
})

// --- web pages, balancers, redirects

test('a proxy that answers everything with a web page is down: hosted gives its image, and /healthcheck and /explain say so', async () => {
  const router = await between(page, by({ '/v2/own/manifests/1': found() }), { TAGS: 'lookup' })
  assert.equal((await send(router.url, 'GET', '/v2/own/manifests/1')).body.toString(), manifest)
  for (const method of ['GET', 'HEAD']) assert.equal((await send(router.url, method, tag)).status, 502)
  for (const path of [blob, '/v2/a/tags/list']) assert.equal((await send(router.url, 'GET', path)).status, 502)
  const health = await send(router.url, 'GET', '/healthcheck')
  assert.deepEqual([health.status, health.json()], [503, { proxy: 502, hosted: 200 }])
  const { registries } = (await send(router.url, 'GET', '/explain?image=own:1')).json()
  const [{ upstream, verdict, reason }] = registries
  assert.deepEqual([upstream, verdict, reason], ['proxy', 'failed', 'its 200 is no manifest'])
  await router.close()
})

test("hosted-first: a balancer's 404 is an outage of hosted, for GET and HEAD, with or without a type", async () => {
  const balancer =
    (fields = {}): Script =>
    (_, response) =>
      response.writeHead(404, fields).end('404 page not found\n')
  for (const script of [
    balancer(),
    balancer({ 'Content-Type': 'text/plain' }),
    balancer({ 'Content-Type': 'text/html' }),
  ]) {
    const router = await between(found(), script, { LOOKUP_ORDER: 'hosted-first' })
    for (const method of ['GET', 'HEAD']) assert.equal((await send(router.url, method, tag)).status, 502)
    assert.equal(router.hosted.requests.filter(({ target }) => target === '/v2/').length, 1, 'asked once a minute')
    await router.close()
  }
})

test('a 404 that only a registry gives counts, whatever it looks like, if the registry answers /v2/', async () => {
  const bare: Script = (_, response) => response.writeHead(404).end()
  for (const ping of [answer(200, {}, '{}'), answer(401)]) {
    const router = await between(by({ '/v2/': ping }, bare), by({ [tag]: found() }))
    for (const method of ['GET', 'HEAD']) assert.equal((await send(router.url, method, tag)).status, 200)
    assert.equal((await send(router.url, 'GET', '/v2/b/manifests/1')).status, 404)
    await router.close()
  }
})

test('a manifest that is redirected to another host is fetched there, without a login; its layers are redirected', async () => {
  const region = await scripted((request, response, recorded) => found()(request, response, recorded))
  const away: Script = (request, response) =>
    response.writeHead(307, { Location: `http://${region.host}${request.url}` }).end()
  for (const order of ['proxy-first', 'hosted-first']) {
    const router = await between(by({}, away), by({}), { LOOKUP_ORDER: order })
    for (const method of ['GET', 'HEAD']) {
      const { status, headers } = await send(router.url, method, tag, { headers: { Authorization: 'Basic canary' } })
      assert.deepEqual([status, headers['content-length']], [200, `${manifest.length}`])
    }
    assert.equal((await send(router.url, 'GET', blob)).status, 307)
    await router.close()
  }
  assert.ok(region.requests.every(({ headers }) => headers.authorization === undefined))
  const follow = await between(by({}, away), by({}), { BLOB_REDIRECTS: 'follow' })
  assert.equal((await send(follow.url, 'GET', blob)).body.toString(), manifest)
  await follow.close()
  await region.close()
})

test('what is wrong where a redirect leads says nothing about the registry: its breaker stays closed', async () => {
  const elsewhere = await scripted(answer(503))
  for (const location of ['http://127.0.0.1:1/x', `http://${elsewhere.host}/x`]) {
    const router = await between(by({ [tag]: found() }, answer(307, { Location: location })), by({}))
    for (let i = 0; i < 4; i++) assert.equal((await send(router.url, 'GET', `/v2/dead/manifests/${i}`)).status, 502)
    assert.equal((await send(router.url, 'GET', tag)).status, 200)
    await router.close()
  }
  await elsewhere.close()
})

test('a layer that is redirected is copied for a push all the same', async () => {
  const storage = await scripted(answer(200, { 'Content-Length': layer.length }, layer as never))
  const away = answer(307, { Location: `http://${storage.host}/layer?sig=1` })
  const hosted: Script = (request, ...rest) =>
    (request.method === 'POST' ? answer(202, { Location: '/v2/b/blobs/uploads/1' }) : answer(201))(request, ...rest)
  const router = await between(by({ [blob]: away }), hosted)
  assert.equal((await send(router.url, 'POST', `/v2/b/blobs/uploads/?mount=${digest}&from=a`)).status, 201)
  assert.equal(router.hosted.requests.at(-1)?.bytes, layer.length)
  await router.close()
  await storage.close()
})

test('an index that hosted refuses with MANIFEST_UNKNOWN is completed, as go-containerregistry needs it', async () => {
  const child = digestOf(manifest)
  const index = JSON.stringify({
    schemaVersion: 2,
    manifests: [{ digest: child, mediaType: type, size: manifest.length }],
  })
  const stored = new Set<string>()
  const hosted: Script = (request, ...rest) => {
    const { method = '', url = '' } = request
    const isStored = url.includes(child) ? stored.has(child) : stored.has(child) || method !== 'PUT'
    if (method === 'PUT' && url.includes(child)) stored.add(child)
    const script = method === 'PUT' && (url.includes(child) || isStored) ? answer(201) : oci(404, 'MANIFEST_UNKNOWN')
    script(request, ...rest)
  }
  const router = await between(by({ [`/v2/a/manifests/${child}`]: found() }), hosted)
  const headers = { 'Content-Type': 'application/vnd.oci.image.index.v1+json' }
  assert.equal((await send(router.url, 'PUT', tag, { headers, body: index })).status, 201)
  assert.ok(stored.has(child))
  await router.close()
})

test('an index that names a tag in place of a digest is not completed: hosted gets no tag that nobody pushed', async () => {
  const hosted: Script = (request, ...rest) =>
    (request.method === 'PUT' ? oci(400, 'MANIFEST_INVALID') : oci(404, 'MANIFEST_UNKNOWN'))(request, ...rest)
  const router = await between(by({}, found()), hosted)
  const headers = { 'Content-Type': 'application/vnd.oci.image.index.v1+json' }
  for (const named of ['latest', undefined]) {
    const body = JSON.stringify({ schemaVersion: 2, manifests: [{ digest: named, mediaType: type }] })
    assert.equal((await send(router.url, 'PUT', tag, { headers, body })).status, 400)
  }
  assert.deepEqual(
    router.hosted.requests.map(({ method, target }) => `${method} ${target}`),
    [`PUT ${tag}`, `PUT ${tag}`],
  )
  assert.equal(router.proxy.requests.length, 0)
  await router.close()
})

for (const status of [405, 501]) {
  test(`a hosted that says ${status} to HEAD gets what it lacks of an index`, async () => {
    const child = digestOf(manifest)
    const stored = new Set<string>()
    const hosted: Script = (request, ...rest) => {
      const { method = '', url = '' } = request
      const isTaken = url.includes(child) || stored.has(child)
      if (method === 'PUT' && url.includes(child)) stored.add(child)
      const put = isTaken ? answer(201) : oci(404, 'MANIFEST_UNKNOWN')
      ;(method === 'HEAD' ? answer(status) : method === 'PUT' ? put : answer(404))(request, ...rest)
    }
    const router = await between(by({ [`/v2/a/manifests/${child}`]: found() }), hosted)
    const body = JSON.stringify({ schemaVersion: 2, manifests: [{ digest: child, mediaType: type }] })
    const headers = { 'Content-Type': 'application/vnd.oci.image.index.v1+json' }
    assert.equal((await send(router.url, 'PUT', tag, { headers, body })).status, 201)
    assert.ok(stored.has(child))
    await router.close()
  })
}

// --- interim answers

const interims = {
  'a 100': 'HTTP/1.1 100 Continue\r\n\r\n',
  'a 100 with fields': 'HTTP/1.1 100 Continue\r\nServer: x\r\nContent-Length: 5\r\n\r\n',
  'a 102, a 103 and three 100':
    'HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n',
}
/** Looks like another answer. */
const answerLike = Buffer.from('HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n')

/** Sends each byte in a packet of its own. */
async function sendBytes(socket: Socket, text: string): Promise<void> {
  socket.setNoDelay(true)
  for (const byte of Buffer.from(text)) {
    await new Promise((written) => socket.write(Buffer.of(byte), written))
    await new Promise(setImmediate)
  }
}

for (const [what, interim] of Object.entries(interims)) {
  test(`${what} before the answer, unasked, byte by byte, is ignored: for reads and uploads, on a connection that stays`, async () => {
    const final: Script = (request, ...rest) => {
      const isBlob = request.url?.includes('/blobs/sha')
      const script = isBlob ? answer(200, {}, `${answerLike}`) : request.method === 'GET' ? found() : answer(202)
      script(request, ...rest)
    }
    const hosted: Script = async (request, ...rest) => {
      await sendBytes(request.socket, interim)
      if (!request.url?.includes('/bytes')) return final(request, ...rest)
      const head = `HTTP/1.1 200 OK\r\nContent-Length: ${answerLike.length}\r\nConnection: close\r\n\r\n`
      await sendBytes(request.socket, `${head}${answerLike}`)
      request.socket.end()
    }
    const router = await between(by({}), hosted, { HOSTED_NAMES: 'a' })
    const ask = async (method: string, path: string, body?: Buffer) => {
      const reply = await send(router.url, method, path, { body })
      return [reply.status, `${reply.body}`]
    }
    for (let i = 0; i < 2; i++) {
      assert.deepEqual(await ask('GET', `/v2/a/manifests/${i}`), [200, manifest])
      assert.deepEqual(await ask('HEAD', `/v2/a/blobs/${digest}`), [200, ''])
      assert.deepEqual(await ask('GET', blob), [200, `${answerLike}`])
      assert.deepEqual(await ask('PATCH', '/v2/a/blobs/uploads/1', layer), [202, ''])
      assert.deepEqual(await ask('DELETE', `/v2/a/manifests/${i}`), [202, ''])
    }
    const { requests, sockets } = router.hosted
    assert.deepEqual([requests.length, requests[3]?.bytes, sockets.size], [10, layer.length, 1])
    assert.deepEqual(await ask('GET', '/v2/a/tags/list?n=/bytes'), [200, `${answerLike}`])
    await router.close()
  })
}

// --- lists

const tags = (list: unknown, fields = {}) =>
  answer(200, { 'Content-Type': 'application/json', ...fields }, JSON.stringify({ name: 'a', tags: list }))

test('the next page of a tag list leads back here, whatever address the registry names', async () => {
  const links = [
    '<http://nexus.internal:8081/repository/docker-proxy/v2/a/tags/list?n=1&last=1>; rel="next"',
    'http://nexus.internal:8081/v2/a/tags/list?n=1&last=1; rel=next',
    '</v2/a/tags/list?n=1&last=1>; rel="next"',
    '<?n=1&last=1>; rel="next"',
  ]
  const now = { link: '' }
  const list: Script = (request, ...rest) => tags(['1'], { Link: now.link })(request, ...rest)
  for (const environment of [{ TAGS: 'lookup' }, { TAGS: 'hosted' }]) {
    const router = await between(list, list, environment)
    for (now.link of links) {
      const { headers } = await send(router.url, 'GET', '/v2/a/tags/list?n=1')
      assert.equal(headers.link, '</v2/a/tags/list?n=1&last=1>; rel="next"', now.link)
    }
    await router.close()
  }
})

test('TAGS=lookup: a list of no tags is no list: hosted has the name', async () => {
  const proxy = { '/v2/a/tags/list': tags(null), '/v2/b/tags/list': tags(null) }
  const router = await between(by(proxy), by({ '/v2/a/tags/list': tags(['own']) }), { TAGS: 'lookup' })
  assert.deepEqual((await send(router.url, 'GET', '/v2/a/tags/list')).json().tags, ['own'])
  assert.equal((await send(router.url, 'GET', '/v2/b/tags/list')).status, 404)
  await router.close()
})

test('TAGS=lookup: all pages are of the registry that gave the first', async () => {
  const first = tags(['1'], { Link: '</v2/a/tags/list?n=1&last=1>; rel="next"' })
  const hosted = by({ '/v2/a/tags/list': tags(['own']) })
  for (const [second, wanted] of [
    [absent, 502],
    [oci(401, 'UNAUTHORIZED'), 502],
    [oci(403, 'DENIED'), 502],
    [oci(400, 'PAGINATION_NUMBER_INVALID'), 502],
    [oci(429, 'TOOMANYREQUESTS'), 429],
    [tags(['2']), 200],
  ] as const) {
    const proxy = by({ '/v2/a/tags/list': first, '/v2/a/tags/list?n=1&last=1': second })
    const router = await between(proxy, hosted, { TAGS: 'lookup' })
    const { headers } = await send(router.url, 'GET', '/v2/a/tags/list?n=1')
    const [, next = ''] = /<(.*)>/.exec(`${headers.link}`) ?? []
    for (const _ of ['at first', 'again, whatever was remembered']) {
      const reply = await send(router.url, 'GET', next)
      assert.equal(reply.status, wanted)
      if (wanted === 200) assert.deepEqual(reply.json().tags, ['2'])
    }
    await router.close()
  }
  // A proxy that is tried again, after it was skipped, gives no other page either.
  const tried = await between(answer(503), hosted, { TAGS: 'lookup', LOOKUP_TTL: '0' })
  for (const _ of [1, 2, 3]) await send(tried.url, 'GET', '/v2/b/tags/list')
  tried.now.proxy = by({ '/v2/a/tags/list': first, '/v2/a/tags/list?n=1&last=1': absent })
  await until('the proxy to be tried', async () => {
    assert.equal((await send(tried.url, 'GET', '/v2/a/tags/list?n=1&last=1')).status, 502)
    return tried.proxy.requests.some(({ target }) => target.includes('last=1'))
  })
  await tried.close()
  // The list is hosted's: the proxy has no first page of it.
  const router = await between(by({}), hosted, { TAGS: 'lookup' })
  assert.deepEqual((await send(router.url, 'GET', '/v2/a/tags/list?n=1&last=1')).json().tags, ['own'])
  await router.close()
})

test('the refusal of a page size is passed on if nobody has the list', async () => {
  const refusal = by({ '/v2/a/tags/list': oci(400, 'PAGINATION_NUMBER_INVALID') })
  const router = await between(refusal, by({}), { TAGS: 'lookup' })
  const { status, body } = await send(router.url, 'GET', '/v2/a/tags/list?n=10000')
  assert.deepEqual([status, JSON.parse(`${body}`).errors[0].code], [400, 'PAGINATION_NUMBER_INVALID'])
  await router.close()
})

test('referrers that the proxy denies, of an image that it gives, are an error, never a shorter list', async () => {
  const empty = answer(
    200,
    { 'Content-Type': 'application/vnd.oci.image.index.v1+json' },
    '{"schemaVersion":2,"manifests":[]}',
  )
  const path = `/v2/a/referrers/${digest}`
  const hosted = by({ [path]: empty })
  for (const denied of [oci(401, 'UNAUTHORIZED'), oci(403, 'DENIED')]) {
    const subject = `/v2/a/manifests/${digest}`
    const withSubject = await between(by({ [subject]: found() }, denied), hosted)
    assert.equal((await send(withSubject.url, 'GET', path)).status, 502)
    await withSubject.close()
    const without = await between(by({}, denied), hosted)
    assert.deepEqual((await send(without.url, 'GET', path)).json().manifests, [])
    await without.close()
  }
})

test('referrers of a public registry that could not be asked are an error, never a shorter list', async () => {
  const type = 'application/vnd.oci.image.index.v1+json'
  const path = `/v2/a/referrers/${digest}`
  const hosted = by({ [path]: answer(200, { 'Content-Type': type }, '{"schemaVersion":2,"manifests":[]}') })
  const subject = `/v2/a/manifests/${digest}`
  const text = (status: number, body: string) => answer(status, { 'Content-Type': 'text/plain' }, body)
  for (const [what, proxy, wanted] of [
    ['http at a port of https', text(400, 'Client sent an HTTP request to an HTTPS server.'), 502],
    ['a balancer without a registry', text(404, '404 page not found'), 502],
    ['the lists are denied, the image is limited', by({ [subject]: oci(429, 'TOOMANYREQUESTS') }, oci(401, 'X')), 429],
    ['the lists are denied, the image fails', by({ [subject]: answer(503) }, oci(403, 'DENIED')), 502],
  ] as const) {
    const router = await between(proxy, hosted)
    assert.equal((await send(router.url, 'GET', path)).status, wanted, what)
    await router.close()
  }
})

// --- requests that are nobody's image

test('a digest of an algorithm that the registries do not know is not there, and no outage', async () => {
  const router = await between(answer(500), answer(500))
  for (const path of ['/v2/a/manifests/md5:abc', '/v2/a/blobs/md5:abc', '/v2/a/manifests/sha384:abc']) {
    assert.equal((await send(router.url, 'GET', path)).status, 404, path)
  }
  const metrics = (await send(router.url, 'GET', '/metrics')).body.toString()
  assert.doesNotMatch(metrics, /upstream_requests_total\{upstream="\w+",verdict="failed"\}/)
  await router.close()
})

test("a cache's 500 to a HEAD of what it lacks counts once, as what the GET says", async () => {
  const nested = answer(
    500,
    {},
    JSON.stringify({ errors: [{ code: 'UNKNOWN', detail: { errors: [{ code: 'MANIFEST_UNKNOWN' }] } }] }),
  )
  const router = await between(nested, by({}))
  assert.equal((await send(router.url, 'HEAD', '/v2/team/app/manifests/1')).status, 404)
  const metrics = (await send(router.url, 'GET', '/metrics')).body.toString()
  assert.match(metrics, /upstream_requests_total\{upstream="proxy",verdict="absent"\} 1\n/)
  assert.doesNotMatch(metrics, /upstream="proxy",verdict="failed"/)
  await router.close()
})

test('the log has the registry that a mirror asks for; a 404 names one that is not listed', async () => {
  const router = await between(by({}), by({}))
  const unlisted = await send(router.url, 'GET', `${tag}?ns=ghcr.io`)
  assert.match(unlisted.json().errors[0].message, /ghcr\.io/)
  await until('the log line', () => router.router.log().some(({ ns }) => ns === 'ghcr.io'))
  await router.close()
})

// --- logins

/** A realm: gives a token to those who log in, and says what came. */
const realmOf = (seen: { target: string; authorization?: string; cookie?: string; body: string }[]): Script => {
  return (request, response) => {
    let body = ''
    request.on('data', (chunk) => {
      body += chunk
    })
    request.on('end', () => {
      const { authorization, cookie } = request.headers
      seen.push({ target: request.url ?? '', authorization, cookie, body })
      if (!authorization) return response.writeHead(401, { 'WWW-Authenticate': 'Basic realm="x"' }).end()
      response.writeHead(200, { 'Content-Type': 'application/json' }).end('{"token":"t"}')
    })
  }
}
/** A hosted registry whose realm is `realm(request)`, at the path `/v2/token` of its own host. */
const withTokens = (realm: (request: IncomingMessage) => string, seen: Parameters<typeof realmOf>[0] = []): Script => {
  return (request, ...rest) => {
    const { url = '', headers } = request
    if (url.startsWith('/v2/token')) return realmOf(seen)(request, ...rest)
    const challenge = `Bearer realm="${realm(request)}",service="x",scope="repository:a:pull"`
    const script = headers.authorization === 'Bearer t' ? found() : answer(401, { 'WWW-Authenticate': challenge })
    script(request, ...rest)
  }
}
const forwarded = ({ headers }: IncomingMessage) =>
  `${headers['x-forwarded-proto']}://${headers['x-forwarded-host']}/v2/token`
const inner = ({ headers }: IncomingMessage) => `https://${headers.host}/v2/token`

test('a realm that hosted builds from the host it is asked by, or told, is asked through this router', async () => {
  for (const realm of [forwarded, inner]) {
    const seen: Parameters<typeof realmOf>[0] = []
    const router = await between(by({}), withTokens(realm, seen), { AGGREGATE_HOSTNAME: 'https://registry.example' })
    for (const path of ['/v2/', tag]) {
      const { status, headers } = await send(router.url, 'GET', path)
      assert.equal(status, 401)
      assert.match(
        `${headers['www-authenticate']}`,
        /^Bearer realm="https:\/\/registry\.example\/v2\/token",service="x"/,
      )
    }
    const headers = { Authorization: 'Basic dXNlcjpwYXNz', Cookie: 'canary-not-for-realms' }
    const query = '?service=x&scope=repository%3Aa%3Apull'
    const token = await send(router.url, 'GET', `/v2/token${query}`, { headers })
    assert.deepEqual([token.status, token.json(), token.headers['cache-control']], [200, { token: 't' }, 'no-store'])
    const form = 'grant_type=password&username=user&password=pass'
    const type = { 'Content-Type': 'application/x-www-form-urlencoded' }
    await send(router.url, 'POST', '/v2/token', { headers: { ...headers, ...type }, body: form })
    assert.deepEqual(
      seen.map(({ target, authorization, cookie, body }) => [target, authorization, cookie, body]),
      [
        [`/v2/token${query}`, headers.Authorization, undefined, ''],
        ['/v2/token', headers.Authorization, undefined, form],
      ],
    )
    assert.equal((await send(router.url, 'GET', '/v2/token')).status, 401)
    const long = await send(router.url, 'POST', '/v2/token', { headers, body: 'x'.repeat(70_000) })
    assert.equal(long.status, 413)
    const bearer = { headers: { Authorization: 'Bearer t' } }
    assert.equal((await send(router.url, 'GET', tag, bearer)).body.toString(), manifest)
    await router.close()
  }
})

test("hosted's realm on another host stays as it is, and /v2/token is no path here", async () => {
  const router = await between(
    by({}),
    withTokens(() => 'https://auth.example/token'),
  )
  const { headers } = await send(router.url, 'GET', '/v2/')
  assert.match(`${headers['www-authenticate']}`, /^Bearer realm="https:\/\/auth\.example\/token"/)
  assert.equal((await send(router.url, 'GET', '/v2/token')).status, 404)
  await router.close()
})

test("hosted's challenge on a 200 passes; an answer to one kind of client is not for another", async () => {
  const challenge = { 'WWW-Authenticate': 'Basic realm="zot"' }
  const zot: Script = ({ headers }, response) =>
    response
      .writeHead(/^docker\//.test(headers['user-agent'] ?? '') && !headers.authorization ? 401 : 200, challenge)
      .end('{}')
  const router = await between(by({}), zot)
  const get = (agent: string, more = {}) =>
    send(router.url, 'GET', '/v2/', { headers: { 'User-Agent': agent, ...more } })
  for (let i = 0; i < 2; i++) {
    const [skopeo, docker] = await Promise.all([get('skopeo/1.9'), get('docker/28.2')])
    assert.deepEqual([skopeo.status, skopeo.headers['www-authenticate']], [200, challenge['WWW-Authenticate']])
    assert.deepEqual([docker.status, docker.headers['www-authenticate']], [401, challenge['WWW-Authenticate']])
    assert.equal((await get('docker/28.2', { Authorization: 'Basic x' })).status, 200)
  }
  await router.close()
})

/** bcrypt of `canary-password`, cost 4. */
const hash = '$2b$04$wc19a07rSHOqzzOCmQVYouFAsmv/e5S2S4piwVisWHzzQj4ZZGQFu'
const ownLogin = () => {
  const file = join(temporaryFolder(), 'users')
  writeFileSync(file, `ann:${hash}\n`)
  return { HTPASSWD_FILE: file, HOSTED_USERNAME: 'router', HOSTED_PASSWORD: 'canary-password' }
}
const ann = { Authorization: `Basic ${Buffer.from('ann:canary-password').toString('base64')}` }

test("the router's own login: a realm on hosted's own host and port is asked in hosted's own scheme", async () => {
  for (const realm of [inner, forwarded]) {
    const router = await between(by({}), withTokens(realm), ownLogin())
    assert.equal((await send(router.url, 'GET', tag, { headers: ann })).body.toString(), manifest)
    await router.close()
  }
})

test("the router's own login: hosted's /v2/ is open and its writes want Basic: a chunk without a POST before it is taken", async () => {
  const hosted: Script = (request, ...rest) => {
    const isOpen = request.url === '/v2/' || request.headers.authorization
    const script = isOpen
      ? answer(request.url === '/v2/' ? 200 : 202, {}, '')
      : answer(401, { 'WWW-Authenticate': 'Basic realm="x"' })
    script(request, ...rest)
  }
  const router = await between(by({}), hosted, ownLogin())
  const body = Buffer.alloc(10_000)
  for (let i = 0; i < 2; i++) {
    assert.equal((await send(router.url, 'PATCH', '/v2/a/blobs/uploads/1', { headers: ann, body })).status, 202)
  }
  await router.close()
})

test('a realm in clear on another host: asked without a password, never with one', async () => {
  const realm = await scripted(answer(200, { 'Content-Type': 'application/json' }, '{"token":"t"}'))
  const proxy = withTokens(() => `http://localhost:${realm.host.split(':')[1]}/token`)
  const anonymous = await between(proxy, by({}))
  assert.equal((await send(anonymous.url, 'GET', tag)).body.toString(), manifest)
  assert.equal(realm.requests.length, 1)
  await anonymous.close()
  const withPassword = await between(proxy, by({}), { PROXY_USERNAME: 'router', PROXY_PASSWORD: 'canary-password' })
  assert.equal((await send(withPassword.url, 'GET', tag)).status, 502)
  assert.equal(realm.requests.length, 1)
  await withPassword.close()
  await realm.close()
})

test('the reason names the cause: no login, or a wrong one', async () => {
  const basic = by({}, answer(401, { 'WWW-Authenticate': 'Basic realm="x"' }))
  const wantsBasic = by({ '/v2/': answer(401, { 'WWW-Authenticate': 'Basic realm="x"' }) }, basic)
  for (const [environment, reason] of [
    [{}, 'wants a login that this router does not have'],
    [{ PROXY_USERNAME: 'router', PROXY_PASSWORD: 'canary-password' }, 'refuses the login of this router'],
  ] as const) {
    const router = await between(wantsBasic, by({}), environment)
    const { detail } = (await send(router.url, 'GET', tag)).json().errors[0]
    assert.equal(detail[0].reason, reason)
    await router.close()
  }
})

test('a router that a registry redirects to is never asked by itself', async () => {
  const own = { host: '' }
  const loop: Script = (request, response) =>
    response.writeHead(307, { Location: `http://${own.host}${request.url}` }).end()
  const upstream = await scripted(loop)
  const { freePort } = await import('./parts/registries.ts')
  const port = await freePort()
  own.host = `127.0.0.1:${port}`
  const hosts = {
    PROXY_HOSTNAME: upstream.host,
    HOSTED_HOSTNAME: upstream.host,
    AGGREGATE_HOSTNAME: own.host,
    PORT: `${port}`,
  }
  const router = await startRouter(way, { ...hosts, BLOB_REDIRECTS: 'follow' })
  for (const path of [tag, blob]) assert.equal((await send(router.url, 'GET', path)).status, 502)
  assert.equal(upstream.requests.length, 4)
  await router.stop('SIGKILL')
  await upstream.close()
})
