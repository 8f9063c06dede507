/** `check`, and what the router says at its start: each usual mistake is named, with what to do. WAY selects the runtime. */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { hashSync } from 'bcryptjs'
import { noSecret } from './parts/canary.ts'
import { type Certificate, certify } from './parts/certificates.ts'
import { start, temporaryFolder } from './parts/children.ts'
import { makeImage, push, send } from './parts/client.ts'
import { findRegistry, freePort, type Registry } from './parts/registries.ts'
import { root, startRouter, way, ways } from './parts/router.ts'
import { answer, type Script, type Scripted, scripted } from './parts/scripted.ts'
import { until } from './parts/until.ts'

interface Found {
  code: string
  severity: string
  what: string
  remedy: string
  [about: string]: unknown
}

const image = makeImage({ 'a.txt': 'a' })
const folder = temporaryFolder()
const users = join(folder, 'users')
const unclosed: (() => Promise<unknown>)[] = []
let hub: Registry
let hosted: Registry
let cache: Registry
/** Wants the login ann, canary-of-ann. */
let closed: Registry
let authority: Certificate

before(async () => {
  writeFileSync(users, `ann:${hashSync('canary-of-ann', 4)}\n`)
  const launch = await findRegistry(console.error)
  hub = await launch({ name: 'hub', folder })
  hosted = await launch({ name: 'hosted', folder })
  cache = await launch({ name: 'cache', folder, proxyOf: hub.url })
  closed = await launch({ name: 'closed', folder, auth: { htpasswd: { realm: 'closed', path: users } } })
  for (const { stop } of [hub, hosted, cache, closed]) unclosed.push(stop)
  await push(hub.url, 'library/hello-world', 'latest', image)
  for (const name of ['team/app', 'ghcr.io/org/app']) await push(hosted.url, name, '1.0', image)
  authority = await certify(folder, 'authority')
})
after(() => Promise.all(unclosed.map((close) => close())))

/** Settings in which nothing is to be found. */
const well = () => ({
  AGGREGATE_HOSTNAME: 'registry.example',
  HOSTED_HOSTNAME: hosted.host,
  PROXY_HOSTNAME: cache.host,
  HOSTED_NAMES: 'team/**',
  HTPASSWD_FILE: users,
})

async function run(
  environment: Record<string, string>,
  ...words: string[]
): Promise<[exit: number | null, text: string]> {
  const child = start([...ways[way], ...words], { cwd: root, env: environment })
  const exit = await child.ended
  const text = child.lines.join('\n')
  noSecret('the output', text)
  return [exit, text]
}

async function check(environment: Record<string, string>, ...words: string[]) {
  const [exit, text] = await run({ ...well(), ...environment }, 'check', '--json', ...words)
  const { findings, ...rest } = JSON.parse(text) as { findings: Found[]; registries: object[]; settings: object[] }
  return { exit, findings, codes: findings.map(({ code }) => code).sort(), ...rest }
}

/** The lines with a code that a router logs, once it has asked each of its registries. */
async function saidAtStart(environment: Record<string, string>): Promise<Found[]> {
  const router = await startRouter(way, { ...well(), ...environment })
  const asked = () => router.log().filter(({ message }) => message === 'asked at the start')
  const coded = () => router.log().filter(({ code }) => code)
  await until('each registry to be asked', () => asked().length === (environment.PROXIES ? 3 : 2))
  // Why a registry is not up follows its line, after a look at its address.
  for (const { upstream } of asked().filter(({ status }) => status !== 200))
    await until(`why ${upstream} is not up`, () => coded().some((one) => one.upstream === upstream))
  const found = coded().map(({ message, ...line }) => ({ what: message, ...line }) as Found)
  assert.ok(!router.child.exited(), 'it serves whatever it found')
  await router.stop()
  return found
}

async function upstream(script: Script, certificate?: Certificate): Promise<Scripted> {
  const scriptedOne = await scripted(script, certificate, true)
  unclosed.push(scriptedOne.close)
  return scriptedOne
}

