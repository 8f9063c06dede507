/** Upload sessions outside the route table: their tokens, and that a made-up token reaches nothing else of hosted. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { hashSync } from 'bcryptjs'
import fc from 'fast-check'
import { type Config, readConfig } from '../src/config.ts'
import { hasToken, type Place, repositoryOf, sessionHere, sessionThere } from '../src/registry/sessions.ts'
import type { Fetch } from '../src/runtime/runtime.ts'
import { createService } from '../src/service.ts'

const folder = mkdtempSync(join(tmpdir(), 'combined-registry-'))
after(() => rmSync(folder, { recursive: true, force: true }))

const router = new URL('https://registry.example')
const at = (address: string): Place => {
  const { origin, pathname } = new URL(address)
  return { address: new URL(origin), path: pathname.replace(/\/$/, ''), router }
}
const tokenOf = (target: string) => `~${Buffer.from(target).toString('base64url')}`
const uploadsOf = (name: string) => `/v2/${name}/blobs/uploads/`

/** hosted, the name here, the Location there, and its path and query if it gets a token. */
const tokens: [hosted: string, name: string, location: string, target?: string][] = [
  ['https://ghcr.io/acme', 'app', '/v2/acme/app/blobs/upload/4b17-c3'],
  ['https://ghcr.io', 'acme/app', '/v2/acme/app/blobs/upload/4b17-c3'],
  [
    'https://ghcr.io',
    'acme/app',
    'https://ghcr.io/v2/acme/app/blobs/upload/1?a=b%3D',
    '/v2/acme/app/blobs/upload/1?a=b%3D',
  ],
  // Another scheme, an inner port, and the address that the router gave as its own.
  ['https://ghcr.io', 'acme/app', 'http://GHCR.io:8080/v2/acme/app/blobs/upload/1', '/v2/acme/app/blobs/upload/1'],
  ['https://ghcr.io', 'acme/app', '//ghcr.io/v2/acme/app/blobs/upload/1', '/v2/acme/app/blobs/upload/1'],
  ['http://10.0.0.1', 'a', 'https://registry.example/v2/a/blobs/upload/1', '/v2/a/blobs/upload/1'],
  ['https://eu-docker.pkg.dev/p/r', 'app', '/artifacts-uploads/namespaces/p/repositories/r/uploads/AJ-x_y=='],
  ['https://eu-docker.pkg.dev/p', 'r/a/b', '/artifacts-uploads/namespaces/p/repositories/r/uploads/AJ'],
  ['https://eu.gcr.io', 'p/app', '/artifacts-uploads/namespaces/p/repositories/eu.gcr.io/uploads/AJ'],
  // A session id that looks like a token.
  ['https://hosted.example', 'a', '/v2/a/blobs/uploads/~abc?_state=x'],
]
for (const [hosted, name, location, target = location] of tokens) {
  test(`${location} of ${hosted} gets a token, which leads back there with what the client adds`, () => {
    const here = sessionHere(location, uploadsOf(name), at(hosted)) as string
    assert.equal(here, `${uploadsOf(name)}${tokenOf(target)}`)
    assert.ok(hasToken(here))
    assert.equal(sessionThere(here, at(hosted)), target)
    const joined = `${target}${target.includes('?') ? '&' : '?'}digest=sha256:1`
    assert.equal(sessionThere(`${here}?digest=sha256:1`, at(hosted)), joined)
    assert.equal(repositoryOf(here, at(hosted)), `${at(hosted).path.slice(1)}/${name}`.replace(/^\//, ''))
  })
}

test('what something puts before /v2/ goes, for this name only', () => {
  const nexus = '/repository/docker-hosted/v2/team/app/blobs/uploads/1?x=y'
  const rows: [hosted: string, location: string, wanted: string | undefined][] = [
    ['http://nexus:8081', nexus, '/v2/team/app/blobs/uploads/1?x=y'],
    ['http://nexus:8081', `https://nexus${nexus}`, '/v2/team/app/blobs/uploads/1?x=y'],
    ['http://nexus:8081', `https://elsewhere${nexus}`, undefined],
    ['http://nexus:8081/docker-hosted', nexus, '/v2/team/app/blobs/uploads/1?x=y'],
    [
      'https://art.example/local',
      '/artifactory/api/docker/local/v2/local/team/app/blobs/uploads/1',
      '/v2/team/app/blobs/uploads/1',
    ],
    ['http://nexus:8081', '/repository/docker-hosted/v2/team/other/blobs/uploads/1', undefined],
    ['http://nexus:8081', '/repository/docker-hosted/v2/team/app/blobs/uploads/1/2', undefined],
    ['http://nexus:8081', '/repository/docker-hosted/v2/team/app/blobs/uploads/', undefined],
  ]
  for (const [hosted, location, wanted] of rows)
    assert.equal(sessionHere(location, uploadsOf('team/app'), at(hosted)), wanted, `${hosted} ${location}`)
})

test('any other address gets no token: of another host, of another name, of no known shape', () => {
  const here = (location: string) => sessionHere(location, uploadsOf('app'), at('https://ghcr.io/acme'))
  for (const location of [
    'https://elsewhere.example/v2/acme/app/blobs/upload/1',
    'https://x@ghcr.io/v2/acme/app/blobs/upload/1',
    '/v2/acme/other/blobs/upload/1',
    '/v2/app/blobs/upload/1',
    '/v2/acme/app/blobs/upload/1/2',
    '/v2/acme/app/blobs/upload/1?digest=sha256:1',
    '/v2/acme/app/blobs/upload/1?%66rom=x',
    '/v2/acme/app/blobs/upload/1?a?b',
    '/v2/acme/app/blobs/upload/a..b',
    '/v2/acme/app/blobs/uploads/1',
    '/v2/acme/app/tags/list',
    '/uploads/1',
    'uploads/1',
    '',
  ])
    assert.equal(here(location), undefined, location)
})

const names = ['acme/app', 'acme/r/app']
const shapes = (name: string) => [
  `/v2/${name}/blobs/upload/4b17-c3`,
  `/v2/${name}/blobs/uploads/~1?_state=a%3D`,
  `/artifacts-uploads/namespaces/acme/repositories/${name === 'acme/app' ? 'hosted' : 'r'}/uploads/AJ-x_y==`,
]
const odd = [
  ...[
    '..',
    '.',
    '/',
    '//',
    '%2e%2e',
    '%2E.',
    '%2f',
    '%5c',
    '\\',
    '\r\n',
    '\0',
    '\x7f',
    '\t',
    ' ',
    'é',
    '?',
    '#',
    '@',
    ':',
    ';',
  ],
  ...[
    '?mount=a',
    '?from=a',
    '?digest=a',
    '&%66rom=a',
    '?DIGEST=a',
    '&mount',
    '?a=%0d%0a',
    '/../',
    '/v2/',
    'other/',
    'A',
    '*',
    '~',
  ],
]
/** A session of a known shape with something wrong at one place, or something else. */
const targets = fc.oneof(
  {
    weight: 6,
    arbitrary: fc
      .tuple(fc.constantFrom(...names.flatMap(shapes)), fc.constantFrom(...odd), fc.nat(120), fc.nat(3))
      .map(([shape, text, place, cut]) => {
        const index = place % (shape.length + 1)
        return shape.slice(0, index) + text + shape.slice(index + cut)
      }),
  },
  { weight: 1, arbitrary: fc.constantFrom(...names.flatMap(shapes)) },
  {
    weight: 2,
    arbitrary: fc.constantFrom(
      ...['/', '/service/rest/v1/security', '/v2/_catalog', '/v2/acme/app/manifests/1', '/v2/other/app/blobs/upload/1'],
      ...[
        '/api/v2.0/projects',
        '/v2/acme/app/../../x/blobs/upload/1',
        '//evil.example/v2/acme/app/blobs/upload/1',
        '@evil',
      ],
      ...['/artifacts-uploads/namespaces/other/repositories/app/uploads/1', '/v2/acme/app/blobs/uploads/1'],
      ...['/artifacts-uploads/namespaces/acme/repositories/undefined/uploads/1', '/v2/acme/blobs/upload/1'],
    ),
  },
  { weight: 1, arbitrary: fc.string({ maxLength: 60, unit: 'binary' }) },
)
const tokenTexts = fc.oneof(
  { weight: 6, arbitrary: targets.map((target) => Buffer.from(target).toString('base64url')) },
  // Another spelling of the same bytes, or no base64 at all.
  { weight: 1, arbitrary: targets.map((target) => Buffer.from(target).toString('base64').replace(/[+/]/g, '.')) },
  { weight: 1, arbitrary: targets.map((target) => `${Buffer.from(target).toString('base64url')}=`) },
  { weight: 1, arbitrary: fc.string({ maxLength: 40, unit: fc.constantFrom(...'abcXYZ019._=~-') }) },
)
const queries = fc.constantFrom('', '', `?digest=sha256:${'a'.repeat(64)}`, '?mount=a&from=b', '?')

/** Not built from the patterns of the source, so a mistake there shows. */
function mayReach(url: string, name: string): boolean {
  const [target = '', query = ''] = url.slice('http://hosted:1'.length).split(/\?(.*)/s)
  const begins = [
    `/v2/${name}/blobs/upload/`,
    `/v2/${name}/blobs/uploads/~`,
    '/artifacts-uploads/namespaces/acme/repositories/hosted/uploads/',
    ...(name === 'acme/r/app' ? ['/artifacts-uploads/namespaces/acme/repositories/r/uploads/'] : []),
  ]
  const begin = begins.find((one) => target.startsWith(one))
  if (!begin) return false
  return (
    /\/[A-Za-z0-9._=~-]+$/.test(target.slice(begin.replace('~', '').length - 1)) &&
    !/\.\./.test(target) &&
    !/[\s?#]/.test(query)
  )
}

test('10,000 made-up tokens, with a login of the router at hosted: none reaches anything but a session of its name', async () => {
  const users = join(folder, 'users')
  writeFileSync(users, `ann:${hashSync('right', 4)}\n`)
  const config = readConfig({
    AGGREGATE_HOSTNAME: 'registry.example',
    HOSTED_HOSTNAME: 'http://hosted:1',
    PROXY_HOSTNAME: 'proxy:2',
    HTPASSWD_FILE: users,
    HOSTED_USERNAME: 'router',
    HOSTED_PASSWORD: 'canary-password',
  }) as Config
  assert.ok(!('faults' in config), JSON.stringify(config))
  const reached: string[] = []
  const fetch: Fetch = async (url) => {
    reached.push(url)
    return new Response(null, { status: 202, headers: { Location: '/v2/acme/app/blobs/upload/1' } })
  }
  const log = () => {}
  const service = createService(config, { fetch, now: () => performance.now(), log, version: '0', runtime: 'test' })
  // The threads that check passwords do not keep the process alive, so this timer does.
  const alive = setInterval(() => {}, 1000)
  let taken = 0
  const methods = fc.constantFrom('GET', 'PATCH', 'PUT', 'DELETE', 'POST', 'HEAD')
  const property = fc.asyncProperty(
    methods,
    fc.constantFrom(...names),
    tokenTexts,
    queries,
    async (method, name, text, query) => {
      reached.length = 0
      const headers = { Authorization: `Basic ${btoa('ann:right')}` }
      const url = `http://registry.example/v2/${name}/blobs/uploads/~${text}${query}`
      const { status } = await service.handle(new Request(url, { method, headers }))
      const own = reached.filter((one) => one !== 'http://hosted:1/v2/')
      if (own.length === 0) return assert.ok([400, 404, 405].includes(status), `${status} for ${url}`)
      taken++
      assert.equal(own.length, 1)
      assert.ok(mayReach(own[0] as string, name), `${url} reaches ${own[0]}`)
    },
  )
  await fc.assert(property, { numRuns: 10_000 }).finally(() => clearInterval(alive))
  assert.ok(taken > 200, `only ${taken} were taken: nothing is proved`)
})

test('a made-up token is a 404 of the registry API', async () => {
  const config = readConfig({
    AGGREGATE_HOSTNAME: 'registry.example',
    HOSTED_HOSTNAME: 'hosted:1',
    PROXY_HOSTNAME: 'proxy:2',
  })
  assert.ok(!('faults' in config))
  const fetch: Fetch = () => Promise.reject(new Error('asked'))
  const service = createService(config, { fetch, now: () => 1, log: () => {}, version: '0', runtime: 'test' })
  for (const method of ['GET', 'PATCH', 'PUT', 'DELETE']) {
    const reply = await service.handle(
      new Request(`http://x/v2/a/blobs/uploads/${tokenOf('/v2/b/blobs/upload/1')}`, { method }),
    )
    assert.deepEqual(
      [reply.status, ((await reply.json()) as { errors: { code: string }[] }).errors[0]?.code],
      [404, 'BLOB_UPLOAD_UNKNOWN'],
    )
  }
})
