/** The service with scripted registries: verdicts, trust, what the client gets, what each upstream is sent. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, test } from 'node:test'
import { type Config, readConfig } from '../src/config.ts'
import { createLog } from '../src/log.ts'
import { readBytes } from '../src/registry/errors.ts'
import { follow } from '../src/runtime/files.ts'
import type { Connection, Fetch } from '../src/runtime/runtime.ts'
import { createService } from '../src/service.ts'

const sha256 = `sha256:${'a'.repeat(64)}`
const byTag = '/v2/team/app/manifests/1.0'
const byDigest = `/v2/team/app/manifests/${sha256}`
const blob = `/v2/team/app/blobs/${sha256}`

interface Sent {
  to: string
  /** Sent on a new connection, because the first try broke. */
  fresh?: boolean
  method: string
  url: string
  headers: Headers
}
type Say = (sent: Sent, init: RequestInit) => Response | Promise<Response>

/** The service between two scripted registries. */
function between(proxy: Say, hosted: Say, environment: Record<string, string> = {}) {
  const required = { AGGREGATE_HOSTNAME: 'registry.example', HOSTED_HOSTNAME: 'hosted:1', PROXY_HOSTNAME: 'proxy:2' }
  // Without it the registries hear only what a test asks.
  const config = readConfig({ ...required, NAME_TTL: '0', ...environment }) as Config
  const sent: Sent[] = []
  const lines: string[] = []
  const fetch: Fetch = async (url, init, fresh) => {
    const to = new URL(url).hostname
    const one = { to, method: init.method, url, headers: new Headers(init.headers), fresh }
    sent.push(one)
    if (to.endsWith('.example')) return status(200)(one, init)
    return (to === 'proxy' ? proxy : hosted)(one, init)
  }
  const log = createLog({ logFormat: 'json', logLevel: 'debug' }, (line) => lines.push(line))
  const clock = { ahead: 0 }
  const now = () => performance.now() + clock.ahead
  const service = createService(config, { fetch, now, log, version: '0', runtime: 'test' })
  const ask = async (path: string, init: RequestInit = {}, connection: Connection = {}) => {
    const response = await service.handle(new Request(`http://registry.example${path}`, init), connection)
    const text = await response.text()
    // Checked here, because a throw inside fetch would only look like a registry that is down.
    for (const [to, say] of Object.entries({ proxy, hosted })) {
      assert.ok(say !== notAsked || !sent.some((one) => one.to === to), `${to} was asked`)
    }
    return { status: response.status, headers: response.headers, text, error: errorOf(text) }
  }
  return {
    ask,
    sent,
    lines,
    clock,
    asked: () => sent.filter(({ fresh }) => !fresh).map(({ to, method }) => `${method} ${to}`),
    service,
  }
}

interface OciError {
  code: string
  message: string
  detail?: { upstream: string; verdict: string; status: number; milliseconds: number }[]
}
function errorOf(text: string): OciError | undefined {
  return text.startsWith('{"errors"') ? JSON.parse(text).errors[0] : undefined
}

const oci = (status: number, code: string, headers: Record<string, string> = {}, detail?: unknown): Say => {
  return () =>
    new Response(JSON.stringify({ errors: [{ code, message: `${code} said`, detail }] }), { status, headers })
}
const nested = (code: string) => oci(500, 'UNKNOWN', {}, { errors: [{ code, message: 'nested' }] })
/** The same of a registry: a 200 is any manifest or tag list, a 404 says that a registry speaks. */
const status = (code: number, headers: Record<string, string> = {}): Say => {
  const own: Record<string, string> = {
    ...(code === 200 && { 'Content-Type': 'application/vnd.oci.image.index.v1+json' }),
    ...(code === 404 && { 'Docker-Distribution-Api-Version': 'registry/2.0' }),
  }
  const fields = { ...own, ...headers }
  const body = code === 200 ? anyManifest : `${code}`
  return () => new Response(code === 304 ? null : body, { status: code, headers: fields })
}
const anyManifest = '{"schemaVersion":2,"tags":["1"]}'
const refused: Say = () => Promise.reject(new TypeError('fetch failed', { cause: { code: 'ECONNREFUSED' } }))
const silent: Say = (_, { signal }) =>
  new Promise((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason)))
/** A registry that must not be asked: `ask` fails if it was. */
const notAsked: Say = () => Promise.reject(new Error('was asked'))

const hub = { Location: 'https://storage.example/x' }

/** The proxy's answer to a GET by digest, and its verdict. */
const proxyAnswers: [string, Say, string][] = [
  ['200', status(200), 'found'],
  ['206', status(206), 'found'],
  ['304', status(304), 'found'],
  ['412', status(412), 'found'],
  ['416', status(416), 'found'],
  ['404', oci(404, 'MANIFEST_UNKNOWN'), 'absent'],
  ['500 nesting MANIFEST_UNKNOWN', nested('MANIFEST_UNKNOWN'), 'absent'],
  ['500 nesting NAME_UNKNOWN', nested('NAME_UNKNOWN'), 'absent'],
  ['401', oci(401, 'UNAUTHORIZED'), 'denied'],
  ['403', oci(403, 'DENIED'), 'denied'],
  ['400 without an OCI error', status(400), 'failed'],
  ['400 MANIFEST_INVALID', oci(400, 'MANIFEST_INVALID'), 'denied'],
  ['400 NAME_INVALID', oci(400, 'NAME_INVALID'), 'absent'],
  ['400 TAG_INVALID', oci(400, 'TAG_INVALID'), 'absent'],
  ['405', status(405), 'failed'],
  ['417 of the registry API', oci(417, 'UNSUPPORTED'), 'failed'],
  ['402', oci(402, 'DENIED'), 'denied'],
  ['407', status(407), 'failed'],
  ['421', status(421), 'failed'],
  ['426', status(426), 'failed'],
  ['500 nesting UNAUTHORIZED', nested('UNAUTHORIZED'), 'denied'],
  ['429', oci(429, 'TOOMANYREQUESTS', { 'Retry-After': '7' }), 'limited'],
  ['500 nesting TOOMANYREQUESTS', nested('TOOMANYREQUESTS'), 'limited'],
  // How CNCF distribution nests an upstream's answer to HEAD, or an answer that is not JSON.
  ['500 nesting a single error', oci(500, 'UNKNOWN', {}, { code: 'TOOMANYREQUESTS', message: '' }), 'limited'],
  ['500 nesting a single UNAUTHORIZED', oci(500, 'UNKNOWN', {}, { code: 'UNAUTHORIZED', message: '' }), 'denied'],
  ['500 nesting the status 429', oci(500, 'UNKNOWN', {}, { ParseErr: {}, StatusCode: 429 }), 'limited'],
  ['500 nesting the status 403', oci(500, 'UNKNOWN', {}, { ParseErr: {}, StatusCode: 403 }), 'denied'],
  ['500 nesting the status 500', oci(500, 'UNKNOWN', {}, { ParseErr: {}, StatusCode: 500 }), 'failed'],
  ['500', status(500), 'failed'],
  ['500 with a long body that is not JSON', () => new Response('x'.repeat(100_000), { status: 500 }), 'failed'],
  ['502', status(502), 'failed'],
  ['503', status(503), 'failed'],
  ['408', status(408), 'failed'],
  ['205, whose body no client would read', () => new Response(null, { status: 205 }), 'failed'],
  ['connection refused', refused, 'failed'],
  ['no answer in time', silent, 'failed'],
  ['301 to this router', status(301, { Location: 'https://registry.example/v2/' }), 'failed'],
  ['301 without a Location', status(301), 'failed'],
]
for (const [what, say, verdict] of proxyAnswers) {
  test(`${what} from the proxy is ${verdict}: hosted is ${verdict === 'found' ? 'not asked' : 'asked'}`, async () => {
    const hosted = verdict === 'found' ? notAsked : status(200)
    const { ask, asked, lines } = between(say, hosted, { PROXY_TIMEOUT: '0.05' })
    await ask(byDigest)
    assert.deepEqual(asked(), verdict === 'found' ? ['GET proxy'] : ['GET proxy', 'GET hosted'])
    assert.equal(JSON.parse(lines.at(-1) as string).asked[0].verdict, verdict)
  })
}

