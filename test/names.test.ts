/** Which registry is asked: HOSTED_NAMES, PROXY_NAMES, LOOKUP_ORDER and `?ns=`. WAY selects the runtime. */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { type Between, between, closeAll } from './parts/between.ts'
import { digestOf, type Reply, send } from './parts/client.ts'
import { answer } from './parts/scripted.ts'

after(closeAll)

const digest = digestOf('x')
/** The first field is for HEAD, whose answer has no body that shows that a registry speaks. */
const absent = answer(
  404,
  { 'Docker-Distribution-Api-Version': 'registry/2.0', 'Content-Type': 'application/json' },
  '{"errors":[{"code":"MANIFEST_UNKNOWN"}]}',
)
/** A manifest, a tag list and a list of referrers in one. */
const anything = '{"schemaVersion":2,"tags":["1.0"],"manifests":[]}'
const found = answer(200, { 'Content-Length': anything.length }, anything)

/** The registries that were asked since the last call: proxy first, each once. */
function asked({ proxy, hosted }: Between): string {
  const who = [
    ['proxy', proxy.requests.splice(0).length],
    ['hosted', hosted.requests.splice(0).length],
  ]
  return who
    .filter(([, times]) => times)
    .map(([name]) => name)
    .join(' ')
}

const reads: [method: string, path: string][] = [
  ['GET', 'manifests/1.0'],
  ['HEAD', 'manifests/1.0'],
  ['GET', `manifests/${digest}`],
  ['HEAD', `manifests/${digest}`],
  ['GET', `blobs/${digest}`],
  ['HEAD', `blobs/${digest}`],
  ['GET', 'tags/list'],
  ['GET', `referrers/${digest}`],
]
const writes: [method: string, path: string][] = [
  ['PUT', 'manifests/1.0'],
  ['DELETE', `manifests/${digest}`],
  ['DELETE', `blobs/${digest}`],
  ['POST', 'blobs/uploads/'],
  ['POST', `blobs/uploads/?mount=${digest}&from=library/base`],
  ['POST', `blobs/uploads/?mount=${digest}&from=kanarie/base`],
  ['PATCH', 'blobs/uploads/1'],
  ['PUT', `blobs/uploads/1?digest=${digest}`],
]

test('a name in HOSTED_NAMES never reaches the proxy, in any request; a 404 says why', async () => {
  const router = await between(found, absent, { HOSTED_NAMES: 'kanarie/**' })
  for (const [method, path] of [...reads, ...writes]) {
    const reply = await send(router.url, method, `/v2/kanarie/app/${path}`)
    assert.equal(asked(router), 'hosted', `${method} ${path}`)
    assert.equal(reply.status, 404)
  }
  const reply = await send(router.url, 'GET', '/v2/kanarie/app/manifests/1.0')
  const [{ code, detail }] = reply.json().errors
  assert.equal(code, 'MANIFEST_UNKNOWN')
  assert.deepEqual(detail[1], { verdict: 'not asked', upstream: 'proxy', reason: 'HOSTED_NAMES claims this name' })
  asked(router)
  await send(router.url, 'GET', '/v2/kanarie/manifests/1.0')
  assert.equal(asked(router), 'proxy', 'kanarie itself is not within kanarie/**')
  await router.close()
})

test('a name outside PROXY_NAMES is read from hosted only; a 404 says why', async () => {
  const router = await between(found, absent, { PROXY_NAMES: 'library/*, mirror/**' })
  for (const [method, path] of reads) {
    await send(router.url, method, `/v2/team/app/${path}`)
    assert.equal(asked(router), 'hosted', `${method} ${path}`)
  }
  const reply = await send(router.url, 'GET', `/v2/team/app/blobs/${digest}`)
  assert.equal(reply.status, 404)
  assert.equal(reply.json().errors[0].detail[1].reason, 'PROXY_NAMES does not list this name')
  asked(router)
  for (const name of ['library/nginx', 'mirror/a/b']) {
    await send(router.url, 'GET', `/v2/${name}/manifests/1.0`)
    assert.equal(asked(router), 'proxy', name)
  }
  await router.close()
})

test('hosted fails for a name in HOSTED_NAMES: 502, and the proxy is not asked', async () => {
  const router = await between(found, answer(503), { HOSTED_NAMES: 'kanarie/**' })
  for (const path of ['manifests/1.0', `manifests/${digest}`, `blobs/${digest}`]) {
    assert.equal((await send(router.url, 'GET', `/v2/kanarie/app/${path}`)).status, 502)
    assert.equal(asked(router), 'hosted', path)
  }
  await router.close()
})

test("TAGS: hosted's tags only, or a lookup like a manifest's; for a name in HOSTED_NAMES always hosted's", async () => {
  const list = (url: string, name: string) => send(url, 'GET', `/v2/${name}/tags/list?n=2`)
  const plain = await between(found, absent)
  assert.deepEqual([(await list(plain.url, 'library/app')).status, asked(plain)], [404, 'hosted'])
  await plain.close()
  const router = await between(found, absent, { TAGS: 'lookup', HOSTED_NAMES: 'kanarie/**' })
  assert.deepEqual([(await list(router.url, 'library/app')).status, asked(router)], [200, 'proxy'])
  assert.deepEqual([(await list(router.url, 'kanarie/app')).status, asked(router)], [404, 'hosted'])
  Object.assign(router.now, { proxy: absent, hosted: found })
  assert.deepEqual([(await list(router.url, 'team/app')).status, asked(router)], [200, 'proxy hosted'])
  Object.assign(router.now, { proxy: answer(429), hosted: absent })
  assert.equal((await list(router.url, 'team/limited')).status, 429)
  await router.close()
})

