/**
 * `npm run clients`: what real clients can do through the router between real registries, with and without logins. Prints
 * tables, and writes them between the marks of the file it is told, unless only a part is run (ONLY, WAY). Exit code 1
 * where a client could not do what it should; what cannot be run here is named as such. It needs root, and installs what
 * is missing, which it says.
 */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { hashSync } from 'bcryptjs'
import { balance } from './parts/balancer.ts'
import { atEnd, type Child, run, start, temporaryFolder, until } from './parts/children.ts'
import { accept, type Image, makeImage, makeIndex, pull, push, send, tar } from './parts/client.ts'
import { attachments, type Client, clients, type Login } from './parts/commands.ts'
import { goInstall, goTools } from './parts/go.ts'
import { program } from './parts/packages.ts'
import { startRealm } from './parts/realm.ts'
import { findRegistry, freePort, fromOlareg, type Registry } from './parts/registries.ts'
import { type Router, startRouter, type Way, ways } from './parts/router.ts'

const mebibyte = 1024 * 1024
/** The tests look for it wherever a password does not belong. */
const password = 'canary-password'
const login = `Basic ${Buffer.from(`ann:${password}`).toString('base64')}`
/** The first is for all clients, the others for those of `everyWay`. */
const chosenWays = process.env.WAY
  ? [process.env.WAY as Way]
  : [...new Set<Way>(['binary', ...(Object.keys(ways) as Way[])])]
const say = (line: string) => console.log(line)

const folder = temporaryFolder()
const running: Child[] = []
const bin = join(folder, 'bin')
mkdirSync(bin)
const path = (name: string) => join(folder, name)

// The registries, and what is in them.
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
const hosted = await launch({ name: 'hosted', folder })
const htpasswd = { htpasswd: { realm: 'hosted', path: usersFile } }
const closed = await launch({ name: 'htpasswd', folder, auth: htpasswd })
// crane asks no realm that is an address of this machine, oras none of another name than the registry's.
const named = ({ host }: { host: string }) => host.replace('127.0.0.1', 'localhost')
const token = { ...realm.auth.token, realm: `http://${named(realm)}/token` }
const tokens = await launch({ name: 'tokens', folder, auth: { token } })

const files = { 'base.bin': randomBytes(200 * mebibyte) }
const base = makeImage(files)
const derived = makeImage({ ...files, 'own.txt': 'own' })
const hello = makeMany('hello')
const own = makeMany('own')
await fill(hub, 'library/hello', hello)
await fill(hub, 'library/base', [base])
await fill(hosted, 'team/hello', makeMany('private'))

/** An index, and its images for two architectures. */
function makeMany(content: string): Image[] {
  const images = { amd64: makeImage({ 'a.txt': content }), arm64: makeImage({ 'a.txt': `${content}, arm` }, 'arm64') }
  return [images.amd64, images.arm64, makeIndex(images)]
}
async function fill({ url }: Pick<Registry, 'url'>, name: string, images: Image[]): Promise<void> {
  for (const image of images) await push(url, name, image === images.at(-1) ? '1.0.0' : image.digest, image)
}

/** An OCI layout of images, the last of which is tagged (image-spec, "OCI Image Layout"), as a folder and as an archive. */
async function writeLayout(name: string, tag: string, images: Image[], without?: string): Promise<void> {
  mkdirSync(path(`${name}/blobs/sha256`), { recursive: true })
  const write = (file: string, content: Buffer | string) => writeFileSync(path(`${name}/${file}`), content)
  for (const { digest, manifest, blobs } of images) {
    for (const { digest: blob, content } of [{ digest, content: manifest }, ...blobs]) {
      if (blob !== without) write(`blobs/${blob.replace(':', '/')}`, content as Buffer)
    }
  }
  const { digest, mediaType, manifest } = images.at(-1) as Image
  const annotations = { 'org.opencontainers.image.ref.name': tag }
  const manifests = [{ mediaType, digest, size: manifest.length, annotations }]
  write('index.json', JSON.stringify({ schemaVersion: 2, manifests }))
  write('oci-layout', JSON.stringify({ imageLayoutVersion: '1.0.0' }))
  await run(['tar', '-cf', path(`${name}.tar`), '-C', path(name), '.'])
}
await writeLayout('layout', '1.0.0', own)
await writeLayout('derived', '2.0.0', [derived], base.blobs[1]?.digest)
writeFileSync(path('layer.tar'), tar('layer.txt', Buffer.from('a layer')))
writeFileSync(
  path('storage.conf'),
  `[storage]\ndriver = "vfs"\ngraphroot = "${path('graph')}"\nrunroot = "${path('run')}"\n`,
)
writeFileSync(path('auth.json'), '{}')

