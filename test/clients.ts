/**
 * `npm run clients`: tests what real clients can do through the router, with real registries, with and without logins.
 *
 * It prints tables. It also writes them between the marks of the file given as argument, unless ONLY or WAY selects a
 * part. The exit code is 1 if a client failed. A client that cannot run here is listed as not run.
 * It needs root, and installs missing programs, which it says.
 */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { hashSync } from 'bcryptjs'
import { balance } from './parts/balancer.ts'
import { atEnd, type Child, run, start, temporaryFolder } from './parts/children.ts'
import { accept, type Image, makeImage, makeIndex, pull, push, send, tar } from './parts/client.ts'
import { attachments, type Client, clients, type Login, mirrors } from './parts/commands.ts'
import { goInstall, goTools } from './parts/go.ts'
import { program } from './parts/packages.ts'
import { startRealm } from './parts/realm.ts'
import { findRegistry, freePort, fromOlareg, type Registry } from './parts/registries.ts'
import { type Router, startRouter, type Way, ways } from './parts/router.ts'
import { until } from './parts/until.ts'

const mebibyte = 1024 * 1024
/** `noSecret()` in `parts/canary.ts` looks for it where no password belongs. */
const password = 'canary-password'
const login = `Basic ${Buffer.from(`ann:${password}`).toString('base64')}`
/** All clients run on the first way; only those with `everyWay` run on the others. */
const chosenWays = process.env.WAY
  ? [process.env.WAY as Way]
  : [...new Set<Way>(['binary', ...(Object.keys(ways) as Way[])])]
const say = (line: string) => console.log(line)

const folder = temporaryFolder()
const running: Child[] = []
const bin = join(folder, 'bin')
mkdirSync(bin)
const path = (name: string) => join(folder, name)

// The registries and their content.
const launch = await findRegistry(say)
const usersFile = path('users')
writeFileSync(usersFile, `ann:${hashSync(password, 4)}\n`)
const realm = await startRealm(
  folder,
  (authorization) => authorization === login,
  (authorization) => !!authorization,
)
const hub = await launch({ name: 'hub', folder })
const cache = await launch({ name: 'cache', folder, proxyOf: hub.url })
const ghcrHub = await launch({ name: 'ghcr', folder })
const ghcrCache = await launch({ name: 'ghcr-cache', folder, proxyOf: ghcrHub.url })
const hosted = await launch({ name: 'hosted', folder })
const htpasswd = { htpasswd: { realm: 'hosted', path: usersFile } }
const withPasswords = await launch({ name: 'htpasswd', folder, auth: htpasswd })
// crane refuses a realm with a loopback address; oras refuses a realm with another host name than the registry. So the
// realm and the router both get the name `localhost`.
const viaLocalhost = ({ host }: { host: string }) => host.replace('127.0.0.1', 'localhost')
const token = { ...realm.auth.token, realm: `http://${viaLocalhost(realm)}/token` }
const withTokens = await launch({ name: 'tokens', folder, auth: { token } })

const files = { 'base.bin': randomBytes(200 * mebibyte) }
const base = makeImage(files)
const derived = makeImage({ ...files, 'own.txt': 'own' })
const hello = makeMany('hello')
const pushed = makeMany('own')
await fill(hub, 'library/hello', hello)
await fill(hub, 'library/base', [base])
await fill(ghcrHub, 'org/hello', makeMany('of ghcr.io'))
await fill(hosted, 'team/hello', makeMany('private'))

/** Images for two architectures and, last, their index. */
function makeMany(content: string): Image[] {
  const images = { amd64: makeImage({ 'a.txt': content }), arm64: makeImage({ 'a.txt': `${content}, arm` }, 'arm64') }
  return [images.amd64, images.arm64, makeIndex(images)]
}
/** Pushes images to a registry. The last one gets the tag 1.0.0. */
async function fill({ url }: Pick<Registry, 'url'>, name: string, images: Image[]): Promise<void> {
  for (const image of images) await push(url, name, image === images.at(-1) ? '1.0.0' : image.digest, image)
}

/**
 * Writes images as an OCI layout, both as a folder and as a tar archive (image-spec, "OCI Image Layout").
 * The last image gets the tag. The blob with the digest `omit` is left out.
 */
