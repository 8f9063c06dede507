/**
 * The fault matrix: what the client gets for everything that each registry may do to a lookup. The requested name says
 * what the scripted upstreams do, on real sockets. WAY selects the runtime.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer } from 'node:net'
import { after, before, test } from 'node:test'
import { between, closeAll } from './parts/between.ts'
import { digestOf, type Reply, send } from './parts/client.ts'
import { type Router, startRouter, way } from './parts/router.ts'
import { answer, type Script, type Scripted, scripted } from './parts/scripted.ts'
import { until } from './parts/until.ts'

/** Only cases with a hanging registry wait this long; all others have the default, so that a busy machine passes. */
const timeoutSeconds = 0.25

const json = { 'Content-Type': 'application/json' }
const error = (status: number, code: string, headers = {}, detail?: unknown): Script =>
  answer(status, { ...json, ...headers }, JSON.stringify({ errors: [{ code, detail }] }))
const nested = (code: string) => error(500, 'UNKNOWN', {}, { errors: [{ code }] })
const raw =
  (bytes: string): Script =>
  (request) =>
    request.socket.end(bytes)

const manifest = '{"schemaVersion":2}'
const html = { 'Content-Type': 'text/html; charset=utf-8' }
const oneOf = (head: Script, get: Script): Script => {
  return (request, ...rest) => (request.method === 'HEAD' ? head : get)(request, ...rest)
}
/** Redirects, but answers with `then` when it is asked where the redirect leads. */
const moves = (status: number, location: string, then: Script): Script => {
  return (request, ...rest) =>
    (request.url?.includes('/moved') ? then : answer(status, { Location: request.url?.replace(/[^/]*$/, location) }))(
      request,
      ...rest,
    )
}
const found = answer(200, { 'Content-Length': manifest.length, ETag: '"x"' }, manifest)

/** Everything a registry may do, with its verdict as the proxy and as hosted (empty: not tested there). */
const doings: [name: string, proxy: string, hosted: string, script: Script, only?: 'manifest' | 'blob'][] = [
  ['200', 'found', 'found', found],
  ['307', 'found', 'found', answer(307, { Location: 'https://storage.example/x' }), 'blob'],
  ['404', 'absent', 'absent', error(404, 'NAME_UNKNOWN')],
  ['404-html', 'absent', 'absent', answer(404, { 'Content-Type': 'text/html' }, '<h1>Not Found</h1>')],
  ['500-unknown', 'absent', '', nested('MANIFEST_UNKNOWN')],
  ['500-denied', 'denied', '', nested('DENIED')],
  ['401', 'denied', 'login', error(401, 'UNAUTHORIZED', { 'WWW-Authenticate': 'Basic realm="team"' })],
  ['403', 'denied', 'denied', error(403, 'DENIED')],
  ['429', 'limited', 'limited', error(429, 'TOOMANYREQUESTS', { 'Retry-After': '7' })],
  ['500-limited', 'limited', '', nested('TOOMANYREQUESTS')],
  ['500', 'failed', 'failed', answer(500, {}, 'oops')],
  ['503', 'failed', 'failed', error(503, 'UNAVAILABLE')],
  ['408', 'failed', 'failed', answer(408)],
  ['301-itself', 'failed', 'failed', (request, response) => response.writeHead(301, { Location: request.url }).end()],
  ['reset', 'failed', 'failed', (request) => request.socket.resetAndDestroy()],
  ['closed', 'failed', 'failed', (request) => request.socket.destroy()],
  ['junk', 'failed', 'failed', raw('SSH-2.0-OpenSSH_9.2\r\n\r\n')],
  ['half-a-head', 'failed', 'failed', raw('HTTP/1.1 200 OK\r\nContent-Le')],
  ['hang', 'late', 'late', () => {}],
]

