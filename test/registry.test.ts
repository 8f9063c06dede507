/** The rules of one registry, function by function: challenges, header fields, redirects, digests, verdicts, the login. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Question } from '../src/registry/answer.ts'
import { bearerFirst, parseChallenges, splitChallenges, withRealms } from '../src/registry/challenge.ts'
import { hasDigest } from '../src/registry/digest.ts'
import { nestedCode, readAhead } from '../src/registry/errors.ts'
import { ownPath, requestFields, responseFields, signed, type Trust } from '../src/registry/headers.ts'
import { withLogin } from '../src/registry/login.ts'
import { LoginRefused, RealmFailed, realmUrl } from '../src/registry/realm.ts'
import { judgeRedirect } from '../src/registry/redirects.ts'
import { RemoteRegistry } from '../src/registry/registry.ts'
import { fixed } from '../src/registry/source.ts'
import {
  faultOfBlob,
  isAboutRequest,
  isEmptyList,
  isManifest,
  isVagueHead,
  verdictOf,
  verdictOfNested,
  verdictOfTags,
} from '../src/registry/verdict.ts'
import type { Asked, Fetch } from '../src/runtime/runtime.ts'

test('challenges are split at commas, but not inside quotes or between parameters', () => {
  const rows: [string, string[]][] = [
    ['', []],
    ['Basic', ['Basic']],
    ['Basic realm="a, b"', ['Basic realm="a, b"']],
    ['Basic realm="a",Bearer realm="b",service="c"', ['Basic realm="a"', 'Bearer realm="b",service="c"']],
    ['Negotiate, Basic realm="a"', ['Negotiate', 'Basic realm="a"']],
    ['Basic realm="no end, Bearer realm="x"', ['Basic realm="no end, Bearer realm="x"']],
  ]
  for (const [field, wanted] of rows) assert.deepEqual(splitChallenges(field), wanted, field)
})

test('the parameters of a challenge are read quoted or not, in any case', () => {
  assert.deepEqual(parseChallenges('BEARER Realm="https://a/token",service=b, scope="repository:x:pull"'), [
    { scheme: 'bearer', realm: 'https://a/token', service: 'b', scope: 'repository:x:pull' },
  ])
})

test('Bearer comes first, the rest keeps its order', () => {
  assert.equal(
    bearerFirst('Basic realm="a", Negotiate, Bearer realm="b"'),
    'Bearer realm="b", Basic realm="a", Negotiate',
  )
})

const router = new URL('https://registry.example')
const hosted: Trust = { role: 'hosted', forwardsLogin: true, router }
const proxy: Trust = { role: 'public', forwardsLogin: false, router }
const fieldsOf = (method: string, headers: Record<string, string>, trust: Trust, client = {}) =>
  requestFields({ method, headers: new Headers(headers) }, client, trust)

test("the client's login and cookies go only to a registry that may see them", () => {
  const headers = { Authorization: 'Basic x', Cookie: 'y' }
  assert.deepEqual(Object.keys(fieldsOf('GET', headers, proxy)).sort(), [
    'accept-encoding',
    'x-forwarded-host',
    'x-forwarded-proto',
  ])
  const { authorization, cookie } = fieldsOf('GET', headers, hosted)
  assert.deepEqual([authorization, cookie], ['Basic x', 'y'])
  assert.equal(fieldsOf('PUT', headers, { ...hosted, forwardsLogin: false }).authorization, undefined)
})

test('a read brings only what its answer may depend on; a write to hosted brings all end-to-end fields', () => {
  const headers = {
    Accept: 'a',
    Range: 'bytes=0-',
    'X-Own': '1',
    Connection: 'x-hop',
    'X-Hop': '2',
    Expect: '100-continue',
  }
  assert.deepEqual(
    Object.keys(fieldsOf('GET', headers, hosted)).filter((name) => !/^(x-f|accept-)/.test(name)),
    ['accept', 'range'],
  )
  assert.equal(fieldsOf('PUT', headers, hosted)['x-own'], '1')
  for (const name of ['x-hop', 'expect', 'connection']) assert.equal(fieldsOf('PUT', headers, hosted)[name], undefined)
})

test('the addresses of the way here are the router’s to tell', () => {
  const claimed = {
    'X-Forwarded-Host': 'evil',
    'X-Forwarded-Proto': 'ftp',
    'X-Forwarded-For': '1.1.1.1',
    Forwarded: 'for=x',
  }
  const fields = fieldsOf('PUT', claimed, hosted, { address: '1.1.1.1', peer: '2.2.2.2', id: 'abc' })
  assert.equal(fields['x-forwarded-host'], 'registry.example')
  assert.equal(fields['x-forwarded-proto'], 'https')
  assert.equal(fields['x-forwarded-for'], '1.1.1.1, 2.2.2.2')
  assert.equal(fields['x-request-id'], 'abc')
  assert.equal(fields.forwarded, undefined)
})

test('too many bytes of the fields of a read are a 431', () => {
  assert.throws(() => fieldsOf('GET', { Accept: 'x'.repeat(8001) }, proxy), { status: 431 })
})

const mapping = {
  forwardsLogin: false,
  pathHere: String,
  sessionHere: () => undefined,
  realmHere: () => undefined,
  scopesHere: String,
}

test('challenges and cookies of a registry pass only if the client has its login there', () => {
  const from = new Headers({
    'WWW-Authenticate': 'Basic realm="a", Bearer realm="b"',
    'Set-Cookie': 'c=1',
    ETag: '"x"',
  })
  assert.deepEqual(responseFields(401, from, mapping), [['etag', '"x"']])
  const fields = new Headers(responseFields(401, from, { ...mapping, forwardsLogin: true }))
  assert.equal(fields.get('WWW-Authenticate'), 'Bearer realm="b", Basic realm="a"')
  assert.equal(fields.get('Set-Cookie'), 'c=1')
})

test('an address of the API becomes a path; any other address stays', () => {
  const rows: [string, string][] = [
    ['http://hosted:5000/v2/a/blobs/uploads/1?_state=x', '/v2/a/blobs/uploads/1?_state=x'],
    ['//hosted/v2/a/blobs/uploads/1', '/v2/a/blobs/uploads/1'],
    ['https://storage.example/bucket/x?sig=1', 'https://storage.example/bucket/x?sig=1'],
    ['/v2/a/blobs/uploads/1', '/v2/a/blobs/uploads/1'],
    ['', ''],
  ]
  for (const [location, wanted] of rows) assert.equal(ownPath(location), wanted)
})

test('links of a registry lead to the names the client knows', () => {
  const from = new Headers({ Link: '<http://cache/v2/there/a/tags/list?n=1>; rel="next"' })
  const pathHere = (path: string) => path.replace('/v2/there/', '/v2/')
  assert.deepEqual(responseFields(200, from, { ...mapping, pathHere }), [['link', '</v2/a/tags/list?n=1>; rel="next"']])
})

test('a redirect passes to another host only; a blob outside the API on the same host becomes a whole address', () => {
  const blob = 'http://proxy:2/v2/a/blobs/sha256:1'
  const manifest = 'http://proxy:2/v2/a/manifests/1'
  const rows: [string, string, string | undefined][] = [
    ['https://storage.example/x', blob, 'https://storage.example/x'],
    ['/downloads/x?sig=1', blob, 'http://proxy:2/downloads/x?sig=1'],
    ['/downloads/x', manifest, undefined],
    ['/v2/other', blob, undefined],
    ['https://registry.example/v2/', manifest, undefined],
    ['', manifest, undefined],
    ['http://[', manifest, undefined],
  ]
  for (const [location, url, wanted] of rows) {
    const judged = judgeRedirect(location, url, 'registry.example')
    assert.equal('location' in judged ? judged.location : undefined, wanted, `${location} for ${url}`)
  }
})

test('a fault of a redirect names no query, which may be a secret', () => {
  const judged = judgeRedirect('/v2/x?token=secret', 'http://proxy:2/v2/a/manifests/1', 'registry.example')
  assert.ok('fault' in judged && !judged.fault.includes('secret'))
})

test('digests of both algorithms are checked; one of another algorithm is never right', () => {
  const sha256 = '2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824'
  assert.ok(hasDigest(Buffer.from('hello'), `sha256:${sha256}`))
  assert.ok(!hasDigest(Buffer.from('hello!'), `sha256:${sha256}`))
  assert.ok(!hasDigest(Buffer.from('hello'), `md5:${sha256}`))
})

test('the verdict of each status', () => {
  const verdicts = { found: [200, 206, 301, 303, 304, 307, 412, 416], absent: [404], limited: [429] }
  const others = {
    denied: [400, 401, 402, 403, 405, 406, 410, 451],
    failed: [300, 407, 408, 421, 426, 500, 502, 503, 504, 599],
  }
  for (const [verdict, statuses] of Object.entries({ ...verdicts, ...others })) {
    for (const status of statuses) assert.equal(verdictOf(status), verdict, `${status}`)
  }
})

test('a manifest has the digest that was asked for, or is JSON that looks like one', () => {
  const text = (body: string) => Buffer.from(body)
  const sha256 = 'sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824'
  const manifests = ['{"schemaVersion":2}', '{"mediaType":"x"}', '{"manifests":[]}', '{"layers":[]}', '{"config":{}}']
  for (const body of manifests) assert.ok(isManifest(text(body), undefined), body)
  for (const body of [
    '',
    '<html>',
    '{}',
    '[]',
    'null',
    '"schemaVersion"',
    '[{"schemaVersion":2}]',
    '{"errors":[]}',
    '{"schemaVersion":2',
  ])
    assert.ok(!isManifest(text(body), undefined), body)
  assert.ok(isManifest(text('hello'), sha256), 'whatever it is')
  assert.ok(!isManifest(text('hello!'), sha256))
})

test('a HEAD of a manifest leaves its meaning to a GET if it says 400, 405 or 501, or 200 without a field of a manifest', () => {
  const vague = (status: number, fields: Record<string, string>) =>
    isVagueHead('manifest', 'hosted', { status, headers: new Headers(fields) })
  const json = { 'Content-Type': 'application/json' }
  const oci = { 'Content-Type': 'application/vnd.oci.image.index.v1+json' }
  const docker = { 'Content-Type': 'Application/vnd.docker.distribution.manifest.v1+prettyjws' }
  const digest = { 'Docker-Content-Digest': `sha256:${'a'.repeat(64)}` }
  for (const status of [400, 405, 501]) assert.ok(vague(status, { ...oci, ...digest }), `${status}`)
  for (const fields of [{}, json, { 'Content-Type': 'text/html' }]) assert.ok(vague(200, fields))
  for (const fields of [oci, docker, { ...json, ...digest }, digest]) {
    assert.ok(!vague(200, fields))
    assert.ok(vague(200, { ...fields, 'Content-Length': '0' }))
  }
  for (const status of [206, 304, 401, 403, 404, 429, 500, 503]) assert.ok(!vague(status, json), `${status}`)
})

test('a HEAD of a blob leaves its meaning to a GET if a public registry says 401, 403, 405 or 501', () => {
  const vague = (status: number, role: 'hosted' | 'public') =>
    isVagueHead('blob', role, { status, headers: new Headers() })
  for (const status of [200, 307, 400, 401, 403, 404, 405, 429, 501, 503]) {
    assert.equal(vague(status, 'public'), [401, 403, 405, 501].includes(status), `${status}`)
    assert.ok(!vague(status, 'hosted'), `${status}`)
  }
})

test('a status about the request, not about the image, says nothing of what a registry has', () => {
  const about = [405, 407, 408, 411, 413, 414, 415, 417, 421, 426, 428, 431]
  for (let status = 401; status < 500; status++) {
    assert.equal(isAboutRequest(status, { code: 'UNSUPPORTED', message: '' }), about.includes(status), `${status}`)
  }
  assert.ok(isAboutRequest(400, undefined) && !isAboutRequest(400, { code: 'NAME_INVALID', message: '' }))
})

test('a blob is no web page, and empty only if its digest is that of nothing', () => {
  const of = (fields: Record<string, string>, digest?: string) => faultOfBlob(new Headers(fields), digest) === undefined
  const nothing = 'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'
  const some = `sha256:${'a'.repeat(64)}`
  assert.ok(of({ 'Content-Type': 'application/octet-stream', 'Content-Length': '3' }, some))
  assert.ok(of({ 'Content-Length': '0' }, nothing))
  assert.ok(!of({ 'Content-Length': '0' }, some))
  assert.ok(!of({ 'Content-Type': 'text/html' }, some))
  // Gitea and zot say the media type of the layer.
  assert.ok(of({ 'Content-Type': 'text/html', 'Docker-Content-Digest': some }, some))
  assert.ok(!of({ 'Content-Type': 'text/html', 'Docker-Content-Digest': nothing }, some))
})

test('a list of tags has tags; null is a name that is not there', () => {
  const rows: [string, string][] = [
    ['{"name":"a","tags":["1"]}', 'found'],
    ['{"name":"a","tags":[]}', 'found'],
    ['{"name":"a","tags":null}', 'absent'],
    ['{"name":"a"}', 'failed'],
    ['<html>', 'failed'],
    ['[]', 'failed'],
    ['null', 'failed'],
  ]
  for (const [body, wanted] of rows) assert.equal(verdictOfTags(Buffer.from(body)), wanted, body)
})

test('a list without tags is one if some were asked for, whatever else it has', () => {
  const rows: [string, string, boolean][] = [
    ['{"name":"a","tags":[]}', '', true],
    ['{"tags":[ ]}', '?n=10&ns=docker.io', true],
    ['{"tags":["1"]}', '', false],
    ['{"tags":null}', '', false],
    ['{"tags":[]}', '?n=0', false],
    ['{"tags":[]}', '?n=1&last=b', true],
    ['{"tags":["1"],"x":{"tags":[]}}', '', false],
    ['{"tags":[],"name":"a', '', false],
    // Google, of what is only a folder, or is not there.
    ['{"child":["a"],"manifest":{},"tags":[]}', '', true],
  ]
  for (const [body, query, wanted] of rows) assert.equal(isEmptyList(Buffer.from(body), query), wanted, body + query)
})

test('only the realm of a Bearer challenge changes, and only if there is another address for it', () => {
  const change = (field: string) =>
    withRealms(field, (realm) => (realm.includes('inner') ? 'https://r/v2/token' : undefined), String)
  assert.equal(
    change('Basic realm="inner", Bearer service="s",realm="http://inner/token",scope="a,b"'),
    'Basic realm="inner", Bearer service="s",realm="https://r/v2/token",scope="a,b"',
  )
  assert.equal(change('Bearer realm=http://inner/token'), 'Bearer realm="https://r/v2/token"')
  assert.equal(change('Bearer realm="https://auth.example/token"'), 'Bearer realm="https://auth.example/token"')
})

test('a body is read whole up to a bound; a longer one is still all there', async () => {
  const of = (text: string, headers = {}) => readAhead(new Response(text, { headers }), 10)
  const short = await of('1234567890')
  assert.ok('content' in short && Buffer.from(short.content).toString() === '1234567890')
  for (const headers of [{}, { 'Content-Length': '11' }]) {
    const long = await of('1234567890x', headers)
    assert.ok('rest' in long)
    assert.equal(await new Response(long.rest).text(), '1234567890x')
  }
})

test("a cache's 500 means what it nests", () => {
  const nested = (detail: unknown) => verdictOfNested(nestedCode({ code: 'UNKNOWN', message: '', detail }))
  assert.equal(nested({ errors: [{ code: 'MANIFEST_UNKNOWN' }] }), 'absent')
  assert.equal(nested({ code: 'TOOMANYREQUESTS' }), 'limited')
  assert.equal(nested({ StatusCode: 401 }), 'denied')
  assert.equal(nested('connection refused'), 'failed')
  assert.equal(nested(undefined), 'failed')
})

test('the User-Agent ends with this router', async () => {
  const sent: (string | undefined)[] = []
  const fetch = signed(async (_, { headers }) => {
    sent.push(headers['user-agent'])
    return new Response(null)
  }, '1')
  const { signal } = new AbortController()
  await fetch('http://x/', { method: 'GET', headers: { 'user-agent': 'docker/28' }, signal })
  await fetch('http://x/', { method: 'GET', headers: {}, signal })
  assert.deepEqual(sent, ['docker/28 combined-registry/1', 'combined-registry/1'])
})

type Say = (url: string, asked: Asked) => Response

/** A login at a registry that says what `say` gives; and what was sent there. */
function loginAt(say: Say, password?: string) {
  const sent: string[] = []
  const fetch: Fetch = async (url, asked) => {
    sent.push(`${new URL(url).pathname} ${asked.headers.authorization ?? '-'}`)
    return say(url, asked)
  }
  const source = password === undefined ? undefined : fixed({ username: 'u', password })
  const ask = withLogin(fetch, {
    source,
    readTimeout: 1,
    routerHost: 'registry.example',
    tellsNames: true,
    now: () => performance.now(),
  })
  const get = (path: string) =>
    ask(`http://r${path}`, { method: 'GET', headers: {}, signal: new AbortController().signal })
  return { get, sent }
}
const wants = (challenge: string) => new Response(null, { status: 401, headers: { 'WWW-Authenticate': challenge } })
const basic = `Basic ${Buffer.from('u:p').toString('base64')}`

