/** What a stranger's few bytes may cost, and what is refused before it can do harm. WAY selects the runtime. */
import assert from 'node:assert/strict'
import { connect, type Socket } from 'node:net'
import { after, before, test } from 'node:test'
import { connect as connectTls } from 'node:tls'
import { between, closeAll, inFlight } from './parts/between.ts'
import { temporaryFolder } from './parts/children.ts'
import { digestOf, send, trusted } from './parts/client.ts'
import { way } from './parts/router.ts'
import { schemes, type Tls, tlsIn } from './parts/schemes.ts'
import { answer, type Script } from './parts/scripted.ts'
import { until } from './parts/until.ts'

let tls: Tls
before(async () => {
  tls = await tlsIn(temporaryFolder())
})
after(closeAll)

const mebibyte = 1024 * 1024

/** Opens a connection and sends these bytes; `text` is what has come back. */
function raw(url: string, bytes: string): { socket: Socket; text: () => string } {
  const { protocol, hostname, port } = new URL(url)
  const begin = () => socket.write(bytes)
  let text = ''
  const to = { port: Number(port), host: hostname }
  const socket: Socket = protocol === 'https:' ? connectTls({ ...to, ...trusted }, begin) : connect(to, begin)
  socket
    .on('error', () => {})
    .on('data', (chunk) => {
      text += chunk
    })
  return { socket, text: () => text }
}
const statuses = (text: string) => [...text.matchAll(/^HTTP\/1\.1 (\d+)/gm)].map(([, status]) => Number(status))

for (const scheme of schemes) {
  test(`${scheme}: 8 connections pipeline 100 reads of a large manifest each, and read nothing: under 300 MiB, and others are served`, async (t) => {
    const large = JSON.stringify({ schemaVersion: 2, annotations: { a: 'x'.repeat(mebibyte) } })
    const type = 'application/vnd.oci.image.manifest.v1+json'
    const hosted: Script = (request, ...rest) => {
      const body = request.url?.includes('/large/') ? large : '{"schemaVersion":2}'
      answer(200, { 'Content-Type': type, 'Content-Length': body.length }, body)(request, ...rest)
    }
    const router = await between(answer(404), hosted, {}, scheme === 'https' ? tls : undefined)
    const greedy = Array.from({ length: 8 }, (_, client) => {
      const requests = Array.from(
        { length: 100 },
        (_, i) => `GET /v2/large/manifests/1?n=${client}.${i} HTTP/1.1\r\nHost: x\r\n\r\n`,
      )
      const { socket } = raw(router.url, requests.join(''))
      socket.pause()
      return socket
    })
    const asked = () => router.hosted.requests.filter(({ target }) => target.includes('/large/')).length
    await until('each to be served', () => asked() >= 8)
    for (let i = 0; i < 20; i++) {
      assert.equal((await send(router.url, 'GET', `/v2/small/manifests/${i}`)).status, 200)
    }
    assert.ok(asked() < 80, `${asked()} of 800 were begun`)
    const peak = router.router.peakMemory() ?? 0
    t.diagnostic(`${way}: peak memory ${peak} MiB`)
    assert.ok(peak < 300, `${peak} MiB`)
    for (const socket of greedy) socket.destroy()
    await router.close()
  })
}

test('what is pipelined is answered in order, one after the other', async () => {
  const router = await between(answer(404), (request, ...rest) => answer(200, {}, request.url)(request, ...rest))
  const requests = [1, 2, 3, 4, 5].map((i) => `GET /v2/${i}/tags/list HTTP/1.1\r\nHost: x\r\n\r\n`)
  const { socket, text } = raw(router.url, requests.join(''))
  const bodies = () => [...text().matchAll(/\/v2\/(\d)\/tags\/list/g)].map(([, i]) => i)
  await until('all answers, whole', () => bodies().length === 5)
  assert.deepEqual(bodies(), ['1', '2', '3', '4', '5'])
  assert.deepEqual(statuses(text()), [200, 200, 200, 200, 200])
  socket.destroy()
  await router.close()
})

test('nothing is begun after an answer that closes the connection', async () => {
  const router = await between(answer(404), answer(400, {}, 'no'))
  const put = 'PUT /v2/a/manifests/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}'
  const { socket, text } = raw(router.url, `${put}DELETE /v2/a/manifests/1 HTTP/1.1\r\nHost: x\r\n\r\n`)
  await until('the connection to close', () => socket.closed)
  assert.deepEqual(statuses(text()), [400])
  assert.deepEqual(
    router.hosted.requests.map(({ method }) => method),
    ['PUT'],
  )
  await router.close()
})

