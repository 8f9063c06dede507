/** Whether a registry is reached, and if not, why: by its answer to `/v2/`, and by what else is spoken at its address. */
import { type Answer, asksForNoLogin, isUp } from '../registry/answer.ts'
import { loopError, loopStatus } from '../registry/loop.ts'
import { wantsLogin } from '../registry/realm.ts'
import { type Certificate, certificateAt } from '../runtime/certificate.ts'
import type { Fetch } from '../runtime/runtime.ts'
import { type About, type Finding, finding } from './findings.ts'
import type { Subject } from './subject.ts'
import type { Code } from './table.ts'

export interface Around {
  /** Asks any address, without a login. */
  fetch: Fetch
  /** Whether clients have their logins at hosted, if it wants any. */
  passLogin: boolean
}

/** How long a look at an address may take. */
const lookMs = 5000

/** By the cause: the runtimes have these in common. */
const causes: readonly [RegExp, Code][] = [
  [/ENOTFOUND|EAI_AGAIN|dns error/i, 'host-unknown'],
  [/ECONNREFUSED|connection refused|EHOSTUNREACH|ENETUNREACH/i, 'unreachable'],
]

export const loginSettings: Readonly<Record<string, string>> = { hosted: 'HOSTED_USERNAME', proxy: 'PROXY_USERNAME' }

/** What its answer to `/v2/` shows. */
export async function judgePing(subject: Subject, told: Answer, around: Around): Promise<Finding[]> {
  const { registry } = subject
  if (!isUp(told)) return [await whyNotUp(subject, told, around)]
  const isOpen = registry.role === 'hosted' && around.passLogin && asksForNoLogin(told)
  return isOpen ? [finding('open', { upstream: subject.name })] : []
}

async function whyNotUp({ name, address, setting }: Subject, told: Answer, { fetch }: Around): Promise<Finding> {
  const { status, verdict, reason, cause, error } = told
  const of = (code: Code, more: About = {}) => finding(code, { upstream: name, setting, ...more })
  if (status === loopStatus && error?.message === loopError.message) return of('leads-back')
  const ofLogin = { setting: loginSettings[name], cause }
  if (reason === wantsLogin) return of('login-missing', ofLogin)
  if (reason?.startsWith('refuses the login')) return of('login-refused', ofLogin)
  if (verdict === 'limited') return of('rate-limited')
  if (address.protocol === 'http:' && /^redirect to https:/.test(cause ?? '')) return of('http-for-https')
  const byCause = causes.find(([pattern]) => reason === 'no answer' && pattern.test(cause ?? ''))
  if (byCause) return of(byCause[1])
  const isSilent = reason === 'no answer' || status === 504
  const certificate = isSilent || status < 500 ? await certificateAt(address, lookMs) : undefined
  if (address.protocol === 'http:' && certificate) return of('http-for-https')
  if (address.protocol === 'https:' && isSilent) {
    if (certificate) return of(faultOf(certificate, address, cause), { cause })
    if (await speaksHttp(address, fetch)) return of('https-for-http')
  }
  if (status === 504 && reason) return of('timeout')
  if (reason === 'no answer') return of('no-answer', { cause })
  if (reason) return of('not-a-registry', { reason, cause })
  return of(status >= 500 ? 'unwell' : 'not-a-registry', { status })
}

/** Why no connection opened with this certificate. */
function faultOf({ from, until, isFor }: Certificate, { hostname }: URL, cause = ''): Code {
  const now = new Date()
  if (now > until) return 'certificate-expired'
  if (now < from) return 'certificate-early'
  if (!isFor(hostname.replace(/^\[|\]$/g, ''))) return 'certificate-name'
  return /certificate|issuer|self.signed/i.test(cause) ? 'certificate-authority' : 'no-answer'
}

/** Whether anything answers there without TLS. */
async function speaksHttp({ host, port, hostname }: URL, fetch: Fetch): Promise<boolean> {
  const url = `http://${port ? host : `${hostname}:443`}/v2/`
  return fetch(url, { method: 'GET', headers: {}, signal: AbortSignal.timeout(lookMs) }).then(
    (reply) => reply.body?.cancel().then(() => true) ?? true,
    () => false,
  )
}
