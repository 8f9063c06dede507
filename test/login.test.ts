/** The router's own login at the proxy: real registries with a token realm and with a password file, one way (WAY=…). */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import http from 'node:http'
import type { Socket } from 'node:net'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import packageManifest from '../package.json' with { type: 'json' }
import { between, closeAll } from './parts/between.ts'
import { temporaryFolder, until } from './parts/children.ts'
import { accept, type Blob, digestOf, makeImage, noise, pathOf, pull, push, send, withDigest } from './parts/client.ts'
import { type Realm, startRealm } from './parts/realm.ts'
import { findRegistry, type Launch, type Registry } from './parts/registries.ts'
import { type Router, startRouter, way } from './parts/router.ts'
import { answer, type Script, scripted } from './parts/scripted.ts'

const password = 'canary-password'
/** bcrypt of it, cost 4. */
const hash = '$2b$04$wc19a07rSHOqzzOCmQVYouFAsmv/e5S2S4piwVisWHzzQj4ZZGQFu'
const basic = `Basic ${Buffer.from(`router:${password}`).toString('base64')}`

let folder: string
let launch: Launch
let hosted: Registry
/** A registry that wants tokens of `realm`, which knows one account; anonymous ones are for names in `public/` alone. */
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

/** The test's own account, to fill the registry. */
const trusted = 'Basic dGVzdA=='

/** Pushed beside the router, by a router of its own that hands the test's token on as hosted's client. */
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

test('a public registry that wants anonymous tokens serves as the proxy; a token is asked for once a name', async () => {
  const router = await start()
  tokens.length = 0
  const pulls = Array.from({ length: 10 }, () => pull(router.url, 'public/app', 'v1'))
  for (const digest of await Promise.all(pulls)) assert.equal(digest, image.digest)
  assert.deepEqual(tokens, [{ authorization: undefined, agent, scope: 'repository:public/app:pull' }])
  assert.equal((await send(router.url, 'GET', '/v2/')).status, 200)
  await router.stop()
})

test('where a path stands before names at the proxy, tokens are for the names there', async () => {
  const router = await start({ PROXY_HOSTNAME: `${registry.host}/public` })
  tokens.length = 0
  assert.equal(await pull(router.url, 'app', 'v1'), image.digest)
  assert.deepEqual(tokens, [{ authorization: undefined, agent, scope: 'repository:public/app:pull' }])
  await router.stop()
})

