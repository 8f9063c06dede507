/** The configuration: all faults are reported at once, and no wrong setting is accepted. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Config, configHelp, readConfig } from '../src/config.ts'
import { Globs } from '../src/registry/globs.ts'

const required = { AGGREGATE_HOSTNAME: 'registry.example', HOSTED_HOSTNAME: 'hosted:5000', PROXY_HOSTNAME: 'proxy' }

function read(environment: Record<string, string> = {}): Config {
  const config = readConfig({ ...required, ...environment })
  assert.ok(!('faults' in config), JSON.stringify(config))
  return config
}
function faults(environment: Record<string, string | undefined>): string[] {
  const config = readConfig({ ...required, ...environment })
  assert.ok('faults' in config, `no fault in ${JSON.stringify(environment)}`)
  return config.faults
}

test('TAG_TTL and STALE_IF_ERROR need a memory', () => {
  for (const name of ['TAG_TTL', 'STALE_IF_ERROR']) {
    for (const off of ['LOOKUP_TTL', 'MANIFEST_MEMORY']) {
      assert.deepEqual(faults({ [name]: '60', [off]: '0' }), [`${name} needs LOOKUP_TTL and MANIFEST_MEMORY above 0`])
    }
    assert.deepEqual(faults({ [name]: '-1' }).length, 1)
  }
  assert.equal(read({ LOOKUP_TTL: '0', MANIFEST_MEMORY: '0' }).tagTtl, 0)
})

test('three variables are enough; all others have the defaults of docs/configuration.md', () => {
  const { aggregate, hosted, proxy, ...rest } = read()
  assert.equal(aggregate.origin, 'http://registry.example')
  assert.equal(hosted.origin, 'http://hosted:5000')
  assert.equal(proxy.origin, 'http://proxy')
  assert.deepEqual(rest, {
    port: 5000,
    host: '0.0.0.0',
    tlsCertFile: '',
    tlsKeyFile: '',
    caFile: '',
    hostedTimeout: 30,
    proxyTimeout: 15,
    blobTimeout: 300,
    blobRedirects: 'pass',
    writeTimeout: 900,
    drainTimeout: 300,
    idleTimeout: 300,
    v2Requires: 'both',
    lookupOrder: 'proxy-first',
    hostedNames: new Globs([]),
    proxyNames: new Globs(['**']),
    proxies: [],
    proxyNs: ['docker.io'],
    hostedNs: [],
    tags: 'hosted',
    copyLimit: 2 * 1024 ** 3,
    htpasswdFile: '',
    anonymousPull: 'false',
    pushUsers: [],
    trustedOrigins: [],
    trustedProxies: [],
    hostedUsername: '',
    hostedPassword: '',
    hostedPasswordFile: '',
    proxyUsername: '',
    proxyPassword: '',
    proxyPasswordFile: '',
    hostedCommand: '',
    proxyCommand: '',
    authFile: '',
    helpersDir: '',
    credentialsInterval: 600,
    hostedCertFile: '',
    hostedKeyFile: '',
    proxyCertFile: '',
    proxyKeyFile: '',
    hostedLogin: undefined,
    proxyLogin: undefined,
    passLogin: true,
    lookupTtl: 60,
    nameTtl: 3600,
    tagTtl: 0,
    staleIfError: 0,
    manifestMemory: 64,
    logFormat: 'json',
    logLevel: 'info',
  })
})

test('a registry is a host, a host and port, or an http or https URL', () => {
  assert.equal(read({ HOSTED_HOSTNAME: 'https://hosted.example/' }).hosted.origin, 'https://hosted.example')
  assert.equal(read({ HOSTED_HOSTNAME: 'http://10.0.0.1:5001' }).hosted.origin, 'http://10.0.0.1:5001')
  assert.equal(read({ HOSTED_HOSTNAME: '[::1]:5001' }).hosted.origin, 'http://[::1]:5001')
})

test('AGGREGATE_HOSTNAME may be a name without a dot, and HOSTED_NAMES may begin with the same word', () => {
  assert.ok(read({ AGGREGATE_HOSTNAME: 'acme:5000', HOSTED_NAMES: 'acme/**' }).hostedNames.has('acme/app'))
})

test('HOSTED_HOSTNAME and PROXY_HOSTNAME may have a path, which is put before every name there', () => {
  for (const [address, origin, path] of [
    ['harbor.example/docker-hub', 'http://harbor.example', '/docker-hub'],
    ['https://cache.example/a/b.c/', 'https://cache.example', '/a/b.c'],
    ['https://cache.example/', 'https://cache.example', ''],
    ['https://cache.example/v2-cache', 'https://cache.example', '/v2-cache'],
  ] as const) {
    const { proxy, hosted } = read({ PROXY_HOSTNAME: address, HOSTED_HOSTNAME: address })
    for (const one of [proxy, hosted]) assert.deepEqual([one.origin, one.pathname], [origin, path || '/'])
  }
})

const globs: [string, string[], string[]][] = [
  ['acme/**', ['acme/a', 'acme/a/b'], ['acme', 'acmex/a', 'x/acme/a']],
  ['tools/*', ['tools/a', 'tools/a.b-c'], ['tools', 'tools/a/b']],
  ['a.b', ['a.b'], ['axb', 'a.b/c']],
  ['team-*/app, **/internal', ['team-x/app', 'a/internal', 'a/b/internal'], ['team-x/y/app', 'internal']],
  ['**', ['a', 'a/b/c'], []],
  ['', [], ['a', 'a/b']],
]
for (const [glob, matching, notMatching] of globs) {
  test(`names by the glob "${glob}": * matches within a component, ** across components`, () => {
    const { hostedNames } = read({ HOSTED_NAMES: glob })
    for (const name of matching) assert.ok(hostedNames.has(name), name)
    for (const name of notMatching) assert.ok(!hostedNames.has(name), name)
  })
}

