/** A row that asks several registries: the first answer that is `found` wins. */
import type { LookupMemory } from '../memory/memory.ts'
import { type Reading, readingOf } from '../memory/reading.ts'
import type { Recalled } from '../memory/stored.ts'
import type { Answer, Registry } from '../registry/answer.ts'
import { discard } from '../registry/registry.ts'
import { isLaterPage, isMissing, isRefusal, isUnsure } from '../registry/verdict.ts'
import { respond } from '../runtime/body.ts'
import { askAnew } from './anew.ts'
import { deliver, type Exchange, type Outcome, registriesIn } from './exchange.ts'
import { failure } from './failure.ts'
import { type Look, lookerOf } from './look.ts'
import type { Plan } from './plan.ts'
import type { Surroundings } from './surroundings.ts'
import { ownPage } from './tags.ts'

/** A plan to be followed for a client; `memory` is what is used of what was learned, and learns from the answers. */
interface Task {
  around: Surroundings
  exchange: Exchange
  plan: Plan
  memory: LookupMemory
}

/** Without a `found`, the failure names what each registry said. */
export async function lookup(
  around: Surroundings,
  exchange: Exchange,
  plan: Plan,
  memory: LookupMemory = around.memory,
): Promise<Outcome> {
  const task = { around, exchange, plan, memory }
  const official = plan.official && officialTask(task, plan.official)
  // A digest has the same content under either name.
  if (official && exchange.matched.digest && memory.isPublic(official.plan.fullName)) {
    const found = await search(official)
    if ('response' in found) return found
  }
  const found = await search(task)
  if ('response' in found) return found
  return official ? searchOfficial(task, official, found) : foundNowhere(task, found)
}

function officialTask({ around, exchange, memory }: Task, plan: Plan): Task {
  return { around, exchange: { ...exchange, matched: plan.matched }, plan, memory }
}

/** Nobody gave what was asked for: `said`. If all lack the name, an official image of Docker Hub may be meant. */
async function searchOfficial(task: Task, official: Task, said: readonly Answer[]): Promise<Outcome> {
  const answers = [...said]
  if (said.every(hasNone)) {
    const found = await search(official)
    if ('response' in found) return { ...found, answers: [...said, ...found.answers] }
    answers.unshift(...found)
  }
  const unsure = said.find((one) => isUnsure(one) && one.from.role === 'public')
  if (unsure && said.every((one) => one === unsure || isMissing(one))) {
    const stale = task.memory.instead(readingIn(official), unsure)
    if (stale) return fromMemory(stale, answers, task.exchange.request.method)
  }
  return foundNowhere(task, answers)
}

/** Whether a registry lacks it, or has a list without tags. */
const hasNone = (answer: Answer) => answer.isEmpty || isMissing(answer)

function foundNowhere({ exchange: { request, matched }, plan }: Task, answers: readonly Answer[]): Outcome {
  const empty = answers.find(({ isEmpty }) => isEmpty)
  if (empty && answers.every(hasNone)) return deliver(empty, answers, request.method)
  return { response: failure(request.method, matched.route.entity, answers, plan.unasked), answers }
}

const readingIn = ({ around, exchange: { request, query }, plan }: Task) =>
  readingOf(request, plan, query, around.registries.hosted.forwardsLogin)

/** What memory has, or else what the registries of the plan give. */
function search(task: Task): Outcome | Promise<Outcome | Answer[]> {
  const { around, exchange, plan, memory } = task
  const order = registriesIn(around.registries, plan.order)
  const reading = readingIn(task)
  const recalled = memory.recall(reading, order)
  if (!recalled) return askInTurn(task, order, reading)
  if (recalled.isDue) askAnew(around, exchange, plan, () => ({ tag: recalled.from }))
  return fromMemory(recalled, [], exchange.request.method)
}

