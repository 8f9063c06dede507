/** What the router remembers, for whom and how long: scripted registries count. WAY selects the runtime. */
import assert from 'node:assert/strict'
import type http from 'node:http'
import { after, test } from 'node:test'
import { type Between, between, closeAll, inFlight } from './parts/between.ts'
import { answerOf, digestOf, open, type Reply, send } from './parts/client.ts'
import { answer, type Recorded, type Script } from './parts/scripted.ts'
import { until } from './parts/until.ts'

const type = 'application/vnd.oci.image.manifest.v1+json'
const content = JSON.stringify({ schemaVersion: 2, mediaType: type })
const digest = digestOf(content)
/** The paths that a test uses, in a repository name that no other test uses. */
const pathsIn = (name: string) => ({
  name,
  byTag: `/v2/${name}/manifests/1.0`,
  byDigest: `/v2/${name}/manifests/${digest}`,
})
const { byTag, byDigest } = pathsIn('team/app')
const accept = { Accept: `application/json, ${type};q=0.9` }

const manifest = (more: http.OutgoingHttpHeaders = {}, body = content, digestField = digest): Script =>
  answer(
    200,
    {
      'Content-Type': type,
      'Content-Length': body.length,
      'Docker-Content-Digest': digestField,
      ETag: `"${digestField}"`,
      ...more,
    },
    body,
  )
