/** nginx in front of the router, as docs/operating.md has it: nothing is too large, held back or cut short there. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { after, before, test } from 'node:test'
import { between, closeAll } from './parts/between.ts'
import { type Certificate, certify } from './parts/certificates.ts'
import { type Child, temporaryFolder, until } from './parts/children.ts'
import {
  answerOf,
  digestOf,
  digestOfStream,
  download,
  heldAfterFirst,
  noise,
  open,
  send,
  trusted,
} from './parts/client.ts'
import { startNginx } from './parts/nginx.ts'
import { program } from './parts/packages.ts'
import { freePort } from './parts/registries.ts'
import { root, type Way } from './parts/router.ts'
import { answer, type Script } from './parts/scripted.ts'

const way = (process.env.WAY ?? 'node') as Way
const nginx = await program(['nginx'], 'nginx', (line) => console.error(line))
if (!nginx && process.env.CI === 'true') throw new Error('nginx is missing')
const needsNginx = { skip: nginx ? false : 'NGINX IS MISSING: install it to run this test' }

const mebibyte = 2 ** 20
const blob = `/v2/a/blobs/${digestOf('x')}`
const upload = '/v2/a/blobs/uploads/1'
let folder: string
let certificate: Certificate
const fronts: Child[] = []

before(async () => {
  folder = temporaryFolder()
  const authority = await certify(folder, 'authority')
  certificate = await certify(folder, 'front', 'DNS:registry.example,IP:127.0.0.1', authority)
  trusted.ca = authority.cert
})
after(async () => {
  for (const child of fronts) await child.stop()
  await closeAll()
})

/** The manual's server, with the addresses and files of this test; its address. */
async function inFront(of: string): Promise<string> {
  const [, block = ''] = /```nginx\n(.*?)```/s.exec(readFileSync(join(root, 'docs/operating.md'), 'utf8')) ?? []
  const port = await freePort()
  const changes: [from: string, to: string][] = [
    ['443', `127.0.0.1:${port}`],
    ['/etc/nginx/tls.crt', certificate.certFile],
    ['/etc/nginx/tls.key', certificate.keyFile],
    ['10.0.0.4:5000', of],
  ]
  const server = changes.reduce((text, [from, to]) => {
    assert.equal(text.split(from).length, 2, `the manual's server has ${from} once`)
    return text.replace(from, to)
  }, block)
  const url = `https://127.0.0.1:${port}`
  // One process, so that nothing outlives the test.
  fronts.push(await startNginx(folder, url, 'master_process off;', server))
  return url
}

test('a layer of 64 MiB goes up and comes down whole', needsNginx, async () => {
  const bytes = 64 * mebibyte
  const digest = await digestOfStream(noise(bytes, 1))
  const sends: Script = (_, response) => {
    response.writeHead(200, { 'Content-Length': bytes })
    pipeline(noise(bytes, 1), response).catch(() => {})
  }
  const hosted: Script = (request, ...rest) => (request.method === 'GET' ? sends : answer(202))(request, ...rest)
  const router = await between(way, answer(404), hosted)
  const url = await inFront(router.router.host)
  const patched = await send(url, 'PATCH', upload, { body: noise(bytes, 1) })
  assert.equal(patched.status, 202)
  assert.equal(router.hosted.requests.find(({ method }) => method === 'PATCH')?.bytes, bytes)
  assert.equal((await download(url, blob)).digest, digest)
  await router.close()
})

test('what is sent arrives while the rest is still to come, both ways', needsNginx, async () => {
  let release = () => {}
  const held = new Promise<void>((resolve) => {
    release = resolve
  })
  const half: Script = (request, response, recorded) => {
    if (request.method !== 'GET') return answer(202)(request, response, recorded)
    response.writeHead(200, { 'Content-Length': 4 * mebibyte })
    pipeline(heldAfterFirst(noise(4 * mebibyte, 2), held), response).catch(() => {})
  }
  const router = await between(way, answer(404), half)
  const url = await inFront(router.router.host)
  const patch = open(url, 'PATCH', upload)
  const patched = answerOf(patch)
  const sent = pipeline(heldAfterFirst(noise(4 * mebibyte, 3), held), patch)
  await until('the first bytes of the upload', () => router.hosted.requests.some(({ bytes }) => bytes > 0))
  const get = open(url, 'GET', blob)
  get.end()
  const pulled = await answerOf(get)
  const ended = new Promise((resolve) => pulled.once('end', resolve))
  await new Promise((resolve) => pulled.once('data', resolve))
  release()
  await sent
  assert.equal((await patched).statusCode, 202)
  await ended
  await router.close()
})
