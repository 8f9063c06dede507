/** Tells of what this machine ran out of: a metric each time, a log line once a minute. */
import type { Log } from '../log.ts'
import type { Resource } from '../runtime/shortage.ts'
import type { Metrics } from './metrics.ts'

/** Between two lines about the same resource. */
const quietMs = 60_000

const remedies: Readonly<Record<Resource, string>> = {
  files: 'raise ulimit -n',
  ports: 'widen net.ipv4.ip_local_port_range',
  memory: 'look for clients that read slowly',
  connections: 'raise ulimit -n, or look for the client that opens so many',
}

interface Observers {
  /** Milliseconds. */
  now: () => number
  log: Log
  metrics: Pick<Metrics, 'ranOut'>
}

export class Shortages {
  readonly #observers: Observers
  readonly #quietUntil = new Map<Resource, number>()

  constructor(observers: Observers) {
    this.#observers = observers
  }

  saw(resource: Resource, cause: string): void {
    const { now, log, metrics } = this.#observers
    metrics.ranOut(resource)
    if (now() < (this.#quietUntil.get(resource) ?? Number.NEGATIVE_INFINITY)) return
    this.#quietUntil.set(resource, now() + quietMs)
    log('warn', 'a resource ran out', { resource, cause, remedy: remedies[resource] })
  }
}
