/** Public tags from memory: for a while (TAG_TTL), and when their registry fails (STALE_IF_ERROR). WAY selects the runtime. */
import assert from 'node:assert/strict'
import type http from 'node:http'
import { after, test } from 'node:test'
import { type Between, between, closeAll } from './parts/between.ts'
import { digestOf, type Reply, send } from './parts/client.ts'
import { answer, type Script, scripted } from './parts/scripted.ts'
import { until } from './parts/until.ts'

after(closeAll)

const type = 'application/vnd.oci.image.manifest.v1+json'
const accept = { Accept: type }
const contentOf = (what: string) => JSON.stringify({ schemaVersion: 2, mediaType: type, annotations: { what } })
const [first, second] = [contentOf('first'), contentOf('second')]
const absent = answer(404)

/** A registry that has this manifest under every tag, and compares digests before it reads it. */
const having =
  (content: string, fields: http.OutgoingHttpHeaders = {}): Script =>
  (...given) => {
    const etag = `"${digestOf(content)}"`
    const all = { 'Content-Type': type, 'Docker-Content-Digest': digestOf(content), ETag: etag, ...fields }
    if (given[0].headers['if-none-match'] === etag) return answer(304, { ETag: etag })(...given)
    return answer(200, { ...all, 'Content-Length': content.length }, content)(...given)
  }
const get = ({ url }: Between, path: string, headers: http.OutgoingHttpHeaders = accept, method = 'GET') =>
  send(url, method, path, { headers })
const asked = ({ proxy, hosted }: Between) => [proxy.requests.splice(0).length, hosted.requests.splice(0).length]
const cacheOf = ({ headers }: Reply) => headers['cache-status']
const metricsOf = async (router: Between) => (await get(router, '/metrics')).body.toString()
const byTag = '/v2/library/app/manifests/1'

test('TAG_TTL: a public tag is answered from memory, GET and HEAD alike, and says how old it is', async () => {
  const router = await between(having(first), absent, { TAG_TTL: '600' })
  const asFirst = await get(router, byTag)
  assert.equal(cacheOf(asFirst), undefined)
  asked(router)
  for (const method of ['GET', 'HEAD']) {
    const reply = await get(router, byTag, accept, method)
    assert.deepEqual([reply.status, reply.body.toString()], [200, method === 'GET' ? first : ''])
    for (const field of ['etag', 'docker-content-digest', 'content-length', 'content-type']) {
      assert.equal(reply.headers[field], asFirst.headers[field], field)
    }
    const [, ttl] = /^combined-registry; hit; ttl=(\d+)$/.exec(`${cacheOf(reply)}`) ?? []
    const age = Number(reply.headers.age)
    assert.ok(age < 30 && Math.abs(Number(ttl) - (600 - age)) <= 1, `${reply.headers.age} ${cacheOf(reply)}`)
  }
  assert.deepEqual(asked(router), [0, 0])
  for (const [what, headers] of [
    ['another Accept', { Accept: '*/*' }],
    ['no-cache', { ...accept, 'Cache-Control': 'no-cache' }],
    ['a condition', { ...accept, 'If-None-Match': '"x"' }],
    ['a range', { ...accept, Range: 'bytes=0-1' }],
  ] as const) {
    await get(router, byTag, headers)
    assert.deepEqual(asked(router), [1, 0], what)
  }
  const logged = await until('the log', () =>
    router.router.log().find(({ message, by, asked }) => message === 'request' && by === 'proxy' && `${asked}` === ''),
  )
  assert.equal(typeof logged.age, 'number')
  assert.match(await metricsOf(router), /^registry_router_memory_total\{kind="fresh",outcome="hit"\} 2$/m)
  await router.close()
})

test('TAG_TTL: HEAD of a tag and GET of its digest, as containerd asks, are enough for the tag', async () => {
  const router = await between(having(first), absent, { TAG_TTL: '600' })
  await get(router, byTag, accept, 'HEAD')
  await get(router, `/v2/library/app/manifests/${digestOf(first)}`)
  asked(router)
  assert.equal((await get(router, byTag)).body.toString(), first)
  assert.deepEqual(asked(router), [0, 0])
  await router.close()
})

