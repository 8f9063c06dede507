/** A router of its own between two scripted upstreams. */
import assert from 'node:assert/strict'
import { noPrivateName, noSecret } from './canary.ts'
import { send } from './client.ts'
import { type Router, startRouter, way } from './router.ts'
import { type Script, type Scripted, scripted } from './scripted.ts'

export interface Between {
  proxy: Scripted
  hosted: Scripted
  router: Router
  url: string
  /** What the two do from now on. */
  now: { proxy: Script; hosted: Script }
  /** Ends all three; fails where the router ended before, or logged an error, unless it was meant to. */
  close: (meantToEnd?: boolean) => Promise<void>
}

/** What a failed test leaves open would keep its process from ending: for an `after`. */
export async function closeAll(): Promise<void> {
  for (const close of unclosed) await close(true)
}
const unclosed = new Set<Between['close']>()

/** Requests that a router has not yet answered whole, the question for it aside. */
export async function inFlight(url: string): Promise<number> {
  const metrics = (await send(url, 'GET', '/metrics')).body.toString()
  return Number(/^registry_router_requests_in_flight (\d+)$/m.exec(metrics)?.[1]) - 1
}

export async function between(
  proxy: Script,
  hosted: Script,
  environment: Record<string, string> = {},
): Promise<Between> {
  const now = { proxy, hosted }
  const guarded: Script = (request, response, recorded) => {
    const sent = JSON.stringify(recorded)
    noPrivateName('a request to the proxy', sent)
    // A login of the router's own at the proxy is meant for it.
    if (!environment.PROXY_USERNAME) noSecret('a request to the proxy', sent)
    now.proxy(request, response, recorded)
  }
  const upstreams = { proxy: await scripted(guarded), hosted: await scripted((...given) => now.hosted(...given)) }
  const hosts = { PROXY_HOSTNAME: upstreams.proxy.host, HOSTED_HOSTNAME: upstreams.hosted.host }
  const router = await startRouter(way, { ...hosts, ...environment })
  const close = async (meantToEnd = false) => {
    unclosed.delete(close)
    const ended = router.child.exited()
    const metrics = ended ? '' : await send(router.url, 'GET', '/metrics').then(({ body }) => body.toString(), String)
    noSecret('the metrics', metrics)
    noPrivateName('the metrics', metrics)
    await upstreams.proxy.close()
    await upstreams.hosted.close()
    await router.stop('SIGKILL')
    if (meantToEnd) return
    assert.ok(!ended, 'the router ended')
    assert.deepEqual(router.odd(), [])
  }
  unclosed.add(close)
  return { ...upstreams, router, url: router.url, now, close }
}