/** Asks the registries of a plan until one has it, or else gives what each of them said. */
async function askInTurn(task: Task, order: readonly Registry[], reading: Reading): Promise<Outcome | Answer[]> {
  const { around, exchange, plan, memory } = task
  const { hosted } = around.registries
  const { matched, request } = exchange
  const { method } = request
  const decides = (registry: Registry) => registry === order[0] && decidesTags(registry, matched.digest)
  const look = lookerOf(memory, exchange, reading, decides)
  const answers: Answer[] = []
  for (const registry of memory.inTurn(reading, order)) {
    const answer = await ownPage(exchange, await look(registry, method))
    memory.learn(reading, answer)
    answers.push(answer)
    const stale = memory.instead(reading, answer)
    if (stale) {
      leave(task, reading, answers)
      return fromMemory(stale, answers, method)
    }
    const winner = winnerOf(answers, exchange)
    // What hosted wants a login for, and the public registry lacks, is hosted's.
    const isRefused = registry === hosted && isRefusal(answer) && memory.lacking(reading, order) !== undefined
    if (winner === answer || isRefused) askAnew(around, exchange, plan, () => memory.due(reading, order, answer))
    if (winner) return win(task, reading, winner, answers)
    if (answer.verdict === 'gone' || (decides(registry) && isOpen(answer)) || isRefused) break
  }
  const found = await askOnceMore(task, order, reading, look, answers)
  // Clients read them in the order of the route table.
  return found ?? answers.sort((a, b) => order.indexOf(a.from) - order.indexOf(b.from))
}

/** What an answer that is late, or a HEAD that says too little, turns out to be. */
async function askOnceMore(
  task: Task,
  order: readonly Registry[],
  reading: Reading,
  look: Look,
  answers: Answer[],
): Promise<Outcome | undefined> {
  const { around, exchange, plan, memory } = task
  const give = (winner: Answer) => {
    askAnew(around, exchange, plan, () => memory.due(reading, order, winner))
    return win(task, reading, winner, answers)
  }
  const late = await waitForLater(task, reading, answers)
  if (late) return give(late)
  for (const one of answers) discard(one)
  const vague = answers.findIndex(({ isVague }) => isVague)
  if (vague < 0) return undefined
  const retold = await lookAgain(look, answers[vague] as Answer)
  memory.learn(reading, retold)
  answers[vague] = retold
  if (retold.verdict === 'found') return give(retold)
  const stale = memory.instead(reading, retold)
  return stale && fromMemory(stale, answers, exchange.request.method)
}

/** Nobody has it so far, so a registry that failed lately, or is late, is worth waiting for. Gives the first that has it. */
async function waitForLater(
  { exchange, memory }: Task,
  reading: Reading,
  answers: Answer[],
): Promise<Answer | undefined> {
  const arrived = async (later: Promise<Answer>, at: number) => ({ answer: await ownPage(exchange, await later), at })
  const pending = new Map<number, ReturnType<typeof arrived>>()
  for (const [at, { later }] of answers.entries()) if (later) pending.set(at, arrived(later.answer, at))
  while (pending.size > 0) {
    const { answer, at } = await Promise.race(pending.values())
    pending.delete(at)
    memory.learn(reading, answer)
    answers[at] = answer
    const winner = winnerOf(answers, exchange)
    if (winner) return winner
  }
  return undefined
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
  return answers.find((one) => one.verdict === 'found' && !one.isEmpty && !(isPage(one) && answers.some(isUnsure)))
}

function fromMemory(recalled: Recalled, answers: readonly Answer[], method: string): Outcome {
  const { from, content, headers, age, isStale } = recalled
  const body = method === 'HEAD' ? null : content
  return { response: respond(body, { headers }), answers, by: from, bytesOut: body?.byteLength ?? 0, age, isStale }
}

function win(task: Task, reading: Reading, winner: Answer, answers: readonly Answer[]): Outcome {
  leave(task, reading, answers)
  return deliver(winner, answers, task.exchange.request.method)
}

/** Answers that are still on their way are not waited for any more. What arrives all the same is learned. */
function leave({ exchange, memory }: Task, reading: Reading, answers: readonly Answer[]): void {
  const learn = async (answer: Answer) => memory.learn(reading, await ownPage(exchange, answer))
  for (const { later } of answers) later?.abandon()?.then(learn)
}

/** A HEAD has no body that could say what the registry's 500 means: ask with GET. */
async function lookAgain(look: Look, { from }: Answer): Promise<Answer> {
  const answer = await look(from, 'GET')
  discard(answer)
  answer.later?.abandon()
  return answer
}