const tags = '/v2/team/app/tags/list'
/** What the proxy redirects, where to, the client's status, and who else is asked. */
const redirected: [string, string, string, number, string[]][] = [
  ['a manifest', byTag, 'https://storage.example/x', 200, ['storage.example']],
  ['a manifest by digest', byDigest, 'https://storage.example/x', 200, ['storage.example']],
  ['a manifest on its own host', byTag, '/v2/library/app/manifests/1.0', 200, []],
  ['a manifest to this router', byTag, 'https://registry.example/v2/', 502, []],
  ['a manifest to a file', byTag, 'file:///etc/passwd', 502, []],
  ['a manifest to an address with a login', byTag, 'https://u:p@storage.example/x', 502, []],
  ['a manifest to nothing', byTag, '', 502, []],
  ['a tag list', tags, 'https://storage.example/x', 200, ['storage.example']],
  ['a tag list to this router', tags, 'https://registry.example/v2/', 502, []],
]
for (const [what, path, location, wanted, elsewhere] of redirected) {
  test(`the proxy redirects ${what} to "${location}": ${wanted}, for each redirect, GET and HEAD`, async () => {
    for (const method of path === tags ? ['GET'] : ['GET', 'HEAD']) {
      for (const code of [301, 302, 303, 307, 308]) {
        const proxy: Say = (sent, init) =>
          (sent.url.includes('/library/') ? status(200) : status(code, { Location: location }))(sent, init)
        const { ask, sent } = between(proxy, status(404), { TAGS: 'lookup' })
        const reply = await ask(path, { method, headers: { Authorization: 'Basic canary', Cookie: 'canary' } })
        assert.equal(reply.status, wanted)
        if (wanted === 200) assert.equal(reply.text, method === 'HEAD' ? '' : anyManifest)
        const asked = sent.filter(({ to }) => !['proxy', 'hosted'].includes(to))
        assert.deepEqual(
          asked.map((one) => [one.to, one.method]),
          elsewhere.map((to) => [to, method]),
        )
        assert.ok(!asked.some(({ headers }) => JSON.stringify([...headers]).includes('canary')))
      }
    }
  })
}

test('a redirect of a registry that is asked by https never leads to http', async () => {
  for (const path of [byTag, byDigest, tags, blob]) {
    const location = { Location: 'http://storage.example/x' }
    const environment = { PROXY_HOSTNAME: 'https://proxy:2', TAGS: 'lookup', BLOB_REDIRECTS: 'follow' }
    const { ask, sent } = between(status(302, location), status(404), environment)
    assert.equal((await ask(path)).status, 502)
    assert.ok(!sent.some(({ to }) => to === 'storage.example'))
  }
})

test('three redirects of one request are followed, a fourth is not', async () => {
  for (const [count = 0, wanted] of [
    [3, 200],
    [4, 502],
  ]) {
    const asked: string[] = []
    const proxy: Say = (sent, init) => {
      asked.push(sent.url)
      return (asked.length > count ? status(200) : status(302, { Location: '/v2/x/manifests/1' }))(sent, init)
    }
    assert.equal((await between(proxy, status(404)).ask(byTag)).status, wanted)
  }
})

test('a redirect to a login page is an outage: the client gets the image of hosted, or 502', async () => {
  const page: Say = () => new Response('<html>log in</html>', { headers: { 'Content-Type': 'text/html' } })
  const proxy: Say = (sent, init) =>
    (sent.url.endsWith('/login') ? page : status(302, { Location: '/login' }))(sent, init)
  assert.equal((await between(proxy, status(404)).ask(byTag)).status, 502)
  assert.equal((await between(proxy, status(200)).ask(byTag)).status, 200)
})

test('a redirect of hosted to another host is followed without the login, one to its own host with it', async () => {
  const hosted = (location: string): Say => {
    return (sent, init) => (sent.url.endsWith('/moved') ? status(200) : status(307, { Location: location }))(sent, init)
  }
  const headers = { Authorization: 'Basic canary' }
  for (const [location, login] of [
    ['https://storage.example/moved', null],
    ['/moved', 'Basic canary'],
  ] as const) {
    const { ask, sent } = between(status(404), hosted(location))
    assert.equal((await ask(byTag, { headers })).status, 200)
    assert.equal(sent.at(-1)?.headers.get('Authorization'), login)
  }
})

test('BLOB_REDIRECTS: clients get the redirect of a layer, or with "follow" the layer itself', async () => {
  const passed = await between(status(307, hub), notAsked).ask(blob)
  assert.deepEqual([passed.status, passed.headers.get('Location')], [307, hub.Location])
  const { ask, sent } = between(status(307, hub), notAsked, { BLOB_REDIRECTS: 'follow' })
  assert.deepEqual([(await ask(blob)).text, sent.at(-1)?.to], [anyManifest, 'storage.example'])
  for (const location of ['https://registry.example/x', 'ftp://storage.example/x']) {
    const forbidden = between(status(307, { Location: location }), status(404), { BLOB_REDIRECTS: 'follow' })
    assert.equal((await forbidden.ask(blob)).status, 502)
  }
})

test("a redirect of a blob to the registry's own host, outside /v2/, is found: the client gets the absolute URL", async () => {
  for (const [path, location, wanted] of [
    [blob, '/downloads/a%2Fb?sig=1%2B', 'http://proxy:2/downloads/a%2Fb?sig=1%2B'],
    [`${blob}?ns=docker.io`, 'http://proxy:2/downloads/x', 'http://proxy:2/downloads/x'],
    [blob, '/v2/elsewhere', undefined],
    [byDigest, '/downloads/x', undefined],
  ] as const) {
    const { status: got, headers } = await between(status(302, { Location: location }), absent).ask(path)
    assert.deepEqual([got, headers.get('Location') ?? undefined], [wanted ? 302 : 502, wanted])
  }
})

const absent = oci(404, 'MANIFEST_UNKNOWN')
const denied = oci(403, 'DENIED')
const limited = oci(429, 'TOOMANYREQUESTS', { 'Retry-After': '7' })
const login = oci(401, 'UNAUTHORIZED', { 'WWW-Authenticate': 'Bearer realm="https://auth.example"' })
const failed = status(503)

/** The answers of proxy and hosted, then what the client gets: status code, error code, Retry-After. */
const combined: [string, Say, string, Say, number, string, string?][] = [
  ['absent', absent, 'absent', oci(404, 'NAME_UNKNOWN'), 404, 'NAME_UNKNOWN'],
  ['absent', absent, 'absent without a code', status(404), 404, 'MANIFEST_UNKNOWN'],
  ['denied', denied, 'absent', absent, 404, 'MANIFEST_UNKNOWN'],
  ['limited', limited, 'absent', absent, 429, 'TOOMANYREQUESTS', '7'],
  ['failed', failed, 'absent', absent, 502, 'UNAVAILABLE'],
  ['refused', refused, 'absent', absent, 502, 'UNAVAILABLE'],
  ['silent', silent, 'absent', absent, 504, 'UNAVAILABLE'],
  ['absent', absent, 'asking for a login', login, 401, 'UNAUTHORIZED'],
  ['failed', failed, 'asking for a login', login, 401, 'UNAUTHORIZED'],
  ['limited', limited, 'asking for a login', login, 401, 'UNAUTHORIZED'],
  ['absent', absent, 'denied', denied, 403, 'DENIED'],
  ['denied', denied, 'denied with 400', oci(400, 'MANIFEST_INVALID'), 400, 'MANIFEST_INVALID'],
  ['denied with 400', oci(400, 'SIZE_INVALID'), 'absent', absent, 400, 'SIZE_INVALID'],
  ['denied with 400', oci(400, 'SIZE_INVALID'), 'denied', denied, 403, 'DENIED'],
  ['limited', limited, 'denied', denied, 429, 'TOOMANYREQUESTS', '7'],
  ['failed', failed, 'denied', denied, 502, 'UNAVAILABLE'],
  ['absent', absent, 'limited', limited, 429, 'TOOMANYREQUESTS', '7'],
  ['failed', failed, 'limited', limited, 429, 'TOOMANYREQUESTS', '7'],
  ['absent', absent, 'failed', failed, 502, 'UNAVAILABLE'],
  ['limited', limited, 'failed', failed, 502, 'UNAVAILABLE'],
  ['absent', absent, 'silent', silent, 504, 'UNAVAILABLE'],
  ['silent', silent, 'refused', refused, 502, 'UNAVAILABLE'],
]
for (const [p, proxy, h, hosted, wanted, code, retryAfter] of combined) {
  const environment = { PROXY_TIMEOUT: '0.05', HOSTED_TIMEOUT: '0.05' }
  test(`proxy ${p}, hosted ${h}: the client gets ${wanted} ${code}, with each verdict in the detail`, async () => {
    for (const path of [byTag, byDigest]) {
      const { ask } = between(proxy, hosted, environment)
      const { status, headers, error } = await ask(path)
      assert.deepEqual([status, error?.code, headers.get('Retry-After') ?? undefined], [wanted, code, retryAfter])
      assert.equal(headers.get('Content-Type'), 'application/json')
      assert.deepEqual(
        error?.detail?.map(({ upstream }) => upstream),
        ['proxy', 'hosted'],
      )
      assert.ok(!/proxy:2|hosted:1|127\.0/.test(JSON.stringify(error)), 'an address is told')
    }
  })
  test(`proxy ${p}, hosted ${h}: a HEAD gets ${wanted} with no body`, async () => {
    const { ask } = between(proxy, hosted, environment)
    const { status, text, headers } = await ask(byTag, { method: 'HEAD' })
    assert.deepEqual([status, text, headers.get('Retry-After') ?? undefined], [wanted, '', retryAfter])
  })
}

