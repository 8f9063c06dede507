/**
 * Three replicas behind a round-robin balancer share nothing and agree. Each request has a connection of its own, so
 * that the next one reaches the next replica. The registries are real; WAY selects the runtime.
 */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { type Balancer, balance } from './parts/balancer.ts'
import { run, temporaryFolder } from './parts/children.ts'
import * as client from './parts/client.ts'
import { accept, digestOf, makeImage, pathOf, pull, push } from './parts/client.ts'
import { program } from './parts/packages.ts'
import { findRegistry, type Registry } from './parts/registries.ts'
import { type Router, startRouter, way } from './parts/router.ts'
import { until } from './parts/until.ts'

const lookupTtlSeconds = 1
const mebibyte = 1024 * 1024

const skopeo = await program(['skopeo'], 'skopeo', console.error)
if (!skopeo && process.env.CI === 'true') throw new Error('skopeo is missing')
const needsSkopeo = { skip: skopeo ? false : 'SKOPEO IS MISSING: install it to run this test' }

let folder: string
let hub: Registry
let cache: Registry
let hosted: Registry
let balancer: Balancer
const replicas: Router[] = []
const portsOf = (routers: Router[]) => routers.map(({ host }) => Number(host.split(':')[1]))
let onBytes: (port: number, carried: number) => void = () => {}

before(async () => {
  folder = temporaryFolder()
  const launch = await findRegistry(console.error)
  hub = await launch({ name: 'hub', folder })
  hosted = await launch({ name: 'hosted', folder })
  cache = await launch({ name: 'cache', folder, proxyOf: hub.url })
  for (let i = 0; i < 3; i++) replicas.push(await launchReplica())
  balancer = await balance(
    () => portsOf(replicas),
    (port, carried) => onBytes(port, carried),
  )
})

after(async () => {
  balancer?.close()
  for (const replica of replicas) await replica.stop()
  for (const registry of [hub, cache, hosted]) await registry?.stop()
})

function launchReplica(): Promise<Router> {
  return startRouter(way, {
    HOSTED_HOSTNAME: hosted.host,
    PROXY_HOSTNAME: cache.host,
    LOOKUP_TTL: `${lookupTtlSeconds}`,
  })
}

const send: typeof client.send = (base, method, target, { headers, body } = {}) =>
  client.send(base, method, target, { headers: { ...headers, Connection: 'close' }, body })

const manifest = (url: string, name: string, reference: string, method = 'GET') =>
  send(url, method, `/v2/${name}/manifests/${reference}`, { headers: { Accept: accept } })

/** A replica's answers to GET and HEAD for these references: status code and digest. */
async function answersOf(url: string, name: string, references: string[]): Promise<string[]> {
  const replies: string[] = []
  for (const reference of references) {
    for (const method of ['GET', 'HEAD']) {
      const { status, headers } = await manifest(url, name, reference, method)
      replies.push(`${status} ${headers['docker-content-digest'] ?? ''}`.trim())
    }
  }
  return replies
}

/** The requests a replica has logged. */
const requests = ({ log }: Router) => log().filter(({ message }) => message === 'request')

test('an upload whose POST, PATCH, PATCH and PUT land on different replicas is stored whole', async () => {
  const chunks = [1, 2, 3].map(() => randomBytes(100_000))
  const digest = digestOf(Buffer.concat(chunks))
  const [first, second, last] = chunks as [Buffer, Buffer, Buffer]
  const sessions = '/v2/team/chunks/blobs/uploads/'
  const opened = await send(balancer.url, 'POST', sessions)
  const one = await send(balancer.url, 'PATCH', pathOf(opened), { body: first })
  const two = await send(balancer.url, 'PATCH', pathOf(one), { body: second })
  const closed = await send(balancer.url, 'PUT', client.withDigest(pathOf(two), digest), { body: last })
  assert.deepEqual(
    [opened, one, two, closed].map(({ status }) => status),
    [202, 202, 202, 201],
  )
  for (const { url } of replicas) {
    assert.equal((await client.download(url, `/v2/team/chunks/blobs/${digest}`)).digest, digest)
  }
  const taken = () => replicas.map((one) => requests(one).filter(({ path }) => `${path}`.startsWith(sessions)).length)
  await until('the four requests to be logged', () => taken().reduce((sum, count) => sum + count) === 4)
  assert.deepEqual(taken().sort(), [1, 1, 2])
})

