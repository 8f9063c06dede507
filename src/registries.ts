/** Builds the registries from the configuration: the only place that knows what each of them is given. */
import type { Config } from './config.ts'
import type { Log } from './log.ts'
import { type Login, withLogin } from './registry/login.ts'
import { type RegistryOptions, RemoteRegistry } from './registry/registry.ts'
import type { Registries } from './relay/exchange.ts'
import type { Metrics } from './report/metrics.ts'
import type { Page } from './report/page.ts'
import type { Fetch } from './runtime/runtime.ts'

interface Surroundings {
  fetch: Fetch
  /** Milliseconds. */
  now: () => number
  log: Log
  metrics: Metrics
  page: Page
}

export function createRegistries(config: Config, around: Surroundings): Registries {
  const { blobTimeout, writeTimeout, aggregate: router, proxyTimeout: readTimeout } = config
  const common = { blobTimeout, writeTimeout, router, followsBlobs: config.blobRedirects === 'follow', prefix: '' }
  const publicOnes = { ...common, role: 'public', readTimeout, forwardsLogin: false } as const
  const proxy = create(
    { ...publicOnes, name: 'proxy', address: config.proxy, path: pathOf(config.proxy) },
    config.proxyLogin,
    around,
  )
  const hosted = create(
    {
      ...common,
      name: 'hosted',
      role: 'hosted',
      address: config.hosted,
      path: pathOf(config.hosted),
      readTimeout: config.hostedTimeout,
      // With HTPASSWD_FILE it gets the router's own login, or none.
      forwardsLogin: config.passLogin,
    },
    config.hostedLogin,
    around,
  )
  const others = config.proxies.map(({ host, address }) =>
    create({ ...publicOnes, name: host, address, path: pathOf(address), prefix: `/${host}` }, undefined, around),
  )
  return { hosted, proxy, byName: new Map([proxy, hosted, ...others].map((one) => [one.name, one])) }
}

/** The path before every name at an address, from its first slash on; or empty. */
const pathOf = ({ pathname }: URL) => pathname.replace(/\/$/, '')

function create(options: RegistryOptions, login: Login | undefined, around: Surroundings): RemoteRegistry {
  const { name, role, readTimeout } = options
  const { now, metrics, page } = around
  const log: Log = (level, message, fields) => around.log(level, message, { upstream: name, ...fields })
  const routerHost = options.router.host
  // Public registries give anonymous tokens, so their challenges are answered even without a login.
  const isAnswered = login !== undefined || role === 'public'
  return new RemoteRegistry(options, {
    fetch: isAnswered ? withLogin(around.fetch, { login, readTimeout, routerHost, now, log }) : around.fetch,
    fetchElsewhere: around.fetch,
    now,
    onAnswer: (answer, isRead, cause) => {
      metrics.answered(answer, isRead)
      if (cause) log('warn', 'no usable answer', { reason: answer.reason, cause })
    },
    onBreaker: (isOpen) => {
      page.skips(name, isOpen)
      metrics.skips(name, isOpen)
      log('warn', isOpen ? 'skipped until it is well again' : 'well again')
    },
  })
}
