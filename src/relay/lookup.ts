/** A row that asks several registries: the first answer that is `found` wins. */
import type { LookupMemory } from '../memory/memory.ts'
import { readingOf } from '../memory/reading.ts'
import type { Recalled } from '../memory/stored.ts'
import type { Answer, Registry } from '../registry/answer.ts'
import { discard } from '../registry/registry.ts'
import { isMissing, isRefusal, isUnsure } from '../registry/verdict.ts'
import { respond } from '../runtime/body.ts'
import { askAnew } from './anew.ts'
import { deliver, type Exchange, type Outcome, registriesIn } from './exchange.ts'
import { failure } from './failure.ts'
import { type Look, lookerOf } from './look.ts'
import type { Plan } from './plan.ts'
import type { Surroundings } from './surroundings.ts'
import { isLaterPage, ownPage } from './tags.ts'

/**
 * Without a `found`, the failure names what each registry said. `memory` is what is used of what was learned, and learns from
 * the answers.
 */
export async function lookup(
  around: Surroundings,
  exchange: Exchange,
  plan: Plan,
  memory: LookupMemory = around.memory,
): Promise<Outcome> {
  const { official } = plan
  const { request, matched } = exchange
  const asOfficial = () =>
    search(around, { ...exchange, matched: (official as Plan).matched }, official as Plan, memory)
  // A digest has the same content under either name.
  if (official && matched.digest && memory.isPublic(official.fullName)) {
    const found = await asOfficial()
    if ('response' in found) return found
  }
  const found = await search(around, exchange, plan, memory)
  if ('response' in found) return found
  const answers = [...found]
  if (official && found.every(isMissing)) {
    const foundOfficial = await asOfficial()
    if ('response' in foundOfficial) return { ...foundOfficial, answers: [...found, ...foundOfficial.answers] }
    answers.unshift(...foundOfficial)
  }
  const unsure = found.find((one) => isUnsure(one) && one.from.role === 'public')
  if (official && unsure && found.every((one) => one === unsure || isMissing(one))) {
    const reading = readingOf(request, official, exchange.query, around.registries.hosted.forwardsLogin)
    const stale = memory.instead(reading, unsure)
    if (stale) return fromMemory(stale, answers, request.method)
  }
  return { response: failure(request.method, matched.route.entity, answers, plan.unasked), answers }
}

/** Asks the registries of a plan until one has it, or else gives what each of them said. */
async function search(
  around: Surroundings,
  exchange: Exchange,
  plan: Plan,
  memory: LookupMemory,
): Promise<Outcome | Answer[]> {
  const { registries } = around
  const { hosted } = registries
  const { request, matched, query } = exchange
  const { method } = request
  const order = registriesIn(registries, plan.order)
  const reading = readingOf(request, plan, query, hosted.forwardsLogin)
  const recalled = memory.recall(reading, order)
  if (recalled) {
    if (recalled.isDue) askAnew(around, exchange, plan, () => ({ tag: recalled.from }))
    return fromMemory(recalled, [], method)
  }
  const decides = (registry: Registry) => registry === order[0] && decidesTags(registry, matched.digest)
  const look = lookerOf(memory, exchange, reading, decides)
  const answers: Answer[] = []
  for (const registry of memory.inTurn(reading, order)) {
    const answer = await look(registry, method)
    memory.learn(reading, answer)
    answers.push(await ownPage(exchange, answer))
    const stale = memory.instead(reading, answer)
    if (stale) return fromMemory(stale, answers, method)
    const winner = winnerOf(answers, exchange)
    // What hosted wants a login for, and the public registry lacks, is hosted's.
    const isRefused = registry === hosted && isRefusal(answer) && memory.lacking(reading, order) !== undefined
    if (winner === answer || isRefused) askAnew(around, exchange, plan, () => memory.due(reading, order, answer))
    if (winner) return win(winner, answers, method)
    if (answer.verdict === 'gone' || (decides(registry) && isOpen(answer)) || isRefused) break
  }
  const late = await waitForLater(answers, exchange)
  if (late) {
    memory.learn(reading, late)
    return win(late, answers, method)
  }
  for (const one of answers) discard(one)
  const vague = answers.findIndex(({ isVague }) => isVague)
  if (vague >= 0) {
    const retold = await lookAgain(look, answers[vague] as Answer)
    memory.learn(reading, retold)
    answers[vague] = retold
    if (retold.verdict === 'found') return deliver(retold, answers, method)
    const stale = memory.instead(reading, retold)
    if (stale) return fromMemory(stale, answers, method)
  }
  // In the table's order, whoever was asked first.
  return answers.sort((a, b) => order.indexOf(a.from) - order.indexOf(b.from))
}

/** Nobody has it so far, so a registry that failed lately, or is late, is worth waiting for. Gives the first that has it. */
async function waitForLater(answers: Answer[], exchange: Exchange): Promise<Answer | undefined> {
  for (;;) {
    const pending = answers.flatMap(({ later }, at) => (later ? [later.answer.then((answer) => ({ answer, at }))] : []))
    if (pending.length === 0) return undefined
    const { answer, at } = await Promise.race(pending)
    answers[at] = answer
    const winner = winnerOf(answers, exchange)
    if (winner) return winner
  }
}

/** A tag that hosted may hold is never served from elsewhere only because hosted could not be asked. */
const decidesTags = ({ role }: Registry, digest: string | undefined) => role === 'hosted' && !digest

/** Whether the registry may have it all the same. A 401 or 403 is about its login. */
function isOpen(answer: Answer): boolean {
  return isUnsure(answer) || (answer.verdict === 'denied' && !isRefusal(answer))
}

/**
 * The first answer that is `found`. All pages of a tag list must be of one registry, so a page is no answer while it is not sure
 * that the other registry lacks the name.
 */
function winnerOf(answers: readonly Answer[], { matched, query }: Exchange): Answer | undefined {
  const isPage = ({ headers }: Answer) => matched.route.entity === 'tags' && (headers.has('Link') || isLaterPage(query))
  return answers.find((one) => one.verdict === 'found' && !(isPage(one) && answers.some(isUnsure)))
}

function fromMemory(recalled: Recalled, answers: readonly Answer[], method: string): Outcome {
  for (const { later } of answers) later?.abandon()
  const { from, content, headers, age, isStale } = recalled
  const body = method === 'HEAD' ? null : content
  return { response: respond(body, { headers }), answers, by: from, bytesOut: body?.byteLength ?? 0, age, isStale }
}

function win(winner: Answer, answers: readonly Answer[], method: string): Outcome {
  // Answers that are still on their way are not needed any more.
  for (const { later } of answers) later?.abandon()
  return deliver(winner, answers, method)
}

/** A HEAD has no body that could say what the registry's 500 means: ask with GET. */
async function lookAgain(look: Look, { from }: Answer): Promise<Answer> {
  const answer = await look(from, 'GET')
  discard(answer)
  answer.later?.abandon()
  return answer
}
