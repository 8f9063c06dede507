/**
 * Transfers that break, stall or are refused midway, and malformed requests: the client learns the truth, and nothing
 * partial looks complete. Upstreams are scripted, on real sockets. WAY selects the runtime.
 */
import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { Readable } from 'node:stream'
import { after, test } from 'node:test'
import { type Between, between, closeAll, inFlight } from './parts/between.ts'
import { answerOf, digestOf, download, noise, open, send, throttled } from './parts/client.ts'
import { way } from './parts/router.ts'
import { answer, type Script } from './parts/scripted.ts'
import { until } from './parts/until.ts'

after(closeAll)

const blob = `/v2/a/blobs/${digestOf('x')}`
const upload = '/v2/a/blobs/uploads/1'
const hasManifest = answer(200, {}, '{"schemaVersion":2}')

/** Every combination of the registry that breaks, the framing, the bytes sent before (of 100,000), and the break. */
for (const who of ['proxy', 'hosted'] as const) {
  for (const framing of ['sized', 'chunked'] as const) {
    for (const bytes of [0, 1, 50_000, 99_999]) {
      for (const how of ['closed', 'reset'] as const) {
        test(`${who}: connection ${how} after ${bytes} bytes of a ${framing} layer: the client sees a broken transfer`, async () => {
          const half: Script = (_, response) => {
            const end = () => (how === 'reset' ? response.socket?.resetAndDestroy() : response.socket?.destroy())
            response.writeHead(200, framing === 'sized' ? { 'Content-Length': 100_000 } : {})
            response.flushHeaders()
            if (bytes === 0) setImmediate(end)
            else response.write(Buffer.alloc(bytes), () => end())
          }
          const broken = who === 'proxy' ? await sharedRouter(half, answer(404)) : await sharedRouter(answer(404), half)
          await assert.rejects(async () => {
            const { status } = await download(broken.url, blob)
            // If the response header was lost too, the router can still answer 502.
            if (status === 502) throw new Error('502')
          })
        })
      }
    }
  }
}

/**
 * One router for all tests without settings of their own: each sets the scripts of its upstreams. The two requests at
 * the start succeed, so that no earlier failure counts for the breaker.
 */
let shared: Between | undefined
let scripts: [Script, Script]
async function sharedRouter(proxy: Script, hosted: Script) {
  scripts = [hasManifest, hasManifest]
  shared ??= await between(
    (...args) => scripts[0](...args),
    (...args) => scripts[1](...args),
  )
  await send(shared.url, 'GET', '/v2/calm/tags/list')
  await send(shared.url, 'GET', '/v2/calm/manifests/calm')
  scripts = [proxy, hosted]
  return shared
}

test('a registry answers with an invalid status code (600): 502, for reads and writes', async () => {
  const router = await between(answer(600), answer(600))
  for (const [method, path] of [
    ['GET', '/v2/a/manifests/1'],
    ['GET', '/v2/a/tags/list'],
    ['PUT', '/v2/a/manifests/1'],
  ] as const) {
    const { status, json } = await send(router.url, method, path)
    assert.deepEqual([status, json().errors[0].code], [502, 'UNAVAILABLE'], `${method} ${path}`)
  }
  await router.close()
})

test('a 304 may have the Content-Length of the body it does not send', async () => {
  const unchanged = answer(304, { 'Content-Length': 76, ETag: '"x"' })
  const router = await between(answer(404), unchanged)
  for (let i = 0; i < 4; i++) {
    const { status } = await send(router.url, 'GET', '/v2/a/manifests/1', { headers: { 'If-None-Match': '"x"' } })
    assert.equal(status, 304)
  }
  router.now.hosted = hasManifest
  assert.equal((await send(router.url, 'GET', '/v2/a/manifests/1')).status, 200)
  await router.close()
})

test('HEAD answered without Content-Length: the client gets no Content-Length, not 0', async () => {
  const router = await between(answer(404), (_, response) =>
    response
      .writeHead(200, { 'Transfer-Encoding': 'chunked', 'Content-Type': 'application/vnd.oci.image.manifest.v1+json' })
      .end(),
  )
  const { status, headers } = await send(router.url, 'HEAD', '/v2/a/manifests/1')
  assert.deepEqual([status, headers['content-length']], [200, undefined])
  await router.close()
})