async function writeLayout(name: string, tag: string, images: Image[], omit?: string): Promise<void> {
  mkdirSync(path(`${name}/blobs/sha256`), { recursive: true })
  const write = (file: string, content: Buffer | string) => writeFileSync(path(`${name}/${file}`), content)
  for (const { digest, manifest, blobs } of images) {
    for (const { digest: blob, content } of [{ digest, content: manifest }, ...blobs]) {
      if (blob !== omit) write(`blobs/${blob.replace(':', '/')}`, content as Buffer)
    }
  }
  const { digest, mediaType, manifest } = images.at(-1) as Image
  const annotations = { 'org.opencontainers.image.ref.name': tag }
  const manifests = [{ mediaType, digest, size: manifest.length, annotations }]
  write('index.json', JSON.stringify({ schemaVersion: 2, manifests }))
  write('oci-layout', JSON.stringify({ imageLayoutVersion: '1.0.0' }))
  await run(['tar', '-cf', path(`${name}.tar`), '-C', path(name), '.'])
}
await writeLayout('layout', '1.0.0', pushed)
await writeLayout('derived', '2.0.0', [derived], base.blobs[1]?.digest)
writeFileSync(path('layer.tar'), tar('layer.txt', Buffer.from('a layer')))
writeFileSync(
  path('storage.conf'),
  `[storage]\ndriver = "vfs"\ngraphroot = "${path('graph')}"\nrunroot = "${path('run')}"\n`,
)
writeFileSync(path('auth.json'), '{}')

/** The routers of one way to run it. */
interface Routers {
  way: Way
  router: Router
  /** An address of `router` at which the bytes from clients are counted. */
  host: string
  sent: { bytes: number }
  /** A router whose proxy is down: it has only what hosted has. */
  hostedOnly: Router
  /** Routers with a login, by who requires it. */
  logins: Record<Login, Router>
}

async function startRouters(way: Way): Promise<Routers> {
  const launchRouter = (environment: Record<string, string> = {}) =>
    startRouter(way, { HOSTED_HOSTNAME: hosted.host, PROXY_HOSTNAME: cache.host, ...environment })
  const router = await launchRouter({ PROXIES: `ghcr.io=${ghcrCache.host}` })
  const sent = { bytes: 0 }
  const counter = await balance(
    () => [Number(router.host.split(':')[1])],
    (_port, _connectionBytes, clientBytes) => {
      sent.bytes += clientBytes
    },
  )
  const port = `${await freePort()}`
  const users = { HTPASSWD_FILE: usersFile, ANONYMOUS_PULL: 'true' }
  const logins = {
    htpasswd: await launchRouter({ HOSTED_HOSTNAME: withPasswords.host }),
    tokens: await launchRouter({ HOSTED_HOSTNAME: withTokens.host }),
    here: await launchRouter({ ...users, PORT: port, AGGREGATE_HOSTNAME: `localhost:${port}` }),
  }
  const hostedOnly = await launchRouter({ PROXY_HOSTNAME: '127.0.0.1:1', V2_REQUIRES: 'hosted' })
  return { way, router, host: new URL(counter.url).host, sent, hostedOnly, logins }
}

/** Runs a shell command of a client in an empty folder. `host` is the address of the router or registry to use. */
async function command(name: string, line: string, host: string, given: Record<string, string> = {}): Promise<string> {
  const home = path(`home-${Object.keys(clients).indexOf(name)}`)
  mkdirSync(home, { recursive: true })
  const hosts = path(`hosts-${host}`)
  for (const [registry, capabilities] of [
    [host, '"pull", "resolve", "push"'],
    ['docker.io', '"pull", "resolve"'],
  ]) {
    mkdirSync(join(hosts, `${registry}`), { recursive: true })
    const toml = `server = "http://127.0.0.1:1"\n[host."http://${host}"]\n  capabilities = [${capabilities}]\n`
    writeFileSync(join(hosts, `${registry}`, 'hosts.toml'), toml)
  }
  const env = {
    HOME: home,
    PATH: `${bin}:${process.env.PATH}`,
    XDG_CONFIG_HOME: undefined,
    XDG_RUNTIME_DIR: undefined,
    CONTAINERD_ADDRESS: path('containerd.sock'),
    DOCKER_HOST: `unix://${path('docker.sock')}`,
    DOCKER_CONFIG: home,
    // The classic builder: it needs no plugin.
    DOCKER_BUILDKIT: '0',
    CONTAINERS_STORAGE_CONF: path('storage.conf'),
    REGISTRY_AUTH_FILE: path('auth.json'),
    COSIGN_PASSWORD: '',
    // cosign would fetch keys from the internet that it does not need here.
    TUF_MIRROR: 'http://127.0.0.1:1',
    ROUTER: host,
    HOSTS: hosts,
    LAYER: path('layer.tar'),
    LAYOUT: path('layout'),
    ARCHIVE: path('layout.tar'),
    DERIVED: path('derived.tar'),
    BASE: 'library/base:1.0.0',
    LOGIN: 'ann',
    PASSWORD: password,
    ...given,
  }
  return run(['timeout', '300', 'sh', '-ec', line], { cwd: mkdtempSync(join(home, 'in-')), env })
}

