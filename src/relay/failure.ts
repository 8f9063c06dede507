/** The answer if no registry gave one: what each of them said, as one error. */
import type { Entity } from '../../routing.ts'
import { type Answer, summarize } from '../registry/answer.ts'
import { type OciError, ociError } from '../registry/errors.ts'
import { messages } from './messages.ts'
import type { Plan } from './plan.ts'

const unknown: Partial<Record<Entity, string>> = {
  blob: 'BLOB_UNKNOWN',
  manifest: 'MANIFEST_UNKNOWN',
  referrers: 'UNSUPPORTED',
}

/** Of a 503 for want of something on this machine: most such waits are short. */
export const shortFields = { 'Retry-After': '1' }

/** The first rule that applies (docs/routing.md, "When nothing is found"). */
export function failure(
  method: string,
  entity: Entity,
  answers: readonly Answer[],
  unasked?: Plan['unasked'],
): Response {
  const hosted = answers.find(({ from }) => from.role === 'hosted')
  const proxy = answers.find(({ from }) => from.role === 'public')
  const notAsked = unasked ? [{ verdict: 'not asked', ...unasked }] : []
  const answer = (status: number, error: OciError, fields: Record<string, string> = {}) =>
    ociError(method, status, { ...error, detail: [...summarize(answers), ...notAsked] }, fields)
  const failed = (one: Answer) =>
    answer(one.status === 504 ? 504 : 502, { code: 'UNAVAILABLE', message: messages.failed(one) })

  if (answers.some(({ verdict }) => verdict === 'gone')) return new Response(null, { status: 499 })
  if (answers.some(({ shortage }) => shortage)) {
    const error = { code: 'UNAVAILABLE', message: 'this router has no room for this request now' }
    return answer(503, error, shortFields)
  }
  if (hosted?.status === 401) {
    const challenges = new Headers(hosted.from.fieldsFrom(hosted)).get('WWW-Authenticate')
    const error = hosted.error ?? { code: 'UNAUTHORIZED', message: messages.loginRequired }
    return answer(401, error, challenges ? { 'WWW-Authenticate': challenges } : {})
  }
  if (hosted?.verdict === 'failed') return failed(hosted)
  const limited = [hosted, proxy].find((one) => one?.verdict === 'limited')
  if (limited) {
    const retryAfter = limited.headers.get('Retry-After')
    const error = { code: 'TOOMANYREQUESTS', message: messages.limited(limited) }
    return answer(429, error, retryAfter ? { 'Retry-After': retryAfter } : {})
  }
  if (proxy?.verdict === 'failed') return failed(proxy)
  if (hosted?.verdict === 'denied') {
    const code = hosted.status === 403 ? 'DENIED' : 'UNSUPPORTED'
    return answer(hosted.status, hosted.error ?? { code, message: messages.refused })
  }
  // A refusal of the public registry that is about this request, and an OCI error. Its detail may hold inner addresses.
  if (proxy?.verdict === 'denied' && proxy.status === 400 && proxy.error)
    return answer(400, { code: proxy.error.code, message: proxy.error.message })
  return answer(404, hosted?.error ?? { code: unknown[entity] ?? 'NAME_UNKNOWN', message: `${entity} unknown` })
}
