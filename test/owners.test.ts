/** Whose name it is, as a table: each line of it, and every two lines that can meet. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Match, match } from '../routing.ts'
import { Globs } from '../src/registry/globs.ts'
import { comparable } from '../src/registry/hosts.ts'
import { namespacesIn, withoutNamespace } from '../src/relay/names.ts'
import { type PlanRules, planOf } from '../src/relay/plan.ts'

const rules: PlanRules = {
  aggregate: new URL('https://registry.example'),
  hostedNames: new Globs([]),
  proxyNames: new Globs(['**']),
  proxyNs: ['docker.io'],
  hostedNs: ['private.example:5000'],
  proxies: [{ host: 'ghcr.io' }, { host: 'quay.io' }],
  tags: 'hosted',
  lookupOrder: 'proxy-first',
}
const without: Partial<PlanRules> = { proxies: [] }
const claims = (...names: string[]): Partial<PlanRules> => ({ hostedNames: new Globs(names) })
const lists = (...names: string[]): Partial<PlanRules> => ({ proxyNames: new Globs(names) })

function matched(method: string, path: string): Match {
  const found = match(method, path)
  assert.ok('route' in found, path)
  return found
}

const paths: Record<string, (name: string) => string> = {
  GET: (name) => `/v2/${name}/manifests/1`,
  HEAD: (name) => `/v2/${name}/blobs/sha256:${'a'.repeat(64)}`,
  PUT: (name) => `/v2/${name}/manifests/1`,
  POST: (name) => `/v2/${name}/blobs/uploads/`,
}

/** Who is asked and for what name, `a, then b: name`; or the status and the text of a refusal. */
function outcome(method: string, name: string, query: string, changed: Partial<PlanRules> = {}): string {
  const path = (paths[method] as (name: string) => string)(name)
  const plan = planOf({ ...rules, ...changed }, method, matched(method, path), query)
  if ('refused' in plan) return `${plan.refused} ${plan.message}`
  return `${plan.order.join(', then ')}: ${plan.matched.name}${plan.query}`
}