/** The digest of a manifest in a registry; undefined if there is none. */
async function digestAt(url: string, name: string, tag = '1.0.0'): Promise<string | undefined> {
  const { headers } = await send(url, 'HEAD', `/v2/${name}/manifests/${tag}`, { headers: { Accept: accept } })
  return headers['docker-content-digest'] as string | undefined
}

/** The repositories that a client pulls from: the public one first. */
const namesOf = ({ names = ['library/hello', 'team/hello'] }: Client) => names

/** Pulls an image, and checks in the log that a blob came through the router. */
async function pullThrough(
  name: string,
  line: string,
  image: string,
  router: Router,
  host = router.host,
): Promise<void> {
  const client = clients[name] as Client
  if (client.forget) await command(name, client.forget, host)
  const before = router.log().length
  await command(name, line, host, { IMAGE: image, NAME: `team/all-${router.way}` })
  await until(`${name} to pull ${image} through the router`, () =>
    router
      .log()
      .slice(before)
      .some(({ entity, method, status }) => entity === 'blob' && method === 'GET' && status === 200),
  )
}

/** Pulls an image of another public registry as a node does, and checks that it came through the router. */
async function checkMirror(what: string, { router, host }: Routers): Promise<void> {
  const { by, setUp, pull } = mirrors[what] as (typeof mirrors)[string]
  const forget = clients[by]?.forget
  if (forget) await command(by, forget, host)
  const before = router.log().length
  await command(by, `${setUp}\n${pull}`, host, { PUBLIC: 'ghcr.io/org/hello:1.0.0' })
  await until(`${what} to pull through the router`, () =>
    router
      .log()
      .slice(before)
      .some(({ entity, status, by: registry }) => entity === 'blob' && status === 200 && registry === 'ghcr.io'),
  )
}

interface Column {
  /** Only clients with this action are tested. */
  needs: keyof Client
  /** Throws on failure. A string result is what the table shows. */
  check: (name: string, client: Required<Client>, routers: Routers, repository: string) => Promise<unknown>
}

const columns: Record<string, Column> = {
  'pull by tag': {
    needs: 'pull',
    check: async (name, client, { router, host }) => {
      for (const repository of namesOf(client))
        await pullThrough(name, client.pull, `${repository}:1.0.0`, router, host)
    },
  },
  'pull by digest': {
    needs: 'pull',
    check: async (name, client, { router, host }) => {
      for (const [i, repository] of namesOf(client).entries()) {
        const digest = await digestAt([hub, hosted][i]?.url ?? '', repository)
        await pullThrough(name, client.pull, `${repository}@${digest}`, router, host)
      }
    },
  },
  'pull for other platforms': {
    needs: 'platforms',
    check: async (name, client, { router, host }) => {
      const before = router.log().length
      await pullThrough(name, client.platforms, 'library/hello:1.0.0', router, host)
      await until('the other architecture', () =>
        router
          .log()
          .slice(before)
          .some(({ reference }) => reference === hello[1]?.digest),
      )
    },
  },
  push: {
    needs: 'push',
    check: async (name, client, { host, hostedOnly }, repository) => {
      await command(name, client.push, host, { NAME: repository })
      await pull(hostedOnly.url, repository, '1.0.0')
    },
  },
  'push on a base of 200 MiB that only the cache has, sending under 1 MiB': {
    needs: 'mount',
    check: async (name, client, { host, hostedOnly, sent }, repository) => {
      const before = sent.bytes
      await command(name, client.mount, host, { NAME: repository })
      const bytes = sent.bytes - before
      if (!client.signatures) await pullThrough(name, client.pull, `${repository}:2.0.0`, hostedOnly)
      await pull(hostedOnly.url, repository, '2.0.0')
      const headers = { Accept: accept }
      const { layers } = (await send(hostedOnly.url, 'GET', `/v2/${repository}/manifests/2.0.0`, { headers })).json()
      assert.ok(layers.some(({ size }: { size: number }) => size > 200 * mebibyte))
      say(`  ${name} sent ${bytes} bytes`)
      assert.ok(bytes < mebibyte, `sent ${bytes} bytes`)
    },
  },
  'list tags': {
    needs: 'list',
    check: async (name, client, { host }, repository) => {
      assert.match(await command(name, client.list, host, { NAME: repository }), /1\.0\.0/)
    },
  },
  delete: {
    needs: 'delete',
    check: async (name, client, { host, router }, repository) => {
      const digest = await digestAt(hosted.url, repository)
      await command(name, client.delete, host, { NAME: repository, IMAGE: `${repository}@${digest}` })
      for (const { url } of [hosted, router]) assert.equal(await digestAt(url, repository, digest), undefined)
    },
  },
  'hosted has passwords: login, push, pull': { needs: 'login', check: withLogin('htpasswd') },
  'hosted wants tokens: login, push, mount, pull': { needs: 'login', check: withLogin('tokens') },
  '`HTPASSWD_FILE`, `ANONYMOUS_PULL`: login, push, pull; pull without': { needs: 'login', check: withLogin('here') },
  'hosted has passwords: public image without a login': { needs: 'login', check: withoutLogin('htpasswd') },
  'hosted wants tokens: the same': { needs: 'login', check: withoutLogin('tokens') },
  '`ANONYMOUS_PULL`: the same': { needs: 'login', check: withoutLogin('here') },
}

