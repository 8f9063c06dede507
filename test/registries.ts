/**
 * `npm run registries`: what works with real registries, as hosted and as the cache, directly and through the router.
 *
 * It prints tables. It also writes them between the marks of the file given as argument, unless ONLY selects registries by the beginning
 * of their names. WAY lists the ways to run the router, `binary` if it is missing. The exit code is 1 if something that works directly does
 * not work through the router, or if the conformance suite finds a test worse. A registry that cannot be had is said, and left out.
 * `nora`, `gitea` and `zot` on the PATH are taken as they are; BUILD_GITEA=1 builds Gitea,
 * and GITEA_ASSETS is its source if what is on the PATH was built without its assets.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { hashSync } from 'bcryptjs'
import { temporaryFolder } from './parts/children.ts'
import { makeImage } from './parts/client.ts'
import { account } from './parts/dialects.ts'
import { flows, logIn, notThere, pullImage, pushImage } from './parts/flows.ts'
import { goTools, pinned } from './parts/go.ts'
import { type Kind, kinds, type Program, shown, usersFile } from './parts/kinds.ts'
import { Client } from './parts/performs.ts'
import { findRegistry, type Registry } from './parts/registries.ts'
import { startRouter, type Way } from './parts/router.ts'
import { scripted } from './parts/scripted.ts'
import { countBy, type Outcomes, runSuite, worseTests } from './parts/suite.ts'
import { still } from './parts/until.ts'

const chosenWays = (process.env.WAY ?? 'binary').split(',') as Way[]
const only = process.env.ONLY?.split(',') ?? ['']
const say = (line: string) => console.log(line)
const folder = temporaryFolder()
const users = usersFile(folder, hashSync(account.password, 4))
const htpasswd = { htpasswd: { realm: 'users', path: users } }
const tools = await goTools(say)
const plain = await findRegistry(say)
const worse: string[] = []
let count = 0
const newName = (what: string) => `${what.replace(/\W+/g, '-').toLowerCase()}-${++count}`

/** What is asked: a registry, or the router before one. */
interface Target {
  url: string
  host: string
  stop: () => Promise<unknown>
}
/** Why something does not work; undefined if it works. */
type Outcome = string | undefined
/** By flow: directly, and on each way. */
type ByFlow = Map<string, Outcome[]>

const outcomeOf = (running: Promise<unknown>): Promise<Outcome> =>
  running.then(
    () => undefined,
    ({ message }: Error) => message.trim() || 'failed',
  )

/** The router before some registries. It and they stop together. */
async function before(way: Way, parts: Record<'hosted' | 'cache', Registry>, environment = {}): Promise<Target> {
  const hosts = { HOSTED_HOSTNAME: parts.hosted.host, PROXY_HOSTNAME: parts.cache.host }
  const router = await startRouter(way, { ...hosts, ...environment })
  const stop = async () => {
    for (const line of router.odd())
      worse.push(
        `${way}, before ${parts.hosted.name} and ${parts.cache.name}: the router logged ${JSON.stringify(line)}`,
      )
    await router.stop()
    for (const part of Object.values(parts)) await part.stop()
  }
  return { url: router.url, host: router.host, stop }
}

const hub = await plain({ name: 'hub', folder })
/** Stands before the hub, and cuts all connections while that is to be down. */
let isDown = false
const gate = await scripted((request, response) => {
  if (isDown) return request.socket.destroy()
  const { method, url: path, headers } = request
  const asked = http.request(hub.url, { method, path, headers }, (answer) => {
    response.writeHead(answer.statusCode ?? 502, answer.headers)
    answer.pipe(response)
  })
  request.pipe(asked)
})
const hubUrl = `http://${gate.host}`
const newCache = () => plain({ name: newName('cache'), folder, proxyOf: hubUrl })

/** Runs what is to be seen directly, then on each way, each time on new registries. */
async function onEach(directly: () => Promise<void>, through: (way: Way) => Promise<void>): Promise<void> {
  await directly()
  for (const way of chosenWays) await through(way)
}

function note(results: ByFlow, what: string, flow: string, target: string, outcome: Outcome): void {
  const seen = [...(results.get(flow) ?? []), outcome]
  results.set(flow, seen)
  say(`${outcome === undefined ? '✓' : '✗'} ${what}, ${target}: ${flow}${outcome ? `: ${outcome}` : ''}`)
  const isWorse = target !== 'directly' && seen[0] === undefined && outcome !== undefined
  if (isWorse) worse.push(`${what}, ${target}: ${flow}: ${outcome}`)
}

// --- as hosted

interface Hosted {
  results: ByFlow
  /** Passed tests of the conformance suite, directly and on each way. */
  passed: number[]
  isWorse: boolean
}