test('TAG_TTL: once half of it is over the tag is asked for in the background; 16 connections cost three questions a TAG_TTL', async () => {
  const router = await between(having(first), absent, { TAG_TTL: '3' })
  const started = performance.now()
  const bodies = new Set<string>()
  const connection = async () => {
    while (performance.now() - started < 3000) bodies.add((await get(router, byTag)).body.toString())
  }
  await Promise.all(Array.from({ length: 16 }, connection))
  assert.ok((asked(router)[0] as number) <= 3)
  assert.deepEqual([...bodies], [first])
  router.now.proxy = having(second)
  await until('the new manifest', async () => {
    const reply = await get(router, byTag)
    assert.equal(cacheOf(reply)?.includes('hit'), true, 'nobody waits for it')
    return reply.body.toString() === second
  })
  router.now.proxy = absent
  await until('the tag to be gone', async () => (await get(router, byTag)).status === 404)
  await router.close()
})

test('TAG_TTL: a write through this replica ends it', async () => {
  const router = await between(having(first), answer(201), { TAG_TTL: '600' })
  await get(router, byTag)
  await get(router, byTag)
  await send(router.url, 'PUT', byTag, { headers: { 'Content-Type': type }, body: second })
  asked(router)
  assert.equal(cacheOf(await get(router, byTag)), undefined)
  assert.deepEqual(asked(router), [1, 0])
  await router.close()
})

for (const [what, environment, wanted] of [
  ["hosted's tags", {}, [0, 1]],
  ['names in HOSTED_NAMES', { HOSTED_NAMES: 'library/**' }, [0, 1]],
  ['LOOKUP_ORDER=hosted-first', { LOOKUP_ORDER: 'hosted-first' }, [1, 1]],
] as const) {
  test(`TAG_TTL and STALE_IF_ERROR: never for ${what}`, async () => {
    const isPublic = what.startsWith('LOOKUP')
    const router = await between(isPublic ? having(first) : absent, isPublic ? absent : having(first), {
      TAG_TTL: '600',
      STALE_IF_ERROR: '600',
      ...environment,
    })
    await get(router, byTag)
    asked(router)
    for (const _ of [1, 2]) {
      assert.equal(cacheOf(await get(router, byTag)), undefined)
      assert.deepEqual(asked(router), wanted)
    }
    Object.assign(router.now, { hosted: answer(503) })
    assert.equal((await get(router, byTag)).status, 502)
    await router.close(true)
  })
}

test('TAG_TTL: a tag of another public registry, by its prefix', async () => {
  const ghcr = await scripted(having(first))
  const router = await between(absent, absent, { TAG_TTL: '600', PROXIES: `ghcr.io=${ghcr.host}` })
  for (const _ of [1, 2, 3]) {
    assert.equal((await get(router, '/v2/ghcr.io/org/app/manifests/1')).body.toString(), first)
  }
  assert.equal(ghcr.requests.length, 1)
  await router.close()
  await ghcr.close()
})

const failures: [string, Script, RegExp][] = [
  ['says 503', answer(503), /^combined-registry; fwd=stale; fwd-status=503; ttl=-\d+$/],
  ['limits', answer(429), /^combined-registry; fwd=stale; fwd-status=429; ttl=-\d+$/],
  ['limits, as a cache nests it', answer(500, {}, '{"errors":[{"code":"TOOMANYREQUESTS"}]}'), /fwd-status=500/],
  ['is a web page', answer(200, { 'Content-Type': 'text/html' }, '<html>'), /fwd=stale/],
  ['does not answer', (_, response) => response.destroy(), /^combined-registry; fwd=stale; ttl=-\d+$/],
]

