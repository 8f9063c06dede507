/** Decides what the answer of a registry means for the question, or why it cannot be used. */
import { noRoom } from '../runtime/budget.ts'
import type { Reply } from '../runtime/runtime.ts'
import type { Answer, Question, Registry } from './answer.ts'
import { nestedCode, readAhead, readBytes, readOciError } from './errors.ts'
import { wantsLogin } from './realm.ts'
import { judgeRedirect } from './redirects.ts'
import * as verdict from './verdict.ts'

/** What a judgement needs to know of the registry. */
export interface Judging {
  registry: Pick<Registry, 'role' | 'forwardsLogin'>
  /** The public host of this router. */
  routerHost: string
  /** Lists that are given to clients are read whole up to this length, if names in them are mapped. */
  maxListBytes: number | undefined
  /** Whether a registry answers its `/v2/`, and not a balancer in front of it. */
  isRegistry: () => Promise<boolean>
}

/** An answer that means something. */
type Meaning = Pick<Answer, 'verdict' | 'headers' | 'response' | 'content' | 'error' | 'isVague' | 'isEmpty'>

/** Why an answer is no usable one: for the client, and for the log. The registry is well unless `isWell` says otherwise. */
export interface Fault {
  reason: string
  cause: string
  isWell?: boolean
}

export type Judgement = Meaning | Fault

/** Manifests, tag lists and lists of referrers are judged whole up to this length (distribution-spec 1.1, "Pushing Manifests"). */
const maxWholeBytes = 4 * 1024 * 1024

/** Whether the answers to a question are judged by their content. */
export const isLookup = ({ purpose }: Question) => ['lookup', 'deciding', 'copy'].includes(purpose)

/** `question.method` is the method that was asked with, and `url` what was asked. Rejects if a body breaks that is needed. */
export async function judge(by: Judging, question: Question, url: string, response: Reply): Promise<Judgement> {
  const { status, headers } = response
  const { purpose } = question
  // A 205 has no content, whatever its fields say (RFC 9110, section 15.3.6): a client would take it for the next answer.
  if (status < 200 || status === 205 || status > 599)
    return unusable(response, { reason: 'no answer', cause: `status ${status}`, isWell: false })
  if (purpose === 'ping' && status === 200) return judgePing(response)
  if (verdict.redirects.has(status)) return judgeLocation(by, url, response)
  // The challenges of a public registry reach no client: what it denies to the router, it denies to all.
  const mayChallenge = by.registry.role === 'public' || by.registry.forwardsLogin || purpose === 'mount'
  if (status === 401 && !mayChallenge) return unusable(response, { reason: wantsLogin, cause: '401' })
  // Some lead to a page for people where they have no list (GitHub).
  if (question.entity === 'referrers' && status === 200 && verdict.isHtml(headers)) {
    readOciError(response)
    return { verdict: 'absent', headers }
  }
  const meaning: Meaning & { response: Reply } = { verdict: verdict.verdictOf(status), headers, response }
  if (meaning.verdict !== 'found') return judgeError(by, question, meaning)
  return isLookup(question) && status === 200 ? judgeFound(by, question, meaning) : readFound(by, question, meaning)
}

/** What stands in front of a registry may answer `/v2/` in its place. */
async function judgePing(response: Reply): Promise<Judgement> {
  const { headers } = response
  const error = await readOciError(response)
  if (verdict.isHtml(headers)) return { reason: 'its /v2/ is a web page, not a registry', cause: 'text/html' }
  if (error) return { reason: 'its /v2/ is an error', cause: `200, ${error.code}` }
  return { verdict: 'found', headers }
}

/** A redirect that was not followed is for the client. */
function judgeLocation({ routerHost }: Judging, url: string, response: Reply): Judgement {
  const redirect = judgeRedirect(response.headers.get('Location') ?? '', url, routerHost)
  if ('fault' in redirect)
    return unusable(response, { reason: 'redirects to itself or to this router', cause: redirect.fault })
  const headers = new Headers(response.headers)
  headers.set('Location', redirect.location)
  return { verdict: verdict.verdictOf(response.status), headers, response }
}

