/** Whether hosted takes a push: an upload is opened and cancelled. The only part of `check` that writes. */
import { match } from '../../routing.ts'
import type { Answer } from '../registry/answer.ts'
import { type PlanRules, planOf } from '../relay/plan.ts'
import { type About, type Finding, finding } from './findings.ts'
import { absentName } from './images.ts'
import type { Subject } from './subject.ts'
import type { Code } from './table.ts'

const uploadsOf = (name: string) => `/v2/${name}/blobs/uploads/`

/** Why nothing can be pushed under this name, whatever hosted says. */
export function faultOfName(name: string, rules: PlanRules): string | undefined {
  const matched = match('POST', uploadsOf(name))
  if ('refused' in matched) return matched.message
  const plan = planOf(rules, 'POST', matched, '')
  return 'refused' in plan ? plan.message : undefined
}

/** The proxy is only asked if hosted turns out to be a cache: then it may be hosted. */
export async function judgePush(name: string, hosted: Subject, proxy: Subject, passLogin: boolean): Promise<Finding[]> {
  const { opened, left } = await tryUpload(hosted, name)
  const { status, reason, cause, error } = opened
  const of = (code: Code, more: About = {}) => finding(code, { upstream: 'hosted', image: name, ...more })
  if (status >= 200 && status < 300) return left ? [of('upload-left')] : []
  if (status === 401 && passLogin) return [of('push-unproven')]
  if (status !== 405) return [of('push-refused', { status, error: error?.code, reason, cause })]
  const other = await tryUpload(proxy, absentName)
  const isTaken = other.opened.status === 202
  const found = [of(isTaken ? 'swapped' : 'hosted-is-cache', { status })]
  return other.left ? [...found, finding('upload-left', { upstream: 'proxy', image: absentName })] : found
}

/** `left`: whether the upload could not be cancelled. */
async function tryUpload(subject: Subject, name: string): Promise<{ opened: Answer; left: boolean }> {
  const asked = { method: 'POST', target: uploadsOf(name), entity: 'uploads', purpose: 'write' } as const
  const opened = await subject.ask(asked)
  if (opened.status !== 202) return { opened, left: false }
  const [, session = ''] = subject.registry.fieldsFrom(opened).find(([field]) => field === 'location') ?? []
  // An address elsewhere is not this router's to ask.
  if (!session.startsWith('/v2/')) return { opened, left: true }
  const target = session
  const cancelled = await subject.ask({ method: 'DELETE', target, entity: 'upload', purpose: 'write' })
  return { opened, left: cancelled.verdict !== 'found' }
}
