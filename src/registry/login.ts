/** This router's own login at a registry: Basic, or Bearer tokens; without a password only anonymous tokens. */

import type { Asked, Fetch, Fields, Reply } from '../runtime/runtime.ts'
import { type Challenge, parseChallenges } from './challenge.ts'
import { readOciError } from './errors.ts'
import { LoginRefused, LoginRenewed, nameRefused, type Password, ScopeRefused, Tokens, waitFor } from './realm.ts'
import { type Credentials, type LoginSource, minRenewMs } from './source.ts'

/** How long a refused login is not tried again, and a Basic login is sent without being asked for. */
const loginMs = 60_000

/** What a token is for, so that the token of a delete opens no push, nor the other way round. */
const rights: Record<string, string> = { GET: 'read', HEAD: 'read', DELETE: 'delete' }

export interface LoginOptions {
  /** Where the login comes from. Undefined: only anonymous tokens. */
  source: LoginSource | undefined
  /** The deadline of the registry, in seconds. A realm gets less, so that the log names the one that is late. */
  readTimeout: number
  /** The public host of this router. */
  routerHost: string
  /** Whether a 401 about one name is to be told from one about the login. Of a public registry both mean the same. */
  tellsNames: boolean
  /** Milliseconds. */
  now: () => number
}

/**
 * A fetch that answers the registry's challenges. It rejects with `LoginRefused` if the login is not taken, and with
 * `RealmFailed` if the realm is down. These answers are the registry's own:
 * - a 401 after a token was granted,
 * - a 401 or 429 of the realm about one scope: public registries say so of names that do not exist.
 *
 * With `tellsNames`, such a 401 to a login that is surely right becomes 403: the registry is well, and refuses this name.
 */
export function withLogin(fetch: Fetch, options: LoginOptions): Fetch {
  const session = new LoginSession(fetch, options)
  return (url, asked, fresh) =>
    session.fetch(url, asked, fresh).catch((error) => {
      if (!(error instanceof ScopeRefused)) throw error
      return error.isOfName ? nameRefused() : error.answer
    })
}

class LoginSession implements Password {
  basic: string | undefined
  /** The Bearer challenge that was last answered. */
  #lastBearer: Challenge | undefined
  #refused: { until: number; reason: string } | undefined
  readonly #fetch: Fetch
  readonly #now: () => number
  readonly #source: LoginSource | undefined
  readonly #pingMs: number
  readonly #tokens: Tokens
  readonly tellsNames: boolean

  constructor(fetch: Fetch, { source, readTimeout, routerHost, tellsNames, now }: LoginOptions) {
    this.#fetch = fetch
    this.tellsNames = tellsNames
    this.#now = now
    // Node takes only a whole number.
    this.#pingMs = Math.ceil(readTimeout * 700)
    this.#tokens = new Tokens(fetch, this, this.#pingMs, now, routerHost)
    this.#source = source
    source?.start((login) => {
      this.basic = login && basicOf(login)
      this.#refused = undefined
      this.#tokens.clear()
    })
  }

