/**
 * The fault matrix: what the client gets for everything that each registry may do to a lookup, run one way (WAY=…).
 * Scripted upstreams on real sockets; what they do is written in the name that is asked for.
 */
import assert from 'node:assert/strict'
import { connect, createServer } from 'node:net'
import { Readable } from 'node:stream'
import { after, before, test } from 'node:test'
import { type Between, between as betweenOn, closeAll } from './parts/between.ts'
import { until } from './parts/children.ts'
import { answerOf, digestOf, download, noise, open, type Reply, send } from './parts/client.ts'
import { type Router, startRouter, type Way } from './parts/router.ts'
import { answer, type Script, type Scripted, scripted } from './parts/scripted.ts'

const way = (process.env.WAY ?? 'node') as Way
/** Seconds; a hanging registry costs each of its cases that. */
const timeout = 0.25

const error = (status: number, code: string, headers = {}, detail?: unknown): Script =>
  answer(status, { 'Content-Type': 'application/json', ...headers }, JSON.stringify({ errors: [{ code, detail }] }))
const nested = (code: string) => error(500, 'UNKNOWN', {}, { errors: [{ code }] })
const raw =
  (bytes: string): Script =>
  (request) =>
    request.socket.end(bytes)

/** Everything a registry may do, by the verdict it has as the proxy and as hosted (empty: is not tried there). */
const doings: [name: string, proxy: string, hosted: string, script: Script][] = [
  ['200', 'found', 'found', answer(200, { 'Content-Length': 4, ETag: '"x"' }, 'body')],
  ['307', 'found', 'found', answer(307, { Location: 'https://storage.example/x' })],
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
  ['301-itself', 'failed', 'failed', answer(301, { Location: '/v2/elsewhere' })],
  ['reset', 'failed', 'failed', (request) => request.socket.resetAndDestroy()],
  ['closed', 'failed', 'failed', (request) => request.socket.destroy()],
  ['junk', 'failed', 'failed', raw('SSH-2.0-OpenSSH_9.2\r\n\r\n')],
  ['half-a-head', 'failed', 'failed', raw('HTTP/1.1 200 OK\r\nContent-Le')],
  ['hang', 'late', 'late', () => {}],
]

/** Rows: the proxy's verdict. Columns: hosted's. What the client gets: somebody's answer, or a status of the router's. */
const columns = ['found', 'absent', 'login', 'denied', 'limited', 'failed', 'late']
const grid: Record<string, string> = {
  found: '  proxy   proxy   proxy  proxy   proxy    proxy   proxy',
  absent: ' hosted  404     401    403     429      502     504',
  denied: ' hosted  404     401    403     429      502     504',
  limited: 'hosted  429     401    429     429      502     504',
  failed: ' hosted  502     401    502     429      502     504',
  late: '   hosted  504     401    504     429      502     504',
}
const codes: Record<string, string> = {
  404: 'NAME_UNKNOWN|MANIFEST_UNKNOWN|BLOB_UNKNOWN',
  401: 'UNAUTHORIZED',
  403: 'DENIED',
  429: 'TOOMANYREQUESTS',
  502: 'UNAVAILABLE',
  504: 'UNAVAILABLE',
}

let proxy: Scripted
let hosted: Scripted
let router: Router

/** `/v2/proxy-DOING/hosted-DOING/…` does to each what its name says. */
const byName =
  (who: string): Script =>
  (request, response, recorded) => {
    const [, doing] = new RegExp(`/${who}-([^/]+)/`).exec(request.url ?? '') ?? []
    const script = doings.find(([name]) => name === doing)?.[3] ?? answer(200, {}, '{}')
    script(request, response, recorded)
  }

before(async () => {
  proxy = await scripted(byName('proxy'))
  hosted = await scripted(byName('hosted'))
  const timeouts = { PROXY_TIMEOUT: `${timeout}`, HOSTED_TIMEOUT: `${timeout}` }
  router = await startRouter(way, { PROXY_HOSTNAME: proxy.host, HOSTED_HOSTNAME: hosted.host, ...timeouts })
})
after(async () => {
  await router.stop('SIGKILL')
  await proxy.close()
  await hosted.close()
})

/** One good answer of each, so that no case finds the breaker open because of those before it. */
async function becalm(): Promise<void> {
  await send(router.url, 'GET', '/v2/proxy-404/hosted-200/manifests/calm')
  await send(router.url, 'GET', '/v2/proxy-200/manifests/calm')
}