/** name, query, what a GET of a manifest comes to, what a push comes to, changed rules */
const table: [string, string, string | RegExp, string | RegExp, Partial<PlanRules>?][] = [
  // 1. ns is empty, or a name of this router
  ['team/app', '?ns=', 'proxy, then hosted: team/app', 'hosted: team/app'],
  ['team/app', '?ns=registry.example', 'proxy, then hosted: team/app', 'hosted: team/app'],
  ['team/app', '?ns=Registry.Example:443', 'proxy, then hosted: team/app', 'hosted: team/app'],
  ['ghcr.io/org/app', '?ns=registry.example', 'ghcr.io: ghcr.io/org/app', /^405/],
  ['team/app', '?ns=registry.example&ns=quay.io', 'quay.io: quay.io/team/app', /^405/],
  // 2. ns is hosted's own address
  ['team/app', '?ns=private.example:5000', 'hosted: team/app', 'hosted: team/app'],
  ['ghcr.io/org/app', '?ns=private.example:5000', 'hosted: ghcr.io/org/app', 'hosted: ghcr.io/org/app'],
  ['team/app', '?ns=private.example:5000', 'hosted: team/app', 'hosted: team/app', claims('team/app')],
  ['team/app', '?ns=private.example:5000', 'hosted: team/app', 'hosted: team/app', lists('library/**')],
  // 3. ns and the first part are two public registries
  ['ghcr.io/org/app', '?ns=quay.io', /^404 .*: ns names quay.io, but the name is of ghcr.io$/, /^405/],
  ['docker.io/library/app', '?ns=quay.io', /^404 .*: ns names quay.io/, /^405/],
  ['ghcr.io/org/app', '?ns=docker.io', /^404 .*: ns names docker.io/, /^405/],
  // 4. ns is a public registry
  ['org/app', '?ns=ghcr.io', 'ghcr.io: ghcr.io/org/app', /^405/],
  ['org/app', '?ns=GHCR.io:443', 'ghcr.io: ghcr.io/org/app', /^405/],
  ['ghcr.io/org/app', '?ns=ghcr.io', 'ghcr.io: ghcr.io/org/app', /^405/],
  ['library/nginx', '?ns=docker.io', 'proxy: library/nginx', /^405/],
  ['library/nginx', '?ns=registry-1.docker.io', 'proxy: library/nginx', /^405/],
  ['docker.io/library/nginx', '?ns=index.docker.io', 'proxy: library/nginx', /^405/],
  ['docker.io/library/nginx', '?ns=docker.io', 'proxy: docker.io/library/nginx', /^405/, without],
  ['library/nginx', '?ns=docker.io', 'proxy: library/nginx', /^405/, without],
  ['org/app', '?ns=ghcr.io', /^404 .*: HOSTED_NAMES/, /^405/, claims('ghcr.io/org/**')],
  ['team/app', '?ns=docker.io', /^404 .*: HOSTED_NAMES/, /^405/, claims('team/**')],
  ['team/app', '?ns=ghcr.io', 'ghcr.io: ghcr.io/team/app', /^405/, claims('team/**')],
  ['org/app', '?ns=ghcr.io', /^404 .*: PROXY_NAMES/, /^405/, lists('library/**')],
  ['org/app', '?ns=ghcr.io', 'ghcr.io: ghcr.io/org/app', /^405/, lists('ghcr.io/org/**')],
  ['org/app', '?ns=quay.io', 'proxy: org/app?ns=quay.io', /^405/, { proxies: [], proxyNs: ['docker.io', 'quay.io'] }],
  ['a/b', '?x=1&ns=quay.io', 'proxy: a/b?x=1&ns=quay.io', /^405/, { proxies: [], proxyNs: ['docker.io', 'quay.io'] }],
  // 5. ns is a registry that is not here
  ['org/app', '?ns=gcr.io', /^404 .*: neither PROXIES nor PROXY_NS lists gcr.io$/, /^405 gcr.io is read-only/],
  ['ghcr.io/org/app', '?ns=gcr.io', /^404 .* gcr.io$/, /^405/],
  ['org/app', '?ns=ghcr.io', /^404 .* ghcr.io$/, /^405/, without],
  ['org/app', '?ns=ghcr.io&ns=quay.io', /^404 .*: ns names ghcr.io and quay.io$/, /^405/],
  ['org/app', '?ns=%3Cb%3E', /^404 .* \?b\?$/, /^405 \?b\?/],
  // 6. HOSTED_NAMES has the name
  ['team/app', '', 'hosted: team/app', 'hosted: team/app', claims('team/**')],
  ['ghcr.io/org/app', '', 'hosted: ghcr.io/org/app', 'hosted: ghcr.io/org/app', claims('ghcr.io/org/**')],
  // 7. the first part is the host of a public registry
  ['ghcr.io/org/app', '', 'ghcr.io: ghcr.io/org/app', /^405 ghcr.io is read-only here: copy the image to a name of/],
  ['docker.io/library/nginx', '', 'proxy: library/nginx', /^405/],
  ['index.docker.io/library/nginx', '', 'proxy: library/nginx', /^405/],
  [
    'docker.io/library/nginx',
    '',
    'proxy, then hosted: docker.io/library/nginx',
    'hosted: docker.io/library/nginx',
    without,
  ],
  ['docker.io/team/app', '', /^404 .*: HOSTED_NAMES/, /^405/, claims('team/**')],
  ['ghcr.io/org/app', '', /^404 .*: PROXY_NAMES/, /^405/, lists('library/**')],
  ['docker.io/library/nginx', '', 'proxy: library/nginx', /^405/, lists('library/**')],
  ['a.io/b', '', 'proxy: b?ns=a.io', /^405/, { proxyNs: ['docker.io', 'a.io'] }],
  ['ghcr.io', '', 'proxy, then hosted: ghcr.io', 'hosted: ghcr.io'],
  // 8. any other name
  ['team/app', '', 'proxy, then hosted: team/app', 'hosted: team/app'],
  ['gcr.io/org/app', '', 'proxy, then hosted: gcr.io/org/app', 'hosted: gcr.io/org/app'],
  ['team/app', '', 'hosted: team/app', 'hosted: team/app', lists('library/**')],
  ['team/app', '', 'hosted, then proxy: team/app', 'hosted: team/app', { lookupOrder: 'hosted-first' }],
]
for (const [name, query, read, push, changed] of table) {
  test(`${name}${query} ${changed ? Object.keys(changed) : ''}: read ${read}, pushed ${push}`, () => {
    const check = (found: string, wanted: string | RegExp) =>
      typeof wanted === 'string' ? assert.equal(found, wanted) : assert.match(found, wanted)
    check(outcome('GET', name, query, changed), read)
    check(outcome('PUT', name, query, changed), push)
    check(outcome('POST', name, query, changed), push)
  })
}

