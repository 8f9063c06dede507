/** The whole service as one Hono app: the order of the middleware, and the routes. Importing this starts nothing. */
import { type Context, Hono } from 'hono'
import { HTTPException } from 'hono/http-exception'
import { match } from '../routing.ts'
import { type Access, createAccess, rightOf, tokenOf } from './access/access.ts'
import { withClient } from './access/client.ts'
import { isCrossSiteWrite } from './access/origin.ts'
import type { Config } from './config.ts'
import type { Log } from './log.ts'
import { Background } from './memory/background.ts'
import { Flights } from './memory/flights.ts'
import { Memory } from './memory/memory.ts'
import { createRegistries } from './registries.ts'
import { ociError, refusalOf } from './registry/errors.ts'
import { signed } from './registry/headers.ts'
import { isOwnCheck, loopError, loopStatus } from './registry/loop.ts'
import { Copier } from './relay/copier.ts'
import { type Explanation, explain } from './relay/explain.ts'
import { failure } from './relay/failure.ts'
import { isPublic } from './relay/plan.ts'
import { carryOut, ping } from './relay/relay.ts'
import type { Listed, Surroundings } from './relay/surroundings.ts'
import { relayToken, warnOfRealm } from './relay/token.ts'
import { healthOf } from './report/health.ts'
import { hostWarning } from './report/host.ts'
import { Metrics } from './report/metrics.ts'
import { type Env, observe, pathOf, queryOf, Traffic } from './report/observe.ts'
import type { AtStart } from './report/page/notices.ts'
import { Page, pageHeaders } from './report/page/page.ts'
import { Shortages } from './report/shortages.ts'
import { openerOf, respond } from './runtime/body.ts'
import { Budget, roomUntil } from './runtime/budget.ts'
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