/** A 200 to a lookup counts only if it is what was asked for. */
async function judgeFound(by: Judging, question: Question, meaning: Meaning & { response: Reply }): Promise<Judgement> {
  const { method, entity, digest, read, room, target } = question
  const { response, headers } = meaning
  const none = (cause: string): Fault => ({ reason: `its 200 is no ${entity}`, cause: `${cause}, ${typeIn(headers)}` })
  if (entity === 'blob') {
    const fault = verdict.faultOfBlob(headers, digest)
    return fault ? unusable(response, none(fault)) : readFound(by, question, meaning)
  }
  if (!['manifest', 'tags', 'referrers'].includes(entity) || typeof read === 'object')
    return readFound(by, question, meaning)
  if (method === 'HEAD') return meaning
  const whole = await readAhead(response, maxWholeBytes, room)
  if ('content' in whole) {
    const { content } = whole
    const judged = verdictOfContent(question, content)
    const isEmpty = entity === 'tags' && verdict.isEmptyList(content, target.replace(/^[^?]*/, ''))
    return judged === 'failed' ? none(`${content.byteLength} bytes`) : { ...meaning, verdict: judged, content, isEmpty }
  }
  const { begun, rest, isTooLong } = whole
  // What there is no room for streams only if what has come shows a manifest: nothing else of it can be judged.
  if (isTooLong ? verdict.mayBeJson(begun, headers) : entity !== 'tags' && verdict.beginsManifest(begun)) {
    const { status, arrayBuffer } = response
    return { ...meaning, response: { status, headers, body: rest, arrayBuffer } }
  }
  rest.cancel().catch(() => {})
  if (!isTooLong) throw noRoom()
  return none(`more than ${maxWholeBytes} bytes`)
}

function verdictOfContent({ entity, digest }: Question, content: Uint8Array): verdict.Verdict {
  if (entity === 'tags') return verdict.verdictOfTags(content)
  const isRight = entity === 'manifest' ? verdict.isManifest(content, digest) : verdict.isIndex(content)
  return isRight ? 'found' : 'failed'
}

async function readFound(
  { maxListBytes }: Judging,
  { entity, read, room }: Question,
  meaning: Meaning & { response: Reply },
): Promise<Judgement> {
  const isList = ['tags', 'catalog'].includes(entity) && meaning.response.status === 200
  const maxBytes = typeof read === 'object' ? read.maxBytes : isList ? maxListBytes : undefined
  if (maxBytes === undefined) return meaning
  const content = await readBytes(meaning.response, maxBytes, { room })
  // A list that is too long is not the registry's fault: somebody put it there.
  return content ? { ...meaning, content } : { reason: 'no answer', cause: 'its answer breaks, or is too long' }
}

async function judgeError(by: Judging, question: Question, meaning: Meaning & { response: Reply }): Promise<Judgement> {
  const { method, digest, read } = question
  const { status, headers } = meaning.response
  if (read === 'head' && !isLookup(question)) return meaning
  const error = await readOciError(meaning.response)
  const told = { ...meaning, error }
  // Some say 500 to a digest of an algorithm they do not know.
  if (status === 500 && verdict.isOddDigest(digest)) return { ...told, verdict: 'absent' }
  if (status === 500 && by.registry.role === 'public')
    return { ...told, isVague: method === 'HEAD', verdict: verdict.verdictOfNested(nestedCode(error)) }
  if (!isLookup(question)) return told
  // What lacks the API of referrers may answer it with anything.
  if (question.entity !== 'referrers' && verdict.isAboutRequest(status, error))
    return { reason: `does not take this request: ${status}`, cause: `${status}, ${typeIn(headers)}` }
  if (status === 400) return { ...told, verdict: verdict.verdictOf400(error) }
  // What stands in front of a registry says 404 too; in front of a public one also 403, to those it blocks.
  const mayBeOfOther = status === 404 || (status === 403 && by.registry.role === 'public')
  const isOfRegistry = !mayBeOfOther || error || headers.has('Docker-Distribution-Api-Version')
  if (isOfRegistry || (await by.isRegistry())) return told
  return { reason: `its ${status} is not the answer of a registry`, cause: `${status}, ${typeIn(headers)}` }
}

function unusable(response: Reply, fault: Fault): Fault {
  readOciError(response)
  return fault
}

const typeIn = (headers: Headers) => headers.get('Content-Type') ?? 'no type'
