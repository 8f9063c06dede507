/** The whole service as one Hono app: observe -> match -> access -> relay. Importing this starts nothing. */
import { type Context, Hono } from 'hono'
import { HTTPException } from 'hono/http-exception'
import { type Match, match, type UpstreamName } from '../routing.ts'
import { createAccess, rightOf, tokenOf } from './access.ts'
import type { Config } from './config.ts'
import { createCopier } from './copy.ts'
import { ociError, refusalOf } from './errors.ts'
import { createExplain } from './explain.ts'
import { failure, told } from './failure.ts'
import { hasBody, signed } from './headers.ts'
import type { Log } from './log.ts'
import { withLogin } from './login.ts'
import { createMemory } from './memory.ts'
import { createMetrics } from './metrics.ts'
import { createPage, pageHeaders } from './page.ts'
import { createRelay, isUp, type Outcome } from './relay.ts'
import type { Connection, Fetch } from './runtime.ts'
import { type Ask, createUpstream, discard, leaving } from './upstream.ts'

export interface Dependencies {
  fetch: Fetch
  /** Milliseconds, for measuring alone. */
  now: () => number
  log: Log
  version: string
  /** Name and version of the runtime. */
  runtime: string
}

type Env = { Bindings: Connection; Variables: { entity?: string; matched?: Match; outcome?: Outcome } }

