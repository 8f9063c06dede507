/**
 * A day of a company, played on a clock of its own: how often the public registry is asked. The routers are the whole
 * service; the registries and the nodes are made up.
 */
import { createHash } from 'node:crypto'
import { setImmediate } from 'node:timers'
import { type Config, readConfig } from '../src/config.ts'
import type { Fetch } from '../src/runtime/runtime.ts'
import { createService, type Service } from '../src/service.ts'
import { createRandom } from '../test/parts/random.ts'

/** What happens in a day. Times are seconds. */
export const day = {
  seconds: 86_400,
  nodes: 50,
  privateNames: 200,
  publicImages: 100,
  deploysAnHour: 20,
  /** How many nodes pull what is deployed, within a minute. */
  nodesOfDeploy: 5,
  /** How often a node starts a container whose image it asks for anew: after a crash, a move, a cron job. */
  privateEvery: 600,
  publicEvery: 1800,
  /** As Docker Hub limits those who do not log in: manifests got by one address in six hours. HEAD and lists are free. */
  limit: 100,
  limitSeconds: 6 * 3600,
}

/** What one day cost. */
export interface Day {
  /** Questions of the cache to the public registry, about private names and about its own. */
  privateQuestions: number
  publicQuestions: number
  /** The most often that one private name was asked about by one replica in one hour, after the first hour. */
  mostOfName: number
  /** Answers of 429 of the public registry. */
  limited: number
  /** Pulls of nodes, and those that failed. */
  pulls: number
  failed: number
}

const type = 'application/vnd.oci.image.manifest.v1+json'
const digestOf = (text: string) => `sha256:${createHash('sha256').update(text).digest('hex')}`

/** The private registry, the cache, and the public registry behind the cache. */
function world(clock: { now: number }) {
  /** What tags and digests lead to, by `name:tag` and `name:digest`. */
  const contents = new Map<string, string>()
  const counts = { privateQuestions: 0, publicQuestions: 0, limited: 0 }
  /** When manifests were got, for the limit. */
  const got: number[] = []
  /** When each private name was asked about, by replica and name. */
  const asked = new Map<string, number[]>()
  const publish = (name: string, tag: string) => {
    const layers = [`base of ${name}`, `${name}:${tag}`].map((content) => {
      contents.set(`${name}:${digestOf(content)}`, content)
      return { digest: digestOf(content), size: content.length }
    })
    const content = JSON.stringify({ schemaVersion: 2, mediaType: type, layers })
    for (const reference of [tag, digestOf(content)]) contents.set(`${name}:${reference}`, content)
  }

  /** Counts a question that reaches the public registry. False if it is over the limit. */
  const reachHub = (replica: number, name: string, isManifest: boolean): boolean => {
    const isPrivate = name.startsWith('team/')
    counts[isPrivate ? 'privateQuestions' : 'publicQuestions']++
    if (isPrivate) asked.set(`${replica} ${name}`, [...(asked.get(`${replica} ${name}`) ?? []), clock.now])
    // What is not there does not count.
    if (!isManifest || isPrivate) return true
    while (got.length > 0 && (got[0] as number) < clock.now - day.limitSeconds) got.shift()
    if (got.length < day.limit) return got.push(clock.now) > 0
    counts.limited++
    return false
  }

  const give = (name: string, reference: string): Response => {
    const content = contents.get(`${name}:${reference}`)
    if (content === undefined)
      return new Response('{"errors":[{"code":"MANIFEST_UNKNOWN","message":""}]}', { status: 404 })
    const digest = digestOf(content)
    return new Response(content, {
      headers: {
        'Content-Type': type,
        ETag: `"${digest}"`,
        'Docker-Content-Digest': digest,
        'Content-Length': `${content.length}`,
      },
    })
  }

  /** A cache as CNCF distribution is one: it asks for each tag, and gives what it has if the public registry fails. */
  const cached = new Set<string>()
  const ofCache = (replica: number, path: string): Response => {
    const [, name = '', kind = '', reference = ''] = /^\/v2\/(.+)\/(manifests|blobs|tags)\/([^?]+)/.exec(path) ?? []
    if (!name) return new Response('{}')
    if (kind === 'tags') {
      reachHub(replica, name, false)
      return name.startsWith('team/') ? new Response('{}', { status: 404 }) : new Response('{"tags":["1"]}')
    }
    const key = `${name}:${reference}`
    const isDigest = reference.startsWith('sha256:')
    // A digest that it has is not asked for. A tag that it has is asked for with HEAD, which is not limited.
    if (!(isDigest && cached.has(key)) && !reachHub(replica, name, kind === 'manifests' && !cached.has(key)))
      return new Response('{}', { status: 429 })
    if (name.startsWith('team/')) return new Response('{"errors":[{"code":"MANIFEST_UNKNOWN"}]}', { status: 404 })
    cached.add(key)
    return give(name, reference)
  }

  const ofHosted = (path: string): Response => {
    const [, name = '', reference = ''] = /^\/v2\/(.+)\/(?:manifests|blobs)\/([^?]+)/.exec(path) ?? []
    return name ? give(name, reference) : new Response('{}')
  }
  return { publish, counts, asked, ofCache, ofHosted }
}
type World = ReturnType<typeof world>

