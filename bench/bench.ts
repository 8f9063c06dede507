/**
 * `npm run bench`: compares the router, on each of its four ways, with nginx and with the registry itself. They take
 * turns in rounds on one machine. ROUNDS sets the number of rounds, ONLY selects parts. Without ONLY it writes
 * bench/RESULTS.md.
 */
import net from 'node:net'
import { join } from 'node:path'
import * as client from '../test/parts/client.ts'
import { type Image, send } from '../test/parts/client.ts'
import type { Way } from '../test/parts/router.ts'
import { until } from '../test/parts/until.ts'
import { dayHead, dayRows } from './day.ts'
import { measureLayers, measureSlow } from './layers.ts'
import * as parts from './parts.ts'
import { median, type Target } from './parts.ts'
import {
  accept,
  alternate,
  bigImage,
  cache,
  conclude,
  direct,
  everyWay,
  everywhere,
  farHub,
  folder,
  goals,
  hosted,
  image,
  manifest,
  mebibyte,
  noProcess,
  part,
  publish,
  rounds,
  short,
  table,
  tags,
  targets,
  upstreams,
} from './stage.ts'
import { measureSeveral, measureTagTtl, measureWaits } from './waits.ts'

await part('rates', 'Manifests: answers a second', async () => {
  const proxied = { ...direct, url: cache.url }
  const rows: [string, Target, string[]][] = [
    ['hosted, by digest', direct, [manifest('team/app', image.digest)]],
    ['hosted, by tag', direct, [manifest('team/app', 'v0')]],
    ['hosted, by tag, no two alike at once', direct, tags.map((tag) => manifest('team/app', tag))],
    ['proxied, by digest', proxied, [manifest('library/app', image.digest)]],
    ['proxied, by tag', proxied, [manifest('library/app', 'v0')]],
  ]
  const lines: (string | number)[][] = []
  const byConnections = new Map<string, { rate: number; p99: number }>()
  for (const [what, itself, paths] of rows) {
    const compared = [itself, ...targets.slice(1)]
    // Warms up: the router learns where the names are, and the runtime compiles the code. Node needs some thousand
    // requests to a registry for that.
    const warmUp = { paths, accept, connections: 16, seconds: paths.length > 1 ? 10 : 2 }
    for (const target of compared.slice(1)) await parts.load(folder, target, warmUp)
    for (const connections of paths.length > 1 ? [16] : [1, 16, 128, 512]) {
      const seconds = connections > 128 ? 3 : 1
      const results = await alternate(compared, (target) =>
        parts.load(folder, target, { paths, accept, connections, seconds }),
      )
      for (const { name } of compared) {
        const rate = results.median(name, (sample) => sample.rate)
        const p99 = results.median(name, (sample) => sample.p99)
        const errors = results.total(name, (sample) => sample.errors)
        lines.push([
          what,
          connections,
          name,
          short(rate) + (errors ? ` (${errors} errors)` : ''),
          short(results.ratio(name, 'direct', (sample) => sample.rate)),
          short(results.ratio(name, 'nginx', (sample) => sample.rate)),
          short(p99),
          name === 'direct' ? '' : short(results.median(name, (sample) => sample.cpu)),
        ])
        if (what === 'hosted, by digest') byConnections.set(`${name} ${connections}`, { rate, p99 })
      }
      const toDirect = (way: string) => results.ratio(way, 'direct', (sample) => sample.rate)
      if (what === 'hosted, by digest' && connections === 16) {
        const wanted = { node: 6, bun: 10, deno: 10, binary: 10 }
        goals.push({
          measure: 'hosted manifest by digest, again, 16 connections, against direct',
          wanted,
          got: toDirect,
        })
      }
      if (paths.length > 1) {
        const wanted = { node: 0.5, bun: 0.75, deno: 0.6, binary: 0.75 }
        const measure = 'hosted manifest by tag, 16 connections, no two alike at once, against direct'
        goals.push({ measure, wanted, got: toDirect })
      }
      if (what === 'hosted, by tag' && connections === 128) {
        const got = (way: string) => results.ratio(way, 'nginx', (sample) => sample.rate)
        goals.push({
          measure: 'the same tag, 128 connections, against nginx with fallback',
          wanted: everywhere(8),
          got,
        })
      }
    }
  }
  const at = (way: string, connections: number) =>
    byConnections.get(`${way} ${connections}`) as { rate: number; p99: number }
  goals.push(
    {
      measure: 'rate at 512 connections against 1',
      wanted: everywhere(1),
      got: (way) => at(way, 512).rate / at(way, 1).rate,
    },
    {
      measure: "p99 at 512 connections against nginx's",
      wanted: everywhere(2),
      got: (way) => at(way, 512).p99 / at('nginx', 512).p99,
      atMost: true,
    },
  )
  const head = ['manifest', 'connections', 'through', 'a second', 'to direct', 'to nginx', 'p99 ms', 'CPU s per 1000']
  return table(head, lines)
})