test('a blob that nobody has is BLOB_UNKNOWN', async () => {
  const { ask } = between(status(404), status(404))
  assert.equal((await ask(blob)).error?.code, 'BLOB_UNKNOWN')
})

test('the cache answers a HEAD with 500: it is asked again with GET, but only if hosted lacks the manifest too', async () => {
  const proxy: Say = (sent, init) =>
    sent.method === 'HEAD' ? status(500)(sent, init) : nested('MANIFEST_UNKNOWN')(sent, init)
  const lacking = between(proxy, status(404))
  assert.equal((await lacking.ask(byDigest, { method: 'HEAD' })).status, 404)
  assert.deepEqual(lacking.asked(), ['HEAD proxy', 'HEAD hosted', 'GET proxy'])
  const having = between(proxy, status(200))
  assert.equal((await having.ask(byDigest, { method: 'HEAD' })).status, 200)
  assert.deepEqual(having.asked(), ['HEAD proxy', 'HEAD hosted'])
})

test('the cache answers a HEAD with 500, then a GET with 200: found, without the body', async () => {
  const proxy: Say = (sent, init) => status(sent.method === 'HEAD' ? 500 : 200, { ETag: '"x"' })(sent, init)
  const { status: got, headers, text } = await between(proxy, status(404)).ask(byDigest, { method: 'HEAD' })
  assert.deepEqual([got, headers.get('ETag'), text], [200, '"x"', ''])
})

test('too large header fields are refused to the client that sends them, not to clients that wait for the same manifest', async () => {
  let release = () => {}
  const held = new Promise<void>((resolve) => {
    release = resolve
  })
  const { ask } = between(async (...given) => {
    await held
    return absent(...given)
  }, status(200))
  const headers: Record<string, string>[] = [{ Authorization: 'Basic eDp5' }, { baggage: 'x'.repeat(9000) }, {}, {}]
  const asked = headers.map((headers) => ask(byTag, { headers }))
  release()
  assert.deepEqual(
    (await Promise.all(asked)).map(({ status }) => status),
    [200, 431, 200, 200],
  )
})

test("a cache's 500 to a HEAD of a blob for a mirror is asked once more with GET, too", async () => {
  const proxy: Say = (sent, init) => (sent.method === 'HEAD' ? status(500) : nested('BLOB_UNKNOWN'))(sent, init)
  const { ask, asked } = between(proxy, notAsked)
  assert.equal((await ask(`${blob}?ns=docker.io`, { method: 'HEAD' })).status, 404)
  assert.deepEqual(asked(), ['HEAD proxy', 'GET proxy'])
})

test('a HEAD that gets 200 without a field of a manifest hides no image of the other registry', async () => {
  for (const [field, value, body] of [
    ['Content-Length', '0', ''],
    ['Content-Type', 'application/json', '{"errors":[]}'],
  ] as const) {
    const proxy: Say = ({ method }) => new Response(method === 'HEAD' ? null : body, { headers: { [field]: value } })
    const { ask, asked } = between(proxy, status(200, { ETag: '"hosted"' }))
    assert.equal((await ask(byTag, { method: 'HEAD' })).headers.get('ETag'), '"hosted"')
    assert.deepEqual(asked(), ['HEAD proxy', 'GET proxy', 'HEAD hosted'])
  }
})

test('a HEAD of a blob that a public registry refuses is asked again with GET, whose body is cancelled', async () => {
  const name = `/v2/ghcr.io/team/app/blobs/${sha256}`
  const environment = { PROXIES: 'ghcr.io=proxy:2' }
  for (const code of [401, 403, 405, 501]) {
    let cancels = 0
    const layer = () => new ReadableStream<Uint8Array>({ cancel: () => void cancels++ })
    for (const [get, wanted] of [
      [status(307, hub), 307],
      [() => new Response(layer(), { headers: { 'Content-Length': '5' } }), 200],
      [oci(404, 'BLOB_UNKNOWN'), 404],
    ] as [Say, number][]) {
      const proxy: Say = (sent, init) => (sent.method === 'HEAD' ? status(code) : get)(sent, init)
      const { ask } = between(proxy, notAsked, environment)
      const reply = await ask(name, { method: 'HEAD' })
      assert.deepEqual([reply.status, reply.text], [wanted, ''], `${code}`)
    }
    assert.equal(cancels, 1)
  }
})

test('a 403 is of a public registry if it is an OCI error, or if its /v2/ answers; else it is an outage, and nothing is learned', async () => {
  const page: Say = () =>
    new Response('<h1>403 Forbidden</h1>', { status: 403, headers: { 'Content-Type': 'text/html' } })
  const pinged: Say = (sent, init) => (sent.url.endsWith('/v2/') ? status(200) : page)(sent, init)
  for (const [proxy, wanted] of [
    [page, 502],
    [pinged, 404],
    [oci(403, 'DENIED'), 404],
  ] as const) {
    const { ask, asked } = between(proxy, absent)
    for (const path of [byTag, byDigest, blob]) assert.equal((await ask(path)).status, wanted)
    assert.equal((await ask(byTag)).status, wanted)
    if (wanted === 502) assert.ok(asked().at(-2)?.endsWith(' proxy'), 'it is asked first again')
  }
  assert.equal((await between(absent, page, { LOOKUP_ORDER: 'hosted-first' }).ask(byTag)).status, 403, 'of hosted')
})

test('what a public registry leads to and another host refuses is an outage, unless that host speaks as a registry', async () => {
  const leads: Say = status(307, { Location: 'https://elsewhere.test/x' })
  const refusals: [Say, number][] = [
    [() => new Response('<Error><Code>AccessDenied</Code></Error>', { status: 403 }), 502],
    [status(404, { 'Docker-Distribution-Api-Version': '' }), 502],
    [status(410), 502],
    [oci(404, 'MANIFEST_UNKNOWN'), 404],
    [oci(403, 'DENIED'), 404],
  ]
  for (const [elsewhere, wanted] of refusals) {
    const others: Say = (sent, init) => (sent.to === 'hosted' ? absent : elsewhere)(sent, init)
    for (const path of [byTag, blob]) {
      const { ask } = between(leads, others, { BLOB_REDIRECTS: 'follow' })
      assert.equal((await ask(path)).status, wanted, path)
      if (path === byTag) assert.equal((await ask(path, { method: 'HEAD' })).status, wanted, 'HEAD')
    }
  }
})

test('a registry whose /v2/ is an error with the status 200 is not up', async () => {
  const { ask } = between(oci(200, 'DENIED'), status(200))
  assert.equal((await ask('/v2/')).status, 503)
  const health = await ask('/healthcheck')
  assert.deepEqual([health.status, JSON.parse(health.text).proxy], [503, 502])
  assert.equal((await between(() => new Response(), status(200)).ask('/v2/')).status, 200, 'some say nothing')
})

test('a layer may be a web page: then its registry says that it has the digest', async () => {
  const page = { 'Content-Type': 'text/html' }
  const layer =
    (fields: Record<string, string>): Say =>
    () =>
      new Response('<html>', { headers: fields })
  const { ask } = between(absent, layer({ ...page, 'Docker-Content-Digest': sha256 }))
  assert.equal((await ask(blob)).text, '<html>')
  assert.equal((await between(absent, layer(page)).ask(blob)).status, 502)
})

test("only the proxy's nested error codes count: a 500 of hosted is a failure", async () => {
  const { ask } = between(status(404), nested('MANIFEST_UNKNOWN'))
  assert.equal((await ask(byDigest)).status, 502)
})

test('hosted-first, by tag: if hosted is failed or limited, the proxy is not asked', async () => {
  for (const [hosted, wanted] of [
    [failed, 502],
    [refused, 502],
    [limited, 429],
    // What an https server answers to plain http.
    [status(400), 502],
    [oci(400, 'MANIFEST_INVALID'), 400],
  ] as const) {
    const { ask } = between(notAsked, hosted, { LOOKUP_ORDER: 'hosted-first' })
    assert.equal((await ask(byTag)).status, wanted)
  }
})

