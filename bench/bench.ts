/**
 * `npm run bench`: compares the router, on each of its four ways, with nginx and with the registry itself. They take
 * turns in rounds on one machine. ROUNDS sets the number of rounds, ONLY selects parts. Without ONLY it writes
 * bench/RESULTS.md.
 */
import { createWriteStream, writeFileSync } from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { run, temporaryFolder } from '../test/parts/children.ts'
import * as client from '../test/parts/client.ts'
import { type Image, noise, send } from '../test/parts/client.ts'
import { farAway } from '../test/parts/distance.ts'
import { program } from '../test/parts/packages.ts'
import { findRegistry } from '../test/parts/registries.ts'
import { root, type Way, ways } from '../test/parts/router.ts'
import { until } from '../test/parts/until.ts'
import * as parts from './parts.ts'
import { median, type Target } from './parts.ts'

const say = (line: string) => console.log(line)
const rounds = Number(process.env.ROUNDS ?? 5)
const only = process.env.ONLY?.split(',')
const everyWay = Object.keys(ways) as Way[]
const mebibyte = 2 ** 20
const accept = 'application/vnd.oci.image.manifest.v1+json'

for (const name of ['nginx', 'wrk', 'curl', 'skopeo']) {
  if (!(await program([name], name, say))) throw new Error(`${name} is needed: install it`)
}
const launch = await findRegistry(say)
await run(['npm', 'run', '--silent', 'build:binary'], { cwd: root })

const folder = temporaryFolder()
const hub = await launch({ name: 'hub', folder })
const farHub = await farAway(hub.host)
const hosted = await launch({ name: 'hosted', folder })
const cache = await launch({ name: 'cache', folder, proxyOf: farHub.url })
// Every round should be a warm one, but the rounds of a part take longer than the default LOOKUP_TTL of a minute.
const upstreams = { HOSTED_HOSTNAME: hosted.host, PROXY_HOSTNAME: cache.host, LOOKUP_TTL: '600' }
const noProcess = { pids: () => [], stop: async () => {} }
const direct: Target = { name: 'direct', url: hosted.url, ...noProcess }
const nginx = await parts.launchNginx(folder, cache.host, hosted.host)
const routers = await Promise.all(everyWay.map((way) => parts.launchRouter(way, folder, upstreams)))
const targets = [direct, nginx, ...routers]

/** A measure, its goal on each way, and the measured value. */
interface Goal {
  measure: string
  wanted: Record<Way, number>
  got: (way: string) => number
  /** Whether the goal is an upper bound. */
  atMost?: boolean
}
const goals: Goal[] = []
const sections: string[] = []
const everywhere = (wanted: number) => ({ node: wanted, bun: wanted, deno: wanted, binary: wanted })

