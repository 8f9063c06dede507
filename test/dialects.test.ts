/**
 * Hosted registries of other makers, as they are documented (none of them was run): what a client does through the router says what
 * it says directly. WAY selects the runtime.
 */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { hashSync } from 'bcryptjs'
import { closeAll } from './parts/between.ts'
import { temporaryFolder } from './parts/children.ts'
import { digestOf, send } from './parts/client.ts'
import { account, type Dialect, dialects, speaks } from './parts/dialects.ts'
import { Client, config, image, layer, perform } from './parts/performs.ts'
import { type Router, startRouter, way } from './parts/router.ts'
import { answer, scripted } from './parts/scripted.ts'
import { until } from './parts/until.ts'

const basic = `Basic ${Buffer.from(`${account.username}:${account.password}`).toString('base64')}`
let users: string

before(() => {
  users = join(temporaryFolder(), 'users')
  writeFileSync(users, `${account.username}:${hashSync(account.password, 4)}\n`)
})
after(closeAll)

const full = (...parts: string[]) => parts.filter(Boolean).join('/')

/** The same on a registry of its own, directly, and on one behind the router. */
async function compare(dialect: Dialect, path: string, environment: Record<string, string>): Promise<void> {
  const [direct, behind, proxy] = await Promise.all([speaks(dialect), speaks(dialect), scripted(answer(404))])
  const router = await startRouter(way, {
    HOSTED_HOSTNAME: `${behind.url}${path && `/${path}`}`,
    PROXY_HOSTNAME: proxy.host,
    ...environment,
  })
  const [name, other] = [full(dialect.prefix, 'app'), full(dialect.prefix, 'base')] as const
  const here = (one: string) => one.slice(path ? path.length + 1 : 0)
  const wanted = await perform(new Client(direct.url), name, other)
  assert.deepEqual(await perform(new Client(router.url), here(name), here(other)), wanted)
  assert.ok(wanted.filter((line) => / 20[0-9]/.test(line)).length > 12, wanted.join('\n'))
  assert.deepEqual(behind.blob(name, config.digest), config.content)
  assert.deepEqual(proxy.requests, [])
  assert.deepEqual(router.odd(), [])
  await router.stop()
  for (const one of [direct, behind, proxy]) await one.close()
}

for (const [name, dialect] of Object.entries(dialects)) {
  const { prefix } = dialect
  test(`${name}, as documented, not run: uploads, mounts and deletes with the client's login`, async () => {
    await compare(dialect, '', { HOSTED_NAMES: '**' })
    if (prefix) await compare(dialect, prefix, { HOSTED_NAMES: '**' })
  })

  test(`${name}, as documented, not run: the same with the router's login, and names without what they begin with there`, async () => {
    await compare(dialect, prefix, {
      HTPASSWD_FILE: users,
      HOSTED_USERNAME: account.username,
      HOSTED_PASSWORD: account.password,
      HOSTED_NAMES: '**',
    })
  })
}

test('GitHub, as documented, not run: referrers lead to a web page, which is a 404 here, so that clients look for a tag', async () => {
  const page = await scripted(answer(200, { 'Content-Type': 'text/html; charset=utf-8' }, '<html>'))
  const proxy = await scripted(answer(404))
  const hosted = await speaks({
    ...dialects['GitHub (ghcr.io)'],
    login: undefined,
    referrers: `http://${page.host}/`,
  } as Dialect)
  for (const HOSTED_NAMES of ['', '**']) {
    const router = await startRouter(way, { HOSTED_HOSTNAME: hosted.host, PROXY_HOSTNAME: proxy.host, HOSTED_NAMES })
    const reply = await send(router.url, 'GET', `/v2/acme/app/referrers/${image.digest}`)
    assert.deepEqual([reply.status, reply.json().errors[0].code], [404, 'UNSUPPORTED'], `${reply.body}`)
    await router.stop()
  }
  for (const one of [page, proxy, hosted]) await one.close()
})