test('hosted-first, by tag: a lookup waits for the trial of a hosted that failed lately; if it says 404, the proxy is asked', async () => {
  const saying = { hosted: refused }
  const hosted: Say = (...args) => saying.hosted(...args)
  const { ask, asked, clock } = between(status(200), hosted, { LOOKUP_ORDER: 'hosted-first' })
  for (let i = 0; i < 4; i++) assert.equal((await ask(byTag)).status, 502)
  saying.hosted = absent
  clock.ahead = 1001
  assert.equal((await ask(byTag)).status, 200)
  assert.deepEqual(asked(), ['GET hosted', 'GET hosted', 'GET hosted', 'GET hosted', 'GET proxy'])
})

/** Lets what nobody waits for come to its end: scripted registries answer at once. */
const settled = () => new Promise((resolve) => setImmediate(resolve))

/** Opens the breakers of those that are refused, and waits until they may be tried. */
async function skipped({ ask, clock, sent }: ReturnType<typeof between>): Promise<void> {
  for (let i = 0; i < 3; i++) await ask(byTag)
  clock.ahead += 1001
  sent.length = 0
}

test('what the trial of a registry says is learned, though hosted answered first', async () => {
  const saying = { proxy: refused }
  const played = between((...args) => saying.proxy(...args), status(200))
  const { ask, asked, sent } = played
  await skipped(played)
  saying.proxy = absent
  assert.equal((await ask(byTag)).status, 200)
  await settled()
  assert.deepEqual(asked(), ['GET proxy', 'GET hosted'])
  sent.length = 0
  assert.equal((await ask(byTag)).status, 200)
  assert.deepEqual(asked(), ['GET hosted'], 'the proxy is known to lack it')
})

test('STALE_IF_ERROR: nothing is given in place of a tag that the trial of its registry has not found', async () => {
  const type = 'application/vnd.oci.image.manifest.v1+json'
  const digest = `sha256:${createHash('sha256').update(anyManifest).digest('hex')}`
  const having = status(200, { 'Content-Type': type, 'Docker-Content-Digest': digest })
  for (const [last, wanted] of [
    [absent, 502],
    [oci(403, 'DENIED'), 502],
    [limited, 200],
  ] as const) {
    const saying = { proxy: having }
    const played = between((...args) => saying.proxy(...args), absent, { STALE_IF_ERROR: '600' })
    const read = async () => (await played.ask(byTag, { headers: { Accept: type } })).status
    assert.equal(await read(), 200)
    saying.proxy = refused
    await skipped(played)
    saying.proxy = last
    assert.equal(await read(), 200, 'the trial is not waited for')
    await settled()
    saying.proxy = refused
    assert.equal(await read(), wanted)
  }
})

test('a name that the public registry lacks is asked for anew, if hosted is late with its answer too', async () => {
  const saying = { hosted: status(200) }
  const played = between(absent, (...args) => saying.hosted(...args), { NAME_TTL: '3600' })
  const { ask, asked, clock, sent } = played
  assert.equal((await ask(byTag)).status, 200)
  await settled()
  saying.hosted = refused
  await skipped(played)
  saying.hosted = status(200)
  clock.ahead += 3_600_000
  sent.length = 0
  assert.equal((await ask(byTag)).status, 200)
  await settled()
  assert.ok(
    sent.some(({ to, url }) => to === 'proxy' && url.includes('/tags/list')),
    `${asked()}`,
  )
})

test('hosted-first: the proxy is asked if hosted is absent or denied, or failed for a digest', async () => {
  for (const [hosted, path] of [
    [failed, byDigest],
    [failed, blob],
    [absent, byTag],
    [login, byTag],
  ] as const) {
    const { ask, asked } = between(status(200), hosted, { LOOKUP_ORDER: 'hosted-first' })
    assert.equal((await ask(path)).status, 200)
    assert.deepEqual(asked(), ['GET hosted', 'GET proxy'])
  }
})

test('a referrers tag is looked up in hosted first; the proxy is asked only if hosted gave an answer', async () => {
  const path = `/v2/team/app/manifests/sha256-${'a'.repeat(64)}`
  const { ask, asked } = between(status(200), absent)
  await ask(path)
  assert.deepEqual(asked(), ['GET hosted', 'GET proxy'])
  assert.equal((await between(notAsked, failed).ask(path)).status, 502)
})

/** V2_REQUIRES, the status codes of proxy and hosted, and the client's status code. */
const base: [string, number, number, number][] = [
  ['both', 200, 200, 200],
  ['both', 401, 200, 200],
  ['both', 503, 200, 503],
  ['both', 404, 200, 503],
  ['both', 200, 503, 503],
  ['both', 200, 404, 503],
  ['both', 200, 401, 401],
  ['both', 503, 401, 401],
  ['hosted', 503, 200, 200],
  ['hosted', 503, 401, 401],
  ['hosted', 200, 503, 503],
]
for (const [requires, proxy, hosted, wanted] of base) {
  test(`/v2/ with V2_REQUIRES=${requires}, proxy ${proxy} and hosted ${hosted}, is ${wanted}`, async () => {
    const challenge = { 'WWW-Authenticate': 'Basic realm="hosted"' }
    const { ask } = between(status(proxy, { 'WWW-Authenticate': 'Basic realm="proxy"' }), status(hosted, challenge), {
      V2_REQUIRES: requires,
    })
    const { status: got, headers } = await ask('/v2/')
    assert.equal(got, wanted)
    // On a 200 too: reading is open, and a client that wants more logs in.
    assert.equal(headers.get('WWW-Authenticate'), wanted === 503 ? null : 'Basic realm="hosted"')
    assert.equal(headers.get('Docker-Distribution-Api-Version'), 'registry/2.0')
  })
}

test('/v2 redirects to /v2/', async () => {
  const { status, headers } = await between(notAsked, notAsked).ask('/v2')
  assert.deepEqual([status, headers.get('Location')], [301, '/v2/'])
})

test('a refused request reaches no registry, and gets an OCI error in JSON; a 405 has Allow', async () => {
  const { ask } = between(notAsked, notAsked)
  for (const [method, path, wanted, code] of [
    ['GET', '/v2/UPPER/tags/list', 400, 'NAME_INVALID'],
    ['GET', '/v2/a/blobs/sha256:1', 400, 'DIGEST_INVALID'],
    ['GET', '/v2/a%2fb/manifests/1', 400, 'NAME_INVALID'],
    ['GET', '/elsewhere', 404, 'UNSUPPORTED'],
    ['POST', '/v2/_catalog', 405, 'UNSUPPORTED'],
  ] as const) {
    const { status, headers, error } = await ask(path, { method })
    assert.deepEqual([status, error?.code, headers.get('Content-Type')], [wanted, code, 'application/json'])
    assert.equal(headers.get('Allow'), wanted === 405 ? 'GET' : null)
  }
})

test("writes, tags, catalog and HEAD of a blob are hosted's alone, and its answer passes as it came", async () => {
  for (const [method, path] of [
    ['GET', '/v2/_catalog'],
    ['GET', '/v2/a/tags/list'],
    ['HEAD', blob],
    ['DELETE', blob],
    ['PUT', byTag],
    ['DELETE', byDigest],
    ['POST', '/v2/a/blobs/uploads/'],
    ['PATCH', '/v2/a/blobs/uploads/1'],
  ] as const) {
    for (const code of [200, 404, 429, 500, 507]) {
      const { ask, asked } = between(notAsked, status(code, { 'Retry-After': '3' }))
      const { status: got, text, headers } = await ask(path, { method })
      assert.deepEqual([got, headers.get('Retry-After'), asked()], [code, '3', [`${method} hosted`]])
      assert.equal(text, method === 'HEAD' ? '' : code === 200 ? anyManifest : `${code}`)
    }
  }
})

test('a registry does not answer: the log says so, with the cause', async () => {
  for (const [say, reason, cause] of [
    [refused, 'no answer', 'ECONNREFUSED'],
    [silent, 'no answer within 0.05 s', 'timeout'],
  ] as const) {
    const { ask, lines } = between(say, status(404), { PROXY_TIMEOUT: '0.05' })
    await ask(byTag)
    const line = lines.map((line) => JSON.parse(line)).find(({ message }) => message === 'no usable answer')
    assert.deepEqual([line.level, line.upstream, line.reason, line.cause], ['warn', 'proxy', reason, cause])
  }
})

test('a write is 504 if hosted does not answer in time, 502 if hosted refuses the connection', async () => {
  const environment = { WRITE_TIMEOUT: '0.05' }
  assert.equal((await between(notAsked, silent, environment).ask(byTag, { method: 'DELETE' })).status, 504)
  assert.equal((await between(notAsked, refused, environment).ask(byTag, { method: 'DELETE' })).status, 502)
})

