/** One registry: asks it within a deadline, tries again if a connection breaks, and gives its answer a verdict. */
import type { UpstreamName } from '../../routing.ts'
import type { Fetch, Fields, Reply } from '../runtime/runtime.ts'
import {
  type Answer,
  type Client,
  goneAnswer,
  isRead,
  isUnwell,
  linked,
  noHeaders,
  type Question,
  type Registry,
  redirects,
  skipReason,
  verdictOf,
  verdictOfNested,
} from './answer.ts'
import { createBreaker, type Report } from './breaker.ts'
import { causeOf, nestedCode, readBytes, readOciError } from './errors.ts'
import { requestFields, responseFields } from './headers.ts'
import { LoginRefused, RealmFailed } from './realm.ts'
import { judgeRedirect } from './redirects.ts'

export interface RegistryOptions {
  name: UpstreamName
  role: 'hosted' | 'public'
  address: URL
  /** The path before every name there, from its first slash on; or empty. */
  path: string
  forwardsLogin: boolean
  /** Seconds to the first byte of the answer to a read, and to a write after its last byte was sent. */
  readTimeout: number
  writeTimeout: number
  /** This router's public address. */
  router: URL
}

/** What a registry is asked with, and who hears of it. */
export interface RegistrySurroundings {
  fetch: Fetch
  /** Milliseconds. */
  now: () => number
  /** Called for every answer; `cause` is what a log may say and a client may not. */
  onAnswer: (answer: Answer, isRead: boolean, cause?: string) => void
  onBreaker: (isOpen: boolean) => void
}

/** One question on its way. */
interface Asking {
  question: Question
  url: string
  /** Ends the question: at its deadline, or when its asker does not want the answer any more. */
  abort: AbortController
  endDeadline: () => void
  startedAt: number
  report: Report
}

const wantsLogin = 'wants a login that this router does not have'
/** The body of a `found` answer that is read at once: a manifest has a few KB. */
const maxSmallBytes = 1024 * 1024

export class RemoteRegistry implements Registry {
  readonly name: UpstreamName
  readonly role: 'hosted' | 'public'
  readonly forwardsLogin: boolean
  readonly #options: RegistryOptions
  readonly #around: RegistrySurroundings
  readonly #breaker: ReturnType<typeof createBreaker>

  constructor(options: RegistryOptions, around: RegistrySurroundings) {
    this.name = options.name
    this.role = options.role
    this.forwardsLogin = options.forwardsLogin
    this.#options = options
    this.#around = around
    this.#breaker = createBreaker(around.now, around.onBreaker)
  }

  async ask(question: Question): Promise<Answer> {
    if (!isRead(question) || question.purpose === 'ping') return this.#send(question, () => {})
    const admitted = this.#breaker()
    const skipped = this.#failed(502, skipReason)
    if (!admitted) return skipped
    const answer = this.#send(question, admitted.report)
    return admitted.trial && question.purpose === 'lookup' ? { ...skipped, later: answer } : answer
  }

  fieldsFor(request: Pick<Request, 'method' | 'headers'>, client: Client): Fields {
    return requestFields(request, client, this.#options)
  }

  fieldsFrom({ response, headers }: Answer): [string, string][] {
    return responseFields(response?.status ?? 0, headers, this.forwardsLogin, (path) => this.#nameHere(path))
  }

  /** The address of a path of this API, with the name as it is called there. */
  #urlOf(target: string): string {
    const { address, path } = this.#options
    return address.origin + (path ? target.replace(/^\/v2(?=\/[^?])/, `/v2${path}`) : target)
  }

  /** A path that came from there, with the name as it is called here. */
  #nameHere(target: string): string {
    const { path } = this.#options
    return target.startsWith(`/v2${path}/`) ? `/v2${target.slice(3 + path.length)}` : target
  }