/** The parts of a service. */
interface Parts extends Dependencies {
  config: Config
  metrics: Metrics
  page: Page
  shortages: Shortages
  traffic: Traffic
  access: Access
  around: Surroundings
  warnOfHost: ReturnType<typeof hostWarning>
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

function assemble(config: Config, dependencies: Dependencies): Parts {
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
  return { ...dependencies, config, metrics, page, shortages, traffic: new Traffic(), access, around, warnOfHost }
}

function createApp(parts: Parts): Hono<Env> {
  const { config, log } = parts
  // Hono's own getPath would decode the escapes.
  const app = new Hono<Env>({ getPath: ({ url }) => pathOf(url) })
  app.use(observe(parts))
  app.use((c, next) => (isCrossSiteWrite(c.req.raw, config) ? foreign(c) : next()))
  app.get('/livez', (c) => livez(c, parts))
  app.get('/', (c, next) => (c.req.raw.headers.get('Accept')?.includes('text/html') ? page(c, parts) : next()))
  app.get('/healthcheck', (c) => healthcheck(c, parts))
  app.get('/metrics', (c) => metrics(c, parts))
  app.get('/explain', (c) => explanation(c, parts))
  if (config.anonymousPull !== 'false') app.get('/v2/token', (c) => token(c, parts))
  if (config.passLogin) app.on(['GET', 'POST'], '/v2/token', (c) => tokenOfHosted(c, parts))
  app.all('*', (c) => api(c, parts))
  app.onError((error, c) => {
    const { method } = c.req.raw
    if (error instanceof HTTPException)
      return ociError(method, error.status, { code: 'UNSUPPORTED', message: error.message })
    log('error', 'internal error', { cause: error.message, stack: error.stack })
    return ociError(method, 500, { code: 'UNKNOWN', message: 'internal error' })
  })
  return app
}

async function foreign(c: Context<Env>): Promise<Response> {
  return ociError(c.req.raw.method, 403, { code: 'DENIED', message: 'a web page of another site may not write here' })
}

const json = (value: unknown, status: number, fields: Record<string, string> = {}) =>
  respond(JSON.stringify(value), { status, headers: { 'Content-Type': 'application/json', ...fields } })

function livez(c: Context<Env>, { traffic }: Parts): Response {
  c.get('facts').entity = 'livez'
  return json({ status: traffic.isDraining ? 'draining' : 'live' }, traffic.isDraining ? 503 : 200)
}

async function page(c: Context<Env>, parts: Parts): Promise<Response> {
  c.get('facts').entity = 'page'
  const refusal = await admit(c, parts)
  if (refusal) return refusal
  const { around } = parts
  const { raw } = c.req
  const { image = '', ns = null } = c.req.query()
  const from = askerOf(c, around)
  const [explanation, ...pings] = await Promise.all([
    image ? explain(around, image.trim(), ns, from) : undefined,
    ...registriesOf(parts).map((one) => ping(around, one, raw, from.client)),
  ])
  const text = await parts.page.text({ pings, image, explanation, hasLogin: raw.headers.has('Authorization') })
  return respond(`${text}`, { headers: { 'Content-Type': 'text/html; charset=UTF-8', ...pageHeaders } })
}

const registriesOf = ({ around }: Parts) => [...around.registries.byName.values()]

async function healthcheck(c: Context<Env>, parts: Parts): Promise<Response> {
  c.get('facts').entity = 'healthcheck'
  const { statuses, isWell } = await healthOf(registriesOf(parts), c.req.raw.signal)
  return json(statuses, isWell ? 200 : 503)
}

async function metrics(c: Context<Env>, { metrics }: Parts): Promise<Response> {
  c.get('facts').entity = 'metrics'
  return respond(await metrics.text(), { headers: { 'Content-Type': metrics.contentType } })
}

async function explanation(c: Context<Env>, parts: Parts): Promise<Response> {
  c.get('facts').entity = 'explain'
  const refusal = await admit(c, parts)
  if (refusal) return refusal
  const { image = '', ns = null } = c.req.query()
  const explained = await explain(parts.around, image, ns, askerOf(c, parts.around))
  return 'refused' in explained ? refusalOf('GET', explained) : json(explained, 200)
}

/** The realm of this router's own challenge (distribution, "Token Authentication Specification"). */
async function token(c: Context<Env>, parts: Parts): Promise<Response> {
  c.get('facts').entity = 'token'
  const { user, refusal } = await parts.access(c.req.raw, 'read', c.env.address)
  c.get('facts').user = user
  return refusal ?? json({ token: tokenOf(c.req.raw) }, 200, { 'Cache-Control': 'no-store' })
}

/** The realm of hosted, for clients that have their login there. */
async function tokenOfHosted(c: Context<Env>, parts: Parts): Promise<Response> {
  c.get('facts').entity = 'token'
  const relayed = await relayToken(parts.around.registries.hosted, c.req.raw, clientOf(c))
  return relayed ?? api(c, parts)
}

/** Everything of the registry API. */
async function api(c: Context<Env>, { access, around, config, warnOfHost }: Parts): Promise<Response> {
  const request = c.req.raw
  const { method } = request
  const { path } = c.req
  const query = queryOf(request.url)
  if (isOwnCheck(request, config.aggregate.host)) return ociError(method, loopStatus, loopError)
  warnOfHost(request)
  if (path === '/v2') return new Response(null, { status: 301, headers: { Location: `/v2/${query}` } })
  const matched = match(method, path)
  if ('refused' in matched) return refusalOf(method, matched)
  const facts = c.get('facts')
  facts.matched = matched
  facts.entity = matched.route.entity
  const right = rightOf(method, matched, config.anonymousPull === 'public' && isPublic(config, method, matched, query))
  const { user, refusal } = await access(request, right, c.env.address)
  facts.user = user
  if (refusal) return refusal
  const { client, room } = askerOf(c, around)
  const outcome = await carryOut(around, { request, client, room, matched, query, openBody: openerOf(request, c.env) })
  facts.outcome = outcome
  return outcome.response
}

/** The request, who sent it, and the room for what it needs whole. */
const askerOf = (c: Context<Env>, { budget }: Surroundings) => ({
  request: c.req.raw,
  client: clientOf(c),
  room: roomUntil(c.env.sent, budget),
})

const clientOf = (c: Context<Env>) => ({ address: c.env.address, peer: c.env.peer, id: c.get('facts').id })

/** Refuses a client that may not know what this router knows. If logins are hosted's to check, hosted is asked. */
async function admit(c: Context<Env>, { access, around, config }: Parts): Promise<Response | undefined> {
  const { raw } = c.req
  const { user, refusal } = await access(raw, 'write', c.env.address)
  c.get('facts').user = user
  if (refusal || !config.passLogin) return refusal
  const hosted = await ping(around, around.registries.hosted, raw, clientOf(c))
  return [401, 403].includes(hosted.status) ? failure('GET', 'base', [hosted]) : undefined
}
