/** Carries out a match: asks the upstreams in order and streams the winner. */
import { type Match, match, type UpstreamName } from '../routing.ts'
import type { Config } from './config.ts'
import type { AskFor, Copier } from './copy.ts'
import { ociError, readBytes, refusalOf } from './errors.ts'
import { failure, told } from './failure.ts'
import { hasBody, ofPings, requestHeaders, responseHeaders, unconditional } from './headers.ts'
import { type Memory, readingOf } from './memory.ts'
import { createMends, isMount, longestManifest } from './mend.ts'
import { type Plan, planOf } from './names.ts'
import { indexType, joined, longestPage, readList, referrersTag } from './referrers.ts'
import type { Body, Connection, Reply } from './runtime.ts'
import { type Answer, type Ask, clientLeft, discard, leaving, left, type Question } from './upstream.ts'

/** What came of one request, as the client, the log and the metrics need it. */
export interface Outcome {
  response: Response
  /** What the response's body was made of, where that is known. */
  body?: Body
  answers: readonly Answer[]
  /** Whose answer the client got; absent where it is this router's own. */
  by?: UpstreamName
  /** Bytes of the bodies from and to the client, as far as their length is known before they have passed. */
  bytesIn?: number
  bytesOut?: number
}

export type Relay = ReturnType<typeof createRelay>

/** A matched request, with its query as it came (`?…` or empty). */
export interface Target {
  matched: Match
  query: string
}

/** Bytes of manifests held at once; a further one streams, and is not mended: whoever puts it may be a stranger still. */
const mostHeld = 32 * 1024 * 1024
const v2 = match('GET', '/v2/') as Match