async function runHosted(what: string, kind: Kind, { launch }: Program): Promise<Hosted> {
  const { owner = 'team' } = kind
  const results: ByFlow = new Map()
  const suites: Outcomes[] = []
  let isWorse = false
  const tryAll = async (target: string, { url, host, stop }: Target) => {
    for (const [flow, act] of Object.entries(flows)) {
      const name = `${owner}/${newName(flow)}`
      note(results, what, flow, target, await outcomeOf(act(new Client(url), name)))
    }
    if (tools) {
      const repositories = { OCI_REPO1: `${owner}/one`, OCI_REPO2: `${owner}/two` }
      const login = kind.wantsLogin ? { OCI_USERNAME: account.username, OCI_PASSWORD: account.password } : {}
      const settings = { ...repositories, ...login, ...kind.suite }
      suites.push(await runSuite(tools.conformance, { host, folder, results: newName('suite'), settings }))
      const lines = worseTests(suites[0] as Outcomes, suites.at(-1) as Outcomes)
      say(`  ${what}, ${target}: conformance ${passedOf(suites.at(-1) as Outcomes)}`)
      isWorse ||= lines.length > 0
      worse.push(...lines.map((line) => `${what}, ${target}, conformance: ${line}`))
    }
    await stop()
  }
  const tryLogin = async (target: string, { url, stop }: Target) => {
    const name = `${owner}/${newName('login')}`
    note(results, what, 'login', target, await outcomeOf(logIn(url, new Client(url), name)))
    await stop()
  }
  const start = () => launch({ name: newName(what), folder })
  const startWithLogin = () => launch({ name: newName(what), folder, auth: htpasswd })
  await onEach(
    async () => tryAll('directly', await start()),
    async (way) => tryAll(way, await before(way, { hosted: await start(), cache: await newCache() }, kind.settings)),
  )
  const own = { HTPASSWD_FILE: users, HOSTED_USERNAME: account.username, HOSTED_PASSWORD: account.password }
  if (kind.hasLogin)
    await onEach(
      async () => tryLogin('directly', await startWithLogin()),
      async (way) => {
        for (const [how, login] of Object.entries({ "the client's login": {}, "the router's login": own })) {
          const parts = { hosted: await startWithLogin(), cache: await newCache() }
          await tryLogin(`${way} with ${how}`, await before(way, parts, { ...kind.settings, ...login }))
        }
      },
    )
  return { results, passed: suites.map(passedOf), isWorse }
}

const passedOf = (tests: Outcomes) => countBy(tests, () => '').get('')?.passed ?? 0

// --- as the cache

const [byTag, byDigest, known] = ['tag', 'digest', 'known'].map((text) => makeImage({ [`${text}.txt`]: text })) as [
  ReturnType<typeof makeImage>,
  ReturnType<typeof makeImage>,
  ReturnType<typeof makeImage>,
]
const publicName = 'library/public'
for (const [tag, image] of Object.entries({ tag: byTag, digest: byDigest, known }))
  await pushImage(new Client(hub.url), publicName, tag, image)

const cacheFlows: Record<string, (client: Client) => Promise<void>> = {
  'pull by tag': (client) => pullImage(client, publicName, 'tag', byTag),
  'pull by digest': (client) => pullImage(client, publicName, byDigest.digest, byDigest),
  '404 for what is not there': (client) => notThere(client, publicName),
  tags: async (client) => {
    const { status, body } = await client.send('GET', `/v2/${publicName}/tags/list`)
    const tags = status === 200 ? JSON.parse(`${body}`).tags : []
    if (!tags?.includes('digest')) throw new Error(`${status} ${body}`)
  },
  'its hub is down: pull of what it has': async (client) => {
    await pullImage(client, publicName, 'known', known)
    // Some ask once more for what they store, after they gave it.
    await still(() => gate.requests.length)
    isDown = true
    const outcome = await outcomeOf(pullImage(client, publicName, 'known', known))
    isDown = false
    if (outcome) throw new Error(outcome)
  },
}
const throughOnly = 'mount of its layers'