test('a Basic challenge is answered once, and the login is then sent at once', async () => {
  const { get, sent } = loginAt((_, { headers }) => (headers.authorization ? new Response('ok') : wants('Basic')), 'p')
  for (let i = 0; i < 2; i++) assert.equal((await get('/v2/a/tags/list')).status, 200)
  assert.deepEqual(sent, ['/v2/a/tags/list -', `/v2/a/tags/list ${basic}`, `/v2/a/tags/list ${basic}`])
})

const bearer = 'Bearer realm="http://r/token",scope="repository:a:pull"'
const tokens: Say = (url, { headers }) => {
  if (url.startsWith('http://r/token')) return Response.json({ token: 't' })
  return headers.authorization === 'Bearer t' ? new Response('ok') : wants(bearer)
}

test('a Bearer challenge is answered with a token of its realm, anonymous without a login', async () => {
  const { get, sent } = loginAt(tokens)
  for (let i = 0; i < 2; i++) assert.equal((await get('/v2/a/tags/list')).status, 200)
  assert.deepEqual(sent, ['/v2/a/tags/list -', '/token -', '/v2/a/tags/list Bearer t', '/v2/a/tags/list Bearer t'])
})

test('each scope of a challenge is a parameter of its own; a scope that the realm has of itself is replaced', () => {
  const asked = (realm: string, scope?: string) =>
    realmUrl({ scheme: 'bearer', realm, scope }, 'http://r', false, 'registry.example').search
  const both = 'repository:a:pull,push repository:b:pull'
  assert.equal(asked('http://r/token', both), '?scope=repository%3Aa%3Apull%2Cpush&scope=repository%3Ab%3Apull')
  assert.equal(asked('http://r/token?scope=x', 'repository:a:pull'), '?scope=repository%3Aa%3Apull')
  assert.equal(asked('http://r/token?scope=x'), '?scope=x')
})