test("the router's own login is a user name and a password or its file; a setting that lacks its partner or its file is one fault", () => {
  const login = { username: 'a', password: 'b', file: '' }
  assert.deepEqual(read({ PROXY_USERNAME: 'a', PROXY_PASSWORD: 'b' }).proxyLogin, login)
  assert.equal(read().proxyLogin, undefined)
  for (const environment of [
    { PROXY_USERNAME: 'a' },
    { PROXY_PASSWORD: 'canary' },
    { PROXY_USERNAME: 'a', PROXY_PASSWORD_FILE: '/nowhere/canary' },
    { PROXY_USERNAME: 'a', PROXY_PASSWORD: 'canary', PROXY_PASSWORD_FILE: 'package.json' },
    { HOSTED_USERNAME: 'a', HOSTED_PASSWORD: 'canary' },
    { HOSTED_CREDENTIALS_COMMAND: '/bin/sh' },
    { PROXY_CREDENTIALS_COMMAND: '/bin/sh', PROXY_USERNAME: 'a', PROXY_PASSWORD: 'canary' },
    { PROXY_CREDENTIALS_COMMAND: 'docker-credential-canary' },
    { PROXY_CREDENTIALS_COMMAND: '/nowhere/canary' },
    { PROXY_CREDENTIALS_COMMAND: '/' },
    { ANONYMOUS_PULL: 'true' },
    { PUSH_USERS: 'a' },
    { HTPASSWD_FILE: '/nowhere' },
    { HTPASSWD_FILE: 'package.json' },
    { CA_FILE: '/nowhere/canary' },
    { CA_FILE: 'package.json' },
  ]) {
    const lines = faults(environment)
    assert.equal(lines.length, 1)
    assert.ok(!lines.join().includes('canary'))
  }
})

