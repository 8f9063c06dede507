/** Counters and histograms in Prometheus' text format; every label has few values, and no client controls one. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import type { UpstreamName } from '../routing.ts'
import type { CopyOutcome } from './copy.ts'
import type { Answer } from './upstream.ts'

export interface RequestFacts {
  entity: string
  method: string
  status: number
  seconds: number
  by?: UpstreamName
  bytesIn?: number
  bytesOut?: number
}

export type Metrics = ReturnType<typeof createMetrics>

/** From a manifest kept in memory to a layer over a slow line, in seconds. */
const requestBuckets = [0.005, 0.02, 0.1, 0.5, 2, 10, 60, 300, 1800]
const firstByteBuckets = [0.002, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60]
const methods = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE']

export function createMetrics(version: string, runtime: string) {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  const metric = <Label extends string>(name: string, help: string, ...labelNames: Label[]) => {
    return { name: `registry_router_${name}`, help, labelNames, registers: [registry] }
  }
  /** Counted in a Map, of which prom-client hears when it is scraped: its own `inc` takes ten times as long. */
  const counter = (name: string, help: string, ...labelNames: string[]) => {
    const counts = new Map<string, number>()
    const told = new Counter({
      ...metric(name, help, ...labelNames),
      collect: () => {
        told.reset()
        for (const [labels, count] of counts) told.labels(...labels.split(' ')).inc(count)
      },
    })
    const add = (count: number, ...labels: (string | number)[]) => {
      const key = labels.join(' ')
      counts.set(key, (counts.get(key) ?? 0) + count)
    }
    return Object.assign(add, { counts })
  }
  const requests = counter('requests_total', 'Requests answered.', 'entity', 'method', 'status')
  const duration = new Histogram({
    ...metric('request_duration_seconds', "From a request's head to its answer's last byte.", 'entity', 'method'),
    buckets: requestBuckets,
  })
  const inFlight = new Gauge(metric('requests_in_flight', 'Requests whose answer is not yet sent whole.'))
  const bytesHelp = 'Bytes of bodies relayed whole, as far as told beforehand: push from clients, pull to them.'
  const transferred = counter('transfer_bytes_total', bytesHelp, 'upstream', 'direction')
  const askedHelp = 'Requests to a registry, by the verdict of its answer.'
  const asked = counter('upstream_requests_total', askedHelp, 'upstream', 'verdict')
  const firstByteHelp = "From asking a registry to its answer's head, GET and HEAD alone."
  const firstByte = new Histogram({
    ...metric('upstream_first_byte_seconds', firstByteHelp, 'upstream'),
    buckets: firstByteBuckets,
  })
  const up = new Gauge(metric('upstream_up', 'Whether the last answer came, and was not 502, 503 or 504.', 'upstream'))
  const skippedHelp = 'Whether it is skipped: it failed three times in a row, and no read since went well.'
  const skipped = new Gauge(metric('upstream_skipped', skippedHelp, 'upstream'))
  for (const upstream of ['proxy', 'hosted']) skipped.set({ upstream }, 0)
  const expiryHelp = 'When the certificate this router serves with ends, in seconds since 1970.'
  const expiry = new Gauge(metric('certificate_expiration_timestamp_seconds', expiryHelp))
  // Without a certificate there is none, rather than one that ended in 1970.
  expiry.remove()
  const memory = counter('memory_total', 'Uses of what was learned, by what was found.', 'kind', 'outcome')
  const copies = counter('copies_total', 'Layers copied from proxy to hosted for a push, by outcome.', 'outcome')
  const copied = new Counter(metric('copied_bytes_total', 'Bytes of layers that clients had not to upload.'))
  const logins = counter('logins_total', 'Logins here, by what came of them.', 'outcome')
  new Gauge(metric('build_info', 'Always 1.', 'version', 'runtime')).set({ version, runtime }, 1)

  return {
    /** What is counted of registries: `proxy absent`, `proxy pull`, and of the first bytes `proxy sum`, `proxy count`. */
    ofRegistries: async () => {
      const { values } = await firstByte.get()
      const times = values.map(
        (one) => [`${one.labels.upstream} ${one.metricName?.split('_').at(-1)}`, one.value] as const,
      )
      return new Map([...asked.counts, ...transferred.counts, ...times])
    },
    certified: (expires: Date) => expiry.set(expires.getTime() / 1000),
    text: () => registry.metrics(),
    contentType: registry.contentType,
    started: () => inFlight.inc(),
    finished: ({ entity, method, status, seconds, by, bytesIn, bytesOut }: RequestFacts) => {
      const known = methods.includes(method) ? method : 'other'
      inFlight.dec()
      requests(1, entity, known, status)
      duration.observe({ entity, method: known }, seconds)
      if (by && bytesIn) transferred(bytesIn, by, 'push')
      if (by && bytesOut) transferred(bytesOut, by, 'pull')
    },
    skips: (upstream: UpstreamName, open: boolean) => skipped.set({ upstream }, open ? 1 : 0),
    copied: (outcome: CopyOutcome, bytes: number) => {
      copies(1, outcome)
      if (outcome === 'mounted') copied.inc(bytes)
    },
    loggedIn: (outcome: string) => logins(1, outcome),
    remembered: (kind: string, outcome: string) => memory(1, kind, outcome),
    answered: ({ upstream, verdict, status, milliseconds }: Answer, read: boolean) => {
      asked(1, upstream, verdict)
      // A write's answer waits for its body, as long as the client sends.
      if (read) firstByte.observe({ upstream }, milliseconds / 1000)
      up.set({ upstream }, status < 502 || status > 504 ? 1 : 0)
    },
  }
}