test('many who want the same token share one question to the realm', async () => {
  const { get, sent } = loginAt(tokens, 'p')
  await Promise.all(Array.from({ length: 5 }, () => get('/v2/a/tags/list')))
  assert.deepEqual(
    sent.filter((line) => line.startsWith('/token')),
    [`/token ${basic}`],
  )
})

test('a realm that refuses one scope answers for the registry; one that refuses the login is LoginRefused', async () => {
  const refusing = (status: number): Say => {
    return (url) => (url.startsWith('http://r/token') ? new Response('{}', { status }) : wants(bearer))
  }
  assert.equal((await loginAt(refusing(401)).get('/v2/a/tags/list')).status, 401)
  await assert.rejects(loginAt(refusing(401), 'p').get('/v2/a/tags/list'), LoginRefused)
  assert.equal((await loginAt(refusing(429)).get('/v2/a/tags/list')).status, 429)
  await assert.rejects(loginAt(refusing(500)).get('/v2/a/tags/list'), RealmFailed)
})

test('a password never goes to another host in clear', async () => {
  const { get, sent } = loginAt(() => wants('Bearer realm="http://elsewhere/token"'), 'p')
  await assert.rejects(get('/v2/a/tags/list'), LoginRefused)
  assert.deepEqual(sent, ['/v2/a/tags/list -'])
})

