/** How the router proves itself to registries: a program gives its login, files its certificate. WAY selects the runtime. */
import assert from 'node:assert/strict'
import { chmodSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import type http from 'node:http'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import type { TLSSocket } from 'node:tls'
import { hashSync } from 'bcryptjs'
import { readConfig } from '../src/config.ts'
import { between, closeAll } from './parts/between.ts'
import { type Certificate, certify } from './parts/certificates.ts'
import { temporaryFolder } from './parts/children.ts'
import { digestOf, send } from './parts/client.ts'
import { findRegistry } from './parts/registries.ts'
import { startRotating, underLoad } from './parts/rotation.ts'
import { type Router, startRouter, way } from './parts/router.ts'
import { answer, type Script, scripted } from './parts/scripted.ts'
import { until } from './parts/until.ts'

const basicOf = (username: string, password: string) =>
  `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`
let folder: string
let users: string

before(() => {
  folder = temporaryFolder()
  users = join(folder, 'users')
  writeFileSync(users, `ann:${hashSync('right', 4)}\n`)
})
after(closeAll)

interface Helper {
  path: string
  /** What it printed last is changed for the next time. */
  gives: (username: string, secret: string) => void
  prints: (text: string) => void
  /** What it got as argument and as input, each time. */
  calls: () => string[]
}

/** A docker-credential-helper. `script`: what it does besides. */
function helper(name: string, script = ''): Helper {
  const [path, printed, log] = [join(folder, name), join(folder, `${name}.json`), join(folder, `${name}.log`)]
  writeFileSync(
    path,
    `#!/bin/sh\nread -r host\necho "$* $host" >> ${log}\necho canary-of-stderr >&2\n${script}\ncat ${printed}\n`,
  )
  chmodSync(path, 0o755)
  const prints = (text: string) => writeFileSync(printed, text)
  return {
    path,
    prints,
    gives: (Username, Secret) => prints(JSON.stringify({ ServerURL: 'x', Username, Secret })),
    calls: () => (existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n') : []),
  }
}

/** A registry that takes one password, which may change. */
function takes(wanted: { authorization: string }): Script {
  return (request, ...rest) => {
    const isIn = request.headers.authorization === wanted.authorization
    const challenge = { 'WWW-Authenticate': 'Basic realm="x"' }
    const serve = answer(request.method === 'GET' || request.method === 'HEAD' ? 200 : 201, {}, '{"schemaVersion":2}')
    return (isIn ? serve : answer(401, challenge))(request, ...rest)
  }
}
const manifest = (url: string, name = 'a') => send(url, 'GET', `/v2/${name}/manifests/1`)
const logged = (router: Router, message: string) => router.log().filter((entry) => entry.message === message)
const noLogin = 'the command gives no login, the old one stays'

test('a helper gives the login: it gets the host and nothing else, and is asked once for many requests', async () => {
  const gives = helper('once')
  gives.gives('AWS', 'canary-one')
  const proxy = await between(takes({ authorization: basicOf('AWS', 'canary-one') }), answer(404), {
    PROXY_CREDENTIALS_COMMAND: gives.path,
    LOOKUP_TTL: '0',
  })
  for (let i = 0; i < 5; i++) assert.equal((await manifest(proxy.url, `a${i}`)).status, 200)
  assert.deepEqual(gives.calls(), [`get ${proxy.proxy.host}`])
  assert.equal(logged(proxy.router, 'new login from the command').length, 1)
  assert.ok(!proxy.router.child.lines.join('\n').includes('canary'))
  await proxy.close()
})

/** A router whose login at hosted comes from a command; hosted wants `wanted`, as `serves` says it. */
async function behindCommand(name: string, serves: typeof takes, more: Record<string, string> = {}) {
  const gives = helper(name)
  gives.gives('AWS', 'old-one')
  const wanted = { authorization: basicOf('AWS', 'old-one') }
  const command = { HTPASSWD_FILE: users, HOSTED_CREDENTIALS_COMMAND: gives.path }
  return { gives, wanted, router: await between(answer(404), serves(wanted), { ...command, ...more }) }
}

test('a refused login is asked for anew, at most once in 5 s, and the request is sent again; manifests that are put too', async () => {
  const { gives, wanted, router } = await behindCommand('renewed', takes)
  const as = { Authorization: basicOf('ann', 'right') }
  const put = () =>
    send(router.url, 'PUT', '/v2/a/manifests/1', { headers: { ...as, 'Content-Length': 2 }, body: '{}' })
  assert.equal((await put()).status, 201)
  wanted.authorization = basicOf('AWS', 'new-one')
  gives.gives('AWS', 'new-one')
  // Until 5 s have passed since it was asked, the old login stays.
  await until('the new login', async () => (await put()).status === 201)
  assert.equal(gives.calls().length, 2)
  // The first one ended early, so the next is asked for before it does.
  gives.gives('AWS', 'newest-one')
  await until('the newest login', () => logged(router.router, 'new login from the command').length === 3)
  wanted.authorization = basicOf('AWS', 'never')
  const [asked, from] = [gives.calls().length, performance.now()]
  for (let i = 0; i < 10; i++) assert.equal((await put()).status, 502)
  const atMost = asked + 1 + Math.floor((performance.now() - from) / 5000)
  assert.ok(gives.calls().length <= atMost, `asked ${gives.calls().length} times, at most ${atMost} are wanted`)
  await router.close()
})

test('the login changes all the time while layers are pushed and images pulled: no request fails', async () => {
  const rotating = temporaryFolder()
  const hosted = await startRotating(await findRegistry(() => {}), rotating, { everyMs: 1000, goodMs: 20_000 })
  const router = await between(answer(404), answer(404), {
    HTPASSWD_FILE: users,
    HOSTED_HOSTNAME: hosted.registry.host,
    HOSTED_NAMES: 'team/**',
    HOSTED_CREDENTIALS_COMMAND: hosted.command,
    CREDENTIALS_INTERVAL: '1',
  })
  const options = { url: router.url, authorization: basicOf('ann', 'right') }
  const figures = await underLoad({ ...options, seconds: 5, pullsPerSecond: 20, layerMiB: 8 })
  assert.deepEqual(figures.failures, [])
  assert.ok(figures.pulls > 50 && figures.pushes > 1, JSON.stringify(figures))
  assert.ok(logged(router.router, 'new login from the command').length > 2)
  await router.close()
  await hosted.stop()
})

/** Amazon ECR, as documented: it says 403 to a password that has expired, and to what this account may not do. */
function takesLikeEcr(wanted: { authorization: string }): Script {
  const denied = (message: string) => answer(403, {}, JSON.stringify({ errors: [{ code: 'DENIED', message }] }))
  return (request, ...rest) => {
    const { authorization } = request.headers
    if (!authorization) return answer(401, { 'WWW-Authenticate': 'Basic realm="ecr"' })(request, ...rest)
    const isIn = authorization === wanted.authorization
    const isOthers = request.url?.startsWith('/v2/others/')
    const serve = isOthers
      ? denied('not authorized')
      : answer(request.method === 'PUT' ? 201 : 200, {}, '{"config":{}}')
    const expired = denied('Your authorization token has expired. Reauthenticate and try again.')
    return (isIn ? serve : expired)(request, ...rest)
  }
}

test('a 403 to an expired password is as a 401: it is asked for anew, at most once in 5 s; a denied name stays a 403', async () => {
  const { gives, wanted, router } = await behindCommand('expires', takesLikeEcr, { HOSTED_NAMES: '**' })
  const ask = (method: string, name: string) => {
    const headers = { Authorization: basicOf('ann', 'right'), 'Content-Length': method === 'PUT' ? 2 : 0 }
    return send(router.url, method, `/v2/${name}/manifests/1`, { headers, body: method === 'PUT' ? '{}' : '' })
  }
  assert.equal((await ask('PUT', 'a')).status, 201)
  for (let i = 0; i < 5; i++) {
    for (const method of ['PUT', 'GET']) {
      const reply = await ask(method, 'others/a')
      assert.deepEqual([reply.status, reply.json().errors[0].message], [403, 'not authorized'])
    }
  }
  assert.equal(gives.calls().length, 1, 'a denied name is no reason to ask')
  wanted.authorization = basicOf('AWS', 'new-one')
  gives.gives('AWS', 'new-one')
  await until('the new login', async () => (await ask('PUT', 'a')).status === 201)
  assert.equal((await ask('GET', 'a')).status, 200)
  assert.equal(gives.calls().length, 2)
  wanted.authorization = basicOf('AWS', 'never')
  for (let i = 0; i < 10; i++) {
    const reply = await ask('GET', `b${i}`)
    assert.equal(reply.status, 502)
    assert.match(`${reply.body}`, /refuses the login of this router/)
  }
  await router.close()
})

test("a 403 passes as it came if the password is no command's, or if it is the client's own", async () => {
  const hosted = takesLikeEcr({ authorization: 'none' })
  const headers = { Authorization: basicOf('ann', 'right') }
  const own = { HTPASSWD_FILE: users, HOSTED_USERNAME: 'AWS', HOSTED_PASSWORD: 'canary-old' }
  for (const environment of [own, {}]) {
    const router = await between(answer(404), hosted, { HOSTED_NAMES: '**', ...environment })
    const reply = await send(router.url, 'GET', '/v2/a/manifests/1', { headers })
    assert.deepEqual([reply.status, reply.json().errors[0].code], [403, 'DENIED'])
    await router.close()
  }
})

test('it is asked every CREDENTIALS_INTERVAL; what fails is told, and the old login stays', async () => {
  const gives = helper('often')
  gives.gives('AWS', 'canary-good')
  const wanted = takes({ authorization: basicOf('AWS', 'canary-good') })
  const router = await between(wanted, answer(404), {
    PROXY_CREDENTIALS_COMMAND: gives.path,
    CREDENTIALS_INTERVAL: '0.3',
    LOOKUP_TTL: '0',
  })
  await until('three questions', () => gives.calls().length > 2)
  for (const [printed, cause] of [
    ['canary', 'it printed no JSON'],
    ['null', 'it printed no Username or no Secret'],
    ['{"Username":"AWS","Secret":""}', 'it printed no Username or no Secret'],
    ['{"Username":"<token>","Secret":"canary"}', 'it gives an identity token, which this router cannot use'],
    ['{"Username":"a:b","Secret":"canary"}', 'it gives a user name with a colon'],
    ['x'.repeat(70_000), 'it printed more than 65536 bytes'],
  ] as const) {
    gives.prints(printed)
    await until(cause, () => logged(router.router, noLogin).some((entry) => entry.cause === cause))
    assert.equal((await manifest(router.url, 'b')).status, 200)
  }
  assert.equal(logged(router.router, 'new login from the command').length, 1)
  assert.ok(!router.router.child.lines.join('\n').includes('canary'))
  await router.close()
})

test('a helper that fails, cannot start, or is slow at first: the first requests say so or wait, and a later login counts', async () => {
  const fails = helper('fails', `[ -e ${join(folder, 'works')} ] || { echo canary; exit 3; }`)
  fails.gives('AWS', 'late')
  const router = await between(takes({ authorization: basicOf('AWS', 'late') }), answer(404), {
    PROXY_CREDENTIALS_COMMAND: fails.path,
    LOOKUP_TTL: '0',
  })
  const refused = await manifest(router.url)
  assert.equal(refused.status, 502)
  assert.match(`${refused.body}`, /wants a login that this router does not have/)
  await until('the cause', () => logged(router.router, noLogin).some(({ cause }) => cause === 'it ended with 3'))
  writeFileSync(join(folder, 'works'), '')
  await until('the login', async () => (await manifest(router.url)).status === 200)
  await router.close()

  const gone = helper('gone')
  writeFileSync(gone.path, '#!/nowhere/interpreter\n')
  const without = await between(takes({ authorization: '' }), answer(404), { PROXY_CREDENTIALS_COMMAND: gone.path })
  await until('the cause', () => logged(without.router, noLogin).some(({ cause }) => `${cause}`.startsWith('it ')))
  await without.close()

  const slow = helper('slow', `while [ ! -e ${join(folder, 'go')} ]; do sleep 0.05; done`)
  slow.gives('AWS', 'slow')
  const waiting = await between(takes({ authorization: basicOf('AWS', 'slow') }), answer(404), {
    PROXY_CREDENTIALS_COMMAND: slow.path,
  })
  const first = manifest(waiting.url)
  await until('the helper to run', () => slow.calls().length === 1)
  assert.equal(waiting.proxy.requests.length, 0)
  writeFileSync(join(folder, 'go'), '')
  assert.equal((await first).status, 200)
  await waiting.close()
})

test('a helper that hangs keeps no request waiting longer than a realm may take, and no registry is skipped for it', async () => {
  const file = join(folder, 'hangs-now')
  // Until its router has ended, which may be killed.
  const hangs = helper('hangs-at-times', `[ ! -e ${file} ] || while kill -0 $PPID; do sleep 0.1; done`)
  hangs.gives('AWS', 'old-one')
  writeFileSync(file, '')
  const wanted = { authorization: basicOf('AWS', 'old-one') }
  const environment = { PROXY_CREDENTIALS_COMMAND: hangs.path, PROXY_TIMEOUT: '4', LOOKUP_TTL: '0' }
  const first = await between(takes(wanted), answer(404), environment)
  for (let i = 0; i < 4; i++) {
    const reply = await manifest(first.url)
    assert.equal(reply.status, 502)
    assert.match(`${reply.body}`, /wants a login that this router does not have/)
  }
  assert.deepEqual(logged(first.router, 'skipped until it is well again'), [])
  await first.close()

  // A login that is refused while its helper hangs.
  rmSync(file)
  const later = await between(takes(wanted), answer(404), environment)
  await until('the login', async () => (await manifest(later.url)).status === 200)
  const calls = hangs.calls().length
  writeFileSync(file, '')
  wanted.authorization = basicOf('AWS', 'new-one')
  await until('the helper to hang', async () => {
    const reply = await manifest(later.url)
    assert.equal(reply.status, 502)
    assert.match(`${reply.body}`, /refuses the login of this router/)
    return hangs.calls().length > calls
  })
  await later.close()
})

test('a helper that hangs ends with the router, and what it started too', async () => {
  const pids = join(folder, 'pids')
  const hangs = helper('hangs', `sleep 1000 & echo $$ $! > ${pids}.new; mv ${pids}.new ${pids}; wait`)
  const router = await between(answer(404), answer(404), { PROXY_CREDENTIALS_COMMAND: hangs.path })
  await until('the helper to run', () => existsSync(pids))
  const running = () =>
    readFileSync(pids, 'utf8')
      .trim()
      .split(' ')
      .filter((pid) => existsSync(`/proc/${pid}`) && !/\) Z/.test(readFileSync(`/proc/${pid}/stat`, 'utf8')))
  assert.equal(running().length, 2)
  assert.equal(await router.router.stop('SIGTERM'), 0)
  await until('both to end', () => running().length === 0)
  await router.close(true)
})

// --- client certificates

interface Asking {
  host: string
  /** The subjects of the client certificates that it saw, by path. */
  seen: string[]
  close: () => void
}

/** Serves https. With `ca` it refuses clients without a certificate of that authority. */
async function asking(certificate: Certificate, ca: string | undefined, serve: http.RequestListener): Promise<Asking> {
  const seen: string[] = []
  const { cert, key } = certificate
  const options = { cert, key, ca, requestCert: true, rejectUnauthorized: ca !== undefined }
  const server = https.createServer(options, (request, response) => {
    const { subject } = (request.socket as TLSSocket).getPeerCertificate()
    seen.push(`${request.url} ${subject?.CN ?? '-'}`)
    serve(request, response)
  })
  server.on('tlsClientError', () => {})
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`
  return { host, seen, close: () => server.closeAllConnections() }
}

test('a registry that wants a certificate of its clients gets the one of its files, also a later one; nobody else sees it', async () => {
  const authority = await certify(folder, 'authority')
  const server = await certify(folder, 'server', 'IP:127.0.0.1', authority)
  const [first, second] = [
    await certify(folder, 'first', 'DNS:first', authority),
    await certify(folder, 'second', 'DNS:second', authority),
  ]
  const [certFile, keyFile] = [join(folder, 'own.pem'), join(folder, 'own.key')]
  const use = ({ cert, key }: Certificate) => {
    writeFileSync(keyFile, key)
    writeFileSync(certFile, cert)
  }
  use(first)
  const layer = Buffer.from('layer')
  const storage = await asking(server, undefined, (_, response) =>
    response.writeHead(200, { 'Content-Length': 5 }).end(layer),
  )
  const realm = await asking(server, undefined, (_, response) => response.end('{"token":"t"}'))
  const registry = await asking(server, authority.cert, (request, response) => {
    const { url = '', headers } = request
    if (!headers.authorization) {
      const challenge = `Bearer realm="https://${realm.host}/token",service="x"`
      return response.writeHead(401, { 'WWW-Authenticate': challenge }).end()
    }
    if (url.includes('/blobs/')) return response.writeHead(307, { Location: `https://${storage.host}/layer` }).end()
    response.end('{"schemaVersion":2}')
  })
  const hosted = await scripted(answer(404))
  const environment = {
    HOSTED_HOSTNAME: hosted.host,
    PROXY_HOSTNAME: `https://${registry.host}`,
    CA_FILE: authority.certFile,
    BLOB_REDIRECTS: 'follow',
    LOOKUP_TTL: '0',
  }
  const without = await startRouter(way, environment)
  assert.equal((await manifest(without.url)).status, 502)
  await without.stop()
  const router = await startRouter(way, { ...environment, PROXY_CERT_FILE: certFile, PROXY_KEY_FILE: keyFile })
  assert.equal((await manifest(router.url)).status, 200)
  const pulled = await send(router.url, 'GET', `/v2/a/blobs/${digestOf(layer)}`)
  assert.deepEqual([pulled.status, pulled.body], [200, layer])
  assert.ok(registry.seen.length > 2 && registry.seen.every((line) => line.endsWith(' first')), registry.seen.join())
  assert.ok(
    [...realm.seen, ...storage.seen].every((line) => line.endsWith(' -')),
    [...realm.seen, ...storage.seen].join(),
  )
  assert.ok(realm.seen.length > 0 && storage.seen.length === 1)
  registry.seen.length = 0
  use(second)
  await router.child.line(/"message":"new certificate","upstream":"proxy"/)
  assert.equal((await manifest(router.url, 'b')).status, 200)
  assert.ok(
    registry.seen.every((line) => line.endsWith(' second')),
    registry.seen.join(),
  )
  writeFileSync(certFile, first.cert)
  await router.child.line(/the new certificate cannot be used, the old one stays","upstream":"proxy"/)
  assert.equal((await manifest(router.url, 'c')).status, 200)
  await router.stop()
  await hosted.close()
  for (const one of [storage, realm, registry]) one.close()
})

