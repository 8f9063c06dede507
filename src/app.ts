/** The Hono app: the order of the middleware, the routes, and what each of them answers. */
import { type Context, Hono } from 'hono'
import { HTTPException } from 'hono/http-exception'
import { match, routes } from '../routing.ts'
import { type Access, type AccessSettings, rightOf, tokenOf } from './access/access.ts'
import { isCrossSiteWrite, type OriginSettings } from './access/origin.ts'
import { ociError, refusalOf } from './registry/errors.ts'
import { isOwnCheck, loopError, loopStatus } from './registry/loop.ts'
import { explain } from './relay/explain.ts'
import { failure } from './relay/failure.ts'
import { isPublic } from './relay/plan.ts'
import { carryOut, ping } from './relay/relay.ts'
import type { Surroundings } from './relay/surroundings.ts'
import { relayToken } from './relay/token.ts'
import { healthOf } from './report/health.ts'
import type { hostWarning } from './report/host.ts'
import { type Env, type Observers, observe, pathOf, queryOf } from './report/observe.ts'
import { pageHeaders } from './report/page/page.ts'
import { openerOf, respond } from './runtime/body.ts'
import { roomUntil } from './runtime/budget.ts'
import { isRead } from './runtime/runtime.ts'

interface AppSettings extends OriginSettings, Pick<AccessSettings, 'anonymousPull'> {
  /** Whether logins are hosted's to check. */
  passLogin: boolean
}

export interface AppParts extends Observers {
  settings: AppSettings
  access: Access
  around: Surroundings
  warnOfHost: ReturnType<typeof hostWarning>
}

export function createApp(parts: AppParts): Hono<Env> {
  const { settings, log } = parts
  // Hono's own getPath would decode the escapes.
  const app = new Hono<Env>({ getPath: ({ url }) => pathOf(url) })
  app.use(observe(parts))
  app.on(writes, '*', (c, next) => (isCrossSiteWrite(c.req.raw, settings) ? foreign(c) : next()))
  app.get('/livez', (c) => livez(c, parts))
  app.get('/', (c, next) => (c.req.raw.headers.get('Accept')?.includes('text/html') ? page(c, parts) : next()))
  app.get('/healthcheck', (c) => healthcheck(c, parts))
  app.get('/metrics', (c) => metrics(c, parts))
  app.get('/explain', (c) => explanation(c, parts))
  if (settings.anonymousPull !== 'false') app.get('/v2/token', (c) => token(c, parts))
  if (settings.passLogin) app.on(['GET', 'POST'], '/v2/token', (c) => tokenOfHosted(c, parts))
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

/** The methods that change anything: the route table has no others. */
const writes = [...new Set(routes.flatMap(({ methods }) => methods))].filter((method) => !isRead({ method }))

async function foreign(c: Context<Env>): Promise<Response> {
  return ociError(c.req.raw.method, 403, { code: 'DENIED', message: 'a web page of another site may not write here' })
}

const json = (value: unknown, status: number, fields: Record<string, string> = {}) =>
  respond(JSON.stringify(value), { status, headers: { 'Content-Type': 'application/json', ...fields } })

function livez(c: Context<Env>, { traffic }: AppParts): Response {
  c.get('facts').entity = 'livez'
  return json({ status: traffic.isDraining ? 'draining' : 'live' }, traffic.isDraining ? 503 : 200)
}

async function page(c: Context<Env>, parts: AppParts): Promise<Response> {
  c.get('facts').entity = 'page'
  const refusal = await admit(c, parts)
  if (refusal) return refusal
  const { around } = parts
  const { raw } = c.req
  const { image = '', ns = null } = c.req.query()
  const from = askerOf(c, around)
  const stranger = new Request(raw.url, { headers: { Accept: 'text/html' }, signal: raw.signal })
  const [explanation, ofStranger, ...pings] = await Promise.all([
    image ? explain(around, image.trim(), ns, from) : undefined,
    ping(around, around.registries.hosted, stranger, from.client),
    ...registriesOf(parts).map((one) => ping(around, one, raw, from.client)),
  ])
  const hasLogin = raw.headers.has('Authorization')
  const text = await parts.page.text({ pings, ofStranger, image, explanation, hasLogin })
  return respond(`${text}`, { headers: { 'Content-Type': 'text/html; charset=UTF-8', ...pageHeaders } })
}

const registriesOf = ({ around }: AppParts) => [...around.registries.byName.values()]

async function healthcheck(c: Context<Env>, parts: AppParts): Promise<Response> {
  c.get('facts').entity = 'healthcheck'
  const { statuses, isWell } = await healthOf(registriesOf(parts), c.req.raw.signal)
  return json(statuses, isWell ? 200 : 503)
}

async function metrics(c: Context<Env>, { metrics }: AppParts): Promise<Response> {
  c.get('facts').entity = 'metrics'
  return respond(await metrics.text(), { headers: { 'Content-Type': metrics.contentType } })
}

async function explanation(c: Context<Env>, parts: AppParts): Promise<Response> {
  c.get('facts').entity = 'explain'
  const refusal = await admit(c, parts)
  if (refusal) return refusal
  const { image = '', ns = null } = c.req.query()
  const explained = await explain(parts.around, image, ns, askerOf(c, parts.around))
  return 'refused' in explained ? refusalOf('GET', explained) : json(explained, 200)
}

/**
 * The realm of this router's own challenge (distribution, "Token Authentication Specification"). Who has no login gets a token that opens
 * what is open to all: which that is, each request decides.
 */
async function token(c: Context<Env>, parts: AppParts): Promise<Response> {
  c.get('facts').entity = 'token'
  const { user, refusal } = await parts.access(c.req.raw, 'public', c.env.address)
  c.get('facts').user = user
  return refusal ?? json({ token: tokenOf(c.req.raw) }, 200, { 'Cache-Control': 'no-store' })
}

/** The realm of hosted, for clients that have their login there. */
async function tokenOfHosted(c: Context<Env>, parts: AppParts): Promise<Response> {
  c.get('facts').entity = 'token'
  const relayed = await relayToken(parts.around.registries.hosted, c.req.raw, clientOf(c))
  return relayed ?? api(c, parts)
}

/** Everything of the registry API. */
async function api(c: Context<Env>, { access, around, settings, warnOfHost }: AppParts): Promise<Response> {
  const request = c.req.raw
  const { method } = request
  const { path } = c.req
  const query = queryOf(request.url)
  if (isOwnCheck(request, settings.aggregate.host)) return ociError(method, loopStatus, loopError)
  warnOfHost(request)
  if (path === '/v2') return new Response(null, { status: 301, headers: { Location: `/v2/${query}` } })
  const matched = match(method, path)
  if ('refused' in matched) return refusalOf(method, matched)
  const facts = c.get('facts')
  facts.matched = matched
  facts.entity = matched.route.entity
  const right = rightOf(
    method,
    matched,
    settings.anonymousPull === 'public' && isPublic(around.settings, method, matched, query),
  )
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
async function admit(c: Context<Env>, { access, around, settings }: AppParts): Promise<Response | undefined> {
  const { raw } = c.req
  const { user, refusal } = await access(raw, 'write', c.env.address)
  c.get('facts').user = user
  if (refusal || !settings.passLogin) return refusal
  const hosted = await ping(around, around.registries.hosted, raw, clientOf(c))
  return [401, 403].includes(hosted.status) ? failure('GET', 'base', [hosted]) : undefined
}