await measureLayers('http')
await measureLayers('https')

/** The seconds of a whole pull by skopeo. */
const skopeoPull = (target: Target, name: string) => {
  const to = join(folder, 'pulled')
  const source = `docker://${target.url.replace('http://', '')}/${name}:v1`
  return parts.secondsOf(['skopeo', 'copy', '-q', '--insecure-policy', '--src-tls-verify=false', source, `dir:${to}`])
}

await part('images', 'A whole private image by skopeo', async () => {
  const lines: (string | number)[][] = []
  // The same routers with HOSTED_NAMES: they ask only hosted for these names.
  const named = await Promise.all(
    everyWay.map(async (way) => {
      const router = await parts.launchRouter(way, folder, { ...upstreams, HOSTED_NAMES: 'team/**' })
      return { ...router, name: `${way}-named` }
    }),
  )
  // A warm-up: the other routers have already served many requests.
  const load = { paths: tags.map((tag) => manifest('team/app', tag)), accept, connections: 16, seconds: 3 }
  for (const router of named) await parts.load(folder, router, load)
  const images: [string, Image][] = [
    ['small', image],
    ['six layers of 20 MiB', await bigImage(6, 20 * mebibyte)],
  ]
  for (const [what, testImage] of images) {
    const source = `team/source-${what.length}`
    await client.push(hosted.url, source, 'v1', testImage)
    for (const delay of [0, 100]) {
      farHub.delay.milliseconds = delay / 2
      const compared = what === 'small' && delay > 0 ? [...targets, ...named] : targets
      const results = await alternate(compared, async (target, round) => {
        const name = `team/${target.name}-${what.length}-${delay}-${round}`
        await publish(testImage, source, name)
        return { first: await skopeoPull(target, name), again: await skopeoPull(target, name) }
      })
      for (const { name } of compared) {
        const cells = (['first', 'again'] as const).flatMap((when) => [
          short(results.median(name, (sample) => sample[when])),
          short(results.ratio(name, 'direct', (sample) => sample[when])),
        ])
        lines.push([what, delay, name.replace('-named', ', HOSTED_NAMES'), ...cells])
      }
      if (what === 'small' && delay === 100) {
        for (const [when, how, wanted] of [
          ['first', '', 8],
          ['first', '-named', 1.45],
          ['again', '', 1.3],
        ] as const) {
          const got = (way: string) => results.ratio(way + how, 'direct', (sample) => sample[when])
          const measure = `small hosted image, hub 100 ms away, ${when}${how && ', in HOSTED_NAMES'}, time against direct`
          goals.push({ measure, wanted: everywhere(wanted), got, atMost: true })
        }
      }
    }
  }
  for (const { stop } of named) await stop()
  farHub.delay.milliseconds = 50
  const misses = await alternate([direct], (_, round) =>
    parts.secondsOf(['curl', '-s', '-o', '/dev/null', `${cache.url}${manifest(`team/missing-${round}`, 'v1')}`]),
  )
  farHub.delay.milliseconds = 0
  const miss = short(misses.median('direct', (sample) => sample))
  const text = `With the hub 100 ms away a 404 of the cache takes ${miss} s, and who asks for an image first waits for that.`
  return `${table(['image', 'hub away ms', 'through', 'first s', 'to direct', 'again s', 'to direct'], lines)}\n\n${text}`
})

await part(
  'black-hole',
  "The small image while the proxy's port is black-holed, after the breaker opened",
  async () => {
    const hole = net.createServer((socket) => socket.on('error', () => {})).listen(0, '127.0.0.1')
    await until('the hole', () => hole.listening)
    const address = `127.0.0.1:${(hole.address() as net.AddressInfo).port}`
    const settings = { ...upstreams, PROXY_HOSTNAME: address, PROXY_TIMEOUT: '1', V2_REQUIRES: 'hosted' }
    const routers = await Promise.all(everyWay.map((way) => parts.launchRouter(way, folder, settings)))
    for (const { url } of routers) for (const tag of tags.slice(0, 3)) await send(url, 'GET', manifest('team/app', tag))
    await publish(image, 'team/app', 'team/hole')
    const results = await alternate([direct, ...routers], (target) => skopeoPull(target, 'team/hole'), rounds * 3)
    for (const { stop } of routers) await stop()
    hole.close()
    const got = (way: string) => results.ratio(way, 'direct', (sample) => sample)
    goals.push({
      measure: "the same with the proxy's port black-holed, breaker open",
      wanted: everywhere(1.3),
      got,
      atMost: true,
    })
    const rows = ['direct', ...everyWay].map((name) => [
      name,
      short(results.median(name, (sample) => sample)),
      short(got(name)),
    ])
    return table(['through', 'seconds', 'to direct'], rows)
  },
)

