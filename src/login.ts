/** This router's own login at a registry: Basic, or Bearer by the token flow, anonymous where it has no password. */
import { bounded } from './bounded.ts'
import { causeOf, json, readBytes, readOciError } from './errors.ts'
import { follow, secretIn } from './files.ts'
import { challengesOf } from './headers.ts'
import type { Log } from './log.ts'
import type { Fetch, Fields, Reply } from './runtime.ts'

export interface Login {
  username: string
  /** Empty where a file holds it. */
  password: string
  /** A file that holds the password, read anew when it changes; or empty. */
  file: string
}

/** The registry, or the realm it sends to, wants another login than this router has. Neither is down. */
export class LoginRefused extends Error {}

/** The realm is down: to ask the registry once more mends nothing. */
export class RealmFailed extends Error {}

/** Seconds a token lives where its realm does not say (distribution, "Token Authentication Specification"). */
const shortestLife = 60
/** Milliseconds until a refused login is tried anew. */
const refusalTime = 60_000
const longestToken = 65_536

/** What a token is for: a delete's opens no push, nor the other way round. */
const rights: Record<string, string> = { GET: 'read', HEAD: 'read', DELETE: 'delete' }

/**
 * A fetch that answers the registry's challenges. It rejects with `LoginRefused` where the
 * login is not taken, and with what `fetch` rejects where a realm cannot be asked. A 401 after a token was granted is
 * the registry's answer, and so is a scope that the realm denies: public ones say so of what does not exist.
 */