function check(reply: Reply, method: string, wanted: string, told: [string, string][], retryAfter?: string): void {
  if (wanted === 'proxy' || wanted === 'hosted') {
    assert.ok([200, 307].includes(reply.status), `${reply.status}`)
    if (reply.status === 200) assert.equal(reply.body.toString(), method === 'HEAD' ? '' : 'body')
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
    detail.map((one: Record<string, unknown>) => [one.upstream, one.verdict]),
    told,
  )
  assert.ok(!/127\.0\.0\.1|localhost/.test(reply.body.toString()), 'an address is told')
}

const verdict = (column: string) => (({ login: 'denied', late: 'failed' }) as Record<string, string>)[column] ?? column

const paths = {
  manifest: 'manifests/1.0',
  'manifest by digest': `manifests/${digestOf('x')}`,
  blob: `blobs/${digestOf('x')}`,
}
for (const [p, row] of doings) {
  for (const [h, , column] of doings) {
    if (!column) continue
    const wanted = grid[row]?.trim().split(/ +/)[columns.indexOf(column)] as string
    for (const [what, path] of Object.entries(paths)) {
      for (const method of what === 'blob' ? ['GET'] : ['GET', 'HEAD']) {
        // By digest differs from by tag only where the cache nests; the rest of its cases would say the same again.
        if (what === 'manifest by digest' && !p.startsWith('500-')) continue
        test(`${method} ${what}, proxy ${p}, hosted ${h}: ${wanted}`, async () => {
          await becalm()
          // A rate limit that a cache nests comes without its time.
          const retryAfter = wanted === '429' && [p, h].includes('429') ? '7' : undefined
          const reply = await send(router.url, method, `/v2/proxy-${p}/hosted-${h}/${path}`)
          const told: [string, string][] = [
            ['proxy', verdict(row)],
            ['hosted', verdict(column)],
          ]
          check(reply, method, wanted, told, retryAfter)
        })
      }
    }
  }
}

for (const [h, , column] of doings) {
  if (!column) continue
  test(`HEAD of a blob asks hosted alone, of a name that was not read from the proxy: ${h}`, async () => {
    await becalm()
    const asked = proxy.requests.length
    const { status } = await send(router.url, 'HEAD', `/v2/unread/proxy-200/hosted-${h}/blobs/${digestOf('x')}`)
    const none = { failed: 502, late: 504 }[column]
    assert.equal(status, /^[2-5]\d\d/.test(h) && h !== '301-itself' ? Number(h.slice(0, 3)) : none)
    assert.equal(proxy.requests.length, asked)
  })
}

test('a registry that refuses connections is a failed one, and so is one that is skipped because of it', async () => {
  const closed = createServer()
  await new Promise<void>((resolve) => closed.listen(0, '127.0.0.1', resolve))
  const gone = `127.0.0.1:${(closed.address() as { port: number }).port}`
  await new Promise((resolve) => closed.close(resolve))
  const lame = await startRouter(way, { PROXY_HOSTNAME: gone, HOSTED_HOSTNAME: hosted.host })
  for (let i = 0; i < 5; i++) {
    const lost = await send(lame.url, 'GET', '/v2/hosted-404/manifests/1.0')
    check(lost, 'GET', '502', [
      ['proxy', 'failed'],
      ['hosted', 'absent'],
    ])
    assert.equal((await send(lame.url, 'GET', '/v2/hosted-200/manifests/1.0')).body.toString(), 'body')
  }
  await lame.stop('SIGKILL')
})

test('three silences in a row open the breaker: the next lookup does not wait; an answer after a second closes it', async () => {
  await becalm()
  const silent = '/v2/proxy-hang/hosted-200/manifests/1.0'
  for (let i = 0; i < 3; i++) assert.equal((await send(router.url, 'GET', silent)).status, 200)
  const asked = proxy.requests.length
  const { status, body } = await send(router.url, 'GET', '/v2/proxy-hang/hosted-404/manifests/1.0')
  assert.deepEqual([status, proxy.requests.length], [502, asked])
  assert.match(body.toString(), /failed lately/)
  // A ping asks all the same: it is no lookup, and clients that ping first would else never look anything up again.
  assert.equal((await send(router.url, 'GET', '/v2/')).status, 200)
  assert.equal((await send(router.url, 'GET', '/healthcheck')).status, 200)
  assert.equal(proxy.requests.length, asked + 2)
  const well = '/v2/proxy-200/hosted-404/manifests/1.0'
  await until('the proxy to be asked again', async () => (await send(router.url, 'GET', well)).status === 200)
})

