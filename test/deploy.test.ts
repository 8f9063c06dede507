/** Checks that deploy/ and compose.yaml name only what exists, and that docs/ names all of it and is easy to read. */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { parser } from '@prometheus-io/lezer-promql'
import { hashSync } from 'bcryptjs'
import { parse } from 'yaml'
import manifest from '../package.json' with { type: 'json' }
import { type Config, configHelp, readConfig } from '../src/config.ts'
import type { Log } from '../src/log.ts'
import type { Fetch } from '../src/runtime/runtime.ts'
import { createService } from '../src/service.ts'
import { faultsOfTypes, type KubernetesObject } from './parts/kubernetes.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const read = (path: string) => readFileSync(join(root, path), 'utf8')

const pages = readdirSync(join(root, 'docs'))
  .filter((file) => file.endsWith('.md'))
  .map((file) => `docs/${file}`)
/** All pages of docs/ as one text. */
const manual = pages.map(read).join('\n')

/** Every log line that the router wrote during metricsAfterTraffic(). */
const logged: Record<string, unknown>[] = []
/** Every metric, its labels, and the values of each label. */
type Known = Map<string, Map<string, Set<string>>>
const known = knownFrom(await withUsers(metricsAfterTraffic))

/** Calls `act` with a new folder in `parent`, then removes the folder. */
async function inFolder<T>(parent: string, act: (folder: string) => T | Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(parent, '.combined-registry-'))
  try {
    return await act(folder)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

function withUsers<T>(act: (file: string) => T | Promise<T>): Promise<T> {
  return inFolder(tmpdir(), (folder) => {
    const file = join(folder, 'users')
    writeFileSync(file, `ann:${hashSync('right', 4)}\n`)
    return act(file)
  })
}

/** The text of /metrics after requests of every kind. */
async function metricsAfterTraffic(users: string): Promise<string> {
  const hosts = { AGGREGATE_HOSTNAME: 'registry.example', HOSTED_HOSTNAME: 'hosted:1', PROXY_HOSTNAME: 'proxy:2' }
  const config = readConfig({ ...hosts, HTPASSWD_FILE: users }) as Config
  const type = 'application/vnd.oci.image.manifest.v1+json'
  const content = JSON.stringify({ schemaVersion: 2, mediaType: type })
  const digest = `sha256:${createHash('sha256').update(content).digest('hex')}`
  /** The repository name says what each registry answers: `proxy-404-hosted-200`. */
  const fetch: Fetch = async (url, { method }) => {
    const { hostname, pathname } = new URL(url)
    const [, proxy, hosted] = /proxy-(\d+)-hosted-(\d+)/.exec(pathname) ?? []
    const session = '/v2/a/blobs/uploads/session'
    const headers = { 'Content-Type': type, 'Content-Length': `${content.length}`, Location: session }
    const defaultStatus = method === 'POST' ? 202 : 200
    return new Response(content, { status: Number((hostname === 'proxy' ? proxy : hosted) ?? defaultStatus), headers })
  }
  const now = () => performance.now()
  const log: Log = (level, message, fields) => logged.push({ time: '', level, message, ...fields })
  const service = createService(config, { fetch, now, log, version: '0', runtime: 'test' })
  service.certified(new Date())
  service.full(1)
  const ask = async (method: string, path: string, body?: string, password = 'right') => {
    const accept = path === '/' ? 'text/html' : type
    const headers = new Headers({ Accept: accept, Authorization: `Basic ${btoa(`ann:${password}`)}` })
    if (body) headers.set('Content-Length', `${body.length}`)
    const request = new Request(`http://registry.example${path}`, { method, headers, body })
    return (await service.handle(request, {})).text()
  }
  const name = '/v2/proxy-404-hosted-200'
  await Promise.all([ask('GET', `${name}/manifests/v1`), ask('GET', `${name}/manifests/v1`)])
  const own = ['/', '/explain?image=a:1', '/healthcheck', '/livez', '/metrics', '/elsewhere']
  for (const path of [`${name}/manifests/v1`, '/v2/', '/v2/', ...own]) await ask('GET', path)
  for (const answers of ['proxy-200-hosted-200', 'proxy-429-hosted-429', 'proxy-403-hosted-403']) {
    for (const reference of ['v1', digest, digest]) await ask('GET', `/v2/${answers}/manifests/${reference}`)
  }
  await ask('HEAD', '/v2/proxy-503-hosted-404/manifests/v1')
  await ask('GET', '/v2/proxy-404-hosted-503/manifests/v1')
  await ask('POST', `/v2/hosted/blobs/uploads/?mount=${digest}&from=library/base`)
  await ask('PATCH', `${name}/blobs/uploads/session`, 'chunk')
  const wrong = Array.from({ length: 40 }, (_, i) => ask('GET', `${name}/tags/list`, undefined, `wrong${i}`))
  await Promise.all(wrong)
  return ask('GET', '/metrics')
}

function knownFrom(exposition: string): Known {
  const known: Known = new Map()
  const add = (name: string, label: string, value: string) => {
    const labels = known.get(name) ?? new Map<string, Set<string>>()
    known.set(name, labels.set(label, (labels.get(label) ?? new Set()).add(value)))
  }
  // deploy/ sets the job label. The values of the other labels of a target cannot be known here.
  const addTarget = (name: string) => {
    add(name, 'job', 'combined-registry')
    for (const label of ['instance', 'namespace']) known.get(name)?.set(label, new Set())
  }
  for (const line of exposition.split('\n')) {
    const [, name, labels = ''] = /^([a-z_]\w*)(?:\{(.*)\})? /.exec(line) ?? []
    if (!name) continue
    addTarget(name)
    for (const [, label = '', value = ''] of labels.matchAll(/(\w+)="([^"]*)"/g)) add(name, label, value)
  }
  // Metrics that Prometheus adds itself.
  addTarget('up')
  addTarget('ALERTS')
  add('ALERTS', 'alertstate', 'firing')
  for (const { alert } of alerts()) add('ALERTS', 'alertname', alert)
  return known
}

/** Checks a PromQL query against `known`: its faults, and the labels of its result. */
function checkQuery(query: string): { faults: string[]; labels: Set<string> } {
  const promql = query.replaceAll('$__rate_interval', '5m').replaceAll('$router', 'combined-registry')
  const faults: string[] = []
  const metricLabels = new Set<string>()
  const grouped = new Set<string>()
  /** Labels of the groups that only decide which series of the left side stay. */
  const groupedAside = new Set<string>()
  let asideFrom = Number.POSITIVE_INFINITY
  const textOf = ({ from, to }: { from: number; to: number }) => promql.slice(from, to)
  parser.parse(promql).iterate({
    enter: ({ type, node }) => {
      if (type.isError) faults.push(`does not parse at "${promql.slice(node.from)}"`)
      if (['And', 'Unless'].includes(type.name)) asideFrom = Math.min(asideFrom, node.from)
      const groups = node.from < asideFrom ? grouped : groupedAside
      if (type.name === 'GroupingLabels') for (const label of node.getChildren('LabelName')) groups.add(textOf(label))
      if (type.name !== 'VectorSelector') return
      const metric = node.getChild('Identifier')
      const labels = metric && known.get(textOf(metric))
      if (!labels) {
        faults.push(`no metric ${textOf(metric ?? node)}`)
        return
      }
      for (const label of labels.keys()) metricLabels.add(label)
      for (const matcher of node.getChild('LabelMatchers')?.getChildren('UnquotedLabelMatcher') ?? []) {
        const [, name = '', wanted = ''] = /^(\w+)\W+"(.*)"$/.exec(textOf(matcher)) ?? []
        const values = labels.get(name)
        if (!values) faults.push(`no label ${name} of ${textOf(metric)}`)
        // An empty alternative also means series without the label.
        for (const alternative of values?.size ? wanted.split('|').filter(Boolean) : []) {
          const exact = new RegExp(`^(?:${alternative})$`)
          if (![...(values ?? [])].some((value) => exact.test(value))) faults.push(`${name} is never ${alternative}`)
        }
      }
    },
  })
  for (const label of [...grouped, ...groupedAside])
    if (!metricLabels.has(label)) faults.push(`no label ${label} to group by`)
  return { faults, labels: grouped.size > 0 ? grouped : metricLabels }
}

interface Panel {
  id: number
  type: string
  title: string
  description: string
  gridPos: { x: number; y: number; w: number; h: number }
  links?: { url: string }[]
  targets: { expr: string; legendFormat: string }[]
}
const dashboard = JSON.parse(read('deploy/grafana/combined-registry.json'))
const panelsAndRows: Panel[] = dashboard.panels
const panels = panelsAndRows.filter(({ type }) => type !== 'row')
const queries = panels.flatMap(({ targets }) => targets)

interface Alert {
  alert: string
  expr: string
  labels: { severity: string }
  annotations: { summary: string; description: string; runbook_url: string }
}
function alerts(): Alert[] {
  return parse(read('deploy/prometheus/alerts.yml')).groups.flatMap(({ rules }: { rules: Alert[] }) => rules)
}

test('a query with an unknown metric, label, value or grouping is a fault', () => {
  const good = 'sum by (upstream) (rate(registry_router_upstream_requests_total{verdict=~"failed|limited"}[5m])) > 1'
  assert.deepEqual(checkQuery(good).faults, [])
  for (const [from, to] of [
    ['requests_total', 'request_total'],
    ['verdict=', 'verdicts='],
    ['failed', 'fail'],
    ['(upstream)', '(upstreams)'],
    ['5m])', '5m]'],
  ] as const) {
    assert.equal(checkQuery(good.replace(from, to)).faults.length > 0, true, to)
  }
})

for (const { title, targets } of panels) {
  test(`the panel "${title}" uses only metrics and labels that exist`, () => {
    for (const { expr, legendFormat } of targets) {
      const { faults, labels } = checkQuery(expr)
      const unknown = [...legendFormat.matchAll(/\{\{(\w+)\}\}/g)].filter(([, label = '']) => !labels.has(label))
      assert.deepEqual([faults, unknown.map(([label]) => label)], [[], []], expr)
    }
  })
}

test('every metric of the router has a panel; every panel has its own id and a description', () => {
  const routerMetrics = [...known.keys()].map((name) => name.replace(/_(bucket|sum|count)$/, ''))
  const withoutPanel = routerMetrics.filter(
    (name) => name.startsWith('registry_router_') && !queries.some(({ expr }) => expr.includes(name)),
  )
  assert.deepEqual(withoutPanel, [])
  assert.equal(new Set(panelsAndRows.map(({ id }) => id)).size, panelsAndRows.length)
  assert.ok(panels.every(({ description }) => description))
  for (const { name, query } of dashboard.templating.list.slice(1)) {
    const [, metric, label] = /^label_values\((\w+)(?:\{job=~"\$router"\})?, (\w+)\)$/.exec(query) ?? []
    assert.ok(known.get(`${metric}`)?.has(`${label}`), name)
  }
})

test('the panels stand in rows, and none covers another', () => {
  assert.equal(panelsAndRows[0]?.type, 'row')
  const cells = panelsAndRows.flatMap(({ gridPos: { x, y, w, h } }) => {
    return Array.from({ length: w * h }, (_, i) => `${x + (i % w)} ${y + Math.floor(i / w)}`)
  })
  assert.equal(new Set(cells).size, cells.length)
  const tops = panelsAndRows.map(({ gridPos }) => gridPos.y)
  assert.deepEqual(
    tops,
    tops.toSorted((a, b) => a - b),
  )
})

/** The headings of a page, as links name them. Examples have lines with a # too. */
function anchorsOf(page: string): Set<string> {
  const text = read(page).replace(/^```[\s\S]*?^```/gm, '')
  const headings = [...text.matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) => heading)
  return new Set(
    headings.map((one) =>
      one
        .toLowerCase()
        .replace(/[^\w -]/g, '')
        .replaceAll(' ', '-'),
    ),
  )
}