test('nothing is wrong: exit code 0, the settings with where they come from, and what each registry said', async () => {
  const { exit, findings, settings, registries } = await check({ LOG_LEVEL: 'warn' })
  assert.deepEqual([exit, findings], [0, []])
  const of = (name: string) => settings.find((one) => (one as { name: string }).name === name)
  assert.deepEqual(of('LOG_LEVEL'), { name: 'LOG_LEVEL', value: 'warn', from: 'variable' })
  assert.deepEqual(of('PORT'), { name: 'PORT', value: '5000', from: 'default' })
  const said = (registries as { name: string; asked: { target: string; status: number; verdict: string }[] }[]).map(
    ({ name, asked }) => [name, ...asked.slice(0, 2).map(({ target, status, verdict }) => [target, status, verdict])],
  )
  const absent = ['/v2/combined-registry-check/absent/manifests/absent', 404, 'absent']
  assert.deepEqual(said, [
    ['proxy', ['/v2/', 200, 'found'], absent],
    ['hosted', ['/v2/', 200, 'found'], absent],
  ])
  const [code, text] = await run(well(), 'check')
  assert.deepEqual([code, /All is well\.$/.test(text)], [0, true], text)
  assert.ok(text.split('\n').length < 25, 'a page')
  assert.match(text, /HOSTED_NAMES=team\/\*\*/)
  assert.match(text, new RegExp(`hosted +http://${hosted.host}/\n +GET /v2/ +200`))
})

/**
 * The usual mistakes: the settings, the code, the exit code, and whether reading at the start shows it too. What is found
 * besides follows from it.
 */
const mistakes: Record<
  string,
  () => Promise<[Record<string, string>, code: string, exit: number, atStart: boolean, push?: string]>
