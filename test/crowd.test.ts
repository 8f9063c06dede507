/** What many clients at once, or one with a large request, may take of the memory. WAY selects the runtime. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { between, closeAll } from './parts/between.ts'
import { temporaryFolder } from './parts/children.ts'
import { answerOf, digestOf, open, send } from './parts/client.ts'
import { probe } from './parts/prober.ts'
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
const indexType = 'application/vnd.oci.image.index.v1+json'
const manifestType = 'application/vnd.oci.image.manifest.v1+json'
const subject = digestOf('an image')

/** A list of referrers of about so many bytes. */
function listOf(bytes: number): string {
  const one = (i: number) => ({
    mediaType: manifestType,
    digest: digestOf(`${i}`),
    size: 1,
    annotations: { a: 'x'.repeat(800) },
  })
  const manifests = Array.from({ length: Math.floor(bytes / 1000) }, (_, i) => one(i))
  return JSON.stringify({ schemaVersion: 2, mediaType: indexType, manifests })
}

for (const scheme of schemes) {
  test(`${scheme}: 100 clients ask for one list of 4 MiB at once: under 400 MiB, and /livez answers meanwhile`, async (t) => {
    const list = listOf(4 * mebibyte - 100_000)
    const hosted: Script = (request, ...rest) => {
      const isList = request.url?.includes('/referrers/')
      return (isList ? answer(200, { 'Content-Type': indexType }, list) : answer(404))(request, ...rest)
    }
    const {
      url,
      router,
      hosted: upstream,
      close,
    } = await between(answer(404), hosted, {}, scheme === 'https' ? tls : undefined)
    const ask = async () => {
      const request = open(url, 'GET', `/v2/a/referrers/${subject}`)
      request.end()
      return answerOf(request)
    }
    const slowest = await probe(`${url}/livez`)
    // All answers have begun before one of them is read.
    const answers = await Promise.all(Array.from({ length: 100 }, ask))
    for (const one of answers) {
      assert.equal(one.statusCode, 200)
      let bytes = 0
      for await (const chunk of one) bytes += chunk.length
      assert.equal(bytes, Number(one.headers['content-length']))
    }
    const livezMs = await slowest()
    const peak = router.peakMemory() ?? 0
    const lists = upstream.requests.filter(({ target }) => target.includes('/referrers/')).length
    t.diagnostic(`${way}: peak memory ${peak} MiB, ${lists} lists were asked for, /livez took ${livezMs} ms at most`)
    assert.ok(peak < 400, `${peak} MiB`)
    assert.ok(lists < 16, `${lists} lists`)
    await close()
  })
}

test('a list is shared only by clients with the same login', async () => {
  const waiting: (() => void)[] = []
  const list = listOf(2000)
  const { url, hosted, close } = await between(answer(404), (request, ...rest) => {
    waiting.push(() => answer(200, { 'Content-Type': indexType }, list)(request, ...rest))
  })
  const ask = (login: string) =>
    send(url, 'GET', `/v2/a/referrers/${subject}`, { headers: login ? { Authorization: `Basic ${btoa(login)}` } : {} })
  const logins = ['', 'a:1', 'b:1', 'a:1', '', 'b:1']
  const replies = logins.map(ask)
  await until('each login to be asked for', () => hosted.requests.length === 3)
  for (const release of waiting) release()
  for (const { status, body } of await Promise.all(replies)) assert.deepEqual([status, body.length > 1000], [200, true])
  const asked = hosted.requests.map(({ headers }) => headers.authorization ?? '').sort()
  assert.deepEqual(asked, ['', `Basic ${btoa('a:1')}`, `Basic ${btoa('b:1')}`])
  await close()
})

test('more lists than there is room for: 503 with Retry-After for some, and memory stays; later all are served', async (t) => {
  const list = listOf(4 * mebibyte - 100_000)
  const hosted: Script = (request, ...rest) => {
    const isList = request.url?.includes('/referrers/')
    return (isList ? answer(200, { 'Content-Type': indexType }, list) : answer(404))(request, ...rest)
  }
  const { url, router, close } = await between(answer(404), hosted)
  const ask = async (i: number) => {
    const request = open(url, 'GET', `/v2/a/referrers/${digestOf(`${i}`)}`)
    request.end()
    return answerOf(request)
  }
  // Nothing is read before all have been answered.
  const answers = await Promise.all(Array.from({ length: 40 }, (_, i) => ask(i)))
  const refused = answers.filter(({ statusCode }) => statusCode === 503)
  assert.ok(refused.length > 0 && refused.length < 40, `${refused.length} were refused`)
  for (const { headers } of refused) assert.equal(headers['retry-after'], '1')
  const peak = router.peakMemory() ?? 0
  t.diagnostic(`${way}: peak memory ${peak} MiB, ${refused.length} of 40 were refused`)
  assert.ok(peak < 500, `${peak} MiB`)
  for (const one of answers) one.destroy()
  await until('room', async () => (await send(url, 'GET', `/v2/a/referrers/${subject}`)).status === 200)
  const metrics = (await send(url, 'GET', '/metrics')).body.toString()
  assert.match(metrics, /^registry_router_shortages_total\{resource="memory"\} [1-9]/m)
  assert.match(metrics, /^registry_router_upstream_up\{upstream="hosted"\} 1$/m)
  await close()
})

test('an index of 100 manifests of 4 MiB that only the cache has is pushed: they are copied one at a time', async (t) => {
  const count = 100
  const filler = 'x'.repeat(4 * mebibyte - 1000)
  const manifestAt = (i: number) =>
    `{"schemaVersion":2,"mediaType":"${manifestType}","layers":[],"annotations":{"${i}":"${filler}"}}`
  const parts = Array.from({ length: count }, (_, i) => ({
    mediaType: manifestType,
    digest: digestOf(manifestAt(i)),
    size: 4 * mebibyte,
  }))
  const numbers = new Map(parts.map(({ digest }, i) => [digest, i]))
  const numberIn = (url = '') => numbers.get(url.replace(/.*\//, ''))
  const cache: Script = (request, ...rest) => {
    const i = numberIn(request.url)
    const found = i === undefined ? answer(404) : answer(200, { 'Content-Type': manifestType }, manifestAt(i))
    found(request, ...rest)
  }
  const stored = new Set<number>()
  const hosted: Script = (request, ...rest) => {
    const i = numberIn(request.url)
    const isPut = request.method === 'PUT'
    if (isPut && i !== undefined) stored.add(i)
    const lacks = answer(404, {}, '{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
    const isStored = isPut && (i !== undefined || stored.size === count)
    return (isStored ? answer(201) : isPut ? lacks : answer(404))(request, ...rest)
  }
  const { url, router, close } = await between(cache, hosted)
  const body = JSON.stringify({ schemaVersion: 2, mediaType: indexType, manifests: parts })
  const headers = { 'Content-Type': indexType }
  assert.equal((await send(url, 'PUT', '/v2/a/manifests/1', { headers, body })).status, 201)
  assert.equal(stored.size, count)
  const peak = router.peakMemory() ?? 0
  t.diagnostic(`${way}: peak memory ${peak} MiB`)
  assert.ok(peak < 350, `${peak} MiB`)
  await close()
})
