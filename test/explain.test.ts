/** Why an image comes from its registry: GET /explain, and `explain` on the command line. WAY selects the runtime. */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { hashSync } from 'bcryptjs'
import { between, closeAll } from './parts/between.ts'
import { start, temporaryFolder } from './parts/children.ts'
import { accept, digestOf, makeImage, pull, push, send } from './parts/client.ts'
import { findRegistry, type Registry } from './parts/registries.ts'
import { type Router, root, startRouter, way, ways } from './parts/router.ts'
import { answer } from './parts/scripted.ts'
import { until } from './parts/until.ts'

let hub: Registry
let cache: Registry
let hosted: Registry
let router: Router
const publicImage = makeImage({ 'a.txt': 'public' })
const ownImage = makeImage({ 'a.txt': 'own' })
const folder = temporaryFolder()

before(async () => {
  const launch = await findRegistry(console.error)
  hub = await launch({ name: 'hub', folder })
  hosted = await launch({ name: 'hosted', folder })
  cache = await launch({ name: 'cache', folder, proxyOf: hub.url })
  for (const name of ['library/app', 'acme/app']) {
    await push(hub.url, name, 'latest', publicImage)
    await push(hosted.url, name, 'latest', ownImage)
  }
  await push(hosted.url, 'team/app', '1.0', ownImage)
  router = await startReal()
})
after(async () => {
  await closeAll()
  await router?.stop()
  for (const registry of [hub, cache, hosted]) await registry?.stop()
})

const startReal = (environment: Record<string, string> = {}) =>
  startRouter(way, { HOSTED_HOSTNAME: hosted.host, PROXY_HOSTNAME: cache.host, ...environment })
const explain = async (url: string, image: string, more = '') =>
  (await send(url, 'GET', `/explain?image=${encodeURIComponent(image)}${more}`)).json()
const verdictsOf = ({ registries }: { registries: Record<string, unknown>[] }) =>
  registries.map(({ upstream, verdict, status, digest }) => [upstream, verdict, status, digest])

test("a private image: the rule, the order, each registry's verdict, what memory held, and which registry wins", async () => {
  const { url, stop } = await startReal()
  const first = await explain(url, 'team/app:1.0')
  assert.deepEqual([first.rule, first.order], ['LOOKUP_ORDER=proxy-first', ['proxy', 'hosted']])
  assert.deepEqual(verdictsOf(first), [
    ['proxy', 'absent', 404, undefined],
    ['hosted', 'found', 200, ownImage.digest],
  ])
  assert.ok(first.registries.every(({ milliseconds }: { milliseconds: unknown }) => Number.isInteger(milliseconds)))
  assert.deepEqual(first.answer, { status: 200, by: 'hosted', digest: ownImage.digest })
  assert.deepEqual([first.memory, first.shadowed], [{}, undefined])
  const again = await explain(url, 'registry.example:80/team/app:1.0')
  assert.deepEqual([again.memory, verdictsOf(again)], [{}, verdictsOf(first)], 'explaining changes nothing')
  await pull(url, 'team/app', '1.0')
  const pulled = await explain(url, 'team/app:1.0')
  assert.equal(pulled.memory.manifest, 'hosted', 'the tag that is kept')
  assert.deepEqual(
    verdictsOf(pulled).sort(),
    verdictsOf(first).sort(),
    'each registry is asked without a condition, so none says 304',
  )
  await pull(url, 'team/app', ownImage.digest)
  assert.equal((await explain(url, `team/app@${ownImage.digest}`)).memory.first, 'hosted')
  await stop()
})

test('a manifest in memory: /explain says which registry it came from', async () => {
  const { url, stop } = await startReal()
  const path = `/v2/team/app/manifests/${ownImage.digest}`
  await send(url, 'GET', path, { headers: { Accept: accept } })
  const { memory, answer } = await explain(url, `team/app@${ownImage.digest}`)
  assert.deepEqual([memory.manifest, answer.by], ['hosted', 'hosted'])
  await stop()
})

test('what a tag shadows is found without Docker-Content-Digest too, which not every registry sends', async () => {
  const type = { 'Content-Type': 'application/vnd.oci.image.manifest.v1+json' }
  const [own, other] = ['{"schemaVersion":2}', '{"schemaVersion":2,"layers":[]}']
  for (const [hosted, wanted] of [
    [other, digestOf(other)],
    [own, undefined],
  ] as const) {
    const silent = await between(answer(200, type, own), answer(200, type, hosted))
    const explained = await explain(silent.url, 'library/app:latest')
    assert.deepEqual([explained.answer.digest, explained.shadowed?.digest], [digestOf(own), wanted])
    await silent.close()
  }
})

test('both registries have the tag with different content: which one wins, what it shadows, and the setting that decides', async () => {
  const image = await explain(router.url, 'library/app')
  assert.equal(image.answer.by, 'proxy')
  assert.deepEqual(image.shadowed, {
    upstream: 'hosted',
    digest: ownImage.digest,
    because: "LOOKUP_ORDER=proxy-first; HOSTED_NAMES=library/app makes it hosted's alone",
  })
  const hostedFirst = await startReal({ LOOKUP_ORDER: 'hosted-first' })
  const { answer, shadowed } = await explain(hostedFirst.url, 'library/app:latest')
  assert.deepEqual([answer.by, shadowed.upstream, shadowed.digest], ['hosted', 'proxy', publicImage.digest])
  assert.equal(shadowed.because, 'LOOKUP_ORDER=hosted-first')
  await hostedFirst.stop()
})

