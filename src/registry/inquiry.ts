/** One question on its way to a registry: asked within a deadline, again if a connection breaks, and followed. */
import { type Asked, type Fetch, ForbiddenAddress, isRead, type Reply } from '../runtime/runtime.ts'
import { type Resource, Shortage } from '../runtime/shortage.ts'
import { type Answer, isUnwell, linked, noHeaders, type Question, type Registry } from './answer.ts'
import type { Report } from './breaker.ts'
import { causeOf, readOciError } from './errors.ts'
import { isLookup, type Judgement, type Judging, judge } from './judge.ts'
import { LoginRefused, RealmFailed } from './realm.ts'
import { faultOfRedirect, maxRedirects } from './redirects.ts'
import { isVagueHead, redirects } from './verdict.ts'

/** What an inquiry needs of its registry. */
export interface Inquired extends Judging {
  registry: Registry
  /** The address of a target of this API. */
  urlOf: (target: string) => string
  /** The repository there that a target is about, if its address does not tell. */
  repositoryOf: (target: string) => string | undefined
  /** The content of a tag list, with the name as it is called here. */
  tagsHere: (target: string, content: Uint8Array<ArrayBuffer>) => Uint8Array<ArrayBuffer>
  /** Seconds to the first byte of the answer. */
  timeoutFor: (question: Question) => number
  /** Whether redirects of blobs are followed for clients too. */
  followsBlobs: boolean
  /** Asks with the login for this registry, and without any. */
  fetch: Fetch
  fetchElsewhere: Fetch
  /** Milliseconds. */
  now: () => number
  onAnswer: (answer: Answer, isRead: boolean) => void
}

const timeUp = new Error('timeout')

/** A redirect that must not be followed. */
class Misled extends Error {}

export class Inquiry {
  readonly #of: Inquired
  readonly #question: Question
  readonly #report: Report
  readonly #abort: AbortController
  readonly #endDeadline: () => void
  readonly #startedAt: number
  /** Whether the registry has led to another host. What goes wrong there says nothing about the registry. */
  #isElsewhere = false

  /** `report` hears whether the registry is well. */
  constructor(of: Inquired, question: Question, report: Report) {
    this.#of = of
    this.#question = question
    this.#report = report
    this.#abort = linked(question.signal)
    this.#endDeadline = startDeadline(of.timeoutFor(question), this.#abort, question)
    this.#startedAt = of.now()
  }

  abandon(): void {
    this.#abort.abort()
  }

