/**
 * What breaks, stalls or is refused in the middle, and requests that pretend: the client learns the truth, and nothing
 * half looks whole, run one way (WAY=…). Scripted upstreams on real sockets.
 */
import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { Readable } from 'node:stream'
import { after, test } from 'node:test'
import { type Between, between, closeAll, inFlight } from './parts/between.ts'
import { until } from './parts/children.ts'
import { answerOf, digestOf, download, noise, open, send, sipped } from './parts/client.ts'
import { way } from './parts/router.ts'
import { answer, type Script } from './parts/scripted.ts'

/** A router of its own between these two. */
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

/** One router for all that need nothing of their own: its upstreams are told what to do for each. */
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

test('a status that is none: 502, whoever gives it to whatever', async () => {
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

test('a 304 may tell the length of what it does not send', async () => {
  const unchanged = answer(304, { 'Content-Length': 76, ETag: '"x"' })
  const router = await between(answer(404), unchanged)
  for (let i = 0; i < 4; i++) {
    const { status } = await send(router.url, 'GET', '/v2/a/manifests/1', { headers: { 'If-None-Match': '"x"' } })
    assert.equal(status, 304)
  }
  router.now.hosted = answer(200)
  assert.equal((await send(router.url, 'GET', '/v2/a/manifests/1')).status, 200)
  await router.close()
})

test('a HEAD that is answered without a length has none: it is not one of 0', async () => {
  const router = await between(answer(404), (_, response) =>
    response.writeHead(200, { 'Transfer-Encoding': 'chunked' }).end(),
  )
  const { status, headers } = await send(router.url, 'HEAD', '/v2/a/manifests/1')
  assert.deepEqual([status, headers['content-length']], [200, undefined])
  await router.close()
})

test('manifests that are put are held up to 32 MiB at a time; a further one streams', async () => {
  const { url, hosted, close } = await between(answer(404), answer(401))
  const put = (bytes: number) => {
    const request = open(url, 'PUT', '/v2/a/manifests/1', { 'Content-Length': bytes })
    request.on('error', () => {}).write('{')
    return request
  }
  const held = Array.from({ length: 8 }, () => put(4 * 1024 * 1024))
  await until('all to be under way', async () => (await inFlight(url)) === 8)
  assert.equal(hosted.requests.length, 0)
  const further = put(100)
  await until('hosted to be asked', () => hosted.requests[0]?.bytes === 1)
  for (const request of [...held, further]) request.destroy()
  await until('all to be over', async () => (await inFlight(url)) === 0)
  await close()
})

test('an answer that trickles comes whole, however slowly', async () => {
  const trickle: Script = (_, response) => {
    response.writeHead(200, { 'Content-Length': 20 })
    let left = 20
    const timer = setInterval(() => {
      response.write('x')
      left--
      if (left === 0) clearInterval(timer)
    }, 100)
  }
  const { url, close } = await between(answer(404), trickle, { HOSTED_TIMEOUT: '1', IDLE_TIMEOUT: '1' })
  assert.equal((await download(url, blob)).bytes, 20)
  await close()
})

test('an upload with pauses longer than every read timeout arrives whole; the registry may think as long', async () => {
  const thinks: Script = (request, response) => {
    request.resume().on('end', () => setTimeout(() => response.writeHead(201).end(), 600))
  }
  const timeouts = { HOSTED_TIMEOUT: '0.1', PROXY_TIMEOUT: '0.1', IDLE_TIMEOUT: '0.51' }
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

for (const [framing, fields, closes] of [
  ['sized, its last', { 'Content-Length': 20_000_000, Connection: 'close' }, false],
  ['sized, closed right after it', { 'Content-Length': 20_000_000 }, true],
  ['without a length', { Connection: 'close' }, false],
] as const) {
  test(`a registry that ends the connection of a layer (${framing}) while its client is slower: the client gets it whole`, async () => {
    const layer: Script = ({ socket }, response) => {
      response.useChunkedEncodingByDefault = false
      response.writeHead(200, fields).end(Buffer.alloc(20_000_000, 'z'), () => closes && socket.end())
    }
    const { url, close } = await between(answer(404), layer)
    const request = open(url, 'GET', blob).end()
    let bytes = 0
    for await (const chunk of sipped(await answerOf(request), 5)) bytes += chunk.length
    assert.equal(bytes, 20_000_000)
    await close()
  })

  test(`the same (${framing}), reset in the middle: the client sees a broken transfer, and all others go on`, async () => {
    let reset: (() => void) | undefined
    // Of one without a length that is more than the router takes, the kernel tells Node of an end, not of the reset.
    const bytes = 'Content-Length' in fields ? 19_000_000 : 50_000
    const half: Script = ({ socket }, response) => {
      response.useChunkedEncodingByDefault = false
      response.writeHead(200, fields).write(Buffer.alloc(bytes, 'z'))
      let before = 0
      // Once the router takes no more, since its client does not, or there is no more.
      const look = setInterval(() => {
        if (socket.writableLength === before) reset = () => socket.resetAndDestroy()
        before = socket.writableLength
      }, 50)
      socket.once('close', () => clearInterval(look))
    }
    const { url, close } = await between(answer(404), half)
    const reply = await answerOf(open(url, 'GET', blob).end())
    ;(await until('the router to take no more', () => reset))()
    await assert.rejects(reply.resume().toArray())
    await close()
  })
}

// Bun's reset is a plain end at times.
if (way === 'node') {
  test('to HTTP/1.0, which knows no chunks, half an answer without a length ends in a reset', async () => {
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
    // Node, the client here, tells of a reset as of an end at times, where the bytes before it come with it.
    await until('a reset', async () => (await ended()) === 'ECONNRESET')
    await close()
  })
}

test('a client that leaves while a second request waits its turn on its connection frees the registry of both', async () => {
  const layer = { 'Content-Length': 100_000_000 }
  const script: Script = ({ url }, response) => {
    if (url?.includes('/blobs/')) response.writeHead(200, layer).write(Buffer.alloc(8_000_000))
  }
  const { url, hosted, close } = await between(answer(404), script, { HOSTED_NAMES: '**', HOSTED_TIMEOUT: '0.5' })
  const { hostname, port } = new URL(url)
  const head = (path: string) => `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`
  const client = connect(Number(port), hostname, () => client.write(head('/v2/a/manifests/silent') + head(blob)))
  await until('both to be asked', () => hosted.requests.length === 2)
  client.destroy()
  await until('their connections to be free', () => hosted.sockets.size === 0)
  await close()
})

test('a client that sends requests without end, and waits for no answer, begins 100 of them, and loses the connection', async () => {
  const { url, hosted, close } = await between(answer(404), () => {}, { HOSTED_NAMES: '**', HOSTED_TIMEOUT: '300' })
  const { hostname, port } = new URL(url)
  const requests = Array.from({ length: 1000 }, (_, i) => `GET /v2/a/manifests/${i} HTTP/1.1\r\nHost: x\r\n\r\n`)
  const client = connect(Number(port), hostname, () => client.write(requests.join('')))
  client.on('error', () => {}).resume()
  await until('the connection to end', () => client.closed)
  await until('the registry to be free', async () => (await inFlight(url)) === 0)
  assert.ok(hosted.requests.length <= 100, `${hosted.requests.length} began`)
  await close()
})

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

test('IDLE_TIMEOUT ends a client that sends half a request head, or does not read an answer that is ready', async () => {
  const body = 'x'.repeat(1_000_000)
  const type = 'application/vnd.oci.image.manifest.v1+json'
  const large = answer(200, { 'Content-Type': type, 'Content-Length': body.length }, body)
  const { url, close } = await between(answer(404), large, { IDLE_TIMEOUT: '0.5' })
  const { hostname, port } = new URL(url)
  const sends = (text: string) => {
    const socket = connect(Number(port), hostname, () => socket.write(text))
    return socket.on('error', () => {})
  }
  const half = sends('GET /v2/ HTTP/1.1\r\nHo')
  half.resume()
  await until('half a head to be given up', () => half.destroyed)
  const request = `GET /v2/a/manifests/${digestOf(body)} HTTP/1.1\r\nHost: x\r\nAccept: ${type}\r\n\r\n`
  const deaf = sends(request.repeat(20)).pause()
  await until('its requests to be there', async () => (await inFlight(url)) > 0)
  await until('its requests to be over', async () => (await inFlight(url)) === 0)
  deaf.destroy()
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
      const { url } = await pair(answer(404), early)
      const headers = framing === 'sized' ? { 'Content-Length': 32 * 1024 * 1024 } : {}
      const reply = await send(url, 'PATCH', upload, { headers, body: noise(32 * 1024 * 1024, 1) })
      assert.deepEqual([reply.status, reply.json().errors[0].code], [status, 'DENIED'])
      assert.equal((await send(url, 'GET', '/livez')).status, 200)
    })
  }
}

test('a refused upload: the connection stays open to what the client still sends, and the answer is not lost', async () => {
  const early: Script = (request, response) => {
    request.once('data', () => response.writeHead(413, { 'Content-Length': 2 }).end('no')).resume()
  }
  const { url, router } = await pair(answer(404), early)
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
    const { url, router, hosted } = await pair(answer(200), answer(200))
    hosted.requests.length = 0
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
  })
}
