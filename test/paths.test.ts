/** A registry with a path before its names: requests, links, lists, catalogs and scopes, function by function. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Answer, Registry } from '../src/registry/answer.ts'
import { catalogHere } from '../src/registry/catalog.ts'
import { pathHere, scopesHere, tagsHere, targetThere, tokenQueryThere, withoutPrefix } from '../src/registry/names.ts'

const path = '/acme/docker'
const digest = `sha256:${'a'.repeat(64)}`

/** A target here, and there. */
const targets: [here: string, there: string][] = [
  ['/v2/', '/v2/'],
  ['/v2/?x=/v2/a', '/v2/?x=/v2/a'],
  ['/v2/_catalog', '/v2/_catalog'],
  ['/v2/_catalog?n=2', '/v2/_catalog?n=2'],
  ['/v2/_catalog?n=2&last=app', '/v2/_catalog?n=2&last=acme/docker/app'],
  ['/v2/_catalog?last=~opaque%3D%3D&n=2', '/v2/_catalog?last=opaque%3D%3D&n=2'],
  ['/v2/app/tags/list?last=1.0', '/v2/acme/docker/app/tags/list?last=1.0'],
  ['/v2/acme/docker/app/manifests/1', '/v2/acme/docker/acme/docker/app/manifests/1'],
  ['/v2/app/manifests/1?from=x&ns=y', '/v2/acme/docker/app/manifests/1?from=x&ns=y'],
  [`/v2/app/blobs/sha256%3A1`, `/v2/acme/docker/app/blobs/sha256%3A1`],
  ['/v2/app/blobs/uploads/', '/v2/acme/docker/app/blobs/uploads/'],
  [
    `/v2/app/blobs/uploads/?mount=${digest}&from=base`,
    `/v2/acme/docker/app/blobs/uploads/?mount=${digest}&from=acme/docker/base`,
  ],
  [
    '/v2/app/blobs/uploads/?from=team%2Fbase&x=%zz',
    '/v2/acme/docker/app/blobs/uploads/?from=acme/docker/team/base&x=%zz',
  ],
  // However a parameter is written, no source is outside the path.
  ['/v2/app/blobs/uploads/?%66rom=base', '/v2/acme/docker/app/blobs/uploads/?from=acme/docker/base'],
  ['/v2/app/blobs/uploads/?a=b;from=base', '/v2/acme/docker/app/blobs/uploads/?a=b;from=acme/docker/base'],
  ['/v2/app/blobs/uploads/?from=a&from=b', '/v2/acme/docker/app/blobs/uploads/?from=acme/docker/a&from=acme/docker/b'],
  ['/v2/app/blobs/uploads/?from=', '/v2/acme/docker/app/blobs/uploads/?from='],
  ['/v2/app/blobs/uploads/1?_state=x&digest=y', '/v2/acme/docker/app/blobs/uploads/1?_state=x&digest=y'],
]
for (const [here, there] of targets) {
  test(`${here} here is ${there} there`, () => {
    assert.equal(targetThere(here, path), there)
    assert.equal(targetThere(here, ''), here)
  })
}

test('a path from there loses what stands before names; any other stays', () => {
  const here = (target: string, prefix = '') => pathHere(target, path, prefix)
  assert.equal(here('/v2/acme/docker/app/blobs/uploads/1?_state=x'), '/v2/app/blobs/uploads/1?_state=x')
  for (const target of ['/v2/acme/dockerx/app/tags/list', '/v2/acme/docker', '/v2/', '/elsewhere'])
    assert.equal(here(target), target)
  assert.equal(here('/v2/acme/docker/app/tags/list', '/ghcr.io'), '/v2/ghcr.io/app/tags/list')
  assert.equal(
    targetThere(withoutPrefix('/v2/ghcr.io/app/tags/list', '/ghcr.io'), path),
    '/v2/acme/docker/app/tags/list',
  )
})

/** Scopes as a client writes them, and as the registry does. */
const scopes: [here: string, there: string][] = [
  ['repository:app:pull,push', 'repository:acme/docker/app:pull,push'],
  ['repository(plugin):app:pull', 'repository(plugin):acme/docker/app:pull'],
  ['repository:a/b:pull repository:c:push', 'repository:acme/docker/a/b:pull repository:acme/docker/c:push'],
  ['registry:catalog:*', 'registry:catalog:*'],
  ['', ''],
]
test('names in scopes are mapped both ways, several in one parameter, and the parameter several times', () => {
  for (const [here, there] of scopes) {
    assert.equal(scopesHere(there, path), here)
    const query = `account=a&scope=${encodeURIComponent(here)}&service=s%20t`
    const mapped = tokenQueryThere(query, path)
    assert.equal(new URLSearchParams(mapped).get('scope'), there)
    assert.ok(mapped.startsWith('account=a&') && mapped.endsWith('&service=s%20t'))
  }
  const several = new URLSearchParams(
    tokenQueryThere('scope=repository:a:pull&scope=repository:b:pull+repository:c:pull', path),
  )
  assert.deepEqual(several.getAll('scope'), [
    'repository:acme/docker/a:pull',
    'repository:acme/docker/b:pull repository:acme/docker/c:pull',
  ])
  assert.equal(scopesHere('repository:other/app:pull', path), 'repository:other/app:pull')
  assert.equal(tokenQueryThere('scope=repository:a:pull', ''), 'scope=repository:a:pull')
})