test('a certificate for a registry that is asked in clear, without its key, or with the key of another, is a fault', async () => {
  const [one, other] = [await certify(folder, 'one'), await certify(folder, 'other')]
  const faultsOf = (environment: Record<string, string>) => {
    const hosts = { AGGREGATE_HOSTNAME: 'a', HOSTED_HOSTNAME: 'https://b', PROXY_HOSTNAME: 'https://c' }
    const config = readConfig({ ...hosts, ...environment })
    return 'faults' in config ? config.faults : []
  }
  for (const prefix of ['HOSTED', 'PROXY']) {
    const pair = { [`${prefix}_CERT_FILE`]: one.certFile, [`${prefix}_KEY_FILE`]: one.keyFile }
    assert.deepEqual(faultsOf(pair), [])
    assert.deepEqual(faultsOf({ ...pair, [`${prefix}_HOSTNAME`]: 'b' }), [
      `${prefix}_CERT_FILE needs ${prefix}_HOSTNAME to be https://…`,
    ])
    assert.deepEqual(faultsOf({ ...pair, [`${prefix}_KEY_FILE`]: '' }), [
      `${prefix}_CERT_FILE and ${prefix}_KEY_FILE need each other`,
    ])
    assert.deepEqual(faultsOf({ ...pair, [`${prefix}_KEY_FILE`]: other.keyFile }), [
      `${prefix}_CERT_FILE and ${prefix}_KEY_FILE do not fit each other`,
    ])
    assert.deepEqual(faultsOf({ ...pair, [`${prefix}_KEY_FILE`]: one.certFile }), [
      `${prefix}_KEY_FILE must hold a private key in PEM, without a passphrase`,
    ])
  }
})

