/** A private pull does not wait for the public registry: which names it lacks is known. WAY selects the runtime. */
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { type Between, between, closeAll } from './parts/between.ts'
import { temporaryFolder } from './parts/children.ts'
import { accept, digestOf, makeImage, push, type Reply, send } from './parts/client.ts'
import { farAway } from './parts/distance.ts'
import { findRegistry, type Registry } from './parts/registries.ts'
import { startRouter, way } from './parts/router.ts'
import { answer, type Script } from './parts/scripted.ts'
import { until } from './parts/until.ts'

let hub: Registry
let cache: Registry
let hosted: Registry
let far: Awaited<ReturnType<typeof farAway>>
const folder = temporaryFolder()
const ownImage = makeImage({ 'a.txt': 'own' })
const publicImage = makeImage({ 'a.txt': 'public' })

before(async () => {
  const launch = await findRegistry(console.error)
  hub = await launch({ name: 'hub', folder })
  far = await farAway(hub.host)
  cache = await launch({ name: 'cache', folder, proxyOf: far.url })
  hosted = await launch({ name: 'hosted', folder })
})
after(async () => {
  await closeAll()
  for (const registry of [hub, cache, hosted]) await registry?.stop()
})

const startReal = (environment: Record<string, string> = {}) =>
  startRouter(way, { HOSTED_HOSTNAME: hosted.host, PROXY_HOSTNAME: cache.host, ...environment })
const get = (url: string, path: string, method = 'GET') => send(url, method, path, { headers: { Accept: accept } })
const digestIn = ({ headers }: Reply) => headers['docker-content-digest']

const type = 'application/vnd.oci.image.manifest.v1+json'
const manifestOf = (what: string) => JSON.stringify({ schemaVersion: 2, mediaType: type, annotations: { what } })
const absent = answer(404)

/** A registry that has a manifest for each of these tags, in every name of `names`, and says so in its lists. */
const having =
  (who: string, names: string, tags: readonly string[]): Script =>
  (...given) => {
    const [, name = '', kind, reference = ''] =
      /^\/v2\/(?:(.+)\/(manifests|tags|blobs)\/([^?]+))?/.exec(given[0].url ?? '') ?? []
    if (!name) return answer(200, {}, '{}')(...given)
    if (!name.startsWith(names)) return absent(...given)
    if (kind === 'tags') return answer(200, {}, JSON.stringify({ name, tags }))(...given)
    const content = kind === 'blobs' ? who : manifestOf(`${who} ${reference}`)
    const isThere = kind === 'blobs' ? reference === digestOf(who) : tags.includes(reference)
    const fields = { 'Content-Type': type, 'Content-Length': content.length, ETag: `"${digestOf(content)}"` }
    return isThere ? answer(200, fields, content)(...given) : absent(...given)
  }

/** A public registry that is well, and has nothing of ours. */
const nothing = having('proxy', 'library/', ['1'])

