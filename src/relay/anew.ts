/** Asks a public registry anew for what memory holds of it, while nobody waits. */
import { readingOf } from '../memory/reading.ts'
import type { Registry } from '../registry/answer.ts'
import { passedOn } from '../registry/headers.ts'
import { discard } from '../registry/registry.ts'
import type { Exchange } from './exchange.ts'
import { lookerOf } from './look.ts'
import type { Plan } from './plan.ts'
import type { Surroundings } from './surroundings.ts'

/** Asks the same as a client, once `due` names the registry to ask. The next client has the new answer. */
export function askAnew(
  { memory, background }: Surroundings,
  { request, matched, query }: Exchange,
  plan: Plan,
  due: () => Registry | undefined,
): void {
  const registry = background.hasRoom ? due() : undefined
  if (!registry) return
  const accept = passedOn(request.headers)('accept')
  const headers: Record<string, string> = accept === null ? {} : { Accept: accept }
  background.run(async (signal) => {
    const own = { request: new Request(request.url, { headers, signal }), matched, query, client: {} }
    const reading = readingOf(own.request, plan, query, false)
    const given = await lookerOf(memory, own, reading, () => false)(registry, 'GET')
    // The trial of a registry that failed lately is waited for.
    const answer = given.later ? await given.later.answer : given
    memory.learn(reading, answer)
    discard(answer)
  })
}
