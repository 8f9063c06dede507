/** Counters and histograms in Prometheus' text format; every label has few values, and no client controls one. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import type { UpstreamName } from '../routing.ts'
import type { Traffic } from './relay.ts'
import type { Answer } from './upstream.ts'

export interface RequestFacts {
  entity: string
  method: string
  status: number
  seconds: number
  by?: UpstreamName
  traffic?: Traffic
}

export type Metrics = ReturnType<typeof createMetrics>

/** From a manifest kept in memory to a layer over a slow line, in seconds. */
const requestBuckets = [0.005, 0.02, 0.1, 0.5, 2, 10, 60, 300, 1800]
const firstByteBuckets = [0.002, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60]
const methods = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE']

export function createMetrics(version: string, runtime: string) {
  const registers = [new Registry()]
  const registry = registers[0] as Registry
  collectDefaultMetrics({ register: registry })
  const name = (end: string) => `registry_router_${end}`
  const requests = new Counter({
    name: name('requests_total'),
    help: 'Requests answered.',
    labelNames: ['entity', 'method', 'status'],
    registers,
  })
  const duration = new Histogram({
    name: name('request_duration_seconds'),
    help: 'From the head of a request to the last byte of its answer.',
    labelNames: ['entity', 'method'],
    buckets: requestBuckets,
    registers,
  })
  const inFlight = new Gauge({
    name: name('requests_in_flight'),
    help: 'Requests whose answer is not yet sent whole.',
    registers,
  })
  const transferred = new Counter({
    name: name('transfer_bytes_total'),
    help: 'Bytes of the bodies relayed: push from clients, pull to clients.',
    labelNames: ['direction', 'upstream'],
    registers,
  })
  const asked = new Counter({
    name: name('upstream_requests_total'),
    help: 'Requests to a registry, by the verdict of its answer.',
    labelNames: ['upstream', 'verdict'],
    registers,
  })
  const firstByte = new Histogram({
    name: name('upstream_first_byte_seconds'),
    help: 'From asking a registry to the head of its answer, failures included.',
    labelNames: ['upstream'],
    buckets: firstByteBuckets,
    registers,
  })
  const up = new Gauge({
    name: name('upstream_up'),
    help: 'Whether the last answer of a registry was none of the verdict failed.',
    labelNames: ['upstream'],
    registers,
  })
  new Gauge({ name: name('build_info'), help: 'Always 1.', labelNames: ['version', 'runtime'], registers })
    .labels({ version, runtime })
    .set(1)

  return {
    text: () => registry.metrics(),
    contentType: registry.contentType,
    started: () => inFlight.inc(),
    finished: ({ entity, method, status, seconds, by, traffic }: RequestFacts) => {
      const known = methods.includes(method) ? method : 'other'
      inFlight.dec()
      requests.inc({ entity, method: known, status })
      duration.observe({ entity, method: known }, seconds)
      if (by && traffic?.received) transferred.inc({ direction: 'push', upstream: by }, traffic.received)
      if (by && traffic?.sent) transferred.inc({ direction: 'pull', upstream: by }, traffic.sent)
    },
    answered: ({ upstream, verdict, milliseconds }: Answer) => {
      asked.inc({ upstream, verdict })
      firstByte.observe({ upstream }, milliseconds / 1000)
      up.set({ upstream }, verdict === 'failed' ? 0 : 1)
    },
  }
}
