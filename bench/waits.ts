/** The bench's waits: a private image while the public registry is far away, public tags from memory, several registries. */
import * as client from '../test/parts/client.ts'
import { send } from '../test/parts/client.ts'
import { until } from '../test/parts/until.ts'
import * as parts from './parts.ts'
import { median, type Target } from './parts.ts'
import {
  accept,
  alternate,
  cache,
  direct,
  everyWay,
  everywhere,
  farHub,
  folder,
  goals,
  hosted,
  image,
  launchEach,
  manifest,
  part,
  rounds,
  short,
  table,
  upstreams,
} from './stage.ts'

const headers = { Accept: accept }

/** Milliseconds of one manifest. */
async function millisecondsOf({ url }: Target, path: string): Promise<number> {
  const started = performance.now()
  const { status } = await send(url, 'GET', path, { headers })
  if (status !== 200) throw new Error(`${status} for ${path}`)
  return performance.now() - started
}

async function stopAll(routers: Target[]): Promise<void> {
  for (const { stop } of routers) await stop()
}

/** Asks until the router knows that the public registry lacks the name. */
async function untilKnown({ url }: Target, name: string): Promise<void> {
  await until(`${name} to be known`, async () => {
    await send(url, 'GET', manifest(name, 'v1'), { headers })
    const { memory } = (await send(url, 'GET', `/explain?image=${name}:v1`)).json()
    return memory.name?.state === 'lacking'
  })
}

/** A private manifest after a pause, of a new tag, and of a new name, with the public registry 150 ms away. */
export async function measureWaits(): Promise<void> {
  await part('waits', 'One private manifest, the public registry 150 ms away', async () => {
    const compared = [direct, ...(await launchEach({ LOOKUP_TTL: '1' }))]
    await client.push(hosted.url, 'team/waits', 'v1', image)
    farHub.delay.milliseconds = 75
    for (const router of compared.slice(1)) await untilKnown(router, 'team/waits')
    const results = await alternate(
      compared,
      async (target, round) => {
        const fresh = `${target.name}-${round}`
        await client.push(hosted.url, 'team/waits', fresh, image)
        await client.push(hosted.url, `team/waits-${fresh}`, 'v1', image)
        // Longer than LOOKUP_TTL.
        await new Promise((resolve) => setTimeout(resolve, 1500))
        return {
          pause: await millisecondsOf(target, manifest('team/waits', 'v1')),
          again: await millisecondsOf(target, manifest('team/waits', 'v1')),
          tag: await millisecondsOf(target, manifest('team/waits', fresh)),
          name: await millisecondsOf(target, manifest(`team/waits-${fresh}`, 'v1')),
        }
      },
      rounds * 2,
    )
    farHub.delay.milliseconds = 0
    await stopAll(compared.slice(1))
    const kinds = ['again', 'pause', 'tag', 'name'] as const
    const milliseconds = (target: string, kind: (typeof kinds)[number]) =>
      results.median(target, (sample) => sample[kind])
    for (const [kind, what] of [
      ['pause', 'after a pause'],
      ['tag', 'of a new tag'],
    ] as const) {
      const got = (way: string) => milliseconds(way, kind) - milliseconds('direct', kind)
      const measure = `a private manifest ${what}, public registry 150 ms away: ms more than direct`
      goals.push({ measure, wanted: everywhere(30), got, atMost: true })
    }
    return table(
      ['through', 'again ms', 'after a pause', 'a new tag', 'the first of a name'],
      compared.map(({ name }) => [name, ...kinds.map((kind) => short(milliseconds(name, kind)))]),
    )
  })
}

