/** HTTPS_PROXY, HTTP_PROXY and NO_PROXY: how public registries are reached. WAY selects the runtime. */
import assert from 'node:assert/strict'
import net from 'node:net'
import { after, test } from 'node:test'
import tls from 'node:tls'
import { closeAll } from './parts/between.ts'
import { type Certificate, certify } from './parts/certificates.ts'
import { temporaryFolder } from './parts/children.ts'
import { answerOf, digestOf, open, send } from './parts/client.ts'
import { startRouter, way } from './parts/router.ts'
import { answer, type Script, scripted } from './parts/scripted.ts'

after(closeAll)

const manifest = '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[]}'
const found = answer(200, { 'Content-Length': manifest.length }, manifest)
const absent = answer(404)

/** A forward proxy that leads each host to a port of this machine; with a certificate it speaks https. */
async function forwardProxy(ports: Record<string, number>, certificate?: Certificate) {
  const asked: string[] = []
  const sockets = new Set<net.Socket>()
  /** Bytes from the registries so far. */
  const passed = { bytes: 0 }
  const serve = (client: net.Socket) => {
    sockets.add(client)
    client.on('error', () => {})
    client.once('data', (head) => {
      const [, target = ''] = /^CONNECT (\S+) HTTP\/1.1\r\n/.exec(`${head}`) ?? []
      asked.push(target)
      const port = ports[target.replace(/:\d+$/, '')]
      if (!port) return client.end('HTTP/1.1 502 Bad Gateway\r\n\r\n')
      const upstream = net.connect(port, '127.0.0.1', () => {
        client.write('HTTP/1.1 200 OK\r\n\r\n')
        client.pipe(upstream)
        upstream.on('data', ({ length }) => {
          passed.bytes += length
        })
        upstream.pipe(client)
      })
      sockets.add(upstream)
      upstream.on('error', () => client.destroy())
      client.on('close', () => upstream.destroy())
    })
  }
  const server = certificate ? tls.createServer(certificate, serve) : net.createServer(serve)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const host = `127.0.0.1:${(server.address() as net.AddressInfo).port}`
  const close = () => {
    for (const socket of sockets) socket.destroy()
    return new Promise((resolve) => server.close(resolve))
  }
  return { host, asked, passed, close }
}

const portOf = ({ host }: { host: string }) => Number(host.split(':')[1])

test('public registries are asked through the forward proxy, over http and https; hosted never is', async () => {
  const folder = temporaryFolder()
  const authority = await certify(folder, 'authority')
  const certificate = await certify(folder, 'ghcr', 'DNS:ghcr.example', authority)
  const ghcr = await scripted(found, certificate)
  const hub = await scripted(found)
  const hosted = await scripted(absent)
  const proxy = await forwardProxy({ 'ghcr.example': portOf(ghcr), 'hub.example': portOf(hub) })
  const router = await startRouter(way, {
    HOSTED_HOSTNAME: hosted.host,
    PROXY_HOSTNAME: 'http://hub.example',
    PROXIES: 'ghcr.io=https://ghcr.example',
    CA_FILE: authority.certFile,
    // Many write it without a scheme, and with a password.
    HTTPS_PROXY: `user:canary-of-forwarder@${proxy.host}`,
    HTTP_PROXY: `http://${proxy.host}`,
    NO_PROXY: '',
    // Deno itself would ask through it for a newer version.
    DENO_NO_UPDATE_CHECK: '1',
  })
  assert.equal((await send(router.url, 'GET', '/v2/ghcr.io/org/app/manifests/1')).status, 200)
  assert.equal((await send(router.url, 'GET', '/v2/library/app/manifests/1')).status, 200)
  assert.equal((await send(router.url, 'HEAD', `/v2/a/blobs/${digestOf('x')}`)).status, 404)
  assert.equal(hosted.requests.filter(({ target }) => target !== '/v2/').length, 1)
  assert.deepEqual([...new Set(proxy.asked)].sort(), ['ghcr.example:443', 'hub.example:80'])
  assert.ok(router.log().some(({ through }) => through === proxy.host))
  await proxy.close()
  assert.equal((await send(router.url, 'GET', '/v2/ghcr.io/org/app/manifests/2')).status, 502)
  assert.deepEqual(router.odd(), [])
  await router.stop()
  for (const one of [ghcr, hub, hosted]) await one.close()
})