test('manifests that are pushed are buffered up to 32 MiB in all, as they come; a further one is streamed', async () => {
  const { url, hosted, close } = await between(answer(404), answer(401))
  const mebibyte = 1024 * 1024
  const put = (bytes: number, sent: number) => {
    const request = open(url, 'PUT', '/v2/a/manifests/1', { 'Content-Length': bytes })
    request.on('error', () => {}).write(Buffer.alloc(sent, ' '))
    return request
  }
  // All but the last byte of each; what is only promised takes no room.
  const buffered = Array.from({ length: 8 }, () => put(4 * mebibyte, 4 * mebibyte - 1))
  await until('all to be under way', async () => (await inFlight(url)) === 8)
  assert.equal(hosted.requests.length, 0)
  // Whichever of them is read last finds no room.
  const further = put(mebibyte, mebibyte - 1)
  await until('hosted to be asked', () => hosted.requests.some(({ bytes }) => bytes > 0))
  for (const request of [...buffered, further]) request.destroy()
  await until('all to be over', async () => (await inFlight(url)) === 0)
  await close()
})

test('an answer that arrives slowly but steadily is delivered whole', async () => {
  const trickle: Script = (_, response) => {
    response.writeHead(200, { 'Content-Length': 20 })
    let remainingBytes = 20
    const timer = setInterval(() => {
      response.write('x')
      remainingBytes--
      if (remainingBytes === 0) clearInterval(timer)
    }, 100)
  }
  const { url, close } = await between(answer(404), trickle, { HOSTED_TIMEOUT: '1', IDLE_TIMEOUT: '1' })
  assert.equal((await download(url, blob)).bytes, 20)
  await close()
})

