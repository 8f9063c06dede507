/** `npm run demo`: starts two real registries and the router on this machine, then pulls and pushes through them. */
import { createServer } from 'node:net'
import { temporaryFolder } from '../test/parts/children.ts'
import { makeImage, opened, pull, push } from '../test/parts/client.ts'
import { findRegistry, type Registry } from '../test/parts/registries.ts'
import { type Router, startRouter } from '../test/parts/router.ts'
import { until } from '../test/parts/until.ts'

/** The public registry that the cache proxies. If it cannot be reached, a local registry stands in for it. */
const publicHub = process.env.HUB || 'https://registry-1.docker.io'
const once = process.argv.includes('--once')
const say = (line = '') => console.log(line)

interface Logged {
  method: string
  path: string
  status: number
  by?: string
}
const logged: Logged[] = []

async function demo(): Promise<void> {
  const folder = temporaryFolder()
  say(`data lies in ${folder} until this ends`)
  const launch = await findRegistry(say)
  const started: (Registry | Router)[] = []
  const describe = ({ name, url }: Registry, what: string) => say(`  ${name.padEnd(8)}${url.padEnd(24)}${what}`)

  const reachable = await fetch(`${publicHub}/v2/`, { signal: AbortSignal.timeout(3000) }).then(
    ({ status }) => status === 200 || status === 401,
    () => false,
  )
  let remote = publicHub
  let publicImage = 'library/hello-world'
  if (!reachable) {
    const hub = await launch({ name: 'hub', folder })
    started.push(hub)
    remote = hub.url
    publicImage = 'library/hello'
    await push(hub.url, publicImage, 'latest', makeImage({ 'hello.txt': 'hello from the hub\n' }))
    describe(hub, `stands in for ${publicHub}, which cannot be reached; holds ${publicImage}`)
  }
  const cache = await launch({ name: 'cache', folder, proxyOf: remote })
  const hosted = await launch({ name: 'hosted', folder })
  started.push(cache, hosted)
  describe(cache, `pull-through cache of ${remote}: the proxy`)
  describe(hosted, 'private registry: hosted')

  const port = await freePort(Number(process.env.PORT || 5000))
  const address = `127.0.0.1:${port}`
  const hosts = { AGGREGATE_HOSTNAME: address, HOSTED_HOSTNAME: hosted.host, PROXY_HOSTNAME: cache.host }
  const router = await startRouter('node', { ...hosts, PORT: `${port}` }, (line) => {
    if (line.message === 'request') logged.push(line as unknown as Logged)
  })
  started.push(router)
  say(`  router  ${router.url.padEnd(24)}one address for both\n`)

  const privateImage = makeImage({ 'mine.txt': 'made by the demo\n' })
  await step(`pull  ${publicImage}:latest`, () => pull(router.url, publicImage, 'latest', 1))
  await step('push  team/demo:1.0', () => push(router.url, 'team/demo', '1.0', privateImage))
  await step('pull  team/demo:1.0', () => pull(router.url, 'team/demo', '1.0'))

  if (!once) {
    say('It stays up until Ctrl-C. Now you:')
    say(`  docker pull ${address}/${publicImage}`)
    say(`  docker tag ${address}/${publicImage} ${address}/team/mine:1.0`)
    say(`  docker push ${address}/team/mine:1.0`)
    say(`  skopeo inspect --tls-verify=false docker://${address}/team/demo:1.0`)
    say(`  curl http://${address}/healthcheck`)
    await new Promise((resolve) => {
      for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, resolve)
    })
  }
  for (const part of started.reverse()) await part.stop()
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
  for (const { method, path, status, by } of lines) {
    const short = path.length > 72 ? `${path.slice(0, 69)}...` : path
    say(`  ${method.padEnd(6)}${short.padEnd(74)}${status}  ${by ?? 'the router itself'}`)
  }
  say()
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
