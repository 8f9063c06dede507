/** Words the answer where no registry gave one: what each of them said, as one error. */
import type { Entity } from '../routing.ts'
import { type OciError, ociError } from './errors.ts'
import { bearerFirst } from './headers.ts'
import type { Plan } from './names.ts'
import { type Answer, clientLeft } from './upstream.ts'

/** Nothing was found: the first line that applies (the table is in the README, "When nothing is found"). */
export function failure(method: string, entity: Entity, answers: readonly Answer[], unasked?: Plan['unasked']) {
  const hosted = answers.find(({ upstream }) => upstream === 'hosted')
  const proxy = answers.find(({ upstream }) => upstream === 'proxy')
  const notAsked = unasked ? [{ verdict: 'not asked', ...unasked }] : []
  const answer = (status: number, error: OciError, fields: Record<string, string> = {}) =>
    ociError(method, status, { ...error, detail: [...told(answers), ...notAsked] }, fields)
  const failed = ({ upstream, status }: Answer) =>
    answer(status === 504 ? 504 : 502, { code: 'UNAVAILABLE', message: `${upstream} gave no usable answer` })

  if (answers.some(clientLeft)) return new Response(null, { status: 499 })
  if (hosted?.status === 401) {
    const challenges = bearerFirst(hosted.response?.headers.get('WWW-Authenticate') ?? '')
    const error = hosted.error ?? { code: 'UNAUTHORIZED', message: 'hosted requires a login' }
    return answer(401, error, challenges ? { 'WWW-Authenticate': challenges } : {})
  }
  if (hosted?.verdict === 'failed') return failed(hosted)
  const limited = [hosted, proxy].find((answer) => answer?.verdict === 'limited')
  if (limited) {
    const retryAfter = limited.response?.headers.get('Retry-After')
    const error = { code: 'TOOMANYREQUESTS', message: `${limited.upstream} limits the rate of requests` }
    return answer(429, error, retryAfter ? { 'Retry-After': retryAfter } : {})
  }
  if (proxy?.verdict === 'failed') return failed(proxy)
  if (hosted?.verdict === 'denied') {
    const code = hosted.status === 403 ? 'DENIED' : 'UNSUPPORTED'
    return answer(hosted.status, hosted.error ?? { code, message: 'hosted refuses this request' })
  }
  const code =
    { blob: 'BLOB_UNKNOWN', manifest: 'MANIFEST_UNKNOWN', referrers: 'UNSUPPORTED' }[entity as string] ?? 'NAME_UNKNOWN'
  return answer(404, hosted?.error ?? { code, message: `${entity} unknown` })
}

/** What each upstream said, for the log and for the `detail` of a combined error: never an address. */
export function told(answers: readonly Answer[]) {
  return answers.map(({ upstream, verdict, status, milliseconds, reason }) => {
    return { upstream, verdict, status, milliseconds: Math.round(milliseconds), reason }
  })
}