/** Who has a certificate of an authority that is not trusted here. */
const strangers = ['nobody', 'the registry', 'the forward proxy'] as const
for (const stranger of strangers) {
  test(`both speak https, and even with NODE_TLS_REJECT_UNAUTHORIZED=0 a wrong certificate is failed: of ${stranger}`, async () => {
    const folder = temporaryFolder()
    const [trusted, other] = [await certify(folder, 'authority'), await certify(folder, 'other')]
    const issuerOf = (who: (typeof strangers)[number]) => (who === stranger ? other : trusted)
    const ghcr = await scripted(found, await certify(folder, 'ghcr', 'DNS:ghcr.example', issuerOf('the registry')))
    const own = await certify(folder, 'forward', 'IP:127.0.0.1', issuerOf('the forward proxy'))
    const proxy = await forwardProxy({ 'ghcr.example': portOf(ghcr) }, own)
    const router = await startRouter(way, {
      HOSTED_HOSTNAME: '127.0.0.1:1',
      PROXY_HOSTNAME: 'https://ghcr.example',
      CA_FILE: trusted.certFile,
      HTTPS_PROXY: `https://${proxy.host}`,
      NO_PROXY: '',
      NODE_TLS_REJECT_UNAUTHORIZED: '0',
    })
    const wanted = {
      nobody: [200, true, true],
      'the registry': [502, false, true],
      'the forward proxy': [502, false, false],
    }
    const { status } = await send(router.url, 'GET', '/v2/library/app/manifests/1')
    assert.deepEqual([status, ghcr.requests.length > 0, proxy.asked.length > 0], wanted[stranger])
    await router.stop()
    await proxy.close()
    await ghcr.close()
  })
}

test('NO_PROXY: a public registry that it lists is asked directly', async () => {
  const hub = await scripted(found)
  const proxy = await forwardProxy({})
  const router = await startRouter(way, {
    HOSTED_HOSTNAME: '127.0.0.1:1',
    PROXY_HOSTNAME: hub.host,
    HTTP_PROXY: `http://${proxy.host}`,
    NO_PROXY: 'example.com,127.0.0.1',
  })
  assert.equal((await send(router.url, 'GET', '/v2/library/app/manifests/1')).status, 200)
  assert.deepEqual(proxy.asked, [])
  await router.stop()
  await proxy.close()
  await hub.close()
})

test('a realm is asked through it too; a redirect to an address of this machine is not followed', async () => {
  const token = answer(200, {}, '{"token":"x"}')
  const realm = await scripted(token)
  const metadata = await scripted(found)
  const ghcr: Script = (request, ...rest) => {
    if (request.headers.authorization !== 'Bearer x')
      return answer(401, { 'WWW-Authenticate': 'Bearer realm="http://realm.example/token"' })(request, ...rest)
    const location = `http://${metadata.host}/v2/a/manifests/1`
    answer(307, { Location: location })(request, ...rest)
  }
  const registry = await scripted(ghcr)
  const proxy = await forwardProxy({
    'ghcr.example': portOf(registry),
    'realm.example': portOf(realm),
    '127.0.0.1': portOf(metadata),
  })
  const router = await startRouter(way, {
    HOSTED_HOSTNAME: '127.0.0.1:1',
    PROXY_HOSTNAME: 'http://ghcr.example',
    HTTP_PROXY: proxy.host,
    NO_PROXY: '',
  })
  assert.equal((await send(router.url, 'GET', '/v2/library/app/manifests/1')).status, 502)
  assert.deepEqual(
    proxy.asked.filter((one) => one.startsWith('realm.')),
    ['realm.example:80'],
  )
  assert.equal(realm.requests.length, 1)
  assert.equal(metadata.requests.length, 0)
  await router.stop()
  await proxy.close()
  for (const one of [realm, metadata, registry]) await one.close()
})

test('a fast registry behind it is held back for a slow client', async () => {
  const bytes = 64 * 1024 * 1024
  const layer: Script = (_, response) => {
    response.writeHead(200, { 'Content-Length': bytes })
    const chunk = Buffer.alloc(1024 * 1024)
    let left = bytes / chunk.length
    const write = () => {
      while (left-- > 0) if (!response.write(chunk)) return response.once('drain', write)
      response.end()
    }
    write()
  }
  const hub = await scripted(layer)
  const proxy = await forwardProxy({ 'hub.example': portOf(hub) })
  const router = await startRouter(way, {
    HOSTED_HOSTNAME: '127.0.0.1:1',
    PROXY_HOSTNAME: 'http://hub.example',
    HTTP_PROXY: proxy.host,
    NO_PROXY: '',
  })
  const request = open(router.url, 'GET', `/v2/library/app/blobs/${digestOf('x')}`)
  request.end()
  const reading = await answerOf(request)
  reading.pause()
  let before = -1
  // Until nothing moves any more.
  while (before !== proxy.passed.bytes) {
    before = proxy.passed.bytes
    await new Promise((resolve) => setTimeout(resolve, 500))
  }
  assert.ok(proxy.passed.bytes < bytes / 2, `${proxy.passed.bytes} bytes came while nobody read`)
  let came = 0
  for await (const chunk of reading) came += chunk.length
  assert.equal(came, bytes)
  await router.stop()
  await proxy.close()
  await hub.close()
})

test('a forward proxy that is no address is a fault at the start, and no password of it is repeated', async () => {
  const env = { HOSTED_HOSTNAME: 'b', PROXY_HOSTNAME: 'c', HTTPS_PROXY: 'socks9://canary:1' }
  await assert.rejects(startRouter(way, env), (error: Error) => {
    assert.match(error.message, /HTTPS_PROXY must be the address of a forward proxy/)
    return !error.message.includes('canary')
  })
})
