/** Real registries: three public ones with a cache each, a closed one, and hosted, behind one router. WAY selects the runtime. */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { hashSync } from 'bcryptjs'
import { run, temporaryFolder } from './parts/children.ts'
import { accept, makeImage, makeIndex, pathOf, pull, push, send, withDigest } from './parts/client.ts'
import { program } from './parts/packages.ts'
import { findRegistry, type Registry } from './parts/registries.ts'
import { type Router, startRouter, way } from './parts/router.ts'
import { until } from './parts/until.ts'

const skopeo = await program(['skopeo'], 'skopeo', console.error)
if (!skopeo && process.env.CI === 'true') throw new Error('skopeo is missing')
const needsSkopeo = { skip: skopeo ? false : 'SKOPEO IS MISSING: install it to run this test' }

const image = makeImage({ 'a.txt': 'amd64', 'b.txt': 'more' })
const arm = makeImage({ 'a.txt': 'arm64' }, 'arm64')
const index = makeIndex({ amd64: image, arm64: arm })
const hosts = ['docker.io', 'ghcr.io', 'quay.io'] as const
const names = { 'docker.io': 'library/base', 'ghcr.io': 'org/base', 'quay.io': 'org/base' }

let hubs: Registry[]
let caches: Registry[]
let closed: Registry
let hosted: Registry
let router: Router

before(async () => {
  const folder = temporaryFolder()
  const launch = await findRegistry(console.error)
  hubs = []
  caches = []
  for (const host of hosts) {
    const hub = await launch({ name: `hub-${host}`, folder })
    for (const one of [image, arm]) await push(hub.url, names[host], one.digest, one)
    await push(hub.url, names[host], '1', index)
    await push(hub.url, names[host], host, makeImage({ 'own.txt': host }))
    hubs.push(hub)
    caches.push(await launch({ name: `cache-${host}`, folder, proxyOf: hub.url }))
  }
  hosted = await launch({ name: 'hosted', folder })
  await push(hosted.url, 'org/base', 'private', makeImage({ 'own.txt': 'private' }))
  const users = join(folder, 'users')
  writeFileSync(users, `ann:${hashSync('canary-password', 4)}\n`)
  const login = { auth: Buffer.from('ann:canary-password').toString('base64') }
  closed = await launch({ name: 'closed', folder, auth: { htpasswd: { realm: 'closed', path: users } } })
  const authFile = join(folder, 'config.json')
  writeFileSync(authFile, JSON.stringify({ auths: { [closed.host]: login } }))
  const [hub, ghcr, quay] = caches as [Registry, Registry, Registry]
  router = await startRouter(way, {
    HOSTED_HOSTNAME: hosted.host,
    PROXY_HOSTNAME: hub.host,
    AUTH_FILE: authFile,
    PROXIES: `ghcr.io=${ghcr.host}, quay.io=${quay.host}, closed.example=${closed.host}`,
  })
})
after(async () => {
  await router?.stop()
  for (const one of [...(hubs ?? []), ...(caches ?? []), closed, hosted]) await one?.stop()
})

/** How clients name an image of a registry: before it, or by ns. */
const targets = (host: (typeof hosts)[number], reference: string) => [
  `/v2/${host}/${names[host]}/manifests/${reference}`,
  `/v2/${names[host]}/manifests/${reference}?ns=${host}`,
  `/v2/${host}/${names[host]}/manifests/${reference}?ns=${host}`,
]
const digestAt = async (target: string) => {
  const { status, headers } = await send(router.url, 'HEAD', target, { headers: { Accept: accept } })
  return status === 200 ? headers['docker-content-digest'] : status
}