test('HEAD of a blob follows the name too: a public registry answers for its own names, hosted for all others', () => {
  assert.equal(outcome('HEAD', 'ghcr.io/org/app', ''), 'ghcr.io: ghcr.io/org/app')
  assert.equal(outcome('HEAD', 'org/app', '?ns=ghcr.io'), 'ghcr.io: ghcr.io/org/app')
  assert.equal(outcome('HEAD', 'team/app', ''), 'hosted: team/app')
})

const official = (name: string, query = '', changed: Partial<PlanRules> = {}) => {
  const plan = planOf({ ...rules, ...changed }, 'GET', matched('GET', `/v2/${name}/manifests/1`), query)
  assert.ok('order' in plan)
  return plan.official && `${plan.official.order}: ${plan.official.matched.path}`
}

test('a name of one part is asked once more as an official image of Docker Hub, if that may be asked for it', () => {
  assert.equal(official('nginx'), 'proxy: /v2/library/nginx/manifests/1')
  assert.equal(official('nginx', '?ns=docker.io'), 'proxy: /v2/library/nginx/manifests/1')
  assert.equal(official('docker.io/nginx'), 'proxy: /v2/library/nginx/manifests/1')
  assert.equal(official('nginx', '', lists('library/**')), 'proxy: /v2/library/nginx/manifests/1')
  const elsewhere = { proxyNs: ['a.io'], proxies: [{ host: 'docker.io' }] }
  assert.equal(official('docker.io/nginx', '', elsewhere), 'docker.io: /v2/docker.io/library/nginx/manifests/1')
  for (const [name, query, changed] of [
    ['team/nginx', '', {}],
    ['ghcr.io/nginx', '', {}],
    ['nginx', '?ns=ghcr.io', {}],
    ['nginx', '', { proxyNs: ['a.io'] }],
    ['nginx', '', claims('nginx')],
    ['nginx', '', claims('library/**')],
    ['nginx', '', lists('nginx')],
  ] as const)
    assert.equal(official(name, query, changed), undefined, name + query)
})

test('memory keeps the names of two registries apart', () => {
  const nameOf = (name: string, query: string, changed: Partial<PlanRules> = {}) => {
    const plan = planOf({ ...rules, ...changed }, 'GET', matched('GET', `/v2/${name}/manifests/1`), query)
    return 'order' in plan && plan.fullName
  }
  assert.equal(nameOf('org/app', '?ns=ghcr.io'), 'ghcr.io/org/app')
  assert.equal(nameOf('ghcr.io/org/app', ''), 'ghcr.io/org/app')
  assert.equal(nameOf('org/app', '?ns=quay.io', { proxyNs: ['docker.io', 'quay.io'], proxies: [] }), 'quay.io/org/app')
  assert.equal(nameOf('docker.io/org/app', ''), 'org/app')
})

test('ns is taken out of the query, and the rest keeps its bytes; the query of an upload session stays as it is', () => {
  assert.equal(withoutNamespace('?a=%2F..%2f&ns=docker.io&b'), '?a=%2F..%2f&b')
  assert.equal(withoutNamespace('?ns=docker.io'), '')
  assert.equal(withoutNamespace('?a&%6Es=docker.io&b'), '?a&b')
  assert.equal(withoutNamespace('?turns=1'), '?turns=1')
  assert.deepEqual(namespacesIn('?turns=1&ns=a.io&ns=A.io:443', rules), ['a.io'])
  const plan = planOf(rules, 'PUT', matched('PUT', '/v2/a/blobs/uploads/1'), '?_state=x&ns=&digest=y')
  assert.ok('order' in plan && plan.query === '?_state=x&ns=&digest=y')
})

test('an answer says which registry ns named; without ns it says nothing', () => {
  const namespace = (name: string, query: string) => {
    const plan = planOf(rules, 'GET', matched('GET', `/v2/${name}/manifests/1`), query)
    return 'order' in plan && plan.namespace
  }
  assert.equal(namespace('org/app', '?ns=GHCR.io'), 'ghcr.io')
  assert.equal(namespace('library/app', '?ns=docker.io'), 'docker.io')
  assert.equal(namespace('ghcr.io/org/app', ''), undefined)
})

test('hosts are compared in lower case, without the port of https, and Docker Hub has one name', () => {
  assert.deepEqual(
    ['GHCR.io:443', 'a.io:5000', 'index.docker.io', 'Registry-1.docker.io:443', 'docker.io'].map(comparable),
    ['ghcr.io', 'a.io:5000', 'docker.io', 'docker.io', 'docker.io'],
  )
})