const absent = answer(404, { 'Content-Type': 'application/json' }, '{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
/** A script that answers only after `release()`. */
const held = (script: Script) => {
  const waiting: (() => void)[] = []
  return {
    waiting,
    run: ((...given) => waiting.push(() => script(...given))) as Script,
    release: () => {
      for (const go of waiting.splice(0)) go()
    },
  }
}

const get = ({ url }: Between, path: string, headers: http.OutgoingHttpHeaders = accept, method = 'GET') =>
  send(url, method, path, { headers })
const count = (requests: Recorded[]) => requests.splice(0).length
/** How many requests the proxy and hosted got since the last call. */
const asked = ({ proxy, hosted }: Between) => [count(proxy.requests), count(hosted.requests)]

/** The header fields that belong to the manifest, without the fields of a single answer. */
const manifestHeaders = ({ headers }: Reply) => {
  return { ...headers, date: '', connection: '', 'keep-alive': '', 'x-request-id': '' }
}

/** One router for all tests without settings: what is remembered about one name is not used for another. */
let sharedRouter: Between | undefined
let names = 0
const shared = async (proxy: Script, hosted: Script) => {
  sharedRouter ??= await between(proxy, hosted)
  Object.assign(sharedRouter.now, { proxy, hosted })
  asked(sharedRouter)
  return { router: sharedRouter, ...pathsIn(`team/app-${names++}`) }
}
after(async () => {
  await sharedRouter?.close()
  await quickRouter?.close()
  await closeAll()
})

test('proxy says 404 for a tag: hosted is asked first, for exactly this request', async () => {
  const router = await between(absent, manifest())
  const twice = async (path: string, headers = accept) => {
    await get(router, path, headers)
    await get(router, path, headers)
    return asked(router)
  }
  assert.deepEqual(await twice(byTag), [1, 2])
  assert.deepEqual(await twice('/v2/team/app/manifests/2.0'), [1, 2], 'another tag')
  assert.deepEqual(await twice(byTag, { Accept: type }), [1, 2], 'another Accept')
  await router.close()
})

/** The same with a short LOOKUP_TTL. */
let quickRouter: Between | undefined
const quick = async (proxy: Script, hosted: Script) => {
  quickRouter ??= await between(proxy, hosted, { LOOKUP_TTL: '1' })
  Object.assign(quickRouter.now, { proxy, hosted })
  asked(quickRouter)
  return { router: quickRouter, ...pathsIn(`team/quick-${names++}`) }
}

/** A tag that the proxy lacked for longer than LOOKUP_TTL, and is being asked for anew: nobody waits for it. */
async function askedAnew(script = absent) {
  const { router, byTag } = await quick(absent, manifest())
  await get(router, byTag)
  const slow = held(script)
  router.now.proxy = slow.run
  asked(router)
  await until('the proxy to be asked anew', async () => {
    assert.equal((await get(router, byTag)).body.toString(), content)
    return slow.waiting.length > 0
  })
  return { router, byTag, slow }
}

test('after LOOKUP_TTL the proxy is asked anew, once for all, while hosted answers', async () => {
  const { router, byTag, slow } = await askedAnew()
  const replies = await Promise.all(Array.from({ length: 20 }, () => get(router, byTag)))
  assert.ok(replies.every(({ status }) => status === 200))
  assert.equal(router.proxy.requests.length, 1)
  slow.release()
  await until('the answer to be known', () => router.proxy.requests[0]?.complete)
  router.now.proxy = absent
  await get(router, byTag)
  assert.equal(router.proxy.requests.length, 1, 'it has just said that it lacks the tag')
})

test('a new public tag shadows the one of hosted from the second question after LOOKUP_TTL', async () => {
  const moved = content.replace('2', '3')
  const found = manifest({}, moved, digestOf(moved))
  const { router, byTag, slow } = await askedAnew(found)
  assert.equal((await get(router, byTag)).body.toString(), content, 'nobody waits for the answer')
  router.now.proxy = found
  slow.release()
  await until('the new tag', async () => (await get(router, byTag)).body.toString() === moved)
})

test('a hint is no 404: if hosted lacks the tag by now, the proxy is waited for', async () => {
  const { router, byTag, slow } = await askedAnew()
  router.now.hosted = absent
  const [reply, before] = [get(router, byTag), router.hosted.requests.length]
  await until('the answer of hosted', () => router.hosted.requests.length > before)
  assert.equal(await Promise.race([reply, new Promise((resolve) => setTimeout(resolve, 100, 'waits'))]), 'waits')
  slow.release()
  const { status, json } = await reply
  assert.deepEqual(
    [status, json().errors[0].detail.map((one: { verdict: string }) => one.verdict)],
    [404, ['absent', 'absent']],
  )
})

test('hosted wants a login for a tag that the proxy lacks: the client gets the challenge at once', async () => {
  const { router, byTag, slow } = await askedAnew()
  router.now.hosted = answer(401, { 'WWW-Authenticate': 'Basic realm="hosted"' })
  const reply = await get(router, byTag)
  assert.deepEqual([reply.status, reply.headers['www-authenticate']], [401, 'Basic realm="hosted"'])
  assert.equal(slow.waiting.length, 1)
})

test('a public registry that says 401 for what it lacks is remembered too', async () => {
  const { router, byTag } = await shared(answer(401), manifest())
  for (const _ of [1, 2]) assert.equal((await get(router, byTag)).status, 200)
  assert.deepEqual(asked(router), [1, 2])
})

test('a question in the background obeys the breaker, and is the trial that ends it', async () => {
  const { router, byTag } = await quick(absent, manifest())
  await get(router, byTag)
  const logged = (wanted: string) => async () => {
    assert.equal((await get(router, byTag)).status, 200)
    return router.router.log().some(({ message }) => message === wanted)
  }
  router.now.proxy = (_, response) => response.destroy()
  await until('the proxy to be skipped', logged('skipped until it is well again'))
  router.now.proxy = absent
  await until('the proxy to be well again', logged('well again'))
})

test('a question in the background keeps no drain waiting', async () => {
  const { router, slow } = await askedAnew()
  quickRouter = undefined
  assert.equal(await router.router.stop(), 0)
  await until('the question to be given up', () => router.proxy.requests.at(-1)?.broken)
  assert.equal(slow.waiting.length, 1)
  await router.close(true)
})

test('both registries say 404: both are asked again the next time, no 404 comes from memory', async () => {
  const { router, byTag } = await shared(absent, absent)
  for (let i = 0; i < 3; i++) {
    const reply = await get(router, byTag)
    assert.deepEqual([reply.status, reply.json().errors[0].detail.length], [404, 2])
    assert.deepEqual(
      reply.json().errors[0].detail.map((one: { upstream: string }) => one.upstream),
      ['proxy', 'hosted'],
    )
    assert.deepEqual(asked(router), [1, 1])
  }
  router.now.proxy = manifest()
  assert.equal((await get(router, byTag)).status, 200)
})

test('hosted fails: the proxy is asked after all, even if it lacked the tag lately', async () => {
  const { router, byTag } = await shared(absent, manifest())
  await get(router, byTag)
  Object.assign(router.now, { proxy: manifest(), hosted: answer(500) })
  assert.equal((await get(router, byTag)).status, 200)
})

test('after a push the proxy is still asked first', async () => {
  const { router, byTag } = await shared(manifest(), manifest())
  await send(router.url, 'PUT', byTag, { headers: { 'Content-Type': type }, body: content })
  asked(router)
  await get(router, byTag)
  assert.deepEqual(asked(router), [1, 0])
})

test('by digest, the registry that last served the name is asked first; by tag this does not count', async () => {
  const { router, name, byTag } = await shared(absent, answer(200, { 'Content-Length': content.length }, content))
  await get(router, byTag)
  asked(router)
  assert.equal((await get(router, `/v2/${name}/blobs/${digestOf('1')}`)).status, 200)
  assert.deepEqual(asked(router), [0, 1])
  await get(router, `/v2/${name}/manifests/other`)
  assert.deepEqual(asked(router), [1, 1])
  await get(router, `/v2/team/other/blobs/${digestOf('1')}`)
  assert.deepEqual(asked(router), [1, 1], 'another name')
})

test('a manifest by digest is requested once; GET and HEAD get the same answer from memory', async () => {
  const router = await between(absent, manifest())
  const first = await get(router, byDigest)
  asked(router)
  for (const method of ['GET', 'HEAD']) {
    const again = await get(router, byDigest, accept, method)
    assert.equal(again.status, 200)
    assert.equal(again.body.toString(), method === 'GET' ? content : '')
    assert.deepEqual(manifestHeaders(again), manifestHeaders(first))
  }
  assert.deepEqual(asked(router), [0, 0])
  const metrics = (await get(router, '/metrics')).body.toString()
  assert.match(metrics, /^registry_router_memory_total\{kind="manifest",outcome="hit"\} 2$/m)
  await router.close()
})

/** Requests that must not be answered from memory. */
const notFromMemory: [string, http.OutgoingHttpHeaders][] = [
  ['no Accept', {}],
  ['a wildcard', { Accept: '*/*' }],
  ['another type', { Accept: 'application/json' }],
  ['a range', { ...accept, Range: 'bytes=0-1' }],
  ['If-None-Match', { ...accept, 'If-None-Match': '"x"' }],
  ['If-Match', { ...accept, 'If-Match': '"x"' }],
  ['a login', { ...accept, Authorization: 'Basic x' }],
  ['a cookie', { ...accept, Cookie: 'x' }],
]
/** Compares digests before it reads a manifest, as CNCF distribution does. */
const comparing: Script = (request, ...rest) => {
  const same = request.headers['if-none-match'] === `"${digest}"`
  return (same ? answer(304) : manifest())(request, ...rest)
}
/** The If-None-Match fields that hosted got since the last call. */
const ifNoneMatches = ({ hosted }: Between) => hosted.requests.splice(0).map(({ headers }) => headers['if-none-match'])

test('a tag whose manifest is in memory: hosted is asked if it is unchanged, and GET and HEAD get the whole manifest', async () => {
  const { router, byTag, byDigest } = await shared(absent, comparing)
  const first = await get(router, byTag)
  assert.deepEqual(ifNoneMatches(router), [undefined])
  for (const method of ['GET', 'HEAD', 'GET']) {
    const again = await get(router, byTag, accept, method)
    assert.equal(again.body.toString(), method === 'GET' ? content : '')
    assert.deepEqual(manifestHeaders(again), manifestHeaders(first))
    assert.deepEqual(ifNoneMatches(router), [`"${digest}"`])
  }
  asked(router)
  await get(router, byDigest)
  assert.deepEqual(asked(router), [0, 0], 'by digest it is kept too')
  const moved = content.replace('2', '3')
  router.now.hosted = manifest({}, moved, digestOf(moved))
  assert.equal((await get(router, byTag)).body.toString(), moved)
  router.now.hosted = absent
  assert.equal((await get(router, byTag)).status, 404)
})

test("a tag's answer has the Cache-Control of its own 304, not of an answer by digest", async () => {
  const cached = (type: string): Script => manifest({ 'Cache-Control': type })
  const { router, byTag, byDigest } = await shared(absent, (request, ...rest) => {
    const tagged = request.headers['if-none-match'] ? answer(304, { 'Cache-Control': 'no-cache' }) : cached('no-cache')
    const script = request.url?.endsWith('/1.0') ? tagged : cached('immutable')
    script(request, ...rest)
  })
  await get(router, byTag, accept, 'HEAD')
  await get(router, byDigest)
  ifNoneMatches(router)
  assert.equal((await get(router, byTag)).headers['cache-control'], 'no-cache')
  assert.deepEqual(ifNoneMatches(router), [`"${digest}"`])
})

test('no If-None-Match is sent if another answer might fit, if ETag or bytes do not match the digest, or after a write', async () => {
  const { router, byTag } = await shared(absent, comparing)
  await get(router, byTag)
  ifNoneMatches(router)
  for (const [what, headers] of notFromMemory) {
    await get(router, byTag, headers)
    const own = (headers as Record<string, string>)['If-None-Match']
    assert.deepEqual(ifNoneMatches(router), [own], what)
  }
  await get(router, `${byTag}?x=1`)
  assert.deepEqual(ifNoneMatches(router), [undefined], 'a query')
  await send(router.url, 'PUT', byTag, { headers: { 'Content-Type': type }, body: content })
  ifNoneMatches(router)
  await get(router, byTag)
  assert.deepEqual(ifNoneMatches(router), [undefined], 'a write')
  for (const script of [manifest({ ETag: '"x"' }), manifest({}, content.replace('2', '3'))]) {
    const { router, byTag } = await shared(absent, script)
    for (const _ of [1, 2]) await get(router, byTag)
    assert.deepEqual(ifNoneMatches(router), [undefined, undefined])
  }
})

test('a manifest in memory does not answer requests that another answer might fit', async () => {
  const { router, byDigest } = await shared(absent, manifest())
  await get(router, byDigest)
  asked(router)
  for (const [what, headers] of notFromMemory) {
    await get(router, byDigest, headers)
    assert.equal(asked(router)[1], 1, what)
  }
  await get(router, `${byDigest}?x=1`)
  assert.equal(asked(router)[1], 1, 'a query')
  await get(router, byDigest)
  assert.deepEqual(asked(router), [0, 0])
})

test("hosted's answer to a login is not kept; the proxy's is, because the proxy never gets the login", async () => {
  const headers = { ...accept, Authorization: 'Basic x' }
  const ofHosted = await shared(absent, manifest())
  for (const _ of [1, 2]) await get(ofHosted.router, ofHosted.byDigest, headers)
  assert.equal(asked(ofHosted.router)[1], 2)
  await get(ofHosted.router, ofHosted.byDigest)
  assert.equal(asked(ofHosted.router)[1], 1)
  const ofProxy = await shared(manifest(), absent)
  for (const _ of [1, 2]) await get(ofProxy.router, ofProxy.byDigest, headers)
  await get(ofProxy.router, ofProxy.byDigest)
  assert.deepEqual(asked(ofProxy.router), [1, 0])
})

const unkept: [string, Script][] = [
  ['bytes of another digest', manifest({}, content.replace('2', '3'))],
  ['no type', answer(200, { 'Content-Length': content.length }, content)],
  ['a cookie for the client', manifest({ 'Set-Cookie': 'x=y' })],
  ['another status', answer(206, { 'Content-Type': type, 'Content-Length': content.length }, content)],
]
test('a manifest is kept only if it is complete, its digest is right, and it is the same for every client', async () => {
  const { router, byDigest } = await shared(absent, absent)
  for (const [what, script] of unkept) {
    router.now.hosted = script
    for (const _ of [1, 2]) await get(router, byDigest)
    assert.equal(asked(router)[1], 2, what)
  }
  const kept = await shared(absent, answer(200, { 'Content-Type': type }, content))
  for (const _ of [1, 2]) assert.equal((await get(kept.router, kept.byDigest)).body.toString(), content)
  assert.equal(asked(kept.router)[1], 1, 'chunks')
  for (const method of ['GET', 'HEAD']) {
    const { headers } = await get(kept.router, kept.byDigest, accept, method)
    assert.equal(headers['content-length'], `${content.length}`, `chunks, ${method}`)
  }
})

test('a manifest that breaks off is no answer: the other registry is asked, nothing is kept', async () => {
  const cut: Script = (_, response) => {
    response.writeHead(200, { 'Content-Type': type, 'Content-Length': content.length })
    response.write(content.slice(0, 10), () => response.destroy())
  }
  const hostedHasIt = await between(cut, manifest())
  assert.equal((await get(hostedHasIt, byDigest)).body.toString(), content)
  await hostedHasIt.close(true)
  const nobodyHasIt = await between(cut, absent)
  assert.equal((await get(nobodyHasIt, byDigest)).status, 502)
  await nobodyHasIt.close(true)
})

for (const [what, bytes, requests] of [
  ['of 4 MiB is kept', 4 * 1024 * 1024, 1],
  ['larger than 4 MiB is streamed, and not kept', 4 * 1024 * 1024 + 1, 3],
] as const) {
  test(`a manifest ${what}`, async () => {
    const large = content.padEnd(bytes)
    const { router, name } = await shared(absent, manifest({}, large, digestOf(large)))
    const path = `/v2/${name}/manifests/${digestOf(large)}`
    const replies = await Promise.all([1, 2, 3].map(() => get(router, path)))
    for (const { body } of replies) assert.equal(digestOf(body), digestOf(large))
    assert.equal(asked(router)[1], requests)
  })
}

test('MANIFEST_MEMORY limits what is kept; the least recently used manifest goes first', async () => {
  const bodies = ['a', 'b', 'c'].map((letter) => JSON.stringify({ annotations: { x: letter.repeat(400_000) } }))
  const router = await between(
    absent,
    (request, response, recorded) => {
      const body = bodies.find((one) => request.url?.endsWith(digestOf(one))) as string
      manifest({}, body, digestOf(body))(request, response, recorded)
    },
    { MANIFEST_MEMORY: '1' },
  )
  const [a, b, c] = bodies.map((body) => `/v2/team/app/manifests/${digestOf(body)}`) as [string, string, string]
  for (const path of [a, b, a, c, a]) await get(router, path)
  assert.equal(asked(router)[1], 3)
  await get(router, b)
  assert.equal(asked(router)[1], 1)
  await router.close()
})

for (const method of ['PUT', 'DELETE']) {
  test(`after a ${method} in a name, its manifests are requested again`, async () => {
    const { router, byDigest } = await shared(absent, manifest())
    await get(router, byDigest)
    await get(router, byDigest.replace('app', 'other'))
    router.now.hosted = answer(202)
    await send(router.url, method, byDigest, method === 'PUT' ? { body: content } : {})
    asked(router)
    router.now.hosted = absent
    assert.equal((await get(router, byDigest)).status, 404)
    assert.equal((await get(router, byDigest.replace('app', 'other'))).status, 200)
  })
}

test('a read that began before a write is neither kept nor shared with a read that began after it', async () => {
  const before = held(manifest())
  const { router, byDigest } = await shared(absent, before.run)
  const early = get(router, byDigest)
  await until('the early read', () => before.waiting.length === 1)
  router.now.hosted = answer(202)
  await send(router.url, 'DELETE', byDigest)
  router.now.hosted = absent
  assert.equal((await get(router, byDigest)).status, 404)
  before.release()
  assert.equal((await early).status, 200)
  assert.equal((await get(router, byDigest)).status, 404)
})

test('a header field that Connection names is not forwarded: the answer is not shared with requests that do send this field', async () => {
  const byAccept: Script = (request, response, recorded) =>
    manifest({ 'X-Accept': request.headers.accept ?? 'none' })(request, response, recorded)
  const slow = held(byAccept)
  const { router, byTag } = await shared(absent, slow.run)
  const first = get(router, byTag, { ...accept, Connection: 'close, accept' })
  await until('the first', () => slow.waiting.length === 1)
  const second = get(router, byTag)
  await until('the second', () => slow.waiting.length === 2)
  slow.release()
  assert.ok(!(await first).headers['x-accept']?.includes(type))
  assert.ok((await second).headers['x-accept']?.includes(type))
})

test('a Set-Cookie of hosted goes to one client only', async () => {
  let cookies = 0
  const slow = held((...given) => manifest({ 'Set-Cookie': `session=${cookies++}` })(...given))
  const { router, byTag } = await shared(absent, slow.run)
  const replies = [get(router, byTag), get(router, byTag)]
  await until('both to wait', async () => (await inFlight(router.url)) === 2)
  await until('hosted to be asked', () => slow.waiting.length > 0)
  const releasing = setInterval(slow.release, 10)
  const given = (await Promise.all(replies).finally(() => clearInterval(releasing))).map(
    ({ headers }) => headers['set-cookie'],
  )
  assert.equal(new Set(given.flat()).size, 2)
})

for (const method of ['GET', 'HEAD']) {
  test(`200 clients at once ${method} one tag: each registry is asked once, and all get the manifest`, async () => {
    const slow = held(manifest())
    const { router, byTag } = await shared(absent, slow.run)
    const replies = Array.from({ length: 200 }, () => get(router, byTag, accept, method))
    await until('all to wait', async () => /in_flight 201$/m.test((await get(router, '/metrics')).body.toString()))
    await until('hosted to be asked', () => slow.waiting.length > 0)
    slow.release()
    for (const { status, headers, body } of await Promise.all(replies)) {
      assert.deepEqual([status, headers['content-length']], [200, `${content.length}`])
      assert.equal(body.toString(), method === 'GET' ? content : '')
    }
    for (const { requests } of [router.proxy, router.hosted])
      assert.equal(requests.filter(({ target }) => target === byTag).length, 1)
  })
}

test('requests with different logins share the request to the proxy, never the one to hosted', async () => {
  const [proxy, hosted] = [held(absent), held(manifest())]
  const { router, byTag } = await shared(proxy.run, hosted.run)
  const logins = [{}, { Authorization: 'Basic a' }, { Authorization: 'Basic b' }, { Cookie: 'c' }]
  const replies = logins.map((login) => get(router, byTag, { ...accept, ...login }))
  await until('all to wait', async () => /in_flight 5$/m.test((await get(router, '/metrics')).body.toString()))
  await until('the proxy to be asked', () => proxy.waiting.length === 1)
  proxy.release()
  await until('hosted to be asked', () => hosted.waiting.length === logins.length)
  hosted.release()
  for (const { status } of await Promise.all(replies)) assert.equal(status, 200)
  assert.deepEqual(asked(router), [1, 4])
})

test('clients wait for the same answer: one that leaves does not disturb the others; the last one that leaves frees the registry', async () => {
  const slow = held(manifest())
  const { router, byTag } = await shared(slow.run, absent)
  const leaving = [1, 2, 3].map(() => {
    const request = open(router.url, 'GET', byTag, accept)
    request.on('error', () => {})
    request.end()
    return request
  })
  await until('the three', async () => /in_flight 4$/m.test((await get(router, '/metrics')).body.toString()))
  await until('the proxy to be asked', () => slow.waiting.length === 1)
  leaving[0]?.destroy()
  leaving[1]?.destroy()
  await until('two to be gone', async () => /in_flight 2$/m.test((await get(router, '/metrics')).body.toString()))
  slow.release()
  assert.equal((await answerOf(leaving[2] as http.ClientRequest)).resume().statusCode, 200)
  const lastClient = open(router.url, 'GET', `${byTag}-alone`, accept)
  lastClient.on('error', () => {})
  lastClient.end()
  await until('the last', () => slow.waiting.length === 1)
  lastClient.destroy()
  await until('the registry to be free', () => router.proxy.requests.at(-1)?.broken)
})

test('/v2/ asks each registry once a second for each login', async () => {
  const router = await between(answer(200, {}, '{}'), answer(200, {}, '{}'))
  const ping = (headers = {}) => get(router, '/v2/', headers)
  await Promise.all(Array.from({ length: 20 }, () => ping()))
  await ping()
  assert.deepEqual(asked(router), [1, 1])
  await ping({ Authorization: 'Basic a' })
  await ping({ Authorization: 'Basic a' })
  await ping({ Authorization: 'Basic b' })
  assert.ok(asked(router)[1] === 2)
  await until('the next second', async () => {
    await ping()
    return asked(router)[1] === 1
  })
  await router.close()
})

test('LOOKUP_TTL=0: the registries are asked every time', async () => {
  const router = await between(absent, manifest(), { LOOKUP_TTL: '0' })
  for (const path of [byTag, byDigest, '/v2/']) {
    for (const _ of [1, 2]) await get(router, path)
    assert.deepEqual(asked(router), [2, 2], path)
  }
  await router.close()
})

test('MANIFEST_MEMORY=0: no manifest is kept', async () => {
  const router = await between(absent, manifest(), { MANIFEST_MEMORY: '0' })
  for (const _ of [1, 2]) await get(router, byDigest)
  assert.deepEqual(asked(router)[1], 2)
  await router.close()
})

test('hosted denies a write: what is remembered about the name stays', async () => {
  const { router, name, byDigest } = await shared(manifest(), answer(401, { 'WWW-Authenticate': 'Basic realm="x"' }))
  await get(router, byDigest)
  asked(router)
  assert.equal((await send(router.url, 'POST', `/v2/${name}/blobs/uploads/`)).status, 401)
  assert.equal((await get(router, byDigest)).status, 200)
  assert.deepEqual(asked(router), [0, 1])
})

test('clients wait for the trial of a registry that failed lately: each gets all of a body that is streamed', {
  timeout: 60_000,
}, async () => {
  const halves: http.ServerResponse[] = []
  const hosted = held(absent)
  const router = await between(answer(503), hosted.run, {
    LOOKUP_ORDER: 'hosted-first',
    V2_REQUIRES: 'hosted',
  })
  // Its first half is longer than the manifests that the router reads whole.
  const [a, b] = [`{"schemaVersion":2,"name":"${'a'.repeat(5 * 1024 * 1024)}`, `${'b'.repeat(40_000)}"}`]
  const read = () => send(router.url, 'GET', byTag, { headers: accept })
  const releaseHosted = () => until('hosted to be asked', () => hosted.waiting.length > 0).then(hosted.release)
  for (let i = 0; i < 3; i++) await Promise.all([read(), releaseHosted()])
  await until('the proxy to be skipped', () => router.router.log().some(({ message }) => /skipped/.test(`${message}`)))
  router.now.proxy = (_, response) => {
    response.writeHead(200, { 'Content-Type': type }).write(a)
    halves.push(response)
  }
  let bodies: string[] = []
  await until('the trial', async () => {
    const replies = Array.from({ length: 4 }, read)
    await until('all four to wait', async () => (await inFlight(router.url)) === 4)
    await releaseHosted()
    const ending = setInterval(() => {
      for (const response of halves.splice(0)) response.end(b)
    }, 20)
    const answered = await Promise.all(replies).finally(() => clearInterval(ending))
    bodies = answered.map(({ body }) => body.toString())
    return bodies.some((body) => /^\{"schemaVersion"/.test(body))
  })
  for (const body of bodies) assert.ok(body === a + b, `${body.length} bytes: ${body.slice(0, 300)}`)
  await router.close()
})