const client = {
  Authorization: 'Bearer canary',
  Cookie: 'session=canary',
  Accept: 'application/json, text/plain',
  Range: 'bytes=1-2',
  'If-None-Match': '"x"',
  Forwarded: 'host=evil',
  'X-Forwarded-Host': 'evil',
  'X-Forwarded-Proto': 'gopher',
  'X-Forwarded-Prefix': '/evil',
  'X-Forwarded-For': '10.1.1.1',
  'X-Real-IP': '10.1.1.1',
  Connection: 'close, X-Hop',
  'X-Hop': 'canary',
  'Keep-Alive': 'x',
  TE: 'trailers',
  'Proxy-Authorization': 'Basic canary',
  'Accept-Encoding': 'gzip',
  'User-Agent': 'docker/20',
}

test("the client's Authorization and Cookie go to hosted only", async () => {
  const { ask, sent } = between(status(404), status(200))
  for (const path of [byTag, blob, '/v2/']) await ask(path, { headers: client })
  for (const { to, headers } of sent) {
    assert.equal(headers.get('Authorization'), to === 'hosted' ? 'Bearer canary' : null)
    assert.equal(headers.get('Cookie'), to === 'hosted' ? 'session=canary' : null)
    if (to === 'proxy') assert.ok(!JSON.stringify([...headers]).includes('canary'))
  }
})

test("X-Forwarded-Host and -Proto come from the configuration, never from the client; X-Forwarded-For gets the client's address", async () => {
  const { ask, sent } = between(status(404), status(200), { AGGREGATE_HOSTNAME: 'https://registry.example:8443' })
  await ask(byTag, { headers: client }, { address: '192.0.2.1' })
  for (const { headers } of sent) {
    assert.ok(!JSON.stringify([...headers]).includes('evil'))
    assert.equal(headers.get('X-Forwarded-Host'), 'registry.example:8443')
    assert.equal(headers.get('X-Forwarded-Proto'), 'https')
    assert.equal(headers.get('X-Forwarded-For'), '10.1.1.1, 192.0.2.1')
    assert.equal(headers.get('X-Real-IP'), null)
  }
})

test('hop-by-hop header fields stop here, also those that Connection names; end-to-end fields pass', async () => {
  const hop = { Connection: 'X-Inner', 'X-Inner': 'secret', 'Keep-Alive': 'timeout=1', Upgrade: 'h2c', Trailer: 'X' }
  // These fields are about the registry's own host: a client would apply them to this router.
  const fields = { ...hop, 'Strict-Transport-Security': 'max-age=1', 'Alt-Svc': 'h2=":443"' }
  const { ask, sent } = between(status(404), status(200, { ...fields, ETag: '"x"', 'Docker-Content-Digest': sha256 }))
  const { headers: got } = await ask(byTag, { headers: client })
  for (const name of Object.keys(fields)) assert.equal(got.get(name), null, name)
  assert.deepEqual([got.get('ETag'), got.get('Docker-Content-Digest')], ['"x"', sha256])
  for (const { headers } of sent) {
    for (const name of ['Connection', 'X-Hop', 'Keep-Alive', 'TE', 'Proxy-Authorization']) {
      assert.equal(headers.get(name), null, name)
    }
    for (const name of ['Accept', 'Range', 'If-None-Match'] as const)
      assert.equal(headers.get(name), client[name], name)
    assert.equal(headers.get('Accept-Encoding'), 'identity')
  }
})

test('a read is sent only with header fields that its answer may depend on, because other clients may share the answer', async () => {
  const more = {
    'X-Api-Key': 'canary',
    'Cache-Control': 'no-store',
    'X-Odd': 'x'.repeat(9000),
    traceparent: '00-1-2-01',
  }
  const { ask, sent } = between(status(404), status(404))
  for (const path of ['/v2/', byTag, blob]) await ask(path, { headers: { ...more, Accept: 'text/plain' } })
  assert.equal(sent.length, 6)
  for (const { url, headers } of sent) {
    for (const name of ['X-Api-Key', 'Cache-Control', 'X-Odd']) assert.equal(headers.get(name), null, name)
    const isPing = url.endsWith('/v2/')
    assert.equal(headers.get('Accept'), isPing ? null : 'text/plain')
    assert.equal(headers.get('traceparent'), isPing ? null : '00-1-2-01')
  }
  sent.splice(0)
  await ask(byTag, { method: 'PUT', headers: { ...more }, body: 'x' })
  assert.deepEqual(
    sent.map(({ to, headers }) => [to, headers.get('X-Api-Key')]),
    [['hosted', 'canary']],
  )
})

test('header fields too large for a registry: 431, no registry is asked, and other clients are not affected', async () => {
  const found = status(200)
  const { ask, sent } = between(found, found)
  const headers = { Accept: `text/plain, ${'x'.repeat(8000)}` }
  for (const path of ['/v2/', byTag, blob, '/explain?image=team/app']) {
    const { status, error } = await ask(path, { headers })
    assert.deepEqual([status, error?.code], [431, 'UNSUPPORTED'], path)
  }
  assert.deepEqual(sent, [])
  for (const path of ['/v2/', byTag]) assert.equal((await ask(path)).status, 200)
})

test("the proxy's challenges and cookies never reach a client", async () => {
  const fields = { 'WWW-Authenticate': 'Bearer realm="https://hub"', 'Set-Cookie': 'a=b' }
  for (const code of [200, 401, 403]) {
    const { headers } = await between(status(code, fields), absent).ask(byTag)
    assert.deepEqual([headers.get('WWW-Authenticate'), headers.get('Set-Cookie')], [null, null])
  }
})

test('hosted sends several challenges: Bearer comes first', async () => {
  const both = 'Basic realm="a, b", Bearer realm="https://auth",service="s",scope="repository:a:pull,push"'
  const wanted = 'Bearer realm="https://auth",service="s",scope="repository:a:pull,push", Basic realm="a, b"'
  const { ask } = between(status(404), status(401, { 'WWW-Authenticate': both }))
  for (const [method, path] of [
    ['GET', byTag],
    ['GET', '/v2/'],
    ['PUT', byTag],
  ] as const) {
    assert.equal((await ask(path, { method })).headers.get('WWW-Authenticate'), wanted)
  }
})

const long = 120_000
/** A status code, a header field, and values that a backtracking parser would need seconds for. */
const slowFields: [status: number, field: string, ...values: string[]][] = [
  [200, 'Link', '<'.repeat(long), `<x>; rel=${' '.repeat(long)}x`, '<>"'.repeat(long / 3)],
  [
    401,
    'WWW-Authenticate',
    'a'.repeat(long),
    `Basic x="${'\\"'.repeat(long / 2)}`,
    'a="'.repeat(long / 3),
    `Bearer ${'realm="\\"'.repeat(long / 9)}`,
  ],
]
for (const [code, field, ...values] of slowFields) {
  test(`a long ${field} is parsed in linear time: no registry holds up the clients of the other one`, async () => {
    for (const value of values) {
      const tookMs = async (headers: Record<string, string>) => {
        const say: Say = () => new Response('{"manifests":[]}', { status: code, headers })
        const { ask } = between(say, say)
        const started = performance.now()
        for (const path of ['/v2/', byTag, tags, `/v2/team/app/referrers/${sha256}`]) await ask(path)
        return performance.now() - started
      }
      const [plainMs, hostileMs] = [await tookMs({ 'X-Field': value }), await tookMs({ [field]: value })]
      assert.ok(
        hostileMs < 500 + 20 * plainMs,
        `${value.slice(0, 20)}…: ${hostileMs} ms, ${plainMs} ms in another field`,
      )
    }
  })
}

/** The status code, hosted's Location, and the client's Location. */
const locations: [number, string, string][] = [
  [202, 'http://hosted:1/v2/a/blobs/uploads/1?_state=x%3D', '/v2/a/blobs/uploads/1?_state=x%3D'],
  [202, 'https://registry.example/v2/a/blobs/uploads/1?_state=x', '/v2/a/blobs/uploads/1?_state=x'],
  [202, '//hosted:1/v2/a/blobs/uploads/1', '/v2/a/blobs/uploads/1'],
  [201, `http://hosted:1/v2/a/blobs/${sha256}`, `/v2/a/blobs/${sha256}`],
  [201, '/v2/a/blobs/uploads/1', '/v2/a/blobs/uploads/1'],
  [204, 'http://hosted:1/v2/a/blobs/uploads/1', '/v2/a/blobs/uploads/1'],
  [416, 'http://hosted:1/v2/a/blobs/uploads/1', '/v2/a/blobs/uploads/1'],
  [202, 'https://storage.example/upload?sig=1', 'https://storage.example/upload?sig=1'],
  [202, 'https://storage.example/v2/a/b', 'https://storage.example/v2/a/b'],
  [307, 'https://storage.example/v2/a/tags/list?sig=1', 'https://storage.example/v2/a/tags/list?sig=1'],
]
for (const [code, given, wanted] of locations) {
  test(`Location ${given} on a ${code} goes out as ${wanted}`, async () => {
    const say: Say = () => new Response(null, { status: code, headers: { Location: given } })
    const { ask } = between(notAsked, say)
    assert.equal((await ask('/v2/a/blobs/uploads/', { method: 'POST' })).headers.get('Location'), wanted)
  })
}

