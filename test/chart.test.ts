/** Renders deploy/helm/combined-registry with helm: each set of values in ci/, and what is refused. */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { hashSync } from 'bcryptjs'
import { parse, parseAllDocuments } from 'yaml'
import { readConfig } from '../src/config.ts'
import { certify } from './parts/certificates.ts'
import { run, temporaryFolder } from './parts/children.ts'
import { findHelm } from './parts/go.ts'
import { faultsOfTypes, type KubernetesObject } from './parts/kubernetes.ts'
import { root } from './parts/router.ts'

const chart = join(root, 'deploy/helm/combined-registry')
const read = (path: string) => readFileSync(join(root, path), 'utf8')
const plain = parse(read('deploy/kubernetes/deployment.yaml'))
const rules = parse(read('deploy/prometheus/alerts.yml'))
const helm = await findHelm(temporaryFolder(), console.error)

/** One set of values: the objects it gives, by kind. */
type Rendered = Record<string, KubernetesObject>
/** A helm that was built from source takes an old Kubernetes for granted. */
const kubernetes = ['--kube-version', '1.30.0']

async function render(values: string, release: string, ...options: string[]): Promise<Rendered> {
  const file = join(chart, `ci/${values}-values.yaml`)
  const command = [`${helm}`, 'template', release, chart, '--values', file, '--namespace', 'registries', ...kubernetes]
  const output = await run([...command, ...options])
  const documents = output.slice(output.indexOf('---\n'))
  const objects = parseAllDocuments(documents).map((document) => document.toJS())
  return Object.fromEntries(objects.map((one) => [one.kind, one]))
}

const podOf = ({ Deployment }: Rendered) => Deployment.spec.template.spec
const containerOf = (rendered: Rendered) => podOf(rendered).containers[0]

/** Reads the settings of the container as the router does, with files of this machine for those of the Secrets. */
async function configOf(rendered: Rendered) {
  const { ConfigMap } = rendered
  const env: { name: string; value?: string }[] = containerOf(rendered).env ?? []
  const folder = temporaryFolder()
  const { certFile, keyFile } = await certify(folder, 'registry.example')
  const users = join(folder, 'users')
  await run([
    'sh',
    '-c',
    `printf '%s' '${['ann', 'ci'].map((user) => `${user}:${hashSync('right', 4)}`).join('\n')}' > ${users}`,
  ])
  const files: Record<string, string> = { TLS_CERT_FILE: certFile, TLS_KEY_FILE: keyFile, CA_FILE: certFile }
  const given = env.map(({ name }) => [name, name.endsWith('_FILE') ? (files[name] ?? users) : 'secret'])
  const config = readConfig({ ...ConfigMap.data, ...Object.fromEntries(given) })
  if ('faults' in config) throw new Error(config.faults.join('\n'))
  return config
}

const always = ['ConfigMap', 'Deployment', 'PodDisruptionBudget', 'Service']
const kinds: Record<string, string[]> = {
  open: always,
  hosted: [...always, 'Ingress', 'PrometheusRule', 'ServiceMonitor'],
  login: [...always, 'HorizontalPodAutoscaler', 'Ingress', 'NetworkPolicy', 'ServiceMonitor'],
}