/** What other registries do, and what stands in front of them. Each is paired with the first doings of each kind only. */
const variants: typeof doings = [
  ['200-chunked', 'found', 'found', (_, response) => response.writeHead(200).end(manifest), 'manifest'],
  ['200-as-html', 'found', 'found', answer(200, html, manifest), 'manifest'],
  ['200-page', 'failed', 'failed', answer(200, html, '<html>Welcome</html>')],
  ['200-page-chunked', 'failed', 'failed', (_, response) => response.writeHead(200, html).end('<html>')],
  ['200-empty', 'failed', 'failed', answer(200, { 'Content-Length': 0 })],
  ['200-errors', 'failed', 'failed', answer(200, json, '{"errors":[]}'), 'manifest'],
  ['200-list', 'failed', 'failed', oneOf(answer(405), answer(200, {}, '[{"schemaVersion":2}]')), 'manifest'],
  [
    '200-cut-short',
    'failed',
    'failed',
    oneOf(answer(405), raw('HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{')),
    'manifest',
  ],
  ['405-to-head', 'found', 'found', oneOf(answer(405), found), 'manifest'],
  ['400-to-head', 'found', 'found', oneOf(answer(400), found), 'manifest'],
  ['405-to-head-404', 'absent', 'absent', oneOf(answer(405), error(404, 'MANIFEST_UNKNOWN')), 'manifest'],
  ['405-to-head-503', 'failed', 'failed', oneOf(answer(405), answer(503)), 'manifest'],
  ['501-to-head', 'found', 'found', oneOf(answer(501), found), 'manifest'],
  ['405', 'failed', 'failed', error(405, 'UNSUPPORTED')],
  ['413', 'failed', 'failed', answer(413, html, '<html>')],
  ['431', 'failed', 'failed', answer(431)],
  ['400', 'failed', 'failed', answer(400, {}, 'Client sent an HTTP request to an HTTPS server.')],
  ['407', 'failed', 'failed', answer(407)],
  ['421', 'failed', 'failed', answer(421)],
  ['426', 'failed', 'failed', answer(426, { Upgrade: 'TLS/1.2' })],
  ['400-invalid', 'refused', 'refused', error(400, 'MANIFEST_INVALID')],
  ['400-name', 'absent', 'absent', error(400, 'NAME_INVALID')],
  ['400-unknown', 'absent', 'absent', error(400, 'NAME_UNKNOWN')],
  ['400-tag', 'absent', 'absent', error(400, 'TAG_INVALID')],
  ['404-bare', 'absent', 'absent', (_, response) => response.writeHead(404).end()],
  ['301-library', 'found', 'found', moves(301, 'moved', found), 'manifest'],
  ['302-pulp', 'found', 'found', moves(302, 'moved?a=b', found), 'manifest'],
  ['307-chunked', 'found', 'found', moves(307, 'moved', (_, response) => response.end(manifest)), 'manifest'],
  ['302-login', 'failed', 'failed', moves(302, 'moved', answer(200, html, '<html>log in</html>')), 'manifest'],
  ['302-404', 'absent', 'absent', moves(302, 'moved', error(404, 'MANIFEST_UNKNOWN')), 'manifest'],
  ['302-503', 'failed', 'failed', moves(302, 'moved', answer(503)), 'manifest'],
  ['302-nowhere', 'failed', 'failed', answer(302), 'manifest'],
  ['302-file', 'failed', 'failed', answer(302, { Location: 'file:///etc/passwd' }), 'manifest'],
  ['302-router', 'failed', 'failed', answer(302, { Location: 'http://registry.example/v2/' })],
]
const isBasic = (name: string) => ['200', '404', '401', '503'].includes(name)

/**
 * Rows: the proxy's verdict. Columns: hosted's verdict. Cells: the registry whose answer the client gets, or the
 * router's own status code.
 */
