/** The app as a plain `(Request) => Response`: web servers around it, the web's own fetch beneath it, web streams both ways. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import http from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import type { Writable } from 'node:stream'
import { after, test } from 'node:test'
import { serve } from '@hono/node-server'
import { type Config, readConfig } from '../src/config.ts'
import { createFetch } from '../src/runtime/fetch.ts'
import { listen } from '../src/runtime/listen.ts'
import type { Fetch } from '../src/runtime/runtime.ts'
import { createService } from '../src/service.ts'
import { until } from './parts/until.ts'

const mebibyte = 1024 * 1024
const layerBytes = 256 * mebibyte
const block = Buffer.alloc(mebibyte, 'layer')
const hash = createHash('sha256')
for (let sent = 0; sent < layerBytes; sent += block.length) hash.update(block)
const digest = `sha256:${hash.digest('hex')}`

const closing: (() => unknown)[] = []
after(async () => {
  for (const close of closing.reverse()) await close()
})

/** Settles when the chunk has left, or its connection is gone. */
const write = (to: Writable, chunk: Buffer) => new Promise((resolve) => to.write(chunk, resolve))

/** A registry that has one layer, and takes one. */
async function startRegistry() {
  const taken: string[] = []
  const server = http.createServer(async (request, response) => {
    if (request.method === 'GET') {
      response.writeHead(200, { 'Content-Length': layerBytes })
      for (let sent = 0; sent < layerBytes && !response.destroyed; sent += block.length) await write(response, block)
      response.end()
      return
    }
    const received = createHash('sha256')
    for await (const chunk of request) received.update(chunk)
    taken.push(`sha256:${received.digest('hex')}`)
    response.writeHead(201, { 'Content-Length': 0 }).end()
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  closing.push(
    () => server.closeAllConnections(),
    () => server.close(),
  )
  return { host: `127.0.0.1:${(server.address() as AddressInfo).port}`, taken }
}

const webFetch: Fetch = (url, { method, headers, body, signal }) =>
  fetch(url, {
    method,
    headers,
    body: body as RequestInit['body'],
    signal,
    redirect: 'manual',
    duplex: 'half',
  } as RequestInit)

type Handle = (request: Request) => Response | Promise<Response>
interface WebServer {
  port: number
}
const { Bun, Deno } = globalThis as unknown as {
  Bun?: { serve: (options: object) => WebServer & { stop: (now: boolean) => void } }
  Deno?: { serve: (options: object, handle: Handle) => { addr: WebServer; shutdown: () => Promise<void> } }
}

/** Serves an app the way its runtime's users would; gives its address. */
async function serveWeb(handle: Handle): Promise<string> {
  if (Bun) {
    const server = Bun.serve({
      hostname: '127.0.0.1',
      port: 0,
      fetch: handle,
      maxRequestBodySize: 1e12,
      idleTimeout: 0,
    })
    closing.push(() => server.stop(true))
    return `http://127.0.0.1:${server.port}`
  }
  if (Deno) {
    const server = Deno.serve({ hostname: '127.0.0.1', port: 0, onListen: () => {} }, handle)
    closing.push(() => server.shutdown())
    return `http://127.0.0.1:${server.addr.port}`
  }
  const server = serve({ fetch: handle, hostname: '127.0.0.1', port: 0 })
  await once(server, 'listening')
  closing.push(() => server.close())
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

function appOf(host: string, fetch: Fetch): Handle {
  const environment = { AGGREGATE_HOSTNAME: 'registry.example', HOSTED_HOSTNAME: host, PROXY_HOSTNAME: host }
  const config = readConfig(environment) as Config
  const service = createService(config, {
    fetch,
    now: () => performance.now(),
    log: () => {},
    version: '0',
    runtime: 'x',
  })
  return (request) => service.handle(request)
}

/** Sends a whole layer; with a length only if `isSized`. */
async function push(url: string, isSized: boolean): Promise<number> {
  const headers = isSized ? { 'Content-Length': layerBytes } : {}
  const request = http.request(`${url}/v2/team/app/blobs/uploads/1?digest=${digest}`, { method: 'PUT', headers })
  const answered = once(request, 'response')
  for (let sent = 0; sent < layerBytes; sent += block.length) await write(request, block)
  request.end()
  const [response] = (await answered) as [http.IncomingMessage]
  response.resume()
  return response.statusCode ?? 0
}

async function pull(url: string): Promise<string> {
  const [response] = (await once(http.get(`${url}/v2/team/app/blobs/${digest}`), 'response')) as [http.IncomingMessage]
  const received = createHash('sha256')
  for await (const chunk of response) received.update(chunk)
  return `sha256:${received.digest('hex')}`
}

const ownFetch = await createFetch(undefined, 10_000)
const beneath: Record<string, Fetch> = { "the web's own fetch": webFetch, "the router's own fetch": ownFetch }
for (const [name, fetch] of Object.entries(beneath)) {
  test(`a web server around the app, ${name} beneath: 256 MiB pass both ways, with and without a length`, async () => {
    const registry = await startRegistry()
    const url = await serveWeb(appOf(registry.host, fetch))
    assert.equal(await pull(url), digest)
    assert.equal(await push(url, true), 201)
    assert.equal(await push(url, false), 201)
    assert.deepEqual(registry.taken, [digest, digest])
  })
}

/** The router's own server around any app. */
async function serveOwn(handle: Handle): Promise<string> {
  const server = await listen(handle, { port: 0, host: '127.0.0.1', idleTimeout: 10 })
  closing.push(
    () => server.stop(),
    () => server.cut(),
  )
  return `http://127.0.0.1:${server.port}`
}

/** A stream of a layer that is not the router's own, and how much of it was asked for. */
function plainStream(breaksAfter = Number.POSITIVE_INFINITY) {
  const seen = { bytes: 0, isCancelled: false }
  const stream = new ReadableStream<Uint8Array>({
    pull: (controller) => {
      if (seen.bytes >= breaksAfter) return controller.error(new Error('broken'))
      if (seen.bytes >= layerBytes) return controller.close()
      seen.bytes += block.length
      controller.enqueue(block)
    },
    cancel: () => {
      seen.isCancelled = true
    },
  })
  return { stream, seen }
}

test("the router's server around the app, the web's own fetch beneath: 256 MiB pass both ways", async () => {
  const registry = await startRegistry()
  const url = await serveOwn(appOf(registry.host, webFetch))
  assert.equal(await pull(url), digest)
  assert.equal(await push(url, true), 201)
  assert.deepEqual(registry.taken, [digest])
})

test("the router's server sends any stream whole", async () => {
  const url = await serveOwn(() => new Response(plainStream().stream))
  assert.equal(await pull(url), digest)
})

test('a stream that breaks is a broken answer, never a short one', async () => {
  const url = await serveOwn(() => new Response(plainStream(8 * mebibyte).stream))
  await assert.rejects(pull(url))
})

test('a client that does not read holds the stream back; when it leaves, the stream is cancelled', async () => {
  const { stream, seen } = plainStream()
  const url = await serveOwn(() => new Response(stream))
  const client = connect(Number(new URL(url).port), '127.0.0.1')
  client.pause()
  client.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
  const looks = { bytes: 0, unchanged: 0 }
  await until('the stream to stand still', () => {
    looks.unchanged = seen.bytes > 0 && seen.bytes === looks.bytes ? looks.unchanged + 1 : 0
    looks.bytes = seen.bytes
    return looks.unchanged === 20
  })
  assert.ok(seen.bytes < 64 * mebibyte, `${seen.bytes} bytes were asked for`)
  client.destroy()
  await until('the stream to be cancelled', () => seen.isCancelled)
})