await part('crowd', '200 clients pull one new image at once', async () => {
  const rows: (string | number)[][] = []
  for (const target of targets) {
    const name = `team/crowd-${target.name}`
    await publish(image, 'team/app', name)
    const before = hosted.lines().length
    const started = performance.now()
    await Promise.all(Array.from({ length: 200 }, () => client.pull(target.url, name, 'v1')))
    const seconds = (performance.now() - started) / 1000
    const answered = hosted.lines().slice(before)
    const asked = answered.filter((line) => /response completed/.test(line) && line.includes(`${name}/manifests/`))
    rows.push([target.name, short(seconds), asked.length])
  }
  return table(['through', 'seconds for all', 'questions for the manifest at hosted'], rows)
})

await measureSlow('http')
await measureSlow('https')

await part('start', 'From start to first answer', async () => {
  const results = await alternate(
    everyWay.map((name) => ({ name, url: '', ...noProcess })),
    async ({ name }) => {
      const { startMs, stop } = await parts.launchRouter(name as Way, folder, upstreams)
      await stop()
      return startMs / 1000
    },
  )
  const got = (way: string) => results.median(way, (sample) => sample)
  goals.push({
    measure: 'start to first answer, s',
    wanted: { ...everywhere(Infinity), binary: 0.2 },
    got,
    atMost: true,
  })
  return table(
    ['through', 'seconds'],
    everyWay.map((way) => [way, short(got(way))]),
  )
})

await part('log', 'What the access log costs', async () => {
  const lines: (string | number)[][] = []
  const overheads = new Map<string, number>()
  const lookups = {
    'by digest, from memory': [manifest('team/app', image.digest)],
    'by tag, no two alike at once': tags.map((tag) => manifest('team/app', tag)),
  }
  for (const way of everyWay) {
    const samples = new Map(Object.keys(lookups).map((what) => [what, [] as Record<string, number>[]]))
    // Two processes of the same program differ by up to a fifth, so several pairs are measured.
    for (let pair = 0; pair < rounds * 2; pair++) {
      const launched = ['info', 'warn'].map(async (level) => {
        const router = await parts.launchRouter(way, folder, { ...upstreams, LOG_LEVEL: level })
        return { ...router, name: level }
      })
      const bothRouters = await Promise.all(launched)
      for (const [what, paths] of Object.entries(lookups)) {
        const load = { paths, accept, connections: 16 }
        for (const target of bothRouters) await parts.load(folder, target, { ...load, seconds: 2 })
        const results = await alternate(bothRouters, (target) => parts.load(folder, target, { ...load, seconds: 1 }), 3)
        const cpu = (level: string) => results.median(level, ({ cpu }) => cpu)
        samples.get(what)?.push({ info: cpu('info'), warn: cpu('warn') })
      }
      for (const { stop } of bothRouters) await stop()
    }
    for (const [what, pairs] of samples) {
      const cpu = (level: string) => median(pairs.map((pair) => pair[level] as number))
      const more = median(pairs.map(({ info = 0, warn = 1 }) => info / warn)) - 1
      overheads.set(`${way} ${what}`, more)
      lines.push([what, way, short(cpu('info')), short(cpu('warn')), `${Math.round(more * 100)} %`])
    }
  }
  for (const what of Object.keys(lookups)) {
    const measure = `processor time for the access log, ${what}`
    goals.push({
      measure,
      wanted: everywhere(0.1),
      got: (way) => overheads.get(`${way} ${what}`) as number,
      atMost: true,
    })
  }
  const head = ['manifest', 'through', 'CPU ms an answer', 'the same without', 'more']
  return table(head, lines)
})

await measureWaits()
await measureTagTtl()
await measureSeveral()
await part('day', 'A day of a company: what the public registry is asked', async () => table(dayHead, await dayRows()))

await conclude()
process.exit(0)