test('hosted may want a certificate too: uploads, and the login of clients, pass', async () => {
  const authority = await certify(folder, 'authority-2')
  const server = await certify(folder, 'server-2', 'IP:127.0.0.1', authority)
  const own = await certify(folder, 'own-2', 'DNS:own', authority)
  const bodies: string[] = []
  const registry = await asking(server, authority.cert, (request, response) => {
    let body = ''
    request.on('data', (chunk) => {
      body += chunk
    })
    request.on('end', () => {
      if (request.method === 'PATCH') bodies.push(`${request.headers.authorization} ${body}`)
      response.writeHead(202, { Location: '/v2/a/blobs/uploads/1' }).end()
    })
  })
  const proxy = await scripted(answer(404))
  const router = await startRouter(way, {
    HOSTED_HOSTNAME: `https://${registry.host}`,
    PROXY_HOSTNAME: proxy.host,
    CA_FILE: authority.certFile,
    HOSTED_CERT_FILE: own.certFile,
    HOSTED_KEY_FILE: own.keyFile,
  })
  const headers = { Authorization: 'Basic x', 'Content-Length': 5 }
  assert.equal((await send(router.url, 'PATCH', '/v2/a/blobs/uploads/1', { headers, body: 'chunk' })).status, 202)
  assert.deepEqual(bodies, ['Basic x chunk'])
  assert.ok(registry.seen.includes('/v2/a/blobs/uploads/1 own-2'))
  await router.stop()
  await proxy.close()
  registry.close()
})

