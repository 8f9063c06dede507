/** What many connections of one client may take from others: descriptors, and the places of copies. WAY selects the runtime. */
import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { after, before, test } from 'node:test'
import { connect as connectTls } from 'node:tls'
import { type Between, between, closeAll } from './parts/between.ts'
import { run, temporaryFolder } from './parts/children.ts'
import { digestOf, send, trusted } from './parts/client.ts'
import { probe } from './parts/prober.ts'
import { way } from './parts/router.ts'
import { type schemes, type Tls, tlsIn } from './parts/schemes.ts'
import { answer, type Script } from './parts/scripted.ts'
import { until } from './parts/until.ts'

let tls: Tls
before(async () => {
  tls = await tlsIn(temporaryFolder())
})
after(closeAll)

const mebibyte = 1024 * 1024
const digest = digestOf('a layer')
const openFiles = ({ router }: Between) => readdirSync(`/proc/${router.pid}/fd`).length
const limitFiles = ({ router }: Between, files: number) => run(['prlimit', `--pid=${router.pid}`, `--nofile=${files}:`])
/** A new connection each time: one that is kept open is among the first to go. */
const headers = { Connection: 'close' }
const metricsOf = async ({ url }: Between) => (await send(url, 'GET', '/metrics', { headers })).body.toString()

/** Connects from this address and sends these bytes, but reads nothing. */
function greedy(url: string, localAddress: string, bytes: string): Socket {
  const { protocol, port } = new URL(url)
  const begin = () => socket.write(bytes)
  const to = { port: Number(port), host: '127.0.0.1', localAddress }
  const socket: Socket = protocol === 'https:' ? connectTls({ ...to, ...trusted }, begin) : connect(to, begin)
  return socket.on('error', () => {}).pause()
}

/** Hosted has a manifest for everybody, and a layer that never comes whole. */
const neverWhole: Script = (request, ...rest) => {
  if (!request.url?.includes('/blobs/')) return answer(200, {}, '{"schemaVersion":2}')(request, ...rest)
  const [response] = rest
  response.writeHead(200, { 'Content-Length': mebibyte }).write('begun')
}

interface Crowd {
  where: string
  scheme: (typeof schemes)[number]
  /** Of each of the 12 clients: its own, or that of a balancer. */
  addressOf: (client: number) => string
  /** How many connections each client opens, and how many files the router may open. */
  each: number
  files: number
  /** How many of their requests may have begun when all have come. */
  begun: number
}
const ownAddress = (client: number) => `127.0.1.${client + 1}`
const balancer = () => '127.0.0.1'
const crowds: Crowd[] = [
  { where: 'from an address each', scheme: 'http', addressOf: ownAddress, each: 100, files: 1024, begun: 800 },
  {
    where: 'from the address of everybody else',
    scheme: 'http',
    addressOf: balancer,
    each: 10,
    files: 200,
    begun: 120,
  },
  { where: 'from an address each', scheme: 'https', addressOf: ownAddress, each: 60, files: 620, begun: 720 },
]

for (const { where, scheme, addressOf, each, files, begun } of crowds) {
  test(`${scheme}: 12 clients ${where} open ${each} connections each, ask for layers and read nothing: others are served`, async (t) => {
    const environment = { OPEN_FILES: `${files}:${files}` }
    const router = await between(answer(404), neverWhole, environment, scheme === 'https' ? tls : undefined)
    const bytes = `GET /v2/a/blobs/${digest} HTTP/1.1\r\nHost: x\r\n\r\n`
    const isOneAddress = addressOf(0) === addressOf(1)
    const ask = () => probe(`${router.url}/v2/b/manifests/{n}`, isOneAddress ? addressOf(0) : '127.0.2.1')
    // Of one address nobody can tell which of all that come at once are others: they are served once all have come.
    const meanwhile = isOneAddress ? undefined : await ask()
    const sockets = Array.from({ length: 12 * each }, (_, i) => greedy(router.url, addressOf(i % 12), bytes))
    const closed = async () => Number(/resource="connections"\} (\d+)/.exec(await metricsOf(router))?.[1] ?? 0)
    // A third of the descriptors is for clients.
    await until('all to have come', async () => (await closed()) > 12 * each - files / 3)
    const count = router.hosted.requests.filter(({ target }) => target.includes('/blobs/')).length
    assert.ok(count <= begun, `${count} have begun`)
    const slowest = await (meanwhile ?? (await ask()))()
    t.diagnostic(`${way}: slowest ${slowest} ms, ${count} have begun, ${openFiles(router)} of ${files} files are open`)
    assert.ok(slowest < 10_000, `${slowest} ms`)
    const metrics = await metricsOf(router)
    for (const name of ['proxy', 'hosted']) {
      assert.match(metrics, new RegExp(`^registry_router_upstream_up\\{upstream="${name}"\\} 1$`, 'm'))
      assert.match(metrics, new RegExp(`^registry_router_upstream_skipped\\{upstream="${name}"\\} 0$`, 'm'))
    }
    assert.equal(router.router.log().filter(({ resource }) => resource === 'connections').length, 1)
    for (const socket of sockets) socket.destroy()
    await router.close()
  })
}