/**
 * Pulls a public image anonymously. This must work, or must fail if `noAnonymousPull` says so.
 * The check before has logged the client out.
 */
function withoutLogin(kind: Login): Column['check'] {
  return async (name, client, { logins }) => {
    const router = logins[kind]
    const pulling = pullThrough(name, client.pull, `${namesOf(client)[0]}:1.0.0`, router, viaLocalhost(router))
    if (!client.noAnonymousPull?.includes(kind)) return pulling
    await assert.rejects(pulling, 'pulled without a login')
    return '–'
  }
}

function withLogin(kind: Login): Column['check'] {
  return async (name, client, { logins }, repository) => {
    const router = logins[kind]
    const host = viaLocalhost(router)
    // A new repository for each login: a client pushes nothing that it finds there.
    const target = `${kind}/${repository}`
    const go = (line: string, given = {}) => command(name, line, host, { NAME: target, ...given })
    if (client.forget) await go(client.forget)
    await assert.rejects(go(client.push), 'pushed without a login')
    await assert.rejects(go(`${client.login} && ${client.push}`, { PASSWORD: 'wrong' }), 'pushed with a wrong password')
    await go(client.login)
    await go(client.push)
    if (client.mount && kind === 'tokens') {
      await go(client.mount)
      const mounted = ({ name, entity, status }: Record<string, unknown>) =>
        name === target && entity === 'uploads' && status === 201
      await until('the base to be mounted', () => router.log().some(mounted))
    }
    for (const pulled of [target, namesOf(client)[0]])
      await pullThrough(name, client.pull, `${pulled}:1.0.0`, router, host)
    await go(client.logout)
    const anonymousPull = pullThrough(name, client.pull, `${target}:1.0.0`, router, host)
    if (kind === 'here') await anonymousPull
    else await assert.rejects(anonymousPull, 'pulled without a login')
  }
}

/**
 * Attaches a referrer through the router, and finds it again. If the image is only in the cache, another referrer is
 * attached at the hub first, and both must be found.
 */
async function checkAttachment(what: string, name: string, at: Registry, router: Router): Promise<void> {
  const { by, attach, find, checksLastOnly } = attachments[what] as (typeof attachments)[string]
  await fill(at, name, hello)
  const image = { NAME: name, IMAGE: `${name}@${hello.at(-1)?.digest}` }
  const go = (line: string, KEY: string, host = router.host) => command(by, line, host, { ...image, KEY })
  const forget = clients[by]?.forget
  if (forget) for (const host of [router.host, at.host]) await command(by, forget, host)
  const keys = at === hub ? ['public', 'own'] : ['own']
  if (at === hub) await go(attach, 'public', hub.host)
  await go(attach, 'own')
  if (!checksLastOnly) for (const key of keys) await go(find, key)
  else {
    const output = await Promise.any(keys.map((key) => go(find, key)))
    if (at === hub) assert.match(output, /total of 2 references/)
  }
}