if (helm) {
  console.error(`the chart is rendered by helm ${await run([helm, 'version', '--short'])}`)

  test('every set of values in ci/ is rendered here', () => {
    const files = readdirSync(join(chart, 'ci')).map((file) => file.replace('-values.yaml', ''))
    assert.deepEqual(files.sort(), Object.keys(kinds).sort())
  })

  for (const [values, wanted] of Object.entries(kinds)) {
    test(`values "${values}": helm lints them; the objects have the API's types, and fit each other and the router`, async () => {
      await run([helm, 'lint', '--quiet', '--strict', chart, '--values', join(chart, `ci/${values}-values.yaml`)])
      const rendered = await render(values, 'eu')
      assert.deepEqual(Object.keys(rendered).sort(), wanted.sort())
      assert.equal(faultsOfTypes(Object.values(rendered)), '')
      const { Deployment, ConfigMap, Service, PodDisruptionBudget, NetworkPolicy, ServiceMonitor } = rendered
      for (const { metadata } of Object.values(rendered))
        assert.deepEqual([metadata.name, metadata.namespace], ['eu-combined-registry', 'registries'])
      const pod = podOf(rendered)
      const container = containerOf(rendered)
      const config = await configOf(rendered)

      const { matchLabels } = Deployment.spec.selector
      const { labels } = Deployment.spec.template.metadata
      for (const [name, value] of Object.entries(matchLabels)) assert.equal(labels[name], value)
      const spread = pod.topologySpreadConstraints.map(
        ({ labelSelector }: KubernetesObject) => labelSelector.matchLabels,
      )
      const selectors = [Service.spec.selector, PodDisruptionBudget.spec.selector.matchLabels, ...spread]
      if (NetworkPolicy) selectors.push(NetworkPolicy.spec.podSelector.matchLabels)
      for (const selector of selectors) assert.deepEqual(selector, matchLabels)
      if (ServiceMonitor) {
        assert.deepEqual(ServiceMonitor.spec.selector.matchLabels, matchLabels)
        assert.equal(ServiceMonitor.spec.endpoints[0].port, Service.spec.ports[0].name)
      }

      assert.deepEqual(container.envFrom, [{ configMapRef: { name: ConfigMap.metadata.name } }])
      assert.deepEqual(container.ports, [{ name: Service.spec.ports[0].targetPort, containerPort: config.port }])
      assert.ok(pod.terminationGracePeriodSeconds > container.lifecycle.preStop.sleep.seconds + config.drainTimeout)
    })

    test(`values "${values}": the container is as guarded, probed and sized as the plain object's`, async () => {
      const rendered = await render(values, 'combined-registry')
      const [own, others] = [podOf(rendered), plain.spec.template.spec]
      for (const field of ['securityContext', 'automountServiceAccountToken'])
        assert.deepEqual(own[field], others[field], field)
      const [container, other] = [containerOf(rendered), others.containers[0]]
      for (const field of ['securityContext', 'lifecycle', 'resources'])
        assert.deepEqual(container[field], other[field], field)
      const speaksTls = container.env?.some(({ name }: { name: string }) => name === 'TLS_CERT_FILE')
      for (const probe of ['readinessProbe', 'livenessProbe']) {
        const { httpGet, ...rest } = other[probe]
        const scheme = speaksTls ? { scheme: 'HTTPS' } : {}
        assert.deepEqual(container[probe], { httpGet: { ...httpGet, ...scheme }, ...rest })
      }
    })
  }

  test('a Secret is only ever named: a file is mounted where its setting says, a password is a reference', async () => {
    const rendered = await render('login', 'eu')
    const { env, volumeMounts } = containerOf(rendered)
    const { sources } = podOf(rendered).volumes[0].projected
    const mounted = sources.flatMap(({ secret, configMap }: KubernetesObject) =>
      (secret ?? configMap).items.map(({ path }: { path: string }) => `${volumeMounts[0].mountPath}/${path}`),
    )
    const files = env.filter(({ name }: { name: string }) => name.endsWith('_FILE'))
    assert.deepEqual(files.map(({ value }: { value: string }) => value).sort(), mounted.sort())
    const password = env.find(({ name }: { name: string }) => name === 'PROXY_PASSWORD')
    assert.deepEqual(password.valueFrom.secretKeyRef, { name: 'docker-hub', key: 'password' })
  })

  test('the rules are those of deploy/prometheus, and go by the job that the ServiceMonitor gives', async () => {
    const { PrometheusRule, ServiceMonitor } = await render('hosted', 'combined-registry')
    assert.deepEqual(PrometheusRule.spec, rules)
    const jobOf = ({ spec }: KubernetesObject) => spec.endpoints[0].relabelings[0]
    assert.deepEqual(jobOf(ServiceMonitor), { targetLabel: 'job', replacement: 'combined-registry' })
    const [, jobs = ''] = /job=~"([^"]*)"/.exec(rules.groups[0].rules[0].expr) ?? []
    const other = jobOf((await render('hosted', 'eu')).ServiceMonitor).replacement
    assert.match(other, new RegExp(`^(?:${jobs})$`))
  })

  test('the Ingress leads only /v2/ in, and neither limits nor buffers a body', async () => {
    const { Ingress } = await render('hosted', 'eu')
    const [{ host, http }] = Ingress.spec.rules
    assert.deepEqual([host, http.paths.length, http.paths[0].path], ['registry.example', 1, '/v2/'])
    assert.deepEqual(Ingress.spec.tls, [{ hosts: ['registry.example'], secretName: 'registry-example-tls' }])
    const annotation = (name: string) => Ingress.metadata.annotations[`nginx.ingress.kubernetes.io/${name}`]
    assert.deepEqual(['proxy-body-size', 'proxy-request-buffering', 'proxy-buffering'].map(annotation), [
      '0',
      'off',
      'off',
    ])
    const { writeTimeout, idleTimeout } = await configOf(await render('open', 'eu'))
    assert.deepEqual(
      [annotation('proxy-read-timeout'), annotation('proxy-send-timeout')],
      [`${writeTimeout}`, `${idleTimeout}`],
    )
  })

  test('a number is written as a person writes it; a null is a setting that is not set', async () => {
    const { data } = (await render('open', 'eu', '--set', 'settings.WRITE_TIMEOUT=2000000,settings.V2_REQUIRES=null'))
      .ConfigMap
    assert.deepEqual([data.WRITE_TIMEOUT, data.V2_REQUIRES, data.DRAIN_TIMEOUT], ['2000000', undefined, '300'])
    assert.equal((await render('login', 'eu')).ConfigMap.data.MANIFEST_MEMORY, '65536')
  })

  const refused: [what: string, values: string, option: string, message: RegExp][] = [
    ['nobody has said who may push', 'open', 'auth=', /Who may push\? Give secrets.HTPASSWD_FILE/],
    ['who may push is said twice', 'login', 'auth=open', /auth: open and secrets.HTPASSWD_FILE exclude each other/],
    [
      'no image is named',
      'open',
      'image.repository=ghcr.io/OWNER/combined-registry',
      /no release has been published yet/,
    ],
    ['a required setting is missing', 'open', 'settings.PROXY_HOSTNAME=null', /PROXY_HOSTNAME/],
    ['there is no such setting', 'open', 'settings.PROXY_HOST=a', /'PROXY_HOST' not allowed/],
    ['there is no such value', 'open', 'replica=3', /'replica' not allowed/],
    ['a password is among the settings', 'open', 'settings.HOSTED_PASSWORD=a', /'HOSTED_PASSWORD' not allowed/],
    ['a Secret comes as its text', 'open', 'secrets.HOSTED_PASSWORD=a', /HOSTED_PASSWORD/],
    ['the key of a Secret is missing', 'open', 'secrets.HTPASSWD_FILE.existingSecret=a', /'key'/],
  ]
  for (const [what, values, option, message] of refused) {
    test(`refused: ${what}`, async () => {
      await assert.rejects(render(values, 'eu', '--set', option), message)
    })
  }
}

test('every value in values.yaml and in ci/ is one that values.schema.json knows', () => {
  const { properties } = JSON.parse(readFileSync(join(chart, 'values.schema.json'), 'utf8'))
  for (const file of ['values.yaml', ...readdirSync(join(chart, 'ci')).map((file) => `ci/${file}`)]) {
    const values = parse(readFileSync(join(chart, file), 'utf8'))
    for (const [name, value] of Object.entries<object>(values)) {
      assert.ok(name in properties, `${file}: ${name}`)
      const known = properties[name].properties
      for (const key of known ? Object.keys(value) : []) assert.ok(key in known, `${file}: ${name}.${key}`)
    }
  }
})
