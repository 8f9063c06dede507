/**
 * Kills registries and clients at random points of a transfer: nothing that looks complete is wrong, and nothing
 * partial is stored. KILLS is the number of kills, SEED sets the random points, WAY selects the runtime.
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { after, before, test } from 'node:test'
import { temporaryFolder } from './parts/children.ts'
import { answerOf, digestOfStream, download, noise, open, pathOf, pushBlob, send, withDigest } from './parts/client.ts'
import { createRandom } from './parts/random.ts'
import { findRegistry, type Registry } from './parts/registries.ts'
import { type Router, startRouter, way } from './parts/router.ts'

const kills = Number(process.env.KILLS ?? 15)
const seed = Number(process.env.SEED ?? Date.now() % 1_000_000)
const random = createRandom(seed)
const bytes = 16 * 1024 * 1024

let hub: Registry
let cache: Registry
let hosted: Registry
let router: Router

before(async () => {
  const folder = temporaryFolder()
  const launch = await findRegistry(() => {})
  hub = await launch({ name: 'hub', folder })
  cache = await launch({ name: 'cache', folder, proxyOf: hub.url })
  hosted = await launch({ name: 'hosted', folder })
  router = await startRouter(way, { HOSTED_HOSTNAME: hosted.host, PROXY_HOSTNAME: cache.host })
})
after(async () => {
  await router?.stop('SIGKILL')
  for (const registry of [hub, cache, hosted]) await registry?.stop()
})

const outcomes = { whole: 0, broken: 0, refused: 0 }

/** Pulls a blob, and calls `kill` after `killAtByte` bytes. A pull that ends normally must have the right digest. */
async function pullThrough(
  path: string,
  digest: string,
  killAtByte: number,
  kill: (answer: IncomingMessage) => unknown,
) {
  const request = open(router.url, 'GET', path)
  request.end()
  const hash = createHash('sha256')
  let receivedBytes = 0
  let dying: unknown
  try {
    const answer = await answerOf(request)
    for await (const chunk of answer) {
      hash.update(chunk)
      receivedBytes += chunk.length
      if (receivedBytes >= killAtByte) dying ??= kill(answer)
    }
    await dying
    if (answer.statusCode !== 200) return 'refused'
    assert.equal(
      `sha256:${hash.digest('hex')}`,
      digest,
      `a pull that looked whole was wrong after ${receivedBytes} bytes`,
    )
    return 'whole'
  } catch (error) {
    await dying
    if ((error as Error).name === 'AssertionError') throw error
    return 'broken'
  }
}

/** Uploads a blob in one PUT, and calls `kill` after `killAtByte` bytes. `allSent`: the client sent every byte. */
async function pushThrough(
  digest: string,
  blobSeed: number,
  killAtByte: number,
  sized: boolean,
  kill: (die: () => void) => unknown,
) {
  const session = await send(router.url, 'POST', '/v2/team/kills/blobs/uploads/')
  const headers = { 'Content-Type': 'application/octet-stream', ...(sized ? { 'Content-Length': bytes } : {}) }
  const request = open(router.url, 'PUT', withDigest(pathOf(session), digest), headers)
  const answered = answerOf(request).then(
    (answer) => answer.resume().statusCode,
    () => undefined,
  )
  let sentBytes = 0
  let dying: unknown
  for await (const chunk of noise(bytes, blobSeed)) {
    if (request.destroyed) break
    if (sentBytes >= killAtByte) dying ??= kill(() => request.destroy())
    const flowing = request.write(chunk)
    sentBytes += chunk.length
    if (!flowing && !request.destroyed) {
      await new Promise<void>((resolve) => {
        for (const event of ['drain', 'close', 'error']) request.once(event, () => resolve())
      })
    }
  }
  const allSent = sentBytes === bytes && !request.destroyed
  if (allSent) request.end()
  const status = await answered
  await dying
  return { allSent, status }
}

test(`${kills} kills (SEED=${seed}): no wrong digest, nothing partial is stored, no crash`, async (t) => {
  const stored = { team: await digestOfStream(noise(bytes, 1)), public: await digestOfStream(noise(bytes, 2)) }
  assert.equal((await pushBlob(hosted.url, 'team/kills', stored.team, noise(bytes, 1))).status, 201)
  assert.equal((await pushBlob(hub.url, 'public/kills', stored.public, noise(bytes, 2))).status, 201)
  for (let i = 0; i < kills; i++) {
    const killAtByte = Math.floor(random() * bytes)
    const killsClient = random() < 0.5
    if (random() < 0.5) {
      const name = random() < 0.5 ? 'team' : 'public'
      const registry = name === 'team' ? hosted : cache
      const kill = (answer: IncomingMessage) => (killsClient ? answer.destroy() : registry.stop('SIGKILL'))
      const outcome = await pullThrough(`/v2/${name}/kills/blobs/${stored[name]}`, stored[name], killAtByte, kill)
      outcomes[outcome]++
      if (!killsClient) await registry.start()
    } else {
      const blobSeed = 3 + (i % 250)
      const digest = await digestOfStream(noise(bytes, blobSeed))
      const blob = `/v2/team/kills/blobs/${digest}`
      await send(hosted.url, 'DELETE', blob)
      const kill = (die: () => void) => (killsClient ? die() : hosted.stop('SIGKILL'))
      const { allSent, status } = await pushThrough(digest, blobSeed, killAtByte, random() < 0.5, kill)
      if (!killsClient) await hosted.start()
      const isStored = (await send(hosted.url, 'HEAD', blob)).status === 200
      if (isStored) assert.equal((await download(hosted.url, blob)).digest, digest, 'a wrong blob is stored')
      assert.ok(allSent || !isStored, 'an upload that was cut short was stored')
      assert.ok(status !== 201 || isStored, 'an upload that was answered 201 is not stored')
      outcomes[status === 201 ? 'whole' : status ? 'refused' : 'broken']++
      assert.equal((await pushBlob(router.url, 'team/kills', digest, noise(bytes, blobSeed))).status, 201)
      assert.equal((await download(hosted.url, blob)).digest, digest)
    }
    assert.ok(!router.child.exited(), 'the router ended')
  }
  t.diagnostic(`${way}: ${kills} kills: ${JSON.stringify(outcomes)}`)
  assert.deepEqual(router.odd(), [])
})