/** Installs and starts what a client needs. Gives the reason if it cannot run here. */
async function install({ from }: Client): Promise<string | undefined> {
  if ('go' in from) {
    say(`building with go install: ${from.go}`)
    return goInstall(from.go, bin)
  }
  if (!(await program([from.program], from.debian, say)))
    return `no \`${from.program}\`, nor the package ${from.debian}`
  return daemons[from.program]?.().then(
    () => undefined,
    ({ message }: Error) => message.split('\n').at(-1),
  )
}

/** Daemons that clients need. They have their own folders and sockets, apart from those of this machine. */
const daemons: Record<string, () => Promise<unknown>> = {
  containerd: once(() => {
    const toml = [
      'version = 2',
      `root = "${path('containerd')}"`,
      `state = "${path('containerd-state')}"`,
      'disabled_plugins = ["io.containerd.grpc.v1.cri"]',
      `[grpc]\naddress = "${path('containerd.sock')}"`,
      `[ttrpc]\naddress = "${path('containerd.ttrpc')}"`,
    ]
    writeFileSync(path('containerd.toml'), toml.join('\n'))
    return daemon(['containerd', '--config', path('containerd.toml')], /containerd successfully booted/)
  }),
  dockerd: once(async () => {
    await daemons.containerd?.()
    const folders = ['data-root', 'exec-root'].flatMap((option) => [`--${option}`, path(`docker-${option}`)])
    const sockets = ['--host', `unix://${path('docker.sock')}`, '--containerd', path('containerd.sock')]
    const network = ['--bridge=none', '--iptables=false']
    const options = ['--storage-driver=vfs', '--pidfile', path('docker.pid'), ...folders, ...sockets, ...network]
    // dockerd mounts its data folder, which stays mounted if it is killed.
    atEnd(`umount -l ${path('docker-data-root')}`)
    await daemon(['dockerd', ...options], /API listen on/)
  }),
}
async function daemon(program: string[], ready: RegExp): Promise<void> {
  const child = start(program)
  running.unshift(child)
  await child.line(ready)
}
function once(act: () => Promise<void>): () => Promise<void> {
  let done: Promise<void> | undefined
  return () => (done ??= act())
}

interface Result {
  version: string
  on: Way[]
  /** Why it was not run. */
  why?: string
  cells: Map<string, string>
}
const results = new Map<string, Result>()
const failures: string[] = []

/** Waits for a check, prints its result and sets the cell of the table. A failed cell stays failed. */
async function record(
  cells: Map<string, string>,
  cell: string,
  what: string,
  checking: Promise<unknown>,
): Promise<void> {
  const started = performance.now()
  const outcome = await checking.then(
    (mark) => (typeof mark === 'string' ? mark : '✓'),
    ({ message }: Error) => {
      failures.push(`${what}: ${message}`)
      return '✗'
    },
  )
  say(`${outcome} ${what} (${((performance.now() - started) / 1000).toFixed(1)} s)`)
  if (cells.get(cell) !== '✗') cells.set(cell, outcome)
}

const only = process.env.ONLY?.split(',') ?? ['']
const chosen = Object.entries(clients).filter(([name]) => only.some((prefix) => name.startsWith(prefix)))
for (const [name, client] of chosen) {
  const why = await install(client)
  if (why) say(`NOT RUN: ${name}: ${why}`)
  const version = 'go' in client.from ? client.from.go.replace(/.*@v/, '') : ''
  results.set(name, { version, on: [], why, cells: new Map() })
}

