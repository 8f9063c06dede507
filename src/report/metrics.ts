/** Counters and histograms in Prometheus' text format. Every label has few values, and no client controls one. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import { type Answer, isUnwell } from '../registry/answer.ts'
import type { CopyOutcome } from '../relay/copy.ts'
import type { Resource } from '../runtime/shortage.ts'

export interface RequestFacts {
  entity: string
  method: string
  status: number
  seconds: number
  /** The registry whose answer the client got. */
  by?: string
  /** Bytes of the bodies, if all of them passed. */
  bytesIn?: number
  bytesOut?: number
}

/** Seconds: from a manifest in memory to a layer over a slow line. */
const requestBuckets = [0.005, 0.02, 0.1, 0.5, 2, 10, 60, 300, 1800]
const firstByteBuckets = [0.002, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60]
const methods = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE']

type Counting = ((count: number, ...labels: (string | number)[]) => void) & { counts: ReadonlyMap<string, number> }

function configOf(registry: Registry, name: string, help: string, labelNames: string[]) {
  return { name: `registry_router_${name}`, help, labelNames, registers: [registry] }
}

/** Counts in a Map, which prom-client reads when it is scraped: its own `inc` takes ten times as long. */
function counter(registry: Registry, name: string, help: string, ...labelNames: string[]): Counting {
  const counts = new Map<string, number>()
  const scraped = new Counter({
    ...configOf(registry, name, help, labelNames),
    collect: () => {
      scraped.reset()
      for (const [labels, count] of counts) scraped.labels(...labels.split(' ')).inc(count)
    },
  })
  const add = (count: number, ...labels: (string | number)[]) => {
    const key = labels.join(' ')
    counts.set(key, (counts.get(key) ?? 0) + count)
  }
  return Object.assign(add, { counts })
}

function gauge(registry: Registry, name: string, help: string, ...labelNames: string[]) {
  return new Gauge(configOf(registry, name, help, labelNames))
}

function histogram(registry: Registry, buckets: number[], name: string, help: string, ...labelNames: string[]) {
  return new Histogram({ ...configOf(registry, name, help, labelNames), buckets })
}

/** The metrics of requests and registries. */
function metricsIn(registry: Registry) {
  const bytesHelp = 'Bytes of bodies relayed whole, as far as told beforehand: push from clients, pull to them.'
  const upHelp = 'Whether the last answer came, and was not 502, 503 or 504.'
  const skippedHelp = 'Whether it is skipped: it failed three times in a row, and no read since went well.'
  const firstByteHelp = "From asking a registry to its answer's head, GET and HEAD alone."
  const durationHelp = "From a request's head to its answer's last byte."
  return {
    requests: counter(registry, 'requests_total', 'Requests answered.', 'entity', 'method', 'status'),
    duration: histogram(registry, requestBuckets, 'request_duration_seconds', durationHelp, 'entity', 'method'),
    inFlight: gauge(registry, 'requests_in_flight', 'Requests whose answer is not yet sent whole.'),
    transferred: counter(registry, 'transfer_bytes_total', bytesHelp, 'upstream', 'direction'),
    asked: counter(
      registry,
      'upstream_requests_total',
      'Requests to a registry, by the verdict of its answer.',
      'upstream',
      'verdict',
    ),
    firstByte: histogram(registry, firstByteBuckets, 'upstream_first_byte_seconds', firstByteHelp, 'upstream'),
    up: gauge(registry, 'upstream_up', upHelp, 'upstream'),
    skipped: gauge(registry, 'upstream_skipped', skippedHelp, 'upstream'),
    expiry: gauge(
      registry,
      'certificate_expiration_timestamp_seconds',
      'When the certificate this router serves with ends, in seconds since 1970.',
    ),
    memory: counter(registry, 'memory_total', 'Uses of what was learned, by what was found.', 'kind', 'outcome'),
    copies: counter(registry, 'copies_total', 'Layers copied from proxy to hosted for a push, by outcome.', 'outcome'),
    copied: new Counter(
      configOf(registry, 'copied_bytes_total', 'Bytes of layers that clients had not to upload.', []),
    ),
    shortages: counter(
      registry,
      'shortages_total',
      'Requests that were refused, or connections closed, because this machine ran out of something.',
      'resource',
    ),
    logins: counter(registry, 'logins_total', 'Logins here, by what came of them.', 'outcome'),
    buildInfo: gauge(registry, 'build_info', 'Always 1.', 'version', 'runtime'),
  }
}

export class Metrics {
  readonly #registry = new Registry()
  readonly #metrics: ReturnType<typeof metricsIn>

  constructor(version: string, runtime: string, upstreams: readonly string[]) {
    collectDefaultMetrics({ register: this.#registry })
    this.#metrics = metricsIn(this.#registry)
    for (const upstream of upstreams) this.#metrics.skipped.set({ upstream }, 0)
    // A gauge begins at 0, which would be a certificate that ended in 1970.
    this.#metrics.expiry.remove()
    this.#metrics.buildInfo.set({ version, runtime }, 1)
  }

  get contentType(): string {
    return this.#registry.contentType
  }

  text(): Promise<string> {
    return this.#registry.metrics()
  }

  /** Counts by registry: `proxy absent`, `proxy pull`; of the seconds to the first byte `proxy sum` and `proxy count`. */
  async countsOfRegistries(): Promise<Map<string, number>> {
    const { values } = await this.#metrics.firstByte.get()
    const times = values.map(
      (one) => [`${one.labels.upstream} ${one.metricName?.split('_').at(-1)}`, one.value] as const,
    )
    return new Map([...this.#metrics.asked.counts, ...this.#metrics.transferred.counts, ...times])
  }

  certified(expires: Date): void {
    this.#metrics.expiry.set(expires.getTime() / 1000)
  }

  started(): void {
    this.#metrics.inFlight.inc()
  }

  finished({ entity, method, status, seconds, by, bytesIn, bytesOut }: RequestFacts): void {
    const known = methods.includes(method) ? method : 'other'
    this.#metrics.inFlight.dec()
    this.#metrics.requests(1, entity, known, status)
    this.#metrics.duration.observe({ entity, method: known }, seconds)
    if (by && bytesIn) this.#metrics.transferred(bytesIn, by, 'push')
    if (by && bytesOut) this.#metrics.transferred(bytesOut, by, 'pull')
  }

  skips(upstream: string, isSkipped: boolean): void {
    this.#metrics.skipped.set({ upstream }, isSkipped ? 1 : 0)
  }

  copied(outcome: CopyOutcome, bytes: number): void {
    this.#metrics.copies(1, outcome)
    if (outcome === 'mounted') this.#metrics.copied.inc(bytes)
  }

  loggedIn(outcome: string): void {
    this.#metrics.logins(1, outcome)
  }

  ranOut(resource: Resource): void {
    this.#metrics.shortages(1, resource)
  }

  remembered(kind: string, outcome: string): void {
    this.#metrics.memory(1, kind, outcome)
  }

  answered({ from, verdict, status, milliseconds }: Answer, isRead: boolean): void {
    const upstream = from.name
    this.#metrics.asked(1, upstream, verdict)
    // The answer to a write waits for its body, as long as the client sends.
    if (isRead) this.#metrics.firstByte.observe({ upstream }, milliseconds / 1000)
    this.#metrics.up.set({ upstream }, isUnwell(status) ? 0 : 1)
  }
}
