/** One registry: asks it within a deadline and gives its answer a verdict. */
import { setMaxListeners } from 'node:events'
import type { UpstreamName } from '../routing.ts'
import { createBreaker, type Report } from './breaker.ts'
import type { Config } from './config.ts'
import { causeOf, nestedCode, type OciError, readBytes, readOciError } from './errors.ts'
import { LoginRefused, RealmFailed } from './login.ts'
import type { Body, Fetch, Fields, Reply } from './runtime.ts'

/** What an answer means for a lookup; only `found` ends it. */
export type Verdict = 'found' | 'absent' | 'denied' | 'limited' | 'failed'

export interface Answer {
  upstream: UpstreamName
  verdict: Verdict
  /** The status it gave; 504 where it gave none in time, 502 where it gave none at all, 499 where the client left. */
  status: number
  /** From asking to the verdict. */
  milliseconds: number
  /** Why there is no answer, or no usable one. Never an address: clients read it. */
  reason?: string
  /** The answer itself; its body is already consumed where `error` was asked for. */
  response?: Reply
  error?: OciError
  /** The whole body, where `whole` was asked for and it is small, or `most`. */
  content?: Uint8Array<ArrayBuffer>
  /** The answer that is still on its way, where `aside` was asked for: to be waited for, or thrown away. */
  later?: Promise<Answer>
}

export interface Question {
  method: string
  /** Path and query, as they go out. */
  target: string
  headers: Fields
  body?: Body | AsyncIterable<Uint8Array>
  /** Settles when the last byte of a body that streams was taken; a write's deadline starts there. */
  bodyRead?: Promise<void>
  /** Aborted when nobody waits for the answer any more; a deadline aborts it too. */
  abort: AbortController
  /** Read the body of an answer that is not `found`, so that its connection is free again. */
  readError?: boolean
  /** Read the body of an answer that is `found` too, if it is small: then the deadline is for all of it. */
  whole?: boolean
  /** Read the body of an answer that is `found`, of so many bytes at most: more, or a broken one, is `failed`. */
  most?: number
  /** Do not wait for a registry that failed lately, if it is asked at all. */
  aside?: boolean
  /** Ask even while the breaker is open: a ping proves nothing of lookups, and a write is always tried. */
  always?: boolean
  /** A 401 may be about another name that this speaks of: it is `denied`, for the asker to deal with, never a client. */
  namesAnother?: boolean
}

interface Surroundings {
  fetch: Fetch
  now: () => number
  /** Told of every answer, to a read or a write, with what a log may know and a client may not. */
  onAnswer: (answer: Answer, read: boolean, cause?: string) => void
  onBreaker: (open: boolean) => void
}

/** Why there is no answer where the breaker is open. */
export const skipReason = 'skipped: it failed lately'
const wantsLogin = 'wants a login that this router does not have'

export type Ask = (question: Question) => Promise<Answer>