/** A registry whose fetch answers with these in turn. */
function registryOf(says: (() => Promise<Response>)[], options: { role?: 'hosted' | 'public'; path?: string } = {}) {
  const urls: string[] = []
  const around = {
    fetch: ((url) => {
      urls.push(url)
      return (says.shift() as () => Promise<Response>)()
    }) as Fetch,
    now: () => performance.now(),
    fetchElsewhere: (() => Promise.reject(new Error('asked elsewhere'))) as Fetch,
    onAnswer: () => {},
    onBreaker: () => {},
  }
  const address = new URL('http://registry:1')
  const { role = 'public', path = '' } = options
  const rest = {
    address,
    path,
    title: role,
    prefix: '',
    forwardsLogin: role === 'hosted',
    readTimeout: 0.05,
    blobTimeout: 0.05,
    writeTimeout: 0.05,
    followsBlobs: false,
    router,
  }
  const registry = new RemoteRegistry({ name: role === 'public' ? 'proxy' : 'hosted', role, ...rest }, around)
  const ask = (question: Partial<Question> = {}) => {
    const { signal } = new AbortController()
    const asked = {
      method: 'GET',
      target: '/v2/a/manifests/1',
      entity: 'manifest',
      headers: {},
      read: 'error',
      purpose: 'lookup',
    } as const
    return registry.ask({ ...asked, signal, ...question })
  }
  return { registry, ask, urls }
}
const says = (status: number, headers = {}, body: string | null = '') => {
  return async () => new Response(body, { status, headers })
}
const breaks = () => Promise.reject(new TypeError('reset'))