test('every link of the dashboard and of an alert leads to a heading of the manual', () => {
  const links: { url: string }[] = [dashboard, ...panels].flatMap(({ links = [] }) => links)
  assert.ok(links.length > 10)
  for (const url of [...links.map(({ url }) => url), ...alerts().map(({ annotations }) => annotations.runbook_url)]) {
    const [, page = '', anchor = ''] =
      /^https:\/\/github\.com\/OWNER\/combined-registry\/blob\/main\/(docs\/\w+\.md)#([\w-]+)$/.exec(url) ?? []
    assert.ok(pages.includes(page) && anchorsOf(page).has(anchor), url)
  }
})

const texts = ['README.md', 'CHANGELOG.md', 'CONTRIBUTING.md', 'CONFORMANCE.md', 'bench/NOTES.md', ...pages]

for (const page of texts) {
  test(`${page}: every link leads to a file, and to a heading of it`, () => {
    const text = read(page).replace(/^```[\s\S]*?^```/gm, '')
    for (const [, target = ''] of text.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(target)) continue
      const [file = '', anchor] = target.split('#')
      const path = file ? join(dirname(page), file) : page
      assert.ok(existsSync(join(root, path)), target)
      if (anchor) assert.ok(anchorsOf(path).has(anchor), target)
    }
  })
}

