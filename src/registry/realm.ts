/** Bearer tokens: asked of the realm that a challenge names, and kept (distribution, "Token Authentication Specification"). */
import { bounded } from '../runtime/bounded.ts'
import { type Fetch, type Fields, ForbiddenAddress, type Reply } from '../runtime/runtime.ts'
import { Shortage } from '../runtime/shortage.ts'
import type { Challenge } from './challenge.ts'
import { causeOf, ociError, readBytes, readOciError } from './errors.ts'
import { json } from './json.ts'

export const wantsLogin = 'wants a login that this router does not have'
const refusesLogin = 'refuses the login of this router'

/** The registry, or its realm, does not take the login of this router. Neither is down. */
export class LoginRefused extends Error {
  /** What clients may read. */
  readonly reason: string

  /** `cause`: for the log. `hasLogin`: whether a login was sent. */
  constructor(cause: string, hasLogin: boolean) {
    super(cause)
    this.reason = hasLogin ? refusesLogin : wantsLogin
  }
}

/** The login that was refused is not the newest one any more, so a second try may succeed. */
export class LoginRenewed extends Error {}

/** The realm is down: to ask the registry once more mends nothing. */
export class RealmFailed extends Error {}

/** The realm refuses this one scope: its answer stands for the registry's own. */
export class ScopeRefused extends Error {
  readonly answer: Response
  /** Whether the realm takes the login, and only this scope is not for it. */
  readonly isOfName: boolean

  constructor(answer: Response, isOfName = false) {
    super()
    this.answer = answer
    this.isOfName = isOfName
  }
}

/** The answer of a registry that refuses one name to a right login (RFC 9110, section 15.5.4). */
export function nameRefused(): Response {
  const message = 'the private registry refuses this name to the login of this router'
  return ociError('GET', 403, { code: 'DENIED', message })
}

/** The `Authorization` that is sent to realms, and what to do if one refuses it. */
export interface Password {
  readonly basic: string | undefined
  /** As `LoginOptions` has it. */
  readonly tellsNames: boolean
  /** Gives the error to throw. `tried`: the `Authorization` that was refused. */
  refuse: (reason: string, tried: string) => Promise<Error>
}

/** Seconds a token lives if its realm does not say. */
const defaultLifeSeconds = 60
const maxTokenBytes = 65_536
const maxTokens = 10_000

/** The tokens for one registry, by what they are for: a right and a repository. */
export class Tokens {
  readonly #fetch: Fetch
  readonly #password: Password
  readonly #realmMs: number
  readonly #routerHost: string
  readonly #granted
  readonly #inFlight = new Map<string, Promise<string>>()

  /** `realmMs`: how long a realm may take. */
  constructor(fetch: Fetch, password: Password, realmMs: number, now: () => number, routerHost: string) {
    this.#routerHost = routerHost
    this.#fetch = fetch
    this.#password = password
    this.#realmMs = realmMs
    this.#granted = bounded<string>(maxTokens, 1, now)
  }

  /** The `Authorization` to send for a purpose, if one was granted before. */
  known(purpose: string): string | undefined {
    return this.#granted.get(purpose)
  }

  keep(purpose: string, authorization: string, lifeMs: number): void {
    this.#granted.set(purpose, authorization, { ttl: lifeMs })
  }

  clear(): void {
    this.#granted.clear()
  }

  /**
   * Asks the realm of a challenge for a token. All who want the same token share one question, so it does not end with one of
   * them; `signal` only ends the waiting. Rejects with `LoginRefused`, `RealmFailed` or `ScopeRefused`.
   */
  async ask(purpose: string, challenge: Challenge, asker: string, signal: AbortSignal): Promise<string> {
    this.#granted.delete(purpose)
    const key = `${purpose} ${challenge.scope}`
    const { origin } = new URL(asker)
    const asked =
      this.#inFlight.get(key) ?? this.#grant(purpose, challenge, origin).finally(() => this.#inFlight.delete(key))
    this.#inFlight.set(key, asked)
    return waitFor(asked, signal)
  }