test('all replicas said 404: once the image is pushed through one of them, all have it', async () => {
  for (const [i, { url }] of replicas.entries()) {
    const name = `team/appears${i}`
    const image = makeImage({ 'appears.txt': name })
    const references = ['v1', image.digest]
    // Twice, so that the second round would use what is remembered of the first.
    for (const { url } of [...replicas, ...replicas]) {
      assert.deepEqual(await answersOf(url, name, references), ['404', '404', '404', '404'])
    }
    await push(url, name, 'v1', image)
    for (const { url } of [...replicas, balancer]) {
      assert.deepEqual(await answersOf(url, name, references), Array(4).fill(`200 ${image.digest}`))
    }
  }
})

test('a tag moved through one replica has the new image through all of them at once', async () => {
  let image = makeImage({ 'moves.txt': 'first' })
  await push(balancer.url, 'team/moves', 'v1', image)
  for (const [i, { url }] of replicas.entries()) {
    for (const { url } of replicas) await pull(url, 'team/moves', 'v1')
    image = makeImage({ 'moves.txt': `moved through ${i}` })
    await push(url, 'team/moves', 'v1', image)
    for (const { url } of [...replicas, balancer]) {
      assert.deepEqual(await answersOf(url, 'team/moves', ['v1']), Array(2).fill(`200 ${image.digest}`))
    }
  }
})

test('a delete is visible at once where it was sent; by tag at once everywhere; by digest everywhere within LOOKUP_TTL', async () => {
  for (const [i, { url }] of replicas.entries()) {
    const name = `team/goes${i}`
    const image = makeImage({ 'goes.txt': name })
    await push(balancer.url, name, 'v1', image)
    const path = `/v2/${name}/manifests/${image.digest}`
    for (const one of replicas) {
      await until('a replica to answer from memory', async () => {
        assert.equal((await manifest(one.url, name, image.digest)).status, 200)
        return requests(one).some((line) => line.path === path && line.status === 200 && `${line.asked}` === '')
      })
    }
    assert.equal((await send(url, 'DELETE', path)).status, 202)
    const deleted = performance.now()
    assert.deepEqual(await answersOf(url, name, [image.digest]), ['404', '404'])
    for (const { url } of replicas) assert.deepEqual(await answersOf(url, name, ['v1']), ['404', '404'])
    for (const { url } of replicas) {
      await until('404 through all', async () => (await manifest(url, name, image.digest)).status === 404)
    }
    const seconds = (performance.now() - deleted) / 1000
    assert.ok(seconds < lookupTtlSeconds + 3, `seen after ${seconds} s`)
  }
})

test(
  'skopeo pushes and pulls while the replica that carries a layer is killed and started again',
  needsSkopeo,
  async () => {
    const files = [1, 2, 3].map((i) => [`${i}.bin`, randomBytes(4 * mebibyte).toString('base64')])
    const image = makeImage(Object.fromEntries(files))
    await push(hub.url, 'big/image', 'v1', image)
    const restart = async (port: number) => {
      const i = portsOf(replicas).indexOf(port)
      await replicas[i]?.stop('SIGKILL')
      replicas[i] = await launchReplica()
    }
    const copy = async (from: string, to: string) => {
      let restarted: Promise<void> | undefined
      onBytes = (port, carried) => {
        if (carried > mebibyte) restarted ??= restart(port)
      }
      const insecure = ['--insecure-policy', '--src-tls-verify=false', '--dest-tls-verify=false']
      // Try again what broke, as a person or a kubelet does.
      await until('skopeo to succeed', () =>
        run(['skopeo', 'copy', ...insecure, from, to]).then(
          () => true,
          ({ message }) => console.error(message),
        ),
      )
      assert.ok(restarted)
      await restarted
    }
    const [mine, pulled] = [`docker://${new URL(balancer.url).host}/team/killed:v1`, `dir:${join(folder, 'pulled')}`]
    await copy(`docker://${hub.host}/big/image:v1`, mine)
    await copy(mine, pulled)
    assert.equal(digestOf(await run(['skopeo', 'inspect', '--raw', pulled])), image.digest)
    for (const { url } of [hosted, ...replicas]) assert.equal(await pull(url, 'team/killed', 'v1'), image.digest)
  },
)

test('no replica logged an error', () => {
  for (const replica of replicas) assert.deepEqual(replica.odd(), [])
})