test('nobody waits for the trial of a registry that failed lately, unless nobody else has it', async () => {
  const own = await between(byName('proxy'), byName('hosted'), { PROXY_TIMEOUT: '0.5' })
  const get = async (doing: string) => {
    const started = performance.now()
    const { status } = await send(own.url, 'GET', `/v2/proxy-${doing}/hosted-200/manifests/1.0`)
    assert.equal(status, 200)
    return performance.now() - started
  }
  for (let i = 0; i < 3; i++) await get('hang')
  const asked = own.proxy.requests.length
  const slowest = { milliseconds: 0 }
  await until('the trial', async () => {
    slowest.milliseconds = Math.max(slowest.milliseconds, await get('hang'))
    return own.proxy.requests.length > asked
  })
  assert.ok(slowest.milliseconds < 400, `somebody waited ${slowest.milliseconds} ms`)
  const found = () => send(own.url, 'GET', '/v2/proxy-200/hosted-404/manifests/1.0')
  await until('a trial that is waited for', async () => (await found()).status === 200)
  await own.close()
})

test('no 404, 401, 403, 429, 500 or redirect opens the breaker, however many', async () => {
  for (const doing of ['404', '401', '403', '429', '500', '500-unknown', '301-itself']) {
    await becalm()
    for (let i = 0; i < 5; i++) {
      const asked = proxy.requests.length
      await send(router.url, 'GET', `/v2/proxy-${doing}/hosted-200/manifests/again-${i}`)
      assert.equal(proxy.requests.length, asked + 1, doing)
    }
  }
})

test('a write is tried whatever failed before it', async () => {
  for (let i = 0; i < 4; i++) await send(router.url, 'GET', '/v2/hosted-closed/tags/list')
  const asked = hosted.requests.length
  assert.equal((await send(router.url, 'GET', '/v2/hosted-200/tags/list')).status, 502)
  assert.equal((await send(router.url, 'PUT', '/v2/hosted-200/manifests/1.0')).status, 200)
  assert.equal(hosted.requests.length, asked + 1)
  const read = () => send(router.url, 'GET', '/v2/hosted-200/tags/list')
  await until('hosted to be asked again', async () => (await read()).status === 200)
})

/** A router of its own between these two. */
const between = betweenOn.bind(undefined, way)
after(closeAll)

const blob = `/v2/a/blobs/${digestOf('x')}`
const upload = '/v2/a/blobs/uploads/1'

/** Who breaks, how the answer was framed, and how many bytes of 100,000 came first. */
for (const who of ['proxy', 'hosted'] as const) {
  for (const framing of ['sized', 'chunked'] as const) {
    for (const bytes of [0, 1, 50_000, 99_999]) {
      for (const how of ['closed', 'reset'] as const) {
        test(`${who} ${how} after ${bytes} bytes of a ${framing} layer: the client sees a broken transfer`, async () => {
          const half: Script = (_, response) => {
            const end = () => (how === 'reset' ? response.socket?.resetAndDestroy() : response.socket?.destroy())
            response.writeHead(200, framing === 'sized' ? { 'Content-Length': 100_000 } : {})
            response.flushHeaders()
            if (bytes === 0) setImmediate(end)
            else response.write(Buffer.alloc(bytes), () => end())
          }
          const broken = who === 'proxy' ? await pair(half, answer(404)) : await pair(answer(404), half)
          await assert.rejects(async () => {
            const { status } = await download(broken.url, blob)
            // Where the head was lost with the body, the router may still say so in full.
            if (status === 502) throw new Error('502')
          })
        })
      }
    }
  }
}

/** One router for all the layers that break: its upstreams are told what to do for each. */
let shared: Between | undefined
let scripts: [Script, Script]
async function pair(proxy: Script, hosted: Script) {
  scripts = [answer(200), answer(200)]
  shared ??= await between(
    (...args) => scripts[0](...args),
    (...args) => scripts[1](...args),
  )
  await send(shared.url, 'GET', '/v2/calm/tags/list')
  await send(shared.url, 'GET', '/v2/calm/manifests/calm')
  scripts = [proxy, hosted]
  return shared
}