test('a cell of a table has no paragraph in it, and the README is read in five minutes', () => {
  for (const page of ['README.md', ...pages]) {
    const rows = read(page)
      .split('\n')
      .filter((line) => line.startsWith('|'))
    const cells = rows.flatMap((row) => row.split(/(?<!\\)\|/).map((cell) => cell.trim()))
    assert.deepEqual([page, cells.filter((cell) => cell.length > 220)], [page, []])
  }
  assert.ok(Buffer.byteLength(read('README.md')) <= 10_240)
})

test('no alert adds up two routers: each grouping and each join keeps job and namespace', () => {
  for (const { alert, expr } of alerts()) {
    for (const [, labels] of expr.matchAll(/\b(?:by|on) \(([^)]*)\)/g))
      assert.match(`${labels}`, /^namespace, job\b/, alert)
    assert.doesNotMatch(expr, /\b(?:sum|count|avg|min|max|group) ?\(/, `${alert} groups by nothing`)
  }
})

/** The alerts that the panel "Alerts" counts. */
const [, names] = /alertname=~"([^"]*)"/.exec(queries.map(({ expr }) => expr).join()) ?? []
const countedAlerts = new RegExp(`^(?:${names})$`)
const alertTests = read('deploy/prometheus/alerts.test.yml')
for (const { alert, expr, labels, annotations } of alerts()) {
  test(`the alert ${alert} uses metrics that exist, says what it means, and has a test case in which it fires`, () => {
    const { faults, labels: given } = checkQuery(expr)
    const unknown = [...annotations.summary.matchAll(/\$labels\.(\w+)/g)].filter(([, label = '']) => !given.has(label))
    assert.deepEqual([faults, unknown.map(([label]) => label)], [[], []], expr)
    assert.ok(['critical', 'warning'].includes(labels.severity) && annotations.description.length > 80)
    assert.ok(annotations.runbook_url.endsWith(`#${alert.toLowerCase()}`))
    assert.ok(alertTests.includes(`{ labels: '{alertname="${alert}"`))
    assert.ok(countedAlerts.test(alert), 'the panel "Alerts" does not count it')
  })
}

