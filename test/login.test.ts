/** The router's own login at a registry: tokens of a realm, or a user name and password. WAY selects the runtime. */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import http from 'node:http'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import packageManifest from '../package.json' with { type: 'json' }
import { between, closeAll } from './parts/between.ts'
import { temporaryFolder } from './parts/children.ts'
import { accept, type Blob, digestOf, makeImage, noise, pathOf, pull, push, send, withDigest } from './parts/client.ts'
import { type Realm, startRealm } from './parts/realm.ts'
import { findRegistry, type Launch, type Registry } from './parts/registries.ts'
import { type Router, startRouter, way } from './parts/router.ts'
import { answer, type Script, scripted } from './parts/scripted.ts'
import { until } from './parts/until.ts'

const password = 'canary-password'
/** bcrypt of `password`, cost 4. */
const hash = '$2b$04$wc19a07rSHOqzzOCmQVYouFAsmv/e5S2S4piwVisWHzzQj4ZZGQFu'
/** Has every manifest. */
const serves = answer(200, {}, '{"schemaVersion":2}')
const basic = `Basic ${Buffer.from(`router:${password}`).toString('base64')}`

let folder: string
let launch: Launch
let hosted: Registry
/**
 * A registry that wants tokens of `realm`. The realm knows the router's account and the test's own. Anonymous tokens
 * are for names in `public/` only.
 */
let registry: Registry
let realm: Realm
let tokens: Realm['tokens']
const image = makeImage({ 'a.txt': 'a', 'b.txt': 'b' })

before(async () => {
  folder = temporaryFolder()
  launch = await findRegistry(console.error)
  const knows = (authorization: string) => [basic, trusted].includes(authorization)
  realm = await startRealm(folder, knows, (authorization, scope) => {
    const closed = /:closed\//.test(scope) && authorization !== trusted
    return (!!authorization && !closed) || /:public\//.test(scope)
  })
  tokens = realm.tokens
  hosted = await launch({ name: 'hosted', folder })
  registry = await launch({ name: 'token', folder, auth: realm.auth })
  for (const name of ['public/app', 'private/app']) await pushWithTokens(name)
})
after(async () => {
  await closeAll()
  for (const one of [hosted, registry]) await one?.stop()
  await realm?.close()
})

/** The account with which the test fills the registry. */
const trusted = 'Basic dGVzdA=='

/** Pushes `image` directly to the registry, with a token of the test's own account. */
async function pushWithTokens(name: string): Promise<void> {
  const scope = `repository:${name}:pull,push`
  const reply = await send(
    `http://${realm.host}`,
    'GET',
    `/token?service=registry&scope=${encodeURIComponent(scope)}`,
    {
      headers: { Authorization: trusted },
    },
  )
  const Authorization = `Bearer ${reply.json().token}`
  const upload = async (content: Buffer) => {
    const session = await send(registry.url, 'POST', `/v2/${name}/blobs/uploads/`, { headers: { Authorization } })
    const path = `${session.headers.location?.replace(/^https?:\/\/[^/]+/, '')}&digest=${digestOf(content)}`
    assert.equal((await send(registry.url, 'PUT', path, { headers: { Authorization }, body: content })).status, 201)
  }
  for (const { content } of image.blobs) await upload(content)
  const headers = { Authorization, 'Content-Type': image.mediaType }
  assert.equal(
    (await send(registry.url, 'PUT', `/v2/${name}/manifests/v1`, { headers, body: image.manifest })).status,
    201,
  )
}

const start = (environment: Record<string, string> = {}): Promise<Router> =>
  startRouter(way, { HOSTED_HOSTNAME: hosted.host, PROXY_HOSTNAME: registry.host, LOOKUP_TTL: '0', ...environment })
const agent = `combined-registry/${packageManifest.version}`
const manifest = (router: Router, name: string, headers = {}) =>
  send(router.url, 'GET', `/v2/${name}/manifests/v1`, { headers: { Accept: accept, ...headers } })

