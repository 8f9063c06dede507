/** One registry: its names, its header rules, its breaker, its deadlines. */
import { type Fetch, type Fields, isRead, type Reply } from '../runtime/runtime.ts'
import { type Answer, type Client, type Later, noHeaders, type Question, type Registry, skipReason } from './answer.ts'
import { createBreaker, type Report } from './breaker.ts'
import { catalogHere } from './catalog.ts'
import { Confirmed } from './confirmed.ts'
import { readOciError } from './errors.ts'
import { conditions, type Mapping, requestFields, responseFields } from './headers.ts'
import { type Inquired, Inquiry } from './inquiry.ts'
import { pathHere, scopesHere, tagsHere, targetThere, withoutPrefix } from './names.ts'
import { ownRealm, tokenPath } from './realm.ts'
import { askRealm } from './relayed.ts'
import { hasToken, repositoryOf, sessionHere, sessionThere } from './sessions.ts'

export interface RegistryOptions {
  name: string
  title: string
  role: 'hosted' | 'public'
  address: URL
  /** The path before every name there, from its first slash on; or empty. */
  path: string
  /** The same for names here: `/ghcr.io`, or empty. */
  prefix: string
  forwardsLogin: boolean
  /** Seconds to the first byte of the answer: to a read, to a GET of a blob, and to a write after its last byte was sent. */
  readTimeout: number
  blobTimeout: number
  writeTimeout: number
  /** Whether redirects of blobs are followed here, for clients that can reach only this router. */
  followsBlobs: boolean
  /** This router's public address. */
  router: URL
}

/** What a registry is asked with, and who hears of it. */
export interface RegistrySurroundings {
  /** Asks with the login for this registry. */
  fetch: Fetch
  /** Asks other hosts that the registry leads to, without a login. */
  fetchElsewhere: Fetch
  /** Milliseconds. */
  now: () => number
  /** Called for every answer. */
  onAnswer: (answer: Answer, isRead: boolean) => void
  onBreaker: (isOpen: boolean) => void
}

/** Some 200,000 tags. */
const maxListBytes = 8 * 1024 * 1024

export class RemoteRegistry implements Registry {
  readonly name: string
  readonly title: string
  readonly role: 'hosted' | 'public'
  readonly forwardsLogin: boolean
  readonly #options: RegistryOptions
  readonly #around: RegistrySurroundings
  readonly #breaker: ReturnType<typeof createBreaker>
  readonly #inquired: Inquired
  readonly #confirmed: Confirmed
  readonly #mapping: Mapping

