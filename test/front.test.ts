/** The reverse proxies of docs/operating.md in front of the router: nothing is too large, buffered or cut short. */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { after, before, test } from 'node:test'
import { hashSync } from 'bcryptjs'
import { between, closeAll } from './parts/between.ts'
import { type Certificate, certify } from './parts/certificates.ts'
import { type Child, onPath, temporaryFolder } from './parts/children.ts'
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
import { startNginx, startServer } from './parts/nginx.ts'
import { program } from './parts/packages.ts'
import { freePort } from './parts/registries.ts'
import { root } from './parts/router.ts'
import { answer, type Script } from './parts/scripted.ts'
import { until } from './parts/until.ts'

if (!(await program(['nginx'], 'nginx', console.error)) && process.env.CI === 'true')
  throw new Error('nginx is missing')

const mebibyte = 2 ** 20
const blob = `/v2/a/blobs/${digestOf('x')}`
const upload = '/v2/a/blobs/uploads/1'
let folder: string
let certificate: Certificate
const running: Child[] = []

before(async () => {
  folder = temporaryFolder()
  const authority = await certify(folder, 'authority')
  certificate = await certify(folder, 'front', 'DNS:registry.example,IP:127.0.0.1', authority)
  trusted.ca = authority.cert
})
after(async () => {
  for (const child of running) await child.stop()
  await closeAll()
})

/** A reverse proxy that the manual has a configuration for. */
interface Front {
  name: string
  /** Texts in the manual's configuration, and what this test puts in their place. */
  changes: (port: number) => [from: string, to: string][]
  start: (config: string, url: string) => Promise<Child>
}

/** Starts a program with its configuration in a file. */
function startWith(command: string[], config: string, url: string): Promise<Child> {
  const file = join(folder, `${command[0]}-${new URL(url).port}`)
  writeFileSync(file, config)
  return startServer([...command, file], url, { HOME: folder })
}

const fronts: Front[] = [
  {
    name: 'nginx',
    changes: (port) => [
      ['443', `127.0.0.1:${port}`],
      ['/etc/nginx/tls.crt', certificate.certFile],
      ['/etc/nginx/tls.key', certificate.keyFile],
    ],
    // One process, so that no worker outlives the test.
    start: (config, url) => startNginx(folder, url, 'master_process off;', config),
  },
  {
    name: 'haproxy',
    changes: (port) => {
      const both = join(folder, 'both.pem')
      writeFileSync(both, certificate.cert + certificate.key)
      return [
        [':443', `127.0.0.1:${port}`],
        ['/etc/haproxy/registry.pem', both],
      ]
    },
    start: (config, url) => startWith(['haproxy', '-db', '-f'], config, url),
  },
  {
    name: 'caddy',
    changes: (port) => [
      ['registry.example {', `{\n admin off\n auto_https disable_redirects\n}\nhttps://127.0.0.1:${port} {`],
      ['/etc/caddy/tls.crt', certificate.certFile],
      ['/etc/caddy/tls.key', certificate.keyFile],
    ],
    start: (config, url) => startWith(['caddy', 'run', '--adapter', 'caddyfile', '--config'], config, url),
  },
]

/** Starts a reverse proxy with the manual's configuration and this test's addresses and files; returns its URL. */
async function inFront({ name, changes, start }: Front, routerHost: string): Promise<string> {
  const [, block = ''] =
    new RegExp(`\`\`\`${name}\n(.*?)\`\`\``, 's').exec(readFileSync(join(root, 'docs/operating.md'), 'utf8')) ?? []
  const port = await freePort()
  const config = [...changes(port), ['10.0.0.4:5000', routerHost] as const].reduce((text, [from, to]) => {
    assert.equal(text.split(from).length, 2, `the manual's ${name} has ${from} once`)
    return text.replace(from, to)
  }, block)
  const url = `https://127.0.0.1:${port}`
  running.push(await start(config, url))
  return url
}

for (const front of fronts) {
  if (front.name !== 'nginx' && !(await onPath(front.name))) {
    console.error(`${front.name.toUpperCase()} IS MISSING: the manual's configuration of it is not run`)
    continue
  }
  test(`${front.name}: a layer of 64 MiB goes up and comes down whole`, async () => {
    const bytes = 64 * mebibyte
    const digest = await digestOfStream(noise(bytes, 1))
    const sends: Script = (_, response) => {
      response.writeHead(200, { 'Content-Length': bytes })
      pipeline(noise(bytes, 1), response).catch(() => {})
    }
    const hosted: Script = (request, ...rest) => (request.method === 'GET' ? sends : answer(202))(request, ...rest)
    const router = await between(answer(404), hosted)
    const url = await inFront(front, router.router.host)
    const patched = await send(url, 'PATCH', upload, { body: noise(bytes, 1) })
    assert.equal(patched.status, 202)
    assert.equal(router.hosted.requests.find(({ method }) => method === 'PATCH')?.bytes, bytes)
    assert.equal((await download(url, blob)).digest, digest)
    await router.close()
  })

  test(`${front.name}: nothing is buffered: the first bytes arrive before the last are sent, both ways`, async () => {
    let release = () => {}
    const held = new Promise<void>((resolve) => {
      release = resolve
    })
    const half: Script = (request, response, recorded) => {
      if (request.method !== 'GET') return answer(202)(request, response, recorded)
      response.writeHead(200, { 'Content-Length': 4 * mebibyte })
      pipeline(heldAfterFirst(noise(4 * mebibyte, 2), held), response).catch(() => {})
    }
    const router = await between(answer(404), half)
    const url = await inFront(front, router.router.host)
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

  test(`${front.name}: only /v2/ gets through, with the client's address and https as the scheme`, async () => {
    const users = join(folder, 'users')
    writeFileSync(users, `ann:${hashSync('canary', 4)}\n`)
    const router = await between(answer(404), answer(404), { HTPASSWD_FILE: users, ANONYMOUS_PULL: 'true' })
    const url = await inFront(front, router.router.host)
    for (const path of ['/metrics', '/explain', '/']) assert.equal((await send(url, 'GET', path)).status, 404, path)
    const { headers } = await send(url, 'GET', '/v2/', { headers: { 'X-Forwarded-Proto': 'http' } })
    assert.match(headers['www-authenticate'] as string, /^Bearer realm="https:/)
    const longLogin = { Authorization: `Bearer ${'t'.repeat(14_000)}` }
    assert.equal((await send(url, 'GET', '/v2/', { headers: longLogin })).status, 401, 'a token of 14 KB')
    await send(url, 'GET', '/v2/a/manifests/1')
    assert.equal(router.proxy.requests.at(-1)?.headers['x-forwarded-for'], '127.0.0.1, 127.0.0.1')
    await router.close()
  })
}
