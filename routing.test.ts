/** Tests `routing.ts` as a specification: every route, the ambiguous names, every refusal. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Match, match, type Refusal, routes } from './routing.ts'

const hex = 'a'.repeat(64)
const sha256 = `sha256:${hex}`
const sha512 = `sha512:${'b'.repeat(128)}`

const matched = (method: string, path: string): Match => {
  const found = match(method, path)
  assert.ok('route' in found, `${method} ${path} is refused: ${JSON.stringify(found)}`)
  return found
}
const refused = (method: string, path: string): Refusal => {
  const found = match(method, path)
  assert.ok('refused' in found, `${method} ${path} matches ${JSON.stringify(found)}`)
  return found
}

/** Method, path, entity, the registries asked, repository name, reference or digest. */
const rows: [string, string, string, string, string?, string?][] = [
  ['GET', '/v2/', 'base', 'proxy hosted'],
  ['HEAD', '/v2/', 'base', 'proxy hosted'],
  ['GET', '/v2/_catalog', 'catalog', 'hosted'],
  ['GET', '/v2/a/b/tags/list', 'tags', 'hosted', 'a/b'],
  ['GET', `/v2/a/b/referrers/${sha256}`, 'referrers', 'hosted proxy', 'a/b', sha256],
  ['GET', '/v2/a/b/manifests/1.0', 'manifest', 'proxy hosted', 'a/b', '1.0'],
  ['HEAD', '/v2/a/b/manifests/1.0', 'manifest', 'proxy hosted', 'a/b', '1.0'],
  ['GET', `/v2/a/b/manifests/${sha256}`, 'manifest', 'proxy hosted', 'a/b', sha256],
  ['HEAD', `/v2/a/b/manifests/${sha512}`, 'manifest', 'proxy hosted', 'a/b', sha512],
  ['GET', `/v2/a/b/manifests/sha256-${hex}`, 'manifest', 'hosted proxy', 'a/b', `sha256-${hex}`],
  ['HEAD', `/v2/a/b/manifests/sha256-${hex}.sig`, 'manifest', 'hosted proxy', 'a/b', `sha256-${hex}.sig`],
  ['PUT', `/v2/a/b/manifests/sha256-${hex}.sig`, 'manifest', 'hosted', 'a/b', `sha256-${hex}.sig`],
  ['PUT', '/v2/a/b/manifests/1.0', 'manifest', 'hosted', 'a/b', '1.0'],
  ['DELETE', `/v2/a/b/manifests/${sha256}`, 'manifest', 'hosted', 'a/b', sha256],
  ['GET', `/v2/a/b/blobs/${sha256}`, 'blob', 'proxy hosted', 'a/b', sha256],
  ['HEAD', `/v2/a/b/blobs/${sha256}`, 'blob', 'hosted', 'a/b', sha256],
  ['DELETE', `/v2/a/b/blobs/${sha256}`, 'blob', 'hosted', 'a/b', sha256],
  ['POST', '/v2/a/b/blobs/uploads/', 'uploads', 'hosted', 'a/b'],
  ['GET', '/v2/a/b/blobs/uploads/5f3a-_=.x', 'upload', 'hosted', 'a/b'],
  ['PATCH', '/v2/a/b/blobs/uploads/5f3a', 'upload', 'hosted', 'a/b'],
  ['PUT', '/v2/a/b/blobs/uploads/5f3a', 'upload', 'hosted', 'a/b'],
  ['DELETE', '/v2/a/b/blobs/uploads/5f3a', 'upload', 'hosted', 'a/b'],
]

for (const [method, path, entity, ask, name, referenceOrDigest] of rows) {
  test(`${method} ${path} asks ${ask.replace(' ', ' and ')}`, () => {
    const { route, ...found } = matched(method, path)
    assert.equal(route.entity, entity)
    assert.deepEqual(route.ask, ask.split(' '))
    assert.equal(found.name, name)
    assert.equal(found.reference ?? found.digest, referenceOrDigest)
    assert.equal(found.path, path)
  })
}