export function createRelay(config: Config, ask: Record<UpstreamName, Ask>, memory: Memory, copy: Copier) {
  const mends = createMends(config, memory, copy)
  /** Bytes of the manifests that are being put. */
  let held = 0
  return { carryOut, ping, askFor }

  async function carryOut(request: Request, target: Target, connection: Connection): Promise<Outcome> {
    const { entity } = target.matched.route
    if (entity === 'base') return base(request, connection)
    const plan = planOf(config, request.method, target.matched, target.query)
    if ('refused' in plan) return { response: refusalOf(request.method, plan), answers: [] }
    if (entity === 'referrers' && plan.order.length > 1) return referrers(request, target, connection)
    // What a row asks of hosted alone passes as it came; all else is looked up, and hosted's name has its 404 explained.
    if (plan.order[0] === 'hosted' && plan.order.length === 1 && !plan.unasked) return pass(request, target, connection)
    return lookup(request, target, plan, connection)
  }

  function askFor(request: Request, { matched, query }: Target, connection: Connection): AskFor {
    const { method, signal } = request
    const target = matched.path + query
    return (to, asked, fields) => {
      const headers = Object.assign(asked.headers ?? requestHeaders(to, request, config, connection), fields)
      return ask[to]({ method, target, abort: asked.abort ?? leaving(signal), ...asked, headers })
    }
  }

  /** What hosted alone is asked: its answer passes as it came, whatever its verdict, unless the proxy can mend it. */
  async function pass(request: Request, target: Target, connection: Connection): Promise<Outcome> {
    const size = Number(request.headers.get('Content-Length') ?? Number.NaN)
    const isHeld = target.matched.route.entity === 'manifest' && size <= longestManifest && held + size <= mostHeld
    if (isHeld) held += size
    return passOn(request, target, connection, isHeld).finally(() => {
      if (isHeld) held -= size
    })
  }

  async function passOn(request: Request, target: Target, connection: Connection, isHeld: boolean): Promise<Outcome> {
    const { method } = request
    const { name, route } = target.matched
    const body = hasBody(request) ? (connection.upload ?? request.body) : null
    const length = request.headers.get('Content-Length')
    const sent: Partial<Question> = { body, bodyRead: connection.bodyRead, namesAnother: isMount(target) }
    let manifest: Uint8Array<ArrayBuffer> | undefined
    if (body && isHeld) {
      // Whole, so that it can be sent once more when what it lacks is there.
      manifest = await readBytes(request, longestManifest)
      if (!manifest) return { response: new Response(null, { status: 499 }), answers: [left('hosted')] }
      sent.body = manifest
    }
    const mending = { ...target, ask: askFor(request, target, connection), manifest }
    const answer = await mending.ask('hosted', sent, body && length !== null ? { 'content-length': length } : {})
    const mended = answer.response ? ((await mends[`${method} ${route.entity}`]?.(mending, answer)) ?? []) : []
    const answers = [answer, ...mended]
    const last = answers.at(-1) as Answer
    // One that got no answer may have been carried out.
    if (name && !['GET', 'HEAD'].includes(method) && last.verdict !== 'denied')
      memory.wrote(name, last.verdict === 'found')
    for (const one of answers.slice(0, -1)) discard(one)
    if (!last.response) return { response: failure(method, route.entity, [last]), answers }
    const taken = body && last.verdict === 'found'
    return deliver(last, answers, method, taken ? Number(length ?? stored(last.response)) : 0)
  }

  /** A row that asks both: the first answer that is `found` wins; with none, the failure names what each said. */
  async function lookup(request: Request, target: Target, plan: Plan, connection: Connection): Promise<Outcome> {
    const { matched, query } = target
    const reading = readingOf(request, matched, query, config.passLogin)
    const kept = memory.manifest(reading)
    if (kept) {
      const { upstream: by, content, headers } = kept
      const body = request.method === 'HEAD' ? null : content
      const response = new Response(body, { headers })
      return { response, body, answers: [], by, bytesOut: body?.byteLength ?? 0 }
    }
    const { order, unasked } = plan
    // A tag hosted may hold is never served from elsewhere only because hosted could not be asked.
    const decides = (upstream: UpstreamName) => upstream === 'hosted' && order[0] === 'hosted' && !matched.digest
    const ask = askFor(request, target, connection)
    const look = (upstream: UpstreamName, method: string) => {
      if (matched.route.entity !== 'manifest') return ask(upstream, { method, readError: true, aside: true })
      // Throws for whoever sends too many, not for those who ask the same.
      const headers = requestHeaders(upstream, request, config, connection)
      const asked = { method, headers, readError: true, whole: true, aside: !decides(upstream) }
      return memory.together(upstream, method, reading, (abort, fields) => ask(upstream, { ...asked, abort }, fields))
    }
    const inTurn = memory.first(reading) === order[1] ? [...order].reverse() : order
    const answers: Answer[] = []
    // Of a list in pages, all are of one registry: none is the answer only because another one fails.
    const isPage = ({ response }: Answer) =>
      matched.route.entity === 'tags' && (response?.headers.has('Link') || new URLSearchParams(query).has('last'))
    const won = (): Outcome | undefined => {
      const winner = answers.find((one) => one.verdict === 'found' && !(isPage(one) && answers.some(isUnsure)))
      if (!winner) return undefined
      // What is still on its way is needed no more.
      for (const { later } of answers) later?.then(discard)
      return deliver(winner, answers, request.method)
    }
    for (const upstream of inTurn) {
      const answer = await look(upstream, request.method)
      memory.learn(reading, answer)
      answers.push(answer)
      const outcome = won()
      if (outcome) return outcome
      // Denied for another reason than its login, hosted may have it all the same.
      const open = isUnsure(answer) || (answer.verdict === 'denied' && ![401, 403].includes(answer.status))
      if ((open && decides(upstream)) || clientLeft(answer)) break
    }
    // Nobody else has it, so the one that failed lately is worth the wait after all.
    for (const [i, { later }] of answers.entries()) {
      if (!later) continue
      answers[i] = await later
      const outcome = won()
      if (outcome) return outcome
    }
    for (const one of answers) discard(one)
    const unclear = answers.findIndex(({ upstream, status }) => upstream === 'proxy' && status === 500)
    if (request.method === 'HEAD' && unclear >= 0) {
      // A cache's 500 tells what it means in its body alone, and a HEAD has none.
      const retold = await look('proxy', 'GET')
      discard(retold)
      retold.later?.then(discard)
      answers[unclear] = retold
      if (retold.verdict === 'found') return deliver(retold, answers, 'HEAD')
    }
    // Told in the table's order, whoever was asked first.
    answers.sort((a, b) => order.indexOf(a.upstream) - order.indexOf(b.upstream))
    return { response: failure(request.method, matched.route.entity, answers, unasked), answers }
  }

  /** Both registries' lists as one. Hosted's lack of the API passes: clients then keep referrers under a tag. */
  async function referrers(request: Request, target: Target, connection: Connection): Promise<Outcome> {
    const { path, name, digest = '' } = target.matched
    const decided = leaving(request.signal)
    const ask = askFor(unconditional(request, indexType), target, connection)
    const list = (to: UpstreamName, at: string, query: string) =>
      readList(async (page) => {
        const abort = leaving(decided.signal)
        const answer = await ask(to, { target: at + page, abort, readError: true, most: longestPage })
        // What a public registry does not have it may lead to a page for people.
        return to === 'proxy' && at === path && answer.verdict === 'found' && answer.status >= 300
          ? { ...answer, verdict: 'absent' }
          : answer
      }, query)
    const listOfProxy = list('proxy', path, target.query).then((listing) => {
      // Registries without the API say 404, as they should, or 400, 403 or 405.
      if (!['absent', 'denied'].includes(listing.answer.verdict)) return listing
      return list('proxy', `/v2/${name}/manifests/${referrersTag(digest)}`, '')
    })
    // Where hosted's fails, nobody waits for it.
    listOfProxy.catch(() => {})
    const hosted = await list('hosted', path, target.query)
    if (hosted.answer.verdict !== 'found') {
      decided.abort()
      return { response: failure(request.method, 'referrers', [hosted.answer]), answers: [hosted.answer] }
    }
    const proxy = await listOfProxy
    const answers = [proxy.answer, hosted.answer]
    if (isUnsure(proxy.answer)) return { response: failure(request.method, 'referrers', answers), answers }
    const artifactType = new URLSearchParams(target.query).get('artifactType') || null
    // Hosted's last: of several signatures cosign looks at the last one.
    const body = new TextEncoder().encode(joined([proxy, hosted], artifactType))
    const headers = new Headers({ 'Content-Type': indexType, 'Content-Length': `${body.byteLength}` })
    if (artifactType !== null) headers.set('OCI-Filters-Applied', 'artifactType')
    return { response: new Response(body, { headers }), body, answers, bytesOut: body.byteLength }
  }

  /** The registries that must be up are pinged; hosted's challenge goes to the client, so that it logs in there. */
  async function base(request: Request, connection: Connection): Promise<Outcome> {
    const ofHosted = ping('hosted', request, connection)
    const ofProxy = config.v2Requires === 'both' ? ping('proxy', request, connection) : undefined
    const [hosted, proxy] = await Promise.all([ofHosted, ofProxy])
    const answers = proxy ? [proxy, hosted] : [hosted]
    if (answers.some(clientLeft)) return { response: failure(request.method, 'base', answers), answers }
    if (hosted.status === 401) return { response: failure(request.method, 'base', answers), answers, by: 'hosted' }
    if (hosted.status === 200 && (!proxy || isUp(proxy))) {
      const headers = { 'Content-Type': 'application/json' }
      return { response: new Response(request.method === 'HEAD' ? null : '{}', { headers }), answers }
    }
    const error = { code: 'UNAVAILABLE', message: 'a registry is not available', detail: told(answers) }
    return { response: ociError(request.method, 503, error), answers }
  }

  /** What a registry says to `/v2/`, asked at most once a second. */
  function ping(to: UpstreamName, request: Request, connection: Connection): Promise<Answer> {
    // Its answer is for all who ask.
    const headers = requestHeaders(to, request, config, connection)
    for (const field of Object.keys(headers)) if (!ofPings.test(field)) delete headers[field]
    const asked = { method: 'GET', target: '/v2/', headers, readError: true, always: true }
    const reading = readingOf(request, v2, '', config.passLogin)
    return memory.ping(to, reading, (abort) => ask[to]({ ...asked, abort }))
  }

  function deliver(answer: Answer, answers: Answer[], method: string, bytesIn?: number): Outcome {
    const { status, headers: given } = answer.response as Reply
    const headers = responseHeaders(answer.upstream, status, given, config)
    const length = given.get('Content-Length')
    const none = [204, 304].includes(status) || method === 'HEAD' || length === '0'
    const body = none ? null : (answer.content ?? answer.response?.body ?? null)
    if (body && !given.has('Content-Type')) headers.push(['content-type', 'application/octet-stream'])
    const response = new Response(body, { status, headers })
    return { response, body, answers, by: answer.upstream, bytesIn, bytesOut: body ? Number(length) : 0 }
  }
}

/** Whether a registry's answer to a ping says that it is up: one that wants a login is. */
export function isUp({ status }: Answer): boolean {
  return status === 200 || status === 401
}

/** Whether an answer leaves open what the registry has. */
const isUnsure = ({ verdict }: Answer) => verdict === 'failed' || verdict === 'limited'

/** Bytes a chunk without a length brought, as the registry counted them (OCI distribution-spec, "Pushing a blob in chunks"). */
function stored({ headers }: Reply): number {
  const [, last] = /^(?:bytes=)?0-(\d+)$/.exec(headers.get('Range') ?? '') ?? []
  return last ? Number(last) + 1 : 0
}