test('a path in PROXY_HOSTNAME is put before every name asked of the proxy, and removed from every Link to a client', async () => {
  const settings = { PROXY_HOSTNAME: 'proxy:2/mirror/hub', TAGS: 'lookup' }
  for (const link of ['/v2/mirror/hub/team/app/tags/list?n=1', 'http://proxy:2/v2/mirror/hub/team/app/tags/list?n=1']) {
    const { ask, sent } = between(status(200, { Link: `<${link}>; rel="next"` }), status(200), settings)
    const replies = []
    for (const path of ['/v2/', byTag, blob, '/v2/team/app/tags/list?n=1', '/v2/mirror/hub/team/app/tags/list'])
      replies.push(await ask(path))
    assert.equal(replies[3]?.headers.get('Link'), '</v2/team/app/tags/list?n=1>; rel="next"')
    const paths = sent.filter(({ to }) => to === 'proxy').map(({ url }) => url.slice('http://proxy:2'.length))
    assert.deepEqual(paths, [
      '/v2/',
      `/v2/mirror/hub${byTag.slice(3)}`,
      `/v2/mirror/hub${blob.slice(3)}`,
      '/v2/mirror/hub/team/app/tags/list?n=1',
      '/v2/mirror/hub/mirror/hub/team/app/tags/list',
    ])
    assert.equal(sent.find(({ to }) => to === 'hosted')?.url, 'http://hosted:1/v2/')
  }
})

test('TAGS=lookup: a page of tags never comes from one registry only because the other one fails', async () => {
  const [list, nextPage] = ['/v2/team/app/tags/list', '/v2/team/app/tags/list?n=2&last=b']
  const firstPage = status(200, { Link: `<${nextPage}>; rel="next"` })
  for (const [code, wanted] of [
    [503, 502],
    [429, 429],
    [404, 200],
  ] as const) {
    const router = (hosted: Say) => between(status(code), hosted, { TAGS: 'lookup' })
    assert.equal((await router(status(200)).ask(nextPage)).status, wanted)
    assert.equal((await router(firstPage).ask(list)).status, wanted)
    assert.equal((await router(status(200)).ask(list)).status, 200, 'a list of one page')
  }
})

test('TAGS=lookup: whatever names a page after the first, it comes from no other registry', async () => {
  const nextPage = '/v2/team/app/tags/list?n=1&next_page=gAAA'
  for (const [code, wanted] of [
    [404, 502],
    [401, 502],
    [429, 429],
    [503, 502],
  ] as const) {
    const proxy: Say = (sent, init) => status(sent.url.includes('next_page') ? code : 200)(sent, init)
    assert.equal((await between(proxy, status(200), { TAGS: 'lookup' }).ask(nextPage)).status, wanted, `${code}`)
  }
})

test('TAGS=lookup: a list without tags hides no other, and is given if the other registry lacks the name', async () => {
  const none: Say = () => new Response('{"name":"team/app","tags":[]}')
  const list = async (proxy: Say, hosted: Say) => (await between(proxy, hosted, { TAGS: 'lookup' }).ask(tags)).text
  for (const [proxy, hosted, wanted] of [
    [none, status(200), /"tags":\["1"\]/],
    [none, absent, /"tags":\[\]/],
    [absent, none, /"tags":\[\]/],
    [oci(401, 'UNAUTHORIZED'), none, /"tags":\[\]/],
    [none, none, /"tags":\[\]/],
    [none, login, /UNAUTHORIZED/],
    [none, failed, /UNAVAILABLE/],
    [failed, none, /UNAVAILABLE/],
  ] as const) {
    assert.match(await list(proxy, hosted), wanted)
  }
})

test('TAGS=lookup: a list without tags hides no official image, and is no page of a list that its registry lacks', async () => {
  const list =
    (...names: string[]): Say =>
    () =>
      new Response(JSON.stringify({ tags: names }))
  const hub: Say = (sent, init) => (sent.url.includes('/library/') ? list('1.27') : list())(sent, init)
  const short = between(hub, absent, { TAGS: 'lookup' })
  assert.match((await short.ask('/v2/nginx/tags/list')).text, /1\.27/)
  const later = '/v2/team/app/tags/list?n=1&last=a'
  const page = async (proxy: Say) => (await between(proxy, list('b'), { TAGS: 'lookup' }).ask(later)).text
  assert.match(await page(list()), /"b"/, 'the proxy has none')
  assert.match(await page((sent, init) => (sent.url.includes('last=') ? status(404) : list())(sent, init)), /"b"/)
  const last: Say = (sent, init) => (sent.url.includes('last=') ? list() : list('a'))(sent, init)
  assert.equal(await page(last), '{"tags":[]}', 'the last page of its list')
})

test('a list without tags says nothing of a name: it is asked for again, and a new tag is looked up', async () => {
  const proxy: Say = (sent, init) =>
    (sent.url.includes('/tags/')
      ? () => new Response('{"tags":[]}')
      : sent.url.endsWith('/v2/')
        ? status(200)
        : absent)(sent, init)
  const { ask, service } = between(proxy, status(200), { NAME_TTL: '600' })
  await ask(byTag)
  await settled()
  const told = await service.explain('team/app:2.0')
  assert.ok('memory' in told && told.memory.name === undefined)
})

test('TAGS=lookup: the trial of a registry ends its pause, though its list comes after the answer of hosted has left', async () => {
  let release = () => {}
  const saying = { proxy: refused }
  const played = between((...args) => saying.proxy(...args), status(200), { TAGS: 'lookup' })
  const { ask, lines, service } = played
  await skipped(played)
  let ended = (_: boolean) => {}
  const sent = new Promise<boolean>((resolve) => {
    ended = resolve
  })
  // In chunks, so that its length is not known.
  saying.proxy = () =>
    new Response(
      new ReadableStream({
        start(controller) {
          release = () => {
            controller.enqueue(new TextEncoder().encode(anyManifest))
            controller.close()
          }
        },
      }),
    )
  assert.equal((await ask(tags, {}, { sent })).status, 200)
  ended(true)
  await settled()
  release()
  await settled()
  const metrics = await (await service.handle(new Request('http://registry.example/metrics'), {})).text()
  assert.match(metrics, /^registry_router_upstream_skipped\{upstream="proxy"\} 0$/m)
  assert.ok(!lines.some((line) => line.includes('ran out')))
})

test('TAGS=lookup: a later page waits for the trial of a registry that failed lately', async () => {
  let says = status(503)
  const { ask, clock } = between((...given) => says(...given), status(200), { TAGS: 'lookup' })
  for (let i = 0; i < 3; i++) await ask(`/v2/team/app/manifests/${i}`)
  says = status(404)
  clock.ahead += 2000
  assert.equal((await ask('/v2/team/app/tags/list?last=b')).status, 200)
})

test('reading the body of an error has a time limit, and then the body is cancelled', async () => {
  let cancels = 0
  const body = new ReadableStream<Uint8Array>({ cancel: () => void cancels++ })
  assert.equal(await readBytes({ body }, 100, { seconds: 0.05 }), undefined)
  assert.equal(cancels, 1)
})

test('a Link to a path of the route table becomes this path', async () => {
  const link = '<http://hosted:1/v2/_catalog?last=a&n=1>; rel="next", <https://docs.example/x>; rel="help"'
  const { headers } = await between(notAsked, status(200, { Link: link })).ask('/v2/_catalog?n=1')
  assert.equal(headers.get('Link'), '</v2/_catalog?last=a&n=1>; rel="next", <https://docs.example/x>; rel="help"')
})

test('path and query are sent byte for byte to the configured address, whatever Host the request has', async () => {
  const { ask, sent } = between(status(404), status(200))
  const path = '/v2/a/manifests/sha256%3A'
  await ask(`${path}${'a'.repeat(64)}?x=%2F..%2f&y`, { headers: { Host: 'evil.example' } })
  assert.equal(sent[0]?.url, `http://proxy:2${path}${'a'.repeat(64)}?x=%2F..%2f&y`)
})

test('ns is sent on only to a default registry that serves several hosts', async () => {
  for (const [proxyNs, query] of [
    ['docker.io', '?x'],
    ['docker.io,ghcr.io', '?x&ns=docker.io'],
  ]) {
    const { ask, sent } = between(status(200), notAsked, { PROXY_NS: proxyNs as string })
    await ask(`${byTag}?ns=docker.io&x`)
    assert.equal(sent[0]?.url, `http://proxy:2${byTag}${query}`)
  }
})