test('hosted-first asks hosted, then the proxy if hosted lacks the manifest', async () => {
  const router = await between(found, absent, { LOOKUP_ORDER: 'hosted-first' })
  await send(router.url, 'GET', '/v2/team/app/manifests/1.0')
  assert.equal(asked(router), 'proxy hosted')
  router.now.hosted = found
  await send(router.url, 'GET', '/v2/team/app/manifests/1.0')
  assert.equal(asked(router), 'hosted')
  await router.close()
})

const messageOf = (reply: Reply) => reply.json().errors[0].message

test('?ns= of a public registry: every read asks the proxy only, every write is 405', async () => {
  const router = await between(found, found, { HOSTED_NAMES: 'kanarie/**', PROXY_NS: 'docker.io,ghcr.io' })
  const ns = async (method: string, path: string, value = 'docker.io') => {
    const reply = await send(router.url, method, `/v2/${path}${path.includes('?') ? '&' : '?'}ns=${value}`)
    return [reply, asked(router)] as const
  }
  for (const [method, path] of reads) {
    const [{ status }, who] = await ns(method, `library/app/${path}`)
    assert.deepEqual([status, who], [200, 'proxy'], `${method} ${path}`)
  }
  assert.equal((await ns('GET', 'library/app/manifests/1.0', 'ghcr%2Eio'))[1], 'proxy')
  assert.equal((await send(router.url, 'GET', '/v2/kanarie/app/manifests/1.0?%6Es=docker.io')).status, 404)
  assert.equal(asked(router), '', 'however it is written')
  for (const [method, path] of writes) {
    const [{ status, headers }, who] = await ns(method, `library/app/${path}`)
    assert.deepEqual([status, headers.allow, who], [405, 'GET, HEAD', ''], `${method} ${path}`)
  }
  const [unlisted, nobody] = await ns('GET', 'library/app/manifests/1.0', 'quay.io')
  assert.deepEqual(
    [unlisted.status, messageOf(unlisted), nobody],
    [404, 'this name is not looked for at quay.io: neither PROXIES nor PROXY_NS lists quay.io', ''],
  )
  const [claimed, neither] = await ns('GET', 'kanarie/app/manifests/1.0')
  assert.deepEqual([claimed.status, neither], [404, ''])
  assert.match(messageOf(claimed), /^this name is not looked for at docker\.io: HOSTED_NAMES claims this name$/)
  assert.equal((await ns('GET', ''))[1], 'proxy hosted', '/v2/ is about this router')
  assert.equal((await ns('GET', '_catalog'))[1], 'hosted', 'and so is the catalog')
  await router.close()
})

test('?ns= is only compared: the router never connects to an address in it', async () => {
  const router = await between(found, found)
  for (const value of [
    router.hosted.host,
    router.proxy.host,
    '127.0.0.1',
    'registry.example.evil',
    'docker.io&ns=evil',
  ]) {
    const { status } = await send(router.url, 'GET', `/v2/library/app/manifests/1.0?ns=${value}`)
    const listed = value.startsWith('docker.io') && !value.includes('evil')
    assert.equal(status, listed ? 200 : 404, value)
    assert.equal(asked(router), listed ? 'proxy' : '', value)
  }
  await router.close()
})

test("?ns= is empty or this router's own name, with its own port, port 80 or none: the usual lookup", async () => {
  const router = await between(absent, found, { AGGREGATE_HOSTNAME: 'registry.example:5000' })
  for (const port of [':5000', '%3A5000', ':80', '', undefined]) {
    const value = port === undefined ? '' : `registry.example${port}`
    const { status } = await send(router.url, 'GET', `/v2/team/${value.length}/manifests/1.0?ns=${value}`)
    assert.deepEqual([status, asked(router)], [200, 'proxy hosted'], value)
  }
  await router.close()
})

test('?ns=: 404 if the proxy lacks or denies the image, 502 if the proxy fails; hosted is never asked', async () => {
  const router = await between(absent, found)
  for (const [script, status] of [
    [absent, 404],
    [answer(403, { 'WWW-Authenticate': 'Basic realm="hub"' }, '{"errors":[{"code":"DENIED"}]}'), 404],
    [answer(503), 502],
  ] as const) {
    router.now.proxy = script
    const reply = await send(router.url, 'GET', '/v2/library/app/manifests/1.0?ns=docker.io')
    assert.deepEqual([reply.status, reply.headers['www-authenticate'], asked(router)], [status, undefined, 'proxy'])
  }
  await router.close()
})

/** The number of warnings at the start whose message matches. */
async function warnings(pattern: RegExp, environment: Record<string, string>): Promise<number> {
  const router = await between(found, found, environment)
  const lines = router.router.log().filter(({ level, message }) => level === 'warn' && pattern.test(`${message}`))
  await router.close()
  return lines.length
}

test('proxy-first without HOSTED_NAMES and PROXY_NAMES: one warning at the start says what could be shadowed', async () => {
  assert.equal(await warnings(/shadow/, {}), 1)
  assert.equal(await warnings(/shadow/, { HOSTED_NAMES: 'kanarie/**' }), 0)
  assert.equal(await warnings(/shadow/, { PROXY_NAMES: 'library/*' }), 0)
  assert.equal(await warnings(/shadow/, { LOOKUP_ORDER: 'hosted-first' }), 0)
})

test("a registry's address is the router's own name: a warning at the start, because the router would ask itself forever", async () => {
  assert.equal(await warnings(/router's own$/, {}), 0)
  const name = { AGGREGATE_HOSTNAME: 'registry.example', HOSTED_HOSTNAME: 'http://registry.example:80' }
  assert.equal(await warnings(/router's own$/, name), 1)
})