test('every method of every route has a case above', () => {
  for (const route of routes) {
    for (const method of route.methods) {
      const seen = rows.some(([m, path]) => m === method && matched(m, path).route === route)
      assert.ok(seen, `${method} ${route.path} is not tested`)
    }
  }
})

/** Path, entity of a GET, repository name. Words of the API, such as `tags`, are valid in a repository name too. */
const ambiguous: [string, string, string][] = [
  ['/v2/blobs/uploads/manifests/v1', 'manifest', 'blobs/uploads'],
  ['/v2/blobs/uploads/tags/list', 'tags', 'blobs/uploads'],
  ['/v2/manifests/tags/tags/list', 'tags', 'manifests/tags'],
  ['/v2/manifests/tags/manifests/list', 'manifest', 'manifests/tags'],
  ['/v2/x/manifests/tags/list', 'tags', 'x/manifests'],
  ['/v2/x/manifests/uploads', 'manifest', 'x'],
  ['/v2/x/blobs/y/manifests/v1', 'manifest', 'x/blobs/y'],
  [`/v2/x/blobs/y/blobs/${sha256}`, 'blob', 'x/blobs/y'],
  [`/v2/tags/list/blobs/${sha256}`, 'blob', 'tags/list'],
  ['/v2/tags/list/tags/list', 'tags', 'tags/list'],
  ['/v2/x/blobs/uploads/blobs/uploads/1', 'upload', 'x/blobs/uploads'],
  ['/v2/x/tags/list/blobs/uploads/1', 'upload', 'x/tags/list'],
  ['/v2/x/referrers/manifests/v1', 'manifest', 'x/referrers'],
  [`/v2/referrers/referrers/${sha256}`, 'referrers', 'referrers'],
  ['/v2/v2/manifests/v2', 'manifest', 'v2'],
]
for (const [path, entity, name] of ambiguous) {
  test(`GET ${path}: the entity is ${entity}, the repository is ${name}`, () => {
    const found = matched('GET', path)
    assert.equal(found.route.entity, entity)
    assert.equal(found.name, name)
  })
}

test('a repository name has any depth and at most 255 characters', () => {
  for (const name of ['a', 'a/b/c/d/e/f/g', 'a.b/c_d/e__f/g---h', '0/1', 'a'.repeat(255)]) {
    assert.equal(matched('GET', `/v2/${name}/manifests/v1`).name, name)
  }
  assert.equal(refused('GET', `/v2/${'a'.repeat(256)}/manifests/v1`).code, 'NAME_INVALID')
})

test('%3A is read as a colon, and the path stays as the client wrote it', () => {
  for (const colon of ['%3A', '%3a']) {
    const path = `/v2/a/blobs/sha256${colon}${hex}`
    assert.equal(matched('GET', path).digest, sha256)
    assert.equal(matched('GET', path).path, path)
  }
})

test('a digest may have any algorithm; a tag is not a digest', () => {
  for (const digest of [sha256, sha512, 'blake3:abc', 'sha256+b64u:LCa0a2j_xo=']) {
    assert.equal(matched('GET', `/v2/a/blobs/${digest}`).digest, digest)
    assert.equal(matched('GET', `/v2/a/manifests/${digest}`).digest, digest)
  }
  assert.equal(matched('GET', '/v2/a/manifests/latest').digest, undefined)
})