test('faults of single variables and of pairs are reported at once, one line each', () => {
  for (const [environment, ...wanted] of [
    [{ ANONYMOUS_PULL: 'yes' }, 'ANONYMOUS_PULL must', 'ANONYMOUS_PULL needs'],
    [{ TLS_CERT_FILE: '/nowhere' }, 'TLS_CERT_FILE cannot', 'TLS_CERT_FILE and'],
    [{ TLS_CERT_FILE: 'package.json' }, 'TLS_CERT_FILE must', 'TLS_CERT_FILE and'],
    [{ TLS_KEY_FILE: 'package.json' }, 'TLS_KEY_FILE must', 'TLS_CERT_FILE and'],
    [{ PUSH_USERS: 'a', HTPASSWD_FILE: '/nowhere' }, 'HTPASSWD_FILE cannot'],
    [{ PUSH_USERS: ',' }, 'PUSH_USERS must', 'PUSH_USERS needs'],
    [{ PORT: 'x', PROXY_USERNAME: 'a' }, 'PORT must', 'PROXY_USERNAME and'],
    [{ PROXY_USERNAME: 'a:b', PROXY_PASSWORD: 'c' }, 'PROXY_USERNAME must'],
  ] as const) {
    assert.deepEqual(
      faults(environment).map((line) => line.split(' ', 2).join(' ')),
      wanted,
    )
  }
})

test('every missing and wrong variable is named, one line each', () => {
  const environment = { AGGREGATE_HOSTNAME: '', HOSTED_HOSTNAME: undefined, PORT: '65536', LOG_LEVEL: 'loud' }
  const named = faults(environment).map((line) => line.split(' ')[0])
  assert.deepEqual(named, ['AGGREGATE_HOSTNAME', 'HOSTED_HOSTNAME', 'PORT', 'LOG_LEVEL'])
})

const wrong: [string, string][] = [
  ['AGGREGATE_HOSTNAME', '5000'],
  ['HOSTED_HOSTNAME', '5000:80'],
  ['HOSTED_HOSTNAME', 'ftp://hosted'],
  ['HOSTED_HOSTNAME', 'http://hosted/v2/'],
  ['HOSTED_HOSTNAME', 'hosted:port'],
  ['HOSTED_HOSTNAME', 'http://user:canary/1@hosted:5000'],
  ['PROXY_HOSTNAME', 'a b'],
  ['PROXY_HOSTNAME', 'https://proxy/v2/'],
  ['PROXY_HOSTNAME', 'https://proxy/v2/mirror'],
  ['PROXY_HOSTNAME', 'https://proxy/Mirror'],
  ['PROXY_HOSTNAME', 'https://proxy/a?b'],
  ['PROXY_HOSTNAME', 'https://user:canary@proxy'],
  ['PROXY_HOSTNAME', 'https://user:canary@proxy/path'],
  ['PORT', '-1'],
  ['PORT', '5000x'],
  ['PROXY_TIMEOUT', '0'],
  ['LOOKUP_TTL', '-1'],
  ['MANIFEST_MEMORY', '0.5'],
  ['HOSTED_TIMEOUT', '1e3'],
  ['WRITE_TIMEOUT', 'Infinity'],
  ['DRAIN_TIMEOUT', '3000000'],
  ['V2_REQUIRES', 'proxy'],
  ['LOOKUP_ORDER', 'Proxy-first'],
  ['HOSTED_NAMES', 'Team/**'],
  ['HOSTED_NAMES', 'team/***'],
  ['HOSTED_NAMES', 'team/'],
  ['HOSTED_NAMES', '/team'],
  ['HOSTED_NAMES', ','],
  ['HOSTED_NAMES', 'team//app'],
  ['HOSTED_NAMES', 'team/*, registry.example/acme/**'],
  ['PROXY_NAMES', 'registry.example/library/*'],
  ['PROXY_NAMES', 'library/*,te(am'],
  ['PROXY_NS', 'docker.io,https://ghcr.io'],
  ['PROXY_NS', 'user:canary@ghcr.io'],
  ['PROXIES', 'https://ghcr.io'],
  ['PROXIES', 'ghcr.io/org'],
  ['PROXIES', '=cache:5000'],
  ['PROXIES', 'ghcr.io='],
  ['PROXIES', 'ghcr.io=https://user:canary@cache'],
  ['PROXIES', 'user:canary@ghcr.io'],
  ['PROXIES', 'ghcr.io=cache/v2'],
  ['PROXIES', 'ghcr.io=a, GHCR.io:443=b'],
  ['PROXIES', 'registry.example=cache:1'],
  ['PROXIES', 'ghcr.io=http://registry.example'],
  ['PROXIES', 'ghcr.io=hosted:5000'],
  ['PROXIES', 'docker.io=cache:1'],
  ['PROXIES', 'index.docker.io'],
  ['HOSTED_NS', 'https://hosted'],
  ['HOSTED_NS', 'docker.io'],
  ['TRUSTED_PROXIES', '10.0.0.0/33'],
  ['TRUSTED_PROXIES', '10.0.0.0/'],
  ['TRUSTED_PROXIES', '10.0.0/8'],
  ['TRUSTED_PROXIES', 'proxy'],
  ['TRUSTED_PROXIES', '10.0.0.0/-1'],
  ['TRUSTED_PROXIES', '10.0.0.0/8/8'],
  ['TRUSTED_PROXIES', '10.0.0.0/8,fd00::/129'],
  ['TRUSTED_PROXIES', 'fe80::1%eth0'],
  ['TRUSTED_PROXIES', '::ffff:10.0.0.0/95'],
  ['TRUSTED_PROXIES', 'http://user:canary@10.0.0.1'],
  ['TRUSTED_PROXIES', ','],
  ['LOG_FORMAT', 'xml'],
]
for (const [name, value] of wrong) {
  test(`${name}=${value} is a fault, and no password is repeated in it`, () => {
    const [fault = '', ...more] = faults({ [name]: value })
    assert.ok(fault.startsWith(`${name} must `), fault)
    assert.ok(!fault.includes('canary'), fault)
    assert.deepEqual(more, [])
  })
}