async function runCache(what: string, kind: Kind, { launch }: Program): Promise<ByFlow> {
  const results: ByFlow = new Map()
  const start = (auth?: object) => launch({ name: newName(`${what} cache`), folder, proxyOf: hubUrl, auth })
  const tryAll = async (target: string, { url, stop }: Target) => {
    const client = new Client(url)
    for (const [flow, act] of Object.entries(cacheFlows))
      note(results, what, flow, target, await outcomeOf(act(client)))
    if (target !== 'directly') {
      const mount = `/v2/team/mounted/blobs/uploads/?mount=${byTag.blobs[1]?.digest}&from=${publicName}`
      const { status } = await client.send('POST', mount)
      const outcome = status === 201 ? undefined : `POST: ${status}`
      // Only the router can do that, so it counts as if it worked directly.
      if (!results.has(throughOnly)) results.set(throughOnly, [undefined])
      note(results, what, throughOnly, target, outcome)
    }
    await stop()
  }
  const newHosted = () => plain({ name: newName('hosted'), folder })
  const settings = { TAGS: 'lookup', ...kind.cacheSettings }
  await onEach(
    async () => tryAll('directly', await start()),
    async (way) => tryAll(way, await before(way, { hosted: await newHosted(), cache: await start() }, settings)),
  )
  const login = { PROXY_USERNAME: account.username, PROXY_PASSWORD: account.password }
  const tryLogin = async (target: string, { url, stop }: Target) => {
    note(results, what, 'login', target, await outcomeOf(pullImage(new Client(url), publicName, 'tag', byTag)))
    await stop()
  }
  if (kind.hasLogin)
    await onEach(
      async () => tryLogin('directly', await start(htpasswd)),
      async (way) =>
        tryLogin(
          way,
          await before(way, { hosted: await newHosted(), cache: await start(htpasswd) }, { ...settings, ...login }),
        ),
    )
  return results
}

// --- all of them, and the tables

/** ✓ works, – does not work directly either, + works through the router only, ✗ worse than directly. */
function mark(outcomes: Outcome[] = []): string {
  const [directly, ...through] = outcomes.map((outcome) => outcome === undefined)
  if (through.length === 0) return '–'
  const all = through.every(Boolean)
  if (directly) return all ? '✓' : '✗'
  return all ? '+' : '–'
}

const hostedRows: string[][] = []
const cacheRows: string[][] = []
const notRun: string[] = []
const hostedColumns = [...Object.keys(flows), 'login']
const cacheColumns = [...Object.keys(cacheFlows), throughOnly, 'login']
/** Adds the rows of a registry. Rejects if it cannot be started. */
async function addRows(what: string, kind: Kind, program: Program): Promise<void> {
  const name = `${what.replace(/ [\d.]+$/, '')} ${program.version}`
  const { results, passed, isWorse } = await runHosted(what, kind, program)
  const [directly, ...through] = passed
  const suite = passed.length ? `${isWorse ? '✗ ' : ''}${Math.min(...through)}, directly ${directly}` : 'not run'
  const cells = hostedColumns.map((flow) => mark(results.get(flow)))
  hostedRows.push([name, shown(kind.settings), ...cells, suite])
  if (!kind.isCache) return
  const cached = await runCache(what, kind, program)
  cacheRows.push([name, shown(kind.cacheSettings), ...cacheColumns.map((flow) => mark(cached.get(flow)))])
}

for (const [what, kind] of Object.entries(kinds)) {
  if (!only.some((prefix) => what.startsWith(prefix))) continue
  const program = await kind.get(folder, say)
  if (typeof program !== 'string') {
    await addRows(what, kind, program).catch((error) => worse.push(`${what}: ${error.message}`.slice(0, 1000)))
    continue
  }
  say(`NOT RUN: ${what}: ${program}`)
  notRun.push(`${what}: ${program}`)
  hostedRows.push([what, 'not run here', ...hostedColumns.map(() => ''), ''])
  if (kind.isCache) cacheRows.push([what, 'not run here', ...cacheColumns.map(() => '')])
}
await hub.stop()
await gate.close()

const table = (rows: string[][]) =>
  rows.flatMap((row, i) => [row, ...(i === 0 ? [row.map(() => '---')] : [])]).map((row) => `| ${row.join(' | ')} |`)
const suiteModule = 'github.com/opencontainers/distribution-spec/conformance'
const report = [
  ...table([['as hosted', 'set', ...hostedColumns, 'conformance, passed'], ...hostedRows]),
  '',
  ...table([['as the cache', 'set', ...cacheColumns], ...cacheRows]),
  '',
  `Run on ${new Date().toISOString().slice(0, 10)}, with the router run as ${chosenWays.join(', ')}, and the OCI conformance suite ${pinned(suiteModule)}.`,
  ...(worse.length ? ['', 'Worse than directly:', '', ...worse.map((line) => `- ${line}`)] : []),
  ...(notRun.length ? ['', 'Not run here:', '', ...notRun.map((line) => `- ${line}`)] : []),
].join('\n')
say(`\n${report}\n`)
const [file] = process.argv.slice(2)
if (file && !process.env.ONLY) {
  const marks = /(<!-- registries -->\n)[\s\S]*(<!-- \/registries -->)/
  writeFileSync(
    file,
    readFileSync(file, 'utf8').replace(marks, (_all, begin, end) => `${begin}${report}\n${end}`),
  )
}
for (const line of worse) say(`WORSE: ${line}`)
process.exit(worse.length > 0 ? 1 : 0)