test('HOSTED_HOSTNAME with a path: a client that asks for tokens of the names it knows, as docker does, gets them', async () => {
  const hosted = await speaks(dialects['GitHub (ghcr.io)'] as Dialect)
  const proxy = await scripted(answer(404))
  const router = await startRouter(way, { HOSTED_HOSTNAME: `${hosted.url}/acme`, PROXY_HOSTNAME: proxy.host })
  const challenged = await send(router.url, 'POST', '/v2/app/blobs/uploads/')
  assert.equal(
    challenged.headers['www-authenticate'],
    'Bearer realm="http://registry.example/v2/token",service="x",scope="repository:app:pull,push"',
  )
  const scopes = ['repository:app:pull,push', 'repository:team/base:pull']
  const query = new URLSearchParams(scopes.map((scope): [string, string] => ['scope', scope]))
  const form = new URLSearchParams({ grant_type: 'password', scope: scopes.join(' ') })
  const type = { 'Content-Type': 'application/x-www-form-urlencoded' }
  for (const ask of [
    () => send(router.url, 'GET', `/v2/token?service=x&${query}`, { headers: { Authorization: basic } }),
    () =>
      send(router.url, 'POST', '/v2/token', {
        headers: { ...type, 'Content-Length': `${form}`.length },
        body: `${form}`,
      }),
  ]) {
    hosted.scopes.length = 0
    assert.equal((await ask()).status, 200)
    assert.deepEqual(hosted.scopes.join(' ').split(' '), [
      'repository:acme/app:pull,push',
      'repository:acme/team/base:pull',
    ])
  }
  const granted = await send(router.url, 'GET', `/v2/token?${query}`, { headers: { Authorization: basic } })
  const headers = { Authorization: `Bearer ${granted.json().token}`, 'Content-Length': 0 }
  assert.equal((await send(router.url, 'POST', '/v2/app/blobs/uploads/', { headers })).status, 202)
  await router.stop()
  for (const one of [hosted, proxy]) await one.close()
})

test('HOSTED_HOSTNAME with a path and a realm elsewhere: the start says what cannot work, and goes on; without a path nothing is said', async () => {
  const proxy = await scripted(answer(404))
  const elsewhere = await scripted(
    answer(401, { 'WWW-Authenticate': 'Bearer realm="https://auth.example/token",service="x"' }),
  )
  const own = await scripted(answer(401, { 'WWW-Authenticate': 'Bearer realm="/token",service="x"' }))
  const message = 'clients log in elsewhere, without the path of HOSTED_HOSTNAME'
  const warnings = ({ log }: Router) => log().filter((entry) => entry.message === message)
  const warned = await startRouter(way, { HOSTED_HOSTNAME: `${elsewhere.host}/acme`, PROXY_HOSTNAME: proxy.host })
  await until('the warning', () => warnings(warned).length === 1)
  assert.equal(warnings(warned)[0]?.host, 'auth.example')
  const pathless = await startRouter(way, { HOSTED_HOSTNAME: elsewhere.host, PROXY_HOSTNAME: proxy.host })
  const fine = await startRouter(way, { HOSTED_HOSTNAME: `${own.host}/acme`, PROXY_HOSTNAME: proxy.host })
  await until('hosted to be asked', () => own.requests.length > 0)
  const login = { HTPASSWD_FILE: users, HOSTED_USERNAME: 'a', HOSTED_PASSWORD: 'b' }
  const hosts = { HOSTED_HOSTNAME: `${elsewhere.host}/acme`, PROXY_HOSTNAME: proxy.host }
  const asRouter = await startRouter(way, { ...hosts, ...login })
  for (const router of [pathless, fine, asRouter]) {
    assert.equal((await send(router.url, 'GET', '/livez')).status, 200)
    assert.deepEqual(warnings(router), [])
  }
  for (const router of [warned, pathless, fine, asRouter]) await router.stop()
  for (const one of [proxy, elsewhere, own]) await one.close()
})

test('a copy from the proxy uses a session of GitHub, Google or Nexus, as documented, not run, and ends it if it fails', async () => {
  const wrong = digestOf('other')
  const proxy = await scripted((request, response, recorded) => {
    const isLayer = request.url?.includes('/blobs/')
    const fields = isLayer ? { 'Content-Length': layer.content.length } : {}
    return answer(isLayer ? 200 : 404, fields, isLayer ? (layer.content as never) : '')(request, response, recorded)
  })
  for (const name of ['GitHub (ghcr.io)', 'Google Artifact Registry', 'Nexus behind another proxy']) {
    const { login: _, ...dialect } = dialects[name] as Dialect
    const hosted = await speaks(dialect)
    const router = await startRouter(way, { HOSTED_HOSTNAME: hosted.host, PROXY_HOSTNAME: proxy.host })
    const at = full(dialect.prefix, 'app')
    const mount = (digest: string) =>
      send(router.url, 'POST', `/v2/${at}/blobs/uploads/?mount=${digest}&from=library/base`)
    const mounted = await mount(layer.digest)
    assert.deepEqual([mounted.status, mounted.headers.location], [201, `/v2/${at}/blobs/${layer.digest}`], name)
    assert.deepEqual(hosted.blob(at, layer.digest), layer.content)
    assert.equal((await mount(wrong)).status, 202)
    await until('only the session that the client got', () => hosted.sessions.size === 1)
    await router.stop()
    await hosted.close()
  }
  await proxy.close()
})