test('a read is asked once more if its connection breaks; what has a body is not', async () => {
  const { ask, urls } = registryOf([breaks, says(200, {}, '{"schemaVersion":2}')])
  assert.equal((await ask()).status, 200)
  assert.equal(urls.length, 2)
  const writing = registryOf([breaks, says(201)])
  assert.equal((await writing.ask({ method: 'PUT', body: Buffer.from('x'), purpose: 'write' })).status, 502)
  assert.equal(writing.urls.length, 1)
})

test('a path of the registry stands before names there, and before none here', async () => {
  const link = '<http://registry:1/v2/cache/hub/a/tags/list?last=1>; rel="next"'
  const { registry, ask, urls } = registryOf([says(200, { Link: link }, '{"tags":[]}'), says(200)], {
    path: '/cache/hub',
  })
  const answer = await ask({ target: '/v2/a/tags/list', entity: 'tags' })
  assert.deepEqual(
    registry.fieldsFrom(answer).find(([name]) => name === 'link')?.[1],
    '</v2/a/tags/list?last=1>; rel="next"',
  )
  await ask({ target: '/v2/', purpose: 'ping' })
  assert.deepEqual(urls, ['http://registry:1/v2/cache/hub/a/tags/list', 'http://registry:1/v2/'])
})

test('the asker leaves: the verdict is gone, and the breaker hears nothing', async () => {
  const abort = new AbortController()
  const { ask } = registryOf([
    () => {
      abort.abort()
      return Promise.reject(new DOMException('left', 'AbortError'))
    },
  ])
  assert.equal((await ask({ signal: abort.signal })).verdict, 'gone')
})

