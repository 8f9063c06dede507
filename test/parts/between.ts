/** Starts a router between two scripted upstreams, for one test. */
import assert from 'node:assert/strict'
import { noPrivateName, noSecret } from './canary.ts'
import { send } from './client.ts'
import { type Router, startRouter, way } from './router.ts'
import type { Tls } from './schemes.ts'
import { type Script, type Scripted, scripted } from './scripted.ts'

export interface Between {
  proxy: Scripted
  hosted: Scripted
  router: Router
  url: string
  /** The current scripts: assign one to change what that upstream does from now on. */
  now: { proxy: Script; hosted: Script }
  /**
   * Stops the router and both upstreams. Throws if the router had already exited or had logged an error;
   * `expectExit` skips these two checks.
   */
  close: (expectExit?: boolean) => Promise<void>
}

/** For an `after` hook: closes what failed tests left open, which would keep the process running. */
export async function closeAll(): Promise<void> {
  for (const close of unclosed) await close(true)
}
const unclosed = new Set<Between['close']>()

/** The number of requests the router is still answering, without this request for its metrics. */
export async function inFlight(url: string): Promise<number> {
  const metrics = (await send(url, 'GET', '/metrics')).body.toString()
  return Number(/^registry_router_requests_in_flight (\d+)$/m.exec(metrics)?.[1]) - 1
}

/**
 * Starts the upstreams and the router. Its requests to the proxy are checked: no test password, no private name. Without NAME_TTL
 * the proxy hears only what a test asks. With `tls` all three serve https.
 */
export async function between(
  proxy: Script,
  hosted: Script,
  environment: Record<string, string> = {},
  tls?: Tls,
): Promise<Between> {
  const now = { proxy, hosted }
  const checkedProxy: Script = (request, response, recorded) => {
    const sent = JSON.stringify(recorded)
    noPrivateName('a request to the proxy', sent)
    // If the router logs in at the proxy, its password belongs there.
    const logsIn = environment.PROXY_USERNAME || environment.PROXY_CREDENTIALS_COMMAND
    if (!logsIn) noSecret('a request to the proxy', sent)
    now.proxy(request, response, recorded)
  }
  const upstreams = {
    proxy: await scripted(checkedProxy, tls?.certificate),
    hosted: await scripted((...args) => now.hosted(...args), tls?.certificate),
  }
  const address = ({ host }: Scripted) => (tls ? `https://${host}` : host)
  const hosts = { PROXY_HOSTNAME: address(upstreams.proxy), HOSTED_HOSTNAME: address(upstreams.hosted) }
  const router = await startRouter(way, { ...hosts, NAME_TTL: '0', ...tls?.settings, ...environment })
  for (const { requests } of Object.values(upstreams)) requests.length = 0
  const close = async (expectExit = false) => {
    unclosed.delete(close)
    const exited = router.child.exited()
    const metrics = exited ? '' : await send(router.url, 'GET', '/metrics').then(({ body }) => body.toString(), String)
    noSecret('the metrics', metrics)
    noPrivateName('the metrics', metrics)
    await upstreams.proxy.close()
    await upstreams.hosted.close()
    await router.stop('SIGKILL')
    if (expectExit) return
    assert.ok(!exited, 'the router ended')
    assert.deepEqual(router.odd(), [])
  }
  unclosed.add(close)
  return { ...upstreams, router, url: router.url, now, close }
}
