/** Compares Kubernetes objects with the types of the Kubernetes API, as strictly as an API server with strict field validation. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))

// biome-ignore lint/suspicious/noExplicitAny: YAML has no types; faultsOfTypes() checks them.
export type KubernetesObject = any

/**
 * Of the Prometheus operator's objects, only what deploy/ uses.
 * https://prometheus-operator.dev/docs/api-reference/api/
 */
const ofOperator = `
type Meta = import('kubernetes-types/meta/v1').ObjectMeta
type Selector = import('kubernetes-types/core/v1').SecretKeySelector
interface Endpoint {
  port: string
  interval: string
  scheme?: 'http' | 'https'
  tlsConfig?: { serverName?: string; ca?: { configMap?: Selector } | { secret?: Selector } }
  relabelings: { targetLabel: string; replacement: string }[]
}
interface Rule {
  alert: string
  expr: string
  for?: string
  labels: Record<string, string>
  annotations: Record<string, string>
}
interface Kind<Name extends string, Spec> {
  apiVersion: 'monitoring.coreos.com/v1'
  kind: Name
  metadata: Meta
  spec: Spec
}
export type ServiceMonitor = Kind<
  'ServiceMonitor',
  { selector: import('kubernetes-types/meta/v1').LabelSelector; endpoints: Endpoint[] }
>
export type PrometheusRule = Kind<'PrometheusRule', { groups: { name: string; rules: Rule[] }[] }>
`

function typeOf({ apiVersion, kind }: KubernetesObject): string {
  if (apiVersion.startsWith('monitoring.coreos.com/')) return `import('./operator').${kind}`
  const path = apiVersion.includes('/') ? apiVersion.replace('.k8s.io/', '/') : `core/${apiVersion}`
  return `import('kubernetes-types/${path}').${kind}`
}

/** What the compiler says of fields that the API does not have, or that have another type. Empty if all is well. */
export function faultsOfTypes(objects: KubernetesObject[]): string {
  const lines = objects.map((one, i) => `export const _${i}: ${typeOf(one)} = ${JSON.stringify(one, null, 1)}`)
  // Inside node_modules, so that tsc finds the types.
  const folder = mkdtempSync(join(root, 'node_modules/.combined-registry-'))
  try {
    writeFileSync(join(folder, 'operator.d.ts'), ofOperator)
    writeFileSync(join(folder, 'objects.ts'), lines.join('\n'))
    const options = '--ignoreConfig --noEmit --strict --module esnext --moduleResolution bundler'.split(' ')
    const { status, stdout } = spawnSync('node_modules/.bin/tsc', [...options, `${folder}/objects.ts`], { cwd: root })
    return status === 0 ? '' : `${stdout}`
  } finally {
    rmSync(folder, { recursive: true })
  }
}