test('an answer that trickles comes whole, however slowly', async () => {
  const trickle: Script = (_, response) => {
    response.writeHead(200, { 'Content-Length': 20 })
    let left = 20
    const timer = setInterval(() => {
      response.write('x')
      left--
      if (left === 0) clearInterval(timer)
    }, 20)
  }
  const { url, close } = await between(answer(404), trickle, { HOSTED_TIMEOUT: '0.1', IDLE_TIMEOUT: '0.2' })
  assert.equal((await download(url, blob)).bytes, 20)
  await close()
})

test('an upload with pauses longer than every read timeout arrives whole; the registry may think as long', async () => {
  const thinks: Script = (request, response) => {
    request.resume().on('end', () => setTimeout(() => response.writeHead(201).end(), 600))
  }
  const timeouts = { HOSTED_TIMEOUT: '0.1', PROXY_TIMEOUT: '0.1', IDLE_TIMEOUT: '0.5' }
  const { url, hosted, close } = await between(answer(404), thinks, timeouts)
  async function* pausing() {
    for (let i = 0; i < 4; i++) {
      yield 'part '
      await new Promise((resolve) => setTimeout(resolve, 200))
    }
  }
  for (const headers of [{}, { 'Content-Length': 20 }]) {
    assert.equal((await send(url, 'PUT', upload, { headers, body: Readable.from(pausing()) })).status, 201)
    assert.deepEqual([hosted.requests.at(-1)?.bytes, hosted.requests.at(-1)?.complete], [20, true])
  }
  assert.equal((await send(url, 'PUT', upload)).status, 201)
  await close()
})

if (way !== 'deno') {
  test('IDLE_TIMEOUT ends a pull on which nothing moves, whoever stopped', async () => {
    const stalls: Script = (_, response) => {
      response.writeHead(200, { 'Content-Length': 100 })
      response.write('half')
    }
    const { url, hosted, close } = await between(answer(404), stalls, { IDLE_TIMEOUT: '0.3' })
    await assert.rejects(download(url, blob))
    await until('the upstream to be free', () => hosted.sockets.size === 0)
    await close()
  })

  test('IDLE_TIMEOUT ends an upload on which nothing moves, and hosted sees a broken request', async () => {
    const { url, hosted, close } = await between(answer(404), (request) => request.resume(), { IDLE_TIMEOUT: '0.3' })
    const request = open(url, 'PATCH', upload, { 'Content-Length': 100 })
    const answered = answerOf(request)
    request.write('half')
    await assert.rejects(answered)
    await until('the upstream to be free', () => hosted.sockets.size === 0)
    assert.equal(hosted.requests[0]?.complete, false)
    await close()
  })
}

for (const status of [401, 413, 507]) {
  for (const framing of ['sized', 'chunked']) {
    test(`hosted refuses a ${framing} upload with ${status} while it is still sent: the client gets that answer`, async () => {
      const early: Script = (request, response) => {
        const fields = { 'Content-Type': 'application/json', 'WWW-Authenticate': 'Basic realm="x"' }
        request.once('data', () => {
          response.writeHead(status, fields).end('{"errors":[{"code":"DENIED"}]}')
          request.resume()
        })
      }
      const { url, close } = await between(answer(404), early)
      const headers = framing === 'sized' ? { 'Content-Length': 32 * 1024 * 1024 } : {}
      const reply = await send(url, 'PATCH', upload, { headers, body: noise(32 * 1024 * 1024, 1) })
      assert.deepEqual([reply.status, reply.json().errors[0].code], [status, 'DENIED'])
      assert.equal((await send(url, 'GET', '/livez')).status, 200)
      await close()
    })
  }
}