test('a body that is wanted whole and is too long is no answer', async () => {
  const { ask } = registryOf([says(200, {}, 'x'.repeat(11))])
  const { verdict, status } = await ask({ read: { maxBytes: 10 } })
  assert.deepEqual([verdict, status], ['failed', 502])
})

test("a 401 of a registry that may not challenge clients is a failure, but not if a mount's source may be meant", async () => {
  const { ask } = registryOf([says(401), says(401)], { role: 'public' })
  assert.equal((await ask()).verdict, 'denied')
  const own = new RemoteRegistry(
    {
      name: 'hosted',
      title: 'the private registry',
      role: 'hosted',
      address: new URL('http://h'),
      path: '',
      prefix: '',
      forwardsLogin: false,
      readTimeout: 1,
      blobTimeout: 1,
      writeTimeout: 1,
      followsBlobs: false,
      router,
    },
    {
      fetch: async () => new Response(null, { status: 401 }),
      fetchElsewhere: async () => new Response(null),
      now: () => 0,
      onAnswer: () => {},
      onBreaker: () => {},
    },
  )
  const { signal } = new AbortController()
  const asked = {
    method: 'POST',
    target: '/v2/a/blobs/uploads/',
    entity: 'uploads',
    headers: {},
    signal,
    read: 'head',
  } as const
  assert.equal((await own.ask({ ...asked, purpose: 'write' })).verdict, 'failed')
  assert.equal((await own.ask({ ...asked, purpose: 'mount' })).verdict, 'denied')
})