test('a name in HOSTED_NAMES: the proxy is not asked, and /explain says so', async () => {
  const router = await between(answer(500), answer(404), { HOSTED_NAMES: 'acme/**' })
  const { rule, order, notAsked, answer: given } = await explain(router.url, 'acme/app')
  assert.deepEqual([rule, order, notAsked.upstream], ['HOSTED_NAMES claims this name', ['hosted'], 'proxy'])
  assert.deepEqual([given.status, given.error.code], [404, 'MANIFEST_UNKNOWN'])
  assert.equal(router.proxy.requests.length, 0)
  await router.close()
})

test('the cache is down or limits the rate: /explain gives this verdict, and what a client gets', async () => {
  const router = await between(answer(404), answer(404))
  for (const [status, verdict, wanted] of [
    [503, 'failed', 502],
    [429, 'limited', 429],
  ] as const) {
    router.now.proxy = answer(status)
    const { registries, answer: given } = await explain(router.url, 'library/app')
    assert.deepEqual([registries[0].verdict, given.status, given.by], [verdict, wanted, undefined])
  }
  await router.close()
})

test('a request with ?ns= is explained too', async () => {
  const { order, notAsked } = await explain(router.url, 'library/app', '&ns=docker.io')
  assert.deepEqual([order, notAsked.reason], [['proxy'], 'ns names docker.io'])
})

test('an invalid image is 400', async () => {
  for (const image of ['', 'UPPER/app', 'team/app@sha256:1', 'team/app:bad tag', '../x']) {
    const reply = await send(router.url, 'GET', `/explain?image=${encodeURIComponent(image)}`)
    assert.equal(reply.status, 400, image)
  }
})

test('a long invalid image is refused in linear time, so that it holds up no other client', async () => {
  const tookMs = async (image: string) => {
    const started = performance.now()
    assert.equal((await send(router.url, 'GET', `/explain?image=${image}%0A`)).status, 400)
    return performance.now() - started
  }
  const [plainMs, hostileMs] = [await tookMs('A'.repeat(60_000)), await tookMs('@'.repeat(60_000))]
  assert.ok(hostileMs < 500 + 20 * plainMs, `${hostileMs} ms, ${plainMs} ms for letters`)
})

test('with HTPASSWD_FILE, /explain needs the login of a user who may push', async () => {
  const file = join(folder, 'users')
  writeFileSync(file, ['ann', 'bob'].map((user) => `${user}:${hashSync(user, 4)}\n`).join(''))
  const { url, stop } = await startReal({ HTPASSWD_FILE: file, ANONYMOUS_PULL: 'true', PUSH_USERS: 'ann' })
  const status = async (login?: string) => {
    const headers = login ? { Authorization: `Basic ${Buffer.from(login).toString('base64')}` } : {}
    return (await send(url, 'GET', '/explain?image=team/app:1.0', { headers })).status
  }
  assert.deepEqual([await status(), await status('bob:bob'), await status('ann:ann')], [401, 403, 200])
  await stop()
})

test("hosted checks the logins: /explain passes hosted's challenge on, and sends the login to hosted only", async () => {
  const found = answer(200, { 'Content-Length': 2 }, '{}')
  const router = await between(found, (request, response, recorded) => {
    const script = request.headers.authorization ? found : answer(401, { 'WWW-Authenticate': 'Basic realm="team"' })
    script(request, response, recorded)
  })
  const refused = await send(router.url, 'GET', '/explain?image=team/app')
  assert.deepEqual([refused.status, refused.headers['www-authenticate']], [401, 'Basic realm="team"'])
  assert.equal(router.proxy.requests.length, 0)
  const headers = { Authorization: 'Basic canary' }
  assert.equal((await send(router.url, 'GET', '/explain?image=team/app', { headers })).status, 200)
  assert.ok(!JSON.stringify(router.proxy.requests).includes('canary'))
  router.now.hosted = answer(403)
  await until('hosted to be asked again, and to deny it', async () => {
    return (await send(router.url, 'GET', '/explain?image=team/app', { headers })).status === 403
  })
  await router.close()
})

test('on the command line: one line for each fact, exit code 0; an invalid image, exit code 1', async () => {
  const hosts = { AGGREGATE_HOSTNAME: 'registry.example', HOSTED_HOSTNAME: hosted.host, PROXY_HOSTNAME: cache.host }
  const run = async (...words: string[]) => {
    const child = start([...ways[way], 'explain', ...words], { cwd: root, env: hosts })
    return { code: await child.ended, text: child.lines.join('\n') }
  }
  const { code, text } = await run('library/app:latest')
  assert.equal(code, 0, text)
  assert.match(text, /^library\/app:latest$/m)
  assert.match(text, /^ {2}rule +LOOKUP_ORDER=proxy-first: proxy, then hosted$/m)
  assert.match(text, new RegExp(`^  hosted +found  200  ${ownImage.digest}  \\d+ ms$`, 'm'))
  assert.match(text, new RegExp(`^  answer +200 from proxy  ${publicImage.digest}$`, 'm'))
  assert.match(text, new RegExp(`^  shadowed +hosted's ${ownImage.digest}, because LOOKUP_ORDER`, 'm'))
  assert.equal((await run('UPPER')).code, 1)
  assert.deepEqual(await run(), { code: 1, text: 'combined-registry: explain wants an IMAGE: see --help' })
  assert.match((await run(`team/nothing@${digestOf('no')}`)).text, /^ {2}answer +404 /m)
  hosts.HOSTED_HOSTNAME = '127.0.0.1:1'
  assert.match(
    (await run('team/app:1')).text,
    /warn no usable answer upstream=hosted .*cause=/,
    'why, as the log has it',
  )
})