/** The registry's `ask`. It never rejects: what goes wrong is an answer with the verdict `failed`. */
export function createUpstream(name: UpstreamName, config: Config, around: Surroundings): Ask {
  const { fetch, now, onAnswer } = around
  const { origin, host } = config[name]
  const path = name === 'proxy' ? config.proxyPath : ''
  // The proxy's challenges reach no client: what it denies to the router, it denies.
  const clientsLogIn = name === 'proxy' || config.passLogin
  const breaker = createBreaker(now, around.onBreaker)
  return async (question) => {
    if (!isRead(question) || question.always) return send(question, () => {})
    const admitted = breaker()
    const skipped: Answer = { upstream: name, verdict: 'failed', status: 502, reason: skipReason, milliseconds: 0 }
    if (!admitted) return skipped
    const answer = send(question, admitted.report)
    return admitted.trial && question.aside ? { ...skipped, later: answer } : answer
  }

  async function send(question: Question, report: Report): Promise<Answer> {
    const { method, target, headers, body, abort } = question
    const url = origin + (path ? target.replace(/^\/v2(?=\/[^?])/, `/v2${path}`) : target)
    const started = now()
    const timeout = isRead(question) ? config[`${name}Timeout`] : config.writeTimeout
    const failed = (status: number, reason?: string): Answer => {
      return { upstream: name, verdict: 'failed', status, reason, milliseconds: now() - started }
    }
    const from = body && !(body instanceof Uint8Array) ? (question.bodyRead ?? never) : undefined
    const endDeadline = startDeadline(timeout, abort, from)
    const answered = (answer: Answer, cause?: string, well = answer.status < 502 || answer.status > 504): Answer => {
      endDeadline()
      report(well)
      onAnswer(answer, isRead(question), cause)
      return answer
    }
    const noAnswer = (error: unknown): Answer => {
      if (abort.signal.reason === timeUp) return answered(failed(504, `no answer within ${timeout} s`), 'timeout')
      if (error instanceof LoginRefused) {
        return answered(failed(502, wantsLogin), error.message, true)
      }
      if (!abort.signal.aborted && (error as Error).name !== 'AbortError') {
        return answered(failed(502, 'no answer'), causeOf(error))
      }
      // The client left: that says nothing about the registry.
      endDeadline()
      report(undefined)
      return failed(499)
    }
    const init = { method, headers, body, signal: abort.signal }
    const response = await fetch(url, init)
      .catch((error) => {
        // A kept-alive connection may close just as a request goes out. What has a body is never sent twice.
        const again = (isRead(question) || (method === 'POST' && !body)) && !abort.signal.aborted
        if (!again || error instanceof RealmFailed || error instanceof LoginRefused) throw error
        return fetch(url, init, true)
      })
      .catch(noAnswer)
    if ('verdict' in response) return response
    const { status } = response
    const unusable = (reason: string, cause: string, well: boolean) => {
      readOciError(response)
      return answered(failed(502, reason), cause, well)
    }
    // A 205 has no content, whatever its fields say (RFC 9110, section 15.3.6): a client would take it for the next answer.
    if (status < 200 || status === 205 || status > 599) return unusable('no answer', `status ${status}`, false)
    if (redirects.has(status)) {
      const location = response.headers.get('Location') ?? ''
      const to = URL.canParse(location, url) ? new URL(location, url) : undefined
      // Some keep blobs on their own host, outside the API (Google's Artifact Registry), and name the path alone.
      const isStorage = to?.host === host && !to.pathname.startsWith('/v2/') && /\/blobs\/[^/]+$/.test(target)
      if (isStorage) response.headers.set('Location', to.href)
      // Hosts that answer as this router: a redirect there would only come back.
      else if (!to || [host, config.aggregate.host].includes(to.host)) {
        // Without its query, which may be a secret.
        const cause = `redirect to ${location.split('?', 1)}: use https:// in its address?`
        return unusable('redirects to itself or to this router', cause, true)
      }
    }
    if (status === 401 && !clientsLogIn && !question.namesAnother) return unusable(wantsLogin, '401', true)
    const answer: Answer = { ...failed(status), verdict: verdictOf(status), response }
    if (answer.verdict === 'found' && question.whole && isSmall(response)) {
      const withContent = (bytes: ArrayBuffer) =>
        answered({ ...answer, milliseconds: now() - started, content: new Uint8Array(bytes) })
      return response.arrayBuffer().then(withContent, noAnswer)
    }
    if (answer.verdict === 'found' && question.most) {
      answer.content = await readBytes(response, question.most)
      if (answer.content) return answered(answer)
      if (abort.signal.aborted) return noAnswer(abort.signal.reason)
      // Not the registry's fault where somebody put a list that is too long.
      return answered(failed(502, 'no answer'), 'its answer breaks, or is too long', true)
    }
    if (answer.verdict === 'found' || !question.readError) return answered(answer)
    answer.error = await readOciError(response)
    if (name === 'proxy' && status === 500) answer.verdict = verdictOfNested(nestedCode(answer.error))
    return answered(answer)
  }
}

const isRead = ({ method }: Question) => method === 'GET' || method === 'HEAD'
const never = new Promise<never>(() => {})
const redirects = new Set([301, 302, 307, 308])

/** The verdict of a status alone (the table is in the README, "What an answer means"). */
function verdictOf(status: number): Verdict {
  if (status < 300 || redirects.has(status) || [304, 412, 416].includes(status)) return 'found'
  if (status === 404) return 'absent'
  if (status === 429) return 'limited'
  if (status < 400 || status >= 500 || status === 408) return 'failed'
  return 'denied'
}

/** CNCF distribution as a cache answers 500 for what its own upstream answered otherwise; the truth is nested. */
function verdictOfNested(code: string | undefined): Verdict {
  if (code?.endsWith('_UNKNOWN')) return 'absent'
  if (code === 'TOOMANYREQUESTS') return 'limited'
  if (code === 'UNAUTHORIZED' || code === 'DENIED') return 'denied'
  return 'failed'
}

/** Whether there is no answer because nobody waits for it any more. */
export function clientLeft({ verdict, status }: Answer): boolean {
  return verdict === 'failed' && status === 499
}

/** The answer for a client that left. */
export function left(upstream: UpstreamName): Answer {
  return { upstream, verdict: 'failed', status: 499, milliseconds: 0 }
}

/** A manifest is a few KB; whatever is more than this is not held in memory, and so streams. */
function isSmall({ status, headers }: Reply): boolean {
  const length = headers.get('Content-Length')
  // That of a 304 is of the body it does not have (RFC 9110, section 8.6).
  return status !== 304 && length !== null && Number(length) <= smallBody
}
const smallBody = 1024 * 1024

/** Frees the connection of an answer nobody wants. A small one is read, so that the connection serves again. */
export function discard({ verdict, response, content }: Answer): void {
  if (verdict === 'found' && response && !content) readOciError(response).catch(() => {})
}

/** Aborts when the client leaves. */
export function leaving(client: AbortSignal): AbortController {
  const abort = new AbortController()
  // Node warns where many follow one signal.
  setMaxListeners(0, client)
  if (client.aborted) abort.abort()
  else client.addEventListener('abort', () => abort.abort(), { once: true })
  return abort
}

/** Aborts with `timeUp` `seconds` after `from` (after now where there is none), unless it is ended before. */
function startDeadline(seconds: number, abort: AbortController, from: Promise<void> | undefined): () => void {
  let ended = false
  let timer: ReturnType<typeof setTimeout> | undefined
  const start = () => {
    if (!ended) timer = setTimeout(() => abort.abort(timeUp), seconds * 1000)
  }
  if (from) from.then(start)
  else start()
  return () => {
    ended = true
    clearTimeout(timer)
  }
}
const timeUp = new Error('timeout')