test('the time of a registry for a manifest is measured to the last byte', async () => {
  const slow: Say = () => {
    const pull = (controller: ReadableStreamDefaultController<Uint8Array>) => {
      router.clock.ahead += 5000
      controller.enqueue(new TextEncoder().encode('{}'))
      controller.close()
    }
    return new Response(new ReadableStream({ pull }, { highWaterMark: 0 }), { headers: { 'Content-Length': '2' } })
  }
  const router = between(status(404), slow)
  await router.ask(byTag)
  const { asked } = JSON.parse(router.lines.find((line) => line.includes('"message":"request"')) as string)
  assert.ok(asked[1].milliseconds >= 5000, JSON.stringify(asked))
})

test("the proxy's token is renewed shortly before it expires; a refused login is tried again a minute later", async () => {
  const realm = { refuses: false }
  const proxy: Say = ({ url, headers }) => {
    if (url.includes('/token') && realm.refuses) return new Response('no', { status: 401 })
    if (url.includes('/token?')) return new Response('{"access_token":"t","expires_in":100}')
    if (headers.get('Authorization') === 'Bearer t') return new Response(anyManifest)
    return new Response('', { status: 401, headers: { 'WWW-Authenticate': 'Bearer realm="/token",scope="a"' } })
  }
  const login = { PROXY_USERNAME: 'router', PROXY_PASSWORD: 'canary', LOOKUP_TTL: '0' }
  const { ask, sent, clock, lines } = between(proxy, status(404), login)
  const tokens = () => sent.splice(0).filter(({ url }) => url.includes('/token')).length
  const statusAndTokens = async (ms: number) => {
    clock.ahead += ms
    return [(await ask(byTag)).status, tokens()]
  }
  assert.deepEqual(await statusAndTokens(0), [200, 1])
  assert.deepEqual(await statusAndTokens(80_000), [200, 0])
  assert.deepEqual(await statusAndTokens(15_000), [200, 1])
  realm.refuses = true
  // One token request with the scope, one without.
  assert.deepEqual(await statusAndTokens(95_000), [502, 2])
  assert.deepEqual(await statusAndTokens(50_000), [502, 0])
  assert.deepEqual(await statusAndTokens(15_000), [502, 2])
  realm.refuses = false
  assert.deepEqual(await statusAndTokens(65_000), [200, 1])
  assert.ok(!lines.join().includes('canary'))
})

const soon = { timeout: 20_000 }
test('a user file that could not be read because of its mode is read once its mode allows it', soon, async () => {
  const file = join(mkdtempSync(join(tmpdir(), 'combined-registry-test-')), 'file')
  after(() => rmSync(dirname(file), { recursive: true }))
  writeFileSync(file, 'first')
  const alive = setInterval(() => {}, 1000)
  let mayRead = true
  const read = () => {
    if (!mayRead) throw new Error('EACCES')
    return readFileSync(file, 'utf8')
  }
  const taken = new Promise((use) => {
    const failed = new Promise((failed) => assert.equal(follow([file], read, use, failed), 'first'))
    mayRead = false
    writeFileSync(file, 'second')
    failed.then(() => {
      mayRead = true
      chmodSync(file, 0o640)
    })
  })
  assert.equal(await taken, 'second')
  clearInterval(alive)
})

test('times in seconds may have fractions of a millisecond', async () => {
  assert.equal((await between(status(200), notAsked, { LOOKUP_TTL: '2.0101' }).ask(byTag)).status, 200)
})

test("a ping is shared by all clients: it is sent without the first client's Range and If-None-Match", async () => {
  const hosted: Say = ({ headers }) => new Response('{}', { status: headers.has('Range') ? 206 : 200 })
  const { ask } = between(status(200), hosted)
  for (const headers of [{ Range: 'bytes=0-0', 'If-None-Match': '*' }, undefined]) {
    assert.equal((await ask('/v2/', { headers })).status, 200)
  }
})

test('an index lists a media type that no header field can carry: nobody is asked for it, and hosted stays up', async () => {
  const { ask, asked } = between(notAsked, oci(404, 'MANIFEST_BLOB_UNKNOWN'))
  const body = JSON.stringify({
    manifests: [1, 2, 3].map((i) => ({ digest: `sha256:${`${i}`.repeat(64)}`, mediaType: 'a\nb' })),
  })
  const headers = { 'Content-Length': `${body.length}` }
  assert.equal((await ask(byTag, { method: 'PUT', headers, body })).status, 404)
  assert.deepEqual(asked(), ['PUT hosted'])
})

test('two registries recover at once: the answer that is not needed is cancelled', async () => {
  const open = new Set<string>()
  let well = false
  const blobOf: Say = ({ to }) => {
    if (!well) return new Response('', { status: 503 })
    open.add(to)
    const pull = (body: ReadableStreamDefaultController) => body.enqueue(new Uint8Array(65_536))
    return new Response(new ReadableStream({ pull, cancel: () => void open.delete(to) }))
  }
  const { service, clock } = between(blobOf, blobOf)
  const get = () => service.handle(new Request(`http://registry.example${blob}`), {})
  for (let i = 0; i < 3; i++) await get()
  clock.ahead += 2000
  well = true
  const { body } = await get()
  for (let turn = 0; turn < 1000 && open.size > 1; turn++) await new Promise((resolve) => setImmediate(resolve))
  assert.equal(open.size, 1)
  await body?.cancel()
  assert.equal(open.size, 0)
})

test('a connection breaks before the answer: GET, HEAD and an empty POST are tried once more on a new connection', async () => {
  const path = { GET: byTag, HEAD: blob, POST: '/v2/a/blobs/uploads/', PUT: byTag, PATCH: byTag, DELETE: byTag }
  for (const [method, tries] of Object.entries({ GET: 2, HEAD: 2, POST: 2, PUT: 1, DELETE: 1 })) {
    const { ask, sent } = between(status(404), refused)
    assert.equal((await ask(path[method as keyof typeof path], { method })).status, 502)
    assert.equal(sent.filter(({ to }) => to === 'hosted').length, tries, method)
    assert.deepEqual(
      sent.filter(({ to }) => to === 'hosted').map(({ fresh }) => fresh ?? false),
      [false, true].slice(0, tries),
    )
    assert.ok(sent.every(({ headers }) => headers.get('User-Agent') === 'combined-registry/0'))
  }
  const bodied = between(status(404), refused)
  const init = { method: 'POST', body: 'x', headers: { 'Content-Length': '1' } }
  assert.equal((await bodied.ask('/v2/a/blobs/uploads/?digest=x', init)).status, 502)
  assert.equal(bodied.sent.length, 1)
})

test('V2_REQUIRES=hosted: a ping does not ask the proxy', async () => {
  assert.equal((await between(notAsked, status(200), { V2_REQUIRES: 'hosted' }).ask('/v2/')).status, 200)
})

test('a client that leaves is no failure of the registry', async () => {
  const leaving = new AbortController()
  const { ask, sent, lines } = between(silent, notAsked)
  const asking = ask(byTag, { signal: leaving.signal })
  while (sent.length === 0) await new Promise((resolve) => setTimeout(resolve, 1))
  leaving.abort()
  assert.equal((await asking).status, 499)
  assert.equal(lines.filter((line) => line.includes('"warn"')).length, 0)
})

test('/healthcheck gives the status code of each registry at /v2/, or 502 or 504 if there was no answer', async () => {
  for (const [proxy, hosted, body, wanted] of [
    [status(200), status(200), { proxy: 200, hosted: 200 }, 200],
    [status(401), status(200), { proxy: 401, hosted: 200 }, 200],
    [status(404), status(200), { proxy: 404, hosted: 200 }, 503],
    [refused, silent, { proxy: 502, hosted: 504 }, 503],
  ] as const) {
    const { ask, sent } = between(proxy, hosted, { HOSTED_TIMEOUT: '0.05' })
    const { status: got, text } = await ask('/healthcheck', { headers: client })
    assert.deepEqual([got, JSON.parse(text)], [wanted, body])
    assert.ok(!JSON.stringify(sent.map(({ headers }) => [...headers])).includes('canary'))
  }
})

test('/livez is 200, and 503 while draining; it asks no registry', async () => {
  const { ask, service } = between(notAsked, notAsked)
  assert.equal((await ask('/livez')).status, 200)
  await service.drain(async () => {})
  assert.equal((await ask('/livez')).status, 503)
})

test('draining ends when the last answer is sent', async () => {
  const { ask, service } = between(status(200), status(200))
  let sent = (_: boolean) => {}
  await ask(byTag, {}, { sent: new Promise((resolve) => (sent = resolve)) })
  let settled = false
  const drained = service
    .drain(async () => {})
    .then(() => {
      settled = true
    })
  await new Promise((resolve) => setTimeout(resolve, 5))
  assert.equal(settled, false)
  sent(true)
  await drained
})