/** What the proxy was asked since the last call, without its `/v2/`. */
const asked = ({ proxy }: Between) =>
  proxy.requests.splice(0).flatMap(({ target }) => (target === '/v2/' ? [] : [target.replace(/^\/v2\//, '')]))

/** Asks for a tag that only hosted has until the name is known as hosted's alone. */
async function untilKnown(router: Between, name: string): Promise<void> {
  await until('the name to be known', async () => {
    const { memory } = (await send(router.url, 'GET', `/explain?image=${name}:1`)).json()
    if (!memory.name) await get(router.url, `/v2/${name}/manifests/1`)
    return memory.name?.state === 'lacking'
  })
  asked(router)
}

/** One router for the tests without settings of their own; each has names of its own. */
let sharedRouter: Between | undefined
let names = 0
async function shared(proxy: Script, hosted: Script) {
  sharedRouter ??= await between(proxy, hosted, { NAME_TTL: '3600' })
  Object.assign(sharedRouter.now, { proxy, hosted })
  asked(sharedRouter)
  return { router: sharedRouter, name: `team/app-${names++}` }
}

test('hosted serves a name: the list of its tags is asked for once; new tags are hosted at once, and nobody asks for them', async () => {
  const { router, name } = await shared(nothing, having('hosted', 'team/', ['1', '2', '3']))
  await get(router.url, `/v2/${name}/manifests/1`)
  await until('the list to be asked for', () => router.proxy.requests.length > 1)
  assert.deepEqual(asked(router), [`${name}/manifests/1`, `${name}/tags/list?n=1`])
  await untilKnown(router, name)
  for (const path of ['manifests/2', 'manifests/3', `blobs/${digestOf('hosted')}`]) {
    assert.equal((await get(router.url, `/v2/${name}/${path}`)).status, 200)
  }
  assert.deepEqual(asked(router), [])
  const metrics = (await get(router.url, '/metrics')).body.toString()
  assert.match(metrics, /^registry_router_memory_total\{kind="name",outcome="hit"\} [1-9]/m)
})

test('what hosted lacks in a known name is asked of the public registry before a 404; what it then has ends the knowledge', async () => {
  const has = having('hosted', 'team/', ['1', 'both'])
  const { router, name } = await shared(nothing, has)
  await untilKnown(router, name)
  assert.equal((await get(router.url, `/v2/${name}/manifests/new`)).status, 404)
  assert.deepEqual(asked(router), [`${name}/manifests/new`])
  router.now.proxy = having('proxy', 'team/', ['new', 'both'])
  assert.equal((await get(router.url, `/v2/${name}/manifests/both`)).body.toString(), manifestOf('hosted both'))
  assert.equal((await get(router.url, `/v2/${name}/manifests/new`)).body.toString(), manifestOf('proxy new'))
  assert.equal((await get(router.url, `/v2/${name}/manifests/both`)).body.toString(), manifestOf('proxy both'))
})

test('a layer that is mounted from a known name shows that the public registry has the name', async () => {
  const served = having('hosted', 'team/', ['1'])
  const { router, name } = await shared(nothing, served)
  await untilKnown(router, name)
  router.now.proxy = having('proxy', 'team/', [])
  const session = '/v2/team/new/blobs/uploads/1'
  router.now.hosted = (...given) => {
    const status = { POST: 202, PUT: 201 }[given[0].method ?? '']
    return status ? answer(status, { Location: session })(...given) : served(...given)
  }
  const mount = `/v2/team/new/blobs/uploads/?mount=${digestOf('proxy')}&from=${name}`
  assert.equal((await send(router.url, 'POST', mount)).status, 201)
  const { memory } = (await send(router.url, 'GET', `/explain?image=${name}:1`)).json()
  assert.equal(memory.name.state, 'public')
})

test('both registries have a name: the order of the table holds for every tag, in every order of questions', async () => {
  const { router } = await shared(having('proxy', 'team/', ['p', 'both']), having('hosted', 'team/', ['h', 'both']))
  const wanted: Record<string, string> = { p: 'proxy p', h: 'hosted h', both: 'proxy both' }
  const tags = Object.keys(wanted)
  const orders = tags.flatMap((a) => tags.flatMap((b) => tags.flatMap((c) => tags.map((d) => [a, b, c, d]))))
  await Promise.all(
    orders.map(async (order, at) => {
      for (const [turn, tag] of order.entries()) {
        const reply = await get(router.url, `/v2/team/order-${at}/manifests/${tag}`, turn % 3 === 1 ? 'HEAD' : 'GET')
        const digest = digestOf(manifestOf(wanted[tag] as string))
        assert.equal(reply.headers.etag, `"${digest}"`, `${order} ${turn}`)
      }
    }),
  )
  const lists = asked(router).filter((target) => target.includes('/tags/'))
  assert.equal(new Set(lists).size, lists.length, 'each list once')
})

test('a public registry that keeps its lists closed is believed for LOOKUP_TTL at most, and for a tag only until it was asked', async () => {
  const closed = having('proxy', 'team/', ['p', 'both'])
  const router = await between(
    (...given) => (given[0].url?.includes('/tags/') ? answer(401) : closed)(...given),
    having('hosted', 'team/', ['h', 'both']),
    { NAME_TTL: '3600', LOOKUP_TTL: '3600' },
  )
  const read = async (tag: string) => (await get(router.url, `/v2/team/app/manifests/${tag}`)).body.toString()
  await until('hosted to be believed', async () => {
    await read('h')
    const { memory } = (await send(router.url, 'GET', '/explain?image=team/app:x')).json()
    return memory.name?.state === 'closed'
  })
  assert.equal(await read('both'), manifestOf('hosted both'))
  await until('the order of the table', async () => (await read('both')) === manifestOf('proxy both'))
  for (const tag of ['h', 'both', 'h', 'both']) {
    assert.equal(await read(tag), manifestOf(tag === 'h' ? 'hosted h' : 'proxy both'))
  }
  await router.close()
})

test('a 404 to the list from what is no registry, or while it fails, is not believed', async () => {
  const balancer = answer(404, { 'Content-Type': 'text/plain' }, 'no backend')
  const router = await between(
    (...given) => (given[0].url?.includes('/manifests/') ? absent : balancer)(...given),
    having('hosted', 'team/', ['1', '2']),
    { NAME_TTL: '3600' },
  )
  await get(router.url, '/v2/team/app/manifests/1')
  await until('its /v2/ to be asked for', () => router.proxy.requests.some(({ target }) => target === '/v2/'))
  asked(router)
  await get(router.url, '/v2/team/app/manifests/2')
  assert.deepEqual(asked(router), ['team/app/manifests/2'])
  await router.close()
})

for (const setting of ['NAME_TTL', 'LOOKUP_TTL']) {
  test(`${setting}=0: no list is asked for, and every new tag is asked of the public registry`, async () => {
    const router = await between(absent, having('hosted', 'team/', ['1', '2']), { NAME_TTL: '3600', [setting]: '0' })
    for (const tag of ['1', '2']) await get(router.url, `/v2/team/app/manifests/${tag}`)
    assert.deepEqual(asked(router), ['team/app/manifests/1', 'team/app/manifests/2'])
    await router.close()
  })
}

test("a cache whose hub was down says that it lacks a name that the hub has: hosted's image is given until NAME_TTL is over", async () => {
  for (const tag of ['1', '2', '3']) {
    await push(hosted.url, 'mirror/both', tag, ownImage)
    await push(hub.url, 'mirror/both', tag, publicImage)
  }
  await hub.stop()
  const router = await startReal({ NAME_TTL: '3', LOOKUP_TTL: '1' })
  const without = await startReal({ NAME_TTL: '0', LOOKUP_TTL: '1' })
  const winner = async ({ url }: { url: string }, tag: string) =>
    digestIn(await get(url, `/v2/mirror/both/manifests/${tag}`))
  for (const one of [router, without]) assert.equal(await winner(one, '1'), ownImage.digest)
  await until('the cache to be believed', async () => {
    const { memory } = (await send(router.url, 'GET', '/explain?image=mirror/both:1')).json()
    return memory.name?.state === 'lacking'
  })
  await hub.start()
  assert.equal(await winner(without, '2'), publicImage.digest, 'NAME_TTL=0 ends it')
  assert.equal(await winner(router, '3'), ownImage.digest)
  await until('the order of the table', async () => (await winner(router, '3')) === publicImage.digest)
  assert.equal(await winner(router, '2'), publicImage.digest)
  for (const { stop } of [router, without]) await stop()
})

const rounds = 3
const median = (values: number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] as number
const msOf = async (url: string, path: string) => {
  const started = performance.now()
  assert.equal((await get(url, path)).status, 200)
  return performance.now() - started
}

test('with the hub far away a private manifest after a pause, and one of a new tag, do not wait for it', async () => {
  far.delay.milliseconds = 300
  const tags = Array.from({ length: rounds + 1 }, (_, i) => `v${i}`)
  for (const name of ['team/paused', 'team/deployed']) {
    for (const tag of tags) await push(hosted.url, name, tag, ownImage)
  }
  const first = tags[0] as string
  const pathOf = (name: string, tag: string) => `/v2/team/${name}/manifests/${tag}`
  // Without NAME_TTL, so that the tag's own hint is seen.
  const paused = await startReal({ NAME_TTL: '0', LOOKUP_TTL: '0.5' })
  const deployed = await startReal()
  const waited = { paused: await msOf(paused.url, pathOf('paused', first)), deployed: 0 }
  waited.deployed = await msOf(deployed.url, pathOf('deployed', first))
  await until('the name to be known', async () => {
    const { memory } = (await send(deployed.url, 'GET', '/explain?image=team/deployed:x')).json()
    return memory.name?.state === 'lacking'
  })
  const more: Record<string, number[]> = { paused: [], deployed: [] }
  for (const tag of tags.slice(1)) {
    const since = performance.now()
    await until('LOOKUP_TTL to be over', () => performance.now() - since > 600)
    const directMs = await msOf(hosted.url, pathOf('paused', first))
    more.paused?.push((await msOf(paused.url, pathOf('paused', first))) - directMs)
    more.deployed?.push((await msOf(deployed.url, pathOf('deployed', tag))) - directMs)
  }
  for (const [what, differences] of Object.entries(more)) {
    const difference = median(differences)
    console.error(`${way}: ${what}, ${Math.round(difference)} ms longer; the first took ${JSON.stringify(waited)}`)
    assert.ok(difference < 300, `${what}: ${differences.map(Math.round)}`)
  }
  assert.ok(Math.min(...Object.values(waited)) > 1000, 'the first waits for the hub')
  far.delay.milliseconds = 0
  for (const { stop } of [paused, deployed]) await stop()
})