  async #send(question: Question, report: Report): Promise<Answer> {
    const abort = linked(question.signal)
    const { readTimeout, writeTimeout } = this.#options
    const asking: Asking = {
      question,
      url: this.#urlOf(question.target),
      abort,
      endDeadline: startDeadline(isRead(question) ? readTimeout : writeTimeout, abort, question),
      startedAt: this.#around.now(),
      report,
    }
    try {
      return await this.#judge(asking, await this.#fetch(asking))
    } catch (error) {
      return this.#noAnswer(asking, error)
    }
  }

  /** A kept-alive connection may close just as a request goes out. What has a body is never sent twice. */
  async #fetch({ question, url, abort }: Asking): Promise<Reply> {
    const { method, headers, body } = question
    const { signal } = abort
    const asked = { method, headers, body, signal }
    return this.#around.fetch(url, asked).catch((error) => {
      const mayRepeat = (isRead(question) || (method === 'POST' && !body)) && !signal.aborted
      if (!mayRepeat || error instanceof RealmFailed || error instanceof LoginRefused) throw error
      return this.#around.fetch(url, asked, true)
    })
  }

  async #judge(asking: Asking, response: Reply): Promise<Answer> {
    const { question, url } = asking
    const { status } = response
    let { headers } = response
    const unusable = (reason: string, cause: string, isWell: boolean) => {
      readOciError(response)
      return this.#answered(asking, this.#failed(502, reason, asking), cause, isWell)
    }
    // A 205 has no content, whatever its fields say (RFC 9110, section 15.3.6): a client would take it for the next answer.
    if (status < 200 || status === 205 || status > 599) return unusable('no answer', `status ${status}`, false)
    if (redirects.has(status)) {
      const redirect = judgeRedirect(headers.get('Location') ?? '', url, this.#options.router.host)
      if ('fault' in redirect) return unusable('redirects to itself or to this router', redirect.fault, true)
      headers = new Headers(headers)
      headers.set('Location', redirect.location)
    }
    // The challenges of a public registry reach no client: what it denies to the router, it denies to all.
    const mayChallenge = this.role === 'public' || this.forwardsLogin || question.purpose === 'mount'
    if (status === 401 && !mayChallenge) return unusable(wantsLogin, '401', true)
    const answer = { ...this.#failed(status, undefined, asking), verdict: verdictOf(status), headers, response }
    return answer.verdict === 'found' ? this.#readFound(asking, answer) : this.#readError(asking, answer)
  }

  async #readFound(asking: Asking, answer: Answer & { response: Reply }): Promise<Answer> {
    const { read } = asking.question
    const { response } = answer
    if (typeof read === 'object') {
      const content = await readBytes(response, read.maxBytes)
      if (content) return this.#answered(asking, { ...answer, content })
      if (asking.abort.signal.aborted) throw asking.abort.signal.reason
      // A list that is too long is not the registry's fault: somebody put it there.
      return this.#answered(asking, this.#failed(502, 'no answer', asking), 'its answer breaks, or is too long', true)
    }
    if (read !== 'small' || !isSmall(response)) return this.#answered(asking, answer)
    const content = new Uint8Array(await response.arrayBuffer())
    return this.#answered(asking, { ...answer, milliseconds: this.#since(asking), content })
  }

  async #readError(asking: Asking, answer: Answer & { response: Reply }): Promise<Answer> {
    if (asking.question.read === 'head') return this.#answered(asking, answer)
    const error = await readOciError(answer.response)
    if (this.role !== 'public' || answer.status !== 500) return this.#answered(asking, { ...answer, error })
    const isVague = asking.question.method === 'HEAD'
    return this.#answered(asking, { ...answer, error, isVague, verdict: verdictOfNested(nestedCode(error)) })
  }

  #answered(asking: Asking, answer: Answer, cause?: string, isWell = !isUnwell(answer.status)): Answer {
    asking.endDeadline()
    asking.report(isWell)
    this.#around.onAnswer(answer, isRead(asking.question), cause)
    return answer
  }

  #noAnswer(asking: Asking, error: unknown): Answer {
    const { question, abort } = asking
    if (abort.signal.reason === timeUp) {
      const { readTimeout, writeTimeout } = this.#options
      const seconds = isRead(question) ? readTimeout : writeTimeout
      return this.#answered(asking, this.#failed(504, `no answer within ${seconds} s`, asking), 'timeout')
    }
    if (error instanceof LoginRefused)
      return this.#answered(asking, this.#failed(502, wantsLogin, asking), error.message, true)
    if (!abort.signal.aborted && (error as Error).name !== 'AbortError')
      return this.#answered(asking, this.#failed(502, 'no answer', asking), causeOf(error))
    // The client left: that says nothing about the registry.
    asking.endDeadline()
    asking.report(undefined)
    return { ...goneAnswer(this), milliseconds: this.#since(asking) }
  }

  #failed(status: number, reason?: string, asking?: Asking): Answer {
    const milliseconds = asking ? this.#since(asking) : 0
    return { from: this, verdict: 'failed', status, reason, milliseconds, headers: noHeaders }
  }

  #since({ startedAt }: Asking): number {
    return this.#around.now() - startedAt
  }
}

function isSmall({ status, headers }: Reply): boolean {
  const length = headers.get('Content-Length')
  // The length in a 304 is that of the body it does not have (RFC 9110, section 8.6).
  return status !== 304 && length !== null && Number(length) <= maxSmallBytes
}

/** Frees the connection of an answer nobody wants. A small body is read, so that the connection serves again. */
export function discard({ verdict, response, content }: Answer): void {
  if (verdict === 'found' && response && !content) readOciError(response).catch(() => {})
}

/** Aborts with `timeUp` after `seconds`, unless it is ended before. With a streamed body the time starts when that was read. */
function startDeadline(seconds: number, abort: AbortController, { body, bodyRead }: Question): () => void {
  let hasEnded = false
  let timer: ReturnType<typeof setTimeout> | undefined
  const start = () => {
    if (!hasEnded) timer = setTimeout(() => abort.abort(timeUp), seconds * 1000)
  }
  if (body && !(body instanceof Uint8Array)) bodyRead?.then(start)
  else start()
  return () => {
    hasEnded = true
    clearTimeout(timer)
  }
}
const timeUp = new Error('timeout')