test('no descriptor is free for a registry: 503 with Retry-After, no breaker opens, and the log says what ran out', async () => {
  const router = await between(answer(404), answer(200, {}, '{"schemaVersion":2}'))
  const get = (i: number) => send(router.url, 'GET', `/v2/a/manifests/${i}`)
  // One connection of a client stays open, and those to registries close.
  assert.equal((await get(0)).status, 200)
  for (const { sockets } of [router.proxy, router.hosted]) for (const socket of sockets) socket.destroy()
  await limitFiles(router, 1)
  for (let i = 1; i < 5; i++) {
    const { status, headers, json } = await get(i)
    assert.deepEqual([status, headers['retry-after'], json().errors[0].code], [503, '1', 'UNAVAILABLE'])
  }
  await limitFiles(router, 1000)
  assert.equal((await get(5)).status, 200)
  const metrics = await metricsOf(router)
  for (const name of ['proxy', 'hosted']) {
    assert.match(metrics, new RegExp(`^registry_router_upstream_up\\{upstream="${name}"\\} 1$`, 'm'))
    assert.match(metrics, new RegExp(`^registry_router_upstream_skipped\\{upstream="${name}"\\} 0$`, 'm'))
  }
  assert.match(metrics, /^registry_router_shortages_total\{resource="files"\} [1-9]/m)
  assert.equal(router.router.log().filter(({ resource }) => resource === 'files').length, 1)
  // Deno prints of itself that it cannot read the usual certificates.
  await router.close(way === 'deno')
})

/** A hosted registry that lacks all, and takes a manifest once it has its layer. */
function hostedFor(layer: string): Script {
  let isStored = false
  const refusal = answer(404, {}, '{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN"}]}')
  return (request, ...rest) => {
    const { method, url = '' } = request
    if (method === 'PUT' && url.includes(layer)) isStored = true
    const isTaken = method === 'PUT' && (url.includes('/uploads/') || isStored)
    const script = isTaken
      ? answer(201)
      : method === 'POST'
        ? answer(202, { Location: `${url.replace(/\?.*/, '')}1` })
        : method === 'PUT'
          ? refusal
          : answer(404)
    script(request, ...rest)
  }
}

const leaving: [string, string, boolean][] = [
  ['from the same address, and leave', '127.0.0.1', true],
  ['from another address, and stay', '127.0.1.1', false],
]
for (const [where, localAddress, leaves] of leaving) {
  test(`20 clients mount a slow layer each ${where}: a push is completed all the same, at once`, async (t) => {
    const layer = Buffer.from('base')
    const wanted = digestOf(layer)
    const cache: Script = (request, response, ...rest) => {
      if (request.url?.includes(wanted)) return answer(200, { 'Content-Length': 4 }, 'base')(request, response, ...rest)
      // Of a slow layer only a part comes.
      response.writeHead(200, { 'Content-Length': mebibyte }).write(Buffer.alloc(mebibyte / 4))
    }
    const router = await between(cache, hostedFor(wanted))
    const mount = (i: number) =>
      `POST /v2/a/blobs/uploads/?mount=${digestOf(`${i}`)}&from=library/base HTTP/1.1\r\nHost: x\r\n\r\n`
    const sockets = Array.from({ length: 20 }, (_, i) => greedy(router.url, localAddress, mount(i)))
    await until('slow copies', () => router.proxy.requests.length >= 8)
    if (leaves) for (const socket of sockets) socket.destroy()
    const begun = performance.now()
    const body = JSON.stringify({ schemaVersion: 2, layers: [{ digest: wanted, size: layer.length }] })
    assert.equal((await send(router.url, 'PUT', '/v2/a/manifests/1', { body })).status, 201)
    const milliseconds = performance.now() - begun
    t.diagnostic(`${way}: ${Math.round(milliseconds)} ms`)
    // A client waits 20 s for a copy.
    assert.ok(milliseconds < 10_000, `${milliseconds} ms`)
    for (const socket of sockets) socket.destroy()
    await router.close()
  })
}

test('a manifest whose end does not come is a 408, soon enough to be heard', async () => {
  const router = await between(answer(404), answer(201), { IDLE_TIMEOUT: '1' })
  const { port } = new URL(router.url)
  const socket = connect(Number(port), '127.0.0.1')
  let text = ''
  socket.on('data', (chunk) => {
    text += chunk
  })
  socket.on('error', () => {})
  socket.write('PUT /v2/a/manifests/x HTTP/1.1\r\nHost: x\r\nContent-Length: 4194304\r\n\r\n{')
  await until('the connection to close', () => socket.closed)
  assert.match(text, /^HTTP\/1\.1 408 .*"UNSUPPORTED".*did not come in time/s)
  assert.deepEqual(router.hosted.requests, [])
  await router.close()
})
