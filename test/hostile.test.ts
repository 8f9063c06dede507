/** Two thousand generated requests: none reaches an upstream outside the grammar. WAY selects the runtime. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { type Reply, send } from './parts/client.ts'
import { allowed, method, path } from './parts/requests.ts'
import { type Router, startRouter, way } from './parts/router.ts'
import { answer, type Scripted, scripted } from './parts/scripted.ts'

let proxy: Scripted
let hosted: Scripted
let router: Router

before(async () => {
  proxy = await scripted(answer(404))
  hosted = await scripted(answer(404))
  router = await startRouter(way, { PROXY_HOSTNAME: proxy.host, HOSTED_HOSTNAME: hosted.host })
})
after(async () => {
  await router.stop('SIGKILL')
  await proxy.close()
  await hosted.close()
})

const oddHeaders = fc.constantFrom<Record<string, string>>(
  {},
  { Host: 'evil.example' },
  { 'X-Forwarded-Host': 'evil.example', Forwarded: 'host=evil.example' },
  { Authorization: `Bearer ${'t'.repeat(14_000)}` },
  { Connection: 'close, authorization, x-y' },
  { Accept: ','.repeat(500) },
  { Range: 'bytes=0-,-1,5-2' },
  { Expect: '100-continue' },
  { 'X-Latin': 'é\xff' },
  { TE: 'trailers', Upgrade: 'h2c', 'Keep-Alive': 'timeout=1' },
)

test('2,000 generated requests: no crash, no 5xx, every refusal is an OCI error, nothing outside the grammar goes upstream', async () => {
  const before = { proxy: proxy.requests.length, hosted: hosted.requests.length }
  const property = fc.asyncProperty(method, path, oddHeaders, async (method, path, headers) => {
    // Remove what no client can send: a space ends the target, and Node refuses what is not Latin-1.
    const target = path.replace(/[^\x21-\x7e]/g, '')
    const reply = await send(router.url, method, target, { headers }).catch((error: Error): Reply | undefined => {
      if (/Parse Error|hang up|ECONNRESET/.test(error.message)) return undefined
      throw error
    })
    // A server may close the connection if the bytes are not HTTP.
    if (!reply) return
    const { status, body } = reply
    // /v2/ asks both registries. Both answer 404 here, so it is 503.
    const expected = [200, 301, 400, 404, 405, 431, ...(/^\/v2\/($|[?#])/.test(target) ? [503] : [])]
    assert.ok(expected.includes(status), `${method} ${target}: ${status} ${body}`)
    assert.ok(!/127\.0\.0\.1|evil/.test(body.toString()), 'an address is told')
    if (method !== 'HEAD' && reply.headers['docker-distribution-api-version'] && [400, 405].includes(status)) {
      assert.equal(reply.headers['content-type'], 'application/json')
      assert.ok(reply.json().errors[0].code)
    }
  })
  await fc.assert(property, { numRuns: 2000 })
  const asked = [...proxy.requests.slice(before.proxy), ...hosted.requests.slice(before.hosted)]
  assert.ok(asked.length > 200, `only ${asked.length} requests reached an upstream: nothing is proved`)
  for (const { target, headers } of asked) {
    assert.match(target.replace(/\?.*$/, ''), allowed)
    assert.ok(!JSON.stringify(headers).includes('evil'))
  }
  for (const { headers } of proxy.requests) assert.equal(headers.authorization, undefined)
  assert.equal((await send(router.url, 'GET', '/livez')).status, 200)
  assert.deepEqual(router.odd(), [])
})