  constructor(options: RegistryOptions, around: RegistrySurroundings) {
    this.name = options.name
    this.title = options.title
    this.role = options.role
    this.forwardsLogin = options.forwardsLogin
    this.#options = options
    this.#around = around
    this.#breaker = createBreaker(around.now, around.onBreaker)
    this.#confirmed = new Confirmed(this.#urlOf('/v2/'), { ...around, readTimeout: options.readTimeout })
    this.#inquired = {
      ...around,
      registry: this,
      urlOf: (target) => this.#urlOf(target),
      repositoryOf: (target) => repositoryOf(target, options),
      timeoutFor: (question) => this.#timeoutFor(question),
      followsBlobs: options.followsBlobs,
      routerHost: options.router.host,
      isRegistry: () => this.#confirmed.isRegistry(),
      maxListBytes: options.path ? maxListBytes : undefined,
      tagsHere: (target, content) => tagsHere(content, options.path, withoutPrefix(target, options.prefix)),
    }
    const { path, prefix, forwardsLogin } = options
    this.#mapping = {
      forwardsLogin,
      pathHere: (target) => pathHere(target, path, prefix),
      sessionHere: (location, uploads) => sessionHere(location, uploads, options),
      realmHere: (realm) => this.#realmHere(realm),
      scopesHere: (scopes) => scopesHere(scopes, path),
    }
  }

  async ask(question: Question): Promise<Answer> {
    const { path } = this.#options
    const { entity, target, headers } = question
    if (hasToken(target) && !sessionThere(target, this.#options)) return this.#unknownSession()
    if (!path || entity !== 'catalog') return this.#ask(question)
    const [own, query] = target.split(/(?=\?)/)
    const whole = Object.fromEntries(Object.entries(headers).filter(([name]) => !conditions.includes(name)))
    return catalogHere((page) => this.#ask({ ...question, target: own + page, headers: whole }), query ?? '', path)
  }

  async #ask(question: Question): Promise<Answer> {
    if (!isRead(question) || question.purpose === 'ping') return this.#inquire(question, () => {}).answer()
    if (isOfBlob(question)) return this.#askForBlob(question)
    const admitted = this.#breaker.admit()
    if (!admitted) return this.#skipped(skipReason)
    const { report, trial } = admitted
    if (!trial || question.purpose !== 'lookup') return this.#inquire(question, report).answer()
    // The breaker needs the trial's result. The trial may outlive its asker, so it has no part in the asker's room.
    const answer = this.#inquire({ ...question, room: undefined }, report).answer()
    const abandon = () => {
      answer.then(discard)
      return answer
    }
    return { ...this.#skipped(skipReason), later: { answer, abandon } }
  }

  /**
   * A cache may need long for the first byte of a blob, so a blob is never a trial, and another registry may be asked after the
   * time of any other read.
   */
  async #askForBlob(question: Question): Promise<Answer> {
    const mayWait = ['lookup', 'copy'].includes(question.purpose)
    if (mayWait && this.#breaker.isOpen()) return { ...this.#skipped(skipReason), later: this.#onlyIfWanted(question) }
    const inquiry = this.#inquire(question, this.#breaker.bypass())
    const answer = inquiry.answer()
    if (!mayWait) return answer
    const later = { answer, abandon: () => void inquiry.abandon() }
    const { readTimeout, blobTimeout } = this.#options
    if (blobTimeout <= readTimeout) return answer
    const late = { ...this.#skipped(`no answer within ${readTimeout} s`), status: 504, later }
    return earliest(answer, readTimeout * 1000, late)
  }

  async isWell(): Promise<boolean> {
    return !this.#breaker.isOpen() && (await this.#confirmed.isRegistry().catch(() => false))
  }

  fieldsFor(request: Pick<Request, 'method' | 'headers'>, client: Client): Fields {
    return requestFields(request, client, this.#options)
  }

  fieldsFrom(answer: Answer): [string, string][] {
    return responseFields(answer.response?.status ?? answer.status, answer.headers, this.#mapping, answer)
  }

  /** `Registry.askRealm`. */
  askRealm(request: Request, client: Client): Promise<Reply | undefined> {
    const { path, router, readTimeout } = this.#options
    const { fetch } = this.#around
    const relaying = { fetch, base: this.#urlOf('/v2/'), path, routerHost: router.host, readTimeout }
    return askRealm(relaying, request, this.fieldsFor(request, client))
  }

  /** Asks when the answer is first waited for: a registry that is down is not asked for what another one has. */
  #onlyIfWanted(question: Question): Later {
    const inquire = () => this.#inquire(question, this.#breaker.bypass())
    let inquiry: Inquiry | undefined
    let asked: Promise<Answer> | undefined
    return {
      get answer() {
        inquiry ??= inquire()
        asked ??= inquiry.answer()
        return asked
      },
      abandon: () => void inquiry?.abandon(),
    }
  }

  #inquire(question: Question, report: Report): Inquiry {
    return new Inquiry(this.#inquired, question, report)
  }

  #timeoutFor(question: Question): number {
    const { readTimeout, blobTimeout, writeTimeout } = this.#options
    if (!isRead(question)) return writeTimeout
    return isOfBlob(question) ? blobTimeout : readTimeout
  }

  /** The address of a path of this API, with the name as it is called there. */
  #urlOf(target: string): string {
    const { address, path, prefix } = this.#options
    const session = hasToken(target) ? sessionThere(target, this.#options) : undefined
    return address.origin + (session ?? targetThere(withoutPrefix(target, prefix), path))
  }

  /** A realm on the registry's own host, which clients may not reach, is asked through this router. */
  #realmHere(realm: string): string | undefined {
    const { address, router } = this.#options
    return ownRealm(realm, address.origin, router.host) ? `${router.origin}${tokenPath}` : undefined
  }

  /** A made-up token reaches nothing. */
  #unknownSession(): Answer {
    const error = { code: 'BLOB_UPLOAD_UNKNOWN', message: 'blob upload unknown to registry' }
    const reason = 'not asked: this address of an upload is none of its own'
    return { from: this, verdict: 'absent', status: 404, reason, error, milliseconds: 0, headers: noHeaders }
  }

  #skipped(reason: string): Answer {
    return { from: this, verdict: 'failed', status: 502, reason, milliseconds: 0, headers: noHeaders }
  }
}

const isOfBlob = ({ entity, method }: Question) => entity === 'blob' && method === 'GET'

/** Gives the answer, or `late` if the answer takes longer than `milliseconds`. */
function earliest(answer: Promise<Answer>, milliseconds: number, late: Answer): Promise<Answer> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve({ ...late, milliseconds }), milliseconds)
    answer.then((given) => {
      clearTimeout(timer)
      resolve(given)
    })
  })
}

/** Frees the connection of an answer nobody wants. A small body is read, so that the connection serves again. */
export function discard({ verdict, response, content }: Answer): void {
  if (verdict === 'found' && response && !content) readOciError(response).catch(() => {})
}