test('/metrics counts by entity, status, upstream and verdict, and no label contains what a client sent', async () => {
  const { ask } = between(status(404), status(200, { 'Content-Length': '3' }))
  await ask(byTag)
  await ask('/v2/canary/manifests/canary', { method: 'OPTIONS' })
  const { text, headers } = await ask('/metrics')
  assert.match(headers.get('Content-Type') ?? '', /^text\/plain/)
  assert.match(text, /^registry_router_requests_total\{entity="manifest",method="GET",status="200"\} 1$/m)
  assert.match(text, /^registry_router_upstream_requests_total\{upstream="proxy",verdict="absent"\} 1$/m)
  assert.match(text, /^registry_router_upstream_requests_total\{upstream="hosted",verdict="found"\} 1$/m)
  assert.match(text, /^registry_router_transfer_bytes_total\{upstream="hosted",direction="pull"\} 3$/m)
  assert.match(text, /^registry_router_upstream_up\{upstream="proxy"\} 1$/m)
  assert.match(text, /^registry_router_build_info\{version="0",runtime="test"\} 1$/m)
  assert.match(text, /^registry_router_requests_in_flight 1$/m)
  // Without a certificate there is no such metric: an expiry of 0 would raise an alert.
  assert.doesNotMatch(text, /^registry_router_certificate_expiration/m)
  assert.ok(!/canary/i.test(text))
})

test('bytes that a registry refused are not counted as pushed', async () => {
  let answered = 400
  const { ask } = between(status(404), () => new Response(null, { status: answered }))
  const pushed = async () => {
    await ask('/v2/team/app/manifests/1', { method: 'PUT', body: '{}', headers: { 'Content-Length': '2' } })
    return /transfer_bytes_total\{upstream="[a-z]+",direction="push".*/.exec((await ask('/metrics')).text)?.[0]
  }
  assert.equal(await pushed(), undefined)
  answered = 201
  assert.match((await pushed()) ?? '', / 2$/)
})

test('/metrics says which registry the breaker skips, whatever this registry answers to pings', async () => {
  const saying = { hosted: refused }
  const hosted: Say = (sent, init) => (sent.url.endsWith('/v2/') ? status(200) : saying.hosted)(sent, init)
  const { ask, clock } = between(status(404), hosted)
  const skipped = async (value: number) => {
    await ask('/v2/')
    const { text } = await ask('/metrics')
    assert.match(text, new RegExp(`^registry_router_upstream_skipped\\{upstream="hosted"\\} ${value}$`, 'm'))
    assert.match(text, /^registry_router_upstream_skipped\{upstream="proxy"\} 0$/m)
  }
  await skipped(0)
  for (let i = 0; i < 3; i++) await ask(byTag)
  await skipped(1)
  saying.hosted = status(200)
  clock.ahead = 1001
  await ask(byTag)
  await skipped(0)
})

test('the log has one line for each request, with every verdict and no secret', async () => {
  const { ask, lines } = between(status(404), status(200))
  await ask(`${byTag}?_state=canary`, { headers: client }, { address: '192.0.2.1' })
  assert.equal(lines.length, 1)
  const { time, id, milliseconds, asked, ...line } = JSON.parse(lines[0] as string)
  assert.ok(time && id && milliseconds >= 0)
  assert.deepEqual(
    asked.map(({ upstream, verdict, status }: Record<string, unknown>) => [upstream, verdict, status]),
    [
      ['proxy', 'absent', 404],
      ['hosted', 'found', 200],
    ],
  )
  assert.deepEqual(line, {
    level: 'info',
    message: 'request',
    method: 'GET',
    path: byTag,
    entity: 'manifest',
    name: 'team/app',
    reference: '1.0',
    status: 200,
    by: 'hosted',
    bytesOut: anyManifest.length,
    complete: true,
    client: '192.0.2.1',
  })
  assert.ok(!lines.join().includes('canary'))
})

test('a request keeps its valid id or gets a new one: in the log, at both registries and in the answer; a trace is passed on', async () => {
  const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
  for (const given of ['abc-123', undefined, 'a b', 'x'.repeat(200), '<script>']) {
    const { ask, lines, sent } = between(status(404), status(404))
    const { headers } = await ask(byTag, { headers: { traceparent, ...(given ? { 'X-Request-Id': given } : {}) } })
    const id = headers.get('X-Request-Id') ?? ''
    assert.ok(given === 'abc-123' ? id === given : /^[0-9a-f-]{36}$/.test(id), id)
    assert.deepEqual(
      [JSON.parse(lines[0] as string).id, ...sent.map((one) => one.headers.get('X-Request-Id'))],
      [id, id, id],
    )
    assert.ok(sent.every((one) => one.headers.get('traceparent') === traceparent))
  }
})

test('no client can start a log line of its own or fake another field, in either format', async () => {
  for (const LOG_FORMAT of ['json', 'text'] as const) {
    const lines: string[] = []
    const log = createLog({ logFormat: LOG_FORMAT, logLevel: 'info' }, (line) => lines.push(line))
    const evil = 'x\n{"level":"error"}\r\u2028 status=200 "\u001b[31m'
    log('info', 'request', { path: evil, user: evil, id: 'a' })
    assert.equal(lines.length, 1)
    for (const control of ['\n', '\r', '\u001b']) assert.ok(!lines[0]?.includes(control))
    if (LOG_FORMAT === 'json') assert.equal(JSON.parse(lines[0] as string).path, evil)
    else assert.equal((lines[0] as string).match(/ status=/g)?.length, 2, 'within its quotes alone')
  }
})

test('LOG_FORMAT=text tells in short what each registry said', () => {
  const lines: string[] = []
  const log = createLog({ logFormat: 'text', logLevel: 'info' }, (line) => lines.push(line))
  const said = [
    { upstream: 'proxy', verdict: 'absent', status: 404, milliseconds: 9, reason: undefined },
    { upstream: 'hosted', verdict: 'found', status: 200, milliseconds: 2, reason: undefined },
  ]
  log('info', 'request', { asked: said })
  log('info', 'request', { asked: [{ ...said[0], reason: 'no answer' }] })
  log('info', 'request', { asked: [] })
  assert.match(lines[0] ?? '', / asked=proxy:absent:404:9ms,hosted:found:200:2ms$/)
  assert.match(lines[1] ?? '', / asked="proxy:absent:404:9ms:no answer"$/)
  assert.match(lines[2] ?? '', / asked=""$/)
})

test('LOG_FORMAT=text writes one line for each message, whatever a client sent', () => {
  const lines: string[] = []
  const log = createLog({ logFormat: 'text', logLevel: 'info' }, (line) => lines.push(line))
  log('info', 'request', { path: '/a\nb "c"', status: 200, by: undefined })
  log('debug', 'not this')
  assert.equal(lines.length, 1)
  assert.match(lines[0] as string, /^\S+ info request path="\/a\\nb \\"c\\"" status=200$/)
})

const atGhcr = '/v2/ghcr.io/org/app/manifests/1.0'
/** Settings, path, what the proxy and hosted do, and the message that clients get. An address without a script is hosted's. */
const told: [Record<string, string>, string, Say, Say, string][] = [
  [{}, byTag, refused, status(404), 'the cache of docker.io did not answer: try again later'],
  [{ PROXY_HOSTNAME: 'registry-1.docker.io' }, byTag, notAsked, status(429), limits('the private registry')],
  [{ PROXY_NS: 'docker.io,ghcr.io' }, byTag, status(429), status(404), limits('the public registry')],
  [{ PROXIES: 'ghcr.io=proxy:3' }, atGhcr, status(429), notAsked, limits('the cache of ghcr.io')],
  [
    { PROXIES: 'ghcr.io' },
    atGhcr,
    notAsked,
    status(503),
    'ghcr.io failed (503): try again later, or tell whoever runs it',
  ],
  [
    { HOSTED_TIMEOUT: '0.01' },
    byTag,
    status(404),
    silent,
    'the private registry did not answer in time: try again later',
  ],
  [{}, byTag, status(404), status(403), 'the private registry refuses this request'],
  [{}, '/v2/', refused, status(200), 'not available now: the cache of docker.io'],
]
function limits(title: string) {
  return `${title} limits the rate of requests: try again later`
}
for (const [environment, path, proxy, hosted, message] of told) {
  test(`people who pull read: ${message}`, async () => {
    const { ask } = between(proxy, hosted, environment)
    assert.equal((await ask(path)).error?.message, message)
  })
}

test('people who pull read of a registry that is skipped, that it failed lately', async () => {
  const { ask } = between(refused, status(404))
  for (let i = 0; i < 3; i++) await ask(`${byTag}${i}`)
  assert.equal((await ask(byTag)).error?.message, 'the cache of docker.io failed lately: try again in a minute')
})