test('PROXIES: a host with an address, or a host by itself, between commas or white space', () => {
  const { proxies } = read({
    PROXIES: 'ghcr.io=cache:5000/ghcr quay.io,\n GCR.io:443=https://hosted:5000/gcr,x.io:5000 ',
  })
  assert.deepEqual(
    proxies.map(({ host, address }) => [host, address.href]),
    [
      ['ghcr.io', 'http://cache:5000/ghcr'],
      ['quay.io', 'https://quay.io/'],
      ['gcr.io', 'https://hosted:5000/gcr'],
      ['x.io:5000', 'https://x.io:5000/'],
    ],
  )
  assert.deepEqual(
    faults({ AGGREGATE_HOSTNAME: '', HOSTED_HOSTNAME: '', PROXIES: 'ghcr.io' }).map((line) => line.split(' ')[0]),
    ['AGGREGATE_HOSTNAME', 'HOSTED_HOSTNAME'],
  )
  assert.deepEqual(read({ PROXIES: 'docker.io=cache:1', PROXY_NS: 'ghcr.io' }).proxies[0]?.host, 'docker.io')
  assert.match(faults({ PROXIES: 'ghcr.io', HOSTED_NS: 'ghcr.io' })[0] ?? '', /^HOSTED_NS must not name ghcr.io/)
})

test('the fault of a time says whether 0 is allowed', () => {
  assert.match(faults({ LOOKUP_TTL: '-1' })[0] ?? '', /\(0: never\)/)
  assert.match(faults({ PROXY_TIMEOUT: '0' })[0] ?? '', /above 0/)
  assert.equal(read({ LOOKUP_TTL: '0' }).lookupTtl, 0)
})

test('timeouts may have fractions', () => assert.equal(read({ PROXY_TIMEOUT: '0.25' }).proxyTimeout, 0.25))

test('--help lists every variable with its default', () => {
  for (const name of [...Object.keys(required), 'PORT', 'WRITE_TIMEOUT']) assert.match(configHelp(), new RegExp(name))
  assert.match(configHelp(), /LOOKUP_ORDER +proxy-first +proxy-first or hosted-first: /)
})