test('STALE_IF_ERROR: where the public registry fails or limits, its last answer is given, GET and HEAD, by tag and by digest', async () => {
  const router = await between(having(first), absent, {
    STALE_IF_ERROR: '600',
    LOOKUP_TTL: '0.1',
    V2_REQUIRES: 'hosted',
  })
  await get(router, byTag)
  const byDigest = `/v2/library/app/manifests/${digestOf(first)}`
  for (const [what, script, wanted] of failures) {
    router.now.proxy = script
    for (const method of ['GET', 'HEAD']) {
      for (const path of [byTag, byDigest]) {
        const reply = await until('an answer that is not by digest within LOOKUP_TTL', async () => {
          const reply = await get(router, path, accept, method)
          return cacheOf(reply) ? reply : undefined
        })
        assert.deepEqual([reply.status, reply.body.toString()], [200, method === 'GET' ? first : ''], what)
        assert.ok(Number(reply.headers.age) >= 0)
        if (method === 'GET' && path === byTag) assert.match(`${cacheOf(reply)}`, wanted, what)
      }
    }
    router.now.proxy = having(first)
    await until('the proxy to be well', async () => !cacheOf(await get(router, byTag)))
  }
  router.now.proxy = answer(503)
  await get(router, byTag)
  const line = await until('the log', () => router.router.log().find(({ stale }) => stale))
  assert.deepEqual([line.by, line.status, typeof line.age], ['proxy', 200, 'number'])
  assert.match(await metricsOf(router), /^registry_router_memory_total\{kind="stale",outcome="hit"\} [1-9]/m)
  const { answer: given, memory } = (await get(router, '/explain?image=library/app:1')).json()
  assert.deepEqual([given.by, given.stale, memory.manifest], ['proxy', true, 'proxy'])
  await router.close()
})

test('STALE_IF_ERROR: a registry that is skipped is not asked, and the answer says hit', async () => {
  const router = await between(having(first), absent, { STALE_IF_ERROR: '600', V2_REQUIRES: 'hosted' })
  await get(router, byTag)
  router.now.proxy = (_, response) => response.destroy()
  await until('the proxy to be skipped', async () => {
    const reply = await get(router, byTag)
    assert.equal(reply.body.toString(), first)
    return `${cacheOf(reply)}`.startsWith('combined-registry; hit; ttl=-')
  })
  await router.close()
})

test('STALE_IF_ERROR: not after its 404, 401 or 403, not if a client says no-cache, and not when it is over', async () => {
  const router = await between(absent, absent, { STALE_IF_ERROR: '600' })
  for (const status of [404, 401, 403]) {
    const path = byTag.replace('app', `app-${status}`)
    const statuses: number[] = []
    const denied = answer(status, {}, '{"errors":[{"code":"DENIED"}]}')
    for (const script of [having(first), answer(503), denied, answer(503)]) {
      router.now.proxy = script
      statuses.push((await get(router, path)).status)
    }
    assert.deepEqual(statuses, [200, 200, 404, 502], `${status}`)
  }
  router.now.proxy = having(first)
  await get(router, byTag)
  router.now.proxy = answer(503)
  assert.equal((await get(router, byTag)).status, 200)
  assert.equal((await get(router, byTag, { ...accept, 'Cache-Control': 'no-cache' })).status, 502)
  await router.close()
  const short = await between(having(first), absent, { STALE_IF_ERROR: '1' })
  await get(short, byTag)
  short.now.proxy = answer(503)
  await until('it to be over', async () => (await get(short, byTag)).status === 502)
  await short.close()
})

test('STALE_IF_ERROR: an outage does not turn a public tag into the one of hosted, and not the other way round', async () => {
  const router = await between(having(first), having(second), { STALE_IF_ERROR: '600' })
  assert.equal((await get(router, byTag)).body.toString(), first)
  router.now.proxy = answer(503)
  assert.equal((await get(router, byTag)).body.toString(), first)
  assert.equal((await get(router, '/v2/library/other/manifests/1')).body.toString(), second, 'as without the setting')
  await router.close()
})

test('STALE_IF_ERROR: an official image by its short name', async () => {
  const official: Script = (...given) => (given[0].url?.startsWith('/v2/library/') ? having(first) : absent)(...given)
  const router = await between(official, absent, { STALE_IF_ERROR: '600' })
  const read = () => get(router, '/v2/nginx/manifests/1')
  assert.equal((await read()).body.toString(), first)
  router.now.proxy = answer(503)
  const stale = await read()
  assert.deepEqual([stale.status, stale.body.toString()], [200, first])
  router.now.hosted = answer(503)
  assert.equal((await read()).status, 502, 'hosted may have it')
  await router.close()
})