test('each registry serves its own images, by prefix and by ns; none serves those of another', async () => {
  for (const host of hosts) {
    for (const target of targets(host, '1')) assert.equal(await digestAt(target), index.digest, target)
    for (const own of hosts) {
      for (const target of targets(host, own)) {
        assert.equal(await digestAt(target), own === host ? makeImage({ 'own.txt': host }).digest : 404, target)
      }
    }
    assert.equal(await pull(router.url, `${host}/${names[host]}`, '1'), index.digest)
    for (const target of targets(host, 'private')) assert.equal(await digestAt(target), 404, 'hosted is not asked')
  }
  assert.notEqual(await digestAt('/v2/org/base/manifests/private'), 404)
})

test('tags and referrers are those of the registry that the name is of', async () => {
  for (const host of hosts) {
    const { status, json } = await send(router.url, 'GET', `/v2/${host}/${names[host]}/tags/list`)
    assert.deepEqual([status, json().tags.sort()], [200, ['1', host].sort()])
    const referrers = await send(router.url, 'GET', `/v2/${host}/${names[host]}/referrers/${index.digest}`)
    // distribution 2.8 lacks the API, and the answer for a registry without it is 404.
    assert.ok([200, 404].includes(referrers.status))
  }
})

test('a base of ghcr.io is mounted into hosted with nothing uploaded; a push to ghcr.io itself is refused', async () => {
  for (const { digest } of image.blobs) {
    const target = `/v2/team/new/blobs/uploads/?mount=${digest}&from=ghcr.io/org/base`
    assert.equal((await send(router.url, 'POST', target)).status, 201)
    assert.equal((await send(hosted.url, 'HEAD', `/v2/team/new/blobs/${digest}`)).status, 200)
  }
  const refused = await send(router.url, 'PUT', '/v2/ghcr.io/org/base/manifests/2', { body: image.manifest })
  assert.equal(refused.status, 405)
})

test('a closed public registry is read with the login of AUTH_FILE', async () => {
  const own = { Authorization: `Basic ${Buffer.from('ann:canary-password').toString('base64')}` }
  for (const { digest, content } of image.blobs) {
    const opened = await send(closed.url, 'POST', '/v2/org/app/blobs/uploads/', { headers: own })
    const path = withDigest(pathOf(opened), digest)
    assert.equal((await send(closed.url, 'PUT', path, { headers: own, body: content })).status, 201)
  }
  const headers = { ...own, 'Content-Type': image.mediaType }
  const put = await send(closed.url, 'PUT', '/v2/org/app/manifests/1', { headers, body: image.manifest })
  assert.equal(put.status, 201)
  assert.equal(await pull(router.url, 'closed.example/org/app', '1'), image.digest)
})

test('skopeo copies from each of them into hosted', needsSkopeo, async () => {
  for (const host of hosts) {
    const [from, to] = [`${host}/${names[host]}:1`, `team/${host.split('.')[0]}:1`]
    const flags = ['--src-tls-verify=false', '--dest-tls-verify=false', '--all']
    await run(['skopeo', 'copy', ...flags, `docker://${router.host}/${from}`, `docker://${router.host}/${to}`])
    assert.equal(await pull(hosted.url, to.slice(0, -2), '1'), index.digest)
  }
})

test('the caches are killed in turn: the other registries and hosted fail no pull and wait for nothing', async () => {
  for (const [at, dead] of hosts.entries()) {
    await caches[at]?.stop()
    const before = performance.now()
    for (let round = 0; round < 5; round++) {
      for (const host of hosts.filter((one) => one !== dead)) {
        for (const target of targets(host, host)) assert.notEqual(typeof (await digestAt(target)), 'number', target)
      }
      // With the default registry down, a name that only hosted has is still found.
      assert.notEqual(typeof (await digestAt('/v2/org/base/manifests/private')), 'number')
      for (const target of targets(dead, `new-${round}`)) assert.equal(await digestAt(target), 502, target)
    }
    // Each of the questions would wait 15 s.
    assert.ok(performance.now() - before < 60_000)
    await caches[at]?.start()
    // It is skipped until a read succeeds, and one read every 1 to 30 s is tried.
    await until(`${dead} to be asked again`, async () => (await digestAt(targets(dead, dead)[0] as string)) !== 502)
  }
})
