/** The rules of `check` that need no registry: misspelt variables, names in hosted, the command line, the help. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { commandIn } from '../src/arguments.ts'
import { nearMisses } from '../src/check/misspelt.ts'
import { judgeNames } from '../src/check/names.ts'
import { table } from '../src/check/table.ts'
import { configHelp, settings } from '../src/config.ts'
import { globs } from '../src/settings/parsers.ts'

const names = settings.map(([name]) => name)

test('a variable that is nearly a setting is named, with the setting', () => {
  for (const [variable, meant] of [
    ['HTPASSWD', 'HTPASSWD_FILE'],
    ['HTPASSWORD_FILE', 'HTPASSWD_FILE'],
    ['HTPASSWD_PATH', undefined],
    ['HOSTED_NAME', 'HOSTED_NAMES'],
    ['hosted_names', 'HOSTED_NAMES'],
    ['HSOTED_NAMES', 'HOSTED_NAMES'],
    ['HOSTED-NAMES', 'HOSTED_NAMES'],
    ['HOSTED_HOST', 'HOSTED_HOSTNAME'],
    ['HOSTED_URL', undefined],
    ['PROXY_HOST', 'PROXY_HOSTNAME'],
    ['PROXY_USER', 'PROXY_USERNAME'],
    ['PROXY_PASSWD', 'PROXY_PASSWORD'],
    ['PUSH_USER', 'PUSH_USERS'],
    ['PUSHUSERS', 'PUSH_USERS'],
    ['AGGREGATE_HOST', 'AGGREGATE_HOSTNAME'],
    ['ANONYMOUS_PULLS', 'ANONYMOUS_PULL'],
    ['LOOKUP_ODER', 'LOOKUP_ORDER'],
    ['TLS_KEY', 'TLS_KEY_FILE'],
  ] as const) {
    assert.deepEqual(nearMisses([variable], names), [{ variable, meant }])
  }
})

test('variables of others are no misspelt settings', () => {
  const others = `HOSTNAME HOME PATH PWD USER SHELL LANG TZ HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY http_proxy no_proxy PROXY
    HOSTED_PORT HOSTED_PORT_5000_TCP HOSTED_PORT_5000_TCP_ADDR HOSTED_PORT_5000_TCP_PORT HOSTED_PORT_5000_TCP_PROTO
    HOSTED_SERVICE_HOST HOSTED_SERVICE_PORT HOSTED_SERVICE_PORT_REGISTRY PROXY_SERVICE_HOST PROXY_PORT PROXY_PORT_443_TCP_ADDR
    KUBERNETES_SERVICE_HOST KUBERNETES_PORT_443_TCP KUBERNETES_SERVICE_PORT_HTTPS POD_NAME POD_IP NODE_NAME HOST_IP HOSTIP HOST_NAME
    SSL_CERT_FILE SSL_CERT_DIR NODE_EXTRA_CA_CERTS NODE_OPTIONS NODE_ENV NODE_VERSION DENO_DIR DENO_CERT BUN_INSTALL
    REGISTRY_PROXY_REMOTEURL REGISTRY_PROXY_USERNAME REGISTRY_PROXY_PASSWORD REGISTRY_AUTH_HTPASSWD_PATH REGISTRY_LOG_LEVEL
    DOCKER_HOST DOCKER_TLS_VERIFY COMPOSE_PROJECT_NAME COMPOSE_FILE KUBECONFIG INVOCATION_ID JOURNAL_STREAM NOTIFY_SOCKET
    CI GITHUB_TOKEN RUNNER_NAME CI_REGISTRY_USER CI_JOB_TIMEOUT JOB_NAME TAG IMAGE_TAG PORTS AWS_REGION AWS_CA_BUNDLE
    LOG_FILE LOG_DIR RUST_LOG UV_THREADPOOL_SIZE SSH_AUTH_SOCK XDG_RUNTIME_DIR READ_TIMEOUT HTTP_TIMEOUT TLS_VERSION
    npm_config_registry npm_package_name npm_lifecycle_event MALLOC_TRIM_THRESHOLD_ OTEL_SERVICE_NAME OTEL_LOG_LEVEL`
  assert.deepEqual(nearMisses(others.trim().split(/\s+/), names), [])
  assert.deepEqual(nearMisses(names, names), [])
})

const rules = {
  aggregate: new URL('http://registry.example'),
  hostedNames: globs('team/**'),
  proxyNames: globs('**'),
  proxyNs: ['docker.io'],
  hostedNs: [],
  proxies: [{ host: 'ghcr.io' }],
}

test('the names in hosted are compared with HOSTED_NAMES and with the hosts of public registries', () => {
  const found = (text: string, repositories: string[]) =>
    judgeNames(text, repositories, rules).map(({ code, about }) => [
      code,
      about.glob ?? about.repositories,
      about.meant,
    ])
  const repositories = ['team/app', 'acme/tools/one', 'single']
  for (const [text, wanted] of [
    ['team/**,acme/**,single', []],
    ['team', [['glob-without-stars', 'team', 'team/**']]],
    ['acme/tools', [['glob-without-stars', 'acme/tools', 'acme/tools/**']]],
    ['acme/*', [['glob-unused', 'acme/*', undefined]]],
    ['tea', [['glob-unused', 'tea', undefined]]],
    ['', []],
  ] as const) {
    assert.deepEqual(found(text, repositories), wanted, text)
  }
  assert.deepEqual(found('team/**', []), [], 'nothing was pushed yet')
  assert.deepEqual(found('team/**', ['team/app', 'ghcr.io/a/b', 'ghcr.io/a/c']), [['hidden-by-prefix', 2, undefined]])
})

test('the command line', () => {
  for (const [words, wanted] of [
    [[], { name: 'serve' }],
    [['-h'], { name: 'help' }],
    [['--help'], { name: 'help' }],
    [['help'], { name: 'help' }],
    [['--version'], { name: 'version' }],
    [['version'], { name: 'version' }],
    [['--healthcheck'], { name: 'healthcheck' }],
    [['explain', 'a:1'], { name: 'explain', image: 'a:1' }],
    [['explain'], { fault: 'explain wants an IMAGE: see --help' }],
    [['explain', 'a', 'b'], { fault: 'unknown argument b: see --help' }],
    [['--nonsense'], { fault: 'unknown argument --nonsense: see --help' }],
    [['--help', 'me'], { fault: 'unknown argument me: see --help' }],
    [['check'], { name: 'check', json: false }],
    [['check', '--json', '--push', 'a/b'], { name: 'check', json: true, push: 'a/b' }],
    [['check', '--push=a/b'], { name: 'check', json: false, push: 'a/b' }],
    [['check', '--push'], { fault: 'check --push wants a NAME: see --help' }],
    [['check', '--push='], { fault: 'check --push wants a NAME: see --help' }],
    [['check', 'a'], { fault: 'unknown argument a: see --help' }],
    [['constructor'], { fault: 'unknown argument constructor: see --help' }],
  ] as const) {
    assert.deepEqual(commandIn(words), wanted, words.join(' '))
  }
})

test('the manual has every finding as it is printed, and no other', () => {
  const manual = readFileSync(new URL('../docs/troubleshooting.md', import.meta.url), 'utf8')
  const rows = Object.entries(table).map(([code, row]) => `| \`${code}\` | ${row.join(' | ')} |`)
  assert.deepEqual(manual.match(/^\| `[a-z-]+` \| (error|warning|note) \|.*$/gm), rows)
})

test('each line of the help stands alone', () => {
  for (const line of configHelp().split('\n')) {
    const [, meaning = ''] = /^ {2}[A-Z0-9_]+ +\S+ +(.+)$/.exec(line) ?? []
    assert.ok(meaning, line)
    assert.doesNotMatch(meaning, /likewise|the same|\bits (password|key)\b|^or |that certificate|holds it/, line)
  }
})