> = {
  'a misspelt variable': async () => [{ HTPASSWD_FILE: '', HTPASSWD: users }, 'misspelt-variable', 2, true],
  'swapped registries': async () => [{ HOSTED_HOSTNAME: cache.host, PROXY_HOSTNAME: hosted.host }, 'swapped', 1, false],
  'equal registries': async () => [{ PROXY_HOSTNAME: `http://${hosted.host}/` }, 'same-registry', 1, true],
  'a wrong port': async () => [{ HOSTED_HOSTNAME: `127.0.0.1:${await freePort()}` }, 'unreachable', 1, true],
  'the port of something else': async () => {
    const { host } = await upstream(answer(404, { 'Content-Type': 'text/html' }, '<h1>not here</h1>'))
    return [{ HOSTED_HOSTNAME: host }, 'not-a-registry', 1, true]
  },
  'https for http': async () => [{ PROXY_HOSTNAME: `https://${cache.host}` }, 'https-for-http', 1, true],
  'http for https': async () => {
    const { host } = await upstream(answer(200, {}, '{}'), await certify(folder, 'good', 'IP:127.0.0.1', authority))
    return [{ HOSTED_HOSTNAME: host }, 'http-for-https', 1, true]
  },
  'a host that does not exist': async () => [{ HOSTED_HOSTNAME: 'registry.invalid' }, 'host-unknown', 1, true],
  'a path that is none': async () => [{ PROXY_HOSTNAME: `${cache.host}/dockerhub` }, 'path-unknown', 1, false],
  'a path of another public registry that is none': async () => {
    return [{ PROXIES: `quay.io=${cache.host}/quay` }, 'path-unproven', 2, false]
  },
  'an expired certificate': async () => {
    const expired = await certify(folder, 'expired', 'IP:127.0.0.1', authority, -1)
    const { host } = await upstream(answer(200, {}, '{}'), expired)
    return [{ HOSTED_HOSTNAME: `https://${host}`, CA_FILE: authority.certFile }, 'certificate-expired', 1, true]
  },
  'a wrong name in the certificate': async () => {
    const other = await certify(folder, 'elsewhere', 'DNS:elsewhere.example', authority)
    const { host } = await upstream(answer(200, {}, '{}'), other)
    return [{ HOSTED_HOSTNAME: `https://${host}`, CA_FILE: authority.certFile }, 'certificate-name', 1, true]
  },
  'an unknown authority': async () => {
    const good = await certify(folder, 'unknown', 'IP:127.0.0.1', authority)
    const { host } = await upstream(answer(200, {}, '{}'), good)
    return [{ HOSTED_HOSTNAME: `https://${host}` }, 'certificate-authority', 1, true]
  },
  'HOSTED_NAMES=team, meant team/**': async () => [{ HOSTED_NAMES: 'team' }, 'glob-without-stars', 2, false],
  'HOSTED_NAMES that no repository has': async () => [{ HOSTED_NAMES: 'team/**,taem/**' }, 'glob-unused', 2, false],
  'names of hosted that are those of a public registry': async () => {
    return [{ PROXIES: `ghcr.io=${hub.host}` }, 'hidden-by-prefix', 2, false]
  },
  'a cache that lists only its own': async () => {
    const { host } = await upstream(listsLittle)
    return [{ PROXY_HOSTNAME: host, TAGS: 'lookup' }, 'cache-hides-tags', 2, false]
  },
  'an open router': async () => [{ HTPASSWD_FILE: '' }, 'open', 2, true],
  'a cache that cannot ask what it caches': async () => {
    const detail = { errors: [{ code: 'UNKNOWN', message: 'dial tcp: refused', detail: {} }] }
    const { host } = await upstream((request, ...rest) => {
      const isDigest = request.url?.includes('sha256:')
      answer(
        request.url === '/v2/' ? 200 : isDigest ? 500 : 404,
        {},
        isDigest ? JSON.stringify(detail) : '',
      )(request, ...rest)
    })
    return [{ PROXY_HOSTNAME: host }, 'cache-cut-off', 1, false]
  },
  'no login for a closed hosted': async () => [{ HOSTED_HOSTNAME: closed.host }, 'login-missing', 1, true],
  'a wrong login for hosted': async () => {
    const login = { HOSTED_USERNAME: 'ann', HOSTED_PASSWORD: 'canary-wrong' }
    return [{ HOSTED_HOSTNAME: closed.host, ...login }, 'login-refused', 1, true]
  },
  'no login for a closed proxy': async () => [{ PROXY_HOSTNAME: closed.host }, 'login-missing', 1, false],
  'a wrong login for the proxy': async () => {
    const login = { PROXY_USERNAME: 'ann', PROXY_PASSWORD: 'canary-wrong' }
    return [{ PROXY_HOSTNAME: closed.host, ...login }, 'login-refused', 1, true]
  },
  'somebody in PUSH_USERS who does not exist': async () => [{ PUSH_USERS: 'ann,anne' }, 'user-unknown', 2, true],
  'no HOSTED_NAMES': async () => [{ HOSTED_NAMES: '' }, 'names-unset', 2, true],
  'an own certificate that has expired': async () => {
    const { certFile, keyFile } = await certify(folder, 'own', 'DNS:registry.example', authority, -1)
    return [{ TLS_CERT_FILE: certFile, TLS_KEY_FILE: keyFile }, 'own-certificate-expired', 1, true]
  },
  'an own certificate of another name': async () => {
    const { certFile, keyFile } = await certify(folder, 'own', 'DNS:other.example', authority, 90)
    return [{ TLS_CERT_FILE: certFile, TLS_KEY_FILE: keyFile }, 'own-certificate-name', 1, true]
  },
}

/** A cache that has an image, and lists none of its tags before somebody has pulled it. */
const listsLittle: Script = (request, ...rest) => {
  const { url = '' } = request
  const has = url === '/v2/library/hello-world/manifests/latest'
  const says = has ? answer(200, { 'Content-Length': 19 }, '{"schemaVersion":2}') : answer(404)
  const script =
    url === '/v2/' ? answer(200, {}, '{}') : url.endsWith('/tags/list') ? answer(200, {}, '{"tags":["1"]}') : says
  script(request, ...rest)
}

