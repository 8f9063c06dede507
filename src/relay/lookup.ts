/** A row that asks several registries: the first answer that is `found` wins. */
import { type Reading, readingOf } from '../memory/reading.ts'
import { type Answer, isUnsure, type Registry } from '../registry/answer.ts'
import { discard } from '../registry/registry.ts'
import { respond } from '../runtime/body.ts'
import { askAs, deliver, type Exchange, type Outcome } from './exchange.ts'
import { failure } from './failure.ts'
import type { Plan } from './plan.ts'
import type { Surroundings } from './surroundings.ts'

/** Asks one of the registries, by this method. */
type Look = (registry: Registry, method: string) => Promise<Answer>

/** Without a `found`, the failure names what each registry said. */
export async function lookup(around: Surroundings, exchange: Exchange, plan: Plan): Promise<Outcome> {
  const { memory, registries } = around
  const { request, matched, query } = exchange
  const { method } = request
  const reading = readingOf(request, matched, query, registries.hosted.forwardsLogin)
  const kept = memory.manifest(reading)
  if (kept) {
    const body = method === 'HEAD' ? null : kept.content
    const response = respond(body, { headers: kept.headers })
    return { response, answers: [], by: kept.from, bytesOut: body?.byteLength ?? 0 }
  }
  const order = plan.order.map((name) => registries[name])
  const decides = (registry: Registry) => registry === order[0] && decidesTags(registry, matched.digest)
  const look = lookerOf(around, exchange, reading, decides)
  const answers: Answer[] = []
  for (const registry of memory.inTurn(reading, order)) {
    const answer = await look(registry, method)
    memory.hints.learn(reading, answer)
    answers.push(answer)
    const winner = winnerOf(answers, exchange)
    if (winner) return win(winner, answers, method)
    if (answer.verdict === 'gone' || (decides(registry) && isOpen(answer))) break
  }
  // Nobody else has it, so a registry that failed lately is worth waiting for.
  for (const [i, { later }] of answers.entries()) {
    if (!later) continue
    answers[i] = await later
    const winner = winnerOf(answers, exchange)
    if (winner) return win(winner, answers, method)
  }
  for (const one of answers) discard(one)
  const vague = answers.findIndex(({ isVague }) => isVague)
  if (vague >= 0) {
    const retold = await lookAgain(look, answers[vague] as Answer)
    answers[vague] = retold
    if (retold.verdict === 'found') return deliver(retold, answers, method)
  }
  // In the table's order, whoever was asked first.
  answers.sort((a, b) => order.indexOf(a.from) - order.indexOf(b.from))
  return { response: failure(method, matched.route.entity, answers, plan.unasked), answers }
}

/** A tag that hosted may hold is never served from elsewhere only because hosted could not be asked. */
const decidesTags = ({ role }: Registry, digest: string | undefined) => role === 'hosted' && !digest

/** Whether the registry may have it all the same. A 401 or 403 is about its login. */
function isOpen(answer: Answer): boolean {
  return isUnsure(answer) || (answer.verdict === 'denied' && ![401, 403].includes(answer.status))
}

function lookerOf(
  { memory }: Surroundings,
  exchange: Exchange,
  reading: Reading,
  decides: (registry: Registry) => boolean,
): Look {
  const { request, matched, client } = exchange
  const ask = askAs(exchange)
  if (matched.route.entity !== 'manifest')
    return (registry, method) => ask(registry, { method, read: 'error', purpose: 'lookup' })
  return async (registry, method) => {
    // Before it is shared: if the fields are too long, only the client that sent them gets the 431.
    const headers = registry.fieldsFor(request, client)
    const purpose = decides(registry) ? 'read' : 'lookup'
    return memory.askTogether(registry, method, reading, (signal, fields) =>
      ask(registry, { method, headers, read: 'small', purpose, signal }, fields),
    )
  }
}

/**
 * The first answer that is `found`. All pages of a tag list must be of one registry, so a page is no answer while it is not sure
 * that the other registry lacks the name.
 */
function winnerOf(answers: readonly Answer[], { matched, query }: Exchange): Answer | undefined {
  const isPage = ({ headers }: Answer) =>
    matched.route.entity === 'tags' && (headers.has('Link') || new URLSearchParams(query).has('last'))
  return answers.find((one) => one.verdict === 'found' && !(isPage(one) && answers.some(isUnsure)))
}

function win(winner: Answer, answers: readonly Answer[], method: string): Outcome {
  // Answers that are still on their way are not needed any more.
  for (const { later } of answers) later?.then(discard)
  return deliver(winner, answers, method)
}

/** A HEAD has no body that could say what the registry's 500 means: ask with GET. */
async function lookAgain(look: Look, { from }: Answer): Promise<Answer> {
  const answer = await look(from, 'GET')
  discard(answer)
  answer.later?.then(discard)
  return answer
}