/** The routers of one way. */
interface Place {
  way: Way
  router: Router
  /** The router, through a port at which what clients send is counted. */
  host: string
  sent: { bytes: number }
  /** The same without a proxy. */
  alone: Router
  /** Those that want a login, by who does. */
  logins: Record<Login, Router>
}

async function open(way: Way): Promise<Place> {
  const another = (environment: Record<string, string> = {}) =>
    startRouter(way, { HOSTED_HOSTNAME: hosted.host, PROXY_HOSTNAME: cache.host, ...environment })
  const router = await another()
  const sent = { bytes: 0 }
  const counter = await balance(
    () => [Number(router.host.split(':')[1])],
    (_port, _carried, bytes) => {
      sent.bytes += bytes
    },
  )
  const port = `${await freePort()}`
  const users = { HTPASSWD_FILE: usersFile, ANONYMOUS_PULL: 'true' }
  const logins = {
    htpasswd: await another({ HOSTED_HOSTNAME: closed.host }),
    tokens: await another({ HOSTED_HOSTNAME: tokens.host }),
    here: await another({ ...users, PORT: port, AGGREGATE_HOSTNAME: `localhost:${port}` }),
  }
  const alone = await another({ PROXY_HOSTNAME: '127.0.0.1:1', V2_REQUIRES: 'hosted' })
  return { way, router, host: new URL(counter.url).host, sent, alone, logins }
}

/** Runs a command of a client in an empty folder, at the router of this address. */
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
    // The builder that needs no plugin.
    DOCKER_BUILDKIT: '0',
    CONTAINERS_STORAGE_CONF: path('storage.conf'),
    REGISTRY_AUTH_FILE: path('auth.json'),
    COSIGN_PASSWORD: '',
    // It asks the internet for keys that it does not need here.
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

async function digestAt(url: string, name: string, tag = '1.0.0'): Promise<string | undefined> {
  const { headers } = await send(url, 'HEAD', `/v2/${name}/manifests/${tag}`, { headers: { Accept: accept } })
  return headers['docker-content-digest'] as string | undefined
}

/** What a client pulls: what is public first. */
const namesOf = ({ names = ['library/hello', 'team/hello'] }: Client) => names

/** Pulls, and sees to it that the blobs came through the router. */
async function pulls(name: string, line: string, image: string, router: Router, host = router.host): Promise<void> {
  const client = clients[name] as Client
  if (client.forget) await command(name, client.forget, host)
  const before = router.log().length
  await command(name, line, host, { IMAGE: image, NAME: `team/all-${router.way}` })
  await until(`${name} to pull ${image} through the router`, () =>
    router
      .log()
      .slice(before)
      .some((one) => one.entity === 'blob' && one.method === 'GET' && one.status === 200),
  )
}

interface Column {
  needs: keyof Client
  check: (name: string, client: Required<Client>, place: Place, mine: string) => Promise<unknown>
}