export function withLogin(fetch: Fetch, login: Login | undefined, seconds: number, now: () => number, log: Log): Fetch {
  // Shorter than the registry's own time, so that the one that is late is the one that is named.
  // Whole: Node takes no other.
  const patience = Math.ceil(seconds * 700)
  const granted = bounded<string>(10_000, 1, now)
  const asked = new Map<string, Promise<string>>()
  let basic: string | undefined
  let refused: { until: number; reason: string } | undefined
  if (login) {
    const { username, password, file } = login
    const use = (password: string) => {
      basic = basicOf(username, password)
      refused = undefined
      granted.clear()
      log('info', 'password read anew')
    }
    const failed = (cause: string) => log('warn', 'the new password cannot be read, the old one stays', { cause })
    basic = basicOf(username, file ? follow([file], () => secretIn(file), use, failed) : password)
  }

  return (url, init, fresh) =>
    answered(url, init, fresh).catch((thrown) => {
      // What a realm says of one scope alone stands for the registry's own answer.
      if (thrown instanceof Response) return thrown
      throw thrown
    })

  async function answered(...[url, init, fresh]: Parameters<Fetch>): Promise<Reply> {
    if (refused && now() < refused.until) throw new LoginRefused(refused.reason)
    // Tokens are for a repository, and a right; what is of no repository shares its own.
    const [, base = '', name = ''] =
      /^([^:]+:\/\/[^/]+\/v2\/)(?:([^?]*)\/(?:manifests|blobs|tags|referrers)\/)?/.exec(url) ?? []
    const repository = `${rights[init.method] ?? 'write'} ${name}`
    const once = init.body && !(init.body instanceof Uint8Array)
    if (once && !granted.has(repository)) await introduce(base, name, repository, init.signal)
    const send = (authorization: string | undefined) => {
      if (authorization) init.headers.authorization = authorization
      return fetch(url, init, fresh)
    }
    const known = granted.get(repository)
    const response = await send(known)
    if (response.status !== 401) return response
    const { bearer, takesBasic } = challengesIn(response)
    if (bearer) {
      readOciError(response)
      granted.delete(repository)
      const token = await waitFor(tokenOf(repository, bearer, url), init.signal)
      if (once) throw tooLate()
      return send(`Bearer ${token}`)
    }
    if (!takesBasic || (!basic && url === base)) return response
    let last = response
    if (basic && known !== basic) {
      readOciError(response)
      granted.set(repository, basic, { ttl: refusalTime })
      if (once) throw tooLate()
      last = await send(basic)
    }
    if (last.status !== 401) return last
    // Is it this router that the registry keeps out, or is it one name?
    const tried = basic
    const { status } = await ping(base, tried ? { authorization: tried } : {}, init.signal)
    if (status !== 401) return last
    readOciError(last)
    throw tried ? refuse('the registry refuses its password', tried) : new LoginRefused('the registry wants a login')
  }

  /** A body cannot be sent twice, so what opens the way to it is asked for before. */
  async function introduce(base: string, name: string, repository: string, signal: AbortSignal): Promise<void> {
    const response = await ping(base, {}, signal)
    if (response.status !== 401) return
    const { bearer } = challengesIn(response)
    const scope = `repository:${name}:pull,push`
    if (bearer) await waitFor(tokenOf(repository, { ...bearer, scope }, base), signal)
    else if (basic) granted.set(repository, basic, { ttl: refusalTime })
  }

  async function ping(base: string, headers: Fields, signal: AbortSignal): Promise<Reply> {
    const ends = AbortSignal.any([AbortSignal.timeout(patience), signal])
    const response = await fetch(base, { method: 'GET', headers, signal: ends })
    readOciError(response)
    return response
  }

  function refuse(reason: string, tried: string | undefined): Error {
    // The password was read anew in the meantime, which is worth a second try.
    if (tried !== basic) return new Error(reason)
    refused = { until: now() + refusalTime, reason }
    return new LoginRefused(reason)
  }

  /** One question at a time for the same token. */
  function tokenOf(repository: string, challenge: Challenge, asker: string): Promise<string> {
    const key = `${repository} ${challenge.scope}`
    const under = asked.get(key) ?? grant(repository, challenge, new URL(asker).origin).finally(() => asked.delete(key))
    asked.set(key, under)
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
    const tried = basic
    if (tried) headers.authorization = tried
    const ask = () => {
      const init = { method: 'GET', headers, signal: AbortSignal.timeout(patience) }
      // A kept-alive connection may close just as a request goes out.
      const answer = fetch(url.href, init).catch(() => fetch(url.href, init, true))
      return answer.catch((error) => {
        throw new RealmFailed(`the realm gives no answer: ${causeOf(error)}`)
      })
    }
    const response = await ask()
    const { status } = response
    const said = json(await readBytes(response, longestToken)) as Record<string, unknown> | null | undefined
    if (tried && (status === 400 || status === 401)) {
      // Of no scope, it is about the login alone.
      url.searchParams.delete('scope')
      const alone = await ask()
      readOciError(alone)
      if (alone.status === 401) throw refuse('the realm refuses its login', tried)
    }
    if (status === 400 || status === 401 || status === 403) throw new Response(null, { status: 401 })
    const retryAfter = response.headers.get('Retry-After')
    if (status === 429) throw new Response(null, { status, headers: retryAfter ? { 'Retry-After': retryAfter } : {} })
    const token = said?.token || said?.access_token
    if (status !== 200 || typeof token !== 'string')
      throw new (status < 500 ? LoginRefused : RealmFailed)(`the realm says ${status}`)
    const life = Math.max(Number(said?.expires_in) || shortestLife, shortestLife)
    granted.set(repository, `Bearer ${token}`, { ttl: life * 900 })
    return token
  }
}

function basicOf(username: string, password: string): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`
}

/** The login is there now, for whoever tries again. */
const tooLate = () => new Error('wants a new login for a body that is sent already')

interface Challenge {
  scheme: string
  realm?: string
  service?: string
  scope?: string
}

function challengesIn({ headers }: Reply): { bearer?: Challenge; takesBasic: boolean } {
  const all = challengesOf(headers.get('WWW-Authenticate') ?? '').map(parse)
  const of = (wanted: string) => all.find(({ scheme }) => scheme === wanted)
  return { bearer: of('bearer'), takesBasic: of('basic') !== undefined }
}

function parse(challenge: string): Challenge {
  const [scheme = ''] = challenge.split(' ')
  const parameters = challenge.matchAll(/\b([a-z]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))/gi)
  const entries = [...parameters].map(([, name = '', quoted, plain]) => [name.toLowerCase(), quoted ?? plain])
  return { scheme: scheme.toLowerCase(), ...Object.fromEntries(entries) }
}

/** The others may wait longer than this one, so its signal must not end what they wait for. */
function waitFor<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) reject(signal.reason)
    signal.addEventListener('abort', () => reject(signal.reason), { once: true })
    promise.then(resolve, reject)
  })
}