export function createService(config: Config, { now, log, version, runtime, ...deps }: Dependencies) {
  const fetch = signed(deps.fetch, version)
  const metrics = createMetrics(version, runtime)
  const ask = { proxy: upstream('proxy'), hosted: upstream('hosted') }
  const memory = createMemory(config, now, metrics.remembered)
  const access = createAccess(config, now, log, metrics.loggedIn)
  const copier = createCopier(config, metrics.copied)
  const relay = createRelay(config, ask, memory, copier)
  const explain = createExplain(config, memory, relay)
  const page = createPage(config, metrics, now, `${version} on ${runtime}`)
  let inFlight = 0
  let draining = false
  let onIdle = () => {}

  function upstream(name: UpstreamName): Ask {
    const login = config[`${name}Login`]
    const ofUpstream: Log = (level, message, fields) => log(level, message, { upstream: name, ...fields })
    return createUpstream(name, config, {
      fetch: name === 'proxy' || login ? withLogin(fetch, login, config[`${name}Timeout`], now, ofUpstream) : fetch,
      now,
      onAnswer: (answer, read, cause) => {
        metrics.answered(answer, read)
        if (cause) ofUpstream('warn', 'no usable answer', { reason: answer.reason, cause })
      },
      onBreaker: (open) => {
        page.skipped[name] = open
        metrics.skips(name, open)
        ofUpstream('warn', open ? 'skipped until it is well again' : 'well again')
      },
    })
  }

  // Hono's own would read every escape.
  const app = new Hono<Env>({ getPath: ({ url }) => pathOf(url).path })

  app.use(async (c, next) => {
    const started = now()
    const { method, headers } = c.req.raw
    const given = headers.get('X-Request-Id') ?? ''
    const id = /^[\w.:=+/-]{1,128}$/.test(given) ? given : crypto.randomUUID()
    inFlight++
    metrics.started()
    c.env.id = id
    await next()
    c.res.headers.set('X-Request-Id', id)
    // Older clients take an address for a registry only where this field says so.
    c.res.headers.set('Docker-Distribution-Api-Version', 'registry/2.0')
    // The rest of a refused upload would be taken for the next request.
    // And whoever hears so while this drains asks elsewhere next.
    if (draining || (c.res.status >= 400 && hasBody(c.req.raw))) c.res.headers.set('Connection', 'close')
    const finish = (sent: boolean) => {
      inFlight--
      if (inFlight === 0) onIdle()
      const entity = c.get('entity') ?? 'other'
      const outcome = c.get('outcome')
      const { by, answers } = outcome ?? {}
      const milliseconds = now() - started
      const { status } = c.res
      const complete = sent && status !== 499
      const bytesIn = complete ? outcome?.bytesIn : undefined
      const bytesOut = complete ? outcome?.bytesOut : undefined
      metrics.finished({ entity, method, status, seconds: milliseconds / 1000, by, bytesIn, bytesOut })
      const matched = c.get('matched')
      const { name, reference, digest } = matched ?? {}
      const { path, query } = pathOf(c.req.url)
      const asked = answers && told(answers)
      page.saw({ method, path, query, matched, status, asked, sent, login: headers.has('Authorization') })
      log(entity === 'livez' || entity === 'metrics' ? 'debug' : 'info', 'request', {
        id,
        method,
        path,
        entity,
        name,
        reference: reference ?? digest,
        status,
        by,
        asked,
        milliseconds: Math.round(milliseconds),
        bytesIn,
        bytesOut,
        complete,
        client: c.env.address,
        user: c.env.user,
      })
    }
    if (c.env.sent) c.env.sent.then(finish)
    else finish(true)
  })

  app.get('/livez', (c) => {
    c.set('entity', 'livez')
    return c.json({ status: draining ? 'draining' : 'live' }, draining ? 503 : 200)
  })

  app.get('/', async (c, next) => {
    const { raw } = c.req
    if (!raw.headers.get('Accept')?.includes('text/html')) return next()
    c.set('entity', 'page')
    const refusal = await admit(c)
    if (refusal) return refusal
    const { image = '', ns = null } = c.req.query()
    const [explanation, proxy, hosted] = await Promise.all([
      image ? explain(image.trim(), ns, raw, c.env) : undefined,
      relay.ping('proxy', raw, c.env),
      relay.ping('hosted', raw, c.env),
    ])
    // Where the login is hosted's, and hosted cannot say whose this is, it may be a stranger's.
    const known = !config.passLogin || hosted.status === 200
    return c.html(await page.text({ proxy, hosted, image, explanation, known }), 200, pageHeaders)
  })

  app.get('/healthcheck', async (c) => {
    c.set('entity', 'healthcheck')
    const ping = (name: UpstreamName) => {
      const headers = { 'accept-encoding': 'identity' }
      const abort = leaving(c.req.raw.signal)
      return ask[name]({ method: 'GET', target: '/v2/', headers, abort, readError: true, always: true })
    }
    const [proxy, hosted] = await Promise.all([ping('proxy'), ping('hosted')])
    for (const answer of [proxy, hosted]) discard(answer)
    return c.json({ proxy: proxy.status, hosted: hosted.status }, isUp(proxy) && isUp(hosted) ? 200 : 503)
  })

  app.get('/metrics', async (c) => {
    c.set('entity', 'metrics')
    return c.body(await metrics.text(), 200, { 'Content-Type': metrics.contentType })
  })

  app.get('/explain', async (c) => {
    c.set('entity', 'explain')
    const refusal = await admit(c)
    if (refusal) return refusal
    const { image = '', ns = null } = c.req.query()
    const explanation = await explain(image, ns, c.req.raw, c.env)
    return 'refused' in explanation ? refusalOf('GET', explanation) : c.json(explanation)
  })

  if (config.anonymousPull) {
    app.get('/v2/token', async (c) => {
      c.set('entity', 'token')
      const refusal = await access(c.req.raw, 'read', c.env)
      return refusal ?? c.json({ token: tokenOf(c.req.raw) }, 200, { 'Cache-Control': 'no-store' })
    })
  }

  app.all('*', async (c) => {
    const { path, query } = pathOf(c.req.url)
    const { method } = c.req.raw
    if (path === '/v2') return c.redirect(`/v2/${query}`, 301)
    const matched = match(method, path)
    if ('refused' in matched) return refusalOf(method, matched)
    c.set('matched', matched)
    c.set('entity', matched.route.entity)
    const refusal = await access(c.req.raw, rightOf(method, matched), c.env)
    if (refusal) return refusal
    const outcome = await relay.carryOut(c.req.raw, { matched, query }, c.env)
    c.set('outcome', outcome)
    c.env.body = outcome.body
    return outcome.response
  })

  app.onError((error, c) => {
    const { method } = c.req.raw
    if (error instanceof HTTPException)
      return ociError(method, error.status, { code: 'UNSUPPORTED', message: error.message })
    log('error', 'internal error', { cause: error.message, stack: error.stack })
    return ociError(method, 500, { code: 'UNKNOWN', message: 'internal error' })
  })

  /** Refuses who may not know what this router knows: where the login is hosted's, hosted is asked. */
  async function admit(c: Context<Env>): Promise<Response | undefined> {
    const { raw } = c.req
    const refusal = await access(raw, 'write', c.env)
    if (refusal || !config.passLogin) return refusal
    const hosted = await relay.ping('hosted', raw, c.env)
    return [401, 403].includes(hosted.status) ? failure('GET', 'base', [hosted]) : undefined
  }

  return {
    /** Why an image comes from where it comes, without a login. */
    explain: (image: string) => explain(image, null, new Request(config.aggregate), {}),
    handle: (request: Request, connection: Connection) => app.fetch(request, connection),
    /** Tells the metrics when the certificate ends that is in use from now on. */
    certified: metrics.certified,
    /**
     * From now on `/livez` says 503, so that a balancer sends nothing more. Settles when the last answer is `delivered` and
     * the last copy has ended.
     */
    drain: async (delivered: () => Promise<void>): Promise<void> => {
      draining = true
      // On a connection that is there, the next request may come as the last answer goes.
      do {
        if (inFlight > 0) {
          await new Promise<void>((resolve) => {
            onIdle = resolve
          })
        }
        await copier.settled()
        await delivered()
      } while (inFlight > 0)
    },
  }
}

/** Path and query as they came: a URL object would escape what the grammar is to see. */
function pathOf(url: string): { path: string; query: string } {
  const [, path = '/', query = ''] = /^[a-z]+:\/\/[^/?#]*([^?#]*)(\?[^#]*)?/i.exec(url) ?? []
  return { path, query }
}