/** The names of all settings, from `--help`. */
const settings = new Set([...configHelp().matchAll(/^ {2}([A-Z][A-Z0-9_]+)/gm)].map(([, name]) => name))

test('every setting that a file in deploy/ names exists', () => {
  for (const entry of readdirSync(join(root, 'deploy'), { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const names = readFileSync(join(entry.parentPath, entry.name), 'utf8').match(/\b[A-Z][A-Z0-9]*_[A-Z_]+\b/g) ?? []
    assert.deepEqual([entry.name, names.filter((name) => !settings.has(name))], [entry.name, []])
  }
})

/** Reads these settings as the router does; fails if a setting is unknown or wrong. */
function readSettings(environment: Record<string, string>): Config {
  assert.deepEqual(
    Object.keys(environment).filter((name) => !settings.has(name)),
    [],
  )
  const config = readConfig(environment)
  assert.ok(!('faults' in config), JSON.stringify(config))
  return config
}

interface Job {
  uses?: string
  steps?: { uses?: string; run?: string }[]
}
const workflows = readdirSync(join(root, '.github/workflows'))
const stepsOf = (file: string) =>
  Object.values<Job>(parse(read(`.github/workflows/${file}`)).jobs).flatMap(({ uses, steps = [] }) => [
    { uses },
    ...steps,
  ])

test('all texts name only scripts that there are', () => {
  const named = [
    ...texts
      .map(read)
      .join('\n')
      .matchAll(/\bnpm run (?:--silent )?([\w:]+)/g),
  ].map(([, script = '']) => script)
  assert.ok(named.length > 10)
  for (const script of named) assert.ok(script in manifest.scripts, script)
})

for (const file of workflows) {
  test(`${file} names only what exists: scripts, files, and actions by their major version`, () => {
    const steps: { uses?: string; run?: string }[] = stepsOf(file)
    assert.ok(steps.some(({ run }) => run))
    for (const { uses, run = '' } of steps) {
      if (uses?.startsWith('./')) assert.ok(existsSync(join(root, uses)), uses)
      else if (uses) assert.match(uses, /^[\w-]+\/[\w-]+@v\d+$/)
      const syntax = spawnSync('bash', ['-n'], { input: run })
      assert.equal(syntax.status, 0, `${syntax.stderr}`)
      for (const [, script = ''] of run.matchAll(/\bnpm run (?:--silent )?([\w:]+)/g))
        assert.ok(script in manifest.scripts, script)
      for (const [path] of run.matchAll(/(?<![\w/.])(?:README\.md|(?:deploy|docs|test|ship|\.ci)\/[\w./-]+)/g))
        assert.ok(existsSync(join(root, path)), path)
    }
  })
}

test("a release puts its publisher's name wherever OWNER stands, and the README's commands have its version", () => {
  const sed = stepsOf('release.yaml').find(({ run }: { run?: string }) => run?.includes('sed -i')) as { run: string }
  const places = [
    'README.md',
    ...['docs', 'deploy'].flatMap((folder) => {
      const entries = readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
      return entries
        .filter((entry) => entry.isFile())
        .map((entry) => relative(root, join(entry.parentPath, entry.name)))
    }),
  ]
  const withOwner = places.filter((path) => /\bOWNER\b(?!")/.test(read(path)))
  assert.deepEqual(withOwner.sort(), [...sed.run.matchAll(/\S+\.(?:md|yml|yaml|json)\b/g)].map(([path]) => path).sort())
  const [, section = ''] = /## Get it\n([\s\S]*?)\n## /.exec(read('README.md')) ?? []
  const versions = section.match(/\d+\.\d+\.\d+/g) ?? []
  assert.ok(versions.length >= 4 && versions.every((one) => one === manifest.version))
})

test('the chart: its values reach every setting, what is secret only as a reference; its rules are those of deploy/prometheus', () => {
  const chart = 'deploy/helm/combined-registry'
  const { settings: plain, secrets } = JSON.parse(read(`${chart}/values.schema.json`)).properties
  const isSecret = (name: string) => /_(FILE|PASSWORD)$/.test(name)
  const inTable = (which: (name: string) => boolean) => [...settings].filter((name) => which(`${name}`)).sort()
  assert.deepEqual(Object.keys(secrets.properties).sort(), inTable(isSecret))
  assert.deepEqual(
    Object.keys(plain.properties).sort(),
    inTable((name) => !isSecret(name)),
  )
  assert.equal(
    realpathSync(join(root, chart, 'files/alerts.yml')),
    realpathSync(join(root, 'deploy/prometheus/alerts.yml')),
  )
  const { version, appVersion } = parse(read(`${chart}/Chart.yaml`))
  assert.deepEqual([version, appVersion], [manifest.version, manifest.version])
})

const compose = parse(read('compose.yaml'), { merge: true }).services

/** The value that `${NAME:-default}` or `${NAME-default}` has if nothing is set. */
const byDefault = (text: string) => text.replace(/\$\{\w+:?-([^}]*)\}/g, '$1')

test("compose.yaml: the router's settings are valid, it may take longer than DRAIN_TIMEOUT to end, and mounted files exist", () => {
  const { environment, stop_grace_period } = compose.router
  const { drainTimeout } = readSettings(JSON.parse(byDefault(JSON.stringify(environment))))
  const [, minutes, seconds = 0] = /^(\d+)m(?:(\d+)s)?$/.exec(stop_grace_period) ?? []
  assert.ok(Number(minutes) * 60 + Number(seconds) > drainTimeout)
  for (const { volumes = [] } of Object.values<{ volumes?: string[] }>(compose)) {
    for (const [from = ''] of volumes.map((volume) => volume.split(':'))) {
      assert.ok(!from.startsWith('.') || existsSync(join(root, from)), from)
    }
  }
})

test('compose.yaml asks for no login, so its ports are open to this machine only', () => {
  for (const { ports = [] } of Object.values<{ ports?: string[] }>(compose)) {
    for (const port of ports) assert.match(port, /^127\.0\.0\.1:/)
  }
})

test('compose.yaml: the router starts and is started again whatever its registries do, and stops before them', () => {
  // Without a condition: `up` removes a router first, and then makes no new one if a condition is not met.
  assert.deepEqual(compose.router.depends_on, ['hosted', 'proxy'])
})

test('compose.yaml: `up` returns when the router and hosted are healthy, with the cache down too; it then takes pushes', () => {
  assert.deepEqual(compose.ready.depends_on, {
    router: { condition: 'service_healthy' },
    hosted: { condition: 'service_healthy' },
  })
  for (const name of ['router', 'hosted']) assert.ok(compose[name].healthcheck.test.length > 1, name)
  assert.equal(compose.ready.image, compose.hosted.image)
  const { v2Requires, hostedNames } = readSettings(JSON.parse(byDefault(JSON.stringify(compose.router.environment))))
  assert.equal(v2Requires, 'hosted')
  const [, pushed = ''] = /^docker push registry\.localhost\/(\S+):latest$/m.exec(read('README.md')) ?? []
  assert.ok(hostedNames.has(pushed), 'of other new names the cache is asked before a push')
})

test('compose.yaml: the command in its comment lists a cache for each public registry of the profile', () => {
  const [, command = ''] = /`PROXIES=(\S+) docker compose --profile registries up -d`/.exec(read('compose.yaml')) ?? []
  const required = { AGGREGATE_HOSTNAME: 'registry.localhost', HOSTED_HOSTNAME: 'hosted', PROXY_HOSTNAME: 'proxy' }
  const { proxies } = readSettings({ ...required, PROXIES: command })
  const caches = Object.entries<{ profiles?: string[]; environment?: Record<string, string> }>(compose)
    .filter(([, { profiles }]) => profiles?.includes('registries'))
    .map(([service, { environment }]) => [environment?.REGISTRY_PROXY_REMOTEURL, `http://${service}:5000`])
  assert.deepEqual(
    proxies.map(({ host, address }) => [`https://${host}`, address.origin]),
    caches,
  )
})

test('compose.yaml: the image is built, never asked of a public registry, and is the one that the README pushes', () => {
  const { build, image, pull_policy } = compose.router
  assert.deepEqual([build, pull_policy], ['.', 'never'])
  assert.match(read('README.md'), new RegExp(`^docker tag ${image} registry\\.localhost/`, 'm'))
})

test('compose.yaml: all logs are rotated; those of both registries take 10 MB together', () => {
  const megabytes = ({ logging }: { logging?: { driver: string; options: Record<string, string> } }) => {
    assert.equal(logging?.driver, 'json-file')
    return Number(/^(\d+)m$/.exec(logging.options['max-size'] ?? '')?.[1]) * Number(logging.options['max-file'])
  }
  const { ready: _, ...lasting } = compose
  for (const service of Object.values<object>(lasting)) assert.ok(megabytes(service) <= 30)
  assert.ok(megabytes(compose.hosted) + megabytes(compose.proxy) <= 10)
  // The image logs at debug, which is 1 KB for each health check and each look at the storage.
  for (const name of ['hosted', 'proxy']) {
    assert.equal(compose[name].environment.REGISTRY_LOG_LEVEL, 'warn')
  }
})

const lines = read('deploy/kubernetes/router.env').match(/^#?[A-Z]\w+=.*$/gm) ?? []
/** The settings of router.env, first without, then with those that are commented out. */
const [activeSettings, allSettings] = [lines.filter((line) => !line.startsWith('#')), lines].map((some) =>
  Object.fromEntries(some.map((line) => line.replace('#', '').split('=') as [string, string])),
) as [Record<string, string>, Record<string, string>]

test('router.env is a valid configuration, with and without its commented-out settings', async () => {
  readSettings(activeSettings)
  await withUsers((file) => {
    const files = Object.keys(allSettings).filter((name) => name.endsWith('_FILE'))
    const config = readSettings({ ...allSettings, ...Object.fromEntries(files.map((name) => [name, file])) })
    assert.ok(config.htpasswdFile && config.hostedLogin && config.proxyLogin)
  })
})

const kubernetes = join(root, 'deploy/kubernetes')
const { resources } = parse(read('deploy/kubernetes/kustomization.yaml'))
const objects: KubernetesObject[] = resources.map((file: string) => parse(readFileSync(join(kubernetes, file), 'utf8')))
const [deployment, service, budget] = objects

test('the Kubernetes objects have the types of the Kubernetes API', () => {
  const files = readdirSync(kubernetes).filter((file) => file.endsWith('.yaml') && file !== 'kustomization.yaml')
  assert.deepEqual(files.sort(), resources.toSorted())
  assert.equal(faultsOfTypes(objects), '')
})

test('the Kubernetes objects fit each other and the router', () => {
  const { selector, replicas, template } = deployment.spec
  const { containers, terminationGracePeriodSeconds, topologySpreadConstraints, volumes, securityContext } =
    template.spec
  const [{ ports, lifecycle, readinessProbe, livenessProbe, resources, volumeMounts }] = containers
  const { labels } = template.metadata
  const spread = topologySpreadConstraints.map(({ labelSelector }: { labelSelector: object }) => labelSelector)
  for (const { matchLabels } of [selector, budget.spec.selector, ...spread]) assert.deepEqual(matchLabels, labels)
  assert.deepEqual(service.spec.selector, labels)
  assert.ok(replicas > budget.spec.maxUnavailable)
  const { port, drainTimeout } = readSettings(activeSettings)
  assert.deepEqual(ports, [{ name: service.spec.ports[0].targetPort, containerPort: port }])
  assert.ok(terminationGracePeriodSeconds > lifecycle.preStop.sleep.seconds + drainTimeout)
  for (const probe of [readinessProbe, livenessProbe]) assert.equal(probe.httpGet.path, '/livez')
  assert.ok(read('Dockerfile').includes(`\nUSER ${securityContext.runAsUser}:${securityContext.runAsGroup}\n`))
  assert.equal(volumes[0].name, volumeMounts[0].name)
  for (const [name, value] of Object.entries(allSettings)) {
    assert.ok(!name.endsWith('_FILE') || value.startsWith(`${volumeMounts[0].mountPath}/`), name)
  }
  const memoryAlert = alerts().find(({ alert }) => alert === 'RegistryRouterMemoryHigh')
  assert.ok(memoryAlert?.expr.endsWith('0.9 * 2 ^ 30') && resources.limits.memory === '1Gi')
})

/** Fails if the manual lacks one of these: a name must be there as `code`, a sentence as plain text. */
function assertInManual(texts: Iterable<string | undefined>): void {
  const asWritten = (text: string) => (text.includes(' ') ? text : `\`${text}\``)
  const missing = [...new Set(texts)].filter((text = '') => !manual.includes(asWritten(text)))
  assert.deepEqual(missing, [], 'docs/ lacks these')
}

test('the manual has every metric of the router with its labels and values, and every alert', () => {
  const routerMetrics = [...known].filter(([name]) => name.startsWith('registry_router_'))
  assertInManual(routerMetrics.map(([name]) => name.replace(/_(bucket|sum|count)$/, '')))
  const labels = routerMetrics
    .flatMap(([, labels]) => [...labels])
    .filter(([name]) => !/^(le|job|instance)$/.test(name))
  assertInManual(labels.map(([name]) => name))
  const values = labels.flatMap(([name, values]) => (/method|status|version|runtime/.test(name) ? [] : [...values]))
  for (const one of [...values, ...alerts().map(({ alert }) => alert)]) assert.match(manual, new RegExp(`\\b${one}\\b`))
})

const source = [
  'server.ts',
  'routing.ts',
  ...readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' }).map((file) => `src/${file}`),
].filter((file) => /\.[jt]s$/.test(file))

test('the manual has every message and every field of the log', () => {
  const calls = source.flatMap((file) => read(file).match(/\blog\('.*/g) ?? [])
  const messages = calls.map((call) => /^log\('\w+', '([^']+)'/.exec(call)?.[1]).filter(Boolean)
  const fields = calls.flatMap((call) => /\{ (.*) \}/.exec(call)?.[1]?.split(', ') ?? [])
  const loggedFields = logged.flatMap((line) => [line, ...((line.asked as object[]) ?? [])].flatMap(Object.keys))
  assert.ok(messages.includes('listening') && fields.includes('signal') && loggedFields.includes('bytesOut'))
  assertInManual([
    ...messages,
    ...logged.map(({ message }) => `${message}`),
    ...fields.map((field) => field.replace(/:.*/, '')),
    ...loggedFields,
  ])
})

test('the manual has every sentence that the router can log, answer or print at the start, and every error code', () => {
  const token = /\/\*[\s\S]*?\*\/|\/\/.*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\\n]|\\.)*`/g
  // Left out: help texts of metrics, which have a table of their own, and the page, which explains itself.
  const ofRouter = source.filter((file) => !/metrics|page/.test(file))
  const literals = ofRouter.flatMap((file) => read(file).match(token) ?? []).filter((text) => !text.startsWith('/'))
  const parts = literals.flatMap((text) => text.slice(1, -1).split(/\$\{.*?\}/)).map((part) => part.trim())
  const sentences = parts.filter(
    (part) => /^[\w'.,:?/()=-]+( [\w'.,:?/()=-]+)+$/.test(part) && /[a-z] [a-z]/.test(part),
  )
  assert.ok(sentences.includes('failed lately: try again in a minute') && sentences.includes('wrong user or password'))
  const help = configHelp()
  assertInManual(sentences.filter((text) => !help.includes(text) && !/^(proxy|hosted) (proxy|hosted)$/.test(text)))
  const code = /^([A-Z]+_)*(UNKNOWN|INVALID|UNAUTHORIZED|DENIED|UNSUPPORTED|UNAVAILABLE|TOOMANYREQUESTS)$/
  assertInManual(parts.filter((part) => code.test(part)))
})

test('every setting has a row in a table of docs/configuration.md; the README names only settings that exist', () => {
  const configuration = read('docs/configuration.md')
  for (const setting of settings) assert.match(configuration, new RegExp(`^\\|.*\\b${setting}\\b.*\\|.*\\|`, 'm'))
  const [, table = ''] = /## The settings that matter\n([\s\S]*?)\n## /.exec(read('README.md')) ?? []
  const named = [...table.matchAll(/^\| ([A-Z][A-Z_, ]+) \|/gm)].flatMap(([, names = '']) => names.split(', '))
  assert.ok(named.length > 8)
  assert.deepEqual(
    named.filter((name) => !settings.has(name)),
    [],
  )
})

// promtool is not installed by npm: its package brings all of Prometheus.
if (spawnSync('promtool', ['--version']).error)
  console.error('PROMTOOL IS MISSING: the stories of alerts.test.yml are not told')
else {
  test('the alerts fire when they should, and only then', () => {
    for (const args of [
      ['check', 'config', 'prometheus.yml'],
      ['test', 'rules', 'alerts.test.yml'],
    ]) {
      const { status, stdout, stderr } = spawnSync('promtool', args, { cwd: join(root, 'deploy/prometheus') })
      assert.equal(status, 0, `${stdout}${stderr}`)
    }
  })
}
