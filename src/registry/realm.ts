/** Bearer tokens: asked of the realm that a challenge names, and kept (distribution, "Token Authentication Specification"). */
import { bounded } from '../bounded.ts'
import type { Fetch, Fields, Reply } from '../runtime/runtime.ts'
import type { Challenge } from './challenge.ts'
import { causeOf, json, readBytes, readOciError } from './errors.ts'

/** The registry, or its realm, does not take the login of this router. Neither is down. */
export class LoginRefused extends Error {}

/** The realm is down: to ask the registry once more mends nothing. */
export class RealmFailed extends Error {}

/** The realm refuses this one scope: its answer stands for the registry's own. */
export class ScopeRefused extends Error {
  readonly answer: Response

  constructor(answer: Response) {
    super()
    this.answer = answer
  }
}

/** The `Authorization` that is sent to realms, and what to do if one refuses it. */
export interface Password {
  readonly basic: string | undefined
  /** Gives the error to throw. `tried`: the `Authorization` that was refused. */
  refuse: (reason: string, tried: string) => Error
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
  readonly #granted
  readonly #inFlight = new Map<string, Promise<string>>()

  /** `realmMs`: how long a realm may take. */
  constructor(fetch: Fetch, password: Password, realmMs: number, now: () => number) {
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
    const url = realmUrl(challenge, origin)
    const tried = this.#password.basic
    const response = await this.#askRealm(url, tried)
    const { status } = response
    const said = json(await readBytes(response, maxTokenBytes)) as Record<string, unknown> | null | undefined
    if (tried && (status === 400 || status === 401)) await this.#tryLogin(url, tried)
    if (status === 400 || status === 401 || status === 403) throw new ScopeRefused(new Response(null, { status: 401 }))
    if (status === 429) {
      const retryAfter = response.headers.get('Retry-After')
      throw new ScopeRefused(new Response(null, { status, headers: retryAfter ? { 'Retry-After': retryAfter } : {} }))
    }
    const token = said?.token || said?.access_token
    if (status !== 200 || typeof token !== 'string')
      throw new (status < 500 ? LoginRefused : RealmFailed)(`the realm says ${status}`)
    const lifeSeconds = Math.max(Number(said?.expires_in) || defaultLifeSeconds, defaultLifeSeconds)
    // Used for nine tenths of its life.
    this.keep(purpose, `Bearer ${token}`, lifeSeconds * 900)
    return token
  }

  /** Throws if the realm refuses the login itself: it is then refused without any scope too. */
  async #tryLogin(url: URL, tried: string): Promise<void> {
    const withoutScope = new URL(url)
    withoutScope.searchParams.delete('scope')
    const answer = await this.#askRealm(withoutScope, tried)
    readOciError(answer)
    if (answer.status === 401) throw this.#password.refuse('the realm refuses its login', tried)
  }

  async #askRealm(url: URL, authorization: string | undefined): Promise<Reply> {
    const headers: Fields = { accept: 'application/json', 'accept-encoding': 'identity' }
    if (authorization) headers.authorization = authorization
    const asked = { method: 'GET', headers, signal: AbortSignal.timeout(this.#realmMs) }
    try {
      // A kept-alive connection may close just as a request goes out.
      return await this.#fetch(url.href, asked).catch(() => this.#fetch(url.href, asked, true))
    } catch (error) {
      throw new RealmFailed(`the realm gives no answer: ${causeOf(error)}`)
    }
  }
}

/** Where to ask. In clear, a password may only go to the host it was given for, and only if that one is asked in clear too. */
function realmUrl({ realm = '', service, scope }: Challenge, origin: string): URL {
  const url = URL.canParse(realm, origin) ? new URL(realm, origin) : undefined
  const own = new URL(origin)
  const isSafe = url && (url.protocol === 'https:' || (url.hostname === own.hostname && url.protocol === own.protocol))
  if (!isSafe) throw new LoginRefused('its realm is another host, without https')
  if (service) url.searchParams.set('service', service)
  if (scope) url.searchParams.set('scope', scope)
  return url
}

function waitFor<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) reject(signal.reason)
    signal.addEventListener('abort', () => reject(signal.reason), { once: true })
    promise.then(resolve, reject)
  })
}
