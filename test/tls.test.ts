/** TLS on both sides: served and renewed certificates, and checks of the upstreams. WAY selects the runtime. */
import assert from 'node:assert/strict'
import { createHash, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { after, before, test } from 'node:test'
import { connect, type PeerCertificate } from 'node:tls'
import { hashSync } from 'bcryptjs'
import { type Certificate, certify } from './parts/certificates.ts'
import { run, start, temporaryFolder } from './parts/children.ts'
import {
  answerOf,
  digestOf,
  digestOfStream,
  heldAfterFirst,
  makeImage,
  noise,
  open,
  pull,
  push,
  send,
  trusted,
  withDigest,
  zeros,
} from './parts/client.ts'
import { program } from './parts/packages.ts'
import { publish } from './parts/portproxy.ts'
import { findRegistry, type Registry } from './parts/registries.ts'
import { type Router, root, startRouter, way, ways } from './parts/router.ts'
import { answer, type Script, type Scripted, scripted } from './parts/scripted.ts'
import { still, until } from './parts/until.ts'

const skopeo = await program(['skopeo'], 'skopeo', console.error)
if (!skopeo && process.env.CI === 'true') throw new Error('skopeo is missing')
const needsSkopeo = { skip: skopeo ? false : 'SKOPEO IS MISSING: install it to run this test' }

const mebibyte = 1024 * 1024
const image = makeImage({ 'a.txt': 'a', 'b.txt': 'b' })
const here = 'DNS:registry.example,IP:127.0.0.1'
const blob = `/v2/a/blobs/${digestOf('x')}`
const upload = '/v2/a/blobs/uploads/1'

let folder: string
let authority: Certificate
let first: Certificate
let second: Certificate
let hosted: Registry
let cache: Registry
/** Settings of a router: `serving` for TLS to its clients, `trusting` to check its upstreams. */
let serving: Record<string, string>
let trusting: Record<string, string>
const unclosed: (() => Promise<unknown>)[] = []

before(async () => {
  folder = temporaryFolder()
  authority = await certify(folder, 'authority')
  first = await certify(folder, 'first', here, authority)
  second = await certify(folder, 'second', here, authority, 3)
  trusted.ca = authority.cert
  serving = { TLS_CERT_FILE: first.certFile, TLS_KEY_FILE: first.keyFile }
  trusting = { CA_FILE: authority.certFile, LOOKUP_TTL: '0' }
  const launch = await findRegistry(console.error)
  const hub = await launch({ name: 'hub', folder })
  await push(hub.url, 'public/app', 'v1', image)
  hosted = await launch({ name: 'hosted', folder, certificate: first })
  cache = await launch({ name: 'cache', folder, certificate: first, proxyOf: hub.url })
  unclosed.push(hub.stop, hosted.stop, cache.stop)
})
after(() => Promise.all(unclosed.map((close) => close())))

/** A router that is stopped at the end, even if the test fails. */
async function startOwn(env: Record<string, string>): Promise<Router> {
  const router = await startRouter(way, env)
  unclosed.push(() => router.stop('SIGKILL'))
  return router
}

/** A router with TLS on both sides, in front of a scripted hosted registry. */
async function behindTls(
  script: Script,
  env = {},
  certificate = first,
): Promise<{ router: Router; upstream: Scripted }> {
  const upstream = await scripted(script, certificate)
  unclosed.push(upstream.close)
  const hosts = { HOSTED_HOSTNAME: `https://${upstream.host}`, PROXY_HOSTNAME: cache.url, HOSTED_NAMES: 'a' }
  return { router: await startOwn({ ...hosts, ...serving, ...trusting, ...env }), upstream }
}

async function received(stream: Readable): Promise<{ digest: string; text: string }> {
  const hash = createHash('sha256')
  let text = ''
  for await (const chunk of stream) {
    hash.update(chunk)
    if (text.length < mebibyte) text += chunk
  }
  return { digest: `sha256:${hash.digest('hex')}`, text }
}

async function ask(url: string, method: string, target: string, body?: Readable, headers: object = {}) {
  const request = open(url, method, target, { ...headers })
  const answered = answerOf(request)
  if (body) pipeline(body, request).catch(() => {})
  else request.end()
  const reply = await answered
  return { status: reply.statusCode, headers: reply.headers, ...(await received(reply)) }
}

test('an image is pushed and pulled with TLS on both sides, and pulled from the cache', async () => {
  const router = await startOwn({ HOSTED_HOSTNAME: hosted.url, PROXY_HOSTNAME: cache.url, ...serving, ...trusting })
  await push(router.url, 'team/app', 'v1', image)
  for (const name of ['team/app', 'public/app']) assert.equal(await pull(router.url, name, 'v1'), image.digest)
  const reply = await send(router.url, 'GET', '/livez', { headers: { 'X-Request-Id': 'mine' } })
  assert.equal(reply.headers['x-request-id'], 'mine')
  assert.deepEqual(router.odd(), [])
  assert.equal(await router.stop(), 0)
})

test('skopeo pushes and pulls with the authority in its certificate folder', needsSkopeo, async () => {
  const router = await startOwn({ HOSTED_HOSTNAME: hosted.url, PROXY_HOSTNAME: cache.url, ...serving, ...trusting })
  const certificates = join(folder, 'certs.d')
  mkdirSync(certificates, { recursive: true })
  writeFileSync(join(certificates, 'ca.crt'), authority.cert)
  const copy = [skopeo as string, '--insecure-policy', 'copy']
  const layout = `oci:${join(folder, 'layout')}:v1`
  const at = (name: string) => `docker://${router.host}/${name}:v1`
  await run([...copy, '--src-cert-dir', certificates, at('public/app'), layout])
  await run([...copy, '--dest-cert-dir', certificates, layout, at('skopeo/app')])
  await run([...copy, '--src-cert-dir', certificates, at('skopeo/app'), layout])
  await assert.rejects(run([...copy, at('public/app'), layout]), /unknown authority/)
  await router.stop()
})

test('20 layers, each in two parts, one after the other: none gets stuck', { timeout: 30_000 }, async () => {
  const inParts: Script = (_, response) => {
    response.writeHead(200, { 'Content-Length': 5000 }).write(Buffer.alloc(3000))
    setTimeout(() => response.end(Buffer.alloc(2000)), 50)
  }
  const registry = await scripted(inParts)
  unclosed.push(registry.close)
  const router = await startOwn({ HOSTED_HOSTNAME: registry.host, PROXY_HOSTNAME: registry.host, ...serving })
  for (let i = 0; i < 20; i++) assert.equal((await send(router.url, 'GET', blob)).body.length, 5000)
  // A request with `Connection: close` does not get stuck either.
  const client = connect({ ...hostAndPort(router), ...trusted })
  client.write(`GET ${blob} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`)
  await once(client.resume(), 'close')
  assert.equal(await router.stop(), 0)
  assert.equal(router.log().filter(({ message, complete }) => message === 'request' && complete).length, 21)
})

test('a blob of 16 MiB is pushed and pulled byte for byte, with and without Content-Length', async () => {
  const bytes = 16 * mebibyte
  const router = await startOwn({ HOSTED_HOSTNAME: hosted.url, PROXY_HOSTNAME: cache.url, ...serving, ...trusting })
  for (const sized of [true, false]) {
    const name = `big/${sized ? 'sized' : 'chunked'}`
    const digest = await digestOfStream(noise(bytes, 1))
    const { location } = (await ask(router.url, 'POST', `/v2/${name}/blobs/uploads/`)).headers
    const length = sized ? { 'content-length': bytes } : {}
    const sent = await ask(router.url, 'PATCH', `${location}`, noise(bytes, 1), length)
    assert.equal(sent.status, 202, sent.text)
    assert.equal((await ask(router.url, 'PUT', withDigest(`${sent.headers.location}`, digest))).status, 201)
    const got = await ask(router.url, 'GET', `/v2/${name}/blobs/${digest}`)
    assert.deepEqual([got.digest, got.headers['content-length']], [digest, `${bytes}`])
    const head = await ask(router.url, 'HEAD', `/v2/${name}/blobs/${digest}`)
    assert.equal(head.headers['content-length'], `${bytes}`)
  }
  assert.deepEqual(router.odd(), [])
  await router.stop()
})

/** A blob that breaks off. It has no Content-Length if the request has a Range. */
const breaks: Script = (_, response, { headers }) => {
  response.writeHead(200, headers.range ? {} : { 'Content-Length': mebibyte })
  response.write(Buffer.alloc(1000), () => setTimeout(() => response.destroy(), 50))
}

test('hosted breaks in the middle of a blob: the client gets an error, never a clean end', async () => {
  const { router } = await behindTls(breaks)
  for (const headers of [{}, { range: 'bytes=0-' }])
    await assert.rejects(ask(router.url, 'GET', blob, undefined, headers))
  await router.stop()
})

test('a registry ends a layer without a length, or breaks one, while its client is slow: the client sees the same', {
  timeout: 30_000,
}, async () => {
  const bytes = 16 * mebibyte
  const sent = [zeros(bytes), zeros(bytes)] as const
  const sendsAndGoes: Script = ({ socket, headers }) => {
    const [framing, { stream }] = headers.range
      ? [`Content-Length: ${2 * bytes}`, sent[1]]
      : ['Connection: close', sent[0]]
    socket.write(`HTTP/1.1 200 OK\r\n${framing}\r\n\r\n`)
    pipeline(stream, socket).catch(() => {})
  }
  const { router } = await behindTls(sendsAndGoes)
  const slowly = async (taken: () => number, headers = {}) => {
    const request = open(router.url, 'GET', blob, headers)
    request.end()
    const reply = await answerOf(request)
    await still(taken)
    return received(reply)
  }
  assert.equal((await slowly(sent[0].taken)).digest, digestOf(Buffer.alloc(bytes)))
  await assert.rejects(slowly(sent[1].taken, { range: 'bytes=0-' }))
  await router.stop()
})

test('HTTP/1.0: half an answer without Content-Length ends with its connection, and the router logs nothing unusual', {
  timeout: 30_000,
}, async () => {
  const { router } = await behindTls(breaks)
  const head = `GET ${blob} HTTP/1.0\r\nRange: bytes=0-\r\n\r\n`
  const socket = connect({ ...hostAndPort(router), ...trusted }, () => socket.write(head))
  const closed = new Promise((resolve) => socket.on('error', () => {}).once('close', resolve))
  socket.resume()
  await closed
  await router.child.line(/"message":"request".*"complete":false/)
  assert.deepEqual(router.odd(), [])
  await router.stop()
})

test('a request in flight longer than DRAIN_TIMEOUT is given up, exit code 1', { timeout: 30_000 }, async () => {
  const { router, upstream } = await behindTls(() => {}, { DRAIN_TIMEOUT: '0.2' })
  const given = assert.rejects(ask(router.url, 'GET', blob))
  await until('hosted to be asked', () => upstream.requests.length === 1)
  assert.equal(await router.stop(), 1)
  await given
  assert.equal(router.log().at(-1)?.message, 'drain timeout')
})

test('SIGTERM when a layer was sent: what a published port still keeps for a slow client is not lost with the process', async () => {
  const bytes = 16 * mebibyte
  const { router } = await behindTls((_, response) => {
    noise(bytes, 12).pipe(response.writeHead(200, { 'Content-Length': bytes }))
  })
  const port = await publish(Number(new URL(router.url).port), 16 * 1024)
  const reply = await answerOf(open(`https://${port.host}`, 'GET', blob).end())
  await router.child.line(/"message":"request".*"complete":true/)
  const ended = router.stop()
  ended.then(port.end)
  assert.equal((await received(reply)).digest, await digestOfStream(noise(bytes, 12)))
  assert.equal(await ended, 0)
  assert.equal(router.log().at(-1)?.message, 'drained')
})

test('a client leaves in the middle of an upload: hosted sees an incomplete request', async () => {
  const { router, upstream } = await behindTls((request) => request.resume())
  async function* half() {
    yield Buffer.alloc(1000)
    await until('hosted to have the first half', () => upstream.requests.at(-1)?.bytes === 1000)
    throw new Error('gone')
  }
  await assert.rejects(ask(router.url, 'PATCH', upload, Readable.from(half())))
  await until('hosted to see it', () => upstream.requests.at(-1)?.broken)
  assert.deepEqual([upstream.requests.length, upstream.requests[0]?.complete], [1, false])
  await until('the log to say so', () => router.log().some(({ status }) => status === 499))
  assert.ok(!router.log().some(({ message }) => message === 'no usable answer'))
  await router.stop()
})

test('hosted refuses an upload while the client still sends: the client gets this answer', async () => {
  const early: Script = (request, response) => {
    request.once('data', () => response.writeHead(413).end('{"errors":[{"code":"DENIED"}]}')).resume()
  }
  const { router } = await behindTls(early)
  const got = await ask(router.url, 'PATCH', upload, noise(16 * mebibyte, 1))
  assert.deepEqual([got.status, got.text], [413, '{"errors":[{"code":"DENIED"}]}'])
  assert.equal((await ask(router.url, 'GET', '/livez')).status, 200)
  assert.equal(await router.stop(), 0)
})

test('a registry accepts connections and never completes the TLS handshake: the router keeps none of them open', async () => {
  const sockets = new Set<Socket>()
  const silentServer = createServer((socket) => {
    sockets.add(
      socket
        .resume()
        .on('close', () => sockets.delete(socket))
        .on('error', () => {}),
    )
  }).listen(0, '127.0.0.1')
  await once(silentServer, 'listening')
  const { port } = silentServer.address() as AddressInfo
  const times = { HOSTED_TIMEOUT: '0.2', PROXY_TIMEOUT: '0.2', WRITE_TIMEOUT: '0.2' }
  const router = await startOwn({
    HOSTED_HOSTNAME: `https://127.0.0.1:${port}`,
    PROXY_HOSTNAME: cache.url,
    ...trusting,
    ...times,
  })
  const deletes = Array.from({ length: 20 }, () => send(router.url, 'DELETE', `/v2/a/manifests/${digestOf('x')}`))
  for (const { status } of await Promise.all(deletes)) assert.ok([502, 504].includes(status), `${status}`)
  await until('the connections to be gone', () => sockets.size === 0)
  await router.stop()
  silentServer.close()
})

test('HTTP/2 is not offered', async () => {
  const { router } = await behindTls(answer(200))
  const offered = await new Promise((resolve, reject) => {
    const socket = connect({ ...hostAndPort(router), ...trusted, ALPNProtocols: ['h2', 'http/1.1'] })
    socket.once('secureConnect', () => resolve(socket.destroy().alpnProtocol)).once('error', reject)
  })
  assert.ok(!offered || offered === 'http/1.1', `${offered}`)
  await router.stop()
})

test('IDLE_TIMEOUT ends a stalled pull and a stalled upload', async () => {
  const stalls: Script = (request, response) => {
    if (request.method === 'GET') response.writeHead(200, { 'Content-Length': 100 }).write('half')
  }
  const { router, upstream } = await behindTls(stalls, { IDLE_TIMEOUT: '0.3' })
  await assert.rejects(ask(router.url, 'GET', blob))
  const request = open(router.url, 'PATCH', upload, { 'Content-Length': 100 })
  request.write('half')
  await assert.rejects(answerOf(request))
  await until('the upstream to be free', () => upstream.requests.every(({ broken }) => broken))
  await router.stop()
})

/** Certificates that must not be accepted as hosted's, and the cause in the log, as each runtime words it. */
const strangers: [what: string, names: string, ownAuthority: boolean, env: Record<string, string>, cause: RegExp][] = [
  ['no CA_FILE', here, true, { CA_FILE: '' }, /verify the first certificate|self.signed|UnknownIssuer/i],
  ['another host', 'DNS:elsewhere.example', true, {}, /altname|not valid for name/i],
  ['another authority', here, false, {}, /verify the first certificate|UnknownIssuer/i],
]
for (const [what, names, ownAuthority, env, cause] of strangers) {
  test(`a wrong certificate of hosted (${what}) is failed even with NODE_TLS_REJECT_UNAUTHORIZED=0; the log says why`, async () => {
    const other = ownAuthority ? authority : await certify(folder, 'other-authority')
    const certificate = await certify(folder, 'stranger', names, other)
    const { router, upstream } = await behindTls(
      answer(200),
      { ...env, NODE_TLS_REJECT_UNAUTHORIZED: '0' },
      certificate,
    )
    for (let i = 0; i < 4; i++) {
      const headers = { Authorization: 'Basic Y2FuYXJ5' }
      const reply = await send(router.url, 'GET', '/v2/a/manifests/1', { headers })
      const [{ code, detail }] = reply.json().errors
      assert.deepEqual([reply.status, code, detail[0].verdict], [502, 'UNAVAILABLE', 'failed'])
      assert.equal(detail[0].reason, i < 3 ? 'no answer' : 'skipped: it failed lately')
    }
    const warning = router.log().find(({ message }) => message === 'no usable answer')
    assert.match(`${warning?.cause}`, cause)
    assert.equal(upstream.requests.length, 0)
    await router.stop()
  })
}

test('the token realm is checked against CA_FILE; a realm with another certificate gets no login, and the proxy is failed', async () => {
  const realm = await scripted(answer(200, {}, '{"token":"granted"}'), first)
  const challenge = { 'WWW-Authenticate': `Bearer realm="https://${realm.host}/token",service="x"` }
  const proxy = await scripted((request, response, recorded) => {
    const granted = request.headers.authorization === 'Bearer granted'
    const script = granted ? answer(200, {}, '{"schemaVersion":2}') : answer(401, challenge)
    script(request, response, recorded)
  }, first)
  unclosed.push(realm.close, proxy.close)
  const login = { PROXY_USERNAME: 'router', PROXY_PASSWORD: 'canary' }
  const hosts = { HOSTED_HOSTNAME: hosted.url, PROXY_HOSTNAME: `https://${proxy.host}` }
  const router = await startOwn({ ...hosts, ...serving, ...trusting, ...login })
  assert.equal((await send(router.url, 'GET', '/v2/public/app/manifests/v1')).status, 200)
  assert.equal(realm.requests.length, 1)
  await router.stop()
  const stranger = await scripted(answer(200, {}, '{"token":"granted"}'), await certify(folder, 'alone'))
  unclosed.push(stranger.close)
  challenge['WWW-Authenticate'] = `Bearer realm="https://${stranger.host}/token",service="x"`
  const wary = await startOwn({ ...hosts, ...serving, ...trusting, ...login })
  assert.equal((await send(wary.url, 'GET', '/v2/public/app/manifests/v1')).status, 502)
  assert.equal(stranger.requests.length, 0)
  await wary.stop()
})

function hostAndPort({ host }: Router): { host: string; port: number } {
  const [name = '', port] = host.split(':')
  return { host: name, port: Number(port) }
}

/** The common name of the certificate that a new connection gets. */
function certificateAt(router: Router): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ ...hostAndPort(router), ...trusted })
    socket.once('secureConnect', () => {
      const { subject } = socket.getPeerCertificate() as PeerCertificate
      socket.destroy()
      resolve(`${subject.CN}`)
    })
    socket.once('error', reject)
  })
}

