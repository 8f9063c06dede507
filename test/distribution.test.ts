/**
 * CNCF distribution 3 (Debian has 2.8) as hosted and as the cache: what passes, and what it makes of the trouble of its own hub. Left out,
 * and that is said, without Go. REGISTRY3 names the program, WAY selects the runtime.
 */
import assert from 'node:assert/strict'
import http from 'node:http'
import process from 'node:process'
import { after, before, test } from 'node:test'
import { temporaryFolder } from './parts/children.ts'
import { accept, makeImage, pull, push, send } from './parts/client.ts'
import { distribution3 } from './parts/go.ts'
import { Client, config, perform } from './parts/performs.ts'
import { fromProgram, type Launch, type Registry } from './parts/registries.ts'
import { type Router, startRouter, way } from './parts/router.ts'
import { type Scripted, scripted } from './parts/scripted.ts'

const folder = temporaryFolder()
const program = process.env.REGISTRY3 || (await distribution3(folder, console.error))
const options = { skip: program ? false : 'no CNCF distribution 3' }

/** The codes of statuses: distribution looks at these (distribution-spec 1.1, "Error Codes"). */
const codes: Record<number, string> = {
  401: 'UNAUTHORIZED',
  403: 'DENIED',
  404: 'MANIFEST_UNKNOWN',
  429: 'TOOMANYREQUESTS',
}

let launch: Launch
let hub: Registry
let hosted: Registry
let cache: Registry
let router: Router
/** Stands before the hub. */
let gate: Scripted
/** What the hub does: what it is asked, or this. */
let trouble: number | 'closed' | undefined
const known = makeImage({ 'known.txt': 'known' })
const unknown = makeImage({ 'unknown.txt': 'unknown' })

before(async () => {
  if (!program) return
  launch = fromProgram(program)
  hub = await launch({ name: 'hub', folder })
  hosted = await launch({ name: 'hosted', folder })
  gate = await scripted((request, response) => {
    if (trouble === 'closed') return request.socket.destroy()
    const { port } = new URL(hub.url)
    const { method, url: path, headers } = request
    if (trouble) {
      const body = JSON.stringify({ errors: [{ code: codes[trouble] ?? 'UNKNOWN', message: 'trouble' }] })
      return response.writeHead(trouble, { 'Content-Type': 'application/json' }).end(method === 'HEAD' ? '' : body)
    }
    const asked = http.request({ host: '127.0.0.1', port, method, path, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers)
      answer.pipe(response)
    })
    request.pipe(asked)
  })
  cache = await launch({ name: 'cache', folder, proxyOf: `http://${gate.host}` })
  router = await startRouter(way, { HOSTED_HOSTNAME: hosted.host, PROXY_HOSTNAME: cache.host, LOOKUP_TTL: '0' })
  await push(hub.url, 'library/known', 'v1', known)
  await push(hub.url, 'library/known', 'other', unknown)
  await pull(router.url, 'library/known', 'v1')
})
after(async () => {
  await router?.stop()
  for (const one of [cache, hosted, hub]) await one?.stop()
  await gate?.close()
})

test(
  'as hosted: uploads whole, in chunks, resumed and cancelled, mounts, tags and deletes are as directly',
  options,
  async () => {
    const direct = await launch({ name: 'direct', folder })
    const wanted = await perform(new Client(direct.url), 'team/app', 'team/base')
    assert.deepEqual(await perform(new Client(router.url), 'team/app', 'team/base'), wanted)
    assert.ok(wanted.filter((line) => / 20[0-9]/.test(line)).length > 12, wanted.join('\n'))
    await direct.stop()
  },
)

test('as hosted, with a path: the same', options, async () => {
  const direct = await launch({ name: 'direct-below', folder })
  const below = await launch({ name: 'below', folder })
  const behind = await startRouter(way, { HOSTED_HOSTNAME: `${below.host}/a/b`, PROXY_HOSTNAME: cache.host })
  const wanted = await perform(new Client(direct.url), 'team/app', 'team/base')
  assert.deepEqual(await perform(new Client(behind.url), 'team/app', 'team/base'), wanted)
  assert.equal((await send(below.url, 'HEAD', `/v2/a/b/team/app/blobs/${config.digest}`)).status, 200)
  await behind.stop()
  for (const one of [direct, below]) await one.stop()
})

test(
  'as hosted and as the cache: an image is pushed and pulled, a public one is pulled, and its layers are mounted',
  options,
  async () => {
    const image = makeImage({ 'own.txt': 'own' })
    await push(router.url, 'team/own', 'v1', image)
    assert.equal(await pull(router.url, 'team/own', 'v1'), image.digest)
    assert.equal(await pull(router.url, 'library/known', 'v1'), known.digest)
    const mount = `/v2/team/mounted/blobs/uploads/?mount=${known.blobs[1]?.digest}&from=library/known`
    assert.equal((await send(router.url, 'POST', mount)).status, 201)
    await push(hosted.url, 'team/known', 'v1', known)
  },
)

type Statuses = [cache: number, router: number]
/** What the hub does, and what is said to a tag that the cache has, a tag it lacks, a manifest by digest and a blob it lacks. */
const rows: [trouble: number | 'closed', has: Statuses, lacks: Statuses, digest: Statuses, blob: Statuses][] = [
  [401, [200, 200], [404, 404], [401, 404], [401, 404]],
  [403, [200, 200], [404, 404], [403, 404], [403, 404]],
  [429, [200, 200], [404, 404], [429, 429], [429, 429]],
  [404, [200, 200], [404, 404], [404, 404], [404, 404]],
  [500, [200, 200], [404, 404], [500, 502], [500, 502]],
  [503, [200, 200], [404, 404], [500, 502], [500, 502]],
  ['closed', [200, 200], [404, 404], [500, 502], [500, 502]],
]
for (const [what, ...wanted] of rows) {
  test(
    `its hub says ${what}: a tag that the cache has, and a tag, a digest and a blob that it lacks`,
    options,
    async () => {
      trouble = what
      const statuses = async (path: string): Promise<Statuses> => {
        const get = (url: string) => send(url, 'GET', `/v2/library/known/${path}`, { headers: { Accept: accept } })
        return [(await get(cache.url)).status, (await get(router.url)).status]
      }
      const paths = [
        'manifests/v1',
        'manifests/none',
        `manifests/${unknown.digest}`,
        `blobs/${unknown.blobs[1]?.digest}`,
      ]
      const seen: Statuses[] = []
      for (const path of paths) seen.push(await statuses(path))
      trouble = undefined
      assert.deepEqual(seen, wanted)
    },
  )
}

test('its hub limits: the cache lists the tags that it has, as if there were no other', options, async () => {
  const lists = await startRouter(way, { HOSTED_HOSTNAME: hosted.host, PROXY_HOSTNAME: cache.host, TAGS: 'lookup' })
  const tags = async () => (await send(lists.url, 'GET', '/v2/library/known/tags/list')).json().tags.sort()
  assert.deepEqual(await tags(), ['other', 'v1'])
  trouble = 429
  const seen = await tags()
  trouble = undefined
  assert.deepEqual(seen, ['v1'])
  await lists.stop()
})