const post = 'POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\n'
/** A head that two servers could read differently, and the status codes it may get. */
const ambiguous: [string, string, number[]][] = [
  ['two equal Content-Lengths', `${post}Content-Length: 5\r\nContent-Length: 5\r\n\r\n12345`, [400]],
  ['two Content-Lengths in one field', `${post}Content-Length: 5, 5\r\n\r\n12345`, [400]],
  ['two Host fields', 'GET /v2/_catalog HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n', [400]],
  ['two equal Host fields', 'GET /v2/_catalog HTTP/1.1\r\nHost: x\r\nhost: x\r\n\r\n', [400]],
  ['a coding besides chunked', `${post}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n`, [501]],
  [
    'a coding in two fields',
    `${post}Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
    [400, 501],
  ],
  [
    'HTTP/1.0 with Transfer-Encoding',
    'POST /v2/a/blobs/uploads/ HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    [400],
  ],
  [
    '2,000 fields before those that matter',
    `${post}${'a: b\r\n'.repeat(2000)}Authorization: x\r\nContent-Length: 5\r\n\r\n12345`,
    [431],
  ],
  ['1,100 fields', `GET /v2/_catalog HTTP/1.1\r\nHost: x\r\n${'a: b\r\n'.repeat(1100)}\r\n`, [431]],
]
for (const [what, bytes, wanted] of ambiguous) {
  test(`${what}: refused, no registry is asked, and the connection closes`, async () => {
    const router = await between(answer(200), answer(202))
    const { socket, text } = raw(router.url, bytes)
    await until('the connection to close', () => socket.closed)
    assert.equal(statuses(text()).length, 1, text())
    assert.ok(wanted.includes(statuses(text())[0] as number), text())
    assert.deepEqual(router.hosted.requests, [])
    assert.equal((await send(router.url, 'GET', '/v2/_catalog')).status, 202)
    await router.close()
  })
}

test('eight strangers that promise a manifest and send one byte take no room: a push on a public base is still completed', async () => {
  const layer = Buffer.from('base')
  const digest = digestOf(layer)
  const body = JSON.stringify({ schemaVersion: 2, layers: [{ digest, size: layer.length }] })
  const stored = new Set<string>()
  const hosted: Script = (request, ...rest) => {
    const { method = '', url = '' } = request
    if (url.includes('/uploads/') && method === 'PUT') stored.add(digest)
    const lacks = answer(404, {}, '{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}')
    const script =
      method === 'POST'
        ? answer(202, { Location: '/v2/a/blobs/uploads/1' })
        : url.includes('/uploads/')
          ? answer(201)
          : stored.has(digest)
            ? answer(201)
            : lacks
    script(request, ...rest)
  }
  const router = await between(answer(200, { 'Content-Length': layer.length }, 'base'), hosted)
  const head = 'PUT /v2/a/manifests/x HTTP/1.1\r\nHost: x\r\nContent-Length: 4194304\r\n\r\n{'
  const silent = Array.from({ length: 8 }, () => raw(router.url, head).socket)
  await until('the strangers to be there', async () => (await inFlight(router.url)) === 8)
  assert.equal((await send(router.url, 'PUT', '/v2/a/manifests/1', { body })).status, 201)
  for (const socket of silent) socket.destroy()
  await router.close()
})

test('a delete whose client leaves: what is read in between is not kept', async () => {
  const manifest = '{"schemaVersion":2}'
  const digest = digestOf(manifest)
  const type = 'application/vnd.oci.image.manifest.v1+json'
  const state = { isThere: true, commit: () => {} }
  const hosted: Script = (request, response, ...rest) => {
    if (request.method !== 'DELETE') {
      const found = answer(200, { 'Content-Type': type, 'Content-Length': manifest.length }, manifest)
      return (state.isThere ? found : answer(404))(request, response, ...rest)
    }
    state.commit = () => {
      state.isThere = false
      response.writeHead(202).end()
    }
  }
  const router = await between(answer(404), hosted)
  const path = `/v2/a/manifests/${digest}`
  const get = () => send(router.url, 'GET', path, { headers: { Accept: type } })
  const { socket } = raw(router.url, `DELETE ${path} HTTP/1.1\r\nHost: x\r\n\r\n`)
  await until('the delete to be asked', () => router.hosted.requests.some(({ method }) => method === 'DELETE'))
  socket.destroy()
  await until('the client to be gone', () => socket.closed)
  assert.equal((await get()).status, 200)
  state.commit()
  await until('the deleted manifest to be gone', async () => (await get()).status === 404)
  await router.close()
})

test('a web page of another site cannot write; its own page, and clients that are no browsers, can', async () => {
  const router = await between(answer(404), answer(202), { TRUSTED_ORIGINS: 'https://ci.example' })
  const own = `http://${router.router.host}`
  for (const [headers, wanted] of [
    [{}, 202],
    [{ Origin: 'https://evil.example' }, 403],
    [{ Origin: 'null' }, 403],
    [{ Origin: own }, 202],
    [{ Origin: 'http://registry.example' }, 202],
    [{ Origin: 'https://ci.example', 'Sec-Fetch-Site': 'cross-site' }, 202],
    [{ 'Sec-Fetch-Site': 'cross-site' }, 403],
    [{ 'Sec-Fetch-Site': 'same-site', Origin: own }, 403],
    [{ 'Sec-Fetch-Site': 'same-origin', Origin: 'https://evil.example' }, 202],
    [{ 'Sec-Fetch-Site': 'none' }, 202],
  ] as const) {
    for (const method of ['POST', 'PUT', 'PATCH', 'DELETE']) {
      const path = method === 'POST' ? '/v2/a/blobs/uploads/' : '/v2/a/blobs/uploads/1'
      router.hosted.requests.length = 0
      const { status } = await send(router.url, method, path, { headers })
      assert.deepEqual(
        [status, router.hosted.requests.length],
        [wanted, wanted === 202 ? 1 : 0],
        `${method} ${JSON.stringify(headers)}`,
      )
    }
    assert.equal((await send(router.url, 'GET', '/v2/_catalog', { headers })).status, 202)
  }
  await router.close()
})