const columns = ['found', 'absent', 'login', 'denied', 'limited', 'failed', 'late', 'refused']
const grid: Record<string, string> = {
  found: '  proxy   proxy   proxy  proxy   proxy    proxy   proxy  proxy',
  absent: ' hosted  404     401    403     429      502     504    400',
  denied: ' hosted  404     401    403     429      502     504    400',
  limited: 'hosted  429     401    429     429      502     504    429',
  failed: ' hosted  502     401    502     429      502     504    502',
  late: '   hosted  504     401    504     429      502     504    504',
  refused: 'hosted  400     401    403     429      502     504    400',
}
const codes: Record<string, string> = {
  400: 'MANIFEST_INVALID',
  404: 'NAME_UNKNOWN|MANIFEST_UNKNOWN|BLOB_UNKNOWN|NAME_INVALID|TAG_INVALID',
  401: 'UNAUTHORIZED',
  403: 'DENIED',
  429: 'TOOMANYREQUESTS',
  502: 'UNAVAILABLE',
  504: 'UNAVAILABLE',
}

let proxy: Scripted
let hosted: Scripted
let router: Router
let shortTimeoutRouter: Router

/** Does what the name says for this registry: `/v2/proxy-404/hosted-200/…`. */
const byName =
  (who: string): Script =>
  (request, response, recorded) => {
    const [, doing] = new RegExp(`/${who}-([^/]+)/`).exec(request.url ?? '') ?? []
    const script = [...doings, ...variants].find(([name]) => name === doing)?.[3] ?? answer(200, {}, '{}')
    script(request, response, recorded)
  }

before(async () => {
  proxy = await scripted(byName('proxy'))
  hosted = await scripted(byName('hosted'))
  // Without NAME_TTL the proxy hears every question of a test.
  const hosts = { PROXY_HOSTNAME: proxy.host, HOSTED_HOSTNAME: hosted.host, NAME_TTL: '0' }
  router = await startRouter(way, hosts)
  shortTimeoutRouter = await startRouter(way, {
    ...hosts,
    PROXY_TIMEOUT: `${timeoutSeconds}`,
    HOSTED_TIMEOUT: `${timeoutSeconds}`,
    BLOB_TIMEOUT: `${timeoutSeconds}`,
  })
})
after(async () => {
  await closeAll()
  await router.stop('SIGKILL')
  await shortTimeoutRouter.stop('SIGKILL')
  await proxy.close()
  await hosted.close()
})

/** Routers with a failure that may still count for a breaker. */
const troubled = new Set<Router>()

/** Gets a good answer from each registry, so that no earlier case leaves the breaker open. */
async function closeBreakers(router: Router): Promise<void> {
  if (!troubled.delete(router)) return
  const { url } = router
  for (const path of ['proxy-404/hosted-200', 'proxy-200/hosted-404']) {
    const well = async () => (await send(url, 'GET', `/v2/${path}/manifests/calm`)).status === 200
    await until('both registries to be well again', well)
  }
}

const routerFor = (...doings: string[]) => (doings.includes('hang') ? shortTimeoutRouter : router)

function checkReply(
  reply: Reply,
  method: string,
  wanted: string,
  expectedDetail: [string, string][],
  retryAfter?: string,
): void {
  if (wanted === 'proxy' || wanted === 'hosted') {
    assert.ok([200, 307].includes(reply.status), `${reply.status}`)
    if (reply.status === 200) assert.equal(reply.body.toString(), method === 'HEAD' ? '' : manifest)
    else assert.equal(reply.headers.location, 'https://storage.example/x')
    return
  }
  assert.equal(reply.status, Number(wanted), reply.body.toString())
  assert.equal(reply.headers['retry-after'], retryAfter)
  assert.equal(reply.headers['www-authenticate'], wanted === '401' ? 'Basic realm="team"' : undefined)
  if (method === 'HEAD') {
    assert.equal(reply.body.length, 0)
    return
  }
  assert.equal(reply.headers['content-type'], 'application/json')
  const [{ code, detail }] = reply.json().errors
  assert.match(code, new RegExp(`^(${codes[wanted]})$`))
  assert.deepEqual(
    detail.map((entry: Record<string, unknown>) => [entry.upstream, entry.verdict]),
    expectedDetail,
  )
  assert.ok(!/127\.0\.0\.1|localhost/.test(reply.body.toString()), 'an address is told')
}