/** The end of the certificate's validity, in seconds since 1970. */
const expiryOf = ({ cert }: Certificate) => Date.parse(new X509Certificate(cert).validTo) / 1000
async function expiryAt({ url }: Router): Promise<number> {
  const { body } = await send(url, 'GET', '/metrics')
  return Number(/^registry_router_certificate_expiration_timestamp_seconds (.*)$/m.exec(`${body}`)?.[1])
}

test('new certificates take effect without a restart, also behind swapped symlinks; transfers in flight complete', async () => {
  // As Kubernetes mounts a secret: the files are links into `..data`, a link to a folder. The link is replaced.
  const mount = join(folder, 'mount')
  const put = (name: string, { cert, key }: { cert: string; key: string }) => {
    mkdirSync(join(mount, name), { recursive: true })
    writeFileSync(join(mount, name, 'tls.crt'), cert)
    writeFileSync(join(mount, name, 'tls.key'), key)
    symlinkSync(name, join(mount, '..new'))
    renameSync(join(mount, '..new'), join(mount, '..data'))
  }
  put('1', first)
  for (const file of ['tls.crt', 'tls.key']) symlinkSync(join('..data', file), join(mount, file))
  let release = () => {}
  const held = new Promise<void>((resolve) => {
    release = resolve
  })
  const slow: Script = async (request, response) => {
    if (request.method === 'PATCH') return request.resume().on('end', () => response.writeHead(202).end())
    response.writeHead(200, { 'Content-Length': 4 * mebibyte })
    await pipeline(heldAfterFirst(noise(4 * mebibyte, 2), held), response)
  }
  const files = { TLS_CERT_FILE: join(mount, 'tls.crt'), TLS_KEY_FILE: join(mount, 'tls.key') }
  const { router, upstream } = await behindTls(slow, files)
  const pulled = ask(router.url, 'GET', blob)
  const pushed = ask(router.url, 'PATCH', upload, Readable.from(heldAfterFirst(noise(4 * mebibyte, 3), held)))
  await until('both to be in flight', () => upstream.requests.some(({ bytes }) => bytes > 0) && upstream.requests[1])
  assert.equal(await certificateAt(router), 'first')
  assert.equal(await expiryAt(router), expiryOf(first))

  // cert-manager writes the certificate first, then the key.
  put('2', { cert: second.cert, key: first.key })
  await router.child.line(
    /"message":"the new certificate cannot be used, the old one stays","cause":"[A-Z_ a-z]* do not fit each other"/,
  )
  assert.equal(await certificateAt(router), 'first')
  put('3', second)
  await router.child.line(/"message":"new certificate"/)
  assert.equal(await certificateAt(router), 'second')
  assert.equal(await expiryAt(router), expiryOf(second))
  put('4', { cert: 'junk', key: second.key })
  await router.child.line(/"cause":"must hold certificates in PEM"/)
  assert.equal(await certificateAt(router), 'second')

  release()
  assert.equal((await pulled).digest, await digestOfStream(noise(4 * mebibyte, 2)))
  assert.equal((await pushed).status, 202)
  const patch = upstream.requests.find(({ method }) => method === 'PATCH')
  assert.deepEqual([patch?.bytes, patch?.complete], [4 * mebibyte, true])
  const warnings = router.log().filter(({ message }) => /certificate cannot/.test(`${message}`))
  assert.equal(warnings.length, 2)
  assert.ok(!/PRIVATE|BEGIN/.test(router.child.lines.join()))
  assert.deepEqual(router.odd(), [])
  assert.equal((await ask(router.url, 'GET', '/livez')).status, 200)
  assert.equal(await router.stop(), 0)
})

