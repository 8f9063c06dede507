/** A row that asks only hosted: its answer passes as it came, unless a public registry can assist a push. */
import { type Answer, goneAnswer, type Question } from '../registry/answer.ts'
import { ociError } from '../registry/errors.ts'
import { discard } from '../registry/registry.ts'
import { isRead } from '../runtime/runtime.ts'
import { askAs, deliver, type Exchange, type Outcome } from './exchange.ts'
import { failure } from './failure.ts'
import { hold } from './hold.ts'
import type { Plan } from './plan.ts'
import { assists, isMount, maxManifestBytes } from './push.ts'
import type { Surroundings } from './surroundings.ts'

export async function forward(around: Surroundings, exchange: Exchange, plan: Plan): Promise<Outcome> {
  const { request, matched, openBody, room } = exchange
  const size = Number(request.headers.get('Content-Length') ?? Number.NaN)
  if (matched.route.entity !== 'manifest' || !openBody || !(size <= maxManifestBytes))
    return pass(around, exchange, plan)
  const { body, bodyRead } = openBody()
  // Whole, so that it can be sent again when hosted has what it lacked.
  const held = await hold(body as AsyncIterable<Uint8Array>, room, around.settings.idleTimeout * manifestShare)
  if (!held) return { response: new Response(null, { status: 499 }), answers: [goneAnswer(around.registries.hosted)] }
  if (held === 'late') return { response: ociError(request.method, 408, tooLate), answers: [] }
  if ('whole' in held) return pass(around, exchange, plan, held.whole)
  // Without room in memory it streams, and is not assisted.
  return pass(around, { ...exchange, openBody: () => ({ body: held.rest, bodyRead }) }, plan)
}

/** A manifest must have come after this part of the time in which a layer may rest: so its client is answered, not cut. */
const manifestShare = 1 / 2
const tooLate = { code: 'UNSUPPORTED', message: 'the manifest did not come in time' }

async function pass(
  around: Surroundings,
  exchange: Exchange,
  { assistant = '' }: Plan,
  manifest?: Uint8Array<ArrayBuffer>,
): Promise<Outcome> {
  const { request, matched, openBody } = exchange
  const { method } = request
  const { entity } = matched.route
  const ask = askAs(method === 'DELETE' ? withoutClient(exchange) : exchange)
  const length = request.headers.get('Content-Length')
  const question: Partial<Question> = manifest ? { body: manifest } : { ...openBody?.() }
  if (isMount(exchange)) question.purpose = 'mount'
  const first = await ask(
    around.registries.hosted,
    question,
    openBody && length !== null ? { 'content-length': length } : {},
  )
  const source = around.registries.byName.get(assistant)
  const assist = first.response && assists[`${method} ${entity}`]
  const answers = assist ? await assist({ ...exchange, around, ask, manifest, source }, first) : [first]
  const last = answers.at(-1) as Answer
  recordWrite(around, exchange, last)
  for (const one of answers.slice(0, -1)) discard(one)
  if (!last.response) return { response: failure(method, entity, [last]), answers }
  const isTaken = openBody && last.verdict === 'found'
  return deliver(last, answers, method, isTaken ? Number(length ?? storedBytes(last)) : 0)
}

/** A delete goes on without its client, so that memory hears of its end: hosted may carry it out in any case. */
function withoutClient(exchange: Exchange): Exchange {
  const { method, url, headers } = exchange.request
  return { ...exchange, request: new Request(url, { method, headers }) }
}

/** Memory hears of every write that may have been carried out: one without an answer may have been. */
function recordWrite({ memory }: Surroundings, { request, matched: { name } }: Exchange, { verdict }: Answer): void {
  if (!name || isRead(request) || verdict === 'denied') return
  memory.writes.record(name, verdict === 'found')
}

/** Bytes that a chunk without a length brought, as the registry counted them (distribution-spec, "Pushing a blob in chunks"). */
function storedBytes({ headers }: Answer): number {
  const [, last] = /^(?:bytes=)?0-(\d+)$/.exec(headers.get('Range') ?? '') ?? []
  return last ? Number(last) + 1 : 0
}