test('the proxy wants anonymous tokens: pulls work, with one token request for each name', async () => {
  const router = await start()
  tokens.length = 0
  const pulls = Array.from({ length: 10 }, () => pull(router.url, 'public/app', 'v1'))
  for (const digest of await Promise.all(pulls)) assert.equal(digest, image.digest)
  assert.deepEqual(tokens, [{ authorization: undefined, agent, scope: 'repository:public/app:pull' }])
  assert.equal((await send(router.url, 'GET', '/v2/')).status, 200)
  await router.stop()
})

test('PROXY_HOSTNAME with a path: tokens are for the names at the proxy', async () => {
  const router = await start({ PROXY_HOSTNAME: `${registry.host}/public` })
  tokens.length = 0
  assert.equal(await pull(router.url, 'app', 'v1'), image.digest)
  assert.deepEqual(tokens, [{ authorization: undefined, agent, scope: 'repository:public/app:pull' }])
  await router.stop()
})

test('a name that an anonymous token does not open is denied, not failed: hosted is asked, and its 404 stays a 404', async () => {
  const router = await start()
  for (const name of ['private/app', 'public/none']) {
    const reply = await manifest(router, name)
    assert.equal(reply.status, 404)
    const [proxy] = reply.json().errors[0].detail
    assert.deepEqual([proxy.upstream, proxy.verdict], ['proxy', name === 'private/app' ? 'denied' : 'absent'])
  }
  await push(hosted.url, 'private/other', 'v1', image)
  assert.equal(await pull(router.url, 'private/other', 'v1'), image.digest)
  await router.stop()
})

test("with PROXY_USERNAME the realm gets the router's password, never the client's", async () => {
  const file = join(folder, 'password')
  writeFileSync(file, `${password}\n`)
  for (const settings of [
    ['PROXY_PASSWORD', password],
    ['PROXY_PASSWORD_FILE', file],
  ] as const) {
    const router = await start({ PROXY_USERNAME: 'router', [settings[0]]: settings[1] })
    tokens.length = 0
    const headers = { Authorization: 'Basic Y2xpZW50OmNsaWVudA==', Cookie: 'client=1' }
    assert.equal((await manifest(router, 'private/app', headers)).status, 200)
    assert.equal(await pull(router.url, 'private/app', 'v1'), image.digest)
    assert.deepEqual(tokens, [{ authorization: basic, agent, scope: 'repository:private/app:pull' }])
    assert.ok(!/canary|Bearer|Y2xpZW50/.test(router.child.lines.join('\n')))
    await router.stop()
  }
})

test('the realm refuses the login: failed, the log says so without the password; the breaker stays closed, hosted still answers', async () => {
  const router = await start({ PROXY_USERNAME: 'router', PROXY_PASSWORD: 'canary-wrong' })
  tokens.length = 0
  for (let i = 0; i < 5; i++) {
    const reply = await manifest(router, 'private/app')
    assert.equal(reply.status, 502)
    const [{ code, detail }] = reply.json().errors
    assert.deepEqual([code, detail[0].reason], ['UNAVAILABLE', 'refuses the login of this router'])
  }
  // One request has the scope, and one has none: this tells a refused login from a refused name.
  assert.equal(tokens.length, 2, 'a refused password is not tried again at once')
  await push(hosted.url, 'team/app', 'v1', image)
  assert.equal(await pull(router.url, 'team/app', 'v1'), image.digest)
  const log = router.child.lines.join('\n')
  assert.match(log, /the realm refuses its login/)
  assert.ok(!/canary|skipped until/.test(log))
  await router.stop()
})

