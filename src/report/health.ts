/** What `/healthcheck` says: each registry's status to `/v2/`. */
import { isUp, pingQuestion, type Registry } from '../registry/answer.ts'
import { discard } from '../registry/registry.ts'

/** `isWell`: only the private and the default public registry decide it. */
export async function healthOf(registries: Iterable<Registry>, signal: AbortSignal) {
  const headers = { 'accept-encoding': 'identity' }
  const check = async (to: Registry) => {
    const answer = await to.ask({ ...pingQuestion, headers, signal })
    discard(answer)
    return answer
  }
  const answers = await Promise.all([...registries].map(check))
  const statuses = Object.fromEntries(answers.map(({ from, status }) => [from.name, status]))
  const isWell = answers.every((one) => isUp(one) || !['proxy', 'hosted'].includes(one.from.name))
  return { statuses, isWell }
}