test('a certificate renewed during draining does not open the port again', async () => {
  const pair = { TLS_CERT_FILE: join(folder, 'draining.crt'), TLS_KEY_FILE: join(folder, 'draining.key') }
  const put = ({ cert, key }: Certificate) => {
    writeFileSync(pair.TLS_CERT_FILE, cert)
    writeFileSync(pair.TLS_KEY_FILE, key)
  }
  put(first)
  let release = () => {}
  const held = new Promise<void>((resolve) => {
    release = resolve
  })
  const slow: Script = async (_, response) => {
    response.writeHead(200, { 'Content-Length': 4 * mebibyte })
    await pipeline(heldAfterFirst(noise(4 * mebibyte, 2), held), response)
  }
  const { router, upstream } = await behindTls(slow, pair)
  const pulled = ask(router.url, 'GET', blob)
  await until('the pull to be in flight', () => upstream.requests.length > 0)
  const stopped = router.stop()
  await router.child.line(/"message":"draining"/)
  put(second)
  await router.child.line(/"message":"new certificate"/)
  await assert.rejects(certificateAt(router), { code: 'ECONNREFUSED' })
  release()
  assert.equal((await pulled).digest, await digestOfStream(noise(4 * mebibyte, 2)))
  assert.equal(await stopped, 0)
})