test('what an anonymous token does not open is denied, not failed: hosted is asked, and a 404 stays a 404', async () => {
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

test("with PROXY_USERNAME the realm gets the router's password, and never the client's", async () => {
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

test('a realm that refuses the login: failed, said in the log without the password; no breaker, hosted still answers', async () => {
  const router = await start({ PROXY_USERNAME: 'router', PROXY_PASSWORD: 'canary-wrong' })
  tokens.length = 0
  for (let i = 0; i < 5; i++) {
    const reply = await manifest(router, 'private/app')
    assert.equal(reply.status, 502)
    const [{ code, detail }] = reply.json().errors
    assert.deepEqual([code, detail[0].reason], ['UNAVAILABLE', 'wants a login that this router does not have'])
  }
  // Once with the scope, and once without, to tell a login that is refused from a name that is.
  assert.equal(tokens.length, 2, 'a refused password is not tried again at once')
  await push(hosted.url, 'team/app', 'v1', image)
  assert.equal(await pull(router.url, 'team/app', 'v1'), image.digest)
  const log = router.child.lines.join('\n')
  assert.match(log, /the realm refuses its login/)
  assert.ok(!/canary|skipped until/.test(log))
  await router.stop()
})

test('a registry with a password file gets Basic, once it has asked for it; without a login it is not read, and that is no 404', async () => {
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
  // "Closed" is not "does not exist", and not down either.
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

test('a changed password file is taken without a restart, a refused login forgotten; an empty one is not', async () => {
  const path = join(folder, 'rotated-users')
  const file = join(folder, 'password')
  writeFileSync(path, `router:${hash}\n`)
  writeFileSync(file, 'canary-old\n')
  const closed = await launch({ name: 'rotated', folder, auth: { htpasswd: { realm: 'closed', path } } })
  const router = await start({ PROXY_HOSTNAME: closed.host, PROXY_USERNAME: 'router', PROXY_PASSWORD_FILE: file })
  // Refused for a minute, if nothing changes.
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

test('a refusal of the old password that comes after the new one was read shuts nobody out', async () => {
  const file = join(folder, 'overtaken')
  writeFileSync(file, 'canary-old\n')
  let release = () => {}
  const held = new Promise<void>((resolve) => {
    release = resolve
  })
  const wants = answer(401, { 'WWW-Authenticate': 'Basic realm="closed"' })
  const closed: Script = (request, ...rest) => {
    const { authorization } = request.headers
    if (authorization === basic) return answer(200, {}, '{}')(request, ...rest)
    // Whether it is the password that is refused, this router asks at /v2/.
    if (request.url === '/v2/') held.then(() => wants(request, ...rest))
    else wants(request, ...rest)
  }
  const router = await between(closed, answer(404), { PROXY_USERNAME: 'router', PROXY_PASSWORD_FILE: file })
  const refused = send(router.url, 'GET', '/v2/any/app/manifests/1')
  await until('the ping', () => router.proxy.requests.some(({ target }) => target === '/v2/'))
  writeFileSync(file, `${password}\n`)
  await router.router.child.line(/"message":"password read anew"/)
  release()
  // The lookup's second try has the new one.
  assert.equal((await refused).status, 200)
  assert.equal((await send(router.url, 'GET', '/v2/any/app/manifests/2')).status, 200)
  await router.close()
})

test('a realm in clear on another host gets nothing: no request, no password', async () => {
  const elsewhere = await scripted(answer(200, {}, '{"token":"x"}'))
  const [, port] = elsewhere.host.split(':')
  // Another name of the same machine.
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

/** A registry that wants tokens and its realm, on one host: `granted` says by scope which token, or how else, the realm answers. */
function wantsTokens(granted: (scope: string) => string | [status: number, headers?: object], serve: Script): Script {
  return (request, response, recorded) => {
    const { url = '', headers } = request
    const { searchParams, pathname } = new URL(url, 'http://registry')
    if (pathname === '/token') {
      const scope = searchParams.getAll('scope').join(' ')
      const said = granted(scope)
      // As Go writes what it does not use.
      if (typeof said === 'string')
        return answer(200, {}, JSON.stringify({ token: '', access_token: said }))(request, response, recorded)
      return answer(said[0], { ...said[1] })(request, response, recorded)
    }
    const [, name = ''] = /^\/v2\/(.+)\/(?:manifests|blobs)\//.exec(pathname) ?? []
    const right = { GET: 'pull', HEAD: 'pull', DELETE: 'delete' }[request.method as string] ?? 'pull,push'
    const scope = name ? `repository:${name}:${right}` : ''
    if (headers.authorization === `Bearer ${granted(scope)}`) return serve(request, response, recorded)
    const challenge = `Bearer realm="http://${headers.host}/token",service="x",scope="${scope}"`
    return answer(401, { 'WWW-Authenticate': challenge })(request, response, recorded)
  }
}
const routersOwn = (of: 'HOSTED' | 'PROXY') => ({ [`${of}_USERNAME`]: 'router', [`${of}_PASSWORD`]: password })
/** The router's own login at hosted; its clients' is the same. */
function asRouter() {
  const file = join(folder, 'clients')
  writeFileSync(file, `router:${hash}\n`)
  return { HTPASSWD_FILE: file, ...routersOwn('HOSTED') }
}
const asClient = { Authorization: basic }
/** An upload without a length, as docker sends it. */
const chunk = (url: string) =>
  send(url, 'PATCH', '/v2/team/app/blobs/uploads/1', {
    headers: { ...asClient, 'Transfer-Encoding': 'chunked' },
    body: noise(300_000, 1),
  })

test("a mount from a name that hosted keeps from the router's login is a session, or what the proxy has of it", async () => {
  const hosts = { HOSTED_HOSTNAME: registry.host, PROXY_HOSTNAME: hosted.host }
  const router = await startRouter(way, { ...hosts, ...asRouter() })
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

test("a delete's token opens no upload; a layer is never sent twice, and a second try has the new login", async () => {
  let session = 1
  const patches: number[] = []
  const registry = wantsTokens(
    (scope) => `${scope} ${session}`,
    (request, response, recorded) => {
      if (request.method === 'PATCH') request.on('end', () => patches.push(recorded.bytes))
      answer(202, { Location: '/v2/team/app/blobs/uploads/1', Range: '0-299999' })(request, response, recorded)
    },
  )
  const router = await between(answer(404), registry, asRouter())
  assert.equal((await send(router.url, 'POST', '/v2/team/app/blobs/uploads/', { headers: asClient })).status, 202)
  assert.equal((await send(router.url, 'DELETE', '/v2/team/app/manifests/1', { headers: asClient })).status, 202)
  assert.equal((await chunk(router.url)).status, 202)
  session++
  assert.equal((await chunk(router.url)).status, 502)
  assert.equal((await chunk(router.url)).status, 202)
  assert.deepEqual(patches, [300_000, 300_000])
  await router.close()
})

test('a name that a realm or a registry keeps closed is denied, and all others go on', async () => {
  const closed = /closed/
  const tokens = wantsTokens((scope) => (closed.test(scope) ? [401] : 'open'), answer(200, {}, '{}'))
  const passwords: Script = (request, ...rest) => {
    const opens = request.headers.authorization === basic && !closed.test(request.url as string)
    return answer(opens ? 200 : 401, opens ? {} : { 'WWW-Authenticate': 'Basic realm="x"' }, '{}')(request, ...rest)
  }
  for (const [registry, login] of [
    [tokens, {}],
    [passwords, routersOwn('PROXY')],
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

test('a proxy that is closed is asked once a question, and keeps no connection busy, however long its refusal', async () => {
  const closed = answer(401, { 'WWW-Authenticate': 'Basic realm="x"' }, 'x'.repeat(300_000))
  const router = await between(closed, answer(404))
  for (let i = 0; i < 10; i++) assert.equal((await send(router.url, 'GET', `/v2/a/manifests/${i}`)).status, 502)
  assert.equal(router.proxy.requests.length, 20, 'and once what it says of all')
  await until('its connections to be free', () => router.proxy.sockets.size < 5)
  await router.close()
})

test('a token is for the name that is asked for, whatever else looks like one in its path or query', async () => {
  const scopes: string[] = []
  const registry = wantsTokens(
    (scope) => {
      scopes.push(scope)
      return scope
    },
    answer(200, {}, '{}'),
  )
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

test('a realm that refuses one name, with 400 or 401, refuses no other', async () => {
  for (const [status, login] of [
    [400, {}],
    [400, routersOwn('PROXY')],
    [401, routersOwn('PROXY')],
  ] as const) {
    // A realm may want a scope; what it says without one is about the login only where it is 401.
    const refuses = (scope: string) => scope.includes('odd') || (status === 400 && scope === '')
    const registry = wantsTokens((scope) => (refuses(scope) ? [status] : 'open'), answer(200))
    const router = await between(registry, answer(404), login)
    const statusOf = async (name: string) => (await send(router.url, 'GET', `/v2/${name}/manifests/1`)).status
    assert.deepEqual([await statusOf('odd/app'), await statusOf('library/app')], [404, 200], `${status}`)
    await router.close()
  }
})

test('a realm that says of names that there are none, or gives no token, is not down: other names go on', async () => {
  for (const status of [404, 405, 451, 200]) {
    const registry = wantsTokens((scope) => (scope.includes('odd') ? [status, {}] : 'open'), answer(200))
    const router = await between(registry, answer(404))
    const statusOf = async (name: string) => (await send(router.url, 'GET', `/v2/${name}/manifests/1`)).status
    for (const i of [1, 2, 3, 4]) assert.equal(await statusOf(`odd/app${i}`), 502, `${status}`)
    assert.equal(await statusOf('library/app'), 200, `${status}`)
    await router.close()
  }
})

test('a realm that gives no answer, or none in time: failed, asked once, and the log says that it is the realm', async () => {
  const registry = wantsTokens(() => [200, {}], answer(200))
  for (const [end, most] of [
    [(socket: Socket) => socket.destroy(), 2],
    [() => {}, 1],
  ] as const) {
    let asked = 0
    const gone: Script = (request, response, recorded) => {
      if (!request.url?.startsWith('/token')) return registry(request, response, recorded)
      asked++
      end(request.socket)
    }
    const router = await between(gone, answer(404), { PROXY_TIMEOUT: '2.01' })
    assert.equal((await send(router.url, 'GET', '/v2/a/manifests/1')).status, 502)
    await until('the log', () =>
      router.router.log().some(({ cause }) => /^the realm gives no answer: ./.test(`${cause}`)),
    )
    // On a new connection once more, where the one before may have been closed meanwhile.
    assert.equal(asked, most)
    await router.close()
  }
})

test('a realm that limits the rate: 429 with its Retry-After, and no breaker', async () => {
  const registry = wantsTokens(() => [429, { 'Retry-After': '7' }], answer(200))
  const router = await between(registry, answer(404))
  for (let i = 0; i < 5; i++) {
    const reply = await send(router.url, 'GET', '/v2/library/app/manifests/1')
    assert.deepEqual([reply.status, reply.headers['retry-after']], [429, '7'])
    assert.equal(reply.json().errors[0].detail[0].verdict, 'limited')
  }
  await router.close()
})

// On Deno, where only a body's reader hears of that, this takes the 15 s that the question may last.
test('a client that leaves an upload frees a hosted registry that has not said yet what login it wants', async () => {
  const router = await between(answer(404), () => {}, asRouter())
  const request = http
    .request(`${router.url}/v2/team/app/blobs/uploads/1`, { method: 'PATCH', headers: asClient })
    .on('error', () => {})
  request.write('a part')
  await until('hosted to be asked', () => router.hosted.requests.length > 0)
  request.destroy()
  await until('hosted to be left', () => router.hosted.requests[0]?.broken)
  await router.close()
})