const columns: Record<string, Column> = {
  'pull by tag': {
    needs: 'pull',
    check: async (name, client, { router, host }) => {
      for (const one of namesOf(client)) await pulls(name, client.pull, `${one}:1.0.0`, router, host)
    },
  },
  'pull by digest': {
    needs: 'pull',
    check: async (name, client, { router, host }) => {
      for (const [i, one] of namesOf(client).entries()) {
        const digest = await digestAt([hub, hosted][i]?.url ?? '', one)
        await pulls(name, client.pull, `${one}@${digest}`, router, host)
      }
    },
  },
  'pull for other platforms': {
    needs: 'platforms',
    check: async (name, client, { router, host }) => {
      const before = router.log().length
      await pulls(name, client.platforms, 'library/hello:1.0.0', router, host)
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
    check: async (name, client, { host, alone }, mine) => {
      await command(name, client.push, host, { NAME: mine })
      await pull(alone.url, mine, '1.0.0')
    },
  },
  'push on a base of 200 MiB that only the cache has, sending under 1 MiB': {
    needs: 'mount',
    check: async (name, client, { host, alone, sent }, mine) => {
      const before = sent.bytes
      await command(name, client.mount, host, { NAME: mine })
      const bytes = sent.bytes - before
      if (!client.signatures) await pulls(name, client.pull, `${mine}:2.0.0`, alone)
      await pull(alone.url, mine, '2.0.0')
      const headers = { Accept: accept }
      const { layers } = (await send(alone.url, 'GET', `/v2/${mine}/manifests/2.0.0`, { headers })).json()
      assert.ok(layers.some(({ size }: { size: number }) => size > 200 * mebibyte))
      say(`  ${name} sent ${bytes} bytes`)
      assert.ok(bytes < mebibyte, `sent ${bytes} bytes`)
    },
  },
  'list tags': {
    needs: 'list',
    check: async (name, client, { host }, mine) => {
      assert.match(await command(name, client.list, host, { NAME: mine }), /1\.0\.0/)
    },
  },
  delete: {
    needs: 'delete',
    check: async (name, client, { host, router }, mine) => {
      const digest = await digestAt(hosted.url, mine)
      await command(name, client.delete, host, { NAME: mine, IMAGE: `${mine}@${digest}` })
      for (const { url } of [hosted, router]) assert.equal(await digestAt(url, mine, digest), undefined)
    },
  },
  'hosted has passwords: login, push, pull': { needs: 'login', check: withLogin('htpasswd') },
  'hosted wants tokens: login, push, mount, pull': { needs: 'login', check: withLogin('tokens') },
  '`HTPASSWD_FILE`, `ANONYMOUS_PULL`: login, push, pull; pull without': { needs: 'login', check: withLogin('here') },
  'hosted has passwords: public image without a login': { needs: 'login', check: withoutLogin('htpasswd') },
  'hosted wants tokens: the same': { needs: 'login', check: withoutLogin('tokens') },
  '`ANONYMOUS_PULL`: the same': { needs: 'login', check: withoutLogin('here') },
}

/** Logged out by the column before. */
function withoutLogin(kind: Login): Column['check'] {
  return async (name, client, { logins }) => {
    const router = logins[kind]
    const pulling = pulls(name, client.pull, `${namesOf(client)[0]}:1.0.0`, router, named(router))
    if (!client.stranger?.includes(kind)) return pulling
    await assert.rejects(pulling, 'pulled without a login')
    return '–'
  }
}

function withLogin(kind: Login): Column['check'] {
  return async (name, client, { logins }, mine) => {
    const router = logins[kind]
    const host = named(router)
    // Not what hosted already has: a client that finds it there pushes nothing.
    const own = `${kind}/${mine}`
    const go = (line: string, given = {}) => command(name, line, host, { NAME: own, ...given })
    if (client.forget) await go(client.forget)
    await assert.rejects(go(client.push), 'pushed without a login')
    await assert.rejects(go(`${client.login} && ${client.push}`, { PASSWORD: 'wrong' }), 'pushed with a wrong password')
    await go(client.login)
    await go(client.push)
    if (client.mount && kind === 'tokens') {
      await go(client.mount)
      const mounted = ({ name, entity, status }: Record<string, unknown>) =>
        name === own && entity === 'uploads' && status === 201
      await until('the base to be mounted', () => router.log().some(mounted))
    }
    for (const one of [own, namesOf(client)[0]]) await pulls(name, client.pull, `${one}:1.0.0`, router, host)
    await go(client.logout)
    const stranger = pulls(name, client.pull, `${own}:1.0.0`, router, host)
    if (kind === 'here') await stranger
    else await assert.rejects(stranger, 'pulled without a login')
  }
}

/** Attached through the router to what hosted holds; to what the cache alone holds, where others lie attached already. */
async function attaches(what: string, name: string, at: Registry, router: Router): Promise<void> {
  const { by, attach, find, lastAlone } = attachments[what] as (typeof attachments)[string]
  await fill(at, name, hello)
  const image = { NAME: name, IMAGE: `${name}@${hello.at(-1)?.digest}` }
  const go = (line: string, KEY: string, host = router.host) => command(by, line, host, { ...image, KEY })
  const forget = clients[by]?.forget
  if (forget) for (const host of [router.host, at.host]) await command(by, forget, host)
  const keys = at === hub ? ['public', 'own'] : ['own']
  if (at === hub) await go(attach, 'public', hub.host)
  await go(attach, 'own')
  if (!lastAlone) for (const key of keys) await go(find, key)
  else {
    const said = await Promise.any(keys.map((key) => go(find, key)))
    if (at === hub) assert.match(said, /total of 2 references/)
  }
}

/** Why its program cannot be run here. */
async function lacking({ from }: Client): Promise<string | undefined> {
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

/** Started by hand, with folders of their own: whatever else runs on this machine is left alone. */
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
    // It mounts its folder, and leaves that so where it is killed.
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

/** A cell of a table: one that failed before stays so. */
async function tell(cells: Map<string, string>, cell: string, what: string, doing: Promise<unknown>): Promise<void> {
  const started = performance.now()
  const outcome = await doing.then(
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
const chosen = Object.entries(clients).filter(([name]) => only.some((one) => name.startsWith(one)))
for (const [name, client] of chosen) {
  const why = await lacking(client)
  if (why) say(`NOT RUN: ${name}: ${why}`)
  const version = 'go' in client.from ? client.from.go.replace(/.*@v/, '') : ''
  results.set(name, { version, on: [], why, cells: new Map() })
}

for (const way of chosenWays) {
  const place = await open(way)
  for (const [name, client] of chosen) {
    const result = results.get(name)
    if (!result || result.why || (way !== chosenWays[0] && !client.everyWay)) continue
    result.on.push(way)
    const said = client.version && (await command(name, client.version, place.host))
    if (said) result.version = /\d+\.\d+\.\d+(?:, engine \d+\.\d+\.\d+)?/.exec(said)?.[0] ?? said
    if (client.names && client.push) {
      for (const [i, one] of client.names.entries())
        await command(name, client.push, [hub, hosted][i]?.host ?? '', { NAME: one })
    }
    for (const [column, { needs, check }] of Object.entries(columns)) {
      if (!client[needs]) continue
      const mine = `team/${way}/${/\w+/.exec(name)}/hello`
      const doing = check(name, client as Required<Client>, place, mine)
      await tell(result.cells, column, `${way}, ${name}: ${column}`, doing)
    }
  }
  for (const router of [place.router, place.alone, ...Object.values(place.logins)]) {
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
      const doing = attaches(what, name, at, router)
      await tell(cells, `${kind}: ${where}`, `${way}, ${what}, hosted is ${kind}, image in ${where}`, doing)
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
    ['attached to an image in', ...places.map((one) => one.replace(/(.*): (.*)/, '$2; hosted is $1'))],
    ...[...found].map(([what, cells]) => [what, ...places.map((one) => cells.get(one) ?? 'not run')]),
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
for (const one of [...running, hub, cache, hosted, closed, tokens]) await one.stop()
process.exit(failures.length > 0 ? 1 : 0)
