/** `npm run demo`: starts registries and the router on this machine, then pulls and pushes through them. */
import { createServer } from 'node:net'
import { temporaryFolder } from '../test/parts/children.ts'
import { makeImage, opened, pull, push } from '../test/parts/client.ts'
import { findRegistry, type Launch, type Registry } from '../test/parts/registries.ts'
import { startRouter } from '../test/parts/router.ts'
import { until } from '../test/parts/until.ts'
import { inMemory } from './registry.ts'

interface Public {
  /** What stands before its names: a host, or nothing for the default one. */
  host: string
  /** The local registries: the one that stands in for it, and the cache. */
  names: [hub: string, cache: string]
  /** Its address, and an image to pull from there. */
  address: string
  image: string
  /** The image of the local registry that stands in for it. */
  ownImage: string
}

/** A cache is started in front of each. */
const publics: [Public, ...Public[]] = [
  {
    host: '',
    names: ['hub', 'cache'],
    address: process.env.HUB || 'https://registry-1.docker.io',
    image: 'library/hello-world',
    ownImage: 'library/hello',
  },
  {
    host: 'quay.io',
    names: ['quay', 'cache2'],
    address: 'https://quay.io',
    image: 'prometheus/busybox',
    ownImage: 'team/hello',
  },
]

const once = process.argv.includes('--once')
const say = (line = '') => console.log(line)

interface Logged {
  method: string
  path: string
  status: number
  by?: string
}
const logged: Logged[] = []
/** Called for each request that the router has answered. */
let onRequest = (request: Logged): unknown => logged.push(request)

/** What was started, to be stopped in the opposite order. */
const started: { stop: () => Promise<unknown> }[] = []

async function demo(): Promise<void> {
  const port = await freePort(Number(process.env.PORT || 5000))
  const address = `127.0.0.1:${port}`
  say(`http://${address}/ is the page of this router: open it in a browser, it is up in some seconds\n`)

  const { launch, isReal } = await findLaunch()
  const folder = temporaryFolder()
  if (isReal) say(`their data lies in ${folder} until this ends`)
  const [first, ...others] = publics
  const main = await startPublic(first, launch, isReal, folder)
  const proxies = []
  for (const other of others) proxies.push(await startPublic(other, launch, isReal, folder))
  const hosted = await start(launch, { name: 'hosted', folder }, 'private registry: hosted')
  const hosts = { AGGREGATE_HOSTNAME: address, HOSTED_HOSTNAME: hosted.host, PROXY_HOSTNAME: main.cache.host }
  const PROXIES = proxies.map(({ host, cache }) => `${host}=${cache.host}`).join()
  const router = await startRouter('node', { ...hosts, PROXIES, PORT: `${port}` }, (line) => {
    if (line.message === 'request') onRequest(line as unknown as Logged)
  })
  started.push(router)
  say(`  router  ${router.url.padEnd(24)}one address for all\n`)

  for (const { image } of [main, ...proxies])
    await step(`pull  ${image}:latest`, () => pull(router.url, image, 'latest', 1))
  const privateImage = makeImage({ 'mine.txt': 'made by the demo\n' })
  await step('push  team/demo:1.0', () => push(router.url, 'team/demo', '1.0', privateImage))
  await step('pull  team/demo:1.0', () => pull(router.url, 'team/demo', '1.0'))
  if (!once) await visit(address, main.image)
  for (const part of started.reverse()) await part.stop()
}