/** Path, error code: the path has the form of a route, but one part is invalid. */
const invalid: [string, Refusal['code']][] = [
  ['/v2/UPPER/manifests/v1', 'NAME_INVALID'],
  ['/v2/a//b/manifests/v1', 'NAME_INVALID'],
  ['/v2/a/../b/manifests/v1', 'NAME_INVALID'],
  ['/v2/../a/manifests/v1', 'NAME_INVALID'],
  ['/v2/a%2fb/manifests/v1', 'NAME_INVALID'],
  ['/v2/a%5cb/manifests/v1', 'NAME_INVALID'],
  ['/v2/a%00b/manifests/v1', 'NAME_INVALID'],
  ['/v2/a%zz/tags/list', 'NAME_INVALID'],
  ['/v2/-a/tags/list', 'NAME_INVALID'],
  ['/v2/a___b/tags/list', 'NAME_INVALID'],
  ['/v2/%61/tags/list', 'NAME_INVALID'],
  ['/v2/a b/tags/list', 'NAME_INVALID'],
  ['/v2/a/manifests/.hidden', 'MANIFEST_INVALID'],
  ['/v2/a/manifests/..', 'MANIFEST_INVALID'],
  ['/v2/a/manifests/%2e%2e', 'MANIFEST_INVALID'],
  [`/v2/a/manifests/${'t'.repeat(129)}`, 'MANIFEST_INVALID'],
  ['/v2/a/manifests/sha256:abc', 'MANIFEST_INVALID'],
  [`/v2/a/manifests/sha256:${hex}a`, 'MANIFEST_INVALID'],
  [`/v2/a/manifests/sha256:${'A'.repeat(64)}`, 'MANIFEST_INVALID'],
  ['/v2/a/blobs/sha256:abc', 'DIGEST_INVALID'],
  ['/v2/a/blobs/latest', 'DIGEST_INVALID'],
  ['/v2/a/blobs/uploads', 'DIGEST_INVALID'],
  [`/v2/a/blobs/sha512:${hex}`, 'DIGEST_INVALID'],
  ['/v2/a/referrers/latest', 'DIGEST_INVALID'],
]
for (const [path, code] of invalid) {
  test(`${JSON.stringify(path).slice(0, 60)} is refused with 400 ${code}`, () => {
    assert.deepEqual([refused('GET', path).refused, refused('GET', path).code], [400, code])
  })
}

/** Paths of no route. */
const unknown = [
  '/',
  '/v1/',
  '/v2',
  '/v2//',
  '//v2/',
  '/v2/a',
  '/v2/_catalog/',
  '/v2/_catalogx',
  '/v2/manifests/v1',
  '/v2/blobs/uploads/',
  '/v2/a/tags/list/',
  '/v2/a/tags/',
  '/v2/a\n/tags/list',
  '/v2/a/blobs/uploads/..',
  '/v2/a/blobs/uploads/%2e%2e',
  '/v2/a/blobs/uploads/a/b',
  `/v2/a/blobs/${sha256}/`,
  '/v2/a/manifests/',
  '/x/v2/a/tags/list',
  '/metrics',
]
for (const path of unknown) {
  test(`${JSON.stringify(path)} is refused with 404`, () => assert.equal(refused('GET', path).refused, 404))
}

/** Method, path, Allow header field: the route does not have this method. */
const notAllowed: [string, string, string][] = [
  ['POST', '/v2/', 'GET, HEAD'],
  ['HEAD', '/v2/_catalog', 'GET'],
  ['DELETE', '/v2/a/tags/list', 'GET'],
  ['PUT', `/v2/a/referrers/${sha256}`, 'GET'],
  ['POST', '/v2/a/manifests/v1', 'GET, HEAD, PUT, DELETE'],
  ['PATCH', `/v2/a/manifests/sha256-${hex}`, 'GET, HEAD, PUT, DELETE'],
  ['PUT', `/v2/a/blobs/${sha256}`, 'GET, HEAD, DELETE'],
  ['GET', '/v2/a/blobs/uploads/', 'POST'],
  ['HEAD', '/v2/a/blobs/uploads/1', 'GET, PATCH, PUT, DELETE'],
  ['get', '/v2/', 'GET, HEAD'],
]
for (const [method, path, allow] of notAllowed) {
  test(`${method} ${path.slice(0, 40)} is refused with 405 and Allow: ${allow}`, () => {
    assert.deepEqual([refused(method, path).refused, refused(method, path).allow], [405, allow])
  })
}