test('AUTH_FILE: each registry gets its own login, and no other; a changed file is read anew', async () => {
  const [ghcr, hosts] = [{ authorization: basicOf('ann', 'canary-1') }, { authorization: basicOf('bob', 'canary-2') }]
  const closed = await scripted(takes(ghcr))
  const file = join(folder, 'config.json')
  const write = (auths: Record<string, string>) =>
    writeFileSync(
      file,
      JSON.stringify({
        auths: Object.fromEntries(
          Object.entries(auths).map(([key, text]) => [key, { auth: Buffer.from(text).toString('base64') }]),
        ),
      }),
    )
  // The address of hosted is known when it runs, so the file is written twice.
  write({ [closed.host]: 'ann:canary-1' })
  const router = await between(answer(404), takes(hosts), {
    PROXIES: `ghcr.io=${closed.host}`,
    AUTH_FILE: file,
    HTPASSWD_FILE: users,
    HOSTED_NAMES: 'team/**',
  })
  const headers = { Authorization: basicOf('ann', 'right') }
  const statusOf = async (name: string) =>
    (await send(router.url, 'GET', `/v2/${name}/manifests/1`, { headers })).status
  assert.equal(await statusOf('ghcr.io/org/app'), 200)
  assert.equal(await statusOf('team/app'), 502, 'hosted wants a login that the file does not have yet')
  assert.ok(router.router.log().some(({ message, entry }) => /^logs in as/.test(`${message}`) && entry === closed.host))
  ghcr.authorization = basicOf('ann', 'canary-3')
  write({ [closed.host]: 'ann:canary-3', [router.hosted.host]: 'bob:canary-2', 'unused.example': 'x:canary-4' })
  await until('the new login', async () => (await statusOf('ghcr.io/org/app2')) === 200)
  await until('the login for hosted', async () => (await statusOf('team/app')) === 200)
  for (const { headers } of router.proxy.requests) assert.equal(headers.authorization, undefined)
  for (const { headers } of closed.requests) assert.ok(!`${headers.authorization}`.includes(basicOf('bob', 'canary-2')))
  await router.close()
  await closed.close()
})

