/** Carries out a matched request: decides who is asked, and gives the client one answer. */
import { pingReadingOf } from '../memory/reading.ts'
import { type Answer, isUp, pingQuestion, type Registry, summarize } from '../registry/answer.ts'
import { ociError, refusalOf } from '../registry/errors.ts'
import { pingFields } from '../registry/headers.ts'
import { linksAsAsked } from '../registry/links.ts'
import { respond } from '../runtime/body.ts'
import type { Exchange, Outcome } from './exchange.ts'
import { failure, shortFields } from './failure.ts'
import { forward } from './forward.ts'
import { lookup } from './lookup.ts'
import { messages } from './messages.ts'
import { type Plan, planOf } from './plan.ts'
import { referrers } from './referrers.ts'
import type { Surroundings } from './surroundings.ts'

/** What comes of a request. */
export async function carryOut(around: Surroundings, exchange: Exchange): Promise<Outcome> {
  const { request, matched, query } = exchange
  if (matched.route.entity === 'base') return base(around, exchange)
  const plan = planOf(around.settings, request.method, matched, query)
  if ('refused' in plan) return { response: refusalOf(request.method, plan), answers: [] }
  const outcome = await follow(around, exchange, plan)
  // OCI distribution-spec, "Registry Proxying".
  if (plan.namespace) outcome.response.headers.set('OCI-Namespace', plan.namespace)
  if (['tags', 'referrers'].includes(matched.route.entity)) relink(outcome.response, exchange, plan)
  return outcome
}

/** The next page is asked for as this one was. */
function relink({ headers }: Response, { matched, query }: Exchange, plan: Plan): void {
  const links = headers.get('Link')
  const namespaces = new URLSearchParams(query).getAll('ns')
  const paths = [plan, plan.official].map((one) => one?.matched.path)
  if (links) headers.set('Link', linksAsAsked(links, paths, matched.path, namespaces))
}

function follow(around: Surroundings, exchange: Exchange, plan: Plan): Promise<Outcome> {
  const { matched, query, order, unasked } = plan
  const { request, client, room, openBody } = exchange
  const asked = { request, matched, query, client, room, openBody }
  if (matched.route.entity === 'referrers' && (plan.official || order.some((one) => one !== 'hosted')))
    return referrers(around, asked, plan)
  // A row that names only hosted passes its answer. A lookup that asks only hosted explains a 404.
  const isRowOfHosted = order.length === 1 && order[0] === 'hosted' && !unasked
  return isRowOfHosted ? forward(around, asked, plan) : lookup(around, asked, plan)
}

/** `/v2/` (distribution-spec, "Determining Support"): 200 if the registries that must be up are, or hosted's challenge. */
async function base(around: Surroundings, { request, client }: Exchange): Promise<Outcome> {
  const { registries, settings } = around
  const ofHosted = ping(around, registries.hosted, request, client)
  const ofProxy = settings.v2Requires === 'both' ? ping(around, registries.proxy, request, client) : undefined
  const [hosted, proxy] = await Promise.all([ofHosted, ofProxy])
  const answers = proxy ? [proxy, hosted] : [hosted]
  if (answers.some(({ verdict }) => verdict === 'gone'))
    return { response: failure(request.method, 'base', answers), answers }
  if (hosted.status === 401)
    return { response: failure(request.method, 'base', answers), answers, by: registries.hosted }
  if (hosted.status === 200 && (!proxy || isUp(proxy))) {
    // A challenge on a 200: reading is open, and a client that wants more logs in (zot with an anonymous policy).
    const challenge = hosted.from.fieldsFrom(hosted).filter(([name]) => name === 'www-authenticate')
    const headers = [['content-type', 'application/json'], ...challenge] as [string, string][]
    return { response: respond(request.method === 'HEAD' ? null : '{}', { headers }), answers }
  }
  const message = messages.unavailable(answers.filter((one) => !isUp(one)))
  const error = { code: 'UNAVAILABLE', message, detail: summarize(answers) }
  const fields = answers.some(({ shortage }) => shortage) ? shortFields : {}
  return { response: ociError(request.method, 503, error, fields), answers }
}

/** What a registry says to `/v2/`, asked at most once a second for each login and kind of client. */
export function ping(
  { memory, registries }: Surroundings,
  to: Registry,
  request: Request,
  client: Exchange['client'],
): Promise<Answer> {
  const headers = pingFields(to.fieldsFor(request, client), to.forwardsLogin)
  const reading = pingReadingOf(request, registries.hosted.forwardsLogin)
  return memory.ping(to, reading, request, (signal) => to.ask({ ...pingQuestion, headers, signal }))
}