  /** Never rejects. */
  async answer(): Promise<Answer> {
    try {
      const { target } = this.#question
      let { method } = this.#question
      let reply = await this.#ask(method)
      if (method === 'HEAD' && isLookup(this.#question) && this.#isVague(reply)) {
        readOciError(reply)
        method = 'GET'
        reply = await this.#ask(method)
      }
      const judged = await judge(this.#of, { ...this.#question, method }, this.#of.urlOf(target), reply)
      if ('reason' in judged && this.#abort.signal.aborted) throw this.#abort.signal.reason
      if (this.#isLostElsewhere(judged)) {
        const fault = { reason: 'redirects to what does not give it', cause: `${reply.status} from another host` }
        return this.#answered(reply.status, fault)
      }
      // A HEAD has no body, so nobody would read what a GET in its place has brought.
      if (method !== this.#question.method && !('reason' in judged)) judged.response?.body?.cancel().catch(() => {})
      return this.#answered(reply.status, judged)
    } catch (error) {
      return this.#noAnswer(error)
    }
  }

  /** Whether only a GET can tell what the answer to a HEAD means. */
  #isVague(reply: Reply): boolean {
    const { entity } = this.#question
    const isRefusedElsewhere = this.#isElsewhere && reply.status >= 400 && reply.status < 500 && reply.status !== 429
    return isRefusedElsewhere || isVagueHead(entity, this.#of.registry.role, reply)
  }

  /**
   * Whether the registry redirected to another host that refuses without an OCI error. By its redirect it said that it has the content, so
   * this is an outage.
   */
  #isLostElsewhere(judged: Judgement): boolean {
    const isContent = isLookup(this.#question) && this.#question.entity !== 'referrers'
    if (!this.#isElsewhere || !isContent || 'reason' in judged) return false
    return ['absent', 'denied'].includes(judged.verdict) && !judged.error
  }

  /** Whether redirects of this question are followed here. Else they are for the client. */
  get #follows(): boolean {
    const { entity, purpose } = this.#question
    if (!isRead(this.#question)) return false
    if (entity === 'blob') return purpose === 'copy' || this.#of.followsBlobs
    return ['manifest', 'tags', 'referrers'].includes(entity)
  }

  /** Asks, and follows redirects. Rejects with `Misled` if one leads where it may not. */
  async #ask(method: string): Promise<Reply> {
    const { target, headers, body } = this.#question
    const { signal } = this.#abort
    const { fetch, fetchElsewhere, urlOf, repositoryOf, routerHost } = this.#of
    const own = urlOf(target)
    let url = own
    this.#isElsewhere = false
    let reply = await this.#fetch(fetch, url, { method, headers, body, signal, repository: repositoryOf(target) })
    for (let followed = 0; this.#follows && redirects.has(reply.status); followed++) {
      const location = reply.headers.get('Location') ?? ''
      readOciError(reply)
      const isTooFar = followed === maxRedirects
      const fault = isTooFar ? 'more redirects than are followed' : faultOfRedirect(location, url, routerHost)
      if (fault) throw new Misled(fault)
      url = new URL(location, url).href
      if (new URL(url).origin === new URL(own).origin) {
        reply = await this.#fetch(fetch, url, { method, headers, signal })
        continue
      }
      this.#isElsewhere = true
      // A login, and all that only the registry may know of its client, goes to its own origin only.
      const { authorization: _, cookie: __, ...fields } = headers
      reply = await this.#fetch(fetchElsewhere, url, { method, headers: fields, signal, sentBy: own })
      if (reply.status === 401) throw new Misled('a redirect to a host that wants a login')
    }
    return reply
  }

  /** A kept-alive connection may close just as a request goes out. What has a body is never sent twice. */
  async #fetch(fetch: Fetch, url: string, asked: Asked): Promise<Reply> {
    return fetch(url, asked).catch((error) => {
      const mayRepeat = (isRead(asked) || (asked.method === 'POST' && !asked.body)) && !asked.signal.aborted
      const isFinal = [RealmFailed, LoginRefused, ForbiddenAddress, Shortage].some((one) => error instanceof one)
      if (!mayRepeat || isFinal) throw error
      return fetch(url, asked, true)
    })
  }

  #answered(status: number, judged: Judgement): Answer {
    if ('reason' in judged) return this.#failed(502, judged.reason, judged.cause, judged.isWell ?? true)
    const { entity, target } = this.#question
    const listPath = ['tags', 'catalog', 'referrers'].includes(entity) ? target.replace(/\?.*/, '') : undefined
    const uploads = ['uploads', 'upload'].includes(entity) ? target.replace(/[^/]*(?:\?.*)?$/, '') : undefined
    const answer = { from: this.#of.registry, status, milliseconds: this.#milliseconds(), listPath, uploads, ...judged }
    if (answer.content && entity === 'tags' && this.#of.maxListBytes) {
      answer.content = this.#of.tagsHere(target, answer.content)
      answer.headers = new Headers(answer.headers)
      answer.headers.set('Content-Length', `${answer.content.byteLength}`)
    }
    // A blob that its registry cannot give now says nothing about the registry.
    const isWell = isUnwell(status) ? this.#unlessBlob(false) : true
    return this.#end(answer, isWell)
  }

  #noAnswer(error: unknown): Answer {
    const { signal } = this.#abort
    if (signal.reason === timeUp) {
      const reason = `no answer within ${this.#of.timeoutFor(this.#question)} s`
      return this.#failed(504, reason, 'timeout', this.#unlessBlob(false))
    }
    if (error instanceof Shortage && !signal.aborted) {
      const { resource, message } = error
      return this.#failed(503, `this router ran out of ${resource}`, message, undefined, resource)
    }
    if (error instanceof LoginRefused) return this.#failed(502, error.reason, error.message, true)
    if (error instanceof Misled || error instanceof ForbiddenAddress)
      return this.#failed(502, 'redirects where it may not lead', error.message, true)
    if (!signal.aborted && (error as Error).name !== 'AbortError')
      return this.#failed(502, 'no answer', causeOf(error), false)
    // The client left: that says nothing about the registry.
    this.#endDeadline()
    this.#report(undefined)
    const milliseconds = this.#milliseconds()
    return { from: this.#of.registry, verdict: 'gone', status: 499, milliseconds, headers: noHeaders }
  }

  #failed(status: number, reason: string, cause: string, isWell: boolean | undefined, shortage?: Resource): Answer {
    const from = this.#of.registry
    const milliseconds = this.#milliseconds()
    const failed = {
      from,
      verdict: 'failed',
      status,
      reason,
      cause,
      shortage,
      milliseconds,
      headers: noHeaders,
    } as const
    return this.#end(failed, isWell)
  }

  #end(answer: Answer, isWell: boolean | undefined): Answer {
    this.#endDeadline()
    // What this machine ran out of says nothing about the registry.
    this.#report(answer.shortage ? undefined : this.#isElsewhere || isWell)
    // The GET that follows a vague HEAD tells the truth: only that one counts.
    if (!answer.isVague) this.#of.onAnswer(answer, isRead(this.#question))
    return answer
  }

  #unlessBlob(isWell: boolean): boolean | undefined {
    return this.#question.entity === 'blob' && isRead(this.#question) ? undefined : isWell
  }

  #milliseconds(): number {
    return this.#of.now() - this.#startedAt
  }
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