for (const [mistake, set] of Object.entries(mistakes)) {
  test(`${mistake}: check names it, with what to do, and so does the start if reading shows it`, async () => {
    const [environment, code, exit, atStart, name] = await set()
    const checked = await check(environment, ...(name ? ['--push', name] : []))
    const found = checked.findings.find((one) => one.code === code)
    assert.ok(found, JSON.stringify(checked.findings))
    assert.ok(found.what && found.remedy)
    assert.equal(checked.exit, exit, JSON.stringify(checked.findings))
    if (!atStart) return
    const said = (await saidAtStart(environment)).find((one) => one.code === code)
    assert.deepEqual([said?.what, said?.remedy], [found.what, found.remedy])
  })
}

test('a proxy that is this router: the running router says so at once, and so does any replica of it', async () => {
  const port = `${await freePort()}`
  const loops = { PORT: port, PROXY_HOSTNAME: `127.0.0.1:${port}` }
  const router = await startRouter(way, { ...well(), ...loops })
  unclosed.push(() => router.stop('SIGKILL'))
  const line = await until('the line', () => router.log().find(({ code }) => code === 'leads-back'))
  assert.deepEqual([line.upstream, line.remedy], ['proxy', 'set the address of the registry itself'])
  assert.ok(router.log().some(({ code }) => code === 'own-address'))
  const replica = await check({ ...loops, PORT: '5000' })
  assert.deepEqual([replica.exit, replica.codes], [1, ['leads-back']])
  const other = await check({ ...loops, PORT: '5000', AGGREGATE_HOSTNAME: 'other.example' })
  assert.deepEqual(other.codes, ['login-missing'], 'a router of another name is a registry like any other')
  await router.stop()
})

test('check only reads; with --push it opens an upload in hosted and cancels it', async () => {
  const sees: Script = (request, ...rest) => {
    const { method, url } = request
    const script =
      method === 'POST'
        ? answer(202, { Location: '/v2/team/new/blobs/uploads/session?state=1' })
        : answer(method === 'DELETE' ? 204 : url === '/v2/' ? 200 : 404)
    script(request, ...rest)
  }
  const [own, other] = [await upstream(sees), await upstream(sees)]
  const hosts = { HOSTED_HOSTNAME: own.host, PROXY_HOSTNAME: other.host }
  const asked = ({ requests }: Scripted) => requests.splice(0).map(({ method, target }) => `${method} ${target}`)
  await check(hosts)
  for (const one of [...asked(own), ...asked(other)]) assert.match(one, /^(GET|HEAD) /)
  const { codes, exit } = await check(hosts, '--push', 'team/new')
  assert.deepEqual([codes, exit], [['catalog-unread'], 0])
  assert.deepEqual(asked(own).slice(-2), [
    'POST /v2/team/new/blobs/uploads/',
    'DELETE /v2/team/new/blobs/uploads/session?state=1',
  ])
  for (const one of asked(other)) assert.match(one, /^(GET|HEAD) .*(\/v2\/|combined-registry-check|hello-world)/)
})

test('check --push: what hosted says to the upload', async () => {
  const posts =
    (script: Script): Script =>
    (request, ...rest) => {
      const other = request.url === '/v2/' ? answer(200) : answer(404)
      const isWrite = request.method === 'POST' || request.method === 'DELETE'
      ;(isWrite ? script : other)(request, ...rest)
    }
  const taken = answer(202, { Location: '/v2/a/blobs/uploads/1' })
  const gone = answer(202, { Location: 'http://storage.example/upload' })
  for (const [own, other, code, exit, more] of [
    [answer(405), taken, 'swapped', 1, {}],
    [answer(405), answer(405), 'hosted-is-cache', 1, {}],
    [answer(403), answer(405), 'push-refused', 1, {}],
    [answer(401), answer(405), 'push-unproven', 2, { HTPASSWD_FILE: '' }],
    [gone, answer(405), 'upload-left', 0, {}],
  ] as const) {
    const hosts = {
      HOSTED_HOSTNAME: (await upstream(posts(own))).host,
      PROXY_HOSTNAME: (await upstream(posts(other))).host,
    }
    const checked = await check({ ...hosts, ...more }, '--push', 'team/new')
    assert.ok(checked.codes.includes(code), JSON.stringify(checked.findings))
    assert.equal(checked.exit, exit, code)
  }
  const real = await check({}, '--push=team/new')
  assert.deepEqual([real.codes, real.exit], [[], 0])
  const prefixed = await check({ PROXIES: `quay.io=${hub.host}` }, '--push', 'quay.io/org/app')
  const [refused] = prefixed.findings.filter(({ code }) => code === 'push-refused')
  assert.match(`${refused?.reason}`, /^quay.io is read-only here/)
})

