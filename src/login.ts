/** This router's own login at a registry: Basic, or Bearer by the token flow, anonymous where it has no password. */
import { LRUCache } from 'lru-cache'
import { readOciError } from './errors.ts'
import { challengesOf } from './headers.ts'
import type { Fetch, Fields } from './runtime.ts'

export interface Login {
  username: string
  password: string
}

/** The registry, or the realm it sends to, wants another login than this router has. Neither is down. */
export class LoginRefused extends Error {}

/** Seconds a token lives where its realm does not say (distribution, "Token Authentication Specification"). */
const shortestLife = 60
/** Milliseconds until a refused login is tried anew. */
const refusalTime = 60_000
const realmTimeout = 15_000

/**
 * A fetch that answers the registry's challenges. It rejects with `LoginRefused` where the
 * login is not taken, and with what `fetch` rejects where a realm cannot be asked. A 401 after a token was granted is
 * the registry's answer: public ones say so of what does not exist.
 */
export function withLogin(fetch: Fetch, login: Login | undefined, now: () => number): Fetch {
  const granted = new LRUCache<string, string>({ max: 10_000, ttl: 1, ttlResolution: 0, perf: { now } })
  const asked = new Map<string, Promise<string>>()
  const basic =
    login && `Basic ${btoa(String.fromCharCode(...new TextEncoder().encode(`${login.username}:${login.password}`)))}`
  let refused: { until: number; reason: string } | undefined

  return async (url, init, fresh) => {
    if (refused && now() < refused.until) throw new LoginRefused(refused.reason)
    // Tokens are for a repository, and reading or writing; what is of no repository shares its own.
    const writes = !['GET', 'HEAD'].includes(init.method ?? '')
    const [, base = '', name = ''] = /^(.*\/v2\/)(?:(.*)\/(?:manifests|blobs|tags|referrers)\/)?/.exec(url) ?? []
    const repository = `${writes ? 'write' : 'read'} ${name}`
    if (init.body && !granted.has(repository)) await introduce(base, name, repository)
    const send = (authorization: string | undefined) => {
      if (authorization) init.headers.authorization = authorization
      return fetch(url, init, fresh)
    }
    const known = granted.get(repository)
    const response = await send(known)
    if (response.status !== 401) return response
    const challenge = challengesOf(response.headers.get('WWW-Authenticate') ?? '').map(parse)
    const bearer = challenge.find(({ scheme }) => scheme === 'bearer')
    if (bearer) {
      readOciError(response)
      granted.delete(repository)
      const token = await waitFor(tokenOf(repository, bearer, new URL(url).origin), init.signal)
      return send(`Bearer ${token}`)
    }
    if (!basic || !challenge.some(({ scheme }) => scheme === 'basic')) return response
    readOciError(response)
    if (known === basic) throw refuse('the registry refuses its password')
    const again = await send(basic)
    if (again.status === 401) throw refuse('the registry refuses its password')
    granted.set(repository, basic, { ttl: refusalTime })
    return again
  }

  /** A body cannot be sent twice, so what opens the way to it is asked for before. */
  async function introduce(base: string, name: string, repository: string): Promise<void> {
    const response = await fetch(base, { method: 'GET', headers: {}, redirect: 'manual' })
    readOciError(response)
    if (response.status !== 401) return
    const challenges = challengesOf(response.headers.get('WWW-Authenticate') ?? '').map(parse)
    const bearer = challenges.find(({ scheme }) => scheme === 'bearer')
    if (bearer) await tokenOf(repository, { ...bearer, scope: `repository:${name}:pull,push` }, new URL(base).origin)
    else if (basic) granted.set(repository, basic, { ttl: refusalTime })
  }

  function refuse(reason: string): LoginRefused {
    refused = { until: now() + refusalTime, reason }
    return new LoginRefused(reason)
  }

  /** One question at a time for the token of a repository. */
  function tokenOf(repository: string, challenge: Challenge, origin: string): Promise<string> {
    const under = asked.get(repository) ?? grant(repository, challenge, origin).finally(() => asked.delete(repository))
    asked.set(repository, under)
    return under
  }

  async function grant(repository: string, { realm = '', service, scope }: Challenge, origin: string): Promise<string> {
    const url = URL.canParse(realm, origin) ? new URL(realm, origin) : undefined
    // In clear, a password is for the host it was given for alone, and there only if that one is asked in clear too.
    const own = new URL(origin)
    const safe = url && (url.protocol === 'https:' || (url.hostname === own.hostname && url.protocol === own.protocol))
    if (!safe) throw new LoginRefused('its realm is another host, without https')
    if (service) url.searchParams.set('service', service)
    if (scope) url.searchParams.set('scope', scope)
    const headers: Fields = { accept: 'application/json', 'accept-encoding': 'identity' }
    if (basic) headers.authorization = basic
    const init = { method: 'GET', headers, redirect: 'manual', signal: AbortSignal.timeout(realmTimeout) } as const
    const response = await fetch(url.href, init).catch((error) => {
      throw new Error('the realm gives no answer', { cause: error })
    })
    if ([400, 401, 403].includes(response.status)) {
      readOciError(response)
      throw refuse('the realm refuses its login')
    }
    const body = JSON.parse(new TextDecoder().decode(await response.arrayBuffer())) as Record<string, unknown>
    const token = body.token ?? body.access_token
    if (response.status !== 200 || typeof token !== 'string') throw new Error(`the realm says ${response.status}`)
    const life = Math.max(Number(body.expires_in) || shortestLife, shortestLife)
    granted.set(repository, `Bearer ${token}`, { ttl: life * 900 })
    return token
  }
}

interface Challenge {
  scheme: string
  realm?: string
  service?: string
  scope?: string
}

function parse(challenge: string): Challenge {
  const [scheme = ''] = challenge.split(' ')
  const parameters = challenge.matchAll(/([a-z]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))/gi)
  const entries = [...parameters].map(([, name = '', quoted, plain]) => [name.toLowerCase(), quoted ?? plain])
  return { scheme: scheme.toLowerCase(), ...Object.fromEntries(entries) }
}

/** The others may wait longer than this one, so its signal must not end what they wait for. */
function waitFor<T>(promise: Promise<T>, signal: AbortSignal | null | undefined): Promise<T> {
  return new Promise((resolve, reject) => {
    signal?.addEventListener('abort', () => reject(signal.reason), { once: true })
    promise.then(resolve, reject)
  })
}