test('upload pauses and a slow answer, both longer than every read timeout: the upload succeeds', async () => {
  const answersLate: Script = (request, response) => {
    request.resume().on('end', () => setTimeout(() => response.writeHead(201).end(), 600))
  }
  const timeouts = { HOSTED_TIMEOUT: '0.1', PROXY_TIMEOUT: '0.1', IDLE_TIMEOUT: '0.51' }
  const { url, hosted, close } = await between(answer(404), answersLate, timeouts)
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

for (const [framing, fields, closesAfter] of [
  ['with Content-Length and Connection: close', { 'Content-Length': 20_000_000, Connection: 'close' }, false],
  ['with Content-Length, then closed', { 'Content-Length': 20_000_000 }, true],
  ['without Content-Length', { Connection: 'close' }, false],
] as const) {
  test(`a registry ends the connection after a layer (${framing}) while the client still reads: the client gets all of it`, async () => {
    const layer: Script = ({ socket }, response) => {
      response.useChunkedEncodingByDefault = false
      response.writeHead(200, fields).end(Buffer.alloc(20_000_000, 'z'), () => closesAfter && socket.end())
    }
    const { url, close } = await between(answer(404), layer)
    const request = open(url, 'GET', blob).end()
    let bytes = 0
    for await (const chunk of throttled(await answerOf(request), 5)) bytes += chunk.length
    assert.equal(bytes, 20_000_000)
    await close()
  })

  test(`a registry resets the connection in the middle of a layer (${framing}): the client sees a broken transfer`, async () => {
    let reset: (() => void) | undefined
    // Without Content-Length, send no more than the router reads: otherwise the kernel reports an end, not the reset.
    const bytes = 'Content-Length' in fields ? 19_000_000 : 50_000
    const half: Script = ({ socket }, response) => {
      response.useChunkedEncodingByDefault = false
      response.writeHead(200, fields).write(Buffer.alloc(bytes, 'z'))
      let lastLength = 0
      // Reset once the router stops reading: its client does not read, or there are no more bytes.
      const poll = setInterval(() => {
        if (socket.writableLength === lastLength) reset = () => socket.resetAndDestroy()
        lastLength = socket.writableLength
      }, 50)
      socket.once('close', () => clearInterval(poll))
    }
    const { url, close } = await between(answer(404), half)
    const reply = await answerOf(open(url, 'GET', blob).end())
    ;(await until('the router to take no more', () => reset))()
    await assert.rejects(reply.resume().toArray())
    await close()
  })
}

// On Bun a reset sometimes arrives as a plain end.
if (way === 'node') {
  test('HTTP/1.0 has no chunks: half an answer without Content-Length ends in a reset, not in a clean end', async () => {
    const breaks: Script = (_, response) => {
      response.writeHead(200, { 'Transfer-Encoding': 'chunked' })
      response.write('hello', () => response.destroy())
    }
    const { url, close } = await between(answer(404), breaks)
    const { hostname, port } = new URL(url)
    const ended = () =>
      new Promise((resolve) => {
        const socket = connect(Number(port), hostname, () => socket.write(`GET ${blob} HTTP/1.0\r\n\r\n`))
        socket.resume().once('end', () => resolve('end'))
        socket.once('error', ({ code }: NodeJS.ErrnoException) => resolve(code))
      })
    // Node, the client here, sometimes reports a reset as an end if bytes arrive with it: repeat until it does not.
    await until('a reset', async () => (await ended()) === 'ECONNRESET')
    await close()
  })
}

test('a client leaves with a second request pipelined on its connection: the first ends upstream, the second never begins', async () => {
  const script: Script = (_, response) => {
    response.writeHead(200, { 'Content-Length': 100_000_000 }).write(Buffer.alloc(8_000_000))
  }
  const { url, hosted, close } = await between(answer(404), script, { HOSTED_NAMES: '**' })
  const { hostname, port } = new URL(url)
  const head = (path: string) => `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`
  const client = connect(Number(port), hostname, () => client.write(head(blob) + head('/v2/b/manifests/second')))
  await until('the first to be asked', () => hosted.requests.length === 1)
  client.destroy()
  await until('its connection to be free', () => hosted.sockets.size === 0)
  await until('both to be over', async () => (await inFlight(url)) === 0)
  assert.equal(hosted.requests.length, 1)
  await close()
})

test('a client pipelines requests without waiting for answers: one at a time starts, and with over 100 waiting the connection is closed', async () => {
  const { url, hosted, close } = await between(answer(404), () => {}, { HOSTED_NAMES: '**', HOSTED_TIMEOUT: '300' })
  const { hostname, port } = new URL(url)
  const requests = Array.from({ length: 1000 }, (_, i) => `GET /v2/a/manifests/${i} HTTP/1.1\r\nHost: x\r\n\r\n`)
  const client = connect(Number(port), hostname, () => client.write(requests.join('')))
  client.on('error', () => {}).resume()
  await until('the connection to end', () => client.closed)
  await until('the registry to be free', async () => (await inFlight(url)) === 0)
  assert.ok(hosted.requests.length <= 1, `${hosted.requests.length} began`)
  await close()
})

test('IDLE_TIMEOUT ends a stalled pull and frees the upstream', async () => {
  const stalls: Script = (_, response) => {
    response.writeHead(200, { 'Content-Length': 100 })
    response.write('half')
  }
  const { url, hosted, close } = await between(answer(404), stalls, { IDLE_TIMEOUT: '0.3' })
  await assert.rejects(download(url, blob))
  await until('the upstream to be free', () => hosted.sockets.size === 0)
  await close()
})

test('IDLE_TIMEOUT ends a client that sends half a request header, or does not read its answer', async () => {
  const body = 'x'.repeat(1_000_000)
  const type = 'application/vnd.oci.image.manifest.v1+json'
  const large = answer(200, { 'Content-Type': type, 'Content-Length': body.length }, body)
  const { url, close } = await between(answer(404), large, { IDLE_TIMEOUT: '0.5' })
  const { hostname, port } = new URL(url)
  const sendText = (text: string) => {
    const socket = connect(Number(port), hostname, () => socket.write(text))
    return socket.on('error', () => {})
  }
  const half = sendText('GET /v2/ HTTP/1.1\r\nHo')
  half.resume()
  await until('half a head to be given up', () => half.destroyed)
  const request = `GET /v2/a/manifests/${digestOf(body)} HTTP/1.1\r\nHost: x\r\nAccept: ${type}\r\n\r\n`
  const notReading = sendText(request.repeat(20)).pause()
  await until('its requests to be there', async () => (await inFlight(url)) > 0)
  await until('its requests to be over', async () => (await inFlight(url)) === 0)
  notReading.destroy()
  await close()
})

test('IDLE_TIMEOUT ends a stalled upload, and hosted sees an incomplete request', async () => {
  const { url, hosted, close } = await between(answer(404), (request) => request.resume(), { IDLE_TIMEOUT: '0.3' })
  const request = open(url, 'PATCH', upload, { 'Content-Length': 100 })
  const answered = answerOf(request)
  request.write('half')
  await assert.rejects(answered)
  await until('the upstream to be free', () => hosted.sockets.size === 0)
  assert.equal(hosted.requests[0]?.complete, false)
  await close()
})

for (const status of [401, 413, 507]) {
  for (const framing of ['sized', 'chunked']) {
    test(`hosted refuses a ${framing} upload with ${status} while the client still sends: the client gets that answer`, async () => {
      const early: Script = (request, response) => {
        const fields = { 'Content-Type': 'application/json', 'WWW-Authenticate': 'Basic realm="x"' }
        request.once('data', () => {
          response.writeHead(status, fields).end('{"errors":[{"code":"DENIED"}]}')
          request.resume()
        })
      }
      const { url } = await sharedRouter(answer(404), early)
      const headers = framing === 'sized' ? { 'Content-Length': 32 * 1024 * 1024 } : {}
      const reply = await send(url, 'PATCH', upload, { headers, body: noise(32 * 1024 * 1024, 1) })
      assert.deepEqual([reply.status, reply.json().errors[0].code], [status, 'DENIED'])
      assert.equal((await send(url, 'GET', '/livez')).status, 200)
    })
  }
}

test('a refused upload: the router still reads what the client sends, so that the answer is not lost', async () => {
  const early: Script = (request, response) => {
    request.once('data', () => response.writeHead(413, { 'Content-Length': 2 }).end('no')).resume()
  }
  const { url, router } = await sharedRouter(answer(404), early)
  const [hostname, port] = router.host.split(':')
  const socket = connect(Number(port), hostname)
  let received = ''
  let errorMessage = ''
  socket.on('data', (chunk) => {
    received += chunk
  })
  socket.on('error', ({ message }) => {
    errorMessage = message
  })
  socket.write(`PUT ${upload} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\nfirst`)
  await until('the answer', () => received.includes('no'))
  for (let i = 0; i < 20; i++) {
    await new Promise((resolve) => socket.write(Buffer.alloc(1000), resolve))
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  assert.equal(errorMessage, '')
  socket.destroy()
  assert.equal((await send(url, 'GET', '/livez')).status, 200)
})

test('hosted resets an upload while the client sends: 502 in JSON or a broken connection, and the router survives', async () => {
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

test('an upstream closes idle connections just as a request starts: requests without a body are sent again, bodies never', async () => {
  // Each connection serves one request, stays open, and breaks on the second request.
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

/** A label, the bytes of a request, and the status codes a server may answer (0: it closes the connection). */
const smuggled: [string, string, number[]][] = [
  [
    'Content-Length and Transfer-Encoding',
    'POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    [0, 400],
  ],
  [
    'two Content-Lengths',
    'POST /v2/a/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n12345',
    [0, 400],
  ],
  [
    'a bad chunk size',
    'PATCH /v2/a/blobs/uploads/1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n',
    [0, 400],
  ],
  [
    'a negative Content-Length',
    'PATCH /v2/a/blobs/uploads/1 HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n',
    [0, 400],
  ],
  ['a space before a colon', 'GET /v2/ HTTP/1.1\r\nHost : x\r\n\r\n', [0, 400]],
  ['a NUL in a header', 'GET /v2/ HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n', [0, 400]],
  ['100 KB of header', `GET /v2/ HTTP/1.1\r\nHost: x\r\nX: ${'a'.repeat(100_000)}\r\n\r\n`, [0, 400, 413, 431, 503]],
  ['a foreign Host', 'GET /v2/_catalog HTTP/1.1\r\nHost: evil.example:99\r\nConnection: close\r\n\r\n', [200]],
  ['an absolute target', 'GET http://evil.example/v2/_catalog HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n', [200]],
]
for (const [what, bytes, statuses] of smuggled) {
  test(`${what}: refused or harmless, and no upstream sees a request outside the route table`, async () => {
    const { url, router, hosted } = await sharedRouter(answer(200), answer(200))
    hosted.requests.length = 0
    const [hostname, port] = router.host.split(':')
    const socket = connect(Number(port), hostname)
    let received = ''
    socket.on('data', (chunk) => {
      received += chunk
      if (/^HTTP\/1\.1 \d+/.test(received)) socket.end()
    })
    socket.on('error', () => {})
    socket.write(bytes)
    await new Promise((resolve) => socket.once('close', resolve))
    const status = Number(/^HTTP\/1\.1 (\d+)/.exec(received)?.[1] ?? 0)
    assert.ok(statuses.includes(status), `${status}`)
    for (const { target, complete, method } of hosted.requests) {
      assert.match(target, /^\/v2\//)
      assert.ok(!complete || method === 'GET', 'a smuggled body looked whole')
    }
    assert.equal((await send(url, 'GET', '/livez')).status, 200)
  })
}