test('a proxy with a password file gets Basic after its challenge; without a login the client gets 502, not 404', async () => {
  const path = join(folder, 'users')
  writeFileSync(path, `router:${hash}\n`)
  const closed = await launch({ name: 'htpasswd', folder, auth: { htpasswd: { realm: 'closed', path } } })
  const login = { PROXY_HOSTNAME: closed.host, PROXY_USERNAME: 'router' }
  const router = await start({ ...login, PROXY_PASSWORD: password })
  assert.equal((await send(router.url, 'GET', '/v2/')).status, 200)
  assert.equal((await manifest(router, 'any/app')).json().errors[0].detail[0].verdict, 'absent')
  await router.stop()
  const wrong = await start({ ...login, PROXY_PASSWORD: 'canary-wrong' })
  assert.equal((await manifest(wrong, 'any/app')).status, 502)
  assert.ok(!wrong.child.lines.join('\n').includes('canary'))
  await wrong.stop()
  // A proxy that wants a login is not down, and its 401 does not count as a 404.
  const none = await start({ PROXY_HOSTNAME: closed.host })
  assert.deepEqual((await send(none.url, 'GET', '/healthcheck')).json(), { proxy: 401, hosted: 200 })
  const { status, body } = await manifest(none, 'any/app')
  assert.equal(status, 502, `${body}`)
  assert.match(`${body}`, /proxy","verdict":"failed".*wants a login that this router does not have/)
  await none.child.line(/the registry wants a login/)
  await push(hosted.url, 'team/app', 'v1', image)
  assert.equal(await pull(none.url, 'team/app', 'v1'), image.digest)
  await none.stop()
  await closed.stop()
})

test('a changed password file takes effect without a restart, also after a refusal; an empty file is ignored', async () => {
  const path = join(folder, 'rotated-users')
  const file = join(folder, 'password')
  writeFileSync(path, `router:${hash}\n`)
  writeFileSync(file, 'canary-old\n')
  const closed = await launch({ name: 'rotated', folder, auth: { htpasswd: { realm: 'closed', path } } })
  const router = await start({ PROXY_HOSTNAME: closed.host, PROXY_USERNAME: 'router', PROXY_PASSWORD_FILE: file })
  // A refused login is remembered for a minute, unless the file changes.
  assert.equal((await manifest(router, 'any/app')).status, 502)
  writeFileSync(file, `${password}\n`)
  await until('the new password', async () => (await manifest(router, 'any/app')).status === 404)
  writeFileSync(file, '')
  await router.child.line(
    /"message":"the new password cannot be read, the old one stays","upstream":"proxy","cause":"is empty"/,
  )
  assert.equal((await manifest(router, 'any/other')).status, 404)
  assert.ok(!router.child.lines.join('\n').includes('canary'))
  await router.stop()
  await closed.stop()
})

test('the old password is refused after the new one was read: the new one is still used', async () => {
  const file = join(folder, 'overtaken')
  writeFileSync(file, 'canary-old\n')
  let release = () => {}
  const held = new Promise<void>((resolve) => {
    release = resolve
  })
  const wantsLogin = answer(401, { 'WWW-Authenticate': 'Basic realm="closed"' })
  const closed: Script = (request, ...rest) => {
    const { authorization } = request.headers
    if (authorization === basic) return serves(request, ...rest)
    // At /v2/ the router asks if the password itself is refused: hold this answer back.
    if (request.url === '/v2/') held.then(() => wantsLogin(request, ...rest))
    else wantsLogin(request, ...rest)
  }
  const router = await between(closed, answer(404), { PROXY_USERNAME: 'router', PROXY_PASSWORD_FILE: file })
  const refused = send(router.url, 'GET', '/v2/any/app/manifests/1')
  await until('the ping', () => router.proxy.requests.some(({ target }) => target === '/v2/'))
  writeFileSync(file, `${password}\n`)
  await router.router.child.line(/"message":"password read anew"/)
  release()
  // The lookup is tried again with the new password.
  assert.equal((await refused).status, 200)
  assert.equal((await send(router.url, 'GET', '/v2/any/app/manifests/2')).status, 200)
  await router.close()
})

test('a realm without TLS on another host gets no request and no password', async () => {
  const elsewhere = await scripted(answer(200, {}, '{"token":"x"}'))
  const [, port] = elsewhere.host.split(':')
  // localhost is another host name of the same machine.
  const challenge = { 'WWW-Authenticate': `Bearer realm="http://localhost:${port}/token",service="x"` }
  const router = await between(answer(401, challenge), answer(404), {
    PROXY_USERNAME: 'router',
    PROXY_PASSWORD: password,
  })
  const reply = await send(router.url, 'GET', '/v2/a/manifests/1')
  assert.equal(reply.status, 502)
  assert.equal(elsewhere.requests.length, 0)
  assert.equal(router.proxy.requests[0]?.headers.authorization, undefined)
  assert.ok(!reply.headers['www-authenticate'])
  await router.close()
  await elsewhere.close()
})

/**
 * A registry that wants tokens, with its realm on the same host. `granted(scope)` is the token that the realm gives, or
 * its status code and header fields.
 */
function wantsTokens(granted: (scope: string) => string | [status: number, headers?: object], serve: Script): Script {
  return (request, response, recorded) => {
    const { url = '', headers } = request
    const { searchParams, pathname } = new URL(url, 'http://registry')
    if (pathname === '/token') {
      const scope = searchParams.getAll('scope').join(' ')
      const result = granted(scope)
      // As Go writes a field that it does not use.
      if (typeof result === 'string')
        return answer(200, {}, JSON.stringify({ token: '', access_token: result }))(request, response, recorded)
      return answer(result[0], { ...result[1] })(request, response, recorded)
    }
    const [, name = ''] = /^\/v2\/(.+)\/(?:manifests|blobs)\//.exec(pathname) ?? []
    const action = { GET: 'pull', HEAD: 'pull', DELETE: 'delete' }[request.method as string] ?? 'pull,push'
    const scope = name ? `repository:${name}:${action}` : ''
    if (headers.authorization === `Bearer ${granted(scope)}`) return serve(request, response, recorded)
    const challenge = `Bearer realm="http://${headers.host}/token",service="x",scope="${scope}"`
    return answer(401, { 'WWW-Authenticate': challenge })(request, response, recorded)
  }
}
/** Gives anybody who logs in a token. `refuses` gives the error that it does not open an address for. */
function byToken(refuses: (url: string) => string | undefined): Script {
  return (request, ...rest) => {
    const { url = '', headers } = request
    if (url.startsWith('/token'))
      return answer(headers.authorization === basic ? 200 : 401, {}, '{"token":"x"}')(request, ...rest)
    const error = headers.authorization === 'Bearer x' ? refuses(url) : ''
    if (error === undefined) return serves(request, ...rest)
    const challenge = `Bearer realm="http://${headers.host}/token",service="x"${error && `,error="${error}"`}`
    answer(401, { 'WWW-Authenticate': challenge })(request, ...rest)
  }
}
/** Takes the router's password for the addresses that it opens. */
function byPassword(opens: (url: string) => boolean): Script {
  return (request, ...rest) => {
    const isOpen = request.headers.authorization === basic && opens(request.url as string)
    return (isOpen ? serves : answer(401, { 'WWW-Authenticate': 'Basic realm="x"' }))(request, ...rest)
  }
}
/** The same registry, whose `/v2/` is open. */
const openPing = (script: Script): Script => {
  return (request, ...rest) => (request.url === '/v2/' ? serves : script)(request, ...rest)
}
const opensNothing = { password: byPassword(() => false), token: byToken(() => '') }
const ownLogin = (registry: 'HOSTED' | 'PROXY') => ({
  [`${registry}_USERNAME`]: 'router',
  [`${registry}_PASSWORD`]: password,
})
/** Settings for the router's own login at hosted. Its clients have the same user name and password. */
function bothLogins() {
  const file = join(folder, 'clients')
  writeFileSync(file, `router:${hash}\n`)
  return { HTPASSWD_FILE: file, ...ownLogin('HOSTED') }
}
const asClient = { Authorization: basic }
/** Sends a chunk without Content-Length, as docker does. */
const sendChunk = (url: string) =>
  send(url, 'PATCH', '/v2/team/app/blobs/uploads/1', {
    headers: { ...asClient, 'Transfer-Encoding': 'chunked' },
    body: noise(300_000, 1),
  })

test("hosted denies the router a mount's source name: the client gets an upload session, or a copy if the proxy has the blob", async () => {
  const hosts = { HOSTED_HOSTNAME: registry.host, PROXY_HOSTNAME: hosted.host }
  const router = await startRouter(way, { ...hosts, ...bothLogins() })
  const { digest, content } = image.blobs[1] as Blob
  await push(hosted.url, 'closed/base', 'v1', image)
  const mount = (name: string, from: string) =>
    send(router.url, 'POST', `/v2/${name}/blobs/uploads/?mount=${digest}&from=${from}`, { headers: asClient })
  const opened = await mount('team/uploaded', 'closed/nothing')
  assert.deepEqual([opened.status, opened.headers['www-authenticate']], [202, undefined])
  const put = send(router.url, 'PUT', withDigest(pathOf(opened), digest), { headers: asClient, body: content })
  assert.equal((await put).status, 201)
  assert.equal((await mount('team/copied', 'closed/base')).status, 201)
  await router.stop()
})

test("a token for DELETE opens no upload; a layer is never sent twice; the client's second try has a new token", async () => {
  let session = 1
  const patches: number[] = []
  const registry = wantsTokens(
    (scope) => `${scope} ${session}`,
    (request, response, recorded) => {
      if (request.method === 'PATCH') request.on('end', () => patches.push(recorded.bytes))
      answer(202, { Location: '/v2/team/app/blobs/uploads/1', Range: '0-299999' })(request, response, recorded)
    },
  )
  const router = await between(answer(404), registry, bothLogins())
  assert.equal((await send(router.url, 'POST', '/v2/team/app/blobs/uploads/', { headers: asClient })).status, 202)
  assert.equal((await send(router.url, 'DELETE', '/v2/team/app/manifests/1', { headers: asClient })).status, 202)
  assert.equal((await sendChunk(router.url)).status, 202)
  session++
  assert.equal((await sendChunk(router.url)).status, 502)
  assert.equal((await sendChunk(router.url)).status, 202)
  assert.deepEqual(patches, [300_000, 300_000])
  await router.close()
})

test('a name that the realm or the registry refuses is denied; other names still work', async () => {
  const closed = /closed/
  const tokens = wantsTokens((scope) => (closed.test(scope) ? [401] : 'open'), serves)
  const passwords: Script = (request, ...rest) => {
    const opens = request.headers.authorization === basic && !closed.test(request.url as string)
    return (opens ? serves : answer(401, { 'WWW-Authenticate': 'Basic realm="x"' }, '{}'))(request, ...rest)
  }
  for (const [registry, login] of [
    [tokens, {}],
    [passwords, ownLogin('PROXY')],
  ] as const) {
    const router = await between(registry, answer(404), { LOOKUP_TTL: '0', ...login })
    for (const [name, status] of [
      ['team/open', 200],
      ['closed/app', 404],
      ['team/open', 200],
      ['team/other', 200],
    ] as const) {
      const reply = await send(router.url, 'GET', `/v2/${name}/manifests/1`)
      assert.equal(reply.status, status, name)
      if (status === 404) assert.equal(reply.json().errors[0].detail[0].verdict, 'denied')
    }
    await router.close()
  }
})

/** How hosted refuses a name in `closed/`; `isOutage`: whether it may refuse the router itself. */
const refusals: [what: string, hosted: Script, isOutage: boolean][] = [
  ['its realm says 403', wantsTokens((scope) => (scope.includes('closed') ? [403] : 'open'), serves), false],
  ['its realm says 401', wantsTokens((scope) => (scope.includes('closed') ? [401] : 'open'), serves), false],
  ['its realm says 403 to everything', wantsTokens(() => [403], serves), true],
  ['a token does not open it', byToken((url) => (url.includes('closed') ? 'insufficient_scope' : undefined)), false],
  ['a token opens only /v2/', byToken((url) => (url.includes('closed') ? '' : undefined)), false],
  ['no token opens anything', byToken(() => 'invalid_token'), true],
  ['a password does not open it', byPassword((url) => !url.includes('closed')), false],
  ['a password opens nothing', opensNothing.password, true],
  ['a password opens nothing, and its /v2/ is open', openPing(opensNothing.password), true],
  ['no token opens anything, and its /v2/ is open', openPing(opensNothing.token), true],
]
for (const [what, script, isOutage] of refusals) {
  test(`hosted refuses a name to the router's login: ${what}`, async () => {
    const router = await between(answer(404), script, { ...bothLogins(), LOOKUP_TTL: '0' })
    const path = '/v2/closed/app/manifests/1'
    const reply = await send(router.url, 'GET', path, { headers: asClient })
    const { verdict } = reply
      .json()
      .errors[0].detail.find(({ upstream }: { upstream: string }) => upstream === 'hosted')
    assert.deepEqual([reply.status, verdict], isOutage ? [502, 'failed'] : [403, 'denied'])
    assert.equal(reply.headers['www-authenticate'], undefined)
    const ask = (method: string, path: string) => send(router.url, method, path, { headers: asClient })
    const upload = await ask('POST', '/v2/closed/app/blobs/uploads/')
    assert.deepEqual([upload.status, upload.json().errors[0].code], isOutage ? [502, 'UNAVAILABLE'] : [403, 'DENIED'])
    if (!isOutage) assert.equal((await ask('GET', '/v2/team/app/manifests/1')).status, 200)
    if (!isOutage) assert.equal((await ask('GET', '/healthcheck')).json().hosted, 200)
    await router.close()
  })
}

test("the router's login is asked for without a scope at /v2/: a realm may refuse the one that its challenge has", async () => {
  const placeholder: Script = (request, ...rest) => {
    const { url = '', headers } = request
    const challenge = `Bearer realm="http://${headers.host}/token",scope="repository:user/image:pull"`
    const script = url.startsWith('/token')
      ? answer(url.includes('scope=') ? 403 : 200, {}, '{"token":"x"}')
      : headers.authorization === 'Bearer x'
        ? serves
        : answer(401, { 'WWW-Authenticate': challenge })
    script(request, ...rest)
  }
  const router = await between(placeholder, placeholder, { ...bothLogins(), ...ownLogin('PROXY') })
  assert.deepEqual((await send(router.url, 'GET', '/healthcheck')).json(), { proxy: 200, hosted: 200 })
  await router.close()
})

test('a proxy that wants a login gets two requests per lookup (the read and a ping); a long refusal keeps no connection busy', async () => {
  const closed = answer(401, { 'WWW-Authenticate': 'Basic realm="x"' }, 'x'.repeat(300_000))
  const router = await between(closed, answer(404))
  for (let i = 0; i < 10; i++) assert.equal((await send(router.url, 'GET', `/v2/a/manifests/${i}`)).status, 502)
  assert.equal(router.proxy.requests.length, 20, 'and once what it says of all')
  await until('its connections to be free', () => router.proxy.sockets.size < 5)
  await router.close()
})

test('a token is for the requested name, whatever else in the path or query looks like a name', async () => {
  const scopes: string[] = []
  const registry = wantsTokens((scope) => {
    scopes.push(scope)
    return scope
  }, serves)
  const router = await between(registry, answer(404), { LOOKUP_TTL: '0' })
  const paths = [
    'team/v2/nginx/manifests/1',
    'nginx/manifests/1',
    'evil/manifests/1?x=/v2/nginx/manifests/1',
    'nginx/manifests/1',
  ]
  const replies = await Promise.all(paths.map((path) => send(router.url, 'GET', `/v2/${path}`)))
  assert.deepEqual(
    replies.map(({ status }) => status),
    paths.map(() => 200),
  )
  const names = scopes.map((scope) => scope.split(':')[1])
  assert.deepEqual([...new Set(names)].sort(), ['evil', 'nginx', 'team/v2/nginx'])
  await router.close()
})

test('the realm refuses one name with 400 or 401: other names still work', async () => {
  for (const [status, login] of [
    [400, {}],
    [400, ownLogin('PROXY')],
    [401, ownLogin('PROXY')],
  ] as const) {
    // A realm may need a scope. Its answer without a scope is about the login only if it is 401.
    const refuses = (scope: string) => scope.includes('odd') || (status === 400 && scope === '')
    const registry = wantsTokens((scope) => (refuses(scope) ? [status] : 'open'), serves)
    const router = await between(registry, answer(404), login)
    const statusOf = async (name: string) => (await send(router.url, 'GET', `/v2/${name}/manifests/1`)).status
    assert.deepEqual([await statusOf('odd/app'), await statusOf('library/app')], [404, 200], `${status}`)
    await router.close()
  }
})

test('the realm answers 404, 405, 451 or without a token for one name: other names still work', async () => {
  for (const status of [404, 405, 451, 200]) {
    const registry = wantsTokens((scope) => (scope.includes('odd') ? [status, {}] : 'open'), serves)
    const router = await between(registry, answer(404))
    const statusOf = async (name: string) => (await send(router.url, 'GET', `/v2/${name}/manifests/1`)).status
    for (const i of [1, 2, 3, 4]) assert.equal(await statusOf(`odd/app${i}`), 502, `${status}`)
    assert.equal(await statusOf('library/app'), 200, `${status}`)
    await router.close()
  }
})

test('the realm does not answer, or not in time: failed, and the log names the realm', async () => {
  const registry = wantsTokens(() => [200, {}], serves)
  for (const [end, expectedRequests] of [
    [(socket: Socket) => socket.destroy(), 2],
    [() => {}, 1],
  ] as const) {
    let asked = 0
    const deadRealm: Script = (request, response, recorded) => {
      if (!request.url?.startsWith('/token')) return registry(request, response, recorded)
      asked++
      end(request.socket)
    }
    const router = await between(deadRealm, answer(404), { PROXY_TIMEOUT: '2.01' })
    assert.equal((await send(router.url, 'GET', '/v2/a/manifests/1')).status, 502)
    await until('the log', () =>
      router.router.log().some(({ cause }) => /^the realm gives no answer: ./.test(`${cause}`)),
    )
    // A closed connection may have been idle too long, so the request is sent once more on a new connection.
    assert.equal(asked, expectedRequests)
    await router.close()
  }
})

test('the realm limits the rate: the client gets 429 with its Retry-After, and the breaker stays closed', async () => {
  const registry = wantsTokens(() => [429, { 'Retry-After': '7' }], serves)
  const router = await between(registry, answer(404))
  for (let i = 0; i < 5; i++) {
    const reply = await send(router.url, 'GET', '/v2/library/app/manifests/1')
    assert.deepEqual([reply.status, reply.headers['retry-after']], [429, '7'])
    assert.equal(reply.json().errors[0].detail[0].verdict, 'limited')
  }
  await router.close()
})

// On Deno only a reader of the body learns that the client left: this takes 15 s, the time limit for a challenge.
test('a client leaves an upload before hosted has said which login it wants: the request to hosted ends', async () => {
  const router = await between(answer(404), () => {}, bothLogins())
  const request = http
    .request(`${router.url}/v2/team/app/blobs/uploads/1`, { method: 'PATCH', headers: asClient })
    .on('error', () => {})
  request.write('a part')
  await until('hosted to be asked', () => router.hosted.requests.length > 0)
  request.destroy()
  await until('hosted to be left', () => router.hosted.requests[0]?.broken)
  await router.close()
})