  async fetch(url: string, asked: Asked, fresh?: boolean): Promise<Reply> {
    if (!this.basic) await this.#renew()
    return this.#fetchOnce(url, asked, fresh).catch((error) => {
      if (!(error instanceof LoginRenewed) || isStream(asked)) throw error
      return this.#fetchOnce(url, asked, fresh)
    })
  }

  /** Asks for a newer login, and waits for it no longer than for a realm: the registry itself is not late. */
  async #renew(): Promise<void> {
    const renewed = this.#source?.renew?.()
    if (renewed) await waitFor(renewed, AbortSignal.timeout(this.#pingMs)).catch(() => {})
  }

  async #fetchOnce(url: string, asked: Asked, fresh?: boolean): Promise<Reply> {
    if (this.#refused && this.#now() < this.#refused.until) throw new LoginRefused(this.#refused.reason, true)
    const { base, name } = partsOf(url, asked.repository)
    const purpose = `${rights[asked.method] ?? 'write'} ${name}`
    // A streamed body cannot be sent twice, so the login is asked for before it.
    const sendsOnce = isStream(asked)
    if (sendsOnce && !this.#tokens.known(purpose)) await this.#introduce(base, name, purpose, asked.signal)
    const send = (authorization: string | undefined) => this.#fetch(url, authorized(asked, authorization), fresh)
    const known = this.#tokens.known(purpose)
    const response = await send(known)
    if (response.status === 403) return this.#unlessExpired(base, response, known, asked.signal)
    if (response.status !== 401) return response
    const { bearer, takesBasic } = challengesOf(response)
    if (bearer) {
      this.#lastBearer = bearer
      readOciError(response)
      // `/v2/` is about no name. GitHub's challenge for it has a scope all the same, which its realm may refuse.
      const challenge = this.basic && url === base ? { ...bearer, scope: undefined } : bearer
      const token = await this.#tokens.ask(purpose, challenge, url, asked.signal)
      if (sendsOnce) throw tooLate()
      const ofToken = await send(`Bearer ${token}`)
      const ping = () => this.#statusAt(base, { authorization: `Bearer ${token}` }, asked.signal)
      return this.#unlessOfName(url, ofToken, ping, asked)
    }
    if (!takesBasic || (!this.basic && url === base)) return response
    let last = response
    const sent = this.basic
    if (sent && known !== sent) {
      readOciError(response)
      this.#tokens.keep(purpose, sent, loginMs)
      if (sendsOnce) throw tooLate()
      last = await send(sent)
    }
    if (last.status === 401) {
      const status = await this.#throwIfRefused(base, last, sent, asked.signal)
      return this.#unlessOfName(url, last, async () => status, asked)
    }
    return this.#unlessExpired(base, last, sent, asked.signal)
  }

  /**
   * Gives the same answer, unless its 403 means that a password has expired: Amazon ECR says so, to `/v2/` too. Then a newer one is
   * asked for, if there may be one.
   */
  async #unlessExpired(base: string, answer: Reply, sent: string | undefined, signal: AbortSignal): Promise<Reply> {
    const mayBeExpired = answer.status === 403 && sent?.startsWith('Basic ') && this.#source?.renew
    if (mayBeExpired) await this.#throwIfRefused(base, answer, sent, signal)
    return answer
  }

  /**
   * Gives the same answer, unless it is a 401 about the name, to a login that is surely right: the registry says that the scope does not
   * suffice (RFC 6750, section 3.1), or its `/v2/` takes this login and nobody without one. `ping` gives what `/v2/` says to the login.
   */
  async #unlessOfName(url: string, answer: Reply, ping: () => Promise<number>, { signal }: Asked): Promise<Reply> {
    const { base } = partsOf(url)
    if (answer.status !== 401 || !this.tellsNames || !this.basic || url === base) return answer
    const { error } = challengesOf(answer).bearer ?? {}
    const isOfName = error
      ? error === 'insufficient_scope'
      : (await ping()) === 200 && (await this.#statusAt(base, {}, signal)) === 401
    if (!isOfName) return answer
    readOciError(answer)
    return nameRefused()
  }

  /** Asks the registry which login it wants for a push, and gets that. */
  async #introduce(base: string, name: string, purpose: string, signal: AbortSignal): Promise<void> {
    const response = await this.#ping(base, {}, signal)
    // If its `/v2/` is open, its writes may want a login all the same: the one that was last asked for, or else Basic.
    const bearer = response.status === 401 ? challengesOf(response).bearer : this.#lastBearer
    const scope = `repository:${name}:pull,push`
    if (bearer) await this.#tokens.ask(purpose, { ...bearer, scope }, base, signal)
    else if (this.basic) this.#tokens.keep(purpose, this.basic, loginMs)
  }

  /** Finds out whether a 401 or 403 is about one name, or about this router: then it throws. Gives what `/v2/` says to the login. */
  async #throwIfRefused(base: string, answer: Reply, tried: string | undefined, signal: AbortSignal): Promise<number> {
    const status = await this.#statusAt(base, tried ? { authorization: tried } : {}, signal)
    if (status !== 401 && status !== answer.status) return status
    readOciError(answer)
    if (!tried) throw new LoginRefused('the registry wants a login', false)
    throw await this.refuse('the registry refuses its password', tried)
  }

  async #statusAt(base: string, headers: Fields, signal: AbortSignal): Promise<number> {
    return (await this.#ping(base, headers, signal)).status
  }

  async #ping(base: string, headers: Fields, signal: AbortSignal): Promise<Reply> {
    const ends = AbortSignal.any([AbortSignal.timeout(this.#pingMs), signal])
    const response = await this.#fetch(base, { method: 'GET', headers, signal: ends })
    readOciError(response)
    return response
  }

  async refuse(reason: string, tried: string): Promise<Error> {
    const renew = this.#source?.renew
    if (tried === this.basic) await this.#renew()
    if (tried !== this.basic) return new LoginRenewed(reason)
    this.#refused = { until: this.#now() + (renew ? minRenewMs : loginMs), reason }
    return new LoginRefused(reason, true)
  }
}

/** The address of the registry's `/v2/`, and the repository of a request; empty if it is about none. */
function partsOf(url: string, repository?: string): { base: string; name: string } {
  const pattern = /^([^:]+:\/\/[^/]+\/)(?:v2\/([^?]*)\/(?:manifests|blobs|tags|referrers)\/)?/
  const [, root = '', name = ''] = pattern.exec(url) ?? []
  return { base: `${root}v2/`, name: repository ?? name }
}

function authorized(asked: Asked, authorization: string | undefined): Asked {
  return authorization ? { ...asked, headers: { ...asked.headers, authorization } } : asked
}

function challengesOf({ headers }: Reply): { bearer?: Challenge; takesBasic: boolean } {
  const challenges = parseChallenges(headers.get('WWW-Authenticate') ?? '')
  const find = (wanted: string) => challenges.find(({ scheme }) => scheme === wanted)
  return { bearer: find('bearer'), takesBasic: find('basic') !== undefined }
}

const isStream = ({ body }: Asked) => Boolean(body) && !(body instanceof Uint8Array)

function basicOf({ username, password }: Credentials): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`
}

/** The router has the login now: the client can send the body again. */
const tooLate = () => new Error('wants a new login for a body that is sent already')