test('wrong settings: check names each, and the variable that was misspelt; no password is shown', async () => {
  const wrong = { HOSTED_HOSTNAME: 'https://ann:canary@hosted.example', PROXY_HOSTNAME: '', PROXY_HOST: 'cache:5000' }
  const { exit, codes, findings, settings } = await check({ ...wrong, PROXY_USERNAME: 'ann', PROXY_PASSWORD: 'canary' })
  assert.deepEqual([exit, codes], [1, ['misspelt-variable', 'setting-wrong', 'setting-wrong']])
  assert.ok(findings.some(({ fault }) => /^PROXY_HOSTNAME is required/.test(`${fault}`)))
  const shown = (name: string) =>
    (settings as { name: string; value: string }[]).find((one) => one.name === name)?.value
  assert.deepEqual([shown('HOSTED_HOSTNAME'), shown('PROXY_PASSWORD')], ['(wrong)', '(not shown)'])
  const [code, text] = await run({ ...well(), ...wrong })
  assert.equal(code, 1)
  assert.match(text, /^combined-registry: PROXY_HOST is no setting: PROXY_HOSTNAME is$/m)
})

test('at the start: one line of what is in effect, without passwords; one line for each registry', async () => {
  const login = { PROXY_USERNAME: 'ann', PROXY_PASSWORD: 'canary', PROXIES: `quay.io=${hub.host}` }
  const router = await startRouter(way, { ...well(), ...login })
  const asked = () => router.log().filter(({ message }) => message === 'asked at the start')
  await until('each registry to be asked', () => asked().length === 3)
  const [line, ...more] = router.log().filter(({ message }) => message === 'settings') as {
    set: object
    defaults: object
  }[]
  assert.deepEqual(more, [])
  const { HOST, PORT, ...set } = (line?.set ?? {}) as Record<string, string>
  assert.deepEqual(set, { ...well(), ...login, PROXY_PASSWORD: '(not shown)' })
  assert.equal((line?.defaults as Record<string, string> | undefined)?.LOOKUP_ORDER, 'proxy-first')
  assert.deepEqual(
    asked()
      .map(({ upstream, status, verdict }) => [upstream, status, verdict])
      .sort(),
    [
      ['hosted', 200, 'found'],
      ['proxy', 200, 'found'],
      ['quay.io', 200, 'found'],
    ],
  )
  await router.stop()
})

test('the first request that calls the router by another name is told in the log, once', async () => {
  const router = await startRouter(way, well())
  const named = () => router.log().filter(({ message }) => /by another name/.test(`${message}`))
  const ask = (Host: string, path = '/v2/') => send(router.url, 'GET', path, { headers: { Host } })
  for (const host of ['registry.example', 'registry.example:80', 'Registry.Example']) await ask(host)
  await ask('10.0.0.1', '/livez')
  assert.deepEqual(named(), [])
  for (const host of ['other.example', 'third.example']) await ask(host)
  const [line, ...more] = await until('the line', () => (named().length > 0 ? named() : undefined))
  assert.deepEqual([line?.level, line?.host, more], ['warn', 'other.example', []])
  await router.stop()
})

test('help, version and wrong arguments', async () => {
  for (const word of ['-h', '--help', 'help']) {
    const [exit, text] = await run({}, word)
    assert.equal(exit, 0)
    assert.match(text, /^ {2}check +what would not work/m)
    assert.match(text, /^ {2}HOSTED_PASSWORD +none +the password of HOSTED_USERNAME$/m)
  }
  for (const word of ['--version', 'version']) assert.match((await run({}, word))[1], /^\d+\.\d+\.\d+$/)
})