const verdict = (column: string) =>
  (({ login: 'denied', refused: 'denied', late: 'failed' }) as Record<string, string>)[column] ?? column

const paths = {
  manifest: 'manifests/1.0',
  'manifest by digest': `manifests/${digestOf('x')}`,
  blob: `blobs/${digestOf('x')}`,
}
/** What is tested of a pair: not of two variants, and of a variant only with the first doings of each kind. */
function* cases() {
  const all = [...doings, ...variants]
  for (const [p, row, , , ofProxy] of all) {
    for (const [h, , column, , ofHosted] of all) {
      const isVariant = [p, h].map((name) => variants.some(([one]) => one === name))
      if (!column || (isVariant[0] && !isBasic(h)) || (isVariant[1] && !isBasic(p))) continue
      for (const [what, path] of Object.entries(paths)) {
        const kind = what === 'blob' ? 'blob' : 'manifest'
        if ([ofProxy, ofHosted].some((only) => only && only !== kind)) continue
        // By digest differs from by tag only if the cache nests an error, or in what a variant is taken for.
        if (what === 'manifest by digest' && !p.startsWith('500-') && !isVariant.includes(true)) continue
        for (const method of kind === 'blob' ? ['GET'] : ['GET', 'HEAD'])
          yield { p, row, h, column, what, path, method }
      }
    }
  }
}

for (const { p, row, h, column, what, path, method } of cases()) {
  const wanted = grid[row]?.trim().split(/ +/)[columns.indexOf(column)] as string
  test(`${method} ${what}, proxy ${p}, hosted ${h}: the client gets ${wanted}`, async () => {
    const router = routerFor(p, h)
    await closeBreakers(router)
    if (/failed|late/.test(row + column)) troubled.add(router)
    // A rate limit that a cache nests comes without Retry-After.
    const retryAfter = wanted === '429' && [p, h].includes('429') ? '7' : undefined
    const reply = await send(router.url, method, `/v2/proxy-${p}/hosted-${h}/${path}`)
    const expectedDetail: [string, string][] = [
      ['proxy', verdict(row)],
      ['hosted', verdict(column)],
    ]
    checkReply(reply, method, wanted, expectedDetail, retryAfter)
  })
}

for (const [h, , column] of doings) {
  if (!column) continue
  test(`HEAD of a blob asks hosted alone, of a name that was not read from the proxy: ${h}`, async () => {
    const router = routerFor(h)
    await closeBreakers(router)
    if (/failed|late/.test(column)) troubled.add(router)
    const asked = proxy.requests.length
    const { status } = await send(router.url, 'HEAD', `/v2/unread/proxy-200/hosted-${h}/blobs/${digestOf('x')}`)
    const routerStatus = { failed: 502, late: 504 }[column]
    assert.equal(status, /^[2-5]\d\d/.test(h) && h !== '301-itself' ? Number(h.slice(0, 3)) : routerStatus)
    assert.equal(proxy.requests.length, asked)
  })
}

test('a registry that refuses connections is failed, also while the breaker skips it', async () => {
  // The local port of a connection: nobody listens on it, and nobody else can get it.
  const far = createServer()
  await new Promise<void>((resolve) => far.listen(0, '127.0.0.1', resolve))
  const near = connect((far.address() as AddressInfo).port, '127.0.0.1')
  await once(near, 'connect')
  const deadHost = `127.0.0.1:${near.localPort}`
  const ownRouter = await startRouter(way, { PROXY_HOSTNAME: deadHost, HOSTED_HOSTNAME: hosted.host })
  for (let i = 0; i < 5; i++) {
    const lost = await send(ownRouter.url, 'GET', '/v2/hosted-404/manifests/1.0')
    checkReply(lost, 'GET', '502', [
      ['proxy', 'failed'],
      ['hosted', 'absent'],
    ])
    assert.equal((await send(ownRouter.url, 'GET', '/v2/hosted-200/manifests/1.0')).body.toString(), manifest)
  }
  await ownRouter.stop('SIGKILL')
  near.destroy()
  far.close()
})