/** A replica between the two registries. Its answers are its memory's own, so it is asked in `LOOKUP_TTL` as in production. */
function startReplica(
  number: number,
  clock: { now: number },
  { ofCache, ofHosted }: World,
  settings: Record<string, string>,
) {
  let inFlight = 0
  const fetch: Fetch = async (url) => {
    inFlight++
    await new Promise((resolve) => setImmediate(resolve))
    inFlight--
    const { hostname, pathname } = new URL(url)
    return hostname === 'hosted' ? ofHosted(pathname) : ofCache(number, pathname)
  }
  const required = { AGGREGATE_HOSTNAME: 'registry.example', HOSTED_HOSTNAME: 'hosted', PROXY_HOSTNAME: 'cache' }
  const config = readConfig({ ...required, ...settings }) as Config
  const now = () => clock.now * 1000
  const service = createService(config, { fetch, now, log: () => {}, version: '0', runtime: 'day' })
  return { service, isQuiet: () => inFlight === 0 }
}

/** As containerd pulls: the tag by HEAD; if the node lacks what it leads to, the manifest by its digest, and the layers it lacks. */
async function pull(service: Service, has: Set<string>, name: string, tag: string): Promise<boolean> {
  const ask = (method: string, kind: string, reference: string) => {
    const url = `http://registry.example/v2/${name}/${kind}/${reference}`
    return service.handle(new Request(url, { method, headers: { Accept: type } }))
  }
  const head = await ask('HEAD', 'manifests', tag)
  const digest = head.headers.get('Docker-Content-Digest')
  if (head.status !== 200 || !digest) return false
  if (has.has(digest)) return true
  const reply = await ask('GET', 'manifests', digest)
  if (reply.status !== 200) return false
  has.add(digest)
  const { layers } = JSON.parse(await reply.text())
  for (const layer of layers.map((one: { digest: string }) => one.digest)) {
    if (has.has(layer)) continue
    const blob = await ask('GET', 'blobs', layer)
    if ((await blob.text()) === '' || blob.status !== 200) return false
    has.add(layer)
  }
  return true
}

/** When, and what: a deploy of a name, or a pull by a node. */
type Event = [at: number, name: string, tag: string, node?: number]

