/** What all parts of the bench share: the registries, the routers, nginx, the rounds, and the results. */
import { writeFileSync } from 'node:fs'
import os from 'node:os'
import { join } from 'node:path'
import { run, temporaryFolder } from '../test/parts/children.ts'
import * as client from '../test/parts/client.ts'
import { type Image, noise, send } from '../test/parts/client.ts'
import { farAway } from '../test/parts/distance.ts'
import { program } from '../test/parts/packages.ts'
import { findRegistry } from '../test/parts/registries.ts'
import { root, type Way, ways } from '../test/parts/router.ts'
import * as parts from './parts.ts'
import { median, type Target } from './parts.ts'

export const say = (line: string) => console.log(line)
export const rounds = Number(process.env.ROUNDS ?? 5)
export const only = process.env.ONLY?.split(',')
export const everyWay = Object.keys(ways) as Way[]
export const mebibyte = 2 ** 20
export const accept = 'application/vnd.oci.image.manifest.v1+json'

for (const name of ['nginx', 'wrk', 'curl', 'skopeo']) {
  if (!(await program([name], name, say))) throw new Error(`${name} is needed: install it`)
}
export const launch = await findRegistry(say)
await run(['npm', 'run', '--silent', 'build:binary'], { cwd: root })

export const folder = temporaryFolder()
export const hub = await launch({ name: 'hub', folder })
export const farHub = await farAway(hub.host)
export const hosted = await launch({ name: 'hosted', folder })
export const cache = await launch({ name: 'cache', folder, proxyOf: farHub.url })
// Every round should be a warm one, but the rounds of a part take longer than the default LOOKUP_TTL of a minute.
export const upstreams = { HOSTED_HOSTNAME: hosted.host, PROXY_HOSTNAME: cache.host, LOOKUP_TTL: '600' }
export const noProcess = { pids: () => [], stop: async () => {} }
export const direct: Target = { name: 'direct', url: hosted.url, ...noProcess }
export const nginx = await parts.launchNginx(folder, cache.host, hosted.host)
export const routers = await Promise.all(everyWay.map((way) => parts.launchRouter(way, folder, upstreams)))
export const targets = [direct, nginx, ...routers]

/** A router of each way with these settings. */
export const launchEach = (settings: Record<string, string> = {}) =>
  Promise.all(everyWay.map((way) => parts.launchRouter(way, folder, { ...upstreams, ...settings })))

/** A measure, its goal on each way, and the measured value. */
interface Goal {
  measure: string
  wanted: Record<Way, number>
  got: (way: string) => number
  /** Whether the goal is an upper bound. */
  atMost?: boolean
}
export const goals: Goal[] = []
const sections: string[] = []
export const everywhere = (wanted: number) => ({ node: wanted, bun: wanted, deno: wanted, binary: wanted })

export const table = (head: string[], rows: (string | number)[][]) =>
  [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n')
export const short = (value: number) =>
  !Number.isFinite(value)
    ? '–'
    : value >= 100
      ? `${Math.round(value)}`
      : value >= 10
        ? value.toFixed(1)
        : value.toFixed(2)

/** Runs one part of the bench and adds its text to the results, unless ONLY excludes it. */
export async function part(name: string, title: string, measure: () => Promise<string>): Promise<void> {
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
export async function alternate<T>(
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
export async function bigImage(layers: number, bytes: number): Promise<Image> {
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
export async function publish(image: Image, from: string, name: string): Promise<void> {
  for (const { digest } of image.blobs) {
    await send(hosted.url, 'POST', `/v2/${name}/blobs/uploads/?mount=${digest}&from=${from}`)
  }
  await client.push(hosted.url, name, 'v1', image)
}

export const image = client.makeImage({ a: 'first', b: 'second', c: 'third' })
export const tags = Array.from({ length: 256 }, (_, i) => `v${i}`)
for (const tag of tags) await client.push(hosted.url, 'team/app', tag, image)
await client.push(hub.url, 'library/app', 'v0', image)
export const manifest = (name: string, reference: string) => `/v2/${name}/manifests/${reference}`

/** Says which goals were met, writes the results unless ONLY left some out, and ends all processes. */
export async function conclude(): Promise<void> {
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
}