test('a tag list has the name as it is called here, and is else as it came', () => {
  const of = (text: string) => Buffer.from(tagsHere(Buffer.from(text), path, '/v2/a.b/tags/list?n=1')).toString()
  assert.equal(of('{"name":"acme/docker/a.b","tags":["é"]}\n'), '{"name":"a.b","tags":["é"]}\n')
  assert.equal(of('{"tags":null, "name" : "acme\\/docker\\/a.b"}'), '{"tags":null, "name" : "a.b"}')
  assert.equal(of('{"name":"acme/docker/axb"}'), '{"name":"acme/docker/axb"}')
})

const from = { name: 'hosted', role: 'hosted' } as Registry
/** A registry that pages its catalog, in the manner of CNCF distribution. */
function paged(names: string[], size: number, queries: string[] = []) {
  return async (query: string): Promise<Answer> => {
    const asked = new URLSearchParams(targetThere(`/v2/_catalog${query}`, path).split('?')[1])
    queries.push(`${asked}`)
    const sorted = [...names].sort()
    const n = Number(asked.get('n') ?? size)
    const rest = sorted.filter((one) => one > (asked.get('last') ?? ''))
    const repositories = rest.slice(0, n)
    const headers = new Headers({ ETag: '"x"' })
    const last = encodeURIComponent(repositories.at(-1) ?? '')
    if (rest.length > n) headers.set('Link', `<http://inner:1/v2/_catalog?last=${last}&n=${n}>; rel="next"`)
    const content = new TextEncoder().encode(JSON.stringify({ repositories }))
    return { from, verdict: 'found', status: 200, milliseconds: 0, headers, content }
  }
}
const names = [
  'aaa',
  'acme/docker/a',
  'acme/docker/b/c',
  'acme/docker-x',
  'acme/dockerfile',
  'acme/docker/z',
  'b',
  'c/d',
  'acme',
  'zz',
  'zzz',
]

test('the catalog lists what is below the path, whatever the size of a page; no page tells another name', async () => {
  for (const size of [1, 2, 3, 4, 100]) {
    const ask = paged(names, 3)
    const seen: string[] = []
    let query = `?n=${size}`
    for (let pages = 0; query && pages < 20; pages++) {
      const { content, headers } = await catalogHere(ask, query, path)
      const said = `${Buffer.from(content ?? [])} ${[...headers]}`
      assert.ok(!/acme|aaa|zz|dockerfile|c.d/.test(said), said)
      assert.equal(headers.get('Content-Length'), `${content?.byteLength}`)
      assert.equal(headers.get('ETag'), null)
      seen.push(...JSON.parse(Buffer.from(content ?? []).toString()).repositories)
      query = /<([^>]*)>/.exec(headers.get('Link') ?? '')?.[1] ?? ''
    }
    assert.deepEqual(seen, ['a', 'b/c', 'z'], `${size} a page`)
  }
})

test('a client may name itself what a page begins after', async () => {
  const { content } = await catalogHere(paged(names, 100), '?last=a&n=1', path)
  assert.deepEqual(JSON.parse(Buffer.from(content ?? []).toString()), { repositories: ['b/c'] })
})

test("a registry's own word for the next page goes there and back unread", async () => {
  const queries: string[] = []
  const ask = async (query: string): Promise<Answer> => {
    queries.push(targetThere(`/v2/_catalog${query}`, path))
    const headers = new Headers({ Link: '</v2/_catalog?n=1&last=eyJ%3D%3D&page=2>; rel="next"' })
    const content = new TextEncoder().encode('{"repositories":["acme/docker/a"]}')
    return { from, verdict: 'found', status: 200, milliseconds: 0, headers, content }
  }
  const { headers } = await catalogHere(ask, '', path)
  assert.equal(headers.get('Link'), '<?n=1&last=~eyJ%3D%3D&page=2>; rel="next"')
  await catalogHere(ask, '?n=1&last=~eyJ%3D%3D&page=2', path)
  assert.deepEqual(queries, ['/v2/_catalog', '/v2/_catalog?n=1&last=eyJ%3D%3D&page=2'])
})

test('what is no catalog, or only other names without end, is no answer; an error passes', async () => {
  const says =
    (text: string | undefined, changes: Partial<Answer> = {}) =>
    async (): Promise<Answer> => {
      const headers = new Headers({ Link: '</v2/_catalog?last=b>; rel="next"' })
      const content = text === undefined ? undefined : new TextEncoder().encode(text)
      return { from, verdict: 'found', status: 200, milliseconds: 0, headers, content, ...changes }
    }
  for (const text of ['<html>', '[]', 'null', '{"repositories":"x"}', '{"repositories":["b"]}', undefined]) {
    const { verdict, status, content } = await catalogHere(says(text), '', path)
    assert.deepEqual([verdict, status, content], ['failed', 502, undefined], text)
  }
  const empty = await catalogHere(says('{"repositories":null}', { headers: new Headers() }), '', path)
  assert.equal(Buffer.from(empty.content ?? []).toString(), '{"repositories":[]}')
  const refused = await catalogHere(says('{"errors":[]}', { verdict: 'denied', status: 403 }), '', path)
  assert.equal(refused.status, 403)
})