/** The events of a day, the first one first. */
function plan(random: () => number, privateEvery: number): Event[] {
  const events: Event[] = []
  // Few names are used often, many seldom.
  const any = (count: number) => Math.floor(random() ** 2 * count)
  const every = (seconds: number, add: (at: number) => void) => {
    for (let at = random() * seconds; at < day.seconds; at += seconds * (0.5 + random())) add(at)
  }
  let deploys = 0
  every(3600 / day.deploysAnHour, (at) => {
    const [name, tag] = [`team/app-${any(day.privateNames)}`, `deploy-${deploys++}`]
    events.push([at, name, tag])
    for (let i = 0; i < day.nodesOfDeploy; i++)
      events.push([at + 1 + random() * 60, name, tag, Math.floor(random() * day.nodes)])
  })
  for (let node = 0; node < day.nodes; node++) {
    every(privateEvery, (at) => events.push([at, `team/app-${any(day.privateNames)}`, 'latest', node]))
    every(day.publicEvery, (at) => events.push([at, `library/public-${any(day.publicImages)}`, '1', node]))
  }
  return events.sort(([a], [b]) => a - b)
}

/** Plays a day with this many replicas, which a balancer gives requests at random. */
export async function playDay(
  replicas: number,
  settings: Record<string, string>,
  privateEvery: number = day.privateEvery,
  seed = 1,
): Promise<Day> {
  const random = createRandom(seed)
  const clock = { now: 1 }
  const made = world(clock)
  for (let i = 0; i < day.privateNames; i++) made.publish(`team/app-${i}`, 'latest')
  for (let i = 0; i < day.publicImages; i++) made.publish(`library/public-${i}`, '1')
  const routers = Array.from({ length: replicas }, (_, i) => startReplica(i, clock, made, settings))
  const nodes = Array.from({ length: day.nodes }, () => new Set<string>())
  const result = { pulls: 0, failed: 0 }
  for (const [at, name, tag, node] of plan(random, privateEvery)) {
    clock.now = at + 1
    if (node === undefined) {
      made.publish(name, tag)
      continue
    }
    result.pulls++
    const router = routers[Math.floor(random() * replicas)] as (typeof routers)[number]
    if (!(await pull(router.service, nodes[node] as Set<string>, name, tag))) result.failed++
    // What is asked in the background is asked at this time.
    for (let quiet = 0; quiet < 3; quiet = router.isQuiet() ? quiet + 1 : 0)
      await new Promise((resolve) => setImmediate(resolve))
  }
  return { ...made.counts, ...result, mostOfName: Math.max(0, ...[...made.asked.values()].map(mostInHour)) }
}

/** The most times within an hour, after the minute in which the name became known. */
function mostInHour(times: number[]): number {
  const later = times.filter((time) => time > (times[0] as number) + 60)
  return Math.max(0, ...later.map((time) => later.filter((other) => other >= time && other < time + 3600).length))
}

/** The settings compared. `privateEvery`: how often a node starts a private container, in seconds. */
export const variants: [what: string, replicas: number, privateEvery: number, settings: Record<string, string>][] = [
  ['NAME_TTL=0', 3, 600, { NAME_TTL: '0' }],
  ['the defaults', 3, 600, {}],
  ['the defaults, a fourth replica', 4, 600, {}],
  ['TAG_TTL=60', 3, 600, { TAG_TTL: '60' }],
  ['HOSTED_NAMES=team/**', 3, 600, { HOSTED_NAMES: 'team/**' }],
  ['NAME_TTL=0', 3, 60, { NAME_TTL: '0' }],
  ['the defaults', 3, 60, {}],
  ['NAME_TTL=21600', 3, 60, { NAME_TTL: '21600' }],
]

/** A row a variant: what the public registry was asked. */
export async function dayRows(): Promise<(string | number)[][]> {
  const rows: (string | number)[][] = []
  for (const [what, replicas, privateEvery, settings] of variants) {
    const { privateQuestions, mostOfName, publicQuestions, limited, pulls, failed } = await playDay(
      replicas,
      settings,
      privateEvery,
    )
    rows.push([what, replicas, pulls, privateQuestions, mostOfName, publicQuestions, limited, failed])
  }
  return rows
}
export const dayHead = [
  'settings',
  'replicas',
  'pulls',
  'asked about private names',
  'of one name by one replica in an hour, at most',
  'about public ones',
  'of these limited',
  'pulls that failed',
]