const table = (head: string[], rows: (string | number)[][]) =>
  [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n')
const short = (value: number) =>
  !Number.isFinite(value)
    ? '–'
    : value >= 100
      ? `${Math.round(value)}`
      : value >= 10
        ? value.toFixed(1)
        : value.toFixed(2)

/** Runs one part of the bench and adds its text to the results, unless ONLY excludes it. */
async function part(name: string, title: string, measure: () => Promise<string>): Promise<void> {
  if (only && !only.includes(name)) return
  say(`\n## ${title}`)
  const text = await measure()
  say(text)
  sections.push(`## ${title}\n\n${text}`)
}

/**
 * Measures the targets in turn, round after round, each on an idle machine. Gives three functions over the rounds:
 * the median of a value, its total, and the median of the ratio of two targets within a round.
 */
async function alternate<T>(
  compared: Target[],
  measure: (target: Target, round: number) => Promise<T>,
  times = rounds,
) {
  const samples = new Map<string, T[]>(compared.map(({ name }) => [name, []]))
  for (let round = 0; round < times; round++) {
    for (const target of compared) {
      await parts.settled()
      samples.get(target.name)?.push(await measure(target, round))
    }
  }
  const of = (name: string) => samples.get(name) as T[]
  return {
    median: (name: string, pick: (sample: T) => number) => median(of(name).map(pick)),
    ratio: (name: string, to: string, pick: (sample: T) => number) =>
      median(of(name).map((sample, i) => pick(sample) / pick(of(to)[i] as T))),
    total: (name: string, pick: (sample: T) => number) => parts.sum(of(name).map(pick)),
  }
}

/** An image with incompressible layers of this many bytes. */
async function bigImage(layers: number, bytes: number): Promise<Image> {
  const image = client.makeImage(Object.fromEntries(Array.from({ length: layers }, (_, i) => [`${i}`, `${i}`])))
  const manifest = JSON.parse(image.manifest)
  for (let i = 0; i < layers; i++) {
    const chunks: Buffer[] = []
    for await (const chunk of noise(bytes, i)) chunks.push(chunk)
    const content = Buffer.concat(chunks)
    const digest = client.digestOf(content)
    manifest.layers[i] = { ...manifest.layers[i], digest, size: bytes }
    image.blobs[i + 1] = { digest, content }
  }
  const text = JSON.stringify(manifest)
  return { ...image, manifest: text, digest: client.digestOf(text) }
}

/** Pushes an image to hosted under a new name. Its layers are mounted from the repository `from`, not sent again. */
async function publish(image: Image, from: string, name: string): Promise<void> {
  for (const { digest } of image.blobs) {
    await send(hosted.url, 'POST', `/v2/${name}/blobs/uploads/?mount=${digest}&from=${from}`)
  }
  await client.push(hosted.url, name, 'v1', image)
}

const image = client.makeImage({ a: 'first', b: 'second', c: 'third' })
const tags = Array.from({ length: 256 }, (_, i) => `v${i}`)
for (const tag of tags) await client.push(hosted.url, 'team/app', tag, image)
await client.push(hub.url, 'library/app', 'v0', image)
const manifest = (name: string, reference: string) => `/v2/${name}/manifests/${reference}`

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
        const wanted = { node: 0.5, bun: 0.75, deno: 0.75, binary: 0.75 }
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

await part('blobs', 'A layer of 1 GiB, one at a time', async () => {
  const bytes = 1024 * mebibyte
  const file = join(folder, 'layer')
  await pipeline(noise(bytes, 1), createWriteStream(file))
  const digest = await client.digestOfStream(noise(bytes, 1))
  await client.pushBlob(hosted.url, 'team/big', digest, noise(bytes, 1))
  const curl = async (target: Target, args: string[]) => {
    const before = parts.cpuSeconds(target)
    const seconds = await parts.secondsOf(['curl', '-sSf', '-o', '/dev/null', ...args])
    return { seconds, cpu: parts.cpuSeconds(target) - before, memory: parts.memoryMiB(target) }
  }
  const lines: (string | number)[][] = []
  const measure = async (
    what: string,
    wanted: Record<Way, number>,
    go: (target: Target) => ReturnType<typeof curl>,
  ) => {
    const results = await alternate(targets, go)
    const toNginx = (name: string) => 1 / results.ratio(name, 'nginx', (sample) => sample.seconds)
    for (const { name } of targets) {
      lines.push([
        what,
        name,
        short(1024 / results.median(name, (sample) => sample.seconds)),
        short(1 / results.ratio(name, 'direct', (sample) => sample.seconds)),
        short(toNginx(name)),
        ...(name === 'direct' ? ['', ''] : [short(results.median(name, (sample) => sample.cpu))]),
        ...(name === 'direct' ? [] : [results.median(name, (sample) => sample.memory)]),
      ])
    }
    goals.push({ measure: `1 GiB ${what}, against nginx`, wanted, got: toNginx })
  }
  await measure('pull', { node: 0.6, bun: 0.9, deno: 1.1, binary: 0.9 }, (target) =>
    curl(target, [`${target.url}/v2/team/big/blobs/${digest}`]),
  )
  await measure('push', everywhere(0.9), async (target) => {
    const session = await send(target.url, 'POST', '/v2/team/big/blobs/uploads/')
    const cost = await curl(target, ['-X', 'PATCH', '-T', file, target.url + client.pathOf(session)])
    await send(hosted.url, 'DELETE', client.pathOf(session))
    return cost
  })
  const head = ['1 GiB', 'through', 'MiB/s', 'to direct', 'to nginx', 'CPU s per GiB', 'memory MiB']
  return table(head, lines)
})

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
          ['first', '', 5],
          ['first', '-named', 1.3],
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
  const text = `With the hub 100 ms away, one 404 of the cache alone takes ${miss} s: whoever asks it first waits for that.`
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

await part('slow', '100 slow clients on layers of 1 GiB, for two minutes', async () => {
  const bytes = 1024 * mebibyte
  const digest = await client.digestOfStream(noise(bytes, 2))
  await client.pushBlob(hosted.url, 'team/slow', digest, noise(bytes, 2))
  const fresh = await Promise.all(everyWay.map((way) => parts.launchRouter(way, folder, upstreams)))
  const sockets = fresh.flatMap(({ url }) =>
    Array.from({ length: 100 }, () => {
      const socket = net.connect(Number(new URL(url).port), '127.0.0.1')
      socket.write(`GET /v2/team/slow/blobs/${digest} HTTP/1.1\r\nHost: x\r\n\r\n`)
      // 256 KiB per second.
      const timer = setInterval(() => socket.read(65_536), 250)
      socket.on('readable', () => {}).on('close', () => clearInterval(timer))
      return socket
    }),
  )
  const memoryAt: Record<number, number[]> = {}
  for (const second of [10, 60, 120]) {
    const due =
      second * 1000 - (Object.keys(memoryAt).length ? ([10, 60][Object.keys(memoryAt).length - 1] as number) : 0) * 1000
    await new Promise((resolve) => setTimeout(resolve, due))
    memoryAt[second] = fresh.map(parts.memoryMiB)
  }
  if (sockets.some(({ destroyed }) => destroyed)) throw new Error('a slow client was cut off')
  for (const socket of sockets) socket.destroy()
  for (const { stop } of fresh) await stop()
  const of = (way: string) => [10, 60, 120].map((second) => memoryAt[second]?.[everyWay.indexOf(way as Way)] as number)
  goals.push(
    {
      measure: "100 slow clients: the router's memory, MiB",
      wanted: everywhere(200),
      got: (way) => Math.max(...of(way)),
      atMost: true,
    },
    {
      measure: 'the same after two minutes against ten seconds',
      wanted: everywhere(1.15),
      got: (way) => (of(way)[2] as number) / (of(way)[0] as number),
      atMost: true,
    },
  )
  return table(
    ['through', 'MiB after 10 s', '60 s', '120 s'],
    everyWay.map((way) => [way, ...of(way)]),
  )
})

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

const versions = await Promise.all(
  [
    ['node', '--version'],
    ['node_modules/.bin/bun', '--version'],
    ['node_modules/.bin/deno', '--version'],
    ['nginx', '-v'],
    ['skopeo', '--version'],
    ['docker-registry', '--version'],
  ].map(async (command) => {
    const output = await run(command, { cwd: root }).catch(() => 'unknown')
    return `${(command[0] as string).replace(/.*\//, '')} ${/\d+(\.\d+)+/.exec(output)?.[0] ?? 'unknown'}`
  }),
)
const met = ({ wanted, got, atMost }: Goal) =>
  everyWay.map((way) => {
    const [value, bound] = [got(way), wanted[way]]
    if (bound === Infinity) return short(value)
    return `${short(value)} ${(atMost ? value <= bound : value >= bound) ? '✓' : `✗ (${bound})`}`
  })
const bound = ({ wanted, atMost }: Goal) =>
  `${atMost ? 'at most' : 'at least'} ${[...new Set(Object.values(wanted).filter(Number.isFinite))].join(', ')}`
const goalTable = table(
  ['measure', 'wanted', ...everyWay],
  goals.map((goal) => [goal.measure, bound(goal), ...met(goal)]),
)
say(`\n${goalTable}`)
if (!only) {
  writeFileSync(
    join(root, 'bench/RESULTS.md'),
    `# What it costs to have the router in front

Written by \`npm run bench\` on ${new Date().toISOString().slice(0, 10)}: ${os.cpus().length} × ${os.cpus()[0]?.model}, ${Math.round(os.totalmem() / 2 ** 30)} GiB, ${os.type()} ${os.release()}; ${versions.join(', ')}.
Everything runs on this one machine, load generators and registries included, so the figures that mean something are
the ratios: ${rounds} rounds, the targets in turn in each, a ratio taken within its round, then the median. Each
begins when the machine is idle, so that nobody pays for what the one before left behind.
"direct" is the registry itself; nginx asks the cache first and hosted where the cache lacks it.
What bounds the figures, and how they differ from run to run: [NOTES.md](NOTES.md).

${goalTable}

${sections.join('\n\n')}
`,
  )
  say('written: bench/RESULTS.md')
}
for (const { stop } of [nginx, ...routers]) await stop()
for (const registry of [hub, cache, hosted]) await registry.stop()
process.exit(0)