test('a refused upload: the connection stays open to what the client still sends, and the answer is not lost', async () => {
  const early: Script = (request, response) => {
    request.once('data', () => response.writeHead(413, { 'Content-Length': 2 }).end('no')).resume()
  }
  const { url, router, close } = await between(answer(404), early)
  const [hostname, port] = router.host.split(':')
  const socket = connect(Number(port), hostname)
  let got = ''
  let broken = ''
  socket.on('data', (chunk) => {
    got += chunk
  })
  socket.on('error', ({ message }) => {
    broken = message
  })
  socket.write(`PUT ${upload} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\nfirst`)
  await until('the answer', () => got.includes('no'))
  for (let i = 0; i < 20; i++) {
    await new Promise((resolve) => socket.write(Buffer.alloc(1000), resolve))
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  assert.equal(broken, '')
  socket.destroy()
  assert.equal((await send(url, 'GET', '/livez')).status, 200)
  await close()
})

test('hosted resets an upload while it is still sent: 502 in JSON, or at least a broken connection; nobody dies', async () => {
  const resets: Script = (request) => request.once('data', () => request.socket.resetAndDestroy())
  const { url, close } = await between(answer(404), resets)
  for (let i = 0; i < 10; i++) {
    const reply = await send(url, 'PATCH', upload, { body: noise(4 * 1024 * 1024, 1) }).catch(() => undefined)
    if (!reply) continue
    assert.deepEqual([reply.status, reply.json().errors[0].code], [502, 'UNAVAILABLE'])
    assert.match(`${reply.headers.connection}`, /close/)
  }
  await close()
})

test('an upstream that closes idle connections just as a request goes out: reads are tried again, bodies never', async () => {
  // Every connection serves one request and looks kept alive; it breaks when the second comes.
  const served = new WeakSet<object>()
  const once: Script = (request, response) => {
    if (served.has(request.socket)) return request.socket.destroy()
    served.add(request.socket)
    request.resume().on('end', () => response.writeHead(200, { 'Content-Length': 2 }).end('ok'))
  }
  const { url, hosted, close } = await between(answer(404), once)
  for (const [method, path] of [
    ['GET', '/v2/a/tags/list'],
    ['HEAD', blob],
    ['POST', '/v2/a/blobs/uploads/'],
  ] as const) {
    for (let i = 0; i < 6; i++) assert.equal((await send(url, method, path)).status, 200, `${method} ${i}`)
  }
  hosted.requests.length = 0
  for (let i = 0; i < 6; i++) await send(url, 'PATCH', upload, { headers: { 'Content-Length': 1 }, body: 'x' })
  const bytes = hosted.requests.reduce((sum, request) => sum + request.bytes, 0)
  assert.ok(bytes <= 6, `${bytes} bytes came of the 6 that were sent`)
  await close()
})

/** Bytes of a request, and the statuses a server may answer (0: it closes the connection). */
const smuggled: [string, string, number[]][] = [
  [
    'both lengths',
    'POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    [0, 400],
  ],
  [
    'two lengths',
    'POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n12345',
    [0, 400],
  ],
  [
    'a bad chunk size',
    'PATCH /v2/a/blobs/uploads/1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n',
    [0, 400],
  ],
  ['a length that is none', 'PATCH /v2/a/blobs/uploads/1 HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n', [0, 400]],
  ['a space before a colon', 'GET /v2/ HTTP/1.1\r\nHost : x\r\n\r\n', [0, 400]],
  ['a NUL in a header', 'GET /v2/ HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n', [0, 400]],
  ['100 KB of header', `GET /v2/ HTTP/1.1\r\nHost: x\r\nX: ${'a'.repeat(100_000)}\r\n\r\n`, [0, 400, 413, 431, 503]],
  ['a foreign Host', 'GET /v2/_catalog HTTP/1.1\r\nHost: evil.example:99\r\nConnection: close\r\n\r\n', [200]],
  ['an absolute target', 'GET http://evil.example/v2/_catalog HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n', [200]],
]
for (const [what, bytes, statuses] of smuggled) {
  test(`${what}: refused or harmless, and no upstream sees a request outside the table`, async () => {
    const { url, router, hosted, close } = await between(answer(200), answer(200))
    const [hostname, port] = router.host.split(':')
    const socket = connect(Number(port), hostname)
    let got = ''
    socket.on('data', (chunk) => {
      got += chunk
      if (/^HTTP\/1\.1 \d+/.test(got)) socket.end()
    })
    socket.on('error', () => {})
    socket.write(bytes)
    await new Promise((resolve) => socket.once('close', resolve))
    const status = Number(/^HTTP\/1\.1 (\d+)/.exec(got)?.[1] ?? 0)
    assert.ok(statuses.includes(status), `${status}`)
    for (const { target, complete, method } of hosted.requests) {
      assert.match(target, /^\/v2\//)
      assert.ok(!complete || method === 'GET', 'a smuggled body looked whole')
    }
    assert.equal((await send(url, 'GET', '/livez')).status, 200)
    await close()
  })
}