/** Stays up until a signal comes, and prints each request of the visitor. */
async function visit(address: string, image: string): Promise<void> {
  onRequest = sayRequest
  say('It stays up until Ctrl-C. Now you:')
  say(`  http://${address}/ in a browser`)
  say(`  docker pull ${address}/${image}`)
  say(`  docker tag ${address}/${image} ${address}/team/mine:1.0`)
  say(`  docker push ${address}/team/mine:1.0`)
  say(`  skopeo inspect --tls-verify=false docker://${address}/team/demo:1.0`)
  say(`  curl http://${address}/healthcheck`)
  say('Each request that comes from now on, and who answered it:')
  let endedAt = 0
  await new Promise<void>((resolve) => {
    const end = () => {
      // npm passes on the SIGINT that the terminal has sent to both: only a later one is a second Ctrl-C.
      if (endedAt && Date.now() - endedAt > 1000) process.exit(1)
      endedAt ||= Date.now()
      resolve()
    }
    for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, end)
  })
  say('\nGoodbye: the router and the registries end, and their data goes with them.')
}

/** Real registries, if they can be started here. Else those of the demo's own. */
async function findLaunch(): Promise<{ launch: Launch; isReal: boolean }> {
  try {
    return { launch: await findRegistry(say), isReal: true }
  } catch (error) {
    say((error as Error).message)
    say('NO REAL REGISTRIES: small ones in the memory of this demo take their place, the router is the real one')
    return { launch: inMemory, isReal: false }
  }
}

async function start(launch: Launch, options: Parameters<Launch>[0], what: string): Promise<Registry> {
  const registry = await launch(options)
  started.push(registry)
  say(`  ${registry.name.padEnd(8)}${registry.url.padEnd(24)}${what}`)
  return registry
}

/** Starts a cache of a public registry. If that cannot be reached from here, a local registry stands in for it. */
async function startPublic(
  { host, names: [hubName, cacheName], address, image, ownImage }: Public,
  launch: Launch,
  isReal: boolean,
  folder: string,
): Promise<{ host: string; cache: Registry; image: string }> {
  const nameHere = (name: string) => (host ? `${host}/${name}` : name)
  const cacheOf = (remote: string) =>
    start(
      launch,
      { name: cacheName, folder, proxyOf: remote },
      `pull-through cache of ${remote}: ${host || 'the proxy'}`,
    )
  // The caches in memory know no logins, and public registries want tokens.
  if (isReal && (await isReachable(address))) return { host, cache: await cacheOf(address), image: nameHere(image) }
  const why = isReal ? 'which cannot be reached' : 'which is not asked'
  const hub = await start(launch, { name: hubName, folder }, `stands in for ${address}, ${why}; holds ${ownImage}`)
  await push(hub.url, ownImage, 'latest', makeImage({ 'hello.txt': `hello from ${hubName}\n` }))
  return { host, cache: await cacheOf(hub.url), image: nameHere(ownImage) }
}

function isReachable(address: string): Promise<boolean> {
  return fetch(`${address}/v2/`, { signal: AbortSignal.timeout(3000) }).then(
    ({ status }) => status === 200 || status === 401,
    () => false,
  )
}

/** Runs an action, then prints each of its requests and which registry answered. */
async function step(what: string, action: () => Promise<unknown>): Promise<void> {
  const from = logged.length
  const sent = opened.count
  await action()
  // The router logs a request after the whole response is sent, so the client may be ahead of the log.
  await until('the log', () => logged.length - from === opened.count - sent)
  const lines = logged.slice(from)
  say(`${what.padEnd(34)}${what.startsWith('push') ? 'taken by' : 'came from'} ${lines.at(-1)?.by}`)
  for (const line of lines) sayRequest(line)
  say()
}

function sayRequest({ method, path, status, by }: Logged): void {
  const short = path.length > 72 ? `${path.slice(0, 69)}...` : path
  say(`  ${method.padEnd(6)}${short.padEnd(74)}${status}  ${by ?? 'the router itself'}`)
}

/** The given port, or the next one that is free. */
async function freePort(port: number): Promise<number> {
  const free = await new Promise<boolean>((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
  if (free) return port
  say(`port ${port} is taken, trying ${port + 1}`)
  return freePort(port + 1)
}

await demo().catch((error: Error) => {
  console.error(`the demo failed: ${error.message}`)
  process.exit(1)
})
process.exit(0)