test('with a certificate, AGGREGATE_HOSTNAME without a scheme is https; a scheme that is given stays', async () => {
  for (const [name, scheme] of [
    ['registry.example', 'https'],
    ['http://registry.example', 'http'],
  ] as const) {
    const { router, upstream } = await behindTls(answer(200), { AGGREGATE_HOSTNAME: name })
    await send(router.url, 'GET', '/v2/a/tags/list')
    const { headers } = upstream.requests[0] ?? {}
    assert.deepEqual([headers?.['x-forwarded-proto'], headers?.['x-forwarded-host']], [scheme, 'registry.example'])
    await router.stop()
  }
})

test('with a certificate, the address for a login is https, whatever AGGREGATE_HOSTNAME says', async () => {
  const users = join(folder, 'users')
  writeFileSync(users, `ann:${hashSync('canary', 4)}\n`)
  const env = { AGGREGATE_HOSTNAME: 'http://registry.example', HTPASSWD_FILE: users, ANONYMOUS_PULL: 'true' }
  const { router } = await behindTls(answer(200), env)
  const { headers } = await send(router.url, 'GET', '/v2/')
  assert.match(`${headers['www-authenticate']}`, /^Bearer realm="https:/)
  await router.stop()
})

test('--healthcheck uses TLS, also while the files hold the next certificate', async () => {
  const files = { TLS_CERT_FILE: join(folder, 'live.pem'), TLS_KEY_FILE: join(folder, 'live.key') }
  writeFileSync(files.TLS_CERT_FILE, first.cert)
  writeFileSync(files.TLS_KEY_FILE, first.key)
  const { router } = await behindTls(answer(200), files)
  const env = { ...files, AGGREGATE_HOSTNAME: 'registry.example', HOSTED_HOSTNAME: 'x', PROXY_HOSTNAME: 'x' }
  const [HOST, PORT] = router.host.split(':')
  const healthcheck = () => run([...ways[way], '--healthcheck'], { cwd: root, env: { ...env, HOST, PORT } })
  await healthcheck()
  writeFileSync(files.TLS_CERT_FILE, second.cert)
  await healthcheck()
  await router.stop()
  await assert.rejects(healthcheck())
})

test('files that cannot be used stop the start with one line for each fault, and nothing of the key', async () => {
  const wrong: [Record<string, string>, RegExp[]][] = [
    [{ TLS_CERT_FILE: first.certFile }, [/TLS_CERT_FILE and TLS_KEY_FILE need each other$/]],
    [{ TLS_KEY_FILE: first.keyFile }, [/TLS_CERT_FILE and TLS_KEY_FILE need each other$/]],
    [
      { TLS_CERT_FILE: '/nowhere', TLS_KEY_FILE: first.certFile, CA_FILE: first.keyFile },
      [
        /TLS_CERT_FILE cannot be read: ENOENT$/,
        /TLS_KEY_FILE must hold a private key/,
        /CA_FILE must hold certificates/,
      ],
    ],
    [
      { TLS_CERT_FILE: first.certFile, TLS_KEY_FILE: second.keyFile },
      [/TLS_CERT_FILE and TLS_KEY_FILE do not fit each other$/],
    ],
  ]
  const hosts = { AGGREGATE_HOSTNAME: 'registry.example', HOSTED_HOSTNAME: 'x', PROXY_HOSTNAME: 'x', PORT: '0' }
  for (const [env, faults] of wrong) {
    const child = start([...ways[way]], { cwd: root, env: { ...hosts, ...env } })
    const listens = child.line(/"listening"/).then(
      () => 'it listens',
      () => child.ended,
    )
    assert.equal(await Promise.race([child.ended, listens]), 1)
    const { lines } = child
    assert.equal(lines.length, faults.length, lines.join('\n'))
    for (const [i, fault] of faults.entries()) assert.match(lines[i] ?? '', fault)
  }
})
