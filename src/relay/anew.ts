/** Asks a public registry anew for what memory holds of it, while nobody waits. */
import { match } from '../../routing.ts'
import type { Due } from '../memory/memory.ts'
import { readingOf } from '../memory/reading.ts'
import type { Answer, Registry } from '../registry/answer.ts'
import { passedOn } from '../registry/headers.ts'
import { discard } from '../registry/registry.ts'
import { askAs, type Exchange } from './exchange.ts'
import { lookerOf } from './look.ts'
import type { Plan } from './plan.ts'
import type { Surroundings } from './surroundings.ts'

/** Asks what is due, if there is room for it. The next client has the new answer. */
export function askAnew(around: Surroundings, exchange: Exchange, plan: Plan, due: () => Due): void {
  const { background } = around
  if (!background.hasRoom) return
  const { tag, name } = due()
  if (tag) background.run((signal) => askForTag(around, ownExchange(exchange, signal), plan, tag))
  if (name) background.run((signal) => askForName(ownExchange(exchange, signal), name))
}

/** The same question, without its client. */
function ownExchange({ request, matched, query }: Exchange, signal: AbortSignal): Exchange {
  const accept = passedOn(request.headers)('accept')
  const headers: Record<string, string> = accept === null ? {} : { Accept: accept }
  return { request: new Request(request.url, { headers, signal }), matched, query, client: {} }
}

async function askForTag({ memory }: Surroundings, exchange: Exchange, plan: Plan, registry: Registry): Promise<void> {
  const reading = readingOf(exchange.request, plan, exchange.query, false)
  memory.learn(reading, await outcomeOf(lookerOf(memory, exchange, reading, () => false)(registry, 'GET')))
}

/** A list of one tag is enough: it says whether the name is there. */
async function askForName(exchange: Exchange, { of, learn }: NonNullable<Due['name']>): Promise<void> {
  const matched = match('GET', `/v2/${exchange.matched.name}/tags/list`)
  if ('refused' in matched) return
  const ask = askAs({ ...exchange, matched, query: '?n=1' })
  const answer = await outcomeOf(ask(of, { read: 'error', purpose: 'lookup' }))
  // What a registry says that is not well is not believed for long.
  if (answer.verdict !== 'absent' || (await of.isWell())) learn(answer)
}

/** The trial of a registry that failed lately is waited for. */
async function outcomeOf(asked: Promise<Answer>): Promise<Answer> {
  const given = await asked
  const answer = given.later ? await given.later.answer : given
  discard(answer)
  return answer
}