test('three timeouts in a row open the breaker: the next lookup does not wait; a good answer a second later closes it', async () => {
  const router = shortTimeoutRouter
  await closeBreakers(router)
  const silent = '/v2/proxy-hang/hosted-200/manifests/1.0'
  for (let i = 0; i < 3; i++) assert.equal((await send(router.url, 'GET', silent)).status, 200)
  const asked = proxy.requests.length
  const { status, body } = await send(router.url, 'GET', '/v2/proxy-hang/hosted-404/manifests/1.0')
  assert.deepEqual([status, proxy.requests.length], [502, asked])
  assert.match(body.toString(), /failed lately/)
  // Pings are still sent: many clients ping first, and would otherwise never start a lookup again.
  assert.equal((await send(router.url, 'GET', '/v2/')).status, 200)
  assert.equal((await send(router.url, 'GET', '/healthcheck')).status, 200)
  assert.equal(proxy.requests.length, asked + 2)
  const well = '/v2/proxy-200/hosted-404/manifests/1.0'
  await until('the proxy to be asked again', async () => (await send(router.url, 'GET', well)).status === 200)
})

test('no lookup waits for the trial of a registry that failed lately, unless the other registry lacks the manifest', async () => {
  const ownRouter = await between(byName('proxy'), byName('hosted'), { PROXY_TIMEOUT: '0.5' })
  const get = async (doing: string) => {
    const started = performance.now()
    const { status } = await send(ownRouter.url, 'GET', `/v2/proxy-${doing}/hosted-200/manifests/1.0`)
    assert.equal(status, 200)
    return performance.now() - started
  }
  for (let i = 0; i < 3; i++) await get('hang')
  const asked = ownRouter.proxy.requests.length
  const slowest = { milliseconds: 0 }
  await until('the trial', async () => {
    slowest.milliseconds = Math.max(slowest.milliseconds, await get('hang'))
    return ownRouter.proxy.requests.length > asked
  })
  assert.ok(slowest.milliseconds < 400, `somebody waited ${slowest.milliseconds} ms`)
  const found = () => send(ownRouter.url, 'GET', '/v2/proxy-200/hosted-404/manifests/1.0')
  await until('a trial that is waited for', async () => (await found()).status === 200)
  await ownRouter.close()
})

test('no 404, 401, 403, 429, 500 or redirect opens the breaker, however many', async () => {
  for (const doing of ['404', '401', '403', '429', '500', '500-unknown', '301-itself']) {
    await closeBreakers(router)
    for (let i = 0; i < 5; i++) {
      const path = `/v2/proxy-${doing}/hosted-200/manifests/again-${i}`
      await send(router.url, 'GET', path)
      // A redirect to itself is followed three times.
      const times = doing === '301-itself' ? 4 : 1
      assert.equal(proxy.requests.filter(({ target }) => target === path).length, times, doing)
    }
  }
})

test('a write is sent even while the breaker is open', async () => {
  for (let i = 0; i < 4; i++) await send(router.url, 'GET', '/v2/hosted-closed/tags/list')
  const asked = hosted.requests.length
  assert.equal((await send(router.url, 'GET', '/v2/hosted-200/tags/list')).status, 502)
  assert.equal((await send(router.url, 'PUT', '/v2/hosted-200/manifests/1.0')).status, 200)
  assert.equal(hosted.requests.length, asked + 1)
  const read = () => send(router.url, 'GET', '/v2/hosted-200/tags/list')
  await until('hosted to be asked again', async () => (await read()).status === 200)
})