test('AUTH_FILE: without HTPASSWD_FILE hosted gets no login of it, so that a mounted file gives strangers no rights', async () => {
  const file = join(folder, 'hosted.json')
  const hosted = await scripted(answer(200, {}, '{}'))
  writeFileSync(file, JSON.stringify({ auths: { [hosted.host]: { username: 'a', password: 'canary-b' } } }))
  const router = await startRouter(way, {
    HOSTED_HOSTNAME: hosted.host,
    PROXY_HOSTNAME: '127.0.0.1:1',
    AUTH_FILE: file,
  })
  await send(router.url, 'PUT', '/v2/a/manifests/1', { body: '{}' })
  assert.ok(hosted.requests.length > 0)
  for (const { headers } of hosted.requests) assert.equal(headers.authorization, undefined)
  assert.ok(router.log().some(({ message }) => message === 'AUTH_FILE has a login that no registry gets'))
  await router.stop()
  await hosted.close()
})

test('AUTH_FILE: a helper of credHelpers runs only from CREDENTIAL_HELPERS_DIR', async () => {
  const file = join(folder, 'helpers.json')
  const wanted = { authorization: basicOf('ann', 'canary-5') }
  const closed = await scripted(takes(wanted))
  const { gives, calls } = helper('docker-credential-own')
  gives('ann', 'canary-5')
  writeFileSync(file, JSON.stringify({ auths: {}, credHelpers: { [closed.host]: 'own' } }))
  const settings = { AGGREGATE_HOSTNAME: 'a', HOSTED_HOSTNAME: 'b', PROXY_HOSTNAME: closed.host, AUTH_FILE: file }
  for (const [more, wanted] of [
    [{}, /CREDENTIAL_HELPERS_DIR/],
    [{ CREDENTIAL_HELPERS_DIR: join(folder, 'none') }, /cannot be run: ENOENT/],
  ] as const) {
    const config = readConfig({ ...settings, ...more })
    assert.match('faults' in config ? config.faults.join() : '', wanted)
  }
  const router = await startRouter(way, {
    HOSTED_HOSTNAME: '127.0.0.1:1',
    PROXY_HOSTNAME: '127.0.0.1:1',
    PROXIES: `ghcr.io=${closed.host}`,
    AUTH_FILE: file,
    CREDENTIAL_HELPERS_DIR: folder,
  })
  assert.equal((await send(router.url, 'GET', '/v2/ghcr.io/a/manifests/1')).status, 200)
  // Not once more for the question at the start.
  assert.deepEqual(calls(), [`get ${closed.host}`])
  await router.stop()
  await closed.close()
})

test('AUTH_FILE: an entry for a registry that is here, but without a password, is a fault', () => {
  const file = join(folder, 'faulty.json')
  writeFileSync(file, JSON.stringify({ auths: { b: {}, 'c.io': {}, 'd.io': { identitytoken: 'canary' } } }))
  const settings = { AGGREGATE_HOSTNAME: 'a', HOSTED_HOSTNAME: 'b', PROXY_HOSTNAME: 'https://c.io', AUTH_FILE: file }
  const config = readConfig({ ...settings, PROXIES: 'd.io' })
  assert.ok('faults' in config)
  assert.equal(config.faults.length, 2, 'not for hosted: it gets no login of the file')
  assert.match(config.faults.join('\n'), /no user and password.*\(c.io\)\n.*identity token.*\(d.io\)/)
})