/** By client and setting, the outcome on each way. */
const mirrored = new Map<string, Map<string, string>>()
for (const way of chosenWays) {
  const routers = await startRouters(way)
  for (const [name, client] of chosen) {
    const result = results.get(name)
    if (!result || result.why || (way !== chosenWays[0] && !client.everyWay)) continue
    result.on.push(way)
    const output = client.version && (await command(name, client.version, routers.host))
    if (output) result.version = /\d+\.\d+\.\d+(?:, engine \d+\.\d+\.\d+)?/.exec(output)?.[0] ?? output
    if (client.names && client.push) {
      for (const [i, repository] of client.names.entries())
        await command(name, client.push, [hub, hosted][i]?.host ?? '', { NAME: repository })
    }
    for (const [column, { needs, check }] of Object.entries(columns)) {
      if (!client[needs]) continue
      const repository = `team/${way}/${/\w+/.exec(name)}/hello`
      const checking = check(name, client as Required<Client>, routers, repository)
      await record(result.cells, column, `${way}, ${name}: ${column}`, checking)
    }
  }
  for (const [what, { by }] of Object.entries(mirrors)) {
    if (!results.get(by)?.on.includes(way)) continue
    const cells = mirrored.get(what) ?? new Map<string, string>()
    mirrored.set(what, cells)
    await record(cells, way, `${way}, ${what}`, checkMirror(what, routers))
  }
  for (const router of [routers.router, routers.hostedOnly, ...Object.values(routers.logins)]) {
    for (const line of router.odd()) failures.push(`${way}: the router logged ${JSON.stringify(line)}`)
    await router.stop()
  }
}

const found = new Map<string, Map<string, string>>()
const tools = await goTools(() => say('NO GO: olareg, which has the referrers API, is not tried'))
const kinds = { distribution: hosted, olareg: tools && (await fromOlareg(tools.olareg)({ name: 'olareg', folder })) }
if (results.get('cosign')?.on.length) {
  const pairs = ['public', 'own'].map((key) => `cosign generate-key-pair --output-key-prefix ~/${key}`)
  await command('cosign', pairs.join(' && '), '')
}
for (const [kind, registry] of Object.entries(kinds)) {
  if (!registry) continue
  const way = chosenWays[0] as Way
  const router = await startRouter(way, { HOSTED_HOSTNAME: registry.host, PROXY_HOSTNAME: cache.host })
  for (const [i, [what, { by }]] of Object.entries(attachments).entries()) {
    if (!results.get(by)?.on.length) continue
    const cells = found.get(what) ?? new Map<string, string>()
    found.set(what, cells)
    for (const [where, at] of Object.entries({ hosted: registry, 'the cache': hub })) {
      const name = `attached/${kind}-${i}-${at.name}`
      const checking = checkAttachment(what, name, at, router)
      await record(cells, `${kind}: ${where}`, `${way}, ${what}, hosted is ${kind}, image in ${where}`, checking)
    }
  }
  for (const line of router.odd()) failures.push(`the router before ${kind} logged ${JSON.stringify(line)}`)
  await router.stop()
}

const table = (rows: string[][]) =>
  rows.flatMap((row, i) => [row, ...(i === 0 ? [row.map(() => '---')] : [])]).map((row) => `| ${row.join(' | ')} |`)
const ran = [...results].filter(([, { why }]) => !why)
const everyWay = (on: Way[]) => (on.length === Object.keys(ways).length ? 'all four' : on.join(', '))
const places = Object.keys(kinds).flatMap((kind) => [`${kind}: hosted`, `${kind}: the cache`])
const report = [
  ...table([
    ['', ...ran.map(([name, { version }]) => `${name} ${version}`)],
    ...Object.keys(columns).map((column) => [column, ...ran.map(([, { cells }]) => cells.get(column) ?? '–')]),
    ['router run as', ...ran.map(([, { on }]) => everyWay(on))],
  ]),
  ...[...results].flatMap(([name, { why }]) => (why ? ['', `${name} was not run: ${why}`] : [])),
  '',
  ...table([
    ['an image of ghcr.io, pulled by', ...chosenWays],
    ...[...mirrored].map(([what, cells]) => [what, ...chosenWays.map((way) => cells.get(way) ?? '–')]),
  ]),
  '',
  ...table([
    ['attached to an image in', ...places.map((place) => place.replace(/(.*): (.*)/, '$2; hosted is $1'))],
    ...[...found].map(([what, cells]) => [what, ...places.map((place) => cells.get(place) ?? 'not run')]),
  ]),
].join('\n')
say(`\n${report}\n`)
const [file] = process.argv.slice(2)
if (file && !process.env.ONLY && !process.env.WAY) {
  const marks = /(<!-- clients -->\n)[\s\S]*(<!-- \/clients -->)/
  writeFileSync(
    file,
    readFileSync(file, 'utf8').replace(marks, (_all, begin, end) => `${begin}${report}\n${end}`),
  )
}
for (const line of failures) say(`FAILED: ${line}`)
for (const part of [...running, hub, cache, ghcrHub, ghcrCache, hosted, withPasswords, withTokens]) await part.stop()
process.exit(failures.length > 0 ? 1 : 0)