  async #grant(purpose: string, challenge: Challenge, origin: string): Promise<string> {
    const tried = this.#password.basic
    const url = realmUrl(challenge, origin, tried !== undefined, this.#routerHost)
    const response = await this.#askRealm(url, origin, tried)
    const { status } = response
    const said = json(await readBytes(response, maxTokenBytes)) as Record<string, unknown> | null | undefined
    const { tellsNames } = this.#password
    const isTried = tried !== undefined && (status === 400 || status === 401 || (status === 403 && tellsNames))
    const isTaken = isTried && (await this.#tryLogin(url, origin, tried))
    if (status === 400 || status === 401 || status === 403)
      throw new ScopeRefused(new Response(null, { status: 401 }), isTaken && tellsNames)
    if (status === 429) {
      const retryAfter = response.headers.get('Retry-After')
      throw new ScopeRefused(new Response(null, { status, headers: retryAfter ? { 'Retry-After': retryAfter } : {} }))
    }
    const token = said?.token || said?.access_token
    if (status !== 200 || typeof token !== 'string') {
      const cause = `the realm says ${status}`
      throw status < 500 ? new LoginRefused(cause, tried !== undefined) : new RealmFailed(cause)
    }
    const lifeSeconds = Math.max(Number(said?.expires_in) || defaultLifeSeconds, defaultLifeSeconds)
    // Used for nine tenths of its life.
    this.keep(purpose, `Bearer ${token}`, lifeSeconds * 900)
    return token
  }

  /** Throws if the realm refuses the login itself: it is then refused without any scope too. Gives whether the realm takes it. */
  async #tryLogin(url: URL, origin: string, tried: string): Promise<boolean> {
    const withoutScope = new URL(url)
    withoutScope.searchParams.delete('scope')
    const answer = await this.#askRealm(withoutScope, origin, tried)
    readOciError(answer)
    if (answer.status === 401) throw await this.#password.refuse('the realm refuses its login', tried)
    return answer.status === 200
  }

  async #askRealm(url: URL, origin: string, authorization: string | undefined): Promise<Reply> {
    const headers: Fields = { accept: 'application/json', 'accept-encoding': 'identity' }
    if (authorization) headers.authorization = authorization
    const sentBy = url.origin === origin ? undefined : origin
    const asked = { method: 'GET', headers, signal: AbortSignal.timeout(this.#realmMs), sentBy }
    try {
      // A kept-alive connection may close just as a request goes out.
      return await this.#fetch(url.href, asked).catch(() => this.#fetch(url.href, asked, true))
    } catch (error) {
      if (error instanceof ForbiddenAddress) throw new LoginRefused(`its realm: ${error.message}`, false)
      if (error instanceof Shortage) throw error
      throw new RealmFailed(`the realm gives no answer: ${causeOf(error)}`)
    }
  }
}

/**
 * Where to ask for a token.
 * - A realm on the registry's own host and port is asked in the registry's own scheme: it may not know that.
 * - A realm on this router's host is the registry's own: it was told that host as its public one.
 * - A registry of https has no realm in clear.
 * - In clear, a password goes only to the host it was given for.
 *
 * Throws `LoginRefused` if the realm may not be asked.
 */
export function realmUrl(
  { realm = '', service, scope }: Challenge,
  origin: string,
  hasPassword: boolean,
  routerHost: string,
): URL {
  const own = new URL(origin)
  const url = ownRealm(realm, origin, routerHost) ?? (URL.canParse(realm, origin) ? new URL(realm, origin) : undefined)
  if (!url || !['http:', 'https:'].includes(url.protocol))
    throw new LoginRefused('its realm is no address', hasPassword)
  const isInClear =
    url.protocol === 'http:' && (own.protocol === 'https:' || (hasPassword && url.hostname !== own.hostname))
  if (isInClear) throw new LoginRefused('its realm is another host, without https', hasPassword)
  if (service) url.searchParams.set('service', service)
  if (scope) url.searchParams.delete('scope')
  // One parameter for each, as the specification has it: some realms match a parameter as a whole.
  for (const one of scope?.split(' ') ?? []) if (one) url.searchParams.append('scope', one)
  return url
}

/** Where clients ask for tokens of a registry through this router. */
export const tokenPath = '/v2/token'

/** The address of a realm that is on the registry's own host and port, or was built from this router's host; else undefined. */
export function ownRealm(realm: string, origin: string, routerHost: string): URL | undefined {
  const url = realm !== '' && URL.canParse(realm, origin) ? new URL(realm, origin) : undefined
  const own = new URL(origin)
  const isOwn = url && ((url.hostname === own.hostname && portOf(url) === portOf(own)) || url.host === routerHost)
  return isOwn ? new URL(url.pathname + url.search, own) : undefined
}

const portOf = ({ port, protocol }: URL) => port || (protocol === 'https:' ? '443' : '80')

/** The same promise; rejects if the signal is aborted first. */
export function waitFor<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) reject(signal.reason)
    signal.addEventListener('abort', () => reject(signal.reason), { once: true })
    promise.then(resolve, reject)
  })
}