/** A public tag that is answered from memory, beside the same manifest by digest; and what the cache is asked meanwhile. */
export async function measureTagTtl(): Promise<void> {
  await part('tag-ttl', 'A public tag with TAG_TTL=60, again', async () => {
    const routers = await launchEach({ TAG_TTL: '60' })
    const path = { tag: manifest('library/app', 'v0'), digest: manifest('library/app', image.digest) }
    const load = (target: Target, paths: string[], seconds: number) =>
      parts.load(folder, target, { paths, accept, connections: 16, seconds })
    for (const router of routers) for (const one of Object.values(path)) await load(router, [one], 2)
    const results = await alternate(routers, async (router) => ({
      digest: (await load(router, [path.digest], 1)).rate,
      tag: (await load(router, [path.tag], 1)).rate,
    }))
    await stopAll(routers)
    const questions: Record<string, number> = {}
    for (const way of everyWay) {
      const router = await parts.launchRouter(way, folder, { ...upstreams, TAG_TTL: '60' })
      const before = cache.lines().length
      await load(router, [path.tag], 60)
      const asked = cache.lines().slice(before)
      questions[way] = asked.filter(
        (line) => /response completed/.test(line) && line.includes('library/app/manifests/v0'),
      ).length
      await router.stop()
    }
    const ratio = (way: string) => results.median(way, ({ tag, digest }) => tag / digest)
    const [measure, asked] = [
      'a public tag with TAG_TTL=60, against the same by digest',
      'questions for it in a minute, 16 connections',
    ]
    goals.push(
      { measure, wanted: everywhere(0.9), got: ratio },
      { measure: asked, wanted: everywhere(3), got: (way) => questions[way] as number, atMost: true },
    )
    const rate = (way: string, what: 'tag' | 'digest') => short(results.median(way, (sample) => sample[what]))
    return table(
      ['through', 'by digest, a second', 'by tag', 'tag to digest', 'questions to the cache in a minute'],
      everyWay.map((way) => [way, rate(way, 'digest'), rate(way, 'tag'), short(ratio(way)), questions[way] as number]),
    )
  })
}

const others = ['ghcr.io', 'quay.io', 'gcr.io', 'mcr.microsoft.com', 'public.ecr.aws', 'registry.k8s.io', 'nvcr.io']

/** Processor time of a manifest by digest, from memory, with one public registry and with eight. */
export async function measureSeveral(): Promise<void> {
  await part('several', 'By digest, from memory: one public registry and eight', async () => {
    const paths = {
      proxied: manifest('library/app', image.digest),
      hosted: manifest('team/app', image.digest),
      prefixed: manifest('ghcr.io/library/app', image.digest),
    }
    const PROXIES = others.map((host) => `${host}=${cache.host}`).join(',')
    const rows: (string | number)[][] = []
    const more = new Map<string, number>()
    for (const way of everyWay) {
      const samples: Record<string, number>[] = []
      // Two processes of the same program differ by up to a fifth, so several pairs are measured.
      for (let pair = 0; pair < rounds; pair++) {
        const one = { ...(await parts.launchRouter(way, folder, upstreams)), name: 'one' }
        const eight = { ...(await parts.launchRouter(way, folder, { ...upstreams, PROXIES })), name: 'eight' }
        const compared = [one, one, eight, eight, eight].map((router, i) => {
          const what =
            (['proxied', 'hosted'] as const)[i] ?? (['proxied', 'hosted', 'prefixed'] as const)[i - 2] ?? 'proxied'
          return { ...router, name: `${router.name} ${what}`, path: paths[what] }
        })
        const load = (name: string, seconds: number) => {
          const target = compared.find((each) => each.name === name) as (typeof compared)[number]
          return parts.load(folder, target, { paths: [target.path], accept, connections: 16, seconds })
        }
        for (const { name } of compared) await load(name, 2)
        const results = await alternate(compared, ({ name }) => load(name, 1), 3)
        samples.push(Object.fromEntries(compared.map(({ name }) => [name, results.median(name, ({ cpu }) => cpu)])))
        await stopAll([one, eight])
      }
      const names = Object.keys(samples[0] ?? {})
      const ratio = (name: string) =>
        median(samples.map((sample) => (sample[name] as number) / (sample['one proxied'] as number)))
      rows.push([way, ...names.map((name) => short(ratio(name)))])
      more.set(way, Math.max(...names.map(ratio)))
      if (way === everyWay[0]) rows.unshift(['through', ...names])
    }
    const measure = 'processor time by digest, from memory: the dearest of five against one proxied'
    goals.push({ measure, wanted: everywhere(1.05), got: (way) => more.get(way) as number, atMost: true })
    const [head = [], ...lines] = rows
    return table(head as string[], lines)
  })
}
