/** The whole service, put together from its parts. Importing this starts nothing. */
import { createAccess } from './access/access.ts'
import { withClient } from './access/client.ts'
import { type AppParts, createApp } from './app.ts'
import type { Config } from './config.ts'
import type { Log } from './log.ts'
import { Background } from './memory/background.ts'
import { Flights } from './memory/flights.ts'
import { Memory } from './memory/memory.ts'
import { createRegistries } from './registries.ts'
import { signed } from './registry/headers.ts'
import { Copier } from './relay/copier.ts'
import { type Explanation, explain } from './relay/explain.ts'
import type { Listed } from './relay/surroundings.ts'
import { warnOfRealm } from './relay/token.ts'
import { hostWarning } from './report/host.ts'
import { Metrics } from './report/metrics.ts'
import { Traffic } from './report/observe.ts'
import type { AtStart } from './report/page/notices.ts'
import { Page } from './report/page/page.ts'
import { Shortages } from './report/shortages.ts'
import { Budget } from './runtime/budget.ts'
import { Networks } from './runtime/networks.ts'
import type { Connection, Fetch } from './runtime/runtime.ts'

export interface Dependencies {
  fetch: Fetch
  /** Milliseconds, for measuring only. */
  now: () => number
  log: Log
  version: string
  /** Name and version of the runtime. */
  runtime: string
  /** What the page shows of the settings. */
  atStart?: AtStart
}

export interface Service {
  /** The app. `connection`: what the runtime knows besides; the app works without it. */
  handle: (request: Request, connection?: Connection) => Promise<Response>
  /** Where an image comes from, for a client without a login. */
  explain: (image: string) => Promise<Explanation | { refused: number; message: string }>
  /** Warns of what only a registry can tell. Never rejects. */
  examine: () => Promise<void>
  /** Tells the metrics and the page when the certificate in use ends. */
  certified: (expires: Date) => void
  /** Tells log and metrics that a client's connection was closed because of too many. `open`: how many were. */
  full: (open: number) => void
  /**
   * From now on `/livez` says 503, so that a balancer sends nothing more. Settles when all answers have left, all copies have
   * ended, and `delivered` has settled.
   */
  drain: (delivered: () => Promise<void>) => Promise<void>
}

export function createService(config: Config, dependencies: Dependencies): Service {
  const parts = assemble(config, dependencies)
  const { around, metrics, page, shortages, traffic } = parts
  const app = createApp(parts)
  const trustedProxies = new Networks(config.trustedProxies)
  return {
    handle: async (request, connection = {}) => app.fetch(request, withClient(connection, request, trustedProxies)),
    explain: (image) => explain(around, image, null, { request: new Request(config.aggregate), client: {} }),
    examine: () => warnOfRealm(around.registries.hosted, config, dependencies.log),
    certified: (expires) => {
      for (const one of [metrics, page]) one.certified(expires)
    },
    full: (open) => shortages.saw('connections', `${open}`),
    drain: (delivered) => {
      around.background.end()
      return traffic.drain(async () => {
        await around.copier.settled()
        await delivered()
      })
    },
  }
}

function assemble(config: Config, dependencies: Dependencies): AppParts & { shortages: Shortages } {
  const { now, log, version, runtime } = dependencies
  const fetch = signed(dependencies.fetch, version)
  const metrics = new Metrics(version, runtime, ['proxy', 'hosted', ...config.proxies.map(({ host }) => host)])
  const page = new Page(config, metrics, now, `${version} on ${runtime}`, dependencies.atStart)
  const shortages = new Shortages({ now, log, metrics })
  const budget = new Budget()
  const around = {
    settings: config,
    registries: createRegistries(config, { fetch, now, log, metrics, page, shortages }),
    memory: new Memory(config, budget, now, (kind, outcome) => metrics.remembered(kind, outcome)),
    background: new Background(),
    copier: new Copier(config, (outcome, bytes) => metrics.copied(outcome, bytes)),
    budget,
    lists: new Flights<Listed>(budget),
  }
  const access = createAccess(config, now, log, (outcome) => metrics.loggedIn(outcome))
  const warnOfHost = hostWarning(config.aggregate, log)
  return { settings: config, now, log, metrics, page, shortages, traffic: new Traffic(), access, around, warnOfHost }
}
